// Whose hierarchies these are.
#include <fcntl.h>
#include <unistd.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/cgroup/layout.h"

namespace caisson::cgroup {
namespace {

bool IsWritable(const Dir& dir) {
  for (const char* file : {".", "cgroup.procs", "cgroup.subtree_control"}) {
    if (::faccessat(dir.fd.get(), file, W_OK, AT_EACCESS) != 0) return false;
  }
  return true;
}

}  // namespace

void DetectManager(const Filesystem& filesystem, const DetectedLayout& detected,
                   CgroupLayout& layout) {
  layout.systemd = filesystem.SystemdBooted();
  if (!layout.hierarchies.empty() &&
      layout.hierarchies[0].version == CgroupVersion::kV2) {
    const CgroupHierarchy& v2 = layout.hierarchies[0];
    const auto below = PathBelowMount(v2, v2.own_path);
    const auto mount = filesystem.OpenMount(detected.mounts[0]);
    if (below.ok() && mount.ok()) {
      const auto dir =
          filesystem.OpenDir(mount->borrow(), v2.mount_point,
                             below->empty() ? std::string(".") : *below);
      layout.own_group_writable = dir.ok() && IsWritable(*dir);
      layout.own_group_delegated = dir.ok() && filesystem.IsDelegated(*dir);
    }
  }
  layout.advice = Advice(layout);
}

std::string Advice(const CgroupLayout& layout) {
  if (layout.hierarchies.empty()) return "mount -t cgroup2 none DIR";
  const CgroupHierarchy& first = layout.hierarchies[0];
  if (!first.writable) {
    return absl::StrCat("the mount at ", Quoted(first.mount_point),
                        " is read-only: have it mounted writable");
  }
  if (first.version == CgroupVersion::kV1) return "";
  if (!layout.systemd) {
    return layout.own_group_writable
               ? ""
               : absl::StrCat(
                     "this user may not make groups in its own, ",
                     Quoted(first.own_path),
                     ": run as root, or have a group given to it (chown of "
                     "what /sys/kernel/cgroup/delegate names)");
  }
  if (layout.own_group_delegated) {
    return absl::StrCat("systemd gave ", Quoted(first.own_path),
                        " to this process: make groups below it, after "
                        "BootstrapCgroups()");
  }
  return absl::StrCat(
      "systemd manages the hierarchy and has not given ",
      Quoted(first.own_path),
      " away, so it may move or remove what others do there: start this "
      "program by systemd-run --scope -p Delegate=yes (with --user for an "
      "ordinary user), or put Delegate=yes into its unit, and make groups "
      "below its own group");
}

}  // namespace caisson::cgroup
