// bzip2. Internal to decompress.h, which has the contract.
#ifndef CAISSON_LIB_LAYER_BZIP2_SOURCE_H_
#define CAISSON_LIB_LAYER_BZIP2_SOURCE_H_

#include <cstddef>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "lib/layer/buffered_input.h"
#include "lib/layer/byte_source.h"

namespace caisson::layer {

// Whether `bytes` start as a stream does: with the signature of the first
// block, or of the end, so that a text of "BZh9" is not meant.
bool IsBzip2(absl::string_view bytes);

class Bzip2Source final : public ByteSource {
 public:
  // `input` must outlive the source.
  explicit Bzip2Source(BufferedInput& input);
  ~Bzip2Source() override;

  absl::StatusOr<size_t> Read(absl::Span<char> buffer) override;

 private:
  struct Stream;

  absl::Status StartStream();
  absl::Status Error(int code) const;

  BufferedInput& input_;
  std::unique_ptr<Stream> stream_;  // null between streams
  bool end_ = false;
};

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_BZIP2_SOURCE_H_
