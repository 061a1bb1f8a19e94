#include "lib/layer/layer_stream.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"

namespace caisson::layer {
namespace {

absl::Status Damaged(const ArchivedLayer& layer, absl::string_view what,
                     const Digest& actual, const Digest& expected) {
  return absl::DataLossError(
      absl::StrCat("layer ", Quoted(layer.path), " is damaged: the digest of ",
                   what, " is ", actual.str(), ", expected ", expected.str()));
}

}  // namespace

LayerStream::LayerStream(const ArchivedLayer& layer,
                         std::unique_ptr<ArchiveFile> file)
    : layer_(layer),
      file_(std::move(file)),
      blob_hash_(*file_,
                 /*hash=*/layer.blob_digest.has_value() && !IsPlainTar(layer)) {
}

absl::StatusOr<std::unique_ptr<LayerStream>> LayerStream::Open(
    const ImageArchive& archive, const ArchivedLayer& layer,
    const DecompressOptions& limits, int threads) {
  ASSIGN_OR_RETURN(auto file, archive.Open(layer.path));
  std::unique_ptr<LayerStream> stream(new LayerStream(layer, std::move(file)));
  ASSIGN_OR_RETURN(stream->inflated_, Decompress(stream->blob_hash_, limits));
  const bool apart = threads >= kMaxThreads;
  stream->tar_hash_.emplace(*stream->inflated_, /*hash=*/!apart);
  if (threads > 0) {
    stream->ahead_.emplace(*stream->tar_hash_,
                           apart ? &stream->apart_ : nullptr);
    RETURN_IF_ERROR(stream->ahead_->Start());
  }
  return stream;
}

absl::Status LayerStream::Verify() {
  // Also the bytes behind the tar's end, and behind the compressed data.
  RETURN_IF_ERROR(Drain(tar()).status());
  RETURN_IF_ERROR(Drain(blob_hash_).status());
  if (layer_.blob_digest.has_value() && !IsPlainTar(layer_)) {
    const Digest actual = blob_hash_.Finish();
    if (actual != *layer_.blob_digest) {
      return Damaged(layer_, "the file", actual, *layer_.blob_digest);
    }
  }
  const Digest actual =
      tar_hash_->hashes() ? tar_hash_->Finish() : apart_.Finish();
  if (actual != layer_.diff_id) {
    return Damaged(layer_, "the uncompressed tar", actual, layer_.diff_id);
  }
  return absl::OkStatus();
}

absl::Status ExplainFailure(const ImageArchive& archive,
                            const ArchivedLayer& layer,
                            const DecompressOptions& limits,
                            const absl::Status& failure,
                            absl::FunctionRef<absl::Status()> check) {
  const absl::Status named =
      Annotate(failure, absl::StrCat("layer ", Quoted(layer.path)));
  if (!absl::IsInvalidArgument(failure) && !absl::IsDataLoss(failure)) {
    return named;
  }
  // A damaged file fails in its decompression or as a tar, long before its
  // digest could be compared. Only the digest tells damage from a bad image.
  if (layer.blob_digest.has_value()) {
    auto file = archive.Open(layer.path);
    if (!file.ok()) return named;
    WatchedSource watched(**file, check);
    HashingSource hash(watched);
    if (!Drain(hash).ok()) return named;
    const Digest actual = hash.Finish();
    if (actual == *layer.blob_digest) return named;
    return Damaged(layer, "the file", actual, *layer.blob_digest);
  }
  auto stream = LayerStream::Open(archive, layer, limits);
  if (!stream.ok()) return named;
  WatchedSource watched((*stream)->tar(), check);
  if (!Drain(watched).ok()) return named;
  const absl::Status verified = (*stream)->Verify();
  return absl::IsDataLoss(verified) ? verified : named;
}

}  // namespace caisson::layer
