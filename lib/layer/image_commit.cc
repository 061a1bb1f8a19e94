#include "caisson/image_commit.h"

#include <fcntl.h>

#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "caisson/layer_store.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/layer/decompress.h"
#include "lib/layer/image_builder.h"
#include "lib/layer/layer_store_impl.h"
#include "lib/layer/layer_tar.h"
#include "lib/layer/store_limits.h"
#include "lib/sys/open.h"

namespace caisson {
namespace {

using layer::LayerTarOptions;
using layer::LayerTarSource;

LayerTarOptions TarOptions(LayerStoreFormat format,
                           const CommitOptions& options) {
  // Progress is counted once, where the layer is unpacked.
  return {.changes = {.format = layer::UnpackFormat(format),
                      .ids = options.diff.ids,
                      .max_entries = options.diff.max_entries},
          .max_bytes = options.diff.max_bytes};
}

}  // namespace

absl::StatusOr<Image> LayerStore::Commit(const Image& base, BorrowedFd upper,
                                         const CommitOptions& options) {
  std::optional<LayerSet> lower;
  std::vector<BorrowedFd> lowers;
  if (!base.id.empty()) {
    ASSIGN_OR_RETURN(lower, OpenLayers(base));
    RETURN_IF_ERROR(layer::CheckLayersOf(base, *lower));
    lowers = lower->dirs();
  }
  LayerTarOptions what = TarOptions(impl_->options.format, options);
  what.changes.tops = {upper};
  what.changes.lowers = lowers;
  LayerTarSource tar(std::move(what));
  return layer::BuildImage(impl_->dir, *impl_->index, impl_->options,
                           {.base = base,
                            .keep = base.layers.size(),
                            .lowers = lowers,
                            .tar = tar,
                            .options = options});
}

absl::StatusOr<Image> LayerStore::Squash(const Image& base, size_t keep,
                                         const CommitOptions& options) {
  if (keep >= base.layers.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("Squash: there is nothing above layer ", keep, " of ",
                     base.layers.size()));
  }
  ASSIGN_OR_RETURN(const LayerSet layers, OpenLayers(base));
  RETURN_IF_ERROR(layer::CheckLayersOf(base, layers));
  const std::vector<BorrowedFd> dirs = layers.dirs();
  const auto middle = dirs.end() - static_cast<ptrdiff_t>(keep);
  const std::vector<BorrowedFd> lowers(middle, dirs.end());
  LayerTarOptions what = TarOptions(impl_->options.format, options);
  what.changes.tops.assign(dirs.begin(), middle);
  what.changes.lowers = lowers;
  LayerTarSource tar(std::move(what));
  return layer::BuildImage(impl_->dir, *impl_->index, impl_->options,
                           {.base = base,
                            .keep = keep,
                            .lowers = lowers,
                            .tar = tar,
                            .options = options});
}

absl::StatusOr<Image> LayerStore::ImportRootFs(const std::string& path,
                                               const CommitOptions& options) {
  ASSIGN_OR_RETURN(const UniqueFd fd, sys::Open(path, O_RDONLY | O_NOCTTY));
  auto image = ImportRootFs(fd.borrow(), options);
  if (image.ok()) return image;
  return Annotate(image.status(), absl::StrCat("import ", Quoted(path)));
}

absl::StatusOr<Image> LayerStore::ImportRootFs(BorrowedFd fd,
                                               const CommitOptions& options) {
  layer::FdSource file(fd);
  ASSIGN_OR_RETURN(
      const auto tar,
      layer::Decompress(file, layer::LayerDecompression(impl_->options)));
  const Image none;
  return layer::BuildImage(impl_->dir, *impl_->index, impl_->options,
                           {.base = none, .tar = *tar, .options = options});
}

}  // namespace caisson
