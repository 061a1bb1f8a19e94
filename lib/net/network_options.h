// NetworkOptions, validated and parsed.
//
// Thread-safe.
#ifndef CAISSON_LIB_NET_NETWORK_OPTIONS_H_
#define CAISSON_LIB_NET_NETWORK_OPTIONS_H_

#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "caisson/network.h"
#include "lib/net/ipv4.h"
#include "lib/net/network_dir.h"

namespace caisson {

struct ParsedOptions {
  std::optional<Ipv4Subnet> subnet;
  std::optional<Ipv4Address> gateway;
};

// INVALID_ARGUMENT, with the field and the value, if they make no sense.
absl::StatusOr<ParsedOptions> ParseNetworkOptions(
    const NetworkOptions& options);

// The gateway must be a host address of the subnet.
absl::Status CheckGateway(const Ipv4Subnet& subnet, Ipv4Address gateway);

// FAILED_PRECONDITION if the options ask for something else than the network
// that exists.
absl::Status CheckSameNetwork(const NetworkOptions& options,
                              const ParsedOptions& parsed,
                              const NetworkRecord& record);

}  // namespace caisson

#endif  // CAISSON_LIB_NET_NETWORK_OPTIONS_H_
