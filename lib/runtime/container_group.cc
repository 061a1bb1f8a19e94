#include "lib/runtime/container_group.h"

#include <errno.h>
#include <unistd.h>

#include <algorithm>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "caisson/error.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/cgroup/attach.h"
#include "lib/cgroup/place.h"
#include "lib/spec/runtime_config.h"

namespace caisson::runtime {
namespace {

// Where containers without a `linux.cgroupsPath` live.
constexpr char kDefaultParent[] = "/caisson";

struct Place {
  std::string parent;
  std::string name;
};

Place PlaceOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  return {slash == 0 ? "/" : path.substr(0, slash), path.substr(slash + 1)};
}

void AddDirectory(const CgroupPath& place, ContainerRecord& record) {
  GroupDirectory& directory = *record.add_group();
  directory.set_path(place.directory);
  directory.set_version(place.version == CgroupVersion::kV2 ? 2 : 1);
  for (const CgroupController controller : place.controllers) {
    directory.add_controllers(std::string(CgroupControllerName(controller)));
  }
}

std::vector<CgroupPath> PathsOf(const ContainerRecord& record) {
  std::vector<CgroupPath> paths;
  for (const GroupDirectory& directory : record.group()) {
    CgroupPath& path = paths.emplace_back();
    path.version =
        directory.version() == 2 ? CgroupVersion::kV2 : CgroupVersion::kV1;
    path.directory = directory.path();
    for (int i = 0; i < kCgroupControllerCount; ++i) {
      const auto controller = static_cast<CgroupController>(i);
      const auto& names = directory.controllers();
      if (std::find(names.begin(), names.end(),
                    CgroupControllerName(controller)) != names.end()) {
        path.controllers.push_back(controller);
      }
    }
  }
  return paths;
}

// Where the group will be, so that whoever finds the record finds that.
// ALREADY_EXISTS if something is there: it would be taken for the container's.
absl::Status RememberPlace(const CgroupLayout& layout, const std::string& path,
                           ContainerRecord& record) {
  record.set_group_path(path);
  for (const CgroupPath& place : cgroup::PathsAt(layout, path)) {
    if (::access(place.directory.c_str(), F_OK) == 0) {
      return absl::AlreadyExistsError(absl::StrCat(
          "the control group ", Quoted(place.directory), " exists already"));
    }
    AddDirectory(place, record);
  }
  return absl::OkStatus();
}

// Whether the group is in all directories that were remembered, and no others.
bool IsAsRemembered(const Cgroup& group, const ContainerRecord& record) {
  std::set<std::string> made;
  for (const CgroupPath& path : group.paths()) made.insert(path.directory);
  std::set<std::string> remembered;
  for (const GroupDirectory& one : record.group())
    remembered.insert(one.path());
  return made == remembered;
}

absl::StatusOr<Cgroup> MakeGroupAt(const std::string& path,
                                   const ContainerDirectory& directory,
                                   const Bundle& bundle,
                                   ContainerRecord& record) {
  const Place place = PlaceOf(path);
  ASSIGN_OR_RETURN(
      const CgroupParent parent,
      CgroupParent::Open({.path = place.parent, .prescribed = true}));
  RETURN_IF_ERROR(RememberPlace(parent.layout(), path, record));
  RETURN_IF_ERROR(directory.Write(record));
  CgroupOptions options = {.name = place.name};
  ASSIGN_OR_RETURN(options.limits, bundle.Limits());
  for (int i = 0; i < kCgroupControllerCount; ++i) {
    const auto controller = static_cast<CgroupController>(i);
    if (parent.layout().Find(controller).usable) {
      options.controllers.push_back(controller);
    }
  }
  ASSIGN_OR_RETURN(Cgroup group, parent.Create(options));
  if (IsAsRemembered(group, record)) return group;
  record.clear_group();
  for (const CgroupPath& made : group.paths()) AddDirectory(made, record);
  RETURN_IF_ERROR(directory.Write(record));
  return group;
}

// For limits, beyond rules for devices, of which a user namespace has the
// kernel's; and where the end of the first process is not that of all.
bool NeedsGroup(const spec::RuntimeConfig& config) {
  const auto& resources = config.linux_config.resources;
  const auto& namespaces = config.linux_config.namespaces;
  return (resources &&
          (resources->memory || resources->cpu || resources->pids ||
           resources->block_io || !resources->hugepage_limits.empty() ||
           resources->network || !resources->rdma.empty() ||
           !resources->unified.empty())) ||
         std::none_of(namespaces.begin(), namespaces.end(),
                      [](const spec::NamespaceEntry& one) {
                        return one.type == "pid" && one.path.empty();
                      });
}

// Whether that is why no group was made: neither is this process allowed to,
// nor is there a hierarchy that can be written to.
bool MayMakeNone(const absl::Status& status) {
  const auto detail = GetErrorDetail(status);
  if (detail && detail->error == EROFS) return true;
  if (absl::IsPermissionDenied(status)) return true;
  return absl::IsFailedPrecondition(status) &&
         !CgroupParent::Open({.path = "/", .prescribed = true}).ok();
}

}  // namespace

absl::StatusOr<std::optional<Cgroup>> MakeGroup(
    const ContainerDirectory& directory, const Bundle& bundle,
    ContainerRecord& record) {
  ASSIGN_OR_RETURN(const std::string path, bundle.CgroupsPath());
  auto group = MakeGroupAt(
      path.empty() ? absl::StrCat(kDefaultParent, "/", directory.id()) : path,
      directory, bundle, record);
  if (group.ok()) return std::optional<Cgroup>(*std::move(group));
  if (!MayMakeNone(group.status()) || !path.empty() ||
      NeedsGroup(bundle.config())) {
    return group.status();
  }
  record.clear_group_path();
  record.clear_group();
  RETURN_IF_ERROR(directory.Write(record));
  return std::optional<Cgroup>();
}

absl::StatusOr<Cgroup> OpenGroup(const ContainerRecord& record) {
  if (!record.group_path().empty()) {
    return Cgroup::Attach(record.group_path(), PathsOf(record));
  }
  return absl::NotFoundError(
      absl::StrCat("container ", Quoted(record.id()), " has no control group"));
}

absl::StatusOr<std::optional<Cgroup>> FindGroup(const ContainerRecord& record) {
  if (record.group_path().empty()) return std::optional<Cgroup>();
  auto group = OpenGroup(record);
  if (group.ok()) return std::optional<Cgroup>(*std::move(group));
  const auto detail = GetErrorDetail(group.status());
  // Cgroup::Attach() says that without any call of the kernel that failed.
  const bool gone = detail ? detail->error == ENOENT || detail->error == ENODEV
                           : absl::IsFailedPrecondition(group.status());
  if (gone) return std::optional<Cgroup>();
  return group.status();
}

bool IsFrozen(const ContainerRecord& record) {
  const auto state = cgroup::FreezeState(PathsOf(record));
  return state.ok() && *state != CgroupFreezeState::kThawed;
}

absl::Status RemoveMadeParents(const ContainerRecord& record) {
  return CgroupParent::Recover(
             {.path = PlaceOf(record.group_path()).parent, .prescribed = true})
      .status();
}

}  // namespace caisson::runtime
