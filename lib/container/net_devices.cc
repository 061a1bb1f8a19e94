#include "lib/container/net_devices.h"

#include <linux/if.h>
#include <linux/netlink.h>

#include <algorithm>
#include <cctype>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "caisson/net_namespace.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/container/refusal.h"
#include "lib/sys/netlink.h"
#include "lib/sys/rtnetlink.h"

namespace caisson::container {
namespace {

// dev_valid_name() of the kernel (net/core/dev.c); a "%" would be a pattern.
bool IsName(absl::string_view name) {
  return !name.empty() && name.size() < IFNAMSIZ && name != "." &&
         name != ".." &&
         std::none_of(name.begin(), name.end(), [](unsigned char c) {
           return c == '/' || c == ':' || c == '%' || std::isspace(c) != 0;
         });
}

const std::string& NameInside(const std::string& name,
                              const spec::NetDevice& device) {
  return device.name.empty() ? name : device.name;
}

std::string FieldOf(const std::string& name) {
  return absl::StrCat("linux.netDevices (", name.substr(0, 80), ")");
}

// A device that is there, and may be moved.
struct Found {
  std::string name;
  std::string name_inside;
  int link = 0;
  std::vector<sys::KeptAddress> addresses;
};

absl::StatusOr<Found> Find(sys::NetlinkSocket& host, sys::NetlinkSocket& inside,
                           const std::string& name,
                           const spec::NetDevice& device) {
  Found found = {.name = name, .name_inside = NameInside(name, device)};
  ASSIGN_OR_RETURN(const sys::LinkInfo link, sys::GetLink(host, name));
  found.link = link.index;
  const auto taken = sys::GetLink(inside, found.name_inside);
  if (taken.ok()) {
    return absl::AlreadyExistsError(
        absl::StrCat("the container's network namespace has a device called ",
                     Quoted(found.name_inside)));
  }
  if (!absl::IsNotFound(taken.status())) return taken.status();
  ASSIGN_OR_RETURN(found.addresses,
                   sys::ListLastingAddresses(host, found.link));
  return found;
}

absl::Status Move(sys::NetlinkSocket& host, sys::NetlinkSocket& inside,
                  BorrowedFd ns, const Found& device) {
  sys::NetlinkTrain move;
  sys::MoveLink(move, device.link, ns, device.name_inside);
  RETURN_IF_ERROR(host.Run(move));
  // Its index may be another one there.
  ASSIGN_OR_RETURN(const sys::LinkInfo link,
                   sys::GetLink(inside, device.name_inside));
  sys::NetlinkTrain set;
  for (const sys::KeptAddress& address : device.addresses) {
    sys::AddAddress(set, link.index, address);
  }
  sys::SetLinkUp(set, link.index);
  return inside.Run(set);
}

absl::Status MoveAll(Launcher& launcher, const HookState& state,
                     const std::map<std::string, spec::NetDevice>& devices) {
  ASSIGN_OR_RETURN(NetNamespace ns, launcher.OpenNetNamespaceOf(state.pidfd));
  ASSIGN_OR_RETURN(sys::NetlinkSocket host,
                   sys::NetlinkSocket::Open(NETLINK_ROUTE));
  ASSIGN_OR_RETURN(
      sys::NetlinkSocket inside,
      sys::NetlinkSocket::Adopt(std::move(ns.rtnetlink), NETLINK_ROUTE));
  std::vector<Found> all;
  for (const auto& [name, device] : devices) {
    auto found = Find(host, inside, name, device);
    if (!found.ok()) {
      return Annotate(found.status(),
                      absl::StrCat("config.json: ", FieldOf(name)));
    }
    all.push_back(*std::move(found));
  }
  for (const Found& device : all) {
    const absl::Status moved = Move(host, inside, ns.ns.borrow(), device);
    if (moved.ok()) continue;
    return Annotate(moved, absl::StrCat("config.json: ", FieldOf(device.name)));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckNetDevices(const spec::RuntimeConfig& config) {
  const spec::Linux& linux_config = config.linux_config;
  if (linux_config.net_devices.empty()) return absl::OkStatus();
  const auto& namespaces = linux_config.namespaces;
  if (std::none_of(namespaces.begin(), namespaces.end(),
                   [](const spec::NamespaceEntry& one) {
                     return one.type == "network";
                   })) {
    return Invalid(
        "linux.netDevices: needs a network namespace: the container has the "
        "host's");
  }
  std::set<std::string> inside;
  for (const auto& [name, device] : linux_config.net_devices) {
    for (const std::string& each : {name, NameInside(name, device)}) {
      if (IsName(each)) continue;
      return Invalid(FieldOf(name), ": ", Quoted(each.substr(0, 80)),
                     " is no name of a network device");
    }
    if (!inside.insert(NameInside(name, device)).second) {
      return Invalid(FieldOf(name), ": ", Quoted(NameInside(name, device)),
                     " is the name of another one, too");
    }
  }
  return absl::OkStatus();
}

Hook MoveNetDevices(Launcher& launcher,
                    std::map<std::string, spec::NetDevice> devices) {
  return [&launcher, devices = std::move(devices)](const HookState& state) {
    return MoveAll(launcher, state, devices);
  };
}

}  // namespace caisson::container
