// LayerStore::Unpack: an image as a plain tree.
#include <vector>

#include "absl/strings/str_cat.h"
#include "caisson/layer_store.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/layer/hashing_source.h"
#include "lib/layer/layer_store_impl.h"
#include "lib/layer/store_limits.h"
#include "lib/layer/tar_split.h"
#include "lib/layer/unpack.h"
#include "lib/sys/directory.h"

namespace caisson {

absl::Status LayerStore::Unpack(
    const Image& image, BorrowedFd directory,
    const std::function<bool(uint64_t bytes)>& progress) const {
  ASSIGN_OR_RETURN(const auto names, sys::ListDirectory(directory));
  if (!names.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("the directory to unpack into is not empty: it has ",
                     Quoted(names.front())));
  }
  ASSIGN_OR_RETURN(const LayerSet layers, OpenLayers(image));
  RETURN_IF_ERROR(layer::CheckLayersOf(image, layers));
  const std::vector<BorrowedFd> dirs = layers.dirs();
  uint64_t done = 0;  // of layers before the current one
  for (size_t i = 0; i < image.layers.size(); ++i) {
    ASSIGN_OR_RETURN(const layer::StoredTar tar,
                     layer::OpenStoredTar(impl_->dir, image.layers[i],
                                          dirs[image.layers.size() - 1 - i]));
    layer::HashingSource hash(*tar.source);
    layer::UnpackOptions options = layer::LayerUnpacking(impl_->options);
    options.format = layer::LayerFormat::kPlain;
    options.progress = [&](const layer::UnpackProgress& so_far) {
      if (!progress || progress(done + so_far.tar_bytes)) {
        return absl::OkStatus();
      }
      return absl::CancelledError("cancelled by progress");
    };
    auto stats = layer::UnpackLayer(hash, directory, options);
    if (!stats.ok()) {
      return Annotate(stats.status(),
                      absl::StrCat("layer ", image.layers[i].diff_id));
    }
    RETURN_IF_ERROR(layer::Drain(hash).status());
    RETURN_IF_ERROR(layer::CheckStoredDigest(hash, tar.diff_id));
    done += stats->tar_bytes;
  }
  return absl::OkStatus();
}

}  // namespace caisson
