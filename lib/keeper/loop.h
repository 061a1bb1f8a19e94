// The keeper's loop: descriptors and times, and what to do then.
#ifndef CAISSON_LIB_KEEPER_LOOP_H_
#define CAISSON_LIB_KEEPER_LOOP_H_

#include <cstdint>
#include <functional>
#include <map>

#include "absl/time/time.h"
#include "caisson/unique_fd.h"

namespace caisson::keeper {

// Not thread-safe. A callback may watch and forget whatever it wants.
class Loop final {
 public:
  using Callback = std::function<void()>;
  using Timer = uint64_t;  // 0: none

  // Calls `callback` whenever `fd` has one of `events` (poll(2)), an error or
  // its end; in the place of what was said about it before.
  void Watch(BorrowedFd fd, short events, Callback callback);
  void Forget(BorrowedFd fd);

  // Calls `callback` once, after `delay` of time that no clock's jump changes.
  Timer After(absl::Duration delay, Callback callback);
  void Cancel(Timer& timer);

  // CLOCK_MONOTONIC.
  static absl::Duration Now();

  // Until Stop().
  void Run();
  void Stop() { stopped_ = true; }

 private:
  struct Watched {
    short events;
    Callback callback;
    uint64_t serial;
  };
  struct Alarm {
    absl::Duration when;
    Callback callback;
  };

  void RunTimers();

  std::map<int, Watched> watched_;
  std::map<Timer, Alarm> timers_;
  uint64_t serial_ = 0;
  bool stopped_ = false;
};

}  // namespace caisson::keeper

#endif  // CAISSON_LIB_KEEPER_LOOP_H_
