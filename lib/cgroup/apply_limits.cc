#include "lib/cgroup/apply_limits.h"

#include <errno.h>

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "caisson/error.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/cgroup/devices.h"
#include "lib/cgroup/limits.h"
#include "lib/cgroup/tree.h"
#include "lib/sys/open.h"

namespace caisson::cgroup {
namespace {

class Setter final {
 public:
  Setter(const Filesystem& filesystem, const std::string& name,
         const std::vector<Member>& members,
         std::optional<DeviceListV1>& device_list)
      : filesystem_(filesystem),
        name_(name),
        members_(members),
        device_list_(device_list) {}

  absl::Status Set(const CgroupLimits& asked, Group::LimitMode mode) const;

 private:
  const Member* Find(std::optional<CgroupController> controller) const;
  absl::StatusOr<Versions> FindControllers(const CgroupLimits& limits) const;
  absl::Status ReadV1Memory(Current& current) const;
  absl::Status ReadQuota(bool v2, Current& current) const;
  absl::Status ReadWeights(Current& current) const;
  absl::Status CheckCpuset(const CgroupLimits& limits, Current& current) const;
  absl::StatusOr<Current> ReadCurrent(const CgroupLimits& limits,
                                      const Versions& versions,
                                      Group::LimitMode mode) const;
  absl::Status Write(const LimitWrite& write) const;
  // FAILED_PRECONDITION or INVALID_ARGUMENT before anything is written.
  absl::Status CheckDevices(const CgroupDeviceRules& rules) const;
  absl::Status SetDevices(const CgroupDeviceRules& rules) const;
  absl::StatusOr<DeviceListV1> ReadDevicesV1(const Member& member) const;
  absl::Status SetDevicesV1(const Member& member,
                            const DeviceListV1& wanted) const;
  absl::Status WriteDevicesV1(const Member& member, const DeviceListV1& current,
                              const DeviceListV1& wanted) const;
  // The writes that take `write` back, the last of them first.
  std::vector<LimitWrite> Undo(const LimitWrite& write) const;
  absl::Status TakeBack(const std::vector<LimitWrite>& undo,
                        const absl::Status& why) const;

  const Filesystem& filesystem_;
  const std::string& name_;
  const std::vector<Member>& members_;
  std::optional<DeviceListV1>& device_list_;
};

const Member* Setter::Find(std::optional<CgroupController> controller) const {
  for (const Member& member : members_) {
    if (controller.has_value() ? member.controllers[IndexOf(*controller)]
                               : member.version == CgroupVersion::kV2) {
      return &member;
    }
  }
  return nullptr;
}

absl::StatusOr<Versions> Setter::FindControllers(
    const CgroupLimits& limits) const {
  Versions versions = Versions::All(CgroupVersion::kV2);
  for (CgroupController controller : ToVector(ControllersOf(limits))) {
    const Member* member = Find(controller);
    if (member == nullptr) {
      return MissingController(name_, FieldThatNeeds(limits, controller),
                               controller);
    }
    versions.of[IndexOf(controller)] = member->version;
  }
  if (!limits.unified.empty() && Find(std::nullopt) == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat(
        "cgroup ", Quoted(name_),
        ": limits.unified needs cgroup v2, which this group is not in"));
  }
  RETURN_IF_ERROR(CheckVersions(limits, versions));
  return versions;
}

absl::Status Setter::ReadV1Memory(Current& current) const {
  const Dir& dir = Find(CgroupController::kMemory)->dir;
  ASSIGN_OR_RETURN(const std::string limit,
                   filesystem_.Read(dir, kMemoryLimitV1));
  ASSIGN_OR_RETURN(current.v1_memory, ParseV1Bytes(limit));
  // Missing without swap accounting: then it limits nothing.
  if (auto memsw = filesystem_.Read(dir, kMemswLimitV1); memsw.ok()) {
    ASSIGN_OR_RETURN(current.v1_memsw, ParseV1Bytes(*memsw));
  }
  return absl::OkStatus();
}

absl::Status Setter::ReadQuota(bool v2, Current& current) const {
  const Dir& dir = Find(CgroupController::kCpu)->dir;
  // Missing before Linux 5.14: then there is no burst.
  const auto burst = filesystem_.Read(dir, v2 ? kCpuMaxBurst : kCfsBurstV1);
  bool ok = !burst.ok() || absl::SimpleAtoi(*burst, &current.burst_us);
  if (!v2) {
    ASSIGN_OR_RETURN(const std::string quota,
                     filesystem_.Read(dir, kCfsQuotaV1));
    ASSIGN_OR_RETURN(const std::string period,
                     filesystem_.Read(dir, kCfsPeriodV1));
    ok = ok && absl::SimpleAtoi(quota, &current.quota_us) &&
         absl::SimpleAtoi(period, &current.period_us);
  }
  if (ok) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(dir.path, ": unreadable CPU quota"));
}

