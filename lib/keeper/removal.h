// Removing a container. Thread-safe function.
#ifndef CAISSON_LIB_KEEPER_REMOVAL_H_
#define CAISSON_LIB_KEEPER_REMOVAL_H_

#include "absl/status/status.h"
#include "lib/keeper/composition.h"
#include "lib/keeper/container_directory.h"

namespace caisson::keeper {

// Removes what it has written, its name and its directory, and with `volumes`
// its anonymous volumes. After a failure the container is still there, and can
// be removed again. Waits for the lock of names as long as `patience`.
// Preconditions: Lock() is held, and nothing runs.
absl::Status RemoveContainer(const StoreDirectory& store,
                             const ContainerDirectory& directory,
                             const Places& places, bool volumes,
                             absl::Duration patience = kLockPatience);

// The same without a record, of one whose creation or removal was cut off.
absl::Status RemoveUnfinished(const StoreDirectory& store,
                              const ContainerDirectory& directory,
                              const Places& places);

}  // namespace caisson::keeper

#endif  // CAISSON_LIB_KEEPER_REMOVAL_H_
