// Further programs in a container, as its clients see them.
#include <errno.h>
#include <sys/ioctl.h>
#include <termios.h>

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "caisson/container.h"
#include "lib/base/deadline.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/keeper/call.h"
#include "lib/keeper/container_state.h"
#include "lib/keeper/spec_record.h"
#include "lib/keeper/wire.h"

namespace caisson {

struct ContainerExec::State {
  pid_t pid = -1;
  ContainerStreams streams;
  UniqueFd terminal;
  UniqueFd connection;
  std::optional<absl::StatusOr<ExitStatus>> exit;
};

ContainerExec::ContainerExec(std::unique_ptr<State> state)
    : state_(std::move(state)) {}
ContainerExec::ContainerExec(ContainerExec&&) noexcept = default;
ContainerExec& ContainerExec::operator=(ContainerExec&&) noexcept = default;
ContainerExec::~ContainerExec() = default;

pid_t ContainerExec::pid() const { return state_->pid; }

ContainerStreams ContainerExec::TakeStreams() {
  return std::move(state_->streams);
}

BorrowedFd ContainerExec::terminal() const { return state_->terminal.borrow(); }

absl::Status ContainerExec::ResizeTerminal(TerminalSize size) const {
  if (!state_->terminal.valid()) {
    return absl::FailedPreconditionError("the process has no terminal");
  }
  winsize window = {};
  window.ws_row = size.rows;
  window.ws_col = size.columns;
  if (::ioctl(state_->terminal.get(), TIOCSWINSZ, &window) != 0) {
    return ErrnoError(errno, "ioctl(TIOCSWINSZ)", {.step = "container.exec"});
  }
  return absl::OkStatus();
}

BorrowedFd ContainerExec::exit_fd() const {
  return state_->connection.borrow();
}

absl::StatusOr<ExitStatus> ContainerExec::Wait(absl::Time until) {
  if (state_->exit) return *state_->exit;
  const auto answered =
      keeper::ReadAnswer(state_->connection.borrow(), Deadline::At(until));
  if (absl::IsDeadlineExceeded(answered.status())) return answered.status();
  if (!answered.ok()) {
    state_->exit = answered.status();
  } else if (const absl::Status status = StatusOf(answered->reply);
             !status.ok()) {
    state_->exit = status;
  } else {
    state_->exit = keeper::FromRecord(answered->reply.exit());
  }
  return *state_->exit;
}

namespace {

// One stream of an exec: the end that goes to the keeper, and the caller's.
absl::StatusOr<bool> AddStream(const Stdio& stdio, const char* field,
                               bool is_input, std::vector<UniqueFd>& theirs,
                               std::vector<BorrowedFd>& descriptors,
                               UniqueFd& ours) {
  switch (stdio.kind()) {
    case Stdio::Kind::kNull:
    case Stdio::Kind::kLikeStdout:
      return false;
    case Stdio::Kind::kInherit:
      descriptors.push_back(stdio.fd());
      return true;
    case Stdio::Kind::kPipe: {
      ASSIGN_OR_RETURN(auto pipe, keeper::MakePipe());
      if (!is_input) std::swap(pipe.first, pipe.second);
      ours = std::move(pipe.second);
      theirs.push_back(std::move(pipe.first));
      descriptors.push_back(theirs.back().borrow());
      return true;
    }
    case Stdio::Kind::kFile:
      break;
  }
  return absl::InvalidArgumentError(absl::StrCat(
      field, ": a file is not possible here; open it and use Inherit()"));
}

}  // namespace

absl::StatusOr<ContainerExec> Container::Exec(
    const ContainerExecSpec& spec) const {
  if (spec.argv.empty()) {
    return absl::InvalidArgumentError("argv: nothing to execute");
  }
  keeper::Request request;
  keeper::ExecRequest& exec = *request.mutable_exec();
  exec.mutable_argv()->Assign(spec.argv.begin(), spec.argv.end());
  exec.mutable_env()->Assign(spec.env.begin(), spec.env.end());
  exec.set_working_dir(spec.working_dir);
  exec.set_user(spec.user);
  auto state = std::make_unique<ContainerExec::State>();
  std::vector<UniqueFd> theirs;
  std::vector<BorrowedFd> descriptors;
  if (spec.terminal) {
    exec.set_terminal(true);
    exec.set_rows(spec.terminal->rows);
    exec.set_columns(spec.terminal->columns);
  } else {
    ASSIGN_OR_RETURN(const bool in,
                     AddStream(spec.in, "in", /*is_input=*/true, theirs,
                               descriptors, state->streams.in));
    ASSIGN_OR_RETURN(const bool out,
                     AddStream(spec.out, "out", /*is_input=*/false, theirs,
                               descriptors, state->streams.out));
    ASSIGN_OR_RETURN(const bool err,
                     AddStream(spec.err, "err", /*is_input=*/false, theirs,
                               descriptors, state->streams.err));
    exec.set_in(in);
    exec.set_out(out);
    exec.set_err(err);
    exec.set_err_like_out(spec.err.kind() == Stdio::Kind::kLikeStdout);
  }
  ASSIGN_OR_RETURN(state->connection,
                   keeper::Ask(state_->directory, request, descriptors));
  if (!state->connection.valid()) return state_->NotRunning();
  auto answered = keeper::ReadAnswer(state->connection.borrow(),
                                     Deadline(keeper::kAnswerTimeout));
  if (absl::IsUnavailable(answered.status())) return state_->NotRunning();
  RETURN_IF_ERROR(answered.status());
  RETURN_IF_ERROR(StatusOf(answered->reply));
  state->pid = answered->reply.pid();
  if (!answered->descriptors.empty()) {
    state->terminal = std::move(answered->descriptors.front());
  }
  return ContainerExec(std::move(state));
}

}  // namespace caisson
