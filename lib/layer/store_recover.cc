#include "lib/layer/store_recover.h"

#include <errno.h>

#include <optional>
#include <set>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "caisson/error.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/layer/layer_quota.h"
#include "lib/layer/store_lock.h"
#include "lib/sys/directory.h"
#include "lib/sys/owned_dir.h"
#include "lib/sys/remove_tree.h"

namespace caisson::layer {
namespace {

// Removes the directories below `parent` that no living process has locked;
// returns how many.
absl::StatusOr<size_t> RemoveUnowned(BorrowedFd parent,
                                     std::vector<absl::Status>& failures) {
  ASSIGN_OR_RETURN(const auto names, sys::ListDirectory(parent));
  size_t removed = 0;
  for (const std::string& name : names) {
    absl::StatusOr<std::optional<sys::OwnedDir>> owned =
        sys::TryOwnDir(parent, name);
    if (absl::IsNotFound(owned.status())) continue;
    if (owned.ok() && !owned->has_value()) continue;
    // Without the lock nothing is removed but what is no directory, hence
    // nobody's: any other failure (no descriptors left, no memory) says nothing
    // about whether somebody lives there.
    const auto detail = GetErrorDetail(owned.status());
    if (!owned.ok() && !(detail.has_value() && (detail->error == ENOTDIR ||
                                                detail->error == ELOOP))) {
      failures.push_back(owned.status());
      continue;
    }
    absl::Status status;
    // While its files are there, nobody takes the project for a free one.
    if (owned.ok()) status = ReleaseLayer((*owned)->fd.borrow());
    if (status.ok()) status = sys::RemoveTree(parent, name);
    if (status.ok()) {
      ++removed;
    } else {
      failures.push_back(status);
    }
  }
  return removed;
}

// UNAVAILABLE if an import builds on the layer.
absl::Status MoveToTrash(const StoreDir& store, const StoredLayer& layer,
                         const Staging& trash) {
  const std::string name(layer.chain_id.hex());
  ASSIGN_OR_RETURN(StoreLock lock,
                   StoreLock::Open(store.root(), StoreLock::Mode::kExclusive));
  ASSIGN_OR_RETURN(const bool free, lock.TryLayer(layer.chain_id));
  if (!free) return absl::UnavailableError(absl::StrCat(name, " is in use"));
  ASSIGN_OR_RETURN(
      UniqueFd dir,
      sys::OpenDirectory(store.root(), absl::StrCat("layers/", layer.format)));
  return sys::RenameNoReplace(dir.borrow(), name, trash.fd(),
                              absl::StrCat(layer.format, "-", name));
}

}  // namespace

// Of an import that died between its renames and its commit, or of a removal
// that died after its own.
absl::StatusOr<std::vector<StoredLayer>> FindOrphans(const StoreDir& store,
                                                     StoreIndex& index) {
  ASSIGN_OR_RETURN(const auto known, index.AllLayers());
  std::set<std::pair<std::string, Digest>> recorded;
  for (const StoredLayer& layer : known) {
    recorded.emplace(layer.format, layer.chain_id);
  }
  ASSIGN_OR_RETURN(UniqueFd formats,
                   sys::OpenDirectory(store.root(), "layers"));
  std::vector<StoredLayer> orphans;
  for (const LayerStoreFormat format : kLayerStoreFormats) {
    absl::StatusOr<UniqueFd> dir =
        sys::OpenDirectory(formats.borrow(), FormatName(format));
    if (absl::IsNotFound(dir.status())) continue;
    RETURN_IF_ERROR(dir.status());
    ASSIGN_OR_RETURN(const auto names, sys::ListDirectory(dir->borrow()));
    for (const std::string& name : names) {
      auto chain_id = Digest::Parse(absl::StrCat("sha256:", name), "layer");
      if (!chain_id.ok()) continue;
      if (recorded.count({FormatName(format), *chain_id}) > 0) continue;
      orphans.push_back({.format = FormatName(format), .chain_id = *chain_id});
    }
  }
  return orphans;
}

size_t MoveLayersToTrash(const StoreDir& store,
                         const std::vector<StoredLayer>& layers,
                         const Staging& trash,
                         std::vector<absl::Status>& failures) {
  size_t moved = 0;
  for (const StoredLayer& layer : layers) {
    const absl::Status status = MoveToTrash(store, layer, trash);
    if (status.ok()) {
      ++moved;
    } else if (!absl::IsNotFound(status) && !absl::IsUnavailable(status)) {
      failures.push_back(status);
    }
  }
  return moved;
}

absl::StatusOr<RecoverReport> RecoverStore(const StoreDir& store,
                                           StoreIndex& index) {
  RecoverReport report;
  ASSIGN_OR_RETURN(report.imports,
                   RemoveUnowned(store.staging(), report.failures));
  ASSIGN_OR_RETURN(report.writable_layers,
                   RemoveUnowned(store.writable(), report.failures));
  std::optional<Staging> trash;
  {
    ASSIGN_OR_RETURN(StoreLock lock, StoreLock::Acquire(store.root()));
    // A full disk must not keep the store from being used.
    if (const auto expired = index.Sweep(absl::Now()); expired.ok()) {
      report.leases = *expired;
    } else {
      report.failures.push_back(expired.status());
    }
    ASSIGN_OR_RETURN(const auto orphans, FindOrphans(store, index));
    if (orphans.empty()) return report;
    ASSIGN_OR_RETURN(trash, Staging::Create(store));
    report.layers = MoveLayersToTrash(store, orphans, *trash, report.failures);
  }
  if (absl::Status status = trash->Remove(); !status.ok()) {
    report.failures.push_back(std::move(status));
  }
  return report;
}

}  // namespace caisson::layer
