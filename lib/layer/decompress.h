// Decompression of layer blobs: gzip, zstd, xz, bzip2 or none, told by content.
//
//   ASSIGN_OR_RETURN(auto tar, Decompress(blob, {.max_output_bytes = limit}));
//   ... tar->Read(buffer) ...
//
// gzip (RFC 1952): any number of members; CRC and length of each are checked;
// zero padding behind the last one is accepted as gzip(1) does, and other bytes
// there are an error as in Go's compress/gzip (Docker, containerd). zstd (RFC
// 8878): any number of frames and skippable frames, also leading ones; content
// checksums are checked where present; a frame that needs a dictionary is
// refused. xz and bzip2: any number of streams, xz with padding behind each,
// with the checks that they have. Anything else is passed through as it is.
//
// The returned source answers 0 only when the compressed source has ended too,
// so a digest around the compressed source covers every byte of it. A stream
// that stops in the middle is DATA_LOSS and says so; an invalid one is
// INVALID_ARGUMENT with the offset; passing a limit is RESOURCE_EXHAUSTED.
#ifndef CAISSON_LIB_LAYER_DECOMPRESS_H_
#define CAISSON_LIB_LAYER_DECOMPRESS_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "lib/layer/byte_source.h"

namespace caisson::layer {

class Inflater;
class Unpacker;

enum class Compression { kNone, kGzip, kZstd, kXz, kBzip2 };

// Of a stream that begins with `head`, of which the first kCompressionMagic
// bytes count.
inline constexpr size_t kCompressionMagic = 10;
Compression CompressionOf(absl::string_view head);

struct DecompressOptions {
  // Decompressed bytes. A bomb stops here, not at a full disk.
  uint64_t max_output_bytes = uint64_t{64} << 30;
  // What errors call this limit: the option that the user has set.
  const char* max_output_bytes_name = "max_output_bytes";
  // Decompressed bytes for each compressed one, beyond the first
  // kFreeOutputBytes. Runs of zeros do not count, in whole steps of 4 KiB:
  // whoever writes the output makes holes of them. 0: any.
  uint64_t max_compression_ratio = 0;
  // zstd and xz: the largest window, which is the memory of the decoder. zstd's
  // are powers of two.
  uint64_t max_window_bytes = uint64_t{128} << 20;
  // If set, does it instead of this process (unpacker.h).
  const Unpacker* unpacker = nullptr;
};

// Small things may be as repetitive as they like.
inline constexpr uint64_t kFreeOutputBytes = uint64_t{64} << 20;

// The decompressed stream; remembers what it found.
class DecompressedSource : public ByteSource {
 public:
  virtual Compression compression() const = 0;
};

// Reads the beginning of `compressed` to recognise it, then decompresses on
// demand. `compressed` must outlive the result. Thread-compatible.
absl::StatusOr<std::unique_ptr<DecompressedSource>> Decompress(
    ByteSource& compressed, const DecompressOptions& options);

// The same in this process, with another library for gzip (inflater.h).
absl::StatusOr<std::unique_ptr<DecompressedSource>> DecompressWith(
    ByteSource& compressed, const DecompressOptions& options,
    std::unique_ptr<Inflater> (*make_inflater)());

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_DECOMPRESS_H_
