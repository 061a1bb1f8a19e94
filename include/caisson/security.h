// SecurityPolicy: what a process may still do once it runs.
//
//   auto policy = caisson::SecurityPolicy::Create({});     // Docker's default
//   spec.security = &*policy;                              // ProcessSpec
//
//   caisson::SecurityOptions judge;                        // by intent
//   judge.no_network = true;
//   judge.no_new_processes = true;
//   judge.read_only_paths = {"/bin", "/lib", "/usr", "/input"};
//   judge.writable_paths = {"/output"};
//   std::cout << caisson::SecurityPolicy::Create(judge)->Explain();
//
// The default is Docker's: 14 capabilities, a list of allowed system calls, and
// beyond Docker's default no_new_privs. Whatever makes it weaker is a field
// whose name begins with "unsafe_", so that every weakening in a program can be
// found by searching for it:
//
//   options.unsafe_add_capabilities = {"CAP_NET_ADMIN"};
//   options.unsafe_seccomp = caisson::SeccompUnconfined{};
//
// A policy is meant to be made once and used for thousands of starts; a copy
// shares what was made. Immutable, hence thread-safe.
//
// Not for: hiding paths (RootFs masks them) and resources (Cgroup limits them).
#ifndef CAISSON_SECURITY_H_
#define CAISSON_SECURITY_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "caisson/seccomp.h"

namespace caisson {

// Tokens of SecurityOptions.
struct SeccompUnconfined {};
struct SeccompLogOnly {};
struct NewPrivilegesAllowed {};
struct HostSessionKeyring {};
struct LandlockBestEffort {};

// The five sets of capabilities(7), as in the OCI `process.capabilities`.
// Names as in SecurityOptions::drop_capabilities, without "ALL"; one that does
// not exist cannot be granted, and is reported as such.
struct CapabilitySets {
  std::vector<std::string> bounding;
  std::vector<std::string> effective;
  std::vector<std::string> permitted;
  std::vector<std::string> inheritable;
  std::vector<std::string> ambient;
};

// SECBIT_* of linux/securebits.h.
inline constexpr uint32_t kSecbitNoRoot = 1 << 0;
inline constexpr uint32_t kSecbitNoRootLocked = 1 << 1;
inline constexpr uint32_t kSecbitNoSetuidFixup = 1 << 2;
inline constexpr uint32_t kSecbitNoSetuidFixupLocked = 1 << 3;
inline constexpr uint32_t kSecbitKeepCaps = 1 << 4;
inline constexpr uint32_t kSecbitKeepCapsLocked = 1 << 5;
inline constexpr uint32_t kSecbitNoCapAmbientRaise = 1 << 6;
inline constexpr uint32_t kSecbitNoCapAmbientRaiseLocked = 1 << 7;

enum class PathAccess {
  kRead,          // read files, list directories
  kReadExecute,   // and execute
  kWrite,         // read, write, create, rename and remove; not execute
  kWriteExecute,  // all of it
};

struct PathRule {
  // Absolute; found inside the container with symbolic links followed. A
  // directory stands for all that is in it, mounts included.
  std::string path;
  PathAccess access = PathAccess::kRead;
  // What does not exist is left out instead of being an error.
  bool if_exists = false;
};

struct SecurityOptions {
  // ---- Capabilities --------------------------------------------------------
  // To take away from the default set: "CAP_CHOWN" or "CHOWN", in any case;
  // "ALL" takes all.
  std::vector<std::string> drop_capabilities;
  // To give beyond it, applied after the drops; "ALL": every one that the
  // kernel knows.
  std::vector<std::string> unsafe_add_capabilities;
  // Also for users other than root, and kept by whatever they execute. Added to
  // all five sets.
  std::vector<std::string> unsafe_ambient_capabilities;
  // Instead of the three above: exactly these sets, whoever the user is. They
  // must be possible: each is within the bounding set, effective within
  // permitted, ambient within permitted and inheritable.
  std::optional<CapabilitySets> unsafe_capability_sets;
  // kSecbit*, without those that only unsafe_securebits may have:
  // kSecbitNoSetuidFixup and kSecbitKeepCaps.
  uint32_t securebits = 0;
  uint32_t unsafe_securebits = 0;
  // Set-user-ID programs and file capabilities work.
  std::optional<NewPrivilegesAllowed> unsafe_new_privileges;

  // ---- System calls --------------------------------------------------------
  // No sockets but those of AF_UNIX. (The network namespace is what takes the
  // interfaces away; this takes the code of the kernel away.)
  bool no_network = false;
  // No fork; threads can still be made.
  bool no_new_processes = false;
  // No ptrace and no access to the memory of other processes.
  bool no_debugging = false;
  // Refused whatever the rest says.
  std::vector<std::string> deny_syscalls;
  // The host answers: Process::TakeSeccompListener(), seccomp_notify.h. Until
  // it does, the caller waits; once the listener is closed, ENOSYS. Since Linux
  // 5.19, only a deadly signal takes it out of a call that the host has seen.
  // Not for what starts the program: execve, close_range, dup3, sendmsg,
  // exit_group.
  std::vector<std::string> notify_syscalls;
  // A refused call ends the process by SIGSYS instead of failing with EPERM.
  bool kill_on_violation = false;
  // Allowed whatever their arguments.
  std::vector<std::string> unsafe_allow_syscalls;
  // Instead of the default list; the fields above must be left alone then.
  std::optional<SeccompProfile> unsafe_seccomp_profile;
  // Nothing is refused; the kernel logs what would have been (audit, or its own
  // log): to find out what a program needs.
  std::optional<SeccompLogOnly> unsafe_seccomp_log_only;
  // No filter at all.
  std::optional<SeccompUnconfined> unsafe_seccomp;
  // The default list is what keeps device nodes from being made: with one of
  // the last three, or with mknod allowed, CAP_MKNOD leaves the default set.

