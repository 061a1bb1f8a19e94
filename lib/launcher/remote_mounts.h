// Mount system calls in the user namespace of a launcher, for a host that has
// no privileges.
//
// The kernel asks for CAP_SYS_ADMIN in the user namespace that owns the mount
// namespace of the caller. A host with threads cannot enter a user namespace,
// so children of the launcher make the calls and send the descriptors back;
// what needs no privilege (fsconfig(2) but for its last step, look-ups in the
// detached trees, making files) the host does itself.
#ifndef CAISSON_LIB_LAUNCHER_REMOTE_MOUNTS_H_
#define CAISSON_LIB_LAUNCHER_REMOTE_MOUNTS_H_

#include <string>
#include <vector>

#include "caisson/launcher_options.h"
#include "lib/launcher/session.h"
#include "lib/sys/mount.h"

namespace caisson::launcher {

// Each call is one child: 0.1 to 0.3 ms. Thread-safe.
class RemoteMounts final : public sys::MountExecutor {
 public:
  // `launcher` and `mounts` as Session::InUserNamespace has them.
  RemoteMounts(Session launcher, Session mounts, LauncherIdentity identity);

  sys::MountResult OpenContext(const char* type) const override;
  sys::MountResult CreateMount(BorrowedFd context, unsigned attributes,
                               const char** call) const override;
  sys::MountResult OpenTree(BorrowedFd dir, const char* path,
                            unsigned flags) const override;
  // A mount can be cloned in its own mount namespace only, and in the host's
  // nothing can be cloned from within a user namespace. The child therefore
  // makes the directory its working directory and then unshares: the kernel
  // moves that to the same place of the copy. A file is found again by its name
  // in its directory and has to be the same one.
  sys::MountResult OpenHostTree(BorrowedFd dir, const char* path,
                                unsigned flags) const override;
  sys::MountResult BindHostFiles(BorrowedFd from,
                                 const std::vector<std::string>& names,
                                 BorrowedFd to) const override;
  sys::MountResult SetAttributes(BorrowedFd mount, const mount_attr& attributes,
                                 unsigned flags) const override;
  sys::MountResult Attach(BorrowedFd mount, BorrowedFd target) const override;

  bool in_user_namespace() const override { return true; }
  bool HasGroup(gid_t group) const override;

 private:
  const Session launcher_;
  const Session mounts_;
  const LauncherIdentity identity_;
};

}  // namespace caisson::launcher

#endif  // CAISSON_LIB_LAUNCHER_REMOTE_MOUNTS_H_
