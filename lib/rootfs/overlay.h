// The root mount itself: an overlay of layers, or a copy of the one layer.
//
// Linux Documentation/filesystems/overlayfs.rst. Thread-compatible.
#ifndef CAISSON_LIB_ROOTFS_OVERLAY_H_
#define CAISSON_LIB_ROOTFS_OVERLAY_H_

#include <vector>

#include "absl/status/statusor.h"
#include "caisson/root_fs.h"
#include "caisson/unique_fd.h"
#include "lib/rootfs/scratch.h"

namespace caisson::rootfs {

// How overlayfs is told its layers.
enum class LayerSyntax {
  kDescriptors,  // FSCONFIG_SET_FD "lowerdir+": Linux 6.13
  kStrings,      // "lowerdir+=/proc/thread-self/fd/N": Linux 6.5
  kJoined,       // "lowerdir=a:b": the whole list is at most 255 bytes
};

struct RootMount {
  UniqueFd mount;
  bool is_clone = false;  // of the one layer
  // The mounts that show the layers, if others than the host's do. Closing one
  // while it is detached waits for an RCU grace period: attach them to
  // something that ends anyway.
  std::vector<UniqueFd> layers;
};

// Mounts the root of `options`, detached, with writes to `writes` (which may
// differ from options.writes). kTmpfs puts the upper directory into `scratch`.
// Tries the layer syntaxes from `first` on until the kernel knows one.
absl::StatusOr<RootMount> MountRoot(const sys::MountExecutor& mounts,
                                    const RootFsOptions& options,
                                    RootWrites writes, LayerSyntax first,
                                    Scratch& scratch);

}  // namespace caisson::rootfs

#endif  // CAISSON_LIB_ROOTFS_OVERLAY_H_
