// Per-interface switches below /proc/sys/net.
//
// /proc/sys shows the network namespace of the thread that opens a file, so
// these belong to the calling thread's. Thread-safe.
#ifndef CAISSON_LIB_NET_SYSCTL_H_
#define CAISSON_LIB_NET_SYSCTL_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace caisson {

// net.ipv4.conf.<interface>.forwarding: whether IPv4 packets that arrive there
// may be forwarded.
absl::StatusOr<bool> ForwardsIpv4(const std::string& interface);
absl::Status EnableForwardingIpv4(const std::string& interface);

// net.ipv6.conf.<interface>.disable_ipv6 = 1; nothing to do on a kernel without
// IPv6.
absl::Status DisableIpv6(const std::string& interface);

}  // namespace caisson

#endif  // CAISSON_LIB_NET_SYSCTL_H_
