#include "lib/keeper/holds.h"

#include <unistd.h>

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "caisson/notation.h"
#include "caisson/volume.h"
#include "lib/base/status_macros.h"

namespace caisson::keeper {
namespace {

constexpr char kPrefix[] = "container-";

// What the holds of a store's containers end with: others may have the same
// volumes. FNV-1a of its path, which must not change from version to version.
std::string SuffixOf(const StoreDirectory& store) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : store.path()) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  }
  return absl::StrCat(".", absl::Hex(hash, absl::kZeroPad16));
}

std::string HoldOf(const StoreDirectory& store, const std::string& id) {
  return absl::StrCat(kPrefix, id, SuffixOf(store));
}

// The container's id; empty if the hold is not one of this store's.
std::string OwnerOf(const StoreDirectory& store, absl::string_view hold) {
  return absl::ConsumePrefix(&hold, kPrefix) &&
                 absl::ConsumeSuffix(&hold, SuffixOf(store))
             ? std::string(hold)
             : "";
}

absl::StatusOr<std::vector<std::string>> VolumesOf(
    const ContainerRecord& record) {
  std::vector<std::string> names;
  for (const std::string& mount : record.anonymous_volumes()) {
    const std::pair<std::string, std::string> parts =
        absl::StrSplit(mount, absl::MaxSplits(':', 1));
    names.push_back(parts.first);
  }
  for (const std::string& text : record.spec().volumes()) {
    ASSIGN_OR_RETURN(const VolumeMount volume, ParseVolumeMount(text));
    if (volume.kind == VolumeMount::Kind::kNamed) {
      names.push_back(volume.volume);
    }
  }
  return names;
}

absl::StatusOr<VolumeStore> OpenVolumes(const Places& places) {
  return VolumeStore::Open({.path = places.volumes, .recover = false});
}

bool IsGone(const StoreDirectory& store, const std::string& id) {
  return absl::IsNotFound(store.Find(id).status());
}

}  // namespace

absl::Status HoldImage(const StoreDirectory& store, LayerStore& layers,
                       const std::string& image_id, const std::string& id) {
  return layers.Lease(image_id, HoldOf(store, id));
}

absl::Status ReleaseImage(const StoreDirectory& store, LayerStore& layers,
                          const std::string& id) {
  const absl::Status released = layers.ReleaseLease(HoldOf(store, id));
  return absl::IsNotFound(released) ? absl::OkStatus() : released;
}

absl::Status HoldVolumes(const StoreDirectory& store,
                         const ContainerRecord& record, const Places& places) {
  ASSIGN_OR_RETURN(const std::vector<std::string> names, VolumesOf(record));
  if (names.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const VolumeStore volumes, OpenVolumes(places));
  VolumeUseOptions options = {.user = record.spec().name()};
  if (record.spec().has_ids()) {
    options.options.uid = options.options.gid = record.spec().ids().outside();
  }
  for (const std::string& name : names) {
    RETURN_IF_ERROR(volumes.Hold(name, HoldOf(store, record.id()), options));
  }
  return absl::OkStatus();
}

absl::Status ReleaseVolumes(const StoreDirectory& store,
                            const ContainerRecord& record,
                            const Places& places) {
  ASSIGN_OR_RETURN(const std::vector<std::string> names, VolumesOf(record));
  if (names.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const VolumeStore volumes, OpenVolumes(places));
  absl::Status status;
  for (const std::string& name : names) {
    status.Update(volumes.Release(name, HoldOf(store, record.id())));
  }
  return status;
}

absl::Status ReleaseStrayVolumes(const StoreDirectory& store,
                                 const Places& places, const std::string& id) {
  // Opening it would make one.
  if (::access(places.volumes.c_str(), F_OK) != 0) return absl::OkStatus();
  ASSIGN_OR_RETURN(const VolumeStore volumes, OpenVolumes(places));
  ASSIGN_OR_RETURN(const std::vector<VolumeInfo> all,
                   volumes.List({.in_use = true}));
  absl::Status status;
  for (const VolumeInfo& volume : all) {
    for (const VolumeUser& user : volume.users) {
      const std::string owner = OwnerOf(store, user.hold);
      if (owner.empty()) continue;
      if (id.empty() ? !IsGone(store, owner) : owner != id) continue;
      status.Update(volumes.Release(volume.name, user.hold));
      // In use by another, it stays.
      if (volume.anonymous) volumes.Remove(volume.name).IgnoreError();
    }
  }
  return status;
}

absl::Status ReleaseStrayImages(const StoreDirectory& store,
                                const Places& places) {
  if (::access(places.layers.c_str(), F_OK) != 0) return absl::OkStatus();
  ASSIGN_OR_RETURN(LayerStore layers,
                   LayerStore::Open({.path = places.layers, .recover = false}));
  ASSIGN_OR_RETURN(const std::vector<ImageLease> leases, layers.ListLeases());
  absl::Status status;
  for (const ImageLease& lease : leases) {
    const std::string owner = OwnerOf(store, lease.name);
    if (!owner.empty() && IsGone(store, owner)) {
      status.Update(ReleaseImage(store, layers, owner));
    }
  }
  return status;
}

}  // namespace caisson::keeper
