// Namespace: which kernel namespaces a process gets of its own, which it joins
// or shares, and under which host name and ids it lives there.
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
// Several containers share namespaces, as the members of a pod do, by joining
// those of one process or of a descriptor:
//
//   auto net = caisson::OpenNamespace(first.pidfd(), NamespaceKind::kNet);
//   options.net = caisson::NamespaceSource::Join(*std::move(net));
//
// A Namespace describes; namespaces that are new are made when a process starts
// and live as long as a process is in them or a descriptor refers to them. The
// user namespace is made before, by Launcher::NewUserNamespace(), and is shared
// by all processes that start with this object. Network namespaces come with a
// NetEndpoint, or empty.
//
// See namespaces(7). Immutable, hence thread-safe.
#ifndef CAISSON_NAMESPACE_H_
#define CAISSON_NAMESPACE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "caisson/unique_fd.h"

namespace caisson {

enum class NamespaceKind {
  kMount,
  kPid,
  kNet,
  kIpc,
  kUts,
  kUser,
  kCgroup,
  kTime,
};

// The name that /proc/PID/ns has for it: "mnt", "net".
absl::string_view NamespaceKindName(NamespaceKind kind);

// Opens the namespace that a process is in. It stays as long as the descriptor,
// also beyond its last process; a pid namespace is of no use then, because its
// PID 1 is dead. NOT_FOUND if the process has ended.
absl::StatusOr<UniqueFd> OpenNamespace(BorrowedFd pidfd, NamespaceKind kind);

// Opens a namespace by path: "/proc/1234/ns/net", "/run/netns/blue".
// INVALID_ARGUMENT if it is no namespace, or one of another kind.
absl::StatusOr<UniqueFd> OpenNamespace(const std::string& path,
                                       NamespaceKind kind);

// Where the namespace of one kind comes from.
class NamespaceSource final {
 public:
  enum class Kind {
    kNew,            // a new one
    kShareWithHost,  // the host's own: a weakening of the isolation
    kJoin,           // an existing one
  };

  static NamespaceSource New() { return NamespaceSource(Kind::kNew); }
  static NamespaceSource ShareWithHost() {
    return NamespaceSource(Kind::kShareWithHost);
  }
  // `ns` is what OpenNamespace() returns.
  static NamespaceSource Join(UniqueFd ns) {
    NamespaceSource source(Kind::kJoin);
    source.ns_ = std::move(ns);
    return source;
  }

  Kind kind() const { return kind_; }
  bool is_new() const { return kind_ == Kind::kNew; }
  bool is_joined() const { return kind_ == Kind::kJoin; }
  // Only if joined.
  BorrowedFd ns() const { return ns_.borrow(); }

 private:
  explicit NamespaceSource(Kind kind) : kind_(kind) {}
  Kind kind_;
  UniqueFd ns_;
};

// A kernel parameter as for sysctl(8): "net.ipv4.ip_forward", "1". After a
// first '/' the name is a path below /proc/sys:
// "net/ipv4/conf/eth0.100/forwarding".
struct Sysctl {
  std::string name;
  std::string value;
};

// Token of NamespaceOptions.
struct PidNamespaceTrusted {};

struct NamespaceOptions {
  // New, or joined; then ProcessSpec::root must be null: the process lives in
  // the other one's root.
  NamespaceSource mount = NamespaceSource::New();
  // New, or joined. The host's cannot be shared: the launcher is PID 1 of a pid
  // namespace, which is how the kernel ends what a dead host leaves. Without
  // ProcessSpec::init, the process is PID 1 of a new one.
  NamespaceSource pid = NamespaceSource::New();
  // Weakening: joins `pid` without a user namespace. The processes there see
  // the new one while it is set up; one that has CAP_SYS_PTRACE could take it
  // over with all rights of the host. Launcher::Exec() does not have this gap.
  std::optional<PidNamespaceTrusted> unsafe_joined_pid;
  NamespaceSource ipc = NamespaceSource::New();
  NamespaceSource uts = NamespaceSource::New();
  NamespaceSource cgroup = NamespaceSource::New();
  // New is an empty one with a loopback interface, unless the process has a
  // NetEndpoint, which brings its own.
  // The host's together with `user` can be used but not changed; /sys is a
  // read-only copy of the launcher's then.
  NamespaceSource net = NamespaceSource::New();
  // New: with the offsets below.
  NamespaceSource time = NamespaceSource::ShareWithHost();
  // A user namespace to be born in; none: the host's. Taken over.
  UniqueFd user;

  // At most 64 bytes, of letters, digits, '-' and '.'; empty: as the uts
  // namespace has it. Needs a new uts namespace.
  std::string hostname;
  // The NIS domain name; as hostname.
  std::string domainname;
  // What CLOCK_BOOTTIME and CLOCK_MONOTONIC show more, or less, than the
  // host's; see time_namespaces(7). Need a new time namespace.
  absl::Duration boottime_offset;
  absl::Duration monotonic_offset;

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
  // a uts namespace that is not new, a descriptor that is no namespace of that
  // kind, a user namespace together with the ipc namespace of the host,
  // in which it has no rights, or a parameter that would change the host or
  // that is there twice.
  static absl::StatusOr<Namespace> Create(NamespaceOptions options);

  Namespace(Namespace&&) = default;
  Namespace& operator=(Namespace&&) = default;

  const NamespaceOptions& options() const { return options_; }

  // CLONE_NEW* of the namespaces that are made with the process. Without
  // CLONE_NEWCGROUP, which a process unshares once it is in its control group,
  // without CLONE_NEWTIME, whose offsets come first, and without CLONE_NEWUSER,
  // which it joins.
  uint64_t clone_flags() const;

 private:
  explicit Namespace(NamespaceOptions options);

  NamespaceOptions options_;
};

}  // namespace caisson

#endif  // CAISSON_NAMESPACE_H_
