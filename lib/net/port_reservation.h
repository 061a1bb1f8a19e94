// Host ports, reserved by sockets that are bound to them.
//
// The kernel knows best which ports are free, and frees them with the process.
// TCP sockets listen, so that nobody else can; both kinds receive what the
// firewall does not translate (forwarder.h). Thread-safe.
#ifndef CAISSON_LIB_NET_PORT_RESERVATION_H_
#define CAISSON_LIB_NET_PORT_RESERVATION_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "caisson/net_endpoint.h"
#include "caisson/unique_fd.h"
#include "lib/net/ipv4.h"

namespace caisson {

struct ReservedPort {
  PortMapping mapping;  // with the port that the kernel chose, if it did
  Ipv4Address host_address;
  UniqueFd socket;  // non-blocking
};

// IPPROTO_TCP or IPPROTO_UDP.
uint8_t ProtocolNumber(PortMapping::Protocol protocol);

// INVALID_ARGUMENT, naming the field: an address that is none, a container port
// of zero, the same port twice.
absl::Status ValidatePortMappings(absl::Span<const PortMapping> ports);

// Reserves the port of one valid mapping. ALREADY_EXISTS if somebody has it,
// naming the socket in the way.
absl::StatusOr<ReservedPort> ReservePort(const PortMapping& mapping);

}  // namespace caisson

#endif  // CAISSON_LIB_NET_PORT_RESERVATION_H_
