// Groups that outlive their owner: told from those that a dead owner left by a
// lock (flock(2)) on their own directories.
#ifndef CAISSON_LIB_CGROUP_LIFELINES_H_
#define CAISSON_LIB_CGROUP_LIFELINES_H_

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "caisson/unique_fd.h"
#include "lib/cgroup/filesystem.h"
#include "lib/cgroup/group.h"

namespace caisson::cgroup {

// Locks without waiting; false if somebody else holds it.
absl::StatusOr<bool> TryLock(const Dir& dir);

// Locks the group's directories; duplicates of the descriptors have the lock.
absl::StatusOr<std::vector<UniqueFd>> LockGroup(const Group& group);

// The group whose directories, one in each hierarchy, these are.
absl::StatusOr<std::unique_ptr<Group>> AttachGroup(
    std::vector<UniqueFd> lifelines);

// Which child groups of an owner's directories, which the caller has locked,
// are locked.
absl::StatusOr<std::set<std::string>> LockedChildren(
    const Filesystem& filesystem, const std::vector<Member>& owner);
// The child group of that name.
absl::StatusOr<std::vector<Member>> OpenChild(const Filesystem& filesystem,
                                              const std::vector<Member>& owner,
                                              const std::string& name);

}  // namespace caisson::cgroup

#endif  // CAISSON_LIB_CGROUP_LIFELINES_H_
