// What happened to the containers of a store: a log of events that every
// process writes and any process reads.
//
//   auto events = caisson::ContainerEvents::Open(
//       directory, {.actions = {"die", "oom"}});
//   ... add events->fd() to the program's own loop; when it is readable:
//   for (const caisson::ContainerEvent& event : *events->Read()) { ... }
//
// The names of actions and attributes are Docker's. The events are in a file
// (doc/container-logs.md) which is rotated: the last 1 to 2 MiB are there.
#ifndef CAISSON_CONTAINER_EVENTS_H_
#define CAISSON_CONTAINER_EVENTS_H_

#include <cstddef>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "caisson/unique_fd.h"

namespace caisson {

namespace events {
class EventSource;
}  // namespace events

struct ContainerEvent {
  absl::Time time;
  std::string id;    // of the container
  std::string name;  // at that time
  // "create", "start", "die", "stop", "kill", "pause", "unpause", "restart",
  // "rename", "update", "destroy", "oom", "health_status: healthy",
  // "health_status: unhealthy", "exec_start", "exec_die", "attach". Other
  // processes may be newer and write others.
  std::string action;
  // "image", "exitCode", "signal", "execID", ..., and the container's labels.
  std::map<std::string, std::string> attributes;
};

// Events for which all of this holds; what is empty does not count.
struct ContainerEventOptions {
  // From this time on; without it, those that come after Open().
  std::optional<absl::Time> since;
  // Up to this time, which is the end; without it, there is none.
  std::optional<absl::Time> until;
  // The container's id or name is one of these.
  std::vector<std::string> containers;
  // One of these. "health_status" is all whose action begins with
  // "health_status:".
  std::vector<std::string> actions;
  // Each is an attribute, with this value if there is one.
  std::map<std::string, std::optional<std::string>> labels;
};

// A place in the events of a store. Thread-compatible. The destructor changes
// nothing.
//
// Rotation does not disturb it, unless it falls behind by all that is kept: it
// goes on with what there is then.
class [[nodiscard]] ContainerEvents final {
 public:
  // `directory` is that of the events, held open by the caller during the call;
  // there need not be any yet. Takes an inotify instance, of which a user has
  // 128 by default (fs.inotify.max_user_instances), unless `until` has passed.
  static absl::StatusOr<ContainerEvents> Open(
      BorrowedFd directory, const ContainerEventOptions& options = {});

  ContainerEvents(ContainerEvents&&) noexcept;
  ContainerEvents& operator=(ContainerEvents&&) noexcept;
  ~ContainerEvents();

  // Readable (POLLIN, level-triggered) while there may be something to Read()
  // and at the end; an epoll descriptor, not to be read by others.
  BorrowedFd fd() const;

  // The next events, at most `max`, oldest first, without waiting; none is a
  // result, too. Lines that are not events are skipped.
  absl::StatusOr<std::vector<ContainerEvent>> Read(size_t max = 1024);

  // poll(2) and Read(), until there are events, the end is reached or the time
  // has passed. For programs without a loop.
  absl::StatusOr<std::vector<ContainerEvent>> Wait(absl::Duration timeout,
                                                   size_t max = 1024);

  // Whether `until` has passed and Read() has given all events before it.
  bool at_end() const;

 private:
  explicit ContainerEvents(std::unique_ptr<events::EventSource> source);

  std::unique_ptr<events::EventSource> source_;  // null when moved from
};

}  // namespace caisson

#endif  // CAISSON_CONTAINER_EVENTS_H_
