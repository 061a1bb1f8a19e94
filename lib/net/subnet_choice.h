// Which subnet a new network gets, and what is in the way of one.
//
// Pure functions over what the caller found out about the host's routes and
// addresses. Thread-safe.
#ifndef CAISSON_LIB_NET_SUBNET_CHOICE_H_
#define CAISSON_LIB_NET_SUBNET_CHOICE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "lib/net/ipv4.h"

namespace caisson {

// A range that the host uses already.
struct OccupiedRange {
  Ipv4Subnet subnet;
  std::string what;  // `route 10.0.0.0/8 dev "tun0"`
};

// A /24 of the private ranges (10/8, then 172.16/12, then 192.168/16) that
// overlaps nothing in `occupied`. The search begins at a place that depends on
// `network_name` alone, so that a network usually gets the same subnet again.
// RESOURCE_EXHAUSTED if everything is taken, naming what takes it.
absl::StatusOr<Ipv4Subnet> ChooseSubnet(
    absl::string_view network_name, absl::Span<const OccupiedRange> occupied);

// Whether the host may use the subnet that the caller asked for. A wider range
// in `occupied` is no obstacle, because the more specific route wins, as the
// caller presumably wants; one inside `subnet` or equal to it is
// ALREADY_EXISTS and named.
absl::Status CheckSubnet(const Ipv4Subnet& subnet,
                         absl::Span<const OccupiedRange> occupied);

}  // namespace caisson

#endif  // CAISSON_LIB_NET_SUBNET_CHOICE_H_
