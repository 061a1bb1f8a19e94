#include "lib/cgroup/child.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "caisson/error.h"
#include "lib/base/deadline.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/cgroup/devices.h"
#include "lib/cgroup/layout.h"
#include "lib/cgroup/limits.h"
#include "lib/cgroup/place.h"
#include "lib/sys/open.h"

namespace caisson::cgroup {
namespace {

constexpr mode_t kGroupMode = 0755;

// /sys/kernel/cgroup/delegate names more: memory.oom.group and memory.reclaim,
// by which the new owner would decide what becomes of the group as a whole.
// Last the directory: then the new owner may make groups.
constexpr const char* kDelegated[] = {"cgroup.procs", "cgroup.threads",
                                      "cgroup.subtree_control", "."};

absl::StatusOr<ControllerSet> WantedBy(const Group& parent,
                                       const CgroupOptions& options) {
  ControllerSet wanted = ControllersOf(options.limits);
  for (const CgroupController controller : options.controllers) {
    if (IndexOf(controller) >= wanted.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("cgroup ", Quoted(options.name), ": controllers has ",
                       IndexOf(controller), ", which is no controller"));
    }
    wanted.set(IndexOf(controller));
  }
  for (const CgroupController controller : ToVector(wanted)) {
    bool found = false;
    for (const Member& member : parent.members()) {
      found = found || member.controllers[IndexOf(controller)];
    }
    if (!found) {
      return MissingController(parent.name(),
                               FieldThatNeeds(options.limits, controller),
                               controller);
    }
  }
  return wanted;
}

absl::Status MakeThreaded(const Filesystem& filesystem, const Dir& dir) {
  const absl::Status status = filesystem.Write(dir, "cgroup.type", "threaded");
  const auto detail = GetErrorDetail(status);
  if (status.ok() || !detail.has_value()) return status;
  return ErrnoError(
      detail->error,
      absl::StrCat("write(", Quoted(Join(dir.path, "cgroup.type")),
                   ", \"threaded\")"),
      {.step = "cgroup.create",
       .path = dir.path,
       .hint = detail->error == EOPNOTSUPP
                   ? "a group above has given controllers to its children "
                     "that are not for threads; only cpu, cpuset, pids and "
                     "perf_event are"
                   : ""});
}

absl::StatusOr<Member> MakeChildMember(const Group& parent, const Member& above,
                                       const CgroupOptions& options,
                                       const ControllerSet& wanted) {
  const Filesystem& filesystem = *parent.filesystem();
  Member member;
  member.version = above.version;
  member.hierarchy = above.hierarchy;
  member.controllers = above.controllers;
  const bool v2 = above.version == CgroupVersion::kV2;
  member.threaded = v2 && options.threaded;
  if (v2) {
    member.controllers = wanted & above.controllers;
    if (!options.threaded) {
      RETURN_IF_ERROR(EnableIn(filesystem, above.dir, member.controllers));
    }
  }
  ASSIGN_OR_RETURN(UniqueFd fd, sys::Duplicate(above.dir.fd.borrow()));
  member.parent = std::make_shared<const UniqueFd>(std::move(fd));
  ASSIGN_OR_RETURN(member.dir,
                   MakeGroupDir(filesystem, *above.hierarchy, above.dir,
                                options.name, kGroupMode));
  if (v2 && options.threaded) {
    absl::Status status = MakeThreaded(filesystem, member.dir);
    // Now the parent may give out what is for threads, whoever lives in it.
    if (status.ok()) {
      status = EnableIn(filesystem, above.dir, member.controllers);
    }
    if (!status.ok()) {
      (void)filesystem.RemoveDir(above.dir.fd.borrow(), options.name);
      return status;
    }
  }
  return member;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Group>> CreateChild(
    const Group& parent, const CgroupOptions& options) {
  RETURN_IF_ERROR(parent.CheckExists());
  RETURN_IF_ERROR(ValidateName(options.name));
  ASSIGN_OR_RETURN(const CgroupLimits limits, ResolveLimits(options.limits));
  ASSIGN_OR_RETURN(const ControllerSet wanted, WantedBy(parent, options));
  if (parent.members().front().hierarchy == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat("cgroup ", Quoted(parent.name()),
                     " was attached: only the process "
                     "that made it makes groups in it"));
  }
  auto group = std::make_unique<Group>(parent.filesystem(), options.name,
                                       Join(parent.path(), options.name),
                                       parent.keep_alive());
  group->SetAbove(parent);
  absl::Cleanup undo = [&] {
    (void)group->Destroy(Deadline(kCgroupKillTimeout));
  };
  for (const Member& above : parent.members()) {
    ASSIGN_OR_RETURN(Member member,
                     MakeChildMember(parent, above, options, wanted));
    group->Add(std::move(member));
  }
  RETURN_IF_ERROR(group->SetLimits(limits, Group::LimitMode::kNewGroup));
  std::move(undo).Cancel();
  return group;
}

absl::Status Delegate(const Group& group, uid_t user, gid_t gid) {
  RETURN_IF_ERROR(group.CheckExists());
  const Member* v2 = nullptr;
  for (const Member& member : group.members()) {
    if (member.version == CgroupVersion::kV2) v2 = &member;
  }
  if (v2 == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat("cgroup ", Quoted(group.name()),
                     ": only a group of cgroup v2 can be given away safely"));
  }
  std::vector<std::pair<std::string, struct stat>> done;
  for (const char* const file : kDelegated) {
    struct stat old = {};
    const int dir = v2->dir.fd.get();
    if (::fstatat(dir, file, &old, AT_SYMLINK_NOFOLLOW) == 0 &&
        ::fchownat(dir, file, user, gid, AT_SYMLINK_NOFOLLOW) == 0) {
      done.emplace_back(file, old);
      continue;
    }
    const int error = errno;
    if (error == ENOENT) continue;  // cgroup.threads before Linux 4.14
    for (const auto& [name, was] : done) {
      (void)!::fchownat(dir, name.c_str(), was.st_uid, was.st_gid,
                        AT_SYMLINK_NOFOLLOW);
    }
    const std::string path = Join(v2->dir.path, file);
    return ErrnoError(
        error, absl::StrCat("chown(", Quoted(path), ", ", user, ", ", gid, ")"),
        {.step = "cgroup.delegate", .path = path});
  }
  return absl::OkStatus();
}

}  // namespace caisson::cgroup
