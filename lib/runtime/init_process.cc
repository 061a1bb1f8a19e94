#include "lib/runtime/init_process.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "lib/base/deadline.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/sys/boot_id.h"
#include "lib/sys/directory.h"
#include "lib/sys/open.h"
#include "lib/sys/pidfd.h"
#include "lib/sys/pidfd_open.h"

namespace caisson::runtime {
namespace {

constexpr size_t kMaxStat = 4096;
constexpr absl::Duration kExitPoll = absl::Milliseconds(10);

absl::StatusOr<std::string> ReadProc(const std::string& path) {
  return sys::ReadFileAt(BorrowedFd(AT_FDCWD), absl::StrCat("/proc/", path),
                         /*resolve=*/0, kMaxStat);
}

// proc(5), /proc/PID/stat: the fields behind the name, which is in parentheses
// and may contain anything. `Field` counts as the manual page does.
template <typename Number>
absl::StatusOr<Number> ReadStat(const std::string& path, size_t field) {
  constexpr size_t kFirst = 3;
  ASSIGN_OR_RETURN(const std::string text, ReadProc(path));
  const std::vector<absl::string_view> fields =
      absl::StrSplit(absl::string_view(text).substr(text.rfind(')') + 1), ' ',
                     absl::SkipEmpty());
  Number number = 0;
  if (fields.size() > field - kFirst &&
      absl::SimpleAtoi(fields[field - kFirst], &number)) {
    return number;
  }
  return absl::InternalError(absl::StrCat("/proc/", path, " has another form"));
}

// In clock ticks since the boot.
absl::StatusOr<uint64_t> StartOf(pid_t pid) {
  return ReadStat<uint64_t>(absl::StrCat(pid, "/stat"), 22);
}

// All its threads have; it may be a zombie still.
bool HasEnded(BorrowedFd pidfd) {
  pollfd poll = {.fd = pidfd.get(), .events = POLLIN, .revents = 0};
  return ::poll(&poll, 1, 0) > 0;
}

// Whether no thread of it runs any code of a program, nor will.
bool IsExiting(pid_t pid) {
  constexpr uint32_t kExiting = 0x4;  // PF_EXITING, include/linux/sched.h
  const std::string tasks = absl::StrCat(pid, "/task");
  auto dir = sys::Open(absl::StrCat("/proc/", tasks), O_RDONLY | O_DIRECTORY);
  if (!dir.ok()) return absl::IsNotFound(dir.status());
  const auto threads = sys::ListDirectory(dir->borrow());
  return threads.ok() &&
         std::all_of(threads->begin(), threads->end(),
                     [&tasks](const std::string& thread) {
                       const auto flags = ReadStat<uint32_t>(
                           absl::StrCat(tasks, "/", thread, "/stat"), 9);
                       return flags.ok() ? (*flags & kExiting) != 0
                                         : absl::IsNotFound(flags.status());
                     });
}

}  // namespace

absl::StatusOr<ProcessRecord> Remember(BorrowedFd pidfd) {
  const pid_t pid = sys::PidOf(pidfd);
  ASSIGN_OR_RETURN(const uint64_t start, StartOf(pid));
  if (pid <= 0 || sys::PidOf(pidfd) != pid) {
    return absl::NotFoundError("the container's process has ended");
  }
  ProcessRecord record;
  ASSIGN_OR_RETURN(*record.mutable_boot_id(), sys::BootId());
  record.set_pid(pid);
  record.set_start_ticks(start);
  return record;
}

absl::StatusOr<UniqueFd> OpenInit(const ProcessRecord& record,
                                  absl::string_view boot_id) {
  if (record.pid() <= 0 || record.boot_id() != boot_id) return UniqueFd();
  auto pidfd = sys::OpenPidfd(record.pid());
  if (absl::IsNotFound(pidfd.status())) return UniqueFd();
  RETURN_IF_ERROR(pidfd.status());
  const auto start = StartOf(record.pid());
  const bool same = start.ok() && *start == record.start_ticks() &&
                    !HasEnded(pidfd->borrow()) &&
                    sys::PidOf(pidfd->borrow()) == record.pid();
  return same ? *std::move(pidfd) : UniqueFd();
}

absl::Status KillInit(BorrowedFd init, Until until, absl::Duration timeout) {
  const pid_t pid = sys::PidOf(init);
  const absl::Status sent = sys::SendSignal(init, SIGKILL);
  if (pid <= 0 || absl::IsNotFound(sent)) return absl::OkStatus();
  RETURN_IF_ERROR(sent);
  const Deadline deadline(timeout);
  pollfd poll = {.fd = init.get(), .events = POLLIN, .revents = 0};
  for (;;) {
    const int ready = deadline.Poll(
        absl::MakeSpan(&poll, 1),
        until == Until::kEnded ? absl::InfiniteDuration() : kExitPoll);
    if (ready > 0) return absl::OkStatus();
    if (ready < 0 && errno != EINTR) {
      return ErrnoError(errno, "ppoll(pidfd)", {.step = "delete"});
    }
    if (until == Until::kExiting && IsExiting(pid)) return absl::OkStatus();
    if (deadline.expired()) {
      return absl::DeadlineExceededError(
          absl::StrCat("process ", pid, " outlived SIGKILL by ",
                       absl::FormatDuration(timeout)));
    }
  }
}

}  // namespace caisson::runtime
