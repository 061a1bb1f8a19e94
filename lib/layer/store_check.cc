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
#include "absl/time/time.h"
#include "caisson/layer_store.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/layer/digest.h"
#include "lib/layer/hashing_source.h"
#include "lib/layer/image_spec.h"
#include "lib/layer/layer_seal.h"
#include "lib/layer/layer_staging.h"
#include "lib/layer/layer_store_impl.h"
#include "lib/layer/store_limits.h"
#include "lib/layer/store_lock.h"
#include "lib/layer/store_recover.h"
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
    case StoreFinding::kLayerUnsealed:
      return "layer has lost its seal:";
    case StoreFinding::kLayerOrphaned:
      return "layer of no image";
    case StoreFinding::kSizeWrong:
      return "size wrong of";
    case StoreFinding::kImageInconsistent:
      return "image inconsistent";
    case StoreFinding::kRecordUnused:
      return "record of no image";
    case StoreFinding::kForeignFile:
      return "foreign file";
    case StoreFinding::kWritableDamaged:
      return "writable layer damaged";
  }
  return "";
}

// A layer with all that is known of it.
struct Checked {
  Digest diff_id;
  std::vector<Digest> below;  // chain ids, bottom first
  uint64_t size = 0;
  std::string seal;
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
    RETURN_IF_ERROR(CheckRecords());
    RETURN_IF_ERROR(CheckDirectories());
    RETURN_IF_ERROR(CheckWritableLayers());
    return std::move(report_);
  }

 private:
  // An image that cannot be used: it is removed.
  void Report(StoreFinding finding, const std::string& image) {
    finding.images = {image};
    finding.repaired = options_.repair && self_.Remove(image).ok();
    report_.findings.push_back(std::move(finding));
  }

  // True if the documents are what their digests say. NOT_FOUND if the image
  // has been removed meanwhile.
  absl::StatusOr<bool> CheckDocuments(const ImageSummary& summary) {
    for (const std::string& digest : {summary.id, summary.manifest_digest}) {
      if (digest.empty()) continue;
      const auto text = index_.DocumentOf(summary.id, digest);
      if (!text.ok() && !absl::IsNotFound(text.status())) return text.status();
      // Removed meanwhile, or imported again with another manifest.
      if (text.ok() && !text->has_value()) continue;
      const std::string actual = text.ok() ? Digest::Of(**text).str() : "";
      if (actual == digest) continue;
      Report({.kind = StoreFinding::kDocumentDamaged,
              .subject = digest,
              .detail = text.ok() ? absl::StrCat("its digest is ", actual)
                                  : std::string(text.status().message())},
             summary.id);
      return false;
    }
    return true;
  }

  // Whether the layers that the index gives to an image are those of its
  // configuration; what is wrong, or nothing.
  static std::string CompareWithConfig(const Image& image) {
    const auto document = ParseImageConfig(image.config_json, image.id);
    if (!document.ok()) return std::string(document.status().message());
    if (document->diff_ids.size() != image.layers.size()) {
      return absl::StrCat("its configuration has ", document->diff_ids.size(),
                          " layers, the index ", image.layers.size());
    }
    std::optional<Digest> parent;
    for (size_t i = 0; i < image.layers.size(); ++i) {
      const Digest& diff_id = document->diff_ids[i];
      const Digest chain_id =
          ChainId(parent.has_value() ? &*parent : nullptr, diff_id);
      const LayerInfo& layer = image.layers[i];
      if (layer.diff_id != diff_id.str() || layer.chain_id != chain_id.str()) {
        return absl::StrCat("its layer ", i, " is ", diff_id.str(),
                            ", in the index ", layer.diff_id, " with chain ID ",
                            layer.chain_id);
      }
      parent = chain_id;
    }
    return "";
  }

  // NOT_FOUND if it has been removed meanwhile.
  absl::Status CheckImage(const ImageSummary& summary) {
    ++report_.images;
    ASSIGN_OR_RETURN(const bool sound, CheckDocuments(summary));
    if (!sound) return absl::OkStatus();
    ASSIGN_OR_RETURN(const Image image, index_.Get(summary.id));
    std::string wrong = CompareWithConfig(image);
    if (!wrong.empty()) {
      Report({.kind = StoreFinding::kImageInconsistent,
              .subject = summary.id,
              .detail = std::move(wrong)},
             summary.id);
      return absl::OkStatus();
    }
    std::vector<Digest> below;
    for (const LayerInfo& layer : image.layers) {
      ASSIGN_OR_RETURN(const Digest chain_id,
                       Digest::Parse(layer.chain_id, "chain_id"));
      // Another format's are those of a LayerStore for that.
      ASSIGN_OR_RETURN(const auto stored,
                       index_.FindLayer(store_.format(), chain_id));
      if (stored.has_value()) {
        const auto [it, added] = layers_.try_emplace(
            chain_id,
            Checked{stored->diff_id, below, stored->size, stored->seal, {}});
        it->second.images.push_back(summary.id);
        if (added) order_.push_back(chain_id);
      } else {
        RETURN_IF_ERROR(CheckRecorded(chain_id, summary.id));
      }
      below.push_back(chain_id);
    }
    return absl::OkStatus();
  }

  // An image has each layer in one format at least.
  absl::Status CheckRecorded(const Digest& chain_id, const std::string& image) {
    ASSIGN_OR_RETURN(const bool lacks, index_.LacksLayer(image, chain_id));
    if (!lacks || !unrecorded_.insert(chain_id).second) {
      return absl::OkStatus();
    }
    report_.findings.push_back({.kind = StoreFinding::kLayerMissing,
                                .subject = chain_id.str(),
                                .images = {image},
                                .detail = "the index has no record of it"});
    return absl::OkStatus();
  }

  // Keeps the images of a layer from being removed meanwhile, and forgets those
  // that have been.
  absl::StatusOr<LayerStaging> Pin(Checked& layer) {
    ASSIGN_OR_RETURN(
        LayerStaging staging,
        LayerStaging::Begin(store_, LayerStaging::Purpose::kVerification));
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
    const bool sound =
        finding.kind == StoreFinding::kLayerUnsealed ||
        finding.kind == StoreFinding::kSizeWrong ||
        (finding.repaired && finding.kind == StoreFinding::kLayerChanged);
    if (!sound) unsound_.insert(chain_id);
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
    const std::string unsealed = WhyUnsealed(chain_id, layer);
    const bool sealed = !layer.seal.empty() && unsealed.empty();
    if (sealed && options_.depth != VerifyDepth::kFull) return true;
    absl::StatusOr<UniqueFd> split = store_.OpenTarSplitOf(chain_id);
    if (absl::IsNotFound(split.status())) {
      finding.kind = StoreFinding::kLayerUnknown;
      finding.detail = "it has no tar-split";
      return false;
    }
    RETURN_IF_ERROR(split.status());
    if (options_.depth == VerifyDepth::kQuick && unsealed.empty()) {
      const absl::Status there =
          CheckTarSplitFiles(split->borrow(), stored->borrow());
      if (there.ok()) return true;
      if (!absl::IsDataLoss(there)) return there;
      finding.kind = StoreFinding::kLayerDamaged;
      finding.detail = std::string(there.message());
      return false;
    }
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
    if (!finding.detail.empty()) return false;
    finding.kind = StoreFinding::kLayerUnsealed;
    finding.detail = unsealed;
    if (!unsealed.empty()) return false;
    finding.kind = StoreFinding::kSizeWrong;
    if (unpacked_size_ != layer.size) {
      finding.detail = absl::StrCat("its files have ", unpacked_size_,
                                    " bytes, in the index ", layer.size);
    }
    return finding.detail.empty();
  }

  // Empty if the layer has no seal, or the one that it should have.
  std::string WhyUnsealed(const Digest& chain_id, const Checked& layer) const {
    if (layer.seal.empty()) return "";
    const auto dir = store_.OpenLayerDirectory(chain_id);
    if (!dir.ok()) return std::string(dir.status().message());
    const auto seal = SealOfLayer(dir->borrow());
    if (!seal.ok()) return std::string(seal.status().message());
    if (*seal == layer.seal) return "";
    return absl::StrCat("it is ", *seal, ", not ", layer.seal);
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
    unpacked_size_ = stats.bytes;
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
    switch (kind) {
      case StoreFinding::kLayerMissing:
        return false;
      case StoreFinding::kSizeWrong:
        return index_.SetLayerSize(chain_id, unpacked_size_).ok();
      case StoreFinding::kLayerUnsealed:
        return SealAgain(chain_id);
      default:
        break;
    }
    const bool rebuild = kind == StoreFinding::kLayerChanged;
    std::string seal;
    if (rebuild && !layer.seal.empty()) {
      ASSIGN_OR_RETURN(const UniqueFd fresh,
                       sys::OpenDirectory(staging->fd(), kFresh));
      ASSIGN_OR_RETURN(seal, SealLayer(fresh.borrow()));
    }
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
    if (!seal.empty()) {
      RETURN_IF_ERROR(index_.SetSeal(store_.format(), chain_id, seal));
    }
    return true;
  }

  // The data are sound, so the kernel is asked to watch over them once more.
  bool SealAgain(const Digest& chain_id) {
    const auto dir = store_.OpenLayerDirectory(chain_id);
    if (!dir.ok()) return false;
    const auto seal = SealLayer(dir->borrow());
    return seal.ok() && index_.SetSeal(store_.format(), chain_id, *seal).ok();
  }

  // ---- what no image has ----

  absl::Status CheckRecords() {
    ASSIGN_OR_RETURN(const auto unused, index_.Unreferenced());
    bool repaired = false;
    if (options_.repair && !unused.empty()) {
      ASSIGN_OR_RETURN(StoreLock lock, StoreLock::Acquire(store_.root()));
      repaired = index_.Sweep(absl::InfinitePast()).ok();
    }
    for (const std::string& digest : unused) {
      report_.findings.push_back({.kind = StoreFinding::kRecordUnused,
                                  .subject = digest,
                                  .detail = "the index has it for nothing",
                                  .repaired = repaired});
    }
    return absl::OkStatus();
  }

  absl::Status CheckDirectories() {
    RETURN_IF_ERROR(CheckOrphans());
    ASSIGN_OR_RETURN(const auto names, sys::ListDirectory(store_.layers()));
    for (const std::string& name : names) {
      if (IsSha256Hex(name)) continue;
      report_.findings.push_back(
          {.kind = StoreFinding::kForeignFile,
           .subject = absl::StrCat("layers/", store_.format(), "/", name),
           .detail = "it is no layer's, and nobody looks at it"});
    }
    return absl::OkStatus();
  }

  absl::Status CheckOrphans() {
    std::optional<Staging> trash;
    {
      // What is being published or removed has no record for an instant.
      std::optional<StoreLock> lock;
      if (options_.repair) {
        ASSIGN_OR_RETURN(lock, StoreLock::Acquire(store_.root()));
      } else {
        ASSIGN_OR_RETURN(lock, StoreLock::TryAcquire(store_.root()));
      }
      if (!lock.has_value()) return absl::OkStatus();
      ASSIGN_OR_RETURN(const auto orphans, FindOrphans(store_, index_));
      if (options_.repair && !orphans.empty()) {
        ASSIGN_OR_RETURN(trash, Staging::Create(store_));
      }
      for (const StoredLayer& orphan : orphans) {
        StoreFinding finding{
            .kind = StoreFinding::kLayerOrphaned,
            .subject = orphan.chain_id.str(),
            .detail = absl::StrCat("layers/", orphan.format,
                                   " has it, the index has not")};
        std::vector<absl::Status> failures;
        finding.repaired =
            trash.has_value() &&
            MoveLayersToTrash(store_, {orphan}, *trash, failures) == 1;
        report_.findings.push_back(std::move(finding));
      }
    }
    return trash.has_value() ? trash->Remove() : absl::OkStatus();
  }

  absl::Status CheckWritableLayers() {
    ASSIGN_OR_RETURN(const auto names, sys::ListDirectory(store_.kept()));
    for (const std::string& name : names) {
      for (const char* part : {"upper", "work"}) {
        const auto dir =
            sys::OpenDirectory(store_.kept(), absl::StrCat(name, "/", part));
        // Destroyed meanwhile?
        if (dir.ok() || !sys::OpenDirectory(store_.kept(), name).ok()) continue;
        report_.findings.push_back(
            {.kind = StoreFinding::kWritableDamaged,
             .subject = name,
             .detail = std::string(dir.status().message())});
      }
    }
    return absl::OkStatus();
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
  std::set<Digest> unrecorded_;
  uint64_t unpacked_size_ = 0;  // of the layer that is looked at
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
