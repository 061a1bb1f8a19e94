#include "examples/oci/foreground.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "caisson/console.h"
#include "caisson/unique_fd.h"

namespace oci {
namespace {

using caisson::BorrowedFd;
using caisson::UniqueFd;

absl::Status Errno(const char* call) {
  return absl::InternalError(absl::StrCat(call, ": ", strerror(errno)));
}

// All that can be forwarded.
sigset_t Forwarded() {
  sigset_t set;
  sigfillset(&set);
  for (const int own : {SIGCHLD, SIGKILL, SIGSTOP, SIGSEGV, SIGBUS, SIGFPE,
                        SIGILL, SIGABRT, SIGTTIN, SIGTTOU, SIGPIPE, SIGURG}) {
    sigdelset(&set, own);
  }
  return set;
}

void Forward(BorrowedFd signals, const caisson::OciProcess& process,
             caisson::Console* console) {
  signalfd_siginfo info;
  while (read(signals.get(), &info, sizeof(info)) == sizeof(info)) {
    const int signal = static_cast<int>(info.ssi_signo);
    if (signal == SIGWINCH) {
      if (console != nullptr) console->Resize();
      continue;
    }
    syscall(SYS_pidfd_send_signal, process.pidfd.get(), signal, nullptr, 0);
  }
}

// Of whatever else was adopted, nothing is wanted.
absl::StatusOr<int> Collect(pid_t pid) {
  for (;;) {
    int status = 0;
    const pid_t ended = waitpid(-1, &status, 0);
    if (ended < 0 && errno == EINTR) continue;
    if (ended < 0) return Errno("waitpid");
    if (ended != pid) continue;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  }
}

}  // namespace

absl::Status BecomeItsParent() {
  const sigset_t set = Forwarded();
  sigprocmask(SIG_BLOCK, &set, nullptr);
  if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0) return absl::OkStatus();
  return Errno("prctl(PR_SET_CHILD_SUBREAPER)");
}

absl::StatusOr<int> WaitInForeground(const caisson::OciProcess& process) {
  const sigset_t set = Forwarded();
  const UniqueFd signals(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals.valid()) return Errno("signalfd");
  std::unique_ptr<caisson::Console> console;
  if (process.terminal.valid()) {
    console = std::make_unique<caisson::Console>(process.terminal.borrow(),
                                                 BorrowedFd(STDIN_FILENO),
                                                 BorrowedFd(STDOUT_FILENO));
    console->Resize();
  }
  for (;;) {
    std::vector<pollfd> polls = {{process.pidfd.get(), POLLIN, 0},
                                 {signals.get(), POLLIN, 0}};
    const size_t first = polls.size();
    if (console != nullptr) console->Watch(polls);
    if (poll(polls.data(), polls.size(), -1) < 0 && errno != EINTR) {
      return Errno("poll");
    }
    if (console != nullptr) console->Handle(&polls[first]);
    if (polls[1].revents != 0)
      Forward(signals.borrow(), process, console.get());
    if (polls[0].revents != 0) break;
  }
  if (console != nullptr) console->Drain();
  return Collect(process.pid);
}

}  // namespace oci
