// Whether and when a container is started again. No clocks, no processes.
#ifndef CAISSON_LIB_KEEPER_RESTART_POLICY_H_
#define CAISSON_LIB_KEEPER_RESTART_POLICY_H_

#include <optional>

#include "absl/time/time.h"
#include "caisson/container_policies.h"

namespace caisson::keeper {

// How a run ended. A start that failed is a run that took no time and ended
// with a code other than 0.
struct RunEnd {
  int exit_code = 0;  // as a shell has it: 128 and the signal, if it was one
  bool stopped_by_user = false;
};

// From a start by somebody to the next. Not thread-safe.
class RestartDecider final {
 public:
  // `restarts` that count already, of a keeper that is gone.
  explicit RestartDecider(const RestartPolicy& policy, int restarts = 0)
      : policy_(policy), restarts_(restarts) {}

  // After how long to start it again; nothing: not at all.
  std::optional<absl::Duration> OnExit(const RunEnd& end, absl::Time started,
                                       absl::Time now);

  // How often OnExit() said so.
  int restarts() const { return restarts_; }

  // Another policy from now on; what was counted stays.
  void SetPolicy(const RestartPolicy& policy) { policy_ = policy; }

 private:
  RestartPolicy policy_;
  int restarts_;
  absl::Duration delay_;  // the last one; 0: none, or the run was long enough
};

// Whether to start a container whose keeper is gone after a reboot or because
// it was killed, and which somebody had started at some time. `exit_code` is
// not 0 for a run that was cut short; `restarts` are those since then.
bool StartsOnRecovery(const RestartPolicy& policy, int exit_code,
                      bool stopped_by_user, int restarts = 0);

}  // namespace caisson::keeper

#endif  // CAISSON_LIB_KEEPER_RESTART_POLICY_H_
