#include "lib/security/random_profile.h"

#include <errno.h>

#include <algorithm>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace caisson::security {
namespace {

constexpr uint32_t kEnosys = SECCOMP_RET_ERRNO | ENOSYS;

uint32_t AnswerOf(SeccompAction action, std::optional<uint32_t> errno_ret) {
  switch (action) {
    case SeccompAction::kKillThread:
      return SECCOMP_RET_KILL_THREAD;
    case SeccompAction::kKillProcess:
      return SECCOMP_RET_KILL_PROCESS;
    case SeccompAction::kTrap:
      return SECCOMP_RET_TRAP;
    case SeccompAction::kErrno:
      return SECCOMP_RET_ERRNO | errno_ret.value_or(EPERM);
    case SeccompAction::kTrace:
      return SECCOMP_RET_TRACE | errno_ret.value_or(EPERM);
    case SeccompAction::kNotify:
      return SECCOMP_RET_USER_NOTIF;
    case SeccompAction::kLog:
      return SECCOMP_RET_LOG;
    case SeccompAction::kAllow:
      return SECCOMP_RET_ALLOW;
  }
  return 0;
}

bool Holds(const SeccompArgument& want, uint64_t given, bool low_half) {
  uint64_t value = want.value;
  uint64_t two = want.value_two;
  if (low_half) {
    given &= UINT32_MAX;
    value &= UINT32_MAX;
    two &= UINT32_MAX;
  }
  switch (want.op) {
    case SeccompOperator::kNotEqual:
      return given != value;
    case SeccompOperator::kLess:
      return given < value;
    case SeccompOperator::kLessEqual:
      return given <= value;
    case SeccompOperator::kEqual:
      return given == value;
    case SeccompOperator::kGreaterEqual:
      return given >= value;
    case SeccompOperator::kGreater:
      return given > value;
    case SeccompOperator::kMaskedEqual:
      return (given & value) == (two & value);
  }
  return false;
}

bool RuleHolds(const SeccompRule& rule, SeccompArchitecture way,
               const std::string& name, const seccomp_data& data) {
  std::set<uint32_t> indices;
  size_t holding = 0;
  for (const SeccompArgument& argument : rule.args) {
    indices.insert(argument.index);
    const bool low = Is32Bit(way) || (name == "ioctl" && argument.index == 1);
    if (Holds(argument, data.args[argument.index], low)) ++holding;
  }
  return indices.size() < rule.args.size() ? holding > 0
                                           : holding == rule.args.size();
}

// Whether the rule, given for `name`, is about the call in `data`; `older` if
// only by the older call that carries others.
bool IsAbout(const std::string& name, SeccompArchitecture way,
             const seccomp_data& data, bool* older) {
  const NumberTable& table = NumbersOf(way);
  const auto number = static_cast<uint32_t>(data.nr);
  *older = false;
  const auto [begin, end] = table.numbers.equal_range(name);
  for (auto each = begin; each != end; ++each) {
    if (each->second == number) return true;
  }
  const Multiplexed carrier = MultiplexedOf(way, name);
  *older = carrier.number != 0 && carrier.number == number &&
           carrier.selector == static_cast<uint32_t>(data.args[0]);
  return *older;
}

std::optional<SeccompArchitecture> WayOf(Architecture architecture,
                                         const SeccompProfile& profile,
                                         const seccomp_data& data) {
  for (const SeccompArchitecture way : WaysInto(architecture)) {
    if (NumbersOf(way).audit_arch != data.arch) continue;
    const bool marked = (static_cast<uint32_t>(data.nr) & ~0x3fffffffu) != 0 &&
                        static_cast<uint32_t>(data.nr) >= kX32Bit;
    const bool of_x86 =
        way == SeccompArchitecture::kX86_64 || way == SeccompArchitecture::kX32;
    if (of_x86 && marked != (way == SeccompArchitecture::kX32)) continue;
    const auto& listed = profile.architectures;
    if (way != WaysInto(architecture)[0] &&
        std::find(listed.begin(), listed.end(), way) == listed.end()) {
      return std::nullopt;
    }
    return way;
  }
  return std::nullopt;
}

uint32_t LastNumber(const SeccompProfile& profile, SeccompArchitecture way,
                    bool* any) {
  uint32_t last = 0;
  *any = false;
  for (const SeccompRule& rule : profile.syscalls) {
    for (const std::string& name : rule.names) {
      const auto [begin, end] = NumbersOf(way).numbers.equal_range(name);
      for (auto each = begin; each != end; ++each) {
        last = std::max(last, each->second);
        *any = true;
      }
      const Multiplexed carrier = MultiplexedOf(way, name);
      if (carrier.number == 0) continue;
      last = std::max(last, carrier.number);
      *any = true;
    }
  }
  return last;
}

const char* const kNames[] = {
    "read",   "write",       "ioctl",   "socket",  "connect",    "sendmsg",
    "clone",  "socketcall",  "semop",   "ipc",     "mount",      "execve",
    "openat", "fchmodat2",   "mseal",   "unknown", "ptrace",     "prctl",
    "futex",  "personality", "recvmsg", "shmget",  "exit_group", "set_tls",
};

// Mostly close to what is compared, sometimes anything.
uint64_t RandomValue(const Choose& choose) {
  const uint64_t base = choose(6);
  switch (choose(5)) {
    case 0:
      return base;
    case 1:
      return UINT32_MAX - base;
    case 2:
      return (uint64_t{1} << 32) + base;
    case 3:
      return UINT64_MAX - base;
    default:
      return (choose(4) << 62) | (choose(4) << 31) | base;
  }
}

}  // namespace

