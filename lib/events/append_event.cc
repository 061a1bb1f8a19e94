#include "lib/events/append_event.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "lib/base/deadline.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/events/event_line.h"
#include "lib/lines/line_follower.h"
#include "lib/sys/file_lock.h"
#include "lib/sys/open.h"

namespace caisson::events {
namespace {

constexpr char kStep[] = "event";
constexpr off_t kMaxFileSize = 1 << 20;
// With a process that was stopped while it wrote an event.
constexpr absl::Duration kPatience = absl::Seconds(2);

absl::Status EventError(int error, absl::string_view call) {
  return ErrnoError(error, absl::StrCat(call, "(", Quoted(kEventFile), ")"),
                    {.step = kStep, .path = kEventFile});
}

absl::StatusOr<UniqueFd> OpenFile(BorrowedFd directory) {
  auto file = sys::OpenAt2(directory, kEventFile, O_RDWR | O_APPEND | O_CREAT,
                           sys::kNoSymlinks, 0600);
  if (!file.ok()) return WithStep(file.status(), kStep);
  return file;
}

// Precondition: the lock is held.
absl::Status AppendLine(BorrowedFd directory, std::string line) {
  ASSIGN_OR_RETURN(UniqueFd file, OpenFile(directory));
  struct stat status;
  if (::fstat(file.get(), &status) != 0) return EventError(errno, "fstat");
  if (status.st_size > 0 &&
      status.st_size + static_cast<off_t>(line.size()) > kMaxFileSize) {
    if (::renameat(directory.get(), kEventFile, directory.get(),
                   kOldEventFile) != 0) {
      return EventError(errno, "rename");
    }
    ASSIGN_OR_RETURN(file, OpenFile(directory));
    status.st_size = 0;
  }
  char last = '\n';
  if (status.st_size > 0 &&
      ::pread(file.get(), &last, 1, status.st_size - 1) != 1) {
    return EventError(errno, "pread");
  }
  // A writer was killed, or the disk full, in the middle of a line.
  if (last != '\n') line.insert(0, "\n");
  ssize_t n;
  do {
    n = ::write(file.get(), line.data(), line.size());
  } while (n < 0 && errno == EINTR);
  if (n == static_cast<ssize_t>(line.size())) return absl::OkStatus();
  // What is there of the line is no event without its end.
  return EventError(n < 0 ? errno : ENOSPC, "write");
}

absl::StatusOr<UniqueFd> OpenLock(BorrowedFd directory) {
  return sys::OpenAt2(directory, kEventLock, O_RDWR | O_CREAT, sys::kNoSymlinks,
                      0600);
}

// Precondition: the lock is held.
absl::Status AppendLocked(BorrowedFd directory, const ContainerEvent& event) {
  ContainerEvent dated;
  const bool undated = event.time == absl::Time();
  if (undated) {
    // With the lock held: the times in the file ascend.
    dated = event;
    dated.time = absl::Now();
  }
  const std::string line = RenderEvent(undated ? dated : event);
  if (line.size() <= lines::LineFollower::kMaxLine) {
    return AppendLine(directory, line);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("the event ", Quoted(event.action), " of ",
                   Quoted(event.name), " takes ", line.size(), " bytes of ",
                   lines::LineFollower::kMaxLine, " that a line may have"));
}

}  // namespace

absl::Status AppendEvent(BorrowedFd directory, const ContainerEvent& event) {
  const Deadline deadline(kPatience);
  for (absl::Duration pause = absl::Microseconds(100);;
       pause = std::min(pause * 2, absl::Milliseconds(10))) {
    ASSIGN_OR_RETURN(const bool written, TryAppendEvent(directory, event));
    if (written) return absl::OkStatus();
    if (deadline.expired()) {
      return absl::DeadlineExceededError(absl::StrCat(
          Quoted(kEventLock), " has been locked by another process for ",
          absl::FormatDuration(kPatience), "; is it stopped?"));
    }
    absl::SleepFor(pause);
  }
}

absl::StatusOr<bool> TryAppendEvent(BorrowedFd directory,
                                    const ContainerEvent& event) {
  ASSIGN_OR_RETURN(const UniqueFd lock, OpenLock(directory));
  ASSIGN_OR_RETURN(const bool locked,
                   sys::TryLockExclusive(lock.borrow(), kEventLock));
  if (!locked) return false;
  RETURN_IF_ERROR(AppendLocked(directory, event));
  return true;
}

}  // namespace caisson::events
