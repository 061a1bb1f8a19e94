// A network namespace, held by descriptors.
//
// The kernel gives a network namespace to whoever holds a descriptor of it, and
// lets a netlink socket configure the namespace that it was created in for as
// long as it is open. A NetNamespace is both, so that a host process can set up
// interfaces, addresses and routes inside without ever moving one of its own
// threads there:
//
//   caisson::NetNamespace ns = ...;  // made by a Launcher
//   auto endpoint = caisson::NetEndpoint::Create(network, std::move(ns),
//   {...});
//
// Whoever makes one creates the socket on a thread that is inside `ns`. The
// consumer checks that the two belong together.
//
// Dropping the last descriptor, with no process left inside, destroys the
// namespace and every virtual interface in it; the kernel does that in the
// background.
#ifndef CAISSON_NET_NAMESPACE_H_
#define CAISSON_NET_NAMESPACE_H_

#include "caisson/unique_fd.h"

namespace caisson {

struct NetNamespace {
  UniqueFd ns;  // as of open("/proc/<pid>/ns/net")
  UniqueFd
      rtnetlink;  // socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE) from inside
};

}  // namespace caisson

#endif  // CAISSON_NET_NAMESPACE_H_
