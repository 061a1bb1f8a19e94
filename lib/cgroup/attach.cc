#include "lib/cgroup/attach.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "caisson/error.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/cgroup/filesystem.h"
#include "lib/cgroup/freeze.h"
#include "lib/cgroup/group.h"
#include "lib/cgroup/layout.h"
#include "lib/sys/open.h"

namespace caisson::cgroup {
namespace {

bool IsMissing(const absl::Status& status) {
  const auto detail = GetErrorDetail(status);
  return detail && detail->error == ENOENT;
}

absl::Status Gone(const absl::Status& status) {
  const auto detail = GetErrorDetail(status);
  if (!detail || (detail->error != ENOENT && detail->error != ENODEV)) {
    return status;
  }
  return absl::FailedPreconditionError(absl::StrCat(
      "the control group ", Quoted(detail->path), " was destroyed"));
}

absl::StatusOr<Dir> OpenGroup(const CgroupPath& place) {
  auto fd = sys::Open(place.directory, O_PATH | O_DIRECTORY | O_NOFOLLOW);
  if (!fd.ok()) return Gone(fd.status());
  return Dir{*std::move(fd), place.directory};
}

bool Has(const CgroupPath& place, CgroupController controller) {
  for (const CgroupController c : place.controllers) {
    if (c == controller) return true;
  }
  return false;
}

}  // namespace

absl::StatusOr<std::vector<CgroupPath>> PathsOf(pid_t pid) {
  ASSIGN_OR_RETURN(const DetectedLayout detected,
                   DetectLayout(Filesystem(), absl::StrCat(pid)));
  std::vector<CgroupPath> group;
  for (const CgroupHierarchy& hierarchy : detected.layout.hierarchies) {
    if (!hierarchy.writable) continue;
    const auto below = PathBelowMount(hierarchy, hierarchy.own_path);
    if (!below.ok()) continue;
    group.push_back(
        {.version = hierarchy.version,
         .controllers = hierarchy.controllers,
         .directory = absl::StrCat(hierarchy.mount_point, "/", *below)});
  }
  return group;
}

namespace {

// Whether what the caller starts is in that group anyhow, and it could not move
// there: root of a user namespace in groups that were not given to it.
bool IsInIt(const CgroupPath& place, const Dir& dir) {
  if (::faccessat(dir.fd.get(), "cgroup.procs", W_OK, AT_EACCESS) == 0) {
    return false;
  }
  const auto own = PathsOf(::getpid());
  return own.ok() && std::any_of(own->begin(), own->end(),
                                 [&place](const CgroupPath& path) {
                                   return path.directory == place.directory;
                                 });
}

// Of one directory; the root of a hierarchy, and what freezes nothing, is
// thawed.
absl::StatusOr<CgroupFreezeState> StateOf(const CgroupPath& place,
                                          GroupsAbove above) {
  if (place.version == CgroupVersion::kV1 &&
      !Has(place, CgroupController::kFreezer)) {
    return CgroupFreezeState::kThawed;
  }
  ASSIGN_OR_RETURN(const Dir dir, OpenGroup(place));
  const auto state = FreezeStateOf(Filesystem(), place.version, dir, above);
  if (IsMissing(state.status())) return CgroupFreezeState::kThawed;
  return state;
}

}  // namespace

absl::StatusOr<CgroupEntry> OpenEntry(const std::vector<CgroupPath>& group) {
  const Filesystem filesystem;
  CgroupEntry entry;
  for (const CgroupPath& place : group) {
    ASSIGN_OR_RETURN(Dir dir, OpenGroup(place));
    if (IsInIt(place, dir)) continue;
    const bool v2 = place.version == CgroupVersion::kV2;
    if (v2 && !place.killed) {
      // Moving there by cgroup.procs would wait for an RCU grace period.
      entry.v2_directory = std::move(dir.fd);
      continue;
    }
    auto file =
        filesystem.OpenFile(dir, v2 ? "cgroup.procs" : "tasks", O_WRONLY);
    if (!file.ok()) return Gone(file.status());
    entry.join_files.push_back(*std::move(file));
  }
  return entry;
}

absl::StatusOr<CgroupFreezeState> FreezeState(
    const std::vector<CgroupPath>& group) {
  CgroupFreezeState most = CgroupFreezeState::kThawed;
  for (const CgroupPath& place : group) {
    ASSIGN_OR_RETURN(const CgroupFreezeState state,
                     StateOf(place, GroupsAbove::kLook));
    most = std::max(most, state);
  }
  return most;
}

absl::Status CheckNotFrozen(const std::vector<CgroupPath>& group) {
  for (const CgroupPath& place : group) {
    // In the way of every Launcher::Exec(), so no more than what is cheap.
    const auto state = StateOf(place, GroupsAbove::kSkip);
    RETURN_IF_ERROR(state.status());
    if (*state == CgroupFreezeState::kThawed) continue;
    return absl::FailedPreconditionError(
        absl::StrCat("the control group ", Quoted(place.directory),
                     " is frozen: the container is paused"));
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> OomKills(const std::vector<CgroupPath>& group) {
  Group attached(std::make_shared<Filesystem>(), "", "", nullptr);
  for (const CgroupPath& place : group) {
    if (!Has(place, CgroupController::kMemory)) continue;
    Member member;
    member.version = place.version;
    member.controllers[IndexOf(CgroupController::kMemory)] = true;
    ASSIGN_OR_RETURN(member.dir, OpenGroup(place));
    attached.Add(std::move(member));
    return attached.OomKills();
  }
  return absl::FailedPreconditionError(
      "the control group does not have the memory controller");
}

}  // namespace caisson::cgroup
