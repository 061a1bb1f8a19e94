// The launcher: a small process that clones the host's containers for it, so
// that the host is never forked, never has children of its own and never runs
// code of its own inside a container. doc/plan-format.md describes what it is
// told and answers; lib/launcher/launcher.cc is the other end.
//
// One thread, no allocation, no libc. It trusts the host's plans no further
// than Validate() goes, because it outlives the processes that it starts.
#include <asm/errno.h>
#include <asm/fcntl.h>
#include <asm/mman.h>
#include <asm/poll.h>
#include <asm/resource.h>
#include <asm/siginfo.h>
#include <asm/signal.h>
#include <asm/socket.h>
#include <linux/fcntl.h>
#include <linux/mman.h>
#include <linux/prctl.h>
#include <linux/resource.h>
#include <linux/sched.h>
#include <linux/wait.h>

#include "lib/launcher/protocol.h"
#include "lib/launcher/stub/child.h"
#include "lib/launcher/stub/mounts.h"
#include "lib/launcher/stub/syscall.h"
#include "lib/launcher/stub/user_namespace.h"
#include "lib/plan/format.h"

// The compiler emits calls to these two.
extern "C" void* memset(void* to, int value, unsigned long size) {
  char* bytes = static_cast<char*>(to);
  for (unsigned long i = 0; i < size; ++i) {
    bytes[i] = static_cast<char>(value);
    __asm__ volatile("" ::: "memory");
  }
  return to;
}

extern "C" void* memcpy(void* to, const void* from, unsigned long size) {
  char* out = static_cast<char*>(to);
  const char* in = static_cast<const char*>(from);
  for (unsigned long i = 0; i < size; ++i) {
    out[i] = in[i];
    __asm__ volatile("" ::: "memory");
  }
  return to;
}

