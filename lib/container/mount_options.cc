#include "lib/container/mount_options.h"

#include <algorithm>
#include <cstddef>

#include "lib/base/errno_error.h"
#include "lib/container/refusal.h"

namespace caisson::container {
namespace {

using Effect = void (*)(MountOptions&);

struct Known {
  absl::string_view name;
  Effect effect;
};

void Nothing(MountOptions&) {}

// Sorted. Those with an "r" in front hold for what is mounted below a bind
// mount, too, which is what BindMount means by its fields.
constexpr Known kKnown[] = {
    {"acl", Nothing},    // the kernel's MS_POSIXACL has no effect
    {"async", Nothing},  // the default
    {"atime",
     [](MountOptions& o) { o.access_times = AccessTimes::kUnchanged; }},
    {"bind",
     [](MountOptions& o) {
       o.bind = true;
       o.recursive = false;
     }},
    {"defaults", Nothing},
    {"dev", [](MountOptions& o) { o.nodev = false; }},
    {"diratime", [](MountOptions& o) { o.nodiratime = false; }},
    {"dirsync", [](MountOptions& o) { o.data.push_back("dirsync"); }},
    {"exec", [](MountOptions& o) { o.noexec = false; }},
    {"idmap", [](MountOptions& o) { o.idmap = true; }},
    {"lazytime", [](MountOptions& o) { o.data.push_back("lazytime"); }},
    {"loud", Nothing},
    {"mand", [](MountOptions& o) { o.data.push_back("mand"); }},
    {"noacl", Nothing},
    {"noatime", [](MountOptions& o) { o.access_times = AccessTimes::kNever; }},
    {"nodev", [](MountOptions& o) { o.nodev = true; }},
    {"nodiratime", [](MountOptions& o) { o.nodiratime = true; }},
    {"noexec", [](MountOptions& o) { o.noexec = true; }},
    {"noiversion", Nothing},
    {"nolazytime", Nothing},
    {"nomand", Nothing},
    {"norelatime",
     [](MountOptions& o) { o.access_times = AccessTimes::kUnchanged; }},
    {"nostrictatime",
     [](MountOptions& o) { o.access_times = AccessTimes::kUnchanged; }},
    {"nosuid", [](MountOptions& o) { o.nosuid = true; }},
    {"nosymfollow", [](MountOptions& o) { o.nosymfollow = true; }},
    {"private",
     [](MountOptions& o) { o.propagation = MountPropagation::kPrivate; }},
    {"rbind",
     [](MountOptions& o) {
       o.bind = true;
       o.recursive = true;
     }},
    {"relatime",
     [](MountOptions& o) { o.access_times = AccessTimes::kRelative; }},
    {"ridmap",
     [](MountOptions& o) {
       o.idmap = true;
       o.idmap_below = true;
     }},
    {"rnoatime", [](MountOptions& o) { o.access_times = AccessTimes::kNever; }},
    {"rnodev", [](MountOptions& o) { o.nodev = true; }},
    {"rnodiratime", [](MountOptions& o) { o.nodiratime = true; }},
    {"rnoexec", [](MountOptions& o) { o.noexec = true; }},
    {"rnosuid", [](MountOptions& o) { o.nosuid = true; }},
    {"rnosymfollow", [](MountOptions& o) { o.nosymfollow = true; }},
    {"ro", [](MountOptions& o) { o.read_only = true; }},
    {"rprivate",
     [](MountOptions& o) { o.propagation = MountPropagation::kPrivate; }},
    {"rrelatime",
     [](MountOptions& o) { o.access_times = AccessTimes::kRelative; }},
    {"rro",
     [](MountOptions& o) {
       o.read_only = true;
       o.read_only_below = true;
     }},
    {"rshared",
     [](MountOptions& o) { o.propagation = MountPropagation::kUnsafeShared; }},
    {"rslave",
     [](MountOptions& o) { o.propagation = MountPropagation::kUnsafeSlave; }},
    {"rstrictatime",
     [](MountOptions& o) { o.access_times = AccessTimes::kAlways; }},
    {"rw",
     [](MountOptions& o) {
       o.read_only = false;
       o.read_only_below = false;
     }},
    {"shared",
     [](MountOptions& o) { o.propagation = MountPropagation::kUnsafeShared; }},
    {"silent", Nothing},
    {"slave",
     [](MountOptions& o) { o.propagation = MountPropagation::kUnsafeSlave; }},
    {"strictatime",
     [](MountOptions& o) { o.access_times = AccessTimes::kAlways; }},
    {"suid", [](MountOptions& o) { o.nosuid = false; }},
    {"symfollow", [](MountOptions& o) { o.nosymfollow = false; }},
    {"sync", [](MountOptions& o) { o.data.push_back("sync"); }},
    {"tmpcopyup", [](MountOptions& o) { o.copy_up = true; }},
};

// Would take a restriction of the host's mounts away, or change a mount that
// exists.
constexpr absl::string_view kRefused[] = {
    "iversion",   "ratime",      "rdev",           "rdiratime", "remount",
    "rexec",      "rnorelatime", "rnostrictatime", "rrw",       "rsuid",
    "rsymfollow", "runbindable", "unbindable"};

}  // namespace

absl::StatusOr<MountOptions> ParseMountOptions(
    absl::string_view field, const std::vector<std::string>& options) {
  MountOptions parsed;
  for (size_t i = 0; i < options.size(); ++i) {
    const std::string& option = options[i];
    const auto* known = std::find_if(
        std::begin(kKnown), std::end(kKnown),
        [&option](const Known& entry) { return entry.name == option; });
    if (known != std::end(kKnown)) {
      known->effect(parsed);
    } else if (std::find(std::begin(kRefused), std::end(kRefused), option) !=
               std::end(kRefused)) {
      return Unimplemented(field, "[", i, "]: ", Quoted(option),
                           " cannot be honoured");
    } else if (!option.empty()) {
      parsed.data.push_back(option);
    }
  }
  return parsed;
}

std::vector<std::string> KnownMountOptions() {
  std::vector<std::string> names;
  for (const Known& known : kKnown) names.emplace_back(known.name);
  return names;
}

}  // namespace caisson::container
