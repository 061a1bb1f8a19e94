#include "lib/security/syscall_numbers.h"

#include <linux/audit.h>
#include <seccomp.h>
#include <stdlib.h>

#include <iterator>
#include <memory>
#include <utility>

#include "absl/strings/string_view.h"

namespace caisson::security {
namespace {

// Up to here the numbers are libseccomp's, whatever its version.
constexpr uint32_t kLastOfLibseccomp = 450;

// arch/x86/entry/syscalls/syscall_64.tbl of the kernel.
constexpr uint32_t kX32Bit = 0x40000000;
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

}  // namespace

std::vector<Entry> EntriesOf(Architecture architecture) {
  std::vector<Entry> entries;
  switch (architecture) {
    case Architecture::kX86_64: {
      Entry x86_64 = MakeEntry(AUDIT_ARCH_X86_64, SCMP_ARCH_X86_64);
      x86_64.names.emplace(kUretprobe.number, kUretprobe.name);
      x86_64.number_mask = ~kX32Bit;
      AddKnown(SCMP_ARCH_X32, 0, kLastOfLibseccomp, x86_64);
      AddKnown(SCMP_ARCH_X32, kX32First, kX32Last, x86_64);
      entries.push_back(std::move(x86_64));
      entries.push_back(MakeEntry(AUDIT_ARCH_I386, SCMP_ARCH_X86));
      break;
    }
    case Architecture::kAarch64: {
      entries.push_back(MakeEntry(AUDIT_ARCH_AARCH64, SCMP_ARCH_AARCH64));
      Entry arm = MakeEntry(AUDIT_ARCH_ARM, SCMP_ARCH_ARM);
      AddKnown(SCMP_ARCH_ARM, kArmPrivateFirst, kArmPrivateLast, arm);
      entries.push_back(std::move(arm));
      break;
    }
  }
  return entries;
}

}  // namespace caisson::security
