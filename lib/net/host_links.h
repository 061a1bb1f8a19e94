// What a network reads and changes among the host's own interfaces: its uplink,
// the ranges that are in use, and its bridge.
//
// Thread-compatible: one netlink socket, one call at a time.
#ifndef CAISSON_LIB_NET_HOST_LINKS_H_
#define CAISSON_LIB_NET_HOST_LINKS_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "lib/net/lease.h"
#include "lib/net/network_dir.h"
#include "lib/net/subnet_choice.h"
#include "lib/sys/netlink.h"
#include "lib/sys/rtnetlink.h"

namespace caisson {

// A unicast, locally administered MAC address.
sys::MacAddress RandomMac();

struct Uplink {
  std::string interface;
  int mtu = 0;
};

// The interface that leads to the Internet and its MTU; nullopt without one.
absl::StatusOr<std::optional<Uplink>> FindUplink(sys::NetlinkSocket& route);

// Every route (but default ones) and every address of the host, save those on
// `except_link`.
absl::StatusOr<std::vector<OccupiedRange>> ListOccupied(
    sys::NetlinkSocket& route, int except_link = 0);

// Creates the bridge of `network`, ready for ports; returns its interface
// index. All or nothing. ALREADY_EXISTS if the name is taken. Works on
// /proc/sys of the calling thread.
absl::StatusOr<int> CreateBridge(sys::NetlinkSocket& route,
                                 const NetworkRecord& network,
                                 const std::string& alias);

// The index of the bridge if it is there and is that of `network` (a bridge
// with the recorded name and MAC address), otherwise nullopt.
absl::StatusOr<std::optional<int>> FindBridge(sys::NetlinkSocket& route,
                                              const NetworkRecord& network);

// Removes the bridge if it is there and is that of `network`; true if it was.
absl::StatusOr<bool> RemoveBridge(sys::NetlinkSocket& route,
                                  const NetworkRecord& network);

// Removes what a lease stands for: the host's end of the veth pair, and with it
// the pair, if it is there and is the recorded one, and the neighbour entry.
absl::Status RemoveEndpointLink(sys::NetlinkSocket& route,
                                const NetworkRecord& network,
                                const LeaseRecord& lease);

}  // namespace caisson

#endif  // CAISSON_LIB_NET_HOST_LINKS_H_
