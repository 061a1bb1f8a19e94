#include "lib/sys/helper_program.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstddef>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "caisson/unique_fd.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/sys/memfd.h"
#include "lib/sys/open.h"
#include "lib/sys/raw_clone.h"

namespace caisson::sys {
namespace {

constexpr size_t kStackSize = 32 << 10;
constexpr size_t kMaxOutput = 4 << 10;
constexpr size_t kSignalSetSize = 8;  // the kernel's sigset_t

// struct sigaction as rt_sigaction(2) has it on x86-64 and aarch64, all zero:
// SIG_DFL.
struct KernelSigaction {
  void* fields[4];
};

struct Job {
  char* const* argv;
  char* const* environment;
  int input;   // above 2
  int output;  // above 2
  char* inner_stack;
  const KernelSigaction* default_action;
  volatile int error;
  volatile int wait_status;
};

CAISSON_RAW int Execute(void* argument) {
  Job& job = *static_cast<Job*>(argument);
  // No terminal whose keys could send it a signal.
  ::syscall(SYS_setsid);
  long result = ::syscall(SYS_dup3, job.input, 0, 0);
  if (result >= 0) result = ::syscall(SYS_dup3, job.output, 1, 0);
  if (result >= 0) result = ::syscall(SYS_dup3, job.output, 2, 0);
  if (result >= 0) {
    result = ::syscall(SYS_close_range, 3, ~0u, CLOSE_RANGE_CLOEXEC);
  }
  if (result >= 0) {
    ::syscall(SYS_execve, job.argv[0], job.argv, job.environment);
  }
  job.error = errno;
  ::syscall(SYS_exit, 127);
  return 0;
}

CAISSON_RAW int Intermediate(void* argument) {
  Job& job = *static_cast<Job*>(argument);
  // Its own copy of the caller's table: with SIGCHLD ignored the kernel would
  // collect the program and its status.
  ::syscall(SYS_rt_sigaction, SIGCHLD, job.default_action, nullptr,
            kSignalSetSize);
  const pid_t pid = RawClone(Execute, job.inner_stack,
                             CLONE_VM | CLONE_VFORK | SIGCHLD, argument);
  if (pid < 0) {
    job.error = errno;
  } else {
    int status = 0;
    while (::syscall(SYS_wait4, pid, &status, __WALL, nullptr) < 0 &&
           errno == EINTR) {
    }
    job.wait_status = status;
  }
  ::syscall(SYS_exit, 0);
  return 0;
}

// 0 or an errno of the clone itself.
int RunJob(Job& job, char* stacks) {
  job.inner_stack = stacks + kStackSize;
  // A handler of the host must not run in a child that shares its memory.
  sigset_t all;
  sigset_t saved;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &saved);
  // Exit signal 0: the caller gets no SIGCHLD, and only __WALL waits for it.
  const pid_t pid = RawClone(Intermediate, stacks + 2 * kStackSize,
                             CLONE_VM | CLONE_VFORK, &job);
  const int error = errno;
  if (pid >= 0) {
    while (::waitpid(pid, nullptr, __WALL) < 0 && errno == EINTR) {
    }
  }
  ::pthread_sigmask(SIG_SETMASK, &saved, nullptr);
  return pid < 0 ? error : 0;
}

absl::Status Report(const Job& job, BorrowedFd output,
                    const std::vector<std::string>& argv) {
  const std::string call = absl::StrCat("\"", absl::StrJoin(argv, " "), "\"");
  if (job.error != 0) {
    return ErrnoError(job.error, absl::StrCat("execve(", call, ")"),
                      {.step = "helper", .path = argv[0]});
  }
  if (WIFEXITED(job.wait_status) && WEXITSTATUS(job.wait_status) == 0) {
    return absl::OkStatus();
  }
  std::string text(kMaxOutput, '\0');
  const ssize_t size = ::pread(output.get(), text.data(), text.size(), 0);
  text.resize(size > 0 ? static_cast<size_t>(size) : 0);
  // A set-user-ID program runs without its rights then.
  const bool no_new_privs = ::prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1;
  return absl::PermissionDeniedError(absl::StrCat(
      call,
      WIFEXITED(job.wait_status)
          ? absl::StrCat(" exited with code ", WEXITSTATUS(job.wait_status))
          : absl::StrCat(" was killed by signal ", WTERMSIG(job.wait_status)),
      ": ", absl::CHexEscape(absl::StripAsciiWhitespace(text)),
      no_new_privs
          ? "; the host has no_new_privs set, with which it cannot work"
          : ""));
}

}  // namespace

absl::Status RunHelperProgram(const std::vector<std::string>& argv) {
  ASSIGN_OR_RETURN(UniqueFd null, Open("/dev/null", O_RDONLY));
  ASSIGN_OR_RETURN(null, Duplicate(null.borrow()));
  // Not a pipe: nobody reads while the program runs.
  ASSIGN_OR_RETURN(UniqueFd output,
                   MakeMemfd("caisson-helper", MemfdKind::kData, /*seals=*/0,
                             /*bytes=*/""));
  ASSIGN_OR_RETURN(output, Duplicate(output.borrow()));
  std::vector<char*> arguments;
  for (const std::string& argument : argv) {
    arguments.push_back(const_cast<char*>(argument.c_str()));
  }
  arguments.push_back(nullptr);
  char locale[] = "LC_ALL=C";
  char* const environment[] = {locale, nullptr};
  const KernelSigaction default_action = {};
  void* stacks = ::mmap(nullptr, 2 * kStackSize, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
  if (stacks == MAP_FAILED) {
    return ErrnoError(errno, "mmap(stack)", {.step = "helper"});
  }
  Job job = {.argv = arguments.data(),
             .environment = environment,
             .input = null.get(),
             .output = output.get(),
             .default_action = &default_action,
             .error = 0,
             .wait_status = 0};
  const int error = RunJob(job, static_cast<char*>(stacks));
  ::munmap(stacks, 2 * kStackSize);
  if (error != 0) {
    return ErrnoError(error, "clone(CLONE_VM | CLONE_VFORK)",
                      {.step = "helper"});
  }
  return Report(job, output.borrow(), argv);
}

}  // namespace caisson::sys
