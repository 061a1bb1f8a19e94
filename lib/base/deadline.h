// A point in monotonic time to wait until.
#ifndef CAISSON_LIB_BASE_DEADLINE_H_
#define CAISSON_LIB_BASE_DEADLINE_H_

#include <poll.h>
#include <time.h>

#include <algorithm>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

namespace caisson {

class Deadline final {
 public:
  explicit Deadline(absl::Duration timeout)
      : timeout_(timeout), end_(Now() + timeout) {}

  // Wall-clock time is what callers have; waiting is not subject to its jumps.
  static Deadline At(absl::Time time) {
    return Deadline(time == absl::InfiniteFuture() ? absl::InfiniteDuration()
                                                   : time - absl::Now());
  }

  absl::Duration timeout() const { return timeout_; }
  bool expired() const { return Now() >= end_; }

  // ppoll(2) until the deadline, or for `at_most` if that is earlier.
  int Poll(absl::Span<pollfd> fds,
           absl::Duration at_most = absl::InfiniteDuration()) const {
    const absl::Duration left =
        std::clamp(std::min(end_ - Now(), at_most), absl::ZeroDuration(),
                   absl::Hours(1));  // callers loop
    const timespec wait = absl::ToTimespec(left);
    return ::ppoll(fds.data(), fds.size(), &wait, nullptr);
  }

 private:
  static absl::Duration Now() {
    timespec now;
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    return absl::DurationFromTimespec(now);
  }

  absl::Duration timeout_;
  absl::Duration end_;
};

}  // namespace caisson

#endif  // CAISSON_LIB_BASE_DEADLINE_H_
