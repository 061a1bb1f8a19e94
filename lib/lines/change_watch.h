// One descriptor to poll for changes of the files in a directory.
#ifndef CAISSON_LIB_LINES_CHANGE_WATCH_H_
#define CAISSON_LIB_LINES_CHANGE_WATCH_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "caisson/unique_fd.h"

namespace caisson::lines {

// An epoll descriptor over inotify(7), a timer and a descriptor of the user's.
// Thread-compatible.
class ChangeWatch final {
 public:
  // Without `changes`, there is only the timer.
  static absl::StatusOr<ChangeWatch> Create(BorrowedFd directory, bool changes);

  // Readable also when `fd`, which stays open as long as this, has hung up.
  absl::Status AddHangup(BorrowedFd fd);

  BorrowedFd fd() const { return epoll_.borrow(); }

  // Forgets the changes up to now. To be called before the files are read.
  void Clear();

  // Makes it readable at `time` (at once if that has passed), and takes back
  // what was said before. InfiniteFuture: never.
  void WakeAt(absl::Time time);

 private:
  UniqueFd epoll_;
  UniqueFd inotify_;
  UniqueFd timer_;
  absl::Time wake_ = absl::InfiniteFuture();
};

}  // namespace caisson::lines

#endif  // CAISSON_LIB_LINES_CHANGE_WATCH_H_
