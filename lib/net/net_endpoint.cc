#include "caisson/net_endpoint.h"

#include <errno.h>
#include <fcntl.h>

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "caisson/error.h"
#include "lib/base/errno_error.h"
#include "lib/base/record.h"
#include "lib/base/status_macros.h"
#include "lib/net/endpoint_note.h"
#include "lib/net/forwarder.h"
#include "lib/net/host_links.h"
#include "lib/net/ipv4.h"
#include "lib/net/lease.h"
#include "lib/net/names.h"
#include "lib/net/network_state.h"
#include "lib/net/port_reservation.h"
#include "lib/sys/memfd.h"
#include "lib/sys/netlink.h"
#include "lib/sys/open.h"
#include "lib/sys/rtnetlink.h"

namespace caisson {
namespace {

constexpr int kLoopbackIndex = 1;  // in every network namespace
constexpr size_t kPortTag = 8;     // of the 15 characters of a port's name
constexpr int kMaxForwardedLimit = 65536;

// The lifelines of an endpoint. Behind them the sockets of its ports.
enum Lifeline : size_t {
  kNote,
  kNamespace,
  kLease,
  kUse,
  kTables,
  kFirstSocket
};

// A file from its beginning, whoever read from it before.
absl::StatusOr<std::string> ReadBehind(const UniqueFd& fd) {
  return sys::ReadFileAt(BorrowedFd(AT_FDCWD),
                         absl::StrCat("/proc/self/fd/", fd.get()),
                         /*resolve=*/0, Record::kMaxSize);
}

absl::Status ValidateOptions(const EndpointOptions& options,
                             const NetworkRecord& network) {
  RETURN_IF_ERROR(ValidateHostName("EndpointOptions::name", options.name));
  for (size_t i = 0; i < options.aliases.size(); ++i) {
    RETURN_IF_ERROR(ValidateHostName(
        absl::StrCat("EndpointOptions::aliases[", i, "]"), options.aliases[i]));
  }
  RETURN_IF_ERROR(ValidateInterfaceName("EndpointOptions::interface_name",
                                        options.interface_name));
  RETURN_IF_ERROR(ValidatePortMappings(options.ports));
  if (network.internal && !options.ports.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("EndpointOptions::ports: network ", Quoted(network.name),
                     " is internal, nothing can be published there"));
  }
  if (options.max_forwarded < 1 || options.max_forwarded > kMaxForwardedLimit) {
    return absl::InvalidArgumentError(
        absl::StrCat("EndpointOptions::max_forwarded: ", options.max_forwarded,
                     " is not in 1 to ", kMaxForwardedLimit));
  }
  return absl::OkStatus();
}

// Adds what EEXIST and EXFULL mean for a new veth pair.
absl::Status ExplainVeth(const absl::Status& status,
                         const EndpointOptions& options) {
  const std::optional<ErrorDetail> detail = GetErrorDetail(status);
  if (!detail.has_value()) return status;
  if (detail->error == EXFULL) {
    return ErrnoError(EXFULL, "RTM_NEWLINK(veth)",
                      {.hint = "the bridge has its 1023 ports; endpoints "
                               "beyond that need another network"});
  }
  if (detail->error == EEXIST) {
    return ErrnoError(
        EEXIST, "RTM_NEWLINK(veth)",
        {.hint = absl::StrCat("the namespace has an interface ",
                              Quoted(options.interface_name), " already")});
  }
  return status;
}

}  // namespace

class NetEndpoint::Impl final {
 public:
  Impl(std::shared_ptr<NetworkState> network, NetNamespace ns,
       const EndpointOptions& options)
      : network_(std::move(network)), ns_(std::move(ns)), options_(options) {}
  ~Impl() {
    if (attached_) Disown();
    Destroy().IgnoreError();
  }

