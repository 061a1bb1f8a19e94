// Finding the hierarchies: the parsers behind CgroupLayout::Detect().
#ifndef CAISSON_LIB_CGROUP_LAYOUT_H_
#define CAISSON_LIB_CGROUP_LAYOUT_H_

#include <bitset>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/cgroup_layout.h"
#include "lib/cgroup/filesystem.h"

namespace caisson::cgroup {

using ControllerSet = std::bitset<kCgroupControllerCount>;

inline size_t IndexOf(CgroupController controller) {
  return static_cast<size_t>(controller);
}

// By the kernel's name in either version.
std::optional<CgroupController> ControllerByName(absl::string_view name);
std::vector<CgroupController> ToVector(const ControllerSet& controllers);

// One line of /proc/self/mountinfo that mounts cgroupfs.
struct MountLine {
  Mount mount;
  std::string root;
  bool writable = false;
  std::vector<std::string> super_options;
};
// The cgroup and cgroup2 mounts in `mountinfo`; lines of other types and
// malformed ones are left out.
std::vector<MountLine> ParseMountinfo(absl::string_view mountinfo);

// A layout and, per hierarchy, the mount to open.
struct DetectedLayout {
  CgroupLayout layout;
  std::vector<Mount> mounts;
};
// `who` sets CgroupHierarchy::own_path: "self" or a pid.
absl::StatusOr<DetectedLayout> DetectLayout(const Filesystem& filesystem,
                                            const std::string& who = "self");

// Who manages the hierarchies, and whether the caller's group is its own.
void DetectManager(const Filesystem& filesystem, const DetectedLayout& detected,
                   CgroupLayout& layout);
// What to do about it; pure.
std::string Advice(const CgroupLayout& layout);

// Loads an eBPF program, so only for those who need to know.
void DetectDeviceFilter(const Filesystem& filesystem, CgroupLayout& layout);

// `path` (absolute, of the hierarchy) as seen below the mount: "" for the
// mount's root itself, no leading slash. FAILED_PRECONDITION if the mount does
// not show it.
absl::StatusOr<std::string> PathBelowMount(const CgroupHierarchy& hierarchy,
                                           absl::string_view path);

}  // namespace caisson::cgroup

#endif  // CAISSON_LIB_CGROUP_LAYOUT_H_
