#include "lib/net/host_links.h"

#include <errno.h>
#include <sys/random.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "caisson/error.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/net/sysctl.h"

namespace caisson {
namespace {

// An address of TEST-NET-1 (RFC 5737): what leads there leads everywhere.
constexpr Ipv4Address kElsewhere = {0xc0000201};

// nullopt instead of ENODEV.
absl::StatusOr<std::optional<sys::LinkInfo>> FindLink(sys::NetlinkSocket& route,
                                                      const std::string& name) {
  absl::StatusOr<sys::LinkInfo> link = sys::GetLink(route, name);
  if (link.ok()) return std::optional<sys::LinkInfo>(*std::move(link));
  const std::optional<ErrorDetail> detail = GetErrorDetail(link.status());
  if (detail.has_value() && detail->error == ENODEV) {
    return std::optional<sys::LinkInfo>();
  }
  return link.status();
}

absl::Status DeleteLinkIfThere(sys::NetlinkSocket& route, int index) {
  sys::NetlinkTrain train;
  sys::DeleteLink(train, index);
  train.Tolerate(ENODEV);
  return route.Run(train);
}

absl::Status ConfigureBridge(sys::NetlinkSocket& route, int index,
                             const NetworkRecord& network,
                             const std::string& alias) {
  // Before the bridge is up, or it would get an IPv6 address.
  RETURN_IF_ERROR(DisableIpv6(network.bridge));
  if (!network.internal) RETURN_IF_ERROR(EnableForwardingIpv4(network.bridge));
  sys::NetlinkTrain train;
  sys::SetLinkAlias(train, index, alias);
  sys::AddAddress(train, index, network.gateway.in(),
                  network.subnet.prefix_length);
  sys::SetLinkUp(train, index);
  return route.Run(train);
}

}  // namespace

sys::MacAddress RandomMac() {
  sys::MacAddress mac;
  if (::getrandom(mac.data(), mac.size(), 0) !=
      static_cast<ssize_t>(mac.size())) {
    std::abort();
  }
  mac[0] = static_cast<uint8_t>((mac[0] & 0xfc) | 0x02);
  return mac;
}

absl::StatusOr<std::optional<Uplink>> FindUplink(sys::NetlinkSocket& route) {
  ASSIGN_OR_RETURN(const std::optional<sys::RouteInfo> way,
                   sys::RouteTo(route, kElsewhere.in()));
  if (!way.has_value() || way->link == 0) return std::optional<Uplink>();
  ASSIGN_OR_RETURN(const sys::LinkInfo link, sys::GetLink(route, way->link));
  Uplink uplink;
  uplink.interface = link.name;
  uplink.mtu = static_cast<int>(link.mtu);
  if (way->mtu != 0) uplink.mtu = std::min<int>(uplink.mtu, way->mtu);
  return std::optional<Uplink>(std::move(uplink));
}

absl::StatusOr<std::vector<OccupiedRange>> ListOccupied(
    sys::NetlinkSocket& route, int except_link) {
  ASSIGN_OR_RETURN(const std::vector<sys::RouteInfo> routes,
                   sys::ListRoutes(route));
  ASSIGN_OR_RETURN(const std::vector<sys::AddressInfo> addresses,
                   sys::ListAddresses(route));
  std::map<int, std::string> names;
  const auto device = [&](int link) {
    auto [entry, added] = names.try_emplace(link);
    if (added) {
      const absl::StatusOr<sys::LinkInfo> info = sys::GetLink(route, link);
      entry->second = info.ok() ? info->name : absl::StrCat("link ", link);
    }
    return absl::StrCat(" dev ", Quoted(entry->second));
  };
  std::vector<OccupiedRange> occupied;
  for (const sys::RouteInfo& info : routes) {
    if (info.prefix_length == 0 ||
        (info.link == except_link && except_link != 0)) {
      continue;
    }
    OccupiedRange range;
    range.subnet = Ipv4Subnet::Around(Ipv4Address::From(info.destination),
                                      info.prefix_length);
    range.what = absl::StrCat("route ", range.subnet.ToString(),
                              info.link == 0 ? "" : device(info.link));
    occupied.push_back(std::move(range));
  }
  for (const sys::AddressInfo& info : addresses) {
    if (info.link == except_link) continue;
    const Ipv4Address address = Ipv4Address::From(info.address);
    const std::string what =
        absl::StrCat("address ", address.ToString(), "/", info.prefix_length,
                     device(info.link));
    // Both the address itself and the subnet it says it is in.
    occupied.push_back({Ipv4Subnet::Around(address, 32), what});
    occupied.push_back({Ipv4Subnet::Around(address, info.prefix_length), what});
  }
  return occupied;
}

absl::StatusOr<int> CreateBridge(sys::NetlinkSocket& route,
                                 const NetworkRecord& network,
                                 const std::string& alias) {
  sys::NetlinkTrain train;
  sys::AddBridge(train, network.bridge, network.bridge_mac,
                 static_cast<uint32_t>(network.mtu));
  RETURN_IF_ERROR(route.Run(train));
  ASSIGN_OR_RETURN(const std::optional<int> index, FindBridge(route, network));
  if (!index.has_value()) {
    return absl::AbortedError(absl::StrCat(
        "bridge ", Quoted(network.bridge),
        " vanished or changed as soon as it was made; is another program "
        "managing interfaces?"));
  }
  absl::Cleanup undo = [&] { DeleteLinkIfThere(route, *index).IgnoreError(); };
  RETURN_IF_ERROR(ConfigureBridge(route, *index, network, alias));
  std::move(undo).Cancel();
  return *index;
}

absl::StatusOr<std::optional<int>> FindBridge(sys::NetlinkSocket& route,
                                              const NetworkRecord& network) {
  ASSIGN_OR_RETURN(const std::optional<sys::LinkInfo> link,
                   FindLink(route, network.bridge));
  if (!link.has_value() || link->kind != "bridge" ||
      link->mac != network.bridge_mac) {
    return std::optional<int>();
  }
  return std::optional<int>(link->index);
}

absl::StatusOr<bool> RemoveBridge(sys::NetlinkSocket& route,
                                  const NetworkRecord& network) {
  ASSIGN_OR_RETURN(const std::optional<int> index, FindBridge(route, network));
  if (!index.has_value()) return false;
  RETURN_IF_ERROR(DeleteLinkIfThere(route, *index));
  return true;
}

absl::Status RemoveEndpointLink(sys::NetlinkSocket& route,
                                const NetworkRecord& network,
                                const LeaseRecord& lease) {
  ASSIGN_OR_RETURN(const std::optional<int> bridge, FindBridge(route, network));
  if (bridge.has_value()) {
    sys::NetlinkTrain train;
    sys::DeleteNeighbour(train, *bridge, lease.address.in());
    for (int error : {ENOENT, ENODEV}) train.Tolerate(error);
    RETURN_IF_ERROR(route.Run(train));
  }
  ASSIGN_OR_RETURN(const std::optional<sys::LinkInfo> link,
                   FindLink(route, lease.veth));
  if (!link.has_value() || link->kind != "veth" ||
      link->mac != lease.veth_mac) {
    return absl::OkStatus();
  }
  return DeleteLinkIfThere(route, link->index);
}

}  // namespace caisson
