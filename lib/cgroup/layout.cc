#include "lib/cgroup/layout.h"

#include <algorithm>
#include <array>
#include <map>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"

namespace caisson::cgroup {
namespace {

struct ControllerNames {
  absl::string_view v2;
  absl::string_view v1;
  absl::string_view instead;  // what version 2 has in place of a v1 controller
};

constexpr std::array<ControllerNames, kCgroupControllerCount> kNames = {{
    {"cpu", "cpu", ""},
    {"cpuacct", "cpuacct", "cpu.stat is in every group"},
    {"cpuset", "cpuset", ""},
    {"memory", "memory", ""},
    {"io", "blkio", ""},
    {"pids", "pids", ""},
    {"devices", "devices", "devices are filtered by an eBPF program"},
    {"freezer", "freezer", "cgroup.freeze is in every group"},
    {"hugetlb", "hugetlb", ""},
    {"rdma", "rdma", ""},
    {"misc", "misc", ""},
    {"perf_event", "perf_event", "perf uses the unified hierarchy by itself"},
    {"net_cls", "net_cls", "nftables matches on the group's path"},
    {"net_prio", "net_prio", "nftables matches on the group's path"},
    {"dmem", "dmem", ""},
}};

// A line of /proc/cgroups.
struct KernelController {
  int hierarchy = 0;
  bool enabled = false;
};
using KernelControllers = std::map<CgroupController, KernelController>;

// mountinfo writes space, tab, newline and backslash as \ooo.
std::string Unescape(absl::string_view field) {
  std::string out;
  for (size_t i = 0; i < field.size(); ++i) {
    if (field[i] != '\\' || i + 3 >= field.size()) {
      out += field[i];
      continue;
    }
    int value = 0;
    for (size_t k = 1; k <= 3; ++k) value = value * 8 + (field[i + k] - '0');
    out += static_cast<char>(value);
    i += 3;
  }
  return out;
}

bool IsReadOnly(absl::string_view options) {
  const std::vector<absl::string_view> list = absl::StrSplit(options, ',');
  return std::find(list.begin(), list.end(), "ro") != list.end();
}

std::optional<MountLine> ParseLine(absl::string_view text) {
  const std::vector<absl::string_view> fields = absl::StrSplit(text, ' ');
  const auto dash = std::find(fields.begin(), fields.end(), "-");
  if (dash - fields.begin() < 6 || fields.end() - dash < 4) return std::nullopt;
  MountLine line;
  if (dash[1] == "cgroup") {
    line.mount.version = CgroupVersion::kV1;
  } else if (dash[1] != "cgroup2") {
    return std::nullopt;
  }
  if (!absl::SimpleAtoi(fields[0], &line.mount.id)) return std::nullopt;
  line.root = Unescape(fields[3]);
  line.mount.mount_point = Unescape(fields[4]);
  line.writable = !IsReadOnly(fields[5]) && !IsReadOnly(dash[3]);
  line.super_options = absl::StrSplit(dash[3], ',');
  return line;
}

KernelControllers ParseProcCgroups(absl::string_view text) {
  KernelControllers known;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    const std::vector<absl::string_view> fields =
        absl::StrSplit(line, absl::ByAnyChar("\t "), absl::SkipEmpty());
    KernelController kernel;
    if (fields.size() != 4 || !absl::SimpleAtoi(fields[1], &kernel.hierarchy)) {
      continue;
    }
    kernel.enabled = fields[3] == "1";
    if (const auto controller = ControllerByName(fields[0])) {
      known[*controller] = kernel;
    }
  }
  return known;
}

// Controllers and v1 name of a hierarchy from its mount options, from the
// second field of a line of /proc/self/cgroup or from cgroup.controllers.
void ParseAttachments(const std::vector<std::string>& items,
                      CgroupHierarchy& hierarchy) {
  for (const std::string& item : items) {
    if (const auto controller = ControllerByName(item)) {
      hierarchy.controllers.push_back(*controller);
    } else if (absl::StartsWith(item, "name=")) {
      hierarchy.name = item.substr(5);
    }
  }
  std::sort(hierarchy.controllers.begin(), hierarchy.controllers.end());
}

bool SameHierarchy(const CgroupHierarchy& a, const CgroupHierarchy& b) {
  if (a.version != b.version) return false;
  if (a.version == CgroupVersion::kV2) return true;
  return a.controllers == b.controllers && a.name == b.name;
}

// Of two mounts of one hierarchy: the writable one, then the one that shows
// more.
bool BetterMount(const CgroupHierarchy& a, const CgroupHierarchy& b) {
  if (a.writable != b.writable) return a.writable;
  const bool a_outside = absl::StartsWith(a.mount_root, "/..");
  const bool b_outside = absl::StartsWith(b.mount_root, "/..");
  if (a_outside != b_outside) return b_outside;
  return a.mount_root.size() < b.mount_root.size();
}

void SetOwnPaths(absl::string_view proc_self_cgroup, CgroupLayout& layout) {
  for (absl::string_view line : absl::StrSplit(proc_self_cgroup, '\n')) {
    const std::vector<absl::string_view> fields =
        absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (fields.size() != 3) continue;
    CgroupHierarchy own;
    own.version = fields[0] == "0" ? CgroupVersion::kV2 : CgroupVersion::kV1;
    if (own.version == CgroupVersion::kV1) {
      ParseAttachments(absl::StrSplit(fields[1], ','), own);
    }
    for (CgroupHierarchy& hierarchy : layout.hierarchies) {
      if (SameHierarchy(hierarchy, own)) {
        hierarchy.own_path = std::string(fields[2]);
      }
    }
  }
}

CgroupLayout::Mode ModeOf(const std::vector<CgroupHierarchy>& hierarchies) {
  bool v1 = false, v2 = false;
  for (const CgroupHierarchy& hierarchy : hierarchies) {
    // systemd mounts a v1 hierarchy without controllers for itself.
    if (hierarchy.version == CgroupVersion::kV2)
      v2 = true;
    else if (!hierarchy.controllers.empty())
      v1 = true;
  }
  if (v1 && v2) return CgroupLayout::Mode::kHybrid;
  if (v1) return CgroupLayout::Mode::kV1;
  return v2 ? CgroupLayout::Mode::kV2 : CgroupLayout::Mode::kNone;
}

std::string WhyMissing(CgroupController controller, const CgroupLayout& layout,
                       const std::optional<KernelControllers>& kernel) {
  const ControllerNames& names = kNames[IndexOf(controller)];
  const bool v2_mounted = !layout.hierarchies.empty() &&
                          layout.hierarchies[0].version == CgroupVersion::kV2;
  if (kernel.has_value()) {
    const auto it = kernel->find(controller);
    if (it == kernel->end()) {
      // With a v1-less build of a controller the file lacks it, too.
      if (!v2_mounted) return "this kernel was built without it";
    } else if (!it->second.enabled) {
      return absl::StrCat("switched off by the boot parameter cgroup_disable=",
                          names.v1);
    } else if (it->second.hierarchy > 0) {
      return absl::StrCat("attached to cgroup v1 hierarchy ",
                          it->second.hierarchy,
                          ", which is not mounted in this mount namespace");
    }
  }
  if (!names.instead.empty() && v2_mounted) {
    return absl::StrCat("not a controller of cgroup v2: ", names.instead);
  }
  if (v2_mounted) {
    return absl::StrCat(
        "not in cgroup.controllers of the cgroup v2 mount at ",
        layout.hierarchies[0].mount_point,
        ": not built into this kernel, or whoever made this part of the "
        "hierarchy has to enable it in the cgroup.subtree_control of the group "
        "above (systemd: Delegate=yes)");
  }
  return absl::StrCat(
      "not mounted: mount -t cgroup2 none DIR, or for version 1 mount -t "
      "cgroup -o ",
      names.v1, " none DIR");
}

void FillControllers(const std::optional<KernelControllers>& kernel,
                     CgroupLayout& layout) {
  layout.controllers.resize(kCgroupControllerCount);
  for (size_t i = 0; i < kCgroupControllerCount; ++i) {
    layout.controllers[i].controller = static_cast<CgroupController>(i);
  }
  for (size_t h = 0; h < layout.hierarchies.size(); ++h) {
    const CgroupHierarchy& hierarchy = layout.hierarchies[h];
    for (CgroupController controller : hierarchy.controllers) {
      CgroupControllerInfo& info = layout.controllers[IndexOf(controller)];
      info.hierarchy = static_cast<int>(h);
      info.usable = hierarchy.writable;
      if (!info.usable) {
        info.reason =
            absl::StrCat("mounted read-only at ", hierarchy.mount_point);
      }
    }
  }
  for (CgroupControllerInfo& info : layout.controllers) {
    if (info.hierarchy < 0) {
      info.reason = WhyMissing(info.controller, layout, kernel);
    }
  }
}

}  // namespace

