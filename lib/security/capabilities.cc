#include "lib/security/capabilities.h"

#include <errno.h>
#include <linux/capability.h>
#include <sys/prctl.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <iterator>
#include <numeric>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"

namespace caisson::security {
namespace {

constexpr absl::string_view kPrefix = "CAP_";
constexpr absl::string_view kAll = "ALL";

// include/uapi/linux/capability.h, in the order of the numbers.
constexpr absl::string_view kNames[] = {
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
};
static_assert(std::size(kNames) == CAP_CHECKPOINT_RESTORE + 1);

constexpr int kDefault[] = {
    CAP_CHOWN,   CAP_DAC_OVERRIDE, CAP_FSETID,           CAP_FOWNER,
    CAP_MKNOD,   CAP_NET_RAW,      CAP_SETGID,           CAP_SETUID,
    CAP_SETFCAP, CAP_SETPCAP,      CAP_NET_BIND_SERVICE, CAP_SYS_CHROOT,
    CAP_KILL,    CAP_AUDIT_WRITE,
};

// Longer than any name with a typing error; bounds EditDistance().
constexpr size_t kMaxName = 32;

// Levenshtein's, of two strings of at most kMaxName bytes.
size_t EditDistance(absl::string_view a, absl::string_view b) {
  std::array<size_t, kMaxName + 1> row;
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i + 1);
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row[b.size()];
}

// How the message for an unknown name goes on: `name` is upper case and without
// the prefix.
std::string Advice(absl::string_view name) {
  constexpr absl::string_view kManual =
      "capabilities(7) lists those that exist";
  if (name.empty() || name.size() > kMaxName) return std::string(kManual);
  size_t least = EditDistance(name, kAll);
  std::string closest(kAll);
  for (const absl::string_view candidate : kNames) {
    const size_t distance = EditDistance(name, candidate);
    if (distance >= least) continue;
    least = distance;
    closest = absl::StrCat(kPrefix, candidate);
  }
  // Half of it wrong: not a slip of the fingers.
  if (least > name.size() / 2) return std::string(kManual);
  return absl::StrCat("did you mean \"", closest, "\"?");
}

// The set that a list names.
absl::StatusOr<uint64_t> ParseSet(absl::string_view field,
                                  absl::Span<const std::string> names,
                                  uint64_t all) {
  uint64_t set = 0;
  for (const std::string& name : names) {
    if (absl::EqualsIgnoreCase(name, kAll)) {
      set |= all;
      continue;
    }
    ASSIGN_OR_RETURN(const int capability, ParseCapability(field, name));
    set |= uint64_t{1} << capability;
  }
  return set;
}

}  // namespace

uint64_t DefaultCapabilities() {
  uint64_t set = 0;
  for (const int capability : kDefault) set |= uint64_t{1} << capability;
  return set;
}

std::string CapabilityName(int capability) {
  if (capability < 0 || capability >= static_cast<int>(std::size(kNames))) {
    return absl::StrCat(kPrefix, capability);
  }
  return absl::StrCat(kPrefix, kNames[capability]);
}

absl::StatusOr<int> ParseCapability(absl::string_view field,
                                    absl::string_view name) {
  const std::string upper = absl::AsciiStrToUpper(name.substr(0, 2 * kMaxName));
  const absl::string_view bare = absl::StripPrefix(upper, kPrefix);
  const auto found = std::find(std::begin(kNames), std::end(kNames), bare);
  if (found != std::end(kNames)) {
    return static_cast<int>(found - std::begin(kNames));
  }
  const bool cut = name.size() > upper.size();
  return absl::InvalidArgumentError(absl::StrCat(
      field, ": ", Quoted(name.substr(0, upper.size())),
      cut ? "... is no capability; " : " is no capability; ", Advice(bare)));
}

absl::StatusOr<KernelCapabilities> ReadKernelCapabilities() {
  KernelCapabilities kernel;
  for (int i = 0; i < 64; ++i) {
    const int held = ::prctl(PR_CAPBSET_READ, i, 0, 0, 0);
    if (held < 0) {
      // EINVAL beyond the last one; capability 0 always exists.
      if (i > 0 && errno == EINVAL) break;
      return ErrnoError(errno, absl::StrCat("prctl(PR_CAPBSET_READ, ", i, ")"),
                        {.step = "security.capabilities"});
    }
    kernel.last = i;
    if (held == 1) kernel.bounding |= uint64_t{1} << i;
  }
  return kernel;
}

absl::StatusOr<CapabilityChoice> ChooseCapabilities(
    absl::Span<const std::string> drop, absl::Span<const std::string> add,
    const KernelCapabilities& kernel) {
  ASSIGN_OR_RETURN(
      const uint64_t dropped,
      ParseSet("SecurityOptions.drop_capabilities", drop, ~uint64_t{0}));
  ASSIGN_OR_RETURN(
      const uint64_t added,
      ParseSet("SecurityOptions.unsafe_add_capabilities", add, kernel.all()));
  const uint64_t wanted = (DefaultCapabilities() & ~dropped) | added;
  CapabilityChoice choice;
  choice.granted = wanted & kernel.bounding;
  for (int i = 0; i < 64; ++i) {
    if ((wanted & ~kernel.bounding) >> i & 1) {
      choice.missing.push_back(CapabilityName(i));
    }
  }
  return choice;
}

}  // namespace caisson::security
