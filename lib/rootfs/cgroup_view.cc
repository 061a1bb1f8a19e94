#include "lib/rootfs/cgroup_view.h"

#include "absl/strings/str_cat.h"
#include "lib/base/status_macros.h"

namespace caisson::rootfs {

// Clones of the directories rather than new mounts of the hierarchies: these
// would need a superblock each, and all controllers by name.
absl::StatusOr<std::vector<NamedMount>> MountV1Groups(
    const sys::MountExecutor& mounts, const Scratch& scratch,
    const MountContext& context, bool writable) {
  std::vector<NamedMount> views;
  if (context.v1_groups.empty()) return views;
  RETURN_IF_ERROR(
      scratch.MakeCgroupDirectories(context.v1_groups, context.own_cgroup2));
  mount_attr attributes = {
      .attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC,
      .propagation = MS_PRIVATE};
  if (!writable) attributes.attr_set |= MOUNT_ATTR_RDONLY;
  for (const V1Group& group : context.v1_groups) {
    const std::string what = absl::StrCat("control group, ", group.hierarchy);
    NamedMount& view = views.emplace_back();
    view.name = group.hierarchy;
    ASSIGN_OR_RETURN(view.mount,
                     sys::CloneHostMount(mounts, group.directory, "",
                                         /*recursive=*/false, what));
    RETURN_IF_ERROR(sys::SetMountAttributes(
        mounts, view.mount.borrow(), attributes, /*recursive=*/false, what));
  }
  return views;
}

}  // namespace caisson::rootfs
