// Which controller and version a field needs.
#include "lib/cgroup/limits.h"

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"

namespace caisson::cgroup {
namespace {

enum Where { kBoth, kOnlyV1, kOnlyV2 };

struct Field {
  absl::string_view name;
  CgroupController controller;
  Where where;
  bool (*present)(const CgroupLimits&);
};

using C = CgroupController;
using L = const CgroupLimits&;

constexpr Field kFields[] = {
    {"limits.memory_max", C::kMemory, kBoth,
     [](L l) { return l.memory_max.has_value(); }},
    {"limits.memory_swap_max", C::kMemory, kBoth,
     [](L l) { return l.memory_swap_max.has_value(); }},
    {"limits.memory_high", C::kMemory, kOnlyV2,
     [](L l) { return l.memory_high.has_value(); }},
    {"limits.memory_low", C::kMemory, kBoth,
     [](L l) { return l.memory_low.has_value(); }},
    {"limits.memory_min", C::kMemory, kOnlyV2,
     [](L l) { return l.memory_min.has_value(); }},
    {"limits.memory_zswap_max", C::kMemory, kOnlyV2,
     [](L l) { return l.memory_zswap_max.has_value(); }},
    {"limits.memory_oom_group", C::kMemory, kOnlyV2,
     [](L l) { return l.memory_oom_group.has_value(); }},
    {"limits.memory_swappiness", C::kMemory, kOnlyV1,
     [](L l) { return l.memory_swappiness.has_value(); }},
    {"limits.memory_oom_kill_disable", C::kMemory, kOnlyV1,
     [](L l) { return l.memory_oom_kill_disable.has_value(); }},
    {"limits.cpu_quota", C::kCpu, kBoth,
     [](L l) { return l.cpu_quota.has_value(); }},
    {"limits.cpu_weight", C::kCpu, kBoth,
     [](L l) { return l.cpu_weight.has_value(); }},
    {"limits.cpu_shares", C::kCpu, kBoth,
     [](L l) { return l.cpu_shares.has_value(); }},
    {"limits.cpu_idle", C::kCpu, kBoth,
     [](L l) { return l.cpu_idle.has_value(); }},
    {"limits.cpuset_cpus", C::kCpuset, kBoth,
     [](L l) { return l.cpuset_cpus.has_value(); }},
    {"limits.cpuset_mems", C::kCpuset, kBoth,
     [](L l) { return l.cpuset_mems.has_value(); }},
    {"limits.pids_max", C::kPids, kBoth,
     [](L l) { return l.pids_max.has_value(); }},
    {"limits.io_weight", C::kIo, kBoth,
     [](L l) { return l.io_weight.has_value(); }},
    {"limits.blkio_weight", C::kIo, kBoth,
     [](L l) { return l.blkio_weight.has_value(); }},
    {"limits.io", C::kIo, kBoth, [](L l) { return !l.io.empty(); }},
    {"limits.hugetlb", C::kHugetlb, kBoth,
     [](L l) { return !l.hugetlb.empty(); }},
    {"limits.rdma", C::kRdma, kBoth, [](L l) { return !l.rdma.empty(); }},
    {"limits.misc", C::kMisc, kBoth, [](L l) { return !l.misc.empty(); }},
    {"limits.dmem", C::kDmem, kBoth, [](L l) { return !l.dmem.empty(); }},
    {"limits.net_class", C::kNetCls, kOnlyV1,
     [](L l) { return l.net_class.has_value(); }},
    {"limits.net_priorities", C::kNetPrio, kOnlyV1,
     [](L l) { return !l.net_priorities.empty(); }},
};

}  // namespace

absl::StatusOr<std::optional<CgroupController>> ControllerOfFile(
    absl::string_view file) {
  const absl::string_view prefix = file.substr(0, file.find('.'));
  if (prefix != file && prefix == "cgroup") {
    return std::optional<CgroupController>();
  }
  const auto controller = ControllerByName(prefix);
  if (prefix != file && controller.has_value() &&
      prefix == CgroupControllerName(*controller)) {
    return controller;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("limits.unified[", Quoted(file), "]: ", Quoted(prefix),
                   " is no controller of cgroup v2 that this library knows"));
}

ControllerSet ControllersOf(const CgroupLimits& limits) {
  ControllerSet set;
  for (const Field& field : kFields) {
    if (field.present(limits)) set.set(IndexOf(field.controller));
  }
  for (const auto& [file, value] : limits.unified) {
    const auto controller = ControllerOfFile(file);
    if (controller.ok() && controller->has_value())
      set.set(IndexOf(**controller));
  }
  return set;
}

absl::string_view FieldThatNeeds(const CgroupLimits& limits,
                                 CgroupController controller) {
  for (const Field& field : kFields) {
    if (field.controller == controller && field.present(limits)) {
      return field.name;
    }
  }
  if (controller == CgroupController::kDevices && limits.devices.has_value()) {
    return "limits.devices";
  }
  CgroupLimits unified;
  unified.unified = limits.unified;
  return ControllersOf(unified)[IndexOf(controller)] ? "limits.unified"
                                                     : "controllers";
}

absl::Status CheckVersions(const CgroupLimits& limits,
                           const Versions& versions) {
  const auto error = [&](absl::string_view field, CgroupController controller,
                         int only) {
    return absl::FailedPreconditionError(absl::StrCat(
        field, " exists in cgroup v", only, " only; the ",
        CgroupControllerName(controller, versions[controller]),
        " controller of this host is in a v", 3 - only, " hierarchy"));
  };
  for (const Field& field : kFields) {
    const bool v2 = versions.IsV2(field.controller);
    if (field.where == kBoth || !field.present(limits)) continue;
    if (field.where == kOnlyV2 && !v2)
      return error(field.name, field.controller, 2);
    if (field.where == kOnlyV1 && v2)
      return error(field.name, field.controller, 1);
  }
  for (const auto& [file, value] : limits.unified) {
    ASSIGN_OR_RETURN(const auto controller, ControllerOfFile(file));
    if (controller.has_value() && !versions.IsV2(*controller)) {
      return error(absl::StrCat("limits.unified[", Quoted(file), "]"),
                   *controller, 2);
    }
  }
  return absl::OkStatus();
}

}  // namespace caisson::cgroup
