// The first process of a container, known by its number and the time of its
// start. Thread-safe functions.
#ifndef CAISSON_LIB_RUNTIME_INIT_PROCESS_H_
#define CAISSON_LIB_RUNTIME_INIT_PROCESS_H_

#include <sys/types.h>

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "caisson/unique_fd.h"
#include "lib/runtime/record.pb.h"

namespace caisson::runtime {

// What tells the process from every other one.
absl::StatusOr<ProcessRecord> Remember(BorrowedFd pidfd);

// A pidfd of the process; invalid if there is none (any more): of a process
// that runs on after the end of its first thread there is.
absl::StatusOr<UniqueFd> OpenInit(const ProcessRecord& record,
                                  absl::string_view boot_id);

// kExiting: its program does not run any more, but the process may wait for
// others of its pid namespace that were killed and that nobody has collected;
// no event tells that.
enum class Until { kEnded, kExiting };
absl::Status KillInit(BorrowedFd init, Until until, absl::Duration timeout);

}  // namespace caisson::runtime

#endif  // CAISSON_LIB_RUNTIME_INIT_PROCESS_H_
