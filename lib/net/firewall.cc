#include "lib/net/firewall.h"

#include <errno.h>
#include <net/ethernet.h>
#include <netinet/in.h>

#include <optional>
#include <utility>
#include <vector>

#include "caisson/error.h"
#include "lib/base/status_macros.h"

namespace caisson {
namespace {

using sys::NftBatch;
using sys::NftElement;
using sys::NftField;
using sys::NftHook;
using sys::NftMap;
using sys::NftMatch;
using sys::NftRule;
using sys::NftTable;
using sys::NftValue;

// nft(8) calls these priorities raw, dstnat, filter, srcnat.
constexpr int kPriorityRaw = -300;
constexpr int kPriorityDstnat = -100;
constexpr int kPriorityFilter = 0;
constexpr int kPrioritySrcnat = 100;
constexpr int kPriorityBridgeFilter = -200;

constexpr char kRaw[] = "raw-prerouting";
constexpr char kPrerouting[] = "nat-prerouting";
constexpr char kOutput[] = "nat-output";
constexpr char kPostrouting[] = "nat-postrouting";
constexpr char kForward[] = "filter-forward";
constexpr char kLoopback[] = "lo";

constexpr in_addr kAnyAddress = {};
constexpr int kLoopbackPrefix = 8;

constexpr char kPorts[] = "ports";
constexpr char kAddressPorts[] = "address-ports";

NftMap PortMap() {
  return {kPorts,
          {NftField::kProtocol, NftField::kPort},
          {NftField::kIpv4Address, NftField::kPort}};
}

NftMap AddressPortMap() {
  return {kAddressPorts,
          {NftField::kIpv4Address, NftField::kProtocol, NftField::kPort},
          {NftField::kIpv4Address, NftField::kPort}};
}

NftRule DnatRule(const NftMap& map) {
  const in_addr loopback = {htonl(INADDR_LOOPBACK & 0xff000000)};
  return NftRule()
      .DestinationIsLocal()
      .Destination(NftMatch::kIsNot, loopback, kLoopbackPrefix)
      .DnatByMap(map);
}

// Containers are addressed through published ports or from their own network,
// send with addresses of their network, and never reach 127.0.0.0/8 of the
// host, even where somebody else has set route_localnet.
void AddRawChain(NftBatch& batch, const NftTable& table,
                 const NetworkRecord& network) {
  const in_addr subnet = network.subnet.network.in();
  const int prefix = network.subnet.prefix_length;
  batch.AddChain(table, {kRaw, "filter", NftHook::kPreRouting, kPriorityRaw});
  batch.AddRule(table, kRaw,
                NftRule()
                    .Destination(NftMatch::kIs, subnet, prefix)
                    .InputInterface(NftMatch::kIsNot, network.bridge)
                    .InputInterface(NftMatch::kIsNot, kLoopback)
                    .Drop());
  const in_addr loopback = {htonl(INADDR_LOOPBACK & 0xff000000)};
  batch.AddRule(table, kRaw,
                NftRule()
                    .InputInterface(NftMatch::kIs, network.bridge)
                    .Destination(NftMatch::kIs, loopback, kLoopbackPrefix)
                    .Drop());
  // 0.0.0.0 is the source of DHCP clients, which containers may be to each
  // other.
  batch.AddRule(table, kRaw,
                NftRule()
                    .InputInterface(NftMatch::kIs, network.bridge)
                    .Source(NftMatch::kIsNot, subnet, prefix)
                    .Source(NftMatch::kIsNot, kAnyAddress, 32)
                    .Drop());
}

void AddDnatChain(NftBatch& batch, const NftTable& table, const char* chain,
                  NftHook hook) {
  batch.AddChain(table, {chain, "nat", hook, kPriorityDstnat});
  batch.AddRule(table, chain, DnatRule(AddressPortMap()));
  batch.AddRule(table, chain, DnatRule(PortMap()));
}

void AddNat(NftBatch& batch, const NftTable& table,
            const NetworkRecord& network) {
  const in_addr subnet = network.subnet.network.in();
  const int prefix = network.subnet.prefix_length;
  batch.AddMap(table, PortMap());
  batch.AddMap(table, AddressPortMap());
  AddDnatChain(batch, table, kPrerouting, NftHook::kPreRouting);
  AddDnatChain(batch, table, kOutput, NftHook::kOutput);
  batch.AddChain(table,
                 {kPostrouting, "nat", NftHook::kPostRouting, kPrioritySrcnat});
  batch.AddRule(table, kPostrouting,
                NftRule()
                    .Source(NftMatch::kIs, subnet, prefix)
                    .OutputInterface(NftMatch::kIsNot, network.bridge)
                    .Masquerade());
  // A container that reaches a published port of its own network: the answer
  // has to come back through the host to be translated.
  batch.AddRule(table, kPostrouting,
                NftRule()
                    .Source(NftMatch::kIs, subnet, prefix)
                    .OutputInterface(NftMatch::kIs, network.bridge)
                    .ConnectionIsDnat()
                    .Masquerade());
}

void AddInternalChain(NftBatch& batch, const NftTable& table,
                      const NetworkRecord& network) {
  batch.AddChain(table,
                 {kForward, "filter", NftHook::kForward, kPriorityFilter});
  batch.AddRule(table, kForward,
                NftRule()
                    .InputInterface(NftMatch::kIs, network.bridge)
                    .OutputInterface(NftMatch::kIsNot, network.bridge)
                    .Drop());
  batch.AddRule(table, kForward,
                NftRule()
                    .OutputInterface(NftMatch::kIs, network.bridge)
                    .InputInterface(NftMatch::kIsNot, network.bridge)
                    .Drop());
}

// Splits `ports` into the elements of the two maps.
struct Elements {
  explicit Elements(absl::Span<const PublishedPort> ports) {
    for (const PublishedPort& port : ports) {
      if (port.host_address.IsLoopback()) continue;
      NftElement element;
      const bool any = port.host_address == Ipv4Address{};
      if (!any) element.key.Address(port.host_address.in());
      element.key.Protocol(port.protocol).Port(port.host_port);
      element.data.Address(port.container_address.in())
          .Port(port.container_port);
      (any ? wildcard : addressed).push_back(std::move(element));
    }
  }

