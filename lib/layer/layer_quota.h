// The limit of a writable layer: a project of its file system, which its
// directory and all that is made in it belong to.
//
// Which project it is, is written on the directory itself, and which are taken
// is what the kernel counts: no record that could be wrong, and no lock.
// Thread-safe, also against other processes and stores of the file system.
#ifndef CAISSON_LIB_LAYER_LAYER_QUOTA_H_
#define CAISSON_LIB_LAYER_LAYER_QUOTA_H_

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "caisson/unique_fd.h"
#include "lib/sys/project_quota.h"

namespace caisson::layer {

// Gives `layer`, an empty directory, a project that no other file has, with
// these limits (0: none).
absl::Status LimitLayer(BorrowedFd layer, uint64_t max_bytes,
                        uint64_t max_files);

// nullopt if the directory has no project that LimitLayer gave it.
absl::StatusOr<std::optional<sys::ProjectQuota>> QuotaOfLayer(BorrowedFd layer);

// Takes the limits of the project away. Call before the directory is removed:
// with its last file the project is free again.
absl::Status ReleaseLayer(BorrowedFd layer);

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_LAYER_QUOTA_H_
