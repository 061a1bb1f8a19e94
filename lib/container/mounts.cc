#include "lib/container/mounts.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstddef>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/container/mount_options.h"
#include "lib/container/refusal.h"
#include "lib/sys/mount_info.h"
#include "lib/sys/open.h"

namespace caisson::container {
namespace {

constexpr uint32_t kTtyGroup = 5;

std::string FieldOf(size_t index) {
  return absl::StrCat("mounts[", index, "]");
}

// "/a/../b/" and, as old documents have it, "b" as "/b": what a process in the
// container would mean by it, symbolic links aside.
std::string CleanDestination(absl::string_view path) {
  std::vector<absl::string_view> parts;
  for (const absl::string_view part :
       absl::StrSplit(path, '/', absl::SkipEmpty())) {
    if (part == "..") {
      if (!parts.empty()) parts.pop_back();
    } else if (part != ".") {
      parts.push_back(part);
    }
  }
  return absl::StrCat("/", absl::StrJoin(parts, "/"));
}

bool IsBelow(absl::string_view path, absl::string_view directory) {
  return absl::ConsumePrefix(&path, directory) && absl::StartsWith(path, "/");
}

// Nobody would ever see it.
bool IsHidden(const std::vector<std::string>& destinations, size_t index) {
  for (size_t i = index + 1; i < destinations.size(); ++i) {
    if (destinations[index] == destinations[i] ||
        IsBelow(destinations[index], destinations[i])) {
      return true;
    }
  }
  return false;
}

std::vector<IdRange> RangesOf(const std::vector<spec::IdMapping>& mappings) {
  std::vector<IdRange> ranges;
  for (const spec::IdMapping& mapping : mappings) {
    ranges.push_back({mapping.container_id, mapping.host_id, mapping.size});
  }
  return ranges;
}

class MountTranslator final {
 public:
  // Without a scene: only what can be refused without opening anything.
  MountTranslator(const spec::RuntimeConfig& config, const MountScene* scene,
                  TranslatedRoot& out)
      : config_(config), scene_(scene), out_(out), options_(out.options) {}

  absl::Status Run() {
    options_.own_mounts = {.proc = false,
                           .sys = false,
                           .pts = false,
                           .shm = false,
                           .mqueue = false};
    options_.cgroup = CgroupMounts::kNone;
    std::vector<std::string> destinations;
    for (const spec::Mount& mount : config_.mounts) {
      destinations.push_back(CleanDestination(mount.destination));
    }
    for (size_t i = 0; i < config_.mounts.size(); ++i) {
      if (IsHidden(destinations, i)) continue;
      RETURN_IF_ERROR(Add(i, destinations[i]));
    }
    return absl::OkStatus();
  }

 private:
  absl::Status Add(size_t index, const std::string& destination) {
    const spec::Mount& mount = config_.mounts[index];
    const std::string field = FieldOf(index);
    if (destination == "/") {
      return Invalid(field, ".destination: \"/\" is the root itself");
    }
    ASSIGN_OR_RETURN(
        MountOptions options,
        ParseMountOptions(absl::StrCat(field, ".options"), mount.options));
    if (mount.type == "bind") options.bind = true;
    if (options.bind) return AddBind(index, destination, options);
    if (options.idmap || !mount.uid_mappings.empty() ||
        !mount.gid_mappings.empty()) {
      return Unimplemented(field, ": only bind mounts can have ids mapped");
    }
    if (mount.type.empty()) return Invalid(field, ".type: missing");
    const std::optional<absl::Status> own =
        AddOwn(field, mount, destination, options);
    return own ? *own : AddFilesystem(index, destination, options);
  }

