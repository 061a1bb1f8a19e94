// Whether two layers on disk are the same.
#ifndef CAISSON_LIB_LAYER_TREE_COMPARE_H_
#define CAISSON_LIB_LAYER_TREE_COMPARE_H_

#include <string>

#include "absl/status/statusor.h"
#include "caisson/unique_fd.h"

namespace caisson::layer {

// The first difference of two trees, in words; empty if there is none. Compares
// names, types, owners, modes, times of change, sizes, numbers of links,
// targets, device numbers and extended attributes as they are on disk, but no
// data of files, and of whiteouts only that they are there. Follows no links
// and enters no mounts. Thread-safe.
absl::StatusOr<std::string> FirstDifference(BorrowedFd expected,
                                            BorrowedFd actual);

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_TREE_COMPARE_H_
