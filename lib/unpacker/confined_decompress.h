// Decompression in a confined process.
#ifndef CAISSON_LIB_UNPACKER_CONFINED_DECOMPRESS_H_
#define CAISSON_LIB_UNPACKER_CONFINED_DECOMPRESS_H_

#include <memory>

#include "absl/status/statusor.h"
#include "lib/layer/byte_source.h"
#include "lib/layer/decompress.h"
#include "lib/unpacker/confined_process.h"

namespace caisson::unpacker {

// As layer::Decompress(). What is not compressed needs no process: nothing of
// it is decoded. The arguments must outlive the result.
absl::StatusOr<std::unique_ptr<layer::DecompressedSource>> ConfinedDecompress(
    const Confinement& confinement, layer::ByteSource& compressed,
    const layer::DecompressOptions& options);

}  // namespace caisson::unpacker

#endif  // CAISSON_LIB_UNPACKER_CONFINED_DECOMPRESS_H_
