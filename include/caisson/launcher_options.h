// LauncherOptions, and what a Launcher without privileges got:
// LauncherIdentity.
//
//   auto launcher = caisson::Launcher::Create(
//       {.ids = caisson::LauncherIds::kSubordinate});
//
// A host that lacks CAP_SYS_ADMIN (an ordinary user's) gets a launcher in a
// user namespace of its own, see user_namespaces(7) and doc/rootless.md. These
// say which ids exist there.
#ifndef CAISSON_LAUNCHER_OPTIONS_H_
#define CAISSON_LAUNCHER_OPTIONS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "caisson/id_range.h"

namespace caisson {

// The ids in the user namespace of a launcher without privileges. Root there is
// always the host's own user and group.
enum class LauncherIds {
  // Those of kSubordinate where that works; otherwise those of kOwn, and
  // LauncherIdentity::why_single says what is missing.
  kAvailable,
  // Root alone. Runs no other program.
  kOwn,
  // Also the ranges that /etc/subuid and /etc/subgid give the user, from 1 on,
  // by newuidmap(1) and newgidmap(1): containers may have other users. Create()
  // fails where that does not work.
  kSubordinate,
};

struct LauncherOptions {
  // Not used by a host with CAP_SYS_ADMIN.
  LauncherIds ids = LauncherIds::kAvailable;
  // Absolute. For processes that shall outlive the host (detached.h): where
  // hosts find the launcher. Made with mode 0700 if it is missing; Create()
  // fails with ALREADY_EXISTS if a launcher lives there.
  std::string directory;
  // For processes that are to be somebody else's children
  // (Process::Release()), as those who call an OCI runtime expect. Such a
  // launcher is in the host's pid namespace, so it can also Adopt() and join
  // those of others; but nothing ends what it started if it is killed itself.
  // For short-lived hosts that keep control groups by which they find what is
  // left. Needs CAP_SYS_ADMIN; excludes `directory`.
  bool releases = false;
};

// Who a launcher is.
struct LauncherIdentity {
  // Whether it has a user namespace of its own, because the host lacks
  // CAP_SYS_ADMIN. The rest is empty otherwise.
  bool own_user_namespace = false;
  // Users and groups that exist there: `inside` in a container, `outside` for
  // the host.
  std::vector<IdRange> users;
  std::vector<IdRange> groups;
  // Whether a process may have supplementary groups. Without, it keeps those
  // of the host, whose numbers it does not see (user_namespaces(7), "setgroups"
  // file).
  bool setgroups = true;
  // Why root is the only user, and what to do; empty if it is not.
  std::string why_single;
};

}  // namespace caisson

#endif  // CAISSON_LAUNCHER_OPTIONS_H_