  // What RootFs mounts in the container's namespaces; nullopt if it is none of
  // these.
  std::optional<absl::Status> AddOwn(const std::string& field,
                                     const spec::Mount& mount,
                                     const std::string& destination,
                                     const MountOptions& options) {
    const bool cgroup = mount.type == "cgroup" || mount.type == "cgroup2";
    const struct {
      bool applies;
      const char* place;
      absl::Status (MountTranslator::*add)(const std::string&,
                                           const MountOptions&);
    } kinds[] = {
        {mount.type == "proc", "/proc", &MountTranslator::AddProc},
        {mount.type == "sysfs", "/sys", &MountTranslator::AddSys},
        {mount.type == "devpts", "/dev/pts", &MountTranslator::AddPts},
        {mount.type == "mqueue", "/dev/mqueue", &MountTranslator::AddMqueue},
        {cgroup, "/sys/fs/cgroup", &MountTranslator::AddCgroup},
        {destination == "/dev", "/dev", &MountTranslator::AddDev},
    };
    for (const auto& kind : kinds) {
      if (!kind.applies) continue;
      if (destination != kind.place) {
        return Unimplemented(field, ".destination: ", Quoted(destination),
                             ": a mount of type ", Quoted(mount.type),
                             " can be at ", kind.place, " only");
      }
      if (destination == "/dev" && mount.type != "tmpfs") {
        return Unimplemented(field, ".type: ", Quoted(mount.type),
                             ": \"/dev\" can be a tmpfs only");
      }
      return (this->*kind.add)(field, options);
    }
    return std::nullopt;
  }

  static absl::Status RefuseData(const std::string& field,
                                 absl::string_view option) {
    return Unimplemented(field, ".options: ", Quoted(option),
                         " is not what this mount has in a container");
  }

  absl::Status AddProc(const std::string& field, const MountOptions& options) {
    static constexpr std::pair<absl::string_view, ProcHidePid> kHidePid[] = {
        {"hidepid=0", ProcHidePid::kNone},
        {"hidepid=off", ProcHidePid::kNone},
        {"hidepid=1", ProcHidePid::kNoAccess},
        {"hidepid=noaccess", ProcHidePid::kNoAccess},
        {"hidepid=2", ProcHidePid::kInvisible},
        {"hidepid=invisible", ProcHidePid::kInvisible},
        {"hidepid=4", ProcHidePid::kNotPtraceable},
        {"hidepid=ptraceable", ProcHidePid::kNotPtraceable},
    };
    options_.own_mounts.proc = true;
    if (options.read_only) return RefuseData(field, "ro");
    for (const std::string& option : options.data) {
      if (option == "subset=pid") {
        options_.proc_subset_pid = true;
        continue;
      }
      const auto* known = std::find_if(
          std::begin(kHidePid), std::end(kHidePid),
          [&option](const auto& entry) { return entry.first == option; });
      if (known == std::end(kHidePid)) return RefuseData(field, option);
      options_.proc_hide_pid = known->second;
    }
    return absl::OkStatus();
  }

  absl::Status AddSys(const std::string& field, const MountOptions& options) {
    options_.own_mounts.sys = true;
    options_.unsafe_writable_sys = !options.read_only;
    return options.data.empty() ? absl::OkStatus()
                                : RefuseData(field, options.data[0]);
  }

  absl::Status AddPts(const std::string& field, const MountOptions& options) {
    static constexpr absl::string_view kKnown[] = {
        "newinstance", "ptmxmode=0666", "ptmxmode=666",
        "mode=0620",   "mode=620",      "gid=5"};
    options_.own_mounts.pts = true;
    bool group = false;
    for (const std::string& option : options.data) {
      if (std::find(std::begin(kKnown), std::end(kKnown), option) ==
          std::end(kKnown)) {
        return RefuseData(field, option);
      }
      group = group || option == "gid=5";
    }
    // Without one, terminals belong to the group of whoever opens them.
    options_.tty_group_mapped = group;
    return absl::OkStatus();
  }

  absl::Status AddMqueue(const std::string& field,
                         const MountOptions& options) {
    options_.own_mounts.mqueue = true;
    return options.data.empty() ? absl::OkStatus()
                                : RefuseData(field, options.data[0]);
  }

  absl::Status AddCgroup(const std::string& field,
                         const MountOptions& options) {
    options_.cgroup = options.read_only ? CgroupMounts::kReadOnly
                                        : CgroupMounts::kUnsafeWritable;
    for (const std::string& option : options.data) {
      // Of a hierarchy that the container does not make.
      if (option != "nsdelegate") return RefuseData(field, option);
    }
    return absl::OkStatus();
  }