std::optional<CgroupController> ControllerByName(absl::string_view name) {
  for (size_t i = 0; i < kNames.size(); ++i) {
    if (name == kNames[i].v2 || name == kNames[i].v1) {
      return static_cast<CgroupController>(i);
    }
  }
  return std::nullopt;
}

std::vector<CgroupController> ToVector(const ControllerSet& controllers) {
  std::vector<CgroupController> list;
  for (size_t i = 0; i < controllers.size(); ++i) {
    if (controllers[i]) list.push_back(static_cast<CgroupController>(i));
  }
  return list;
}

std::vector<MountLine> ParseMountinfo(absl::string_view mountinfo) {
  std::vector<MountLine> lines;
  for (absl::string_view text : absl::StrSplit(mountinfo, '\n')) {
    if (auto line = ParseLine(text)) lines.push_back(*std::move(line));
  }
  return lines;
}

absl::StatusOr<DetectedLayout> DetectLayout(const Filesystem& filesystem,
                                            const std::string& who) {
  ASSIGN_OR_RETURN(const std::string mountinfo,
                   filesystem.ReadProc("self/mountinfo"));
  ASSIGN_OR_RETURN(const std::string own,
                   filesystem.ReadProc(absl::StrCat(who, "/cgroup")));
  std::vector<std::pair<CgroupHierarchy, Mount>> found;
  for (MountLine& line : ParseMountinfo(mountinfo)) {
    auto root = filesystem.OpenMount(line.mount);
    if (!root.ok()) continue;  // hidden by another mount
    CgroupHierarchy hierarchy;
    hierarchy.version = line.mount.version;
    hierarchy.mount_point = line.mount.mount_point;
    hierarchy.mount_root = line.root;
    hierarchy.writable = line.writable;
    if (hierarchy.version == CgroupVersion::kV1) {
      ParseAttachments(line.super_options, hierarchy);
    } else {
      const auto offered = filesystem.Read(
          {*std::move(root), hierarchy.mount_point}, "cgroup.controllers");
      if (!offered.ok()) continue;  // the group behind the mount was removed
      ParseAttachments(
          absl::StrSplit(*offered, absl::ByAnyChar(" \n"), absl::SkipEmpty()),
          hierarchy);
    }
    const auto same =
        std::find_if(found.begin(), found.end(), [&](const auto& other) {
          return SameHierarchy(other.first, hierarchy);
        });
    if (same == found.end()) {
      found.emplace_back(std::move(hierarchy), line.mount);
    } else if (BetterMount(hierarchy, same->first)) {
      *same = {std::move(hierarchy), line.mount};
    }
  }
  std::stable_sort(found.begin(), found.end(),
                   [](const auto& a, const auto& b) {
                     return a.first.version > b.first.version;
                   });
  DetectedLayout detected;
  for (auto& [hierarchy, mount] : found) {
    detected.layout.hierarchies.push_back(std::move(hierarchy));
    detected.mounts.push_back(std::move(mount));
  }
  SetOwnPaths(own, detected.layout);
  detected.layout.mode = ModeOf(detected.layout.hierarchies);
  std::optional<KernelControllers> kernel;
  // Absent in kernels without any version 1 code.
  if (const auto text = filesystem.ReadProc("cgroups"); text.ok()) {
    kernel = ParseProcCgroups(*text);
  }
  FillControllers(kernel, detected.layout);
  return detected;
}

