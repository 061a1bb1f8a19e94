// Turns a ProcessSpec into a plan: what happens between clone and exec, in
// order.
#ifndef CAISSON_LIB_LAUNCHER_COMPOSE_H_
#define CAISSON_LIB_LAUNCHER_COMPOSE_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "caisson/cgroup.h"
#include "caisson/launcher_options.h"
#include "caisson/process.h"
#include "caisson/security.h"
#include "caisson/unique_fd.h"
#include "lib/launcher/namespace_steps.h"
#include "lib/launcher/stdio_steps.h"
#include "lib/plan/builder.h"

namespace caisson::launcher {

// Opens a file as the process will see it.
using OpenInside =
    std::function<absl::StatusOr<UniqueFd>(const std::string& path, int flags)>;

struct Composition {
  plan::PlanBuilder plan;
  HostEnds ends;
  UniqueFd listener_socket;  // the child sends its filter's listener here
  // The plan waits here for the host: once before the mounts if `early_await`,
  // once when they are made if `mounted_await`, and once before the program if
  // `late_await`.
  UniqueFd await_socket;
  // A duplicate of ProcessSpec::gate, which the plan waits for at the end.
  UniqueFd gate;
  bool early_await = false;
  bool mounted_await = false;
  bool late_await = false;
  // The execve calls of the plan, for ExplainExecFailure().
  std::vector<std::string> candidates;
  OpenInside open_inside;
  std::vector<std::string> omissions;
  ContainerNamespaces namespaces;

  // Lets a plan with a gate pass it once it comes there.
  absl::Status OpenGate() const;
};

// What a composition needs to know of its launcher.
struct LauncherView {
  bool isolated = true;  // has a mount namespace without the host's mounts
  const LauncherIdentity& identity;
};

// How far the plan goes by itself.
enum class Until { kProgram, kStartCall };

// INVALID_ARGUMENT and NOT_FOUND name the field of the spec. Nothing of the
// spec was used up after a failure.
absl::StatusOr<Composition> Compose(const ProcessSpec& spec,
                                    const SecurityPolicy& policy,
                                    const LauncherView& launcher, Until until);

// What Launcher::Exec() needs to know of the container.
struct Container {
  BorrowedFd pidfd;
  ContainerNamespaces namespaces;
  std::vector<CgroupPath> group;
};

absl::StatusOr<Composition> ComposeExec(const Container& container,
                                        const ProcessSpec& spec,
                                        const SecurityPolicy& policy,
                                        const LauncherView& launcher);

}  // namespace caisson::launcher

#endif  // CAISSON_LIB_LAUNCHER_COMPOSE_H_
