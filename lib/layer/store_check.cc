#include "caisson/store_check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "caisson/layer_store.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/layer/digest.h"
#include "lib/layer/hashing_source.h"
#include "lib/layer/layer_staging.h"
#include "lib/layer/layer_store_impl.h"
#include "lib/layer/store_limits.h"
#include "lib/layer/store_lock.h"
#include "lib/layer/tar_split.h"
#include "lib/layer/tree_compare.h"
#include "lib/sys/directory.h"

namespace caisson {
namespace layer {
namespace {

constexpr char kFresh[] = "fresh";

const char* Word(StoreFinding::Kind kind) {
  switch (kind) {
    case StoreFinding::kIndexDamaged:
      return "index damaged";
    case StoreFinding::kDocumentDamaged:
      return "document damaged";
    case StoreFinding::kLayerMissing:
      return "layer missing";
    case StoreFinding::kLayerDamaged:
      return "layer damaged";
    case StoreFinding::kLayerChanged:
      return "layer changed";
    case StoreFinding::kLayerUnknown:
      return "layer cannot be verified";
  }
  return "";
}

// A layer with all that is known of it.
struct Checked {
  Digest diff_id;
  std::vector<Digest> below;  // chain ids, bottom first
  std::vector<std::string> images;
};

// Whether a failure to make a layer anew is the layer's. Rights, descriptors, a
// full disk are not, and must not have it removed.
bool TellsOfDamage(const absl::Status& failure) {
  if (absl::IsDataLoss(failure)) return true;
  const bool of_content =
      absl::IsInvalidArgument(failure) || absl::IsNotFound(failure);
  return of_content && !GetErrorDetail(failure).has_value();
}

using Identity = std::pair<dev_t, ino_t>;

class StoreChecker final {
 public:
  StoreChecker(LayerStore& self, const StoreDir& store, StoreIndex& index,
               const LayerStoreOptions& limits, const VerifyOptions& options)
      : self_(self),
        store_(store),
        index_(index),
        limits_(limits),
        options_(options) {}

  absl::StatusOr<StoreReport> Run() {
    ASSIGN_OR_RETURN(const auto problems, index_.CheckIntegrity());
    for (const std::string& problem : problems) {
      report_.findings.push_back(
          {.kind = StoreFinding::kIndexDamaged, .detail = problem});
    }
    ASSIGN_OR_RETURN(const auto list, index_.List());
    for (const ImageSummary& image : list) {
      const absl::Status status = CheckImage(image);
      // Removed meanwhile.
      if (!status.ok() && !absl::IsNotFound(status)) return status;
    }
    report_.layers = layers_.size();
    size_t done = 0;
    for (const Digest& chain_id : order_) {
      if (options_.progress && !options_.progress(done++, layers_.size())) {
        return absl::CancelledError("cancelled by VerifyOptions::progress");
      }
      RETURN_IF_ERROR(CheckLayer(chain_id, layers_.at(chain_id)));
    }
    return std::move(report_);
  }

 private:
  absl::Status CheckImage(const ImageSummary& summary) {
    ++report_.images;
    for (const std::string& digest : {summary.id, summary.manifest_digest}) {
      if (digest.empty()) continue;
      auto text = index_.Document(digest);
      const std::string actual = text.ok() ? Digest::Of(*text).str() : "";
      if (actual == digest) continue;
      // Removed meanwhile, or imported again with another manifest.
      ASSIGN_OR_RETURN(const Image now, index_.Get(summary.id));
      if (digest != now.id && digest != now.manifest_digest) continue;
      StoreFinding finding{
          .kind = StoreFinding::kDocumentDamaged,
          .subject = digest,
          .images = {summary.id},
          .detail = text.ok() ? absl::StrCat("its digest is ", actual)
                              : std::string(text.status().message())};
      finding.repaired = options_.repair && self_.Remove(summary.id).ok();
      const bool removed = finding.repaired;
      report_.findings.push_back(std::move(finding));
      if (removed) return absl::OkStatus();
    }
    ASSIGN_OR_RETURN(const auto records, index_.LayerRecordsOf(summary.id));
    std::vector<Digest> below;
    for (const LayerRecord& record : records) {
      // Another format's are those of a LayerStore for that.
      ASSIGN_OR_RETURN(const auto stored,
                       index_.FindLayer(store_.format(), record.chain_id));
      if (stored.has_value()) {
        const auto [it, added] = layers_.try_emplace(
            record.chain_id, Checked{record.diff_id, below, {}});
        it->second.images.push_back(summary.id);
        if (added) order_.push_back(record.chain_id);
      }
      below.push_back(record.chain_id);
    }
    return absl::OkStatus();
  }

