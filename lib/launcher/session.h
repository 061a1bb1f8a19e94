// The host's side of one launcher process.
#ifndef CAISSON_LIB_LAUNCHER_SESSION_H_
#define CAISSON_LIB_LAUNCHER_SESSION_H_

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "caisson/launcher_options.h"
#include "caisson/process.h"
#include "caisson/unique_fd.h"
#include "lib/base/deadline.h"
#include "lib/base/mutex.h"
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
  // One that `releases` is no PID 1: what it started can outlive it.
  static absl::StatusOr<Session> Create(bool releases = false);
  // The same in two halves: the first returns the socket for the second, which
  // waits for the launcher's first message.
  static absl::StatusOr<UniqueFd> Spawn(bool releases);
  static absl::StatusOr<Session> Connect(UniqueFd control);

  struct InUserNamespace;
  // One that needs no privilege: the launcher is born in a user namespace of
  // its own, with the ids that `ids` asks for.
  static absl::StatusOr<InUserNamespace> CreateInUserNamespace(LauncherIds ids);
  // One that runs already, over a socket that its host made known by Listen().
  static absl::StatusOr<Session> Attach(UniqueFd control,
                                        absl::Duration timeout = kStartTimeout);
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
  // nothing of the process is left. With the socket over which the plan waits,
  // it returns when that has come so far or is over: a host that is woken once
  // more before has nothing to do. `sent` is called when the plan's descriptors
  // are on their way, and closes them: one that is kept would hide the end.
  absl::StatusOr<Started> Begin(
      const plan::PlanBuilder& plan, Deadline deadline,
      BorrowedFd await = BorrowedFd(),
      absl::FunctionRef<void()> sent = [] {}) const;
  // Waits until the plan waits for a byte over the other end of `socket`.
  absl::Status ReachAwait(const plan::PlanBuilder& plan, Started& started,
                          BorrowedFd socket, Deadline deadline) const;
  // Waits for the end of the plan.
  absl::StatusOr<std::vector<StepLatency>> Finish(const plan::PlanBuilder& plan,
                                                  Started& started,
                                                  Deadline deadline) const;
  // Kills a process whose start is given up.
  void Abandon(const Started& started) const;

  // Lets further hosts come over `listening`, which is bound in `directory`.
  // The launcher keeps `lock` until its end.
  absl::Status Listen(BorrowedFd listening, BorrowedFd directory,
                      BorrowedFd lock) const;
  // The process outlives this host. The launcher keeps `note` for those who
  // attach, `plan` if that is valid (of one with an init), and `kept`.
  // ALREADY_EXISTS if there is a record of that name, NOT_FOUND if the process
  // has ended.
  absl::Status Detach(const Started& started, absl::string_view name,
                      absl::string_view note, BorrowedFd plan,
                      const std::vector<BorrowedFd>& kept) const;
  // The process is nobody's here from now on: see Process::Release(). OK if it
  // has ended.
  absl::Status Release(const Started& started) const;
  struct Found {
    Started process;  // pidfd, channel and serial
    // The note, the plan of one with an init, and the rest.
    std::vector<UniqueFd> kept;
  };
  // NOT_FOUND if no detached process of that name runs.
  absl::StatusOr<Found> Find(absl::string_view name) const;

  bool isolated() const { return (hello_.features & kIsolatedMounts) != 0; }
  bool own_user_namespace() const {
    return (hello_.features & kOwnUserNamespace) != 0;
  }
  bool releases() const { return (hello_.features & kReleases) != 0; }
  BorrowedFd pidfd() const { return pidfd_.borrow(); }

  // Ends everything that this host started and did not detach and, if nobody
  // else needs it, the launcher; waits for that if `wait`. Idempotent.
  absl::Status Close(bool wait) const;

 private:
  Session(UniqueFd control, UniqueFd pidfd, const Message& hello);

  // Sends a request that is answered on a channel of its own, which is the
  // result; `kind` is what a good answer is.
  absl::StatusOr<UniqueFd> Ask(const Request& request,
                               const std::vector<BorrowedFd>& fds,
                               MessageKind kind, Message* answer,
                               std::vector<UniqueFd>* received) const;
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

  // Whether the launcher said that it goes on without this host.
  struct Farewell {
    Mutex mutex;
    bool goes_on ABSL_GUARDED_BY(mutex) = false;
  };

  UniqueFd control_;
  UniqueFd pidfd_;
  Message hello_;
  pid_t creator_;
  std::shared_ptr<Farewell> farewell_ = std::make_shared<Farewell>();
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

// Receives one message and the descriptors with it. `flags` as
// recvmsg(2). UNAVAILABLE at the end of the stream; the errno error otherwise.
absl::StatusOr<Message> ReceiveMessage(BorrowedFd socket,
                                       std::vector<UniqueFd>* fds, int flags);

}  // namespace caisson::launcher

#endif  // CAISSON_LIB_LAUNCHER_SESSION_H_
