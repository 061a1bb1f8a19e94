// A run of a container, as whoever started it or is attached to it sees it.
#include <memory>
#include <optional>
#include <utility>

#include "caisson/container.h"
#include "lib/base/deadline.h"
#include "lib/base/status_macros.h"
#include "lib/keeper/call.h"
#include "lib/keeper/container_state.h"
#include "lib/keeper/spec_record.h"
#include "lib/keeper/wire.h"

namespace caisson {

ContainerRun::ContainerRun(std::unique_ptr<State> state)
    : state_(std::move(state)) {}
ContainerRun::ContainerRun(ContainerRun&&) noexcept = default;
ContainerRun& ContainerRun::operator=(ContainerRun&&) noexcept = default;
ContainerRun::~ContainerRun() = default;

ContainerStreams ContainerRun::TakeStreams() {
  return std::move(state_->streams);
}

BorrowedFd ContainerRun::exit_fd() const { return state_->connection.borrow(); }

absl::StatusOr<ExitStatus> ContainerRun::Wait(absl::Time until) {
  const Deadline deadline = Deadline::At(until);
  if (!state_->exit) {
    const auto answered =
        keeper::ReadAnswer(state_->connection.borrow(), deadline);
    if (absl::IsDeadlineExceeded(answered.status())) return answered.status();
    if (answered.ok()) {
      state_->exit = keeper::FromRecord(answered->reply.exit());
    } else {
      state_->exit = absl::UnavailableError(
          "the container's keeper was killed, and the container with it");
    }
  }
  if (state_->removes_itself && !state_->removed && state_->exit->ok()) {
    RETURN_IF_ERROR(keeper::AwaitEnd(state_->connection.borrow(), deadline));
    state_->removed = true;
  }
  return *state_->exit;
}

}  // namespace caisson