  std::vector<NftElement> wildcard;
  std::vector<NftElement> addressed;
};

}  // namespace

absl::StatusOr<Firewall> Firewall::Install(const NetworkRecord& network,
                                           const std::string& table) {
  ASSIGN_OR_RETURN(sys::NetlinkSocket socket,
                   sys::NetlinkSocket::Open(NETLINK_NETFILTER));
  Firewall firewall(std::move(socket), table);
  RETURN_IF_ERROR(firewall.InstallIpv4(network));
  RETURN_IF_ERROR(firewall.InstallBridge(network));
  return firewall;
}

absl::Status Firewall::InstallIpv4(const NetworkRecord& network) {
  NftBatch batch;
  batch.AddTable(table_);
  AddRawChain(batch, table_, network);
  if (network.internal) {
    AddInternalChain(batch, table_, network);
  } else {
    AddNat(batch, table_, network);
  }
  return batch.Commit(socket_);
}

// An IPv4 network passes no IPv6 between its ports: containers would otherwise
// configure each other by router advertisements.
absl::Status Firewall::InstallBridge(const NetworkRecord& network) {
  const NftTable table = {sys::NftFamily::kBridge, table_.name};
  NftBatch batch;
  batch.AddTable(table);
  batch.AddChain(
      table, {kForward, "filter", NftHook::kForward, kPriorityBridgeFilter});
  batch.AddRule(table, kForward,
                NftRule()
                    .InputInterfacePrefix(network.bridge)
                    .EtherType(ETHERTYPE_IPV6)
                    .Drop());
  const absl::Status status = batch.Commit(socket_);
  const std::optional<ErrorDetail> detail = GetErrorDetail(status);
  if (detail.has_value() &&
      (detail->error == EOPNOTSUPP || detail->error == EAFNOSUPPORT ||
       detail->error == ENOENT)) {
    return absl::OkStatus();
  }
  blocks_ipv6_ = status.ok();
  return status;
}

absl::Status Firewall::Publish(absl::Span<const PublishedPort> ports) {
  const Elements elements(ports);
  NftBatch batch;
  batch.AddElements(table_, kPorts, elements.wildcard);
  batch.AddElements(table_, kAddressPorts, elements.addressed);
  return batch.Commit(socket_);
}

absl::Status Firewall::Withdraw(absl::Span<const PublishedPort> ports) {
  const Elements elements(ports);
  NftBatch batch;
  batch.DeleteElements(table_, kPorts, elements.wildcard);
  batch.DeleteElements(table_, kAddressPorts, elements.addressed);
  return batch.Commit(socket_);
}

absl::Status Firewall::DeleteFlows(
    uint8_t protocol, uint16_t host_port,
    absl::FunctionRef<bool(const sys::ConntrackFlow&)> stale) {
  return sys::DeleteConntrackFlows(socket_, protocol, host_port, stale);
}

}  // namespace caisson
