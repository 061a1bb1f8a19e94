// A bridge network of this host: one subnet that endpoints join.
//
//   auto network = caisson::Network::Open({.name = "web"});
//   if (!network.ok()) return network.status();
//   auto endpoint = caisson::NetEndpoint::Create(*network, std::move(ns),
//                                                {.name = "api"});
//   for (const caisson::HostsEntry& host : network->Hosts().value()) ...
//
// A network is a bridge with the gateway's address, address leases below
// `state_dir`, and an nf_tables table of this process that masquerades what
// leaves the subnet, keeps strangers from addressing containers directly, and
// maps published ports. Several processes may have one network open; the bridge
// appears with the first and goes with the last. Every process has its own
// table, which the kernel removes when the process ends, in whatever way.
// doc/network-state.md describes all of it.
//
// The host network is that of the thread which calls Open: later calls may come
// from any thread in the same network namespace. Requires CAP_NET_ADMIN and
// CAP_NET_RAW there, and a writable /proc/sys/net.
//
// The library leaves alone what is not its own: the policy of the FORWARD
// chain, br_netfilter, route_localnet, tables and sysctls of others. It changes
// `forwarding` of its own bridge, and of the uplink only if asked to. What
// somebody else's configuration will do to the traffic is in Warnings().
//
// Not for: IPv6 (which does not pass between the ports), several hosts, name
// resolution beyond Hosts(). Neighbours on one network trust each other with
// addresses: a container with CAP_NET_RAW can send with those of another.
//
// Thread-safe. Open, the destructor, Remove and Recover wait while another
// process opens or closes a network of the same `state_dir`.
#ifndef CAISSON_NETWORK_H_
#define CAISSON_NETWORK_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/hosts_entry.h"

namespace caisson {

class NetworkState;

// Whether Open may turn on IPv4 forwarding for packets that arrive from the
// uplink (net.ipv4.conf.<uplink>.forwarding), without which no container
// reaches the outside and no published port is reachable from there.
enum class UplinkForwarding {
  kReport,  // leave it as it is; Warnings() says if it is off
  kEnable,  // set it to 1; it is not set back, others may rely on it by then
};

struct NetworkOptions {
  // 1 to 63 letters, digits, '-', '_', '.'.
  std::string name = "caisson";
  // "10.1.2.0/24", a prefix of 8 to 30. Empty: that of the existing network, or
  // a private /24 that overlaps no route or address of the host.
  std::string subnet;
  // The bridge's own address. Empty: the first of the subnet.
  std::string gateway;
  // Bytes, 68 to 65535. 0: that of the existing network, or of the uplink.
  int mtu = 0;
  // No way out of the network and none in: no masquerading, no published ports,
  // no default route. The host itself is reachable at the gateway's address.
  bool internal = false;
  // Absolute. Created with mode 0700 if missing; must belong to the caller and
  // be writable for nobody else. A tmpfs is right: nothing in it outlives a
  // boot.
  std::string state_dir = "/run/caisson/net";
  UplinkForwarding uplink_forwarding = UplinkForwarding::kReport;
};

class Network final {
 public:
  // Creates the network, or joins it if another process or object has it open;
  // a subnet, gateway, MTU or `internal` that differs from the existing one is
  // FAILED_PRECONDITION. What dead processes left of it is cleaned first. All
  // or nothing: after an error the host is as before (a forwarding switch that
  // kEnable has set stays).
  static absl::StatusOr<Network> Open(const NetworkOptions& options);

  Network(Network&&) noexcept;
  Network& operator=(Network&&) noexcept;
  // Closes this process's use of the network once its endpoints are gone too,
  // and removes the bridge and the state if it was the last use anywhere.
  ~Network();

  absl::string_view name() const;
  absl::string_view subnet() const;   // "10.1.2.0/24"
  absl::string_view gateway() const;  // "10.1.2.1"
  absl::string_view bridge() const;   // the interface's name
  int mtu() const;

  // Names and addresses of all live endpoints on the network, of every process,
  // by address. A snapshot.
  absl::StatusOr<std::vector<HostsEntry>> Hosts() const;

  // What stands in the way of this network's traffic although all calls
  // succeeded, as sentences: forwarding that is off, chains of other firewalls
  // that drop forwarded packets, a bridge that is nearly full. Looks anew at
  // every call; what could not be looked at is a sentence too.
  std::vector<std::string> Warnings() const;

  // Removes the network now: FAILED_PRECONDITION, naming them, if there are
  // endpoints on it, and if another process has it open. After success the
  // object is only good for destruction.
  absl::Status Remove();

  // Removes what processes that died left in `state_dir` and in the calling
  // thread's network namespace: interfaces, leases, bridges that nobody uses.
  // Never touches what a live process holds. Returns a sentence for every
  // object that was removed. Idempotent.
  static absl::StatusOr<std::vector<std::string>> Recover(
      const std::string& state_dir);

 private:
  friend class NetworkAccess;
  explicit Network(std::shared_ptr<NetworkState> state);

  std::shared_ptr<NetworkState> state_;
};

}  // namespace caisson

#endif  // CAISSON_NETWORK_H_