  // RootFs' own, which is always there.
  absl::Status AddDev(const std::string& field, const MountOptions& options) {
    static constexpr absl::string_view kKnown[] = {
        "mode=755", "mode=0755", "size=65536k", "size=64m", "size=67108864"};
    if (options.read_only) return RefuseData(field, "ro");
    for (const std::string& option : options.data) {
      if (std::find(std::begin(kKnown), std::end(kKnown), option) ==
          std::end(kKnown)) {
        return RefuseData(field, option);
      }
    }
    return absl::OkStatus();
  }

  absl::Status AddFilesystem(size_t index, const std::string& destination,
                             const MountOptions& options) {
    const spec::Mount& mount = config_.mounts[index];
    out_.names.emplace_back(absl::StrCat("RootFsOptions.filesystems[",
                                         options_.filesystems.size(), "]"),
                            FieldOf(index));
    FilesystemMount& out = options_.filesystems.emplace_back();
    out.destination = destination;
    out.type = mount.type;
    out.source = mount.source;
    out.options = options.data;
    out.read_only = options.read_only;
    out.noexec = options.noexec;
    out.nosymfollow = options.nosymfollow;
    out.nodiratime = options.nodiratime;
    if (options.access_times != AccessTimes::kUnchanged) {
      out.access_times = options.access_times;
    }
    out.copy_up = options.copy_up;
    out.unsafe_setuid = !options.nosuid;
    out.unsafe_devices = !options.nodev;
    if (options.propagation.value_or(MountPropagation::kPrivate) ==
        MountPropagation::kUnsafeShared) {
      return Unimplemented(FieldOf(index),
                           ".options: a new file system is not shared");
    }
    if (scene_ == nullptr || mount.type != "tmpfs") return absl::OkStatus();
    return MapTmpfsOwner(index, out);
  }

  // Whoever mounts a tmpfs says its owner in ids of its own, and the host
  // mounts it.
  absl::Status MapTmpfsOwner(size_t index, FilesystemMount& mount) {
    for (std::string& option : mount.options) {
      absl::string_view number = option;
      const bool user = absl::ConsumePrefix(&number, "uid=");
      if (!user && !absl::ConsumePrefix(&number, "gid=")) continue;
      const std::string field = absl::StrCat(FieldOf(index), ".options");
      uint32_t id = 0;
      if (!absl::SimpleAtoi(number, &id)) {
        return Invalid(field, ": ", Quoted(option), " is no number");
      }
      ASSIGN_OR_RETURN(
          const uint32_t outside,
          OutsideOf(field, id, user ? scene_->ids.users : scene_->ids.groups));
      option = absl::StrCat(user ? "uid=" : "gid=", outside);
    }
    return absl::OkStatus();
  }

  absl::Status AddBind(size_t index, const std::string& destination,
                       const MountOptions& options) {
    const spec::Mount& mount = config_.mounts[index];
    const std::string field = FieldOf(index);
    if (mount.source.empty()) return Invalid(field, ".source: missing");
    if (scene_ == nullptr) return absl::OkStatus();
    out_.names.emplace_back(
        absl::StrCat("RootFsOptions.binds[", options_.binds.size(), "]"),
        field);
    BindMount& out = options_.binds.emplace_back();
    out.destination = destination;
    out.source = absl::StartsWith(mount.source, "/")
                     ? mount.source
                     : absl::StrCat(scene_->bundle, "/", mount.source);
    out.recursive = options.recursive;
    out.read_only = options.read_only;
    // OCI's "ro" stops at what is mounted below.
    out.unsafe_writable_submounts =
        options.read_only && options.recursive && !options.read_only_below;
    out.nosuid = options.nosuid;
    out.noexec = options.noexec;
    out.nosymfollow = options.nosymfollow;
    out.nodiratime = options.nodiratime;
    out.access_times = options.access_times;
    out.unsafe_devices = !options.nodev;
    out.propagation = options.propagation.value_or(MountPropagation::kPrivate);
    RETURN_IF_ERROR(SettlePropagation(out));
    return MapIds(field, mount, options, out);
  }

