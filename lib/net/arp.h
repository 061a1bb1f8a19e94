// Unsolicited ARP.
#ifndef CAISSON_LIB_NET_ARP_H_
#define CAISSON_LIB_NET_ARP_H_

#include "absl/status/status.h"
#include "caisson/unique_fd.h"
#include "lib/net/ipv4.h"
#include "lib/sys/rtnetlink.h"

namespace caisson {

// A packet socket that only sends; needs CAP_NET_RAW.
absl::StatusOr<UniqueFd> OpenArpSocket();

// Broadcasts on interface `link` that `address` is at `mac`: a gratuitous ARP
// reply, RFC 5227. Whoever knows the address then knows it there.
absl::Status AnnounceByArp(BorrowedFd socket, int link, Ipv4Address address,
                           const sys::MacAddress& mac);

}  // namespace caisson

#endif  // CAISSON_LIB_NET_ARP_H_
