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
// Not for: code inside of the container; it never runs code of the host.
#ifndef CAISSON_HOOKS_H_
#define CAISSON_HOOKS_H_

#include <sys/types.h>

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "caisson/unique_fd.h"

namespace caisson {

class Launcher;

// What a hook is told; valid during the call.
struct HookState {
  std::string id;      // Hooks::id
  std::string status;  // "creating", "created", "running" or "stopped"
  pid_t pid = -1;      // in the host's pid namespace; -1 once stopped
  BorrowedFd pidfd;    // of the process
  std::string bundle;  // Hooks::bundle
  std::map<std::string, std::string> annotations;

  // The state document of the OCI runtime specification (runtime.md, "State").
  std::string ToJson() const;
};

using Hook = std::function<absl::Status(const HookState& state)>;

struct Hooks {
  // What HookState says of the container.
  std::string id;
  std::string bundle;
  std::map<std::string, std::string> annotations;

  // During the creation: the namespaces exist, the root is not yet entered.
  std::vector<Hook> prestart;
  std::vector<Hook> create_runtime;
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
  std::string path;               // absolute, in the host's root
  std::vector<std::string> args;  // with argv[0]; empty: the path
  std::vector<std::string> env;   // "NAME=value"; nothing is inherited
  // When it is killed and has failed. What it started goes on until it ends by
  // itself or the launcher does.
  absl::Duration timeout = absl::InfiniteDuration();
};

// The hook that runs `program`. It fails if the program does not exit with 0,
// naming its status and the end of what it wrote to standard error. `launcher`
// must outlive the hook.
Hook RunProgram(Launcher& launcher, HookProgram program);

}  // namespace caisson

#endif  // CAISSON_HOOKS_H_
