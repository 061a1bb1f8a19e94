#include "caisson/process.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/launcher/process_state.h"
#include "lib/launcher/protocol.h"
#include "lib/launcher/session.h"
#include "lib/sys/pidfd.h"

namespace caisson {
namespace {

// Milliseconds for poll(2), rounded up so that it never spins before the
// deadline.
int PollTimeout(absl::Time deadline) {
  if (deadline == absl::InfiniteFuture()) return -1;
  const absl::Duration left =
      std::max(deadline - absl::Now(), absl::ZeroDuration());
  const int64_t ms =
      absl::ToInt64Milliseconds(absl::Ceil(left, absl::Milliseconds(1)));
  return static_cast<int>(
      std::min<int64_t>(ms, std::numeric_limits<int>::max()));
}

// Waits until `fd` is readable; false at the deadline.
absl::StatusOr<bool> WaitReadable(BorrowedFd fd, absl::Time deadline) {
  for (;;) {
    pollfd poll = {.fd = fd.get(), .events = POLLIN, .revents = 0};
    const int ready = ::poll(&poll, 1, PollTimeout(deadline));
    if (ready > 0) return true;
    if (ready == 0 && absl::Now() >= deadline) return false;
    if (ready < 0 && errno != EINTR) {
      return ErrnoError(errno, "poll(process)", {.step = "wait"});
    }
  }
}

ExitStatus FromWaitStatus(int status) {
  ExitStatus exit;
  exit.signaled = WIFSIGNALED(status);
  exit.code = exit.signaled ? 0 : WEXITSTATUS(status);
  exit.signal = exit.signaled ? WTERMSIG(status) : 0;
  exit.core_dumped = exit.signaled && WCOREDUMP(status);
  return exit;
}

ExitStatus FromMessage(const launcher::Message& message) {
  ExitStatus exit = FromWaitStatus(message.wait_status);
  exit.user_cpu = absl::Microseconds(static_cast<int64_t>(message.user_us));
  exit.system_cpu = absl::Microseconds(static_cast<int64_t>(message.system_us));
  exit.max_rss_bytes = static_cast<int64_t>(message.max_rss_kib) * 1024;
  return exit;
}

// The launcher is dead, and so is what it started; the kernel may still know
// how it ended.
absl::StatusOr<ExitStatus> StatusWithoutLauncher(BorrowedFd pidfd) {
  const std::optional<int> status = sys::ExitStatusOf(pidfd);
  if (status.has_value()) return FromWaitStatus(*status);
  return absl::UnavailableError(
      "the launcher died before the process did; the process was killed and "
      "its exit status is not known");
}

absl::Status StillRunning(pid_t pid) {
  return absl::DeadlineExceededError(
      absl::StrCat("process ", pid, " is still running"));
}

}  // namespace

std::string ExitStatus::ToString() const {
  if (!signaled) return absl::StrCat("exited with code ", code);
  const char* name = ::sigabbrev_np(signal);
  return absl::StrCat("killed by signal ", signal,
                      name != nullptr ? absl::StrCat(" (SIG", name, ")") : "",
                      core_dumped ? ", core dumped" : "");
}

Process::Process(std::unique_ptr<State> state) : state_(std::move(state)) {}
Process::Process(Process&&) noexcept = default;

Process& Process::operator=(Process&& other) noexcept {
  Process old(std::move(*this));
  state_ = std::move(other.state_);
  return *this;
}

Process::~Process() {
  if (state_ == nullptr) return;
  // A forked copy of the host must not end what the host runs.
  if (state_->creator != ::getpid()) return;
  // One that has ended is NOT_FOUND, which is what is wanted.
  sys::SendSignal(pidfd(), SIGKILL).IgnoreError();
}

pid_t Process::pid() const { return sys::PidOf(pidfd()); }

BorrowedFd Process::pidfd() const { return state_->started.pidfd.borrow(); }

BorrowedFd Process::exit_fd() const { return state_->started.channel.borrow(); }

absl::Status Process::Signal(int signal) const {
  return sys::SendSignal(pidfd(), signal);
}

absl::StatusOr<ExitStatus> Process::Wait(absl::Time deadline) const {
  // The message is read by one waiter; the end of the stream behind it keeps
  // the descriptor readable for all others.
  ASSIGN_OR_RETURN(const bool ended, WaitReadable(exit_fd(), deadline));
  if (!ended) return StillRunning(pid());
  {
    absl::MutexLock lock(&state_->mutex);
    if (state_->exit.has_value()) return *state_->exit;
    const auto message =
        launcher::ReceiveMessage(exit_fd(), nullptr, MSG_DONTWAIT);
    if (message.ok() && message->kind == launcher::kExited) {
      state_->exit = FromMessage(*message);
      return *state_->exit;
    }
    if (!absl::IsUnavailable(message.status())) return message.status();
  }
  // The launcher died, and the kernel is killing what it started.
  ASSIGN_OR_RETURN(const bool dead, WaitReadable(pidfd(), deadline));
  if (!dead) return StillRunning(pid());
  absl::MutexLock lock(&state_->mutex);
  if (!state_->exit.has_value()) {
    state_->exit = StatusWithoutLauncher(pidfd());
  }
  return *state_->exit;
}

UniqueFd Process::TakeStdin() {
  absl::MutexLock lock(&state_->mutex);
  return std::move(state_->in);
}

UniqueFd Process::TakeStdout() {
  absl::MutexLock lock(&state_->mutex);
  return std::move(state_->out);
}

UniqueFd Process::TakeStderr() {
  absl::MutexLock lock(&state_->mutex);
  return std::move(state_->err);
}

UniqueFd Process::TakeSeccompListener() {
  absl::MutexLock lock(&state_->mutex);
  return std::move(state_->listener);
}

BorrowedFd Process::terminal() const { return state_->terminal.borrow(); }

absl::Status Process::ResizeTerminal(TerminalSize size) const {
  if (!state_->terminal.valid()) {
    return absl::FailedPreconditionError(
        "ResizeTerminal: the process has no terminal (ProcessSpec.terminal)");
  }
  const winsize window = {.ws_row = size.rows, .ws_col = size.columns};
  if (::ioctl(terminal().get(), TIOCSWINSZ, &window) != 0) {
    return ErrnoError(errno, "ioctl(TIOCSWINSZ)", {.step = "terminal"});
  }
  return absl::OkStatus();
}

const std::vector<StepLatency>& Process::latencies() const {
  return state_->started.latencies;
}

}  // namespace caisson
