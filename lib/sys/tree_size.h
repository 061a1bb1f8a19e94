// How much a directory tree takes on disk.
#ifndef CAISSON_LIB_SYS_TREE_SIZE_H_
#define CAISSON_LIB_SYS_TREE_SIZE_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "caisson/unique_fd.h"

namespace caisson::sys {

struct TreeSize {
  uint64_t bytes = 0;  // blocks on disk; a file with several names counts once
  uint64_t files = 0;  // of every kind, with the directory itself
};

// Follows no symbolic link, enters no mount, and takes two descriptors whatever
// the depth. What changes meanwhile may be counted or not; ABORTED if a
// directory is moved away while it is looked at. Thread-safe.
absl::StatusOr<TreeSize> SizeOfTree(BorrowedFd dir);

}  // namespace caisson::sys

#endif  // CAISSON_LIB_SYS_TREE_SIZE_H_
