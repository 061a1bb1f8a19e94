// From a PID to a process descriptor. Thread-safe.
#ifndef CAISSON_LIB_SYS_PIDFD_OPEN_H_
#define CAISSON_LIB_SYS_PIDFD_OPEN_H_

#include <sys/types.h>

#include "absl/status/statusor.h"
#include "caisson/unique_fd.h"

namespace caisson::sys {

// pidfd_open(2). NOT_FOUND (ESRCH) if there is no such process. The PID may
// have been reused since the caller learnt it: verify after opening that the
// process is the one that was meant.
absl::StatusOr<UniqueFd> OpenPidfd(pid_t pid);

}  // namespace caisson::sys

#endif  // CAISSON_LIB_SYS_PIDFD_OPEN_H_
