// Mounts that come and go while a container runs.
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/mount.h>
#include <linux/nsfs.h>
#include <linux/stat.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>

#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "caisson/launcher.h"
#include "caisson/root_fs.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/launcher/launcher_state.h"
#include "lib/launcher/process_state.h"
#include "lib/plan/builder.h"
#include "lib/rootfs/bind_mount.h"
#include "lib/rootfs/tmpfs_mount.h"
#include "lib/rootfs/tree.h"
#include "lib/sys/mount.h"
#include "lib/sys/open.h"
#include "lib/sys/pidfd.h"

namespace caisson {
namespace {

using ::caisson::plan::PlanBuilder;
using ::caisson::plan::Slot;

constexpr mode_t kMountPointMode = 0755;
// Where the plan puts the mount that umount2(2) takes by its number.
constexpr int kVictim = plan::kFirstSetAside;

absl::Status Ended() {
  return absl::NotFoundError("the container's process has ended");
}

// What the host sees of a container that runs.
struct LiveRoot {
  UniqueFd root;
  rootfs::Owner owner;
};

// The host's id of the container's root: 0, or what the map of the process
// makes of it.
absl::StatusOr<uint32_t> OutsideOfRoot(const std::string& map_path) {
  ASSIGN_OR_RETURN(const std::string map,
                   sys::ReadFileAt(BorrowedFd(AT_FDCWD), map_path,
                                   /*resolve=*/0, /*limit=*/65536));
  for (const absl::string_view line : absl::StrSplit(map, '\n')) {
    const std::vector<absl::string_view> fields =
        absl::StrSplit(line, ' ', absl::SkipWhitespace());
    uint32_t outside = 0;
    if (fields.size() == 3 && fields[0] == "0" &&
        absl::SimpleAtoi(fields[1], &outside)) {
      return outside;
    }
  }
  return absl::FailedPreconditionError(
      absl::StrCat(map_path, " does not map user or group 0"));
}

// The user namespace that owns the namespace at `path`.
absl::StatusOr<UniqueFd> OwnerOf(const std::string& path) {
  ASSIGN_OR_RETURN(const UniqueFd ns, sys::Open(path, O_RDONLY));
  UniqueFd owner(::ioctl(ns.get(), NS_GET_USERNS));
  if (owner.valid()) return owner;
  return ErrnoError(errno, absl::StrCat("ioctl(", path, ", NS_GET_USERNS)"),
                    {.step = "mounts", .path = path});
}

// A process can leave its mount namespace for one that belongs to a user
// namespace of its own, and there make writable what is added read-only. It
// cannot leave its pid namespace, and cannot come back.
absl::Status CheckMountNamespace(const Process::State& container,
                                 const std::string& proc) {
  if (!container.own_pid_namespace) return absl::OkStatus();
  ASSIGN_OR_RETURN(const UniqueFd mounts, OwnerOf(proc + "/ns/mnt"));
  ASSIGN_OR_RETURN(const UniqueFd pids, OwnerOf(proc + "/ns/pid"));
  struct stat a;
  struct stat b;
  if (::fstat(mounts.get(), &a) == 0 && ::fstat(pids.get(), &b) == 0 &&
      a.st_dev == b.st_dev && a.st_ino == b.st_ino) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      "the container's process has a mount namespace of another user namespace "
      "than its pid namespace: it has left that of the container");
}

absl::StatusOr<LiveRoot> OpenLiveRoot(const Process::State& container) {
  if ((container.namespaces.first & CLONE_NEWNS) == 0 &&
      (container.namespaces.second & CLONE_NEWNS) == 0) {
    return absl::FailedPreconditionError(
        "the process has no mount namespace of its own");
  }
  const BorrowedFd pidfd = container.started.pidfd.borrow();
  const pid_t pid = sys::PidOf(pidfd);
  if (pid <= 0) return Ended();
  const std::string proc = absl::StrCat("/proc/", pid);
  LiveRoot live;
  ASSIGN_OR_RETURN(live.root, sys::Open(proc + "/root", O_PATH | O_DIRECTORY));
  ASSIGN_OR_RETURN(live.owner.uid, OutsideOfRoot(proc + "/uid_map"));
  ASSIGN_OR_RETURN(live.owner.gid, OutsideOfRoot(proc + "/gid_map"));
  RETURN_IF_ERROR(CheckMountNamespace(container, proc));
  if (sys::PidOf(pidfd) != pid) return Ended();
  return live;
}

// Nothing may hide what a process says of itself, or show what is masked.
absl::Status CheckPlace(BorrowedFd place, absl::string_view path) {
  struct statfs fs;
  if (::fstatfs(place.get(), &fs) != 0) {
    return ErrnoError(errno, absl::StrCat("fstatfs(", Quoted(path), ")"),
                      {.step = "mounts", .path = path});
  }
  if (fs.f_type != PROC_SUPER_MAGIC && fs.f_type != SYSFS_MAGIC) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      absl::StrCat(Quoted(path),
                   " of the container lies in its /proc or /sys: in a running "
                   "container nothing is mounted or unmounted there"));
}

