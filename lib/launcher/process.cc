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
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/types/span.h"
#include "caisson/detached.h"
#include "lib/base/deadline.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/cgroup/attach.h"
#include "lib/launcher/detached_directory.h"
#include "lib/launcher/process_note.h"
#include "lib/launcher/process_state.h"
#include "lib/launcher/protocol.h"
#include "lib/launcher/security_steps.h"
#include "lib/launcher/session.h"
#include "lib/launcher/wait_status.h"
#include "lib/plan/send_fds.h"
#include "lib/sys/open.h"
#include "lib/sys/pidfd.h"

namespace caisson {
namespace {

// What a note calls the descriptors behind it.
constexpr char kTerminal[] = "terminal";
constexpr char kIn[] = "in";
constexpr char kOut[] = "out";
constexpr char kErr[] = "err";
constexpr char kListener[] = "seccomp_listener";
constexpr char kKeep[] = "keep";

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

ExitStatus FromMessage(const launcher::Message& message, BorrowedFd init_plan) {
  // What an init makes of its child's end loses the signal.
  const std::optional<int> of_child =
      init_plan.valid() ? launcher::InitStatus(init_plan) : std::nullopt;
  launcher::Message child = message;
  child.wait_status = of_child.value_or(message.wait_status);
  return launcher::ExitStatusOf(child);
}

// Of a process that has ended without a message: the kernel may know how.
absl::StatusOr<ExitStatus> StatusWithoutLauncher(BorrowedFd pidfd,
                                                 bool foreign) {
  const std::optional<int> status = sys::ExitStatusOf(pidfd);
  if (status.has_value()) return launcher::FromWaitStatus(*status);
  if (foreign) {
    return absl::UnavailableError(
        "the process has ended; its exit status went to its parent");
  }
  return absl::UnavailableError(
      "the launcher died before the process did; the process was killed and "
      "its exit status is not known");
}

absl::Status StillRunning(pid_t pid) {
  return absl::DeadlineExceededError(
      absl::StrCat("process ", pid, " is still running"));
}

}  // namespace

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
  {
    MutexLock lock(&state_->mutex);
    if (state_->custody == State::Custody::kDetached ||
        state_->custody == State::Custody::kReleased) {
      return;
    }
  }
  // One that has ended is NOT_FOUND, which is what is wanted.
  sys::SendSignal(pidfd(), SIGKILL).IgnoreError();
  // Now it is clear that it will not be released.
  if (state_->session->releases()) state_->session->Abandon(state_->started);
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
  if (!state_->adopted) {
    MutexLock lock(&state_->mutex);
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
  // The launcher died, and the kernel is killing what it started; or the
  // process is its parent's affair.
  ASSIGN_OR_RETURN(const bool dead, WaitReadable(pidfd(), deadline));
  if (!dead) return StillRunning(pid());
  MutexLock lock(&state_->mutex);
  if (!state_->exit.has_value()) {
    const bool foreign =
        state_->adopted || state_->custody == State::Custody::kReleased;
    state_->exit = StatusWithoutLauncher(pidfd(), foreign);
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

absl::Status Process::State::LetRun(Pending pending) {
  launcher::Composition& composition = pending.composition;
  RETURN_IF_ERROR(composition.OpenGate());
  if (adopted) {
    Publish({});
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(ReleaseAwait(composition.await_socket.borrow()));
  auto latencies =
      session->Finish(composition.plan, started, Deadline(pending.timeout));
  if (!latencies.ok()) return ExplainFailure(latencies.status(), composition);
  Publish(*std::move(latencies));
  if (!composition.listener_socket.valid()) return absl::OkStatus();
  ASSIGN_OR_RETURN(std::vector<UniqueFd> received,
                   plan::ReceiveFds(composition.listener_socket.borrow(), 1));
  MutexLock lock(&mutex);
  listener = std::move(received[0]);
  return absl::OkStatus();
}

absl::Status Process::Start() {
  std::optional<State::Pending> pending;
  {
    MutexLock lock(&state_->mutex);
    pending.swap(state_->pending);
  }
  if (!pending.has_value()) {
    return absl::FailedPreconditionError(
        "Process::Start(): the process was started already");
  }
  absl::Status status = RunHooks(
      "start_container", state_->hooks.start_container,
      state_->HookStateOf("created", launcher::HookPoint::kStartContainer));
  if (status.ok()) status = state_->LetRun(*std::move(pending));
  if (status.ok()) {
    status = RunHooks("poststart", state_->hooks.poststart,
                      state_->HookStateOf("running"));
  }
  if (!status.ok()) sys::SendSignal(pidfd(), SIGKILL).IgnoreError();
  return status;
}

absl::Status Process::Destroy() {
  {
    MutexLock lock(&state_->mutex);
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

absl::Status Process::State::CheckDetachable() const {
  absl::string_view reason;
  if (!runs) reason = "was not started yet";
  if (destroyed) reason = "was destroyed";
  if (custody == Custody::kDetached) reason = "is detached already";
  if (custody == Custody::kDetaching) reason = "is being detached already";
  if (custody == Custody::kReleased) reason = "was released";
  if (reason.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("Process::Detach(): the process ", reason));
}

absl::Status Process::State::CheckReleasable() const {
  absl::string_view reason;
  if (!session->releases()) {
    reason = "its launcher was made without LauncherOptions.releases";
  }
  if (pending.has_value() && !pending->composition.gate.valid()) {
    reason = "it was not started, and has no ProcessSpec.gate to wait for";
  }
  if (!pending.has_value() && !runs) reason = "its start failed";
  if (destroyed) reason = "it was destroyed";
  if (custody == Custody::kReleased) reason = "it is nobody's here already";
  if (reason.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("Process::Release(): ", reason));
}

absl::Status Process::State::AwaitListener() {
  launcher::Composition& composition = pending->composition;
  RETURN_IF_ERROR(ReleaseAwait(composition.await_socket.borrow()));
  pollfd poll = {
      .fd = composition.listener_socket.get(), .events = POLLIN, .revents = 0};
  const Deadline deadline(pending->timeout);
  while (deadline.Poll(absl::MakeSpan(&poll, 1)) <= 0) {
    if (deadline.expired()) {
      return absl::DeadlineExceededError(
          "Process::Release(): the process does not send its listener");
    }
  }
  auto received = plan::ReceiveFds(composition.listener_socket.borrow(), 1);
  if (received.ok()) {
    listener = std::move((*received)[0]);
    return absl::OkStatus();
  }
  // The end of the stream: it could not load its filter, and has ended.
  const auto failed = session->Finish(composition.plan, started, deadline);
  return failed.ok() ? received.status()
                     : ExplainFailure(failed.status(), composition);
}

absl::Status Process::Release() {
  MutexLock lock(&state_->mutex);
  RETURN_IF_ERROR(state_->CheckReleasable());
  const bool created = state_->pending.has_value();
  const bool listens =
      created && state_->pending->composition.listener_socket.valid();
  // Until it is released a host that ends takes a process along that was not
  // started.
  absl::Status status = listens ? state_->AwaitListener() : absl::OkStatus();
  if (status.ok()) {
    RETURN_IF_ERROR(state_->session->Release(state_->started));
    if (created && !listens) {
      status = ReleaseAwait(state_->pending->composition.await_socket.borrow());
    }
  }
  state_->pending.reset();
  if (!status.ok()) {
    sys::SendSignal(pidfd(), SIGKILL).IgnoreError();
    return status;
  }
  state_->custody = State::Custody::kReleased;
  return absl::OkStatus();
}

absl::StatusOr<std::vector<UniqueFd>> Process::State::PrepareNote(
    const DetachOptions& options, launcher::ProcessNote& note) {
  note.first_namespaces = namespaces.first;
  note.second_namespaces = namespaces.second;
  note.own_pid_namespace = own_pid_namespace;
  note.has_init = has_init;
  note.default_policy = default_policy;
  note.oom_kills_before = oom_kills_before;
  note.group = group;
  std::vector<UniqueFd> kept;
  auto add = [&](const char* what, BorrowedFd fd) -> absl::Status {
    if (!fd.valid()) return absl::OkStatus();
    ASSIGN_OR_RETURN(UniqueFd copy, sys::Duplicate(fd));
    kept.push_back(std::move(copy));
    note.descriptors.emplace_back(what);
    return absl::OkStatus();
  };
  RETURN_IF_ERROR(add(kTerminal, terminal.borrow()));
  RETURN_IF_ERROR(add(kIn, in.borrow()));
  RETURN_IF_ERROR(add(kOut, out.borrow()));
  RETURN_IF_ERROR(add(kErr, err.borrow()));
  RETURN_IF_ERROR(add(kListener, listener.borrow()));
  for (size_t i = 0; i < options.keep.size(); ++i) {
    if (!options.keep[i].valid()) {
      return absl::InvalidArgumentError(
          absl::StrCat("DetachOptions.keep[", i, "] is not open"));
    }
    RETURN_IF_ERROR(add(kKeep, options.keep[i]));
  }
  // Beside the note and the plan.
  if (kept.size() + 2 > launcher::kMaxKept) {
    return absl::InvalidArgumentError(
        absl::StrCat("DetachOptions.keep: ", options.keep.size(),
                     " descriptors are too many; 56 can be kept"));
  }
  return kept;
}

absl::Status Process::Detach(const DetachOptions& options) {
  RETURN_IF_ERROR(launcher::CheckDetachedName(options.name));
  launcher::ProcessNote note;
  std::vector<UniqueFd> kept;
  {
    MutexLock lock(&state_->mutex);
    RETURN_IF_ERROR(state_->CheckDetachable());
    ASSIGN_OR_RETURN(kept, state_->PrepareNote(options, note));
    state_->custody = State::Custody::kDetaching;
  }
  std::vector<BorrowedFd> borrowed;
  for (const UniqueFd& fd : kept) borrowed.push_back(fd.borrow());
  const BorrowedFd plan =
      state_->has_init ? state_->started.plan.borrow() : BorrowedFd();
  const absl::Status status = state_->session->Detach(
      state_->started, options.name, launcher::WriteNote(note), plan, borrowed);
  MutexLock lock(&state_->mutex);
  state_->custody =
      status.ok() ? State::Custody::kDetached : State::Custody::kHosts;
  return status;
}

void Process::State::Keep(absl::string_view what, UniqueFd fd) {
  if (what == kTerminal) {
    terminal = std::move(fd);
  } else if (what == kIn) {
    in = std::move(fd);
  } else if (what == kOut) {
    out = std::move(fd);
  } else if (what == kErr) {
    err = std::move(fd);
  } else if (what == kListener) {
    listener = std::move(fd);
  } else {
    kept.push_back(std::move(fd));
  }
}

std::vector<UniqueFd> Process::TakeKept() {
  MutexLock lock(&state_->mutex);
  return std::move(state_->kept);
}

UniqueFd Process::TakeStdin() {
  MutexLock lock(&state_->mutex);
  return std::move(state_->in);
}

UniqueFd Process::TakeStdout() {
  MutexLock lock(&state_->mutex);
  return std::move(state_->out);
}

UniqueFd Process::TakeStderr() {
  MutexLock lock(&state_->mutex);
  return std::move(state_->err);
}

UniqueFd Process::TakeSeccompListener() {
  MutexLock lock(&state_->mutex);
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
  MutexLock lock(&state_->mutex);
  return state_->latencies;
}

const std::vector<std::string>& Process::omissions() const {
  return state_->omissions;
}

HookState Process::State::HookStateOf(absl::string_view status,
                                      launcher::HookPoint point) const {
  return {.id = hooks.id,
          .status = std::string(status),
          .pid = sys::PidOf(started.pidfd.borrow()),
          .pidfd = started.pidfd.borrow(),
          .bundle = hooks.bundle,
          .annotations = hooks.annotations,
          .process = std::make_shared<const launcher::HookedProcess>(
              launcher::HookedProcess{.point = point,
                                      .session = session.get(),
                                      .namespaces = namespaces,
                                      .group = group,
                                      .policy = policy,
                                      .spec = inside})};
}

void Process::State::Publish(std::vector<StepLatency> steps) {
  MutexLock lock(&mutex);
  runs = true;
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
