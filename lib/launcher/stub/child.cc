#include "lib/launcher/stub/child.h"

#include <asm/errno.h>
#include <asm/fcntl.h>
#include <asm/resource.h>
#include <asm/signal.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <linux/time_types.h>

#include "lib/launcher/stub/init.h"

namespace caisson::launcher {
namespace {

constexpr int kClockMonotonic = 1;
constexpr int kSigSetMask = 2;
constexpr int kMsgNoSignal = 0x4000;
constexpr int kExitFailed = 127;

class Interpreter {
 public:
  explicit Interpreter(ChildContext& child)
      : child_(child),
        base_(reinterpret_cast<char*>(child.plan)),
        ops_(reinterpret_cast<plan::Op*>(base_ + child.plan->ops_offset)),
        result_(child.plan->result) {}

  [[noreturn]] void Run() {
    result_.state = plan::kRunning;
    result_.steps = 1;
    Prepare();
    for (uint32_t i = 0; i < child_.plan->op_count; ++i) {
      const plan::Op& op = ops_[i];
      EnterStep(op.step);
      result_.op = i;
      long error = Execute(op);
      if (error == 0) continue;
      if (op.tolerated_errno != error) Fail(error);
      i += op.skip;
    }
    Fail(ENOEXEC);  // a plan ends with an exec or an exit
  }

 private:
  // The state that a program expects, whatever the launcher needs for itself.
  void Prepare() {
    Call(__NR_close_range, kOwnFds, ~0u, 0);
    // What is left of the request, and how the launcher is signalled.
    for (const int fd : child_.launchers_fds) Call(__NR_close, fd);
    Call(__NR_close, kSelfPidfd);
    // Where no number that the program asks for can be.
    Call(__NR_dup3, child_.status_fd, kOwnFds, O_CLOEXEC);
    Call(__NR_close, child_.status_fd);
    const uint64_t no_signals = 0;
    Call(__NR_rt_sigprocmask, kSigSetMask, &no_signals, 0L, sizeof(no_signals));
    Call(__NR_umask, 0);
    if (child_.id_map_fd < 0) return;
    Call(__NR_close, child_.id_map_write_fd);
    char byte;
    // The launcher reports why it wrote nothing.
    if (Call(__NR_read, child_.id_map_fd, &byte, 1) != 1) Exit(kExitFailed);
    Call(__NR_close, child_.id_map_fd);
  }

  void EnterStep(uint8_t step) {
    while (result_.steps <= step) {
      result_.time[1 + result_.steps] = Now();
      ++result_.steps;
    }
  }

  // 0, or the errno of a failure.
  long Execute(const plan::Op& op) {
    switch (op.kind) {
      case plan::kSyscall:
        return DoCall(op);
      case plan::kStoreSlot:
        *reinterpret_cast<int32_t*>(base_ + op.args[0]) =
            child_.slots[op.args[1]];
        return 0;
      case plan::kCloseDescriptors:
        return CloseDescriptors(op);
      case plan::kExec:
        return Exec(op);
      case plan::kFork:
        return Fork(op);
      case plan::kInit:
        return Init(op);
      case plan::kAwait:
        return Await(op);
      default:
        result_.time[1 + result_.steps] = Now();
        result_.state = plan::kDone;
        Exit(0);
    }
  }

  long Invoke(const plan::Op& op) {
    long args[6];
    for (int i = 0; i < 6; ++i) {
      switch (op.arg_kind[i]) {
        case plan::kSlot:
          args[i] = child_.slots[op.args[i]];
          break;
        case plan::kData:
          args[i] = reinterpret_cast<long>(base_ + op.args[i]);
          break;
        default:
          args[i] = static_cast<long>(op.args[i]);
      }
    }
    return Syscall6(op.number, args[0], args[1], args[2], args[3], args[4],
                    args[5]);
  }

  long DoCall(const plan::Op& op) {
    const long result = Invoke(op);
    if (result < 0 && result >= -4095) return -result;
    if (op.result_slot >= 0) {
      child_.slots[op.result_slot] = static_cast<int>(result);
    }
    return 0;
  }

  long CloseDescriptors(const plan::Op& op) {
    if (op.args[0] == 0) {
      Call(__NR_prlimit64, 0, RLIMIT_NOFILE, &child_.nofile, 0L);
    }
    const long result = Call(__NR_close_range, 3, kOwnFds - 1, 0);
    return result < 0 ? -result : 0;
  }

