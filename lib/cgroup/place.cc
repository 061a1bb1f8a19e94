#include "lib/cgroup/place.h"

#include <errno.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "caisson/error.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/cgroup/lifelines.h"
#include "lib/cgroup/tree.h"

namespace caisson::cgroup {
namespace {

constexpr char kOwnerPrefix[] = "caisson-";
constexpr char kSubtreeControl[] = "cgroup.subtree_control";

// Directories of the path that this library made, and may remove, have the
// sticky bit: they are born with it, whenever their maker is killed.
constexpr mode_t kMadeMark = S_ISVTX;
constexpr mode_t kParentMode = 0755 | kMadeMark;
// Nobody else may open the directory for reading, and so nobody can lock it.
constexpr mode_t kOwnerMode = 0711;

// Others may remove the path between two of our steps, at most so often.
constexpr int kMaxAttempts = 100;

constexpr size_t kMaxNameLength = 255;  // NAME_MAX

std::string BadCharacter(absl::string_view name) {
  for (char c : name) {
    if (absl::ascii_iscntrl(static_cast<unsigned char>(c))) {
      return "must not contain control characters";
    }
  }
  return "";
}

std::string BadComponent(absl::string_view name) {
  if (name.empty()) return "must not be empty";
  if (name == "." || name == "..") return "must not be \".\" or \"..\"";
  if (absl::StrContains(name, '/')) return "must not contain \"/\"";
  if (name.size() > kMaxNameLength) return "is longer than 255 bytes";
  if (absl::StartsWith(name, "cgroup.")) {
    return "must not begin with \"cgroup.\", as the kernel's files do";
  }
  return BadCharacter(name);
}

std::vector<std::string> Components(absl::string_view below) {
  return absl::StrSplit(below, '/', absl::SkipEmpty());
}

absl::Status MkdirError(int error, const std::string& path) {
  absl::string_view hint;
  switch (error) {
    case EACCES:
    case EPERM:
      hint =
          "this process may not make groups there: run as root, or have a part "
          "of the hierarchy delegated to you and name it as the parent";
      break;
    case EROFS:
      hint = "cgroupfs is mounted read-only";
      break;
    case EAGAIN:
      hint = "a cgroup.max.depth or cgroup.max.descendants above is reached";
      break;
    case ENOSPC:
      hint = "the kernel has no more group ids: groups are leaking";
      break;
    case EOPNOTSUPP:
      hint = "the parent is threaded (cgroup.type)";
      break;
    default:
      break;
  }
  return ErrnoError(error, absl::StrCat("mkdir(", Quoted(path), ")"),
                    {.step = "cgroup.create", .path = path, .hint = hint});
}

// A v1 cpuset accepts no process before it has CPUs and memory nodes.
absl::Status InheritCpuset(const Filesystem& filesystem, const Dir& parent,
                           const Dir& dir) {
  for (absl::string_view file : {"cpuset.cpus", "cpuset.mems"}) {
    ASSIGN_OR_RETURN(const std::string value, filesystem.Read(parent, file));
    RETURN_IF_ERROR(filesystem.Write(dir, file, value));
  }
  return absl::OkStatus();
}

bool IsErrno(const absl::Status& status, int error) {
  const auto detail = GetErrorDetail(status);
  return detail.has_value() && detail->error == error;
}

// `below` of the mount, made where missing.
absl::StatusOr<Dir> OpenOrMakePath(const Filesystem& filesystem,
                                   const CgroupHierarchy& hierarchy,
                                   const Dir& mount, absl::string_view below) {
  ASSIGN_OR_RETURN(Dir here,
                   filesystem.OpenDir(mount.fd.borrow(), mount.path, "."));
  here.path = mount.path;
  for (const std::string& name : Components(below)) {
    auto next = filesystem.OpenDir(here.fd.borrow(), here.path, name);
    if (IsErrno(next.status(), ENOENT)) {
      next = MakeGroupDir(filesystem, hierarchy, here, name, kParentMode);
      if (IsErrno(next.status(), EEXIST)) {
        next = filesystem.OpenDir(here.fd.borrow(), here.path, name);
      }
    }
    RETURN_IF_ERROR(next.status());
    here = *std::move(next);
  }
  return here;
}

absl::Status Lock(const Dir& dir) {
  int result;
  do {
    result = ::flock(dir.fd.get(), LOCK_EX);
  } while (result != 0 && errno == EINTR);
  if (result == 0) return absl::OkStatus();
  return ErrnoError(errno, absl::StrCat("flock(", Quoted(dir.path), ")"),
                    {.step = "cgroup.create", .path = dir.path});
}

absl::Status SubtreeControlError(const Filesystem& filesystem, const Dir& dir,
                                 absl::string_view name,
                                 const absl::Status& status) {
  const auto detail = GetErrorDetail(status);
  if (!detail.has_value()) return status;
  std::string hint;
  switch (detail->error) {
    case EBUSY: {
      const auto procs = filesystem.Read(dir, "cgroup.procs");
      const std::vector<std::string> pids =
          absl::StrSplit(procs.value_or(""), '\n', absl::SkipEmpty());
      hint = absl::StrCat(
          "the group has processes of its own (",
          absl::StrJoin(pids.begin(),
                        pids.begin() + std::min<size_t>(pids.size(), 5), ", "),
          pids.size() > 5 ? ", ..." : "",
          "), and a group with processes cannot enable controllers for its "
          "children (no-internal-process rule): move them to a child group, or "
          "choose another parent");
      break;
    }
    case ENOENT:
      hint = absl::StrCat("its cgroup.controllers does not offer \"", name,
                          "\": the group above has to enable it");
      break;
    case EACCES:
    case EPERM:
      hint =
          "only the owner of that group may enable it: ask for it to be "
          "delegated (systemd: Delegate=yes)";
      break;
    case EROFS:
      hint = "cgroupfs is mounted read-only";
      break;
    case EOPNOTSUPP:
      hint = "the group is threaded (cgroup.type)";
      break;
    default:
      return status;
  }
  const std::string path = Join(dir.path, kSubtreeControl);
  return ErrnoError(detail->error,
                    absl::StrCat("write(", Quoted(path), ", \"+", name, "\")"),
                    {.step = "cgroup.controllers", .path = path, .hint = hint});
}

}  // namespace

bool StillThere(BorrowedFd parent, const std::string& name, const Dir& dir) {
  struct stat by_name = {}, by_fd = {};
  return ::fstatat(parent.get(), name.c_str(), &by_name, AT_SYMLINK_NOFOLLOW) ==
             0 &&
         ::fstat(dir.fd.get(), &by_fd) == 0 && by_name.st_ino == by_fd.st_ino &&
         by_name.st_dev == by_fd.st_dev;
}

absl::Status EnableIn(const Filesystem& filesystem, const Dir& dir,
                      const ControllerSet& controllers,
                      ControllerSet* enabled) {
  ASSIGN_OR_RETURN(const std::string text,
                   filesystem.Read(dir, kSubtreeControl));
  ControllerSet missing = controllers;
  for (absl::string_view name :
       absl::StrSplit(text, absl::ByAnyChar(" \n"), absl::SkipEmpty())) {
    if (const auto controller = ControllerByName(name)) {
      missing.reset(IndexOf(*controller));
    }
  }
  for (CgroupController controller : ToVector(missing)) {
    const absl::string_view name = CgroupControllerName(controller);
    const absl::Status status =
        filesystem.Write(dir, kSubtreeControl, absl::StrCat("+", name));
    if (!status.ok()) {
      return SubtreeControlError(filesystem, dir, name, status);
    }
    if (enabled != nullptr) enabled->set(IndexOf(controller));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> NewOwnerName() {
  uint64_t random = 0;
  if (::getrandom(&random, sizeof(random), 0) != sizeof(random)) {
    return ErrnoError(errno, "getrandom()", {.step = "cgroup.create"});
  }
  return absl::StrFormat("%s%d-%016x", kOwnerPrefix, ::getpid(), random);
}

bool IsOwnerName(absl::string_view name) {
  if (!absl::ConsumePrefix(&name, kOwnerPrefix)) return false;
  const size_t dash = name.find('-');
  if (dash == 0 || dash == absl::string_view::npos) return false;
  const absl::string_view pid = name.substr(0, dash);
  const absl::string_view random = name.substr(dash + 1);
  return std::all_of(pid.begin(), pid.end(), absl::ascii_isdigit) &&
         random.size() == 16 &&
         std::all_of(random.begin(), random.end(), [](unsigned char c) {
           return absl::ascii_isdigit(c) || (c >= 'a' && c <= 'f');
         });
}

absl::Status ValidatePath(absl::string_view path) {
  std::string reason;
  if (path.empty() || path[0] != '/') {
    reason = "must be absolute";
  } else if (path != "/") {
    for (absl::string_view name : absl::StrSplit(path.substr(1), '/')) {
      reason = BadComponent(name);
      if (!reason.empty()) {
        reason = absl::StrCat("component ", Quoted(name), " ", reason);
        break;
      }
    }
  }
  if (reason.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("cgroup path ", Quoted(path), ": ", reason));
}

absl::Status ValidateName(absl::string_view name) {
  std::string reason = BadComponent(name);
  // Recover() takes one like an owner's for a dead owner's.
  if (reason.empty() &&
      (GroupOfLifeline(name).has_value() || IsOwnerName(name))) {
    reason = "such names are the library's own";
  }
  if (reason.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("cgroup name ", Quoted(name), ": ", reason));
}

std::vector<CgroupPath> PathsAt(const CgroupLayout& layout,
                                absl::string_view path) {
  std::vector<CgroupPath> paths;
  for (const CgroupHierarchy& hierarchy : layout.hierarchies) {
    if (!hierarchy.writable) continue;
    absl::string_view below = path;
    if (hierarchy.mount_root != "/" &&
        (!absl::ConsumePrefix(&below, hierarchy.mount_root) ||
         !absl::StartsWith(below, "/"))) {
      continue;
    }
    paths.push_back({.version = hierarchy.version,
                     .controllers = hierarchy.controllers,
                     .directory = absl::StrCat(hierarchy.mount_point, below)});
  }
  return paths;
}

absl::StatusOr<Dir> MakeGroupDir(const Filesystem& filesystem,
                                 const CgroupHierarchy& hierarchy,
                                 const Dir& parent, const std::string& name,
                                 mode_t mode) {
  const int error = filesystem.MakeDir(parent.fd.borrow(), name, mode);
  if (error != 0) return MkdirError(error, Join(parent.path, name));
  ASSIGN_OR_RETURN(Dir dir,
                   filesystem.OpenDir(parent.fd.borrow(), parent.path, name));
  if (hierarchy.version == CgroupVersion::kV1 &&
      std::find(hierarchy.controllers.begin(), hierarchy.controllers.end(),
                CgroupController::kCpuset) != hierarchy.controllers.end()) {
    if (absl::Status status = InheritCpuset(filesystem, parent, dir);
        !status.ok()) {
      (void)filesystem.RemoveDir(parent.fd.borrow(), name);
      return status;
    }
  }
  return dir;
}

absl::StatusOr<Place> MakePlace(const Filesystem& filesystem,
                                const CgroupHierarchy& hierarchy,
                                const Mount& mount, const std::string& path,
                                const std::string& owner) {
  Place place;
  place.hierarchy = &hierarchy;
  place.mount.path = hierarchy.mount_point;
  ASSIGN_OR_RETURN(place.below, PathBelowMount(hierarchy, path));
  ASSIGN_OR_RETURN(place.mount.fd, filesystem.OpenMount(mount));
  absl::Cleanup remove_parents = [&] {
    RemoveMadeParents(filesystem, place.mount, place.below);
  };
  absl::Status status;
  for (int attempt = 0; attempt < kMaxAttempts; ++attempt) {
    auto parent =
        OpenOrMakePath(filesystem, hierarchy, place.mount, place.below);
    status = parent.status();
    if (status.ok()) {
      place.parent = *std::move(parent);
      auto dir = owner.empty() ? filesystem.OpenDir(place.parent.fd.borrow(),
                                                    place.parent.path, ".")
                               : MakeGroupDir(filesystem, hierarchy,
                                              place.parent, owner, kOwnerMode);
      status = dir.status();
      if (status.ok()) place.dir = *std::move(dir);
    }
    // Somebody removed an empty directory of the path, or ours, in between.
    if (IsErrno(status, ENOENT) || IsErrno(status, ENODEV)) continue;
    RETURN_IF_ERROR(status);
    if (owner.empty()) {
      place.dir.path = place.parent.path;
      std::move(remove_parents).Cancel();
      return place;
    }
    if (status = Lock(place.dir); !status.ok()) {
      (void)filesystem.RemoveDir(place.parent.fd.borrow(), owner);
      return status;
    }
    if (StillThere(place.parent.fd.borrow(), owner, place.dir)) {
      std::move(remove_parents).Cancel();
      return place;
    }
  }
  return absl::AbortedError(absl::StrCat(
      "cgroup ", Quoted(Join(place.mount.path, path)), ": somebody removes it ",
      "as often as it is made", status.ok() ? "" : ": ", status.message()));
}

absl::Status EnableControllers(const Filesystem& filesystem,
                               const ControllerSet& controllers, Place& place) {
  const ControllerSet wanted = controllers & ~place.enabled;
  if (wanted.none()) return absl::OkStatus();
  RETURN_IF_ERROR(EnableIn(filesystem, place.mount, wanted));
  Dir here;
  here.path = place.mount.path;
  BorrowedFd at = place.mount.fd.borrow();
  for (const std::string& name : Components(place.below)) {
    ASSIGN_OR_RETURN(Dir next, filesystem.OpenDir(at, here.path, name));
    RETURN_IF_ERROR(EnableIn(filesystem, next, wanted));
    here = std::move(next);
    at = here.fd.borrow();
  }
  RETURN_IF_ERROR(EnableIn(filesystem, place.dir, wanted));
  place.enabled |= wanted;
  return absl::OkStatus();
}

absl::Status RemovePlace(const Filesystem& filesystem, const Place& place) {
  if (place.dir.path == place.parent.path) {  // without an owner
    if (IsMade(place.dir.fd.borrow())) {
      RemoveMadeParents(filesystem, place.mount, place.below);
    }
    return absl::OkStatus();
  }
  const std::string name = place.dir.path.substr(place.dir.path.rfind('/') + 1);
  const int error = filesystem.RemoveDir(place.parent.fd.borrow(), name);
  if (error != 0 && error != ENOENT) {
    return ErrnoError(error,
                      absl::StrCat("rmdir(", Quoted(place.dir.path), ")"),
                      {.step = "cgroup.close",
                       .path = place.dir.path,
                       .hint = error == EBUSY ? "there are groups in it" : ""});
  }
  RemoveMadeParents(filesystem, place.mount, place.below);
  return absl::OkStatus();
}

bool IsMade(BorrowedFd dir) {
  struct stat st = {};
  return ::fstat(dir.get(), &st) == 0 && (st.st_mode & kMadeMark) != 0;
}

void RemoveMadeParents(const Filesystem& filesystem, const Dir& mount,
                       absl::string_view below) {
  std::vector<std::string> names = Components(below);
  while (!names.empty()) {
    const std::string last = std::move(names.back());
    names.pop_back();
    auto parent =
        filesystem.OpenDir(mount.fd.borrow(), mount.path,
                           names.empty() ? "." : absl::StrJoin(names, "/"));
    if (!parent.ok()) return;
    auto dir = filesystem.OpenDir(parent->fd.borrow(), parent->path, last);
    if (!dir.ok() || !IsMade(dir->fd.borrow()) ||
        filesystem.RemoveDir(parent->fd.borrow(), last) != 0) {
      return;
    }
  }
}

}  // namespace caisson::cgroup
