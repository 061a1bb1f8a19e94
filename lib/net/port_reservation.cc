#include "lib/net/port_reservation.h"

#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/sys/sock_diag.h"

namespace caisson {
namespace {

const char* ProtocolName(PortMapping::Protocol protocol) {
  return protocol == PortMapping::Protocol::kTcp ? "tcp" : "udp";
}

std::string Describe(const PortMapping& mapping, Ipv4Address address) {
  return absl::StrCat(address.ToString(), ":", mapping.host_port, "/",
                      ProtocolName(mapping.protocol));
}

absl::StatusOr<Ipv4Address> HostAddress(absl::string_view field,
                                        const PortMapping& mapping) {
  if (mapping.host_address.empty()) return Ipv4Address{};
  return ParseIpv4Address(absl::StrCat(field, ".host_address"),
                          mapping.host_address);
}

// Abseil's mapping of errno to codes does not know what bind(2) means by them.
absl::Status WithCode(absl::StatusCode code, const absl::Status& status) {
  absl::Status result(code, status.message());
  status.ForEachPayload(
      [&result](absl::string_view url, const absl::Cord& payload) {
        result.SetPayload(url, payload);
      });
  return result;
}

std::string DescribeHolder(const PortMapping& mapping) {
  const std::optional<sys::PortHolder> holder =
      sys::FindPortHolder(ProtocolNumber(mapping.protocol), mapping.host_port);
  const std::string who =
      holder.has_value()
          ? absl::StrCat("a socket at ", holder->address, ":",
                         mapping.host_port, " of uid ", holder->uid,
                         " (socket inode ", holder->inode, ")")
          : "another socket";
  const char* flags =
      mapping.protocol == PortMapping::Protocol::kTcp ? "-ltnp" : "-lunp";
  return absl::StrCat("the port is in use by ", who, "; `ss ", flags,
                      " sport = :", mapping.host_port, "` shows the process");
}

absl::Status BindError(int error, const std::string& port,
                       const PortMapping& mapping) {
  absl::StatusCode code = absl::StatusCode::kUnknown;
  std::string hint;
  switch (error) {
    case EADDRINUSE:
      if (mapping.host_port == 0) {
        code = absl::StatusCode::kResourceExhausted;
        hint = "no ephemeral port is free (net.ipv4.ip_local_port_range)";
      } else {
        code = absl::StatusCode::kAlreadyExists;
        hint = DescribeHolder(mapping);
      }
      break;
    case EADDRNOTAVAIL:
      code = absl::StatusCode::kFailedPrecondition;
      hint = "the host has no such address";
      break;
    case EACCES:
      code = absl::StatusCode::kPermissionDenied;
      hint =
          "ports below net.ipv4.ip_unprivileged_port_start need "
          "CAP_NET_BIND_SERVICE";
      break;
  }
  const absl::Status status =
      ErrnoError(error, absl::StrCat("bind(", port, ")"),
                 {.step = "endpoint.reserve", .hint = hint});
  return code == absl::StatusCode::kUnknown ? status : WithCode(code, status);
}

absl::Status SetOption(int socket, int level, int option, const void* value,
                       socklen_t size, const char* name) {
  if (::setsockopt(socket, level, option, value, size) == 0) {
    return absl::OkStatus();
  }
  return ErrnoError(errno, absl::StrCat("setsockopt(", name, ")"),
                    {.step = "endpoint.reserve"});
}

absl::Status Configure(int socket, const PortMapping& mapping,
                       Ipv4Address address) {
  const int on = 1;
  if (mapping.protocol == PortMapping::Protocol::kTcp) {
    // Connections that wait out their end do not keep the port.
    RETURN_IF_ERROR(SetOption(socket, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on),
                              "SO_REUSEADDR"));
  } else {
    // Answers leave from the address that was asked.
    RETURN_IF_ERROR(SetOption(socket, IPPROTO_IP, IP_PKTINFO, &on, sizeof(on),
                              "IP_PKTINFO"));
  }
  if (!address.IsLoopback()) return absl::OkStatus();
  // With route_localnet, which other software sets, neighbours could reach
  // 127.0.0.0/8 of this host; what is published there is for the host alone.
  const char loopback[] = "lo";
  return SetOption(socket, SOL_SOCKET, SO_BINDTODEVICE, loopback,
                   sizeof(loopback), "SO_BINDTODEVICE");
}

}  // namespace

uint8_t ProtocolNumber(PortMapping::Protocol protocol) {
  return protocol == PortMapping::Protocol::kTcp ? IPPROTO_TCP : IPPROTO_UDP;
}

absl::Status ValidatePortMappings(absl::Span<const PortMapping> ports) {
  std::map<std::tuple<uint8_t, uint32_t, uint16_t>, size_t> seen;
  for (size_t i = 0; i < ports.size(); ++i) {
    const PortMapping& mapping = ports[i];
    const std::string field = absl::StrCat("EndpointOptions::ports[", i, "]");
    ASSIGN_OR_RETURN(const Ipv4Address address, HostAddress(field, mapping));
    if (mapping.container_port == 0) {
      return absl::InvalidArgumentError(
          absl::StrCat(field, ".container_port: 0 is no port"));
    }
    if (mapping.host_port == 0) continue;
    const auto [other, added] = seen.try_emplace(
        {ProtocolNumber(mapping.protocol), address.value, mapping.host_port},
        i);
    if (!added) {
      return absl::InvalidArgumentError(absl::StrCat(
          field, ": ", Describe(mapping, address),
          " is that of EndpointOptions::ports[", other->second, "] already"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<ReservedPort> ReservePort(const PortMapping& mapping) {
  const bool tcp = mapping.protocol == PortMapping::Protocol::kTcp;
  ReservedPort reserved;
  reserved.mapping = mapping;
  ASSIGN_OR_RETURN(reserved.host_address,
                   HostAddress("EndpointOptions::ports", mapping));
  reserved.socket = UniqueFd(::socket(
      AF_INET, (tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_NONBLOCK | SOCK_CLOEXEC,
      0));
  const int socket = reserved.socket.get();
  if (socket < 0) {
    return ErrnoError(errno, "socket(AF_INET)", {.step = "endpoint.reserve"});
  }
  RETURN_IF_ERROR(Configure(socket, mapping, reserved.host_address));
  const std::string port = Describe(mapping, reserved.host_address);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr = reserved.host_address.in();
  address.sin_port = htons(mapping.host_port);
  socklen_t length = sizeof(address);
  if (::bind(socket, reinterpret_cast<sockaddr*>(&address), length) != 0 ||
      (tcp && ::listen(socket, SOMAXCONN) != 0)) {
    return BindError(errno, port, mapping);
  }
  if (::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &length) !=
      0) {
    return ErrnoError(errno, "getsockname()", {.step = "endpoint.reserve"});
  }
  reserved.mapping.host_port = ntohs(address.sin_port);
  return reserved;
}

}  // namespace caisson
