// OciRuntime: what a runtime of the OCI runtime specification does (create,
// start, state, kill, delete, and what runc adds to these), as calls.
//
//   auto runtime = caisson::OciRuntime::Open({.root = "/run/engine/caisson"});
//   auto created = runtime->Create("web", {.bundle = "/run/bundles/web"});
//   absl::Status started = runtime->Start("web");
//   auto state = runtime->State("web");            // kRunning
//   absl::Status killed = runtime->Kill("web", SIGTERM);
//   absl::Status deleted = runtime->Delete("web");
//
// Every call may come from another process: what a container is, is on disk in
// `root` and in the kernel, and nothing of the library goes on running. The
// container's first process, and those of Exec(), are orphans when the call
// returns: children of the nearest subreaper above the caller, or of PID 1, who
// gets their exit status. An engine's shim is a subreaper; a program that is
// none and wants to wait makes itself one (PR_SET_CHILD_SUBREAPER) first.
//
// Not for: hosts that keep running, which compose Launcher and the rest and own
// what they start. Needs CAP_SYS_ADMIN.
// Source: runtime.md and config.md of the specification; bundle.h says what of
// a config.json is honoured.
#ifndef CAISSON_OCI_RUNTIME_H_
#define CAISSON_OCI_RUNTIME_H_

#include <sys/types.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "caisson/cgroup_events.h"
#include "caisson/cgroup_stats.h"
#include "caisson/process.h"
#include "caisson/unique_fd.h"

namespace caisson {

namespace runtime {
class StateDirectory;
}  // namespace runtime

struct OciRuntimeOptions {
  // Absolute; where containers are remembered. Made with mode 0700 if it is
  // missing. Belongs on a tmpfs: nothing in it means anything after a reboot.
  std::string root = "/run/caisson/oci";
};

enum class OciStatus {
  kCreating,  // Create() has not returned
  kCreated,
  kRunning,
  kPaused,
  kStopped,
};
// "creating", "created", "running", "paused", "stopped".
absl::string_view OciStatusName(OciStatus status);

struct OciState {
  std::string id;
  OciStatus status = OciStatus::kStopped;
  pid_t pid = 0;  // 0 once stopped
  std::string bundle;
  std::string rootfs;  // absolute
  absl::Time created;
  uid_t owner = 0;  // who called Create()
  std::map<std::string, std::string> annotations;

  // The state document, with the fields that runc adds.
  std::string ToJson() const;
};

// The streams of a process that is created.
struct OciStreams {
  // Without a terminal. Pipes are for hosts that keep running.
  Stdio in = Stdio::Null();
  Stdio out = Stdio::Null();
  Stdio err = Stdio::Null();
  // With a terminal (`process.terminal`): the UNIX socket (SOCK_STREAM) to
  // which its master is sent, with SCM_RIGHTS. Empty: OciProcess::terminal.
  std::string console_socket;
  // A terminal without a console socket is an error, before anything is
  // created: of a caller that does not stay, nobody would have its master.
  bool needs_console_socket = false;
  // Further descriptors, with the numbers that they shall have.
  std::vector<InheritedFd> descriptors;
};

struct OciProcess {
  pid_t pid = -1;
  UniqueFd pidfd;
  UniqueFd terminal;  // with a terminal and without a console socket
  // What the host could not grant and left out, as the specification wants it.
  std::vector<std::string> warnings;
};

struct OciCreateOptions {
  std::string bundle;
  OciStreams streams;
  // Gets the number of the process, in decimal, before it is left to itself;
  // renamed into place.
  std::string pid_file;
  bool new_session_keyring = true;
};

struct OciExecOptions {
  // A "process" object of the specification.
  std::string process;
  OciStreams streams;
  std::string pid_file;
  bool new_session_keyring = true;
};

// What happens to a container, for the caller's loop.
struct OciWatch {
  // As runc has them: kOomKill on version 2; kOom on version 1, which tells of
  // that before it kills. None where the host has no memory controller.
  std::optional<CgroupEvents> out_of_memory;
  // A pidfd of the first process: readable when that has ended.
  UniqueFd end;
};

// Thread-safe, also between processes: calls that change one container wait for
// each other. Errors that engines know by their text have runc's.
class [[nodiscard]] OciRuntime final {
 public:
  // PERMISSION_DENIED if the directory is another user's or accessible to
  // others.
  static absl::StatusOr<OciRuntime> Open(const OciRuntimeOptions& options);

  OciRuntime(OciRuntime&&) noexcept;
  OciRuntime& operator=(OciRuntime&&) noexcept;
  ~OciRuntime();

  // Makes everything but the program run. Calls the hooks prestart,
  // createRuntime and createContainer. ALREADY_EXISTS for an id that is taken.
  // After a failure nothing is left, and if a hook was called, so were those of
  // poststop; after a `kill -9` in the middle Delete() removes what is there.
  // There is no control group where the document names none, needs none and
  // none may be made, as in a user namespace of Podman or where no hierarchy is
  // mounted writable.
  absl::StatusOr<OciProcess> Create(const std::string& id,
                                    const OciCreateOptions& options) const;

  // Lets the program run. Calls the hooks startContainer and poststart.
  // FAILED_PRECONDITION unless it is kCreated.
  absl::Status Start(const std::string& id) const;

  // NOT_FOUND ("container "web" does not exist").
  absl::StatusOr<OciState> State(const std::string& id) const;
  // The config.json that it was created from.
  absl::StatusOr<std::string> Config(const std::string& id) const;
  // Those that are readable, by their ids.
  std::vector<OciState> List() const;

  // Sends a signal to the first process, or to all in the control group, which
  // there may be although the first one has ended. FAILED_PRECONDITION
  // ("container not running") unless the container is created, running or
  // paused, or a hook of its creation runs: which fails if the process dies.
  absl::Status Kill(const std::string& id, int signal, bool all = false) const;

  // Removes what is left of the container and calls the poststop hooks; what
  // fails of these is added to `warnings`. It must be stopped or created,
  // otherwise FAILED_PRECONDITION; with `force` it is killed, also while it is
  // created or started, and one that does not exist is OK. Another call that
  // does not let go of the container then within 10 s is DEADLINE_EXCEEDED; of
  // one whose record is unreadable (DATA_LOSS) that record is removed, and what
  // it named may be left.
  absl::Status Delete(const std::string& id, bool force = false,
                      std::vector<std::string>* warnings = nullptr) const;

  // Starts another process in the container. FAILED_PRECONDITION unless it is
  // created or running: in a paused one the process would stop on its way.
  absl::StatusOr<OciProcess> Exec(const std::string& id,
                                  const OciExecOptions& options) const;

  absl::Status Pause(const std::string& id) const;
  absl::Status Resume(const std::string& id) const;

  // Changes limits: a "resources" object of the specification. All or nothing.
  absl::Status Update(const std::string& id, absl::string_view resources) const;

  absl::StatusOr<std::vector<pid_t>> Processes(const std::string& id) const;
  absl::StatusOr<CgroupStats> Stats(const std::string& id) const;
  // FAILED_PRECONDITION ("container not running") if it has ended.
  absl::StatusOr<OciWatch> Watch(const std::string& id) const;

 private:
  explicit OciRuntime(std::unique_ptr<runtime::StateDirectory> state);
  absl::Status DeleteFound(const std::string& id, bool force,
                           std::vector<std::string>* warnings) const;
  std::unique_ptr<runtime::StateDirectory> state_;
};

}  // namespace caisson

#endif  // CAISSON_OCI_RUNTIME_H_
