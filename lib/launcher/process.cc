#include "caisson/process.h"

#include <errno.h>
#include <linux/capability.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/types/span.h"
#include "lib/base/deadline.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/cgroup/attach.h"
#include "lib/launcher/process_state.h"
#include "lib/launcher/protocol.h"
#include "lib/launcher/security_steps.h"
#include "lib/launcher/session.h"
#include "lib/plan/send_fds.h"
#include "lib/sys/pidfd.h"

namespace caisson {
namespace {

// Waits until `fd` is readable; false at the deadline.
absl::StatusOr<bool> WaitReadable(BorrowedFd fd, const Deadline& deadline) {
  for (;;) {
    pollfd poll = {.fd = fd.get(), .events = POLLIN, .revents = 0};
    const int ready = deadline.Poll(absl::MakeSpan(&poll, 1));
    if (ready > 0) return true;
    if (ready == 0 && deadline.expired()) return false;
    if (ready < 0 && errno != EINTR) {
      return ErrnoError(errno, "ppoll(process)", {.step = "wait"});
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

ExitStatus FromMessage(const launcher::Message& message, BorrowedFd init_plan) {
  // What an init makes of its child's end loses the signal.
  const std::optional<int> of_child =
      init_plan.valid() ? launcher::InitStatus(init_plan) : std::nullopt;
  ExitStatus exit = FromWaitStatus(of_child.value_or(message.wait_status));
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
                      core_dumped ? ", core dumped" : "",
                      out_of_memory ? ", out of memory" : "");
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

absl::StatusOr<ExitStatus> Process::Wait(absl::Time time) const {
  const Deadline deadline = Deadline::At(time);
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
      ExitStatus exit = FromMessage(*message, state_->started.plan.borrow());
      exit.out_of_memory = exit.signal == SIGKILL && RanOutOfMemory();
      state_->exit = exit;
      return exit;
    }
    if (message.ok()) {
      return absl::InternalError("the launcher sent an unexpected message");
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

bool Process::RanOutOfMemory() const {
  const auto kills = cgroup::OomKills(state_->group);
  return kills.ok() && *kills > state_->oom_kills_before;
}

absl::StatusOr<ExitStatus> Process::Stop(absl::Duration grace,
                                         int signal) const {
  // One that has ended meanwhile is what is wanted.
  if (const absl::Status sent = Signal(signal);
      !sent.ok() && !absl::IsNotFound(sent)) {
    return sent;
  }
  auto status = Wait(absl::Now() + grace);
  if (!absl::IsDeadlineExceeded(status.status())) return status;
  if (const absl::Status killed = Signal(SIGKILL);
      !killed.ok() && !absl::IsNotFound(killed)) {
    return killed;
  }
  return Wait();
}

absl::Status Process::SignalAll(int signal) const {
  if (!state_->own_pid_namespace) return Signal(signal);
  plan::PlanBuilder plan;
  plan.Step("signal");
  // What is born there has what the container has, and may do nothing but this.
  launcher::AddEnterContainer(plan, pidfd(), state_->namespaces);
  for (int i = 0; i < 3; ++i) {
    plan.Call(SYS_close, {i}, absl::StrCat("close(", i, ")"));
  }
  launcher::AddOnlyCapability(plan, CAP_KILL);
  plan.Fork(0, plan::Slot(), "clone3()");
  plan.Call(SYS_kill, {-1, signal}, absl::StrCat("kill(-1, ", signal, ")"))
      .Tolerate(ESRCH);  // there is only PID 1
  plan.Exit();
  const absl::Status others = state_->session->Run(plan).status();
  // An init would forward it to its child, which has it already.
  const bool forwards =
      state_->has_init && signal != SIGKILL && signal != SIGSTOP;
  const absl::Status first = Signal(forwards ? 0 : signal);
  if (absl::IsNotFound(first)) return first;
  return others.ok() ? first : others;
}

absl::Status Process::Start() {
  std::optional<State::Pending> pending;
  {
    absl::MutexLock lock(&state_->mutex);
    pending.swap(state_->pending);
  }
  if (!pending.has_value()) {
    return absl::FailedPreconditionError(
        "Process::Start(): the process was started already");
  }
  launcher::Composition& composition = pending->composition;
  absl::Status status =
      RunHooks("start_container", state_->hooks.start_container,
               state_->HookStateOf("created"));
  if (status.ok()) {
    status = ReleaseAwait(composition.await_socket.borrow());
  }
  if (status.ok()) {
    auto latencies = state_->session->Finish(composition.plan, state_->started,
                                             Deadline(pending->timeout));
    status = ExplainFailure(latencies.status(), composition);
    if (latencies.ok()) state_->Publish(*std::move(latencies));
  }
  if (status.ok() && composition.listener_socket.valid()) {
    auto listener = plan::ReceiveFds(composition.listener_socket.borrow(), 1);
    absl::MutexLock lock(&state_->mutex);
    if (listener.ok()) state_->listener = std::move((*listener)[0]);
    status = listener.status();
  }
  if (status.ok()) {
    status = RunHooks("poststart", state_->hooks.poststart,
                      state_->HookStateOf("running"));
  }
  if (!status.ok()) sys::SendSignal(pidfd(), SIGKILL).IgnoreError();
  return status;
}

absl::Status Process::Destroy() {
  {
    absl::MutexLock lock(&state_->mutex);
    state_->pending.reset();
    if (state_->destroyed) {
      return absl::FailedPreconditionError(
          "Process::Destroy(): the process was destroyed already");
    }
    state_->destroyed = true;
  }
  absl::Status status = sys::SendSignal(pidfd(), SIGKILL);
  if (absl::IsNotFound(status)) status = absl::OkStatus();
  if (status.ok()) status = Wait().status();
  // A status that the launcher took along is no failure of the destruction.
  if (absl::IsUnavailable(status)) status = absl::OkStatus();
  const absl::Status hooks = RunHooks("poststop", state_->hooks.poststop,
                                      state_->HookStateOf("stopped"));
  return status.ok() ? hooks : status;
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

std::vector<StepLatency> Process::latencies() const {
  absl::MutexLock lock(&state_->mutex);
  return state_->latencies;
}

const std::vector<std::string>& Process::omissions() const {
  return state_->omissions;
}

HookState Process::State::HookStateOf(absl::string_view status) const {
  return {.id = hooks.id,
          .status = std::string(status),
          .pid = sys::PidOf(started.pidfd.borrow()),
          .pidfd = started.pidfd.borrow(),
          .bundle = hooks.bundle,
          .annotations = hooks.annotations};
}

void Process::State::Publish(std::vector<StepLatency> steps) {
  absl::MutexLock lock(&mutex);
  latencies = std::move(steps);
  // Only an init leaves something there later.
  if (!has_init) started.plan.reset();
}

absl::Status ReleaseAwait(BorrowedFd socket) {
  while (::send(socket.get(), "", 1, MSG_NOSIGNAL) < 0) {
    if (errno == EINTR) continue;
    // A process that died is found dead by whoever waits for its plan.
    if (errno == EPIPE || errno == ECONNRESET) break;
    return ErrnoError(errno, "send(process)", {.step = "launcher"});
  }
  return absl::OkStatus();
}

}  // namespace caisson
