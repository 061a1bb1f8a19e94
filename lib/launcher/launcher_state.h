// What a Launcher holds.
#ifndef CAISSON_LIB_LAUNCHER_LAUNCHER_STATE_H_
#define CAISSON_LIB_LAUNCHER_LAUNCHER_STATE_H_

#include <memory>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "caisson/launcher.h"
#include "caisson/security.h"
#include "lib/base/mutex.h"
#include "lib/launcher/compose.h"
#include "lib/launcher/process_state.h"
#include "lib/launcher/session.h"

namespace caisson {

struct Launcher::State {
  explicit State(launcher::Session s)
      : session(std::make_shared<launcher::Session>(std::move(s))) {}

  static absl::StatusOr<Launcher> Create(const LauncherOptions& options);

  launcher::LauncherView view() const {
    return {.isolated = session->isolated(), .identity = identity};
  }

  absl::StatusOr<SecurityPolicy> DefaultPolicy();
  absl::StatusOr<SecurityPolicy> PolicyOf(const ProcessSpec& spec);
  absl::StatusOr<Process> Begin(const ProcessSpec& spec, launcher::Until until);
  // What a detached process left for those who attach.
  absl::StatusOr<Process> Adopt(launcher::Session::Found found);
  absl::StatusOr<Process> Exec(const Process::State& container,
                               const ProcessSpec& spec);

  absl::StatusOr<Process> Run(std::unique_ptr<Process::State> state,
                              launcher::Composition composition,
                              const ProcessSpec& spec);
  // Runs the plan until the process waits for Process::Start(), or executes.
  absl::Status Advance(launcher::Composition& composition,
                       Process::State& process, const ProcessSpec& spec);
  absl::Status RunCreationHooks(const launcher::Composition& composition,
                                Process::State& process,
                                absl::Duration timeout);
  absl::Status AtAwait(const launcher::Composition& composition,
                       Process::State& process, absl::Duration timeout,
                       absl::FunctionRef<absl::Status()> hooks);
  // Gives the process object what it keeps of its composition.
  absl::StatusOr<Process> Complete(std::unique_ptr<Process::State> state,
                                   launcher::Composition composition,
                                   const ProcessSpec& spec);
  void ReportOomScore(const ProcessSpec& spec, Process::State& state);

  // Processes keep it for what they need of the launcher after their start.
  const std::shared_ptr<launcher::Session> session;
  LauncherIdentity identity;
  std::shared_ptr<const sys::MountExecutor> mounts;
  Mutex mutex;
  // Compiled when the first process without a policy of its own starts.
  std::optional<SecurityPolicy> default_policy ABSL_GUARDED_BY(mutex);
};

}  // namespace caisson

#endif  // CAISSON_LIB_LAUNCHER_LAUNCHER_STATE_H_
