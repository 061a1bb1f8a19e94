// The host's side of one launcher process.
#ifndef CAISSON_LIB_LAUNCHER_SESSION_H_
#define CAISSON_LIB_LAUNCHER_SESSION_H_

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "caisson/launcher_options.h"
#include "caisson/process.h"
#include "caisson/unique_fd.h"
#include "lib/base/deadline.h"
#include "lib/launcher/protocol.h"
#include "lib/plan/builder.h"

namespace caisson::launcher {

// How long a start may take: only a frozen or exhausted control group or a file
// system that hangs takes longer than milliseconds.
inline constexpr absl::Duration kStartTimeout = absl::Seconds(30);

// A process that executes its plan, or has done so.
struct Started {
  UniqueFd pidfd;
  UniqueFd channel;  // carries one kExited message, then end of file
  UniqueFd status;   // a pipe that ends with the plan; closed then
  UniqueFd plan;     // the block, in which an init leaves a status
  uint64_t serial = 0;
  bool forked = false;                 // pidfd is that of the successor
  std::vector<StepLatency> latencies;  // by Run()
};

// Thread-safe: a request is one message, its answers have a channel of their
// own.
class Session final {
 public:
  static absl::StatusOr<Session> Create();

  struct InUserNamespace;
  // One that needs no privilege: the launcher is born in a user namespace of
  // its own, with the ids that `ids` asks for.
  static absl::StatusOr<InUserNamespace> CreateInUserNamespace(LauncherIds ids);
  // A second object for the same launcher, which may outlive this one.
  absl::StatusOr<Session> Share() const;

  Session(Session&&) = default;
  Session& operator=(Session&&) = default;

  // Sends `plan` and waits until its last operation: an exec that succeeded, or
  // an exit. The error of a plan that failed names the operation as the builder
  // explained it; nothing of the process is left then.
  absl::StatusOr<Started> Run(const plan::PlanBuilder& plan) const;

  // The same in parts, for plans that wait for the host on their way. Begin()
  // cloned a process: what the plan refers to may be used up. After a failure
  // nothing of the process is left.
  absl::StatusOr<Started> Begin(const plan::PlanBuilder& plan,
                                Deadline deadline) const;
  // Waits until the plan waits for a byte over the other end of `socket`.
  absl::Status ReachAwait(const plan::PlanBuilder& plan, Started& started,
                          BorrowedFd socket, Deadline deadline) const;
  // Waits for the end of the plan.
  absl::StatusOr<std::vector<StepLatency>> Finish(const plan::PlanBuilder& plan,
                                                  Started& started,
                                                  Deadline deadline) const;
  // Kills a process whose start is given up.
  void Abandon(const Started& started) const;

  bool isolated() const { return (hello_.features & kIsolatedMounts) != 0; }
  BorrowedFd pidfd() const { return pidfd_.borrow(); }

  // Ends the launcher and everything that it runs and, if `wait`, waits for its
  // end. Idempotent.
  absl::Status Close(bool wait) const;

 private:
  Session(UniqueFd control, UniqueFd pidfd, const Message& hello);

  // Waits for the first message of a launcher on `control`.
  static absl::StatusOr<Session> Connect(UniqueFd control);
  using MapIds = absl::FunctionRef<absl::StatusOr<LauncherIdentity>(pid_t pid)>;
  static absl::StatusOr<InUserNamespace> CreateMapped(MapIds map_ids);

  // The next message about a start. A launcher that is dead is noticed even if
  // a forked copy of the host keeps the channel open.
  absl::StatusOr<Message> ReceiveAnswer(BorrowedFd channel,
                                        std::vector<UniqueFd>* fds,
                                        Deadline deadline, int flags = 0) const;
  // Takes the pidfd of the process that took the first one's place.
  absl::Status FollowFork(const plan::PlanBuilder& plan, Started& started,
                          Deadline deadline) const;
  absl::StatusOr<std::vector<StepLatency>> AwaitEnd(
      const plan::PlanBuilder& plan, Started& started, Deadline deadline) const;

  UniqueFd control_;
  UniqueFd pidfd_;
  Message hello_;
  pid_t creator_;
};

// How the child of a plan's init ended, as wait4(2) reports it; nullopt if it
// was still running when the init was killed.
std::optional<int> InitStatus(BorrowedFd plan);

struct Session::InUserNamespace {
  Session launcher;
  // Runs plans in the host's mount namespace; see kMountsFd.
  Session mounts;
  LauncherIdentity identity;
};

// Receives one message and the descriptors with it, at most two. `flags` as
// recvmsg(2). UNAVAILABLE at the end of the stream; the errno error otherwise.
absl::StatusOr<Message> ReceiveMessage(BorrowedFd socket,
                                       std::vector<UniqueFd>* fds, int flags);

}  // namespace caisson::launcher

#endif  // CAISSON_LIB_LAUNCHER_SESSION_H_
