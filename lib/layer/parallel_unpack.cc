#include "lib/layer/parallel_unpack.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/layer/byte_source.h"
#include "lib/layer/store_limits.h"
#include "lib/layer/worker_thread.h"

namespace caisson::layer {
namespace {

std::string ChainDir(const ArchivedLayer& layer) {
  return std::string(layer.chain_id.hex());
}

uint64_t Left(uint64_t limit, uint64_t used) {
  return limit - std::min(used, limit);
}

// What is left of the limits for all layers may be less than those for one.
void LimitLayer(const LayerStoreOptions& limits, uint64_t entries,
                uint64_t bytes, UnpackOptions& options) {
  const uint64_t entries_left = Left(limits.max_import_entries, entries);
  if (entries_left < options.max_entries) {
    options.max_entries = entries_left;
    options.max_entries_name = "what is left of max_import_entries";
  }
  const uint64_t bytes_left = Left(limits.max_import_bytes, bytes);
  if (bytes_left < options.max_bytes) {
    options.max_bytes = bytes_left;
    options.max_bytes_name = "what is left of max_import_bytes";
  }
}

}  // namespace

ParallelUnpack::ParallelUnpack(const StoreDir& store,
                               const LayerStaging& staging,
                               const ImageArchive& archive,
                               const LayerStoreOptions& limits,
                               std::function<absl::Status()> report)
    : store_(store),
      staging_(staging),
      archive_(archive),
      limits_(limits),
      layer_limits_(LayerDecompression(limits)),
      report_(std::move(report)) {}

void ParallelUnpack::Add(const ArchivedImage& image, size_t index) {
  Job& job = jobs_.emplace_back();
  job.image = &image;
  job.index = index;
  by_chain_.emplace(job.layer().chain_id, &job);
}

std::optional<uint64_t> ParallelUnpack::SizeOf(const Digest& chain_id) const {
  const auto it = by_chain_.find(chain_id);
  if (it == by_chain_.end()) return std::nullopt;
  return it->second->stats.bytes;
}

void ParallelUnpack::FillProgress(ImportProgress& progress) const {
  progress.layers_done = 0;
  progress.bytes_done = 0;
  progress.entries_done = 0;
  for (size_t i = 0; i < jobs_.size(); ++i) {
    const Job& job = jobs_[i];
    ImportProgress::Layer& layer = progress.each[i];
    layer.done = job.done;
    layer.bytes_done = job.blob_bytes;
    layer.entries_done = job.entries;
    progress.layers_done += layer.done ? 1 : 0;
    progress.bytes_done += layer.bytes_done;
    progress.entries_done += layer.entries_done;
  }
}

// ---- lanes ----

// As many layers at once as there are pairs of threads, because two keep one
// layer going at its best: one that decompresses and one that writes.
std::vector<ParallelUnpack::Lane> ParallelUnpack::PlanLanes() const {
  const size_t threads =
      static_cast<size_t>(std::max(limits_.import_threads, 0)) + 1;
  const size_t count = std::min(jobs_.size(), std::max<size_t>(threads / 2, 1));
  std::vector<Lane> lanes(count);
  for (size_t i = 0; i < count; ++i) {
    const size_t share = threads / count + (i < threads % count ? 1 : 0);
    lanes[i].stream_threads =
        static_cast<int>(std::min<size_t>(share - 1, LayerStream::kMaxThreads));
  }
  lanes[0].is_caller = true;
  return lanes;
}

absl::Status ParallelUnpack::Run() {
  if (jobs_.empty()) return absl::OkStatus();
  const std::vector<Lane> lanes = PlanLanes();
  window_ = 2 * lanes.size();
  {
    std::deque<WorkerThread> others;  // joined at the end of this block
    for (size_t i = 1; i < lanes.size(); ++i) {
      const absl::Status started = others.emplace_back().Start(
          "unpack a layer", [this, &lane = lanes[i]] { Work(lane); });
      if (!started.ok()) Stop(started);
    }
    Work(lanes[0]);
  }
  lowers_.clear();
  return failure_;
}

void ParallelUnpack::Work(const Lane& lane) {
  std::unique_lock<std::mutex> lock(mutex_);
  while (failure_.ok() && finished_ < jobs_.size()) {
    const std::optional<Step> step = NextStep();
    if (!step.has_value()) {
      changed_.wait(lock);
      if (!lane.is_caller) continue;
    }
    lock.unlock();
    const absl::Status status = Do(step, lane);
    lock.lock();
    if (!status.ok()) {
      failure_.Update(status);
      stopped_ = true;
    } else if (!step.has_value()) {
      continue;
    } else {
      EndStep(*step);
    }
    changed_.notify_all();
  }
}

// What a lane can do now. A layer that can be completed goes first: it frees
// memory, and others may wait for it.
std::optional<ParallelUnpack::Step> ParallelUnpack::NextStep() {
  if (!finishing_ && jobs_[finished_].written) {
    finishing_ = true;
    return Step{&jobs_[finished_], /*finish=*/true};
  }
  if (begun_ < jobs_.size() && begun_ - finished_ < window_) {
    return Step{&jobs_[begun_++], /*finish=*/false};
  }
  return std::nullopt;
}

absl::Status ParallelUnpack::Do(const std::optional<Step>& step,
                                const Lane& lane) {
  if (!step.has_value()) return CheckIn(lane);
  step->job->lane = &lane;
  return step->finish ? Finish(*step->job) : Write(*step->job);
}

void ParallelUnpack::EndStep(const Step& step) {
  if (!step.finish) {
    step.job->written = true;
    return;
  }
  step.job->done = true;
  finishing_ = false;
  ++finished_;
}

void ParallelUnpack::Stop(const absl::Status& status) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    failure_.Update(status);
    stopped_ = true;
  }
  changed_.notify_all();
}

