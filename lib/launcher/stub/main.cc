// The launcher: a small process that clones the host's containers for it, so
// that the host is never forked, never has children of its own and never runs
// code of its own inside a container. doc/plan-format.md describes what it is
// told and answers; lib/launcher/launcher.cc is the other end.
//
// One thread, no allocation, no libc. It trusts the host's plans no further
// than Validate() goes, because it outlives the processes that it starts.
#include <asm/errno.h>
#include <asm/fcntl.h>
#include <asm/poll.h>
#include <asm/resource.h>
#include <asm/signal.h>
#include <linux/fcntl.h>
#include <linux/prctl.h>

#include "lib/launcher/protocol.h"
#include "lib/launcher/stub/child.h"
#include "lib/launcher/stub/children.h"
#include "lib/launcher/stub/detached.h"
#include "lib/launcher/stub/hosts.h"
#include "lib/launcher/stub/message.h"
#include "lib/launcher/stub/mounts.h"
#include "lib/launcher/stub/start.h"
#include "lib/launcher/stub/syscall.h"
#include "lib/launcher/stub/user_namespace.h"

namespace caisson::launcher {
namespace {

constexpr int kSetMask = 2;  // SIG_SETMASK
constexpr int kSchedOther = 0;
constexpr int kSchedFifo = 1;
constexpr int kSchedRr = 2;
constexpr int kSchedDeadline = 6;
constexpr int kPrioProcess = 0;
constexpr long kNiceZero = 20;  // what getpriority() returns for nice 0

int g_control;
int g_signals;

void ResetSignals() {
  struct {
    void* handler;
    unsigned long flags;
    void* restorer;
    uint64_t mask;
  } action = {};
  // exec keeps "ignored", which the host may have chosen for SIGCHLD.
  for (int signal = 1; signal <= 64; ++signal) {
    Call(__NR_rt_sigaction, signal, &action, 0L, sizeof(action.mask));
  }
  // Blocked, not handled: only SIGKILL, SIGSTOP and faults reach a launcher.
  const uint64_t all = ~uint64_t{0};
  Call(__NR_rt_sigprocmask, kSetMask, &all, 0L, sizeof(all));
}

// Moves the control socket out of the way and fills 0, 1 and 2, so that no
// received descriptor gets one of these numbers.
bool ArrangeDescriptors() {
  Rlimit nofile;
  Call(__NR_prlimit64, 0, RLIMIT_NOFILE, 0L, &nofile);
  const Rlimit raised = {nofile.hard, nofile.hard};
  Call(__NR_prlimit64, 0, RLIMIT_NOFILE, &raised, 0L);
  SetChildLimit(nofile);
  const long control = Keep(kControlFd);
  if (control < 0) return false;
  g_control = static_cast<int>(control);
  Call(__NR_close_range, 0, kOwnFds - 1, 0);
  Call(__NR_close_range, kOwnFds + 1, ~0u, 0);
  for (int i = 0; i < kSelfPidfd; ++i) Call(__NR_eventfd2, 0, O_CLOEXEC);
  const long self = Call(__NR_pidfd_open, Call(__NR_getpid), 0);
  if (self != kSelfPidfd) return false;
  const uint64_t child_ended = uint64_t{1} << (SIGCHLD - 1);
  const long signals = Call(__NR_signalfd4, -1, &child_ended,
                            sizeof(child_ended), O_CLOEXEC | O_NONBLOCK);
  if (signals < 0) return false;
  g_signals = static_cast<int>(Keep(static_cast<int>(signals)));
  Close(static_cast<int>(signals));
  return g_signals >= 0;
}

// What a host may have more of than an untrusted program should: protection
// from the out-of-memory killer, real-time scheduling, a negative nice value.
void BeOrdinary() {
  char text[8] = {};
  long fd = Call(__NR_openat, AT_FDCWD, "/proc/self/oom_score_adj",
                 O_RDWR | O_CLOEXEC, 0);
  if (fd >= 0) {
    if (Call(__NR_read, fd, text, sizeof(text)) > 0 && text[0] == '-') {
      Call(__NR_pwrite64, fd, "0", 1, 0L);
    }
    Close(static_cast<int>(fd));
  }
  const int no_priority = 0;
  const long policy = Call(__NR_sched_getscheduler, 0);
  if (policy == kSchedFifo || policy == kSchedRr || policy == kSchedDeadline) {
    Call(__NR_sched_setscheduler, 0, kSchedOther, &no_priority);
  }
  // Processors, memory nodes and disks of the thread that made the launcher.
  uint8_t all_cpus[1024];
  memset(all_cpus, 0xff, sizeof(all_cpus));
  Call(__NR_sched_setaffinity, 0, sizeof(all_cpus), all_cpus);
  Call(__NR_set_mempolicy, 0, 0L, 0L);
  Call(__NR_ioprio_set, 1, 0, 0);
  // The system call returns 20 - nice.
  if (Call(__NR_getpriority, kPrioProcess, 0) > kNiceZero) {
    Call(__NR_setpriority, kPrioProcess, 0, 0);
  }
}

[[noreturn]] void Loop() {
  for (;;) {
    Poll polls[1 + kMaxPolls];
    polls[0] = {g_signals, POLLIN, 0};
    const uint32_t count = FillPolls(polls + 1);
    if (Call(__NR_ppoll, polls, 1 + count, 0L, 0L, 0) < 0) continue;
    if (polls[0].revents != 0) {
      uint8_t infos[128 * 8];
      Call(__NR_read, g_signals, infos, sizeof(infos));
      while (Reap()) {
      }
    }
    ServeHosts(polls + 1, count);
    SettleHosts();
  }
}

// While the host can still write to /proc/PID of this process: before it stops
// being dumpable. False if the host went away.
bool SetUpUserNamespace(bool* mount_helper) {
  if (!InUserNamespace()) return true;
  Message message = {};
  message.kind = kNeedsIdMaps;
  const int self =
      static_cast<int>(Call(__NR_pidfd_open, Call(__NR_getpid), 0));
  Send(kControlFd, message, &self, self >= 0 ? 1 : 0);
  Close(self);
  if (!WaitForIdMaps()) return false;
  *mount_helper = CloneMountHelper();
  return true;
}

}  // namespace

extern "C" [[noreturn]] __attribute__((used)) void CaissonLauncherMain() {
  const bool own_user_namespace = InUserNamespace();
  bool mount_helper = false;
  if (!SetUpUserNamespace(&mount_helper)) Exit(1);
  // No process of another user, and nothing in a container, may look inside.
  Call(__NR_prctl, PR_SET_DUMPABLE, 0, 0, 0, 0);
  Call(__NR_prctl, PR_SET_NAME, "caisson-launch", 0, 0, 0);
  ResetSignals();
  if (!ArrangeDescriptors()) Exit(1);
  const int isolation_error = mount_helper ? 0 : IsolateMounts();
  if (isolation_error == 0) BeOrdinary();
  // Otherwise this is PID 1, or the helper of one.
  if (!own_user_namespace && Call(__NR_getpid) != 1) SetReleases();
  Message hello = {};
  hello.kind = kHello;
  hello.pid = static_cast<int32_t>(Call(__NR_getpid));
  hello.features =
      isolation_error == 0 && !mount_helper ? uint32_t{kIsolatedMounts} : 0;
  if (own_user_namespace) hello.features |= kOwnUserNamespace;
  if (Releases()) hello.features |= kReleases;
  hello.isolation_error = isolation_error;
  SetHello(hello);
  AddHost(g_control);
  Loop();
}

}  // namespace caisson::launcher

CAISSON_LAUNCHER_ENTRY(CaissonLauncherMain);
