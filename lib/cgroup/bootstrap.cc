#include "lib/cgroup/bootstrap.h"

#include <errno.h>
#include <sys/file.h>

#include <algorithm>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "caisson/error.h"
#include "lib/base/deadline.h"
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
// Whoever may read the group's directory can hold its lock.
constexpr absl::Duration kLockTimeout = absl::Seconds(10);
constexpr absl::Duration kLockPause = absl::Milliseconds(2);

using Pids = std::vector<std::string>;

bool HasErrno(const absl::Status& status, int error) {
  const auto detail = GetErrorDetail(status);
  return detail.has_value() && detail->error == error;
}

// A group of version 2.
struct OwnGroup {
  const CgroupHierarchy* hierarchy = nullptr;
  std::string path;
  Dir dir;
  ControllerSet enabled;  // for its children
  bool root = false;      // of the hierarchy: it alone has no cgroup.type
  bool left = false;      // the caller is in the leaf below already
};

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

// Calls of other processes and threads wait until this one is done.
absl::Status Lock(const Dir& dir) {
  const Deadline deadline(kLockTimeout);
  while (::flock(dir.fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EINTR) continue;
    if (errno != EWOULDBLOCK || deadline.expired()) {
      return ErrnoError(errno, absl::StrCat("flock(", Quoted(dir.path), ")"),
                        {.step = "cgroup.bootstrap",
                         .path = dir.path,
                         .hint = "somebody else has had the group's directory "
                                 "locked for 10 seconds"});
    }
    deadline.Poll({}, kLockPause);
  }
  return absl::OkStatus();
}

absl::StatusOr<OwnGroup> OpenLocked(const Filesystem& filesystem,
                                    const DetectedLayout& detected,
                                    std::string path) {
  OwnGroup group;
  group.hierarchy = &detected.layout.hierarchies[0];
  group.path = std::move(path);
  ASSIGN_OR_RETURN(const std::string below,
                   PathBelowMount(*group.hierarchy, group.path));
  ASSIGN_OR_RETURN(UniqueFd mount, filesystem.OpenMount(detected.mounts[0]));
  ASSIGN_OR_RETURN(group.dir, filesystem.OpenDir(mount.borrow(),
                                                 group.hierarchy->mount_point,
                                                 below.empty() ? "." : below));
  RETURN_IF_ERROR(Lock(group.dir));
  group.root = !filesystem.Read(group.dir, "cgroup.type").ok();
  ASSIGN_OR_RETURN(group.enabled,
                   ReadSet(filesystem, group.dir, kSubtreeControl));
  return group;
}