// Whether both are the same directory of the same mount.
absl::StatusOr<bool> IsSamePlace(BorrowedFd a, BorrowedFd b) {
  struct statx stats[2];
  for (int i = 0; i < 2; ++i) {
    if (::syscall(SYS_statx, i == 0 ? a.get() : b.get(), "", AT_EMPTY_PATH,
                  STATX_INO | STATX_MNT_ID, &stats[i]) != 0) {
      return ErrnoError(errno, "statx(STATX_MNT_ID)", {.step = "mounts"});
    }
  }
  return stats[0].stx_ino == stats[1].stx_ino &&
         stats[0].stx_mnt_id == stats[1].stx_mnt_id;
}

// What is mounted there becomes the root of whatever enters the namespace
// later, such as Exec().
absl::Status CheckNotRoot(BorrowedFd place, BorrowedFd root,
                          const std::string& path) {
  ASSIGN_OR_RETURN(const bool same, IsSamePlace(place, root));
  if (!same) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(Quoted(path), " of the container is its root"));
}

absl::StatusOr<UniqueFd> FindPlace(LiveRoot live, const std::string& path,
                                   bool directory) {
  rootfs::Tree tree(sys::DirectMounts(), std::move(live.root),
                    /*detached_mounts=*/false, live.owner);
  ASSIGN_OR_RETURN(UniqueFd place,
                   tree.Find(absl::StripPrefix(path, "/"),
                             directory ? rootfs::Tree::Create::kDirectory
                                       : rootfs::Tree::Create::kFile,
                             kMountPointMode));
  RETURN_IF_ERROR(CheckPlace(place.borrow(), path));
  RETURN_IF_ERROR(CheckNotRoot(place.borrow(), tree.root(), path));
  return place;
}

// What is mounted at `path`. The directory that holds the mount point must not
// be of /proc or /sys, so that no link leads to a mount that masks a part of
// them; the last component is no link for the same reason.
absl::StatusOr<UniqueFd> FindMounted(const LiveRoot& live,
                                     const std::string& path) {
  const size_t end = path.find_last_not_of('/');
  const size_t slash = path.rfind('/', end);
  const std::string name =
      end == std::string::npos ? "" : path.substr(slash + 1, end - slash);
  if (name.empty() || name == "." || name == "..") {
    return absl::InvalidArgumentError(
        absl::StrCat("RemoveMount: ", Quoted(path), " names no mount point"));
  }
  ASSIGN_OR_RETURN(const UniqueFd parent,
                   sys::OpenAt2(live.root.borrow(), path.substr(0, slash + 1),
                                O_PATH | O_DIRECTORY, sys::kInRoot));
  RETURN_IF_ERROR(CheckPlace(parent.borrow(), path));
  ASSIGN_OR_RETURN(UniqueFd place, sys::OpenAt2(parent.borrow(), name, O_PATH,
                                                sys::kNoSymlinks));
  RETURN_IF_ERROR(CheckPlace(place.borrow(), path));
  return place;
}

void AddEnter(PlanBuilder& plan, const Process::State& container) {
  plan.Step("namespaces");
  const Slot pidfd = plan.Send(container.started.pidfd.borrow());
  for (const uint64_t joined :
       {container.namespaces.first, container.namespaces.second}) {
    const uint64_t flags = joined & (CLONE_NEWNS | CLONE_NEWUSER);
    if (flags == 0) continue;
    plan.Call(SYS_setns, {pidfd, flags}, "setns(pidfd of the container)")
        .Hint("ESRCH: the container's process has ended");
  }
}

absl::Status CheckDestination(const std::string& destination) {
  if (!destination.empty() && destination[0] == '/') return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "destination ", Quoted(destination), " is not an absolute path"));
}

// Attaches `mount` in the container's mount namespace, by descriptors alone.
absl::Status AttachMount(const launcher::Session& session,
                         const Process::State& container, BorrowedFd mount,
                         BorrowedFd place, const std::string& path) {
  PlanBuilder plan;
  AddEnter(plan, container);
  plan.Step("mounts");
  const plan::Data empty = plan.String("");
  plan.Call(SYS_move_mount,
            {plan.Send(mount), empty, plan.Send(place), empty,
             MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH},
            absl::StrCat("move_mount(", Quoted(path), ")"))
      .Path(path);
  plan.Exit();
  return session.Run(plan).status();
}

bool IsDirectory(BorrowedFd fd) {
  struct stat stat;
  return ::fstat(fd.get(), &stat) == 0 && S_ISDIR(stat.st_mode);
}

