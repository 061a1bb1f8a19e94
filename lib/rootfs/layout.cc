#include "lib/rootfs/layout.h"

#include <limits.h>

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/rootfs/bind_mount.h"
#include "lib/rootfs/etc_files.h"
#include "lib/rootfs/protected_paths.h"

namespace caisson::rootfs {
namespace {

constexpr size_t kMaxLayers =
    500;  // OVL_MAX_STACK, linux fs/overlayfs/params.h
constexpr uint32_t kModeBits = 07777;

constexpr char kShm[] = "/dev/shm";
constexpr char kHostname[] = "/etc/hostname";
constexpr char kHosts[] = "/etc/hosts";
constexpr char kResolvConf[] = "/etc/resolv.conf";

absl::Status Invalid(absl::string_view field, absl::string_view problem) {
  return absl::InvalidArgumentError(absl::StrCat(field, problem));
}

absl::string_view FirstComponent(absl::string_view path) {
  return path.substr(0, path.find('/'));
}

// A directory of /proc that belongs to a process.
bool IsProcess(absl::string_view component) {
  return component == "self" || component == "thread-self" ||
         std::all_of(component.begin(), component.end(), [](char c) {
           return absl::ascii_isdigit(static_cast<unsigned char>(c));
         });
}

// Symbolic links that every /dev has: a mount below one would not be where its
// destination says.
bool IsDevLink(absl::string_view component) {
  return component == "fd" || component == "stdin" || component == "stdout" ||
         component == "stderr" || component == "ptmx";
}

absl::Status CheckMountDestination(const Mount& mount) {
  const Destination& destination = mount.destination;
  absl::string_view problem;
  absl::string_view below_dev = destination.path();
  const bool in_dev = absl::ConsumePrefix(&below_dev, "dev/");
  if (mount.kind != Mount::Kind::kBind &&
      (destination.path() == "proc" || destination.path() == "sys" ||
       destination.path() == "dev")) {
    problem = " is made by RootFs itself; mount below it, or elsewhere";
  } else if (destination.area() == Area::kProc &&
             IsProcess(FirstComponent(destination.relative()))) {
    problem =
        " lies in the directory of a process, which a mount must not hide";
  } else if (in_dev && IsDevLink(FirstComponent(below_dev))) {
    problem = " leads through a symbolic link of /dev";
  } else if (in_dev && (absl::StartsWith(below_dev, "pts/") ||
                        absl::StartsWith(below_dev, "mqueue/"))) {
    problem = " lies in a file system whose files the kernel makes";
  }
  if (problem.empty()) return absl::OkStatus();
  return Invalid(absl::StrCat(mount.Field(), ".destination ",
                              Quoted(destination.absolute())),
                 problem);
}

absl::Status CheckWrites(const RootFsOptions& options) {
  const bool directories = options.writes == RootWrites::kDirectories;
  if (directories &&
      !(options.upper_directory.valid() && options.work_directory.valid())) {
    return Invalid("RootFsOptions.writes",
                   " is kDirectories, but upper_directory or work_directory "
                   "is not given");
  }
  if (!directories &&
      (options.upper_directory.valid() || options.work_directory.valid())) {
    return Invalid("RootFsOptions.upper_directory",
                   " and work_directory are for kDirectories only");
  }
  if (!directories && options.volatile_upper) {
    return Invalid("RootFsOptions.volatile_upper", " is for kDirectories only");
  }
  if (options.writes != RootWrites::kTmpfs && options.tmpfs_size_bytes != 0) {
    return Invalid("RootFsOptions.tmpfs_size_bytes", " is for kTmpfs only");
  }
  if (options.writes == RootWrites::kInPlace && options.layers.size() != 1) {
    return Invalid("RootFsOptions.writes",
                   absl::StrCat(" is kInPlace, which needs one layer, not ",
                                options.layers.size()));
  }
  return absl::OkStatus();
}

absl::Status CheckLayers(const RootFsOptions& options) {
  if (options.layers.empty() && options.writes != RootWrites::kTmpfs) {
    return Invalid("RootFsOptions.layers",
                   " is empty: a root needs a layer, unless it is kTmpfs");
  }
  if (options.layers.size() > kMaxLayers) {
    return Invalid("RootFsOptions.layers",
                   absl::StrCat(" has ", options.layers.size(),
                                " entries; overlayfs takes ", kMaxLayers));
  }
  for (size_t i = 0; i < options.layers.size(); ++i) {
    if (options.layers[i].valid()) continue;
    return Invalid(absl::StrCat("RootFsOptions.layers[", i, "]"),
                   " is no descriptor");
  }
  return absl::OkStatus();
}

absl::Status CheckTmpfs(const Mount& mount) {
  if ((mount.tmpfs->mode & ~kModeBits) == 0) return absl::OkStatus();
  return Invalid(
      absl::StrCat(mount.Field(), ".mode"),
      absl::StrFormat(" %#o has more than permission bits", mount.tmpfs->mode));
}

// What shows the namespaces of whoever mounts it: the host's, here.
constexpr absl::string_view kNamespaceViews[] = {"proc",   "sysfs",  "devpts",
                                                 "mqueue", "cgroup", "cgroup2"};

absl::Status CheckFilesystem(const Mount& mount) {
  const FilesystemMount& wanted = *mount.filesystem;
  const std::string type = absl::StrCat(mount.Field(), ".type ");
  if (wanted.type.empty()) return Invalid(type, "is empty");
  for (const absl::string_view view : kNamespaceViews) {
    if (wanted.type != view) continue;
    return Invalid(absl::StrCat(type, Quoted(wanted.type)),
                   " shows the namespaces of the host, which mounts it; RootFs "
                   "itself mounts the container's");
  }
  if (wanted.copy_up && wanted.type != "tmpfs") {
    return Invalid(mount.Field(), ".copy_up is for a tmpfs only");
  }
  if (wanted.access_times == AccessTimes::kUnchanged) {
    return Invalid(mount.Field(),
                   ".access_times: a new file system has none to keep");
  }
  std::vector<absl::string_view> texts = {wanted.type, wanted.source};
  texts.insert(texts.end(), wanted.options.begin(), wanted.options.end());
  for (const absl::string_view text : texts) {
    if (text.find('\0') == absl::string_view::npos) continue;
    return Invalid(absl::StrCat(mount.Field(), ": ", Quoted(text)),
                   " has a NUL");
  }
  return absl::OkStatus();
}

// The mounts that the caller asks for.
absl::Status AddRequested(const RootFsOptions& options,
                          std::vector<Mount>& mounts) {
  const auto finish = [](Mount& mount,
                         const std::string& path) -> absl::Status {
    ASSIGN_OR_RETURN(
        mount.destination,
        ParseDestination(absl::StrCat(mount.Field(), ".destination"), path));
    return CheckMountDestination(mount);
  };
  for (size_t i = 0; i < options.binds.size(); ++i) {
    Mount& mount = mounts.emplace_back();
    mount.kind = Mount::Kind::kBind;
    mount.index = i;
    mount.bind = &options.binds[i];
    RETURN_IF_ERROR(finish(mount, mount.bind->destination));
    RETURN_IF_ERROR(CheckBindSource(*mount.bind, mount.Field()));
  }
  for (size_t i = 0; i < options.tmpfs.size(); ++i) {
    Mount& mount = mounts.emplace_back();
    mount.kind = Mount::Kind::kTmpfs;
    mount.index = i;
    mount.tmpfs = &options.tmpfs[i];
    RETURN_IF_ERROR(finish(mount, mount.tmpfs->destination));
    RETURN_IF_ERROR(CheckTmpfs(mount));
  }
  for (size_t i = 0; i < options.filesystems.size(); ++i) {
    Mount& mount = mounts.emplace_back();
    mount.kind = Mount::Kind::kFilesystem;
    mount.index = i;
    mount.filesystem = &options.filesystems[i];
    RETURN_IF_ERROR(finish(mount, mount.filesystem->destination));
    RETURN_IF_ERROR(CheckFilesystem(mount));
  }
  return absl::OkStatus();
}

// Below what is left out there is nowhere to mount.
absl::Status CheckAreas(const Layout& layout) {
  for (const Mount& mount : layout.mounts) {
    const Area area = mount.destination.area();
    if ((area != Area::kProc || layout.proc) &&
        (area != Area::kSys || layout.sys)) {
      continue;
    }
    return Invalid(absl::StrCat(mount.Field(), ".destination ",
                                Quoted(mount.destination.absolute())),
                   " lies in what RootFsOptions.own_mounts leaves out");
  }
  return absl::OkStatus();
}

bool Contains(const std::vector<Mount>& mounts, absl::string_view absolute) {
  return std::any_of(mounts.begin(), mounts.end(), [&](const Mount& mount) {
    return mount.destination.absolute() == absolute;
  });
}

void AddEtcFile(const char* path, std::string content,
                std::vector<Mount>& mounts) {
  Mount& mount = mounts.emplace_back();
  mount.kind = Mount::Kind::kEtcFile;
  mount.destination = Destination(path);
  mount.content = std::move(content);
}

absl::Status AddDefaults(const RootFsOptions& options,
                         std::vector<Mount>& mounts) {
  const size_t requested = mounts.size();
  const auto is_free = [&](const char* path) {
    return requested == 0 || !Contains(mounts, path);
  };
  if (options.shm_size_bytes == 0) {
    return Invalid("RootFsOptions.shm_size_bytes", " is 0");
  }
  if (options.own_mounts.shm && is_free(kShm)) {
    Mount& shm = mounts.emplace_back();
    shm.kind = Mount::Kind::kShm;
    shm.destination = Destination(kShm);
  }
  RETURN_IF_ERROR(CheckHostname(options.hostname));
  ASSIGN_OR_RETURN(std::string hosts,
                   RenderHosts(options.hostname, options.hosts));
  if (!options.etc_files) return absl::OkStatus();
  if (!options.hostname.empty() && is_free(kHostname)) {
    AddEtcFile(kHostname, absl::StrCat(options.hostname, "\n"), mounts);
  }
  if (is_free(kHosts)) AddEtcFile(kHosts, std::move(hosts), mounts);
  if (is_free(kResolvConf)) {
    std::string text;
    if (options.resolv_conf.has_value()) {
      text = *options.resolv_conf;
    } else {
      ASSIGN_OR_RETURN(text, HostResolvConf(LoopbackServers::kRemove));
    }
    AddEtcFile(kResolvConf, std::move(text), mounts);
  }
  return absl::OkStatus();
}

// Outer mounts first; equal destinations end up side by side.
absl::Status SortMounts(std::vector<Mount>& mounts) {
  std::stable_sort(mounts.begin(), mounts.end(),
                   [](const Mount& a, const Mount& b) {
                     const Destination& x = a.destination;
                     const Destination& y = b.destination;
                     if (x.depth() != y.depth()) return x.depth() < y.depth();
                     return x.absolute() < y.absolute();
                   });
  const auto twice = std::adjacent_find(
      mounts.begin(), mounts.end(), [](const Mount& a, const Mount& b) {
        return a.destination.absolute() == b.destination.absolute();
      });
  if (twice == mounts.end()) return absl::OkStatus();
  const Mount& second = *std::next(twice);
  return Invalid(absl::StrCat(second.Field(), ".destination ",
                              Quoted(second.destination.absolute())),
                 absl::StrCat(" is that of ", twice->Field(), ", too"));
}

}  // namespace

Destination::Destination(std::string absolute)
    : absolute_(std::move(absolute)),
      depth_(static_cast<size_t>(
          std::count(absolute_.begin(), absolute_.end(), '/'))) {
  if (absl::StartsWith(absolute_, "/proc/")) area_ = Area::kProc;
  if (absl::StartsWith(absolute_, "/sys/")) area_ = Area::kSys;
}

absl::string_view Destination::relative() const {
  switch (area_) {
    case Area::kProc:
      return path().substr(sizeof("proc"));
    case Area::kSys:
      return path().substr(sizeof("sys"));
    case Area::kRoot:
      break;
  }
  return path();
}

std::string Mount::Field() const {
  switch (kind) {
    case Kind::kBind:
      return absl::StrCat("RootFsOptions.binds[", index, "]");
    case Kind::kTmpfs:
      return absl::StrCat("RootFsOptions.tmpfs[", index, "]");
    case Kind::kFilesystem:
      return absl::StrCat("RootFsOptions.filesystems[", index, "]");
    case Kind::kShm:
    case Kind::kEtcFile:
      break;
  }
  return destination.absolute();
}

absl::StatusOr<Destination> ParseDestination(absl::string_view field,
                                             absl::string_view path) {
  const auto refuse = [&](absl::string_view problem) {
    return Invalid(absl::StrCat(field, " ", Quoted(path)), problem);
  };
  if (path.empty() || path[0] != '/') return refuse(" is not an absolute path");
  if (path.find('\0') != absl::string_view::npos) return refuse(" has a NUL");
  if (path.size() >= PATH_MAX) return Invalid(field, " is too long a path");
  std::string absolute;
  for (absl::string_view component :
       absl::StrSplit(path, '/', absl::SkipEmpty())) {
    if (component == ".") continue;
    if (component == "..") return refuse(" has a \"..\"; say what it means");
    if (component.size() > NAME_MAX) {
      return refuse(" has a component that is too long");
    }
    absl::StrAppend(&absolute, "/", component);
  }
  if (absolute.empty()) return refuse(" is the root itself");
  return Destination(std::move(absolute));
}

absl::StatusOr<std::shared_ptr<const Layout>> MakeLayout(
    const RootFsOptions& options) {
  RETURN_IF_ERROR(CheckLayers(options));
  RETURN_IF_ERROR(CheckWrites(options));
  auto layout = std::make_shared<Layout>();
  std::vector<Mount>& mounts = layout->mounts;
  mounts.reserve(options.binds.size() + options.tmpfs.size() +
                 options.filesystems.size() + 4);
  RETURN_IF_ERROR(AddRequested(options, mounts));
  const auto is_free = [&mounts](const char* path) {
    return mounts.empty() || !Contains(mounts, path);
  };
  const OwnMounts& own = options.own_mounts;
  layout->proc = own.proc || !is_free("/proc");
  layout->sys = own.sys || !is_free("/sys");
  layout->devpts = own.pts && is_free("/dev/pts");
  layout->mqueue = own.mqueue && is_free("/dev/mqueue");
  layout->cgroup = options.cgroup != CgroupMounts::kNone && layout->sys &&
                   is_free("/sys/fs/cgroup");
  RETURN_IF_ERROR(CheckAreas(*layout));
  layout->sys_writable = options.unsafe_writable_sys;
  layout->propagation = options.propagation;
  layout->cgroup_writable = options.cgroup == CgroupMounts::kUnsafeWritable;
  layout->proc_hide_pid = options.proc_hide_pid;
  layout->proc_subset_pid = options.proc_subset_pid;
  layout->mount_label = options.mount_label;
  RETURN_IF_ERROR(AddDefaults(options, mounts));
  RETURN_IF_ERROR(SortMounts(mounts));
  RETURN_IF_ERROR(AddProtectedPaths(options, *layout));
  return std::shared_ptr<const Layout>(std::move(layout));
}

}  // namespace caisson::rootfs
