// `linux.resources` as CgroupLimits. Pure. Thread-safe.
#ifndef CAISSON_LIB_CONTAINER_RESOURCES_H_
#define CAISSON_LIB_CONTAINER_RESOURCES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/cgroup_limits.h"
#include "lib/spec/runtime_config.h"

namespace caisson::container {

// Which version's meaning `pids.limit` 0 has: until 1.2 it is "no limit".
bool ZeroPidsAreUnlimited(absl::string_view oci_version);

// Everything but the devices. `field` names the object in errors:
// "linux.resources".
absl::StatusOr<CgroupLimits> TranslateResources(
    const std::string& field, const spec::Resources& resources,
    bool zero_pids_are_unlimited);

// Those of the document, then those that every container may use, in the order
// in which runc has them.
absl::StatusOr<CgroupDeviceRules> TranslateDeviceRules(
    const std::string& field, const std::vector<spec::DeviceRule>& rules);

}  // namespace caisson::container

#endif  // CAISSON_LIB_CONTAINER_RESOURCES_H_
