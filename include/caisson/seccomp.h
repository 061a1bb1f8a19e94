// SeccompProfile: which system calls a process may make, as the OCI runtime
// specification says it in `linux.seccomp`.
//
//   caisson::SeccompProfile profile;
//   profile.default_action = caisson::SeccompAction::kErrno;
//   profile.syscalls.push_back({.names = {"read", "write", "exit_group"},
//                               .action = caisson::SeccompAction::kAllow});
//   options.unsafe_seccomp_profile = profile;           // SecurityOptions
//
// Most programs need none: SecurityPolicy has a default, and fields to make it
// stricter. See seccomp(2) and config-linux.md of the specification.
#ifndef CAISSON_SECCOMP_H_
#define CAISSON_SECCOMP_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace caisson {

// SCMP_ACT_*; SCMP_ACT_KILL is kKillThread.
enum class SeccompAction {
  kKillThread,
  kKillProcess,
  kTrap,    // SIGSYS
  kErrno,   // fails with SeccompRule::errno_ret
  kTrace,   // asks a ptrace(2) tracer; ENOSYS without one
  kNotify,  // asks the host: Process::TakeSeccompListener()
  kLog,     // allows and writes an audit record
  kAllow,
};

// SCMP_CMP_*. All compare without sign.
enum class SeccompOperator {
  kNotEqual,
  kLess,
  kLessEqual,
  kEqual,
  kGreaterEqual,
  kGreater,
  kMaskedEqual,  // argument & value == value_two
};

// SCMP_ARCH_*: ways into the kernel. A kernel of x86_64 has the first three,
// one of aarch64 the others.
enum class SeccompArchitecture { kX86_64, kX86, kX32, kAarch64, kArm };

struct SeccompArgument {
  uint32_t index = 0;  // 0 to 5
  uint64_t value = 0;
  uint64_t value_two = 0;  // kMaskedEqual alone
  SeccompOperator op = SeccompOperator::kEqual;
};

// What happens to the calls in `names` if all of `args` hold. As in runc, if
// two of `args` have the same index, one that holds is enough.
struct SeccompRule {
  std::vector<std::string> names;
  SeccompAction action = SeccompAction::kAllow;
  // For kErrno and kTrace; EPERM if it is missing.
  std::optional<uint32_t> errno_ret;
  std::vector<SeccompArgument> args;
};

// Rules are combined as libseccomp and runc do: a rule without `args` outweighs
// those of the same call that have some; a rule that says what the default says
// is left out (and reported). Of several rules with `args` that hold, the first
// one counts.
//
// Two differences. The request of ioctl(2) is compared in its low 32 bits,
// which is all that the kernel reads (CVE-2019-10063). And a way into the
// kernel that is not listed ends the process, not just the thread; x32 is
// answered with ENOSYS, as by a kernel without it.
struct SeccompProfile {
  SeccompAction default_action = SeccompAction::kErrno;
  // For kErrno and kTrace; EPERM if it is missing.
  std::optional<uint32_t> default_errno_ret;
  // The native one is always there. Those of other kernels have no effect.
  std::vector<SeccompArchitecture> architectures;

  // SECCOMP_FILTER_FLAG_*. TSYNC needs no field: a process that is about to
  // execute has one thread.
  bool log = false;
  bool spec_allow = false;
  bool wait_killable_recv = false;  // Linux 5.19; without kNotify no effect

  // Numbers after the last one that a rule names are answered with ENOSYS
  // instead of the default, unless that allows, logs or traces: a C library
  // takes ENOSYS as "older kernel".
  std::vector<SeccompRule> syscalls;
};

// A system call as the kernel reports it: in a notification, in the siginfo of
// a SIGSYS (si_arch, si_syscall) or in an audit record (arch, syscall).
struct SyscallEvent {
  uint32_t audit_arch = 0;  // AUDIT_ARCH_* of linux/audit.h
  uint32_t number = 0;
  // Missing if they are not known, as in a SIGSYS. An audit record has four.
  std::optional<std::array<uint64_t, 6>> args;
};

// The event in a line of the kernel's log or of auditd that has "arch=" and
// "syscall=", as a filter writes with SeccompAction::kLog; "a0=" to "a3=" are
// its arguments if all four are there. INVALID_ARGUMENT otherwise.
absl::StatusOr<SyscallEvent> ParseAuditRecord(absl::string_view line);

// "mount", "x32 mount", "syscall 999 of i386".
std::string SyscallName(uint32_t audit_arch, uint32_t number);

// AUDIT_ARCH_* of the architecture that this library was built for.
uint32_t NativeAuditArch();

}  // namespace caisson

#endif  // CAISSON_SECCOMP_H_
