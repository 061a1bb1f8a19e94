#include "lib/cgroup/owner.h"

#include <errno.h>

#include <algorithm>
#include <set>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "caisson/error.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/cgroup/devices.h"
#include "lib/cgroup/lifelines.h"

namespace caisson::cgroup {
namespace {

constexpr mode_t kGroupMode = 0755;

// The parent's directory in one hierarchy, for Recover().
struct Site {
  const CgroupHierarchy* hierarchy;
  Dir mount;
  std::string below;
  std::shared_ptr<Dir> parent;
};

// Hierarchies in which `path` exists.
std::vector<Site> FindSites(const Filesystem& filesystem,
                            const DetectedLayout& detected,
                            const std::string& path) {
  std::vector<Site> sites;
  for (size_t i = 0; i < detected.mounts.size(); ++i) {
    const CgroupHierarchy& hierarchy = detected.layout.hierarchies[i];
    if (!hierarchy.writable) continue;
    auto below = PathBelowMount(hierarchy, path);
    auto mount = filesystem.OpenMount(detected.mounts[i]);
    if (!below.ok() || !mount.ok()) continue;
    Site site = {&hierarchy,
                 {*std::move(mount), hierarchy.mount_point},
                 *std::move(below),
                 nullptr};
    auto parent = filesystem.OpenDir(site.mount.fd.borrow(), site.mount.path,
                                     site.below.empty() ? "." : site.below);
    if (!parent.ok()) continue;
    site.parent = std::make_shared<Dir>(*std::move(parent));
    sites.push_back(std::move(site));
  }
  return sites;
}

// The directories called `name`, all of them locked by us; empty if its owner
// is alive or another process is recovering it.
absl::StatusOr<std::vector<Member>> LockDead(const Filesystem& filesystem,
                                             const std::vector<Site>& sites,
                                             const std::string& name) {
  std::vector<Member> members;
  for (const Site& site : sites) {
    auto dir =
        filesystem.OpenDir(site.parent->fd.borrow(), site.parent->path, name);
    if (!dir.ok()) {
      const auto detail = GetErrorDetail(dir.status());
      if (detail.has_value() && detail->error == ENOENT) continue;
      return dir.status();
    }
    ASSIGN_OR_RETURN(const bool locked, TryLock(*dir));
    if (!locked) return std::vector<Member>();
    Member member;
    member.version = site.hierarchy->version;
    for (CgroupController controller : site.hierarchy->controllers) {
      member.controllers.set(IndexOf(controller));
    }
    member.parent = {site.parent, &site.parent->fd};
    member.dir = *std::move(dir);
    members.push_back(std::move(member));
  }
  return members;
}

absl::Status NotOnThisHost(const CgroupLayout& layout,
                           const CgroupOptions& options,
                           CgroupController controller) {
  return absl::FailedPreconditionError(absl::StrCat(
      "cgroup ", Quoted(options.name), ": ",
      FieldThatNeeds(options.limits, controller), " needs the ",
      CgroupControllerName(controller), " controller: ",
      layout.Find(controller).reason, "; this host has ", layout.Summary()));
}

// Kills what is in a group without owner, removes it and adds its path to
// `removed`.
absl::Status RemoveGroup(const Filesystem& filesystem, const std::string& path,
                         std::vector<Member> members, const Deadline& deadline,
                         std::vector<std::string>& removed) {
  // Not owned: `filesystem` outlives the group.
  Group group(std::shared_ptr<const Filesystem>(&filesystem, [](auto*) {}),
              path.substr(path.rfind('/') + 1), path, nullptr);
  for (Member& member : members) group.Add(std::move(member));
  RETURN_IF_ERROR(group.Destroy(deadline));
  removed.push_back(path);
  return absl::OkStatus();
}

// Removes the directory of a dead owner, or, as long as some of its groups are
// locked by others, the rest of its groups.
absl::Status RemoveDead(const Filesystem& filesystem, const std::string& path,
                        std::vector<Member> owner, const Deadline& deadline,
                        std::vector<std::string>& removed) {
  ASSIGN_OR_RETURN(const std::set<std::string> locked,
                   LockedChildren(filesystem, owner));
  if (locked.empty()) {
    return RemoveGroup(filesystem, path, std::move(owner), deadline, removed);
  }
  std::set<std::string> names;
  for (const Member& member : owner) {
    ASSIGN_OR_RETURN(const std::vector<std::string> children,
                     filesystem.Children(member.dir));
    names.insert(children.begin(), children.end());
  }
  absl::Status first_error;
  for (const std::string& name : names) {
    if (locked.count(name) > 0) continue;
    auto members = OpenChild(filesystem, owner, name);
    first_error.Update(members.status());
    if (!members.ok()) continue;
    first_error.Update(RemoveGroup(filesystem, Join(path, name),
                                   *std::move(members), deadline, removed));
  }
  return first_error;
}

}  // namespace

absl::StatusOr<std::shared_ptr<Owner>> Owner::Open(
    const CgroupParentOptions& options,
    std::shared_ptr<const Filesystem> filesystem) {
  RETURN_IF_ERROR(ValidatePath(options.path));
  std::shared_ptr<Owner> owner(new Owner());
  owner->filesystem_ = std::move(filesystem);
  ASSIGN_OR_RETURN(owner->detected_, DetectLayout(*owner->filesystem_));
  const std::vector<CgroupHierarchy>& hierarchies =
      owner->detected_.layout.hierarchies;
  if (std::none_of(hierarchies.begin(), hierarchies.end(),
                   [](const auto& hierarchy) { return hierarchy.writable; })) {
    return absl::FailedPreconditionError(absl::StrCat(
        "no cgroup hierarchy is mounted writable (this host has ",
        owner->detected_.layout.Summary(),
        "): mount one, or inside a container have it mounted writable"));
  }
  DetectDeviceFilter(*owner->filesystem_, owner->detected_.layout);
  owner->parent_path_ = options.path;
  if (options.prescribed) {
    owner->path_ = options.path;
    return owner;
  }
  ASSIGN_OR_RETURN(owner->name_, NewOwnerName());
  owner->path_ = Join(options.path, owner->name_);
  return owner;
}

Owner::~Owner() {
  if (creator_ == ::getpid()) (void)Close();
}

absl::Status Owner::Close() {
  MutexLock lock(&mutex_);
  closed_ = true;
  while (!places_.empty()) {
    RETURN_IF_ERROR(RemovePlace(*filesystem_, *places_.back()));
    places_.pop_back();
  }
  return absl::OkStatus();
}

absl::Status Owner::NeedDevices(const CgroupOptions& options,
                                ControllerSet& wanted) const {
  // A group that joins the controller anyway needs no program.
  if (!wanted[IndexOf(CgroupController::kDevices)]) {
    switch (layout().device_filter) {
      case CgroupLayout::DeviceFilter::kEbpf:
        return absl::OkStatus();
      case CgroupLayout::DeviceFilter::kV1:
        wanted.set(IndexOf(CgroupController::kDevices));
        break;
      case CgroupLayout::DeviceFilter::kNone:
        return absl::FailedPreconditionError(
            absl::StrCat("cgroup ", Quoted(options.name),
                         ": limits.devices: ", layout().device_filter_reason));
    }
  }
  ASSIGN_OR_RETURN(const auto regions, DeviceRegions(*options.limits.devices));
  return DeviceListOf(regions).status();
}

absl::StatusOr<std::vector<Owner::Need>> Owner::NeedsOf(
    const CgroupOptions& options) const {
  const CgroupLayout& layout = detected_.layout;
  ControllerSet wanted = ControllersOf(options.limits);
  for (CgroupController controller : options.controllers) {
    if (IndexOf(controller) >= wanted.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("cgroup ", Quoted(options.name), ": controllers has ",
                       IndexOf(controller), ", which is no controller"));
    }
    wanted.set(IndexOf(controller));
  }
  if (options.limits.devices.has_value()) {
    RETURN_IF_ERROR(NeedDevices(options, wanted));
  }
  std::vector<Need> needs;
  // What kills a group comes first, and so is removed last.
  if (layout.hierarchies[0].version == CgroupVersion::kV2 &&
      layout.hierarchies[0].writable) {
    needs.push_back({0, {}, false});
  } else if (layout.Find(CgroupController::kPids).usable) {
    wanted.set(IndexOf(CgroupController::kPids));
  } else if (layout.Find(CgroupController::kFreezer).usable) {
    wanted.set(IndexOf(CgroupController::kFreezer));
  }
  for (CgroupController controller : ToVector(wanted)) {
    const CgroupControllerInfo& info = layout.Find(controller);
    if (!info.usable) return NotOnThisHost(layout, options, controller);
    const size_t hierarchy = static_cast<size_t>(info.hierarchy);
    auto it = std::find_if(needs.begin(), needs.end(), [&](const Need& need) {
      return need.hierarchy == hierarchy;
    });
    if (it == needs.end())
      it = needs.insert(needs.end(), {hierarchy, {}, false});
    it->controllers.set(IndexOf(controller));
  }
  if (needs.empty()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "cgroup ", Quoted(options.name),
        ": without limits this host offers no hierarchy to make it in: mount "
        "cgroup2, or the v1 pids controller; it has ",
        layout.Summary()));
  }
  for (size_t i = 0; options.named_hierarchies && i < layout.hierarchies.size();
       ++i) {
    const CgroupHierarchy& hierarchy = layout.hierarchies[i];
    if (hierarchy.version == CgroupVersion::kV1 && hierarchy.writable &&
        hierarchy.controllers.empty()) {
      needs.push_back({i, {}, true});
    }
  }
  return needs;
}

