// Small operations on directories, by descriptor. Thread-safe.
#ifndef CAISSON_LIB_SYS_DIRECTORY_H_
#define CAISSON_LIB_SYS_DIRECTORY_H_

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/unique_fd.h"

namespace caisson::sys {

// The names in a directory, without "." and "..", unsorted.
absl::StatusOr<std::vector<std::string>> ListDirectory(BorrowedFd dir);

// Makes the directory `name` with exactly `mode`, whatever the umask.
// ALREADY_EXISTS if there is something of that name.
absl::Status MakeDirectory(BorrowedFd parent, const std::string& name,
                           mode_t mode);

// Opens the directory `name`, making it with `mode` if it is missing.
absl::StatusOr<UniqueFd> OpenOrMakeDirectory(BorrowedFd parent,
                                             const std::string& name,
                                             mode_t mode);

// Opens the directory `path`, following no symbolic links.
absl::StatusOr<UniqueFd> OpenDirectory(BorrowedFd parent,
                                       const std::string& path);

// renameat2(RENAME_NOREPLACE); ALREADY_EXISTS if `to` exists.
absl::Status RenameNoReplace(BorrowedFd from_dir, const std::string& from,
                             BorrowedFd to_dir, const std::string& to);

// fsync(2) of a directory: the names in it survive a power failure. `what`
// names it in errors.
absl::Status SyncDirectory(BorrowedFd dir, absl::string_view what);

}  // namespace caisson::sys

#endif  // CAISSON_LIB_SYS_DIRECTORY_H_
