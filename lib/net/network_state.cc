#include "lib/net/network_state.h"

#include <errno.h>
#include <netinet/in.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "caisson/error.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/net/arp.h"
#include "lib/net/audit.h"
#include "lib/net/host_links.h"
#include "lib/net/names.h"
#include "lib/net/network_options.h"
#include "lib/net/recover.h"
#include "lib/net/subnet_choice.h"
#include "lib/net/sysctl.h"
#include "lib/sys/boot_id.h"
#include "lib/sys/open.h"

namespace caisson {
namespace {

constexpr int kDefaultMtu = 1500;
constexpr size_t kBridgeTag = 5;  // of the 15 characters of a port's name
constexpr size_t kTableTag = 6;
constexpr int kMaxNameAttempts = 16;

bool HasErrno(const absl::Status& status, int error) {
  const std::optional<ErrorDetail> detail = GetErrorDetail(status);
  return detail.has_value() && detail->error == error;
}

absl::Status ClosedError(const NetworkRecord& record) {
  return absl::FailedPreconditionError(
      absl::StrCat("network ", Quoted(record.name), " was removed"));
}

}  // namespace

NetworkState::NetworkState(const NetworkOptions& options, StepHook hook,
                           NetworkDir dir, sys::NetlinkSocket route)
    : state_dir_(options.state_dir),
      hook_(std::move(hook)),
      dir_(std::move(dir)),
      route_(std::move(route)) {}

absl::StatusOr<std::shared_ptr<NetworkState>> NetworkState::Open(
    const NetworkOptions& options, StepHook hook) {
  RETURN_IF_ERROR(ParseNetworkOptions(options).status());
  ASSIGN_OR_RETURN(const StateRoot root,
                   StateRoot::Open(options.state_dir, /*create=*/true));
  ASSIGN_OR_RETURN(sys::NetlinkSocket route,
                   sys::NetlinkSocket::Open(NETLINK_ROUTE));
  ASSIGN_OR_RETURN(const uint64_t cookie, sys::NetNamespaceCookie(route.fd()));
  ASSIGN_OR_RETURN(const sys::NamespaceId ns,
                   sys::NetNamespaceIdOfSocket(route.fd()));
  ASSIGN_OR_RETURN(NetworkDir dir,
                   NetworkDir::Open(root, options.name, /*create=*/true));
  std::shared_ptr<NetworkState> state(new NetworkState(
      options, std::move(hook), std::move(dir), std::move(route)));
  state->netns_cookie_ = cookie;
  state->host_ns_ = ns;
  RETURN_IF_ERROR(state->Establish(options, root));
  return state;
}

NetworkState::~NetworkState() { Close().IgnoreError(); }

absl::Status NetworkState::Establish(const NetworkOptions& options,
                                     const StateRoot& root) {
  ASSIGN_OR_RETURN(const bool others, dir_.HasOtherUsers());
  absl::Cleanup undo = [&] {
    DropFirewall();
    {
      MutexLock lock(&lease_mutex_);
      leases_.reset();
    }
    dir_.Leave();
    if (!others) Dismantle(root).IgnoreError();
  };
  RETURN_IF_ERROR(Step("network.join"));
  RETURN_IF_ERROR(dir_.Join());
  RETURN_IF_ERROR(others ? JoinExisting(options) : EstablishNew(options));
  subnet_ = record_.subnet.ToString();
  gateway_ = record_.gateway.ToString();
  {
    MutexLock lock(&lease_mutex_);
    leases_.emplace(&dir_, record_, [this](const LeaseRecord& lease) {
      return RemoveLinkOf(lease);
    });
    RETURN_IF_ERROR(leases_->ReapStale().status());
  }
  RETURN_IF_ERROR(Step("network.firewall"));
  {
    MutexLock lock(&firewall_mutex_);
    ASSIGN_OR_RETURN(firewall_, Firewall::Install(record_, NewTableName()));
  }
  RETURN_IF_ERROR(Step("network.uplink"));
  if (options.uplink_forwarding == UplinkForwarding::kEnable) {
    RETURN_IF_ERROR(EnableUplink());
  }
  std::move(undo).Cancel();
  return absl::OkStatus();
}

absl::Status NetworkState::JoinExisting(const NetworkOptions& options) {
  ASSIGN_OR_RETURN(const ParsedOptions parsed, ParseNetworkOptions(options));
  ASSIGN_OR_RETURN(std::optional<NetworkRecord> record, dir_.ReadRecord());
  if (!record.has_value()) {
    return absl::DataLossError(absl::StrCat(
        "network ", Quoted(options.name),
        " is in use, but its record is missing from ", Quoted(state_dir_)));
  }
  record_ = *std::move(record);
  RETURN_IF_ERROR(CheckSameNetwork(options, parsed, record_));
  MutexLock lock(&route_mutex_);
  ASSIGN_OR_RETURN(const std::optional<int> bridge,
                   FindBridge(route_, record_));
  if (!bridge.has_value()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "network ", Quoted(options.name), " is in use, but its bridge ",
        Quoted(record_.bridge),
        " is not in this network namespace or was removed by somebody; every "
        "process that has it open must close it first"));
  }
  bridge_index_ = *bridge;
  return absl::OkStatus();
}

