#include "lib/launcher/remote_mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "caisson/error.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/launcher/unprivileged.h"
#include "lib/plan/builder.h"
#include "lib/plan/send_fds.h"
#include "lib/sys/open.h"

namespace caisson::launcher {
namespace {

using ::caisson::plan::Data;
using ::caisson::plan::PlanBuilder;
using ::caisson::plan::Slot;
using ::caisson::sys::MountResult;

constexpr char kStep[] = "mounts";

// A plan of a few calls, the last of which may have a descriptor as its result.
class Calls {
 public:
  Calls() { plan_.Step(kStep); }

  PlanBuilder& plan() { return plan_; }

  MountResult Run(const Session& session) {
    plan_.Exit();
    return FromStatus(session.Run(plan_).status());
  }

  MountResult RunFor(const Session& session, Slot result) {
    int fds[2];
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) != 0) {
      return {.failure = ErrnoError(errno, "socketpair()", {.step = kStep})};
    }
    const UniqueFd mine(fds[0]);
    plan::AppendSendFds(plan_, plan_.Send(UniqueFd(fds[1])), {result});
    MountResult ran = Run(session);
    if (!ran.ok()) return ran;
    auto received = plan::ReceiveFds(mine.borrow(), 1);
    if (!received.ok()) return {.failure = received.status()};
    return {.fd = std::move((*received)[0])};
  }

 private:
  // Operations of the plan itself fail with an errno, all else with another
  // step.
  static MountResult FromStatus(const absl::Status& status) {
    if (status.ok()) return {};
    const auto detail = GetErrorDetail(status);
    if (detail.has_value() && detail->step == kStep) {
      return {.error = detail->error};
    }
    return {.failure = status};
  }

  PlanBuilder plan_;
};

// A directory, and a name in it or "" for itself.
struct Place {
  UniqueFd dir;
  std::string name;
};

// `path` below `dir` as a directory that a process can go to, and a name there.
absl::StatusOr<Place> FindPlace(BorrowedFd dir, const char* path) {
  Place place;
  struct stat status;
  const int found =
      ::fstatat(dir.get(), path, &status, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW);
  if (found != 0) return ErrnoError(errno, "fstatat()", {.step = kStep});
  if (S_ISDIR(status.st_mode) || *path != '\0') {
    place.dir.reset(::openat(dir.get(), ".", O_PATH | O_DIRECTORY | O_CLOEXEC));
    place.name = path;
    if (place.dir.valid()) return place;
    return ErrnoError(errno, "open(directory)", {.step = kStep});
  }
  const std::string link = absl::StrCat("/proc/thread-self/fd/", dir.get());
  char target[PATH_MAX];
  const ssize_t size = ::readlink(link.c_str(), target, sizeof(target));
  if (size < 0) {
    return ErrnoError(errno, "readlink(/proc/thread-self/fd/N)",
                      {.step = kStep, .hint = "the host needs its /proc"});
  }
  const std::string name(target, static_cast<size_t>(size));
  const size_t slash = name.rfind('/');
  if (slash == std::string::npos) {
    return absl::FailedPreconditionError(absl::StrCat(
        Quoted(name), " has no place in the file system to mount it from"));
  }
  ASSIGN_OR_RETURN(place.dir,
                   sys::Open(slash == 0 ? "/" : name.substr(0, slash),
                             O_PATH | O_DIRECTORY));
  place.name = name.substr(slash + 1);
  return place;
}

// Whether `clone` shows what `dir` and `path` named before.
bool IsSame(BorrowedFd dir, const char* path, BorrowedFd clone) {
  struct stat wanted;
  struct stat actual;
  return ::fstatat(dir.get(), path, &wanted,
                   AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) == 0 &&
         ::fstat(clone.get(), &actual) == 0 && wanted.st_dev == actual.st_dev &&
         wanted.st_ino == actual.st_ino;
}

}  // namespace

RemoteMounts::RemoteMounts(Session launcher, Session mounts,
                           LauncherIdentity identity)
    : launcher_(std::move(launcher)),
      mounts_(std::move(mounts)),
      identity_(std::move(identity)) {}

MountResult RemoteMounts::OpenContext(const char* type) const {
  Calls calls;
  const Slot context = calls.plan().NewSlot();
  calls.plan()
      .Call(SYS_fsopen, {calls.plan().String(type), FSOPEN_CLOEXEC}, "fsopen()")
      .Into(context);
  return calls.RunFor(launcher_, context);
}

