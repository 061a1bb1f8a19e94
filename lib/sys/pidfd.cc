#include "lib/sys/pidfd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/ioctl.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "lib/base/errno_error.h"
#include "lib/sys/open.h"

namespace caisson::sys {
namespace {

// <linux/pidfd.h> of Linux 6.15; Debian 12's headers are older.
struct PidfdInfo {
  uint64_t mask;
  uint64_t cgroup_id;
  uint32_t pid;
  uint32_t tgid;
  uint32_t ppid;
  uint32_t ids[8];
  int32_t exit_code;
};
constexpr uint64_t kPidfdInfoExit = 1u << 3;
constexpr unsigned long kPidfdGetInfo = _IOWR(0xFF, 11, PidfdInfo);

}  // namespace

absl::Status SendSignal(BorrowedFd pidfd, int signal) {
  if (::syscall(SYS_pidfd_send_signal, pidfd.get(), signal, nullptr, 0) == 0) {
    return absl::OkStatus();
  }
  if (errno == ESRCH) {
    return ErrnoError(ESRCH, absl::StrCat("pidfd_send_signal(", signal, ")"),
                      {.step = "signal", .hint = "the process has ended"});
  }
  return ErrnoError(errno, absl::StrCat("pidfd_send_signal(", signal, ")"),
                    {.step = "signal"});
}

pid_t PidOf(BorrowedFd pidfd) {
  const auto info = ReadFileAt(BorrowedFd(AT_FDCWD),
                               absl::StrCat("/proc/self/fdinfo/", pidfd.get()),
                               /*resolve=*/0, /*limit=*/4096);
  if (!info.ok()) return -1;
  for (absl::string_view line : absl::StrSplit(*info, '\n')) {
    pid_t pid = -1;
    if (absl::ConsumePrefix(&line, "Pid:") && absl::SimpleAtoi(line, &pid)) {
      return pid;
    }
  }
  return -1;
}

std::optional<int> ExitStatusOf(BorrowedFd pidfd) {
  PidfdInfo info = {};
  info.mask = kPidfdInfoExit;
  if (::ioctl(pidfd.get(), kPidfdGetInfo, &info) != 0 ||
      (info.mask & kPidfdInfoExit) == 0) {
    return std::nullopt;
  }
  return info.exit_code;
}

}  // namespace caisson::sys
