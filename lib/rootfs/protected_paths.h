// Which paths of /proc and /sys are masked or read-only.
#ifndef CAISSON_LIB_ROOTFS_PROTECTED_PATHS_H_
#define CAISSON_LIB_ROOTFS_PROTECTED_PATHS_H_

#include "absl/status/status.h"
#include "caisson/root_fs.h"
#include "lib/rootfs/layout.h"

namespace caisson::rootfs {

// Fills layout.masked and layout.read_only. INVALID_ARGUMENT names the option
// that is wrong.
absl::Status AddProtectedPaths(const RootFsOptions& options, Layout& layout);

}  // namespace caisson::rootfs

#endif  // CAISSON_LIB_ROOTFS_PROTECTED_PATHS_H_
