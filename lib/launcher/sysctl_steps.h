// The part of a plan that sets kernel parameters.
#ifndef CAISSON_LIB_LAUNCHER_SYSCTL_STEPS_H_
#define CAISSON_LIB_LAUNCHER_SYSCTL_STEPS_H_

#include "absl/status/status.h"
#include "caisson/namespace.h"
#include "lib/plan/builder.h"

namespace caisson::launcher {

// Writes `options.sysctls`. The child must be in its namespaces, with all
// capabilities there, and have the launcher's /proc or the host's.
absl::Status AddSysctls(plan::PlanBuilder& plan,
                        const NamespaceOptions& options);

}  // namespace caisson::launcher

#endif  // CAISSON_LIB_LAUNCHER_SYSCTL_STEPS_H_
