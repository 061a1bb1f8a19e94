#include "lib/unpacker/confined_unpack.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "lib/base/status_macros.h"
#include "lib/layer/overlay_view.h"
#include "lib/layer/tar_split.h"
#include "lib/sys/open.h"
#include "lib/unpacker/unpack_service.h"

namespace caisson::unpacker {
namespace {

constexpr size_t kChunk = 256 << 10;
// Beside the tree of a layer, of which UnpackOptions::max_layer_memory is an
// estimate.
constexpr uint64_t kOverhead = uint64_t{256} << 20;
constexpr uint64_t kTreeFactor = 2;

class ConfinedUnpack final : public layer::LayerUnpack {
 public:
  ConfinedUnpack(std::unique_ptr<ConfinedProcess> process, UniqueFd dir,
                 const layer::UnpackOptions& options)
      : dir_(std::move(dir)),
        process_(std::move(process)),
        options_(options),
        service_(dir_.borrow(), options.format) {}

  absl::Status Apply(layer::ByteSource& tar) override {
    const absl::Status status = Converse([&] { return FeedAll(tar); });
    if (!status.ok()) process_.reset();
    return status;
  }

  absl::StatusOr<layer::UnpackStats> Finish(
      std::optional<absl::Span<const BorrowedFd>> lowers) override {
    layer::OverlayView view(lowers, options_.format);
    service_.set_lowers(&view);
    const absl::Cleanup close = [this] {
      service_.set_lowers(nullptr);
      process_.reset();
    };
    Message message(MessageType::kFinish);
    RETURN_IF_ERROR(process_->Send(message.Number(view.known() ? 1 : 0),
                                   [this] { return Report(); }));
    RETURN_IF_ERROR(Converse([] { return absl::OkStatus(); }));
    return stats_;
  }

 private:
  // Runs `talk`, unless the result comes before its end, and waits for it.
  absl::Status Converse(absl::FunctionRef<absl::Status()> talk) {
    result_.reset();
    RETURN_IF_ERROR(talk());
    while (!result_.has_value()) {
      RETURN_IF_ERROR(Listen());
      if (result_.has_value()) break;
      RETURN_IF_ERROR(process_->Wait(/*to_write=*/false, /*to_read=*/false,
                                     [this] { return Report(); }));
    }
    return *result_;
  }

  absl::Status FeedAll(layer::ByteSource& tar) {
    const auto buffer = std::make_unique<char[]>(kChunk);
    for (;;) {
      ASSIGN_OR_RETURN(const size_t n,
                       tar.Read(absl::MakeSpan(buffer.get(), kChunk)));
      if (n == 0) break;
      fed_ += n;
      RETURN_IF_ERROR(Feed(absl::string_view(buffer.get(), n)));
      if (result_.has_value()) {
        return result_->ok() ? ConfinedProcess::Nonsense("an early end")
                             : absl::OkStatus();
      }
    }
    process_->CloseInput();
    all_fed_ = true;
    return absl::OkStatus();
  }

  absl::Status Feed(absl::string_view bytes) {
    while (!bytes.empty() && !result_.has_value()) {
      ASSIGN_OR_RETURN(const size_t n, process_->TryWrite(bytes));
      bytes.remove_prefix(n);
      RETURN_IF_ERROR(Listen());
      if (n > 0 || result_.has_value()) continue;
      RETURN_IF_ERROR(process_->Wait(/*to_write=*/true, /*to_read=*/false,
                                     [this] { return Report(); }));
    }
    return absl::OkStatus();
  }

  absl::Status Report() const {
    return options_.progress ? options_.progress(progress_) : absl::OkStatus();
  }

  absl::Status Listen() {
    return process_
        ->Handle([this](MessageType type, absl::string_view payload) {
          return Hear(type, payload);
        })
        .status();
  }

  // True: that was the result.
  absl::StatusOr<bool> Hear(MessageType type, absl::string_view payload) {
    switch (type) {
      case MessageType::kRaw:
      case MessageType::kData:
        return HearSplit(type, payload);
      case MessageType::kProgress:
        return HearProgress(payload);
      case MessageType::kApplied:
        return HearApplied(payload);
      case MessageType::kFinished:
        return HearFinished(payload);
      default:
        break;
    }
    ASSIGN_OR_RETURN(Message answer, service_.Answer(type, payload));
    RETURN_IF_ERROR(process_->Send(answer, [this] { return Report(); }));
    return false;
  }

