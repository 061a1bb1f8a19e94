// Groups that outlive their owner: told from those that a dead owner left by a
// lock (flock(2)) on a directory beside them. What is in a group sees its
// directories and could lock them, but nothing beside them.
#ifndef CAISSON_LIB_CGROUP_LIFELINES_H_
#define CAISSON_LIB_CGROUP_LIFELINES_H_

#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/unique_fd.h"
#include "lib/cgroup/filesystem.h"
#include "lib/cgroup/group.h"

namespace caisson::cgroup {

// Locks without waiting; false if somebody else holds it.
absl::StatusOr<bool> TryLock(const Dir& dir);

// The name of the directory beside group `name`.
std::string LifelineName(absl::string_view name);
// The group that a directory is beside of; nullopt for any other.
std::optional<std::string> GroupOfLifeline(absl::string_view name);

// Makes and locks the directory beside the group. It and the group's own
// directories are the lifelines.
absl::StatusOr<std::vector<UniqueFd>> LockGroup(const Filesystem& filesystem,
                                                const Group& group);

// The group whose lifelines these are.
absl::StatusOr<std::unique_ptr<Group>> AttachGroup(
    std::vector<UniqueFd> lifelines);
// The group that was at `path` and in these directories.
absl::StatusOr<std::unique_ptr<Group>> AttachGroup(
    const std::string& path, const std::vector<CgroupPath>& paths);

// Which children of an owner's directories, which the caller has locked, have a
// lifeline or are one.
absl::StatusOr<std::set<std::string>> LockedChildren(
    const Filesystem& filesystem, const std::vector<Member>& owner);
// The child group of that name.
absl::StatusOr<std::vector<Member>> OpenChild(const Filesystem& filesystem,
                                              const std::vector<Member>& owner,
                                              const std::string& name);

}  // namespace caisson::cgroup

#endif  // CAISSON_LIB_CGROUP_LIFELINES_H_