absl::Status NetworkState::EstablishNew(const NetworkOptions& options) {
  ASSIGN_OR_RETURN(const ParsedOptions parsed, ParseNetworkOptions(options));
  ASSIGN_OR_RETURN(const std::string boot_id, sys::BootId());
  MutexLock lock(&route_mutex_);
  // What a dead process left is in the way: its subnet, for example.
  RETURN_IF_ERROR(RemoveRemains(dir_, route_).status());
  ASSIGN_OR_RETURN(const std::vector<OccupiedRange> occupied,
                   ListOccupied(route_));
  NetworkRecord record;
  record.name = options.name;
  record.boot_id = boot_id;
  record.internal = options.internal;
  if (parsed.subnet.has_value()) {
    record.subnet = *parsed.subnet;
    RETURN_IF_ERROR(CheckSubnet(record.subnet, occupied));
  } else {
    ASSIGN_OR_RETURN(record.subnet, ChooseSubnet(options.name, occupied));
  }
  record.gateway =
      parsed.gateway.value_or(Ipv4Address{record.subnet.network.value + 1});
  record.mtu = options.mtu;
  if (record.mtu == 0) {
    ASSIGN_OR_RETURN(const std::optional<Uplink> uplink, FindUplink(route_));
    record.mtu =
        std::min(uplink.has_value() ? uplink->mtu : kDefaultMtu, 65535);
  }
  record_ = std::move(record);
  return MakeBridge();
}

// The record is written before the bridge is made, so that whoever finds the
// record after a crash finds the bridge too.
absl::Status NetworkState::MakeBridge() {
  const std::string alias = BridgeAlias(state_dir_, record_.name);
  for (int attempt = 0;; ++attempt) {
    record_.bridge = absl::StrCat("cs", RandomTag(kBridgeTag));
    record_.bridge_mac = RandomMac();
    RETURN_IF_ERROR(Step("network.record"));
    RETURN_IF_ERROR(dir_.WriteRecord(record_));
    RETURN_IF_ERROR(Step("network.bridge"));
    const absl::StatusOr<int> index = CreateBridge(route_, record_, alias);
    if (index.ok()) {
      bridge_index_ = *index;
      return absl::OkStatus();
    }
    if (!HasErrno(index.status(), EEXIST) || attempt == kMaxNameAttempts) {
      return index.status();
    }
  }
}

absl::Status NetworkState::EnableUplink() {
  if (record_.internal) return absl::OkStatus();
  MutexLock lock(&route_mutex_);
  ASSIGN_OR_RETURN(const std::optional<Uplink> uplink, FindUplink(route_));
  if (!uplink.has_value()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const bool forwards, ForwardsIpv4(uplink->interface));
  return forwards ? absl::OkStatus() : EnableForwardingIpv4(uplink->interface);
}

