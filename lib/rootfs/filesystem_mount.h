// A FilesystemMount as a detached mount. Thread-compatible.
#ifndef CAISSON_LIB_ROOTFS_FILESYSTEM_MOUNT_H_
#define CAISSON_LIB_ROOTFS_FILESYSTEM_MOUNT_H_

#include <string>

#include "absl/status/statusor.h"
#include "caisson/mount.h"
#include "caisson/unique_fd.h"
#include "lib/rootfs/scratch.h"
#include "lib/sys/mount.h"

namespace caisson::rootfs {

// `label` is RootFsOptions::mount_label and meant for file systems in memory;
// `content`, if valid, the directory that a tmpfs begins with a copy of.
absl::StatusOr<UniqueFd> MountFilesystem(const sys::MountExecutor& mounts,
                                         const FilesystemMount& wanted,
                                         const Owner& owner,
                                         const std::string& label,
                                         BorrowedFd content);

}  // namespace caisson::rootfs

#endif  // CAISSON_LIB_ROOTFS_FILESYSTEM_MOUNT_H_
