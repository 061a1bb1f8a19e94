// Extended attributes of any file by directory and name, following no symbolic
// link: what l*xattr(2) is to paths. Thread-safe.
//
// Uses setxattrat(2) and its kin (Linux 6.13). Older kernels have no such call;
// there the path goes through /proc/self/fd, which must be mounted.
#ifndef CAISSON_LIB_SYS_XATTR_H_
#define CAISSON_LIB_SYS_XATTR_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/unique_fd.h"

namespace caisson::sys {

using Xattr = std::pair<std::string, std::string>;

// setxattr of the file `name` in `dir` without following it; 0 or an errno.
int SetXattrAt(BorrowedFd dir, const std::string& name, const std::string& key,
               absl::string_view value);

// All attributes of the file `name` in `dir`; none where the file system has no
// notion of them. The error names `name`.
absl::StatusOr<std::vector<Xattr>> ReadXattrsAt(BorrowedFd dir,
                                                const std::string& name);

// The same for an open file (not O_PATH); `what` names it in errors.
absl::StatusOr<std::vector<Xattr>> ReadXattrs(BorrowedFd fd,
                                              absl::string_view what);

}  // namespace caisson::sys

#endif  // CAISSON_LIB_SYS_XATTR_H_
