// Sealed layers: fs-verity on every file, and one digest of all that it says.
//
// With fs-verity the kernel keeps a hash tree of a file and gives no byte of it
// that does not fit; the file cannot be written to for good. The seal of a
// layer is the SHA-256 of its names, attributes and the measured digests of its
// files, tar-split included. So whether a layer is what it was is known without
// reading it. The format is in doc/layer-store.md. Thread-safe functions.
#ifndef CAISSON_LIB_LAYER_LAYER_SEAL_H_
#define CAISSON_LIB_LAYER_LAYER_SEAL_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "caisson/unique_fd.h"

namespace caisson::layer {

// FAILED_PRECONDITION unless files in `dir`, a directory of one's own, can have
// fs-verity: says what the file system or the kernel lacks.
absl::Status CheckVerity(BorrowedFd dir);

// Enables fs-verity for every file of `layer`, the directory that has "diff"
// and "tar-split", and returns the seal. What is sealed already stays so.
absl::StatusOr<std::string> SealLayer(BorrowedFd layer);

// The seal that the layer has now. FAILED_PRECONDITION names a file without
// fs-verity.
absl::StatusOr<std::string> SealOfLayer(BorrowedFd layer);

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_LAYER_SEAL_H_
