// Killing everything in a group, whatever it does meanwhile.
#ifndef CAISSON_LIB_CGROUP_KILL_H_
#define CAISSON_LIB_CGROUP_KILL_H_

#include "absl/status/status.h"
#include "lib/base/deadline.h"
#include "lib/cgroup/filesystem.h"

namespace caisson::cgroup {

// What keeps the processes of a group from making new ones while they are
// killed one by one. Each directory may be null.
struct ForkBarrier {
  const Dir* pids = nullptr;     // v1: the group in the pids hierarchy
  const Dir* freezer = nullptr;  // v1: the group in the freezer hierarchy
  const Dir* unified = nullptr;  // v2: the group
};

// v2: cgroup.kill, which also catches processes that are being forked, then
// waits for "populated 0" in cgroup.events. What cgroup.kill does not end, a
// process whose first thread has ended before the others, is killed by pidfd.
// The group is thawed, and so is that of the freezer, if it is in one.
absl::Status KillUnified(const Filesystem& filesystem, const Dir& group,
                         const ForkBarrier& barrier, const Deadline& deadline);

// v1: SIGKILL to each process in cgroup.procs of `group` and its descendants,
// until there is none. Waits for the ends of processes by pidfd. A PID that was
// reused between the listing and the signal is never hit.
absl::Status KillListed(const Filesystem& filesystem, const Dir& group,
                        const ForkBarrier& barrier, const Deadline& deadline);

// Sends a signal to each process in cgroup.procs of `group` and its
// descendants. A PID that was reused between the listing and the signal is
// never hit; what is forked meanwhile may be missed.
absl::Status SignalListed(const Filesystem& filesystem, const Dir& group,
                          int signal);

}  // namespace caisson::cgroup

#endif  // CAISSON_LIB_CGROUP_KILL_H_
