// A source that a thread of its own reads ahead, so that reading, decompressing
// and hashing overlap with what the consumer does.
//
//   ReadAhead ahead(expensive);
//   RETURN_IF_ERROR(ahead.Start());
//   ... ahead.Read(buffer) ...
//
// The thread blocks all signals, touches nothing but `source` and ends with the
// source, with the first error or with the object. Thread-compatible: one
// consumer.
#ifndef CAISSON_LIB_LAYER_READ_AHEAD_H_
#define CAISSON_LIB_LAYER_READ_AHEAD_H_

#include <pthread.h>

#include <condition_variable>
#include <cstddef>
#include <memory>
#include <mutex>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "lib/layer/byte_source.h"

namespace caisson::layer {

class ReadAhead final : public ByteSource {
 public:
  // `source` must outlive the object and is the thread's alone until Read has
  // answered 0 or an error, or the object is gone.
  explicit ReadAhead(ByteSource& source);
  // Stops the thread after the Read it is in, and waits for it.
  ~ReadAhead() override;

  // Starts the thread; RESOURCE_EXHAUSTED if the system allows no more.
  absl::Status Start();

  absl::StatusOr<size_t> Read(absl::Span<char> buffer) override;

 private:
  static constexpr size_t kSlots = 8;
  static constexpr size_t kSlotBytes = 256 << 10;

  struct Slot {
    std::unique_ptr<char[]> data;
    size_t size = 0;
  };

  void Run();

  ByteSource& source_;
  Slot slots_[kSlots];  // a ring; each slot belongs to one side at a time
  size_t head_ = 0;     // the consumer's slot
  size_t used_ = 0;     // bytes of it that are consumed

  // std::mutex, which ThreadSanitizer sees through; the distribution's Abseil
  // is not instrumented for it.
  std::mutex mutex_;  // for what follows
  std::condition_variable changed_;
  size_t filled_ = 0;
  bool ended_ = false;
  bool stop_ = false;
  absl::Status failure_;

  bool started_ = false;
  pthread_t thread_ = {};
};

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_READ_AHEAD_H_
