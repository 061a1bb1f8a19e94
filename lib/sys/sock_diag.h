// Who holds a local port, over NETLINK_SOCK_DIAG.
//
// Thread-safe. Source: sock_diag(7).
#ifndef CAISSON_LIB_SYS_SOCK_DIAG_H_
#define CAISSON_LIB_SYS_SOCK_DIAG_H_

#include <cstdint>
#include <optional>
#include <string>

namespace caisson::sys {

struct PortHolder {
  std::string address;  // that it is bound to: "0.0.0.0", "::"
  uint32_t uid = 0;
  uint32_t inode = 0;  // of the socket, as in /proc/<pid>/fd
};

// The socket that is bound to the local `port` (IPPROTO_TCP: listening) in the
// calling thread's network namespace; nullopt if there is none or the kernel
// cannot tell. Best-effort: meant for error messages.
std::optional<PortHolder> FindPortHolder(uint8_t protocol, uint16_t port);

}  // namespace caisson::sys

#endif  // CAISSON_LIB_SYS_SOCK_DIAG_H_
