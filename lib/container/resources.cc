#include "lib/container/resources.h"

#include <cstddef>
#include <limits>
#include <optional>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/container/refusal.h"

namespace caisson::container {
namespace {

constexpr int64_t kUnlimited = CgroupLimits::kUnlimited;

// What engines write for "not given".
bool IsSet(const std::optional<int64_t>& value) {
  return value.value_or(0) != 0;
}

absl::Status TranslateSwap(const std::string& field, const spec::Memory& memory,
                           CgroupLimits& limits) {
  const int64_t limit = memory.limit.value_or(0);
  const int64_t both = memory.swap.value_or(0);
  if (both == 0) {
    if (limit == kUnlimited) limits.memory_swap_max = kUnlimited;
    return absl::OkStatus();
  }
  if (both == kUnlimited) {
    limits.memory_swap_max = kUnlimited;
    return absl::OkStatus();
  }
  if (limit <= 0) {
    return Invalid(field, ".swap: ", both,
                   " is memory and swap together, which needs a limit of the "
                   "memory");
  }
  if (both < limit) {
    return Invalid(field, ".swap: ", both, " is less than the memory's limit, ",
                   limit, ", which it includes");
  }
  limits.memory_swap_max = both - limit;
  return absl::OkStatus();
}

absl::Status TranslateMemory(const std::string& field,
                             const spec::Memory& memory, CgroupLimits& limits) {
  if (IsSet(memory.limit)) limits.memory_max = memory.limit;
  if (IsSet(memory.reservation)) limits.memory_low = memory.reservation;
  RETURN_IF_ERROR(TranslateSwap(field, memory, limits));
  // `kernel` is one that runtimes may ignore (config-linux.md, "Memory"); no
  // kernel of today has it.
  if (memory.kernel_tcp.value_or(0) > 0) {
    return Unimplemented(field, ".kernelTCP: no limit of caisson's");
  }
  if (memory.swappiness) {
    if (*memory.swappiness > 100) {
      return Invalid(field, ".swappiness: ", *memory.swappiness,
                     " is not from 0 to 100");
    }
    limits.memory_swappiness = static_cast<int64_t>(*memory.swappiness);
  }
  if (memory.disable_oom_killer.value_or(false)) {
    limits.memory_oom_kill_disable = true;
  }
  if (!memory.use_hierarchy.value_or(true)) {
    return Unimplemented(field,
                         ".useHierarchy: false: groups are always "
                         "counted with those below them");
  }
  return absl::OkStatus();
}

absl::StatusOr<absl::Duration> Microseconds(const std::string& field,
                                            uint64_t value) {
  if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return Invalid(field, ": ", value, " microseconds are too many");
  }
  return absl::Microseconds(static_cast<int64_t>(value));
}

absl::Status TranslateCpuQuota(const std::string& field, const spec::Cpu& cpu,
                               CgroupLimits& limits) {
  const int64_t quota = cpu.quota.value_or(0);
  if (quota < -1) return Invalid(field, ".quota: ", quota, " is below -1");
  if (quota == 0 && cpu.period.value_or(0) == 0 && !cpu.burst) {
    return absl::OkStatus();
  }
  CpuQuota bandwidth;
  bandwidth.quota =
      quota > 0 ? absl::Microseconds(quota) : absl::InfiniteDuration();
  if (cpu.period.value_or(0) != 0) {
    ASSIGN_OR_RETURN(bandwidth.period,
                     Microseconds(absl::StrCat(field, ".period"), *cpu.period));
  }
  if (cpu.burst) {
    ASSIGN_OR_RETURN(bandwidth.burst,
                     Microseconds(absl::StrCat(field, ".burst"), *cpu.burst));
  }
  limits.cpu_quota = bandwidth;
  return absl::OkStatus();
}

absl::Status TranslateCpu(const std::string& field, const spec::Cpu& cpu,
                          CgroupLimits& limits) {
  // An idle group has no weight.
  const bool idle = cpu.idle.value_or(0) == 1;
  if (cpu.shares.value_or(0) != 0 && !idle) limits.cpu_shares = cpu.shares;
  RETURN_IF_ERROR(TranslateCpuQuota(field, cpu, limits));
  if (IsSet(cpu.realtime_runtime) || cpu.realtime_period.value_or(0) != 0) {
    return Unimplemented(field,
                         ".realtimeRuntime and realtimePeriod: no limits of "
                         "caisson's; version 2 has none either");
  }
  if (!cpu.cpus.empty()) limits.cpuset_cpus = cpu.cpus;
  if (!cpu.mems.empty()) limits.cpuset_mems = cpu.mems;
  if (cpu.idle) limits.cpu_idle = idle;
  return absl::OkStatus();
}

CgroupIoLimit& LimitOf(std::vector<CgroupIoLimit>& limits, uint32_t major,
                       uint32_t minor) {
  for (CgroupIoLimit& limit : limits) {
    if (limit.device.major == major && limit.device.minor == minor) {
      return limit;
    }
  }
  CgroupIoLimit& limit = limits.emplace_back();
  limit.device.major = major;
  limit.device.minor = minor;
  return limit;
}

absl::Status TranslateBlockIo(const std::string& field,
                              const spec::BlockIo& block_io,
                              CgroupLimits& limits) {
  if (block_io.weight.value_or(0) != 0) limits.blkio_weight = block_io.weight;
  bool leaf = block_io.leaf_weight.value_or(0) != 0;
  for (size_t i = 0; i < block_io.weight_device.size(); ++i) {
    const spec::WeightDevice& device = block_io.weight_device[i];
    leaf = leaf || device.leaf_weight.value_or(0) != 0;
    if (!device.weight) continue;
    if (*device.weight != 0 && (*device.weight < 10 || *device.weight > 1000)) {
      return Invalid(field, ".weightDevice[", i, "].weight: ", *device.weight,
                     " is not from 10 to 1000");
    }
    LimitOf(limits.io, device.major, device.minor).weight =
        *device.weight == 0 ? 0 : CgroupIoWeightOfBlkio(*device.weight);
  }
  if (leaf) {
    return Unimplemented(field,
                         ": leafWeight is of the CFQ scheduler, which "
                         "Linux 5.0 removed");
  }
  const std::pair<const std::vector<spec::ThrottleDevice>*,
                  std::optional<int64_t> CgroupIoLimit::*>
      throttles[] = {
          {&block_io.throttle_read_bps_device, &CgroupIoLimit::read_bps},
          {&block_io.throttle_write_bps_device, &CgroupIoLimit::write_bps},
          {&block_io.throttle_read_iops_device, &CgroupIoLimit::read_iops},
          {&block_io.throttle_write_iops_device, &CgroupIoLimit::write_iops},
      };
  for (const auto& [devices, member] : throttles) {
    for (const spec::ThrottleDevice& device : *devices) {
      constexpr uint64_t kMax = std::numeric_limits<int64_t>::max();
      LimitOf(limits.io, device.major, device.minor).*member =
          device.rate == 0 || device.rate > kMax
              ? kUnlimited
              : static_cast<int64_t>(device.rate);
    }
  }
  return absl::OkStatus();
}

// "64KB", "2MB", "1GB": powers of 1024 (config-linux.md, "Huge page limits").
absl::StatusOr<int64_t> PageSize(const std::string& field,
                                 const std::string& text) {
  absl::string_view number = text;
  int shift = 0;
  if (absl::ConsumeSuffix(&number, "KB")) {
    shift = 10;
  } else if (absl::ConsumeSuffix(&number, "MB")) {
    shift = 20;
  } else if (absl::ConsumeSuffix(&number, "GB")) {
    shift = 30;
  }
  uint32_t count = 0;
  if (shift == 0 || !absl::SimpleAtoi(number, &count) || count == 0) {
    return Invalid(field, ".pageSize: ", Quoted(text),
                   " is not a size like 64KB, 2MB or 1GB");
  }
  return int64_t{count} << shift;
}

absl::Status TranslateHugepages(const std::string& field,
                                const spec::Resources& resources,
                                CgroupLimits& limits) {
  for (size_t i = 0; i < resources.hugepage_limits.size(); ++i) {
    const spec::HugepageLimit& limit = resources.hugepage_limits[i];
    const std::string item = absl::StrCat(field, ".hugepageLimits[", i, "]");
    CgroupHugetlbLimit& out = limits.hugetlb.emplace_back();
    ASSIGN_OR_RETURN(out.page_size, PageSize(item, limit.page_size));
    constexpr uint64_t kMax = std::numeric_limits<int64_t>::max();
    const int64_t bytes =
        limit.limit > kMax ? kUnlimited : static_cast<int64_t>(limit.limit);
    out.max = bytes;
    out.reserved_max = bytes;
  }
  return absl::OkStatus();
}

void TranslateNetwork(const spec::NetworkResources& network,
                      CgroupLimits& limits) {
  if (network.class_id.value_or(0) != 0) limits.net_class = network.class_id;
  for (const spec::InterfacePriority& priority : network.priorities) {
    limits.net_priorities.push_back({priority.name, priority.priority});
  }
}

void TranslateRdma(const spec::Resources& resources, CgroupLimits& limits) {
  for (const auto& [device, rdma] : resources.rdma) {
    CgroupRdmaLimit& limit = limits.rdma.emplace_back();
    limit.device = device;
    limit.hca_handles = rdma.hca_handles;
    limit.hca_objects = rdma.hca_objects;
  }
}

absl::StatusOr<CgroupDeviceRule> TranslateDeviceRule(
    const std::string& field, const spec::DeviceRule& rule) {
  using Rule = CgroupDeviceRule;
  if (rule.access.empty()) {
    return Invalid(field, ".access: missing, so the rule is about nothing");
  }
  Rule out;
  out.allow = rule.allow;
  out.type = rule.type == "b"   ? Rule::Type::kBlock
             : rule.type == "c" ? Rule::Type::kCharacter
                                : Rule::Type::kAll;
  const auto number = [](const std::optional<int64_t>& value) {
    return value.value_or(-1) < 0
               ? std::optional<uint32_t>()
               : std::optional<uint32_t>(static_cast<uint32_t>(*value));
  };
  out.major = number(rule.major);
  out.minor = number(rule.minor);
  const auto has = [&rule](char letter) {
    return rule.access.find(letter) != std::string::npos;
  };
  out.read = has('r');
  out.write = has('w');
  out.mknod = has('m');
  return out;
}

}  // namespace

