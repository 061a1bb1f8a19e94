#include "lib/launcher/stub/init.h"

#include <asm/signal.h>
#include <linux/capability.h>
#include <linux/prctl.h>
#include <linux/seccomp.h>
#include <linux/wait.h>

#include "lib/launcher/stub/syscall.h"

namespace caisson::launcher {
namespace {

constexpr int kExitFailed = 127;

// What a shell makes of a wait status.
int ExitCode(int status) {
  const int signal = status & 0x7f;
  return signal != 0 ? 128 + signal : (status >> 8) & 0xff;
}

void Confine(const void* filter) {
  Call(__NR_close_range, 0, ~0u, 0);
  Call(__NR_prctl, PR_SET_NAME, "caisson-init", 0, 0, 0);
  // A child of another user could not be signalled without it.
  const __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct sets[2] = {};
  sets[0].effective = sets[0].permitted = 1u << CAP_KILL;
  long result = Call(__NR_capset, &header, sets);
  if (result >= 0) {
    result = Call(__NR_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  }
  if (result >= 0 && filter != nullptr) {
    result = Call(__NR_seccomp, SECCOMP_SET_MODE_FILTER, 0, filter);
  }
  // The end of PID 1 ends its child.
  if (result < 0) Exit(kExitFailed);
}

}  // namespace

void RunInit(int child, const void* filter, plan::Result& result) {
  Confine(filter);
  const uint64_t all = ~uint64_t{0};
  for (;;) {
    const long signal = Call(__NR_rt_sigtimedwait, &all, 0L, 0L, sizeof(all));
    if (signal != SIGCHLD) {
      if (signal > 0) Call(__NR_kill, child, signal);
      continue;
    }
    int status = 0;
    long pid;
    while ((pid = Call(__NR_wait4, -1, &status, WNOHANG, 0L)) > 0) {
      if (pid != child) continue;
      result.init_status = status;
      result.init_ended = 1;
      Exit(ExitCode(status));
    }
  }
}

}  // namespace caisson::launcher
