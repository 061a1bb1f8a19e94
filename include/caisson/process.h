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
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "caisson/hooks.h"
#include "caisson/scheduling.h"
#include "caisson/unique_fd.h"

namespace caisson {

class Cgroup;
struct DetachOptions;
class Namespace;
class NetEndpoint;
class RootFs;
class SecurityPolicy;

// Where one of the three standard streams leads.
class Stdio final {
 public:
  enum class Kind {
    kNull,        // the container's /dev/null
    kInherit,     // a descriptor of the host, which stays the host's
    kPipe,        // a new pipe; the host's end is in Process
    kFile,        // a file of the host
    kLikeStdout,  // standard error only: where standard output leads
  };

  static Stdio Null() { return Stdio(Kind::kNull); }
  // `fd` must stay open until the process was created.
  static Stdio Inherit(BorrowedFd fd) {
    Stdio stdio(Kind::kInherit);
    stdio.fd_ = fd;
    return stdio;
  }
  static Stdio Pipe() { return Stdio(Kind::kPipe); }
  // A regular file of the host, by path: standard input reads it; standard
  // output and error append to it, after making it with mode 0600 if it does
  // not exist.
  static Stdio File(std::string path) {
    Stdio stdio(Kind::kFile);
    stdio.path_ = std::move(path);
    return stdio;
  }
  static Stdio LikeStdout() { return Stdio(Kind::kLikeStdout); }

  Kind kind() const { return kind_; }
  BorrowedFd fd() const { return fd_; }
  const std::string& path() const { return path_; }

 private:
  explicit Stdio(Kind kind) : kind_(kind) {}
  Kind kind_;
  BorrowedFd fd_;
  std::string path_;
};

// A further descriptor that the program gets.
struct InheritedFd {
  int number = -1;  // 3 to 255, inside
  BorrowedFd fd;    // must stay open until the process was created
};

// The size of a terminal in characters.
struct TerminalSize {
  uint16_t rows = 24;
  uint16_t columns = 80;
};

// A limit of setrlimit(2).
struct ResourceLimit {
  static constexpr uint64_t kUnlimited = ~uint64_t{0};

  std::string name;  // "RLIMIT_NOFILE" or "nofile"
  uint64_t soft = kUnlimited;
  uint64_t hard = kUnlimited;  // at least `soft`
};

// What to run, and in which composition. Everything pointed to must outlive
// the start, and `root` may be started once (see RootFs).
struct ProcessSpec {
  // argv[0] is looked up in the $PATH of `env` inside the root unless it has a
  // slash. Required.
  std::vector<std::string> argv;
  // Executed instead of argv[0], which then is only what the program is told:
  // a path inside the root, or looked up in $PATH.
  std::string executable;
  // Executed instead of both: an open file of the host; a script cannot be.
  // Inside, /proc/self/exe leads to it: it must be one that root inside may
  // not write, such as a sealed memfd (CVE-2019-5736).
  BorrowedFd executable_fd;
  // "NAME=value". PATH, HOME (from the root's passwd file) and, with a
  // terminal, TERM are added when missing. Nothing of the host's environment
  // is seen inside.
  std::vector<std::string> env;
  // false: only HOME is added, as OCI runtimes do. Without a PATH, a program
  // needs a path then.
  bool default_path_and_term = true;
  // Directory to start in, inside the root; it must exist.
  std::string cwd = "/";

  // "user[:group]", as names that the root's /etc/passwd and /etc/group know or
  // as numbers. A name that is not there is an error. Empty: 0:0.
  std::string user;
  // Groups beside those of `user`, as names of the root's /etc/group or as
  // numbers.
  std::vector<std::string> additional_groups;
  mode_t umask = 022;

  // Standard input, output and error.
  Stdio in = Stdio::Null();
  Stdio out = Stdio::Null();
  Stdio err = Stdio::Null();
  // A pseudo terminal of the container's own devpts instead of the three
  // streams above, which must be left alone then. Process::terminal() is its
  // master.
  std::optional<TerminalSize> terminal;
  // Nothing but these and the three streams is inherited.
  std::vector<InheritedFd> descriptors;

  // Unnamed limits are the host's. A hard limit above the host's own needs
  // CAP_SYS_RESOURCE in the host; without it, the host's is taken and
  // Process::omissions() says so.
  std::vector<ResourceLimit> limits;
  // -1000 to 1000 (proc(5)). Without CAP_SYS_RESOURCE not below the host's own,
  // which is taken then and reported by Process::omissions().
  std::optional<int> oom_score_adj;
  Scheduling scheduling;
  // personality(2): 0 is PER_LINUX, 8 PER_LINUX32, with flags such as
  // ADDR_NO_RANDOMIZE (0x0040000).
  std::optional<uint32_t> personality;
  // A session of its own (setsid(2)); with a terminal always. Without one, the
  // process has a process group of its own in the launcher's session, which has
  // no terminal.
  bool new_session = true;

  // For Launcher::CreateProcess() and Process::Release(): a FIFO that is open
  // for reading and writing. A byte from it starts the program; the process
  // ends if the host does so before it is released. Must stay open until the
  // process was created.
  BorrowedFd gate;

