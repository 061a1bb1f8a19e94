// The end of a plan: the process gives up what it does not need.
#ifndef CAISSON_LIB_LAUNCHER_SECURITY_STEPS_H_
#define CAISSON_LIB_LAUNCHER_SECURITY_STEPS_H_

#include "absl/status/status.h"
#include "caisson/security.h"
#include "caisson/unique_fd.h"
#include "lib/launcher/user.h"
#include "lib/plan/builder.h"

namespace caisson::launcher {

// A session keyring of its own. Before the ids change: a key counts for the
// user that makes it, and others than root may have 200 (keys(5) of /proc).
void AddSessionKeyring(plan::PlanBuilder& plan, const SecurityPolicy& policy);

// The label that exec gives the process (AppArmor, SELinux). While the procfs
// of the launcher is still there: one that an image or a container brings may
// lead anywhere (CVE-2019-16884).
void AddLabels(plan::PlanBuilder& plan, const SecurityPolicy& policy);

// Bounding set, groups, ids, capability sets, securebits,
// umask, no_new_privs, Landlock. When new privileges are allowed, CAP_SYS_ADMIN
// stays until the filter is loaded, which needs it. Without `setgroups` the
// supplementary groups stay as they are.
void AddCredentials(plan::PlanBuilder& plan, const SecurityPolicy& policy,
                    const User& user, bool setgroups);

// Closes the descriptors and loads the filter: last, so that the filter need
// not allow what sets the process up. If it asks the host, the child sends the
// listener to `host_end`, which takes one message (plan::ReceiveFds); the
// filter must then allow the sending and the closing, which
// SecurityPolicy::Create() has checked.
absl::Status AddFilter(plan::PlanBuilder& plan, const SecurityPolicy& policy,
                       const User& user, UniqueFd& host_end);

}  // namespace caisson::launcher

#endif  // CAISSON_LIB_LAUNCHER_SECURITY_STEPS_H_
