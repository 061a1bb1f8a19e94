// Entries of the connection tracker, over ctnetlink.
//
// Thread-safe; the socket is thread-compatible. Needs CONFIG_NF_CT_NETLINK
// (module nf_conntrack_netlink). Source:
// include/uapi/linux/netfilter/nfnetlink_conntrack.h.
#ifndef CAISSON_LIB_SYS_CONNTRACK_H_
#define CAISSON_LIB_SYS_CONNTRACK_H_

#include <netinet/in.h>

#include <cstdint>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "lib/sys/netlink.h"

namespace caisson::sys {

// One tracked IPv4 flow: what the first packet was addressed to and who answers
// (another address if the destination was translated).
struct ConntrackFlow {
  in_addr destination = {};
  uint16_t destination_port = 0;  // host byte order
  in_addr answers_from = {};
};

// Deletes the flows of `protocol` (IPPROTO_UDP, ...) whose first packet went to
// port `destination_port` and for which `stale` says so.
// The kernel walks its whole table, so the cost grows with the table's size. A
// flow that ends meanwhile is no error. `socket` is a NETLINK_NETFILTER one.
absl::Status DeleteConntrackFlows(
    NetlinkSocket& socket, uint8_t protocol, uint16_t destination_port,
    absl::FunctionRef<bool(const ConntrackFlow&)> stale);

}  // namespace caisson::sys

#endif  // CAISSON_LIB_SYS_CONNTRACK_H_
