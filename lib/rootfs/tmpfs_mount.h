// One file system in memory. Thread-compatible.
#ifndef CAISSON_LIB_ROOTFS_TMPFS_MOUNT_H_
#define CAISSON_LIB_ROOTFS_TMPFS_MOUNT_H_

#include <string>

#include "absl/status/statusor.h"
#include "caisson/mount.h"
#include "caisson/unique_fd.h"
#include "lib/rootfs/scratch.h"
#include "lib/sys/mount.h"

namespace caisson::rootfs {

// A detached mount of a new tmpfs, called `source` in mount tables. It begins
// with a copy of the directory `content`, if that is valid.
absl::StatusOr<UniqueFd> MountTmpfs(const sys::MountExecutor& mounts,
                                    const TmpfsMount& wanted,
                                    const char* source, const Owner& owner,
                                    const std::string& label,
                                    BorrowedFd content);

}  // namespace caisson::rootfs

#endif  // CAISSON_LIB_ROOTFS_TMPFS_MOUNT_H_
