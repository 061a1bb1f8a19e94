// The device nodes that the options ask for. Thread-compatible.
#ifndef CAISSON_LIB_ROOTFS_DEVICES_H_
#define CAISSON_LIB_ROOTFS_DEVICES_H_

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/root_fs.h"
#include "caisson/unique_fd.h"
#include "lib/rootfs/layout.h"
#include "lib/rootfs/scratch.h"
#include "lib/sys/mount.h"

namespace caisson::rootfs {

// INVALID_ARGUMENT for a path outside of /dev, one that RootFs needs itself,
// one that a mount hides, and for anything but one source. Opens nothing.
absl::Status CheckDevices(const RootFsOptions& options,
                          const std::vector<Mount>& mounts);

// A node that could not be made, because the kernel does not let this process:
// the host's node, to be bound over a file that stands in its place.
struct BoundDevice {
  UniqueFd mount;   // detached
  UniqueFd target;  // in /dev
  std::string path;
};

// Makes the nodes in `dev`, the new directory that nobody else has. `bind`: as
// if the kernel refused (tests).
absl::StatusOr<std::vector<BoundDevice>> MakeDevices(
    const sys::MountExecutor& mounts, const std::vector<DeviceNode>& devices,
    BorrowedFd dev, const Owner& owner, bool bind);

}  // namespace caisson::rootfs

#endif  // CAISSON_LIB_ROOTFS_DEVICES_H_
