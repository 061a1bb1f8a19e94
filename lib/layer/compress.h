// Compression of layer blobs; the other way of decompress.h.
#ifndef CAISSON_LIB_LAYER_COMPRESS_H_
#define CAISSON_LIB_LAYER_COMPRESS_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "caisson/unique_fd.h"
#include "lib/layer/byte_source.h"
#include "lib/layer/decompress.h"
#include "lib/layer/digest.h"

namespace caisson::layer {

struct CompressedBlob {
  Digest digest;
  uint64_t size = 0;
};

// Reads `source` to its end and writes it to `fd`, compressed: one gzip member
// (RFC 1952) without name and time, or one zstd frame (RFC 8878) with a
// checksum. Thread-safe.
absl::StatusOr<CompressedBlob> CompressTo(ByteSource& source, BorrowedFd fd,
                                          Compression compression);

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_COMPRESS_H_
