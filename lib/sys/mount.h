// The kernel's mount interface by descriptor: fsopen(2), fsmount(2),
// open_tree(2), move_mount(2), mount_setattr(2).
//
// Everything here makes or changes detached mounts: they are in no mount
// namespace, and the descriptor that refers to one is all that keeps it.
// Thread-compatible.
#ifndef CAISSON_LIB_SYS_MOUNT_H_
#define CAISSON_LIB_SYS_MOUNT_H_

#include <linux/mount.h>

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/unique_fd.h"

namespace caisson::sys {

// open_tree_attr(2), Linux 6.15; the number is the same on every architecture.
inline constexpr long kSysOpenTreeAttr = 467;

// umount2(2); <sys/mount.h> clashes with <linux/mount.h>.
inline constexpr int kMntDetach = 2;

// A file system that is being configured.
//
//   ASSIGN_OR_RETURN(FsContext tmpfs, FsContext::Open("tmpfs"));
//   RETURN_IF_ERROR(tmpfs.SetString("size", "65536"));
//   ASSIGN_OR_RETURN(UniqueFd mount, tmpfs.Mount(MOUNT_ATTR_NOSUID));
//
// Errors carry what the file system logged to the context (Linux 5.2: "overlay:
// No changes allowed in reconfigure").
class FsContext final {
 public:
  static absl::StatusOr<FsContext> Open(const char* type);

  absl::Status SetString(const char* key, const std::string& value);
  absl::Status SetFlag(const char* key);
  // `what` names the object in errors.
  absl::Status SetFd(const char* key, BorrowedFd fd, absl::string_view what);

  // Creates the superblock and a detached mount of it.
  absl::StatusOr<UniqueFd> Mount(unsigned attributes);

 private:
  FsContext(UniqueFd fd, const char* type) : fd_(std::move(fd)), type_(type) {}

  absl::Status Error(int error, const std::string& call) const;

  UniqueFd fd_;
  const char* type_;
};

// A detached copy of the mount at `path` below `dir` (AT_FDCWD allowed) or, for
// an empty path, at `dir` itself; `what` names it in errors. A final symbolic
// link is not followed. With `recursive`, of what is mounted below it, too.
absl::StatusOr<UniqueFd> CloneMount(BorrowedFd dir, const char* path,
                                    bool recursive, absl::string_view what);

// mount_setattr(2) on the mount that `mount` refers to the root of.
absl::Status SetMountAttributes(BorrowedFd mount, const mount_attr& attributes,
                                bool recursive, absl::string_view what);

// Attaches `mount` at the file or directory that `target` refers to. The errno
// is 0 or that of move_mount(2): the caller knows what it means.
int AttachMount(BorrowedFd mount, BorrowedFd target);

}  // namespace caisson::sys

#endif  // CAISSON_LIB_SYS_MOUNT_H_
