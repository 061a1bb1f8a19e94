// `process` and `linux.seccomp` as ProcessSpec and SecurityOptions. Pure.
// Thread-safe.
#ifndef CAISSON_LIB_CONTAINER_PROCESS_H_
#define CAISSON_LIB_CONTAINER_PROCESS_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/process.h"
#include "caisson/seccomp.h"
#include "caisson/security.h"
#include "lib/spec/runtime_config.h"

namespace caisson::container {

// What an `exec` means differently: only then processors are chosen.
enum class ProcessKind { kContainer, kExec };

absl::Status TranslateProcess(const spec::Process& process, ProcessKind kind,
                              ProcessSpec& out);

// Capabilities, no_new_privs and labels; a capability that cannot be in a set
// because another set lacks it becomes a warning.
void TranslateRights(const spec::Process& process, SecurityOptions& out,
                     std::vector<std::string>& warnings);

absl::StatusOr<SeccompProfile> TranslateSeccomp(const spec::Seccomp& seccomp);

// "0-3,7".
absl::StatusOr<std::vector<int>> ParseNumberList(const std::string& field,
                                                 absl::string_view text);

absl::Status TranslateMemoryPolicy(const spec::MemoryPolicy& policy,
                                   Scheduling& out);

}  // namespace caisson::container

#endif  // CAISSON_LIB_CONTAINER_PROCESS_H_
