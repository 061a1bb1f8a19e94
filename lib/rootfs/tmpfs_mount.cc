#include "lib/rootfs/tmpfs_mount.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "lib/base/status_macros.h"
#include "lib/rootfs/mount_label.h"
#include "lib/sys/copy_tree.h"

namespace caisson::rootfs {

absl::StatusOr<UniqueFd> MountTmpfs(const sys::MountExecutor& mounts,
                                    const TmpfsMount& wanted,
                                    const char* source, const Owner& owner,
                                    const std::string& label,
                                    BorrowedFd content) {
  ASSIGN_OR_RETURN(sys::FsContext tmpfs, sys::FsContext::Open(mounts, "tmpfs"));
  RETURN_IF_ERROR(tmpfs.SetString("source", source));
  RETURN_IF_ERROR(tmpfs.SetString("mode", absl::StrFormat("%o", wanted.mode)));
  RETURN_IF_ERROR(SetLabel(tmpfs, label));
  if (wanted.size_bytes != 0) {
    RETURN_IF_ERROR(tmpfs.SetString("size", absl::StrCat(wanted.size_bytes)));
  }
  if (wanted.max_inodes != 0) {
    RETURN_IF_ERROR(
        tmpfs.SetString("nr_inodes", absl::StrCat(wanted.max_inodes)));
  }
  if (!owner.is_root()) {
    RETURN_IF_ERROR(tmpfs.SetString("uid", absl::StrCat(owner.uid)));
    RETURN_IF_ERROR(tmpfs.SetString("gid", absl::StrCat(owner.gid)));
  }
  const unsigned attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV |
                              (wanted.executable ? 0 : MOUNT_ATTR_NOEXEC);
  const unsigned read_only = wanted.read_only ? MOUNT_ATTR_RDONLY : 0;
  if (!content.valid()) return tmpfs.Mount(attributes | read_only);
  ASSIGN_OR_RETURN(UniqueFd mount, tmpfs.Mount(attributes));
  RETURN_IF_ERROR(sys::CopyTree(content, mount.borrow()));
  if (wanted.read_only) {
    const mount_attr change = {.attr_set = MOUNT_ATTR_RDONLY};
    RETURN_IF_ERROR(sys::SetMountAttributes(mounts, mount.borrow(), change,
                                            /*recursive=*/false, source));
  }
  return mount;
}

}  // namespace caisson::rootfs
