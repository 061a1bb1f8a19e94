// One interface in one network: its address, names and published ports.
//
//   auto endpoint = caisson::NetEndpoint::Create(
//       network, std::move(ns),
//       {.name = "web", .ports = {{.host_port = 8080, .container_port = 80}}});
//   if (!endpoint.ok()) return endpoint.status();
//   // Start processes in endpoint->netns(); then, in the host's event loop:
//   //   poll endpoint->poll_fd(), and when it is readable endpoint->Forward().
//
// Published ports. A connection that arrives from outside, from another
// container or from the host at one of its own addresses is translated in the
// kernel, by one element of an nf_tables map, and shows the container the
// client's address. Note that translation comes before the host's INPUT rules:
// a published port is open whatever a firewall like ufw says there. Two kinds
// of connection are carried by the host process instead: those to 127.0.0.0/8,
// and those that arrive although somebody removed the firewall rules. They come
// in at the socket that reserves the port, and Forward() moves their data; the
// container sees the gateway as the client. A host that never calls Forward()
// loses just these.
//
// Connections between containers need no published port: they go to the other's
// address and container port directly.
//
// Thread-compatible; different endpoints are independent, also on one Network.
// No call blocks, save for the moment in which another process allocates an
// address of the same network. The calling thread must be in the network
// namespace in which the Network was opened.
#ifndef CAISSON_NET_ENDPOINT_H_
#define CAISSON_NET_ENDPOINT_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/net_namespace.h"
#include "caisson/network.h"
#include "caisson/unique_fd.h"

namespace caisson {

struct PortMapping {
  enum class Protocol { kTcp, kUdp };

  // An IPv4 address of the host. Empty: all of them. With an address of
  // 127.0.0.0/8 the port is reachable through Forward() alone, and only from
  // the host.
  std::string host_address;
  uint16_t host_port = 0;  // 0: the kernel chooses; see NetEndpoint::ports()
  uint16_t container_port = 0;
  Protocol protocol = Protocol::kTcp;
};

struct EndpointOptions {
  // A host name that no live endpoint of the network has (case is ignored).
  std::string name;
  // Further names. Several endpoints may share one.
  std::vector<std::string> aliases;
  // Empty: the next free one, in turn, so that an address is reused late.
  std::string address;
  // "02:00:00:00:00:01", a unicast address. Empty: random.
  std::string mac;
  std::vector<PortMapping> ports;
  std::string interface_name = "eth0";
  // How many TCP connections, and for each UDP port how many clients, Forward()
  // serves at a time. Further connections wait in the listen queue; a further
  // UDP client takes the place of the one that was silent longest.
  // A TCP connection takes two descriptors of the process, a UDP client one.
  int max_forwarded = 128;
};

class NetEndpoint final {
 public:
  // Gives `ns` an interface in `network` with address, default route and
  // loopback up, reserves the ports and publishes them. All or nothing: after
  // an error neither the host nor the network has anything of it left, and `ns`
  // is closed. ALREADY_EXISTS if the name, the address or a port is taken (the
  // error says by whom), RESOURCE_EXHAUSTED if the subnet or the bridge (1023
  // ports, EXFULL) is full.
  static absl::StatusOr<NetEndpoint> Create(Network& network, NetNamespace ns,
                                            const EndpointOptions& options);

  NetEndpoint(NetEndpoint&&) noexcept;
  NetEndpoint& operator=(NetEndpoint&&) noexcept;
  // As Destroy, without a report.
  ~NetEndpoint();

  absl::string_view name() const;
  absl::string_view address() const;  // "10.1.2.3"
  int prefix_length() const;          // of the network's subnet
  absl::string_view gateway() const;
  absl::string_view mac() const;
  absl::string_view interface_name() const;
  // The bridge port on the host's side, for diagnosis.
  absl::string_view host_interface() const;
  // As asked for, with the ports that the kernel chose filled in.
  const std::vector<PortMapping>& ports() const;

  // The namespace, to be joined by the processes of the container. Open until
  // Destroy.
  BorrowedFd netns() const;

  // Readable when Forward() has something to do; invalid if no port is
  // published. An epoll descriptor, level-triggered, owned by the endpoint.
  BorrowedFd poll_fd() const;

  // Accepts connections and moves data for the ports, as far as that is
  // possible without blocking, up to a bound; when more is left, poll_fd()
  // stays readable. Half-closed connections and back pressure are passed on.
  // Failures of single connections end those and are no error here.
  absl::Status Forward();

  // Descriptors that keep the endpoint when its owner is gone, for a process
  // that outlives the host (detached.h): the namespace, the lease, a use of the
  // network, firewall tables of its own and the sockets of the ports. As long
  // as all of them are open, in whatever process, everything but Forward()
  // works. FAILED_PRECONDITION once destroyed.
  absl::StatusOr<std::vector<UniqueFd>> Lifelines() const;
  // Leaves the endpoint to the lifelines. What it leaves behind if there are
  // none is what a process leaves that dies. This object is as after Destroy().
  void Disown();
  // The endpoint behind lifelines that another owner made, all of them and
  // nothing else. `network` is the one that it is in, opened here. The
  // destructor of what is returned lets the endpoint be; Destroy() gives its
  // address and names back, and its ports when the lifelines of others are
  // closed, too. INVALID_ARGUMENT if these are not lifelines of that network.
  static absl::StatusOr<NetEndpoint> Attach(Network& network,
                                            std::vector<UniqueFd> lifelines);

  // Ends forwarded connections, unpublishes and releases the ports, the address
  // and the names, so that all of them can be used again when it returns, and
  // drops the namespace. The container's processes should be dead: the
  // interface passes nothing any more. The kernel removes it in the background,
  // with the last user of the namespace. Goes on after a failure and reports
  // the first; a second call does nothing.
  absl::Status Destroy();

 private:
  class Impl;
  explicit NetEndpoint(std::unique_ptr<Impl> impl);

  std::unique_ptr<Impl> impl_;
};

}  // namespace caisson

#endif  // CAISSON_NET_ENDPOINT_H_