bool ZeroPidsAreUnlimited(absl::string_view oci_version) {
  const std::vector<absl::string_view> parts = absl::StrSplit(oci_version, '.');
  uint32_t minor = 0;
  return parts.size() > 1 && absl::SimpleAtoi(parts[1], &minor) && minor < 3;
}

absl::StatusOr<CgroupLimits> TranslateResources(
    const std::string& field, const spec::Resources& resources,
    bool zero_pids_are_unlimited) {
  CgroupLimits limits;
  if (resources.memory) {
    RETURN_IF_ERROR(TranslateMemory(absl::StrCat(field, ".memory"),
                                    *resources.memory, limits));
  }
  if (resources.cpu) {
    RETURN_IF_ERROR(
        TranslateCpu(absl::StrCat(field, ".cpu"), *resources.cpu, limits));
  }
  if (resources.pids && resources.pids->limit) {
    const int64_t limit = *resources.pids->limit;
    limits.pids_max =
        limit == 0 && zero_pids_are_unlimited ? kUnlimited : limit;
  }
  if (resources.block_io) {
    RETURN_IF_ERROR(TranslateBlockIo(absl::StrCat(field, ".blockIO"),
                                     *resources.block_io, limits));
  }
  RETURN_IF_ERROR(TranslateHugepages(field, resources, limits));
  if (resources.network) TranslateNetwork(*resources.network, limits);
  TranslateRdma(resources, limits);
  limits.unified = resources.unified;
  return limits;
}

absl::StatusOr<CgroupDeviceRules> TranslateDeviceRules(
    const std::string& field, const std::vector<spec::DeviceRule>& rules) {
  CgroupDeviceRules out;
  for (size_t i = 0; i < rules.size(); ++i) {
    ASSIGN_OR_RETURN(
        CgroupDeviceRule rule,
        TranslateDeviceRule(absl::StrCat(field, "[", i, "]"), rules[i]));
    out.rules.push_back(std::move(rule));
  }
  const CgroupDeviceRules common = CgroupDeviceRules::ContainerDefault();
  out.rules.insert(out.rules.end(), common.rules.begin(), common.rules.end());
  return out;
}

}  // namespace caisson::container
