// The upper and work directory of an overlay, where the kernel takes them.
#ifndef CAISSON_LIB_ROOTFS_WRITABLE_PAIR_H_
#define CAISSON_LIB_ROOTFS_WRITABLE_PAIR_H_

#include "absl/status/statusor.h"
#include "caisson/unique_fd.h"
#include "lib/sys/mount.h"

namespace caisson::rootfs {

struct WritablePair {
  UniqueFd mount;  // detached; both lie in it
  UniqueFd upper;
  UniqueFd work;
};

// overlayfs wants both on one mount, and that in the mount namespace of the
// caller or detached. For a caller in another namespace than the host's:
// detaches a copy of the directory that both are entries of.
// FAILED_PRECONDITION if there is no such directory.
absl::StatusOr<WritablePair> DetachWritablePair(
    const sys::MountExecutor& mounts, BorrowedFd upper, BorrowedFd work);

}  // namespace caisson::rootfs

#endif  // CAISSON_LIB_ROOTFS_WRITABLE_PAIR_H_