absl::Status NetworkState::CheckSameNamespace(BorrowedFd socket) const {
  ASSIGN_OR_RETURN(const uint64_t cookie, sys::NetNamespaceCookie(socket));
  if (cookie == netns_cookie_) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "the calling thread is in another network namespace than the one in "
      "which network ",
      Quoted(record_.name), " was opened"));
}

absl::StatusOr<Lease> NetworkState::AllocateLease(LeaseRecord record) {
  record.boot_id = record_.boot_id;
  MutexLock lock(&lease_mutex_);
  if (!leases_.has_value()) return ClosedError(record_);
  return leases_->Allocate(std::move(record));
}

absl::StatusOr<std::vector<LeaseRecord>> NetworkState::ListLeases() {
  MutexLock lock(&lease_mutex_);
  if (!leases_.has_value()) return ClosedError(record_);
  return leases_->List();
}

absl::Status NetworkState::RunHostTrain(sys::NetlinkTrain& train,
                                        sys::NetlinkSocket::Row on_reply) {
  MutexLock lock(&route_mutex_);
  return route_.Run(train, on_reply);
}

absl::Status NetworkState::AwaitPort(int port) {
  MutexLock lock(&route_mutex_);
  return sys::AwaitOperational(route_, {port, bridge_index_});
}

absl::Status NetworkState::RemoveLinkOf(const LeaseRecord& lease) {
  MutexLock lock(&route_mutex_);
  return RemoveEndpointLink(route_, record_, lease);
}

std::string NetworkState::NewTableName() const {
  return absl::StrCat("caisson-", record_.name, "-", ::getpid(), "-",
                      RandomTag(kTableTag));
}

absl::StatusOr<std::vector<UniqueFd>> NetworkState::Lifelines(
    absl::Span<const PublishedPort> ports) {
  ASSIGN_OR_RETURN(const StateRoot root,
                   StateRoot::Open(state_dir_, /*create=*/false));
  std::vector<UniqueFd> lifelines(2);
  {
    MutexLock lock(&lease_mutex_);
    if (!leases_.has_value()) return ClosedError(record_);
    ASSIGN_OR_RETURN(lifelines[0], dir_.JoinSeparately());
  }
  ASSIGN_OR_RETURN(Firewall firewall,
                   Firewall::Install(record_, NewTableName()));
  RETURN_IF_ERROR(CheckSameNamespace(firewall.socket()));
  RETURN_IF_ERROR(firewall.Publish(ports));
  ASSIGN_OR_RETURN(lifelines[1], sys::Duplicate(firewall.socket()));
  return lifelines;
}

absl::StatusOr<Lease> NetworkState::AdoptLease(UniqueFd file,
                                               const LeaseRecord& record) {
  MutexLock lock(&lease_mutex_);
  if (!leases_.has_value()) return ClosedError(record_);
  return Lease::Adopt(std::move(file), record, &dir_);
}

absl::Status NetworkState::Publish(absl::Span<const PublishedPort> ports) {
  MutexLock lock(&firewall_mutex_);
  if (!firewall_.has_value()) return ClosedError(record_);
  return firewall_->Publish(ports);
}

absl::Status NetworkState::Withdraw(absl::Span<const PublishedPort> ports) {
  MutexLock lock(&firewall_mutex_);
  // The elements went with the table.
  if (!firewall_.has_value()) return absl::OkStatus();
  return firewall_->Withdraw(ports);
}

