// A thread of the library's own, for work that the host has asked to be done in
// threads.
#ifndef CAISSON_LIB_LAYER_WORKER_THREAD_H_
#define CAISSON_LIB_LAYER_WORKER_THREAD_H_

#include <pthread.h>

#include <functional>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace caisson::layer {

// Blocks all signals, which are the host's. The destructor waits for the end of
// the body. Thread-compatible.
class WorkerThread final {
 public:
  WorkerThread() = default;
  ~WorkerThread() { Join(); }
  WorkerThread(const WorkerThread&) = delete;
  WorkerThread& operator=(const WorkerThread&) = delete;

  // Runs `body`, which must not throw, in a new thread. RESOURCE_EXHAUSTED if
  // the system allows no more; `purpose` says in the error what it was for.
  // Precondition: no thread runs.
  absl::Status Start(absl::string_view purpose, std::function<void()> body);

  // Waits for the end of the body. Without a thread it does nothing.
  void Join();

 private:
  std::function<void()> body_;
  bool started_ = false;
  pthread_t thread_ = {};
};

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_WORKER_THREAD_H_