  // Keeps the images of a layer from being removed meanwhile, and forgets those
  // that have been.
  absl::StatusOr<LayerStaging> Pin(Checked& layer) {
    ASSIGN_OR_RETURN(LayerStaging staging, LayerStaging::Begin(store_));
    std::vector<std::string> there;
    for (const std::string& image : layer.images) {
      ASSIGN_OR_RETURN(const Digest id, Digest::Parse(image, "id"));
      // First the lock, then the look.
      RETURN_IF_ERROR(staging.PinImage(id));
      ASSIGN_OR_RETURN(const bool has, index_.HasImage(image));
      if (has) there.push_back(image);
    }
    layer.images = std::move(there);
    return staging;
  }

  absl::Status CheckLayer(const Digest& chain_id, Checked& layer) {
    std::optional<LayerStaging> staging;
    ASSIGN_OR_RETURN(staging, Pin(layer));
    if (layer.images.empty()) return absl::OkStatus();
    ASSIGN_OR_RETURN(examined_, IdentityOf(chain_id));
    StoreFinding finding{.subject = chain_id.str(), .images = layer.images};
    ASSIGN_OR_RETURN(const bool good,
                     Examine(chain_id, layer, *staging, finding));
    if (good) return absl::OkStatus();
    if (options_.repair) {
      ASSIGN_OR_RETURN(finding.repaired,
                       Repair(chain_id, layer, finding.kind, staging));
    }
    const bool made_anew =
        finding.repaired && finding.kind == StoreFinding::kLayerChanged;
    if (!made_anew) unsound_.insert(chain_id);
    report_.findings.push_back(std::move(finding));
    return absl::OkStatus();
  }

  // True if the layer is what it should be; otherwise says in `finding` what is
  // wrong.
  absl::StatusOr<bool> Examine(const Digest& chain_id, const Checked& layer,
                               LayerStaging& staging, StoreFinding& finding) {
    absl::StatusOr<UniqueFd> stored = store_.OpenLayer(chain_id);
    if (absl::IsNotFound(stored.status())) {
      finding.kind = StoreFinding::kLayerMissing;
      finding.detail = "its directory is not there";
      return false;
    }
    RETURN_IF_ERROR(stored.status());
    absl::StatusOr<UniqueFd> split = store_.OpenTarSplitOf(chain_id);
    if (absl::IsNotFound(split.status())) {
      finding.kind = StoreFinding::kLayerUnknown;
      finding.detail = "it has no tar-split";
      return false;
    }
    RETURN_IF_ERROR(split.status());
    // Without the layers below it cannot be made anew.
    const bool above_sound = std::none_of(
        layer.below.begin(), layer.below.end(),
        [this](const Digest& below) { return unsound_.count(below) > 0; });
    const absl::Status unpacked =
        above_sound ? Unpack(*split, stored->borrow(), layer, staging)
                    : CheckData(*split, stored->borrow(), layer);
    if (!unpacked.ok() && !TellsOfDamage(unpacked)) return unpacked;
    if (!unpacked.ok()) {
      finding.kind = StoreFinding::kLayerDamaged;
      finding.detail = std::string(unpacked.message());
      return false;
    }
    if (!above_sound) return true;
    ASSIGN_OR_RETURN(const UniqueFd fresh, staging.OpenLayer(kFresh));
    ASSIGN_OR_RETURN(finding.detail,
                     FirstDifference(fresh.borrow(), stored->borrow()));
    finding.kind = StoreFinding::kLayerChanged;
    return finding.detail.empty();
  }

  absl::Status CheckData(const UniqueFd& split, BorrowedFd diff,
                         const Checked& layer) {
    ASSIGN_OR_RETURN(const auto tar, OpenTarSplit(split.borrow(), diff));
    HashingSource hash(*tar);
    RETURN_IF_ERROR(Drain(hash).status());
    return CheckDigest(hash, layer);
  }

  // Makes the layer once more from its own data.
  absl::Status Unpack(const UniqueFd& split, BorrowedFd diff,
                      const Checked& layer, LayerStaging& staging) {
    std::vector<UniqueFd> fds;
    for (const Digest& chain_id : layer.below) {
      ASSIGN_OR_RETURN(UniqueFd fd, store_.OpenLayer(chain_id));
      fds.push_back(std::move(fd));
    }
    std::vector<BorrowedFd> lowers;
    for (auto it = fds.rbegin(); it != fds.rend(); ++it) {
      lowers.push_back(it->borrow());
    }
    ASSIGN_OR_RETURN(const auto tar, OpenTarSplit(split.borrow(), diff));
    HashingSource hash(*tar);
    UnpackOptions options = LayerUnpacking(limits_);
    options.lowers = lowers;
    ASSIGN_OR_RETURN(const UnpackStats stats,
                     staging.Unpack(kFresh, hash, options));
    RETURN_IF_ERROR(Drain(hash).status());
    if (stats.replaced) {
      ASSIGN_OR_RETURN(const auto again, OpenTarSplit(split.borrow(), diff));
      RETURN_IF_ERROR(staging.KeepWhole(kFresh, *again));
    }
    return CheckDigest(hash, layer);
  }

