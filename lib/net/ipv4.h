// IPv4 addresses and subnets as values.
//
// Thread-compatible.
#ifndef CAISSON_LIB_NET_IPV4_H_
#define CAISSON_LIB_NET_IPV4_H_

#include <netinet/in.h>

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace caisson {

struct Ipv4Address {
  uint32_t value = 0;  // host byte order

  static Ipv4Address From(in_addr address) { return {ntohl(address.s_addr)}; }
  in_addr in() const { return {htonl(value)}; }
  std::string ToString() const;

  bool IsLoopback() const { return value >> 24 == 127; }
  bool operator==(Ipv4Address other) const { return value == other.value; }
  bool operator!=(Ipv4Address other) const { return value != other.value; }
  bool operator<(Ipv4Address other) const { return value < other.value; }
};

// A network address with its prefix length; the host bits are zero.
struct Ipv4Subnet {
  Ipv4Address network;
  int prefix_length = 0;

  // The subnet of `prefix_length` that `address` lies in.
  static Ipv4Subnet Around(Ipv4Address address, int prefix_length);

  uint32_t mask() const;
  Ipv4Address broadcast() const { return {network.value | ~mask()}; }
  bool Contains(Ipv4Address address) const;
  bool Overlaps(const Ipv4Subnet& other) const;
  std::string ToString() const;  // "10.1.2.0/24"

  bool operator==(const Ipv4Subnet& other) const {
    return network == other.network && prefix_length == other.prefix_length;
  }
};

// Both parse strictly the form that ToString writes; `field` names the input in
// errors.
absl::StatusOr<Ipv4Address> ParseIpv4Address(absl::string_view field,
                                             absl::string_view text);
absl::StatusOr<Ipv4Subnet> ParseIpv4Subnet(absl::string_view field,
                                           absl::string_view text);

}  // namespace caisson

#endif  // CAISSON_LIB_NET_IPV4_H_
