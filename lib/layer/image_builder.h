// Making an image of layers that are there and at most one new one, and
// publishing it. What Commit, Squash and ImportRootFs have in common.
#ifndef CAISSON_LIB_LAYER_IMAGE_BUILDER_H_
#define CAISSON_LIB_LAYER_IMAGE_BUILDER_H_

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "caisson/image.h"
#include "caisson/image_commit.h"
#include "caisson/layer_store.h"
#include "caisson/unique_fd.h"
#include "lib/layer/byte_source.h"
#include "lib/layer/store_dir.h"
#include "lib/layer/store_index.h"

namespace caisson::layer {

struct NewImage {
  // The image begins with the `keep` bottom layers of `base`, whose roots are
  // `lowers`, top first. A default Image is none.
  const Image& base;
  size_t keep = 0;
  std::vector<BorrowedFd> lowers;
  // The tar of the layer above. One without entries makes no layer.
  ByteSource& tar;
  const CommitOptions& options;
};

// The caller holds a LayerSet of the base image.
absl::StatusOr<Image> BuildImage(const StoreDir& store, StoreIndex& index,
                                 const LayerStoreOptions& limits,
                                 const NewImage& image);

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_IMAGE_BUILDER_H_
