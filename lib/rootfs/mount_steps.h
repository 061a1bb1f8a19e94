// The operations that attach a tree in the child.
#ifndef CAISSON_LIB_ROOTFS_MOUNT_STEPS_H_
#define CAISSON_LIB_ROOTFS_MOUNT_STEPS_H_

#include <string>
#include <vector>

#include "caisson/unique_fd.h"
#include "lib/plan/builder.h"
#include "lib/rootfs/cgroup_view.h"
#include "lib/rootfs/layout.h"
#include "lib/rootfs/mount_context.h"
#include "lib/rootfs/tree.h"

namespace caisson::rootfs {

// A mount whose place only exists once the child has its /proc and /sys.
struct LateMount {
  UniqueFd mount;
  Destination destination;
};

// What was built, for the plan; everything is borrowed but `v1_groups`, whose
// descriptors the plan takes.
struct TreeView {
  BorrowedFd root;
  bool root_in_scratch = false;  // Scratch::Hold()
  BorrowedFd scratch;
  const char* null_file = "";        // below `scratch`
  const char* empty_directory = "";  // the same
  bool null_is_file = false;         // not a device: to be mounted read-only
  BorrowedFd proc;  // places to mount at; only if the layout has them
  BorrowedFd sys;
  BorrowedFd proc_bind;  // what to mount there; invalid: a new one
  BorrowedFd sys_bind;
  BorrowedFd dev;  // the mount; if `pending` is empty, attached already
  bool detached_mounts = true;
  bool tty_group = true;
  bool read_only = false;                              // makes `root` read-only
  const std::vector<PendingMount>* pending = nullptr;  // /dev is the first
  const std::vector<LateMount>* late = nullptr;
  std::vector<NamedMount>* v1_groups = nullptr;
  const Layout* layout = nullptr;
};

RootFsSlots AppendMounts(const TreeView& tree, const MountContext& context,
                         plan::PlanBuilder& plan);

}  // namespace caisson::rootfs

#endif  // CAISSON_LIB_ROOTFS_MOUNT_STEPS_H_
