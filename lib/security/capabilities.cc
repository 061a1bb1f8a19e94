#include "lib/security/capabilities.h"

#include <errno.h>
#include <linux/capability.h>
#include <sys/prctl.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <iterator>
#include <numeric>
#include <set>
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

std::vector<std::string> Names(uint64_t set) {
  std::vector<std::string> names;
  for (int i = 0; i < 64; ++i) {
    if ((set >> i & 1) != 0) names.push_back(CapabilityName(i));
  }
  return names;
}

constexpr absl::string_view kSets = "SecurityOptions.unsafe_capability_sets.";

// `inner` must lie within `outer`; `why` says what the kernel does otherwise.
absl::Status RequireWithin(absl::string_view inner_name, uint64_t inner,
                           absl::string_view outer_name, uint64_t outer,
                           absl::string_view why) {
  const uint64_t excess = inner & ~outer;
  if (excess == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(kSets, inner_name, " has ",
                                                 Names(excess)[0], ", which ",
                                                 outer_name, " lacks: ", why));
}

absl::Status CheckSets(const CapabilityMasks& sets) {
  RETURN_IF_ERROR(RequireWithin("permitted", sets.permitted, "bounding",
                                sets.bounding,
                                "an exec would take it from root"));
  RETURN_IF_ERROR(RequireWithin("inheritable", sets.inheritable, "bounding",
                                sets.bounding, "capset(2) refuses that"));
  RETURN_IF_ERROR(RequireWithin("effective", sets.effective, "permitted",
                                sets.permitted, "capset(2) refuses that"));
  RETURN_IF_ERROR(RequireWithin("ambient", sets.ambient, "permitted",
                                sets.permitted, "prctl(2) refuses that"));
  return RequireWithin("ambient", sets.ambient, "inheritable", sets.inheritable,
                       "prctl(2) refuses that");
}

absl::StatusOr<SetsChoice> ExactSets(const CapabilitySets& wanted,
                                     const KernelCapabilities& kernel) {
  CapabilityMasks sets;
  const struct {
    absl::string_view name;
    const std::vector<std::string>& names;
    uint64_t& set;
  } fields[] = {{"bounding", wanted.bounding, sets.bounding},
                {"effective", wanted.effective, sets.effective},
                {"permitted", wanted.permitted, sets.permitted},
                {"inheritable", wanted.inheritable, sets.inheritable},
                {"ambient", wanted.ambient, sets.ambient}};
  std::set<std::string> missing;
  for (const auto& field : fields) {
    for (const std::string& name : field.names) {
      const auto capability = ParseCapability(field.name, name);
      if (capability.ok()) {
        field.set |= uint64_t{1} << *capability;
      } else {
        missing.insert(name.substr(0, 2 * kMaxName));
      }
    }
  }
  RETURN_IF_ERROR(CheckSets(sets));
  for (const auto& field : fields) {
    for (std::string& name : Names(field.set & ~kernel.bounding)) {
      missing.insert(std::move(name));
    }
    field.set &= kernel.bounding;
  }
  return SetsChoice{
      .root = sets, .user = sets, .missing = {missing.begin(), missing.end()}};
}

// The default filter is what keeps root inside from making nodes of the host's
// devices; without its rules the capability goes, unless it is asked for.
bool LosesMknodRule(const SecurityOptions& options) {
  const std::vector<std::string>& allowed = options.unsafe_allow_syscalls;
  const auto allows = [&allowed](absl::string_view name) {
    return std::find(allowed.begin(), allowed.end(), name) != allowed.end();
  };
  return options.unsafe_seccomp.has_value() ||
         options.unsafe_seccomp_profile.has_value() ||
         options.unsafe_seccomp_log_only.has_value() || allows("mknod") ||
         allows("mknodat");
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
  return CapabilityChoice{.granted = wanted & kernel.bounding,
                          .missing = Names(wanted & ~kernel.bounding)};
}

absl::StatusOr<SetsChoice> ChooseSets(const SecurityOptions& options,
                                      const KernelCapabilities& kernel) {
  if (options.unsafe_capability_sets.has_value()) {
    if (!options.drop_capabilities.empty() ||
        !options.unsafe_add_capabilities.empty() ||
        !options.unsafe_ambient_capabilities.empty()) {
      return absl::InvalidArgumentError(
          "SecurityOptions.unsafe_capability_sets takes the place of "
          "drop_capabilities, unsafe_add_capabilities and "
          "unsafe_ambient_capabilities: leave them empty");
    }
    return ExactSets(*options.unsafe_capability_sets, kernel);
  }
  std::vector<std::string> drop = options.drop_capabilities;
  if (LosesMknodRule(options)) drop.push_back("CAP_MKNOD");
  std::vector<std::string> add = options.unsafe_add_capabilities;
  ASSIGN_OR_RETURN(const uint64_t ambient,
                   ParseSet("SecurityOptions.unsafe_ambient_capabilities",
                            options.unsafe_ambient_capabilities, kernel.all()));
  for (const std::string& name : Names(ambient)) add.push_back(name);
  ASSIGN_OR_RETURN(CapabilityChoice choice,
                   ChooseCapabilities(drop, add, kernel));
  const uint64_t kept = ambient & choice.granted;
  return SetsChoice{.root = {.bounding = choice.granted,
                             .effective = choice.granted,
                             .permitted = choice.granted,
                             .inheritable = kept,
                             .ambient = kept},
                    .user = {.bounding = choice.granted,
                             .effective = kept,
                             .permitted = kept,
                             .inheritable = kept,
                             .ambient = kept},
                    .missing = std::move(choice.missing)};
}

}  // namespace caisson::security