absl::Status Setter::ReadWeights(Current& current) const {
  const Member* io = Find(CgroupController::kIo);
  const bool v2 = io->version == CgroupVersion::kV2;
  current.has_io_weight = v2 && filesystem_.Read(io->dir, kIoWeight).ok();
  current.has_bfq_weight =
      filesystem_.Read(io->dir, v2 ? kIoBfqWeight : kBlkioBfqWeightV1).ok();
  if (current.has_io_weight || current.has_bfq_weight) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      io->dir.path,
      " has neither of the files for weights of disks: this "
      "kernel lacks ",
      v2 ? "the cost model (CONFIG_BLK_CGROUP_IOCOST, io.weight) and the BFQ "
           "scheduler's weights (CONFIG_BFQ_GROUP_IOSCHED, io.bfq.weight)"
         : "the BFQ scheduler's weights (CONFIG_BFQ_GROUP_IOSCHED, "
           "blkio.bfq.weight)"));
}

absl::Status Setter::CheckCpuset(const CgroupLimits& limits,
                                 Current& current) const {
  const Member* member = Find(CgroupController::kCpuset);
  if (member->parent == nullptr) return absl::OkStatus();
  ASSIGN_OR_RETURN(UniqueFd fd, sys::Duplicate(member->parent->borrow()));
  const Dir above = {std::move(fd),
                     member->dir.path.substr(0, member->dir.path.rfind('/'))};
  const bool v2 = member->version == CgroupVersion::kV2;
  const auto check = [&](absl::string_view what,
                         const std::optional<std::string>& list,
                         std::string* value) -> absl::Status {
    if (!list.has_value()) return absl::OkStatus();
    auto text =
        filesystem_.Read(above, v2 ? absl::StrCat("cpuset.", what, ".effective")
                                   : absl::StrCat("cpuset.", what));
    if (!text.ok()) return absl::OkStatus();  // the kernel will judge
    *value = std::string(absl::StripAsciiWhitespace(*text));
    ASSIGN_OR_RETURN(const IdRanges has, ParseIdList(what, *value));
    ASSIGN_OR_RETURN(const IdRanges wanted, ParseIdList(what, *list));
    if (has.empty() || IsSubset(wanted, has)) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat(
        "limits.cpuset_", what, " is ", Quoted(*list), "; the group above, ",
        Quoted(above.path), ", has ", Quoted(*value)));
  };
  RETURN_IF_ERROR(check("cpus", limits.cpuset_cpus, &current.v1_parent_cpus));
  return check("mems", limits.cpuset_mems, &current.v1_parent_mems);
}

absl::StatusOr<Current> Setter::ReadCurrent(const CgroupLimits& limits,
                                            const Versions& versions,
                                            Group::LimitMode mode) const {
  Current current;
  const bool restore = mode == Group::LimitMode::kRestoreOnFailure;
  if (restore &&
      (limits.memory_max.has_value() || limits.memory_swap_max.has_value()) &&
      !versions.IsV2(CgroupController::kMemory)) {
    RETURN_IF_ERROR(ReadV1Memory(current));
  }
  if (restore && limits.cpu_quota.has_value()) {
    RETURN_IF_ERROR(ReadQuota(versions.IsV2(CgroupController::kCpu), current));
  }
  bool weights =
      limits.io_weight.has_value() || limits.blkio_weight.has_value();
  for (const CgroupIoLimit& io : limits.io) {
    weights = weights || io.weight.has_value();
  }
  if (weights) RETURN_IF_ERROR(ReadWeights(current));
  if (limits.cpuset_cpus.has_value() || limits.cpuset_mems.has_value()) {
    RETURN_IF_ERROR(CheckCpuset(limits, current));
  }
  return current;
}

