// Container: what `docker create`, `start`, `exec`, `logs`, `stop` and the rest
// do with one container, from any process, without a daemon.
//
//   auto store = caisson::ContainerStore::Open({});
//   auto container = store->Create({.image = "redis:7", .name = "cache"});
//   absl::Status started = container->Start();
//   ...                                          // this process may end
//   auto container = store->Find("cache");       // another one
//   auto exit = container->Stop();
//   absl::Status removed = container->Remove();
//
// A Container composes the other classes, remembers what it is made from in a
// directory, and while it runs has a keeper: a small process of the library,
// nobody's child, in which Launcher, Cgroup, RootFs and NetEndpoint live. It
// writes the logs, starts the program again as RestartPolicy says, asks for its
// health, serves those who attach, and ends with the container. When it is
// killed, the container dies with it, and ContainerStore::Recover() starts
// again what should run; SIGTERM, as it comes when the machine is switched off,
// stops the container as Stop() does. doc/container.md says what is where.
//
// Not for: hosts that own what they start, and whose containers shall end with
// them; those compose the classes themselves, without a keeper to be made for
// each start. Needs CAP_SYS_ADMIN. The keeper stays in the control group of the
// process that started it: a service manager that kills that one kills it.
//
// References: Docker Engine API v1.41 for what the operations mean.
#ifndef CAISSON_CONTAINER_H_
#define CAISSON_CONTAINER_H_

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "caisson/cgroup_limits.h"
#include "caisson/cgroup_stats.h"
#include "caisson/container_events.h"
#include "caisson/container_logs.h"
#include "caisson/container_policies.h"
#include "caisson/container_spec.h"
#include "caisson/process.h"
#include "caisson/tree_copy.h"
#include "caisson/unique_fd.h"

namespace caisson {

enum class ContainerStatus {
  kCreated,  // was never started
  kRunning,
  kPaused,
  kRestarting,  // has ended and will be started again
  kExited,
};
// "created", "running", "paused", "restarting", "exited".
absl::string_view ContainerStatusName(ContainerStatus status);

// What is known of a container at one moment.
struct ContainerInfo {
  std::string id;  // 64 hexadecimal digits
  ContainerSpec spec;
  std::string image_id;  // "sha256:..."; empty without an image
  absl::Time created;
  // What the spec and the image make together; empty with a bundle.
  std::vector<std::string> argv;
  std::vector<std::string> env;
  std::string working_dir;
  std::string user;
  std::map<std::string, std::string> labels;
  ContainerStatus status = ContainerStatus::kCreated;

  // Of the run that goes on, or of the last one.
  pid_t pid = 0;         // of the first process; 0 if it does not run
  pid_t keeper_pid = 0;  // 0 if none runs
  absl::Time started = absl::InfinitePast();
  absl::Time finished = absl::InfinitePast();
  // Once it has ended; empty before, and if nobody saw the end.
  std::optional<ExitStatus> exit;
  // As `docker inspect` has it: the shell's code; 125 to 127 if it could not be
  // started; 137 if the keeper was killed.
  int exit_code = 0;
  std::string error;  // why it could not be started, or nobody saw the end
  int restart_count = 0;
  HealthState health;
  std::string address;  // in the network
  std::string mac;
  std::vector<PortMapping> ports;  // with those that the kernel chose
};

struct ContainerStreams {
  // To the program's standard input; invalid if it has none or it was not asked
  // for.
  UniqueFd in;
  // With a terminal all comes from `out`.
  UniqueFd out;
  UniqueFd err;
};

struct ContainerAttachOptions {
  bool in = true;
  bool out = true;
  bool err = true;
  // With a terminal: its size, from the program's first instruction on.
  std::optional<TerminalSize> terminal_size;
};

// One run of a container, which somebody started or is attached to: its streams
// and its end. The container goes on if this object is destroyed.
// Thread-compatible.
class [[nodiscard]] ContainerRun final {
 public:
  ContainerRun(ContainerRun&&) noexcept;
  ContainerRun& operator=(ContainerRun&&) noexcept;
  ~ContainerRun();

  ContainerStreams TakeStreams();

  // Readable once the program has ended.
  BorrowedFd exit_fd() const;
  // How the program ended, also if it will be started again. Of a container
  // with ContainerSpec::auto_remove nothing is left when this returns, so read
  // the streams before. DEADLINE_EXCEEDED; UNAVAILABLE if the keeper was
  // killed, and the container with it.
  absl::StatusOr<ExitStatus> Wait(absl::Time deadline = absl::InfiniteFuture());

