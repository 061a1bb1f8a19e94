// What a Process holds.
#ifndef CAISSON_LIB_LAUNCHER_PROCESS_STATE_H_
#define CAISSON_LIB_LAUNCHER_PROCESS_STATE_H_

#include <unistd.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "caisson/cgroup.h"
#include "caisson/detached.h"
#include "caisson/hooks.h"
#include "caisson/process.h"
#include "caisson/security.h"
#include "caisson/unique_fd.h"
#include "lib/base/mutex.h"
#include "lib/launcher/compose.h"
#include "lib/launcher/hooked_process.h"
#include "lib/launcher/namespace_steps.h"
#include "lib/launcher/process_note.h"
#include "lib/launcher/session.h"

namespace caisson {

struct Process::State {
  // What is left to do for a process that was created and not yet started.
  struct Pending {
    launcher::Composition composition;
    absl::Duration timeout;  // not of an adopted one
  };

  State(std::shared_ptr<const launcher::Session> s,
        std::optional<SecurityPolicy> p)
      : session(std::move(s)), policy(std::move(p)) {}

  HookState HookStateOf(
      absl::string_view status,
      launcher::HookPoint point = launcher::HookPoint::kOther) const;
  absl::Status CheckDetachable() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);
  absl::Status CheckReleasable() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);
  // Of a process that waits for its gate: takes what reads its system calls.
  absl::Status AwaitListener() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);
  // What is kept for those who attach, and what they have to know.
  absl::StatusOr<std::vector<UniqueFd>> PrepareNote(
      const DetachOptions& options, launcher::ProcessNote& note)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);
  // Takes a descriptor that was kept as `what`.
  void Keep(absl::string_view what, UniqueFd fd)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex);
  // The second half of a start, between its hooks.
  absl::Status LetRun(Pending pending);
  // The plan has ended well.
  void Publish(std::vector<StepLatency> steps);

  const std::shared_ptr<const launcher::Session> session;
  const pid_t creator = ::getpid();

  // Constant once the process was created, but for `plan`, which the mutex
  // guards from then on, and `status`, which only Start() uses.
  launcher::Started started;
  UniqueFd terminal;
  Hooks hooks;
  ProcessSpec inside;  // SpecInside()
  std::vector<std::string> omissions;
  // Of a container that Exec() joins.
  launcher::ContainerNamespaces namespaces;
  bool own_pid_namespace = false;
  bool has_init = false;
  std::vector<CgroupPath> group;
  int64_t oom_kills_before = 0;
  // None if the process is another host's, which had one of its own.
  const std::optional<SecurityPolicy> policy;
  bool default_policy = false;
  bool adopted = false;  // its end is told by its pidfd alone

  Mutex mutex;
  std::optional<Pending> pending ABSL_GUARDED_BY(mutex);
  bool destroyed ABSL_GUARDED_BY(mutex) = false;
  bool runs ABSL_GUARDED_BY(mutex) = false;  // its program
  // A detached one outlives this object.
  enum class Custody { kHosts, kDetaching, kDetached, kReleased };
  Custody custody ABSL_GUARDED_BY(mutex) = Custody::kHosts;
  std::vector<UniqueFd> kept ABSL_GUARDED_BY(mutex);
  std::vector<StepLatency> latencies ABSL_GUARDED_BY(mutex);
  UniqueFd in ABSL_GUARDED_BY(mutex);
  UniqueFd out ABSL_GUARDED_BY(mutex);
  UniqueFd err ABSL_GUARDED_BY(mutex);
  UniqueFd listener ABSL_GUARDED_BY(mutex);
  // Set once the channel was read to its end.
  std::optional<absl::StatusOr<ExitStatus>> exit ABSL_GUARDED_BY(mutex);
};

// Lets a plan that waits go on.
absl::Status ReleaseAwait(BorrowedFd socket);

// The error of a start that failed, in terms of the program.
absl::Status ExplainFailure(const absl::Status& status,
                            const launcher::Composition& composition);

absl::Status RunHooks(absl::string_view point, const std::vector<Hook>& hooks,
                      const HookState& state);

}  // namespace caisson

#endif  // CAISSON_LIB_LAUNCHER_PROCESS_STATE_H_