absl::Status Setter::Write(const LimitWrite& write) const {
  const Member* member = Find(write.controller);
  const absl::Status status =
      filesystem_.Write(member->dir, write.file, write.value);
  const auto detail = GetErrorDetail(status);
  if (status.ok() || !detail.has_value()) return status;
  const absl::string_view hint = LimitHint(write.file, detail->error);
  if (hint.empty()) return status;
  const std::string path = Join(member->dir.path, write.file);
  return ErrnoError(
      detail->error,
      absl::StrCat("write(", Quoted(path), ", ", Quoted(write.value), ")"),
      {.step = "cgroup.limits", .path = path, .hint = hint});
}

// The line of `text` that begins with the word `key`; else `absent`.
std::string LineOf(absl::string_view text, absl::string_view key,
                   const std::string& absent) {
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    if (absl::StartsWith(line, absl::StrCat(key, " "))) {
      return std::string(line);
    }
  }
  return absent;
}

std::vector<LimitWrite> Setter::Undo(const LimitWrite& write) const {
  const Dir& dir = Find(write.controller)->dir;
  // A file that does not exist fails in Write(), which knows why.
  const auto old = filesystem_.Read(dir, write.file);
  if (!old.ok()) return {};
  const absl::string_view text = absl::StripAsciiWhitespace(*old);
  std::vector<LimitWrite> undo;
  if (!write.also_changes.empty() && text == "0") {
    if (const auto also = filesystem_.Read(dir, write.also_changes);
        also.ok()) {
      undo.push_back({write.controller, write.also_changes,
                      std::string(absl::StripAsciiWhitespace(*also))});
    }
  }
  LimitWrite back = {write.controller, write.file, std::string(text)};
  if (write.file == kOomControlV1) {
    // Reads "oom_kill_disable 1" and wants "1".
    back.value = absl::StrContains(text, "oom_kill_disable 1") ? "1" : "0";
  } else if (!write.key.empty()) {
    back.value = LineOf(text, write.key, write.absent);
  }
  // A write of nothing would not reach the kernel's handler.
  if (back.value.empty()) back.value = "\n";
  undo.push_back(std::move(back));
  return undo;
}

absl::Status Setter::CheckDevices(const CgroupDeviceRules& rules) const {
  ASSIGN_OR_RETURN(const auto regions, DeviceRegions(rules));
  if (Find(CgroupController::kDevices) != nullptr) {
    return DeviceListOf(regions).status();
  }
  if (Find(std::nullopt) != nullptr) return absl::OkStatus();
  return MissingController(name_, "limits.devices", CgroupController::kDevices);
}

absl::Status Setter::SetDevices(const CgroupDeviceRules& rules) const {
  ASSIGN_OR_RETURN(const auto regions, DeviceRegions(rules));
  if (const Member* v1 = Find(CgroupController::kDevices)) {
    ASSIGN_OR_RETURN(const DeviceListV1 wanted, DeviceListOf(regions));
    return SetDevicesV1(*v1, wanted);
  }
  return filesystem_.SetDeviceProgram(Find(std::nullopt)->dir,
                                      DeviceProgram(regions));
}

absl::StatusOr<DeviceListV1> Setter::ReadDevicesV1(const Member& member) const {
  ASSIGN_OR_RETURN(const std::string text,
                   filesystem_.Read(member.dir, kDevicesListV1));
  return ParseDeviceList(text);
}

