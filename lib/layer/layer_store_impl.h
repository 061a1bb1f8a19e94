// The state behind a LayerStore, shared by the files that implement it.
#ifndef CAISSON_LIB_LAYER_LAYER_STORE_IMPL_H_
#define CAISSON_LIB_LAYER_LAYER_STORE_IMPL_H_

#include <memory>

#include "caisson/layer_store.h"
#include "lib/layer/store_dir.h"
#include "lib/layer/store_index.h"

namespace caisson {

// Constant after Open, but for the index, which is thread-safe.
class LayerStore::Impl final {
 public:
  Impl(LayerStoreOptions options, layer::StoreDir dir)
      : options(std::move(options)), dir(std::move(dir)) {}

  const LayerStoreOptions options;
  const layer::StoreDir dir;
  std::unique_ptr<layer::StoreIndex> index;
};

}  // namespace caisson

#endif  // CAISSON_LIB_LAYER_LAYER_STORE_IMPL_H_
