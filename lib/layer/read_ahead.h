// A source that is read ahead in a thread of its own, and hashed in another, so
// that decompressing, hashing and what the consumer does overlap.
//
//   ReadAhead ahead(expensive, &digest);
//   RETURN_IF_ERROR(ahead.Start());
//   ... ahead.Read(buffer) ...
//
// The threads touch nothing but `source` and `hash`, and end with the source,
// with the first error or with the object. Thread-compatible: one consumer.
#ifndef CAISSON_LIB_LAYER_READ_AHEAD_H_
#define CAISSON_LIB_LAYER_READ_AHEAD_H_

#include <algorithm>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "lib/layer/byte_source.h"
#include "lib/layer/digest.h"
#include "lib/layer/worker_thread.h"

namespace caisson::layer {

class ReadAhead final : public ByteSource {
 public:
  // Both must outlive the object and are the threads' alone until Read has
  // answered 0 or an error, or the object is gone. With `hash`, a second thread
  // adds all that is read to it; it is complete when Read has answered 0.
  explicit ReadAhead(ByteSource& source, Sha256* hash = nullptr);
  // Stops the threads after the Read they are in, and waits for them.
  ~ReadAhead() override;

  // Starts the threads; RESOURCE_EXHAUSTED if the system allows no more.
  absl::Status Start();

  absl::StatusOr<size_t> Read(absl::Span<char> buffer) override;

 private:
  static constexpr size_t kSlots = 8;
  static constexpr size_t kSlotBytes = 256 << 10;

  struct Slot {
    std::unique_ptr<char[]> data;
    size_t size = 0;
  };

  // A slot is the producer's until it is filled, and then to be read only until
  // both the consumer and the hasher are through with it.
  Slot& SlotOf(uint64_t number) { return slots_[number % kSlots]; }
  uint64_t Released() const {
    return hash_ == nullptr ? consumed_ : std::min(consumed_, hashed_);
  }

  void Produce();
  void Hash();

  ByteSource& source_;
  Sha256* const hash_;
  Slot slots_[kSlots];  // a ring
  size_t used_ = 0;     // bytes that are consumed of the consumer's slot

  // std::mutex, which ThreadSanitizer sees through; the distribution's Abseil
  // is not instrumented for it.
  std::mutex mutex_;  // for what follows
  std::condition_variable changed_;
  uint64_t filled_ = 0;  // slots so far
  uint64_t consumed_ = 0;
  uint64_t hashed_ = 0;
  bool ended_ = false;
  bool stop_ = false;
  absl::Status failure_;

  WorkerThread producer_;
  WorkerThread hasher_;
};

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_READ_AHEAD_H_
