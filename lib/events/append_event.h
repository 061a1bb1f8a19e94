// The events of a store, written: doc/container-logs.md.
#ifndef CAISSON_LIB_EVENTS_APPEND_EVENT_H_
#define CAISSON_LIB_EVENTS_APPEND_EVENT_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "caisson/container_events.h"
#include "caisson/unique_fd.h"

namespace caisson::events {

// Appends `event` to the events in `directory`. All of it is written or, after
// an error, nothing that a reader takes for an event; not synced. Waits for
// other processes that do the same, two seconds at most. A time of absl::Time()
// (1970) is replaced by that of the call. An event of more than 1 MiB is
// INVALID_ARGUMENT. Thread-safe.
absl::Status AppendEvent(BorrowedFd directory, const ContainerEvent& event);
// The same without waiting: false if another process writes.
absl::StatusOr<bool> TryAppendEvent(BorrowedFd directory,
                                    const ContainerEvent& event);

}  // namespace caisson::events

#endif  // CAISSON_LIB_EVENTS_APPEND_EVENT_H_
