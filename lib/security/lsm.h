// Which Linux security modules the running kernel has.
#ifndef CAISSON_LIB_SECURITY_LSM_H_
#define CAISSON_LIB_SECURITY_LSM_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace caisson::security {

// FAILED_PRECONDITION unless the module ("apparmor", "selinux") is active; the
// text begins with `field` and says which ones are. Reads
// /sys/kernel/security/lsm or, where securityfs is not mounted, asks by
// lsm_list_modules(2) (Linux 6.8).
absl::Status RequireLsm(absl::string_view field, absl::string_view module);

// INVALID_ARGUMENT if `label` cannot be one: too long, or with characters that
// would end it early.
absl::Status CheckLabel(absl::string_view field, absl::string_view label);

}  // namespace caisson::security

#endif  // CAISSON_LIB_SECURITY_LSM_H_
