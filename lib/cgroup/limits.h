// From CgroupLimits to the writes that set them, in an order that the kernel
// accepts. Pure: nothing here touches a file.
#ifndef CAISSON_LIB_CGROUP_LIMITS_H_
#define CAISSON_LIB_CGROUP_LIMITS_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/cgroup.h"
#include "lib/cgroup/layout.h"

namespace caisson::cgroup {

// Control files, by subsystem (admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst,
// scheduler/sched-bwc.rst).
inline constexpr char kMemoryMax[] = "memory.max";
inline constexpr char kMemorySwapMax[] = "memory.swap.max";
inline constexpr char kMemoryEvents[] = "memory.events";
inline constexpr char kMemoryLimitV1[] = "memory.limit_in_bytes";
inline constexpr char kMemswLimitV1[] = "memory.memsw.limit_in_bytes";
inline constexpr char kOomControlV1[] = "memory.oom_control";
inline constexpr char kCpuMax[] = "cpu.max";
inline constexpr char kCpuWeight[] = "cpu.weight";
inline constexpr char kCfsQuotaV1[] = "cpu.cfs_quota_us";
inline constexpr char kCfsPeriodV1[] = "cpu.cfs_period_us";
inline constexpr char kCpuSharesV1[] = "cpu.shares";
inline constexpr char kPidsMax[] = "pids.max";

// INVALID_ARGUMENT naming the field and the value.
absl::Status ValidateLimits(const CgroupLimits& limits);

ControllerSet ControllersOf(const CgroupLimits& limits);

// The field of `limits` that needs `controller`: "limits.memory_max".
absl::string_view FieldThatNeeds(const CgroupLimits& limits,
                                 CgroupController controller);

struct Versions {
  CgroupVersion cpu = CgroupVersion::kV2;
  CgroupVersion memory = CgroupVersion::kV2;
};

// What the order of v1 writes depends on; the defaults are those of a new
// group. kUnlimited stands for no limit.
struct CurrentV1 {
  int64_t memory = CgroupLimits::kUnlimited;
  int64_t memsw = CgroupLimits::kUnlimited;
  int64_t quota_us = -1;
  int64_t period_us = 100000;
};

// A byte count as v1 prints it; "no limit" is a huge number there.
absl::StatusOr<int64_t> ParseV1Bytes(absl::string_view text);

struct LimitWrite {
  CgroupController controller;
  std::string file;
  std::string value;
};

// Precondition: ValidateLimits() is OK. INVALID_ARGUMENT for a combination that
// version 1 cannot express.
absl::StatusOr<std::vector<LimitWrite>> PlanLimits(const CgroupLimits& limits,
                                                   const Versions& versions,
                                                   const CurrentV1& current);

// What a failed write of `file` means, for people; empty if errno says it all.
absl::string_view LimitHint(absl::string_view file, int error);

}  // namespace caisson::cgroup

#endif  // CAISSON_LIB_CGROUP_LIMITS_H_
