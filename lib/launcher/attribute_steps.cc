#include "lib/launcher/attribute_steps.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/mempolicy.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"

// Linux 5.14; Debian 12's <sys/prctl.h> may be older.
#ifndef PR_SCHED_CORE
#define PR_SCHED_CORE 62
#define PR_SCHED_CORE_CREATE 1
#endif

namespace caisson::launcher {
namespace {

using ::caisson::plan::PlanBuilder;
using ::caisson::plan::Slot;

constexpr int kPidTypeThreadGroup = 1;  // PIDTYPE_TGID
constexpr int kIoWhoProcess = 1;        // IOPRIO_WHO_PROCESS
constexpr int kIoClassShift = 13;
constexpr int kMaxCpu = 8191;
constexpr int kMaxNode = 1023;

// struct sched_attr of <linux/sched/types.h>, which clashes with <sched.h>.
struct SchedAttr {
  uint32_t size;
  uint32_t policy;
  uint64_t flags;
  int32_t nice;
  uint32_t priority;
  uint64_t runtime;
  uint64_t deadline;
  uint64_t period;
};
constexpr uint64_t kResetOnFork = 0x01;
constexpr uint64_t kReclaim = 0x02;
constexpr uint64_t kOverrunSignal = 0x04;

constexpr struct {
  absl::string_view name;
  int resource;
} kLimits[] = {
    {"AS", RLIMIT_AS},
    {"CORE", RLIMIT_CORE},
    {"CPU", RLIMIT_CPU},
    {"DATA", RLIMIT_DATA},
    {"FSIZE", RLIMIT_FSIZE},
    {"LOCKS", RLIMIT_LOCKS},
    {"MEMLOCK", RLIMIT_MEMLOCK},
    {"MSGQUEUE", RLIMIT_MSGQUEUE},
    {"NICE", RLIMIT_NICE},
    {"NOFILE", RLIMIT_NOFILE},
    {"NPROC", RLIMIT_NPROC},
    {"RSS", RLIMIT_RSS},
    {"RTPRIO", RLIMIT_RTPRIO},
    {"RTTIME", RLIMIT_RTTIME},
    {"SIGPENDING", RLIMIT_SIGPENDING},
    {"STACK", RLIMIT_STACK},
};

template <typename... Parts>
absl::Status Bad(const Parts&... parts) {
  return absl::InvalidArgumentError(absl::StrCat("ProcessSpec.", parts...));
}

// "RLIMIT_NOFILE", "nofile" -> "NOFILE"
std::string ShortName(const std::string& name) {
  const std::string upper = absl::AsciiStrToUpper(name);
  return std::string(absl::StripPrefix(upper, "RLIMIT_"));
}

absl::StatusOr<int> ResourceOf(const ResourceLimit& limit) {
  const std::string name = ShortName(limit.name);
  for (const auto& known : kLimits) {
    if (known.name == name) return known.resource;
  }
  return Bad("limits: ", Quoted(limit.name), " is no limit of setrlimit(2)");
}

bool HasSysResource() {
  __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3,
                                     .pid = 0};
  __user_cap_data_struct sets[2] = {};
  if (::syscall(SYS_capget, &header, sets) != 0) return false;
  return (sets[0].effective >> CAP_SYS_RESOURCE & 1) != 0;
}

struct Limit {
  int resource;
  std::string name;
  rlimit64 value;
  bool raised = false;   // above the host's hard limit
  std::string omission;  // why it is lower than asked for; or empty
  bool late() const {
    return resource == RLIMIT_NOFILE || resource == RLIMIT_NPROC;
  }
};

// What is to be set: no hard limit beyond what the host may grant.
absl::StatusOr<Limit> Grant(const ResourceLimit& wanted, bool may_raise) {
  Limit limit;
  ASSIGN_OR_RETURN(limit.resource, ResourceOf(wanted));
  limit.name = absl::StrCat("RLIMIT_", ShortName(wanted.name));
  if (wanted.soft > wanted.hard) {
    return Bad("limits: ", limit.name, " has a soft limit of ", wanted.soft,
               " above its hard limit of ", wanted.hard);
  }
  rlimit64 host;
  if (::getrlimit64(static_cast<__rlimit_resource>(limit.resource), &host) !=
      0) {
    return ErrnoError(errno, absl::StrCat("getrlimit(", limit.name, ")"),
                      {.step = "security"});
  }
  limit.value = {.rlim_cur = wanted.soft, .rlim_max = wanted.hard};
  limit.raised = limit.value.rlim_max > host.rlim_max && may_raise;
  if (limit.value.rlim_max > host.rlim_max && !may_raise) {
    limit.omission = absl::StrCat(
        limit.name, ": a hard limit above the host's own ", host.rlim_max,
        " needs CAP_SYS_RESOURCE; the host's was taken");
    limit.value.rlim_max = host.rlim_max;
    limit.value.rlim_cur = std::min(limit.value.rlim_cur, limit.value.rlim_max);
  }
  return limit;
}

bool MayRaise(const ProcessSpec& spec, bool own_user_namespace) {
  return !spec.limits.empty() && !own_user_namespace && HasSysResource();
}

void AddLimit(PlanBuilder& plan, const Limit& limit, rlimit64 value) {
  plan.Call(SYS_prlimit64, {0, limit.resource, plan.Object(value), 0},
            absl::StrCat("prlimit(", limit.name, ", ", value.rlim_cur, ", ",
                         value.rlim_max, ")"));
}

absl::Status AddScheduler(PlanBuilder& plan, const Scheduler& scheduler) {
  const bool deadline = scheduler.policy == SchedulerPolicy::kDeadline;
  const bool realtime = scheduler.policy == SchedulerPolicy::kFifo ||
                        scheduler.policy == SchedulerPolicy::kRoundRobin;
  if (realtime && (scheduler.priority < 1 || scheduler.priority > 99)) {
    return Bad("scheduling.scheduler.priority ", scheduler.priority,
               " is not from 1 to 99");
  }
  if (!realtime && scheduler.priority != 0) {
    return Bad("scheduling.scheduler.priority is for kFifo and kRoundRobin");
  }
  if (deadline && (scheduler.runtime <= absl::ZeroDuration() ||
                   scheduler.runtime > scheduler.deadline ||
                   scheduler.deadline > scheduler.period)) {
    return Bad(
        "scheduling.scheduler: kDeadline needs 0 < runtime <= deadline <= "
        "period");
  }
  SchedAttr attr = {};
  attr.size = sizeof(attr);
  attr.policy = static_cast<uint32_t>(scheduler.policy);
  attr.flags = (scheduler.reset_on_fork ? kResetOnFork : 0) |
               (scheduler.reclaim ? kReclaim : 0) |
               (scheduler.overrun_signal ? kOverrunSignal : 0);
  attr.priority = static_cast<uint32_t>(scheduler.priority);
  if (deadline) {
    attr.runtime =
        static_cast<uint64_t>(absl::ToInt64Nanoseconds(scheduler.runtime));
    attr.deadline =
        static_cast<uint64_t>(absl::ToInt64Nanoseconds(scheduler.deadline));
    attr.period =
        static_cast<uint64_t>(absl::ToInt64Nanoseconds(scheduler.period));
  }
  plan.Call(SYS_sched_setattr, {0, plan.Object(attr), 0}, "sched_setattr()")
      .Hint(
          "real-time and deadline scheduling need CAP_SYS_NICE in the host's "
          "user namespace, a v1 cpu group with cpu.rt_runtime_us, and free "
          "bandwidth");
  return absl::OkStatus();
}

// A bit mask as the kernel takes it: an array of words.
absl::StatusOr<std::vector<uint64_t>> Mask(const std::vector<int>& numbers,
                                           int highest,
                                           absl::string_view field) {
  std::vector<uint64_t> words;
  for (const int number : numbers) {
    if (number < 0 || number > highest) {
      return Bad(field, ": ", number, " is not from 0 to ", highest);
    }
    const size_t word = static_cast<size_t>(number) / 64;
    if (words.size() <= word) words.resize(word + 1);
    words[word] |= uint64_t{1} << (number % 64);
  }
  return words;
}

absl::Status AddCpus(PlanBuilder& plan, const std::vector<int>& cpus) {
  ASSIGN_OR_RETURN(const std::vector<uint64_t> mask,
                   Mask(cpus, kMaxCpu, "scheduling.cpus"));
  const size_t size = mask.size() * sizeof(uint64_t);
  plan.Call(SYS_sched_setaffinity, {0, size, plan.Bytes(mask.data(), size)},
            "sched_setaffinity()")
      .Hint(
          "none of ProcessSpec.scheduling.cpus exists, or is in the cpuset of "
          "the control group");
  return absl::OkStatus();
}

absl::Status AddMemoryPolicy(PlanBuilder& plan, const MemoryPolicy& policy) {
  const bool takes_nodes = policy.mode != MemoryPolicyMode::kDefault &&
                           policy.mode != MemoryPolicyMode::kLocal;
  if (takes_nodes == policy.nodes.empty()) {
    return Bad("scheduling.memory.nodes ",
               takes_nodes ? "are missing" : "must be empty with this mode");
  }
  if (policy.static_nodes && policy.relative_nodes) {
    return Bad(
        "scheduling.memory: static_nodes and relative_nodes exclude each "
        "other");
  }
  ASSIGN_OR_RETURN(const std::vector<uint64_t> mask,
                   Mask(policy.nodes, kMaxNode, "scheduling.memory.nodes"));
  const int mode = static_cast<int>(policy.mode) |
                   (policy.static_nodes ? MPOL_F_STATIC_NODES : 0) |
                   (policy.relative_nodes ? MPOL_F_RELATIVE_NODES : 0) |
                   (policy.numa_balancing ? MPOL_F_NUMA_BALANCING : 0);
  const char* const call = "set_mempolicy()";
  const char* const hint =
      "a node that does not exist, is not in the cpuset of the control group, "
      "or a mode or flag that this kernel lacks";
  if (mask.empty()) {
    plan.Call(SYS_set_mempolicy, {mode, 0, 0}, call).Hint(hint);
    return absl::OkStatus();
  }
  plan.Call(SYS_set_mempolicy,
            {mode, plan.Bytes(mask.data(), mask.size() * sizeof(uint64_t)),
             // The kernel reads one bit less than it is told.
             mask.size() * 64 + 1},
            call)
      .Hint(hint);
  return absl::OkStatus();
}

absl::Status AddScheduling(PlanBuilder& plan, const Scheduling& scheduling) {
  if (!scheduling.cpus.empty()) {
    RETURN_IF_ERROR(AddCpus(plan, scheduling.cpus));
  }
  if (scheduling.memory) {
    RETURN_IF_ERROR(AddMemoryPolicy(plan, *scheduling.memory));
  }
  if (scheduling.nice) {
    if (*scheduling.nice < -20 || *scheduling.nice > 19) {
      return Bad("scheduling.nice ", *scheduling.nice,
                 " is not from -20 to 19");
    }
    plan.Call(SYS_setpriority, {PRIO_PROCESS, 0, *scheduling.nice},
              absl::StrCat("setpriority(", *scheduling.nice, ")"))
        .Hint(
            "a negative value needs CAP_SYS_NICE in the host's user namespace");
  }
  if (scheduling.io) {
    const IoPriority& io = *scheduling.io;
    if (io.level < 0 || io.level > 7) {
      return Bad("scheduling.io.level ", io.level, " is not from 0 to 7");
    }
    const int level = io.io_class == IoClass::kIdle ? 0 : io.level;
    plan.Call(SYS_ioprio_set,
              {kIoWhoProcess, 0,
               static_cast<int>(io.io_class) << kIoClassShift | level},
              "ioprio_set()")
        .Hint("the real-time class needs CAP_SYS_NICE or CAP_SYS_ADMIN");
  }
  if (scheduling.own_core_group) {
    plan.Call(SYS_prctl,
              {PR_SCHED_CORE, PR_SCHED_CORE_CREATE, 0, kPidTypeThreadGroup, 0},
              "prctl(PR_SCHED_CORE_CREATE)")
        .Hint(
            "ENODEV: no SMT here; EINVAL: a kernel without CONFIG_SCHED_CORE");
  }
  // Last: a real-time process would starve others while it sets itself up.
  if (scheduling.scheduler) {
    return AddScheduler(plan, *scheduling.scheduler);
  }
  return absl::OkStatus();
}

}  // namespace

