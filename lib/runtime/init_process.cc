#include "lib/runtime/init_process.h"

#include <fcntl.h>

#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "lib/base/status_macros.h"
#include "lib/sys/open.h"
#include "lib/sys/pidfd.h"
#include "lib/sys/pidfd_open.h"

namespace caisson::runtime {
namespace {

constexpr size_t kMaxStat = 4096;

absl::StatusOr<std::string> ReadProc(const std::string& path) {
  return sys::ReadFileAt(BorrowedFd(AT_FDCWD), absl::StrCat("/proc/", path),
                         /*resolve=*/0, kMaxStat);
}

absl::StatusOr<std::string> BootId() {
  ASSIGN_OR_RETURN(const std::string id, ReadProc("sys/kernel/random/boot_id"));
  return std::string(absl::StripSuffix(id, "\n"));
}

struct ProcessStat {
  char state = 'X';
  uint64_t start_ticks = 0;
};

// proc(5), /proc/PID/stat: the name, in parentheses, may contain anything.
absl::StatusOr<ProcessStat> ReadStat(pid_t pid) {
  ASSIGN_OR_RETURN(const std::string text,
                   ReadProc(absl::StrCat(pid, "/stat")));
  const std::vector<absl::string_view> fields =
      absl::StrSplit(absl::string_view(text).substr(text.rfind(')') + 1), ' ',
                     absl::SkipEmpty());
  ProcessStat stat;
  // The third field of the line is the first here, the 22nd the 20th.
  constexpr size_t kStartTime = 22 - 3;
  if (fields.size() <= kStartTime || fields[0].size() != 1 ||
      !absl::SimpleAtoi(fields[kStartTime], &stat.start_ticks)) {
    return absl::InternalError(
        absl::StrCat("/proc/", pid, "/stat has another form"));
  }
  stat.state = fields[0][0];
  return stat;
}

}  // namespace

absl::StatusOr<ProcessRecord> Remember(BorrowedFd pidfd) {
  const pid_t pid = sys::PidOf(pidfd);
  ASSIGN_OR_RETURN(const ProcessStat stat, ReadStat(pid));
  if (pid <= 0 || sys::PidOf(pidfd) != pid) {
    return absl::NotFoundError("the container's process has ended");
  }
  ProcessRecord record;
  ASSIGN_OR_RETURN(*record.mutable_boot_id(), BootId());
  record.set_pid(pid);
  record.set_start_ticks(stat.start_ticks);
  return record;
}

absl::StatusOr<UniqueFd> OpenInit(const ProcessRecord& record) {
  if (record.pid() <= 0) return UniqueFd();
  ASSIGN_OR_RETURN(const std::string boot, BootId());
  if (boot != record.boot_id()) return UniqueFd();
  auto pidfd = sys::OpenPidfd(record.pid());
  if (absl::IsNotFound(pidfd.status())) return UniqueFd();
  RETURN_IF_ERROR(pidfd.status());
  const auto stat = ReadStat(record.pid());
  const bool same = stat.ok() && stat->start_ticks == record.start_ticks() &&
                    stat->state != 'Z' && stat->state != 'X' &&
                    sys::PidOf(pidfd->borrow()) == record.pid();
  return same ? *std::move(pidfd) : UniqueFd();
}

}  // namespace caisson::runtime
