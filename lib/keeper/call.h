// Asking a keeper, and making one. Functions only: thread-safe.
#ifndef CAISSON_LIB_KEEPER_CALL_H_
#define CAISSON_LIB_KEEPER_CALL_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "caisson/unique_fd.h"
#include "lib/base/deadline.h"
#include "lib/keeper/container_directory.h"
#include "lib/keeper/record.pb.h"

namespace caisson::keeper {

// For what a keeper does at once; but a container may have to be frozen, or a
// program to be started.
inline constexpr absl::Duration kAnswerTimeout = absl::Minutes(1);

// The reading end, then the writing one.
absl::StatusOr<std::pair<UniqueFd, UniqueFd>> MakePipe();

// Makes a keeper and has it start the container: returns when the program
// executes, with the connection to the keeper, or why it does not; nothing of
// the keeper is left then. `held` is Lock(), and given back once there is a
// keeper. Precondition: there was none.
absl::StatusOr<UniqueFd> StartKeeper(const ContainerDirectory& directory,
                                     HeldLock held, Request::Start start,
                                     absl::Span<const BorrowedFd> streams);

// A connection on which `request` was sent; invalid if there is no keeper.
absl::StatusOr<UniqueFd> Ask(const ContainerDirectory& directory,
                             const Request& request,
                             absl::Span<const BorrowedFd> descriptors);

struct Answered {
  Reply reply;
  std::vector<UniqueFd> descriptors;
};
// The keeper's answer, whatever it is. UNAVAILABLE if it has ended without one.
absl::StatusOr<Answered> ReadAnswer(BorrowedFd connection,
                                    const Deadline& deadline);

// Waits until the keeper has closed its end.
absl::Status AwaitEnd(BorrowedFd connection, const Deadline& deadline);

}  // namespace caisson::keeper

#endif  // CAISSON_LIB_KEEPER_CALL_H_
