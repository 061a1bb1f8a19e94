#include "lib/layer/read_ahead.h"

#include <string.h>

#include "lib/base/status_macros.h"

namespace caisson::layer {

ReadAhead::ReadAhead(ByteSource& source, Sha256* hash)
    : source_(source), hash_(hash) {}

ReadAhead::~ReadAhead() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
}

absl::Status ReadAhead::Start() {
  RETURN_IF_ERROR(producer_.Start("read ahead", [this] { Produce(); }));
  if (hash_ == nullptr) return absl::OkStatus();
  return hasher_.Start("hash", [this] { Hash(); });
}

void ReadAhead::Produce() {
  for (uint64_t number = 0;; ++number) {
    {
      std::unique_lock<std::mutex> lock(mutex_);
      changed_.wait(lock,
                    [&] { return stop_ || number - Released() < kSlots; });
      if (stop_) return;
    }
    Slot& slot = SlotOf(number);
    if (slot.data == nullptr) slot.data.reset(new char[kSlotBytes]);
    absl::StatusOr<size_t> n =
        source_.Read(absl::MakeSpan(slot.data.get(), kSlotBytes));
    const bool ended = !n.ok() || *n == 0;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (ended) {
        failure_ = n.status();
        ended_ = true;
      } else {
        slot.size = *n;
        ++filled_;
      }
    }
    changed_.notify_all();
    if (ended) return;
  }
}

void ReadAhead::Hash() {
  for (uint64_t number = 0;; ++number) {
    {
      std::unique_lock<std::mutex> lock(mutex_);
      changed_.wait(lock, [&] { return stop_ || ended_ || number < filled_; });
      if (stop_ || number == filled_) return;
    }
    const Slot& slot = SlotOf(number);
    hash_->Update(absl::MakeConstSpan(slot.data.get(), slot.size));
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      ++hashed_;
    }
    changed_.notify_all();
  }
}

absl::StatusOr<size_t> ReadAhead::Read(absl::Span<char> buffer) {
  if (buffer.empty()) return 0;
  uint64_t number = 0;
  {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] {
      return consumed_ < filled_ || (ended_ && Released() == filled_);
    });
    number = consumed_;
    if (number == filled_) {
      if (!failure_.ok()) return failure_;
      return 0;
    }
  }
  const Slot& slot = SlotOf(number);
  const size_t n = std::min(buffer.size(), slot.size - used_);
  ::memcpy(buffer.data(), slot.data.get() + used_, n);
  used_ += n;
  if (used_ == slot.size) {
    used_ = 0;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      ++consumed_;
    }
    changed_.notify_all();
  }
  return n;
}

}  // namespace caisson::layer
