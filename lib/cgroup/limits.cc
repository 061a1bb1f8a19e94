#include "lib/cgroup/limits.h"

#include <errno.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"

namespace caisson::cgroup {
namespace {

constexpr int64_t kUnlimited = CgroupLimits::kUnlimited;

// kernel/sched/core.c: min_cfs_quota_period, max_cfs_quota_period, max_bw.
constexpr int64_t kMinPeriodUs = 1000;
constexpr int64_t kMaxPeriodUs = 1000000;
constexpr int64_t kMinQuotaUs = 1000;
constexpr int64_t kMaxQuotaUs = (int64_t{1} << 44) - 1;
// include/linux/cgroup.h: CGROUP_WEIGHT_MIN, _DFL, _MAX.
constexpr uint64_t kMinWeight = 1;
constexpr uint64_t kDefaultWeight = 100;
constexpr uint64_t kMaxWeight = 10000;
// PID_MAX_LIMIT of 64-bit kernels.
constexpr int64_t kMaxPids = 4194304;
// PAGE_COUNTER_MAX in bytes with the largest page size, 64 KiB, is what v1
// prints for "no limit"; no machine has that much.
constexpr int64_t kV1NoLimit =
    std::numeric_limits<int64_t>::max() / 65536 * 65536;

absl::Status OutOfRange(absl::string_view field, absl::string_view value,
                        absl::string_view want) {
  return absl::InvalidArgumentError(
      absl::StrCat("limits.", field, " is ", value, "; want ", want));
}

absl::Status ValidateQuota(const CpuQuota& cpu) {
  const int64_t period = absl::ToInt64Microseconds(cpu.period);
  if (period < kMinPeriodUs || cpu.period > absl::Microseconds(kMaxPeriodUs)) {
    return OutOfRange("cpu_quota.period", absl::FormatDuration(cpu.period),
                      "1ms to 1s");
  }
  if (cpu.quota == absl::InfiniteDuration()) return absl::OkStatus();
  const int64_t quota = absl::ToInt64Microseconds(cpu.quota);
  if (quota < kMinQuotaUs || quota > kMaxQuotaUs) {
    return OutOfRange("cpu_quota.quota", absl::FormatDuration(cpu.quota),
                      "1ms to 203 days, or InfiniteDuration() for no limit");
  }
  return absl::OkStatus();
}

std::string MaxOr(int64_t value) {
  return value == kUnlimited ? "max" : absl::StrCat(value);
}

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
absl::Status PlanMemoryV1(const CgroupLimits& limits, const CurrentV1& current,
                          std::vector<LimitWrite>& writes) {
  const bool has_swap = limits.memory_swap_max.has_value();
  const int64_t memory = limits.memory_max.value_or(current.memory);
  int64_t swap = kUnlimited;
  if (has_swap) {
    swap = *limits.memory_swap_max;
  } else if (current.memsw != kUnlimited && current.memory != kUnlimited) {
    swap = current.memsw - current.memory;  // stays as it is
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
    if (memsw != current.memsw) {
      writes.push_back(
          {CgroupController::kMemory, kMemswLimitV1, absl::StrCat(memsw)});
    }
  };
  const bool fits = current.memsw == kUnlimited ||
                    (memory != kUnlimited && memory <= current.memsw);
  if (fits) {
    limit_write();
    memsw_write();
  } else {
    memsw_write();
    limit_write();
  }
  return absl::OkStatus();
}

// A group's quota/period may not exceed its parent's, also between the two
// writes: the order keeps the ratio at or below the larger of old and new.
void PlanQuotaV1(const CpuQuota& cpu, const CurrentV1& current,
                 std::vector<LimitWrite>& writes) {
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

}  // namespace

absl::Status ValidateLimits(const CgroupLimits& limits) {
  if (limits.memory_max.has_value() && *limits.memory_max != kUnlimited &&
      *limits.memory_max <= 0) {
    return OutOfRange("memory_max", absl::StrCat(*limits.memory_max),
                      "a positive number of bytes or kUnlimited");
  }
  if (limits.memory_swap_max.has_value() && *limits.memory_swap_max < -1) {
    return OutOfRange("memory_swap_max", absl::StrCat(*limits.memory_swap_max),
                      "0 or more bytes or kUnlimited");
  }
  if (limits.cpu_quota.has_value()) {
    RETURN_IF_ERROR(ValidateQuota(*limits.cpu_quota));
  }
  if (limits.cpu_weight.has_value() &&
      (*limits.cpu_weight < kMinWeight || *limits.cpu_weight > kMaxWeight)) {
    return OutOfRange("cpu_weight", absl::StrCat(*limits.cpu_weight),
                      "1 to 10000");
  }
  if (limits.pids_max.has_value() &&
      (*limits.pids_max < -1 || *limits.pids_max > kMaxPids)) {
    return OutOfRange("pids_max", absl::StrCat(*limits.pids_max),
                      "0 to 4194304 or kUnlimited");
  }
  return absl::OkStatus();
}

ControllerSet ControllersOf(const CgroupLimits& limits) {
  ControllerSet set;
  set[IndexOf(CgroupController::kMemory)] =
      limits.memory_max.has_value() || limits.memory_swap_max.has_value();
  set[IndexOf(CgroupController::kCpu)] =
      limits.cpu_quota.has_value() || limits.cpu_weight.has_value();
  set[IndexOf(CgroupController::kPids)] = limits.pids_max.has_value();
  return set;
}

absl::string_view FieldThatNeeds(const CgroupLimits& limits,
                                 CgroupController controller) {
  switch (controller) {
    case CgroupController::kMemory:
      if (limits.memory_max.has_value()) return "limits.memory_max";
      if (limits.memory_swap_max.has_value()) return "limits.memory_swap_max";
      break;
    case CgroupController::kCpu:
      if (limits.cpu_quota.has_value()) return "limits.cpu_quota";
      if (limits.cpu_weight.has_value()) return "limits.cpu_weight";
      break;
    case CgroupController::kPids:
      if (limits.pids_max.has_value()) return "limits.pids_max";
      break;
    default:
      break;
  }
  return "controllers";
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
                                                   const CurrentV1& current) {
  std::vector<LimitWrite> writes;
  if (versions.memory == CgroupVersion::kV2) {
    if (limits.memory_max.has_value()) {
      writes.push_back(
          {CgroupController::kMemory, kMemoryMax, MaxOr(*limits.memory_max)});
    }
    if (limits.memory_swap_max.has_value()) {
      writes.push_back({CgroupController::kMemory, kMemorySwapMax,
                        MaxOr(*limits.memory_swap_max)});
    }
  } else if (limits.memory_max.has_value() ||
             limits.memory_swap_max.has_value()) {
    RETURN_IF_ERROR(PlanMemoryV1(limits, current, writes));
  }
  if (limits.cpu_weight.has_value()) {
    const bool v2 = versions.cpu == CgroupVersion::kV2;
    writes.push_back({CgroupController::kCpu, v2 ? kCpuWeight : kCpuSharesV1,
                      absl::StrCat(v2 ? *limits.cpu_weight
                                      : SharesOfWeight(*limits.cpu_weight))});
  }
  if (limits.cpu_quota.has_value()) {
    if (versions.cpu == CgroupVersion::kV2) {
      writes.push_back(
          {CgroupController::kCpu, kCpuMax,
           absl::StrCat(MaxOr(QuotaUs(*limits.cpu_quota)), " ",
                        absl::ToInt64Microseconds(limits.cpu_quota->period))});
    } else {
      PlanQuotaV1(*limits.cpu_quota, current, writes);
    }
  }
  if (limits.pids_max.has_value()) {
    writes.push_back(
        {CgroupController::kPids, kPidsMax, MaxOr(*limits.pids_max)});
  }
  return writes;
}

absl::string_view LimitHint(absl::string_view file, int error) {
  if (error == ENOENT && (file == kMemswLimitV1 || file == kMemorySwapMax)) {
    return "this kernel does not account swap: boot with swapaccount=1, or "
           "leave limits.memory_swap_max out";
  }
  if (error == ENOENT &&
      (file == kCfsQuotaV1 || file == kCfsPeriodV1 || file == kCpuMax)) {
    return "this kernel has no CPU bandwidth control (CONFIG_CFS_BANDWIDTH)";
  }
  if (error == EBUSY && (file == kMemoryLimitV1 || file == kMemswLimitV1)) {
    return "more than that is in use and cannot be reclaimed";
  }
  if (error == EINVAL && (file == kCfsQuotaV1 || file == kCfsPeriodV1)) {
    return "quota / period may not exceed that of any group above";
  }
  return "";
}

}  // namespace caisson::cgroup
