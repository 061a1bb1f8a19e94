#include "lib/sys/sock_diag.h"

#include <arpa/inet.h>
#include <libmnl/libmnl.h>
#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include "lib/sys/netlink.h"

namespace caisson::sys {
namespace {

std::optional<PortHolder> FindInFamily(NetlinkSocket& socket, int family,
                                       uint8_t protocol, uint16_t port) {
  NetlinkTrain train;
  nlmsghdr* message =
      train.Add(SOCK_DIAG_BY_FAMILY, 0, "SOCK_DIAG_BY_FAMILY(dump)");
  auto* request = static_cast<inet_diag_req_v2*>(
      mnl_nlmsg_put_extra_header(message, sizeof(inet_diag_req_v2)));
  request->sdiag_family = static_cast<uint8_t>(family);
  request->sdiag_protocol = protocol;
  request->idiag_states =
      protocol == IPPROTO_TCP ? 1u << TCP_LISTEN : ~uint32_t{0};
  request->id.idiag_sport = htons(port);
  std::optional<PortHolder> holder;
  const absl::Status status = socket.Dump(train, [&](const nlmsghdr& row) {
    if (mnl_nlmsg_get_payload_len(&row) < sizeof(inet_diag_msg)) return;
    const auto* found =
        static_cast<const inet_diag_msg*>(mnl_nlmsg_get_payload(&row));
    // A connected UDP socket does not keep others from the port.
    if (found->id.idiag_sport != htons(port) || found->id.idiag_dport != 0) {
      return;
    }
    char text[INET6_ADDRSTRLEN] = {};
    ::inet_ntop(found->idiag_family, found->id.idiag_src, text, sizeof(text));
    holder = PortHolder{text, found->idiag_uid, found->idiag_inode};
  });
  return status.ok() ? holder : std::nullopt;
}

}  // namespace

std::optional<PortHolder> FindPortHolder(uint8_t protocol, uint16_t port) {
  absl::StatusOr<NetlinkSocket> socket = NetlinkSocket::Open(NETLINK_SOCK_DIAG);
  if (!socket.ok()) return std::nullopt;
  for (int family : {AF_INET, AF_INET6}) {
    std::optional<PortHolder> holder =
        FindInFamily(*socket, family, protocol, port);
    if (holder.has_value()) return holder;
  }
  return std::nullopt;
}

}  // namespace caisson::sys
