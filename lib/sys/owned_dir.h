// Directories that belong to a living process, told by a lock on themselves.
//
// A process that is about to fill a directory (an import, a writable layer)
// holds flock(2) on it. When the process dies, however it dies, the lock goes,
// and whoever gets the lock next knows that the directory is garbage.
//
// Thread-safe functions. The lock belongs to the open file description: a
// duplicate of the descriptor in another process keeps it.
#ifndef CAISSON_LIB_SYS_OWNED_DIR_H_
#define CAISSON_LIB_SYS_OWNED_DIR_H_

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "caisson/unique_fd.h"

namespace caisson::sys {

struct OwnedDir {
  std::string name;
  UniqueFd fd;  // O_RDONLY, locked exclusively
};

// 32 random hexadecimal digits.
absl::StatusOr<std::string> UniqueName();

// Makes a directory with a new name below `parent`, mode 0700, and locks it.
absl::StatusOr<OwnedDir> CreateOwnedDir(BorrowedFd parent);

// Opens and locks the directory `name`; nullopt if it is locked by somebody
// else. NOT_FOUND if there is none (any more).
absl::StatusOr<std::optional<OwnedDir>> TryOwnDir(BorrowedFd parent,
                                                  const std::string& name);

}  // namespace caisson::sys

#endif  // CAISSON_LIB_SYS_OWNED_DIR_H_