absl::Status CheckOwnLauncher(const Process::State& container,
                              const launcher::Session& session) {
  if (container.session.get() == &session) return absl::OkStatus();
  return absl::InvalidArgumentError(
      "the container belongs to another Launcher");
}

}  // namespace

absl::Status Launcher::AddMount(const Process& container,
                                const BindMount& bind) {
  constexpr char kField[] = "AddMount";
  const Process::State& state = *container.state_;
  RETURN_IF_ERROR(CheckOwnLauncher(state, *state_->session));
  RETURN_IF_ERROR(CheckDestination(bind.destination));
  RETURN_IF_ERROR(rootfs::CheckBindSource(bind, kField));
  const sys::MountExecutor& mounts =
      state_->mounts != nullptr ? *state_->mounts : sys::DirectMounts();
  ASSIGN_OR_RETURN(const UniqueFd source,
                   rootfs::OpenBindSource(bind, BorrowedFd(), kField));
  ASSIGN_OR_RETURN(
      const UniqueFd mount,
      rootfs::MakeBindMount(mounts, bind, source.borrow(), kField));
  ASSIGN_OR_RETURN(LiveRoot live, OpenLiveRoot(state));
  ASSIGN_OR_RETURN(const UniqueFd place,
                   FindPlace(std::move(live), bind.destination,
                             IsDirectory(source.borrow())));
  return AttachMount(*state_->session, state, mount.borrow(), place.borrow(),
                     bind.destination);
}

absl::Status Launcher::AddMount(const Process& container,
                                const TmpfsMount& tmpfs) {
  const Process::State& state = *container.state_;
  RETURN_IF_ERROR(CheckOwnLauncher(state, *state_->session));
  RETURN_IF_ERROR(CheckDestination(tmpfs.destination));
  if (tmpfs.copy_up) {
    return absl::InvalidArgumentError(
        "AddMount: TmpfsMount.copy_up is for mounts that come with the root");
  }
  const sys::MountExecutor& mounts =
      state_->mounts != nullptr ? *state_->mounts : sys::DirectMounts();
  ASSIGN_OR_RETURN(LiveRoot live, OpenLiveRoot(state));
  ASSIGN_OR_RETURN(const UniqueFd mount,
                   rootfs::MountTmpfs(mounts, tmpfs, "tmpfs", live.owner,
                                      /*label=*/"", BorrowedFd()));
  ASSIGN_OR_RETURN(const UniqueFd place,
                   FindPlace(std::move(live), tmpfs.destination,
                             /*directory=*/true));
  return AttachMount(*state_->session, state, mount.borrow(), place.borrow(),
                     tmpfs.destination);
}

absl::Status Launcher::RemoveMount(const Process& container,
                                   const std::string& destination) {
  const Process::State& state = *container.state_;
  RETURN_IF_ERROR(CheckOwnLauncher(state, *state_->session));
  RETURN_IF_ERROR(CheckDestination(destination));
  ASSIGN_OR_RETURN(const LiveRoot live, OpenLiveRoot(state));
  ASSIGN_OR_RETURN(const UniqueFd place, FindMounted(live, destination));
  struct statx stat;
  if (::syscall(SYS_statx, place.get(), "", AT_EMPTY_PATH, STATX_BASIC_STATS,
                &stat) != 0) {
    return ErrnoError(errno, absl::StrCat("statx(", Quoted(destination), ")"),
                      {.step = "mounts", .path = destination});
  }
  if ((stat.stx_attributes & STATX_ATTR_MOUNT_ROOT) == 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("nothing that could be removed is mounted at ",
                     Quoted(destination), " of the container"));
  }
  PlanBuilder plan;
  // umount2(2) knows paths only. The launcher's own /proc leads from the number
  // of a descriptor to the very mount that was looked at; any path inside could
  // lead to another one by then.
  plan.Step("mounts");
  const Slot numbers = plan.NewSlot();
  plan.Call(SYS_openat,
            {AT_FDCWD, plan.String("/proc/self/fd"),
             O_PATH | O_DIRECTORY | O_CLOEXEC, 0},
            "open(\"/proc/self/fd\")")
      .Into(numbers);
  plan.Call(SYS_dup3, {plan.Send(place.borrow()), kVictim, O_CLOEXEC},
            "dup3(mount)");
  AddEnter(plan, state);
  plan.Step("unmount");
  plan.Call(SYS_fchdir, {numbers}, "fchdir(\"/proc/self/fd\")");
  plan.Call(SYS_umount2, {plan.String(absl::StrCat(kVictim)), sys::kMntDetach},
            absl::StrCat("umount2(", Quoted(destination), ", MNT_DETACH)"))
      .Path(destination)
      .Hint(
          "EINVAL: the mount belongs to a more privileged mount namespace, or "
          "was removed meanwhile");
  plan.Exit();
  return state_->session->Run(plan).status();
}

}  // namespace caisson
