#include "lib/net/poller.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"

namespace caisson {
namespace {

constexpr int kEventsPerRun = 128;
constexpr uint64_t kTimerId = 0;

int64_t Now() {
  timespec now;
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

absl::Status EpollError(const char* operation) {
  return ErrnoError(
      errno, operation,
      {.step = "forward",
       .hint = errno == ENOSPC ? "fs.epoll.max_user_watches is reached" : ""});
}

}  // namespace

absl::StatusOr<std::unique_ptr<Poller>> Poller::Create() {
  UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll.valid()) return EpollError("epoll_create1()");
  UniqueFd timer(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!timer.valid()) return EpollError("timerfd_create()");
  epoll_event event = {};
  event.events = EPOLLIN;
  event.data.u64 = kTimerId;
  if (::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, timer.get(), &event) != 0) {
    return EpollError("epoll_ctl(timer)");
  }
  return std::unique_ptr<Poller>(
      new Poller(std::move(epoll), std::move(timer)));
}

absl::Status Poller::Watch(int fd, uint32_t events, Watcher* watcher) {
  const auto found = watched_.find(fd);
  if (events == 0) {
    if (found == watched_.end()) return absl::OkStatus();
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
    fds_.erase(found->second.id);
    watched_.erase(found);
    return absl::OkStatus();
  }
  if (found != watched_.end() && found->second.events == events) {
    found->second.watcher = watcher;
    return absl::OkStatus();
  }
  const bool add = found == watched_.end();
  const uint64_t id = add ? next_id_++ : found->second.id;
  epoll_event event = {};
  event.events = events;
  event.data.u64 = id;
  if (::epoll_ctl(epoll_.get(), add ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, fd,
                  &event) != 0) {
    return EpollError("epoll_ctl()");
  }
  watched_[fd] = {id, events, watcher};
  fds_[id] = fd;
  return absl::OkStatus();
}

void Poller::SetTimer(Watcher* watcher, absl::Duration delay) {
  CancelTimer(watcher);
  const int64_t deadline = Now() + absl::ToInt64Nanoseconds(delay);
  deadlines_[watcher] = deadline;
  timers_.insert({deadline, watcher});
  if (timers_.begin()->second == watcher) ArmTimer();
}

void Poller::CancelTimer(Watcher* watcher) {
  const auto found = deadlines_.find(watcher);
  if (found == deadlines_.end()) return;
  timers_.erase({found->second, watcher});
  deadlines_.erase(found);
  // An early tick does no harm; the timer stays armed.
}

void Poller::ArmTimer() {
  itimerspec when = {};
  if (!timers_.empty()) {
    const int64_t deadline = timers_.begin()->first;
    when.it_value.tv_sec = deadline / 1'000'000'000;
    when.it_value.tv_nsec = deadline % 1'000'000'000;
  }
  ::timerfd_settime(timer_.get(), TFD_TIMER_ABSTIME, &when, nullptr);
}

void Poller::RunTimers() {
  uint64_t ticks;
  // Only clears readability: the deadlines say what is due.
  if (::read(timer_.get(), &ticks, sizeof(ticks)) < 0 && errno != EAGAIN) {
    return;
  }
  const int64_t now = Now();
  while (!timers_.empty() && timers_.begin()->first <= now) {
    Watcher* watcher = timers_.begin()->second;
    CancelTimer(watcher);
    watcher->OnTimer();
  }
  ArmTimer();
}

absl::Status Poller::RunOnce() {
  epoll_event events[kEventsPerRun];
  const int count = ::epoll_wait(epoll_.get(), events, kEventsPerRun, 0);
  if (count < 0) {
    return errno == EINTR ? absl::OkStatus() : EpollError("epoll_wait()");
  }
  for (int i = 0; i < count; ++i) {
    // A copy: the structure is packed, and its members are not aligned.
    const uint64_t id = events[i].data.u64;
    if (id == kTimerId) {
      RunTimers();
      continue;
    }
    // An earlier event of this round may have ended what this one is about.
    const auto fd = fds_.find(id);
    if (fd == fds_.end()) continue;
    watched_.at(fd->second).watcher->OnEvents(fd->second, events[i].events);
  }
  doomed_.clear();
  return absl::OkStatus();
}

}  // namespace caisson
