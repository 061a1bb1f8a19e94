// The id maps of a launcher's own user namespace: which ids the host's user may
// have there, and how they get there.
//
// user_namespaces(7), subuid(5), newuidmap(1).
#ifndef CAISSON_LIB_LAUNCHER_ID_MAPS_H_
#define CAISSON_LIB_LAUNCHER_ID_MAPS_H_

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/id_range.h"
#include "caisson/launcher_options.h"

namespace caisson::launcher {

// The files, so that tests can have others.
struct IdFiles {
  std::string passwd = "/etc/passwd";
  std::string subuid = "/etc/subuid";
  std::string subgid = "/etc/subgid";
  // Where newuidmap and newgidmap are looked for.
  std::vector<std::string> directories = {"/usr/bin", "/bin", "/usr/local/bin",
                                          "/run/wrappers/bin"};
};

// What the user may map beside the own id.
struct Subordinates {
  std::vector<IdRange> users;   // `outside` and `count`
  std::vector<IdRange> groups;  // the same
  std::string newuidmap;        // path
  std::string newgidmap;
};

// Looks for all of it. FAILED_PRECONDITION says what is missing and how to get
// it. Starts no program.
absl::StatusOr<Subordinates> FindSubordinates(uid_t uid, const IdFiles& files);

// The names that passwd(5) text `passwd` has for `uid`.
std::vector<std::string> NamesOf(absl::string_view passwd, uid_t uid);

// The ranges that subuid(5) text `text` gives to one of `owners` (names, and
// the number as text). Malformed lines give nothing.
std::vector<IdRange> ParseSubordinateIds(
    absl::string_view text, const std::vector<std::string>& owners);

// Root inside is `own`; `others` follow from 1 on.
std::vector<IdRange> BuildMap(uint32_t own, const std::vector<IdRange>& others);

// Writes the maps of process `pid`, which was born in a new user namespace: its
// own ids alone, or by newuidmap and newgidmap. Result: what was written.
// Blocks while the two run.
absl::StatusOr<LauncherIdentity> MapOwnIds(pid_t pid);
absl::StatusOr<LauncherIdentity> MapSubordinateIds(
    pid_t pid, const Subordinates& subordinates);

// Of a launcher that has its maps already.
absl::StatusOr<LauncherIdentity> IdentityOf(pid_t pid);

// What /proc/PID/uid_map says; see user_namespaces(7).
std::vector<IdRange> ParseMap(absl::string_view text);

}  // namespace caisson::launcher

#endif  // CAISSON_LIB_LAUNCHER_ID_MAPS_H_
