#include "lib/cgroup/group.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "caisson/error.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/cgroup/apply_limits.h"
#include "lib/cgroup/freeze.h"
#include "lib/cgroup/kill.h"
#include "lib/cgroup/lifelines.h"
#include "lib/cgroup/place.h"
#include "lib/cgroup/tree.h"
#include "lib/sys/open.h"

namespace caisson::cgroup {
namespace {

// What a freeze may take before signals are sent anyway.
constexpr absl::Duration kMaxFreeze = absl::Milliseconds(200);

bool IsBusy(const absl::Status& status) {
  const auto detail = GetErrorDetail(status);
  return detail.has_value() && detail->error == EBUSY;
}

absl::Status Destroyed(const std::string& name) {
  return absl::FailedPreconditionError(
      absl::StrCat("cgroup ", Quoted(name), " was destroyed"));
}

}  // namespace

absl::Status MissingController(const std::string& name, absl::string_view field,
                               CgroupController controller) {
  return absl::FailedPreconditionError(absl::StrCat(
      "cgroup ", Quoted(name), ": ", field, " needs the ",
      CgroupControllerName(controller),
      " controller, which this group was created without; name it in "
      "CgroupOptions::controllers"));
}

const Member* Group::Find(CgroupController controller) const {
  for (const Member& member : members_) {
    if (member.controllers[IndexOf(controller)]) return &member;
  }
  return nullptr;
}

absl::Status Group::CheckExists() const {
  return members_.empty() ? Destroyed(name_) : absl::OkStatus();
}

absl::Status Group::CheckHasProcesses(absl::string_view operation) const {
  RETURN_IF_ERROR(CheckExists());
  const Member* v2 = FindV2();
  if (v2 == nullptr || !v2->threaded) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "cgroup ", Quoted(name_), ": ", operation,
      " is of processes and the group is threaded: processes are in the group "
      "above it, and their threads come here by ",
      Quoted(Join(v2->dir.path, "cgroup.threads"))));
}

const Member* Group::FindV2() const {
  for (const Member& member : members_) {
    if (member.version == CgroupVersion::kV2) return &member;
  }
  return nullptr;
}

const Member* Group::FindFreezerV1() const {
  const Member* member = Find(CgroupController::kFreezer);
  return member == nullptr || member->version == CgroupVersion::kV2 ? nullptr
                                                                    : member;
}

bool Group::WasKilled() const {
  for (const KillMark* mark = mark_.get(); mark != nullptr;
       mark = mark->above.get()) {
    if (mark->killed) return true;
  }
  // Its owner may have killed it, and no file tells.
  const Member* v2 = FindV2();
  return v2 != nullptr && v2->attached;
}

