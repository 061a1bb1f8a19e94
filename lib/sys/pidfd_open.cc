#include "lib/sys/pidfd_open.h"

#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"

namespace caisson::sys {

absl::StatusOr<UniqueFd> OpenPidfd(pid_t pid) {
  // The kernel sets close-on-exec.
  UniqueFd fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (fd.valid()) return fd;
  return ErrnoError(errno, absl::StrCat("pidfd_open(", pid, ")"),
                    {.step = "pidfd"});
}

}  // namespace caisson::sys
