// One import: from an archive to published images.
//
//   LayerImport import(store, index, store_options, options);
//   ASSIGN_OR_RETURN(std::vector<Digest> ids, import.Run(archive));
//
// Layers are unpacked in a staging directory, in one pass over their bytes, and
// become visible together, after one syncfs(2), by renames and one transaction.
// Several imports may run at once, in threads and processes; where two unpack
// the same layer, the second to finish drops its copy. Thread-compatible.
#ifndef CAISSON_LIB_LAYER_LAYER_IMPORT_H_
#define CAISSON_LIB_LAYER_LAYER_IMPORT_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "caisson/layer_store.h"
#include "caisson/unique_fd.h"
#include "lib/layer/archived_image.h"
#include "lib/layer/decompress.h"
#include "lib/layer/digest.h"
#include "lib/layer/image_archive.h"
#include "lib/layer/layer_staging.h"
#include "lib/layer/layer_stream.h"
#include "lib/layer/store_dir.h"
#include "lib/layer/store_index.h"

namespace caisson::layer {

class LayerImport final {
 public:
  // All arguments must outlive the object.
  LayerImport(const StoreDir& store, StoreIndex& index,
              const LayerStoreOptions& limits, const ImportOptions& options);

  // Imports the archive and returns the ids of its images, whose removal is
  // refused for as long as this object lives. Call once.
  absl::StatusOr<std::vector<Digest>> Run(BorrowedFd archive);

 private:
  struct PlannedLayer {
    const ArchivedLayer* source = nullptr;
    bool stored = false;  // the store has it
    bool staged = false;  // it is in the staging directory
    uint64_t size = 0;    // of its files, once stored or staged
  };

  absl::Status ReadArchive(BorrowedFd archive);
  absl::Status ApplyName();
  absl::Status Plan();
  absl::Status Unpack();
  absl::Status UnpackImage(const ArchivedImage& image);
  absl::StatusOr<UniqueFd> OpenLayer(const PlannedLayer& layer) const;
  absl::Status StartAhead();
  absl::StatusOr<LayerStream*> StreamOf(const ArchivedLayer& layer);
  void LimitLayer(UnpackOptions& options) const;
  absl::Status StageLayer(PlannedLayer& layer,
                          absl::Span<const BorrowedFd> lowers);
  absl::Status KeepWhole(const ArchivedLayer& source, const std::string& name);
  absl::Status Publish();
  std::vector<ImageRecord> Records() const;
  absl::Status Report(ImportProgress::Phase phase);

  const StoreDir& store_;
  StoreIndex& index_;
  const LayerStoreOptions& limits_;
  const DecompressOptions layer_limits_;
  const ImportOptions& options_;

  std::optional<LayerStaging> staging_;
  std::unique_ptr<ImageArchive> archive_;
  std::vector<ArchivedImage> images_;
  std::map<Digest, PlannedLayer> layers_;  // by chain_id
  std::vector<PlannedLayer*> missing_;     // in the order of unpacking

  // Streams that were started, for missing_[i] on; the first is in use.
  std::map<const ArchivedLayer*, std::unique_ptr<LayerStream>> streams_;
  ImportProgress progress_;
  uint64_t finished_bytes_ = 0;
  uint64_t unpacked_bytes_ = 0;  // of files, in all layers so far
  uint64_t unpacked_entries_ = 0;
  const LayerStream* current_ = nullptr;
};

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_LAYER_IMPORT_H_
