// A ByteSource with look-ahead, for decoders that must recognise what follows
// before they consume it.
#ifndef CAISSON_LIB_LAYER_BUFFERED_INPUT_H_
#define CAISSON_LIB_LAYER_BUFFERED_INPUT_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "lib/layer/byte_source.h"

namespace caisson::layer {

// Thread-compatible; `source` must outlive it.
class BufferedInput final {
 public:
  static constexpr size_t kCapacity = 256 << 10;

  explicit BufferedInput(ByteSource& source)
      : source_(source), buffer_(new char[kCapacity]) {}

  // At least `count` (at most kCapacity) unconsumed bytes, fewer only where the
  // source ends. Valid until the next call.
  absl::StatusOr<absl::string_view> Peek(size_t count);

  // Precondition: the last Peek answered at least `count` bytes.
  void Consume(size_t count) {
    begin_ += count;
    offset_ += count;
  }

  // Unconsumed bytes first, then straight from the source.
  absl::StatusOr<size_t> Read(absl::Span<char> buffer);

  // Position in the source of the first unconsumed byte.
  uint64_t offset() const { return offset_; }

 private:
  ByteSource& source_;
  std::unique_ptr<char[]> buffer_;
  size_t begin_ = 0;
  size_t end_ = 0;
  uint64_t offset_ = 0;
};

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_BUFFERED_INPUT_H_