  // A slave of what is private is private: the kernel takes that for no error,
  // and neither do other runtimes.
  static absl::Status SettlePropagation(BindMount& bind) {
    if (bind.propagation != MountPropagation::kUnsafeSlave) {
      return absl::OkStatus();
    }
    const auto source = sys::Open(bind.source, O_PATH);
    if (!source.ok()) return absl::OkStatus();  // RootFs names it
    ASSIGN_OR_RETURN(const sys::MountInfo info,
                     sys::MountInfoOf(source->borrow(), bind.source));
    if (!info.shared && !info.slave) {
      bind.propagation = MountPropagation::kPrivate;
    }
    return absl::OkStatus();
  }

  absl::Status MapIds(const std::string& field, const spec::Mount& mount,
                      const MountOptions& options, BindMount& out) {
    if (mount.uid_mappings.empty() != mount.gid_mappings.empty()) {
      return Invalid(field, ": uidMappings and gidMappings need each other");
    }
    if (!mount.uid_mappings.empty()) {
      auto user = scene_->launcher.NewUserNamespace(
          {.users = RangesOf(mount.uid_mappings),
           .groups = RangesOf(mount.gid_mappings)});
      if (!user.ok()) {
        return Annotate(user.status(),
                        absl::StrCat("config.json: ", field, ".uidMappings"));
      }
      out.idmap_user_namespace = user->borrow();
      out_.held.push_back(*std::move(user));
      return absl::OkStatus();
    }
    if (!options.idmap) return absl::OkStatus();
    if (!scene_->user_namespace.valid()) {
      return Invalid(field,
                     ".options: idmap without uidMappings means the "
                     "container's user namespace, and it has none");
    }
    out.idmap_user_namespace = scene_->user_namespace;
    return absl::OkStatus();
  }