  // ---- Landlock (landlock(7)) ----------------------------------------------
  // If one of the three is not empty, everything else is out of reach.
  std::vector<std::string> read_only_paths;  // kReadExecute
  std::vector<std::string> writable_paths;   // kWriteExecute
  std::vector<PathRule> path_rules;
  // The only TCP ports that may be bound or connected to; an empty list: none.
  std::optional<std::vector<uint16_t>> tcp_bind_ports;     // Linux 6.7
  std::optional<std::vector<uint16_t>> tcp_connect_ports;  // Linux 6.7
  // No signals to, and no abstract unix sockets of, processes that are not
  // under this start's rules.
  bool scope_signals = false;           // Linux 6.12
  bool scope_abstract_sockets = false;  // Linux 6.12
  // A kernel that cannot do all of this does what it can; Explain() says what
  // is missing. Without the token that is an error.
  std::optional<LandlockBestEffort> unsafe_landlock_best_effort;

  // ---- Security modules ----------------------------------------------------
  // A profile that is loaded on the host; empty or "unconfined": the host's.
  std::string apparmor_profile;
  // The context of the process, "system_u:system_r:container_t:s0:c1,c2".
  std::string selinux_label;

  // ---- Keys ----------------------------------------------------------------
  // The process keeps the session keyring of the host (keyrings(7)) instead of
  // getting an empty one.
  std::optional<HostSessionKeyring> unsafe_session_keyring;
};

// One instruction of a classic BPF program (struct sock_filter).
struct BpfInstruction {
  uint16_t code;
  uint8_t jump_true;
  uint8_t jump_false;
  uint32_t k;
};

// Bit n is capability number n (linux/capability.h).
struct CapabilityMasks {
  uint64_t bounding = 0;
  uint64_t effective = 0;
  uint64_t permitted = 0;
  uint64_t inheritable = 0;
  uint64_t ambient = 0;

  bool operator==(const CapabilityMasks&) const = default;
};

class SecurityPolicy final {
 public:
  // INVALID_ARGUMENT names the field: a capability that does not exist and what
  // may have been meant, sets that are not possible, fields that exclude each
  // other, a profile under which no program could be started.
  // FAILED_PRECONDITION: the kernel lacks what was asked for (Landlock, a
  // security module, a flag of seccomp); the text says what it has.
  // RESOURCE_EXHAUSTED: the profile is longer than the kernel takes.
  //
  // A capability that the caller's own bounding set lacks cannot be granted: it
  // is left out, as the OCI runtime specification asks, and listed in
  // missing_capabilities().
  static absl::StatusOr<SecurityPolicy> Create(const SecurityOptions& options);

  SecurityPolicy(const SecurityPolicy&);
  SecurityPolicy& operator=(const SecurityPolicy&);
  SecurityPolicy(SecurityPolicy&&) noexcept;
  SecurityPolicy& operator=(SecurityPolicy&&) noexcept;
  ~SecurityPolicy();

  // What the process has when its program starts. By default, root inside has
  // permitted and effective what the bounding set has, other users none; the
  // inheritable and ambient sets are empty (CVE-2022-29162).
  const CapabilityMasks& CapabilitiesOf(bool is_root) const;
  // The bounding set.
  uint64_t capabilities() const;
  // The highest capability number that the kernel knows: what to drop up to.
  int last_capability() const;
  // Names that were asked for but could not be granted.
  const std::vector<std::string>& missing_capabilities() const;

  bool no_new_privileges() const;

  // The filter, as seccomp(2) takes it; empty if unconfined.
  absl::Span<const BpfInstruction> seccomp_program() const;
  // Whether a process has a listener: some call is handed to the host.
  bool has_seccomp_listener() const;

  // What the policy allows, for people: capabilities, system calls by rule with
  // their conditions, paths, ports, flags; and what was left out and why.
  std::string Explain() const;
  // Which rule decides about a system call, and how:
  // "mount: answered EPERM (allow-list, mounting: needs CAP_SYS_ADMIN)".
  // Without arguments, what it depends on.
  std::string ExplainViolation(const SyscallEvent& event) const;
  // Which Landlock rules reach an absolute path, and what they allow there. By
  // its name: what symbolic links lead to has another one.
  std::string ExplainPath(absl::string_view path) const;

  // For launchers: lib/security/policy_state.h.
  struct State;
  const State& state() const { return *state_; }

 private:
  explicit SecurityPolicy(std::shared_ptr<const State> state);
  std::shared_ptr<const State> state_;
};

}  // namespace caisson

#endif  // CAISSON_SECURITY_H_
