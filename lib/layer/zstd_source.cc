#include "lib/layer/zstd_source.h"

#include <zstd.h>
#include <zstd_errors.h>

#include <algorithm>

#include "absl/numeric/bits.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status_macros.h"

namespace caisson::layer {
namespace {

constexpr size_t kMagicSize = 4;

uint32_t LittleEndian32(absl::string_view bytes) {
  uint32_t value = 0;
  for (int i = 3; i >= 0; --i) {
    value = value << 8 | static_cast<uint8_t>(bytes[i]);
  }
  return value;
}

}  // namespace

bool IsZstdFrame(absl::string_view bytes) {
  if (bytes.size() < kMagicSize) return false;
  const uint32_t magic = LittleEndian32(bytes);
  return magic == ZSTD_MAGICNUMBER ||
         (magic & ZSTD_MAGIC_SKIPPABLE_MASK) == ZSTD_MAGIC_SKIPPABLE_START;
}

void ZstdSource::FreeContext::operator()(ZSTD_DCtx_s* context) const {
  ZSTD_freeDCtx(context);
}

absl::StatusOr<std::unique_ptr<ZstdSource>> ZstdSource::Create(
    BufferedInput& input, uint64_t max_window_bytes) {
  auto source = std::unique_ptr<ZstdSource>(new ZstdSource(input));
  source->context_.reset(ZSTD_createDCtx());
  if (source->context_ == nullptr) {
    return absl::ResourceExhaustedError("ZSTD_createDCtx(): out of memory");
  }
  const ZSTD_bounds bounds = ZSTD_dParam_getBounds(ZSTD_d_windowLogMax);
  const int log =
      std::min(bounds.upperBound,
               static_cast<int>(absl::bit_width(max_window_bytes)) - 1);
  const size_t code =
      ZSTD_DCtx_setParameter(source->context_.get(), ZSTD_d_windowLogMax, log);
  if (ZSTD_isError(code)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "max_window_bytes: ", max_window_bytes,
        " is less than the smallest window of zstd, ", 1 << bounds.lowerBound));
  }
  source->max_window_bytes_ = max_window_bytes;
  return source;
}

absl::Status ZstdSource::FrameError(size_t code) const {
  const std::string where =
      absl::StrCat("zstd stream at offset ", input_.offset(), ": ");
  switch (ZSTD_getErrorCode(code)) {
    case ZSTD_error_frameParameter_windowTooLarge:
      return absl::ResourceExhaustedError(
          absl::StrCat(where,
                       "the frame needs a larger window than "
                       "max_window_bytes (",
                       max_window_bytes_, ")"));
    case ZSTD_error_dictionary_wrong:
      return absl::InvalidArgumentError(
          absl::StrCat(where, "the frame needs a dictionary"));
    case ZSTD_error_checksum_wrong:
      return absl::InvalidArgumentError(
          absl::StrCat(where, "the checksum of the frame does not match"));
    case ZSTD_error_memory_allocation:
      return absl::ResourceExhaustedError(
          absl::StrCat(where, "out of memory for the window"));
    default:
      return absl::InvalidArgumentError(
          absl::StrCat(where, ZSTD_getErrorName(code)));
  }
}

// Checks the magic number before the library sees it, which would also accept
// the formats of versions before 0.8.
absl::Status ZstdSource::StartFrame() {
  ASSIGN_OR_RETURN(const absl::string_view magic, input_.Peek(kMagicSize));
  if (magic.empty()) {
    end_ = true;
    return absl::OkStatus();
  }
  if (!IsZstdFrame(magic)) {
    return absl::InvalidArgumentError(
        absl::StrCat("zstd stream at offset ", input_.offset(),
                     ": bytes behind the last frame"));
  }
  in_frame_ = true;
  return absl::OkStatus();
}

absl::StatusOr<size_t> ZstdSource::Read(absl::Span<char> buffer) {
  if (buffer.empty()) return 0;
  ZSTD_outBuffer out = {buffer.data(), buffer.size(), 0};
  while (out.pos == 0) {
    if (!in_frame_) RETURN_IF_ERROR(StartFrame());
    if (end_) return 0;
    ASSIGN_OR_RETURN(const absl::string_view bytes, input_.Peek(1));
    ZSTD_inBuffer in = {bytes.data(), bytes.size(), 0};
    const size_t result = ZSTD_decompressStream(context_.get(), &out, &in);
    input_.Consume(in.pos);
    if (ZSTD_isError(result)) return FrameError(result);
    if (result == 0) {
      in_frame_ = false;
    } else if (bytes.empty() && out.pos == 0) {
      return absl::DataLossError(
          absl::StrCat("zstd stream is truncated: it ends at offset ",
                       input_.offset(), " in a frame"));
    }
  }
  return out.pos;
}

}  // namespace caisson::layer
