#include "lib/container/process.h"

#include <algorithm>
#include <cstddef>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/container/refusal.h"

namespace caisson::container {
namespace {

constexpr int kMaxListed = 1 << 16;

template <typename T>
struct Word {
  absl::string_view word;
  T value;
};

template <typename T, size_t N>
std::optional<T> Find(const Word<T> (&words)[N], absl::string_view word) {
  for (const Word<T>& entry : words) {
    if (entry.word == word) return entry.value;
  }
  return std::nullopt;
}

constexpr Word<SchedulerPolicy> kPolicies[] = {
    {"SCHED_OTHER", SchedulerPolicy::kOther},
    {"SCHED_FIFO", SchedulerPolicy::kFifo},
    {"SCHED_RR", SchedulerPolicy::kRoundRobin},
    {"SCHED_BATCH", SchedulerPolicy::kBatch},
    {"SCHED_IDLE", SchedulerPolicy::kIdle},
    {"SCHED_DEADLINE", SchedulerPolicy::kDeadline},
};

constexpr Word<bool Scheduler::*> kSchedulerFlags[] = {
    {"SCHED_FLAG_RESET_ON_FORK", &Scheduler::reset_on_fork},
    {"SCHED_FLAG_RECLAIM", &Scheduler::reclaim},
    {"SCHED_FLAG_DL_OVERRUN", &Scheduler::overrun_signal},
};

constexpr Word<IoClass> kIoClasses[] = {
    {"IOPRIO_CLASS_RT", IoClass::kRealtime},
    {"IOPRIO_CLASS_BE", IoClass::kBestEffort},
    {"IOPRIO_CLASS_IDLE", IoClass::kIdle},
};

constexpr Word<MemoryPolicyMode> kMemoryModes[] = {
    {"MPOL_DEFAULT", MemoryPolicyMode::kDefault},
    {"MPOL_PREFERRED", MemoryPolicyMode::kPreferred},
    {"MPOL_BIND", MemoryPolicyMode::kBind},
    {"MPOL_INTERLEAVE", MemoryPolicyMode::kInterleave},
    {"MPOL_LOCAL", MemoryPolicyMode::kLocal},
    {"MPOL_PREFERRED_MANY", MemoryPolicyMode::kPreferredMany},
    {"MPOL_WEIGHTED_INTERLEAVE", MemoryPolicyMode::kWeightedInterleave},
};

constexpr Word<SeccompAction> kActions[] = {
    {"SCMP_ACT_KILL", SeccompAction::kKillThread},
    {"SCMP_ACT_KILL_THREAD", SeccompAction::kKillThread},
    {"SCMP_ACT_KILL_PROCESS", SeccompAction::kKillProcess},
    {"SCMP_ACT_TRAP", SeccompAction::kTrap},
    {"SCMP_ACT_ERRNO", SeccompAction::kErrno},
    {"SCMP_ACT_TRACE", SeccompAction::kTrace},
    {"SCMP_ACT_NOTIFY", SeccompAction::kNotify},
    {"SCMP_ACT_LOG", SeccompAction::kLog},
    {"SCMP_ACT_ALLOW", SeccompAction::kAllow},
};

constexpr Word<SeccompOperator> kOperators[] = {
    {"SCMP_CMP_NE", SeccompOperator::kNotEqual},
    {"SCMP_CMP_LT", SeccompOperator::kLess},
    {"SCMP_CMP_LE", SeccompOperator::kLessEqual},
    {"SCMP_CMP_EQ", SeccompOperator::kEqual},
    {"SCMP_CMP_GE", SeccompOperator::kGreaterEqual},
    {"SCMP_CMP_GT", SeccompOperator::kGreater},
    {"SCMP_CMP_MASKED_EQ", SeccompOperator::kMaskedEqual},
};

// Others are ways into kernels that caisson does not run on.
constexpr Word<SeccompArchitecture> kArchitectures[] = {
    {"SCMP_ARCH_X86_64", SeccompArchitecture::kX86_64},
    {"SCMP_ARCH_X86", SeccompArchitecture::kX86},
    {"SCMP_ARCH_X32", SeccompArchitecture::kX32},
    {"SCMP_ARCH_AARCH64", SeccompArchitecture::kAarch64},
    {"SCMP_ARCH_ARM", SeccompArchitecture::kArm},
};

absl::StatusOr<absl::Duration> Nanoseconds(const char* field, uint64_t value) {
  if (value > static_cast<uint64_t>(INT64_MAX)) {
    return Invalid("process.scheduler.", field, ": ", value, " is too much");
  }
  return absl::Nanoseconds(static_cast<int64_t>(value));
}

absl::Status TranslateScheduler(const spec::Scheduler& scheduler,
                                Scheduling& out) {
  const auto policy = Find(kPolicies, scheduler.policy);
  if (!policy) {
    return Unimplemented("process.scheduler.policy: ", Quoted(scheduler.policy),
                         " is not in Linux");
  }
  Scheduler& chosen = out.scheduler.emplace();
  chosen.policy = *policy;
  chosen.priority = scheduler.priority;
  if (scheduler.nice != 0) out.nice = scheduler.nice;
  for (size_t i = 0; i < scheduler.flags.size(); ++i) {
    const auto flag = Find(kSchedulerFlags, scheduler.flags[i]);
    if (!flag) {
      return Unimplemented("process.scheduler.flags[", i,
                           "]: ", Quoted(scheduler.flags[i]),
                           " has no meaning for a new program");
    }
    chosen.** flag = true;
  }
  ASSIGN_OR_RETURN(chosen.runtime, Nanoseconds("runtime", scheduler.runtime));
  ASSIGN_OR_RETURN(chosen.deadline,
                   Nanoseconds("deadline", scheduler.deadline));
  ASSIGN_OR_RETURN(chosen.period, Nanoseconds("period", scheduler.period));
  return absl::OkStatus();
}

void TranslateUser(const spec::User& user, ProcessSpec& out) {
  out.user = absl::StrCat(user.uid, ":", user.gid);
  for (const uint32_t group : user.additional_gids) {
    out.additional_groups.push_back(absl::StrCat(group));
  }
  if (user.umask) out.umask = *user.umask;
}

// The names of a set, without what is not in `within`.
std::vector<std::string> Within(const char* field,
                                const std::vector<std::string>& names,
                                const std::set<std::string>& within,
                                const char* set,
                                std::vector<std::string>& warnings) {
  std::vector<std::string> kept;
  for (const std::string& name : names) {
    if (within.count(absl::AsciiStrToUpper(name)) != 0) {
      kept.push_back(name);
    } else {
      warnings.push_back(absl::StrCat("process.capabilities.", field, ": ",
                                      name, " is not in the ", set,
                                      " set, so it cannot be in this one"));
    }
  }
  return kept;
}

std::set<std::string> SetOf(const std::vector<std::string>& names) {
  std::set<std::string> set;
  for (const std::string& name : names) {
    set.insert(absl::AsciiStrToUpper(name));
  }
  return set;
}

absl::StatusOr<SeccompRule> TranslateRule(const spec::SeccompSyscall& rule) {
  SeccompRule out;
  out.names = rule.names;
  out.action = *Find(kActions, rule.action);
  out.errno_ret = rule.errno_ret;
  for (const spec::SeccompArg& arg : rule.args) {
    out.args.push_back({.index = arg.index,
                        .value = arg.value,
                        .value_two = arg.value_two,
                        .op = *Find(kOperators, arg.op)});
  }
  return out;
}

}  // namespace

absl::Status TranslateProcess(const spec::Process& process, ProcessKind kind,
                              ProcessSpec& out) {
  out.argv = process.args;
  out.env = process.env;
  out.default_path_and_term = false;
  out.cwd = process.cwd;
  TranslateUser(process.user, out);
  if (process.terminal) {
    TerminalSize& size = out.terminal.emplace();
    if (process.console_size) {
      size = {process.console_size->height, process.console_size->width};
    }
  }
  for (const spec::Rlimit& limit : process.rlimits) {
    out.limits.push_back({limit.type, limit.soft, limit.hard});
  }
  out.oom_score_adj = process.oom_score_adj;
  if (process.scheduler) {
    RETURN_IF_ERROR(TranslateScheduler(*process.scheduler, out.scheduling));
  }
  if (process.io_priority) {
    out.scheduling.io = {
        .io_class = *Find(kIoClasses, process.io_priority->io_class),
        .level = process.io_priority->priority};
  }
  // `initial` is about the runtime itself, which is over in milliseconds.
  if (kind == ProcessKind::kExec && process.exec_cpu_affinity &&
      !process.exec_cpu_affinity->final.empty()) {
    ASSIGN_OR_RETURN(out.scheduling.cpus,
                     ParseNumberList("process.execCPUAffinity.final",
                                     process.exec_cpu_affinity->final));
  }
  return absl::OkStatus();
}

void TranslateRights(const spec::Process& process, SecurityOptions& out,
                     std::vector<std::string>& warnings) {
  const spec::Capabilities wanted =
      process.capabilities.value_or(spec::Capabilities());
  CapabilitySets& sets = out.unsafe_capability_sets.emplace();
  sets.bounding = wanted.bounding;
  const std::set<std::string> bounding = SetOf(sets.bounding);
  sets.permitted =
      Within("permitted", wanted.permitted, bounding, "bounding", warnings);
  sets.inheritable =
      Within("inheritable", wanted.inheritable, bounding, "bounding", warnings);
  sets.effective = Within("effective", wanted.effective, SetOf(sets.permitted),
                          "permitted", warnings);
  sets.ambient = Within("ambient", wanted.ambient, SetOf(sets.permitted),
                        "permitted", warnings);
  sets.ambient = Within("ambient", sets.ambient, SetOf(sets.inheritable),
                        "inheritable", warnings);
  if (!process.no_new_privileges) {
    out.unsafe_new_privileges = NewPrivilegesAllowed{};
  }
  out.apparmor_profile = process.apparmor_profile;
  out.selinux_label = process.selinux_label;
}

absl::StatusOr<SeccompProfile> TranslateSeccomp(const spec::Seccomp& seccomp) {
  SeccompProfile profile;
  profile.default_action = *Find(kActions, seccomp.default_action);
  profile.default_errno_ret = seccomp.default_errno_ret;
  for (const std::string& name : seccomp.architectures) {
    const auto architecture = Find(kArchitectures, name);
    if (architecture) profile.architectures.push_back(*architecture);
  }
  bool notifies = profile.default_action == SeccompAction::kNotify;
  for (const std::string& flag : seccomp.flags) {
    profile.log = profile.log || flag == "SECCOMP_FILTER_FLAG_LOG";
    profile.spec_allow =
        profile.spec_allow || flag == "SECCOMP_FILTER_FLAG_SPEC_ALLOW";
    profile.wait_killable_recv =
        profile.wait_killable_recv ||
        flag == "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV";
  }
  for (const spec::SeccompSyscall& rule : seccomp.syscalls) {
    ASSIGN_OR_RETURN(SeccompRule out, TranslateRule(rule));
    notifies = notifies || out.action == SeccompAction::kNotify;
    profile.syscalls.push_back(std::move(out));
  }
  if (notifies && seccomp.listener_path.empty()) {
    return Invalid(
        "linux.seccomp.listenerPath: missing: nobody would answer "
        "SCMP_ACT_NOTIFY");
  }
  return profile;
}

absl::StatusOr<std::vector<int>> ParseNumberList(const std::string& field,
                                                 absl::string_view text) {
  std::vector<int> numbers;
  for (const absl::string_view part :
       absl::StrSplit(text, ',', absl::SkipWhitespace())) {
    const std::vector<absl::string_view> ends = absl::StrSplit(part, '-');
    int first = 0;
    int last = 0;
    const bool valid = ends.size() <= 2 &&
                       absl::SimpleAtoi(ends.front(), &first) &&
                       absl::SimpleAtoi(ends.back(), &last) && first >= 0 &&
                       first <= last && last < kMaxListed;
    if (!valid) {
      return Invalid(field, ": ", Quoted(text), " is not a list like 0-3,7");
    }
    for (int i = first; i <= last; ++i) numbers.push_back(i);
  }
  std::sort(numbers.begin(), numbers.end());
  numbers.erase(std::unique(numbers.begin(), numbers.end()), numbers.end());
  return numbers;
}

absl::Status TranslateMemoryPolicy(const spec::MemoryPolicy& policy,
                                   Scheduling& out) {
  MemoryPolicy& chosen = out.memory.emplace();
  chosen.mode = *Find(kMemoryModes, policy.mode);
  ASSIGN_OR_RETURN(chosen.nodes,
                   ParseNumberList("linux.memoryPolicy.nodes", policy.nodes));
  for (const std::string& flag : policy.flags) {
    chosen.numa_balancing =
        chosen.numa_balancing || flag == "MPOL_F_NUMA_BALANCING";
    chosen.static_nodes = chosen.static_nodes || flag == "MPOL_F_STATIC_NODES";
    chosen.relative_nodes =
        chosen.relative_nodes || flag == "MPOL_F_RELATIVE_NODES";
  }
  return absl::OkStatus();
}

}  // namespace caisson::container
