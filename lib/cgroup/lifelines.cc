#include "lib/cgroup/lifelines.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <sys/file.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "caisson/error.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/cgroup/layout.h"
#include "lib/cgroup/place.h"
#include "lib/sys/open.h"

namespace caisson::cgroup {
namespace {

constexpr absl::string_view kLifelinePrefix = "caisson-lifeline.";
// Whoever can open it can lock it.
constexpr mode_t kMode = 0700;

bool IsGone(const absl::Status& status) {
  const auto detail = GetErrorDetail(status);
  return detail.has_value() && detail->error == ENOENT;
}

// Where the kernel says that the directory is.
absl::StatusOr<std::string> PathOf(BorrowedFd dir) {
  char path[PATH_MAX];
  const ssize_t size = ::readlink(
      absl::StrCat("/proc/self/fd/", dir.get()).c_str(), path, sizeof(path));
  if (size < 0) {
    return ErrnoError(errno, "readlink(/proc/self/fd/N)",
                      {.step = "cgroup.attach"});
  }
  const std::string found(path, static_cast<size_t>(size));
  if (absl::EndsWith(found, " (deleted)")) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the control group ", Quoted(absl::StripSuffix(found, " (deleted)")),
        " was destroyed"));
  }
  return found;
}

absl::StatusOr<CgroupVersion> VersionOf(BorrowedFd dir,
                                        const std::string& path) {
  struct statfs info;
  if (::fstatfs(dir.get(), &info) != 0) {
    return ErrnoError(errno, absl::StrCat("fstatfs(", Quoted(path), ")"),
                      {.step = "cgroup.attach", .path = path});
  }
  if (info.f_type == CGROUP2_SUPER_MAGIC) return CgroupVersion::kV2;
  if (info.f_type == CGROUP_SUPER_MAGIC) return CgroupVersion::kV1;
  return absl::InvalidArgumentError(
      absl::StrCat("Cgroup::Attach: ", Quoted(path), " is no control group"));
}

// The hierarchy that is mounted where `path` is.
absl::StatusOr<const CgroupHierarchy*> HierarchyOf(const CgroupLayout& layout,
                                                   CgroupVersion version,
                                                   const std::string& path) {
  for (const CgroupHierarchy& hierarchy : layout.hierarchies) {
    if (hierarchy.version == version &&
        absl::StartsWith(path, hierarchy.mount_point + "/")) {
      return &hierarchy;
    }
  }
  return absl::FailedPreconditionError(
      absl::StrCat("Cgroup::Attach: ", Quoted(path),
                   " is not below a mount of its hierarchy; this host has ",
                   layout.Summary()));
}

// What can be limited there.
absl::StatusOr<ControllerSet> ControllersIn(const Filesystem& filesystem,
                                            const CgroupHierarchy& hierarchy,
                                            const Dir& dir) {
  ControllerSet controllers;
  if (hierarchy.version == CgroupVersion::kV1) {
    for (const CgroupController controller : hierarchy.controllers) {
      controllers.set(IndexOf(controller));
    }
    return controllers;
  }
  ASSIGN_OR_RETURN(const std::string text,
                   filesystem.Read(dir, "cgroup.controllers"));
  for (const absl::string_view name :
       absl::StrSplit(text, absl::ByAnyChar(" \n"), absl::SkipEmpty())) {
    for (const CgroupController controller : hierarchy.controllers) {
      if (CgroupControllerName(controller) == name) {
        controllers.set(IndexOf(controller));
      }
    }
  }
  return controllers;
}

// A parent cannot become another while its child is open.
absl::Status AddParent(Member& member) {
  const int parent =
      ::openat(member.dir.fd.get(), "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (parent < 0) {
    return ErrnoError(
        errno, absl::StrCat("open(", Quoted(member.dir.path + "/.."), ")"),
        {.step = "cgroup.attach", .path = member.dir.path});
  }
  member.parent = std::make_shared<const UniqueFd>(parent);
  return absl::OkStatus();
}

