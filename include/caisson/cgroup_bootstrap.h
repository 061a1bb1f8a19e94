// Getting a place for control groups, and finding out where processes are.
//
// Version 2 does not let a group that has processes give controllers to its
// children (the no-internal-process rule). A host that was put into a group of
// its own, by a container engine or by systemd with Delegate=yes, has to get
// out of its children's way first:
//
//   absl::StatusOr<caisson::CgroupBootstrap> place =
//       caisson::BootstrapCgroups({});
//   auto parent = caisson::CgroupParent::Open({.path = place->path});
//
// This moves the calling process, so it is never done without being asked for.
#ifndef CAISSON_CGROUP_BOOTSTRAP_H_
#define CAISSON_CGROUP_BOOTSTRAP_H_

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "caisson/cgroup_layout.h"

namespace caisson {

struct CgroupBootstrapOptions {
  // The child group for the processes; it is made if it does not exist.
  std::string leaf = "host";
  // What children shall be able to limit; empty: all that the group is offered.
  std::vector<CgroupController> controllers;
  // On a host of systemd: also in a group that systemd did not give away, and
  // so may move or remove what others do there, or that had it given away
  // before systemd 251, whose mark only root can read.
  bool unsafe_even_if_not_delegated = false;
};

struct CgroupBootstrap {
  // For CgroupParentOptions::path: the group that the caller was in before it
  // was moved to the leaf, by this call or by one before.
  std::string path;
  // Where this call moved its processes; empty if none had to be moved.
  std::string leaf;
  std::vector<pid_t> moved;
  std::vector<CgroupController> enabled;  // by this call
};

// In the v2 group of the calling process: moves all its processes, the caller's
// and those of others, to a leaf and enables the controllers. Nothing is moved
// if they are enabled already, or if it is the root of the hierarchy, to which
// the rule does not apply. After a failure the processes are back, with the
// children that they have got meanwhile, and what this call enabled is off; it
// stays on where no process was in the way, for others may use it by then.
//
// Repeated calls with the same leaf are harmless: a caller that is in a group
// of that name, below one whose controllers are enabled, counts as moved.
// Concurrent calls wait for each other (flock(2) of the group's directory, for
// 10 seconds at most).
//
// Version 1 has no such rule: on a host without v2 the result is the caller's
// group in the first hierarchy, and nothing is changed.
//
// FAILED_PRECONDITION, with what to do, for a controller that the group is not
// offered, and before anything is changed in a group that systemd did not give
// away (CgroupLayout::own_group_delegated): there the kernel would let root do
// all this. PERMISSION_DENIED where the kernel does not let the caller.
absl::StatusOr<CgroupBootstrap> BootstrapCgroups(
    const CgroupBootstrapOptions& options);

// Where a process is in one hierarchy.
struct CgroupMembership {
  CgroupVersion version = CgroupVersion::kV2;
  std::string name;  // of a named v1 hierarchy
  std::vector<CgroupController> controllers;
  std::string path;  // as /proc/PID/cgroup shows it to the caller
  // The group's directory; empty if no mount shows it.
  std::string directory;
};

// Of every mounted hierarchy, version 2 first. `pid` as the caller's PID
// namespace counts. NOT_FOUND if there is no such process. Thread-safe.
absl::StatusOr<std::vector<CgroupMembership>> CgroupMembershipsOf(pid_t pid);

}  // namespace caisson

#endif  // CAISSON_CGROUP_BOOTSTRAP_H_