// To be called in between by every lane: the caller's reports, the others wake
// it for that if it has nothing else to do.
absl::Status ParallelUnpack::CheckIn(const Lane& lane) {
  if (stopped_) return absl::CancelledError("another layer has failed");
  if (lane.is_caller) return report_();
  changed_.notify_all();
  return absl::OkStatus();
}

// ---- one layer ----

absl::Status ParallelUnpack::Write(Job& job) {
  const ArchivedLayer& layer = job.layer();
  const auto check_in = [this, &job] { return CheckIn(*job.lane); };
  RETURN_IF_ERROR(check_in());
  auto stream = LayerStream::Open(archive_, layer, layer_limits_,
                                  job.lane->stream_threads);
  const absl::Status status =
      stream.ok() ? WriteStream(job, **stream) : stream.status();
  if (!status.ok()) {
    return ExplainFailure(archive_, layer, layer_limits_, status, check_in);
  }
  RETURN_IF_ERROR((*stream)->Verify());
  job.blob_bytes = layer.size;
  return absl::OkStatus();
}

absl::Status ParallelUnpack::WriteStream(Job& job, LayerStream& stream) {
  UnpackOptions options = LayerUnpacking(limits_);
  LimitLayer(limits_, entries_, file_bytes_, options);
  options.progress = [this, &job](const UnpackProgress& progress) {
    if (job.stream != nullptr) job.blob_bytes = job.stream->bytes_read();
    RETURN_IF_ERROR(Count(job, progress.entries, progress.bytes));
    return CheckIn(*job.lane);
  };
  ASSIGN_OR_RETURN(job.staged,
                   staging_.Create(ChainDir(job.layer()), std::move(options)));
  job.stream = &stream;
  const absl::Status status = job.staged->Write(stream.tar());
  job.stream = nullptr;
  return status;
}

// The limits of one layer were set when it was begun; others have grown since.
absl::Status ParallelUnpack::Count(Job& job, uint64_t entries,
                                   uint64_t file_bytes) {
  const uint64_t all_entries = entries_ +=
      entries - job.entries.exchange(entries);
  const uint64_t all_bytes = file_bytes_ +=
      file_bytes - std::exchange(job.file_bytes, file_bytes);
  const auto beyond = [](absl::string_view what, absl::string_view limit,
                         uint64_t value) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the layers together have more ", what, " than ", limit,
                     " (", value, ")"));
  };
  if (all_entries > limits_.max_import_entries) {
    return beyond("entries", "max_import_entries", limits_.max_import_entries);
  }
  if (all_bytes > limits_.max_import_bytes) {
    return beyond("bytes", "max_import_bytes", limits_.max_import_bytes);
  }
  return absl::OkStatus();
}

absl::Status ParallelUnpack::Finish(Job& job) {
  RETURN_IF_ERROR(OpenLowers(job));
  std::vector<BorrowedFd> lowers;  // top first
  for (size_t i = job.index; i-- > 0;) lowers.push_back(lowers_[i].borrow());
  auto stats = job.staged->Finish(lowers);
  job.staged.reset();
  if (!stats.ok()) {
    return Annotate(stats.status(),
                    absl::StrCat("layer ", Quoted(job.layer().path)));
  }
  job.stats = *stats;
  RETURN_IF_ERROR(Count(job, stats->entries, stats->bytes));
  return stats->replaced ? KeepWhole(job) : absl::OkStatus();
}

absl::Status ParallelUnpack::OpenLowers(const Job& job) {
  if (lowers_of_ != job.image) lowers_.clear();
  lowers_of_ = job.image;
  while (lowers_.size() < job.index) {
    const ArchivedLayer& lower = job.image->layers[lowers_.size()];
    const bool is_new = by_chain_.count(lower.chain_id) > 0;
    ASSIGN_OR_RETURN(UniqueFd root, is_new ? staging_.OpenLayer(ChainDir(lower))
                                           : store_.OpenLayer(lower.chain_id));
    lowers_.push_back(std::move(root));
  }
  return absl::OkStatus();
}

// An entry that another one of the same layer replaced is nowhere else.
absl::Status ParallelUnpack::KeepWhole(Job& job) {
  ASSIGN_OR_RETURN(auto again,
                   LayerStream::Open(archive_, job.layer(), layer_limits_));
  const auto check_in = [this, &job] { return CheckIn(*job.lane); };
  WatchedSource tar(again->tar(), check_in);
  RETURN_IF_ERROR(staging_.KeepWhole(ChainDir(job.layer()), tar));
  return again->Verify();
}

}  // namespace caisson::layer