uint32_t Interpret(Architecture architecture, const SeccompProfile& profile,
                   const seccomp_data& data) {
  const auto way = WayOf(architecture, profile, data);
  const auto number = static_cast<uint32_t>(data.nr);
  if (!way.has_value()) {
    const bool x32 =
        architecture == Architecture::kX86_64 &&
        data.arch == NumbersOf(SeccompArchitecture::kX32).audit_arch;
    return x32 ? kEnosys : uint32_t{SECCOMP_RET_KILL_PROCESS};
  }
  const uint32_t otherwise =
      AnswerOf(profile.default_action, profile.default_errno_ret);
  const bool lenient = profile.default_action == SeccompAction::kAllow ||
                       profile.default_action == SeccompAction::kLog ||
                       profile.default_action == SeccompAction::kTrace;
  bool any = false;
  if (number > LastNumber(profile, *way, &any) && any && !lenient) {
    return kEnosys;
  }
  std::optional<uint32_t> conditional;
  for (const SeccompRule& rule : profile.syscalls) {
    const uint32_t answer = AnswerOf(rule.action, rule.errno_ret);
    if (answer == otherwise) continue;
    for (const std::string& name : rule.names) {
      bool older = false;
      if (!IsAbout(name, *way, data, &older)) continue;
      if (rule.args.empty() && !older) return answer;
      if (conditional.has_value()) continue;
      if (older || RuleHolds(rule, *way, name, data)) conditional = answer;
    }
  }
  return conditional.value_or(otherwise);
}

SeccompProfile RandomProfile(const Choose& choose, Architecture architecture,
                             const RandomOptions& options) {
  SeccompProfile profile;
  const auto action = [&choose] {
    return static_cast<SeccompAction>(choose(8));
  };
  const auto errno_of = [&choose](SeccompAction of) -> std::optional<uint32_t> {
    const bool takes =
        of == SeccompAction::kErrno || of == SeccompAction::kTrace;
    if (!takes || choose(3) == 0) return std::nullopt;
    return static_cast<uint32_t>(1 + choose(40));
  };
  profile.default_action = action();
  profile.default_errno_ret = errno_of(profile.default_action);
  for (const SeccompArchitecture way : WaysInto(architecture)) {
    if (choose(3) != 0) profile.architectures.push_back(way);
  }
  const uint64_t rules = choose(12);
  const uint64_t shift = choose(8);
  std::set<std::string> named;
  for (uint64_t i = 0; i < rules; ++i) {
    SeccompRule rule;
    size_t index = choose(std::size(kNames));
    rule.names.push_back(kNames[index]);
    if (options.no_alternatives) {
      rule.action = static_cast<SeccompAction>((index + shift) % 8);
    } else {
      if (choose(2) != 0) rule.names.push_back(kNames[choose(24)]);
      rule.action = action();
      rule.errno_ret = errno_of(rule.action);
    }
    const bool second =
        options.no_alternatives && !named.insert(rule.names[0]).second;
    const uint64_t arguments = second ? 0 : choose(4);
    std::set<uint32_t> indices;
    for (uint64_t a = 0; a < arguments; ++a) {
      const auto argument = static_cast<uint32_t>(choose(6));
      if (!indices.insert(argument).second && options.no_alternatives) continue;
      rule.args.push_back({.index = argument,
                           .value = RandomValue(choose),
                           .value_two = RandomValue(choose),
                           .op = static_cast<SeccompOperator>(choose(7))});
    }
    profile.syscalls.push_back(std::move(rule));
  }
  return profile;
}

seccomp_data RandomCall(const Choose& choose, Architecture architecture,
                        const SeccompProfile& profile) {
  seccomp_data data = {};
  const auto ways = WaysInto(architecture);
  const NumberTable& table = NumbersOf(ways[choose(ways.size())]);
  data.arch = choose(40) == 0 ? 0 : table.audit_arch;
  const auto& rules = profile.syscalls;
  const SeccompRule* rule =
      rules.empty() ? nullptr : &rules[choose(rules.size())];
  const auto found = table.numbers.find(
      rule == nullptr ? "read" : rule->names[choose(rule->names.size())]);
  if (found == table.numbers.end() || choose(8) == 0) {
    data.nr = static_cast<int>(choose(600) | (choose(2) * kX32Bit));
  } else {
    data.nr = static_cast<int>(found->second);
  }
  for (auto& argument : data.args) argument = RandomValue(choose);
  if (rule != nullptr && choose(2) != 0) {
    for (const SeccompArgument& want : rule->args) {
      data.args[want.index] = want.value + choose(3) - 1;
      if (want.op == SeccompOperator::kMaskedEqual && choose(2) != 0) {
        data.args[want.index] = want.value_two;
      }
    }
  }
  return data;
}

}  // namespace caisson::security
