#include "lib/sys/rtnetlink.h"

#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/if.h>
#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <string.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "caisson/error.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"

namespace caisson::sys {
namespace {

// bridge(8) port states; <linux/if_bridge.h> has them since 2.6.
constexpr uint8_t kPortDisabled = BR_STATE_DISABLED;

// IFLA_BR_FDB_MAX_LEARNED, Linux 6.8; older kernels ignore it.
constexpr uint16_t kBridgeMaxLearned = 49;
// A bridge has at most 1023 ports, most of them with one address.
constexpr uint32_t kMaxLearnedAddresses = 16384;

constexpr absl::Duration kOperationalTimeout = absl::Seconds(5);

// Closes a nested attribute when it goes out of scope.
class Nest {
 public:
  Nest(nlmsghdr* message, uint16_t type)
      : message_(message), nest_(mnl_attr_nest_start(message, type)) {}
  ~Nest() { mnl_attr_nest_end(message_, nest_); }
  Nest(const Nest&) = delete;
  Nest& operator=(const Nest&) = delete;

 private:
  nlmsghdr* message_;
  nlattr* nest_;
};

template <typename Header>
Header* PutHeader(nlmsghdr* message) {
  return static_cast<Header*>(
      mnl_nlmsg_put_extra_header(message, sizeof(Header)));
}

// RTM_SETLINK for one link, by index or, if that is zero, by name.
nlmsghdr* ChangeLink(NetlinkTrain& train, int link, const std::string& name,
                     absl::string_view what, int family = AF_UNSPEC) {
  nlmsghdr* message = train.Add(
      RTM_SETLINK, 0,
      absl::StrCat("RTM_SETLINK(",
                   link != 0 ? absl::StrCat("link ", link) : Quoted(name), ", ",
                   what, ")"));
  auto* info = PutHeader<ifinfomsg>(message);
  info->ifi_family = family;
  info->ifi_index = link;
  if (link == 0) mnl_attr_put_strz(message, IFLA_IFNAME, name.c_str());
  return message;
}

// Two messages: the kernel changes the flags before anything else in one.
void PutUp(NetlinkTrain& train, int link, const std::string& name) {
  nlmsghdr* mode = ChangeLink(train, link, name, "addrgenmode none");
  {
    Nest family(mode, IFLA_AF_SPEC);
    Nest inet6(mode, AF_INET6);
    mnl_attr_put_u8(mode, IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE);
  }
  train.Tolerate(EAFNOSUPPORT);  // a kernel without IPv6
  nlmsghdr* up = ChangeLink(train, link, name, "up");
  auto* header = static_cast<ifinfomsg*>(mnl_nlmsg_get_payload(up));
  header->ifi_flags = IFF_UP;
  header->ifi_change = IFF_UP;
}

void PutMac(nlmsghdr* message, uint16_t type, const MacAddress& mac) {
  mnl_attr_put(message, type, mac.size(), mac.data());
}

void PutAddress(nlmsghdr* message, uint16_t type, in_addr address) {
  mnl_attr_put(message, type, sizeof(address), &address);
}

in_addr AttributeAddress(const nlattr& attribute) {
  in_addr address = {};
  const absl::string_view bytes = AttributeBytes(attribute);
  if (bytes.size() == sizeof(address)) {
    ::memcpy(&address, bytes.data(), sizeof(address));
  }
  return address;
}

// One queue per end: the kernel would allocate as many as there are processors
// and then use one.
void PutSingleQueue(nlmsghdr* message) {
  mnl_attr_put_u32(message, IFLA_NUM_TX_QUEUES, 1);
  mnl_attr_put_u32(message, IFLA_NUM_RX_QUEUES, 1);
}

void ParseLinkAttribute(const nlattr& attribute, LinkInfo& link) {
  switch (AttributeType(attribute)) {
    case IFLA_IFNAME:
      link.name = AttributeString(attribute);
      break;
    case IFLA_IFALIAS:
      link.alias = AttributeString(attribute);
      break;
    case IFLA_ADDRESS: {
      const absl::string_view bytes = AttributeBytes(attribute);
      if (bytes.size() == link.mac.size()) {
        ::memcpy(link.mac.data(), bytes.data(), bytes.size());
      }
      break;
    }
    case IFLA_MTU:
      link.mtu = AttributeU32(attribute);
      break;
    case IFLA_MASTER:
      link.master = static_cast<int>(AttributeU32(attribute));
      break;
    case IFLA_OPERSTATE: {
      const absl::string_view bytes = AttributeBytes(attribute);
      link.operational = !bytes.empty() && bytes[0] == IF_OPER_UP;
      break;
    }
    case IFLA_LINKINFO:
      ForEachNested(attribute, [&link](const nlattr& nested) {
        if (AttributeType(nested) == IFLA_INFO_KIND) {
          link.kind = AttributeString(nested);
        }
      });
      break;
  }
}

std::optional<RouteInfo> ParseRoute(const nlmsghdr& message) {
  if (message.nlmsg_type != RTM_NEWROUTE ||
      mnl_nlmsg_get_payload_len(&message) < sizeof(rtmsg)) {
    return std::nullopt;
  }
  const auto* header =
      static_cast<const rtmsg*>(mnl_nlmsg_get_payload(&message));
  if (header->rtm_family != AF_INET) return std::nullopt;
  RouteInfo route;
  route.prefix_length = header->rtm_dst_len;
  route.table = header->rtm_table;
  ForEachAttribute(message, sizeof(rtmsg), [&route](const nlattr& attribute) {
    switch (AttributeType(attribute)) {
      case RTA_DST:
        route.destination = AttributeAddress(attribute);
        break;
      case RTA_OIF:
        route.link = static_cast<int>(AttributeU32(attribute));
        break;
      case RTA_TABLE:
        route.table = AttributeU32(attribute);
        break;
      case RTA_METRICS:
        ForEachNested(attribute, [&route](const nlattr& metric) {
          if (AttributeType(metric) == RTAX_MTU) {
            route.mtu = AttributeU32(metric);
          }
        });
        break;
    }
  });
  return route;
}

absl::StatusOr<LinkInfo> RunGetLink(NetlinkSocket& socket,
                                    NetlinkTrain& train) {
  std::optional<LinkInfo> link;
  RETURN_IF_ERROR(socket.Run(train, [&link](const nlmsghdr& message) {
    if (!link.has_value()) link = ParseLink(message);
  }));
  if (!link.has_value()) {
    return absl::InternalError("RTM_GETLINK: the kernel's answer has no link");
  }
  return *std::move(link);
}

void AskLinkByIndex(NetlinkTrain& train, int link) {
  nlmsghdr* message =
      train.Add(RTM_GETLINK, 0, absl::StrCat("RTM_GETLINK(link ", link, ")"));
  PutHeader<ifinfomsg>(message)->ifi_index = link;
}

absl::StatusOr<bool> AllOperational(NetlinkSocket& socket,
                                    const std::vector<int>& links) {
  NetlinkTrain train;
  for (int link : links) AskLinkByIndex(train, link);
  bool all = true;
  RETURN_IF_ERROR(socket.Run(train, [&all](const nlmsghdr& message) {
    const std::optional<LinkInfo> link = ParseLink(message);
    all = all && link.has_value() && link->operational;
  }));
  return all;
}

}  // namespace

void AddBridge(NetlinkTrain& train, const std::string& name,
               const MacAddress& mac, uint32_t mtu) {
  nlmsghdr* message = train.Add(
      RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL,
      absl::StrCat("RTM_NEWLINK(bridge ", Quoted(name), ", mtu ", mtu, ")"));
  PutHeader<ifinfomsg>(message);
  mnl_attr_put_strz(message, IFLA_IFNAME, name.c_str());
  mnl_attr_put_u32(message, IFLA_MTU, mtu);
  PutMac(message, IFLA_ADDRESS, mac);
  Nest info(message, IFLA_LINKINFO);
  mnl_attr_put_strz(message, IFLA_INFO_KIND, "bridge");
  Nest data(message, IFLA_INFO_DATA);
  mnl_attr_put_u32(message, IFLA_BR_FORWARD_DELAY, 0);
  mnl_attr_put_u32(message, kBridgeMaxLearned, kMaxLearnedAddresses);
}

void AddVeth(NetlinkTrain& train, const VethRequest& request) {
  nlmsghdr* message =
      train.Add(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL,
                absl::StrCat("RTM_NEWLINK(veth ", Quoted(request.name),
                             ", peer ", Quoted(request.peer_name), ", master ",
                             request.master, ", mtu ", request.mtu, ")"));
  PutHeader<ifinfomsg>(message);
  mnl_attr_put_strz(message, IFLA_IFNAME, request.name.c_str());
  mnl_attr_put_u32(message, IFLA_MTU, request.mtu);
  mnl_attr_put_u32(message, IFLA_MASTER, static_cast<uint32_t>(request.master));
  PutMac(message, IFLA_ADDRESS, request.mac);
  PutSingleQueue(message);
  Nest info(message, IFLA_LINKINFO);
  mnl_attr_put_strz(message, IFLA_INFO_KIND, "veth");
  Nest data(message, IFLA_INFO_DATA);
  Nest peer(message, VETH_INFO_PEER);
  PutHeader<ifinfomsg>(message);
  mnl_attr_put_strz(message, IFLA_IFNAME, request.peer_name.c_str());
  mnl_attr_put_u32(message, IFLA_MTU, request.mtu);
  PutMac(message, IFLA_ADDRESS, request.peer_mac);
  PutSingleQueue(message);
  mnl_attr_put_u32(message, IFLA_NET_NS_FD,
                   static_cast<uint32_t>(request.peer_namespace.get()));
}

void SetLinkUp(NetlinkTrain& train, const std::string& name) {
  PutUp(train, 0, name);
}

void SetLinkUp(NetlinkTrain& train, int link) { PutUp(train, link, ""); }

void SetLinkAlias(NetlinkTrain& train, int link, const std::string& alias) {
  nlmsghdr* message =
      ChangeLink(train, link, "", absl::StrCat("alias ", Quoted(alias)));
  mnl_attr_put(message, IFLA_IFALIAS, alias.size(), alias.data());
}

void SetHairpin(NetlinkTrain& train, int port) {
  nlmsghdr* message = ChangeLink(train, port, "", "hairpin on", AF_BRIDGE);
  Nest info(message, IFLA_PROTINFO | NLA_F_NESTED);
  mnl_attr_put_u8(message, IFLA_BRPORT_MODE, 1);
}

void DisableBridgePort(NetlinkTrain& train, int port) {
  nlmsghdr* message = ChangeLink(train, port, "", "state disabled", AF_BRIDGE);
  Nest info(message, IFLA_PROTINFO | NLA_F_NESTED);
  mnl_attr_put_u8(message, IFLA_BRPORT_STATE, kPortDisabled);
}

void DeleteLink(NetlinkTrain& train, int link) {
  nlmsghdr* message =
      train.Add(RTM_DELLINK, 0, absl::StrCat("RTM_DELLINK(link ", link, ")"));
  PutHeader<ifinfomsg>(message)->ifi_index = link;
}

void MoveLink(NetlinkTrain& train, int link, BorrowedFd net_namespace,
              const std::string& name) {
  nlmsghdr* message = train.Add(
      RTM_NEWLINK, 0,
      absl::StrCat("RTM_NEWLINK(link ", link, ", netns, ", Quoted(name), ")"));
  PutHeader<ifinfomsg>(message)->ifi_index = link;
  mnl_attr_put_u32(message, IFLA_NET_NS_FD,
                   static_cast<uint32_t>(net_namespace.get()));
  mnl_attr_put_strz(message, IFLA_IFNAME, name.c_str());
}

void AskLink(NetlinkTrain& train, const std::string& name) {
  nlmsghdr* message = train.Add(
      RTM_GETLINK, 0, absl::StrCat("RTM_GETLINK(", Quoted(name), ")"));
  PutHeader<ifinfomsg>(message);
  mnl_attr_put_strz(message, IFLA_IFNAME, name.c_str());
}

std::optional<LinkInfo> ParseLink(const nlmsghdr& message) {
  if (message.nlmsg_type != RTM_NEWLINK ||
      mnl_nlmsg_get_payload_len(&message) < sizeof(ifinfomsg)) {
    return std::nullopt;
  }
  LinkInfo link;
  link.index =
      static_cast<const ifinfomsg*>(mnl_nlmsg_get_payload(&message))->ifi_index;
  ForEachAttribute(message, sizeof(ifinfomsg),
                   [&link](const nlattr& attribute) {
                     ParseLinkAttribute(attribute, link);
                   });
  return link;
}

absl::StatusOr<LinkInfo> GetLink(NetlinkSocket& socket,
                                 const std::string& name) {
  NetlinkTrain train;
  AskLink(train, name);
  return RunGetLink(socket, train);
}

absl::StatusOr<LinkInfo> GetLink(NetlinkSocket& socket, int link) {
  NetlinkTrain train;
  AskLinkByIndex(train, link);
  return RunGetLink(socket, train);
}

absl::Status AwaitOperational(NetlinkSocket& socket,
                              const std::vector<int>& links) {
  ASSIGN_OR_RETURN(bool all, AllOperational(socket, links));
  if (all) return absl::OkStatus();
  // Subscribed before the next look, so that no change goes unseen.
  ASSIGN_OR_RETURN(NetlinkSocket monitor,
                   NetlinkSocket::OpenMonitor(NETLINK_ROUTE, RTMGRP_LINK));
  const absl::Time deadline = absl::Now() + kOperationalTimeout;
  for (;;) {
    ASSIGN_OR_RETURN(all, AllOperational(socket, links));
    if (all) return absl::OkStatus();
    ASSIGN_OR_RETURN(const bool changed,
                     monitor.WaitForNotification(deadline - absl::Now()));
    if (!changed) {
      return absl::DeadlineExceededError(
          absl::StrCat("links ", absl::StrJoin(links, ", "),
                       " did not become operational in ",
                       absl::FormatDuration(kOperationalTimeout)));
    }
  }
}

absl::StatusOr<std::vector<LinkInfo>> ListLinks(NetlinkSocket& socket,
                                                const std::string& kind,
                                                int master) {
  NetlinkTrain train;
  nlmsghdr* message = train.Add(
      RTM_GETLINK, 0, absl::StrCat("RTM_GETLINK(dump, kind ", kind, ")"));
  PutHeader<ifinfomsg>(message);
  if (master != 0) {
    mnl_attr_put_u32(message, IFLA_MASTER, static_cast<uint32_t>(master));
  }
  {
    Nest info(message, IFLA_LINKINFO);
    mnl_attr_put_strz(message, IFLA_INFO_KIND, kind.c_str());
  }
  std::vector<LinkInfo> links;
  RETURN_IF_ERROR(socket.Dump(train, [&](const nlmsghdr& row) {
    std::optional<LinkInfo> link = ParseLink(row);
    // The kernel's filter lets links without any kind pass.
    if (!link.has_value() || link->kind != kind) return;
    if (master != 0 && link->master != master) return;
    links.push_back(*std::move(link));
  }));
  return links;
}

void AddAddress(NetlinkTrain& train, int link, in_addr address,
                int prefix_length) {
  nlmsghdr* message =
      train.Add(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL,
                absl::StrCat("RTM_NEWADDR(", FormatAddress(address), "/",
                             prefix_length, ", link ", link, ")"));
  auto* header = PutHeader<ifaddrmsg>(message);
  header->ifa_family = AF_INET;
  header->ifa_prefixlen = static_cast<uint8_t>(prefix_length);
  header->ifa_index = static_cast<uint32_t>(link);
  PutAddress(message, IFA_LOCAL, address);
  PutAddress(message, IFA_ADDRESS, address);
  const uint32_t mask =
      prefix_length == 0 ? 0 : ~uint32_t{0} << (32 - prefix_length);
  in_addr broadcast = {address.s_addr | ~htonl(mask)};
  if (prefix_length < 31) PutAddress(message, IFA_BROADCAST, broadcast);
}

void DeleteAddress(NetlinkTrain& train, int link, in_addr address,
                   int prefix_length) {
  nlmsghdr* message =
      train.Add(RTM_DELADDR, 0,
                absl::StrCat("RTM_DELADDR(", FormatAddress(address), "/",
                             prefix_length, ", link ", link, ")"));
  auto* header = PutHeader<ifaddrmsg>(message);
  header->ifa_family = AF_INET;
  header->ifa_prefixlen = static_cast<uint8_t>(prefix_length);
  header->ifa_index = static_cast<uint32_t>(link);
  PutAddress(message, IFA_LOCAL, address);
}

void AddDefaultRoute(NetlinkTrain& train, int link, in_addr gateway) {
  nlmsghdr* message =
      train.Add(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL,
                absl::StrCat("RTM_NEWROUTE(default via ",
                             FormatAddress(gateway), ", link ", link, ")"));
  auto* header = PutHeader<rtmsg>(message);
  header->rtm_family = AF_INET;
  header->rtm_table = RT_TABLE_MAIN;
  header->rtm_protocol = RTPROT_STATIC;
  header->rtm_scope = RT_SCOPE_UNIVERSE;
  header->rtm_type = RTN_UNICAST;
  PutAddress(message, RTA_GATEWAY, gateway);
  mnl_attr_put_u32(message, RTA_OIF, static_cast<uint32_t>(link));
}

void SetNeighbour(NetlinkTrain& train, int link, in_addr address,
                  const MacAddress& mac) {
  nlmsghdr* message =
      train.Add(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE,
                absl::StrCat("RTM_NEWNEIGH(", FormatAddress(address), " is ",
                             FormatMac(mac), ", link ", link, ")"));
  auto* header = PutHeader<ndmsg>(message);
  header->ndm_family = AF_INET;
  header->ndm_ifindex = link;
  header->ndm_state = NUD_PERMANENT;
  PutAddress(message, NDA_DST, address);
  PutMac(message, NDA_LLADDR, mac);
}

void DeleteNeighbour(NetlinkTrain& train, int link, in_addr address) {
  nlmsghdr* message =
      train.Add(RTM_DELNEIGH, 0,
                absl::StrCat("RTM_DELNEIGH(", FormatAddress(address), ", link ",
                             link, ")"));
  auto* header = PutHeader<ndmsg>(message);
  header->ndm_family = AF_INET;
  header->ndm_ifindex = link;
  PutAddress(message, NDA_DST, address);
}

absl::StatusOr<std::vector<AddressInfo>> ListAddresses(NetlinkSocket& socket) {
  NetlinkTrain train;
  nlmsghdr* message = train.Add(RTM_GETADDR, 0, "RTM_GETADDR(dump)");
  PutHeader<ifaddrmsg>(message)->ifa_family = AF_INET;
  std::vector<AddressInfo> addresses;
  RETURN_IF_ERROR(socket.Dump(train, [&addresses](const nlmsghdr& row) {
    if (row.nlmsg_type != RTM_NEWADDR ||
        mnl_nlmsg_get_payload_len(&row) < sizeof(ifaddrmsg)) {
      return;
    }
    const auto* header =
        static_cast<const ifaddrmsg*>(mnl_nlmsg_get_payload(&row));
    AddressInfo info;
    info.link = static_cast<int>(header->ifa_index);
    info.prefix_length = header->ifa_prefixlen;
    ForEachAttribute(row, sizeof(ifaddrmsg), [&info](const nlattr& attribute) {
      if (AttributeType(attribute) == IFA_LOCAL) {
        info.address = AttributeAddress(attribute);
      }
    });
    addresses.push_back(info);
  }));
  return addresses;
}

namespace {

std::optional<KeptAddress> ParseLasting(const nlmsghdr& row, int link) {
  if (row.nlmsg_type != RTM_NEWADDR ||
      mnl_nlmsg_get_payload_len(&row) < sizeof(ifaddrmsg)) {
    return std::nullopt;
  }
  const auto* header =
      static_cast<const ifaddrmsg*>(mnl_nlmsg_get_payload(&row));
  uint32_t flags = header->ifa_flags;
  KeptAddress kept = {.family = header->ifa_family,
                      .prefix_length = header->ifa_prefixlen};
  ForEachAttribute(row, sizeof(ifaddrmsg), [&](const nlattr& attribute) {
    switch (AttributeType(attribute)) {
      case IFA_FLAGS:
        flags = AttributeU32(attribute);
        break;
      case IFA_LOCAL:
        kept.local = std::string(AttributeBytes(attribute));
        break;
      case IFA_ADDRESS:
        kept.address = std::string(AttributeBytes(attribute));
        break;
      case IFA_BROADCAST:
        kept.broadcast = std::string(AttributeBytes(attribute));
        break;
      default:
        break;
    }
  });
  const bool lasting = static_cast<int>(header->ifa_index) == link &&
                       header->ifa_scope == RT_SCOPE_UNIVERSE &&
                       (flags & IFA_F_PERMANENT) != 0;
  return lasting ? std::optional<KeptAddress>(std::move(kept)) : std::nullopt;
}

void PutBytes(nlmsghdr* message, uint16_t type, const std::string& bytes) {
  if (!bytes.empty()) mnl_attr_put(message, type, bytes.size(), bytes.data());
}

}  // namespace

absl::StatusOr<std::vector<KeptAddress>> ListLastingAddresses(
    NetlinkSocket& socket, int link) {
  NetlinkTrain train;
  nlmsghdr* message = train.Add(RTM_GETADDR, 0, "RTM_GETADDR(dump)");
  PutHeader<ifaddrmsg>(message)->ifa_family = AF_UNSPEC;
  std::vector<KeptAddress> addresses;
  RETURN_IF_ERROR(socket.Dump(train, [&](const nlmsghdr& row) {
    if (auto kept = ParseLasting(row, link)) {
      addresses.push_back(*std::move(kept));
    }
  }));
  return addresses;
}

void AddAddress(NetlinkTrain& train, int link, const KeptAddress& address) {
  nlmsghdr* message = train.Add(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE,
                                absl::StrCat("RTM_NEWADDR(link ", link, ")"));
  auto* header = PutHeader<ifaddrmsg>(message);
  header->ifa_family = address.family;
  header->ifa_prefixlen = address.prefix_length;
  header->ifa_scope = RT_SCOPE_UNIVERSE;
  header->ifa_index = static_cast<uint32_t>(link);
  PutBytes(message, IFA_LOCAL, address.local);
  PutBytes(message, IFA_ADDRESS, address.address);
  PutBytes(message, IFA_BROADCAST, address.broadcast);
}

absl::StatusOr<std::vector<RouteInfo>> ListRoutes(NetlinkSocket& socket) {
  NetlinkTrain train;
  nlmsghdr* message = train.Add(RTM_GETROUTE, 0, "RTM_GETROUTE(dump)");
  PutHeader<rtmsg>(message)->rtm_family = AF_INET;
  std::vector<RouteInfo> routes;
  RETURN_IF_ERROR(socket.Dump(train, [&routes](const nlmsghdr& row) {
    std::optional<RouteInfo> route = ParseRoute(row);
    if (!route.has_value() || route->table == RT_TABLE_LOCAL) return;
    routes.push_back(*route);
  }));
  return routes;
}

absl::StatusOr<std::optional<RouteInfo>> RouteTo(NetlinkSocket& socket,
                                                 in_addr destination) {
  NetlinkTrain train;
  nlmsghdr* message =
      train.Add(RTM_GETROUTE, 0,
                absl::StrCat("RTM_GETROUTE(", FormatAddress(destination), ")"));
  auto* header = PutHeader<rtmsg>(message);
  header->rtm_family = AF_INET;
  header->rtm_dst_len = 32;
  PutAddress(message, RTA_DST, destination);
  std::optional<RouteInfo> route;
  const absl::Status status =
      socket.Run(train, [&route](const nlmsghdr& reply) {
        if (!route.has_value()) route = ParseRoute(reply);
      });
  if (status.ok()) return route;
  const std::optional<ErrorDetail> detail = GetErrorDetail(status);
  // No route, or one that says "unreachable", "blackhole" or "prohibit".
  if (detail.has_value() &&
      (detail->error == ENETUNREACH || detail->error == EHOSTUNREACH ||
       detail->error == EINVAL || detail->error == EACCES)) {
    return std::optional<RouteInfo>();
  }
  return status;
}

std::string FormatMac(const MacAddress& mac) {
  return absl::StrFormat("%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1],
                         mac[2], mac[3], mac[4], mac[5]);
}

std::string FormatAddress(in_addr address) {
  char text[INET_ADDRSTRLEN];
  ::inet_ntop(AF_INET, &address, text, sizeof(text));
  return text;
}

}  // namespace caisson::sys
