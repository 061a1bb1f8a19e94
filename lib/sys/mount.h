// The kernel's mount interface by descriptor: fsopen(2), fsmount(2),
// open_tree(2), move_mount(2), mount_setattr(2).
//
// Everything here makes or changes detached mounts: they are in no mount
// namespace, and the descriptor that refers to one is all that keeps it.
// Thread-compatible.
#ifndef CAISSON_LIB_SYS_MOUNT_H_
#define CAISSON_LIB_SYS_MOUNT_H_

#include <linux/mount.h>
#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/unique_fd.h"

namespace caisson::sys {

// open_tree_attr(2), Linux 6.15; the number is the same on every architecture.
inline constexpr long kSysOpenTreeAttr = 467;

// umount2(2); <sys/mount.h> clashes with <linux/mount.h>.
inline constexpr int kMntDetach = 2;

// What a mount system call returned: a descriptor, if it is one that does, or
// an errno. Or it could not be made at all, and `failure` says why.
struct MountResult {
  UniqueFd fd;
  int error = 0;
  absl::Status failure;

  bool ok() const { return error == 0 && failure.ok(); }
};

// Makes the system calls that need CAP_SYS_ADMIN in the user namespace that
// owns the caller's mount namespace: in this process, or in one that has it.
// Thread-safe.
class MountExecutor {
 public:
  virtual ~MountExecutor() = default;

  // fsopen(2).
  virtual MountResult OpenContext(const char* type) const = 0;
  // fsconfig(2) with FSCONFIG_CMD_CREATE and fsmount(2); `*call` is the one
  // that was made last.
  virtual MountResult CreateMount(BorrowedFd context, unsigned attributes,
                                  const char** call) const = 0;
  // open_tree(2) with `flags`.
  virtual MountResult OpenTree(BorrowedFd dir, const char* path,
                               unsigned flags) const = 0;
  // The same of a mount in the host's mount namespace.
  virtual MountResult OpenHostTree(BorrowedFd dir, const char* path,
                                   unsigned flags) const = 0;
  // Attaches clones of the entries `names` of the host's directory `from` at
  // the entries of the same names of `to`, with kHostNode.
  virtual MountResult BindHostFiles(BorrowedFd from,
                                    const std::vector<std::string>& names,
                                    BorrowedFd to) const = 0;
  // mount_setattr(2) with AT_EMPTY_PATH and `flags`.
  virtual MountResult SetAttributes(BorrowedFd mount,
                                    const mount_attr& attributes,
                                    unsigned flags) const = 0;
  // move_mount(2) of `mount` to the file or directory that `target` refers to.
  virtual MountResult Attach(BorrowedFd mount, BorrowedFd target) const = 0;

  // Whether it lives in a user namespace that the host is not in: overlayfs
  // keeps its marks in other extended attributes there, and takes the host's
  // directories only as detached mounts.
  virtual bool in_user_namespace() const { return false; }
  // Whether that has a group of this number.
  virtual bool HasGroup(gid_t group) const {
    static_cast<void>(group);
    return true;
  }
};

// In this process. Never destroyed.
const MountExecutor& DirectMounts();

// A file system that is being configured.
//
//   ASSIGN_OR_RETURN(FsContext tmpfs, FsContext::Open(DirectMounts(),
//   "tmpfs")); RETURN_IF_ERROR(tmpfs.SetString("size", "65536"));
//   ASSIGN_OR_RETURN(UniqueFd mount, tmpfs.Mount(MOUNT_ATTR_NOSUID));
//
// Errors carry what the file system logged to the context (Linux 5.2: "overlay:
// No changes allowed in reconfigure").
class FsContext final {
 public:
  // `mounts` must outlive the context.
  static absl::StatusOr<FsContext> Open(const MountExecutor& mounts,
                                        const char* type);

  absl::Status SetString(const char* key, const std::string& value);
  absl::Status SetFlag(const char* key);
  // `what` names the object in errors.
  absl::Status SetFd(const char* key, BorrowedFd fd, absl::string_view what);

  // Creates the superblock and a detached mount of it.
  absl::StatusOr<UniqueFd> Mount(unsigned attributes);

 private:
  FsContext(const MountExecutor& mounts, UniqueFd fd, const char* type)
      : mounts_(&mounts), fd_(std::move(fd)), type_(type) {}

  absl::Status Error(int error, const std::string& call) const;

  const MountExecutor* mounts_;
  UniqueFd fd_;
  const char* type_;
};

// A detached copy of the mount at `path` below `dir` or, for an empty path, at
// `dir` itself; `what` names it in errors. A final symbolic link is not
// followed. With `recursive`, of what is mounted below it, too.
//
// CloneMount() is for detached mounts, CloneHostMount() for what the host sees
// (AT_FDCWD allowed).
absl::StatusOr<UniqueFd> CloneMount(const MountExecutor& mounts, BorrowedFd dir,
                                    const char* path, bool recursive,
                                    absl::string_view what);
absl::StatusOr<UniqueFd> CloneHostMount(const MountExecutor& mounts,
                                        BorrowedFd dir, const char* path,
                                        bool recursive, absl::string_view what);

// Of the host's device nodes, as a container has them: on a read-only mount
// everything can be done with the device, and nothing with the node's owner and
// mode, which are the host's.
inline constexpr mount_attr kHostNode = {
    .attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC,
    .attr_clr = MOUNT_ATTR_NODEV,
    .propagation = MS_PRIVATE};

// mount_setattr(2) on the mount that `mount` refers to the root of.
absl::Status SetMountAttributes(const MountExecutor& mounts, BorrowedFd mount,
                                const mount_attr& attributes, bool recursive,
                                absl::string_view what);

}  // namespace caisson::sys

#endif  // CAISSON_LIB_SYS_MOUNT_H_
