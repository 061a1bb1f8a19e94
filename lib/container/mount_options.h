// The options of an OCI mount (config.md, "Linux mount options"; mount(8)).
// Pure. Thread-safe.
#ifndef CAISSON_LIB_CONTAINER_MOUNT_OPTIONS_H_
#define CAISSON_LIB_CONTAINER_MOUNT_OPTIONS_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "caisson/mount.h"

namespace caisson::container {

struct MountOptions {
  bool bind = false;
  bool recursive = false;  // rbind
  bool read_only = false;
  bool read_only_below = false;  // rro
  bool nosuid = false;
  bool nodev = false;
  bool noexec = false;
  bool nosymfollow = false;
  bool nodiratime = false;
  AccessTimes access_times = AccessTimes::kUnchanged;
  std::optional<MountPropagation> propagation;
  bool copy_up = false;  // tmpcopyup
  bool idmap = false;
  bool idmap_below = false;  // ridmap
  // For the file system: "size=65536k", and what no other word means.
  std::vector<std::string> data;
};

// The last of several options that contradict each other counts. UNIMPLEMENTED
// for known options that cannot be honoured; `field` names the list.
absl::StatusOr<MountOptions> ParseMountOptions(
    absl::string_view field, const std::vector<std::string>& options);

// All that are not the file system's, sorted: for the features document.
std::vector<std::string> KnownMountOptions();

}  // namespace caisson::container

#endif  // CAISSON_LIB_CONTAINER_MOUNT_OPTIONS_H_
