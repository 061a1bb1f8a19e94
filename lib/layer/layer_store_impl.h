// The state behind a LayerStore, shared by the files that implement it.
#ifndef CAISSON_LIB_LAYER_LAYER_STORE_IMPL_H_
#define CAISSON_LIB_LAYER_LAYER_STORE_IMPL_H_

#include <memory>
#include <string>

#include "caisson/layer_store.h"
#include "lib/layer/byte_source.h"
#include "lib/layer/digest.h"
#include "lib/layer/hashing_source.h"
#include "lib/layer/store_dir.h"
#include "lib/layer/store_index.h"

namespace caisson {

// Constant after Open, but for the index, which is thread-safe.
class LayerStore::Impl final {
 public:
  Impl(LayerStoreOptions options, layer::StoreDir dir)
      : options(std::move(options)), dir(std::move(dir)) {}

  // What Open and Remove try again with what the store has in reserve.
  static absl::StatusOr<LayerStore> TryOpen(const LayerStoreOptions& options);
  absl::Status TryRemove(absl::string_view reference);

  const LayerStoreOptions options;
  const layer::StoreDir dir;
  std::unique_ptr<layer::StoreIndex> index;
};

namespace layer {

// What a reference says: an image, and the name by which it was found.
struct ResolvedImage {
  std::string id;
  std::string name;  // canonical; empty if found by digest or prefix
};

// The tar that a layer came as, put together again.
struct StoredTar {
  Digest diff_id;
  UniqueFd split;
  std::unique_ptr<ByteSource> source;  // reads `split`
};

// `diff` is the layer's root. FAILED_PRECONDITION if too little was kept of it.
absl::StatusOr<StoredTar> OpenStoredTar(const StoreDir& store,
                                        const LayerInfo& layer,
                                        BorrowedFd diff);

// DATA_LOSS unless all that has passed is what `diff_id` is the digest of.
absl::Status CheckStoredDigest(HashingSource& hash, const Digest& diff_id);

// INVALID_ARGUMENT unless WritableLayer::Keep takes the name. `what` says in
// the error what it is the name of.
absl::Status CheckKeptName(absl::string_view what, absl::string_view name);

// INVALID_ARGUMENT unless `layers`, opened for `image`, are as many as it says
// that it has: an Image is a value, which its owner can change.
absl::Status CheckLayersOf(const Image& image, const LayerSet& layers);

// As layer_store.h describes references.
absl::StatusOr<ResolvedImage> ResolveImage(StoreIndex& index,
                                           absl::string_view reference);

// The image with everything that its configuration says.
absl::StatusOr<Image> LoadImage(StoreIndex& index, const std::string& id);

}  // namespace layer
}  // namespace caisson

#endif  // CAISSON_LIB_LAYER_LAYER_STORE_IMPL_H_