namespace caisson::launcher {
namespace {

constexpr int kSetMask = 2;  // SIG_SETMASK
constexpr int kSchedOther = 0;
constexpr int kSchedFifo = 1;
constexpr int kSchedRr = 2;
constexpr int kSchedDeadline = 6;
constexpr int kPrioProcess = 0;
constexpr long kNiceZero = 20;  // what getpriority() returns for nice 0
constexpr int kScmRights = 1;   // SCM_RIGHTS
constexpr int kMsgDontWait = 0x40;
constexpr int kMsgNoSignal = 0x4000;
constexpr int kMsgCmsgCloexec = 0x40000000;
constexpr int kMsgCtrunc = 0x8;
constexpr int kSeekEnd = 2;
constexpr int kMaxReceived = 253;  // SCM_MAX_FD
constexpr int kGetSeals = 1034;    // F_GET_SEALS
constexpr int kSealShrink = 0x2;   // F_SEAL_SHRINK
constexpr int kSealGrow = 0x4;     // F_SEAL_GROW
constexpr int kDupCloexec = 1030;  // F_DUPFD_CLOEXEC

struct IoVec {
  const void* base;
  unsigned long size;
};

struct MsgHdr {
  void* name;
  int name_size;
  IoVec* iov;
  unsigned long iov_count;
  void* control;
  unsigned long control_size;
  int flags;
};

struct CmsgHdr {
  unsigned long size;
  int level;
  int type;
};

template <int kFds>
struct FdControl {
  CmsgHdr header;
  int fds[kFds + kFds % 2];
};

struct Child {
  int pid;  // of the process that carries on the plan, or the program
  int channel;
  uint64_t serial;
  bool abandoned;
  bool forks;  // a successor is to come
};

int g_control;
int g_signals;
Rlimit g_nofile;
Child g_children[kMaxChildren];
uint32_t g_child_count;
uint64_t g_starts;

// Sends `message` with up to two descriptors, -1 for none; false if nobody can
// receive it any more.
bool Send(int socket, Message message, int fd, int second = -1) {
  message.version = kProtocolVersion;
  IoVec iov = {&message, sizeof(message)};
  FdControl<2> control = {};
  MsgHdr header = {};
  header.iov = &iov;
  header.iov_count = 1;
  if (fd >= 0) {
    const unsigned long count = second >= 0 ? 2 : 1;
    control.header.size = sizeof(CmsgHdr) + count * sizeof(int);
    control.header.level = SOL_SOCKET;
    control.header.type = kScmRights;
    control.fds[0] = fd;
    control.fds[1] = second;
    header.control = &control;
    header.control_size = sizeof(control);
  }
  return Call(__NR_sendmsg, socket, &header, kMsgNoSignal) >= 0;
}

void Close(int fd) { Call(__NR_close, fd); }

// Kills what became of a start.
void Abandon(uint64_t serial) {
  for (uint32_t i = 0; i < g_child_count; ++i) {
    if (g_children[i].serial != serial) continue;
    g_children[i].abandoned = true;
    Call(__NR_kill, g_children[i].pid, SIGKILL);
  }
}

// One request on its way through the launcher.
struct Start {
  Request request = {};
  int fds[kMaxReceived];
  int fd_count = 0;
  bool truncated = false;
  int status_pipe[2] = {-1, -1};
  plan::Header* plan = nullptr;
  unsigned long plan_size = 0;
  Message reject = {};
};

// False when nothing is left to read; *gone says that the host is.
bool Receive(Start& start, bool* gone) {
  FdControl<kMaxReceived> control = {};
  IoVec iov = {&start.request, sizeof(start.request)};
  MsgHdr header = {};
  header.iov = &iov;
  header.iov_count = 1;
  header.control = &control;
  header.control_size = sizeof(control);
  const long size =
      Call(__NR_recvmsg, g_control, &header, kMsgCmsgCloexec | kMsgDontWait);
  if (size == -EAGAIN || size == -EINTR) return false;
  if (size <= 0) {
    *gone = true;
    return false;
  }
  if (header.control_size >= sizeof(CmsgHdr) &&
      control.header.level == SOL_SOCKET && control.header.type == kScmRights) {
    start.fd_count =
        static_cast<int>((control.header.size - sizeof(CmsgHdr)) / sizeof(int));
    memcpy(start.fds, control.fds,
           static_cast<unsigned long>(start.fd_count) * sizeof(int));
  }
  start.truncated = (header.flags & kMsgCtrunc) != 0 ||
                    size != sizeof(start.request) ||
                    start.request.version != kProtocolVersion;
  return true;
}

bool Reject(Start& start, RejectStage stage, long error) {
  start.reject.stage = stage;
  start.reject.error = static_cast<int32_t>(error);
  return false;
}

bool MapPlan(Start& start) {
  const int fd = start.fds[kPlanFd];
  // A plan that could shrink would be a SIGBUS for the launcher.
  const long seals = Call(__NR_fcntl, fd, kGetSeals, 0);
  if (seals < 0) return Reject(start, kStageMap, -seals);
  if ((seals & kSealShrink) == 0 || (seals & kSealGrow) == 0) {
    return Reject(start, kStageMap, EPERM);
  }
  const long size = Call(__NR_lseek, fd, 0L, kSeekEnd);
  if (size <= 0 || size > static_cast<long>(plan::kMaxSize)) {
    start.reject.reason = plan::kBadSize;
    return Reject(start, kStagePlan, EINVAL);
  }
  const long address = Call(__NR_mmap, 0L, size, PROT_READ | PROT_WRITE,
                            MAP_SHARED | MAP_POPULATE, fd, 0L);
  if (address < 0 && address >= -4095) {
    return Reject(start, kStageMap, -address);
  }
  start.plan = reinterpret_cast<plan::Header*>(address);
  start.plan_size = static_cast<unsigned long>(size);
  start.reject.reason =
      plan::Validate(start.plan, start.plan_size,
                     static_cast<uint32_t>(start.fd_count - kFirstPlanFd),
                     &start.reject.position);
  if (start.reject.reason != plan::kAccepted) {
    return Reject(start, kStagePlan, EINVAL);
  }
  plan::Relocate(start.plan);
  return true;
}

// "/proc/<pid>/<name>" in `buffer`.
void ProcPath(int pid, const char* name, char* buffer) {
  char digits[12];
  int count = 0;
  for (int rest = pid; rest > 0; rest /= 10) {
    digits[count++] = static_cast<char>('0' + rest % 10);
  }
  for (const char* prefix = "/proc/"; *prefix != '\0';) *buffer++ = *prefix++;
  while (count > 0) *buffer++ = digits[--count];
  *buffer++ = '/';
  while (*name != '\0') *buffer++ = *name++;
  *buffer = '\0';
}

long WriteProc(int pid, const char* name, const char* text,
               unsigned long size) {
  char path[64];
  ProcPath(pid, name, path);
  const long fd = Call(__NR_openat, AT_FDCWD, path, O_WRONLY | O_CLOEXEC, 0);
  if (fd < 0) return fd;
  const long written = Call(__NR_write, fd, text, size);
  Close(static_cast<int>(fd));
  return written < 0 ? written : 0;
}

bool WriteIdMaps(Start& start, int pid) {
  const plan::Header& plan = *start.plan;
  const char* base = reinterpret_cast<const char*>(start.plan);
  long result = 0;
  if (plan.deny_setgroups != 0) result = WriteProc(pid, "setgroups", "deny", 4);
  if (result == 0) {
    start.reject.position = 1;
    result = WriteProc(pid, "uid_map", base + plan.uid_map.offset,
                       plan.uid_map.size);
  }
  if (result == 0) {
    start.reject.position = 2;
    result = WriteProc(pid, "gid_map", base + plan.gid_map.offset,
                       plan.gid_map.size);
  }
  return result == 0 ? true : Reject(start, kStageIdMap, -result);
}

void FillChild(Start& start, const int* id_map_pipe, ChildContext& child) {
  child.plan = start.plan;
  const int plan_fds = start.fd_count - kFirstPlanFd;
  for (uint32_t i = 0; i < plan::kMaxSlots; ++i) {
    child.slots[i] =
        static_cast<int>(i) < plan_fds ? start.fds[kFirstPlanFd + i] : -1;
  }
  child.launchers_fds[0] = start.fds[kChannelFd];
  child.launchers_fds[1] = start.fds[kPlanFd];
  child.status_fd = start.status_pipe[1];
  child.id_map_fd = id_map_pipe[0];
  child.id_map_write_fd = id_map_pipe[1];
  child.nofile = g_nofile;
}

// Clones the child; false if there is none. It waits for its id maps on
// `id_map_pipe`, if it has any.
bool Clone(Start& start, const int* id_map_pipe, int* pid, int* pidfd) {
  clone_args args = {};
  args.flags = CLONE_PIDFD | start.plan->clone_flags;
  args.pidfd = reinterpret_cast<uint64_t>(pidfd);
  args.exit_signal = SIGCHLD;
  if (start.plan->cgroup_slot >= 0) {
    args.flags |= CLONE_INTO_CGROUP;
    args.cgroup = static_cast<uint64_t>(
        start.fds[kFirstPlanFd + start.plan->cgroup_slot]);
  }
  const long result = Call(__NR_clone3, &args, sizeof(args));
  if (result == 0) {
    static ChildContext child;  // in the child's own copy of the memory
    FillChild(start, id_map_pipe, child);
    RunPlan(child);
  }
  if (result < 0) return Reject(start, kStageClone, -result);
  *pid = static_cast<int>(result);
  return true;
}

// Clones the child and writes its id maps.
bool CloneWithMaps(Start& start, int* pid, int* pidfd) {
  if (start.plan->uid_map.size == 0) {
    constexpr int kNoPipe[2] = {-1, -1};
    return Clone(start, kNoPipe, pid, pidfd);
  }
  int pipe[2];
  const long result = Call(__NR_pipe2, pipe, O_CLOEXEC);
  if (result < 0) return Reject(start, kStageIdMap, -result);
  bool ok = Clone(start, pipe, pid, pidfd) && WriteIdMaps(start, *pid);
  if (ok) Call(__NR_write, pipe[1], "", 1);
  Close(pipe[0]);
  Close(pipe[1]);
  return ok;
}

bool Forks(const Start& start) {
  const plan::Op* ops = reinterpret_cast<const plan::Op*>(
      reinterpret_cast<const char*>(start.plan) + start.plan->ops_offset);
  for (uint32_t i = 0; i < start.plan->op_count; ++i) {
    if (ops[i].kind == plan::kFork) return true;
  }
  return false;
}

// Starts what was received; false: start.reject says why not.
bool Launch(Start& start) {
  const uint64_t received = Now();
  if (!MapPlan(start)) return false;
  start.plan->result.time[0] = received;
  if (g_child_count == kMaxChildren) return Reject(start, kStageFull, EAGAIN);
  // Out of the range that requests use; see kOwnFds.
  const long channel =
      Call(__NR_fcntl, start.fds[kChannelFd], kDupCloexec, kOwnFds);
  if (channel < 0) return Reject(start, kStageReceive, -channel);
  int pid = 0;
  int pidfd = -1;
  // Made here and not by the host, where a fork of another thread would keep
  // its writing end open.
  const long piped = Call(__NR_pipe2, start.status_pipe, O_CLOEXEC);
  if (piped < 0) {
    Close(static_cast<int>(channel));
    return Reject(start, kStageReceive, -piped);
  }
  const bool ok = CloneWithMaps(start, &pid, &pidfd);
  Close(start.status_pipe[1]);
  if (pid > 0) {
    g_children[g_child_count++] = {pid, static_cast<int>(channel), ++g_starts,
                                   /*abandoned=*/false, Forks(start)};
    Message started = {};
    started.kind = kStarted;
    started.pid = pid;
    started.serial = g_starts;
    // A host that gave up before it learned of the child cannot end it.
    if (!ok || !Send(static_cast<int>(channel), started, pidfd,
                     start.status_pipe[0])) {
      Abandon(g_starts);
    }
    Close(pidfd);
  } else {
    Close(static_cast<int>(channel));
  }
  Close(start.status_pipe[0]);
  return ok;
}

// Takes one request; false when there is none or the host is gone.
bool Serve(bool* gone) {
  Start start;
  if (!Receive(start, gone)) return false;
  if (start.request.kind == kAbandon) {
    Abandon(start.request.serial);
  } else if (start.fd_count > kChannelFd) {
    const bool whole = !start.truncated && start.fd_count >= kFirstPlanFd;
    const bool ok =
        whole ? Launch(start) : Reject(start, kStageReceive, EMFILE);
    if (!ok) {
      start.reject.kind = kRejected;
      Send(start.fds[kChannelFd], start.reject, -1);
    }
  }
  if (start.plan != nullptr) {
    Call(__NR_munmap, start.plan, start.plan_size);
  }
  for (int i = 0; i < start.fd_count; ++i) Close(start.fds[i]);
  return true;
}

// Tells the host how a child ended, and forgets the child.
void Report(uint32_t index, int status, const rusage& usage) {
  Message message = {};
  message.kind = kExited;
  message.pid = g_children[index].pid;
  message.wait_status = status;
  message.user_us = static_cast<uint64_t>(usage.ru_utime.tv_sec) * 1000000 +
                    static_cast<uint64_t>(usage.ru_utime.tv_usec);
  message.system_us = static_cast<uint64_t>(usage.ru_stime.tv_sec) * 1000000 +
                      static_cast<uint64_t>(usage.ru_stime.tv_usec);
  message.max_rss_kib = static_cast<uint64_t>(usage.ru_maxrss);
  Send(g_children[index].channel, message, -1);
  Close(g_children[index].channel);
  g_children[index] = g_children[--g_child_count];
}

// The index of the child with this pid, or g_child_count.
uint32_t Find(int pid) {
  uint32_t i = 0;
  while (i < g_child_count && g_children[i].pid != pid) ++i;
  return i;
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
  const long pidfd = Call(__NR_pidfd_open, to, 0);
  Message forked = {};
  forked.kind = kForked;
  forked.pid = to;
  Send(child.channel, forked, static_cast<int>(pidfd));
  if (pidfd >= 0) Close(static_cast<int>(pidfd));
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

// Collects one child and tells its host; false if none ended.
bool Reap(int options) {
  siginfo_t ended = {};
  if (Call(__NR_waitid, P_ALL, 0, &ended, WEXITED | WNOWAIT | options, 0L) <
          0 ||
      ended.si_pid == 0) {
    return false;
  }
  const uint32_t index = Find(ended.si_pid);
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

// The host is gone: nothing that it started outlives it.
[[noreturn]] void Shutdown() {
  for (uint32_t i = 0; i < g_child_count; ++i) {
    Call(__NR_kill, g_children[i].pid, SIGKILL);
  }
  while (g_child_count > 0 && Reap(0)) {
  }
  // What was not its own child ends with its pid namespace.
  Exit(0);
}

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

// To a number that no request can bring.
int MoveAway(int fd) {
  const long moved = Call(__NR_fcntl, fd, kDupCloexec, kOwnFds);
  Close(fd);
  return static_cast<int>(moved);
}

// Moves the control socket out of the way and fills 0, 1 and 2, so that no
// received descriptor gets one of these numbers.
bool ArrangeDescriptors() {
  Call(__NR_prlimit64, 0, RLIMIT_NOFILE, 0L, &g_nofile);
  const Rlimit raised = {g_nofile.hard, g_nofile.hard};
  Call(__NR_prlimit64, 0, RLIMIT_NOFILE, &raised, 0L);
  const long control = Call(__NR_fcntl, kControlFd, kDupCloexec, kOwnFds);
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
  g_signals = MoveAway(static_cast<int>(signals));
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
    struct {
      int fd;
      short events;
      short revents;
    } polls[2] = {{g_signals, POLLIN, 0}, {g_control, POLLIN, 0}};
    const long ready = Call(__NR_ppoll, polls, 2, 0L, 0L, 0);
    if (ready < 0) continue;
    if (polls[0].revents != 0) {
      uint8_t infos[128 * 8];
      Call(__NR_read, g_signals, infos, sizeof(infos));
      while (Reap(WNOHANG)) {
      }
    }
    if (polls[1].revents != 0) {
      bool gone = false;
      Serve(&gone);
      if (gone) Shutdown();
    }
  }
}

// While the host can still write to /proc/PID of this process: before it stops
// being dumpable. False if the host went away.
bool SetUpUserNamespace(bool* mount_helper) {
  if (!InUserNamespace()) return true;
  Message message = {};
  message.kind = kNeedsIdMaps;
  const long self = Call(__NR_pidfd_open, Call(__NR_getpid), 0);
  Send(kControlFd, message, static_cast<int>(self));
  Close(static_cast<int>(self));
  if (!WaitForIdMaps()) return false;
  *mount_helper = CloneMountHelper();
  return true;
}

}  // namespace

extern "C" [[noreturn]] __attribute__((used)) void CaissonLauncherMain() {
  bool mount_helper = false;
  if (!SetUpUserNamespace(&mount_helper)) Exit(1);
  // No process of another user, and nothing in a container, may look inside.
  Call(__NR_prctl, PR_SET_DUMPABLE, 0, 0, 0, 0);
  Call(__NR_prctl, PR_SET_NAME, "caisson-launch", 0, 0, 0);
  ResetSignals();
  if (!ArrangeDescriptors()) Exit(1);
  const int isolation_error = mount_helper ? 0 : IsolateMounts();
  if (isolation_error == 0) BeOrdinary();
  Message hello = {};
  hello.kind = kHello;
  hello.pid = static_cast<int32_t>(Call(__NR_getpid));
  hello.features =
      isolation_error == 0 && !mount_helper ? uint32_t{kIsolatedMounts} : 0;
  hello.isolation_error = isolation_error;
  Send(g_control, hello, kSelfPidfd);
  Loop();
}

}  // namespace caisson::launcher

CAISSON_LAUNCHER_ENTRY(CaissonLauncherMain);
