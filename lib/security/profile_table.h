// A SeccompProfile as a table.
#ifndef CAISSON_LIB_SECURITY_PROFILE_TABLE_H_
#define CAISSON_LIB_SECURITY_PROFILE_TABLE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "caisson/seccomp.h"
#include "lib/security/filter_table.h"
#include "lib/security/syscall_numbers.h"

namespace caisson::security {

struct ProfileTable {
  FilterTable table;
  // What of the profile has no effect, and why.
  std::vector<std::string> notes;
};

// INVALID_ARGUMENT names the rule: an argument beyond the sixth, an errno that
// the action does not take or that is too large, a rule without names. A name
// that no architecture of the profile knows is noted and left out, as in runc.
// Pure and thread-safe.
absl::StatusOr<ProfileTable> MakeProfileTable(Architecture architecture,
                                              const SeccompProfile& profile);

}  // namespace caisson::security

#endif  // CAISSON_LIB_SECURITY_PROFILE_TABLE_H_
