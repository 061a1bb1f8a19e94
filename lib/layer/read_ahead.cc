#include "lib/layer/read_ahead.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>

#include <algorithm>
#include <utility>

#include "lib/base/errno_error.h"

namespace caisson::layer {

ReadAhead::ReadAhead(ByteSource& source) : source_(source) {}

ReadAhead::~ReadAhead() {
  if (!started_) return;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  ::pthread_join(thread_, nullptr);
}

// pthread_create instead of std::thread, which would throw.
absl::Status ReadAhead::Start() {
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  // The new thread inherits the mask: a signal of the host must not land there.
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  const int error = ::pthread_create(
      &thread_, /*attr=*/nullptr,
      [](void* self) -> void* {
        static_cast<ReadAhead*>(self)->Run();
        return nullptr;
      },
      this);
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (error != 0) {
    return ErrnoError(error, "pthread_create(read ahead)",
                      {.step = "layer.import",
                       .hint = "LayerStoreOptions::import_threads = 0 needs no "
                               "thread"});
  }
  started_ = true;
  return absl::OkStatus();
}

void ReadAhead::Run() {
  for (size_t tail = 0;; tail = (tail + 1) % kSlots) {
    {
      std::unique_lock<std::mutex> lock(mutex_);
      changed_.wait(lock, [this] { return stop_ || filled_ < kSlots; });
      if (stop_) return;
    }
    Slot& slot = slots_[tail];
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

absl::StatusOr<size_t> ReadAhead::Read(absl::Span<char> buffer) {
  if (buffer.empty()) return 0;
  {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return ended_ || filled_ > 0; });
    if (filled_ == 0) {
      if (!failure_.ok()) return failure_;
      return 0;
    }
  }
  const Slot& slot = slots_[head_];
  const size_t n = std::min(buffer.size(), slot.size - used_);
  ::memcpy(buffer.data(), slot.data.get() + used_, n);
  used_ += n;
  if (used_ == slot.size) {
    used_ = 0;
    head_ = (head_ + 1) % kSlots;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      --filled_;
    }
    changed_.notify_all();
  }
  return n;
}

}  // namespace caisson::layer