// The caller's group; if a call before this one has moved the caller to the
// leaf, the one above.
absl::StatusOr<OwnGroup> OpenOwn(const Filesystem& filesystem,
                                 const DetectedLayout& detected,
                                 const std::string& leaf) {
  const std::string& own = detected.layout.hierarchies[0].own_path;
  const size_t slash = own.rfind('/');
  if (slash != std::string::npos && own.substr(slash + 1) == leaf) {
    auto above = OpenLocked(filesystem, detected,
                            slash == 0 ? "/" : own.substr(0, slash));
    if (above.ok() && !above->root && above->enabled.any()) {
      above->left = true;
      return above;
    }
  }
  return OpenLocked(filesystem, detected, own);
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

absl::StatusOr<Pids> ReadPids(const Filesystem& filesystem, const Dir& dir) {
  ASSIGN_OR_RETURN(const std::string text, filesystem.Read(dir, kProcs));
  return Pids(absl::StrSplit(text, '\n', absl::SkipEmpty()));
}

// All processes of `from`. Those that end meanwhile do not matter.
absl::Status MoveAll(const Filesystem& filesystem, const Dir& from,
                     const Dir& to, std::vector<pid_t>& moved) {
  for (int round = 0; round < kMaxRounds; ++round) {
    ASSIGN_OR_RETURN(const Pids pids, ReadPids(filesystem, from));
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

// The processes of `leaf` but those that were there before: not by the PIDs
// that were moved, for some may have children by now, or have ended.
void MoveBack(const Filesystem& filesystem, const Dir& leaf, const Dir& to,
              const Pids& before) {
  bool any = true;
  for (int round = 0; any && round < kMaxRounds; ++round) {
    any = false;
    const auto pids = ReadPids(filesystem, leaf);
    if (!pids.ok()) return;
    for (const std::string& pid : *pids) {
      if (std::find(before.begin(), before.end(), pid) != before.end()) {
        continue;
      }
      any = filesystem.Write(to, kProcs, pid).ok() || any;
    }
  }
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
  ASSIGN_OR_RETURN(const Pids before, ReadPids(filesystem, *leaf));
  ControllerSet enabled;
  absl::Cleanup undo = [&] {
    for (const CgroupController controller : ToVector(enabled)) {
      (void)filesystem.Write(
          own.dir, kSubtreeControl,
          absl::StrCat("-", CgroupControllerName(controller)));
    }
    MoveBack(filesystem, *leaf, own.dir, before);
    if (made) (void)filesystem.RemoveDir(own.dir.fd.borrow(), leaf_name);
  };
  RETURN_IF_ERROR(MoveAll(filesystem, own.dir, *leaf, result.moved));
  RETURN_IF_ERROR(EnableIn(filesystem, own.dir, missing, &enabled));
  std::move(undo).Cancel();
  result.leaf = Join(result.path, leaf_name);
  return absl::OkStatus();
}

absl::StatusOr<CgroupBootstrap> BootstrapIn(
    const Filesystem& filesystem, const DetectedLayout& detected,
    const OwnGroup& own, const CgroupBootstrapOptions& options) {
  CgroupBootstrap result;
  result.path = own.path;
  ASSIGN_OR_RETURN(const ControllerSet wanted,
                   WantedOf(filesystem, own.dir, options));
  const ControllerSet missing = wanted & ~own.enabled;
  if (missing.none()) return result;
  if (!options.unsafe_even_if_not_delegated && filesystem.SystemdBooted() &&
      !filesystem.IsDelegated(own.dir)) {
    CgroupLayout layout = detected.layout;
    layout.hierarchies[0].own_path = own.path;
    layout.systemd = true;
    return absl::FailedPreconditionError(
        absl::StrCat("cgroup ", Quoted(own.path), ": ", Advice(layout)));
  }
  if (own.root || own.left) {
    RETURN_IF_ERROR(EnableIn(filesystem, own.dir, missing));
  } else {
    RETURN_IF_ERROR(
        MoveAndEnable(filesystem, own, options.leaf, missing, result));
  }
  result.enabled = ToVector(missing);
  return result;
}

}  // namespace

absl::StatusOr<CgroupBootstrap> Bootstrap(
    const Filesystem& filesystem, const CgroupBootstrapOptions& options) {
  RETURN_IF_ERROR(ValidateName(options.leaf));
  for (int round = 0; round < kMaxRounds; ++round) {
    ASSIGN_OR_RETURN(const std::string before,
                     filesystem.ReadProc("self/cgroup"));
    ASSIGN_OR_RETURN(const DetectedLayout detected, DetectLayout(filesystem));
    const auto& hierarchies = detected.layout.hierarchies;
    if (hierarchies.empty()) {
      return absl::FailedPreconditionError(
          "no cgroup hierarchy is mounted: mount -t cgroup2 none DIR");
    }
    if (hierarchies[0].version == CgroupVersion::kV1) {
      CgroupBootstrap nothing;
      nothing.path = hierarchies[0].own_path;
      return nothing;
    }
    ASSIGN_OR_RETURN(const OwnGroup own,
                     OpenOwn(filesystem, detected, options.leaf));
    ASSIGN_OR_RETURN(const std::string now, filesystem.ReadProc("self/cgroup"));
    // Else a concurrent call has moved this process before the lock was got.
    if (now == before) return BootstrapIn(filesystem, detected, own, options);
  }
  return absl::AbortedError(
      "the calling process is moved from group to group all the time");
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
