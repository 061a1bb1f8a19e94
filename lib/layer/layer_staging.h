// New layers on their way into the store: unpacked where nobody looks, then
// published together, with the images that they are of.
//
//   ASSIGN_OR_RETURN(LayerStaging staging, LayerStaging::Begin(store));
//   ASSIGN_OR_RETURN(UnpackStats stats, staging.Unpack("new", tar, options));
//   ... staging.Rename("new", chain_id) ...
//   RETURN_IF_ERROR(staging.Sync());
//   RETURN_IF_ERROR(staging.Publish(index, {chain_id}, {}, records));
//
// The destructor removes what was not published. Thread-compatible.
#ifndef CAISSON_LIB_LAYER_LAYER_STAGING_H_
#define CAISSON_LIB_LAYER_LAYER_STAGING_H_

#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "caisson/unique_fd.h"
#include "lib/layer/byte_source.h"
#include "lib/layer/digest.h"
#include "lib/layer/staged_layer.h"
#include "lib/layer/store_dir.h"
#include "lib/layer/store_index.h"
#include "lib/layer/store_lock.h"
#include "lib/layer/unpack.h"

namespace caisson::layer {

class LayerStaging final {
 public:
  enum class Purpose { kNewLayers, kVerification };
  // `store` must outlive the object. For new layers, FAILED_PRECONDITION if
  // they are to be sealed and cannot be.
  static absl::StatusOr<LayerStaging> Begin(
      const StoreDir& store, Purpose purpose = Purpose::kNewLayers);

  // A directory for other files that are needed meanwhile.
  BorrowedFd fd() const { return staging_.fd(); }

  // Keeps an image, or a layer that may be there, from being removed by others
  // for as long as the object lives.
  absl::Status PinImage(const Digest& id) { return pins_.ShareImage(id); }
  absl::Status PinLayer(const Digest& chain_id) {
    return pins_.ShareLayer(chain_id);
  }

  void Unpin() { pins_.Release(); }

  // Begins the layer `name`. Thread-safe for different names.
  absl::StatusOr<std::unique_ptr<StagedLayer>> Create(
      const std::string& name, UnpackOptions options) const {
    return StagedLayer::Create(fd(), name, std::move(options));
  }
  // Unpacks `tar` as the layer `name`, above options.lowers.
  absl::StatusOr<UnpackStats> Unpack(const std::string& name, ByteSource& tar,
                                     UnpackOptions options);
  // For a layer that lacks some of its data (UnpackStats::replaced): keeps all
  // of `tar`.
  absl::Status KeepWhole(const std::string& name, ByteSource& tar) const {
    return StagedLayer::KeepWhole(fd(), name, tar);
  }

  absl::Status Rename(const std::string& from, const Digest& chain_id);
  // The root of the layer `name`.
  absl::StatusOr<UniqueFd> OpenLayer(const std::string& name) const;

  // Everything unpacked so far is on disk, and sealed where the store does so.
  absl::Status Sync();

  // Makes `staged`, layers by their chain id, and the images of `records`
  // visible. `stored` are other layers of these images, which the store must
  // have. After a failure everything is as it was before.
  absl::Status Publish(StoreIndex& index, const std::set<Digest>& staged,
                       const std::set<Digest>& stored,
                       std::vector<ImageRecord> records);

  // What is left of it; the locks stay.
  void Remove() { staging_.Remove().IgnoreError(); }

 private:
  LayerStaging(const StoreDir& store, StoreLock pins, Staging staging)
      : store_(&store), pins_(std::move(pins)), staging_(std::move(staging)) {}

  absl::Status Seal();
  absl::Status MoveIntoPlace(const std::set<Digest>& staged,
                             const std::set<Digest>& stored,
                             std::vector<std::string>& moved);

  const StoreDir* store_;
  StoreLock pins_;
  Staging staging_;
  std::map<std::string, std::string> seals_;  // by the layer's directory
};

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_LAYER_STAGING_H_
