// A filter between a blob and the unpacker: a digest of what passes.
#ifndef CAISSON_LIB_LAYER_HASHING_SOURCE_H_
#define CAISSON_LIB_LAYER_HASHING_SOURCE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "lib/layer/byte_source.h"
#include "lib/layer/digest.h"

namespace caisson::layer {

// Passes on `source`, which must outlive it, and hashes and counts what passes.
// Thread-compatible but for count().
class HashingSource final : public ByteSource {
 public:
  // Without `hash` it only counts.
  explicit HashingSource(ByteSource& source, bool hash = true)
      : source_(source), hash_(hash) {}

  absl::StatusOr<size_t> Read(absl::Span<char> buffer) override {
    absl::StatusOr<size_t> n = source_.Read(buffer);
    if (!n.ok()) return n;
    if (hash_) digest_.Update(buffer.subspan(0, *n));
    count_.store(count_.load(std::memory_order_relaxed) + *n,
                 std::memory_order_relaxed);
    return n;
  }

  bool hashes() const { return hash_; }

  // Bytes so far. Thread-safe.
  uint64_t count() const { return count_.load(std::memory_order_relaxed); }

  // The digest of everything so far; call once, after the last Read.
  Digest Finish() { return digest_.Finish(); }

 private:
  ByteSource& source_;
  const bool hash_;
  Sha256 digest_;
  std::atomic<uint64_t> count_ = 0;
};

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_HASHING_SOURCE_H_
