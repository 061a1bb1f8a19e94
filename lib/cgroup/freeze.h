// Stopping and continuing the processes of a group: cgroup.freeze of v2, the
// freezer controller of v1.
#ifndef CAISSON_LIB_CGROUP_FREEZE_H_
#define CAISSON_LIB_CGROUP_FREEZE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "caisson/cgroup.h"
#include "lib/base/deadline.h"
#include "lib/cgroup/filesystem.h"

namespace caisson::cgroup {

// The state of one directory; of v1 one of a freezer hierarchy. On v2, that a
// group above is being frozen is found only by looking there.
enum class GroupsAbove { kLook, kSkip };
absl::StatusOr<CgroupFreezeState> FreezeStateOf(const Filesystem& filesystem,
                                                CgroupVersion version,
                                                const Dir& group,
                                                GroupsAbove above);

// Returns when all processes of the group and its descendants are stopped. The
// group is thawed again if they are not in time (DEADLINE_EXCEEDED).
absl::Status FreezeGroup(const Filesystem& filesystem, CgroupVersion version,
                         const Dir& group, const Deadline& deadline);

// Returns when the group is not stopped any more. FAILED_PRECONDITION names the
// ancestor that keeps it frozen.
absl::Status ThawGroup(const Filesystem& filesystem, CgroupVersion version,
                       const Dir& group, const Deadline& deadline);

// v1: thaws the group and all descendants, whoever froze them, so that those
// that were killed can die. Best effort.
void ThawTreeV1(const Filesystem& filesystem, const Dir& group);

// v1: which group above keeps this one frozen, for people; empty if none does.
std::string FrozenAncestorV1(const Filesystem& filesystem, const Dir& group);

}  // namespace caisson::cgroup

#endif  // CAISSON_LIB_CGROUP_FREEZE_H_
