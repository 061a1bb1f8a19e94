// What is behind cgroup_bootstrap.h.
#ifndef CAISSON_LIB_CGROUP_BOOTSTRAP_H_
#define CAISSON_LIB_CGROUP_BOOTSTRAP_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "caisson/cgroup_bootstrap.h"
#include "lib/cgroup/filesystem.h"

namespace caisson::cgroup {

absl::StatusOr<CgroupBootstrap> Bootstrap(
    const Filesystem& filesystem, const CgroupBootstrapOptions& options);

// `who`: "self" or a pid.
absl::StatusOr<std::vector<CgroupMembership>> Memberships(
    const Filesystem& filesystem, const std::string& who);

}  // namespace caisson::cgroup

#endif  // CAISSON_LIB_CGROUP_BOOTSTRAP_H_
