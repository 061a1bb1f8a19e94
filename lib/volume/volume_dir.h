// The files of one volume; doc/volumes.md. Thread-safe functions on a
// descriptor of its directory.
#ifndef CAISSON_LIB_VOLUME_VOLUME_DIR_H_
#define CAISSON_LIB_VOLUME_VOLUME_DIR_H_

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/unique_fd.h"
#include "caisson/volume.h"

namespace caisson::volume {

inline constexpr char kData[] = "data";

// Fills the empty directory `dir`, and syncs it.
absl::Status MakeVolume(BorrowedFd dir, const VolumeInfo& info, uid_t uid,
                        gid_t gid);

// The record, without users and path.
absl::StatusOr<VolumeInfo> ReadVolume(BorrowedFd dir, absl::string_view name);

// A new file in `uses`, locked; `name` gets its name. With the store's lock
// held.
absl::StatusOr<UniqueFd> AddUse(BorrowedFd uses, const VolumeUser& user,
                                std::string& name);
absl::StatusOr<UniqueFd> OpenUses(BorrowedFd dir);
// Removes the file unless a duplicate of its lock lives.
void EndUse(BorrowedFd uses, const std::string& name);

// A hold, which lasts until it is dropped, and survives a power failure. With
// the store's lock held; dropping one needs none.
absl::Status AddHold(BorrowedFd dir, const std::string& hold,
                     const std::string& user);
absl::Status DropHold(BorrowedFd dir, const std::string& hold);

enum class DeadUses {
  kKeep,
  kRemove,  // with the store's lock held
};
// And those who hold it.
absl::StatusOr<std::vector<VolumeUser>> LiveUsers(BorrowedFd dir,
                                                  DeadUses dead);

// Opens the data (O_PATH), after the copy-up that VolumeUse::OpenData() speaks
// of; `copy` as VolumeUseOptions has it.
absl::StatusOr<UniqueFd> OpenData(BorrowedFd dir, BorrowedFd covered,
                                  bool copy);

// Finishes or removes what a copy-up left that nobody is doing any more.
absl::Status RecoverCopy(BorrowedFd dir);

}  // namespace caisson::volume

#endif  // CAISSON_LIB_VOLUME_VOLUME_DIR_H_