void SetThreaded(const Filesystem& filesystem, Member& member) {
  if (member.version != CgroupVersion::kV2) return;
  const auto type = filesystem.Read(member.dir, "cgroup.type");
  member.threaded = type.ok() && absl::StartsWith(*type, "threaded");
}

}  // namespace

absl::StatusOr<bool> TryLock(const Dir& dir) {
  if (::flock(dir.fd.get(), LOCK_EX | LOCK_NB) == 0) return true;
  if (errno == EWOULDBLOCK) return false;
  return ErrnoError(errno, absl::StrCat("flock(", Quoted(dir.path), ")"),
                    {.step = "cgroup.recover", .path = dir.path});
}

std::string LifelineName(absl::string_view name) {
  return absl::StrCat(kLifelinePrefix, name);
}

std::optional<std::string> GroupOfLifeline(absl::string_view name) {
  if (!absl::ConsumePrefix(&name, kLifelinePrefix)) return std::nullopt;
  return std::string(name);
}

absl::StatusOr<std::vector<UniqueFd>> LockGroup(const Filesystem& filesystem,
                                                const Group& group) {
  if (group.members().empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("cgroup ", Quoted(group.name()), " was destroyed"));
  }
  const Member& first = group.members().front();
  const std::string name = LifelineName(group.name());
  // Recover() looks for owners, and below them for groups.
  const std::vector<absl::string_view> components =
      absl::StrSplit(first.dir.path, '/');
  if (components.size() < 2 ||
      !IsOwnerName(components[components.size() - 2])) {
    return absl::FailedPreconditionError(absl::StrCat(
        "cgroup ", Quoted(group.path()),
        " is a child of another group, by whose lifelines it is kept, or lies "
        "at a prescribed place, where Recover() does not look"));
  }
  const std::string path =
      absl::StrCat(absl::StripSuffix(first.dir.path, group.name()), name);
  const int error = filesystem.MakeDir(first.parent->borrow(), name, kMode);
  if (error != 0 && error != EEXIST) {
    return ErrnoError(error, absl::StrCat("mkdir(", Quoted(path), ")"),
                      {.step = "cgroup.lifeline", .path = path});
  }
  ASSIGN_OR_RETURN(Dir lock,
                   filesystem.OpenDir(first.parent->borrow(), "", name));
  ASSIGN_OR_RETURN(const bool locked, TryLock(lock));
  if (!locked) {
    return absl::FailedPreconditionError(
        absl::StrCat("the control group ", Quoted(first.dir.path),
                     " has lifelines already"));
  }
  std::vector<UniqueFd> lifelines;
  lifelines.push_back(std::move(lock.fd));
  for (const Member& member : group.members()) {
    ASSIGN_OR_RETURN(UniqueFd copy, sys::Duplicate(member.dir.fd.borrow()));
    lifelines.push_back(std::move(copy));
  }
  return lifelines;
}

absl::StatusOr<std::unique_ptr<Group>> AttachGroup(
    std::vector<UniqueFd> lifelines) {
  const auto filesystem = std::make_shared<Filesystem>();
  auto detected = std::make_shared<DetectedLayout>();
  ASSIGN_OR_RETURN(*detected, DetectLayout(*filesystem));
  std::unique_ptr<Group> group;
  UniqueFd lock;
  for (UniqueFd& lifeline : lifelines) {
    ASSIGN_OR_RETURN(const std::string path, PathOf(lifeline.borrow()));
    const std::string name = path.substr(path.rfind('/') + 1);
    if (GroupOfLifeline(name).has_value()) {
      lock = std::move(lifeline);
      continue;
    }
    ASSIGN_OR_RETURN(const CgroupVersion version,
                     VersionOf(lifeline.borrow(), path));
    ASSIGN_OR_RETURN(const CgroupHierarchy* const hierarchy,
                     HierarchyOf(detected->layout, version, path));
    Member member;
    member.version = version;
    member.hierarchy = hierarchy;
    member.attached = true;
    member.dir = {std::move(lifeline), path};
    RETURN_IF_ERROR(AddParent(member));
    ASSIGN_OR_RETURN(member.controllers,
                     ControllersIn(*filesystem, *hierarchy, member.dir));
    SetThreaded(*filesystem, member);
    const std::string below = path.substr(hierarchy->mount_point.size());
    if (group == nullptr) {
      group = std::make_unique<Group>(
          filesystem, name, Join(hierarchy->mount_root, below.substr(1)),
          detected);
    } else if (group->name() != name) {
      return absl::InvalidArgumentError(
          absl::StrCat("Cgroup::Attach: ", Quoted(group->name()), " and ",
                       Quoted(name), " are not one group"));
    }
    group->Add(std::move(member));
  }
  if (group == nullptr) {
    return absl::InvalidArgumentError("Cgroup::Attach: no lifelines");
  }
  group->HoldLifeline(std::move(lock));
  return group;
}

