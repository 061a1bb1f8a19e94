// Which number a system call has, for each way into the kernel.
#ifndef CAISSON_LIB_SECURITY_SYSCALL_NUMBERS_H_
#define CAISSON_LIB_SECURITY_SYSCALL_NUMBERS_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "caisson/seccomp.h"

namespace caisson::security {

// An architecture of the kernel. It also runs the programs of its predecessors.
enum class Architecture { kX86_64, kAarch64 };

#if defined(__x86_64__)
inline constexpr Architecture kNativeArchitecture = Architecture::kX86_64;
#elif defined(__aarch64__)
inline constexpr Architecture kNativeArchitecture = Architecture::kAarch64;
#else
#error "no table of system calls for this architecture"
#endif

// In every number of x32, beside those of x86_64 with the same `arch`.
inline constexpr uint32_t kX32Bit = 0x40000000;

// One way into the kernel: what struct seccomp_data has as `arch`, and the
// numbers that mean something there.
struct Entry {
  uint32_t audit_arch;
  // What is left of seccomp_data::nr before it is looked up.
  uint32_t number_mask;
  // By number; several numbers may have one name (x32).
  std::map<uint32_t, std::string> names;
};

// The entries of `architecture`, its own first: x86_64 (with x32) and i386;
// aarch64 and arm. x32 has the `arch` of x86_64 and bit 30 in its numbers; but
// for that bit they are those of x86_64, and 512 to 547. One table serves both:
// a number that only one of them has is ENOSYS to the kernel in the other,
// whatever a filter allows.
//
// libseccomp knows the numbers up to 450 (Linux 5.17). Since 5.1 a new system
// call has the same number everywhere, so that one list of our own goes on from
// there, up to kNewestNumber. Made once.
const std::vector<Entry>& EntriesOf(Architecture architecture);

// removexattrat, Linux 6.13.
inline constexpr uint32_t kNewestNumber = 466;

// The numbers of one way alone: x32 has bit 30 in its numbers and is not mixed
// with x86_64.
struct NumberTable {
  NumberTable() = default;
  NumberTable(NumberTable&&) = default;

  uint32_t audit_arch = 0;
  std::map<uint32_t, std::string> names;
  // Keys are in `names`.
  std::multimap<absl::string_view, uint32_t> numbers;
};
const NumberTable& NumbersOf(SeccompArchitecture architecture);

// What struct seccomp_data has as `arch`.
uint32_t AuditArchOf(SeccompArchitecture architecture);

// The ways into a kernel of `architecture`, its own first.
absl::Span<const SeccompArchitecture> WaysInto(Architecture architecture);

// "x86_64", "i386".
absl::string_view NameOf(SeccompArchitecture architecture);

// Whether a register of that way has 32 bits only.
bool Is32Bit(SeccompArchitecture architecture);

// On i386, `socket` is also reached as socketcall(1): the number of the older
// call that does so and its first argument. 0, 0: there is none.
struct Multiplexed {
  uint32_t number = 0;
  uint32_t selector = 0;
};
Multiplexed MultiplexedOf(SeccompArchitecture architecture,
                          absl::string_view name);

}  // namespace caisson::security

#endif  // CAISSON_LIB_SECURITY_SYSCALL_NUMBERS_H_
