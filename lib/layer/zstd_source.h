// Zstandard (RFC 8878). Internal to decompress.h, which has the contract.
#ifndef CAISSON_LIB_LAYER_ZSTD_SOURCE_H_
#define CAISSON_LIB_LAYER_ZSTD_SOURCE_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "lib/layer/buffered_input.h"
#include "lib/layer/byte_source.h"

struct ZSTD_DCtx_s;

namespace caisson::layer {

// Whether `bytes` start with the magic number of a frame or skippable frame.
bool IsZstdFrame(absl::string_view bytes);

class ZstdSource final : public ByteSource {
 public:
  // `input` must outlive the source.
  static absl::StatusOr<std::unique_ptr<ZstdSource>> Create(
      BufferedInput& input, uint64_t max_window_bytes);

  absl::StatusOr<size_t> Read(absl::Span<char> buffer) override;

 private:
  struct FreeContext {
    void operator()(ZSTD_DCtx_s* context) const;
  };

  explicit ZstdSource(BufferedInput& input) : input_(input) {}

  absl::Status StartFrame();
  absl::Status FrameError(size_t code) const;

  BufferedInput& input_;
  std::unique_ptr<ZSTD_DCtx_s, FreeContext> context_;
  uint64_t max_window_bytes_ = 0;
  bool in_frame_ = false;
  bool end_ = false;
};

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_ZSTD_SOURCE_H_
