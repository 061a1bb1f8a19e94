// What a hook that runs a program inside needs to know of the container.
#ifndef CAISSON_LIB_LAUNCHER_HOOKED_PROCESS_H_
#define CAISSON_LIB_LAUNCHER_HOOKED_PROCESS_H_

#include <optional>
#include <vector>

#include "caisson/cgroup.h"
#include "caisson/process.h"
#include "caisson/security.h"
#include "lib/launcher/namespace_steps.h"
#include "lib/launcher/session.h"

namespace caisson::launcher {

// The points at which programs run inside.
enum class HookPoint { kOther, kCreateContainer, kStartContainer };

struct HookedProcess {
  HookPoint point = HookPoint::kOther;
  const Session* session = nullptr;  // only to be compared
  ContainerNamespaces namespaces;
  std::vector<CgroupPath> group;
  std::optional<SecurityPolicy> policy;
  ProcessSpec spec;  // SpecInside()
};

// What of the container's program also goes for a hook's: its user, directory
// and attributes, and nothing that points to something.
ProcessSpec SpecInside(const ProcessSpec& spec);

}  // namespace caisson::launcher

#endif  // CAISSON_LIB_LAUNCHER_HOOKED_PROCESS_H_
