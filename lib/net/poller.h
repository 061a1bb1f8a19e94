// An epoll set with timers, for code that a host drives from its own loop.
//
// Thread-compatible.
#ifndef CAISSON_LIB_NET_POLLER_H_
#define CAISSON_LIB_NET_POLLER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "caisson/unique_fd.h"

namespace caisson {

class Watcher {
 public:
  virtual ~Watcher() = default;
  // `fd` has `events` (EPOLLIN, ...).
  virtual void OnEvents(int fd, uint32_t events) = 0;
  // The time that was set has come.
  virtual void OnTimer() = 0;
};

class Poller final {
 public:
  static absl::StatusOr<std::unique_ptr<Poller>> Create();

  Poller(const Poller&) = delete;
  Poller& operator=(const Poller&) = delete;

  // The descriptor for the host to poll.
  BorrowedFd fd() const { return epoll_.borrow(); }

  // Watches `fd` for `events`, level-triggered; no events means not at all,
  // not even for errors. Must be stopped before `fd` is closed.
  absl::Status Watch(int fd, uint32_t events, Watcher* watcher);
  void Unwatch(int fd) { Watch(fd, 0, nullptr).IgnoreError(); }

  // Calls watcher->OnTimer() once when `delay` has passed; replaces what was
  // set for that watcher before.
  void SetTimer(Watcher* watcher, absl::Duration delay);
  void CancelTimer(Watcher* watcher);

  // Destroys `watcher` when no callback of it can be running any more.
  void DestroyLater(std::unique_ptr<Watcher> watcher) {
    doomed_.push_back(std::move(watcher));
  }

  // Handles what is ready, without waiting and up to a bound. A watcher may
  // change the set meanwhile.
  absl::Status RunOnce();

 private:
  struct Watched {
    uint64_t id;  // tells a descriptor from an earlier one of that number
    uint32_t events;
    Watcher* watcher;
  };

  Poller(UniqueFd epoll, UniqueFd timer)
      : epoll_(std::move(epoll)), timer_(std::move(timer)) {}

  void ArmTimer();
  void RunTimers();

  UniqueFd epoll_;
  UniqueFd timer_;
  uint64_t next_id_ = 1;
  std::unordered_map<int, Watched> watched_;
  std::unordered_map<uint64_t, int> fds_;
  std::set<std::pair<int64_t, Watcher*>> timers_;  // by deadline
  std::unordered_map<Watcher*, int64_t> deadlines_;
  std::vector<std::unique_ptr<Watcher>> doomed_;
};

}  // namespace caisson

#endif  // CAISSON_LIB_NET_POLLER_H_
