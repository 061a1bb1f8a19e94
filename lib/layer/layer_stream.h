// A layer on its way out of an archive: file -> sha256 -> inflate -> sha256 ->
// tar, in one pass.
//
//   ASSIGN_OR_RETURN(auto stream, LayerStream::Open(archive, layer, limits,
//   false)); ASSIGN_OR_RETURN(UnpackStats stats, UnpackLayer(stream->tar(),
//   dir, {})); RETURN_IF_ERROR(stream->Verify());
//
// Thread-compatible.
#ifndef CAISSON_LIB_LAYER_LAYER_STREAM_H_
#define CAISSON_LIB_LAYER_LAYER_STREAM_H_

#include <cstdint>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "lib/layer/archived_image.h"
#include "lib/layer/byte_source.h"
#include "lib/layer/decompress.h"
#include "lib/layer/hashing_source.h"
#include "lib/layer/image_archive.h"
#include "lib/layer/read_ahead.h"

namespace caisson::layer {

class LayerStream final {
 public:
  // `archive` and `layer` must outlive the stream. With `threaded`, a thread
  // reads, decompresses and hashes ahead of the consumer.
  static absl::StatusOr<std::unique_ptr<LayerStream>> Open(
      const ImageArchive& archive, const ArchivedLayer& layer,
      const DecompressOptions& limits, bool threaded);

  LayerStream(const LayerStream&) = delete;
  LayerStream& operator=(const LayerStream&) = delete;

  // The uncompressed tar.
  ByteSource& tar() {
    return ahead_.has_value() ? static_cast<ByteSource&>(*ahead_) : *tar_hash_;
  }

  // Reads what is left, then compares both digests with what the image claims.
  // A mismatch is DATA_LOSS and names both digests and the file. Call once.
  absl::Status Verify();

  // Bytes of the file that have been read. Thread-safe.
  uint64_t bytes_read() const { return blob_hash_.count(); }

 private:
  LayerStream(const ArchivedLayer& layer, std::unique_ptr<ArchiveFile> file);

  // Hashing the blob again would be hashing the tar again.
  static bool IsPlainTar(const ArchivedLayer& layer) {
    return layer.blob_digest == layer.diff_id;
  }

  const ArchivedLayer& layer_;
  std::unique_ptr<ArchiveFile> file_;
  HashingSource blob_hash_;
  std::unique_ptr<DecompressedSource> inflated_;
  std::optional<HashingSource> tar_hash_;
  std::optional<ReadAhead> ahead_;  // last: its thread uses the others
};

// Why unpacking `layer` failed with `failure`: if its file is not what the
// image claims, DATA_LOSS that names both digests; otherwise `failure` with the
// file's name.
absl::Status ExplainFailure(const ImageArchive& archive,
                            const ArchivedLayer& layer,
                            const DecompressOptions& limits,
                            const absl::Status& failure);

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_LAYER_STREAM_H_