absl::StatusOr<std::shared_ptr<const Place>> Owner::Prepare(const Need& need) {
  const CgroupHierarchy& hierarchy =
      detected_.layout.hierarchies[need.hierarchy];
  MutexLock lock(&mutex_);
  if (closed_) {
    return absl::FailedPreconditionError(
        absl::StrCat("cgroup parent ", Quoted(path_), " is closed"));
  }
  auto it = std::find_if(
      places_.begin(), places_.end(),
      [&](const auto& place) { return place->hierarchy == &hierarchy; });
  if (it == places_.end()) {
    ASSIGN_OR_RETURN(Place place, MakePlace(*filesystem_, hierarchy,
                                            detected_.mounts[need.hierarchy],
                                            parent_path_, name_));
    it = places_.insert(places_.end(),
                        std::make_shared<Place>(std::move(place)));
  }
  if (hierarchy.version == CgroupVersion::kV2) {
    RETURN_IF_ERROR(EnableControllers(*filesystem_, need.controllers, **it));
  }
  return *it;
}

void Owner::Forget(const std::shared_ptr<const Place>& place) {
  MutexLock lock(&mutex_);
  places_.erase(std::remove(places_.begin(), places_.end(), place),
                places_.end());
}

absl::StatusOr<Member> Owner::MakeMember(const Need& need,
                                         const std::string& name) {
  for (bool again = true;; again = false) {
    ASSIGN_OR_RETURN(const std::shared_ptr<const Place> place, Prepare(need));
    auto dir = MakeGroupDir(*filesystem_, *place->hierarchy, place->dir, name,
                            kGroupMode);
    if (dir.ok()) {
      return Member{place->hierarchy->version,
                    need.controllers,
                    {place, &place->dir.fd},
                    *std::move(dir),
                    place->hierarchy};
    }
    const auto detail = GetErrorDetail(dir.status());
    if (!again || !detail.has_value() || detail->error != ENOENT) {
      return dir.status();
    }
    Forget(place);
  }
}

