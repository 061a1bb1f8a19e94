// The end of a plan: the process gives up what it does not need.
#ifndef CAISSON_LIB_LAUNCHER_SECURITY_STEPS_H_
#define CAISSON_LIB_LAUNCHER_SECURITY_STEPS_H_

#include <sys/types.h>

#include "absl/status/statusor.h"
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
                    const User& user, mode_t umask, bool setgroups);

// If the filter asks the host: the socket over which the child sends the
// listener to `host_end`, which takes one message (plan::ReceiveFds), set aside
// from CloseDescriptors(). Otherwise an invalid slot.
absl::StatusOr<plan::Slot> AddListenerSocket(plan::PlanBuilder& plan,
                                             const SecurityPolicy& policy,
                                             UniqueFd& host_end);

// Loads the filter: last, so that it need not allow what sets the process up.
// With a listener it must allow the sending, which SecurityPolicy::Create() has
// checked.
void AddFilter(plan::PlanBuilder& plan, const SecurityPolicy& policy,
               const User& user, plan::Slot listener_socket);

// For helpers that run no program: keeps one capability and no way to others.
void AddOnlyCapability(plan::PlanBuilder& plan, int capability);

}  // namespace caisson::launcher

#endif  // CAISSON_LIB_LAUNCHER_SECURITY_STEPS_H_