void DetectDeviceFilter(const Filesystem& filesystem, CgroupLayout& layout) {
  const bool v2 = !layout.hierarchies.empty() &&
                  layout.hierarchies[0].version == CgroupVersion::kV2 &&
                  layout.hierarchies[0].writable;
  const absl::Status ebpf =
      v2 ? filesystem.ProbeDevicePrograms()
         : absl::FailedPreconditionError("cgroup v2 is not mounted writable");
  if (ebpf.ok()) {
    layout.device_filter = CgroupLayout::DeviceFilter::kEbpf;
    return;
  }
  const CgroupControllerInfo& v1 = layout.Find(CgroupController::kDevices);
  layout.device_filter_reason =
      absl::StrCat("no eBPF programs: ", ebpf.message());
  if (v1.usable) {
    layout.device_filter = CgroupLayout::DeviceFilter::kV1;
  } else {
    absl::StrAppend(&layout.device_filter_reason,
                    "; no v1 devices controller: ", v1.reason);
  }
}

absl::StatusOr<std::string> PathBelowMount(const CgroupHierarchy& hierarchy,
                                           absl::string_view path) {
  absl::string_view below = path;
  absl::string_view root = hierarchy.mount_root;
  if (root == "/") root = "";
  if (!absl::StartsWith(root, "/..") && absl::ConsumePrefix(&below, root) &&
      (below.empty() || below[0] == '/')) {
    return std::string(absl::StripPrefix(below, "/"));
  }
  return absl::FailedPreconditionError(absl::StrCat(
      "cgroup path ", Quoted(path), " cannot be reached: the mount at ",
      Quoted(hierarchy.mount_point), " shows only what is below ",
      Quoted(hierarchy.mount_root), " of its hierarchy",
      absl::StartsWith(root, "/..")
          ? " (a mount from outside this cgroup namespace: mount cgroupfs anew)"
          : "; choose a parent there"));
}

}  // namespace caisson::cgroup

