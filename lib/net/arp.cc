#include "lib/net/arp.h"

#include <errno.h>
#include <net/ethernet.h>
#include <net/if_arp.h>
#include <netinet/if_ether.h>
#include <netpacket/packet.h>
#include <string.h>
#include <sys/socket.h>

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"

namespace caisson {

absl::StatusOr<UniqueFd> OpenArpSocket() {
  UniqueFd socket(::socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket.valid()) {
    return ErrnoError(errno, "socket(AF_PACKET)",
                      {.step = "arp", .hint = "it needs CAP_NET_RAW"});
  }
  return socket;
}

absl::Status AnnounceByArp(BorrowedFd socket, int link, Ipv4Address address,
                           const sys::MacAddress& mac) {
  const in_addr ip = address.in();
  ether_arp arp = {};
  arp.ea_hdr.ar_hrd = htons(ARPHRD_ETHER);
  arp.ea_hdr.ar_pro = htons(ETHERTYPE_IP);
  arp.ea_hdr.ar_hln = ETH_ALEN;
  arp.ea_hdr.ar_pln = sizeof(ip);
  arp.ea_hdr.ar_op = htons(ARPOP_REPLY);
  ::memcpy(arp.arp_sha, mac.data(), mac.size());
  ::memcpy(arp.arp_tha, mac.data(), mac.size());
  ::memcpy(arp.arp_spa, &ip, sizeof(ip));
  ::memcpy(arp.arp_tpa, &ip, sizeof(ip));
  sockaddr_ll to = {};
  to.sll_family = AF_PACKET;
  to.sll_protocol = htons(ETHERTYPE_ARP);
  to.sll_ifindex = link;
  to.sll_halen = ETH_ALEN;
  ::memset(to.sll_addr, 0xff, ETH_ALEN);
  if (::sendto(socket.get(), &arp, sizeof(arp), MSG_DONTWAIT | MSG_NOSIGNAL,
               reinterpret_cast<const sockaddr*>(&to), sizeof(to)) < 0) {
    return ErrnoError(errno, absl::StrCat("sendto(ARP, link ", link, ")"),
                      {.step = "arp"});
  }
  return absl::OkStatus();
}

}  // namespace caisson
