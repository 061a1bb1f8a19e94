#include "lib/launcher/stub/children.h"

#include <asm/errno.h>
#include <asm/fcntl.h>
#include <asm/siginfo.h>
#include <asm/signal.h>
#include <linux/fcntl.h>
#include <linux/resource.h>
#include <linux/time_types.h>
#include <linux/wait.h>

#include "lib/launcher/protocol.h"
#include "lib/launcher/stub/child.h"
#include "lib/launcher/stub/detached.h"
#include "lib/launcher/stub/hosts.h"
#include "lib/launcher/stub/message.h"
#include "lib/launcher/stub/start.h"
#include "lib/launcher/stub/syscall.h"

namespace caisson::launcher {
namespace {

constexpr int kDupCloexec = 1030;  // F_DUPFD_CLOEXEC
// Of all hosts that attached to detached processes.
constexpr uint32_t kMaxWatchers = 4096;

struct Child {
  int pid;  // of the process that carries on the plan, or the program
  int channel;
  uint64_t serial;
  uint32_t host;
  bool abandoned;
  bool forks;  // a successor is to come
  bool ended;  // and told so, but not collected: it may still be released
};

// A further channel on which the end of a child is told.
struct Watcher {
  int channel;
  uint64_t serial;
};

Child g_children[kMaxChildren];
uint32_t g_child_count;
uint64_t g_starts;
Watcher g_watchers[kMaxWatchers];
uint32_t g_watcher_count;
bool g_releases;

// The index of the child with this pid or serial number, or g_child_count.
uint32_t FindByPid(int pid) {
  uint32_t i = 0;
  while (i < g_child_count && g_children[i].pid != pid) ++i;
  return i;
}

uint32_t FindBySerial(uint64_t serial) {
  uint32_t i = 0;
  while (i < g_child_count && g_children[i].serial != serial) ++i;
  return i;
}

// False if the child is gone from the table: another one has its index.
bool AbandonIndex(uint32_t i) {
  if (g_children[i].ended) {
    Call(__NR_wait4, g_children[i].pid, 0L, 0, 0L);
    g_children[i] = g_children[--g_child_count];
    return false;
  }
  g_children[i].abandoned = true;
  Call(__NR_kill, g_children[i].pid, SIGKILL);
  return true;
}

// Closes channels whose other end is closed.
void ForgetWatchers() {
  for (uint32_t i = 0; i < g_watcher_count;) {
    Poll poll = {g_watchers[i].channel, 0, 0};
    const __kernel_timespec now = {};
    if (Call(__NR_ppoll, &poll, 1, &now, 0L, 0) != 1) {
      ++i;
      continue;
    }
    Close(g_watchers[i].channel);
    g_watchers[i] = g_watchers[--g_watcher_count];
  }
}

void TellWatchers(uint64_t serial, const Message& message) {
  for (uint32_t i = 0; i < g_watcher_count;) {
    if (g_watchers[i].serial != serial) {
      ++i;
      continue;
    }
    Send(g_watchers[i].channel, message);
    Close(g_watchers[i].channel);
    g_watchers[i] = g_watchers[--g_watcher_count];
  }
}

// Tells how a child ended, and closes its channel.
void Tell(const Child& child, int status, const rusage& usage) {
  Message message = {};
  message.kind = kExited;
  message.pid = child.pid;
  message.wait_status = status;
  message.user_us = static_cast<uint64_t>(usage.ru_utime.tv_sec) * 1000000 +
                    static_cast<uint64_t>(usage.ru_utime.tv_usec);
  message.system_us = static_cast<uint64_t>(usage.ru_stime.tv_sec) * 1000000 +
                      static_cast<uint64_t>(usage.ru_stime.tv_usec);
  message.max_rss_kib = static_cast<uint64_t>(usage.ru_maxrss);
  // On disk before anybody is told.
  EndDetached(child.serial, message);
  Send(child.channel, message);
  Close(child.channel);
  TellWatchers(child.serial, message);
}

// The same, and forgets the child.
void Report(uint32_t index, int status, const rusage& usage) {
  const Child child = g_children[index];
  g_children[index] = g_children[--g_child_count];
  Tell(child, status, usage);
}

// The successor that the child which ended as `pid`, not yet collected, has
// left; 0 if none.
int SuccessorOf(int pid) {
  char path[64];
  ProcPath(pid, "comm", path);
  char name[17] = {};
  const long fd = Call(__NR_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
  if (fd < 0) return 0;
  Call(__NR_read, fd, name, sizeof(name) - 1);
  Close(static_cast<int>(fd));
  if (name[0] != kForkedName) return 0;
  int successor = 0;
  for (int i = 1; name[i] >= '0' && name[i] <= '9'; ++i) {
    successor = successor * 10 + (name[i] - '0');
  }
  return successor;
}

// `index` has a successor, which runs, or has ended and was not collected.
void Adopt(uint32_t index, int to) {
  Child& child = g_children[index];
  child.forks = false;
  child.pid = to;
  if (child.abandoned) Call(__NR_kill, to, SIGKILL);
  const int pidfd = static_cast<int>(Call(__NR_pidfd_open, to, 0));
  Message forked = {};
  forked.kind = kForked;
  forked.pid = to;
  Send(child.channel, forked, &pidfd, pidfd >= 0 ? 1 : 0);
  if (pidfd >= 0) Close(pidfd);
}

// Collects a child that has ended, the one at `index` unless that is
// g_child_count. Its number is its own until then.
bool Collect(int pid, uint32_t index) {
  const int successor =
      index < g_child_count && g_children[index].forks ? SuccessorOf(pid) : 0;
  int status = 0;
  rusage usage = {};
  if (Call(__NR_wait4, pid, &status, 0, &usage) <= 0) return false;
  if (successor != 0) {
    Adopt(index, successor);
  } else if (index < g_child_count) {
    Report(index, status, usage);
  }
  return true;
}

int WaitStatusOf(const siginfo_t& ended) {
  constexpr int kExitedCode = 1;  // CLD_EXITED
  constexpr int kDumpedCode = 3;  // CLD_DUMPED
  if (ended.si_code == kExitedCode) return (ended.si_status & 0xff) << 8;
  return ended.si_status | (ended.si_code == kDumpedCode ? 0x80 : 0);
}

// Collects nobody that may still be released, whose status is another's then.
bool ReapReleasable() {
  for (uint32_t i = 0; i < g_child_count; ++i) {
    Child& child = g_children[i];
    if (child.ended) continue;
    siginfo_t ended = {};
    rusage usage = {};
    Call(__NR_waitid, P_PID, child.pid, &ended, WEXITED | WNOWAIT | WNOHANG,
         &usage);
    if (ended.si_pid == 0) continue;
    if (child.forks || child.abandoned) return Collect(child.pid, i);
    child.ended = true;
    Tell(child, WaitStatusOf(ended), usage);
    return true;
  }
  return false;
}

}  // namespace

bool ChildrenAreFull() { return g_child_count == kMaxChildren; }

uint64_t AddChild(int pid, int channel, uint32_t host, bool forks) {
  g_children[g_child_count++] = {
      pid,   channel,        ++g_starts, host, /*abandoned=*/false,
      forks, /*ended=*/false};
  return g_starts;
}

void Abandon(uint64_t serial, uint32_t host) {
  const uint32_t i = FindBySerial(serial);
  if (i < g_child_count && g_children[i].host == host) AbandonIndex(i);
}

void AbandonAllOf(uint32_t host) {
  for (uint32_t i = 0; i < g_child_count;) {
    if (g_children[i].host != host || AbandonIndex(i)) ++i;
  }
}

bool AnyChildOf(uint32_t host) {
  for (uint32_t i = 0; i < g_child_count; ++i) {
    if (g_children[i].host == host) return true;
  }
  return false;
}

long DetachChild(uint64_t serial, uint32_t host, const char* name,
                 bool has_init, const int* fds, int count) {
  const Detached* detached = FindDetached(name);
  if (detached != nullptr && detached->serial == serial) return 0;
  const uint32_t i = FindBySerial(serial);
  if (i == g_child_count || g_children[i].host != host ||
      g_children[i].abandoned || g_children[i].forks) {
    return ESRCH;
  }
  const long error = BeginDetached(serial, name, has_init, fds, count);
  if (error == 0) g_children[i].host = kNoHost;
  return error;
}

long ReleaseChild(uint64_t serial, uint32_t host) {
  if (!g_releases) return EINVAL;
  const uint32_t i = FindBySerial(serial);
  if (i == g_child_count || g_children[i].host != host ||
      g_children[i].abandoned || g_children[i].forks) {
    return ESRCH;
  }
  // Its channel ends without a message.
  if (!g_children[i].ended) Close(g_children[i].channel);
  g_children[i] = g_children[--g_child_count];
  return 0;
}

long FindChild(const char* name, int channel) {
  const Detached* detached = FindDetached(name);
  if (detached == nullptr) return ENOENT;
  ForgetWatchers();
  if (g_watcher_count == kMaxWatchers) return EAGAIN;
  const uint32_t i = FindBySerial(detached->serial);
  const long kept = Keep(channel);
  if (kept < 0) return -kept;
  int fds[1 + kMaxKept];
  fds[0] = static_cast<int>(Call(__NR_pidfd_open, g_children[i].pid, 0));
  if (fds[0] < 0) {
    Close(static_cast<int>(kept));
    return -fds[0];
  }
  for (int k = 0; k < detached->kept_count; ++k) fds[1 + k] = detached->kept[k];
  Message found = {};
  found.kind = kFound;
  found.pid = g_children[i].pid;
  found.serial = detached->serial;
  const bool sent = Send(channel, found, fds, 1 + detached->kept_count);
  Close(fds[0]);
  if (!sent) {
    Close(static_cast<int>(kept));
    return ETOOMANYREFS;
  }
  g_watchers[g_watcher_count++] = {static_cast<int>(kept), detached->serial};
  return 0;
}

bool Reap() {
  if (g_releases) return ReapReleasable();
  siginfo_t ended = {};
  if (Call(__NR_waitid, P_ALL, 0, &ended, WEXITED | WNOWAIT | WNOHANG, 0L) <
          0 ||
      ended.si_pid == 0) {
    return false;
  }
  const uint32_t index = FindByPid(ended.si_pid);
  if (index < g_child_count) return Collect(ended.si_pid, index);
  // Perhaps a successor that was faster than its predecessor's end: it stays
  // until that has told of it, and holds up none of the others.
  bool expected = false;
  for (uint32_t i = 0; i < g_child_count; ++i) {
    expected = expected || g_children[i].forks;
    siginfo_t other = {};
    Call(__NR_waitid, P_PID, g_children[i].pid, &other,
         WEXITED | WNOWAIT | WNOHANG, 0L);
    if (other.si_pid != 0) return Collect(g_children[i].pid, i);
  }
  return !expected && Collect(ended.si_pid, g_child_count);
}

void SetReleases() { g_releases = true; }
bool Releases() { return g_releases; }

long Keep(int fd) { return Call(__NR_fcntl, fd, kDupCloexec, kOwnFds); }

}  // namespace caisson::launcher
