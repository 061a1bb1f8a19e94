#include "lib/layer/decompress.h"

#include <string.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "lib/base/status_macros.h"
#include "lib/layer/buffered_input.h"
#include "lib/layer/bzip2_source.h"
#include "lib/layer/gzip_source.h"
#include "lib/layer/inflater.h"
#include "lib/layer/xz_source.h"
#include "lib/layer/zstd_source.h"

namespace caisson::layer {
namespace {

constexpr absl::string_view kGzipMagic = "\x1f\x8b";
constexpr absl::string_view kXzMagic(
    "\xfd"
    "7zXZ\0",
    6);

// What an xz decoder takes beside its window.
constexpr uint64_t kXzOverhead = 16 << 20;

constexpr size_t kZeroStep = 4 << 10;

// The bytes of `data` without its steps of zeros.
size_t WithoutZeros(absl::string_view data) {
  static constexpr char kZeros[kZeroStep] = {};
  size_t count = data.size();
  for (; data.size() >= kZeroStep; data.remove_prefix(kZeroStep)) {
    if (::memcmp(data.data(), kZeros, kZeroStep) == 0) count -= kZeroStep;
  }
  return count;
}

// Owns the decoder chain and stops at the limits.
class LimitedSource final : public DecompressedSource {
 public:
  LimitedSource(ByteSource& compressed, const DecompressOptions& options)
      : input_(compressed),
        limit_(options.max_output_bytes),
        limit_name_(options.max_output_bytes_name),
        max_ratio_(options.max_compression_ratio) {}

  absl::Status Detect(uint64_t max_window_bytes, InflaterFactory make_inflater);
  Compression compression() const override { return compression_; }
  absl::StatusOr<size_t> Read(absl::Span<char> buffer) override;

 private:
  absl::Status CheckRatio(absl::string_view output);

  BufferedInput input_;
  std::unique_ptr<ByteSource> decoder_;  // null: the bytes as they are
  Compression compression_ = Compression::kNone;
  const uint64_t limit_;
  const char* const limit_name_;
  const uint64_t max_ratio_;
  uint64_t produced_ = 0;
  uint64_t counted_ = 0;  // of these, for the ratio
  absl::Status failure_;
};

absl::Status LimitedSource::Detect(uint64_t max_window_bytes,
                                   InflaterFactory make_inflater) {
  ASSIGN_OR_RETURN(const absl::string_view head,
                   input_.Peek(kCompressionMagic));
  compression_ = CompressionOf(head);
  switch (compression_) {
    case Compression::kNone:
      break;
    case Compression::kGzip:
      decoder_ = std::make_unique<GzipSource>(input_, make_inflater());
      break;
    case Compression::kZstd: {
      ASSIGN_OR_RETURN(decoder_, ZstdSource::Create(input_, max_window_bytes));
      break;
    }
    case Compression::kXz: {
      ASSIGN_OR_RETURN(decoder_,
                       XzSource::Create(input_, max_window_bytes, kXzOverhead));
      break;
    }
    case Compression::kBzip2:
      decoder_ = std::make_unique<Bzip2Source>(input_);
      break;
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
        "the stream expands to more than ", limit_name_, " (", limit_, ")"));
  } else {
    produced_ += *got;
    failure_ = CheckRatio(absl::string_view(buffer.data(), *got));
    if (failure_.ok()) return got;
  }
  return failure_;
}

absl::Status LimitedSource::CheckRatio(absl::string_view output) {
  if (max_ratio_ == 0 || decoder_ == nullptr) return absl::OkStatus();
  counted_ += WithoutZeros(output);
  if (counted_ <= kFreeOutputBytes ||
      (counted_ - kFreeOutputBytes) / max_ratio_ <= input_.offset()) {
    return absl::OkStatus();
  }
  return absl::ResourceExhaustedError(
      absl::StrCat("the first ", input_.offset(), " bytes expand to ",
                   produced_, ", more than max_compression_ratio (", max_ratio_,
                   ") allows; a larger one is needed if this is no attack"));
}

}  // namespace

Compression CompressionOf(absl::string_view head) {
  if (absl::StartsWith(head, kGzipMagic)) return Compression::kGzip;
  if (IsZstdFrame(head)) return Compression::kZstd;
  if (absl::StartsWith(head, kXzMagic)) return Compression::kXz;
  return IsBzip2(head) ? Compression::kBzip2 : Compression::kNone;
}

absl::StatusOr<std::unique_ptr<DecompressedSource>> DecompressWith(
    ByteSource& compressed, const DecompressOptions& options,
    InflaterFactory make_inflater) {
  auto source = std::make_unique<LimitedSource>(compressed, options);
  RETURN_IF_ERROR(source->Detect(options.max_window_bytes, make_inflater));
  return source;
}

}  // namespace caisson::layer