absl::StatusOr<std::unique_ptr<Group>> AttachGroup(
    const std::string& path, const std::vector<CgroupPath>& paths) {
  const auto filesystem = std::make_shared<Filesystem>();
  auto group = std::make_unique<Group>(
      filesystem, path.substr(path.rfind('/') + 1), path, nullptr);
  for (const CgroupPath& place : paths) {
    auto dir = sys::Open(place.directory, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    if (IsGone(dir.status())) continue;
    RETURN_IF_ERROR(dir.status());
    ASSIGN_OR_RETURN(const CgroupVersion version,
                     VersionOf(dir->borrow(), place.directory));
    if (version != place.version) {
      return absl::InvalidArgumentError(
          absl::StrCat("Cgroup::Attach: ", Quoted(place.directory),
                       " is of the other version of control groups"));
    }
    Member member;
    member.version = version;
    member.attached = true;
    for (const CgroupController controller : place.controllers) {
      member.controllers.set(IndexOf(controller));
    }
    member.dir = {*std::move(dir), place.directory};
    RETURN_IF_ERROR(AddParent(member));
    SetThreaded(*filesystem, member);
    group->Add(std::move(member));
  }
  if (!group->members().empty()) return group;
  return absl::FailedPreconditionError(
      absl::StrCat("the control group ", Quoted(path), " was destroyed"));
}

absl::StatusOr<std::vector<Member>> OpenChild(const Filesystem& filesystem,
                                              const std::vector<Member>& owner,
                                              const std::string& name) {
  std::vector<Member> members;
  for (const Member& above : owner) {
    auto dir = filesystem.OpenDir(above.dir.fd.borrow(), above.dir.path, name);
    if (IsGone(dir.status())) continue;
    RETURN_IF_ERROR(dir.status());
    Member member;
    member.version = above.version;
    member.controllers = above.controllers;
    ASSIGN_OR_RETURN(UniqueFd parent, sys::Duplicate(above.dir.fd.borrow()));
    member.parent = std::make_shared<const UniqueFd>(std::move(parent));
    member.dir = *std::move(dir);
    members.push_back(std::move(member));
  }
  return members;
}

absl::StatusOr<std::set<std::string>> LockedChildren(
    const Filesystem& filesystem, const std::vector<Member>& owner) {
  std::set<std::string> locked;
  for (const Member& above : owner) {
    ASSIGN_OR_RETURN(const std::vector<std::string> names,
                     filesystem.Children(above.dir));
    for (const std::string& name : names) {
      const std::optional<std::string> group = GroupOfLifeline(name);
      if (!group) continue;
      auto dir =
          filesystem.OpenDir(above.dir.fd.borrow(), above.dir.path, name);
      if (IsGone(dir.status())) continue;
      RETURN_IF_ERROR(dir.status());
      ASSIGN_OR_RETURN(const bool free, TryLock(*dir));
      if (!free) locked.insert({name, *group});
    }
  }
  return locked;
}

}  // namespace caisson::cgroup
