// The layers that an import lacks, unpacked into its staging directory, several
// at once if threads are allowed.
//
//   ParallelUnpack unpack(store, staging, archive, limits, report);
//   for (...) unpack.Add(image, index);
//   RETURN_IF_ERROR(unpack.Run());
//
// There are lanes, of which the calling thread is one. A lane takes the next
// layer, writes its files, and may have up to two more threads that decompress
// and hash ahead of it (layer_stream.h). What depends on the layers below is
// done when these are complete, bottom first, one layer at a time, by whichever
// lane is free. So the result is the same whatever the number of threads.
#ifndef CAISSON_LIB_LAYER_PARALLEL_UNPACK_H_
#define CAISSON_LIB_LAYER_PARALLEL_UNPACK_H_

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
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
#include "lib/layer/layer_stream.h"
#include "lib/layer/store_dir.h"

namespace caisson::layer {

// Thread-compatible.
class ParallelUnpack final {
 public:
  // `report` is called in the thread of Run alone, about once per MiB; its
  // error ends everything. All other arguments must outlive the object.
  ParallelUnpack(const StoreDir& store, const LayerStaging& staging,
                 const ImageArchive& archive, const LayerStoreOptions& limits,
                 std::function<absl::Status()> report);

  // The layer at `index` of `image` is missing. Call it once for each layer,
  // those below first.
  void Add(const ArchivedImage& image, size_t index);

  size_t size() const { return jobs_.size(); }

  // Unpacks all layers, each into a directory that has the digits of its
  // chain_id as name. After an error, the first that occurred, no thread is
  // left and every layer may be there, in part or not at all.
  absl::Status Run();

  // Bytes of the files of a layer, after Run; nullopt if it was not added.
  std::optional<uint64_t> SizeOf(const Digest& chain_id) const;

  // How far it is, for `report`.
  void FillProgress(ImportProgress& progress) const;

 private:
  struct Lane {
    bool is_caller = false;
    int stream_threads = 0;
  };

  struct Job {
    const ArchivedImage* image = nullptr;
    size_t index = 0;            // of the layer in the image
    const Lane* lane = nullptr;  // that works at it
    LayerStream* stream = nullptr;
    std::unique_ptr<StagedLayer> staged;
    UnpackStats stats;
    uint64_t file_bytes = 0;
    bool written = false;
    // For the progress: set by the lane, read by the thread of Run.
    std::atomic<uint64_t> blob_bytes = 0;
    std::atomic<uint64_t> entries = 0;
    std::atomic<bool> done = false;

    const ArchivedLayer& layer() const { return image->layers[index]; }
  };

  struct Step {
    Job* job = nullptr;
    bool finish = false;
  };

  std::vector<Lane> PlanLanes() const;
  void Work(const Lane& lane);
  std::optional<Step> NextStep();
  absl::Status Do(const std::optional<Step>& step, const Lane& lane);
  void EndStep(const Step& step);
  void Stop(const absl::Status& status);
  absl::Status CheckIn(const Lane& lane);

  absl::Status Write(Job& job);
  absl::Status WriteStream(Job& job, LayerStream& stream);
  absl::Status Count(Job& job, uint64_t entries, uint64_t file_bytes);
  absl::Status Finish(Job& job);
  absl::Status OpenLowers(const Job& job);
  absl::Status KeepWhole(Job& job);

  const StoreDir& store_;
  const LayerStaging& staging_;
  const ImageArchive& archive_;
  const LayerStoreOptions& limits_;
  const DecompressOptions layer_limits_;
  const std::function<absl::Status()> report_;

  std::deque<Job> jobs_;  // those below first
  std::map<Digest, Job*> by_chain_;
  size_t window_ = 1;  // layers that may be begun and not complete

  // Of all layers, so that the limits of an import hold while they grow.
  std::atomic<uint64_t> entries_ = 0;
  std::atomic<uint64_t> file_bytes_ = 0;
  std::atomic<bool> stopped_ = false;

  // std::mutex, which ThreadSanitizer sees through.
  std::mutex mutex_;  // for what follows, and Job::written
  std::condition_variable changed_;
  size_t begun_ = 0;
  size_t finished_ = 0;
  bool finishing_ = false;
  absl::Status failure_;

  // Of the lane that is finishing: the layers below, bottom first.
  const ArchivedImage* lowers_of_ = nullptr;
  std::vector<UniqueFd> lowers_;
};

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_PARALLEL_UNPACK_H_
