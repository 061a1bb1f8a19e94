// Making files of a tar in a confined process.
#ifndef CAISSON_LIB_UNPACKER_CONFINED_UNPACK_H_
#define CAISSON_LIB_UNPACKER_CONFINED_UNPACK_H_

#include <memory>

#include "absl/status/statusor.h"
#include "caisson/unique_fd.h"
#include "lib/layer/unpack.h"
#include "lib/unpacker/confined_process.h"

namespace caisson::unpacker {

// As layer::LayerUnpack::Open(). `confinement` must outlive the result.
absl::StatusOr<std::unique_ptr<layer::LayerUnpack>> OpenConfinedUnpack(
    const Confinement& confinement, BorrowedFd dir,
    const layer::UnpackOptions& options);

}  // namespace caisson::unpacker

#endif  // CAISSON_LIB_UNPACKER_CONFINED_UNPACK_H_
