// A group found again by its place, for those who know a group without owning
// it. The place names a random directory of its CgroupParent, so a group that
// was destroyed is not mistaken for a later one.
#ifndef CAISSON_LIB_CGROUP_ATTACH_H_
#define CAISSON_LIB_CGROUP_ATTACH_H_

#include <sys/types.h>

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "caisson/cgroup.h"

namespace caisson::cgroup {

// The groups that a process is in, in all hierarchies that can be written to;
// those that the mounts here do not show are left out.
absl::StatusOr<std::vector<CgroupPath>> PathsOf(pid_t pid);

// As Cgroup::OpenEntry(). Whoever is in the group now entered it after the last
// Kill(), so CgroupPath::killed of that time still holds.
// FAILED_PRECONDITION if it was destroyed.
absl::StatusOr<CgroupEntry> OpenEntry(const std::vector<CgroupPath>& group);

// As Cgroup::FreezeState(). FAILED_PRECONDITION if it was destroyed.
absl::StatusOr<CgroupFreezeState> FreezeState(
    const std::vector<CgroupPath>& group);

// FAILED_PRECONDITION if the group is frozen: what enters it would stop.
absl::Status CheckNotFrozen(const std::vector<CgroupPath>& group);

// As Cgroup::OomKills().
absl::StatusOr<int64_t> OomKills(const std::vector<CgroupPath>& group);

}  // namespace caisson::cgroup

#endif  // CAISSON_LIB_CGROUP_ATTACH_H_
