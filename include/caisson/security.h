// SecurityPolicy: what a process may still do once it runs.
//
//   auto policy = caisson::SecurityPolicy::Create({});     // Docker's default
//   spec.security = &*policy;                              // ProcessSpec
//
// The default is Docker's: 14 capabilities, a list of allowed system calls, and
// beyond Docker's default no_new_privs. Whatever makes it weaker is a field
// whose name begins with "unsafe_" and whose type is a token, so that every
// weakening in a program can be found by searching for it:
//
//   options.unsafe_add_capabilities = {"CAP_NET_ADMIN"};
//   options.unsafe_seccomp = caisson::SeccompUnconfined{};
//
// A policy is meant to be made once and used for thousands of starts.
// Immutable, hence thread-safe.
//
// Not for: paths (RootFs masks them) and resources (Cgroup limits them).
#ifndef CAISSON_SECURITY_H_
#define CAISSON_SECURITY_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace caisson {

// Tokens of SecurityOptions.
struct SeccompUnconfined {};
struct NewPrivilegesAllowed {};

struct SecurityOptions {
  // Capabilities to take away from the default set: "CAP_CHOWN" or "CHOWN", in
  // any case; "ALL" takes all.
  std::vector<std::string> drop_capabilities;
  // Capabilities to give beyond it, applied after the drops; "ALL": every one
  // that the kernel knows.
  std::vector<std::string> unsafe_add_capabilities;
  // No filter at all. CAP_MKNOD leaves the default set then, because the filter
  // is what keeps device nodes from being made.
  std::optional<SeccompUnconfined> unsafe_seccomp;
  // Set-user-ID programs and file capabilities work.
  std::optional<NewPrivilegesAllowed> unsafe_new_privileges;
};

// One instruction of a classic BPF program (struct sock_filter).
struct BpfInstruction {
  uint16_t code;
  uint8_t jump_true;
  uint8_t jump_false;
  uint32_t k;
};

class SecurityPolicy final {
 public:
  // INVALID_ARGUMENT names a capability that does not exist and what may have
  // been meant. A capability that the caller's own bounding set lacks cannot be
  // granted: it is left out, as the OCI runtime specification asks, and listed
  // in missing_capabilities().
  static absl::StatusOr<SecurityPolicy> Create(const SecurityOptions& options);

  SecurityPolicy(SecurityPolicy&&) noexcept;
  SecurityPolicy& operator=(SecurityPolicy&&) noexcept;
  ~SecurityPolicy();

  // Bit n is capability number n (linux/capability.h). This is the bounding
  // set, and what root inside has permitted and effective; the inheritable and
  // ambient sets are empty (CVE-2022-29162). Other users have none.
  uint64_t capabilities() const;
  // The highest capability number that the kernel knows: what to drop up to.
  int last_capability() const;
  // Names that were asked for but could not be granted.
  const std::vector<std::string>& missing_capabilities() const;

  bool no_new_privileges() const;

  // The filter, as seccomp(2) takes it; empty if unconfined.
  absl::Span<const BpfInstruction> seccomp_program() const;

 private:
  struct State;
  explicit SecurityPolicy(std::unique_ptr<const State> state);
  std::unique_ptr<const State> state_;
};

}  // namespace caisson

#endif  // CAISSON_SECURITY_H_
