#include "lib/keeper/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/events/append_event.h"
#include "lib/keeper/removal.h"
#include "lib/keeper/spec_record.h"
#include "lib/keeper/state.h"
#include "lib/sys/boot_id.h"
#include "lib/sys/open.h"

namespace caisson::keeper {
namespace {

// How long those who are attached have for what the program wrote last.
constexpr absl::Duration kDrainTimeout = absl::Seconds(10);
constexpr absl::Duration kEventPause = absl::Milliseconds(20);
constexpr size_t kMostEvents = 1000;
// Of what cannot be started for another reason than its program.
constexpr int kNotStarted = 125;

int CodeOfFailure(const absl::Status& status) {
  const int code = ExecFailure(status);
  return code == 0 ? kNotStarted : code;
}

}  // namespace

Keeper::Keeper(StoreDirectory store, ContainerDirectory directory,
               KeeperTask task)
    : store_(std::move(store)),
      directory_(std::move(directory)),
      task_(std::move(task)),
      places_{.layers = task_.request.layers(),
              .volumes = task_.request.volumes(),
              .network_state = task_.request.network_state()},
      in_(loop_) {}

void Keeper::Run() {
  const ConnectionPtr starter = std::make_shared<Connection>();
  starter->socket = std::move(task_.starter);
  starter->waits = task_.request.attach().wait();
  const absl::Status started = Begin();
  if (!started.ok()) {
    // Whoever asked for the start waits for the end of this connection.
    End();
    Reply reply;
    SetStatus(started, reply);
    Send(starter->socket.borrow(), reply, {}).IgnoreError();
    return;
  }
  loop_.Watch(starter->socket.borrow(), POLLIN,
              [this, starter] { OnRequest(starter); });
  AnswerBegun(starter, absl::OkStatus());
  Listen();
  loop_.Watch(task_.termination.borrow(), POLLIN, [this] { OnTermination(); });
  loop_.Run();
}

void Keeper::Listen() {
  loop_.Watch(task_.listening.borrow(), POLLIN, [this] { Accept(); });
}

// The machine is about to be switched off: the container has as much time as if
// somebody stopped it, and is started again after that as its policy says.
void Keeper::OnTermination() {
  signalfd_siginfo info;
  if (::read(task_.termination.get(), &info, sizeof(info)) != sizeof(info)) {
    return;
  }
  terminated_ = true;
  if (Alive()) {
    BeginStop(spec_.stop_timeout);
  } else if (restart_timer_ != 0) {
    loop_.Cancel(restart_timer_);
    state_.set_status(static_cast<int>(ContainerStatus::kExited));
    AfterRun();
  }
}

absl::Status Keeper::Begin() {
  ASSIGN_OR_RETURN(state_, directory_.ReadState());
  state_.set_restart_count(task_.request.restart_count());
  out_.emplace(loop_, [this](absl::string_view bytes) {
    if (log_) log_->Write(LogStream::kOut, bytes, absl::Now());
  });
  err_.emplace(loop_, [this](absl::string_view bytes) {
    if (log_) log_->Write(LogStream::kErr, bytes, absl::Now());
  });
  AttachOutputs(task_.request.attach(), task_.streams);
  absl::Status status = LoadRecord();
  if (status.ok()) {
    auto launcher = Launcher::Create();
    status = launcher.status();
    if (launcher.ok()) launcher_ = *std::move(launcher);
  }
  if (status.ok() && spec_.logged) {
    status = OpenLog();
  }
  if (status.ok()) status = StartRun();
  if (!status.ok()) {
    RecordFailure(status);
    WriteState();
  }
  return status;
}

absl::Status Keeper::LoadRecord() {
  ASSIGN_OR_RETURN(record_, directory_.ReadRecord());
  ASSIGN_OR_RETURN(spec_, FromRecord(record_.spec()));
  if (!decider_) decider_.emplace(spec_.restart, state_.restart_count());
  if (!terminal_size_) terminal_size_ = spec_.terminal_size;
  return absl::OkStatus();
}

absl::Status Keeper::OpenLog() {
  ASSIGN_OR_RETURN(const UniqueFd directory, directory_.OpenLogs());
  ASSIGN_OR_RETURN(log_, logs::LogWriter::Open(directory.borrow(), spec_.logs));
  return absl::OkStatus();
}

// ---- A run -----------------------------------------------------------------

absl::Status Keeper::StartRun() {
  if (!launcher_) {
    ASSIGN_OR_RETURN(launcher_, Launcher::Create());
  }
  // So that whoever finds that this process was killed removes what there is.
  state_.set_version(kRecordVersion);
  ASSIGN_OR_RETURN(*state_.mutable_boot_id(), sys::BootId());
  state_.set_keeper_pid(::getpid());
  state_.set_composing(true);
  state_.set_interrupted(false);
  RETURN_IF_ERROR(directory_.WriteState(state_));
  ASSIGN_OR_RETURN(run_, Composition::Start({.record = &record_,
                                             .spec = &spec_,
                                             .store = &store_,
                                             .places = &places_,
                                             .launcher = &*launcher_,
                                             .terminal_size = *terminal_size_,
                                             .previous = &state_}));
  const Process& process = run_->process();
  state_.set_composing(false);
  state_.set_status(static_cast<int>(ContainerStatus::kRunning));
  state_.set_pid(process.pid());
  state_.set_started_unix_ns(absl::ToUnixNanos(absl::Now()));
  state_.clear_exit();
  state_.set_exit_code(0);
  state_.clear_error();
  state_.clear_ports();
  state_.set_stopped_by_user(false);
  state_.set_ever_started(true);
  if (const NetEndpoint* endpoint = run_->endpoint(); endpoint != nullptr) {
    state_.set_address(std::string(endpoint->address()));
    state_.set_mac(std::string(endpoint->mac()));
    for (const PortMapping& port : endpoint->ports()) {
      ToRecord(port, *state_.add_ports());
    }
  }
  if (const absl::Status written = directory_.WriteState(state_);
      !written.ok()) {
    // Nobody could find it.
    run_.reset();
    return written;
  }
  BeginStreams();
  BeginHealth();
  if (const NetEndpoint* endpoint = run_->endpoint();
      endpoint != nullptr && endpoint->poll_fd().valid()) {
    loop_.Watch(endpoint->poll_fd(), POLLIN,
                [this] { run_->endpoint()->Forward().IgnoreError(); });
  }
  loop_.Watch(process.exit_fd(), POLLIN, [this] { OnExit(); });
  Tell("start");
  return absl::OkStatus();
}

void Keeper::BeginStreams() {
  Process& process = run_->process();
  if (process.terminal().valid()) {
    // As long as somebody has the other end open, the terminal does not end.
    slave_.reset(::ioctl(process.terminal().get(), TIOCGPTPEER,
                         O_RDWR | O_NOCTTY | O_CLOEXEC));
    out_->Begin(process.terminal());
    auto input = sys::Duplicate(process.terminal());
    if (input.ok()) in_.Begin(*std::move(input), /*once=*/false);
  } else {
    out_pipe_ = process.TakeStdout();
    err_pipe_ = process.TakeStderr();
    out_->Begin(out_pipe_.borrow());
    err_->Begin(err_pipe_.borrow());
    UniqueFd input = process.TakeStdin();
    if (input.valid()) in_.Begin(std::move(input), spec_.stdin_once);
  }
  if (first_input_.valid()) in_.Attach(std::move(first_input_));
}

void Keeper::OnExit() {
  const auto exit = run_->process().Wait();
  ExitStatus status;
  if (exit.ok()) {
    status = *exit;
  } else {
    // The launcher was killed, and the program with it.
    status.signaled = true;
    status.signal = SIGKILL;
    state_.set_error(std::string(exit.status().message()));
  }
  FinishRun(status);
  if (!exit.ok()) {
    launcher_.reset();
    auto launcher = Launcher::Create();
    if (launcher.ok()) launcher_ = *std::move(launcher);
  }
  AfterRun();
}

void Keeper::FinishRun(const ExitStatus& exit) {
  loop_.Forget(run_->process().exit_fd());
  if (const NetEndpoint* endpoint = run_->endpoint();
      endpoint != nullptr && endpoint->poll_fd().valid()) {
    loop_.Forget(endpoint->poll_fd());
  }
  loop_.Cancel(kill_timer_);
  EndHealth();
  // Nobody of it writes any more.
  if (run_->group() != nullptr) run_->group()->Kill().IgnoreError();
  out_->Finish();
  err_->Finish();
  in_.Finish();
  slave_.reset();
  if (log_) {
    log_->Flush(LogStream::kOut, absl::Now());
    log_->Flush(LogStream::kErr, absl::Now());
  }
  while (!execs_.empty()) OnExecExit(execs_.begin());
  run_->Destroy().IgnoreError();
  run_.reset();
  out_pipe_.reset();
  err_pipe_.reset();

  ToRecord(exit, *state_.mutable_exit());
  state_.set_exit_code(exit.shell_code());
  state_.set_finished_unix_ns(absl::ToUnixNanos(absl::Now()));
  state_.set_status(static_cast<int>(ContainerStatus::kExited));
  state_.set_stopped_by_user(stopped_by_user_);
  state_.set_interrupted(terminated_);
  state_.set_pid(0);
  if (health_) {
    health_->OnEnded();
    state_.clear_health();
    ToRecord(health_->state(), *state_.mutable_health());
  }
  WriteState();
  if (exit.out_of_memory) Tell("oom");
  Tell("die", {{"exitCode", absl::StrCat(exit.shell_code())}});
  TellEnd();
}

// What comes after the end of a run, or after one that could not be started.
void Keeper::AfterRun() {
  if (restart_at_once_ && !terminated_) {
    restart_at_once_ = false;
    StartAgain().IgnoreError();
    return;
  }
  std::optional<absl::Duration> delay;
  if (!terminated_) {
    delay = decider_->OnExit(
        {.exit_code = state_.exit_code(), .stopped_by_user = stopped_by_user_},
        absl::FromUnixNanos(state_.started_unix_ns()), absl::Now());
  }
  if (delay) {
    state_.set_status(static_cast<int>(ContainerStatus::kRestarting));
    state_.set_restart_count(state_.restart_count() + 1);
    WriteState();
    restart_timer_ =
        loop_.After(*delay, [this] { StartAgain().IgnoreError(); });
    return;
  }
  for (const ConnectionPtr& connection : std::exchange(stopping_, {})) {
    Answer(connection, absl::OkStatus());
  }
  if (!out_->pending() && !err_->pending()) {
    End();
    return;
  }
  const auto drained = [this] {
    if (!Alive() && restart_timer_ == 0 && !out_->pending() &&
        !err_->pending()) {
      End();
    }
  };
  out_->OnDrained(drained);
  err_->OnDrained(drained);
  loop_.Cancel(end_timer_);
  end_timer_ = loop_.After(kDrainTimeout, [this] { End(); });
}

absl::Status Keeper::StartAgain() {
  loop_.Cancel(restart_timer_);
  loop_.Cancel(end_timer_);
  out_->OnDrained(nullptr);
  err_->OnDrained(nullptr);
  stopped_by_user_ = false;
  absl::Status status = LoadRecord();
  if (status.ok()) status = StartRun();
  for (const ConnectionPtr& connection : std::exchange(restarting_, {})) {
    AnswerBegun(connection, status);
  }
  if (status.ok()) return status;
  RecordFailure(status);
  WriteState();
  TellEnd();
  AfterRun();
  return status;
}

// Of a start.
void Keeper::RecordFailure(const absl::Status& status) {
  state_.set_version(kRecordVersion);
  state_.set_composing(false);
  state_.set_status(static_cast<int>(ContainerStatus::kExited));
  state_.set_pid(0);
  state_.clear_exit();
  state_.set_exit_code(CodeOfFailure(status));
  state_.set_error(std::string(status.message()));
  state_.set_started_unix_ns(absl::ToUnixNanos(absl::Now()));
  state_.set_finished_unix_ns(state_.started_unix_ns());
}

void Keeper::End() {
  ended_ = true;
  // Whoever has been stopped with it does not keep this from ending.
  const auto lock = directory_.Lock(kKeeperLockPatience);
  state_.set_keeper_pid(0);
  WriteState();
  directory_.RemoveSocket();
  log_.reset();
  FlushEvents();
  if (lock.ok() && spec_.auto_remove) {
    // If it fails, Recover() does it.
    RemoveContainer(store_, directory_, places_, /*volumes=*/true,
                    kKeeperLockPatience)
        .IgnoreError();
  }
  launcher_.reset();
  // Before the lock of the container, and before connections: whoever waits for
  // either finds no keeper.
  task_.lock.reset();
  loop_.Stop();
}

// ---- What others see -------------------------------------------------------

void Keeper::WriteState() { directory_.WriteState(state_).IgnoreError(); }

void Keeper::Tell(const std::string& action,
                  std::map<std::string, std::string> attributes) {
  // It may have been renamed meanwhile.
  const auto record = directory_.ReadRecord();
  const ContainerRecord& now = record.ok() ? *record : record_;
  events_.push_back(EventOf(now, action, std::move(attributes)));
  FlushEvents();
}

// Another process that writes an event may be stopped in the middle of it; that
// must not stop this one.
void Keeper::FlushEvents() {
  loop_.Cancel(events_timer_);
  while (!events_.empty()) {
    const auto written = events::TryAppendEvent(store_.fd(), events_.front());
    if (written.ok() && !*written && events_.size() < kMostEvents) {
      events_timer_ = loop_.After(kEventPause, [this] { FlushEvents(); });
      return;
    }
    events_.pop_front();
  }
}

}  // namespace caisson::keeper
