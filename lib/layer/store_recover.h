// What a process that died left in a store, and how it goes away.
#ifndef CAISSON_LIB_LAYER_STORE_RECOVER_H_
#define CAISSON_LIB_LAYER_STORE_RECOVER_H_

#include <cstddef>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "caisson/layer_store.h"
#include "lib/layer/store_dir.h"
#include "lib/layer/store_index.h"

namespace caisson::layer {

// LayerStore::Recover. Thread-safe; several may run at once.
absl::StatusOr<RecoverReport> RecoverStore(const StoreDir& store,
                                           StoreIndex& index);

// The layers on disk, of any format, that the index does not know. Call with
// the store's lock held.
absl::StatusOr<std::vector<StoredLayer>> FindOrphans(const StoreDir& store,
                                                     StoreIndex& index);

// Moves the directories of `layers`, which must have no record in the index any
// more, into `trash`. One that an import builds on stays, for Recover or for
// that import to publish again. Call with the store's lock held. Returns the
// number moved; goes on after failures and adds them to `failures`.
size_t MoveLayersToTrash(const StoreDir& store,
                         const std::vector<StoredLayer>& layers,
                         const Staging& trash,
                         std::vector<absl::Status>& failures);

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_STORE_RECOVER_H_
