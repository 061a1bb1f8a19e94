#include "lib/launcher/stub/start.h"

#include <asm/errno.h>
#include <asm/fcntl.h>
#include <asm/mman.h>
#include <asm/signal.h>
#include <linux/fcntl.h>
#include <linux/mman.h>
#include <linux/sched.h>

#include "lib/launcher/protocol.h"
#include "lib/launcher/stub/children.h"
#include "lib/launcher/stub/syscall.h"
#include "lib/plan/format.h"

namespace caisson::launcher {
namespace {

constexpr int kSeekEnd = 2;
constexpr int kGetSeals = 1034;   // F_GET_SEALS
constexpr int kSealShrink = 0x2;  // F_SEAL_SHRINK
constexpr int kSealGrow = 0x4;    // F_SEAL_GROW

Rlimit g_nofile;

// One request on its way through the launcher.
struct Start {
  const Received& received;
  int status_pipe[2] = {-1, -1};
  plan::Header* plan = nullptr;
  unsigned long plan_size = 0;
  Message reject = {};
};

bool Reject(Start& start, RejectStage stage, long error) {
  start.reject.stage = stage;
  start.reject.error = static_cast<int32_t>(error);
  return false;
}

bool MapPlan(Start& start) {
  const int fd = start.received.fds[kPlanFd];
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
  start.reject.reason = plan::Validate(
      start.plan, start.plan_size,
      static_cast<uint32_t>(start.received.fd_count - kFirstPlanFd),
      &start.reject.position);
  if (start.reject.reason != plan::kAccepted) {
    return Reject(start, kStagePlan, EINVAL);
  }
  plan::Relocate(start.plan);
  return true;
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
  const int plan_fds = start.received.fd_count - kFirstPlanFd;
  for (uint32_t i = 0; i < plan::kMaxSlots; ++i) {
    child.slots[i] = static_cast<int>(i) < plan_fds
                         ? start.received.fds[kFirstPlanFd + i]
                         : -1;
  }
  child.launchers_fds[0] = start.received.fds[kChannelFd];
  child.launchers_fds[1] = start.received.fds[kPlanFd];
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
        start.received.fds[kFirstPlanFd + start.plan->cgroup_slot]);
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
bool Launch(Start& start, uint32_t host) {
  const uint64_t received = Now();
  if (!MapPlan(start)) return false;
  start.plan->result.time[0] = received;
  if (ChildrenAreFull()) return Reject(start, kStageFull, EAGAIN);
  const long channel = Keep(start.received.fds[kChannelFd]);
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
    Message started = {};
    started.kind = kStarted;
    started.pid = pid;
    started.serial =
        AddChild(pid, static_cast<int>(channel), host, Forks(start));
    const int fds[] = {pidfd, start.status_pipe[0]};
    // A host that gave up before it learned of the child cannot end it.
    if (!ok || !Send(static_cast<int>(channel), started, fds, 2)) {
      Abandon(started.serial, host);
    }
    Close(pidfd);
  } else {
    Close(static_cast<int>(channel));
  }
  Close(start.status_pipe[0]);
  return ok;
}

}  // namespace

void SetChildLimit(const Rlimit& nofile) { g_nofile = nofile; }

void StartProcess(const Received& received, uint32_t host) {
  Start start = {.received = received};
  const bool whole = received.whole && received.fd_count >= kFirstPlanFd;
  const bool ok =
      whole ? Launch(start, host) : Reject(start, kStageReceive, EMFILE);
  if (!ok) {
    start.reject.kind = kRejected;
    Send(received.fds[kChannelFd], start.reject);
  }
  if (start.plan != nullptr) Call(__NR_munmap, start.plan, start.plan_size);
}

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
}  // namespace caisson::launcher