  // A minimal PID 1 that collects orphans and forwards signals to the program,
  // which is its child then. It holds no descriptor and no capability but
  // CAP_KILL, and may make five system calls. Needs a new pid namespace.
  bool init = false;

  // Called on the way; see hooks.h.
  Hooks hooks;

  // How long the start may take; then it is given up (DEADLINE_EXCEEDED) and
  // nothing of the process remains. It takes milliseconds, unless the control
  // group is frozen or the file system of `cwd` hangs. Hooks do not count.
  absl::Duration start_timeout = absl::Seconds(30);

  // The file system. Required, unless the mount namespace is joined.
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
  // SIGKILL came, and the out-of-memory killer killed something in the
  // process's control group since it was created. Only with a group that has
  // the memory controller and still exists at the first Wait().
  bool out_of_memory = false;
  absl::Duration user_cpu;  // of the process and what it waited for
  absl::Duration system_cpu;
  int64_t max_rss_bytes = 0;  // of the largest single process

  bool success() const { return !signaled && code == 0; }
  // As a shell's $?: the code, or 128 + signal.
  int shell_code() const { return signaled ? 128 + signal : code; }
  // "exited with code 3", "killed by signal 9 (SIGKILL), out of memory".
  std::string ToString() const;
};

// How long one step of a start took.
struct StepLatency {
  std::string step;
  absl::Duration duration;
};

// A created, running or ended process. Thread-safe: any number of threads may
// wait, signal and look at once; only moving and destroying need to be alone.
//
// The destructor kills a process that still runs and was not detached (SIGKILL;
// with a pid namespace of its own this ends everything in it) and does not
// wait.
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

  // Executes the program of a process that Launcher::CreateProcess() made, and
  // returns when it runs. Calls the hooks start_container and poststart. Fails
  // as Launcher::Start() does, and then nothing of the process remains;
  // FAILED_PRECONDITION if it was started before. The launcher and what the
  // ProcessSpec pointed to must still exist.
  absl::Status Start();

  // Sends `signal` to the process. Inside a pid namespace, PID 1 gets only
  // signals that it handles, SIGKILL and SIGSTOP. NOT_FOUND once it has ended.
  absl::Status Signal(int signal) const;

  // Sends `signal` to every process of its pid namespace, at one instant as far
  // as the kernel allows (kill(2) with -1). A process that shares the pid
  // namespace of another gets it alone, as do those below Launcher::Exec().
  absl::Status SignalAll(int signal) const;

  // Sends `signal`, waits for `grace`, then kills, and waits for the end.
  // Blocks. OK if it has ended already.
  absl::StatusOr<ExitStatus> Stop(absl::Duration grace,
                                  int signal = 15 /*SIGTERM*/) const;

  // Kills the process if it runs, waits for its end and calls the poststop
  // hooks, once; returns the first error. FAILED_PRECONDITION later on.
  absl::Status Destroy();

  // From now on the process outlives this object and the host; see detached.h.
  // Its launcher must have a directory (LauncherOptions). This object can be
  // used as before, but its destructor lets the process be. All or nothing:
  // ALREADY_EXISTS if the directory has a record of the name, NOT_FOUND if the
  // process has ended, FAILED_PRECONDITION if it was not started yet, if it is
  // detached already, or if the launcher has no directory. After
  // DEADLINE_EXCEEDED (a launcher that is stopped) it can be called again with
  // the same name, whether or not it was detached meanwhile. Hooks that are
  // left (poststop) are this object's: those who attach do not have them.
  absl::Status Detach(const DetachOptions& options);

  // From now on the process outlives this object, its launcher and the host.
  // Once the launcher has ended (Launcher::Shutdown()), it is the child of the
  // nearest subreaper above the host, or of PID 1, who gets its exit status,
  // even if it has ended before. exit_fd() becomes readable at once, and Wait()
  // knows the end but not always the status. A process that was created and not
  // started waits for its ProcessSpec::gate; the hooks start_container,
  // poststart and poststop are the caller's affair. FAILED_PRECONDITION without
  // LauncherOptions::releases, and without a gate if it was not started. If its
  // policy hands system calls to the host, TakeSeccompListener() has the
  // listener from now on, before the program starts.
  absl::Status Release();

  // Of a process that Launcher::Find() returned: descriptors for what
  // DetachOptions::keep had, in that order; empty once taken.
  std::vector<UniqueFd> TakeKept();

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

  // What the start consisted of, in order. Empty until it was started.
  std::vector<StepLatency> latencies() const;

  // What was asked for but left out because the host may not grant it, as the
  // OCI runtime specification wants it: "RLIMIT_NOFILE: ...".
  const std::vector<std::string>& omissions() const;

  // For launchers.
  struct State;

 private:
  friend class Launcher;
  explicit Process(std::unique_ptr<State> state);
  bool RanOutOfMemory() const;
  std::unique_ptr<State> state_;
};

}  // namespace caisson

#endif  // CAISSON_PROCESS_H_
