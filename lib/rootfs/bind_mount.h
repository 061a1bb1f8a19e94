// One bind mount: its source opened, and the detached mount made of it.
//
// Knows nothing of trees, so that what mounts into a container that runs
// already can use it as well. Thread-compatible.
#ifndef CAISSON_LIB_ROOTFS_BIND_MOUNT_H_
#define CAISSON_LIB_ROOTFS_BIND_MOUNT_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/mount.h"
#include "caisson/unique_fd.h"
#include "lib/sys/mount.h"

namespace caisson::rootfs {

// That `bind` has exactly one source and, if it is a path, an absolute one.
// `field` names the option in errors, here and below: "RootFsOptions.binds[2]".
absl::Status CheckBindSource(const BindMount& bind, absl::string_view field);

// Opens the source with O_PATH; a source_fd is duplicated. `covered` is what
// BindMount::open_source() gets.
absl::StatusOr<UniqueFd> OpenBindSource(const BindMount& bind,
                                        BorrowedFd covered,
                                        absl::string_view field);

// A detached mount of `source` with all that `bind` asks for: flags,
// propagation, ids.
absl::StatusOr<UniqueFd> MakeBindMount(const sys::MountExecutor& mounts,
                                       const BindMount& bind, BorrowedFd source,
                                       absl::string_view field);

// `bind` for another root: instead of its path, a function that opens the path
// and refuses anything but what `source` is now.
absl::StatusOr<BindMount> PinSource(const BindMount& bind, BorrowedFd source);

}  // namespace caisson::rootfs

#endif  // CAISSON_LIB_ROOTFS_BIND_MOUNT_H_
