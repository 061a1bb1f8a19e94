// A policy in words.
#ifndef CAISSON_LIB_SECURITY_EXPLAIN_H_
#define CAISSON_LIB_SECURITY_EXPLAIN_H_

#include <string>

#include "absl/strings/string_view.h"
#include "caisson/seccomp.h"
#include "lib/security/filter_table.h"
#include "lib/security/landlock.h"
#include "lib/security/policy_state.h"

namespace caisson::security {

std::string ExplainPolicy(const SecurityPolicy::State& state);

std::string ExplainEvent(const FilterTable& table, const SyscallEvent& event);

std::string ExplainAccess(const Landlock& landlock, absl::string_view path);

}  // namespace caisson::security

#endif  // CAISSON_LIB_SECURITY_EXPLAIN_H_