absl::StatusOr<std::unique_ptr<Group>> Owner::Create(
    const CgroupOptions& options) {
  RETURN_IF_ERROR(ValidateName(options.name));
  if (options.threaded) {
    return absl::InvalidArgumentError(absl::StrCat(
        "cgroup ", Quoted(options.name),
        ": threaded is for groups inside of a group: Cgroup::CreateChild()"));
  }
  ASSIGN_OR_RETURN(const CgroupLimits limits, ResolveLimits(options.limits));
  ASSIGN_OR_RETURN(const std::vector<Need> needs, NeedsOf(options));
  auto group = std::make_unique<Group>(
      filesystem_, options.name, Join(path_, options.name), shared_from_this());
  absl::Cleanup undo = [&] {
    (void)group->Destroy(Deadline(kCgroupKillTimeout));
  };
  for (const Need& need : needs) {
    auto member = MakeMember(need, options.name);
    if (need.optional && absl::IsPermissionDenied(member.status())) continue;
    RETURN_IF_ERROR(member.status());
    group->Add(*std::move(member));
  }
  RETURN_IF_ERROR(group->SetLimits(limits, Group::LimitMode::kNewGroup));
  std::move(undo).Cancel();
  return group;
}

absl::StatusOr<std::vector<std::string>> Owner::Recover(
    const CgroupParentOptions& options, const Filesystem& filesystem,
    const Deadline& deadline) {
  RETURN_IF_ERROR(ValidatePath(options.path));
  ASSIGN_OR_RETURN(const DetectedLayout detected, DetectLayout(filesystem));
  const std::vector<Site> sites = FindSites(filesystem, detected, options.path);
  std::set<std::string> names;
  absl::Status first_error;
  for (const Site& site : sites) {
    if (options.prescribed) break;
    auto children = filesystem.Children(*site.parent);
    first_error.Update(children.status());
    if (!children.ok()) continue;
    for (std::string& name : *children) {
      if (IsOwnerName(name)) names.insert(std::move(name));
    }
  }
  std::vector<std::string> removed;
  for (const std::string& name : names) {
    const std::string path = Join(options.path, name);
    auto members = LockDead(filesystem, sites, name);
    first_error.Update(members.status());
    if (!members.ok() || members->empty()) continue;
    first_error.Update(
        RemoveDead(filesystem, path, *std::move(members), deadline, removed));
  }
  for (const Site& site : sites) {
    if (!IsMade(site.parent->fd.borrow())) continue;
    RemoveMadeParents(filesystem, site.mount, site.below);
  }
  RETURN_IF_ERROR(first_error);
  return removed;
}

}  // namespace caisson::cgroup
