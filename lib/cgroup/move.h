// Moving a process that runs into a group.
#ifndef CAISSON_LIB_CGROUP_MOVE_H_
#define CAISSON_LIB_CGROUP_MOVE_H_

#include <vector>

#include "absl/status/status.h"
#include "caisson/unique_fd.h"
#include "lib/cgroup/filesystem.h"
#include "lib/cgroup/group.h"

namespace caisson::cgroup {

// Moves the process with all its threads into each directory of `members`; back
// to where it was if one of them refuses it. See Cgroup::MoveIn().
absl::Status MoveProcess(const Filesystem& filesystem,
                         const std::vector<Member>& members, BorrowedFd pidfd);

}  // namespace caisson::cgroup

#endif  // CAISSON_LIB_CGROUP_MOVE_H_
