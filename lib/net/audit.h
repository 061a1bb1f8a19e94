// What on this host stands in the way of a network's traffic.
//
// Thread-compatible: uses the given socket.
#ifndef CAISSON_LIB_NET_AUDIT_H_
#define CAISSON_LIB_NET_AUDIT_H_

#include <string>
#include <vector>

#include "lib/net/network_dir.h"
#include "lib/sys/netlink.h"

namespace caisson {

// Sentences; what cannot be looked at is one, too.
std::vector<std::string> AuditHost(sys::NetlinkSocket& route,
                                   const NetworkRecord& network);

}  // namespace caisson

#endif  // CAISSON_LIB_NET_AUDIT_H_