absl::Status Setter::SetDevicesV1(const Member& member,
                                  const DeviceListV1& wanted) const {
  ASSIGN_OR_RETURN(DeviceListV1 old, ReadDevicesV1(member));
  if (device_list_.has_value()) {
    old = *device_list_;
  } else if (!member.attached) {
    // Its exceptions are the inherited ones, which no write drops.
    old.complete = true;
  }
  const absl::Status status = WriteDevicesV1(member, old, wanted);
  if (status.ok()) {
    device_list_ = wanted;
    return status;
  }
  auto now = ReadDevicesV1(member);
  if (now.ok() && now->allow_by_default && old.complete) {
    // At most these; to take back one that is not there changes nothing.
    now->complete = true;
    for (const DeviceListV1* list : {&std::as_const(old), &wanted}) {
      if (!list->allow_by_default) continue;
      now->exceptions.insert(now->exceptions.end(), list->exceptions.begin(),
                             list->exceptions.end());
    }
  }
  const absl::Status undone =
      now.ok() ? WriteDevicesV1(member, *now, old) : now.status();
  if (undone.ok()) return status;
  if (now.ok()) device_list_ = *now;
  return Annotate(status, absl::StrCat("the device rules stay changed (",
                                       undone.message(), ")"));
}

absl::Status Setter::WriteDevicesV1(const Member& member,
                                    const DeviceListV1& current,
                                    const DeviceListV1& wanted) const {
  if (OpensForAMoment(current, wanted)) {
    ASSIGN_OR_RETURN(const std::vector<pid_t> pids,
                     ListProcesses(filesystem_, member.dir));
    if (!pids.empty()) {
      return absl::FailedPreconditionError(absl::StrCat(
          "limits.devices of ", Quoted(member.dir.path),
          " change to \"allow all but\": the devices controller of cgroup v1 "
          "would allow all devices to the ",
          pids.size(),
          " processes in the group for a moment; set such rules before the "
          "first process starts, or name what is allowed"));
    }
  }
  for (const DeviceWrite& write : PlanDeviceList(current, wanted)) {
    RETURN_IF_ERROR(
        Write({CgroupController::kDevices,
               write.allow ? kDevicesAllowV1 : kDevicesDenyV1, write.text}));
  }
  return absl::OkStatus();
}

absl::Status Setter::TakeBack(const std::vector<LimitWrite>& undo,
                              const absl::Status& why) const {
  absl::Status result = why;
  for (auto it = undo.rbegin(); it != undo.rend(); ++it) {
    if (const absl::Status undone = Write(*it); !undone.ok()) {
      result = Annotate(result, absl::StrCat("earlier limits stay changed (",
                                             undone.message(), ")"));
    }
  }
  return result;
}

absl::Status Setter::Set(const CgroupLimits& asked,
                         Group::LimitMode mode) const {
  ASSIGN_OR_RETURN(const CgroupLimits limits, ResolveLimits(asked));
  ASSIGN_OR_RETURN(const Versions versions, FindControllers(limits));
  if (limits.devices.has_value()) {
    RETURN_IF_ERROR(CheckDevices(*limits.devices));
  }
  ASSIGN_OR_RETURN(const Current current, ReadCurrent(limits, versions, mode));
  ASSIGN_OR_RETURN(const std::vector<LimitWrite> writes,
                   PlanLimits(limits, versions, current));
  std::vector<LimitWrite> undo;
  for (const LimitWrite& write : writes) {
    std::vector<LimitWrite> back;
    if (mode == Group::LimitMode::kRestoreOnFailure) back = Undo(write);
    const absl::Status status = Write(write);
    if (!status.ok()) return TakeBack(undo, status);
    undo.insert(undo.end(), std::make_move_iterator(back.begin()),
                std::make_move_iterator(back.end()));
  }
  // Last: from here on nothing has to take back an eBPF program.
  if (limits.devices.has_value()) {
    if (absl::Status status = SetDevices(*limits.devices); !status.ok()) {
      return TakeBack(undo, status);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ApplyLimits(const Filesystem& filesystem, const std::string& name,
                         const std::vector<Member>& members,
                         const CgroupLimits& limits, Group::LimitMode mode,
                         std::optional<DeviceListV1>& device_list) {
  return Setter(filesystem, name, members, device_list).Set(limits, mode);
}

}  // namespace caisson::cgroup
