#include "lib/lines/change_watch.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"

namespace caisson::lines {
namespace {

constexpr char kStep[] = "watch";
constexpr absl::Time kAtOnce = absl::FromUnixNanos(1);  // 0 disarms a timer

absl::Status AddTo(BorrowedFd epoll, BorrowedFd fd, uint32_t events) {
  epoll_event event = {};
  event.events = events;
  if (::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, fd.get(), &event) == 0) {
    return absl::OkStatus();
  }
  return ErrnoError(errno, absl::StrCat("epoll_ctl(ADD, ", fd.get(), ")"),
                    {.step = kStep});
}

absl::StatusOr<UniqueFd> WatchDirectory(BorrowedFd directory) {
  UniqueFd inotify(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
  if (!inotify.valid()) {
    return ErrnoError(
        errno, "inotify_init1()",
        {.step = kStep,
         .hint = errno == EMFILE ? "this user has as many inotify instances "
                                   "as fs.inotify.max_user_instances allows"
                                 : ""});
  }
  // inotify takes paths only; this one is the very directory.
  const std::string path =
      absl::StrCat("/proc/thread-self/fd/", directory.get());
  constexpr uint32_t kChanges = IN_MODIFY | IN_CREATE | IN_MOVED_TO;
  if (::inotify_add_watch(inotify.get(), path.c_str(), kChanges | IN_ONLYDIR) <
      0) {
    absl::string_view hint;
    if (errno == ENOSPC) {
      hint =
          "this user has as many watches as fs.inotify.max_user_watches allows";
    } else if (errno == ENOENT) {
      hint = "the host needs its /proc";
    }
    return ErrnoError(errno, absl::StrCat("inotify_add_watch(", path, ")"),
                      {.step = kStep, .path = path, .hint = hint});
  }
  return inotify;
}

}  // namespace

absl::StatusOr<ChangeWatch> ChangeWatch::Create(BorrowedFd directory,
                                                bool changes) {
  ChangeWatch watch;
  watch.epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
  if (!watch.epoll_.valid()) {
    return ErrnoError(errno, "epoll_create1()", {.step = kStep});
  }
  watch.timer_.reset(
      ::timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!watch.timer_.valid()) {
    return ErrnoError(errno, "timerfd_create(CLOCK_REALTIME)", {.step = kStep});
  }
  RETURN_IF_ERROR(AddTo(watch.fd(), watch.timer_.borrow(), EPOLLIN));
  if (changes) {
    ASSIGN_OR_RETURN(watch.inotify_, WatchDirectory(directory));
    RETURN_IF_ERROR(AddTo(watch.fd(), watch.inotify_.borrow(), EPOLLIN));
  }
  return watch;
}

absl::Status ChangeWatch::AddHangup(BorrowedFd fd) {
  return AddTo(epoll_.borrow(), fd, /*events=*/0);
}

void ChangeWatch::Clear() {
  if (!inotify_.valid()) return;
  alignas(inotify_event) char events[4096];
  while (::read(inotify_.get(), events, sizeof(events)) > 0) {
  }
}

void ChangeWatch::WakeAt(absl::Time time) {
  if (time == wake_) return;
  wake_ = time;
  itimerspec spec = {};
  if (time != absl::InfiniteFuture()) {
    spec.it_value = absl::ToTimespec(std::max(time, kAtOnce));
  }
  ::timerfd_settime(timer_.get(), TFD_TIMER_ABSTIME, &spec, nullptr);
}

}  // namespace caisson::lines
