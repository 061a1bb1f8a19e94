// Which kernel parameters a container may have of its own: sysctl(8), and the
// namespaces that proc(5) says a parameter belongs to. Pure; thread-safe.
#ifndef CAISSON_LIB_NAMESPACE_SYSCTL_H_
#define CAISSON_LIB_NAMESPACE_SYSCTL_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/namespace.h"

namespace caisson {

// Which namespaces are not the host's.
struct SysctlScope {
  bool net = false;
  bool ipc = false;
  bool uts = false;
  bool user = false;
};

SysctlScope SysctlScopeOf(const NamespaceOptions& options);

// The path of `name` below /proc/sys, "net/ipv4/ip_forward". As sysctl(8) has
// it, the first separator in `name` decides: after a '.', '.' and '/' change
// places ("net.ipv4.conf.eth0/100.forwarding"); after a '/' it is a path.
//
// INVALID_ARGUMENT names the parameter if it has no such path, if it belongs to
// no namespace or to one that is the host's (the error says which it needs), or
// if `value` cannot be written. Known are net.*, the System V and POSIX queues
// of the ipc namespace, kernel.domainname, and the user.max_* of a user
// namespace. Whatever is not known to be safe is refused.
absl::StatusOr<std::string> ValidateSysctl(absl::string_view name,
                                           absl::string_view value,
                                           const SysctlScope& own);

}  // namespace caisson

#endif  // CAISSON_LIB_NAMESPACE_SYSCTL_H_
