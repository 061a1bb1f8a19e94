// Hooks: code of the host, or programs, that run at fixed points of a
// container's life, as the OCI runtime specification has them (config.md,
// "POSIX-platform Hooks").
//
//   spec.hooks.create_runtime.push_back([&](const caisson::HookState& state) {
//     return ConfigureNetwork(state.pid);
//   });
//
// A hook is called by the thread that creates, starts or destroys the process,
// while the process waits. If it fails, the process is killed and the error
// returned. Hooks of one point run in their order.
//
// Not for: functions of the host inside of the container; only programs run
// there (RunProgramInside()).
#ifndef CAISSON_HOOKS_H_
#define CAISSON_HOOKS_H_

#include <sys/types.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "caisson/unique_fd.h"

namespace caisson {

class Launcher;
namespace launcher {
struct HookedProcess;
}

// What a hook is told; valid during the call.
struct HookState {
  std::string id;      // Hooks::id
  std::string status;  // "creating", "created", "running" or "stopped"
  pid_t pid = -1;      // in the host's pid namespace; -1 once stopped
  BorrowedFd pidfd;    // of the process
  std::string bundle;  // Hooks::bundle
  std::map<std::string, std::string> annotations;
  // For RunProgramInside().
  std::shared_ptr<const launcher::HookedProcess> process;

  // The state document of the OCI runtime specification (runtime.md, "State").
  std::string ToJson() const;
};

using Hook = std::function<absl::Status(const HookState& state)>;

struct Hooks {
  // What HookState says of the container.
  std::string id;
  std::string bundle;
  std::map<std::string, std::string> annotations;

  // During the creation: the namespaces exist.
  std::vector<Hook> prestart;
  std::vector<Hook> create_runtime;
  // Everything is mounted, too, and the root not yet entered (pivot_root(2)).
  std::vector<Hook> create_container;
  // During the start: everything is set up, the program does not run yet.
  std::vector<Hook> start_container;
  // The program runs.
  std::vector<Hook> poststart;
  // The process is gone: by Process::Destroy() only.
  std::vector<Hook> poststop;

  bool empty() const {
    return prestart.empty() && create_runtime.empty() &&
           create_container.empty() && start_container.empty() &&
           poststart.empty() && poststop.empty();
  }
};

// A program of the host as a hook: gets the state document on its standard
// input. It runs with the rights, the mounts, the working directory and the
// network of the host, but in the launcher's pid namespace.
struct HookProgram {
  std::string path;               // absolute
  std::vector<std::string> args;  // with argv[0]; empty: the path
  std::vector<std::string> env;   // "NAME=value"; nothing is inherited
  // When it is killed and has failed. What it started goes on until it ends by
  // itself or the launcher does.
  absl::Duration timeout = absl::InfiniteDuration();
};

// The hook that runs `program`. It fails if the program does not exit with 0,
// naming its status and the end of what it wrote to standard error; and if the
// container's process ends before it, of which it is killed, until that runs.
// `launcher` must outlive the hook.
Hook RunProgram(Launcher& launcher, HookProgram program);

// The same inside of the container, as the specification has it for the hooks
// of two points. The state document has the pid as the container sees it.
//
// create_container: a program of the host, in all namespaces of the container
// but the pid namespace, in which it and its file could be seen later on
// (CVE-2019-5736). Its "/" is the host's; its working directory is the
// container's root with all that is mounted there, and belongs to the image: an
// absolute link in it leads to the host, unless the program enters it with
// chroot(2) or opens with RESOLVE_IN_ROOT. It is root of the container's user
// namespace, outside of its control group and its security policy: it is to be
// trusted as the host is. It cannot bind-mount anything of the host into the
// container, whose mount namespace holds none of it.
//
// start_container: a program of the container: its path is looked up in the
// container's root, and it runs with the user, directory, limits, control group
// and security policy of the container's program. PATH and HOME are added to
// its environment as they are there. A system call that a seccomp listener
// would answer fails with ENOSYS.
//
// At other points it fails with FAILED_PRECONDITION.
Hook RunProgramInside(Launcher& launcher, HookProgram program);

}  // namespace caisson

#endif  // CAISSON_HOOKS_H_
