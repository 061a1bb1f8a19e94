// rtnetlink requests that the network module sends, and what it reads back.
//
// The Add/Set/Delete functions append one message to a train (netlink.h); the
// Get/List functions ask at once. Everything happens in the network namespace
// of the socket. Thread-safe; the socket itself is thread-compatible.
//
// Source: rtnetlink(7), include/uapi/linux/{if_link,rtnetlink,neighbour}.h.
#ifndef CAISSON_LIB_SYS_RTNETLINK_H_
#define CAISSON_LIB_SYS_RTNETLINK_H_

#include <netinet/in.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/unique_fd.h"
#include "lib/sys/netlink.h"

namespace caisson::sys {

using MacAddress = std::array<uint8_t, 6>;

struct LinkInfo {
  int index = 0;
  std::string name;
  std::string kind;   // "bridge", "veth", ...; empty for hardware
  std::string alias;  // ip link set ... alias
  MacAddress mac = {};
  uint32_t mtu = 0;
  int master = 0;  // interface index of the bridge or bond above; 0 = none
  // It transmits: it is up, and the kernel has acted upon its carrier.
  bool operational = false;
};

struct AddressInfo {
  int link = 0;
  in_addr address = {};
  int prefix_length = 0;
};

struct RouteInfo {
  in_addr destination = {};
  int prefix_length = 0;
  int link = 0;  // 0 for a route without one (blackhole, multipath)
  uint32_t table = 0;
  uint32_t mtu = 0;  // 0 = that of the link
};

// --- Links ---

// A bridge with an explicit MAC address, which therefore does not follow its
// ports, and no forwarding delay. From Linux 6.8 on it learns a bounded number
// of addresses, so that a port cannot fill the host's memory with them. EEXIST
// if the name is taken.
void AddBridge(NetlinkTrain& train, const std::string& name,
               const MacAddress& mac, uint32_t mtu);

struct VethRequest {
  std::string name;
  MacAddress mac = {};
  int master = 0;  // the bridge that `name` becomes a port of
  uint32_t mtu = 0;
  std::string peer_name;
  MacAddress peer_mac = {};
  BorrowedFd peer_namespace;  // where the peer is born, with its final name
};

// A veth pair whose first end is a port of a bridge, in one message. Both ends
// are down. EXFULL if the bridge has its 1023 ports.
void AddVeth(NetlinkTrain& train, const VethRequest& request);

// Takes a link up without an IPv6 link-local address of its own.
void SetLinkUp(NetlinkTrain& train, const std::string& name);
void SetLinkUp(NetlinkTrain& train, int link);
void SetLinkAlias(NetlinkTrain& train, int link, const std::string& alias);
// The port may send a frame back to where it came from.
void SetHairpin(NetlinkTrain& train, int port);
// The port passes nothing any more, in either direction.
void DisableBridgePort(NetlinkTrain& train, int port);
void DeleteLink(NetlinkTrain& train, int link);

// Moves the link, which goes down, to another namespace, under another name.
// EEXIST if that is taken there.
void MoveLink(NetlinkTrain& train, int link, BorrowedFd net_namespace,
              const std::string& name);

// NOT_FOUND (ENODEV) if there is none.
absl::StatusOr<LinkInfo> GetLink(NetlinkSocket& socket,
                                 const std::string& name);
absl::StatusOr<LinkInfo> GetLink(NetlinkSocket& socket, int link);
// Appends the question of GetLink to a train; the answer goes through
// ParseLink.
void AskLink(NetlinkTrain& train, const std::string& name);
std::optional<LinkInfo> ParseLink(const nlmsghdr& message);
// Waits until the links are operational. A link whose carrier has just come on
// drops what it is given until the kernel's link watch, a work queue, has taken
// notice; so does a bridge port. From Linux 6.8 on the question itself makes
// the kernel do that at once.
absl::Status AwaitOperational(NetlinkSocket& socket,
                              const std::vector<int>& links);
// Links of `kind` whose master is `master` (0 = any).
absl::StatusOr<std::vector<LinkInfo>> ListLinks(NetlinkSocket& socket,
                                                const std::string& kind,
                                                int master = 0);

// --- Addresses, routes, neighbours (IPv4) ---

void AddAddress(NetlinkTrain& train, int link, in_addr address,
                int prefix_length);
void DeleteAddress(NetlinkTrain& train, int link, in_addr address,
                   int prefix_length);
void AddDefaultRoute(NetlinkTrain& train, int link, in_addr gateway);
// Replaces what is known of the neighbour by a permanent entry, which ARP does
// not change and which does not count against the kernel's limit
// (net.ipv4.neigh.default.gc_thresh3, of all namespaces together).
void SetNeighbour(NetlinkTrain& train, int link, in_addr address,
                  const MacAddress& mac);
void DeleteNeighbour(NetlinkTrain& train, int link, in_addr address);

absl::StatusOr<std::vector<AddressInfo>> ListAddresses(NetlinkSocket& socket);
// All tables but the kernel's own "local" one, default routes included.
absl::StatusOr<std::vector<RouteInfo>> ListRoutes(NetlinkSocket& socket);
// The route that a packet to `destination` takes, policy rules applied; nullopt
// if there is none.
absl::StatusOr<std::optional<RouteInfo>> RouteTo(NetlinkSocket& socket,
                                                 in_addr destination);

// An address of either family as the kernel has it, to be given again.
struct KeptAddress {
  uint8_t family = 0;  // AF_INET, AF_INET6
  uint8_t prefix_length = 0;
  std::string local;      // bytes; IFA_LOCAL
  std::string address;    // IFA_ADDRESS: the other end of a point-to-point link
  std::string broadcast;  // IFA_BROADCAST
};
// Those of the link that last: permanent, and of global scope.
absl::StatusOr<std::vector<KeptAddress>> ListLastingAddresses(
    NetlinkSocket& socket, int link);
void AddAddress(NetlinkTrain& train, int link, const KeptAddress& address);

std::string FormatMac(const MacAddress& mac);
std::string FormatAddress(in_addr address);

}  // namespace caisson::sys

#endif  // CAISSON_LIB_SYS_RTNETLINK_H_
