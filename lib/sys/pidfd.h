// Process descriptors. Thread-safe.
#ifndef CAISSON_LIB_SYS_PIDFD_H_
#define CAISSON_LIB_SYS_PIDFD_H_

#include <sys/types.h>

#include <optional>

#include "absl/status/status.h"
#include "caisson/unique_fd.h"

namespace caisson::sys {

// pidfd_send_signal(2). NOT_FOUND if the process has ended.
absl::Status SendSignal(BorrowedFd pidfd, int signal);

// The process id in the caller's pid namespace, from /proc/self/fdinfo; -1 if
// the process was reaped or is not visible there.
pid_t PidOf(BorrowedFd pidfd);

// The wait status of a process that has ended and was reaped, as long as the
// descriptor is open: PIDFD_GET_INFO with PIDFD_INFO_EXIT, Linux 6.15. nullopt
// where the kernel cannot tell.
std::optional<int> ExitStatusOf(BorrowedFd pidfd);

}  // namespace caisson::sys

#endif  // CAISSON_LIB_SYS_PIDFD_H_
