// What a Process holds.
#ifndef CAISSON_LIB_LAUNCHER_PROCESS_STATE_H_
#define CAISSON_LIB_LAUNCHER_PROCESS_STATE_H_

#include <unistd.h>

#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "caisson/process.h"
#include "caisson/unique_fd.h"
#include "lib/launcher/session.h"

namespace caisson {

struct Process::State {
  launcher::Started started;
  UniqueFd terminal;

  pid_t creator = ::getpid();

  absl::Mutex mutex;
  UniqueFd in ABSL_GUARDED_BY(mutex);
  UniqueFd out ABSL_GUARDED_BY(mutex);
  UniqueFd err ABSL_GUARDED_BY(mutex);
  UniqueFd listener ABSL_GUARDED_BY(mutex);
  // Set once the channel was read to its end.
  std::optional<absl::StatusOr<ExitStatus>> exit ABSL_GUARDED_BY(mutex);
};

}  // namespace caisson

#endif  // CAISSON_LIB_LAUNCHER_PROCESS_STATE_H_
