// CgroupLimits as records, and back.
#include <map>
#include <string>
#include <utility>

#include "absl/strings/strip.h"
#include "lib/base/status_macros.h"
#include "lib/keeper/spec_record.h"

namespace caisson::keeper {
namespace {

// Of the fields that a struct has as std::optional and a record as `optional`.
#define CAISSON_LIMITS_OPTIONAL(X) \
  X(memory_max)                    \
  X(memory_swap_max)               \
  X(memory_high)                   \
  X(memory_low)                    \
  X(memory_min)                    \
  X(memory_zswap_max)              \
  X(memory_oom_group)              \
  X(memory_swappiness)             \
  X(memory_oom_kill_disable)       \
  X(cpu_weight)                    \
  X(cpu_shares)                    \
  X(cpu_idle)                      \
  X(cpuset_cpus)                   \
  X(cpuset_mems)                   \
  X(pids_max)                      \
  X(io_weight)                     \
  X(blkio_weight)                  \
  X(net_class)

#define CAISSON_SET(field) \
  if (from.field) to.set_##field(*from.field);
#define CAISSON_GET(field) \
  if (from.has_##field()) to.field = from.field();

void ToRecord(const CgroupIoLimit& from, Limits::Io& to) {
  to.set_path(from.device.path);
  to.set_major(from.device.major);
  to.set_minor(from.device.minor);
  CAISSON_SET(read_bps)
  CAISSON_SET(write_bps)
  CAISSON_SET(read_iops)
  CAISSON_SET(write_iops)
  CAISSON_SET(weight)
}

CgroupIoLimit FromRecord(const Limits::Io& from) {
  CgroupIoLimit to;
  to.device = {
      .path = from.path(), .major = from.major(), .minor = from.minor()};
  CAISSON_GET(read_bps)
  CAISSON_GET(write_bps)
  CAISSON_GET(read_iops)
  CAISSON_GET(write_iops)
  CAISSON_GET(weight)
  return to;
}

void ListsToRecord(const CgroupLimits& from, Limits& to) {
  for (const CgroupIoLimit& one : from.io) ToRecord(one, *to.add_io());
  for (const CgroupHugetlbLimit& one : from.hugetlb) {
    Limits::Hugetlb& record = *to.add_hugetlb();
    record.set_page_size(one.page_size);
    if (one.max) record.set_max(*one.max);
    if (one.reserved_max) record.set_reserved_max(*one.reserved_max);
  }
  for (const CgroupRdmaLimit& one : from.rdma) {
    Limits::Rdma& record = *to.add_rdma();
    record.set_device(one.device);
    if (one.hca_handles) record.set_hca_handles(*one.hca_handles);
    if (one.hca_objects) record.set_hca_objects(*one.hca_objects);
  }
  for (const CgroupMiscLimit& one : from.misc) {
    Limits::Misc& record = *to.add_misc();
    record.set_resource(one.resource);
    record.set_max(one.max);
  }
  for (const CgroupDmemLimit& one : from.dmem) {
    Limits::Dmem& record = *to.add_dmem();
    record.set_region(one.region);
    if (one.max) record.set_max(*one.max);
    if (one.low) record.set_low(*one.low);
    if (one.min) record.set_min(*one.min);
  }
  for (const CgroupNetPriority& one : from.net_priorities) {
    Limits::NetPriority& record = *to.add_net_priorities();
    record.set_interface(one.interface);
    record.set_priority(one.priority);
  }
}

void ListsFromRecord(const Limits& from, CgroupLimits& to) {
  for (const auto& one : from.io()) to.io.push_back(FromRecord(one));
  for (const auto& one : from.hugetlb()) {
    CgroupHugetlbLimit limit = {.page_size = one.page_size()};
    if (one.has_max()) limit.max = one.max();
    if (one.has_reserved_max()) limit.reserved_max = one.reserved_max();
    to.hugetlb.push_back(limit);
  }
  for (const auto& one : from.rdma()) {
    CgroupRdmaLimit limit = {.device = one.device()};
    if (one.has_hca_handles()) limit.hca_handles = one.hca_handles();
    if (one.has_hca_objects()) limit.hca_objects = one.hca_objects();
    to.rdma.push_back(std::move(limit));
  }
  for (const auto& one : from.misc()) {
    to.misc.push_back({.resource = one.resource(), .max = one.max()});
  }
  for (const auto& one : from.dmem()) {
    CgroupDmemLimit limit = {.region = one.region()};
    if (one.has_max()) limit.max = one.max();
    if (one.has_low()) limit.low = one.low();
    if (one.has_min()) limit.min = one.min();
    to.dmem.push_back(std::move(limit));
  }
  for (const auto& one : from.net_priorities()) {
    to.net_priorities.push_back(
        {.interface = one.interface(), .priority = one.priority()});
  }
}

absl::StatusOr<CgroupDeviceRules> RulesFromRecord(const Limits::Devices& from) {
  CgroupDeviceRules rules;
  for (absl::string_view text : from.rules()) {
    const bool allow = absl::ConsumePrefix(&text, "allow ");
    if (!allow) absl::ConsumePrefix(&text, "deny ");
    ASSIGN_OR_RETURN(const CgroupDeviceRule rule,
                     CgroupDeviceRule::Parse(text, allow));
    rules.rules.push_back(rule);
  }
  return rules;
}

}  // namespace

void ToRecord(const CgroupLimits& from, Limits& to) {
  CAISSON_LIMITS_OPTIONAL(CAISSON_SET)
  if (from.cpu_quota) {
    Limits::CpuQuota& quota = *to.mutable_cpu_quota();
    quota.set_quota_ns(ToNanoseconds(from.cpu_quota->quota));
    quota.set_period_ns(ToNanoseconds(from.cpu_quota->period));
    if (from.cpu_quota->burst) {
      quota.set_burst_ns(ToNanoseconds(*from.cpu_quota->burst));
    }
  }
  ListsToRecord(from, to);
  if (from.devices) {
    Limits::Devices& devices = *to.mutable_devices();
    for (const CgroupDeviceRule& rule : from.devices->rules) {
      devices.add_rules(rule.ToString());
    }
  }
  for (const auto& [file, text] : from.unified) {
    (*to.mutable_unified())[file] = text;
  }
}

absl::StatusOr<CgroupLimits> FromRecord(const Limits& from) {
  CgroupLimits to;
  CAISSON_LIMITS_OPTIONAL(CAISSON_GET)
  if (from.has_cpu_quota()) {
    const Limits::CpuQuota& quota = from.cpu_quota();
    to.cpu_quota = CpuQuota{.quota = FromNanoseconds(quota.quota_ns()),
                            .period = FromNanoseconds(quota.period_ns()),
                            .burst = std::nullopt};
    if (quota.has_burst_ns()) {
      to.cpu_quota->burst = FromNanoseconds(quota.burst_ns());
    }
  }
  ListsFromRecord(from, to);
  if (from.has_devices()) {
    ASSIGN_OR_RETURN(to.devices, RulesFromRecord(from.devices()));
  }
  to.unified = {from.unified().begin(), from.unified().end()};
  return to;
}

void Merge(const CgroupLimits& changes, CgroupLimits& limits) {
#define CAISSON_MERGE(field) \
  if (changes.field) limits.field = changes.field;
  CAISSON_LIMITS_OPTIONAL(CAISSON_MERGE)
  CAISSON_MERGE(cpu_quota)
  CAISSON_MERGE(devices)
#undef CAISSON_MERGE
  // Each of two is a notation of the other.
  if (changes.cpu_weight) limits.cpu_shares.reset();
  if (changes.cpu_shares) limits.cpu_weight.reset();
  if (changes.io_weight) limits.blkio_weight.reset();
  if (changes.blkio_weight) limits.io_weight.reset();
  const auto add = [](const auto& from, auto& to) {
    to.insert(to.end(), from.begin(), from.end());
  };
  add(changes.io, limits.io);
  add(changes.hugetlb, limits.hugetlb);
  add(changes.rdma, limits.rdma);
  add(changes.misc, limits.misc);
  add(changes.dmem, limits.dmem);
  add(changes.net_priorities, limits.net_priorities);
  for (const auto& [file, text] : changes.unified) limits.unified[file] = text;
}

}  // namespace caisson::keeper
