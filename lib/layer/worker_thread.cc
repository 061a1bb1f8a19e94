#include "lib/layer/worker_thread.h"

#include <signal.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"

namespace caisson::layer {

// pthread_create instead of std::thread, which would throw.
absl::Status WorkerThread::Start(absl::string_view purpose,
                                 std::function<void()> body) {
  body_ = std::move(body);
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  // The new thread inherits the mask: a signal of the host must not land there.
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  const int error = ::pthread_create(
      &thread_, /*attr=*/nullptr,
      [](void* self) -> void* {
        static_cast<WorkerThread*>(self)->body_();
        return nullptr;
      },
      this);
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (error != 0) {
    return ErrnoError(error, absl::StrCat("pthread_create(", purpose, ")"),
                      {.step = "layer.import",
                       .hint = "LayerStoreOptions::import_threads = 0 needs no "
                               "thread"});
  }
  started_ = true;
  return absl::OkStatus();
}

void WorkerThread::Join() {
  if (!started_) return;
  ::pthread_join(thread_, nullptr);
  started_ = false;
}

}  // namespace caisson::layer
