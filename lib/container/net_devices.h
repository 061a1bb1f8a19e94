// `linux.netDevices`: network devices of the host that a container is given.
#ifndef CAISSON_LIB_CONTAINER_NET_DEVICES_H_
#define CAISSON_LIB_CONTAINER_NET_DEVICES_H_

#include <map>
#include <string>

#include "absl/status/status.h"
#include "caisson/hooks.h"
#include "caisson/launcher.h"
#include "lib/spec/runtime_config.h"

namespace caisson::container {

// Names that the kernel takes, each once, and a network namespace to move to.
absl::Status CheckNetDevices(const spec::RuntimeConfig& config);

// A hook for Hooks::prestart that moves the devices into the network namespace
// of the container, with the addresses that last (permanent ones of global
// scope), and takes them up there. Looks first, so that no device is moved if
// one is missing or a name is taken. When the namespace ends, the kernel gives
// devices of hardware back to the machine's and destroys others. `launcher`
// must outlive the hook.
Hook MoveNetDevices(Launcher& launcher,
                    std::map<std::string, spec::NetDevice> devices);

}  // namespace caisson::container

#endif  // CAISSON_LIB_CONTAINER_NET_DEVICES_H_
