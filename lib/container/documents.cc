#include "lib/spec/documents.h"

#include <errno.h>
#include <unistd.h>

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "caisson/bundle.h"
#include "caisson/root_fs.h"
#include "lib/container/mount_options.h"
#include "lib/security/capabilities.h"
#include "lib/security/default_profile.h"

namespace caisson {
namespace {

constexpr int kLastNamedCapability = 40;  // CAP_CHECKPOINT_RESTORE

// What `runc spec` gives; a container of Docker has fourteen.
constexpr const char* kFewCapabilities[] = {"CAP_AUDIT_WRITE", "CAP_KILL",
                                            "CAP_NET_BIND_SERVICE"};

#if defined(__x86_64__)
constexpr const char* kArchitectures[] = {"SCMP_ARCH_X32", "SCMP_ARCH_X86",
                                          "SCMP_ARCH_X86_64"};
#elif defined(__aarch64__)
constexpr const char* kArchitectures[] = {"SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"};
#endif

// Without X32, which only a profile that names it has.
#if defined(__x86_64__)
constexpr const char* kProgramArchitectures[] = {"SCMP_ARCH_X86_64",
                                                 "SCMP_ARCH_X86"};
#elif defined(__aarch64__)
constexpr const char* kProgramArchitectures[] = {"SCMP_ARCH_AARCH64",
                                                 "SCMP_ARCH_ARM"};
#endif

spec::SeccompSyscall Allow(absl::string_view name, const char* op, int index,
                           uint64_t value) {
  spec::SeccompSyscall rule;
  rule.names = {std::string(name)};
  rule.action = "SCMP_ACT_ALLOW";
  spec::SeccompArg& arg = rule.args.emplace_back();
  arg.index = static_cast<uint32_t>(index);
  arg.value = value;
  arg.op = op;
  return rule;
}

// One rule for each value: conditions on one argument cannot be joined by
// "and" (SeccompRule).
void AllowByArgument(const security::ArgumentRule& rule,
                     std::vector<spec::SeccompSyscall>& out) {
  const auto allow = [&](const char* op, uint64_t value) {
    out.push_back(Allow(rule.name, op, rule.argument, value));
  };
  if (rule.denied_bits != 0) {
    allow("SCMP_CMP_MASKED_EQ", rule.denied_bits);  // none of them
    return;
  }
  if (rule.listed == security::Answer::kAllow) {
    for (const security::ValueRange& range : rule.values) {
      for (uint64_t i = range.first; i <= range.last; ++i) {
        allow("SCMP_CMP_EQ", i);
      }
    }
    return;
  }
  uint64_t next = 0;
  for (const security::ValueRange& range : rule.values) {
    if (next == 0) allow("SCMP_CMP_LT", range.first);
    for (uint64_t i = next; next != 0 && i < range.first; ++i) {
      allow("SCMP_CMP_EQ", i);
    }
    next = uint64_t{range.last} + 1;
  }
  allow("SCMP_CMP_GE", next);
}

// The default list of SecurityPolicy for a process with `capabilities`.
spec::Seccomp DefaultSeccomp(uint64_t capabilities) {
  std::map<absl::string_view, const security::ArgumentRule*> conditions;
  for (const security::ArgumentRule& rule : security::ArgumentRules()) {
    if ((rule.unless_capabilities & capabilities) != 0) continue;
    conditions[rule.name] = &rule;
  }
  spec::Seccomp seccomp;
  seccomp.default_action = "SCMP_ACT_ERRNO";
  seccomp.default_errno_ret = EPERM;
  seccomp.architectures.assign(std::begin(kProgramArchitectures),
                               std::end(kProgramArchitectures));
  std::set<std::string> allowed;
  std::vector<spec::SeccompSyscall> conditional;
  for (const security::SyscallGroup& group : security::AllowedGroups()) {
    if (group.capabilities != 0 && (group.capabilities & capabilities) == 0) {
      continue;
    }
    for (const absl::string_view name : group.names) {
      if (!allowed.insert(std::string(name)).second) continue;
      const auto condition = conditions.find(name);
      if (condition == conditions.end()) continue;
      AllowByArgument(*condition->second, conditional);
    }
  }
  spec::SeccompSyscall hidden;
  for (const absl::string_view name : security::HiddenCalls()) {
    if (allowed.count(std::string(name)) == 0) hidden.names.emplace_back(name);
  }
  for (const auto& [name, rule] : conditions) allowed.erase(std::string(name));
  spec::SeccompSyscall plain;
  plain.names.assign(allowed.begin(), allowed.end());
  plain.action = "SCMP_ACT_ALLOW";
  seccomp.syscalls.push_back(std::move(plain));
  seccomp.syscalls.insert(seccomp.syscalls.end(), conditional.begin(),
                          conditional.end());
  if (hidden.names.empty()) return seccomp;
  hidden.action = "SCMP_ACT_ERRNO";
  hidden.errno_ret = ENOSYS;
  seccomp.syscalls.push_back(std::move(hidden));
  return seccomp;
}

}  // namespace

std::string OciFeatures(const std::map<std::string, std::string>& annotations) {
  spec::Features features;
  features.mount_options = container::KnownMountOptions();
  for (int i = 0; i <= kLastNamedCapability; ++i) {
    features.capabilities.push_back(security::CapabilityName(i));
  }
  features.seccomp_architectures.assign(std::begin(kArchitectures),
                                        std::end(kArchitectures));
  features.annotations = annotations;
  return spec::FeaturesJson(features);
}

std::string OciDefaultConfig(bool rootless) {
  spec::Defaults defaults;
  defaults.capabilities.assign(std::begin(kFewCapabilities),
                               std::end(kFewCapabilities));
  uint64_t mask = 0;
  for (int i = 0; i <= kLastNamedCapability; ++i) {
    const std::string name = security::CapabilityName(i);
    for (const char* few : kFewCapabilities) {
      if (name == few) mask |= uint64_t{1} << i;
    }
  }
  defaults.seccomp = DefaultSeccomp(mask);
  defaults.masked_paths = DefaultMaskedPaths();
  defaults.readonly_paths = DefaultReadOnlyPaths();
  if (rootless)
    defaults.rootless = spec::Defaults::Owner{::geteuid(), ::getegid()};
  return spec::DefaultConfigJson(defaults);
}

}  // namespace caisson
