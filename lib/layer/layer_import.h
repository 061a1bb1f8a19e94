// One import: from an archive to published images.
//
//   LayerImport import(store, index, store_options, options);
//   ASSIGN_OR_RETURN(std::vector<Digest> ids, import.Run(archive));
//
// Layers are unpacked in a staging directory, in one pass over their bytes
// (parallel_unpack.h), and become visible together, after one syncfs(2), by
// renames and one transaction.
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
#include "caisson/layer_store.h"
#include "caisson/unique_fd.h"
#include "lib/layer/archived_image.h"
#include "lib/layer/decompress.h"
#include "lib/layer/digest.h"
#include "lib/layer/image_archive.h"
#include "lib/layer/layer_staging.h"
#include "lib/layer/parallel_unpack.h"
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
  absl::Status ReadArchive(BorrowedFd archive);
  absl::Status ApplyName();
  absl::Status Plan();
  absl::Status Unpack();
  absl::Status Publish();
  std::vector<ImageRecord> Records() const;
  absl::Status Report(ImportProgress::Phase phase);

  const StoreDir& store_;
  StoreIndex& index_;
  const LayerStoreOptions& limits_;
  const ImportOptions& options_;

  std::optional<LayerStaging> staging_;
  std::unique_ptr<ImageArchive> archive_;
  std::vector<ArchivedImage> images_;
  std::map<Digest, uint64_t> stored_;  // sizes of what the store has
  std::optional<ParallelUnpack> unpack_;
  ImportProgress progress_;
};

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_LAYER_IMPORT_H_