namespace caisson {

absl::string_view CgroupControllerName(CgroupController controller,
                                       CgroupVersion version) {
  const auto& names = cgroup::kNames[cgroup::IndexOf(controller)];
  return version == CgroupVersion::kV2 ? names.v2 : names.v1;
}

absl::StatusOr<CgroupLayout> CgroupLayout::Detect() {
  ASSIGN_OR_RETURN(cgroup::DetectedLayout detected,
                   cgroup::DetectLayout(cgroup::Filesystem()));
  cgroup::DetectDeviceFilter(cgroup::Filesystem(), detected.layout);
  cgroup::DetectManager(cgroup::Filesystem(), detected, detected.layout);
  return std::move(detected.layout);
}

std::string CgroupLayout::Summary() const {
  static constexpr absl::string_view kModes[] = {"no cgroups", "v1", "v2",
                                                 "hybrid"};
  std::vector<std::string> parts;
  for (const CgroupControllerInfo& info : controllers) {
    if (info.hierarchy < 0) continue;
    const CgroupVersion version = hierarchies[info.hierarchy].version;
    parts.push_back(absl::StrCat(CgroupControllerName(info.controller, version),
                                 version == CgroupVersion::kV2 ? " v2" : " v1",
                                 info.usable ? "" : " (read-only)"));
  }
  return absl::StrCat(kModes[static_cast<size_t>(mode)],
                      parts.empty() ? ": no controllers" : ": ",
                      absl::StrJoin(parts, ", "));
}

}  // namespace caisson
