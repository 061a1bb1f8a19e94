#include "lib/rootfs/bind_mount.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/sys/mount.h"
#include "lib/sys/mount_info.h"
#include "lib/sys/open.h"

namespace caisson::rootfs {
namespace {

constexpr char kStep[] = "rootfs.bind";

absl::Status Invalid(absl::string_view field, absl::string_view problem) {
  return absl::InvalidArgumentError(absl::StrCat(field, problem));
}

// "RootFsOptions.binds[2], "/data"", for errors.
std::string NameOf(const BindMount& bind, absl::string_view field) {
  if (bind.source.empty()) return absl::StrCat(field, ", its source");
  return absl::StrCat(field, ", ", Quoted(bind.source));
}

uint64_t AttributesOf(const BindMount& bind) {
  const bool deep = bind.read_only && !bind.unsafe_writable_submounts;
  uint64_t set = 0;
  if (deep) set |= MOUNT_ATTR_RDONLY;
  if (bind.nosuid) set |= MOUNT_ATTR_NOSUID;
  if (!bind.unsafe_devices) set |= MOUNT_ATTR_NODEV;
  if (bind.noexec) set |= MOUNT_ATTR_NOEXEC;
  if (bind.nosymfollow) set |= MOUNT_ATTR_NOSYMFOLLOW;
  if (bind.nodiratime) set |= MOUNT_ATTR_NODIRATIME;
  if (bind.access_times == AccessTimes::kNever) set |= MOUNT_ATTR_NOATIME;
  if (bind.access_times == AccessTimes::kAlways) set |= MOUNT_ATTR_STRICTATIME;
  return set;
}

uint64_t PropagationOf(const BindMount& bind) {
  switch (bind.propagation) {
    case MountPropagation::kPrivate:
      break;
    case MountPropagation::kUnsafeSlave:
      return MS_SLAVE;
    case MountPropagation::kUnsafeShared:
      return MS_SHARED;
  }
  return MS_PRIVATE;
}

// mount_setattr(2) would succeed and connect nothing.
absl::Status CheckPropagation(const BindMount& bind, BorrowedFd source,
                              absl::string_view name) {
  if (bind.propagation == MountPropagation::kPrivate) return absl::OkStatus();
  const bool shared = bind.propagation == MountPropagation::kUnsafeShared;
  ASSIGN_OR_RETURN(const sys::MountInfo info, sys::MountInfoOf(source, name));
  if (info.shared || (info.slave && !shared)) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      name, ": propagation is ", shared ? "kUnsafeShared" : "kUnsafeSlave",
      ", but ", Quoted(info.mount_point), ", the mount that it lies in, is ",
      info.slave ? "a slave" : "private",
      ": nothing could pass between them (mount --make-shared ",
      Quoted(info.mount_point), ")"));
}

// What the kernel keeps from a user namespace: it makes every copy of the
// host's mounts a slave and locks their access times (mount_namespaces(7)).
absl::Status CheckUnprivileged(const BindMount& bind, absl::string_view name) {
  absl::string_view option;
  if (bind.propagation == MountPropagation::kUnsafeShared) {
    option = ".propagation kUnsafeShared";
  } else if (bind.access_times != AccessTimes::kUnchanged) {
    option = ".access_times";
  } else if (bind.idmap_user_namespace.valid()) {
    option = ".idmap_user_namespace";
  }
  if (option.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      name, ": BindMount", option,
      " needs a host with CAP_SYS_ADMIN (RootFsOptions::mounts is set)"));
}

absl::Status ExplainIdmap(const absl::Status& status, const BindMount& bind,
                          BorrowedFd source, absl::string_view name) {
  const auto detail = GetErrorDetail(status);
  if (!bind.idmap_user_namespace.valid() || !detail.has_value()) return status;
  std::string hint;
  if (detail->error == EPERM) {
    hint =
        "idmap_user_namespace must have id maps and must not be the initial "
        "user namespace, the source's mount must not be mapped already, and "
        "mapping it needs CAP_SYS_ADMIN over its file system";
  } else {
    const auto info = sys::MountInfoOf(source, name);
    hint = absl::StrCat("idmap_user_namespace must be a user namespace, and ",
                        info.ok()
                            ? absl::StrCat(Quoted(info->type), " (mounted at ",
                                           Quoted(info->mount_point), ")")
                            : std::string("the source's file system"),
                        bind.recursive ? " and all file systems below it" : "",
                        " must support idmapped mounts in this kernel");
  }
  return ErrnoError(detail->error,
                    absl::StrCat("mount_setattr(", name, ", IDMAP)"),
                    {.step = kStep, .path = bind.source, .hint = hint});
}

