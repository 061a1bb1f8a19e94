#include "lib/keeper/loop.h"

#include <poll.h>
#include <time.h>

#include <algorithm>
#include <utility>
#include <vector>

namespace caisson::keeper {
absl::Duration Loop::Now() {
  timespec now;
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return absl::DurationFromTimespec(now);
}

void Loop::Watch(BorrowedFd fd, short events, Callback callback) {
  watched_[fd.get()] = {events, std::move(callback), ++serial_};
}

void Loop::Forget(BorrowedFd fd) { watched_.erase(fd.get()); }

Loop::Timer Loop::After(absl::Duration delay, Callback callback) {
  timers_[++serial_] = {Now() + delay, std::move(callback)};
  return serial_;
}

void Loop::Cancel(Timer& timer) {
  timers_.erase(timer);
  timer = 0;
}

void Loop::RunTimers() {
  const absl::Duration now = Now();
  std::vector<Timer> due;
  for (const auto& [timer, alarm] : timers_) {
    if (alarm.when <= now) due.push_back(timer);
  }
  for (const Timer timer : due) {
    const auto alarm = timers_.find(timer);
    if (alarm == timers_.end()) continue;  // one before it cancelled it
    const Callback callback = std::move(alarm->second.callback);
    timers_.erase(alarm);
    callback();
  }
}

void Loop::Run() {
  std::vector<pollfd> polls;
  std::vector<uint64_t> serials;
  while (!stopped_) {
    polls.clear();
    serials.clear();
    for (const auto& [fd, watched] : watched_) {
      polls.push_back({.fd = fd, .events = watched.events, .revents = 0});
      serials.push_back(watched.serial);
    }
    absl::Duration wait = absl::Hours(1);
    for (const auto& [timer, alarm] : timers_) {
      wait = std::min(wait, alarm.when - Now());
    }
    const timespec timeout =
        absl::ToTimespec(std::max(wait, absl::ZeroDuration()));
    ::ppoll(polls.data(), polls.size(), &timeout, nullptr);
    for (size_t i = 0; i < polls.size() && !stopped_; ++i) {
      if (polls[i].revents == 0) continue;
      const auto watched = watched_.find(polls[i].fd);
      // Another callback may have closed it, and opened another of that number.
      if (watched == watched_.end() || watched->second.serial != serials[i]) {
        continue;
      }
      const Callback callback = watched->second.callback;
      callback();
    }
    if (!stopped_) RunTimers();
  }
}

}  // namespace caisson::keeper
