// Limits and scheduling of a process, as plan operations.
#ifndef CAISSON_LIB_LAUNCHER_ATTRIBUTE_STEPS_H_
#define CAISSON_LIB_LAUNCHER_ATTRIBUTE_STEPS_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "caisson/process.h"
#include "lib/plan/builder.h"

namespace caisson::launcher {

// Writes oom_score_adj, through the launcher's /proc: before the process enters
// another mount namespace or root.
void AddOomScore(plan::PlanBuilder& plan, const ProcessSpec& spec);

// Everything else: after the process entered its control
// group, which has a say in processors and memory nodes, and while it has all
// its rights. Limits that the host may not grant are lowered and described in
// `omissions`; `own_user_namespace` takes the process CAP_SYS_RESOURCE.
// INVALID_ARGUMENT names the field.
absl::Status AddAttributes(plan::PlanBuilder& plan, const ProcessSpec& spec,
                           bool own_user_namespace,
                           std::vector<std::string>& omissions);

// The limits that the set-up itself could meet, RLIMIT_NOFILE and RLIMIT_NPROC:
// at the end, when no right is needed to lower them. AddAttributes() has raised
// the hard ones where that was asked for.
absl::Status AddLateLimits(plan::PlanBuilder& plan, const ProcessSpec& spec,
                           bool own_user_namespace);

// Whether the limits contain RLIMIT_NOFILE, which CloseDescriptors() leaves
// alone then.
bool LimitsDescriptors(const ProcessSpec& spec);

}  // namespace caisson::launcher

#endif  // CAISSON_LIB_LAUNCHER_ATTRIBUTE_STEPS_H_
