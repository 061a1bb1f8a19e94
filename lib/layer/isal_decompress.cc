// Decompress() as a host has it.
#include "lib/layer/decompress.h"
#include "lib/layer/inflater.h"
#include "lib/layer/unpacker.h"

namespace caisson::layer {

absl::StatusOr<std::unique_ptr<DecompressedSource>> Decompress(
    ByteSource& compressed, const DecompressOptions& options) {
  if (options.unpacker != nullptr) {
    return options.unpacker->Decompress(compressed, options);
  }
  return DecompressWith(compressed, options, MakeIsalInflater);
}

}  // namespace caisson::layer
