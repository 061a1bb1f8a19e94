#include "lib/rootfs/scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/rootfs/mount_label.h"
#include "lib/sys/mount.h"
#include "lib/sys/open.h"

namespace caisson::rootfs {
namespace {

constexpr char kStep[] = "rootfs.scratch";
constexpr uint64_t kDefaultSize = uint64_t{64} << 20;  // Docker's, of its /dev
constexpr unsigned kAttributes = MOUNT_ATTR_NOSUID;

struct Node {
  const char* name;
  unsigned major;
  unsigned minor;
};

// OCI runtime specification, config-linux.md, "Default Devices".
constexpr Node kNodes[] = {
    {"null", 1, 3},   {"zero", 1, 5},    {"full", 1, 7},
    {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0},
};

struct Link {
  const char* name;
  const char* target;
};

// OCI runtime specification, runtime-linux.md, "Dev symbolic links".
constexpr Link kLinks[] = {
    {"fd", "/proc/self/fd"},       {"stdin", "/proc/self/fd/0"},
    {"stdout", "/proc/self/fd/1"}, {"stderr", "/proc/self/fd/2"},
    {"ptmx", "pts/ptmx"},
};

absl::Status Error(int error, absl::string_view call, absl::string_view name) {
  return ErrnoError(error, absl::StrCat(call, "(", Quoted(name), ")"),
                    {.step = kStep, .path = name});
}

// By name: only for directories that nobody else can reach yet.
absl::Status SetOwnerAndModeAt(BorrowedFd dir, const char* name,
                               const Owner& owner, mode_t mode) {
  if (!owner.is_root() && ::fchownat(dir.get(), name, owner.uid, owner.gid,
                                     AT_SYMLINK_NOFOLLOW) != 0) {
    return Error(errno, "fchownat", name);
  }
  if (::fchmodat(dir.get(), name, mode, 0) != 0) {
    return Error(errno, "fchmodat", name);
  }
  return absl::OkStatus();
}

absl::StatusOr<UniqueFd> NewTmpfs(const sys::MountExecutor& mounts,
                                  uint64_t size_bytes, const Owner& owner,
                                  const std::string& label) {
  ASSIGN_OR_RETURN(sys::FsContext tmpfs, sys::FsContext::Open(mounts, "tmpfs"));
  RETURN_IF_ERROR(tmpfs.SetString("source", "tmpfs"));
  RETURN_IF_ERROR(tmpfs.SetString("mode", "0755"));
  if (size_bytes != 0) {
    RETURN_IF_ERROR(tmpfs.SetString("size", absl::StrCat(size_bytes)));
  }
  RETURN_IF_ERROR(SetLabel(tmpfs, label));
  if (!owner.is_root()) {
    RETURN_IF_ERROR(tmpfs.SetString("uid", absl::StrCat(owner.uid)));
    RETURN_IF_ERROR(tmpfs.SetString("gid", absl::StrCat(owner.gid)));
  }
  return tmpfs.Mount(kAttributes);
}

}  // namespace

absl::Status SetOwnerAndMode(BorrowedFd file, const Owner& owner, mode_t mode,
                             absl::string_view what) {
  if (!owner.is_root() && ::fchown(file.get(), owner.uid, owner.gid) != 0) {
    return Error(errno, "fchown", what);
  }
  if (::fchmod(file.get(), mode) != 0) return Error(errno, "fchmod", what);
  return absl::OkStatus();
}

absl::StatusOr<Scratch> Scratch::Create(const Options& options) {
  ASSIGN_OR_RETURN(UniqueFd mount, NewTmpfs(*options.mounts, options.size_bytes,
                                            options.owner, options.label));
  Scratch scratch(*options.mounts, std::move(mount), options.owner);
  RETURN_IF_ERROR(scratch.MountDev(options));
  RETURN_IF_ERROR(scratch.FillDev());
  return scratch;
}

absl::Status Scratch::MakeDirectory(BorrowedFd parent, const char* name,
                                    mode_t mode) const {
  if (::mkdirat(parent.get(), name, mode) != 0) {
    return Error(errno, "mkdirat", name);
  }
  return SetOwnerAndModeAt(parent, name, owner_, mode);
}

absl::Status Scratch::MountDev(const Options& options) {
  RETURN_IF_ERROR(MakeDirectory(mount_.borrow(), "dev", 0755));
  if (!options.attached_mounts_only) {
    auto clone = sys::CloneMount(*mounts_, mount_.borrow(), "dev",
                                 /*recursive=*/false, "/dev");
    if (clone.ok()) {
      dev_ = *std::move(clone);
      return absl::OkStatus();
    }
    const auto detail = GetErrorDetail(clone.status());
    if (!detail.has_value() || detail->error != EINVAL) return clone.status();
  }
  detached_mounts_ = false;
  ASSIGN_OR_RETURN(dev_,
                   NewTmpfs(*mounts_, kDefaultSize, owner_, options.label));
  return MakeNode(mount_.borrow(), "null", 1, 3);
}

absl::Status Scratch::MakeNode(BorrowedFd parent, const char* name,
                               unsigned major, unsigned minor) {
  if (::mknodat(parent.get(), name, S_IFCHR | 0666, makedev(major, minor)) !=
      0) {
    // In a user namespace, the launcher's or the host's own, and where a
    // devices control group or a security module forbids it: the host's own
    // node, bound, is the same device, and runc does so, too.
    if (errno == EPERM) return MakePlaceholder(parent, name);
    const std::string path = absl::StrCat("/dev/", name);
    return ErrnoError(errno, absl::StrCat("mknodat(", Quoted(path), ")"),
                      {.step = kStep, .path = path});
  }
  return SetOwnerAndModeAt(parent, name, owner_, 0666);
}

dev_t Scratch::DeviceOf(const std::string& name) {
  for (const Node& node : kNodes) {
    if (name == node.name) return makedev(node.major, node.minor);
  }
  return 0;
}

absl::Status Scratch::MakePlaceholder(BorrowedFd parent, const char* name) {
  // Mode 0444: it is also what masks a file (null_file()).
  const UniqueFd file(::openat(parent.get(), name,
                               O_CREAT | O_EXCL | O_RDONLY | O_CLOEXEC, 0444));
  if (!file.valid()) return Error(errno, "open", name);
  if (parent.get() == dev_.get()) missing_nodes_.emplace_back(name);
  return SetOwnerAndMode(file.borrow(), owner_, 0444, name);
}

absl::Status Scratch::FillDev() {
  for (const Node& node : kNodes) {
    RETURN_IF_ERROR(MakeNode(dev_.borrow(), node.name, node.major, node.minor));
  }
  for (const Link& link : kLinks) {
    if (::symlinkat(link.target, dev_.get(), link.name) != 0) {
      return Error(errno, "symlinkat", link.name);
    }
    if (!owner_.is_root() && ::fchownat(dev_.get(), link.name, owner_.uid,
                                        owner_.gid, AT_SYMLINK_NOFOLLOW) != 0) {
      return Error(errno, "fchownat", link.name);
    }
  }
  for (const char* name : {"pts", "shm", "mqueue"}) {
    RETURN_IF_ERROR(MakeDirectory(dev_.borrow(), name, 0755));
  }
  return absl::OkStatus();
}

absl::Status Scratch::MakeUpper(BorrowedFd model) {
  struct stat status;
  if (::fstat(model.get(), &status) != 0) {
    return ErrnoError(errno, "fstat(layers[0])", {.step = kStep});
  }
  if (::mkdirat(mount_.get(), "upper", 0700) != 0) {
    return Error(errno, "mkdirat", "upper");
  }
  RETURN_IF_ERROR(MakeDirectory(mount_.borrow(), "work", 0700));
  const Owner owner = mounts_->in_user_namespace()
                          ? owner_  // no other can be given
                          : Owner{status.st_uid, status.st_gid};
  RETURN_IF_ERROR(SetOwnerAndModeAt(mount_.borrow(), "upper", owner,
                                    status.st_mode & 07777));
  ASSIGN_OR_RETURN(upper_,
                   sys::OpenAt2(mount_.borrow(), "upper", O_PATH | O_DIRECTORY,
                                sys::kNoSymlinks));
  ASSIGN_OR_RETURN(work_, sys::OpenAt2(mount_.borrow(), "work",
                                       O_PATH | O_DIRECTORY, sys::kNoSymlinks));
  return absl::OkStatus();
}

absl::Status Scratch::WriteFile(const std::string& name,
                                const std::string& content) {
  UniqueFd file(::openat(mount_.get(), name.c_str(),
                         O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644));
  if (!file.valid()) return Error(errno, "open", name);
  RETURN_IF_ERROR(sys::WriteAll(file.borrow(), content, name));
  return SetOwnerAndMode(file.borrow(), owner_, 0644, name);
}

absl::Status Scratch::MakeCgroupDirectories(const std::vector<V1Group>& groups,
                                            bool unified) const {
  const auto make = [this](BorrowedFd parent, const std::string& name) {
    const absl::Status made = MakeDirectory(parent, name.c_str(), 0555);
    return absl::IsAlreadyExists(made) ? absl::OkStatus() : made;
  };
  RETURN_IF_ERROR(make(mount_.borrow(), kCgroupDirectory));
  ASSIGN_OR_RETURN(const UniqueFd dir,
                   sys::OpenAt2(mount_.borrow(), kCgroupDirectory,
                                O_PATH | O_DIRECTORY, sys::kNoSymlinks));
  for (const V1Group& group : groups) {
    RETURN_IF_ERROR(make(dir.borrow(), group.hierarchy));
    for (const std::string& controller : group.controllers) {
      if (controller == group.hierarchy) continue;
      if (::symlinkat(group.hierarchy.c_str(), dir.get(), controller.c_str()) !=
              0 &&
          errno != EEXIST) {
        return Error(errno, "symlinkat", controller);
      }
    }
  }
  return unified ? make(dir.borrow(), kUnified) : absl::OkStatus();
}

absl::Status Scratch::Adopt(BorrowedFd mount) {
  ASSIGN_OR_RETURN(const UniqueFd place,
                   sys::OpenAt2(mount_.borrow(), "dev/shm",
                                O_PATH | O_DIRECTORY, sys::kNoSymlinks));
  const sys::MountResult result = mounts_->Attach(mount, place.borrow());
  RETURN_IF_ERROR(result.failure);
  return result.ok() ? absl::OkStatus()
                     : Error(result.error, "move_mount", "dev/shm");
}

absl::Status Scratch::Hold(BorrowedFd root) {
  RETURN_IF_ERROR(MakeDirectory(mount_.borrow(), "root", 0700));
  ASSIGN_OR_RETURN(const UniqueFd place,
                   sys::OpenAt2(mount_.borrow(), "root", O_PATH | O_DIRECTORY,
                                sys::kNoSymlinks));
  const sys::MountResult result = mounts_->Attach(root, place.borrow());
  RETURN_IF_ERROR(result.failure);
  return result.ok() ? absl::OkStatus()
                     : Error(result.error, "move_mount", "root");
}

void Scratch::Close() {
  mount_.reset();
  dev_.reset();
  upper_.reset();
  work_.reset();
}

}  // namespace caisson::rootfs
