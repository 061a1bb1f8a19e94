// The end of a plan: the process gives up what it does not need.
#ifndef CAISSON_LIB_LAUNCHER_SECURITY_STEPS_H_
#define CAISSON_LIB_LAUNCHER_SECURITY_STEPS_H_

#include "caisson/security.h"
#include "lib/launcher/user.h"
#include "lib/plan/builder.h"

namespace caisson::launcher {

// Bounding set, groups, ids, capability sets, umask. With a filter that must be
// loaded while CAP_SYS_ADMIN is still there (new privileges allowed), the
// filter too.
void AddCredentials(plan::PlanBuilder& plan, const SecurityPolicy& policy,
                    const User& user);

// no_new_privs and the seccomp filter, if AddCredentials() has not added it:
// the last thing before exec, so that the filter need not allow what sets the
// process up.
void AddFilters(plan::PlanBuilder& plan, const SecurityPolicy& policy);

}  // namespace caisson::launcher

#endif  // CAISSON_LIB_LAUNCHER_SECURITY_STEPS_H_
