// Directories whose content is believed: nobody but the caller may write or
// look there. Thread-safe functions.
#ifndef CAISSON_LIB_SYS_PRIVATE_DIR_H_
#define CAISSON_LIB_SYS_PRIVATE_DIR_H_

#include <sys/types.h>

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/unique_fd.h"

namespace caisson::sys {

// `path` without superfluous slashes: one at the end would make open(2) follow
// a symbolic link. INVALID_ARGUMENT, naming `option`, unless it is absolute and
// has neither "." nor "..".
absl::StatusOr<std::string> CleanPath(const std::string& path,
                                      absl::string_view option);

// Who reports, for errors.
struct PrivateDirUse {
  absl::string_view option;  // "IdRangePoolOptions.directory"
  absl::string_view step;    // "ids.state"
};

// PERMISSION_DENIED unless `fd` belongs to the caller and is accessible to
// nobody else; FAILED_PRECONDITION unless it is a file of `type` (S_IFDIR,
// S_IFREG).
absl::Status CheckPrivate(BorrowedFd fd, const std::string& path, mode_t type,
                          const PrivateDirUse& use);

// Opens the directory, which may be no symbolic link, and makes it with mode
// 0700 if it is missing (and what is missing above with 0755).
absl::StatusOr<UniqueFd> OpenOrMakePrivateDir(const std::string& path,
                                              const PrivateDirUse& use);
// The same without making it.
absl::StatusOr<UniqueFd> OpenPrivateDir(const std::string& path,
                                        const PrivateDirUse& use);

}  // namespace caisson::sys

#endif  // CAISSON_LIB_SYS_PRIVATE_DIR_H_
