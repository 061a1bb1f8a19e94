// Sets limits in the directories of a group, all or none of them.
#ifndef CAISSON_LIB_CGROUP_APPLY_LIMITS_H_
#define CAISSON_LIB_CGROUP_APPLY_LIMITS_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "caisson/cgroup_limits.h"
#include "lib/cgroup/filesystem.h"
#include "lib/cgroup/group.h"

namespace caisson::cgroup {

// In a new group nothing needs to be remembered for a failure. `device_list` is
// what was set last in v1, if anything was.
absl::Status ApplyLimits(const Filesystem& filesystem, const std::string& name,
                         const std::vector<Member>& members,
                         const CgroupLimits& limits, Group::LimitMode mode,
                         std::optional<DeviceListV1>& device_list);

}  // namespace caisson::cgroup

#endif  // CAISSON_LIB_CGROUP_APPLY_LIMITS_H_
