// The nf_tables tables of one process for one network.
//
// A constant number of rules: destination translation through two maps, with
// one element per published port; masquerading; and the drops that keep others
// from addressing containers directly. The tables belong to the socket in this
// object and go with it, also when the process is killed. The layout is in
// doc/network-state.md. Thread-compatible.
#ifndef CAISSON_LIB_NET_FIREWALL_H_
#define CAISSON_LIB_NET_FIREWALL_H_

#include <cstdint>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "lib/net/ipv4.h"
#include "lib/net/network_dir.h"
#include "lib/sys/conntrack.h"
#include "lib/sys/netlink.h"
#include "lib/sys/nftables.h"

namespace caisson {

struct PublishedPort {
  uint8_t protocol = 0;      // IPPROTO_TCP or IPPROTO_UDP
  Ipv4Address host_address;  // zero: every address of the host
  uint16_t host_port = 0;
  Ipv4Address container_address;
  uint16_t container_port = 0;
};

class Firewall final {
 public:
  // Installs the tables, of which both have the name `table`.
  static absl::StatusOr<Firewall> Install(const NetworkRecord& network,
                                          const std::string& table);

  Firewall(Firewall&&) = default;
  Firewall& operator=(Firewall&&) = default;

  // Adds the map elements of `ports`, or removes them; all or nothing. Ports
  // on loopback addresses have none.
  absl::Status Publish(absl::Span<const PublishedPort> ports);
  absl::Status Withdraw(absl::Span<const PublishedPort> ports);

  // Deletes tracked flows, which would otherwise keep to the translation that
  // was right when they began.
  absl::Status DeleteFlows(
      uint8_t protocol, uint16_t host_port,
      absl::FunctionRef<bool(const sys::ConntrackFlow&)> stale);

  // To which the tables belong: they live as long as a duplicate of it.
  BorrowedFd socket() const { return socket_.fd(); }
  const std::string& table() const { return table_.name; }
  // False if the kernel's nf_tables lacks the bridge family, so that IPv6
  // between containers is not blocked.
  bool blocks_ipv6() const { return blocks_ipv6_; }

 private:
  Firewall(sys::NetlinkSocket socket, std::string table)
      : socket_(std::move(socket)),
        table_({sys::NftFamily::kIpv4, std::move(table)}) {}

  absl::Status InstallIpv4(const NetworkRecord& network);
  absl::Status InstallBridge(const NetworkRecord& network);

  sys::NetlinkSocket socket_;
  sys::NftTable table_;
  bool blocks_ipv6_ = false;
};

}  // namespace caisson

#endif  // CAISSON_LIB_NET_FIREWALL_H_
