#include "lib/launcher/wait_status.h"

#include <string.h>
#include <sys/wait.h>

#include <string>

#include "absl/strings/str_cat.h"

namespace caisson {
namespace launcher {

ExitStatus FromWaitStatus(int status) {
  ExitStatus exit;
  exit.signaled = WIFSIGNALED(status);
  exit.code = exit.signaled ? 0 : WEXITSTATUS(status);
  exit.signal = exit.signaled ? WTERMSIG(status) : 0;
  exit.core_dumped = exit.signaled && WCOREDUMP(status);
  return exit;
}

ExitStatus ExitStatusOf(const Message& exited) {
  ExitStatus exit = FromWaitStatus(exited.wait_status);
  exit.user_cpu = absl::Microseconds(static_cast<int64_t>(exited.user_us));
  exit.system_cpu = absl::Microseconds(static_cast<int64_t>(exited.system_us));
  exit.max_rss_bytes = static_cast<int64_t>(exited.max_rss_kib) * 1024;
  return exit;
}

}  // namespace launcher

std::string ExitStatus::ToString() const {
  if (!signaled) return absl::StrCat("exited with code ", code);
  const char* name = ::sigabbrev_np(signal);
  return absl::StrCat("killed by signal ", signal,
                      name != nullptr ? absl::StrCat(" (SIG", name, ")") : "",
                      core_dumped ? ", core dumped" : "",
                      out_of_memory ? ", out of memory" : "");
}

}  // namespace caisson
