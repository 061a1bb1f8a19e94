#include "lib/layer/layer_import.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/layer/image_name.h"
#include "lib/layer/layer_store_impl.h"
#include "lib/layer/store_limits.h"
#include "lib/layer/unpack.h"

namespace caisson::layer {
namespace {

constexpr char kSpool[] = "archive";

std::string ChainDir(const Digest& chain_id) {
  return std::string(chain_id.hex());
}

}  // namespace

LayerImport::LayerImport(const StoreDir& store, StoreIndex& index,
                         const LayerStoreOptions& limits,
                         const ImportOptions& options)
    : store_(store),
      index_(index),
      limits_(limits),
      layer_limits_(LayerDecompression(limits)),
      options_(options) {}

absl::StatusOr<std::vector<Digest>> LayerImport::Run(BorrowedFd archive) {
  if (options_.lease.has_value()) {
    RETURN_IF_ERROR(CheckKeptName("name of a lease", options_.lease->name));
  }
  ASSIGN_OR_RETURN(staging_, LayerStaging::Begin(store_));
  RETURN_IF_ERROR(ReadArchive(archive));
  RETURN_IF_ERROR(ApplyName());
  RETURN_IF_ERROR(Plan());
  RETURN_IF_ERROR(Unpack());
  RETURN_IF_ERROR(Publish());
  staging_->Remove();
  std::vector<Digest> ids;
  for (const ArchivedImage& image : images_) ids.push_back(image.id);
  return ids;
}

absl::Status LayerImport::ReadArchive(BorrowedFd archive) {
  RETURN_IF_ERROR(Report(ImportProgress::kReading));
  ASSIGN_OR_RETURN(
      archive_,
      OpenImageArchive(
          archive,
          {.dir = staging_->fd(),
           .name = kSpool,
           .limits = SpoolDecompression(limits_),
           .progress = [this] { return Report(ImportProgress::kReading); }},
          limits_.max_archive_entries));
  const Platform platform =
      options_.platform.has_value() ? *options_.platform : HostPlatform();
  ASSIGN_OR_RETURN(images_,
                   FindImages(*archive_, platform, LimitsOfArchive(limits_)));
  return absl::OkStatus();
}

absl::Status LayerImport::ApplyName() {
  if (options_.name.empty()) return absl::OkStatus();
  ASSIGN_OR_RETURN(ImageName name, ParseTag(options_.name));
  if (images_.size() == 1) {
    images_.front().names = {name.Canonical()};
    return absl::OkStatus();
  }
  std::vector<std::string> found;
  for (const ArchivedImage& image : images_) {
    found.push_back(image.names.empty() ? image.id.str()
                                        : FamiliarName(image.names.front()));
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "ImportOptions::name ", Quoted(options_.name), ": the archive has ",
      images_.size(), " images (", absl::StrJoin(found, ", "),
      "), of which only one could have the name"));
}

// Decides what has to be unpacked. The shared locks keep what the store has
// already from being removed until it is published as part of these images.
absl::Status LayerImport::Plan() {
  for (const ArchivedImage& image : images_) {
    RETURN_IF_ERROR(staging_->PinImage(image.id));
    for (const ArchivedLayer& source : image.layers) {
      const auto [it, added] =
          layers_.emplace(source.chain_id, PlannedLayer{.source = &source});
      if (!added) continue;
      PlannedLayer& layer = it->second;
      RETURN_IF_ERROR(staging_->PinLayer(source.chain_id));
      ASSIGN_OR_RETURN(const auto record,
                       index_.FindLayer(store_.format(), source.chain_id));
      layer.stored = record.has_value() && store_.HasLayer(source.chain_id);
      if (layer.stored) {
        layer.size = record->size;
        continue;
      }
      missing_.push_back(&layer);
      progress_.bytes += source.size;
    }
  }
  progress_.layers = missing_.size();
  return absl::OkStatus();
}

absl::Status LayerImport::Unpack() {
  for (const ArchivedImage& image : images_) {
    RETURN_IF_ERROR(UnpackImage(image));
  }
  if (missing_.empty()) return absl::OkStatus();
  return staging_->Sync();
}

absl::Status LayerImport::UnpackImage(const ArchivedImage& image) {
  std::vector<UniqueFd> roots;  // bottom first
  for (const ArchivedLayer& source : image.layers) {
    PlannedLayer& layer = layers_.at(source.chain_id);
    if (!layer.stored && !layer.staged) {
      std::vector<BorrowedFd> lowers;  // top first
      for (auto it = roots.rbegin(); it != roots.rend(); ++it) {
        lowers.push_back(it->borrow());
      }
      RETURN_IF_ERROR(StageLayer(layer, lowers));
    }
    ASSIGN_OR_RETURN(UniqueFd root, OpenLayer(layer));
    roots.push_back(std::move(root));
  }
  return absl::OkStatus();
}

absl::StatusOr<UniqueFd> LayerImport::OpenLayer(
    const PlannedLayer& layer) const {
  const Digest& chain_id = layer.source->chain_id;
  if (layer.stored) return store_.OpenLayer(chain_id);
  return staging_->OpenLayer(ChainDir(chain_id));
}

