// Which devices the processes of a control group may open and make nodes of.
//
//   caisson::CgroupDeviceRules devices =
//       caisson::CgroupDeviceRules::ContainerDefault();
//   devices.rules.push_back(*caisson::CgroupDeviceRule::ForNode("/dev/fuse"));
//   auto group = parent->Create({.name = "job", .limits = {.devices =
//   devices}});
//
// Version 2 filters by an eBPF program that the library generates and attaches
// to the group (BPF_CGROUP_DEVICE); version 1 by the devices controller. Both
// give the same answers, and where version 1 cannot express a list of rules it
// is refused instead of approximated. A hybrid host uses eBPF; the controller
// only where the kernel or the caller's rights do not allow that. A change of
// the rules never allows for a moment what is refused before and after: where
// version 1 could not do that, from naming what is allowed to naming what is
// refused, it is refused while processes are in the group.
//
// What counts is the device's number, wherever and however its node is called.
// What is open stays open. The groups above have their say, too, unless
// somebody attached a program there with BPF_F_ALLOW_OVERRIDE: that one does
// not run for groups with a program of their own.
//
// Sources: devices.rst of admin-guide/cgroup-v1, "Device controller" of
// admin-guide/cgroup-v2.rst, config-linux.md of the OCI specification.
#ifndef CAISSON_CGROUP_DEVICES_H_
#define CAISSON_CGROUP_DEVICES_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace caisson {

struct CgroupDeviceRule {
  enum class Type { kAll, kCharacter, kBlock };

  bool allow = false;
  Type type = Type::kAll;
  std::optional<uint32_t> major;  // absent: any
  std::optional<uint32_t> minor;
  // What the rule is about. Opening for reading and writing needs both.
  bool read = true;
  bool write = true;
  bool mknod = true;

  // "c 10:229 rwm", "b *:* m", "a": the kernel's notation, as OCI, Docker's
  // --device-cgroup-rule and v1's devices.allow use it.
  static absl::StatusOr<CgroupDeviceRule> Parse(absl::string_view text,
                                                bool allow = true);

  // Allows the device of the node at `path`, which is looked at, not opened.
  // `access`: some of "rwm".
  static absl::StatusOr<CgroupDeviceRule> ForNode(
      const std::string& path, absl::string_view access = "rwm");

  std::string ToString() const;  // "allow c 10:229 rwm"
};

// At the beginning nothing is allowed; then each rule in turn allows or refuses
// what it names. So for each of reading, writing and making nodes the last
// matching rule decides.
struct CgroupDeviceRules {
  std::vector<CgroupDeviceRule> rules;

  // What Docker's default profile and runc allow together: making any node,
  // and the use of null, zero, full, random, urandom, tty, console, ptmx, the
  // pseudo terminals and /dev/net/tun.
  static CgroupDeviceRules ContainerDefault();

  // Whether `access` ("r", "rw", ...) to a device would be allowed.
  bool Allows(CgroupDeviceRule::Type type, uint32_t major, uint32_t minor,
              absl::string_view access) const;
};

}  // namespace caisson

#endif  // CAISSON_CGROUP_DEVICES_H_
