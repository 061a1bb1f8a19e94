#include "caisson/container.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/deadline.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/keeper/call.h"
#include "lib/keeper/composition.h"
#include "lib/keeper/container_state.h"
#include "lib/keeper/holds.h"
#include "lib/keeper/removal.h"
#include "lib/keeper/spec_record.h"
#include "lib/keeper/state.h"
#include "lib/keeper/wire.h"
#include "lib/sys/local_socket.h"

namespace caisson {
namespace {

using keeper::Answered;
using keeper::HeldLock;
using keeper::Request;

constexpr absl::Duration kEndTimeout = absl::Minutes(1);

// The caller's ends of streams, and those that a keeper gets.
struct StreamEnds {
  ContainerStreams ours;
  std::vector<UniqueFd> theirs;
  keeper::Streams which;
  bool removes_itself = false;

  std::vector<BorrowedFd> borrowed() const {
    std::vector<BorrowedFd> all;
    for (const UniqueFd& fd : theirs) all.push_back(fd.borrow());
    return all;
  }
};

absl::StatusOr<StreamEnds> MakeStreams(const ContainerAttachOptions& options,
                                       const ContainerSpec& spec) {
  StreamEnds ends;
  ends.which.set_wait(true);
  ends.removes_itself = spec.auto_remove;
  if (options.terminal_size) {
    ends.which.set_rows(options.terminal_size->rows);
    ends.which.set_columns(options.terminal_size->columns);
  }
  if (options.in && spec.open_stdin) {
    ASSIGN_OR_RETURN(auto pipe, keeper::MakePipe());
    ends.theirs.push_back(std::move(pipe.first));
    ends.ours.in = std::move(pipe.second);
    ends.which.set_in(true);
  }
  if (options.out) {
    ASSIGN_OR_RETURN(auto pipe, keeper::MakePipe());
    ends.ours.out = std::move(pipe.first);
    ends.theirs.push_back(std::move(pipe.second));
    ends.which.set_out(true);
  }
  if (options.err && !spec.terminal) {
    ASSIGN_OR_RETURN(auto pipe, keeper::MakePipe());
    ends.ours.err = std::move(pipe.first);
    ends.theirs.push_back(std::move(pipe.second));
    ends.which.set_err(true);
  }
  return ends;
}

}  // namespace

// ---- Asking the keeper -----------------------------------------------------

absl::StatusOr<Answered> Container::State::Call(
    const Request& request, absl::Span<const BorrowedFd> descriptors,
    absl::Duration timeout, UniqueFd* kept) const {
  const Deadline deadline(timeout);
  for (;;) {
    ASSIGN_OR_RETURN(UniqueFd connection,
                     keeper::Ask(directory, request, descriptors));
    if (!connection.valid()) return NotRunning();
    auto answered = keeper::ReadAnswer(connection.borrow(), deadline);
    // It has ended before it read the request; there may be another one.
    if (absl::IsUnavailable(answered.status()) && !deadline.expired()) continue;
    RETURN_IF_ERROR(answered.status());
    RETURN_IF_ERROR(StatusOf(answered->reply));
    if (kept != nullptr) *kept = std::move(connection);
    return answered;
  }
}

absl::Status Container::State::NotRunning() const {
  ASSIGN_OR_RETURN(const keeper::ContainerRecord record,
                   directory.ReadRecord());
  return absl::FailedPreconditionError(absl::StrCat(
      "container ", Quoted(record.spec().name()), " is not running"));
}

Container::Container(std::unique_ptr<State> state) : state_(std::move(state)) {}
Container::Container(Container&&) noexcept = default;
Container& Container::operator=(Container&&) noexcept = default;
Container::~Container() = default;

const std::string& Container::id() const { return state_->directory.id(); }

absl::StatusOr<ContainerInfo> Container::Inspect() const {
  ASSIGN_OR_RETURN(const keeper::Observed observed,
                   keeper::Observe(state_->directory));
  return keeper::InfoOf(observed);
}

// ---- Its life --------------------------------------------------------------

absl::StatusOr<UniqueFd> Container::State::Start(
    absl::Span<const BorrowedFd> streams, const keeper::Streams& which,
    int restart_count) const {
  Request request;
  Request::Start& start = *request.mutable_start();
  start.set_store(store->directory.path());
  start.set_id(directory.id());
  start.set_layers(store->places.layers);
  start.set_volumes(store->places.volumes);
  start.set_network_state(store->places.network_state);
  *start.mutable_attach() = which;
  for (;;) {
    // One whose program has ended may not have ended yet.
    ASSIGN_OR_RETURN(UniqueFd connection,
                     keeper::Ask(directory, request, streams));
    if (connection.valid()) {
      const auto answered = keeper::ReadAnswer(
          connection.borrow(), Deadline(absl::InfiniteDuration()));
      if (absl::IsUnavailable(answered.status())) continue;
      RETURN_IF_ERROR(answered.status());
      RETURN_IF_ERROR(StatusOf(answered->reply));
      return connection;
    }
    ASSIGN_OR_RETURN(HeldLock lock, directory.Lock());
    ASSIGN_OR_RETURN(const keeper::Observed observed,
                     keeper::Observe(directory));
    if (observed.has_keeper) continue;  // somebody else has started it
    if (observed.lost) {
      RETURN_IF_ERROR(keeper::RemoveRemains(observed.record, store->places));
    }
    start.set_restart_count(restart_count);
    return keeper::StartKeeper(directory, std::move(lock), start, streams);
  }
}

absl::Status Container::Start() const {
  return state_->Start({}, keeper::Streams(), /*restart_count=*/0).status();
}

absl::StatusOr<ContainerRun> Container::StartAttached(
    const ContainerAttachOptions& options) const {
  ASSIGN_OR_RETURN(const ContainerInfo info, Inspect());
  ASSIGN_OR_RETURN(StreamEnds ends, MakeStreams(options, info.spec));
  ASSIGN_OR_RETURN(
      UniqueFd connection,
      state_->Start(ends.borrowed(), ends.which, /*restart_count=*/0));
  return ContainerRun(std::make_unique<ContainerRun::State>(
      ContainerRun::State{.streams = std::move(ends.ours),
                          .connection = std::move(connection),
                          .removes_itself = ends.removes_itself,
                          .exit = std::nullopt}));
}

absl::StatusOr<ContainerRun> Container::Attach(
    const ContainerAttachOptions& options) const {
  ASSIGN_OR_RETURN(const ContainerInfo info, Inspect());
  ASSIGN_OR_RETURN(StreamEnds ends, MakeStreams(options, info.spec));
  Request request;
  *request.mutable_attach() = ends.which;
  UniqueFd connection;
  RETURN_IF_ERROR(
      state_
          ->Call(request, ends.borrowed(), keeper::kAnswerTimeout, &connection)
          .status());
  return ContainerRun(std::make_unique<ContainerRun::State>(
      ContainerRun::State{.streams = std::move(ends.ours),
                          .connection = std::move(connection),
                          .removes_itself = ends.removes_itself,
                          .exit = std::nullopt}));
}

absl::Status Container::ResizeTerminal(TerminalSize size) const {
  Request request;
  request.mutable_resize()->set_rows(size.rows);
  request.mutable_resize()->set_columns(size.columns);
  return state_->Call(request, {}, keeper::kAnswerTimeout).status();
}

absl::Status Container::Stop(std::optional<absl::Duration> grace) const {
  if (grace && *grace < absl::ZeroDuration()) {
    return absl::InvalidArgumentError("a negative time to stop in");
  }
  Request request;
  if (grace)
    request.mutable_stop()->set_grace_ns(keeper::ToNanoseconds(*grace));
  request.mutable_stop()->set_restart(false);
  for (;;) {
    ASSIGN_OR_RETURN(const UniqueFd connection,
                     keeper::Ask(state_->directory, request, {}));
    if (!connection.valid()) return absl::OkStatus();
    const auto answered = keeper::ReadAnswer(
        connection.borrow(), Deadline(absl::InfiniteDuration()));
    if (absl::IsUnavailable(answered.status())) continue;
    RETURN_IF_ERROR(answered.status());
    RETURN_IF_ERROR(StatusOf(answered->reply));
    const auto record = state_->directory.ReadRecord();
    // One that removes itself may have done so by now.
    if (record.ok()) {
      keeper::TellOf(state_->store->directory, *record, "stop");
    }
    return absl::OkStatus();
  }
}

absl::Status Container::Restart(std::optional<absl::Duration> grace) const {
  Request request;
  if (grace)
    request.mutable_stop()->set_grace_ns(keeper::ToNanoseconds(*grace));
  request.mutable_stop()->set_restart(true);
  absl::Status status =
      state_->Call(request, {}, absl::InfiniteDuration()).status();
  if (absl::IsFailedPrecondition(status)) status = Start();
  RETURN_IF_ERROR(status);
  ASSIGN_OR_RETURN(const auto record, state_->directory.ReadRecord());
  keeper::TellOf(state_->store->directory, record, "restart");
  return absl::OkStatus();
}

absl::Status Container::Kill(int signal) const {
  if (signal < 1 || signal > 64) {
    return absl::InvalidArgumentError(absl::StrCat(signal, " is no signal"));
  }
  Request request;
  request.mutable_kill()->set_signal(signal);
  return state_->Call(request, {}, keeper::kAnswerTimeout).status();
}

absl::Status Container::Pause() const {
  Request request;
  request.mutable_pause();
  return state_->Call(request, {}, keeper::kAnswerTimeout).status();
}

absl::Status Container::Resume() const {
  Request request;
  request.mutable_resume();
  return state_->Call(request, {}, keeper::kAnswerTimeout).status();
}

absl::StatusOr<int> Container::Wait(absl::Time until) const {
  const Deadline deadline = Deadline::At(until);
  Request request;
  request.mutable_wait();
  for (;;) {
    ASSIGN_OR_RETURN(const UniqueFd connection,
                     keeper::Ask(state_->directory, request, {}));
    if (!connection.valid()) {
      ASSIGN_OR_RETURN(const keeper::Observed observed,
                       keeper::Observe(state_->directory));
      return observed.state.exit_code();
    }
    const auto answered = keeper::ReadAnswer(connection.borrow(), deadline);
    if (absl::IsUnavailable(answered.status())) continue;
    RETURN_IF_ERROR(answered.status());
    return answered->reply.exit_code();
  }
}

absl::StatusOr<UniqueFd> Container::ExitFd() const {
  Request request;
  request.mutable_wait();
  ASSIGN_OR_RETURN(UniqueFd connection,
                   keeper::Ask(state_->directory, request, {}));
  if (connection.valid()) return connection;
  // Its other end is closed, so it is readable.
  ASSIGN_OR_RETURN(auto sockets, sys::SocketPair("container"));
  return std::move(sockets.first);
}

// ---- What it is and does ---------------------------------------------------

absl::StatusOr<ContainerLogReader> Container::Logs(
    const ContainerLogReadOptions& options) const {
  ASSIGN_OR_RETURN(const ContainerInfo info, Inspect());
  if (!info.spec.logged) {
    return absl::FailedPreconditionError(
        absl::StrCat("container ", Quoted(info.spec.name),
                     " was created without a log (ContainerSpec::logged)"));
  }
  ASSIGN_OR_RETURN(const UniqueFd directory, state_->directory.OpenLogs());
  return ContainerLogReader::Open(directory.borrow(), options);
}

absl::StatusOr<Cgroup> Container::State::Group() const {
  ASSIGN_OR_RETURN(const keeper::Observed observed, keeper::Observe(directory));
  if (observed.state.pid() <= 0) return NotRunning();
  auto group = keeper::OpenGroup(observed.record.spec().cgroup_parent(),
                                 observed.record.id());
  if (absl::IsNotFound(group.status())) return NotRunning();
  return group;
}

absl::StatusOr<ContainerStats> Container::Stats() const {
  ASSIGN_OR_RETURN(const Cgroup group, state_->Group());
  ASSIGN_OR_RETURN(const CgroupStatsReader reader, group.OpenStats());
  ContainerStats stats;
  ASSIGN_OR_RETURN(stats.cgroup, reader.Read());
  Request request;
  request.mutable_stats();
  ASSIGN_OR_RETURN(const Answered answered,
                   state_->Call(request, {}, keeper::kAnswerTimeout));
  stats.received_bytes = answered.reply.received_bytes();
  stats.sent_bytes = answered.reply.sent_bytes();
  return stats;
}

absl::StatusOr<std::vector<pid_t>> Container::Processes() const {
  ASSIGN_OR_RETURN(const Cgroup group, state_->Group());
  return group.Processes();
}

absl::Status Container::Update(const ContainerUpdate& update) const {
  Request request;
  keeper::ToRecord(update.limits, *request.mutable_update()->mutable_limits());
  if (update.restart) {
    request.mutable_update()->set_restart(update.restart->ToString());
  }
  for (;;) {
    ASSIGN_OR_RETURN(const UniqueFd connection,
                     keeper::Ask(state_->directory, request, {}));
    if (connection.valid()) {
      const auto answered = keeper::ReadAnswer(
          connection.borrow(), Deadline(keeper::kAnswerTimeout));
      if (absl::IsUnavailable(answered.status())) continue;
      RETURN_IF_ERROR(answered.status());
      return StatusOf(answered->reply);
    }
    ASSIGN_OR_RETURN(const HeldLock lock, state_->directory.Lock());
    ASSIGN_OR_RETURN(const keeper::Observed observed,
                     keeper::Observe(state_->directory));
    if (observed.has_keeper) continue;  // somebody has started it meanwhile
    ASSIGN_OR_RETURN(const keeper::ContainerRecord record,
                     keeper::UpdatedRecord(observed.record, request.update()));
    RETURN_IF_ERROR(state_->directory.WriteRecord(record));
    keeper::TellOf(state_->store->directory, record, "update");
    return absl::OkStatus();
  }
}

absl::Status Container::Rename(const std::string& name) const {
  RETURN_IF_ERROR(keeper::CheckContainerName(name));
  const keeper::StoreDirectory& store = state_->store->directory;
  ASSIGN_OR_RETURN(const HeldLock lock, state_->directory.Lock());
  ASSIGN_OR_RETURN(keeper::ContainerRecord record,
                   state_->directory.ReadRecord());
  const std::string before = record.spec().name();
  if (before == name) return absl::OkStatus();
  ASSIGN_OR_RETURN(const HeldLock names, store.LockNames());
  RETURN_IF_ERROR(store.TakeName(name, id()));
  record.mutable_spec()->set_name(name);
  if (const absl::Status written = state_->directory.WriteRecord(record);
      !written.ok()) {
    store.DropName(name, id());
    return written;
  }
  store.DropName(before, id());
  // For the readers of errors alone.
  keeper::HoldVolumes(store, record, state_->store->places).IgnoreError();
  keeper::TellOf(store, record, "rename", {{"oldName", before}});
  return absl::OkStatus();
}

// Has a keeper without a program end. FAILED_PRECONDITION if it has one.
// Precondition: Lock() is not held.
absl::Status Container::State::AskToLeave() const {
  Request request;
  request.mutable_leave();
  ASSIGN_OR_RETURN(const UniqueFd connection,
                   keeper::Ask(directory, request, {}));
  if (!connection.valid()) return absl::OkStatus();
  const Deadline deadline(kEndTimeout);
  const auto answered = keeper::ReadAnswer(connection.borrow(), deadline);
  if (absl::IsUnavailable(answered.status())) return absl::OkStatus();
  RETURN_IF_ERROR(answered.status());
  RETURN_IF_ERROR(StatusOf(answered->reply));
  return keeper::AwaitEnd(connection.borrow(), deadline);
}

absl::Status Container::Remove(const ContainerRemoveOptions& options) const {
  for (;;) {
    absl::Status left = state_->AskToLeave();
    if (!left.ok() && !(options.force && absl::IsNotFound(left))) {
      if (!absl::IsFailedPrecondition(left)) return left;
      if (!options.force) {
        return absl::FailedPreconditionError(
            absl::StrCat(left.message(), "; stop it, or remove it with force"));
      }
      left = Stop(absl::ZeroDuration());
      if (!left.ok() && !absl::IsNotFound(left)) return left;
      continue;
    }
    auto lock = state_->directory.Lock();
    // One that removes itself did so when it ended.
    if (options.force && absl::IsNotFound(lock.status())) {
      return absl::OkStatus();
    }
    RETURN_IF_ERROR(lock.status());
    const auto observed = keeper::Observe(state_->directory);
    if (options.force && absl::IsDataLoss(observed.status())) {
      // Of its volumes and its network nobody knows.
      return keeper::RemoveUnfinished(state_->store->directory,
                                      state_->directory, state_->store->places);
    }
    RETURN_IF_ERROR(observed.status());
    if (observed->has_keeper) continue;
    if (observed->lost) {
      RETURN_IF_ERROR(
          keeper::RemoveRemains(observed->record, state_->store->places));
    }
    return keeper::RemoveContainer(state_->store->directory, state_->directory,
                                   state_->store->places, options.volumes);
  }
}

}  // namespace caisson
