// What keeps the image and the volumes of a container from being removed while
// it does not run. Thread-safe functions.
#ifndef CAISSON_LIB_KEEPER_HOLDS_H_
#define CAISSON_LIB_KEEPER_HOLDS_H_

#include <string>

#include "absl/status/status.h"
#include "caisson/layer_store.h"
#include "lib/keeper/composition.h"
#include "lib/keeper/container_directory.h"
#include "lib/keeper/record.pb.h"

namespace caisson::keeper {

// `id` is the container's. Precondition: somebody has its layers open.
absl::Status HoldImage(const StoreDirectory& store, LayerStore& layers,
                       const std::string& image_id, const std::string& id);
// OK if it holds none.
absl::Status ReleaseImage(const StoreDirectory& store, LayerStore& layers,
                          const std::string& id);

// Holds those that it names and those that were made for it, under the name
// that it has now. Again after it was renamed. After a failure some are held.
absl::Status HoldVolumes(const StoreDirectory& store,
                         const ContainerRecord& record, const Places& places);
// Goes on after a failure, and returns the first.
absl::Status ReleaseVolumes(const StoreDirectory& store,
                            const ContainerRecord& record,
                            const Places& places);

// The same for a container of which there is no record, and removes those that
// have no name of their own. With an empty `id`, of all that this store has
// no directory of: somebody has removed it by hand.
absl::Status ReleaseStrayVolumes(const StoreDirectory& store,
                                 const Places& places, const std::string& id);
// The images of those.
absl::Status ReleaseStrayImages(const StoreDirectory& store,
                                const Places& places);

}  // namespace caisson::keeper

#endif  // CAISSON_LIB_KEEPER_HOLDS_H_
