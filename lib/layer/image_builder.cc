#include "lib/layer/image_builder.h"

#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "lib/base/status_macros.h"
#include "lib/layer/config_edit.h"
#include "lib/layer/hashing_source.h"
#include "lib/layer/image_name.h"
#include "lib/layer/image_spec.h"
#include "lib/layer/layer_staging.h"
#include "lib/layer/layer_store_impl.h"
#include "lib/layer/layer_tar.h"
#include "lib/layer/store_limits.h"

namespace caisson::layer {
namespace {

constexpr char kNew[] = "new";
constexpr char kAgain[] = "again";

class ImageBuilder final {
 public:
  ImageBuilder(const StoreDir& store, StoreIndex& index,
               const LayerStoreOptions& limits, const NewImage& image)
      : store_(store), index_(index), limits_(limits), image_(image) {}

  absl::StatusOr<Image> Run() {
    ASSIGN_OR_RETURN(const std::vector<std::string> names, Names());
    ASSIGN_OR_RETURN(staging_, LayerStaging::Begin(store_));
    RETURN_IF_ERROR(KeepLayers());
    RETURN_IF_ERROR(AddLayer());
    ASSIGN_OR_RETURN(ImageRecord record, MakeRecord(names));
    RETURN_IF_ERROR(staging_->PinImage(record.id));
    if (!staged_.empty()) RETURN_IF_ERROR(staging_->Sync());
    RETURN_IF_ERROR(staging_->Publish(index_, staged_, stored_, {record}));
    staging_->Remove();
    return LoadImage(index_, record.id.str());
  }

 private:
  absl::StatusOr<std::vector<std::string>> Names() const {
    std::vector<std::string> names;
    if (image_.options.name.empty()) return names;
    ASSIGN_OR_RETURN(const ImageName name, ParseTag(image_.options.name));
    names.push_back(name.Canonical());
    return names;
  }

  // Of the base image.
  absl::Status KeepLayers() {
    for (size_t i = 0; i < image_.keep; ++i) {
      const LayerInfo& layer = image_.base.layers[i];
      ASSIGN_OR_RETURN(Digest chain_id,
                       Digest::Parse(layer.chain_id, "LayerInfo::chain_id"));
      ASSIGN_OR_RETURN(Digest diff_id,
                       Digest::Parse(layer.diff_id, "LayerInfo::diff_id"));
      RETURN_IF_ERROR(staging_->PinLayer(chain_id));
      stored_.insert(chain_id);
      layers_.push_back({.chain_id = std::move(chain_id),
                         .diff_id = std::move(diff_id),
                         .size = layer.size});
    }
    return absl::OkStatus();
  }

  absl::StatusOr<UnpackStats> Unpack(const char* name, ByteSource& tar) {
    UnpackOptions options = LayerUnpacking(limits_);
    options.lowers = image_.lowers;
    const auto& progress = image_.options.diff.progress;
    if (progress) {
      options.progress = [&progress](const UnpackProgress& so_far) {
        return progress(so_far.tar_bytes)
                   ? absl::OkStatus()
                   : absl::CancelledError("cancelled by progress");
      };
    }
    return staging_->Unpack(name, tar, std::move(options));
  }

  absl::Status AddLayer() {
    std::optional<HashingSource> hash(image_.tar);
    ASSIGN_OR_RETURN(UnpackStats stats, Unpack(kNew, *hash));
    const char* name = kNew;
    std::optional<UniqueFd> first;
    std::optional<LayerTarSource> again;
    if (stats.replaced) {
      // A tar with two entries of one name: what became of it is taken instead.
      ASSIGN_OR_RETURN(first, staging_->OpenLayer(kNew));
      LayerTarOptions options;
      options.changes = {.tops = {first->borrow()},
                         .lowers = image_.lowers,
                         .format = UnpackFormat(limits_.format),
                         .max_entries = limits_.max_layer_entries};
      options.max_bytes = limits_.max_layer_bytes;
      again.emplace(std::move(options));
      hash.emplace(*again);
      ASSIGN_OR_RETURN(stats, Unpack(kAgain, *hash));
      name = kAgain;
    }
    if (stats.entries == 0) return absl::OkStatus();
    if (layers_.size() >= limits_.max_layers) {
      return absl::ResourceExhaustedError(
          absl::StrCat("the image would have more than max_layers (",
                       limits_.max_layers, "); squash it"));
    }
    RETURN_IF_ERROR(Drain(*hash).status());
    Digest diff_id = hash->Finish();
    Digest chain_id =
        ChainId(layers_.empty() ? nullptr : &layers_.back().chain_id, diff_id);
    RETURN_IF_ERROR(staging_->PinLayer(chain_id));
    RETURN_IF_ERROR(staging_->Rename(name, chain_id));
    staged_.insert(chain_id);
    layers_.push_back({.chain_id = std::move(chain_id),
                       .diff_id = std::move(diff_id),
                       .size = stats.bytes});
    return absl::OkStatus();
  }

  absl::StatusOr<ImageRecord> MakeRecord(
      const std::vector<std::string>& names) const {
    const CommitOptions& options = image_.options;
    ConfigEdit edit{.base = image_.base.config_json,
                    .platform = options.platform.value_or(HostPlatform()),
                    .changes = options.changes,
                    .kept = image_.keep,
                    .step = {.created = options.created.value_or(absl::Now()),
                             .created_by = options.created_by,
                             .author = options.author,
                             .comment = options.message,
                             .empty_layer = layers_.size() == image_.keep}};
    for (const LayerRecord& layer : layers_) {
      edit.diff_ids.push_back(layer.diff_id);
    }
    ASSIGN_OR_RETURN(std::string json, EditConfig(edit));
    if (json.size() > limits_.max_config_bytes) {
      return absl::ResourceExhaustedError(
          absl::StrCat("the configuration would have ", json.size(),
                       " bytes, more than max_config_bytes (",
                       limits_.max_config_bytes, ")"));
    }
    ASSIGN_OR_RETURN(const ConfigDocument document,
                     ParseImageConfig(json, "the new image"));
    Digest id = Digest::Of(json);
    return ImageRecord{.id = std::move(id),
                       .config_json = std::move(json),
                       .platform = document.config.platform,
                       .layers = layers_,
                       .names = names};
  }

  const StoreDir& store_;
  StoreIndex& index_;
  const LayerStoreOptions& limits_;
  const NewImage& image_;
  std::optional<LayerStaging> staging_;
  std::vector<LayerRecord> layers_;
  std::set<Digest> staged_;
  std::set<Digest> stored_;
};

}  // namespace

absl::StatusOr<Image> BuildImage(const StoreDir& store, StoreIndex& index,
                                 const LayerStoreOptions& limits,
                                 const NewImage& image) {
  return ImageBuilder(store, index, limits, image).Run();
}

}  // namespace caisson::layer
