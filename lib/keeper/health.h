// The health of a container, as probes tell it. No clocks, no processes.
#ifndef CAISSON_LIB_KEEPER_HEALTH_H_
#define CAISSON_LIB_KEEPER_HEALTH_H_

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "caisson/container_policies.h"

namespace caisson::keeper {

// INVALID_ARGUMENT names the field.
absl::Status CheckHealthCheck(const HealthCheck& check);

// What to execute; empty if there is no check.
std::vector<std::string> ProbeCommand(const HealthCheck& check);

// One container's. The loop that has it does this:
//
//   monitor.OnStarted(now);                 // the container runs
//   after monitor.NextProbeIn(now):         // if that has a value
//     monitor.OnProbeStarted(now);          // ProbeCommand() runs
//     monitor.OnProbeOutput(bytes) ...
//     one of OnProbeEnded(), OnProbeTimedOut() (after timeout(); the probe is
//     then killed and its end awaited, about which nothing is told) and
//     OnProbeFailed() (it could not be started)
//     and once more from NextProbeIn().
//
// Those three answer the new status if it has changed, for an event. A paused
// container is not probed; the loop begins again with NextProbeIn() when it
// goes on. Not thread-safe.
class HealthMonitor final {
 public:
  // `previous` is what earlier runs left, whose log is continued.
  explicit HealthMonitor(HealthCheck check, HealthState previous = {});

  // The container has started, for the first time or again.
  void OnStarted(absl::Time now);

  // It has ended. Nobody asks any more, so it is unhealthy, as Docker has it.
  void OnEnded();

  // From `now`, when the container has started, a probe has ended or a pause
  // is over. Nothing if there is no check.
  std::optional<absl::Duration> NextProbeIn(absl::Time now) const;
  absl::Duration timeout() const { return check_.timeout; }

  void OnProbeStarted(absl::Time now);
  void OnProbeOutput(absl::string_view bytes);
  std::optional<HealthStatus> OnProbeEnded(int exit_code, absl::Time now);
  std::optional<HealthStatus> OnProbeTimedOut(absl::Time now);
  std::optional<HealthStatus> OnProbeFailed(const absl::Status& why,
                                            absl::Time now);

  const HealthState& state() const { return state_; }

 private:
  bool enabled() const { return state_.status != HealthStatus::kNone; }
  std::string TakeOutput();
  std::optional<HealthStatus> Record(HealthProbe probe);
  void Count(const HealthProbe& probe);

  HealthCheck check_;
  HealthState state_;
  absl::Time started_;        // the container
  absl::Time probe_started_;  // the last probe
  std::string output_;        // of it
};

}  // namespace caisson::keeper

#endif  // CAISSON_LIB_KEEPER_HEALTH_H_
