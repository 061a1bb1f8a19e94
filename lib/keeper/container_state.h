// What is behind Container and ContainerStore.
#ifndef CAISSON_LIB_KEEPER_CONTAINER_STATE_H_
#define CAISSON_LIB_KEEPER_CONTAINER_STATE_H_

#include <memory>
#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "caisson/cgroup.h"
#include "caisson/container.h"
#include "lib/keeper/call.h"
#include "lib/keeper/composition.h"
#include "lib/keeper/container_directory.h"
#include "lib/keeper/record.pb.h"

namespace caisson {

struct ContainerStore::State {
  keeper::StoreDirectory directory;
  keeper::Places places;
};

struct Container::State {
  std::shared_ptr<const ContainerStore::State> store;
  keeper::ContainerDirectory directory;

  // What the keeper answers; its error, or FAILED_PRECONDITION if there is no
  // keeper. The connection goes to `kept`, if more is expected from it.
  absl::StatusOr<keeper::Answered> Call(
      const keeper::Request& request, absl::Span<const BorrowedFd> descriptors,
      absl::Duration timeout, UniqueFd* kept = nullptr) const;
  absl::Status NotRunning() const;
  // The connection to the keeper, which tells the end if `which` wants that.
  absl::StatusOr<UniqueFd> Start(absl::Span<const BorrowedFd> streams,
                                 const keeper::Streams& which,
                                 int restart_count) const;
  absl::StatusOr<Cgroup> Group() const;
  absl::Status AskToLeave() const;
};

struct ContainerRun::State {
  ContainerStreams streams;
  UniqueFd connection;
  bool removes_itself = false;
  bool removed = false;
  std::optional<absl::StatusOr<ExitStatus>> exit;
};

}  // namespace caisson

#endif  // CAISSON_LIB_KEEPER_CONTAINER_STATE_H_
