// Groups inside of groups, and giving a group away.
#ifndef CAISSON_LIB_CGROUP_CHILD_H_
#define CAISSON_LIB_CGROUP_CHILD_H_

#include <sys/types.h>

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "caisson/cgroup.h"
#include "lib/cgroup/group.h"

namespace caisson::cgroup {

// As Cgroup::CreateChild().
absl::StatusOr<std::unique_ptr<Group>> CreateChild(
    const Group& parent, const CgroupOptions& options);

// As Cgroup::Delegate().
absl::Status Delegate(const Group& group, uid_t user, gid_t gid);

}  // namespace caisson::cgroup

#endif  // CAISSON_LIB_CGROUP_CHILD_H_