  static absl::Status CheckDigest(HashingSource& hash, const Checked& layer) {
    const Digest actual = hash.Finish();
    if (actual == layer.diff_id) return absl::OkStatus();
    return absl::DataLossError(absl::StrCat("the digest of its tar is ",
                                            actual.str(), ", not ",
                                            layer.diff_id.str()));
  }

  // Of the root of a layer; nothing if there is none.
  absl::StatusOr<std::optional<Identity>> IdentityOf(const Digest& chain_id) {
    const absl::StatusOr<UniqueFd> root = store_.OpenLayer(chain_id);
    if (absl::IsNotFound(root.status())) return std::nullopt;
    RETURN_IF_ERROR(root.status());
    struct stat status;
    if (::fstat(root->get(), &status) != 0) {
      return ErrnoError(errno, absl::StrCat("fstat(", chain_id.hex(), ")"),
                        {.step = "layer.verify"});
    }
    return Identity(status.st_dev, status.st_ino);
  }

  // Whether the layer is still the one that was examined, and nobody uses it:
  // neither an image, also one that has come since, nor who is making one.
  absl::StatusOr<bool> IsFree(const Digest& chain_id, const Checked& layer,
                              StoreLock& lock) {
    ASSIGN_OR_RETURN(const auto record,
                     index_.FindLayer(store_.format(), chain_id));
    if (!record.has_value() || record->diff_id != layer.diff_id) return false;
    ASSIGN_OR_RETURN(const auto images, index_.ImagesWith(chain_id));
    for (const Digest& image : images) {
      ASSIGN_OR_RETURN(const bool free, lock.TryImage(image));
      if (!free) return false;
    }
    ASSIGN_OR_RETURN(const bool unplanned, lock.TryLayer(chain_id));
    if (!unplanned) return false;
    ASSIGN_OR_RETURN(const auto there, IdentityOf(chain_id));
    return there == examined_;
  }

  // False if somebody uses the layer.
  absl::StatusOr<bool> Repair(const Digest& chain_id, const Checked& layer,
                              StoreFinding::Kind kind,
                              std::optional<LayerStaging>& staging) {
    if (kind == StoreFinding::kLayerMissing) return false;
    const bool rebuild = kind == StoreFinding::kLayerChanged;
    if (rebuild) RETURN_IF_ERROR(staging->Sync());
    // Its locks would be in the way of the exclusive ones.
    staging->Unpin();
    ASSIGN_OR_RETURN(StoreLock lock, StoreLock::Acquire(store_.root()));
    ASSIGN_OR_RETURN(const bool free, IsFree(chain_id, layer, lock));
    if (!free) return false;
    const std::string name(chain_id.hex());
    const std::string there = rebuild ? kFresh : "removed";
    // Atomic either way: there is always one whole layer of that name, or none.
    if (::renameat2(store_.layers().get(), name.c_str(), staging->fd().get(),
                    there.c_str(),
                    rebuild ? RENAME_EXCHANGE : RENAME_NOREPLACE) != 0) {
      return ErrnoError(errno, absl::StrCat("renameat2(", Quoted(name), ")"),
                        {.step = "layer.verify", .path = name});
    }
    RETURN_IF_ERROR(sys::SyncDirectory(store_.layers(), "layers"));
    return true;
  }

  LayerStore& self_;
  const StoreDir& store_;
  StoreIndex& index_;
  const LayerStoreOptions& limits_;
  const VerifyOptions& options_;
  std::optional<Identity> examined_;  // of the layer that is looked at
  StoreReport report_;
  std::map<Digest, Checked> layers_;  // by chain ID
  std::vector<Digest> order_;         // of layers_; each after those below it
  std::set<Digest> unsound_;
};

}  // namespace
}  // namespace layer

std::string StoreFinding::ToString() const {
  std::string text = layer::Word(kind);
  if (!subject.empty()) absl::StrAppend(&text, " ", subject);
  absl::StrAppend(&text, ": ", detail);
  if (!images.empty()) {
    absl::StrAppend(&text, " (images ", absl::StrJoin(images, ", "), ")");
  }
  if (repaired) absl::StrAppend(&text, "; repaired");
  return text;
}

absl::StatusOr<StoreReport> LayerStore::Verify(const VerifyOptions& options) {
  return layer::StoreChecker(*this, impl_->dir, *impl_->index, impl_->options,
                             options)
      .Run();
}

}  // namespace caisson
