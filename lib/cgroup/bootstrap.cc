#include "lib/cgroup/bootstrap.h"

#include <errno.h>

#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "caisson/error.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/cgroup/layout.h"
#include "lib/cgroup/place.h"

namespace caisson::cgroup {
namespace {

constexpr char kProcs[] = "cgroup.procs";
constexpr char kSubtreeControl[] = "cgroup.subtree_control";
constexpr mode_t kLeafMode = 0755;
// Processes fork while they are moved; those that are young are moved next.
constexpr int kMaxRounds = 100;

bool HasErrno(const absl::Status& status, int error) {
  const auto detail = GetErrorDetail(status);
  return detail.has_value() && detail->error == error;
}

// The calling process's group in version 2.
struct OwnGroup {
  const CgroupHierarchy* hierarchy = nullptr;
  Dir dir;
  bool root = false;  // of the hierarchy: it alone has no cgroup.type
};

absl::StatusOr<OwnGroup> OpenOwn(const Filesystem& filesystem,
                                 const DetectedLayout& detected) {
  OwnGroup own;
  own.hierarchy = &detected.layout.hierarchies[0];
  ASSIGN_OR_RETURN(const std::string below,
                   PathBelowMount(*own.hierarchy, own.hierarchy->own_path));
  ASSIGN_OR_RETURN(UniqueFd mount, filesystem.OpenMount(detected.mounts[0]));
  ASSIGN_OR_RETURN(
      own.dir, filesystem.OpenDir(mount.borrow(), own.hierarchy->mount_point,
                                  below.empty() ? "." : below));
  own.root = !filesystem.Read(own.dir, "cgroup.type").ok();
  return own;
}

absl::StatusOr<ControllerSet> ReadSet(const Filesystem& filesystem,
                                      const Dir& dir, absl::string_view file) {
  ASSIGN_OR_RETURN(const std::string text, filesystem.Read(dir, file));
  ControllerSet set;
  for (absl::string_view name :
       absl::StrSplit(text, absl::ByAnyChar(" \n"), absl::SkipEmpty())) {
    if (const auto controller = ControllerByName(name)) {
      set.set(IndexOf(*controller));
    }
  }
  return set;
}

absl::StatusOr<ControllerSet> WantedOf(const Filesystem& filesystem,
                                       const Dir& dir,
                                       const CgroupBootstrapOptions& options) {
  ASSIGN_OR_RETURN(const ControllerSet offered,
                   ReadSet(filesystem, dir, "cgroup.controllers"));
  if (options.controllers.empty()) return offered;
  ControllerSet wanted;
  for (const CgroupController controller : options.controllers) {
    if (IndexOf(controller) >= wanted.size() || !offered[IndexOf(controller)]) {
      return absl::FailedPreconditionError(absl::StrCat(
          "cgroup ", Quoted(dir.path), " is not offered the ",
          IndexOf(controller) < wanted.size() ? CgroupControllerName(controller)
                                              : "unknown",
          " controller: whoever made it has to enable it in the "
          "cgroup.subtree_control of the group above (systemd: Delegate=yes), "
          "or it is attached to a v1 hierarchy"));
    }
    wanted.set(IndexOf(controller));
  }
  return wanted;
}

absl::Status MoveError(const absl::Status& status, const Dir& leaf) {
  const auto detail = GetErrorDetail(status);
  if (!detail.has_value()) return status;
  absl::string_view hint;
  if (detail->error == EACCES || detail->error == EPERM) {
    hint =
        "the group is not yours to manage: have it delegated (systemd: "
        "systemd-run --scope -p Delegate=yes, or Delegate=yes in the unit)";
  } else if (detail->error == EINVAL) {
    hint = "a kernel thread, or a process of another PID namespace";
  }
  return ErrnoError(
      detail->error, absl::StrCat("move to ", Quoted(leaf.path)),
      {.step = "cgroup.bootstrap", .path = leaf.path, .hint = hint});
}

// All processes of `from`. Those that end meanwhile do not matter.
absl::Status MoveAll(const Filesystem& filesystem, const Dir& from,
                     const Dir& to, std::vector<pid_t>& moved) {
  for (int round = 0; round < kMaxRounds; ++round) {
    ASSIGN_OR_RETURN(const std::string text, filesystem.Read(from, kProcs));
    const std::vector<std::string> pids =
        absl::StrSplit(text, '\n', absl::SkipEmpty());
    if (pids.empty()) return absl::OkStatus();
    for (const std::string& pid : pids) {
      // "0" would be the caller; here it is a process that it cannot see.
      const absl::Status status = pid == "0"
                                      ? ErrnoError(EINVAL, "move of pid 0")
                                      : filesystem.Write(to, kProcs, pid);
      if (HasErrno(status, ESRCH)) continue;
      if (!status.ok()) return MoveError(status, to);
      pid_t number = 0;
      if (absl::SimpleAtoi(pid, &number)) moved.push_back(number);
    }
  }
  return absl::AbortedError(
      absl::StrCat("cgroup ", Quoted(from.path),
                   ": processes appear in it as fast as they are moved away"));
}

// Moves the processes of `own` to the leaf and enables `missing`, or neither.
absl::Status MoveAndEnable(const Filesystem& filesystem, const OwnGroup& own,
                           const std::string& leaf_name,
                           const ControllerSet& missing,
                           CgroupBootstrap& result) {
  auto leaf =
      MakeGroupDir(filesystem, *own.hierarchy, own.dir, leaf_name, kLeafMode);
  const bool made = leaf.ok();
  if (HasErrno(leaf.status(), EEXIST)) {
    leaf = filesystem.OpenDir(own.dir.fd.borrow(), own.dir.path, leaf_name);
  }
  RETURN_IF_ERROR(leaf.status());
  absl::Cleanup undo = [&] {
    for (const CgroupController controller : ToVector(missing)) {
      (void)filesystem.Write(
          own.dir, kSubtreeControl,
          absl::StrCat("-", CgroupControllerName(controller)));
    }
    for (const pid_t pid : result.moved) {
      (void)filesystem.Write(own.dir, kProcs, absl::StrCat(pid));
    }
    if (made) (void)filesystem.RemoveDir(own.dir.fd.borrow(), leaf_name);
    result.moved.clear();
  };
  RETURN_IF_ERROR(MoveAll(filesystem, own.dir, *leaf, result.moved));
  RETURN_IF_ERROR(EnableIn(filesystem, own.dir, missing));
  std::move(undo).Cancel();
  result.leaf = Join(result.path, leaf_name);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<CgroupBootstrap> Bootstrap(
    const Filesystem& filesystem, const CgroupBootstrapOptions& options) {
  RETURN_IF_ERROR(ValidateName(options.leaf));
  ASSIGN_OR_RETURN(const DetectedLayout detected, DetectLayout(filesystem));
  const std::vector<CgroupHierarchy>& hierarchies = detected.layout.hierarchies;
  if (hierarchies.empty()) {
    return absl::FailedPreconditionError(
        "no cgroup hierarchy is mounted: mount -t cgroup2 none DIR");
  }
  CgroupBootstrap result;
  result.path = hierarchies[0].own_path;
  if (hierarchies[0].version == CgroupVersion::kV1) return result;
  ASSIGN_OR_RETURN(const OwnGroup own, OpenOwn(filesystem, detected));
  ASSIGN_OR_RETURN(const ControllerSet wanted,
                   WantedOf(filesystem, own.dir, options));
  ASSIGN_OR_RETURN(const ControllerSet enabled,
                   ReadSet(filesystem, own.dir, kSubtreeControl));
  const ControllerSet missing = wanted & ~enabled;
  if (missing.none()) return result;
  if (own.root) {
    RETURN_IF_ERROR(EnableIn(filesystem, own.dir, missing));
  } else {
    RETURN_IF_ERROR(
        MoveAndEnable(filesystem, own, options.leaf, missing, result));
  }
  result.enabled = ToVector(missing);
  return result;
}

absl::StatusOr<std::vector<CgroupMembership>> Memberships(
    const Filesystem& filesystem, const std::string& who) {
  ASSIGN_OR_RETURN(const DetectedLayout detected,
                   DetectLayout(filesystem, who));
  std::vector<CgroupMembership> memberships;
  for (const CgroupHierarchy& hierarchy : detected.layout.hierarchies) {
    CgroupMembership& membership = memberships.emplace_back();
    membership.version = hierarchy.version;
    membership.name = hierarchy.name;
    membership.controllers = hierarchy.controllers;
    membership.path = hierarchy.own_path;
    const auto below = PathBelowMount(hierarchy, hierarchy.own_path);
    if (below.ok()) {
      membership.directory = below->empty()
                                 ? hierarchy.mount_point
                                 : Join(hierarchy.mount_point, *below);
    }
  }
  return memberships;
}

}  // namespace caisson::cgroup

namespace caisson {

absl::StatusOr<CgroupBootstrap> BootstrapCgroups(
    const CgroupBootstrapOptions& options) {
  return cgroup::Bootstrap(cgroup::Filesystem(), options);
}

absl::StatusOr<std::vector<CgroupMembership>> CgroupMembershipsOf(pid_t pid) {
  if (pid <= 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("pid ", pid, " is that of no process"));
  }
  return cgroup::Memberships(cgroup::Filesystem(), absl::StrCat(pid));
}

}  // namespace caisson
