#include "lib/cgroup/group.h"

#include <errno.h>
#include <fcntl.h>

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "caisson/error.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/cgroup/kill.h"
#include "lib/cgroup/tree.h"
#include "lib/sys/open.h"

namespace caisson::cgroup {
namespace {

bool IsBusy(const absl::Status& status) {
  const auto detail = GetErrorDetail(status);
  return detail.has_value() && detail->error == EBUSY;
}

absl::Status Destroyed(const std::string& name) {
  return absl::FailedPreconditionError(
      absl::StrCat("cgroup ", Quoted(name), " was destroyed"));
}

absl::Status MissingController(const std::string& name, absl::string_view field,
                               CgroupController controller) {
  return absl::FailedPreconditionError(absl::StrCat(
      "cgroup ", Quoted(name), ": ", field, " needs the ",
      CgroupControllerName(controller),
      " controller, which this group was created without; name it in "
      "CgroupOptions::controllers"));
}

}  // namespace

const Member* Group::Find(CgroupController controller) const {
  for (const Member& member : members_) {
    if (member.controllers[IndexOf(controller)]) return &member;
  }
  return nullptr;
}

absl::StatusOr<CgroupEntry> Group::OpenEntry() const {
  if (members_.empty()) return Destroyed(name_);
  CgroupEntry entry;
  for (const Member& member : members_) {
    const bool v2 = member.version == CgroupVersion::kV2;
    if (v2 && !killed_) {
      ASSIGN_OR_RETURN(entry.v2_directory,
                       sys::Duplicate(member.dir.fd.borrow()));
      continue;
    }
    ASSIGN_OR_RETURN(UniqueFd file,
                     filesystem_->OpenFile(
                         member.dir, v2 ? "cgroup.procs" : "tasks", O_WRONLY));
    entry.join_files.push_back(std::move(file));
  }
  return entry;
}

absl::Status Group::Write(const LimitWrite& write) const {
  const Member* member = Find(write.controller);
  const absl::Status status =
      filesystem_->Write(member->dir, write.file, write.value);
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

// What the planning of v1 writes has to know; defaults where it does not
// matter.
absl::StatusOr<CurrentV1> Group::ReadCurrent(const CgroupLimits& limits) const {
  CurrentV1 current;
  const Member* memory = Find(CgroupController::kMemory);
  if (memory != nullptr && memory->version == CgroupVersion::kV1 &&
      (limits.memory_max.has_value() || limits.memory_swap_max.has_value())) {
    ASSIGN_OR_RETURN(const std::string limit,
                     filesystem_->Read(memory->dir, kMemoryLimitV1));
    ASSIGN_OR_RETURN(current.memory, ParseV1Bytes(limit));
    // Missing without swap accounting: then it limits nothing.
    if (auto memsw = filesystem_->Read(memory->dir, kMemswLimitV1);
        memsw.ok()) {
      ASSIGN_OR_RETURN(current.memsw, ParseV1Bytes(*memsw));
    }
  }
  const Member* cpu = Find(CgroupController::kCpu);
  if (cpu != nullptr && cpu->version == CgroupVersion::kV1 &&
      limits.cpu_quota.has_value()) {
    ASSIGN_OR_RETURN(const std::string quota,
                     filesystem_->Read(cpu->dir, kCfsQuotaV1));
    ASSIGN_OR_RETURN(const std::string period,
                     filesystem_->Read(cpu->dir, kCfsPeriodV1));
    if (!absl::SimpleAtoi(quota, &current.quota_us) ||
        !absl::SimpleAtoi(period, &current.period_us)) {
      return absl::InternalError(
          absl::StrCat(cpu->dir.path, ": unreadable CPU quota"));
    }
  }
  return current;
}

absl::Status Group::SetLimits(const CgroupLimits& limits,
                              LimitMode mode) const {
  if (members_.empty()) return Destroyed(name_);
  RETURN_IF_ERROR(ValidateLimits(limits));
  Versions versions;
  for (CgroupController controller : ToVector(ControllersOf(limits))) {
    const Member* member = Find(controller);
    if (member == nullptr) {
      return MissingController(name_, FieldThatNeeds(limits, controller),
                               controller);
    }
    if (controller == CgroupController::kCpu) versions.cpu = member->version;
    if (controller == CgroupController::kMemory) {
      versions.memory = member->version;
    }
  }
  CurrentV1 current;
  if (mode == LimitMode::kRestoreOnFailure) {
    ASSIGN_OR_RETURN(current, ReadCurrent(limits));
  }
  ASSIGN_OR_RETURN(const std::vector<LimitWrite> writes,
                   PlanLimits(limits, versions, current));
  std::vector<LimitWrite> undo;
  for (const LimitWrite& write : writes) {
    absl::StatusOr<std::string> old = std::string();
    if (mode == LimitMode::kRestoreOnFailure) {
      // A file that does not exist fails in Write(), which knows why.
      old = filesystem_->Read(Find(write.controller)->dir, write.file);
    }
    const absl::Status status = Write(write);
    if (!status.ok()) return TakeBack(undo, status);
    if (mode == LimitMode::kRestoreOnFailure && old.ok()) {
      undo.push_back({write.controller, write.file,
                      std::string(absl::StripSuffix(*old, "\n"))});
    }
  }
  return absl::OkStatus();
}

absl::Status Group::TakeBack(const std::vector<LimitWrite>& undo,
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

absl::StatusOr<int64_t> Group::OomKills() const {
  const Member* memory = Find(CgroupController::kMemory);
  if (members_.empty()) return Destroyed(name_);
  if (memory == nullptr) {
    return MissingController(name_, "OomKills()", CgroupController::kMemory);
  }
  if (memory->version == CgroupVersion::kV2) {
    ASSIGN_OR_RETURN(const std::string events,
                     filesystem_->Read(memory->dir, kMemoryEvents));
    return FlatKeyedValue(events, "oom_kill");
  }
  int64_t kills = 0;
  RETURN_IF_ERROR(WalkTree(
      *filesystem_, memory->dir,
      [&](const Dir& dir) -> absl::Status {
        ASSIGN_OR_RETURN(const std::string control,
                         filesystem_->Read(dir, kOomControlV1));
        ASSIGN_OR_RETURN(const int64_t here,
                         FlatKeyedValue(control, "oom_kill"));
        kills += here;
        return absl::OkStatus();
      },
      nullptr));
  return kills;
}

absl::StatusOr<std::vector<pid_t>> Group::Processes() const {
  if (members_.empty()) return Destroyed(name_);
  return ListProcesses(*filesystem_, members_.front().dir);
}

absl::Status Group::Kill(const Deadline& deadline) const {
  ForkBarrier barrier;
  for (const Member& member : members_) {
    if (member.version != CgroupVersion::kV1) continue;
    if (member.controllers[IndexOf(CgroupController::kPids)]) {
      barrier.pids = &member.dir;
    }
    if (member.controllers[IndexOf(CgroupController::kFreezer)]) {
      barrier.freezer = &member.dir;
    }
  }
  for (const Member& member : members_) {
    if (member.version == CgroupVersion::kV2) {
      // The kernel compares the kill_seq of the parent's group with that of the
      // child's: they stay different (kernel/cgroup/cgroup.c,
      // cgroup_css_set_fork() and cgroup_post_fork()).
      killed_ = true;
      RETURN_IF_ERROR(KillUnified(*filesystem_, member.dir, deadline));
    } else {
      RETURN_IF_ERROR(KillListed(*filesystem_, member.dir, barrier, deadline));
    }
  }
  return absl::OkStatus();
}

absl::Status Group::RemoveMembers() {
  while (!members_.empty()) {
    const Member& member = members_.back();
    const int error = filesystem_->RemoveDir(member.parent->borrow(), name_);
    if (error != 0 && error != ENOENT) {
      return ErrnoError(error,
                        absl::StrCat("rmdir(", Quoted(member.dir.path), ")"),
                        {.step = "cgroup.destroy", .path = member.dir.path});
    }
    members_.pop_back();
  }
  return absl::OkStatus();
}

absl::Status Group::Destroy(const Deadline& deadline) {
  // Mostly the processes have ended and there are no descendants.
  absl::Status status = RemoveMembers();
  while (IsBusy(status)) {
    RETURN_IF_ERROR(Kill(deadline));
    for (const Member& member : members_) {
      RETURN_IF_ERROR(RemoveDescendants(*filesystem_, member.dir));
    }
    status = RemoveMembers();
    if (!IsBusy(status) || deadline.expired()) break;
    // v1 may hold the directory for a moment after the last process has ended,
    // without an event; and somebody may still be putting processes here.
    deadline.Poll({}, absl::Milliseconds(1));
  }
  return status;
}

}  // namespace caisson::cgroup