 private:
  friend class Container;
  struct State;
  explicit ContainerRun(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

struct ContainerExecSpec {
  std::vector<std::string> argv;  // as ProcessSpec::argv
  std::vector<std::string> env;   // beside the container's
  std::string working_dir;        // empty: the container's
  std::string user;               // empty: the container's
  // A terminal instead of the three streams.
  std::optional<TerminalSize> terminal;
  // Without a terminal: where the streams lead. Null, Inherit, Pipe or
  // LikeStdout.
  Stdio in = Stdio::Null();
  Stdio out = Stdio::Null();
  Stdio err = Stdio::Null();
};

// A process that was started in a container. It goes on if this object is
// destroyed. Thread-compatible.
class [[nodiscard]] ContainerExec final {
 public:
  ContainerExec(ContainerExec&&) noexcept;
  ContainerExec& operator=(ContainerExec&&) noexcept;
  ~ContainerExec();

  pid_t pid() const;  // in the host's pid namespace

  // The host's ends of streams that were Stdio::Pipe(); invalid otherwise.
  ContainerStreams TakeStreams();
  // The master of the terminal; invalid without one. SizeOfTerminal() and
  // Console (console.h) work with it.
  BorrowedFd terminal() const;
  absl::Status ResizeTerminal(TerminalSize size) const;

  // Readable once it has ended.
  BorrowedFd exit_fd() const;
  // DEADLINE_EXCEEDED; UNAVAILABLE if the keeper was killed.
  absl::StatusOr<ExitStatus> Wait(absl::Time deadline = absl::InfiniteFuture());

 private:
  friend class Container;
  struct State;
  explicit ContainerExec(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// What Container::Stats() returns.
struct ContainerStats {
  CgroupStats cgroup;
  // Of the container's interface, as it sees them; 0 without one.
  int64_t received_bytes = 0;
  int64_t sent_bytes = 0;
};

// What `update` changes; absent: as it is.
struct ContainerUpdate {
  CgroupLimits limits;
  std::optional<RestartPolicy> restart;
};

struct ContainerRemoveOptions {
  bool force = false;    // kills it first
  bool volumes = false;  // removes its anonymous volumes, too
};

// Which containers ContainerStore::List() returns: those for which all holds.
struct ContainerFilter {
  bool all = false;                       // also those that do not run
  std::vector<ContainerStatus> statuses;  // any of them; implies `all`
  std::map<std::string, std::optional<std::string>> labels;
  std::string name;   // is part of the name
  std::string image;  // the reference it was created from, or the image's id
};

// The files of a container, for the functions of tree_copy.h. Of one that runs
// it is the tree that it is in, with all that is mounted there. Of one that
// does not, its root, with volumes and binds; as long as the object lives,
// others who want to start or remove it wait. Thread-compatible.
class [[nodiscard]] ContainerFiles final {
 public:
  ContainerFiles(ContainerFiles&&) noexcept;
  ContainerFiles& operator=(ContainerFiles&&) noexcept;
  ~ContainerFiles();

  // O_PATH. A path that the container can influence is only to be looked up
  // there with openat2(2) and RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS.
  BorrowedFd root() const;

 private:
  friend class Container;
  struct State;
  explicit ContainerFiles(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// One container, by its id. Copies nothing and keeps nothing open but its
// directory: every call looks anew, so any number of objects, threads and
// processes may use one container. Thread-safe. The destructor leaves the
// container alone.
//
// NOT_FOUND from any call: it has been removed. Calls that need the container
// to run are FAILED_PRECONDITION otherwise ("container \"web\" is not
// running").
class [[nodiscard]] Container final {
 public:
  Container(Container&&) noexcept;
  Container& operator=(Container&&) noexcept;
  ~Container();

  const std::string& id() const;

  absl::StatusOr<ContainerInfo> Inspect() const;

  // Starts the program and returns when it executes. FAILED_PRECONDITION if it
  // runs already. Errors are those of the classes that are composed; NOT_FOUND
  // and PERMISSION_DENIED of the program are those of Launcher::Start(): see
  // ExecFailure().
  absl::Status Start() const;
  // The same, attached before the first byte is written, and with the end of
  // this very run, however soon it comes.
  absl::StatusOr<ContainerRun> StartAttached(
      const ContainerAttachOptions& options = {}) const;

  // Connects to the streams of the program. What is written from now on goes to
  // everyone who is attached; one who does not read for so long that 1 MiB
  // waits for him makes the program wait. At the program's end `out` and `err`
  // end, too. Of the past, see Logs().
  absl::StatusOr<ContainerRun> Attach(
      const ContainerAttachOptions& options = {}) const;
  // FAILED_PRECONDITION without a terminal.
  absl::Status ResizeTerminal(TerminalSize size) const;

  // Starts another program in the container.
  absl::StatusOr<ContainerExec> Exec(const ContainerExecSpec& spec) const;

  // Sends the container's stop signal, kills it after `grace` (default: the
  // spec's), and waits for the end. It is not started again, whatever its
  // policy says. How it ended; OK if it does not run.
  absl::Status Stop(std::optional<absl::Duration> grace = std::nullopt) const;
  // Stop() if it runs, and Start().
  absl::Status Restart(
      std::optional<absl::Duration> grace = std::nullopt) const;
  // Sends a signal to the first process. After SIGKILL, and after its stop
  // signal, it is not started again.
  absl::Status Kill(int signal = 9) const;
  absl::Status Pause() const;
  absl::Status Resume() const;

  // Waits until the program has ended, also if it will be started again, and
  // returns ContainerInfo::exit_code; at once if it does not run.
  // DEADLINE_EXCEEDED. Of one with ContainerSpec::auto_remove it may be too
  // late: see StartAttached().
  absl::StatusOr<int> Wait(absl::Time deadline = absl::InfiniteFuture()) const;
  // The same for a host with a loop: readable when the program has ended; then
  // call Wait().
  absl::StatusOr<UniqueFd> ExitFd() const;

  // FAILED_PRECONDITION if nothing is written down (ContainerLogOptions).
  absl::StatusOr<ContainerLogReader> Logs(
      const ContainerLogReadOptions& options = {}) const;

  // `docker cp`, whether it runs or not. The options are those of tree_copy.h,
  // and so are the errors; with ContainerSpec::ids the default owner of what
  // CopyIn() makes is the container's root. A read-only root is written to
  // where a volume is (EROFS elsewhere).
  absl::Status CopyOut(absl::string_view path, BorrowedFd tar,
                       const TreeCopyOptions& options = {}) const;
  absl::Status CopyIn(BorrowedFd tar, absl::string_view directory,
                      const TreeCopyOptions& options = {}) const;
  absl::StatusOr<ContainerFiles> OpenFiles() const;

  absl::StatusOr<ContainerStats> Stats() const;
  // The processes of the container, in the host's pid namespace, ascending.
  absl::StatusOr<std::vector<pid_t>> Processes() const;

  // Changes limits, at once if it runs, and the restart policy. All or nothing.
  absl::Status Update(const ContainerUpdate& update) const;
  // ALREADY_EXISTS if another has the name. Its network knows the new one after
  // the next start.
  absl::Status Rename(const std::string& name) const;

  // Removes the container with what it has written. FAILED_PRECONDITION if it
  // runs, unless forced. After a failure what is left goes with the next call.
  absl::Status Remove(const ContainerRemoveOptions& options = {}) const;

 private:
  friend class ContainerStore;
  struct State;
  explicit Container(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

struct ContainerStoreOptions {
  // Absolute; made with mode 0700 if it is missing, and the caller's own.
  // Belongs on a disk: containers are still there after a reboot.
  std::string path = "/var/lib/caisson/containers";
  // LayerStoreOptions::path, for images.
  std::string layers = "/var/lib/caisson";
  // VolumeStoreOptions::path.
  std::string volumes = "/var/lib/caisson/volumes";
  // NetworkOptions::state_dir.
  std::string network_state = "/run/caisson/net";
};

// What Recover() did.
struct ContainerRecovery {
  std::vector<std::string> ended;    // ids: had run, and their keeper was gone
  std::vector<std::string> started;  // ids, by their restart policy
  std::vector<absl::Status> failures;
};

// All containers of one directory. Thread-safe, also between processes.
class [[nodiscard]] ContainerStore final {
 public:
  static absl::StatusOr<ContainerStore> Open(
      const ContainerStoreOptions& options);

  ContainerStore(ContainerStore&&) noexcept;
  ContainerStore& operator=(ContainerStore&&) noexcept;
  ~ContainerStore();

  // INVALID_ARGUMENT names the field that is wrong ("volumes[0]: ...");
  // ALREADY_EXISTS if the name is taken; NOT_FOUND: no such image. Starts
  // nothing. All or nothing.
  absl::StatusOr<Container> Create(const ContainerSpec& spec) const;

  // By name, id, or the beginning of an id that no other has.
  absl::StatusOr<Container> Find(absl::string_view reference) const;

  // The latest first. What cannot be read is left out.
  absl::StatusOr<std::vector<ContainerInfo>> List(
      const ContainerFilter& filter = {}) const;

  // What happens to the containers: container_events.h.
  absl::StatusOr<ContainerEvents> Events(
      const ContainerEventOptions& options = {}) const;

  // Removes those that have ended, and returns their ids.
  absl::StatusOr<std::vector<std::string>> Prune() const;

  // To be called after a reboot, and whenever a keeper may have been killed:
  // removes what such containers left (control groups, networks), completes
  // removals, and starts again those whose policy says so.
  absl::StatusOr<ContainerRecovery> Recover() const;

 private:
  friend class Container;
  struct State;
  explicit ContainerStore(std::shared_ptr<const State> state);
  std::shared_ptr<const State> state_;
};

}  // namespace caisson

#endif  // CAISSON_CONTAINER_H_