absl::Status NetworkState::DeleteUdpFlows(absl::Span<const PublishedPort> ports,
                                          Flows flows) {
  std::vector<Ipv4Address> local;
  const bool udp = std::any_of(
      ports.begin(), ports.end(),
      [](const PublishedPort& port) { return port.protocol == IPPROTO_UDP; });
  if (!udp) return absl::OkStatus();
  if (flows == Flows::kNotTranslated) {
    MutexLock lock(&route_mutex_);
    ASSIGN_OR_RETURN(const std::vector<sys::AddressInfo> addresses,
                     sys::ListAddresses(route_));
    for (const sys::AddressInfo& address : addresses) {
      local.push_back(Ipv4Address::From(address.address));
    }
  }
  MutexLock lock(&firewall_mutex_);
  if (!firewall_.has_value()) return absl::OkStatus();
  for (const PublishedPort& port : ports) {
    if (port.protocol != IPPROTO_UDP || port.host_address.IsLoopback()) {
      continue;
    }
    RETURN_IF_ERROR(firewall_->DeleteFlows(
        port.protocol, port.host_port, [&](const sys::ConntrackFlow& flow) {
          const bool translated =
              Ipv4Address::From(flow.answers_from) == port.container_address;
          if (flows == Flows::kTranslated) return translated;
          const Ipv4Address to = Ipv4Address::From(flow.destination);
          const bool ours =
              port.host_address == Ipv4Address{}
                  ? std::find(local.begin(), local.end(), to) != local.end()
                  : to == port.host_address;
          return ours && !translated && !to.IsLoopback();
        }));
  }
  return absl::OkStatus();
}

absl::Status NetworkState::AnnounceAddress(Ipv4Address address,
                                           const sys::MacAddress& mac) {
  MutexLock lock(&route_mutex_);
  if (!arp_.valid()) {
    ASSIGN_OR_RETURN(arp_, OpenArpSocket());
  }
  return AnnounceByArp(arp_.borrow(), bridge_index_, address, mac);
}

std::vector<std::string> NetworkState::Warnings() {
  std::vector<std::string> warnings;
  {
    MutexLock lock(&route_mutex_);
    warnings = AuditHost(route_, record_);
  }
  MutexLock lock(&firewall_mutex_);
  if (firewall_.has_value() && !firewall_->blocks_ipv6()) {
    warnings.push_back(
        "the kernel has no nf_tables for bridges (CONFIG_NF_TABLES_BRIDGE): "
        "containers of the network can talk IPv6 to each other");
  }
  return warnings;
}

absl::Status NetworkState::Dismantle(const StateRoot& root) {
  absl::Status result;
  {
    MutexLock lock(&route_mutex_);
    result.Update(RemoveRemains(dir_, route_).status());
  }
  result.Update(dir_.Remove(root));
  return result;
}

void NetworkState::DropFirewall() {
  MutexLock lock(&firewall_mutex_);
  firewall_.reset();
}

absl::Status NetworkState::Close() {
  {
    MutexLock lock(&lease_mutex_);
    if (!leases_.has_value()) return absl::OkStatus();
    leases_.reset();
  }
  DropFirewall();
  const absl::StatusOr<StateRoot> root =
      StateRoot::Open(state_dir_, /*create=*/false);
  ASSIGN_OR_RETURN(const bool only_user, dir_.BecomeOnlyUser());
  if (!only_user) {
    dir_.Leave();
    return absl::OkStatus();
  }
  if (root.ok()) return Dismantle(*root);
  // Somebody deleted the state directory; the bridge is still ours.
  MutexLock lock(&route_mutex_);
  RETURN_IF_ERROR(RemoveBridge(route_, record_).status());
  return root.status();
}

absl::Status NetworkState::Remove() {
  ASSIGN_OR_RETURN(const StateRoot root,
                   StateRoot::Open(state_dir_, /*create=*/false));
  {
    MutexLock lock(&lease_mutex_);
    if (!leases_.has_value()) return ClosedError(record_);
    ASSIGN_OR_RETURN(const std::vector<LeaseRecord> live, leases_->List());
    if (!live.empty()) {
      const std::string names = absl::StrJoin(
          live, ", ", [](std::string* out, const LeaseRecord& lease) {
            absl::StrAppend(out, Quoted(lease.name), " (",
                            lease.address.ToString(), ")");
          });
      return absl::FailedPreconditionError(absl::StrCat(
          "network ", Quoted(record_.name), " has live endpoints: ", names));
    }
    ASSIGN_OR_RETURN(const bool only_user, dir_.BecomeOnlyUser());
    if (!only_user) {
      return absl::FailedPreconditionError(
          absl::StrCat("network ", Quoted(record_.name),
                       " is open in another process or object"));
    }
    leases_.reset();
  }
  DropFirewall();
  return Dismantle(root);
}

}  // namespace caisson