absl::StatusOr<UniqueFd> Clone(const sys::MountExecutor& mounts,
                               const BindMount& bind, BorrowedFd source,
                               absl::string_view name) {
  auto mount = sys::CloneHostMount(mounts, source, "", bind.recursive, name);
  const auto detail = GetErrorDetail(mount.status());
  if (!detail.has_value() || detail->error != EINVAL) return mount;
  return ErrnoError(EINVAL, absl::StrCat("open_tree(", name, ", CLONE)"),
                    {.step = kStep,
                     .path = bind.source,
                     .hint = "the source is unbindable, in another mount "
                             "namespace, or has locked mounts below it"});
}

}  // namespace

absl::Status CheckBindSource(const BindMount& bind, absl::string_view field) {
  const int sources = (bind.source.empty() ? 0 : 1) +
                      (bind.source_fd.valid() ? 1 : 0) +
                      (bind.open_source ? 1 : 0);
  if (sources != 1) {
    return Invalid(field, " needs one of source, source_fd and open_source");
  }
  if (bind.unsafe_writable_submounts && !bind.read_only) {
    return Invalid(field, ".unsafe_writable_submounts is for read_only only");
  }
  if (bind.source.empty()) return absl::OkStatus();
  const std::string name = absl::StrCat(field, ".source ", Quoted(bind.source));
  if (bind.source[0] != '/') return Invalid(name, " is not an absolute path");
  if (bind.source.find('\0') != std::string::npos) {
    return Invalid(name, " has a NUL");
  }
  return absl::OkStatus();
}

absl::StatusOr<UniqueFd> OpenBindSource(const BindMount& bind,
                                        BorrowedFd covered,
                                        absl::string_view field) {
  absl::StatusOr<UniqueFd> source = absl::UnknownError("");
  if (bind.open_source) {
    source = bind.open_source(covered);
    if (source.ok() && !source->valid()) {
      source = absl::InvalidArgumentError("open_source() gave no descriptor");
    }
  } else if (bind.source_fd.valid()) {
    source = sys::Duplicate(bind.source_fd);
  } else {
    source = sys::Open(bind.source, O_PATH);
  }
  if (source.ok()) return source;
  return Annotate(source.status(),
                  absl::StrCat(field, " for ", Quoted(bind.destination)));
}

absl::StatusOr<UniqueFd> MakeBindMount(const sys::MountExecutor& mounts,
                                       const BindMount& bind, BorrowedFd source,
                                       absl::string_view field) {
  const std::string name = NameOf(bind, field);
  RETURN_IF_ERROR(CheckPropagation(bind, source, name));
  if (mounts.in_user_namespace())
    RETURN_IF_ERROR(CheckUnprivileged(bind, name));
  ASSIGN_OR_RETURN(UniqueFd mount, Clone(mounts, bind, source, name));
  mount_attr attributes = {.attr_set = AttributesOf(bind),
                           .propagation = PropagationOf(bind)};
  if (bind.access_times != AccessTimes::kUnchanged) {
    attributes.attr_clr = MOUNT_ATTR__ATIME;
  }
  if (bind.idmap_user_namespace.valid()) {
    attributes.attr_set |= MOUNT_ATTR_IDMAP;
    attributes.userns_fd =
        static_cast<uint64_t>(bind.idmap_user_namespace.get());
  }
  const absl::Status status = sys::SetMountAttributes(
      mounts, mount.borrow(), attributes, /*recursive=*/true, name);
  if (!status.ok()) return ExplainIdmap(status, bind, source, name);
  if (bind.read_only && bind.unsafe_writable_submounts) {
    const mount_attr top = {.attr_set = MOUNT_ATTR_RDONLY};
    RETURN_IF_ERROR(sys::SetMountAttributes(mounts, mount.borrow(), top,
                                            /*recursive=*/false, name));
  }
  return mount;
}

absl::StatusOr<BindMount> PinSource(const BindMount& bind, BorrowedFd source) {
  struct stat then;
  if (::fstat(source.get(), &then) != 0) {
    return ErrnoError(errno, absl::StrCat("fstat(", Quoted(bind.source), ")"),
                      {.step = kStep, .path = bind.source});
  }
  BindMount pinned = bind;
  pinned.source.clear();
  pinned.open_source =
      [path = bind.source, device = then.st_dev,
       inode = then.st_ino](BorrowedFd) -> absl::StatusOr<UniqueFd> {
    ASSIGN_OR_RETURN(UniqueFd again, sys::Open(path, O_PATH));
    struct stat now;
    if (::fstat(again.get(), &now) == 0 && now.st_dev == device &&
        now.st_ino == inode) {
      return again;
    }
    return absl::FailedPreconditionError(absl::StrCat(
        Quoted(path), " is not what the other root has mounted from there"));
  };
  return pinned;
}

}  // namespace caisson::rootfs
