// What a keeper is asked.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/keeper/keeper.h"
#include "lib/keeper/spec_record.h"
#include "lib/keeper/state.h"
#include "lib/sys/open.h"

namespace caisson::keeper {
namespace {

constexpr absl::Duration kAcceptPause = absl::Milliseconds(100);

// The next descriptor of a request.
UniqueFd Take(std::vector<UniqueFd>& descriptors) {
  if (descriptors.empty()) return UniqueFd();
  UniqueFd first = std::move(descriptors.front());
  descriptors.erase(descriptors.begin());
  return first;
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

// Whether the other end was closed: whoever asked has given up, or was killed.
bool HasLeft(BorrowedFd socket) {
  pollfd poll = {.fd = socket.get(), .events = POLLRDHUP, .revents = 0};
  return ::poll(&poll, 1, 0) > 0 && (poll.revents & (POLLRDHUP | POLLHUP)) != 0;
}

}  // namespace

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
  for (auto* list : {&waiting_, &stopping_, &restarting_, &removing_}) {
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

// Of a start, or of whoever is attached: if he waits for the end of the run, he
// is told that, too.
void Keeper::AnswerBegun(const ConnectionPtr& connection,
                         const absl::Status& status) {
  if (!status.ok() || !connection->waits) {
    Answer(connection, status);
    return;
  }
  if (!connection->socket.valid()) return;
  Send(connection->socket.borrow(), Reply(), {}).IgnoreError();
  waiting_.push_back(connection);
}

// To all who wait for the end of the run.
void Keeper::TellEnd() {
  Reply reply;
  reply.set_exit_code(state_.exit_code());
  *reply.mutable_exit() = state_.exit();
  // One that could not be started again.
  if (!state_.has_exit()) reply.mutable_exit()->set_code(state_.exit_code());
  for (auto* list : {&waiting_, &stopping_}) {
    for (const ConnectionPtr& connection : std::exchange(*list, {})) {
      if (!spec_.auto_remove || !connection->waits) {
        Answer(connection, absl::OkStatus());
      } else if (restart_at_once_ && !terminated_) {
        // Not removed yet, and not the last run either.
        waiting_.push_back(connection);
      } else {
        Send(connection->socket.borrow(), reply, {}).IgnoreError();
        removing_.push_back(connection);
      }
    }
  }
}

void Keeper::OnRequest(const ConnectionPtr& connection) {
  auto received = Receive(connection->socket.borrow());
  if (absl::IsResourceExhausted(received.status())) {
    Answer(connection, received.status());
    return;
  }
  if (!received.ok()) {
    Close(connection);
    return;
  }
  if (!*received) return;
  if (HasLeft(connection->socket.borrow())) {
    Close(connection);
    return;
  }
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
  if (Alive()) {
    HandleAlive(connection, request, std::move(descriptors));
  } else {
    Answer(connection, NotRunning());
  }
}

// What needs a program that runs.
void Keeper::HandleAlive(const ConnectionPtr& connection,
                         const Request& request,
                         std::vector<UniqueFd> descriptors) {
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
      HandleAttach(connection, request.attach(), std::move(descriptors));
      return;
    case Request::kResize:
      Answer(connection,
             Resize(request.resize().rows(), request.resize().columns()));
      return;
    case Request::kStats:
      HandleStats(connection);
      return;
    case Request::kRoot:
      HandleRoot(connection);
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
  connection->waits = start.attach().wait();
  AttachOutputs(start.attach(), descriptors);
  decider_.emplace(spec_.restart);
  state_.set_restart_count(0);
  terminated_ = false;
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
  // Also of a keeper that is killed before the program's end.
  state_.set_stopped_by_user(stopped_by_user_);
  if (stop.restart()) {
    decider_.emplace(spec_.restart);
    state_.set_restart_count(0);
  }
  if (!Alive()) {
    // Between two runs.
    loop_.Cancel(restart_timer_);
    state_.set_status(static_cast<int>(ContainerStatus::kExited));
    WriteState();
    for (const ConnectionPtr& stopped : std::exchange(stopping_, {})) {
      Answer(stopped, absl::OkStatus());
    }
    AfterRun();
    return;
  }
  const absl::Duration grace = stop.has_grace_ns()
                                   ? FromNanoseconds(stop.grace_ns())
                                   : spec_.stop_timeout;
  WriteState();
  BeginStop(grace);
}

void Keeper::BeginStop(absl::Duration grace) {
  run_->process().Signal(record_.stop_signal()).IgnoreError();
  Tell("kill", {{"signal", absl::StrCat(record_.stop_signal())}});
  Thaw().IgnoreError();
  if (grace == absl::InfiniteDuration()) return;
  // Who asks again does not give it more time.
  const absl::Duration kill_at = Loop::Now() + grace;
  if (kill_timer_ != 0 && kill_at_ <= kill_at) return;
  loop_.Cancel(kill_timer_);
  kill_at_ = kill_at;
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
    state_.set_stopped_by_user(true);
    WriteState();
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
  ASSIGN_OR_RETURN(const HeldLock lock, directory_.Lock(kKeeperLockPatience));
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

// Of the run that goes on, and of those that follow.
absl::Status Keeper::Resize(uint32_t rows, uint32_t columns) {
  const TerminalSize size = {.rows = static_cast<uint16_t>(rows),
                             .columns = static_cast<uint16_t>(columns)};
  if (Alive()) RETURN_IF_ERROR(run_->process().ResizeTerminal(size));
  terminal_size_ = size;
  return absl::OkStatus();
}

void Keeper::AttachOutputs(const Streams& streams,
                           std::vector<UniqueFd>& descriptors) {
  if (streams.rows() != 0 && streams.columns() != 0) {
    // Without a terminal, nobody needs the size.
    Resize(streams.rows(), streams.columns()).IgnoreError();
  }
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

void Keeper::HandleAttach(const ConnectionPtr& connection,
                          const Streams& streams,
                          std::vector<UniqueFd> descriptors) {
  const size_t expected = (streams.in() ? 1 : 0) + (streams.out() ? 1 : 0) +
                          (streams.err() ? 1 : 0);
  if (descriptors.size() != expected) {
    Answer(connection, absl::InvalidArgumentError("descriptors are missing"));
    return;
  }
  AttachOutputs(streams, descriptors);
  Tell("attach");
  connection->waits = streams.wait();
  AnswerBegun(connection, absl::OkStatus());
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

void Keeper::HandleRoot(const ConnectionPtr& connection) {
  const auto root = run_->OpenRoot();
  if (!root.ok()) {
    Answer(connection, root.status());
    return;
  }
  Send(connection->socket.borrow(), Reply(), {root->borrow()}).IgnoreError();
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
  Tell("exec_start", {{"execID", id}});
  const auto job = execs_.insert(
      execs_.end(), ExecJob{*std::move(process), connection, id, UniqueFd()});
  loop_.Watch(connection->socket.borrow(), POLLIN,
              [this, job] { OnExecClient(job); });
  loop_.Watch(job->process.exit_fd(), POLLIN, [this, job] { OnExecExit(job); });
}

// Nothing more is expected of a client but its end. Then nobody reads the
// terminal any more, and the program must not wait for that.
void Keeper::OnExecClient(std::list<ExecJob>::iterator job) {
  Close(job->connection);
  if (!job->process.terminal().valid()) return;
  auto terminal = sys::Duplicate(job->process.terminal());
  if (!terminal.ok()) return;
  job->terminal = *std::move(terminal);
  loop_.Watch(job->terminal.borrow(), POLLIN, [this, job] {
    char buffer[4096];
    if (::read(job->terminal.get(), buffer, sizeof(buffer)) <= 0) {
      loop_.Forget(job->terminal.borrow());
    }
  });
}

void Keeper::OnExecExit(std::list<ExecJob>::iterator job) {
  loop_.Forget(job->process.exit_fd());
  if (job->terminal.valid()) loop_.Forget(job->terminal.borrow());
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

}  // namespace caisson::keeper
