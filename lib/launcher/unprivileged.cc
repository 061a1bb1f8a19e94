#include "lib/launcher/unprivileged.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"

namespace caisson::launcher {
namespace {

absl::Status NotThere(absl::string_view what,
                      const LauncherIdentity& identity) {
  return absl::FailedPreconditionError(absl::StrCat(
      what, " does not exist in the launcher's user namespace",
      identity.why_single.empty()
          ? ", which Launcher::identity() describes"
          : absl::StrCat(", which has root only: ", identity.why_single)));
}

absl::Status CheckId(absl::string_view kind, uint32_t id,
                     const std::vector<IdRange>& map, const std::string& spec,
                     const LauncherIdentity& identity) {
  if (IsMapped(map, id)) return absl::OkStatus();
  return NotThere(
      absl::StrCat("ProcessSpec.user ", Quoted(spec), ": ", kind, " ", id),
      identity);
}

}  // namespace

bool IsMapped(const std::vector<IdRange>& map, uint32_t inside) {
  for (const IdRange& range : map) {
    if (inside >= range.inside && inside - range.inside < range.count) {
      return true;
    }
  }
  return false;
}

absl::Status CheckUser(const std::string& spec, const User& user,
                       const LauncherIdentity& identity) {
  if (!identity.own_user_namespace) return absl::OkStatus();
  RETURN_IF_ERROR(CheckId("user", user.uid, identity.users, spec, identity));
  RETURN_IF_ERROR(CheckId("group", user.gid, identity.groups, spec, identity));
  if (!identity.setgroups) {
    if (spec.empty() || user.groups.size() <= 1) return absl::OkStatus();
    return absl::FailedPreconditionError(absl::StrCat(
        "ProcessSpec.user ", Quoted(spec),
        ": the root's /etc/group puts the user into further groups, which this "
        "launcher cannot give (name the group, \"",
        user.uid, ":", user.gid, "\", to do without): ", identity.why_single));
  }
  for (const gid_t group : user.groups) {
    RETURN_IF_ERROR(CheckId("group", group, identity.groups, spec, identity));
  }
  return absl::OkStatus();
}

absl::Status CheckMapped(const IdRange& ids, const LauncherIdentity& identity) {
  if (!identity.own_user_namespace) return absl::OkStatus();
  const uint64_t last = uint64_t{ids.outside} + ids.count - 1;
  for (const auto* map : {&identity.users, &identity.groups}) {
    // Ranges of the map follow each other from 0 on, so its ends are enough.
    if (last <= UINT32_MAX && IsMapped(*map, ids.outside) &&
        IsMapped(*map, static_cast<uint32_t>(last))) {
      continue;
    }
    return NotThere(
        absl::StrCat("IdRange: outside ", ids.outside, " to ", last,
                     map == &identity.users ? " (users)" : " (groups)"),
        identity);
  }
  return absl::OkStatus();
}

std::string MapBelow(const IdRange& ids, const std::vector<IdRange>& above) {
  if (above.empty()) {
    return absl::StrCat(ids.inside, " ", ids.outside, " ", ids.count, "\n");
  }
  std::string text;
  for (const IdRange& range : above) {
    const uint32_t first = std::max(ids.outside, range.inside);
    const uint64_t end = std::min(uint64_t{ids.outside} + ids.count,
                                  uint64_t{range.inside} + range.count);
    if (first >= end) continue;
    absl::StrAppend(&text, ids.inside + (first - ids.outside), " ", first, " ",
                    end - first, "\n");
  }
  return text;
}

}  // namespace caisson::launcher
