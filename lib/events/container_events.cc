#include "caisson/container_events.h"

#include <poll.h>

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "lib/base/deadline.h"
#include "lib/base/status_macros.h"
#include "lib/events/event_line.h"
#include "lib/lines/change_watch.h"
#include "lib/lines/line_follower.h"
#include "lib/sys/open.h"

namespace caisson {
namespace events {

using Events = std::vector<ContainerEvent>;

class EventSource final {
 public:
  static absl::StatusOr<std::unique_ptr<EventSource>> Open(
      BorrowedFd directory, const ContainerEventOptions& options);

  BorrowedFd fd() const { return watch_.fd(); }
  bool at_end() const { return at_end_; }
  absl::StatusOr<Events> Read(size_t max);

 private:
  EventSource(const ContainerEventOptions& options, UniqueFd directory,
              lines::ChangeWatch watch)
      : options_(options),
        watch_(std::move(watch)),
        lines_(std::move(directory), kEventFile) {}

  bool IsWanted(const ContainerEvent& event) const;

  ContainerEventOptions options_;
  lines::ChangeWatch watch_;
  lines::LineFollower lines_;
  bool at_end_ = false;
};

namespace {

bool HasPassed(const std::optional<absl::Time>& until) {
  return until.has_value() && absl::Now() > *until;
}

bool IsAction(const std::string& action, const std::string& wanted) {
  return action == wanted ||
         absl::StartsWith(action, absl::StrCat(wanted, ":"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<EventSource>> EventSource::Open(
    BorrowedFd directory, const ContainerEventOptions& options) {
  ASSIGN_OR_RETURN(UniqueFd own, sys::Duplicate(directory));
  ASSIGN_OR_RETURN(auto watch, lines::ChangeWatch::Create(
                                   directory, !HasPassed(options.until)));
  std::unique_ptr<EventSource> source(
      new EventSource(options, std::move(own), std::move(watch)));
  source->watch_.WakeAt(absl::InfinitePast());
  if (options.since.has_value()) {
    RETURN_IF_ERROR(source->lines_.SkipFilesBefore(*options.since));
  } else {
    RETURN_IF_ERROR(
        source->lines_.GoBackWhile([](absl::string_view) { return false; }));
  }
  return source;
}

bool EventSource::IsWanted(const ContainerEvent& event) const {
  if (options_.since.has_value() && event.time < *options_.since) return false;
  if (options_.until.has_value() && event.time > *options_.until) return false;
  const auto& containers = options_.containers;
  if (!containers.empty() && std::none_of(containers.begin(), containers.end(),
                                          [&](const std::string& container) {
                                            return container == event.id ||
                                                   container == event.name;
                                          })) {
    return false;
  }
  const auto& actions = options_.actions;
  if (!actions.empty() && std::none_of(actions.begin(), actions.end(),
                                       [&](const std::string& action) {
                                         return IsAction(event.action, action);
                                       })) {
    return false;
  }
  return std::all_of(
      options_.labels.begin(), options_.labels.end(), [&](const auto& label) {
        const auto found = event.attributes.find(label.first);
        return found != event.attributes.end() &&
               (!label.second.has_value() || *label.second == found->second);
      });
}

absl::StatusOr<Events> EventSource::Read(size_t max) {
  Events events;
  if (at_end_) return events;
  // Asked before reading: what was written before the answer is read below.
  watch_.Clear();
  const bool last = HasPassed(options_.until);
  while (events.size() < max) {
    ASSIGN_OR_RETURN(const auto line, lines_.Next());
    if (!line.has_value()) {
      at_end_ = last;
      break;
    }
    auto event = ParseEvent(*line);
    if (event.has_value() && IsWanted(*event)) {
      events.push_back(*std::move(event));
    }
  }
  const bool now = at_end_ || events.size() == max;
  watch_.WakeAt(now ? absl::InfinitePast()
                    : options_.until.value_or(absl::InfiniteFuture()));
  return events;
}

}  // namespace events

absl::StatusOr<ContainerEvents> ContainerEvents::Open(
    BorrowedFd directory, const ContainerEventOptions& options) {
  ASSIGN_OR_RETURN(auto source, events::EventSource::Open(directory, options));
  return ContainerEvents(std::move(source));
}

ContainerEvents::ContainerEvents(std::unique_ptr<events::EventSource> source)
    : source_(std::move(source)) {}
ContainerEvents::ContainerEvents(ContainerEvents&&) noexcept = default;
ContainerEvents& ContainerEvents::operator=(ContainerEvents&&) noexcept =
    default;
ContainerEvents::~ContainerEvents() = default;

BorrowedFd ContainerEvents::fd() const { return source_->fd(); }

absl::StatusOr<std::vector<ContainerEvent>> ContainerEvents::Read(size_t max) {
  return source_->Read(max);
}

absl::StatusOr<std::vector<ContainerEvent>> ContainerEvents::Wait(
    absl::Duration timeout, size_t max) {
  const Deadline deadline(timeout);
  for (;;) {
    ASSIGN_OR_RETURN(auto events, Read(max));
    if (!events.empty() || at_end() || deadline.expired()) return events;
    pollfd poll = {.fd = fd().get(), .events = POLLIN};
    deadline.Poll({&poll, 1});
  }
}

bool ContainerEvents::at_end() const { return source_->at_end(); }

}  // namespace caisson