  const spec::RuntimeConfig& config_;
  const MountScene* scene_;
  TranslatedRoot& out_;
  RootFsOptions& options_;
};

absl::Status TranslatePropagation(const spec::RuntimeConfig& config,
                                  RootFsOptions& options) {
  const std::string& propagation = config.linux_config.rootfs_propagation;
  if (propagation == "shared") {
    options.propagation = RootPropagation::kShared;
  } else if (propagation == "rshared") {
    options.propagation = RootPropagation::kSharedRecursively;
  } else if (absl::EndsWith(propagation, "unbindable")) {
    return Unimplemented("linux.rootfsPropagation: ", Quoted(propagation),
                         " cannot be honoured");
  }
  // The root is a copy that the host's mounts never reach: what its slave would
  // get does not exist.
  return absl::OkStatus();
}

// In a container's own /dev; others would open nothing, for the root is nodev.
absl::Status CheckDevice(const std::string& field, const spec::Device& device) {
  if (!IsBelow(CleanDestination(device.path), "/dev")) {
    return Unimplemented(field, ".path: ", Quoted(device.path),
                         " is not below /dev, where alone devices open");
  }
  const uint32_t mode = device.file_mode.value_or(0) & ~uint32_t{S_IFMT};
  if ((mode & ~0777u) != 0) {
    return Unimplemented(field, ".fileMode: more than permissions");
  }
  return absl::OkStatus();
}

absl::Status TranslateDevices(const spec::RuntimeConfig& config,
                              const IdMap& ids, RootFsOptions& options) {
  for (size_t i = 0; i < config.linux_config.devices.size(); ++i) {
    const spec::Device& device = config.linux_config.devices[i];
    const std::string field = absl::StrCat("linux.devices[", i, "]");
    RETURN_IF_ERROR(CheckDevice(field, device));
    DeviceNode node;
    node.path = CleanDestination(device.path);
    const bool hidden =
        std::any_of(options.binds.begin(), options.binds.end(),
                    [&node](const BindMount& bind) {
                      return node.path == bind.destination ||
                             IsBelow(node.path, bind.destination);
                    });
    // devpts has its own; others are not seen.
    if (node.path == "/dev/ptmx" || hidden) continue;
    if (device.type == "p") {
      node.number = {.type = DeviceNode::Type::kFifo};
    } else {
      node.number = {device.type == "b" ? DeviceNode::Type::kBlock
                                        : DeviceNode::Type::kCharacter,
                     device.major, device.minor};
    }
    if (device.file_mode) node.mode = *device.file_mode & 0777;
    if (device.uid) {
      ASSIGN_OR_RETURN(node.uid, OutsideOf(absl::StrCat(field, ".uid"),
                                           *device.uid, ids.users));
    }
    if (device.gid) {
      ASSIGN_OR_RETURN(node.gid, OutsideOf(absl::StrCat(field, ".gid"),
                                           *device.gid, ids.groups));
    }
    options.devices.push_back(std::move(node));
  }
  return absl::OkStatus();
}

// A relative path stays in the bundle; a link at its end is refused, as by
// other runtimes: it could lead to the host's root.
absl::StatusOr<UniqueFd> OpenRoot(const std::string& bundle,
                                  const std::string& path) {
  if (absl::StartsWith(path, "/")) {
    return sys::Open(path, O_PATH | O_DIRECTORY | O_NOFOLLOW);
  }
  ASSIGN_OR_RETURN(const UniqueFd directory,
                   sys::Open(bundle, O_PATH | O_DIRECTORY));
  return sys::OpenAt2(directory.borrow(), path,
                      O_PATH | O_DIRECTORY | O_NOFOLLOW, sys::kBeneath);
}

}  // namespace

absl::Status CheckRoot(const spec::RuntimeConfig& config) {
  TranslatedRoot unused;
  RETURN_IF_ERROR(MountTranslator(config, nullptr, unused).Run());
  RETURN_IF_ERROR(TranslatePropagation(config, unused.options));
  for (size_t i = 0; i < config.linux_config.devices.size(); ++i) {
    RETURN_IF_ERROR(CheckDevice(absl::StrCat("linux.devices[", i, "]"),
                                config.linux_config.devices[i]));
  }
  return absl::OkStatus();
}

absl::StatusOr<TranslatedRoot> TranslateRoot(const spec::RuntimeConfig& config,
                                             const MountScene& scene) {
  TranslatedRoot out;
  RootFsOptions& options = out.options;
  options.mounts = scene.launcher.mounts();
  auto root = OpenRoot(scene.bundle, config.root.path);
  if (!root.ok()) return Annotate(root.status(), "config.json: root.path");
  options.layers = {root->borrow()};
  out.held.push_back(*std::move(root));
  options.writes = RootWrites::kInPlace;
  options.read_only = config.root.readonly;
  options.etc_files = false;
  RETURN_IF_ERROR(MountTranslator(config, &scene, out).Run());
  RETURN_IF_ERROR(TranslatePropagation(config, options));
  RETURN_IF_ERROR(TranslateDevices(config, scene.ids, options));
  const spec::Linux& linux_config = config.linux_config;
  options.mount_label = linux_config.mount_label;
  options.unsafe_replace_masked_paths = linux_config.masked_paths;
  options.unsafe_replace_read_only_paths = linux_config.readonly_paths;
  out.names.emplace_back("RootFsOptions.unsafe_replace_masked_paths",
                         "linux.maskedPaths");
  out.names.emplace_back("RootFsOptions.unsafe_replace_read_only_paths",
                         "linux.readonlyPaths");
  out.names.emplace_back("RootFsOptions.mount_label", "linux.mountLabel");
  if (!scene.ids.users.empty()) {
    ASSIGN_OR_RETURN(options.root_uid,
                     OutsideOf("linux.uidMappings", 0, scene.ids.users));
    ASSIGN_OR_RETURN(options.root_gid,
                     OutsideOf("linux.gidMappings", 0, scene.ids.groups));
    const bool tty = OutsideOf("", kTtyGroup, scene.ids.groups).ok();
    options.tty_group_mapped = options.tty_group_mapped && tty;
  }
  return out;
}

absl::StatusOr<uint32_t> OutsideOf(const std::string& field, uint32_t id,
                                   const std::vector<IdRange>& ranges) {
  if (ranges.empty()) return id;
  for (const IdRange& range : ranges) {
    if (id >= range.inside && id - range.inside < range.count) {
      return range.outside + (id - range.inside);
    }
  }
  return Invalid(field, ": ", id, " is not mapped in the user namespace");
}

}  // namespace caisson::container
