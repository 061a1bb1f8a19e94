// The first process of a container, known by its number and the time of its
// start. Thread-safe functions.
#ifndef CAISSON_LIB_RUNTIME_INIT_PROCESS_H_
#define CAISSON_LIB_RUNTIME_INIT_PROCESS_H_

#include <sys/types.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "caisson/unique_fd.h"
#include "lib/runtime/record.pb.h"

namespace caisson::runtime {

// What tells the process from every other one.
absl::StatusOr<ProcessRecord> Remember(BorrowedFd pidfd);

// A pidfd of the process; invalid if there is none (any more).
absl::StatusOr<UniqueFd> OpenInit(const ProcessRecord& record);

}  // namespace caisson::runtime

#endif  // CAISSON_LIB_RUNTIME_INIT_PROCESS_H_
