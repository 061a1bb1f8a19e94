// The names in a directory.
#ifndef CAISSON_LIB_LAYER_DIR_NAMES_H_
#define CAISSON_LIB_LAYER_DIR_NAMES_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "caisson/unique_fd.h"

namespace caisson::layer {

// All but "." and "..", unsorted. Reads through a descriptor of its own, so the
// position of `dir` stays; `dir` may be O_PATH. Thread-safe.
absl::StatusOr<std::vector<std::string>> NamesIn(BorrowedFd dir);

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_DIR_NAMES_H_
