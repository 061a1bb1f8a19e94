#include "lib/layer/layer_import.h"

#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/layer/image_name.h"
#include "lib/layer/layer_store_impl.h"
#include "lib/layer/store_limits.h"

namespace caisson::layer {
namespace {

constexpr char kSpool[] = "archive";

}  // namespace

LayerImport::LayerImport(const StoreDir& store, StoreIndex& index,
                         const LayerStoreOptions& limits,
                         const ImportOptions& options)
    : store_(store), index_(index), limits_(limits), options_(options) {}

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
  unpack_.emplace(store_, *staging_, *archive_, limits_,
                  [this] { return Report(ImportProgress::kUnpacking); });
  std::set<Digest> seen;
  for (const ArchivedImage& image : images_) {
    RETURN_IF_ERROR(staging_->PinImage(image.id));
    for (size_t i = 0; i < image.layers.size(); ++i) {
      const ArchivedLayer& layer = image.layers[i];
      if (!seen.insert(layer.chain_id).second) continue;
      RETURN_IF_ERROR(staging_->PinLayer(layer.chain_id));
      ASSIGN_OR_RETURN(const auto record,
                       index_.FindLayer(store_.format(), layer.chain_id));
      if (record.has_value() && store_.HasLayer(layer.chain_id)) {
        stored_.emplace(layer.chain_id, record->size);
        continue;
      }
      unpack_->Add(image, i);
      progress_.each.push_back(
          {.diff_id = layer.diff_id.str(), .bytes = layer.size});
      progress_.bytes += layer.size;
    }
  }
  progress_.layers = unpack_->size();
  return absl::OkStatus();
}

absl::Status LayerImport::Unpack() {
  RETURN_IF_ERROR(unpack_->Run());
  return unpack_->size() == 0 ? absl::OkStatus() : staging_->Sync();
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
      const std::optional<uint64_t> unpacked = unpack_->SizeOf(layer.chain_id);
      record.layers.push_back({.chain_id = layer.chain_id,
                               .diff_id = layer.diff_id,
                               .size = unpacked.has_value()
                                           ? *unpacked
                                           : stored_.at(layer.chain_id)});
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
  for (const ArchivedImage& image : images_) {
    for (const ArchivedLayer& layer : image.layers) {
      const bool is_new = unpack_->SizeOf(layer.chain_id).has_value();
      (is_new ? staged : stored).insert(layer.chain_id);
    }
  }
  return staging_->Publish(index_, staged, stored, Records());
}

absl::Status LayerImport::Report(ImportProgress::Phase phase) {
  if (!options_.progress) return absl::OkStatus();
  progress_.phase = phase;
  if (unpack_.has_value()) unpack_->FillProgress(progress_);
  if (options_.progress(progress_)) return absl::OkStatus();
  return absl::CancelledError("import: cancelled by ImportOptions::progress");
}

}  // namespace caisson::layer
