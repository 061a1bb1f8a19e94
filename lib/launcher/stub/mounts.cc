#include "lib/launcher/stub/mounts.h"

#include <asm/errno.h>
#include <asm/fcntl.h>
#include <asm/signal.h>
#include <linux/mount.h>
#include <linux/sched.h>

#include "lib/launcher/stub/syscall.h"

namespace caisson::launcher {
namespace {

constexpr int kCwd = -100;                 // AT_FDCWD
constexpr unsigned kAtRecursive = 0x8000;  // AT_RECURSIVE
constexpr int kMntDetach = 2;              // MNT_DETACH
constexpr unsigned kPrivate = 1u << 18;    // MS_PRIVATE
constexpr unsigned kRecursive = 1u << 14;  // MS_REC

// A detached mount of `type`; a descriptor or a negative errno.
long NewMount(const char* type, unsigned attributes) {
  const long context = Call(__NR_fsopen, type, FSOPEN_CLOEXEC);
  if (context < 0) return context;
  long result = Call(__NR_fsconfig, context, FSCONFIG_CMD_CREATE, 0L, 0L, 0);
  if (result >= 0) {
    result = Call(__NR_fsmount, context, FSMOUNT_CLOEXEC, attributes);
  }
  Call(__NR_close, context);
  return result;
}

// Mounts `type` on the new directory `name` of `root`.
long MountBelow(long root, const char* name, const char* type,
                unsigned attributes) {
  long result = Call(__NR_mkdirat, root, name, 0555);
  if (result < 0) return result;
  const long mount = NewMount(type, attributes);
  if (mount < 0) return mount;
  result =
      Call(__NR_move_mount, mount, "", root, name, MOVE_MOUNT_F_EMPTY_PATH);
  Call(__NR_close, mount);
  return result;
}

// As MountBelow() of a procfs, whose mount needs a PID namespace that belongs
// to the caller's user namespace. Where that is the host's, as with a runtime
// that rootless Podman calls, a bind mount of the one that can be seen does.
long MountProcfs(long root, unsigned attributes) {
  const long result = MountBelow(root, "proc", "proc", attributes);
  if (result != -EPERM) return result;
  const long tree = Call(__NR_open_tree, kCwd, "/proc",
                         OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | kAtRecursive);
  if (tree < 0) return tree;
  const long moved =
      Call(__NR_move_mount, tree, "", root, "proc", MOVE_MOUNT_F_EMPTY_PATH);
  Call(__NR_close, tree);
  return moved;
}

// As MountBelow() of a sysfs, whose mount needs a network namespace that
// belongs to the caller's user namespace. A child in a new one does it then,
// and only that one's devices can be seen there.
long MountSysfs(long root, unsigned attributes) {
  const long result = MountBelow(root, "sys", "sysfs", attributes);
  if (result != -EPERM) return result;
  const long pid = Call(__NR_clone, SIGCHLD | CLONE_NEWNET, 0L, 0L, 0L, 0L);
  if (pid < 0) return pid;
  if (pid == 0) {
    const long mount = NewMount("sysfs", attributes);
    if (mount < 0) Exit(static_cast<int>(-mount));
    const long moved =
        Call(__NR_move_mount, mount, "", root, "sys", MOVE_MOUNT_F_EMPTY_PATH);
    Exit(static_cast<int>(-moved));
  }
  int status = 0;
  const long waited = Call(__NR_wait4, pid, &status, 0, 0L);
  if (waited != pid || (status & 0x7f) != 0) return -ECHILD;
  return -(status >> 8 & 0xff);
}

// To the namespace's root, from wherever the host was chrooted to. Otherwise
// the machine's mounts would remain above the launcher's own, within reach of a
// container that may chroot: ".." from outside of one's root goes up to there.
// `elsewhere` is a mount that contains neither.
long LeaveChroot(long elsewhere) {
  const long old =
      Call(__NR_openat, kCwd, "/", O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
  if (old < 0) return old;
  long result = Call(__NR_fchdir, elsewhere);
  if (result >= 0) result = Call(__NR_chroot, ".");
  if (result >= 0) result = Call(__NR_fchdir, old);
  // PATH_MAX / 2 directories. In the root, ".." is the root.
  constexpr char kUp[] =
      "../../../../../../../../../../../../../../../../"
      "../../../../../../../../../../../../../../../../";
  for (int i = 0; result >= 0 && i < 64; ++i) result = Call(__NR_chdir, kUp);
  if (result >= 0) result = Call(__NR_chroot, ".");
  Call(__NR_close, old);
  return result;
}

long EnterRoot(long root) {
  long result =
      Call(__NR_move_mount, root, "", kCwd, "/", MOVE_MOUNT_F_EMPTY_PATH);
  if (result < 0) return result;
  result = Call(__NR_fchdir, root);
  if (result < 0) return result;
  constexpr unsigned kAttributes =
      MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
  result = MountProcfs(root, kAttributes);
  if (result < 0) return result;
  result = MountSysfs(root, kAttributes);
  if (result < 0) return result;
  result = Call(__NR_pivot_root, ".", ".");
  if (result < 0) return result;
  result = Call(__NR_umount2, ".", kMntDetach);
  if (result < 0) return result;
  return Call(__NR_chdir, "/");
}

}  // namespace

int IsolateMounts() {
  long result = Call(__NR_unshare, CLONE_NEWNS);
  if (result < 0) return static_cast<int>(-result);
  const long root = NewMount("tmpfs", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
  if (root < 0) return static_cast<int>(-root);
  result = LeaveChroot(root);
  if (result >= 0) {
    result = Call(__NR_mount, 0L, "/", 0L, kPrivate | kRecursive, 0L);
  }
  if (result >= 0) result = EnterRoot(root);
  Call(__NR_close, root);
  return result < 0 ? static_cast<int>(-result) : 0;
}

}  // namespace caisson::launcher
