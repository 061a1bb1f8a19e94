#include "lib/keeper/removal.h"

#include <string>
#include <utility>

#include "absl/strings/str_split.h"
#include "caisson/layer_store.h"
#include "caisson/volume.h"
#include "lib/base/status_macros.h"
#include "lib/keeper/holds.h"
#include "lib/keeper/state.h"

namespace caisson::keeper {
namespace {

// What it has in the layer store.
absl::Status RemoveLayers(const StoreDirectory& store, const std::string& id,
                          const Places& places) {
  ASSIGN_OR_RETURN(LayerStore layers,
                   LayerStore::Open({.path = places.layers, .recover = false}));
  auto writable = layers.OpenWritableLayer(id);
  if (!absl::IsNotFound(writable.status())) {
    RETURN_IF_ERROR(writable.status());
    RETURN_IF_ERROR(writable->Destroy());
  }
  return ReleaseImage(store, layers, id);
}

absl::Status RemoveVolumes(const ContainerRecord& record,
                           const Places& places) {
  if (record.anonymous_volumes().empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(
      const VolumeStore volumes,
      VolumeStore::Open({.path = places.volumes, .recover = false}));
  for (const std::string& mount : record.anonymous_volumes()) {
    const std::pair<std::string, std::string> parts =
        absl::StrSplit(mount, absl::MaxSplits(':', 1));
    const absl::Status removed = volumes.Remove(parts.first);
    // One that another container has, too, is that one's from now on.
    if (!removed.ok() && !absl::IsNotFound(removed) &&
        !absl::IsFailedPrecondition(removed)) {
      return removed;
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status RemoveContainer(const StoreDirectory& store,
                             const ContainerDirectory& directory,
                             const Places& places, bool volumes,
                             absl::Duration patience) {
  ASSIGN_OR_RETURN(const ContainerRecord record, directory.ReadRecord());
  if (!record.image_id().empty()) {
    RETURN_IF_ERROR(RemoveLayers(store, record.id(), places));
  }
  RETURN_IF_ERROR(ReleaseVolumes(store, record, places));
  if (volumes) RETURN_IF_ERROR(RemoveVolumes(record, places));
  {
    ASSIGN_OR_RETURN(const HeldLock names, store.LockNames(patience));
    store.DropName(record.spec().name(), record.id());
  }
  RETURN_IF_ERROR(directory.Remove());
  TellOf(store, record, "destroy");
  return absl::OkStatus();
}

absl::Status RemoveUnfinished(const StoreDirectory& store,
                              const ContainerDirectory& directory,
                              const Places& places) {
  RETURN_IF_ERROR(RemoveLayers(store, directory.id(), places));
  RETURN_IF_ERROR(ReleaseStrayVolumes(store, places, directory.id()));
  return directory.Remove();
}

}  // namespace caisson::keeper
