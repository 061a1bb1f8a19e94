// What the kernel says of the mount that a file lies in: proc(5), mountinfo.
// Thread-safe.
#ifndef CAISSON_LIB_SYS_MOUNT_INFO_H_
#define CAISSON_LIB_SYS_MOUNT_INFO_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/unique_fd.h"

namespace caisson::sys {

struct MountInfo {
  std::string mount_point;
  std::string type;  // "ext4"
  bool shared = false;
  bool slave = false;
};

// The line of mount `id` in the text of a mountinfo file; nullopt without one.
std::optional<MountInfo> FindMountInfo(absl::string_view text, uint64_t id);

// statx(2), STATX_MNT_ID (Linux 5.8). `what` names the file in errors.
absl::StatusOr<uint64_t> MountIdOf(BorrowedFd file, absl::string_view what);

// NOT_FOUND for a mount that is in no mount namespace, or in another one.
// Reads the whole table: not for every start.
absl::StatusOr<MountInfo> MountInfoOf(BorrowedFd file, absl::string_view what);

}  // namespace caisson::sys

#endif  // CAISSON_LIB_SYS_MOUNT_INFO_H_
