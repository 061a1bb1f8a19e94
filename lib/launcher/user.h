// "user[:group]" as the root's passwd and group files understand it.
#ifndef CAISSON_LIB_LAUNCHER_USER_H_
#define CAISSON_LIB_LAUNCHER_USER_H_

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace caisson::launcher {

struct User {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;  // supplementary; `gid` first
  std::string home = "/";
};

// Resolves `spec` ("", "user", "user:group", names or numbers) against the
// texts of /etc/passwd and /etc/group, either of which may be empty.
//
// As Docker does: a number needs no entry; without a group the user's own (or
// 0, for a number without an entry) and the groups that list the user apply;
// with one, only that. Unlike Docker, nothing is guessed: a name that is not
// found is NOT_FOUND, a number above 2^32 - 2, a sign, a space or a trailing
// character is INVALID_ARGUMENT, and a malformed line, one with a NUL or a
// reference to NIS ("+name") matches nothing. Of several lines with a name or
// id the first counts. More groups than a process can have are
// FAILED_PRECONDITION.
absl::StatusOr<User> ResolveUser(absl::string_view spec,
                                 absl::string_view passwd,
                                 absl::string_view group);

// Adds `names`, group names or numbers as above, to user.groups. Each stands
// there once.
absl::Status AddGroups(const std::vector<std::string>& names,
                       absl::string_view group, User& user);

}  // namespace caisson::launcher

#endif  // CAISSON_LIB_LAUNCHER_USER_H_
