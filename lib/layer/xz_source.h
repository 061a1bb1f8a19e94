// xz (the .xz file format 1.1, tukaani.org). Internal to decompress.h, which
// has the contract.
#ifndef CAISSON_LIB_LAYER_XZ_SOURCE_H_
#define CAISSON_LIB_LAYER_XZ_SOURCE_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "lib/layer/buffered_input.h"
#include "lib/layer/byte_source.h"

namespace caisson::layer {

class XzSource final : public ByteSource {
 public:
  // `input` must outlive the source; a decoder that needs more than
  // `max_window_bytes` and `overhead` is RESOURCE_EXHAUSTED.
  static absl::StatusOr<std::unique_ptr<XzSource>> Create(
      BufferedInput& input, uint64_t max_window_bytes, uint64_t overhead);
  ~XzSource() override;

  absl::StatusOr<size_t> Read(absl::Span<char> buffer) override;

 private:
  struct Stream;

  XzSource(BufferedInput& input, uint64_t max_window_bytes);
  absl::Status Error(int code) const;

  BufferedInput& input_;
  const uint64_t max_window_bytes_;
  std::unique_ptr<Stream> stream_;
  bool end_ = false;
};

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_XZ_SOURCE_H_
