#include "lib/security/syscall_numbers.h"

#include <linux/audit.h>
#include <seccomp.h>
#include <stdlib.h>

#include <iterator>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace caisson::security {
namespace {

// Up to here the numbers are libseccomp's, whatever its version.
constexpr uint32_t kLastOfLibseccomp = 450;

// arch/x86/entry/syscalls/syscall_64.tbl of the kernel.
constexpr uint32_t kX32First = 512;
constexpr uint32_t kX32Last = 547;

// arch/arm/include/uapi/asm/unistd.h: breakpoint ... get_tls.
constexpr uint32_t kArmPrivateFirst = 0x0f0001;
constexpr uint32_t kArmPrivateLast = 0x0f0006;

struct Numbered {
  uint32_t number;
  absl::string_view name;
};

// scripts/syscall.tbl of the kernel: the same on all architectures.
constexpr Numbered kNewNumbers[] = {
    {451, "cachestat"},          // 6.5
    {452, "fchmodat2"},          // 6.6
    {453, "map_shadow_stack"},   // 6.6
    {454, "futex_wake"},         // 6.7
    {455, "futex_wait"},         // 6.7
    {456, "futex_requeue"},      // 6.7
    {457, "statmount"},          // 6.8
    {458, "listmount"},          // 6.8
    {459, "lsm_get_self_attr"},  // 6.8
    {460, "lsm_set_self_attr"},  // 6.8
    {461, "lsm_list_modules"},   // 6.8
    {462, "mseal"},              // 6.10
    {463, "setxattrat"},         // 6.13
    {464, "getxattrat"},         // 6.13
    {465, "listxattrat"},        // 6.13
    {466, "removexattrat"},      // 6.13
};
static_assert(kNewNumbers[0].number == kLastOfLibseccomp + 1);
static_assert(std::end(kNewNumbers)[-1].number == kNewestNumber);

// 6.11, x86_64 alone. The trampoline of a return probe calls it, not a program.
constexpr Numbered kUretprobe = {335, "uretprobe"};

// Adds what libseccomp's table of `token` has from `first` to `last`. The
// tables of x86_64 and x32 never disagree on a number.
void AddKnown(uint32_t token, uint32_t first, uint32_t last, Entry& entry) {
  const uint32_t bit = token == SCMP_ARCH_X32 ? kX32Bit : 0;
  for (uint32_t number = first; number <= last; ++number) {
    const std::unique_ptr<char, decltype(&::free)> name(
        ::seccomp_syscall_resolve_num_arch(token,
                                           static_cast<int>(number | bit)),
        &::free);
    if (name != nullptr) entry.names.emplace(number, name.get());
  }
}

// What all entries have in common, for the one whose table is `token`.
Entry MakeEntry(uint32_t audit_arch, uint32_t token) {
  Entry entry = {
      .audit_arch = audit_arch, .number_mask = UINT32_MAX, .names = {}};
  AddKnown(token, 0, kLastOfLibseccomp, entry);
  for (const Numbered& added : kNewNumbers) {
    entry.names.emplace(added.number, added.name);
  }
  return entry;
}

Entry MakeWay(SeccompArchitecture architecture) {
  switch (architecture) {
    case SeccompArchitecture::kX86_64: {
      Entry entry = MakeEntry(AUDIT_ARCH_X86_64, SCMP_ARCH_X86_64);
      entry.names.emplace(kUretprobe.number, kUretprobe.name);
      return entry;
    }
    case SeccompArchitecture::kX32: {
      Entry entry = MakeEntry(AUDIT_ARCH_X86_64, SCMP_ARCH_X32);
      AddKnown(SCMP_ARCH_X32, kX32First, kX32Last, entry);
      Entry marked = {
          .audit_arch = AUDIT_ARCH_X86_64, .number_mask = ~0u, .names = {}};
      for (const auto& [number, name] : entry.names) {
        marked.names.emplace(number | kX32Bit, name);
      }
      return marked;
    }
    case SeccompArchitecture::kX86:
      return MakeEntry(AUDIT_ARCH_I386, SCMP_ARCH_X86);
    case SeccompArchitecture::kAarch64:
      return MakeEntry(AUDIT_ARCH_AARCH64, SCMP_ARCH_AARCH64);
    case SeccompArchitecture::kArm: {
      Entry entry = MakeEntry(AUDIT_ARCH_ARM, SCMP_ARCH_ARM);
      AddKnown(SCMP_ARCH_ARM, kArmPrivateFirst, kArmPrivateLast, entry);
      return entry;
    }
  }
  return {};
}

std::vector<Entry> MakeEntries(Architecture architecture) {
  if (architecture == Architecture::kAarch64) {
    return {MakeWay(SeccompArchitecture::kAarch64),
            MakeWay(SeccompArchitecture::kArm)};
  }
  Entry x86_64 = MakeWay(SeccompArchitecture::kX86_64);
  x86_64.number_mask = ~kX32Bit;
  AddKnown(SCMP_ARCH_X32, 0, kLastOfLibseccomp, x86_64);
  AddKnown(SCMP_ARCH_X32, kX32First, kX32Last, x86_64);
  return {std::move(x86_64), MakeWay(SeccompArchitecture::kX86)};
}

NumberTable MakeNumbers(SeccompArchitecture architecture) {
  Entry way = MakeWay(architecture);
  NumberTable table;
  table.audit_arch = way.audit_arch;
  table.names = std::move(way.names);
  for (const auto& [number, name] : table.names) {
    table.numbers.emplace(name, number);
  }
  return table;
}

template <SeccompArchitecture kWay>
const NumberTable& NumbersOnce() {
  static const auto* const table = new NumberTable(MakeNumbers(kWay));
  return *table;
}

constexpr SeccompArchitecture kWaysIntoX86_64[] = {SeccompArchitecture::kX86_64,
                                                   SeccompArchitecture::kX86,
                                                   SeccompArchitecture::kX32};
constexpr SeccompArchitecture kWaysIntoAarch64[] = {
    SeccompArchitecture::kAarch64, SeccompArchitecture::kArm};

// include/uapi/linux/net.h and ipc.h.
constexpr Numbered kSocketCalls[] = {
    {1, "socket"},    {2, "bind"},        {3, "connect"},     {4, "listen"},
    {5, "accept"},    {6, "getsockname"}, {7, "getpeername"}, {8, "socketpair"},
    {9, "send"},      {10, "recv"},       {11, "sendto"},     {12, "recvfrom"},
    {13, "shutdown"}, {14, "setsockopt"}, {15, "getsockopt"}, {16, "sendmsg"},
    {17, "recvmsg"},  {18, "accept4"},    {19, "recvmmsg"},   {20, "sendmmsg"},
};
constexpr Numbered kIpcCalls[] = {
    {1, "semop"},   {2, "semget"},  {3, "semctl"},  {4, "semtimedop"},
    {11, "msgsnd"}, {12, "msgrcv"}, {13, "msgget"}, {14, "msgctl"},
    {21, "shmat"},  {22, "shmdt"},  {23, "shmget"}, {24, "shmctl"},
};
constexpr uint32_t kI386Socketcall = 102;
constexpr uint32_t kI386Ipc = 117;

}  // namespace

