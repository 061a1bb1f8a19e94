// A process that a Launcher started, and what to start.
//
//   caisson::ProcessSpec spec;
//   spec.argv = {"sh", "-c", "exit 3"};
//   spec.root = &root;
//   auto process = launcher->Start(spec);
//   if (!process.ok()) return process.status();
//   auto status = process->Wait();          // status->code == 3
//
// Whatever can be waited for is a descriptor: exit_fd() becomes readable when
// the process has ended, so a host with a loop of its own never blocks here.
#ifndef CAISSON_PROCESS_H_
#define CAISSON_PROCESS_H_

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "caisson/unique_fd.h"

namespace caisson {

class Cgroup;
class Namespace;
class NetEndpoint;
class RootFs;
class SecurityPolicy;

// Where one of the three standard streams leads.
class Stdio final {
 public:
  enum class Kind {
    kNull,     // /dev/null
    kInherit,  // a descriptor of the host, which stays the host's
    kPipe,     // a new pipe; the host's end is in Process
  };

  static Stdio Null() { return Stdio(Kind::kNull, BorrowedFd()); }
  // `fd` must stay open until Start() returns.
  static Stdio Inherit(BorrowedFd fd) { return Stdio(Kind::kInherit, fd); }
  static Stdio Pipe() { return Stdio(Kind::kPipe, BorrowedFd()); }

  Kind kind() const { return kind_; }
  BorrowedFd fd() const { return fd_; }

 private:
  Stdio(Kind kind, BorrowedFd fd) : kind_(kind), fd_(fd) {}
  Kind kind_;
  BorrowedFd fd_;
};

// The size of a terminal in characters.
struct TerminalSize {
  uint16_t rows = 24;
  uint16_t columns = 80;
};

// What to run, and in which composition. Everything pointed to must outlive
// Start(), and `root` may be started once (see RootFs).
struct ProcessSpec {
  // argv[0] is looked up in the $PATH of `env` inside the root unless it has a
  // slash. Required.
  std::vector<std::string> argv;
  // "NAME=value". PATH, HOME (from the root's passwd file) and, with a
  // terminal, TERM are added when missing. Nothing of the host's environment
  // is seen inside.
  std::vector<std::string> env;
  // Directory to start in, inside the root; it must exist.
  std::string cwd = "/";
  // "user[:group]", as names that the root's /etc/passwd and /etc/group know or
  // as numbers. A name that is not there is an error. Empty: 0:0.
  std::string user;

  // Standard input, output and error.
  Stdio in = Stdio::Null();
  Stdio out = Stdio::Null();
  Stdio err = Stdio::Null();
  // A pseudo terminal of the container's own devpts instead of the three
  // streams above, which must be left alone then. Process::terminal() is its
  // master.
  std::optional<TerminalSize> terminal;

  // How long the start may take; then it is given up (DEADLINE_EXCEEDED) and
  // nothing of the process remains. It takes milliseconds, unless the control
  // group is frozen or the file system of `cwd` hangs.
  absl::Duration start_timeout = absl::Seconds(30);

  // The file system. Required.
  RootFs* root = nullptr;
  // Null: a new namespace of every kind that Namespace has by default.
  const Namespace* namespaces = nullptr;
  // Null: the host's own group, without limits.
  const Cgroup* cgroup = nullptr;
  // Null: a new network namespace with a loopback interface only.
  const NetEndpoint* network = nullptr;
  // Null: Docker's default capabilities and system calls, no_new_privs.
  const SecurityPolicy* security = nullptr;
};

// How a process ended.
struct ExitStatus {
  bool signaled = false;  // by a signal; otherwise it exited
  int code = 0;           // exit code; 0 if signaled
  int signal = 0;         // 0 unless signaled
  bool core_dumped = false;
  absl::Duration user_cpu;  // of the process and what it waited for
  absl::Duration system_cpu;
  int64_t max_rss_bytes = 0;  // of the largest single process

  bool success() const { return !signaled && code == 0; }
  // As a shell's $?: the code, or 128 + signal.
  int shell_code() const { return signaled ? 128 + signal : code; }
  // "exited with code 3", "killed by signal 9 (SIGKILL)".
  std::string ToString() const;
};

// How long one step of a start took.
struct StepLatency {
  std::string step;
  absl::Duration duration;
};

// A running or ended process. Thread-safe: any number of threads may wait,
// signal and look at once; only moving and destroying need to be alone.
//
// The destructor kills a process that still runs (SIGKILL; with a pid namespace
// of its own this ends everything in it) and does not wait.
class [[nodiscard]] Process final {
 public:
  Process(Process&&) noexcept;
  Process& operator=(Process&&) noexcept;
  ~Process();

  // The number that the host's pid namespace knows the process by; -1 once it
  // was reaped. A number may be reused then: prefer pidfd(). Reads /proc.
  pid_t pid() const;
  // A pidfd, open as long as this object lives.
  BorrowedFd pidfd() const;
  // Readable once the process has ended (or the launcher died): poll it, then
  // call Wait(). Do not read from it.
  BorrowedFd exit_fd() const;

  // Sends `signal` to the process. Inside a pid namespace, PID 1 gets only
  // signals that it handles, SIGKILL and SIGSTOP. NOT_FOUND once it has ended.
  absl::Status Signal(int signal) const;

  // Blocks until the process has ended or `deadline` passes
  // (DEADLINE_EXCEEDED; the process goes on). May be called again and again, by
  // many threads: all get the same answer. UNAVAILABLE if the launcher died and
  // took the status along; the process is dead then.
  absl::StatusOr<ExitStatus> Wait(
      absl::Time deadline = absl::InfiniteFuture()) const;

  // The host's ends of streams that were Stdio::Pipe(); invalid otherwise or
  // once taken.
  UniqueFd TakeStdin();
  UniqueFd TakeStdout();
  UniqueFd TakeStderr();

  // What SeccompListener (seccomp_notify.h) reads: the calls that the policy
  // hands to the host. Invalid if it hands none, or once taken. They wait until
  // somebody answers, and fail with ENOSYS once it is closed.
  UniqueFd TakeSeccompListener();

  // The master of the terminal; invalid without one.
  BorrowedFd terminal() const;
  // Tells the terminal its new size; the foreground process group gets
  // SIGWINCH.
  absl::Status ResizeTerminal(TerminalSize size) const;

  // What the start consisted of, in order.
  const std::vector<StepLatency>& latencies() const;

 private:
  friend class Launcher;
  struct State;
  explicit Process(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace caisson

#endif  // CAISSON_PROCESS_H_
