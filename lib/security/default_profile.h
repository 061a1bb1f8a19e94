// The default seccomp policy, as data: which system call gets which answer.
//
// It is Docker's default profile (moby/profiles, seccomp), stricter by two
// rules: ioctl(TIOCSTI) and ioctl(TIOCLINUX), which type into a terminal as if
// its user did (CVE-2017-5226), are refused, and so are mknod() and mknodat()
// of device nodes, whose use Docker refuses by a control group. The answers:
//
//   - allowed: what a group below lists, if the group needs no capability or
//     the process has one of those that it needs;
//   - EPERM: every other call that has a number up to kNewestNumber, and every
//     argument that is not permitted;
//   - ENOSYS: numbers that are not assigned, numbers after kNewestNumber, and
//     clone3 (unless the process has CAP_SYS_ADMIN), whose flags lie behind a
//     pointer where a filter cannot look. A C library takes ENOSYS as "older
//     kernel" and falls back, to clone for example; after EPERM it gives up.
//
// Thread-safe: constant data.
#ifndef CAISSON_LIB_SECURITY_DEFAULT_PROFILE_H_
#define CAISSON_LIB_SECURITY_DEFAULT_PROFILE_H_

#include <cstdint>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace caisson::security {

enum class Answer { kAllow, kEperm, kEnosys };

// Calls that are allowed to a process that has one of `capabilities` (a mask;
// 0: to every process).
struct SyscallGroup {
  absl::string_view subsystem;
  uint64_t capabilities;
  absl::Span<const absl::string_view> names;
};
absl::Span<const SyscallGroup> AllowedGroups();

struct ValueRange {
  uint32_t first;
  uint32_t last;
};

// Decides an allowed call by the low 32 bits of one argument. That is all that
// the kernel looks at: each of these parameters is an int or unsigned int, or
// (flags of clone) cut to 32 bits by it. Comparing all 64 would let a forbidden
// value pass with any bit set above.
struct ArgumentRule {
  absl::string_view name;
  // Does not hold for a process that has one of these.
  uint64_t unless_capabilities;
  int argument;
  // EPERM if one of these bits is set.
  uint32_t denied_bits;
  // The answer to a value in `values`, and to any other: EPERM to one of them.
  Answer listed;
  Answer other;
  absl::Span<const ValueRange> values;  // ascending, disjoint
};
absl::Span<const ArgumentRule> ArgumentRules();

// Calls that are answered with ENOSYS, not EPERM, where they are not allowed.
absl::Span<const absl::string_view> HiddenCalls();

}  // namespace caisson::security

#endif  // CAISSON_LIB_SECURITY_DEFAULT_PROFILE_H_
