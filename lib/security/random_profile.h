// Random profiles, and what a profile means said a second time (tests only).
//
// Interpret() knows nothing of tables and programs: it reads a SeccompProfile
// as the header of SeccompProfile describes it.
#ifndef CAISSON_LIB_SECURITY_RANDOM_PROFILE_H_
#define CAISSON_LIB_SECURITY_RANDOM_PROFILE_H_

#include <linux/seccomp.h>

#include <cstddef>
#include <cstdint>
#include <functional>

#include "caisson/seccomp.h"
#include "lib/security/syscall_numbers.h"

namespace caisson::security {

// What a kernel of `architecture` is to answer, as a SECCOMP_RET_* value.
uint32_t Interpret(Architecture architecture, const SeccompProfile& profile,
                   const seccomp_data& data);

// Random choices: a number below `bound`, which is not 0.
using Choose = std::function<uint64_t(uint64_t bound)>;

struct RandomOptions {
  // At most one rule of a call has conditions, and they look at different
  // arguments: of alternatives, libseccomp 2.5.4 tries one branch of its tree.
  bool no_alternatives = false;
};

SeccompProfile RandomProfile(const Choose& choose, Architecture architecture,
                             const RandomOptions& options = {});

// A call near what `profile` decides about.
seccomp_data RandomCall(const Choose& choose, Architecture architecture,
                        const SeccompProfile& profile);

}  // namespace caisson::security

#endif  // CAISSON_LIB_SECURITY_RANDOM_PROFILE_H_
