#include "lib/rootfs/devices.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/sys/mount.h"
#include "lib/sys/open.h"

namespace caisson::rootfs {
namespace {

constexpr char kStep[] = "rootfs.device";
constexpr absl::string_view kDev = "/dev/";
constexpr mode_t kDefaultMode = 0666;
constexpr mode_t kParentMode = 0755;
constexpr uint32_t kModeBits = 0777;
constexpr uint32_t kMaxMajor = (1u << 12) - 1;  // linux include/linux/kdev_t.h
constexpr uint32_t kMaxMinor = (1u << 20) - 1;

// Names in /dev that are not for nodes.
constexpr absl::string_view kReserved[] = {"pts",    "shm",   "mqueue",
                                           "fd",     "stdin", "stdout",
                                           "stderr", "ptmx",  "console"};

std::string FieldOf(size_t i) {
  return absl::StrCat("RootFsOptions.devices[", i, "]");
}

absl::Status Invalid(absl::string_view field, absl::string_view problem) {
  return absl::InvalidArgumentError(absl::StrCat(field, problem));
}

absl::Status Error(int error, absl::string_view call, absl::string_view path,
                   absl::string_view hint = {}) {
  return ErrnoError(error, absl::StrCat(call, "(", Quoted(path), ")"),
                    {.step = kStep, .path = path, .hint = hint});
}

absl::Status CheckSource(const DeviceNode& device, const std::string& field) {
  const int sources = (device.source.empty() ? 0 : 1) +
                      (device.source_fd.valid() ? 1 : 0) +
                      (device.number.has_value() ? 1 : 0);
  if (sources != 1) {
    return Invalid(field, " needs one of source, source_fd and number");
  }
  if (!device.source.empty() &&
      (device.source[0] != '/' ||
       device.source.find('\0') != std::string::npos)) {
    return Invalid(absl::StrCat(field, ".source ", Quoted(device.source)),
                   " is not an absolute path");
  }
  if (device.number.has_value() &&
      (device.number->major > kMaxMajor || device.number->minor > kMaxMinor)) {
    return Invalid(field, ".number is more than the kernel has");
  }
  if (device.number.has_value() &&
      device.number->type == DeviceNode::Type::kFifo &&
      (device.number->major != 0 || device.number->minor != 0)) {
    return Invalid(field, ".number: a FIFO has none");
  }
  if ((device.mode.value_or(0) & ~kModeBits) != 0) {
    return Invalid(field, ".mode has more than permission bits");
  }
  return absl::OkStatus();
}

// What a node is to be.
struct Wanted {
  mode_t type = 0;
  dev_t number = 0;
  mode_t mode = kDefaultMode;
  Owner owner;
  UniqueFd source;  // none for a number
};

mode_t TypeBitsOf(DeviceNode::Type type) {
  switch (type) {
    case DeviceNode::Type::kCharacter:
      return S_IFCHR;
    case DeviceNode::Type::kBlock:
      return S_IFBLK;
    case DeviceNode::Type::kFifo:
      break;
  }
  return S_IFIFO;
}

absl::StatusOr<Wanted> Resolve(const DeviceNode& device, const Owner& root,
                               const std::string& field) {
  Wanted wanted;
  wanted.owner = root;
  if (device.number.has_value()) {
    wanted.type = TypeBitsOf(device.number->type);
    wanted.number = makedev(device.number->major, device.number->minor);
  } else {
    auto source = device.source_fd.valid() ? sys::Duplicate(device.source_fd)
                                           : sys::Open(device.source, O_PATH);
    if (!source.ok()) return Annotate(source.status(), field);
    wanted.source = *std::move(source);
    struct stat status;
    if (::fstat(wanted.source.get(), &status) != 0) {
      return Annotate(Error(errno, "fstat", device.source), field);
    }
    if (!S_ISCHR(status.st_mode) && !S_ISBLK(status.st_mode)) {
      return Invalid(absl::StrCat(field, ".source ", Quoted(device.source)),
                     " is not a device node");
    }
    wanted.type = status.st_mode & S_IFMT;
    wanted.number = status.st_rdev;
    wanted.mode = status.st_mode & kModeBits;
    if (root.is_root()) wanted.owner = {status.st_uid, status.st_gid};
  }
  wanted.mode = device.mode.value_or(wanted.mode);
  wanted.owner.uid = device.uid.value_or(wanted.owner.uid);
  wanted.owner.gid = device.gid.value_or(wanted.owner.gid);
  return wanted;
}

// Opens the directory that `path` ("bus/usb/001") lies in, making what is
// missing; `name` gets the last component.
absl::StatusOr<UniqueFd> MakeParents(BorrowedFd dev, absl::string_view path,
                                     const Owner& owner, std::string& name) {
  std::vector<std::string> parts = absl::StrSplit(path, '/');
  name = std::move(parts.back());
  parts.pop_back();
  ASSIGN_OR_RETURN(UniqueFd at, sys::Duplicate(dev));
  for (const std::string& part : parts) {
    if (::mkdirat(at.get(), part.c_str(), kParentMode) != 0) {
      if (errno != EEXIST) return Error(errno, "mkdirat", path);
      ASSIGN_OR_RETURN(at,
                       sys::OpenAt2(at.borrow(), part, O_RDONLY | O_DIRECTORY,
                                    sys::kNoSymlinks));
      continue;
    }
    ASSIGN_OR_RETURN(at, sys::OpenAt2(at.borrow(), part, O_RDONLY | O_DIRECTORY,
                                      sys::kNoSymlinks));
    RETURN_IF_ERROR(SetOwnerAndMode(at.borrow(), owner, kParentMode, path));
  }
  return at;
}

bool IsDefaultNode(BorrowedFd dir, const std::string& name,
                   const Wanted& wanted) {
  struct stat status;
  return ::fstatat(dir.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) ==
             0 &&
         (status.st_mode & S_IFMT) == wanted.type &&
         status.st_rdev == wanted.number;
}

absl::StatusOr<BoundDevice> Bind(const sys::MountExecutor& mounts,
                                 BorrowedFd dir, const std::string& name,
                                 const Wanted& wanted,
                                 const std::string& path) {
  BoundDevice bound;
  bound.path = path;
  ASSIGN_OR_RETURN(bound.target,
                   sys::OpenAt2(dir, name, O_CREAT | O_EXCL | O_RDONLY,
                                sys::kNoSymlinks, 0600));
  ASSIGN_OR_RETURN(bound.mount,
                   sys::CloneHostMount(mounts, wanted.source.borrow(), "",
                                       /*recursive=*/false, path));
  RETURN_IF_ERROR(sys::SetMountAttributes(mounts, bound.mount.borrow(),
                                          sys::kHostNode,
                                          /*recursive=*/false, path));
  return bound;
}

absl::Status MakeNode(BorrowedFd dir, const std::string& name,
                      const Wanted& wanted, const std::string& path) {
  if (::mknodat(dir.get(), name.c_str(), wanted.type | wanted.mode,
                wanted.number) != 0) {
    const int error = errno;
    return Error(error, "mknodat", path,
                 error == EPERM
                     ? "making device nodes needs CAP_MKNOD and a devices "
                       "control group that allows it"
                 : error == EEXIST ? "RootFs makes this node itself"
                                   : "");
  }
  // Nobody else can reach the directory: the name is what was just made.
  if (::fchownat(dir.get(), name.c_str(), wanted.owner.uid, wanted.owner.gid,
                 AT_SYMLINK_NOFOLLOW) != 0) {
    return Error(errno, "fchownat", path);
  }
  if (::fchmodat(dir.get(), name.c_str(), wanted.mode, 0) != 0) {
    return Error(errno, "fchmodat", path);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckDevices(const RootFsOptions& options,
                          const std::vector<Mount>& mounts) {
  std::set<std::string> seen;
  for (size_t i = 0; i < options.devices.size(); ++i) {
    const DeviceNode& device = options.devices[i];
    const std::string field = FieldOf(i);
    RETURN_IF_ERROR(CheckSource(device, field));
    const std::string name = absl::StrCat(field, ".path");
    ASSIGN_OR_RETURN(const Destination destination,
                     ParseDestination(name, device.path));
    const std::string& path = destination.absolute();
    const std::string quoted = absl::StrCat(name, " ", Quoted(path));
    if (!absl::StartsWith(path, kDev)) {
      return Invalid(quoted, " is not below /dev: nodes open only there");
    }
    const absl::string_view first =
        absl::string_view(path).substr(kDev.size(), path.find('/', 5) - 5);
    for (const absl::string_view reserved : kReserved) {
      if (first == reserved) return Invalid(quoted, " is RootFs' own");
    }
    if (!seen.insert(path).second) {
      return Invalid(quoted, " is that of another device, too");
    }
    for (const Mount& mount : mounts) {
      const std::string& over = mount.destination.absolute();
      if (path == over || absl::StartsWith(path, absl::StrCat(over, "/"))) {
        return Invalid(quoted, absl::StrCat(" is hidden by ", mount.Field()));
      }
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<BoundDevice>> MakeDevices(
    const sys::MountExecutor& mounts, const std::vector<DeviceNode>& devices,
    BorrowedFd dev, const Owner& owner, bool bind) {
  std::vector<BoundDevice> bound;
  for (size_t i = 0; i < devices.size(); ++i) {
    const std::string field = FieldOf(i);
    ASSIGN_OR_RETURN(const Wanted wanted, Resolve(devices[i], owner, field));
    ASSIGN_OR_RETURN(const Destination destination,
                     ParseDestination(field, devices[i].path));
    const std::string& path = destination.absolute();
    std::string name;
    auto parent = MakeParents(dev, absl::string_view(path).substr(kDev.size()),
                              owner, name);
    if (!parent.ok()) return Annotate(parent.status(), field);
    if (IsDefaultNode(parent->borrow(), name, wanted)) continue;
    if (!bind || !wanted.source.valid()) {
      const absl::Status made = MakeNode(parent->borrow(), name, wanted, path);
      if (made.ok()) continue;
      const auto detail = GetErrorDetail(made);
      const bool refused = detail.has_value() && detail->error == EPERM;
      if (!refused || !wanted.source.valid()) return Annotate(made, field);
    }
    auto mount = Bind(mounts, parent->borrow(), name, wanted, path);
    if (!mount.ok()) return Annotate(mount.status(), field);
    bound.push_back(*std::move(mount));
  }
  return bound;
}

}  // namespace caisson::rootfs