// Keeps up to import_threads layers in flight, the one in use included.
absl::Status LayerImport::StartAhead() {
  const size_t wanted =
      static_cast<size_t>(std::max(limits_.import_threads, 0));
  for (const PlannedLayer* layer : missing_) {
    if (streams_.size() >= wanted) break;
    if (layer->staged || streams_.count(layer->source) > 0) continue;
    auto stream = LayerStream::Open(*archive_, *layer->source, layer_limits_,
                                    /*threaded=*/true);
    if (!stream.ok()) {
      return ExplainFailure(*archive_, *layer->source, layer_limits_,
                            stream.status());
    }
    streams_.emplace(layer->source, *std::move(stream));
  }
  return absl::OkStatus();
}

absl::StatusOr<LayerStream*> LayerImport::StreamOf(const ArchivedLayer& layer) {
  RETURN_IF_ERROR(StartAhead());
  const auto it = streams_.find(&layer);
  if (it != streams_.end()) return it->second.get();
  auto stream = LayerStream::Open(*archive_, layer, layer_limits_,
                                  /*threaded=*/false);
  if (!stream.ok()) {
    return ExplainFailure(*archive_, layer, layer_limits_, stream.status());
  }
  return streams_.emplace(&layer, *std::move(stream)).first->second.get();
}

// What is left of the limits for all layers may be less than those for one.
void LayerImport::LimitLayer(UnpackOptions& options) const {
  const auto left = [](uint64_t limit, uint64_t used) {
    return limit - std::min(used, limit);
  };
  if (const uint64_t entries =
          left(limits_.max_import_entries, unpacked_entries_);
      entries < options.max_entries) {
    options.max_entries = entries;
    options.max_entries_name = "what is left of max_import_entries";
  }
  if (const uint64_t bytes = left(limits_.max_import_bytes, unpacked_bytes_);
      bytes < options.max_bytes) {
    options.max_bytes = bytes;
    options.max_bytes_name = "what is left of max_import_bytes";
  }
}

absl::Status LayerImport::StageLayer(PlannedLayer& layer,
                                     absl::Span<const BorrowedFd> lowers) {
  const ArchivedLayer& source = *layer.source;
  const std::string name = ChainDir(source.chain_id);
  ASSIGN_OR_RETURN(LayerStream * stream, StreamOf(source));
  current_ = stream;
  const absl::Cleanup close = [this, &source] {
    current_ = nullptr;
    streams_.erase(&source);
  };
  RETURN_IF_ERROR(Report(ImportProgress::kUnpacking));
  UnpackOptions options = LayerUnpacking(limits_);
  options.lowers = lowers;
  LimitLayer(options);
  options.progress = [this](const UnpackProgress&) {
    return Report(ImportProgress::kUnpacking);
  };
  auto stats = staging_->Unpack(name, stream->tar(), options);
  if (!stats.ok()) {
    return ExplainFailure(*archive_, source, layer_limits_, stats.status());
  }
  RETURN_IF_ERROR(stream->Verify());
  if (stats->replaced) RETURN_IF_ERROR(KeepWhole(source, name));
  layer.staged = true;
  layer.size = stats->bytes;
  unpacked_bytes_ += stats->bytes;
  unpacked_entries_ += stats->entries;
  finished_bytes_ += source.size;
  ++progress_.layers_done;
  return absl::OkStatus();
}

// An entry that another one of the same layer replaced is nowhere else.
absl::Status LayerImport::KeepWhole(const ArchivedLayer& source,
                                    const std::string& name) {
  ASSIGN_OR_RETURN(auto again,
                   LayerStream::Open(*archive_, source, layer_limits_,
                                     /*threaded=*/false));
  RETURN_IF_ERROR(staging_->KeepWhole(name, again->tar()));
  return again->Verify();
}

std::vector<ImageRecord> LayerImport::Records() const {
  std::vector<ImageRecord> records;
  for (const ArchivedImage& image : images_) {
    ImageRecord record{.id = image.id,
                       .config_json = image.config_json,
                       .manifest_digest = image.manifest_digest,
                       .manifest_json = image.manifest_json,
                       .platform = image.config.platform,
                       .names = image.names};
    for (const ArchivedLayer& layer : image.layers) {
      record.layers.push_back({.chain_id = layer.chain_id,
                               .diff_id = layer.diff_id,
                               .size = layers_.at(layer.chain_id).size});
    }
    if (options_.lease.has_value()) {
      record.lease = options_.lease;
      record.lease->image = image.id.str();
    }
    records.push_back(std::move(record));
  }
  return records;
}

absl::Status LayerImport::Publish() {
  RETURN_IF_ERROR(Report(ImportProgress::kPublishing));
  std::set<Digest> staged;
  std::set<Digest> stored;
  for (const auto& [chain_id, layer] : layers_) {
    (layer.staged ? staged : stored).insert(chain_id);
  }
  return staging_->Publish(index_, staged, stored, Records());
}

absl::Status LayerImport::Report(ImportProgress::Phase phase) {
  if (!options_.progress) return absl::OkStatus();
  progress_.phase = phase;
  progress_.bytes_done =
      finished_bytes_ + (current_ != nullptr ? current_->bytes_read() : 0);
  if (options_.progress(progress_)) return absl::OkStatus();
  return absl::CancelledError("import: cancelled by ImportOptions::progress");
}

}  // namespace caisson::layer
