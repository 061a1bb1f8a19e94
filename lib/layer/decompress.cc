#include "lib/layer/decompress.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "lib/base/status_macros.h"
#include "lib/layer/buffered_input.h"
#include "lib/layer/gzip_source.h"
#include "lib/layer/zstd_source.h"

namespace caisson::layer {
namespace {

constexpr absl::string_view kGzipMagic = "\x1f\x8b";
// With the signature of the first block, so that a tar of "BZh9" is not meant.
constexpr absl::string_view kBzip2Block = "1AY&SY";
constexpr absl::string_view kXzMagic(
    "\xfd"
    "7zXZ\0",
    6);
constexpr size_t kLongestMagic = 10;

bool IsBzip2(absl::string_view head) {
  return head.size() >= kLongestMagic && absl::StartsWith(head, "BZh") &&
         head.substr(4, kBzip2Block.size()) == kBzip2Block;
}

// Owns the decoder chain and stops at the limit.
class LimitedSource final : public DecompressedSource {
 public:
  LimitedSource(ByteSource& compressed, uint64_t limit)
      : input_(compressed), limit_(limit) {}

  absl::Status Detect(int max_window_log);
  Compression compression() const override { return compression_; }
  absl::StatusOr<size_t> Read(absl::Span<char> buffer) override;

 private:
  BufferedInput input_;
  std::unique_ptr<ByteSource> decoder_;  // null: the bytes as they are
  Compression compression_ = Compression::kNone;
  const uint64_t limit_;
  uint64_t produced_ = 0;
  absl::Status failure_;
};

absl::Status LimitedSource::Detect(int max_window_log) {
  ASSIGN_OR_RETURN(const absl::string_view head, input_.Peek(kLongestMagic));
  if (absl::StartsWith(head, kGzipMagic)) {
    compression_ = Compression::kGzip;
    decoder_ = std::make_unique<GzipSource>(input_);
  } else if (IsZstdFrame(head)) {
    compression_ = Compression::kZstd;
    ASSIGN_OR_RETURN(decoder_, ZstdSource::Create(input_, max_window_log));
  } else if (absl::StartsWith(head, kXzMagic)) {
    return absl::UnimplementedError(
        "the stream is compressed with xz; layers are gzip, zstd or plain tar");
  } else if (IsBzip2(head)) {
    return absl::UnimplementedError(
        "the stream is compressed with bzip2; layers are gzip, zstd or plain "
        "tar");
  }
  return absl::OkStatus();
}

absl::StatusOr<size_t> LimitedSource::Read(absl::Span<char> buffer) {
  RETURN_IF_ERROR(failure_);
  // One byte more than allowed tells a stream of exactly the limit from a
  // longer one.
  const uint64_t room = limit_ - produced_;
  if (room < std::numeric_limits<uint64_t>::max()) {
    buffer = buffer.first(std::min<uint64_t>(buffer.size(), room + 1));
  }
  absl::StatusOr<size_t> got =
      decoder_ != nullptr ? decoder_->Read(buffer) : input_.Read(buffer);
  if (!got.ok()) {
    failure_ = got.status();
  } else if (*got > room) {
    failure_ = absl::ResourceExhaustedError(absl::StrCat(
        "the stream expands to more than max_output_bytes (", limit_, ")"));
  } else {
    produced_ += *got;
    return got;
  }
  return failure_;
}

}  // namespace

absl::StatusOr<std::unique_ptr<DecompressedSource>> Decompress(
    ByteSource& compressed, const DecompressOptions& options) {
  auto source =
      std::make_unique<LimitedSource>(compressed, options.max_output_bytes);
  RETURN_IF_ERROR(source->Detect(options.max_window_log));
  return source;
}

}  // namespace caisson::layer
