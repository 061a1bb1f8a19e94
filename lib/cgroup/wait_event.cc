#include "lib/cgroup/wait_event.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/sys/open.h"

namespace caisson::cgroup {

absl::StatusOr<bool> WaitForEvent(const Filesystem& filesystem,
                                  const Dir& group, absl::string_view key,
                                  int64_t want, const Deadline& deadline) {
  static constexpr char kEvents[] = "cgroup.events";
  ASSIGN_OR_RETURN(UniqueFd events,
                   filesystem.OpenFile(group, kEvents, O_RDONLY));
  for (;;) {
    // Reading also arms the next notification.
    if (::lseek(events.get(), 0, SEEK_SET) != 0) {
      return ErrnoError(errno, absl::StrCat("lseek(", Quoted(kEvents), ")"),
                        {.step = "cgroup", .path = group.path});
    }
    ASSIGN_OR_RETURN(const std::string text,
                     sys::ReadAll(events.borrow(), 4096, kEvents));
    ASSIGN_OR_RETURN(const int64_t value, FlatKeyedValue(text, key));
    if (value == want) return true;
    if (deadline.expired()) return false;
    pollfd poll = {.fd = events.get(), .events = POLLPRI};
    deadline.Poll({&poll, 1});
  }
}

}  // namespace caisson::cgroup
