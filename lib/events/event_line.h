// One line of the events, and their files. Thread-safe.
#ifndef CAISSON_LIB_EVENTS_EVENT_LINE_H_
#define CAISSON_LIB_EVENTS_EVENT_LINE_H_

#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "caisson/container_events.h"

namespace caisson::events {

inline constexpr char kEventFile[] = "events";
inline constexpr char kOldEventFile[] = "events.1";
// Held by whoever writes.
inline constexpr char kEventLock[] = "events.lock";

// With its "\n".
std::string RenderEvent(const ContainerEvent& event);

// Nothing if `line` is not an event: without a time or an action.
std::optional<ContainerEvent> ParseEvent(absl::string_view line);

}  // namespace caisson::events

#endif  // CAISSON_LIB_EVENTS_EVENT_LINE_H_
