// From CgroupLimits to the writes that set them, in an order that the kernel
// accepts. Nothing here touches a file of a group.
#ifndef CAISSON_LIB_CGROUP_LIMITS_H_
#define CAISSON_LIB_CGROUP_LIMITS_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/cgroup_limits.h"
#include "lib/cgroup/layout.h"

namespace caisson::cgroup {

// Control files that more than one place knows, by subsystem
// (admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst, scheduler/sched-bwc.rst).
// Not inline: with -fsanitize=undefined gcc takes such an address for one that
// may be null, which a constant string_view cannot be made of.
constexpr char kMemoryMax[] = "memory.max";
constexpr char kMemorySwapMax[] = "memory.swap.max";
constexpr char kMemoryEvents[] = "memory.events";
constexpr char kMemoryLimitV1[] = "memory.limit_in_bytes";
constexpr char kMemswLimitV1[] = "memory.memsw.limit_in_bytes";
constexpr char kOomControlV1[] = "memory.oom_control";
constexpr char kCpuMax[] = "cpu.max";
constexpr char kCpuMaxBurst[] = "cpu.max.burst";
constexpr char kCpuWeight[] = "cpu.weight";
constexpr char kCpuIdle[] = "cpu.idle";
constexpr char kCfsQuotaV1[] = "cpu.cfs_quota_us";
constexpr char kCfsPeriodV1[] = "cpu.cfs_period_us";
constexpr char kCfsBurstV1[] = "cpu.cfs_burst_us";
constexpr char kCpuSharesV1[] = "cpu.shares";
constexpr char kCpusetCpus[] = "cpuset.cpus";
constexpr char kCpusetMems[] = "cpuset.mems";
constexpr char kDevicesListV1[] = "devices.list";
constexpr char kDevicesAllowV1[] = "devices.allow";
constexpr char kDevicesDenyV1[] = "devices.deny";
constexpr char kPidsMax[] = "pids.max";
constexpr char kIoMax[] = "io.max";
constexpr char kIoWeight[] = "io.weight";
constexpr char kIoBfqWeight[] = "io.bfq.weight";
constexpr char kBlkioBfqWeightV1[] = "blkio.bfq.weight";

// INVALID_ARGUMENT naming the field and the value.
absl::Status ValidateLimits(const CgroupLimits& limits);

// `limits`, validated, with the numbers of the disks in place of their paths.
absl::StatusOr<CgroupLimits> ResolveLimits(CgroupLimits limits);

// Without that of devices, which on v2 is none.
ControllerSet ControllersOf(const CgroupLimits& limits);

// The field of `limits` that needs `controller`: "limits.memory_max".
absl::string_view FieldThatNeeds(const CgroupLimits& limits,
                                 CgroupController controller);

// The controller of a file by its name; nullopt: the core ("cgroup.").
// INVALID_ARGUMENT for an unknown one.
absl::StatusOr<std::optional<CgroupController>> ControllerOfFile(
    absl::string_view file);

// Of each controller; those that a group does not have do not matter.
struct Versions {
  static Versions All(CgroupVersion version) {
    Versions versions;
    versions.of.fill(version);
    return versions;
  }
  CgroupVersion operator[](CgroupController controller) const {
    return of[IndexOf(controller)];
  }
  bool IsV2(CgroupController controller) const {
    return (*this)[controller] == CgroupVersion::kV2;
  }
  std::array<CgroupVersion, kCgroupControllerCount> of = {};
};

// FAILED_PRECONDITION for a field that the version of its controller lacks.
absl::Status CheckVersions(const CgroupLimits& limits,
                           const Versions& versions);

// What the writes and their order depend on; the defaults are those of a new
// group. kUnlimited stands for no limit.
struct Current {
  int64_t v1_memory = CgroupLimits::kUnlimited;
  int64_t v1_memsw = CgroupLimits::kUnlimited;
  int64_t quota_us = -1;
  int64_t period_us = 100000;
  int64_t burst_us = 0;
  // Which of the files for weights of disks there are.
  bool has_io_weight = true;
  bool has_bfq_weight = true;
  // Of the group above; v1 has no other way to say "the same".
  std::string v1_parent_cpus;
  std::string v1_parent_mems;
};

// A byte count as v1 prints it; "no limit" is a huge number there.
absl::StatusOr<int64_t> ParseV1Bytes(absl::string_view text);

// "0-3,7" as ranges. INVALID_ARGUMENT naming `field`.
using IdRanges = std::vector<std::pair<uint32_t, uint32_t>>;
absl::StatusOr<IdRanges> ParseIdList(absl::string_view field,
                                     absl::string_view text);
bool IsSubset(const IdRanges& inner, const IdRanges& outer);

struct LimitWrite {
  std::optional<CgroupController> controller;  // nullopt: the v2 directory
  std::string file;
  std::string value;
  // Of a file with one line for each device, resource, ...: the beginning of
  // the line that is changed, and what to write if there was none.
  std::string key = {};
  std::string absent = {};
  // A file that this write changes, too, and that was not 0 before.
  std::string also_changes = {};
};

// Precondition: ResolveLimits() and CheckVersions() are OK. INVALID_ARGUMENT
// for a combination that version 1 cannot express.
absl::StatusOr<std::vector<LimitWrite>> PlanLimits(const CgroupLimits& limits,
                                                   const Versions& versions,
                                                   const Current& current);

// What a failed write of `file` means, for people; empty if errno says it all.
absl::string_view LimitHint(absl::string_view file, int error);

// Of plan_keyed_limits.cc: disks, huge pages and the like.
void PlanIo(const CgroupLimits& limits, const Versions& versions,
            const Current& current, std::vector<LimitWrite>& writes);
void PlanHugetlb(const CgroupLimits& limits, const Versions& versions,
                 std::vector<LimitWrite>& writes);
void PlanResources(const CgroupLimits& limits, std::vector<LimitWrite>& writes);
void PlanUnified(const CgroupLimits& limits, std::vector<LimitWrite>& writes);

// A number, or "max" for kUnlimited.
std::string MaxOr(int64_t value);

}  // namespace caisson::cgroup

#endif  // CAISSON_LIB_CGROUP_LIMITS_H_
