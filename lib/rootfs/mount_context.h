// What RootFs::AddTo() and a launcher tell each other.
#ifndef CAISSON_LIB_ROOTFS_MOUNT_CONTEXT_H_
#define CAISSON_LIB_ROOTFS_MOUNT_CONTEXT_H_

#include <string>
#include <vector>

#include "caisson/unique_fd.h"
#include "lib/plan/builder.h"

namespace caisson {

// A group of the child in a v1 hierarchy.
struct V1Group {
  std::string hierarchy;                 // "cpu,cpuacct": a directory's name
  std::vector<std::string> controllers;  // "cpu", "cpuacct"
  BorrowedFd directory;                  // borrowed for the duration of AddTo()
};

// The child in which the operations will run. It has a mount namespace of its
// own, all capabilities in the user namespace that owns it, umask 0, and has
// entered its other namespaces and its control group.
struct MountContext {
  // Its "/" is a copy of the launcher's: a tmpfs with nothing but a full /proc
  // and /sys. Otherwise it is a copy of the host's mounts.
  bool isolated_launcher = true;
  // It is in a user namespace other than the launcher's. A namespace that is
  // not new is taken to belong to the launcher's then, so that its /proc, /sys
  // or /dev/mqueue can only be had from the launcher, or not at all.
  bool user_namespace = false;
  bool new_pid_namespace = true;
  bool new_net_namespace = true;
  bool new_ipc_namespace = true;
  bool new_cgroup_namespace = true;
  // It was moved into a cgroup v2 group of its own before it got its cgroup
  // namespace: /sys/fs/cgroup then shows this group and nothing above it.
  // Without any group, /sys/fs/cgroup is an empty directory.
  bool own_cgroup2 = false;
  // The same for v1: the hierarchies in which it has a group of its own.
  std::vector<V1Group> v1_groups;
  // RootFsSlots::devpts is wanted; false saves a system call.
  bool terminal = true;
  // The child waits here for its host (plan::kAwait) when everything is
  // mounted, in its root but before that is "/". Invalid: it does not.
  plan::Slot await;
};

// Descriptors of the child, valid after the last operation of AddTo().
struct RootFsSlots {
  plan::Slot root;
  plan::Slot proc;  // unless OwnMounts leaves it out
  plan::Slot dev;
  plan::Slot devpts;  // its "ptmx" makes terminals; only with
                      // MountContext::terminal
};

}  // namespace caisson

#endif  // CAISSON_LIB_ROOTFS_MOUNT_CONTEXT_H_
