// What is behind Container and ContainerStore.
#ifndef CAISSON_LIB_KEEPER_CONTAINER_STATE_H_
#define CAISSON_LIB_KEEPER_CONTAINER_STATE_H_

#include <memory>
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
  // keeper.
  absl::StatusOr<keeper::Answered> Call(
      const keeper::Request& request, absl::Span<const BorrowedFd> descriptors,
      absl::Duration timeout) const;
  absl::Status NotRunning() const;
  absl::Status Start(absl::Span<const BorrowedFd> streams,
                     const keeper::Streams& which, int restart_count) const;
  absl::StatusOr<Cgroup> Group() const;
  absl::Status AskToLeave() const;
};

}  // namespace caisson

#endif  // CAISSON_LIB_KEEPER_CONTAINER_STATE_H_
