#include "lib/sys/detached_child.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstddef>

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"

// The children below run on the caller's memory: nothing in them may be
// instrumented, allocate, or touch anything but raw system calls.
#define CAISSON_RAW                                                \
  __attribute__((no_sanitize("address"), no_sanitize("undefined"), \
                 no_sanitize("thread"), noinline))

namespace caisson::sys {
namespace {

constexpr size_t kStackSize = 32 << 10;
constexpr int kSocketNumber = 3;

struct Spawn {
  int program;
  int socket;
  char* const* argv;
  char* inner_stack;  // its top
  volatile int error;
  const char* volatile call;
};

CAISSON_RAW int Execute(void* argument) {
  Spawn& spawn = *static_cast<Spawn*>(argument);
  char* const environment[] = {nullptr};
  ::syscall(SYS_setsid);
  ::syscall(SYS_chdir, "/");
  // The program is executed by descriptor, which must not be number 3.
  spawn.call = "fcntl(F_DUPFD_CLOEXEC)";
  long program = ::syscall(SYS_fcntl, spawn.program, F_DUPFD_CLOEXEC, 4);
  long result = program;
  if (result >= 0) {
    spawn.call = "dup3(socket, 3)";
    if (spawn.socket == kSocketNumber) {
      result = ::syscall(SYS_fcntl, kSocketNumber, F_SETFD, 0);
    } else {
      result = ::syscall(SYS_dup3, spawn.socket, kSocketNumber, 0);
    }
  }
  if (result >= 0) {
    spawn.call = "close_range(CLOEXEC)";
    result =
        ::syscall(SYS_close_range, kSocketNumber + 1, ~0u, CLOSE_RANGE_CLOEXEC);
  }
  if (result >= 0) {
    spawn.call = "execveat(memfd)";
    result = ::syscall(SYS_execveat, program, "", spawn.argv, environment,
                       AT_EMPTY_PATH);
  }
  spawn.error = errno;
  ::syscall(SYS_exit, 127);
  return 0;
}

CAISSON_RAW int Intermediate(void* argument) {
  Spawn& spawn = *static_cast<Spawn*>(argument);
  // SIGCHLD, so that whoever adopts the program can collect it as usual.
  constexpr int kFlags = CLONE_VM | CLONE_VFORK | CLONE_NEWPID | SIGCHLD;
  if (::clone(Execute, spawn.inner_stack, kFlags, argument) < 0) {
    spawn.call = "clone(CLONE_VM | CLONE_VFORK | CLONE_NEWPID)";
    spawn.error = errno;
  }
  ::syscall(SYS_exit, 0);
  return 0;
}

CAISSON_RAW pid_t CloneIntermediate(Spawn& spawn, char* stack_top) {
  // Exit signal 0: the caller gets no SIGCHLD, and only __WALL waits for it.
  return ::clone(Intermediate, stack_top, CLONE_VM | CLONE_VFORK, &spawn);
}

}  // namespace

absl::Status SpawnDetached(BorrowedFd program, const char* name,
                           BorrowedFd socket) {
  void* stacks = ::mmap(nullptr, 2 * kStackSize, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
  if (stacks == MAP_FAILED) {
    return ErrnoError(errno, "mmap(stack)", {.step = "launcher.spawn"});
  }
  char* const argv[] = {const_cast<char*>(name), nullptr};
  Spawn spawn = {.program = program.get(),
                 .socket = socket.get(),
                 .argv = argv,
                 .inner_stack = static_cast<char*>(stacks) + kStackSize,
                 .error = 0,
                 .call = ""};

  // A handler of the host must not run in a child that shares its memory.
  sigset_t all;
  sigset_t saved;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &saved);
  const pid_t pid =
      CloneIntermediate(spawn, static_cast<char*>(stacks) + 2 * kStackSize);
  const int clone_error = errno;
  if (pid >= 0) {
    while (::waitpid(pid, nullptr, __WALL) < 0 && errno == EINTR) {
    }
  }
  ::pthread_sigmask(SIG_SETMASK, &saved, nullptr);
  ::munmap(stacks, 2 * kStackSize);
  if (pid < 0) {
    return ErrnoError(clone_error, "clone(CLONE_VM | CLONE_VFORK)",
                      {.step = "launcher.spawn"});
  }
  if (spawn.error != 0) {
    const char* call = spawn.call;
    return ErrnoError(
        spawn.error, call,
        {.step = "launcher.spawn",
         .hint = spawn.error == EPERM ? "the host needs CAP_SYS_ADMIN" : ""});
  }
  return absl::OkStatus();
}

}  // namespace caisson::sys