MountResult RemoteMounts::CreateMount(BorrowedFd context, unsigned attributes,
                                      const char** call) const {
  *call = "fsconfig(CMD_CREATE) or fsmount()";
  Calls calls;
  PlanBuilder& plan = calls.plan();
  const Slot slot = plan.Send(context);
  const Slot mount = plan.NewSlot();
  plan.Call(SYS_fsconfig, {slot, FSCONFIG_CMD_CREATE, 0, 0, 0}, "fsconfig()");
  plan.Call(SYS_fsmount, {slot, FSMOUNT_CLOEXEC, attributes}, "fsmount()")
      .Into(mount);
  return calls.RunFor(launcher_, mount);
}

MountResult RemoteMounts::OpenTree(BorrowedFd dir, const char* path,
                                   unsigned flags) const {
  Calls calls;
  PlanBuilder& plan = calls.plan();
  const Slot tree = plan.NewSlot();
  plan.Call(SYS_open_tree, {plan.Send(dir), plan.String(path), flags},
            "open_tree()")
      .Into(tree);
  return calls.RunFor(launcher_, tree);
}

MountResult RemoteMounts::OpenHostTree(BorrowedFd dir, const char* path,
                                       unsigned flags) const {
  auto place = FindPlace(dir, path);
  if (!place.ok()) return {.failure = place.status()};
  Calls calls;
  PlanBuilder& plan = calls.plan();
  plan.Call(SYS_fchdir, {plan.Send(place->dir.borrow())}, "fchdir()");
  plan.Call(SYS_unshare, {CLONE_NEWNS}, "unshare(CLONE_NEWNS)");
  const Slot tree = plan.NewSlot();
  plan.Call(SYS_open_tree, {AT_FDCWD, plan.String(place->name), flags},
            "open_tree()")
      .Into(tree);
  MountResult result = calls.RunFor(mounts_, tree);
  if (result.ok() && !IsSame(dir, path, result.fd.borrow())) {
    return {.failure = absl::FailedPreconditionError(
                "open_tree(CLONE): what is to be mounted was moved or replaced "
                "meanwhile")};
  }
  return result;
}

MountResult RemoteMounts::BindHostFiles(BorrowedFd from,
                                        const std::vector<std::string>& names,
                                        BorrowedFd to) const {
  Calls calls;
  PlanBuilder& plan = calls.plan();
  plan.Call(SYS_fchdir, {plan.Send(from)}, "fchdir()");
  plan.Call(SYS_unshare, {CLONE_NEWNS}, "unshare(CLONE_NEWNS)");
  const Slot target = plan.Send(to);
  const Data empty = plan.String("");
  const Data attributes = plan.Object(sys::kHostNode);
  for (const std::string& name : names) {
    const Data path = plan.String(name);
    const Slot tree = plan.NewSlot();
    plan.Call(SYS_open_tree,
              {AT_FDCWD, path,
               OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_SYMLINK_NOFOLLOW},
              "open_tree()")
        .Into(tree);
    plan.Call(SYS_mount_setattr,
              {tree, empty, AT_EMPTY_PATH, attributes, sizeof(sys::kHostNode)},
              "mount_setattr()");
    plan.Call(SYS_move_mount,
              {tree, empty, target, path, MOVE_MOUNT_F_EMPTY_PATH},
              "move_mount()");
  }
  return calls.Run(mounts_);
}

MountResult RemoteMounts::SetAttributes(BorrowedFd mount,
                                        const mount_attr& attributes,
                                        unsigned flags) const {
  Calls calls;
  PlanBuilder& plan = calls.plan();
  const Data data = plan.Object(attributes);
  if ((attributes.attr_set & MOUNT_ATTR_IDMAP) != 0) {
    const BorrowedFd user(static_cast<int>(attributes.userns_fd));
    plan.Store(data.at(offsetof(mount_attr, userns_fd)), plan.Send(user));
  }
  plan.Call(SYS_mount_setattr,
            {plan.Send(mount), plan.String(""), flags | AT_EMPTY_PATH, data,
             sizeof(attributes)},
            "mount_setattr()");
  return calls.Run(launcher_);
}

MountResult RemoteMounts::Attach(BorrowedFd mount, BorrowedFd target) const {
  Calls calls;
  PlanBuilder& plan = calls.plan();
  const Data empty = plan.String("");
  plan.Call(SYS_move_mount,
            {plan.Send(mount), empty, plan.Send(target), empty,
             MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH},
            "move_mount()");
  return calls.Run(launcher_);
}

bool RemoteMounts::HasGroup(gid_t group) const {
  return IsMapped(identity_.groups, group);
}

}  // namespace caisson::launcher
