// Which values are valid.
#include <errno.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <limits>
#include <type_traits>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/cgroup/devices.h"
#include "lib/cgroup/limits.h"

namespace caisson::cgroup {
namespace {

constexpr int64_t kUnlimited = CgroupLimits::kUnlimited;
constexpr int64_t kMaxInt64 = std::numeric_limits<int64_t>::max();

// kernel/sched/core.c: min_cfs_quota_period, max_cfs_quota_period, max_bw.
constexpr int64_t kMinPeriodUs = 1000;
constexpr int64_t kMaxPeriodUs = 1000000;
constexpr int64_t kMinQuotaUs = 1000;
constexpr int64_t kMaxQuotaUs = (int64_t{1} << 44) - 1;
// include/linux/cgroup.h: CGROUP_WEIGHT_MIN, _MAX.
constexpr int64_t kMinWeight = 1;
constexpr int64_t kMaxWeight = 10000;
// kernel/sched/sched.h: MIN_SHARES, MAX_SHARES.
constexpr int64_t kMinShares = 2;
constexpr int64_t kMaxShares = 262144;
// config-linux.md, blockIO.weight.
constexpr int64_t kMinBlkioWeight = 10;
constexpr int64_t kMaxBlkioWeight = 1000;
// PID_MAX_LIMIT of 64-bit kernels.
constexpr int64_t kMaxPids = 4194304;
constexpr int64_t kMaxUint32 = std::numeric_limits<uint32_t>::max();
// More CPUs and memory nodes than any kernel is built for.
constexpr uint32_t kMaxId = 65535;
constexpr size_t kMaxInterfaceName = 15;  // IFNAMSIZ - 1

absl::Status OutOfRange(absl::string_view field, absl::string_view value,
                        absl::string_view want) {
  return absl::InvalidArgumentError(
      absl::StrCat("limits.", field, " is ", value, "; want ", want));
}

template <typename T>
absl::Status CheckRange(absl::string_view field, const std::optional<T>& value,
                        int64_t low, int64_t high, absl::string_view want) {
  if (!value.has_value()) return absl::OkStatus();
  // Unsigned values beyond int64_t are out of every range.
  const int64_t v =
      std::is_unsigned_v<T> &&
              static_cast<uint64_t>(*value) > static_cast<uint64_t>(kMaxInt64)
          ? kMaxInt64
          : static_cast<int64_t>(*value);
  if (v >= low && v <= high) return absl::OkStatus();
  return OutOfRange(field, absl::StrCat(*value), want);
}

// A number of bytes or things, 0 or more, or kUnlimited.
absl::Status CheckAmount(absl::string_view field,
                         const std::optional<int64_t>& value) {
  return CheckRange(field, value, kUnlimited, kMaxInt64,
                    "0 or more, or kUnlimited");
}

absl::Status ValidateMemory(const CgroupLimits& limits) {
  if (limits.memory_max.has_value() && *limits.memory_max != kUnlimited &&
      *limits.memory_max <= 0) {
    return OutOfRange("memory_max", absl::StrCat(*limits.memory_max),
                      "a positive number of bytes or kUnlimited");
  }
  RETURN_IF_ERROR(CheckAmount("memory_swap_max", limits.memory_swap_max));
  RETURN_IF_ERROR(CheckAmount("memory_high", limits.memory_high));
  RETURN_IF_ERROR(CheckAmount("memory_low", limits.memory_low));
  RETURN_IF_ERROR(CheckAmount("memory_min", limits.memory_min));
  RETURN_IF_ERROR(CheckAmount("memory_zswap_max", limits.memory_zswap_max));
  return CheckRange("memory_swappiness", limits.memory_swappiness, 0, 100,
                    "0 to 100");
}

absl::Status ValidateQuota(const CpuQuota& cpu) {
  const int64_t period = absl::ToInt64Microseconds(cpu.period);
  if (period < kMinPeriodUs || cpu.period > absl::Microseconds(kMaxPeriodUs)) {
    return OutOfRange("cpu_quota.period", absl::FormatDuration(cpu.period),
                      "1ms to 1s");
  }
  const bool unlimited = cpu.quota == absl::InfiniteDuration();
  const int64_t quota = absl::ToInt64Microseconds(cpu.quota);
  if (!unlimited && (quota < kMinQuotaUs || quota > kMaxQuotaUs)) {
    return OutOfRange("cpu_quota.quota", absl::FormatDuration(cpu.quota),
                      "1ms to 203 days, or InfiniteDuration() for no limit");
  }
  if (!cpu.burst.has_value()) return absl::OkStatus();
  if (*cpu.burst < absl::ZeroDuration() ||
      *cpu.burst > absl::Microseconds(kMaxQuotaUs) ||
      (!unlimited && *cpu.burst > cpu.quota)) {
    return OutOfRange("cpu_quota.burst", absl::FormatDuration(*cpu.burst),
                      "0 to the quota");
  }
  return absl::OkStatus();
}

absl::Status ValidateCpu(const CgroupLimits& limits) {
  if (limits.cpu_quota.has_value()) {
    RETURN_IF_ERROR(ValidateQuota(*limits.cpu_quota));
  }
  RETURN_IF_ERROR(CheckRange("cpu_weight", limits.cpu_weight, kMinWeight,
                             kMaxWeight, "1 to 10000"));
  RETURN_IF_ERROR(CheckRange("cpu_shares", limits.cpu_shares, kMinShares,
                             kMaxShares, "2 to 262144"));
  const bool weight = limits.cpu_weight.has_value();
  const bool shares = limits.cpu_shares.has_value();
  if (weight && shares) {
    return absl::InvalidArgumentError(
        "limits.cpu_weight and limits.cpu_shares say the same thing; want one "
        "of them");
  }
  if (limits.cpu_idle.value_or(false) && (weight || shares)) {
    return absl::InvalidArgumentError(
        absl::StrCat("limits.cpu_idle is true and limits.",
                     weight ? "cpu_weight" : "cpu_shares",
                     " is set; an idle group has no weight"));
  }
  if (limits.cpuset_cpus.has_value()) {
    RETURN_IF_ERROR(ParseIdList("cpuset_cpus", *limits.cpuset_cpus).status());
  }
  if (limits.cpuset_mems.has_value()) {
    RETURN_IF_ERROR(ParseIdList("cpuset_mems", *limits.cpuset_mems).status());
  }
  return absl::OkStatus();
}

absl::Status ValidateIo(const CgroupLimits& limits) {
  RETURN_IF_ERROR(CheckRange("io_weight", limits.io_weight, kMinWeight,
                             kMaxWeight, "1 to 10000"));
  RETURN_IF_ERROR(CheckRange("blkio_weight", limits.blkio_weight,
                             kMinBlkioWeight, kMaxBlkioWeight, "10 to 1000"));
  if (limits.io_weight.has_value() && limits.blkio_weight.has_value()) {
    return absl::InvalidArgumentError(
        "limits.io_weight and limits.blkio_weight say the same thing; want "
        "one of them");
  }
  for (size_t i = 0; i < limits.io.size(); ++i) {
    const CgroupIoLimit& io = limits.io[i];
    const auto check = [&](absl::string_view name,
                           const std::optional<int64_t>& value,
                           int64_t high) -> absl::Status {
      if (value == kUnlimited) return absl::OkStatus();
      return CheckRange(absl::StrCat("io[", i, "].", name), value, 1, high,
                        absl::StrCat("1 to ", high, ", or kUnlimited"));
    };
    RETURN_IF_ERROR(check("read_bps", io.read_bps, kMaxInt64));
    RETURN_IF_ERROR(check("write_bps", io.write_bps, kMaxInt64));
    RETURN_IF_ERROR(check("read_iops", io.read_iops, kMaxUint32));
    RETURN_IF_ERROR(check("write_iops", io.write_iops, kMaxUint32));
    RETURN_IF_ERROR(CheckRange(absl::StrCat("io[", i, "].weight"), io.weight, 0,
                               kMaxWeight, "1 to 10000, or 0"));
  }
  return absl::OkStatus();
}

// A name that is one word of a line of a control file.
absl::Status CheckWord(const std::string& field, absl::string_view word) {
  const bool bad =
      word.empty() || std::any_of(word.begin(), word.end(), [](char c) {
        return absl::ascii_isspace(static_cast<unsigned char>(c)) ||
               absl::ascii_iscntrl(static_cast<unsigned char>(c));
      });
  if (!bad) return absl::OkStatus();
  return OutOfRange(field, Quoted(word), "one word");
}

absl::Status ValidateHugetlb(const CgroupLimits& limits) {
  for (size_t i = 0; i < limits.hugetlb.size(); ++i) {
    const CgroupHugetlbLimit& huge = limits.hugetlb[i];
    const std::string field = absl::StrCat("hugetlb[", i, "]");
    if (huge.page_size < 4096 || (huge.page_size & (huge.page_size - 1)) != 0) {
      return OutOfRange(absl::StrCat(field, ".page_size"),
                        absl::StrCat(huge.page_size),
                        "a size of huge pages in bytes: a power of two");
    }
    RETURN_IF_ERROR(CheckAmount(absl::StrCat(field, ".max"), huge.max));
    RETURN_IF_ERROR(
        CheckAmount(absl::StrCat(field, ".reserved_max"), huge.reserved_max));
  }
  return absl::OkStatus();
}

absl::Status ValidateResources(const CgroupLimits& limits) {
  for (size_t i = 0; i < limits.rdma.size(); ++i) {
    const std::string field = absl::StrCat("rdma[", i, "].");
    const CgroupRdmaLimit& rdma = limits.rdma[i];
    RETURN_IF_ERROR(CheckWord(field + "device", rdma.device));
    for (const auto& value : {rdma.hca_handles, rdma.hca_objects}) {
      RETURN_IF_ERROR(CheckRange(field + "hca_handles or hca_objects", value,
                                 kUnlimited,
                                 std::numeric_limits<int32_t>::max(),
                                 "0 to 2147483647, or kUnlimited"));
    }
  }
  for (size_t i = 0; i < limits.misc.size(); ++i) {
    const std::string field = absl::StrCat("misc[", i, "].");
    RETURN_IF_ERROR(CheckWord(field + "resource", limits.misc[i].resource));
    RETURN_IF_ERROR(
        CheckAmount(field + "max", std::optional<int64_t>(limits.misc[i].max)));
  }
  for (size_t i = 0; i < limits.dmem.size(); ++i) {
    const std::string field = absl::StrCat("dmem[", i, "].");
    const CgroupDmemLimit& dmem = limits.dmem[i];
    RETURN_IF_ERROR(CheckWord(field + "region", dmem.region));
    RETURN_IF_ERROR(CheckAmount(field + "max", dmem.max));
    RETURN_IF_ERROR(CheckAmount(field + "low", dmem.low));
    RETURN_IF_ERROR(CheckAmount(field + "min", dmem.min));
  }
  for (size_t i = 0; i < limits.net_priorities.size(); ++i) {
    const std::string field = absl::StrCat("net_priorities[", i, "].interface");
    const std::string& name = limits.net_priorities[i].interface;
    RETURN_IF_ERROR(CheckWord(field, name));
    if (name.size() > kMaxInterfaceName || absl::StrContains(name, '/')) {
      return OutOfRange(field, Quoted(name), "the name of an interface");
    }
  }
  return absl::OkStatus();
}

// Files that do something or that other functions of the library write.
bool Acts(absl::string_view file) {
  for (absl::string_view name :
       {"cgroup.procs", "cgroup.threads", "cgroup.kill", "cgroup.freeze",
        "cgroup.subtree_control", "cgroup.type", "memory.reclaim"}) {
    if (file == name) return true;
  }
  return absl::EndsWith(file, ".pressure");
}

absl::Status ValidateUnified(const CgroupLimits& limits) {
  for (const auto& [file, value] : limits.unified) {
    const std::string field =
        absl::StrCat("limits.unified[", Quoted(file), "]");
    // It becomes the name of a file that the host writes.
    const bool is_name =
        !file.empty() && std::all_of(file.begin(), file.end(), [](char c) {
          return absl::ascii_isalnum(static_cast<unsigned char>(c)) ||
                 c == '.' || c == '_';
        });
    if (!is_name || absl::StrContains(file, "..")) {
      return absl::InvalidArgumentError(
          absl::StrCat(field,
                       ": want the name of a control file: letters, "
                       "digits, \"_\" and single dots"));
    }
    RETURN_IF_ERROR(ControllerOfFile(file).status());
    if (Acts(file)) {
      return absl::InvalidArgumentError(absl::StrCat(
          field, ": writing that file acts on the group and is not a limit"));
    }
    if (absl::StripAsciiWhitespace(value).empty() ||
        value.find('\0') != std::string::npos) {
      return absl::InvalidArgumentError(
          absl::StrCat(field, " is ", Quoted(value), "; want text"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<IdRanges> ParseIdList(absl::string_view field,
                                     absl::string_view text) {
  IdRanges ranges;
  text = absl::StripAsciiWhitespace(text);
  if (text.empty()) return ranges;
  for (absl::string_view part : absl::StrSplit(text, ',')) {
    const std::vector<absl::string_view> ends = absl::StrSplit(part, '-');
    std::pair<uint32_t, uint32_t> range;
    const auto is_id = [](absl::string_view id, uint32_t& value) {
      return !id.empty() &&
             std::all_of(id.begin(), id.end(), absl::ascii_isdigit) &&
             absl::SimpleAtoi(id, &value) && value <= kMaxId;
    };
    if (ends.size() > 2 || !is_id(ends.front(), range.first) ||
        !is_id(ends.back(), range.second) || range.first > range.second) {
      return OutOfRange(field, Quoted(text), "a list such as \"0-3,7\"");
    }
    ranges.push_back(range);
  }
  std::sort(ranges.begin(), ranges.end());
  return ranges;
}

bool IsSubset(const IdRanges& inner, const IdRanges& outer) {
  std::vector<bool> has(kMaxId + 1);
  for (const auto& [first, last] : outer) {
    std::fill(has.begin() + first, has.begin() + last + 1, true);
  }
  return std::all_of(inner.begin(), inner.end(), [&](const auto& range) {
    return std::all_of(has.begin() + range.first,
                       has.begin() + range.second + 1,
                       [](bool is) { return is; });
  });
}

absl::Status ValidateLimits(const CgroupLimits& limits) {
  RETURN_IF_ERROR(ValidateMemory(limits));
  RETURN_IF_ERROR(ValidateCpu(limits));
  RETURN_IF_ERROR(CheckRange("pids_max", limits.pids_max, kUnlimited, kMaxPids,
                             "0 to 4194304 or kUnlimited"));
  RETURN_IF_ERROR(ValidateIo(limits));
  RETURN_IF_ERROR(ValidateHugetlb(limits));
  RETURN_IF_ERROR(ValidateResources(limits));
  if (limits.devices.has_value()) {
    RETURN_IF_ERROR(DeviceRegions(*limits.devices).status());
  }
  return ValidateUnified(limits);
}

absl::StatusOr<CgroupLimits> ResolveLimits(CgroupLimits limits) {
  RETURN_IF_ERROR(ValidateLimits(limits));
  for (size_t i = 0; i < limits.io.size(); ++i) {
    CgroupBlockDevice& device = limits.io[i].device;
    if (device.path.empty()) continue;
    struct stat st = {};
    if (::stat(device.path.c_str(), &st) != 0) {
      return ErrnoError(errno, absl::StrCat("stat(", Quoted(device.path), ")"),
                        {.step = "cgroup.limits", .path = device.path});
    }
    if (!S_ISBLK(st.st_mode)) {
      return OutOfRange(absl::StrCat("io[", i, "].device.path"),
                        Quoted(device.path), "a block device");
    }
    device.major = major(st.st_rdev);
    device.minor = minor(st.st_rdev);
    device.path.clear();
  }
  return limits;
}

}  // namespace caisson::cgroup