  absl::Status SetUp();
  absl::StatusOr<std::vector<UniqueFd>> Lifelines() const;
  void Disown();
  // Takes what Lifelines() made, instead of SetUp().
  absl::Status Attach(const EndpointNote& note, const LeaseRecord& record,
                      std::vector<UniqueFd> lifelines);
  absl::Status Destroy() { return TearDown(/*wait_for_link=*/false); }

 private:
  friend class NetEndpoint;

  using Action = absl::Status (Impl::*)();
  struct NamedStep {
    const char* name;
    Action action;
  };
  static const NamedStep kSteps[];

  absl::Status ParseOptions();
  absl::Status FindLink();
  absl::Status AdoptNamespace();
  absl::Status ReservePorts();
  absl::Status TakeLease();
  absl::Status MakeLink();
  absl::Status ConfigureInterface();
  absl::Status ConfigureBridgePort();
  void ListPublished();
  absl::Status Publish();
  absl::Status DeleteStaleFlows();
  absl::Status Announce();
  absl::Status StartForwarder();

  absl::Status TearDown(bool wait_for_link);
  absl::Status Unpublish();
  absl::Status ReleaseLink(bool wait_for_link);

  // Empty once the endpoint is destroyed.
  std::shared_ptr<NetworkState> network_;
  NetNamespace ns_;
  const EndpointOptions options_;

  LeaseRecord record_;
  sys::MacAddress mac_ = {};
  Lease lease_;
  std::vector<ReservedPort> reserved_;  // until the forwarder has them
  std::vector<PortMapping> ports_;
  std::vector<PublishedPort> published_;
  std::unique_ptr<Forwarder> forwarder_;
  int host_link_ = 0;
  bool linked_ = false;
  bool announced_ports_ = false;  // the map elements are there
  bool attached_ = false;         // somebody else made it
  UniqueFd tables_;               // of one that is attached
  std::string address_;
  std::string gateway_;
  std::string mac_text_;
  int prefix_length_ = 0;
};

const NetEndpoint::Impl::NamedStep NetEndpoint::Impl::kSteps[] = {
    {"endpoint.options", &Impl::ParseOptions},
    {"endpoint.namespace", &Impl::AdoptNamespace},
    {"endpoint.reserve", &Impl::ReservePorts},
    {"endpoint.lease", &Impl::TakeLease},
    {"endpoint.link", &Impl::MakeLink},
    {"endpoint.interface", &Impl::ConfigureInterface},
    {"endpoint.port", &Impl::ConfigureBridgePort},
    {"endpoint.publish", &Impl::Publish},
    {"endpoint.flows", &Impl::DeleteStaleFlows},
    {"endpoint.announce", &Impl::Announce},
    {"endpoint.forward", &Impl::StartForwarder},
};

absl::Status NetEndpoint::Impl::SetUp() {
  for (const NamedStep& step : kSteps) {
    absl::Status status = network_->Step(step.name);
    if (status.ok()) status = (this->*step.action)();
    if (status.ok()) continue;
    TearDown(/*wait_for_link=*/true).IgnoreError();
    return WithStep(
        Annotate(status, absl::StrCat("endpoint ", Quoted(options_.name))),
        step.name);
  }
  return absl::OkStatus();
}

absl::Status NetEndpoint::Impl::ParseOptions() {
  RETURN_IF_ERROR(ValidateOptions(options_, network_->record()));
  gateway_ = network_->gateway();
  prefix_length_ = network_->record().subnet.prefix_length;
  record_.name = options_.name;
  record_.aliases = options_.aliases;
  if (!options_.address.empty()) {
    ASSIGN_OR_RETURN(
        record_.address,
        ParseIpv4Address("EndpointOptions::address", options_.address));
    if (record_.address == Ipv4Address{}) {
      return absl::InvalidArgumentError(
          "EndpointOptions::address: 0.0.0.0 is not an endpoint's address");
    }
  }
  mac_ = RandomMac();
  if (!options_.mac.empty()) {
    ASSIGN_OR_RETURN(mac_, ParseMac("EndpointOptions::mac", options_.mac));
  }
  mac_text_ = sys::FormatMac(mac_);
  record_.veth = absl::StrCat(network_->record().bridge, RandomTag(kPortTag));
  record_.veth_mac = RandomMac();
  return absl::OkStatus();
}

