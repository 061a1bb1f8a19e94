#include "caisson/cgroup.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "caisson/cgroup_bootstrap.h"
#include "lib/base/deadline.h"
#include "lib/base/status_macros.h"
#include "lib/cgroup/child.h"
#include "lib/cgroup/events.h"
#include "lib/cgroup/filesystem.h"
#include "lib/cgroup/group.h"
#include "lib/cgroup/lifelines.h"
#include "lib/cgroup/move.h"
#include "lib/cgroup/owner.h"
#include "lib/cgroup/place.h"
#include "lib/cgroup/stats.h"
#include "lib/sys/pidfd_open.h"

namespace caisson {

Cgroup::Cgroup(std::unique_ptr<cgroup::Group> group)
    : group_(std::move(group)) {}
Cgroup::Cgroup(Cgroup&&) noexcept = default;

Cgroup& Cgroup::operator=(Cgroup&& other) noexcept {
  if (this != &other) {
    DestroyIfOurs();
    group_ = std::move(other.group_);
  }
  return *this;
}

Cgroup::~Cgroup() { DestroyIfOurs(); }

void Cgroup::DestroyIfOurs() {
  if (group_ != nullptr && group_->IsOurs()) (void)Destroy();
}

const std::string& Cgroup::name() const { return group_->name(); }
const std::string& Cgroup::path() const { return group_->path(); }

std::vector<CgroupPath> Cgroup::paths() const {
  std::vector<CgroupPath> paths;
  for (const cgroup::Member& member : group_->members()) {
    paths.push_back(
        {member.version, cgroup::ToVector(member.controllers), member.dir.path,
         member.version == CgroupVersion::kV2 && group_->WasKilled()});
  }
  return paths;
}

std::vector<CgroupV1Directory> Cgroup::v1_directories() const {
  std::vector<CgroupV1Directory> directories;
  for (const cgroup::Member& member : group_->members()) {
    if (member.version != CgroupVersion::kV1 || member.hierarchy == nullptr) {
      continue;
    }
    CgroupV1Directory& directory = directories.emplace_back();
    directory.directory = member.dir.fd.borrow();
    directory.hierarchy = member.hierarchy->name;
    for (const CgroupController controller : member.hierarchy->controllers) {
      directory.controllers.emplace_back(
          CgroupControllerName(controller, CgroupVersion::kV1));
    }
    if (directory.hierarchy.empty()) {
      directory.hierarchy = absl::StrJoin(directory.controllers, ",");
    }
  }
  return directories;
}

absl::StatusOr<CgroupEntry> Cgroup::OpenEntry() const {
  return group_->OpenEntry();
}

absl::Status Cgroup::SetLimits(const CgroupLimits& limits) {
  return group_->SetLimits(limits, cgroup::Group::LimitMode::kRestoreOnFailure);
}

absl::StatusOr<Cgroup> Cgroup::CreateChild(const CgroupOptions& options) const {
  ASSIGN_OR_RETURN(std::unique_ptr<cgroup::Group> group,
                   cgroup::CreateChild(*group_, options));
  return Cgroup(std::move(group));
}

absl::Status Cgroup::Delegate(uid_t user, gid_t group) const {
  return cgroup::Delegate(*group_, user, group);
}

absl::StatusOr<CgroupStatsReader> Cgroup::OpenStats() const {
  RETURN_IF_ERROR(group_->CheckExists());
  ASSIGN_OR_RETURN(
      std::unique_ptr<cgroup::StatsFiles> files,
      cgroup::StatsFiles::Open(group_->filesystem(), group_->members()));
  return CgroupStatsReader(std::move(files));
}

absl::StatusOr<CgroupEvents> Cgroup::Watch(
    const CgroupWatchOptions& options) const {
  ASSIGN_OR_RETURN(std::unique_ptr<cgroup::EventSource> source,
                   cgroup::OpenWatch(*group_, options));
  return CgroupEvents(std::move(source));
}

absl::StatusOr<CgroupEvents> Cgroup::WatchPressure(
    const CgroupPressureTrigger& trigger) const {
  ASSIGN_OR_RETURN(std::unique_ptr<cgroup::EventSource> source,
                   cgroup::OpenPressure(*group_, trigger));
  return CgroupEvents(std::move(source));
}

absl::StatusOr<int64_t> Cgroup::OomKills() const { return group_->OomKills(); }

absl::StatusOr<std::vector<pid_t>> Cgroup::Processes() const {
  return group_->Processes();
}

absl::StatusOr<std::vector<pid_t>> Cgroup::Threads() const {
  return group_->Threads();
}

absl::Status Cgroup::MoveIn(BorrowedFd pidfd) const {
  RETURN_IF_ERROR(group_->CheckHasProcesses("MoveIn()"));
  return cgroup::MoveProcess(*group_->filesystem(), group_->members(), pidfd);
}

absl::Status Cgroup::MoveIn(pid_t pid) const {
  if (pid <= 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("MoveIn(", pid, "): want a PID, more than 0"));
  }
  RETURN_IF_ERROR(group_->CheckExists());
  ASSIGN_OR_RETURN(const UniqueFd pidfd, sys::OpenPidfd(pid));
  return MoveIn(pidfd.borrow());
}

