#include "lib/keeper/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/keeper/removal.h"
#include "lib/keeper/spec_record.h"
#include "lib/keeper/state.h"
#include "lib/sys/open.h"

namespace caisson::keeper {
namespace {

// How long those who are attached have for what the program wrote last.
constexpr absl::Duration kDrainTimeout = absl::Seconds(10);
constexpr absl::Duration kAcceptPause = absl::Milliseconds(100);
// Of what cannot be started for another reason than its program.
constexpr int kNotStarted = 125;

// The next descriptor of a request.
UniqueFd Take(std::vector<UniqueFd>& descriptors) {
  if (descriptors.empty()) return UniqueFd();
  UniqueFd first = std::move(descriptors.front());
  descriptors.erase(descriptors.begin());
  return first;
}

int CodeOfFailure(const absl::Status& status) {
  const int code = ExecFailure(status);
  return code == 0 ? kNotStarted : code;
}

int64_t ReadCounter(absl::string_view interface, const char* file) {
  const auto text = sys::ReadFileAt(
      BorrowedFd(AT_FDCWD),
      absl::StrCat("/sys/class/net/", interface, "/statistics/", file),
      /*resolve=*/0, 64);
  int64_t value = 0;
  if (text.ok()) {
    static_cast<void>(absl::SimpleAtoi(absl::StripSuffix(*text, "\n"), &value));
  }
  return value;
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
  const absl::Status started = Begin();
  if (!started.ok()) {
    // Whoever asked for the start holds the container's lock, and waits for the
    // end of this connection.
    directory_.RemoveSocket();
    Reply reply;
    SetStatus(started, reply);
    Send(starter->socket.borrow(), reply, {}).IgnoreError();
    launcher_.reset();
    task_.lock.reset();
    return;
  }
  Answer(starter, absl::OkStatus());
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
  if (!decider_) decider_.emplace(spec_.restart);
  return absl::OkStatus();
}

absl::Status Keeper::OpenLog() {
  ASSIGN_OR_RETURN(const UniqueFd directory, directory_.OpenLogs());
  ASSIGN_OR_RETURN(log_, logs::LogWriter::Open(directory.borrow(), spec_.logs));
  return absl::OkStatus();
}

// ---- A run -----------------------------------------------------------------

absl::Status Keeper::StartRun() {
  ASSIGN_OR_RETURN(run_, Composition::Start({.record = &record_,
                                             .spec = &spec_,
                                             .store = &store_,
                                             .places = &places_,
                                             .launcher = &*launcher_,
                                             .previous = &state_}));
  const Process& process = run_->process();
  state_.set_version(kRecordVersion);
  state_.set_boot_id(BootId());
  state_.set_keeper_pid(::getpid());
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
    if (endpoint->poll_fd().valid()) {
      loop_.Watch(endpoint->poll_fd(), POLLIN,
                  [this] { run_->endpoint()->Forward().IgnoreError(); });
    }
  }
  BeginStreams();
  BeginHealth();
  loop_.Watch(process.exit_fd(), POLLIN, [this] { OnExit(); });
  WriteState();
  Tell("start");
  return absl::OkStatus();
}

void Keeper::BeginStreams() {
  Process& process = run_->process();
  if (process.terminal().valid()) {
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
  out_->Finish();
  err_->Finish();
  in_.Finish();
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
  state_.set_pid(0);
  WriteState();
  if (exit.out_of_memory) Tell("oom");
  Tell("die", {{"exitCode", absl::StrCat(exit.shell_code())}});
  for (const ConnectionPtr& connection : std::exchange(waiting_, {})) {
    Answer(connection, absl::OkStatus());
  }
}

// What comes after the end of a run, or after one that could not be started.
void Keeper::AfterRun() {
  if (restart_at_once_) {
    restart_at_once_ = false;
    StartAgain().IgnoreError();
    return;
  }
  std::optional<absl::Duration> delay;
  if (launcher_ && !terminated_) {
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
    Answer(connection, status);
  }
  if (status.ok()) return status;
  RecordFailure(status);
  WriteState();
  AfterRun();
  return status;
}

// Of a start.
void Keeper::RecordFailure(const absl::Status& status) {
  state_.set_version(kRecordVersion);
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
  const auto lock = directory_.Lock();
  state_.set_keeper_pid(0);
  WriteState();
  directory_.RemoveSocket();
  log_.reset();
  if (lock.ok() && spec_.auto_remove) {
    RemoveContainer(store_, directory_, places_, /*volumes=*/true)
        .IgnoreError();
  }
  launcher_.reset();
  // Before the lock of the container, and before connections: whoever waits for
  // either finds no keeper.
  task_.lock.reset();
  loop_.Stop();
}

// ---- Requests --------------------------------------------------------------

void Keeper::Accept() {
  const ConnectionPtr connection = std::make_shared<Connection>();
  connection->socket.reset(
      ::accept4(task_.listening.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!connection->socket.valid()) {
    if (errno == EINTR || errno == EAGAIN || errno == ECONNABORTED) return;
    // Out of descriptors: somebody will close one.
    loop_.Forget(task_.listening.borrow());
    loop_.After(kAcceptPause, [this] { Listen(); });
    return;
  }
  loop_.Watch(connection->socket.borrow(), POLLIN,
              [this, connection] { OnRequest(connection); });
}

void Keeper::Close(const ConnectionPtr& connection) {
  for (auto* list : {&waiting_, &stopping_, &restarting_}) {
    list->erase(std::remove(list->begin(), list->end(), connection),
                list->end());
  }
  if (connection->socket.valid()) loop_.Forget(connection->socket.borrow());
  connection->socket.reset();
}

void Keeper::Answer(const ConnectionPtr& connection,
                    const absl::Status& status) {
  Reply reply;
  SetStatus(status, reply);
  reply.set_exit_code(state_.exit_code());
  if (state_.has_exit()) *reply.mutable_exit() = state_.exit();
  if (connection->socket.valid()) {
    Send(connection->socket.borrow(), reply, {}).IgnoreError();
  }
  Close(connection);
}

void Keeper::OnRequest(const ConnectionPtr& connection) {
  auto received = Receive(connection->socket.borrow());
  if (!received.ok()) {
    Close(connection);
    return;
  }
  if (!*received) return;
  Request request;
  if (!request.ParseFromString((*received)->bytes)) {
    Answer(connection, absl::InvalidArgumentError(
                           "the container's keeper is of another version"));
    return;
  }
  Handle(connection, request, std::move((*received)->descriptors));
}

absl::Status Keeper::NotRunning() const {
  return absl::FailedPreconditionError(
      absl::StrCat("container ", Quoted(spec_.name), " is not running"));
}

bool Keeper::HasEnded() const {
  // Before the launcher has told how.
  pollfd poll = {
      .fd = run_->process().pidfd().get(), .events = POLLIN, .revents = 0};
  return ::poll(&poll, 1, 0) > 0;
}

void Keeper::Handle(const ConnectionPtr& connection, const Request& request,
                    std::vector<UniqueFd> descriptors) {
  // What somebody asks after the program's end is not asked of that run.
  if (Alive() && HasEnded()) OnExit();
  if (ended_) return;  // and nothing is left to be asked
  switch (request.what_case()) {
    case Request::kStart:
      HandleStart(connection, request.start(), std::move(descriptors));
      return;
    case Request::kStop:
      HandleStop(connection, request.stop());
      return;
    case Request::kWait:
      if (!Alive()) {
        Answer(connection, absl::OkStatus());
      } else {
        waiting_.push_back(connection);
      }
      return;
    case Request::kLeave:
      HandleLeave(connection);
      return;
    case Request::kUpdate:
      Answer(connection, HandleUpdate(request.update()));
      return;
    default:
      break;
  }
  if (!Alive()) {
    Answer(connection, NotRunning());
    return;
  }
  switch (request.what_case()) {
    case Request::kKill:
      Answer(connection, HandleKill(request.kill().signal()));
      return;
    case Request::kPause:
      Answer(connection, HandlePause(/*pause=*/true));
      return;
    case Request::kResume:
      Answer(connection, HandlePause(/*pause=*/false));
      return;
    case Request::kExec:
      HandleExec(connection, request.exec(), std::move(descriptors));
      return;
    case Request::kAttach:
      Answer(connection, HandleAttach(request.attach(), descriptors));
      return;
    case Request::kResize:
      Answer(
          connection,
          run_->process().ResizeTerminal(
              {.rows = static_cast<uint16_t>(request.resize().rows()),
               .columns = static_cast<uint16_t>(request.resize().columns())}));
      return;
    case Request::kStats:
      HandleStats(connection);
      return;
    default:
      Answer(connection, absl::UnimplementedError(
                             "the container's keeper is of another version"));
  }
}

void Keeper::HandleStart(const ConnectionPtr& connection,
                         const Request::Start& start,
                         std::vector<UniqueFd> descriptors) {
  if (Alive()) {
    Answer(connection,
           absl::FailedPreconditionError(absl::StrCat(
               "container ", Quoted(spec_.name), " is running already")));
    return;
  }
  AttachOutputs(start.attach(), descriptors);
  decider_.emplace(spec_.restart);
  state_.set_restart_count(0);
  restarting_.push_back(connection);
  StartAgain().IgnoreError();
}

void Keeper::HandleLeave(const ConnectionPtr& connection) {
  if (Alive() || restart_timer_ != 0) {
    Answer(connection, absl::FailedPreconditionError(absl::StrCat(
                           "container ", Quoted(spec_.name), " is running")));
    return;
  }
  Reply reply;
  Send(connection->socket.borrow(), reply, {}).IgnoreError();
  End();
}

void Keeper::HandleStop(const ConnectionPtr& connection,
                        const Request::Stop& stop) {
  (stop.restart() ? restarting_ : stopping_).push_back(connection);
  restart_at_once_ = stop.restart();
  stopped_by_user_ = !stop.restart();
  if (!Alive()) {
    // Between two runs.
    loop_.Cancel(restart_timer_);
    state_.set_status(static_cast<int>(ContainerStatus::kExited));
    state_.set_stopped_by_user(stopped_by_user_);
    WriteState();
    AfterRun();
    return;
  }
  const absl::Duration grace = stop.has_grace_ns()
                                   ? FromNanoseconds(stop.grace_ns())
                                   : spec_.stop_timeout;
  BeginStop(grace);
}

void Keeper::BeginStop(absl::Duration grace) {
  run_->process().Signal(record_.stop_signal()).IgnoreError();
  Tell("kill", {{"signal", absl::StrCat(record_.stop_signal())}});
  Thaw().IgnoreError();
  loop_.Cancel(kill_timer_);
  if (grace == absl::InfiniteDuration()) return;
  kill_timer_ = loop_.After(grace, [this] {
    kill_timer_ = 0;
    if (run_) run_->process().Signal(SIGKILL).IgnoreError();
  });
}

absl::Status Keeper::HandleKill(int signal) {
  RETURN_IF_ERROR(run_->process().Signal(signal));
  Tell("kill", {{"signal", absl::StrCat(signal)}});
  if (signal == SIGKILL || signal == record_.stop_signal()) {
    stopped_by_user_ = true;
  }
  // What is frozen on version 1 dies when it is thawed.
  return signal == SIGKILL ? Thaw() : absl::OkStatus();
}

absl::Status Keeper::Thaw() {
  if (state_.status() != static_cast<int>(ContainerStatus::kPaused)) {
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(run_->group()->Thaw());
  state_.set_status(static_cast<int>(ContainerStatus::kRunning));
  WriteState();
  return absl::OkStatus();
}

absl::Status Keeper::HandlePause(bool pause) {
  const bool paused =
      state_.status() == static_cast<int>(ContainerStatus::kPaused);
  if (pause == paused) {
    return absl::FailedPreconditionError(
        absl::StrCat("container ", Quoted(spec_.name),
                     pause ? " is paused already" : " is not paused"));
  }
  if (!pause) {
    RETURN_IF_ERROR(Thaw());
    ContinueHealth();
    Tell("unpause");
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(run_->group()->Freeze());
  EndHealth();
  state_.set_status(static_cast<int>(ContainerStatus::kPaused));
  WriteState();
  Tell("pause");
  return absl::OkStatus();
}

absl::Status Keeper::HandleUpdate(const Request::Update& update) {
  ASSIGN_OR_RETURN(const HeldLock lock, directory_.Lock());
  ASSIGN_OR_RETURN(const ContainerRecord before, directory_.ReadRecord());
  ASSIGN_OR_RETURN(const CgroupLimits limits, FromRecord(update.limits()));
  ASSIGN_OR_RETURN(const ContainerRecord after, UpdatedRecord(before, update));
  ASSIGN_OR_RETURN(ContainerSpec spec, FromRecord(after.spec()));
  RETURN_IF_ERROR(directory_.WriteRecord(after));
  if (Alive()) {
    const absl::Status set = run_->group()->SetLimits(limits);
    if (!set.ok()) {
      directory_.WriteRecord(before).IgnoreError();
      return set;
    }
  }
  record_ = after;
  spec_ = std::move(spec);
  decider_->SetPolicy(spec_.restart);
  Tell("update");
  return absl::OkStatus();
}

void Keeper::AttachOutputs(const Streams& streams,
                           std::vector<UniqueFd>& descriptors) {
  UniqueFd in = streams.in() ? Take(descriptors) : UniqueFd();
  if (streams.out()) out_->Attach(Take(descriptors));
  if (streams.err()) err_->Attach(Take(descriptors));
  if (!in.valid()) return;
  if (Alive()) {
    in_.Attach(std::move(in));
  } else {
    first_input_ = std::move(in);
  }
}

absl::Status Keeper::HandleAttach(const Streams& streams,
                                  std::vector<UniqueFd>& descriptors) {
  const size_t expected = (streams.in() ? 1 : 0) + (streams.out() ? 1 : 0) +
                          (streams.err() ? 1 : 0);
  if (descriptors.size() != expected) {
    return absl::InvalidArgumentError("descriptors are missing");
  }
  AttachOutputs(streams, descriptors);
  Tell("attach");
  return absl::OkStatus();
}

void Keeper::HandleStats(const ConnectionPtr& connection) {
  Reply reply;
  if (const NetEndpoint* endpoint = run_->endpoint(); endpoint != nullptr) {
    // What the host's end sends, the container receives.
    reply.set_received_bytes(
        ReadCounter(endpoint->host_interface(), "tx_bytes"));
    reply.set_sent_bytes(ReadCounter(endpoint->host_interface(), "rx_bytes"));
  }
  Send(connection->socket.borrow(), reply, {}).IgnoreError();
  Close(connection);
}

// ---- Further programs ------------------------------------------------------

absl::StatusOr<Process> Keeper::StartExec(const ExecRequest& exec,
                                          std::vector<UniqueFd>& descriptors) {
  if (state_.status() == static_cast<int>(ContainerStatus::kPaused)) {
    return absl::FailedPreconditionError(absl::StrCat(
        "container ", Quoted(spec_.name), " is paused: resume it first"));
  }
  ProcessSpec process;
  process.argv = {exec.argv().begin(), exec.argv().end()};
  process.env = {exec.env().begin(), exec.env().end()};
  process.cwd = exec.working_dir();
  process.user = exec.user();
  if (exec.terminal()) {
    process.terminal =
        TerminalSize{.rows = static_cast<uint16_t>(exec.rows()),
                     .columns = static_cast<uint16_t>(exec.columns())};
  }
  if (exec.in() && !descriptors.empty()) {
    process.in = Stdio::Inherit(descriptors[0].borrow());
  }
  const size_t out = exec.in() ? 1 : 0;
  if (exec.out() && descriptors.size() > out) {
    process.out = Stdio::Inherit(descriptors[out].borrow());
  }
  const size_t err = out + (exec.out() ? 1 : 0);
  if (exec.err_like_out()) {
    process.err = Stdio::LikeStdout();
  } else if (exec.err() && descriptors.size() > err) {
    process.err = Stdio::Inherit(descriptors[err].borrow());
  }
  return run_->Exec(*launcher_, record_, std::move(process));
}

void Keeper::HandleExec(const ConnectionPtr& connection,
                        const ExecRequest& exec,
                        std::vector<UniqueFd> descriptors) {
  auto process = StartExec(exec, descriptors);
  if (!process.ok()) {
    // Launcher::Exec() says so of a container that is about to end.
    const bool ended = absl::IsNotFound(process.status()) &&
                       ExecFailure(process.status()) == 0;
    Answer(connection, ended || HasEnded() ? NotRunning() : process.status());
    return;
  }
  const std::string id =
      absl::StrCat(directory_.id().substr(0, 12), "-", ++exec_serial_);
  Reply reply;
  reply.set_pid(process->pid());
  std::vector<BorrowedFd> terminal;
  if (process->terminal().valid()) terminal.push_back(process->terminal());
  Send(connection->socket.borrow(), reply, terminal).IgnoreError();
  // Nothing more is expected; but its end is noticed by the answer.
  loop_.Forget(connection->socket.borrow());
  Tell("exec_start", {{"execID", id}});
  const auto job =
      execs_.insert(execs_.end(), ExecJob{*std::move(process), connection, id});
  loop_.Watch(job->process.exit_fd(), POLLIN, [this, job] { OnExecExit(job); });
}

void Keeper::OnExecExit(std::list<ExecJob>::iterator job) {
  loop_.Forget(job->process.exit_fd());
  // If the container has ended, it is about to end with it.
  const auto exit = job->process.Wait(absl::Now() + absl::Seconds(5));
  Reply reply;
  SetStatus(exit.status(), reply);
  if (exit.ok()) {
    ToRecord(*exit, *reply.mutable_exit());
    reply.set_exit_code(exit->shell_code());
    Tell("exec_die",
         {{"execID", job->id}, {"exitCode", absl::StrCat(exit->shell_code())}});
  }
  if (job->connection->socket.valid()) {
    Send(job->connection->socket.borrow(), reply, {}).IgnoreError();
    Close(job->connection);
  }
  execs_.erase(job);
}

// ---- What others see -------------------------------------------------------

void Keeper::WriteState() { directory_.WriteState(state_).IgnoreError(); }

void Keeper::Tell(const std::string& action,
                  std::map<std::string, std::string> attributes) {
  // It may have been renamed meanwhile.
  const auto record = directory_.ReadRecord();
  const ContainerRecord& now = record.ok() ? *record : record_;
  TellOf(store_, now, action, std::move(attributes));
}

}  // namespace caisson::keeper