// A mistake here would configure the host's own interfaces.
absl::Status NetEndpoint::Impl::AdoptNamespace() {
  ASSIGN_OR_RETURN(record_.ns, sys::NetNamespaceIdOf(ns_.ns.borrow()));
  ASSIGN_OR_RETURN(const sys::NamespaceId socket_ns,
                   sys::NetNamespaceIdOfSocket(ns_.rtnetlink.borrow()));
  if (!(socket_ns == record_.ns)) {
    return absl::InvalidArgumentError(
        "NetNamespace::rtnetlink was made in another network namespace than "
        "NetNamespace::ns");
  }
  if (record_.ns == network_->host_ns()) {
    return absl::InvalidArgumentError(
        "NetNamespace::ns is the host's own network namespace");
  }
  return absl::OkStatus();
}

absl::Status NetEndpoint::Impl::ReservePorts() {
  for (const PortMapping& mapping : options_.ports) {
    ASSIGN_OR_RETURN(ReservedPort reserved, ReservePort(mapping));
    if (reserved_.empty()) {
      RETURN_IF_ERROR(network_->CheckSameNamespace(reserved.socket.borrow()));
    }
    ports_.push_back(reserved.mapping);
    reserved_.push_back(std::move(reserved));
  }
  return absl::OkStatus();
}

absl::Status NetEndpoint::Impl::TakeLease() {
  ASSIGN_OR_RETURN(lease_, network_->AllocateLease(record_));
  record_.address = lease_.address();
  address_ = record_.address.ToString();
  return absl::OkStatus();
}

absl::Status NetEndpoint::Impl::MakeLink() {
  sys::VethRequest request;
  request.name = record_.veth;
  request.mac = record_.veth_mac;
  request.master = network_->bridge_index();
  request.mtu = static_cast<uint32_t>(network_->record().mtu);
  request.peer_name = options_.interface_name;
  request.peer_mac = mac_;
  request.peer_namespace = ns_.ns.borrow();
  sys::NetlinkTrain train;
  sys::AddVeth(train, request);
  sys::SetLinkUp(train, record_.veth);
  sys::AskLink(train, record_.veth);
  linked_ = true;
  const absl::Status status =
      network_->RunHostTrain(train, [this](const nlmsghdr& reply) {
        const std::optional<sys::LinkInfo> link = sys::ParseLink(reply);
        if (link.has_value()) host_link_ = link->index;
      });
  return ExplainVeth(status, options_);
}

absl::Status NetEndpoint::Impl::ConfigureInterface() {
  ASSIGN_OR_RETURN(
      sys::NetlinkSocket inside,
      sys::NetlinkSocket::Adopt(std::move(ns_.rtnetlink), NETLINK_ROUTE));
  int link = 0;
  sys::NetlinkTrain first;
  sys::SetLinkUp(first, kLoopbackIndex);
  sys::AskLink(first, options_.interface_name);
  RETURN_IF_ERROR(inside.Run(first, [&link](const nlmsghdr& reply) {
    const std::optional<sys::LinkInfo> info = sys::ParseLink(reply);
    if (info.has_value()) link = info->index;
  }));
  const NetworkRecord& network = network_->record();
  sys::NetlinkTrain second;
  sys::SetLinkUp(second, link);
  sys::AddAddress(second, link, record_.address.in(),
                  network.subnet.prefix_length);
  // The first packets need no ARP, and no neighbour can pose as the gateway.
  sys::SetNeighbour(second, link, network.gateway.in(), network.bridge_mac);
  if (!network.internal) {
    sys::AddDefaultRoute(second, link, network.gateway.in());
  }
  return inside.Run(second);
}

