// What the container sees of its groups in v1 hierarchies. Thread-compatible.
#ifndef CAISSON_LIB_ROOTFS_CGROUP_VIEW_H_
#define CAISSON_LIB_ROOTFS_CGROUP_VIEW_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "caisson/unique_fd.h"
#include "lib/rootfs/mount_context.h"
#include "lib/rootfs/scratch.h"
#include "lib/sys/mount.h"

namespace caisson::rootfs {

// A mount for a directory of /sys/fs/cgroup.
struct NamedMount {
  std::string name;
  UniqueFd mount;
};

// Makes the directories of /sys/fs/cgroup in `scratch`, and a detached mount
// for each of context.v1_groups. Nothing without such groups.
absl::StatusOr<std::vector<NamedMount>> MountV1Groups(
    const sys::MountExecutor& mounts, const Scratch& scratch,
    const MountContext& context, bool writable);

}  // namespace caisson::rootfs

#endif  // CAISSON_LIB_ROOTFS_CGROUP_VIEW_H_
