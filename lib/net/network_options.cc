#include "lib/net/network_options.h"

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/net/names.h"

namespace caisson {
namespace {

constexpr int kMinPrefix = 8;
constexpr int kMaxPrefix = 30;
constexpr int kMinMtu = 68;  // RFC 791
constexpr int kMaxMtu = 65535;

absl::Status Differs(const NetworkRecord& record, absl::string_view field,
                     const std::string& wanted, const std::string& existing) {
  return absl::FailedPreconditionError(
      absl::StrCat("NetworkOptions::", field, ": network ", Quoted(record.name),
                   " is in use with ", existing, ", not ", wanted));
}

}  // namespace

absl::StatusOr<ParsedOptions> ParseNetworkOptions(
    const NetworkOptions& options) {
  RETURN_IF_ERROR(ValidateNetworkName("NetworkOptions::name", options.name));
  ParsedOptions parsed;
  if (!options.subnet.empty()) {
    ASSIGN_OR_RETURN(parsed.subnet,
                     ParseIpv4Subnet("NetworkOptions::subnet", options.subnet));
    if (parsed.subnet->prefix_length < kMinPrefix ||
        parsed.subnet->prefix_length > kMaxPrefix) {
      return absl::InvalidArgumentError(absl::StrCat(
          "NetworkOptions::subnet: ", Quoted(options.subnet),
          " has not a prefix of ", kMinPrefix, " to ", kMaxPrefix));
    }
    const uint32_t first = parsed.subnet->network.value >> 24;
    if (first == 0 || first == 127 || first >= 224) {
      return absl::InvalidArgumentError(
          absl::StrCat("NetworkOptions::subnet: ", Quoted(options.subnet),
                       " is not of addresses that hosts can have"));
    }
  }
  if (!options.gateway.empty()) {
    ASSIGN_OR_RETURN(parsed.gateway, ParseIpv4Address("NetworkOptions::gateway",
                                                      options.gateway));
    if (!parsed.subnet.has_value()) {
      return absl::InvalidArgumentError(
          absl::StrCat("NetworkOptions::gateway: ", Quoted(options.gateway),
                       " needs NetworkOptions::subnet"));
    }
    RETURN_IF_ERROR(CheckGateway(*parsed.subnet, *parsed.gateway));
  }
  if (options.mtu != 0 && (options.mtu < kMinMtu || options.mtu > kMaxMtu)) {
    return absl::InvalidArgumentError(
        absl::StrCat("NetworkOptions::mtu: ", options.mtu, " is not in ",
                     kMinMtu, " to ", kMaxMtu));
  }
  return parsed;
}

absl::Status CheckGateway(const Ipv4Subnet& subnet, Ipv4Address gateway) {
  if (subnet.Contains(gateway) && gateway != subnet.network &&
      gateway != subnet.broadcast()) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("NetworkOptions::gateway: ", gateway.ToString(),
                   " is not a host address of ", subnet.ToString()));
}

absl::Status CheckSameNetwork(const NetworkOptions& options,
                              const ParsedOptions& parsed,
                              const NetworkRecord& record) {
  if (parsed.subnet.has_value() && !(*parsed.subnet == record.subnet)) {
    return Differs(record, "subnet", options.subnet, record.subnet.ToString());
  }
  if (parsed.gateway.has_value() && *parsed.gateway != record.gateway) {
    return Differs(record, "gateway", options.gateway,
                   record.gateway.ToString());
  }
  if (options.mtu != 0 && options.mtu != record.mtu) {
    return Differs(record, "mtu", absl::StrCat(options.mtu),
                   absl::StrCat(record.mtu));
  }
  if (options.internal != record.internal) {
    return Differs(record, "internal", options.internal ? "true" : "false",
                   record.internal ? "true" : "false");
  }
  return absl::OkStatus();
}

}  // namespace caisson