absl::Status NetEndpoint::Impl::ConfigureBridgePort() {
  sys::NetlinkTrain train;
  sys::SetNeighbour(train, network_->bridge_index(), record_.address.in(),
                    mac_);
  // With br_netfilter a container that connects to its own published port is
  // translated on the bridge, and goes back through its own port.
  if (!options_.ports.empty()) sys::SetHairpin(train, host_link_);
  RETURN_IF_ERROR(network_->RunHostTrain(train));
  return network_->AwaitPort(host_link_);
}

void NetEndpoint::Impl::ListPublished() {
  for (const ReservedPort& reserved : reserved_) {
    PublishedPort port;
    port.protocol = ProtocolNumber(reserved.mapping.protocol);
    port.host_address = reserved.host_address;
    port.host_port = reserved.mapping.host_port;
    port.container_address = record_.address;
    port.container_port = reserved.mapping.container_port;
    published_.push_back(port);
  }
}

absl::Status NetEndpoint::Impl::Publish() {
  ListPublished();
  if (published_.empty()) return absl::OkStatus();
  RETURN_IF_ERROR(network_->Publish(published_));
  announced_ports_ = true;
  return absl::OkStatus();
}

absl::Status NetEndpoint::Impl::DeleteStaleFlows() {
  return network_->DeleteUdpFlows(published_,
                                  NetworkState::Flows::kNotTranslated);
}

absl::Status NetEndpoint::Impl::Announce() {
  return lease_.reused() ? network_->AnnounceAddress(record_.address, mac_)
                         : absl::OkStatus();
}

absl::Status NetEndpoint::Impl::StartForwarder() {
  if (reserved_.empty()) return absl::OkStatus();
  std::vector<ForwardedPort> ports;
  for (ReservedPort& reserved : reserved_) {
    ForwardedPort port;
    port.socket = std::move(reserved.socket);
    port.tcp = reserved.mapping.protocol == PortMapping::Protocol::kTcp;
    port.target.sin_family = AF_INET;
    port.target.sin_addr = record_.address.in();
    port.target.sin_port = htons(reserved.mapping.container_port);
    ports.push_back(std::move(port));
  }
  reserved_.clear();
  ForwardLimits limits;
  limits.max_connections = static_cast<size_t>(options_.max_forwarded);
  ASSIGN_OR_RETURN(forwarder_, Forwarder::Create(std::move(ports), limits));
  return absl::OkStatus();
}

absl::StatusOr<std::vector<UniqueFd>> NetEndpoint::Impl::Lifelines() const {
  if (network_ == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat(
        "endpoint ", Quoted(options_.name), " was destroyed or disowned"));
  }
  std::vector<UniqueFd> lifelines(kLease);  // note and namespace
  const NetworkRecord& network = network_->record();
  ASSIGN_OR_RETURN(
      lifelines[kNote],
      sys::SealedMemfd(
          "caisson-endpoint",
          WriteEndpointNote({.network = network.name,
                             .bridge = network.bridge,
                             .mac = mac_text_,
                             .interface_name = options_.interface_name,
                             .ports = ports_})));
  ASSIGN_OR_RETURN(lifelines[kNamespace], sys::Duplicate(ns_.ns.borrow()));
  ASSIGN_OR_RETURN(UniqueFd lease, sys::Duplicate(lease_.fd()));
  lifelines.push_back(std::move(lease));
  ASSIGN_OR_RETURN(std::vector<UniqueFd> shared,
                   network_->Lifelines(published_));
  for (UniqueFd& lifeline : shared) lifelines.push_back(std::move(lifeline));
  if (forwarder_ == nullptr) return lifelines;
  for (const BorrowedFd socket : forwarder_->sockets()) {
    ASSIGN_OR_RETURN(UniqueFd copy, sys::Duplicate(socket));
    lifelines.push_back(std::move(copy));
  }
  return lifelines;
}