absl::StatusOr<CgroupEntry> Group::OpenEntry() const {
  RETURN_IF_ERROR(CheckHasProcesses("OpenEntry()"));
  CgroupEntry entry;
  const bool killed = WasKilled();
  for (const Member& member : members_) {
    const bool v2 = member.version == CgroupVersion::kV2;
    if (v2 && !killed) {
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

absl::Status Group::SetLimits(const CgroupLimits& limits, LimitMode mode) {
  if (members_.empty()) return Destroyed(name_);
  return ApplyLimits(*filesystem_, name_, members_, limits, mode, device_list_);
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
  RETURN_IF_ERROR(CheckHasProcesses("Processes()"));
  return ListProcesses(*filesystem_, members_.front().dir);
}

absl::StatusOr<std::vector<pid_t>> Group::Threads() const {
  if (members_.empty()) return Destroyed(name_);
  const Member& member = members_.front();
  return ListThreads(*filesystem_, member.version, member.dir);
}

absl::Status Group::Freeze(const Deadline& deadline) const {
  if (members_.empty()) return Destroyed(name_);
  const Member* member = FindV2();
  if (member == nullptr) member = FindFreezerV1();
  if (member == nullptr) {
    return MissingController(name_, "Freeze() on cgroup v1",
                             CgroupController::kFreezer);
  }
  return FreezeGroup(*filesystem_, member->version, member->dir, deadline);
}

absl::Status Group::Thaw(const Deadline& deadline) const {
  if (members_.empty()) return Destroyed(name_);
  absl::Status status;
  for (const Member* member : {FindV2(), FindFreezerV1()}) {
    if (member == nullptr) continue;
    status.Update(
        ThawGroup(*filesystem_, member->version, member->dir, deadline));
  }
  return status;
}

absl::StatusOr<CgroupFreezeState> Group::FreezeState() const {
  if (members_.empty()) return Destroyed(name_);
  CgroupFreezeState most = CgroupFreezeState::kThawed;
  for (const Member* member : {FindV2(), FindFreezerV1()}) {
    if (member == nullptr) continue;
    ASSIGN_OR_RETURN(const CgroupFreezeState state,
                     FreezeStateOf(*filesystem_, member->version, member->dir,
                                   GroupsAbove::kLook));
    most = std::max(most, state);
  }
  return most;
}

absl::Status Group::Signal(int signal, const Deadline& deadline) const {
  RETURN_IF_ERROR(CheckHasProcesses("Signal()"));
  if (signal == SIGKILL) return Kill(deadline);
  ASSIGN_OR_RETURN(const CgroupFreezeState state, FreezeState());
  // Best effort: v1 may have no freezer, and what sleeps uninterruptibly does
  // not fork either.
  const bool freeze = state == CgroupFreezeState::kThawed;
  if (freeze) (void)Freeze(Deadline(std::min(kMaxFreeze, deadline.timeout())));
  absl::Status status =
      SignalListed(*filesystem_, members_.front().dir, signal);
  if (!freeze) return status;
  const absl::Status thawed = Thaw(deadline);
  // A group above was frozen meanwhile: that is its owner's affair.
  if (!absl::IsFailedPrecondition(thawed)) status.Update(thawed);
  return status;
}

absl::Status Group::Kill(const Deadline& deadline) const {
  ForkBarrier barrier;
  const Member* pids = Find(CgroupController::kPids);
  if (pids != nullptr && pids->version == CgroupVersion::kV1) {
    barrier.pids = &pids->dir;
  }
  if (const Member* freezer = FindFreezerV1()) barrier.freezer = &freezer->dir;
  for (const Member& member : members_) {
    if (member.version == CgroupVersion::kV2) {
      // The kernel compares the kill_seq of the parent's group with that of the
      // child's: they stay different, in the groups below, too
      // (kernel/cgroup/cgroup.c, cgroup_css_set_fork(), cgroup_post_fork() and
      // cgroup_kill()).
      mark_->killed = true;
      RETURN_IF_ERROR(KillUnified(*filesystem_, member.dir, barrier, deadline));
    } else {
      RETURN_IF_ERROR(KillListed(*filesystem_, member.dir, barrier, deadline));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<UniqueFd>> Group::Lifelines() const {
  return LockGroup(*filesystem_, *this);
}

absl::Status Group::RemoveMembers() {
  while (!members_.empty()) {
    const Member& member = members_.back();
    // Others may have attached to a group that was disowned, and destroyed it:
    // the name may be another group's by now.
    const bool gone =
        disowned_ && !StillThere(member.parent->borrow(), name_, member.dir);
    const int error =
        gone ? ENOENT : filesystem_->RemoveDir(member.parent->borrow(), name_);
    if (error != 0 && error != ENOENT) {
      return ErrnoError(error,
                        absl::StrCat("rmdir(", Quoted(member.dir.path), ")"),
                        {.step = "cgroup.destroy", .path = member.dir.path});
    }
    // Beside the first: its lifeline, if it has one.
    if (members_.size() == 1 && !gone) {
      filesystem_->RemoveDir(member.parent->borrow(), LifelineName(name_));
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
