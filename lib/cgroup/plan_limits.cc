// The order of the writes, and the limits that are one number.
#include <errno.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/cgroup/limits.h"

namespace caisson::cgroup {
namespace {

constexpr int64_t kUnlimited = CgroupLimits::kUnlimited;
// include/linux/cgroup.h: CGROUP_WEIGHT_DFL.
constexpr uint64_t kDefaultWeight = 100;
// PAGE_COUNTER_MAX in bytes with the largest page size, 64 KiB, is what v1
// prints for "no limit"; no machine has that much.
constexpr int64_t kV1NoLimit =
    std::numeric_limits<int64_t>::max() / 65536 * 65536;

using Writes = std::vector<LimitWrite>;

int64_t QuotaUs(const CpuQuota& cpu) {
  return cpu.quota == absl::InfiniteDuration()
             ? -1
             : absl::ToInt64Microseconds(cpu.quota);
}

// kernel/sched/core.c, sched_weight_from_cgroup(): DIV_ROUND_CLOSEST.
uint64_t SharesOfWeight(uint64_t weight) {
  return (weight * 1024 + kDefaultWeight / 2) / kDefaultWeight;
}

// The kernel wants limit <= memsw at every moment.
absl::Status PlanMemoryAndSwapV1(const CgroupLimits& limits,
                                 const Current& current, Writes& writes) {
  const bool has_swap = limits.memory_swap_max.has_value();
  const int64_t memory = limits.memory_max.value_or(current.v1_memory);
  int64_t swap = kUnlimited;
  if (has_swap) {
    swap = *limits.memory_swap_max;
  } else if (current.v1_memsw != kUnlimited &&
             current.v1_memory != kUnlimited) {
    swap = current.v1_memsw - current.v1_memory;  // stays as it is
  }
  if (memory == kUnlimited && swap != kUnlimited) {
    return absl::InvalidArgumentError(absl::StrCat(
        "limits.memory_swap_max ", has_swap ? "is " : "stays ", swap,
        " without a limits.memory_max: cgroup v1 limits memory and swap "
        "together (memory.memsw.limit_in_bytes) and cannot limit swap alone"));
  }
  int64_t memsw = kUnlimited;
  if (memory != kUnlimited && swap != kUnlimited) {
    memsw = swap > kV1NoLimit - memory ? kUnlimited : memory + swap;
  }
  const auto limit_write = [&] {
    if (limits.memory_max.has_value()) {
      writes.push_back(
          {CgroupController::kMemory, kMemoryLimitV1, absl::StrCat(memory)});
    }
  };
  const auto memsw_write = [&] {
    if (memsw != current.v1_memsw) {
      writes.push_back(
          {CgroupController::kMemory, kMemswLimitV1, absl::StrCat(memsw)});
    }
  };
  const bool fits = current.v1_memsw == kUnlimited ||
                    (memory != kUnlimited && memory <= current.v1_memsw);
  if (fits) {
    limit_write();
    memsw_write();
  } else {
    memsw_write();
    limit_write();
  }
  return absl::OkStatus();
}

absl::Status PlanMemory(const CgroupLimits& limits, const Versions& versions,
                        const Current& current, Writes& writes) {
  constexpr CgroupController kMemory = CgroupController::kMemory;
  const auto number = [&](const char* file, const std::optional<int64_t>& value,
                          bool v1) {
    if (!value.has_value()) return;
    writes.push_back(
        {kMemory, file, v1 ? absl::StrCat(*value) : MaxOr(*value)});
  };
  if (!versions.IsV2(kMemory)) {
    if (limits.memory_max.has_value() || limits.memory_swap_max.has_value()) {
      RETURN_IF_ERROR(PlanMemoryAndSwapV1(limits, current, writes));
    }
    number("memory.soft_limit_in_bytes", limits.memory_low, true);
    number("memory.swappiness", limits.memory_swappiness, true);
    if (limits.memory_oom_kill_disable.has_value()) {
      writes.push_back({kMemory, kOomControlV1,
                        *limits.memory_oom_kill_disable ? "1" : "0",
                        "oom_kill_disable", "0"});
    }
    return absl::OkStatus();
  }
  number(kMemoryMax, limits.memory_max, false);
  number(kMemorySwapMax, limits.memory_swap_max, false);
  number("memory.high", limits.memory_high, false);
  number("memory.low", limits.memory_low, false);
  number("memory.min", limits.memory_min, false);
  number("memory.zswap.max", limits.memory_zswap_max, false);
  if (limits.memory_oom_group.has_value()) {
    writes.push_back(
        {kMemory, "memory.oom.group", *limits.memory_oom_group ? "1" : "0"});
  }
  return absl::OkStatus();
}

// A group's quota/period may not exceed its parent's, also between the two
// writes: the order keeps the ratio at or below the larger of old and new.
void PlanQuotaV1(const CpuQuota& cpu, const Current& current, Writes& writes) {
  const int64_t period = absl::ToInt64Microseconds(cpu.period);
  const LimitWrite quota_write = {CgroupController::kCpu, kCfsQuotaV1,
                                  absl::StrCat(QuotaUs(cpu))};
  const LimitWrite period_write = {CgroupController::kCpu, kCfsPeriodV1,
                                   absl::StrCat(period)};
  if (period == current.period_us) {
    writes.push_back(quota_write);
  } else if (period > current.period_us || current.quota_us < 0) {
    writes.push_back(period_write);
    writes.push_back(quota_write);
  } else {
    writes.push_back(quota_write);
    writes.push_back(period_write);
  }
}

// The kernel wants burst <= quota at every moment: what becomes smaller is
// written first, what becomes larger last.
void PlanQuota(const CpuQuota& cpu, bool v2, const Current& current,
               Writes& writes) {
  const int64_t burst = absl::ToInt64Microseconds(
      cpu.burst.value_or(absl::Microseconds(current.burst_us)));
  const auto write_burst = [&] {
    if (!cpu.burst.has_value()) return;
    writes.push_back({CgroupController::kCpu, v2 ? kCpuMaxBurst : kCfsBurstV1,
                      absl::StrCat(burst)});
  };
  if (burst < current.burst_us) write_burst();
  if (v2) {
    writes.push_back({CgroupController::kCpu, kCpuMax,
                      absl::StrCat(MaxOr(QuotaUs(cpu)), " ",
                                   absl::ToInt64Microseconds(cpu.period))});
  } else {
    PlanQuotaV1(cpu, current, writes);
  }
  if (burst >= current.burst_us) write_burst();
}

void PlanCpu(const CgroupLimits& limits, const Versions& versions,
             const Current& current, Writes& writes) {
  const bool v2 = versions.IsV2(CgroupController::kCpu);
  const char* weight_file = v2 ? kCpuWeight : kCpuSharesV1;
  const auto idle = [&] {
    writes.push_back({.controller = CgroupController::kCpu,
                      .file = kCpuIdle,
                      .value = *limits.cpu_idle ? "1" : "0",
                      .also_changes = weight_file});
  };
  // An idle group refuses a weight.
  if (limits.cpu_idle == false) idle();
  std::optional<uint64_t> weight = limits.cpu_weight;
  if (v2 && limits.cpu_shares.has_value()) {
    weight = CgroupWeightOfShares(*limits.cpu_shares);
  } else if (!v2 && weight.has_value()) {
    weight = SharesOfWeight(*weight);
  } else if (!v2) {
    weight = limits.cpu_shares;
  }
  if (weight.has_value()) {
    writes.push_back(
        {CgroupController::kCpu, weight_file, absl::StrCat(*weight)});
  }
  if (limits.cpu_quota.has_value()) {
    PlanQuota(*limits.cpu_quota, v2, current, writes);
  }
  if (limits.cpu_idle == true) idle();
}

void PlanCpuset(const CgroupLimits& limits, const Versions& versions,
                const Current& current, Writes& writes) {
  const bool v2 = versions.IsV2(CgroupController::kCpuset);
  const auto plan = [&](const char* file, const auto& value,
                        const std::string& parent) {
    if (!value.has_value()) return;
    const absl::string_view list = absl::StripAsciiWhitespace(*value);
    // A write of nothing would not reach the kernel's handler.
    const std::string same = v2 || parent.empty() ? "\n" : parent;
    writes.push_back({CgroupController::kCpuset, file,
                      list.empty() ? same : std::string(list)});
  };
  plan(kCpusetCpus, limits.cpuset_cpus, current.v1_parent_cpus);
  plan(kCpusetMems, limits.cpuset_mems, current.v1_parent_mems);
}

// Lowering these makes the kernel reclaim and kill, which no write takes back.
bool MayKill(absl::string_view file) {
  return file == kMemoryMax || file == kMemoryLimitV1 || file == kMemswLimitV1;
}

struct Hint {
  int error;
  absl::string_view file;  // or the beginning of its name
  absl::string_view text;
};

constexpr Hint kHints[] = {
    {ENOENT, kMemswLimitV1,
     "this kernel does not account swap: boot with swapaccount=1, or leave "
     "limits.memory_swap_max out"},
    {ENOENT, kMemorySwapMax,
     "this kernel does not account swap: boot with swapaccount=1, or leave "
     "limits.memory_swap_max out"},
    {ENOENT, "memory.zswap.max",
     "needs Linux 5.19 with compressed swap (CONFIG_ZSWAP)"},
    {ENOENT, kCpuMaxBurst, "bursts of CPU time need Linux 5.14"},
    {ENOENT, kCfsBurstV1, "bursts of CPU time need Linux 5.14"},
    {ENOENT, kCpuIdle, "idle groups need Linux 5.15"},
    {ENOENT, kCfsQuotaV1,
     "this kernel has no CPU bandwidth control (CONFIG_CFS_BANDWIDTH)"},
    {ENOENT, kCfsPeriodV1,
     "this kernel has no CPU bandwidth control (CONFIG_CFS_BANDWIDTH)"},
    {ENOENT, kCpuMax,
     "this kernel has no CPU bandwidth control (CONFIG_CFS_BANDWIDTH)"},
    {ENOENT, "hugetlb.",
     "this kernel has no huge pages of that size (see "
     "/sys/kernel/mm/hugepages); limits of reservations need Linux 5.7"},
    {ENOENT, kIoMax,
     "this kernel cannot throttle disks (CONFIG_BLK_DEV_THROTTLING)"},
    {ENOENT, "blkio.throttle.",
     "this kernel cannot throttle disks (CONFIG_BLK_DEV_THROTTLING)"},
    {ENOENT, "blkio.bfq.",
     "weights of disks need the BFQ scheduler (CONFIG_BFQ_GROUP_IOSCHED)"},
    {EBUSY, kMemoryLimitV1, "more than that is in use and cannot be reclaimed"},
    {EBUSY, kMemswLimitV1, "more than that is in use and cannot be reclaimed"},
    {EINVAL, kCfsQuotaV1,
     "quota / period may not exceed that of any group above, nor be less than "
     "the burst"},
    {EINVAL, kCfsPeriodV1,
     "quota / period may not exceed that of any group above"},
    {EINVAL, kCpuMax, "the quota may not be less than cpu.max.burst"},
    {EINVAL, kCpuMaxBurst, "the burst may not exceed the quota"},
    {EINVAL, kCfsBurstV1, "the burst may not exceed the quota"},
    {EINVAL, kCpuWeight, "an idle group (cpu.idle 1) has no weight"},
    {EINVAL, kCpuSharesV1, "an idle group (cpu.idle 1) has no shares"},
    {EACCES, "cpuset.", "the group above does not have all of these"},
    {EINVAL, "cpuset.",
     "not an existing CPU or memory node, or one that another exclusive group "
     "has"},
    {ENOSPC, "cpuset.", "a group with processes needs a CPU and a memory node"},
    {EBUSY, "cpuset.", "a group below uses what would be taken away"},
    {ENODEV, "io.", "there is no such disk; a partition is none"},
    {ENODEV, "blkio.", "there is no such disk; a partition is none"},
    {EOPNOTSUPP, kIoWeight,
     "that disk does not use the cost model (io.cost.qos)"},
    {EOPNOTSUPP, "",
     "what is written needs something of that disk's scheduler "
     "or of this kind of group"},
    {EPERM, "devices.",
     "needs CAP_SYS_ADMIN, and a group above that allows it"},
    {EINVAL, "devices.",
     "the default cannot be changed while there are groups below"},
    {ENODEV, "rdma.",
     "there is no such RDMA device, see /sys/class/infiniband"},
    {EINVAL, "rdma.",
     "there is no such RDMA device, see /sys/class/infiniband"},
    {EINVAL, "misc.", "there is no such resource, see misc.capacity"},
    {EINVAL, "dmem.", "there is no such region, see dmem.capacity"},
    {ENODEV, "net_prio.", "there is no such interface in the host's namespace"},
    {EINVAL, "net_prio.", "there is no such interface in the host's namespace"},
};

}  // namespace

std::string MaxOr(int64_t value) {
  return value == kUnlimited ? "max" : absl::StrCat(value);
}

absl::StatusOr<int64_t> ParseV1Bytes(absl::string_view text) {
  int64_t value = 0;
  if (!absl::SimpleAtoi(absl::StripAsciiWhitespace(text), &value)) {
    return absl::InternalError(
        absl::StrCat(Quoted(text), " is not a number of bytes"));
  }
  return value >= kV1NoLimit ? kUnlimited : value;
}

absl::StatusOr<std::vector<LimitWrite>> PlanLimits(const CgroupLimits& limits,
                                                   const Versions& versions,
                                                   const Current& current) {
  Writes writes;
  RETURN_IF_ERROR(PlanMemory(limits, versions, current, writes));
  PlanCpu(limits, versions, current, writes);
  PlanCpuset(limits, versions, current, writes);
  if (limits.pids_max.has_value()) {
    writes.push_back(
        {CgroupController::kPids, kPidsMax, MaxOr(*limits.pids_max)});
  }
  PlanIo(limits, versions, current, writes);
  PlanHugetlb(limits, versions, writes);
  PlanResources(limits, writes);
  PlanUnified(limits, writes);
  std::stable_partition(
      writes.begin(), writes.end(),
      [](const LimitWrite& write) { return !MayKill(write.file); });
  return writes;
}

absl::string_view LimitHint(absl::string_view file, int error) {
  for (const Hint& hint : kHints) {
    if (hint.error == error && absl::StartsWith(file, hint.file)) {
      return hint.text;
    }
  }
  return "";
}

}  // namespace caisson::cgroup
