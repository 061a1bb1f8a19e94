#include "lib/unpacker/confined_decompress.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/status_macros.h"

namespace caisson::unpacker {
namespace {

constexpr size_t kChunk = 256 << 10;
// Beside the window of a decoder.
constexpr uint64_t kOverhead = uint64_t{256} << 20;
constexpr uint64_t kLargestWindow = uint64_t{4} << 30;  // of zstd and xz
// It has nothing to wait for but its input and output. So many half seconds.
constexpr int kMaxIdle = 120;

// The bytes that were read to see what they are, and then the rest.
class Joined final : public layer::ByteSource {
 public:
  Joined(std::string head, layer::ByteSource& rest)
      : head_(std::move(head)), rest_(rest) {}

  absl::StatusOr<size_t> Read(absl::Span<char> buffer) override {
    if (used_ == head_.size()) return rest_.Read(buffer);
    const size_t n = head_.copy(buffer.data(), buffer.size(), used_);
    used_ += n;
    return n;
  }

 private:
  const std::string head_;
  size_t used_ = 0;
  layer::ByteSource& rest_;
};

// Uncompressed bytes, with the limit for them.
class PlainSource final : public layer::DecompressedSource {
 public:
  PlainSource(std::string head, layer::ByteSource& rest)
      : joined_(std::move(head), rest) {}

  absl::Status Open(layer::DecompressOptions options) {
    options.unpacker = nullptr;
    ASSIGN_OR_RETURN(source_, layer::Decompress(joined_, options));
    return absl::OkStatus();
  }

  layer::Compression compression() const override {
    return layer::Compression::kNone;
  }
  absl::StatusOr<size_t> Read(absl::Span<char> buffer) override {
    return source_->Read(buffer);
  }

 private:
  Joined joined_;
  std::unique_ptr<layer::DecompressedSource> source_;
};

class ConfinedSource final : public layer::DecompressedSource {
 public:
  ConfinedSource(std::unique_ptr<ConfinedProcess> process, std::string head,
                 layer::ByteSource& compressed,
                 const layer::DecompressOptions& options)
      : process_(std::move(process)),
        compression_(layer::CompressionOf(head)),
        input_(std::move(head), compressed),
        limit_(options.max_output_bytes) {}

  layer::Compression compression() const override { return compression_; }

  absl::StatusOr<size_t> Read(absl::Span<char> buffer) override {
    RETURN_IF_ERROR(failure_);
    if (ended_ || buffer.empty()) return 0;
    absl::StatusOr<size_t> n = ReadSome(buffer);
    if (!n.ok()) failure_ = n.status();
    ended_ = n.ok() && *n == 0;
    // It has nothing more to do, nor to hold memory for.
    if (!failure_.ok() || ended_) process_.reset();
    return n;
  }

 private:
  absl::StatusOr<size_t> ReadSome(absl::Span<char> buffer) {
    for (int idle = 0; idle < kMaxIdle;) {
      if (!output_ended_) {
        ASSIGN_OR_RETURN(const auto n, process_->TryRead(buffer));
        if (n.value_or(0) > 0) return Count(*n);
        output_ended_ = n.has_value();
      }
      if (output_ended_ && result_.has_value()) return End();
      ASSIGN_OR_RETURN(const bool fed, Feed());
      if (fed) {
        idle = 0;
        continue;
      }
      RETURN_IF_ERROR(Listen());
      if (output_ended_ && result_.has_value()) return End();
      RETURN_IF_ERROR(process_->Wait(/*to_write=*/!pending_.empty(),
                                     /*to_read=*/!output_ended_, [&idle] {
                                       ++idle;
                                       return absl::OkStatus();
                                     }));
    }
    return absl::UnavailableError(
        "the confined unpacker has done nothing for a minute");
  }

  absl::StatusOr<size_t> Count(size_t n) {
    // The other side stops at the limit, and says more about it.
    if (n > limit_ - produced_) {
      return ConfinedProcess::Nonsense("more bytes than it may");
    }
    produced_ += n;
    return n;
  }

  absl::StatusOr<size_t> End() {
    RETURN_IF_ERROR(*result_);
    if (!input_ended_) return ConfinedProcess::Nonsense("an early end");
    return 0;
  }

  // Whether anything was written. Reads only what there is room for.
  absl::StatusOr<bool> Feed() {
    if (input_ended_) return false;
    if (pending_.empty()) {
      buffer_.resize(kChunk);
      ASSIGN_OR_RETURN(const size_t n, input_.Read(absl::MakeSpan(buffer_)));
      pending_ = absl::string_view(buffer_.data(), n);
      if (n == 0) {
        input_ended_ = true;
        process_->CloseInput();
        return true;
      }
    }
    ASSIGN_OR_RETURN(const size_t n, process_->TryWrite(pending_));
    pending_.remove_prefix(n);
    return n > 0;
  }

  // Of its last words; without any, the error says how it ended.
  absl::Status Listen() {
    if (result_.has_value()) return absl::OkStatus();
    return process_
        ->Handle([this](MessageType type,
                        absl::string_view payload) -> absl::StatusOr<bool> {
          MessageReader reader(payload);
          const absl::Status status = reader.TakeStatus();
          if (type != MessageType::kDecompressed || !reader.Complete()) {
            return ConfinedProcess::Nonsense("no result");
          }
          result_ = status;
          return true;
        })
        .status();
  }

  std::unique_ptr<ConfinedProcess> process_;
  const layer::Compression compression_;
  Joined input_;
  const uint64_t limit_;
  std::string buffer_;
  absl::string_view pending_;  // of buffer_
  uint64_t produced_ = 0;
  bool input_ended_ = false;
  bool output_ended_ = false;
  std::optional<absl::Status> result_;
  bool ended_ = false;
  absl::Status failure_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<layer::DecompressedSource>> ConfinedDecompress(
    const Confinement& confinement, layer::ByteSource& compressed,
    const layer::DecompressOptions& options) {
  std::string head(layer::kCompressionMagic, '\0');
  ASSIGN_OR_RETURN(const size_t n,
                   layer::ReadFully(compressed, absl::MakeSpan(head)));
  head.resize(n);
  if (layer::CompressionOf(head) == layer::Compression::kNone) {
    auto plain = std::make_unique<PlainSource>(std::move(head), compressed);
    RETURN_IF_ERROR(plain->Open(options));
    return plain;
  }
  const uint64_t window = std::min(options.max_window_bytes, kLargestWindow);
  ASSIGN_OR_RETURN(auto process,
                   ConfinedProcess::Start(
                       confinement, {.max_memory_bytes = kOverhead + window}));
  Message request(MessageType::kDecompress);
  RETURN_IF_ERROR(process->Send(request.Add(options)));
  return std::make_unique<ConfinedSource>(std::move(process), std::move(head),
                                          compressed, options);
}

}  // namespace caisson::unpacker