void AddOomScore(PlanBuilder& plan, const ProcessSpec& spec) {
  if (!spec.oom_score_adj) return;
  const std::string text = absl::StrCat(*spec.oom_score_adj);
  const Slot file = plan.NewSlot();
  plan.Call(SYS_openat,
            {AT_FDCWD, plan.String("/proc/self/oom_score_adj"),
             O_WRONLY | O_CLOEXEC, 0},
            "open(\"/proc/self/oom_score_adj\")")
      .Into(file);
  plan.Call(SYS_write, {file, plan.String(text), text.size()},
            absl::StrCat("write(\"/proc/self/oom_score_adj\", ", text, ")"))
      .Tolerate(EACCES);
  plan.Call(SYS_close, {file}, "close(\"/proc/self/oom_score_adj\")");
}

absl::Status AddAttributes(PlanBuilder& plan, const ProcessSpec& spec,
                           bool own_user_namespace,
                           std::vector<std::string>& omissions) {
  const bool may_raise = MayRaise(spec, own_user_namespace);
  for (const ResourceLimit& wanted : spec.limits) {
    ASSIGN_OR_RETURN(const Limit limit, Grant(wanted, may_raise));
    if (!limit.omission.empty()) omissions.push_back(limit.omission);
    if (!limit.late()) {
      AddLimit(plan, limit, limit.value);
    } else if (limit.raised) {
      AddLimit(plan, limit, {limit.value.rlim_max, limit.value.rlim_max});
    }
  }
  if (spec.personality) {
    plan.Call(SYS_personality, {*spec.personality},
              absl::StrCat("personality(", *spec.personality, ")"));
  }
  return AddScheduling(plan, spec.scheduling);
}

absl::Status AddLateLimits(PlanBuilder& plan, const ProcessSpec& spec,
                           bool own_user_namespace) {
  const bool may_raise = MayRaise(spec, own_user_namespace);
  for (const ResourceLimit& wanted : spec.limits) {
    ASSIGN_OR_RETURN(const Limit limit, Grant(wanted, may_raise));
    if (limit.late()) AddLimit(plan, limit, limit.value);
  }
  return absl::OkStatus();
}

bool LimitsDescriptors(const ProcessSpec& spec) {
  return std::any_of(spec.limits.begin(), spec.limits.end(),
                     [](const ResourceLimit& limit) {
                       return ShortName(limit.name) == "NOFILE";
                     });
}

}  // namespace caisson::launcher