// Each is made when it is first asked for: a table takes a tenth of a
// millisecond, and a program that starts one container asks for two or three.
const std::vector<Entry>& EntriesOf(Architecture architecture) {
  if (architecture == Architecture::kX86_64) {
    static const auto* const x86_64 =
        new std::vector<Entry>(MakeEntries(Architecture::kX86_64));
    return *x86_64;
  }
  static const auto* const aarch64 =
      new std::vector<Entry>(MakeEntries(Architecture::kAarch64));
  return *aarch64;
}

const NumberTable& NumbersOf(SeccompArchitecture architecture) {
  switch (architecture) {
    case SeccompArchitecture::kX86_64:
      return NumbersOnce<SeccompArchitecture::kX86_64>();
    case SeccompArchitecture::kX86:
      return NumbersOnce<SeccompArchitecture::kX86>();
    case SeccompArchitecture::kX32:
      return NumbersOnce<SeccompArchitecture::kX32>();
    case SeccompArchitecture::kAarch64:
      return NumbersOnce<SeccompArchitecture::kAarch64>();
    case SeccompArchitecture::kArm:
      break;
  }
  return NumbersOnce<SeccompArchitecture::kArm>();
}

uint32_t AuditArchOf(SeccompArchitecture architecture) {
  switch (architecture) {
    case SeccompArchitecture::kX86_64:
    case SeccompArchitecture::kX32:
      return AUDIT_ARCH_X86_64;
    case SeccompArchitecture::kX86:
      return AUDIT_ARCH_I386;
    case SeccompArchitecture::kAarch64:
      return AUDIT_ARCH_AARCH64;
    case SeccompArchitecture::kArm:
      break;
  }
  return AUDIT_ARCH_ARM;
}

absl::Span<const SeccompArchitecture> WaysInto(Architecture architecture) {
  if (architecture == Architecture::kX86_64) return kWaysIntoX86_64;
  return kWaysIntoAarch64;
}

absl::string_view NameOf(SeccompArchitecture architecture) {
  switch (architecture) {
    case SeccompArchitecture::kX86_64:
      return "x86_64";
    case SeccompArchitecture::kX86:
      return "i386";
    case SeccompArchitecture::kX32:
      return "x32";
    case SeccompArchitecture::kAarch64:
      return "aarch64";
    case SeccompArchitecture::kArm:
      return "arm";
  }
  return "?";
}

bool Is32Bit(SeccompArchitecture architecture) {
  return architecture != SeccompArchitecture::kX86_64 &&
         architecture != SeccompArchitecture::kAarch64;
}

Multiplexed MultiplexedOf(SeccompArchitecture architecture,
                          absl::string_view name) {
  if (architecture != SeccompArchitecture::kX86) return {};
  for (const Numbered& call : kSocketCalls) {
    if (call.name == name) return {kI386Socketcall, call.number};
  }
  for (const Numbered& call : kIpcCalls) {
    if (call.name == name) return {kI386Ipc, call.number};
  }
  return {};
}

}  // namespace caisson::security

namespace caisson {

std::string SyscallName(uint32_t audit_arch, uint32_t number) {
  using security::NameOf;
  using security::NumbersOf;
  absl::string_view way = "an unknown architecture";
  for (int i = 0; i <= static_cast<int>(SeccompArchitecture::kArm); ++i) {
    const auto architecture = static_cast<SeccompArchitecture>(i);
    if (security::AuditArchOf(architecture) != audit_arch) continue;
    const bool x32 = architecture == SeccompArchitecture::kX32;
    if (x32 != (audit_arch == AUDIT_ARCH_X86_64 &&
                (number & security::kX32Bit) != 0)) {
      continue;
    }
    way = NameOf(architecture);
    const security::NumberTable& table = NumbersOf(architecture);
    const auto found = table.names.find(number);
    if (found == table.names.end()) break;
    if (audit_arch == NativeAuditArch() && !x32) return found->second;
    return absl::StrCat(way, " ", found->second);
  }
  return absl::StrCat("syscall ", number, " of ", way);
}

uint32_t NativeAuditArch() {
  return security::AuditArchOf(
      security::WaysInto(security::kNativeArchitecture)[0]);
}

}  // namespace caisson