void NetEndpoint::Impl::Disown() {
  if (network_ == nullptr) return;
  forwarder_.reset();
  if (announced_ports_) network_->Withdraw(published_).IgnoreError();
  announced_ports_ = false;
  linked_ = false;
  lease_.Disown();
  ns_.ns.reset();
  tables_.reset();
  network_.reset();
}

absl::Status NetEndpoint::Impl::FindLink() {
  sys::NetlinkTrain train;
  sys::AskLink(train, record_.veth);
  return network_->RunHostTrain(train, [this](const nlmsghdr& reply) {
    const std::optional<sys::LinkInfo> link = sys::ParseLink(reply);
    if (link.has_value()) host_link_ = link->index;
  });
}

absl::Status NetEndpoint::Impl::Attach(const EndpointNote& note,
                                       const LeaseRecord& record,
                                       std::vector<UniqueFd> lifelines) {
  attached_ = true;
  record_ = record;
  gateway_ = network_->gateway();
  prefix_length_ = network_->record().subnet.prefix_length;
  address_ = record_.address.ToString();
  mac_text_ = note.mac;
  ASSIGN_OR_RETURN(mac_, ParseMac("mac", note.mac));
  ports_ = note.ports;
  ns_.ns = std::move(lifelines[kNamespace]);
  ASSIGN_OR_RETURN(const sys::NamespaceId ns,
                   sys::NetNamespaceIdOf(ns_.ns.borrow()));
  if (!(ns == record_.ns)) {
    return absl::InvalidArgumentError(
        "NetEndpoint::Attach: the namespace is not that of the lease");
  }
  RETURN_IF_ERROR(FindLink());
  ASSIGN_OR_RETURN(lease_,
                   network_->AdoptLease(std::move(lifelines[kLease]), record_));
  linked_ = true;
  tables_ = std::move(lifelines[kTables]);
  for (size_t i = 0; i < ports_.size(); ++i) {
    ReservedPort reserved;
    reserved.mapping = ports_[i];
    if (!ports_[i].host_address.empty()) {
      ASSIGN_OR_RETURN(reserved.host_address,
                       ParseIpv4Address("port", ports_[i].host_address));
    }
    reserved.socket = std::move(lifelines[kFirstSocket + i]);
    reserved_.push_back(std::move(reserved));
  }
  ListPublished();
  return StartForwarder();
}

absl::Status NetEndpoint::Impl::Unpublish() {
  if (!announced_ports_ && !attached_) return absl::OkStatus();
  // The elements of one that is attached go with the tables.
  tables_.reset();
  absl::Status result;
  if (announced_ports_) result = network_->Withdraw(published_);
  announced_ports_ = false;
  result.Update(
      network_->DeleteUdpFlows(published_, NetworkState::Flows::kTranslated));
  return result;
}

// Deleting a veth pair takes the kernel some 16 ms, but a namespace that nobody
// uses any more takes its interfaces along in the background.
absl::Status NetEndpoint::Impl::ReleaseLink(bool wait_for_link) {
  if (!linked_) return absl::OkStatus();
  linked_ = false;
  if (wait_for_link) return network_->RemoveLinkOf(record_);
  sys::NetlinkTrain train;
  sys::DisableBridgePort(train, host_link_);
  // The interface is gone, or on its way, if the namespace is.
  for (int error : {ENODEV, ENETDOWN, EOPNOTSUPP}) train.Tolerate(error);
  sys::DeleteNeighbour(train, network_->bridge_index(), record_.address.in());
  train.Tolerate(ENOENT);
  return network_->RunHostTrain(train);
}

absl::Status NetEndpoint::Impl::TearDown(bool wait_for_link) {
  // Another host that attached to it was faster.
  if (attached_ && lease_.IsGone()) Disown();
  if (network_ == nullptr) return absl::OkStatus();
  absl::Status result = network_->Step("destroy.forward");
  forwarder_.reset();
  result.Update(network_->Step("destroy.unpublish"));
  result.Update(Unpublish());
  reserved_.clear();
  result.Update(network_->Step("destroy.link"));
  result.Update(ReleaseLink(wait_for_link));
  result.Update(network_->Step("destroy.lease"));
  result.Update(lease_.Release());
  result.Update(network_->Step("destroy.namespace"));
  ns_.rtnetlink.reset();
  ns_.ns.reset();
  result.Update(network_->Step("destroy.done"));
  // The network goes with its last user, for which everything above is done.
  network_.reset();
  return result;
}

