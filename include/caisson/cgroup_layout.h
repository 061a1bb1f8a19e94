// What this host offers in control groups, and why something is missing.
//
// Linux has two generations of control groups. In version 1 a controller (cpu,
// memory, pids, ...) is attached to a hierarchy of its own, mounted somewhere;
// in version 2 there is one hierarchy for all. A "hybrid" host mounts both and
// every controller lives in exactly one of them.
//
//   absl::StatusOr<caisson::CgroupLayout> layout =
//       caisson::CgroupLayout::Detect();
//   const caisson::CgroupControllerInfo& memory =
//       layout->Find(caisson::CgroupController::kMemory);
//   if (!memory.usable) std::cerr << "no memory limits: " << memory.reason;
//
// Sources: cgroups(7), Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst.
#ifndef CAISSON_CGROUP_LAYOUT_H_
#define CAISSON_CGROUP_LAYOUT_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace caisson {

enum class CgroupVersion { kV1 = 1, kV2 = 2 };

// The controllers of both versions. kCpuacct, kDevices, kFreezer, kNetCls and
// kNetPrio exist in version 1 only; version 2 has other means for them.
enum class CgroupController {
  kCpu,
  kCpuacct,
  kCpuset,
  kMemory,
  kIo,  // called "blkio" in version 1
  kPids,
  kDevices,
  kFreezer,
  kHugetlb,
  kRdma,
  kMisc,
  kPerfEvent,
  kNetCls,
  kNetPrio,
  kDmem,  // version 2 only
};
inline constexpr int kCgroupControllerCount = 15;

// The kernel's name: "memory"; "io" in version 2, "blkio" in version 1.
absl::string_view CgroupControllerName(
    CgroupController controller, CgroupVersion version = CgroupVersion::kV2);

// One mounted hierarchy.
struct CgroupHierarchy {
  CgroupVersion version = CgroupVersion::kV2;
  std::string name;  // of a named v1 hierarchy, "systemd" for name=systemd
  // Attached controllers; in version 2 those that the mount's root offers
  // (cgroup.controllers).
  std::vector<CgroupController> controllers;
  std::string mount_point;
  // The group that is visible at the mount point, "/" unless the mount shows
  // only a part of the hierarchy (as inside a container).
  std::string mount_root;
  // The group of the calling process, as /proc/self/cgroup shows it.
  std::string own_path;
  bool writable = false;  // neither the mount nor its superblock is read-only
};

// What is known about one controller.
struct CgroupControllerInfo {
  CgroupController controller = CgroupController::kCpu;
  bool usable = false;
  int hierarchy = -1;  // index into CgroupLayout::hierarchies; -1: nowhere
  std::string reason;  // why it is not usable and what to do; else empty
};

struct CgroupLayout {
  enum class Mode { kNone, kV1, kV2, kHybrid };

  Mode mode = Mode::kNone;
  std::vector<CgroupHierarchy> hierarchies;       // version 2 first, if mounted
  std::vector<CgroupControllerInfo> controllers;  // one per CgroupController

  // How CgroupLimits::devices is enforced: by eBPF programs where cgroup v2 is
  // mounted writable and this process may load them (which is tried), else by
  // the v1 controller.
  enum class DeviceFilter { kNone, kV1, kEbpf };
  DeviceFilter device_filter = DeviceFilter::kNone;
  std::string device_filter_reason;  // why not by eBPF; else empty

  // Whether systemd manages the hierarchies; then groups belong below one that
  // it gave away.
  bool systemd = false;
  // Of the calling process's v2 group: whether it may make groups there, and
  // whether systemd gave it away (Delegate=yes).
  bool own_group_writable = false;
  bool own_group_delegated = false;
  std::string advice;  // what to do for a place to make groups; else empty

  // Reads /proc/self/mountinfo, /proc/self/cgroup and /proc/cgroups and looks
  // at every mount once; changes nothing. A host without control groups is not
  // an error: the layout then says so. Thread-safe.
  //
  // `usable` means mounted writable and offered by the kernel. Whether this
  // process may make groups at a place is known only by trying: see
  // CgroupParent::Open().
  static absl::StatusOr<CgroupLayout> Detect();

  const CgroupControllerInfo& Find(CgroupController controller) const {
    return controllers[static_cast<size_t>(controller)];
  }

  // One line for logs and errors: "hybrid: cpu v1, memory v1, hugetlb v2".
  std::string Summary() const;
};

}  // namespace caisson

#endif  // CAISSON_CGROUP_LAYOUT_H_
