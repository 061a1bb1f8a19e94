// The host's side of one launcher process.
#ifndef CAISSON_LIB_LAUNCHER_SESSION_H_
#define CAISSON_LIB_LAUNCHER_SESSION_H_

#include <sys/types.h>

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "caisson/process.h"
#include "caisson/unique_fd.h"
#include "lib/launcher/protocol.h"
#include "lib/plan/builder.h"

namespace caisson::launcher {

// What a plan became.
struct Started {
  UniqueFd pidfd;
  UniqueFd channel;  // carries one kExited message, then end of file
  std::vector<StepLatency> latencies;
};

// Thread-safe: a request is one message, its answers have a channel of their
// own.
class Session final {
 public:
  static absl::StatusOr<Session> Create();

  Session(Session&&) = default;
  Session& operator=(Session&&) = default;

  // Sends `plan` and waits until its last operation: an exec that succeeded, or
  // an exit. The error of a plan that failed names the operation as the builder
  // explained it. `*ran`, if given, says whether a child existed, so that what
  // the plan refers to may be used up.
  absl::StatusOr<Started> Run(const plan::PlanBuilder& plan,
                              bool* ran = nullptr) const;

  bool isolated() const { return (hello_.features & kIsolatedMounts) != 0; }
  BorrowedFd pidfd() const { return pidfd_.borrow(); }

  // Ends the launcher and everything that it runs and, if `wait`, waits for its
  // end. Idempotent.
  absl::Status Close(bool wait) const;

 private:
  Session(UniqueFd control, UniqueFd pidfd, const Message& hello);

  // The launcher's first answer to a start. A launcher that is dead is noticed
  // even if a forked copy of the host keeps the channel open.
  absl::StatusOr<Message> ReceiveAnswer(BorrowedFd channel,
                                        std::vector<UniqueFd>* fds) const;

  UniqueFd control_;
  UniqueFd pidfd_;
  Message hello_;
  pid_t creator_;
};

// Receives one message and the descriptors with it, at most two. `flags` as
// recvmsg(2). UNAVAILABLE at the end of the stream; the errno error otherwise.
absl::StatusOr<Message> ReceiveMessage(BorrowedFd socket,
                                       std::vector<UniqueFd>* fds, int flags);

}  // namespace caisson::launcher

#endif  // CAISSON_LIB_LAUNCHER_SESSION_H_
