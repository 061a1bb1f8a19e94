// The default profile with what SecurityOptions adds to it, as a table.
#ifndef CAISSON_LIB_SECURITY_DEFAULT_TABLE_H_
#define CAISSON_LIB_SECURITY_DEFAULT_TABLE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "lib/security/filter_table.h"
#include "lib/security/syscall_numbers.h"

namespace caisson::security {

// Later ones outweigh earlier ones.
struct DefaultTableOptions {
  uint64_t capabilities = 0;
  // What the default profile answers with EPERM is answered with this.
  uint32_t denied = 0;
  std::vector<std::string> allow;  // whatever their arguments
  bool no_network = false;
  bool no_new_processes = false;
  bool no_debugging = false;
  std::vector<std::string> notify;
  std::vector<std::string> deny;
};

// SECCOMP_RET_ERRNO with EPERM.
extern const uint32_t kAnswerEperm;

// A seccomp_data::arch that a kernel of `architecture` cannot have ends the
// process. Pure and thread-safe.
FilterTable MakeDefaultTable(Architecture architecture,
                             const DefaultTableOptions& options);

// INVALID_ARGUMENT, beginning with `field`, for the first name that is no
// system call on any architecture.
absl::Status CheckSyscallNames(absl::string_view field,
                               const std::vector<std::string>& names);

// Everything that would be refused is carried out and logged.
void MakeLogOnly(FilterTable& table);

}  // namespace caisson::security

#endif  // CAISSON_LIB_SECURITY_DEFAULT_TABLE_H_
