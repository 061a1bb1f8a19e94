// Turns a ProcessSpec into a plan: what happens between clone and exec, in
// order.
#ifndef CAISSON_LIB_LAUNCHER_COMPOSE_H_
#define CAISSON_LIB_LAUNCHER_COMPOSE_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "caisson/launcher_options.h"
#include "caisson/process.h"
#include "caisson/unique_fd.h"
#include "lib/plan/builder.h"

namespace caisson::launcher {

struct Composition {
  plan::PlanBuilder plan;
  // The host's ends of what the process will hold.
  UniqueFd in;
  UniqueFd out;
  UniqueFd err;
  UniqueFd terminal_socket;  // the child sends the terminal's master here
  UniqueFd listener_socket;  // and here the listener of its seccomp filter
  // The execve calls of the plan, for ExplainExecFailure().
  std::vector<std::string> candidates;
};

// `isolated` says whether the launcher has a mount namespace without the host's
// mounts, `identity` which user namespace it has. INVALID_ARGUMENT and
// NOT_FOUND name the field of the spec. Nothing of the spec was used up after a
// failure.
absl::StatusOr<Composition> Compose(const ProcessSpec& spec,
                                    const SecurityPolicy& default_policy,
                                    bool isolated,
                                    const LauncherIdentity& identity);

}  // namespace caisson::launcher

#endif  // CAISSON_LIB_LAUNCHER_COMPOSE_H_
