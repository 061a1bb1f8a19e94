// A layer on its way out of an archive: file -> sha256 -> inflate -> sha256 ->
// tar, in one pass.
//
//   ASSIGN_OR_RETURN(auto stream, LayerStream::Open(archive, layer, limits));
//   RETURN_IF_ERROR(unpack->Apply(stream->tar()));
//   RETURN_IF_ERROR(stream->Verify());
//
// Thread-compatible.
#ifndef CAISSON_LIB_LAYER_LAYER_STREAM_H_
#define CAISSON_LIB_LAYER_LAYER_STREAM_H_

#include <cstdint>
#include <memory>
#include <optional>

#include "absl/functional/function_ref.h"
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
  // More threads have nothing to do.
  static constexpr int kMaxThreads = 2;

  // `archive` and `layer` must outlive the stream. With one thread, that reads,
  // decompresses and hashes ahead of the consumer; with two, the second hashes
  // the tar.
  static absl::StatusOr<std::unique_ptr<LayerStream>> Open(
      const ImageArchive& archive, const ArchivedLayer& layer,
      const DecompressOptions& limits, int threads = 0);

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
  Sha256 apart_;                    // the digest of the tar, with two threads
  std::optional<ReadAhead> ahead_;  // last: its threads use the others
};

// Why unpacking `layer` failed with `failure`: if its file is not what the
// image claims, DATA_LOSS that names both digests; otherwise `failure` with the
// file's name. May read all of the file; an error of `check`, called about once
// per MiB of it, ends that.
absl::Status ExplainFailure(const ImageArchive& archive,
                            const ArchivedLayer& layer,
                            const DecompressOptions& limits,
                            const absl::Status& failure,
                            absl::FunctionRef<absl::Status()> check);

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_LAYER_STREAM_H_