  absl::StatusOr<bool> HearSplit(MessageType type, absl::string_view payload) {
    MessageReader reader(payload);
    const std::string text = reader.Text();
    uint64_t offset = 0;
    uint64_t length = text.size();
    if (type == MessageType::kData) {
      offset = reader.Number();
      length = reader.Number();
    }
    // A file's data is announced before it is read. The sum is the tar's
    // length in the end.
    split_ += std::min(length, UINT64_MAX - split_);
    if (!reader.Complete() || options_.split == nullptr) {
      return ConfinedProcess::Nonsense("a part of the tar");
    }
    if (type == MessageType::kData) {
      options_.split->Data(text, offset, length);
    } else if (split_raw_ += length; split_raw_ > fed_) {
      return ConfinedProcess::Nonsense("more of the tar than there is");
    } else {
      options_.split->Raw(text);
    }
    return false;
  }

  absl::StatusOr<bool> HearProgress(absl::string_view payload) {
    MessageReader reader(payload);
    progress_.entries = reader.Number();
    progress_.bytes = reader.Number();
    progress_.tar_bytes = std::min(reader.Number(), fed_);
    if (!reader.Complete()) return ConfinedProcess::Nonsense("no progress");
    RETURN_IF_ERROR(Report());
    return false;
  }

  absl::StatusOr<bool> HearApplied(absl::string_view payload) {
    MessageReader reader(payload);
    const absl::Status status = reader.TakeStatus();
    if (!reader.Complete() || applied_) {
      return ConfinedProcess::Nonsense("no result");
    }
    if (status.ok() && !all_fed_) {
      return ConfinedProcess::Nonsense("an early end");
    }
    if (status.ok() && options_.split != nullptr && split_ != fed_) {
      return ConfinedProcess::Nonsense("another length of the tar");
    }
    applied_ = true;
    result_ = status;
    return true;
  }

  absl::StatusOr<bool> HearFinished(absl::string_view payload) {
    MessageReader reader(payload);
    const absl::Status status = reader.TakeStatus();
    stats_ = reader.TakeStats();
    if (!reader.Complete() || !applied_) {
      return ConfinedProcess::Nonsense("no statistics");
    }
    if (status.ok() &&
        (stats_.tar_bytes != fed_ || stats_.bytes > options_.max_bytes ||
         stats_.entries > options_.max_entries)) {
      return ConfinedProcess::Nonsense("statistics of something else");
    }
    result_ = status;
    return true;
  }

  const UniqueFd dir_;
  std::unique_ptr<ConfinedProcess> process_;
  const layer::UnpackOptions options_;
  UnpackService service_;
  layer::UnpackProgress progress_;
  layer::UnpackStats stats_;
  std::optional<absl::Status> result_;  // of what it is at
  bool applied_ = false;
  bool all_fed_ = false;
  uint64_t fed_ = 0;        // bytes of the tar
  uint64_t split_ = 0;      // of them that were accounted for
  uint64_t split_raw_ = 0;  // of these, those that were sent back
};

}  // namespace

absl::StatusOr<std::unique_ptr<layer::LayerUnpack>> OpenConfinedUnpack(
    const Confinement& confinement, BorrowedFd dir,
    const layer::UnpackOptions& options) {
  if (options.owner.has_value()) {
    return absl::FailedPreconditionError(
        "ConfinedUnpacker: not for kOverlayUserxattrSingle, whose files belong "
        "to the host's user");
  }
  const uint64_t tree =
      std::min<uint64_t>(options.max_layer_memory, uint64_t{1} << 40);
  ASSIGN_OR_RETURN(
      auto process,
      ConfinedProcess::Start(
          confinement,
          {.layer = dir, .max_memory_bytes = kOverhead + kTreeFactor * tree}));
  Message request(MessageType::kUnpack);
  RETURN_IF_ERROR(process->Send(
      request.Add(options).Number(options.split != nullptr ? 1 : 0)));
  ASSIGN_OR_RETURN(UniqueFd own, sys::Duplicate(dir));
  return std::make_unique<ConfinedUnpack>(std::move(process), std::move(own),
                                          options);
}

}  // namespace caisson::unpacker
