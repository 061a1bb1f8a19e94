// What a launcher in a user namespace of its own cannot do, said before a
// process exists.
#ifndef CAISSON_LIB_LAUNCHER_UNPRIVILEGED_H_
#define CAISSON_LIB_LAUNCHER_UNPRIVILEGED_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "caisson/id_range.h"
#include "caisson/launcher_options.h"
#include "lib/launcher/user.h"

namespace caisson::launcher {

// Whether the map has `inside`.
bool IsMapped(const std::vector<IdRange>& map, uint32_t inside);

// FAILED_PRECONDITION if `user`, which ProcessSpec.user `spec` became, has ids
// that do not exist in the launcher's user namespace. Groups that only the
// root's /etc/group gives to a user that the spec does not name are no error
// where no supplementary groups can be had.
absl::Status CheckUser(const std::string& spec, const User& user,
                       const LauncherIdentity& identity);

// The same if a user namespace below the launcher's cannot map `ids`.
absl::Status CheckMapped(const IdRange& ids, const LauncherIdentity& identity);

// The text of a map of `ids`, in as many lines as the kernel wants: each has to
// lie in one line of the map above (empty: that of all ids).
std::string MapBelow(const IdRange& ids, const std::vector<IdRange>& above);

}  // namespace caisson::launcher

#endif  // CAISSON_LIB_LAUNCHER_UNPRIVILEGED_H_
