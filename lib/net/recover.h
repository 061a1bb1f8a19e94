// Removing what dead processes left of networks.
#ifndef CAISSON_LIB_NET_RECOVER_H_
#define CAISSON_LIB_NET_RECOVER_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "lib/net/network_dir.h"
#include "lib/sys/netlink.h"

namespace caisson {

// The alias that marks a bridge as that of network `name` of `state_dir`.
std::string BridgeAlias(absl::string_view state_dir, absl::string_view name);

// Removes the leases, ports and bridge of a network that nobody has open; says
// what was removed. The directory stays. Precondition: the root's lock is held
// and the network has no user but the caller.
absl::StatusOr<std::vector<std::string>> RemoveRemains(
    const NetworkDir& dir, sys::NetlinkSocket& route);

// Network::Recover.
absl::StatusOr<std::vector<std::string>> RecoverNetworks(
    const std::string& state_dir);

}  // namespace caisson

#endif  // CAISSON_LIB_NET_RECOVER_H_
