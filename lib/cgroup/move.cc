#include "lib/cgroup/move.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/types.h>

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "caisson/error.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/cgroup/layout.h"
#include "lib/sys/open.h"
#include "lib/sys/pidfd.h"

namespace caisson::cgroup {
namespace {

constexpr char kProcs[] = "cgroup.procs";
constexpr char kStep[] = "cgroup.move";

absl::Status Ended() {
  return absl::NotFoundError(
      "the process has ended, or is not visible in the PID namespace of the "
      "caller");
}

// cgroups(7); kernel/cgroup/cgroup.c, cgroup_attach_permissions(); the
// controllers' can_attach().
absl::string_view MoveHint(int error) {
  switch (error) {
    case EBUSY:
      return "groups of cgroup v2 with controllers in cgroup.subtree_control "
             "cannot have processes of their own (the no-internal-process "
             "rule)";
    case EOPNOTSUPP:
      return "cgroup.type of the group is \"threaded\" or \"domain invalid\"";
    case EINVAL:
      return "it is a thread of the kernel, or has a real-time priority for "
             "which the cpu controller has no budget";
    case ENOSPC:
      return "cpuset.cpus or cpuset.mems of the group is empty";
    case EACCES:
    case EPERM:
      return "moving needs the right to write cgroup.procs of the group, of "
             "the "
             "one where the process is and, on v2, of the nearest group above "
             "both; on v1 also the same user";
    case ENOENT:
      return "the group was removed, or on v2 the group where the process is "
             "cannot be seen from this cgroup namespace";
    default:
      return "";
  }
}

absl::Status MoveError(const absl::Status& status, const Member& member,
                       pid_t pid) {
  const auto detail = GetErrorDetail(status);
  if (!detail.has_value()) return status;
  if (detail->error == ESRCH) return Ended();
  const std::string path = Join(member.dir.path, kProcs);
  return ErrnoError(
      detail->error, absl::StrCat("write(", Quoted(path), ", \"", pid, "\")"),
      {.step = kStep, .path = path, .hint = MoveHint(detail->error)});
}

// The group of the hierarchy in /proc/PID/cgroup; empty if there is none.
std::string PathIn(const CgroupHierarchy& hierarchy, absl::string_view text) {
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    const std::vector<absl::string_view> fields =
        absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (fields.size() != 3) continue;
    if (hierarchy.version == CgroupVersion::kV2) {
      if (fields[0] == "0") return std::string(fields[2]);
      continue;
    }
    const std::string name =
        hierarchy.controllers.empty()
            ? absl::StrCat("name=", hierarchy.name)
            : std::string(CgroupControllerName(hierarchy.controllers[0],
                                               CgroupVersion::kV1));
    const std::vector<absl::string_view> names = absl::StrSplit(fields[1], ',');
    if (std::find(names.begin(), names.end(), name) != names.end()) {
      return std::string(fields[2]);
    }
  }
  return "";
}

absl::Status EndedMeanwhile(pid_t pid) {
  return absl::AbortedError(absl::StrCat(
      "move(pid ", pid,
      "): the process ended while it was moved; if the PID was given to "
      "another at that instant, that one is in the group now, at least in one "
      "hierarchy, and dies when the group is killed"));
}

absl::Status MoveBack(const Filesystem& filesystem, const Member& member,
                      absl::string_view before, pid_t pid) {
  if (member.hierarchy == nullptr) {
    return absl::FailedPreconditionError("nothing is known of its hierarchy");
  }
  const CgroupHierarchy& hierarchy = *member.hierarchy;
  const std::string path = PathIn(hierarchy, before);
  if (path.empty()) return absl::NotFoundError("not in /proc/PID/cgroup");
  ASSIGN_OR_RETURN(const std::string below, PathBelowMount(hierarchy, path));
  ASSIGN_OR_RETURN(UniqueFd mount,
                   sys::Open(hierarchy.mount_point, O_RDONLY | O_DIRECTORY));
  ASSIGN_OR_RETURN(const Dir dir,
                   filesystem.OpenDir(mount.borrow(), hierarchy.mount_point,
                                      below.empty() ? "." : below));
  return filesystem.Write(dir, kProcs, absl::StrCat(pid));
}

}  // namespace

absl::Status MoveProcess(const Filesystem& filesystem,
                         const std::vector<Member>& members, BorrowedFd pidfd) {
  const pid_t pid = sys::PidOf(pidfd);
  if (pid <= 0) return Ended();
  const auto before = filesystem.ReadProc(absl::StrCat(pid, "/cgroup"));
  for (size_t i = 0; i < members.size(); ++i) {
    // Each time, for a write may wait long. Before the first: what was read is
    // the process's own.
    if (sys::PidOf(pidfd) != pid) return i == 0 ? Ended() : EndedMeanwhile(pid);
    absl::Status status =
        filesystem.Write(members[i].dir, kProcs, absl::StrCat(pid));
    if (status.ok()) continue;
    if (i > 0 && sys::PidOf(pidfd) != pid) return EndedMeanwhile(pid);
    status = MoveError(status, members[i], pid);
    for (size_t k = i; k-- > 0 && sys::PidOf(pidfd) == pid;) {
      const absl::Status back =
          before.ok() ? MoveBack(filesystem, members[k], *before, pid)
                      : before.status();
      if (back.ok()) continue;
      status = Annotate(
          status, absl::StrCat("it stays in ", Quoted(members[k].dir.path),
                               " (", back.message(), ")"));
    }
    return status;
  }
  if (sys::PidOf(pidfd) == pid) return absl::OkStatus();
  return EndedMeanwhile(pid);
}

}  // namespace caisson::cgroup