  // Takes no time: a filter of system calls may be loaded. The host does.
  long Exec(const plan::Op& op) {
    result_.state = plan::kExecuting;
    const long error = -Invoke(op);
    result_.state = plan::kRunning;
    // As execvp() does: a directory that one may not search, or that lacks the
    // program, does not end the search; "permission denied" tells more than
    // "not found".
    const bool elsewhere =
        error == ENOENT || error == ENOTDIR || error == EACCES;
    if (error == EACCES) denied_ = true;
    if (elsewhere && (op.flags & plan::kTryNext) != 0) return 0;
    return denied_ && elsewhere ? EACCES : error;
  }

  // The successor goes on once the launcher can learn of it, and ends if this
  // process is killed before that.
  long Fork(const plan::Op& op) {
    int go[2];
    long result = Call(__NR_pipe2, go, O_CLOEXEC);
    if (result < 0) return -result;
    const uint64_t flags = op.args[0] | CLONE_PARENT;
    if (op.arg_kind[1] == plan::kSlot) {
      clone_args args = {};
      args.flags = flags | CLONE_INTO_CGROUP;
      args.cgroup = static_cast<uint64_t>(child_.slots[op.args[1]]);
      result = Call(__NR_clone3, &args, sizeof(args));
    } else {
      // Filters of system calls know this one, and refuse clone3().
      result = Call(__NR_clone, static_cast<long>(flags), 0L, 0L, 0L, 0L);
    }
    if (result == 0) {
      Call(__NR_close, go[1]);
      char byte;
      if (Call(__NR_read, go[0], &byte, 1) != 1) Exit(kExitFailed);
      Call(__NR_close, go[0]);
      return 0;
    }
    if (result < 0) {
      Call(__NR_close, go[0]);
      Call(__NR_close, go[1]);
      return -result;
    }
    SetForkedName(static_cast<int>(result));
    Call(__NR_write, go[1], "", 1);
    Exit(0);
  }

  static void SetForkedName(int successor) {
    char digits[12];
    int count = 0;
    for (int rest = successor; rest > 0; rest /= 10) {
      digits[count++] = static_cast<char>('0' + rest % 10);
    }
    char name[16] = {kForkedName};
    for (int at = 1; count > 0; ++at) name[at] = digits[--count];
    // A filter of system calls that refuses it ends the successor, too.
    if (Call(__NR_prctl, PR_SET_NAME, name, 0, 0, 0) < 0) Exit(kExitFailed);
  }

  long Init(const plan::Op& op) {
    // Blocked before there is a child, so that no end of it is missed.
    const uint64_t all = ~uint64_t{0};
    Call(__NR_rt_sigprocmask, kSigSetMask, &all, 0L, sizeof(all));
    clone_args args = {};
    args.exit_signal = SIGCHLD;
    const long result = Call(__NR_clone3, &args, sizeof(args));
    if (result < 0) return -result;
    if (result > 0) {
      const void* filter =
          op.arg_kind[0] == plan::kData ? base_ + op.args[0] : nullptr;
      RunInit(static_cast<int>(result), filter, result_);
    }
    const uint64_t none = 0;
    Call(__NR_rt_sigprocmask, kSigSetMask, &none, 0L, sizeof(none));
    return 0;
  }

  long Await(const plan::Op& op) {
    const int socket = child_.slots[op.args[0]];
    char byte = 0;
    // A host that went away ends the process, not only its start.
    if (Call(__NR_sendto, socket, &byte, 1, kMsgNoSignal, 0L, 0) != 1 ||
        Call(__NR_read, socket, &byte, 1) != 1) {
      Exit(kExitFailed);
    }
    return 0;
  }

  [[noreturn]] void Fail(long error) {
    result_.error = static_cast<int32_t>(error);
    result_.state = plan::kFailed;
    Exit(kExitFailed);
  }

  ChildContext& child_;
  char* base_;
  plan::Op* ops_;
  plan::Result& result_;
  bool denied_ = false;
};

}  // namespace

uint64_t Now() {
  __kernel_timespec time;
  Call(__NR_clock_gettime, kClockMonotonic, &time);
  return static_cast<uint64_t>(time.tv_sec) * 1000000000u +
         static_cast<uint64_t>(time.tv_nsec);
}

void RunPlan(ChildContext& child) {
  child.plan->result.time[1] = Now();
  Interpreter(child).Run();
}

}  // namespace caisson::launcher
