// SELinux labels for whole mounts (mount(8), "context"). Thread-safe functions.
#ifndef CAISSON_LIB_ROOTFS_MOUNT_LABEL_H_
#define CAISSON_LIB_ROOTFS_MOUNT_LABEL_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "lib/sys/mount.h"

namespace caisson::rootfs {

// INVALID_ARGUMENT for what can be no label, FAILED_PRECONDITION unless
// `file_systems`, the text of /proc/filesystems, says that SELinux is on.
absl::Status CheckLabel(const std::string& label,
                        absl::string_view file_systems);
// The same for this kernel. An empty label is fine everywhere.
absl::Status CheckMountLabel(const std::string& label);

// Sets the label, unless it is empty, of a file system that is being made.
absl::Status SetLabel(sys::FsContext& file_system, const std::string& label);

// The same as text for mount(2): "" or ",context=\"...\"".
std::string LabelOption(const std::string& label);

}  // namespace caisson::rootfs

#endif  // CAISSON_LIB_ROOTFS_MOUNT_LABEL_H_
