#include "lib/sys/detached_child.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstddef>

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/sys/raw_clone.h"

namespace caisson::sys {
namespace {

constexpr size_t kStackSize = 32 << 10;
constexpr int kSocketNumber = 3;
constexpr int kSecondNumber = 4;

struct Spawn {
  int program;
  int socket;
  int second;  // -1: none
  int namespaces;
  char* const* argv;
  char* inner_stack;  // its top
  volatile int error;
  const char* volatile call;
};

// Lets the capabilities of a new user namespace survive the exec of a user that
// has no number there yet (capabilities(7), ambient set). As little as the
// clone itself does this change the dumpable flag of the memory, which is the
// caller's: neither ids nor permitted capabilities change (linux kernel/cred.c,
// commit_creds()).
CAISSON_RAW long KeepCapabilities() {
  __user_cap_header_struct header;
  __user_cap_data_struct sets[2];
  header.version = _LINUX_CAPABILITY_VERSION_3;
  header.pid = 0;
  long result = ::syscall(SYS_capget, &header, sets);
  if (result < 0) return result;
  sets[0].inheritable = sets[0].permitted;
  sets[1].inheritable = sets[1].permitted;
  result = ::syscall(SYS_capset, &header, sets);
  for (int i = 0; i < 64 && result >= 0; ++i) {
    if ((sets[i / 32].permitted >> (i % 32) & 1) == 0) continue;
    result =
        ::syscall(SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, i, 0, 0);
  }
  return result;
}

// Puts the sockets where the program expects them and marks everything above.
CAISSON_RAW long ArrangeDescriptors(Spawn& spawn) {
  spawn.call = "fcntl(F_DUPFD_CLOEXEC)";
  // Out of each other's way first.
  const long socket =
      ::syscall(SYS_fcntl, spawn.socket, F_DUPFD_CLOEXEC, kSecondNumber + 1);
  if (socket < 0) return socket;
  long result = 0;
  if (spawn.second >= 0) {
    const long second =
        ::syscall(SYS_fcntl, spawn.second, F_DUPFD_CLOEXEC, kSecondNumber + 1);
    if (second < 0) return second;
    spawn.call = "dup3(socket, 4)";
    result = ::syscall(SYS_dup3, second, kSecondNumber, 0);
    if (result < 0) return result;
  }
  spawn.call = "dup3(socket, 3)";
  result = ::syscall(SYS_dup3, socket, kSocketNumber, 0);
  if (result < 0) return result;
  spawn.call = "close_range(CLOEXEC)";
  const int first = spawn.second >= 0 ? kSecondNumber + 1 : kSecondNumber;
  return ::syscall(SYS_close_range, first, ~0u, CLOSE_RANGE_CLOEXEC);
}

CAISSON_RAW int Execute(void* argument) {
  Spawn& spawn = *static_cast<Spawn*>(argument);
  char* const environment[] = {nullptr};
  ::syscall(SYS_setsid);
  ::syscall(SYS_chdir, "/");
  long result = 0;
  if ((spawn.namespaces & CLONE_NEWUSER) != 0) {
    spawn.call = "prctl(PR_CAP_AMBIENT_RAISE)";
    result = KeepCapabilities();
  }
  // The program is executed by descriptor, which must not be in the way.
  long program = -1;
  if (result >= 0) {
    spawn.call = "fcntl(F_DUPFD_CLOEXEC)";
    program =
        ::syscall(SYS_fcntl, spawn.program, F_DUPFD_CLOEXEC, kSecondNumber + 1);
    result = program;
  }
  if (result >= 0) result = ArrangeDescriptors(spawn);
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
  const int flags = CLONE_VM | CLONE_VFORK | spawn.namespaces | SIGCHLD;
  if (RawClone(Execute, spawn.inner_stack, flags, argument) < 0) {
    spawn.call = (spawn.namespaces & CLONE_NEWUSER) != 0
                     ? "clone(CLONE_NEWUSER | CLONE_NEWPID)"
                     : "clone(CLONE_VM | CLONE_VFORK | CLONE_NEWPID)";
    spawn.error = errno;
  }
  ::syscall(SYS_exit, 0);
  return 0;
}

CAISSON_RAW pid_t CloneIntermediate(Spawn& spawn, char* stack_top) {
  // Exit signal 0: the caller gets no SIGCHLD, and only __WALL waits for it.
  return RawClone(Intermediate, stack_top, CLONE_VM | CLONE_VFORK, &spawn);
}

absl::string_view SpawnHint(int error, bool new_user_namespace) {
  if (!new_user_namespace) {
    return error == EPERM ? "the host needs CAP_SYS_ADMIN" : "";
  }
  switch (error) {
    case EPERM:
    case EACCES:
      return "a user namespace of one's own is forbidden here: by the sysctl "
             "kernel.unprivileged_userns_clone = 0 (Debian), by "
             "kernel.apparmor_restrict_unprivileged_userns = 1 (Ubuntu: the "
             "host program needs an AppArmor profile with \"userns,\"), by a "
             "seccomp filter (containers), or because the host is in a chroot";
    case ENOSPC:
      return "the sysctl user.max_user_namespaces or user.max_pid_namespaces "
             "is reached, or 0, or 32 user namespaces are nested";
    default:
      return "";
  }
}

}  // namespace

absl::Status SpawnDetached(BorrowedFd program, const char* name,
                           BorrowedFd socket, const DetachedOptions& options) {
  void* stacks = ::mmap(nullptr, 2 * kStackSize, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
  if (stacks == MAP_FAILED) {
    return ErrnoError(errno, "mmap(stack)", {.step = "launcher.spawn"});
  }
  char* const argv[] = {const_cast<char*>(name), nullptr};
  Spawn spawn = {.program = program.get(),
                 .socket = socket.get(),
                 .second = options.second_socket.get(),
                 .namespaces = (options.new_pid_namespace ? CLONE_NEWPID : 0) |
                               (options.new_user_namespace ? CLONE_NEWUSER : 0),
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
         .hint = SpawnHint(spawn.error, options.new_user_namespace)});
  }
  return absl::OkStatus();
}

}  // namespace caisson::sys
