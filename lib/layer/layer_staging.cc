#include "lib/layer/layer_staging.h"

#include <errno.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/layer/layer_seal.h"
#include "lib/sys/directory.h"

namespace caisson::layer {

absl::StatusOr<LayerStaging> LayerStaging::Begin(const StoreDir& store,
                                                 Purpose purpose) {
  ASSIGN_OR_RETURN(StoreLock pins,
                   StoreLock::Open(store.root(), StoreLock::Mode::kShared));
  ASSIGN_OR_RETURN(Staging staging, Staging::Create(store));
  // Before anything is unpacked for nothing.
  if (store.fs_verity() && purpose == Purpose::kNewLayers) {
    RETURN_IF_ERROR(CheckVerity(staging.fd()));
  }
  return LayerStaging(store, std::move(pins), std::move(staging));
}

absl::StatusOr<UnpackStats> LayerStaging::Unpack(const std::string& name,
                                                 ByteSource& tar,
                                                 UnpackOptions options) {
  const std::optional<absl::Span<const BorrowedFd>> lowers = options.lowers;
  ASSIGN_OR_RETURN(const auto layer, Create(name, std::move(options)));
  RETURN_IF_ERROR(layer->Write(tar));
  return layer->Finish(lowers);
}

absl::Status LayerStaging::Rename(const std::string& from,
                                  const Digest& chain_id) {
  return sys::RenameNoReplace(fd(), from, fd(), std::string(chain_id.hex()));
}

absl::StatusOr<UniqueFd> LayerStaging::OpenLayer(
    const std::string& name) const {
  return sys::OpenDirectory(fd(), absl::StrCat(name, "/", kDiff));
}

// What is named by a chain ID is complete and will be published.
absl::Status LayerStaging::Seal() {
  ASSIGN_OR_RETURN(const auto names, sys::ListDirectory(fd()));
  for (const std::string& name : names) {
    if (!IsSha256Hex(name)) continue;
    ASSIGN_OR_RETURN(const UniqueFd dir, sys::OpenDirectory(fd(), name));
    ASSIGN_OR_RETURN(seals_[name], SealLayer(dir.borrow()));
  }
  return absl::OkStatus();
}

// Once for all layers: nothing may be visible that a power failure could still
// empty.
absl::Status LayerStaging::Sync() {
  if (store_->fs_verity()) RETURN_IF_ERROR(Seal());
  if (::syncfs(fd().get()) == 0) return absl::OkStatus();
  return ErrnoError(errno, "syncfs(staging)", {.step = "layer.sync"});
}

// Renames what was staged to where it belongs. What somebody else has put there
// meanwhile is as good as ours (whatever is in layers/ is complete). `moved`
// has the names to be taken back if publishing fails.
absl::Status LayerStaging::MoveIntoPlace(const std::set<Digest>& staged,
                                         const std::set<Digest>& stored,
                                         std::vector<std::string>& moved) {
  for (const Digest& chain_id : staged) {
    const std::string name(chain_id.hex());
    const absl::Status status =
        sys::RenameNoReplace(fd(), name, store_->layers(), name);
    if (status.ok()) moved.push_back(name);
    if (!status.ok() && !absl::IsAlreadyExists(status)) return status;
  }
  for (const Digest& chain_id : stored) {
    if (store_->HasLayer(chain_id)) continue;
    return absl::DataLossError(
        absl::StrCat("layer ", chain_id.str(),
                     " vanished from the store's directory meanwhile"));
  }
  // Also if all of it was there: who put it there may have been killed before
  // it was synced.
  if (staged.empty()) return absl::OkStatus();
  return sys::SyncDirectory(store_->layers(), "layers");
}

absl::Status LayerStaging::Publish(StoreIndex& index,
                                   const std::set<Digest>& staged,
                                   const std::set<Digest>& stored,
                                   std::vector<ImageRecord> records) {
  ASSIGN_OR_RETURN(StoreLock lock, StoreLock::Acquire(store_->root()));
  std::vector<std::string> moved;
  absl::Cleanup take_back = [this, &moved] {
    for (const std::string& name : moved) {
      sys::RenameNoReplace(store_->layers(), name, fd(), name).IgnoreError();
    }
  };
  RETURN_IF_ERROR(MoveIntoPlace(staged, stored, moved));
  for (ImageRecord& image : records) {
    for (LayerRecord& layer : image.layers) {
      const std::string name(layer.chain_id.hex());
      // What was there already is not what was sealed here.
      if (std::find(moved.begin(), moved.end(), name) == moved.end()) continue;
      if (const auto seal = seals_.find(name); seal != seals_.end()) {
        layer.seal = seal->second;
      }
    }
  }
  RETURN_IF_ERROR(index.Add(store_->format(), records));
  std::move(take_back).Cancel();
  return absl::OkStatus();
}

}  // namespace caisson::layer
