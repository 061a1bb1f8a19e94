// Who decodes the bytes of layers, if that is not to be done in this process:
// LayerStoreOptions::unpacker. What it does and answers is what the functions
// of decompress.h and unpack.h do and answer; these call it when their options
// name one. See include/caisson/confined_unpacker.h.
#ifndef CAISSON_LIB_LAYER_UNPACKER_H_
#define CAISSON_LIB_LAYER_UNPACKER_H_

#include <memory>

#include "absl/status/statusor.h"
#include "caisson/unique_fd.h"
#include "lib/layer/byte_source.h"
#include "lib/layer/decompress.h"
#include "lib/layer/unpack.h"

namespace caisson::layer {

// Thread-safe.
class Unpacker {
 public:
  virtual ~Unpacker() = default;

  // Decompress().
  virtual absl::StatusOr<std::unique_ptr<DecompressedSource>> Decompress(
      ByteSource& compressed, const DecompressOptions& options) const = 0;

  // LayerUnpack::Open().
  virtual absl::StatusOr<std::unique_ptr<LayerUnpack>> Open(
      BorrowedFd dir, const UnpackOptions& options) const = 0;
};

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_UNPACKER_H_