absl::Status Cgroup::Freeze(absl::Duration timeout) const {
  return group_->Freeze(Deadline(timeout));
}

absl::Status Cgroup::Thaw(absl::Duration timeout) const {
  return group_->Thaw(Deadline(timeout));
}

absl::StatusOr<CgroupFreezeState> Cgroup::FreezeState() const {
  return group_->FreezeState();
}

absl::Status Cgroup::Signal(int signal, absl::Duration timeout) const {
  return group_->Signal(signal, Deadline(timeout));
}

absl::Status Cgroup::Kill(absl::Duration timeout) const {
  return group_->Kill(Deadline(timeout));
}

absl::Status Cgroup::Destroy(absl::Duration timeout) {
  return group_->Destroy(Deadline(timeout));
}

absl::StatusOr<std::vector<UniqueFd>> Cgroup::Lifelines() const {
  return group_->Lifelines();
}

void Cgroup::Disown() { group_->Disown(); }

absl::StatusOr<Cgroup> Cgroup::Attach(std::vector<UniqueFd> lifelines) {
  ASSIGN_OR_RETURN(std::unique_ptr<cgroup::Group> group,
                   cgroup::AttachGroup(std::move(lifelines)));
  group->Disown();
  return Cgroup(std::move(group));
}

absl::StatusOr<Cgroup> Cgroup::Attach(const std::string& path,
                                      const std::vector<CgroupPath>& paths) {
  ASSIGN_OR_RETURN(std::unique_ptr<cgroup::Group> group,
                   cgroup::AttachGroup(path, paths));
  group->Disown();
  return Cgroup(std::move(group));
}

bool Cgroup::IsBelowMadeDirectory() const {
  const std::vector<cgroup::Member>& members = group_->members();
  return std::any_of(members.begin(), members.end(),
                     [](const cgroup::Member& member) {
                       return cgroup::IsMade(member.parent->borrow());
                     });
}

absl::StatusOr<CgroupParent> CgroupParent::Open(
    const CgroupParentOptions& options) {
  ASSIGN_OR_RETURN(
      std::shared_ptr<cgroup::Owner> owner,
      cgroup::Owner::Open(options, std::make_shared<cgroup::Filesystem>()));
  return CgroupParent(std::move(owner));
}

absl::StatusOr<std::vector<std::string>> CgroupParent::Recover(
    const CgroupParentOptions& options, absl::Duration timeout) {
  return cgroup::Owner::Recover(options, cgroup::Filesystem(),
                                Deadline(timeout));
}

CgroupParent::CgroupParent(std::shared_ptr<cgroup::Owner> owner)
    : owner_(std::move(owner)) {}
CgroupParent::CgroupParent(CgroupParent&&) noexcept = default;
CgroupParent& CgroupParent::operator=(CgroupParent&&) noexcept = default;
CgroupParent::~CgroupParent() = default;

absl::StatusOr<Cgroup> CgroupParent::Create(
    const CgroupOptions& options) const {
  ASSIGN_OR_RETURN(std::unique_ptr<cgroup::Group> group,
                   owner_->Create(options));
  return Cgroup(std::move(group));
}

absl::StatusOr<std::string> CgroupParent::FindGroupOf(pid_t pid) const {
  ASSIGN_OR_RETURN(const std::vector<CgroupMembership> memberships,
                   CgroupMembershipsOf(pid));
  for (const CgroupMembership& membership : memberships) {
    absl::string_view rest = membership.path;
    if (absl::ConsumePrefix(&rest, absl::StrCat(owner_->path(), "/"))) {
      return std::string(rest.substr(0, rest.find('/')));
    }
  }
  return absl::NotFoundError(
      absl::StrCat("process ", pid, " is in no group below ", owner_->path()));
}

absl::Status CgroupParent::Close() { return owner_->Close(); }
const std::string& CgroupParent::path() const { return owner_->path(); }
const CgroupLayout& CgroupParent::layout() const { return owner_->layout(); }

}  // namespace caisson
