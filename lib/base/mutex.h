// The library's locks: std::mutex with Abseil's annotations, which clang checks
// (-Wthread-safety).
//
// Not absl::Mutex: an Abseil that is installed as a library was not built with
// -fsanitize=thread, and ThreadSanitizer then sees none of its locks. A host
// that looks for races in its own code would be shown false ones in ours.
#ifndef CAISSON_LIB_BASE_MUTEX_H_
#define CAISSON_LIB_BASE_MUTEX_H_

#include <mutex>

#include "absl/base/thread_annotations.h"

namespace caisson {

class ABSL_LOCKABLE Mutex final {
 public:
  Mutex() = default;
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  void Lock() ABSL_EXCLUSIVE_LOCK_FUNCTION() { mutex_.lock(); }
  void Unlock() ABSL_UNLOCK_FUNCTION() { mutex_.unlock(); }

 private:
  std::mutex mutex_;
};

// Holds `mutex` for as long as it lives.
class ABSL_SCOPED_LOCKABLE MutexLock final {
 public:
  explicit MutexLock(Mutex* mutex) ABSL_EXCLUSIVE_LOCK_FUNCTION(mutex)
      : mutex_(mutex) {
    mutex_->Lock();
  }
  ~MutexLock() ABSL_UNLOCK_FUNCTION() { mutex_->Unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex* const mutex_;
};

}  // namespace caisson

#endif  // CAISSON_LIB_BASE_MUTEX_H_