NetEndpoint::NetEndpoint(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
NetEndpoint::NetEndpoint(NetEndpoint&&) noexcept = default;
NetEndpoint& NetEndpoint::operator=(NetEndpoint&&) noexcept = default;
NetEndpoint::~NetEndpoint() = default;

absl::StatusOr<NetEndpoint> NetEndpoint::Create(
    Network& network, NetNamespace ns, const EndpointOptions& options) {
  auto impl = std::make_unique<Impl>(NetworkAccess::State(network),
                                     std::move(ns), options);
  RETURN_IF_ERROR(impl->SetUp());
  return NetEndpoint(std::move(impl));
}

absl::string_view NetEndpoint::name() const { return impl_->options_.name; }
absl::string_view NetEndpoint::address() const { return impl_->address_; }
int NetEndpoint::prefix_length() const { return impl_->prefix_length_; }
absl::string_view NetEndpoint::gateway() const { return impl_->gateway_; }
absl::string_view NetEndpoint::mac() const { return impl_->mac_text_; }
absl::string_view NetEndpoint::interface_name() const {
  return impl_->options_.interface_name;
}
absl::string_view NetEndpoint::host_interface() const {
  return impl_->record_.veth;
}
const std::vector<PortMapping>& NetEndpoint::ports() const {
  return impl_->ports_;
}
BorrowedFd NetEndpoint::netns() const { return impl_->ns_.ns.borrow(); }

BorrowedFd NetEndpoint::poll_fd() const {
  return impl_->forwarder_ == nullptr ? BorrowedFd() : impl_->forwarder_->fd();
}

absl::Status NetEndpoint::Forward() {
  return impl_->forwarder_ == nullptr ? absl::OkStatus()
                                      : impl_->forwarder_->RunOnce();
}

absl::Status NetEndpoint::Destroy() { return impl_->Destroy(); }

absl::StatusOr<std::vector<UniqueFd>> NetEndpoint::Lifelines() const {
  return impl_->Lifelines();
}

void NetEndpoint::Disown() { impl_->Disown(); }

absl::StatusOr<NetEndpoint> NetEndpoint::Attach(
    Network& network, std::vector<UniqueFd> lifelines) {
  const std::shared_ptr<NetworkState>& state = NetworkAccess::State(network);
  if (lifelines.size() < kFirstSocket) {
    return absl::InvalidArgumentError(
        "NetEndpoint::Attach: these are not all lifelines of an endpoint");
  }
  ASSIGN_OR_RETURN(const std::string text, ReadBehind(lifelines[kNote]));
  ASSIGN_OR_RETURN(const EndpointNote note, ReadEndpointNote(text));
  if (note.network != state->record().name ||
      note.bridge != state->record().bridge ||
      lifelines.size() != kFirstSocket + note.ports.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("NetEndpoint::Attach: these are not the lifelines of an "
                     "endpoint of network ",
                     Quoted(state->record().name), ", but of one of network ",
                     Quoted(note.network)));
  }
  EndpointOptions options;
  ASSIGN_OR_RETURN(const std::string record_text,
                   ReadBehind(lifelines[kLease]));
  ASSIGN_OR_RETURN(const LeaseRecord record, LeaseRecord::Parse(record_text));
  options.name = record.name;
  options.aliases = record.aliases;
  options.interface_name = note.interface_name;
  auto impl = std::make_unique<Impl>(state, NetNamespace{}, options);
  RETURN_IF_ERROR(impl->Attach(note, record, std::move(lifelines)));
  return NetEndpoint(std::move(impl));
}

}  // namespace caisson
