// Namespace: which kernel namespaces a process gets of its own, which it
// shares, and under which host name and ids it lives there.
//
//   caisson::NamespaceOptions options;
//   options.hostname = "web";
//   auto ns = caisson::Namespace::Create(std::move(options));
//   spec.namespaces = &*ns;                       // ProcessSpec
//
// With a user namespace, root inside is an ordinary user outside:
//
//   auto user = launcher.NewUserNamespace({0, 100000, 65536});
//   options.user = *std::move(user);
//
// A Namespace describes; the namespaces themselves are made when a process
// starts and live as long as a process is in them. The user namespace is made
// before, by Launcher::NewUserNamespace(), and is shared by all processes that
// start with this object. Network namespaces come with a NetEndpoint, or empty.
//
// See namespaces(7). Immutable, hence thread-safe.
#ifndef CAISSON_NAMESPACE_H_
#define CAISSON_NAMESPACE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "caisson/unique_fd.h"

namespace caisson {

// Where the namespace of one kind comes from.
enum class NamespaceSource {
  kNew,            // a new one
  kShareWithHost,  // the host's own: a weakening of the isolation
};

// A kernel parameter as for sysctl(8): "net.ipv4.ip_forward", "1". After a
// first
// '/' the name is a path below /proc/sys: "net/ipv4/conf/eth0.100/forwarding".
struct Sysctl {
  std::string name;
  std::string value;
};

struct NamespaceOptions {
  // The mount and pid namespaces are always new: the launcher is PID 1 of a pid
  // namespace, which is how the kernel ends what a dead host leaves.
  NamespaceSource ipc = NamespaceSource::kNew;
  NamespaceSource uts = NamespaceSource::kNew;
  NamespaceSource cgroup = NamespaceSource::kNew;
  // kNew is an empty one with a loopback interface, unless the process has a
  // NetEndpoint, which brings its own.
  // The host's together with `user` can be used but not changed; /sys is a
  // read-only copy of the launcher's then.
  NamespaceSource net = NamespaceSource::kNew;
  // A user namespace to be born in; none: the host's. Taken over.
  UniqueFd user;
  // At most 64 bytes, of letters, digits, '-' and '.'; empty: the host's name.
  // Needs a uts namespace of its own.
  std::string hostname;
  // Written in this order before the process has its root; the first that the
  // kernel refuses fails the start. Only parameters that belong to a namespace
  // which is not the host's: net.*, the kernel.msg*, sem*, shm* and fs.mqueue.*
  // of ipc, kernel.domainname, and the user.max_* of `user`, which are those of
  // all its processes.
  std::vector<Sysctl> sysctls;
};

class Namespace final {
 public:
  // INVALID_ARGUMENT names the option: a host name that is no name, or one for
  // the host's own uts namespace, or a user namespace together with a shared
  // ipc namespace that it does not own, or a parameter that would change the
  // host or that is there twice.
  static absl::StatusOr<Namespace> Create(NamespaceOptions options);

  Namespace(Namespace&&) = default;
  Namespace& operator=(Namespace&&) = default;

  const NamespaceOptions& options() const { return options_; }

  // CLONE_NEW* of the namespaces that are made with the process: the mount
  // namespace always. Without CLONE_NEWCGROUP, which a process unshares once it
  // is in its control group, and without CLONE_NEWUSER, which it joins.
  uint64_t clone_flags() const;

 private:
  explicit Namespace(NamespaceOptions options);

  NamespaceOptions options_;
};

}  // namespace caisson

#endif  // CAISSON_NAMESPACE_H_
