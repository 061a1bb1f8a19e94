#include "lib/rootfs/overlay.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/rootfs/mount_label.h"
#include "lib/rootfs/tmpfs_mount.h"
#include "lib/rootfs/writable_pair.h"
#include "lib/sys/mount.h"

namespace caisson::rootfs {
namespace {

constexpr char kStep[] = "rootfs.overlay";
constexpr size_t kMaxString = 255;  // fsconfig(2): strndup_user(value, 256)
constexpr absl::string_view kNeeds615 =
    " needs Linux 6.15, which takes detached mounts as overlay layers";

std::string LayerName(size_t i) {
  return absl::StrCat("RootFsOptions.layers[", i, "]");
}

std::string ProcPath(BorrowedFd fd) {
  return absl::StrCat("/proc/thread-self/fd/", fd.get());
}

std::string SharedProcPath(BorrowedFd fd) {
  return absl::StrCat("/proc/self/fd/", fd.get());
}

// What overlayfs means by an errno for which it logs nothing to the context
// (fs/overlayfs/super.c, params.c).
absl::string_view MeaningOf(int error) {
  switch (error) {
    case EINVAL:
      return "overlayfs refuses one of the directories (the kernel's log says "
             "which and why: a file system that cannot be a layer, an upper "
             "and a work directory on different file systems, more than two "
             "overlays on top of each other)";
    case EBUSY:
      return "the upper or work directory is used by another mount";
    case ELOOP:
      return "two of the directories lie inside of each other";
    case ESTALE:
      return "the upper directory was used with other layers before";
    case EROFS:
      return "the file system of the upper directory is read-only";
    case ENODATA:
    case EOPNOTSUPP:
      return "the file system of the upper directory lacks trusted extended "
             "attributes";
    case ENOTDIR:
      return "a layer is not a directory";
    case EPERM:
    case EACCES:
      return "overlayfs needs CAP_SYS_ADMIN in the user namespace of the mount "
             "namespace and write access to the work directory";
    default:
      return "";
  }
}

// 0 if the error did not come from the kernel.
int ErrnoOf(const absl::Status& status) {
  const auto detail = GetErrorDetail(status);
  return detail.has_value() ? detail->error : 0;
}

class OverlayMounter {
 public:
  OverlayMounter(const sys::MountExecutor& mounts, const RootFsOptions& options,
                 RootWrites writes, const std::vector<BorrowedFd>& layers,
                 BorrowedFd upper, BorrowedFd work)
      : mounts_(mounts),
        options_(options),
        writes_(writes),
        layers_(layers),
        upper_(upper),
        work_(work) {}

  absl::StatusOr<UniqueFd> Mount(LayerSyntax syntax) {
    ASSIGN_OR_RETURN(sys::FsContext overlay,
                     sys::FsContext::Open(mounts_, "overlay"));
    const absl::Status layers = SetLayers(overlay, syntax);
    if (!layers.ok()) return Explain(layers);
    RETURN_IF_ERROR(overlay.SetString("source", "overlay"));
    RETURN_IF_ERROR(SetLabel(overlay, options_.mount_label));
    // The defaults are the kernel configuration's. Anything but these would put
    // into the upper directory what other readers of it (a diff, a commit)
    // cannot see: a renamed directory without its content, a file without its
    // data.
    constexpr std::array<std::pair<const char*, const char*>, 4> kSettings = {
        {{"redirect_dir", "nofollow"},
         {"metacopy", "off"},
         {"index", "off"},
         {"xino", "off"}}};
    for (const auto& [key, value] : kSettings) {
      RETURN_IF_ERROR(overlay.SetString(key, value));
    }
    // trusted.* is for the host's root alone.
    if (mounts_.in_user_namespace()) {
      RETURN_IF_ERROR(overlay.SetFlag("userxattr"));
    }
    const bool writable = writes_ != RootWrites::kNone;
    if (writable) RETURN_IF_ERROR(SetUpper(overlay, syntax));
    auto mount =
        overlay.Mount(MOUNT_ATTR_NODEV | (writable ? 0 : MOUNT_ATTR_RDONLY));
    return mount.ok() ? std::move(mount) : Explain(mount.status());
  }

  // The syntax to go on with if the kernel may not know the one of the last
  // Mount(). It says EINVAL then, and also if it dislikes the first layer.
  std::optional<LayerSyntax> next_syntax() const { return next_syntax_; }

 private:
  absl::Status SetLayers(sys::FsContext& overlay, LayerSyntax syntax) {
    next_syntax_.reset();
    if (syntax == LayerSyntax::kJoined) return SetJoined(overlay);
    for (size_t i = 0; i < layers_.size(); ++i) {
      const absl::Status status =
          syntax == LayerSyntax::kDescriptors
              ? overlay.SetFd("lowerdir+", layers_[i], LayerName(i))
              : overlay.SetString("lowerdir+", ProcPath(layers_[i]));
      if (status.ok()) continue;
      if (i == 0) next_syntax_ = SyntaxAfter(syntax, ErrnoOf(status));
      return status;
    }
    return absl::OkStatus();
  }

  static std::optional<LayerSyntax> SyntaxAfter(LayerSyntax syntax, int error) {
    // Before 6.5 overlayfs has no parameters of its own (linux fs/fsopen.c,
    // legacy_fs_context_ops) and takes any string, until it mounts.
    if (error == EOPNOTSUPP) return LayerSyntax::kJoined;
    if (error != EINVAL) return std::nullopt;
    return syntax == LayerSyntax::kDescriptors ? LayerSyntax::kStrings
                                               : LayerSyntax::kJoined;
  }

  absl::Status SetJoined(sys::FsContext& overlay) const {
    // The shorter name for the same, unless this thread has descriptors of its
    // own.
    bool shared = true;
    for (BorrowedFd layer : layers_) {
      struct stat own;
      struct stat seen;
      shared = shared && ::fstat(layer.get(), &own) == 0 &&
               ::stat(SharedProcPath(layer).c_str(), &seen) == 0 &&
               own.st_dev == seen.st_dev && own.st_ino == seen.st_ino;
    }
    std::string lower;
    for (BorrowedFd layer : layers_) {
      absl::StrAppend(&lower, lower.empty() ? "" : ":",
                      shared ? SharedProcPath(layer) : ProcPath(layer));
    }
    if (lower.size() > kMaxString) {
      return absl::FailedPreconditionError(absl::StrCat(
          "RootFsOptions.layers: ", layers_.size(),
          " layers are more than this kernel can be told by descriptor (a list "
          "of ",
          kMaxString, " bytes before Linux 6.5)"));
    }
    return overlay.SetString("lowerdir", lower);
  }

  absl::Status SetUpper(sys::FsContext& overlay, LayerSyntax syntax) const {
    if (syntax == LayerSyntax::kDescriptors) {
      RETURN_IF_ERROR(overlay.SetFd("upperdir", upper_, "upper_directory"));
      RETURN_IF_ERROR(overlay.SetFd("workdir", work_, "work_directory"));
    } else {
      RETURN_IF_ERROR(overlay.SetString("upperdir", ProcPath(upper_)));
      RETURN_IF_ERROR(overlay.SetString("workdir", ProcPath(work_)));
    }
    // Nothing in memory survives a crash, so there is nothing to sync.
    if (options_.volatile_upper || writes_ == RootWrites::kTmpfs) {
      RETURN_IF_ERROR(overlay.SetFlag("volatile"));
    }
    return absl::OkStatus();
  }

  absl::Status Explain(const absl::Status& status) const {
    const std::string culprit = FindCulprit();
    const absl::string_view meaning =
        culprit.empty() ? MeaningOf(ErrnoOf(status)) : culprit;
    if (meaning.empty()) return status;
    return WithDetailOf(
        status, absl::Status(status.code(),
                             absl::StrCat(status.message(), "; ", meaning)));
  }

  // What the kernel only tells its log.
  std::string FindCulprit() const {
    for (size_t i = 0; i < layers_.size(); ++i) {
      struct stat layer;
      if (::fstat(layers_[i].get(), &layer) != 0) {
        return absl::StrCat(LayerName(i), " is no open descriptor");
      }
      if (!S_ISDIR(layer.st_mode)) {
        return absl::StrCat(LayerName(i), " is not a directory");
      }
    }
    struct stat upper;
    struct stat work;
    if (!upper_.valid() || ::fstat(upper_.get(), &upper) != 0 ||
        ::fstat(work_.get(), &work) != 0) {
      return "";
    }
    if (!S_ISDIR(upper.st_mode) || !S_ISDIR(work.st_mode)) {
      return "upper_directory or work_directory is not a directory";
    }
    if (upper.st_dev != work.st_dev) {
      return "upper_directory and work_directory are on different file systems";
    }
    if (::faccessat(work_.get(), "work/incompat/volatile", F_OK, 0) == 0) {
      return "the upper directory was mounted with volatile_upper before and "
             "may be incomplete; overlayfs does not mount it again";
    }
    return "";
  }

  // `to` with the payload of `from`.
  static absl::Status WithDetailOf(const absl::Status& from, absl::Status to) {
    from.ForEachPayload(
        [&to](absl::string_view url, const absl::Cord& payload) {
          to.SetPayload(url, payload);
        });
    return WithStep(std::move(to), kStep);
  }

  const sys::MountExecutor& mounts_;
  const RootFsOptions& options_;
  const RootWrites writes_;
  const std::vector<BorrowedFd>& layers_;
  const BorrowedFd upper_;
  const BorrowedFd work_;
  std::optional<LayerSyntax> next_syntax_;
};

absl::StatusOr<UniqueFd> MountOverlay(OverlayMounter& mounter,
                                      LayerSyntax first) {
  absl::StatusOr<UniqueFd> mount = mounter.Mount(first);
  while (!mount.ok() && mounter.next_syntax().has_value()) {
    auto retried = mounter.Mount(*mounter.next_syntax());
    // A list that is too long says nothing about the layers.
    if (retried.ok() || ErrnoOf(retried.status()) != 0) {
      mount = std::move(retried);
    }
  }
  return mount;
}

// A copy of the layer's mount, detached from the host's: what is mounted in
// one does not appear in the other.
absl::StatusOr<UniqueFd> CloneLayer(const sys::MountExecutor& mounts,
                                    BorrowedFd layer, size_t i,
                                    uint64_t attributes, BorrowedFd idmap) {
  ASSIGN_OR_RETURN(UniqueFd clone,
                   sys::CloneHostMount(mounts, layer, "",
                                       /*recursive=*/false, LayerName(i)));
  mount_attr attr = {.attr_set = attributes | MOUNT_ATTR_NODEV,
                     .propagation = MS_PRIVATE};
  if (idmap.valid()) {
    attr.attr_set |= MOUNT_ATTR_IDMAP;
    attr.userns_fd = static_cast<uint64_t>(idmap.get());
  }
  const absl::Status status = sys::SetMountAttributes(
      mounts, clone.borrow(), attr, /*recursive=*/false, LayerName(i));
  if (status.ok()) return clone;
  const auto detail = GetErrorDetail(status);
  if (!idmap.valid() || !detail.has_value()) return status;
  return ErrnoError(
      detail->error, absl::StrCat("mount_setattr(", LayerName(i), ", IDMAP)"),
      {.step = "rootfs.idmap",
       .hint = detail->error == EPERM
                   ? "idmap_user_namespace must have id maps and must not be "
                     "the initial user namespace"
                   : "the layer's file system must support idmapped mounts, "
                     "and idmap_user_namespace must be a user namespace"});
}

}  // namespace

absl::StatusOr<RootMount> MountRoot(const sys::MountExecutor& mounts,
                                    const RootFsOptions& options,
                                    RootWrites writes, LayerSyntax first,
                                    Scratch& scratch) {
  RootMount root;
  if (options.layers.empty()) {
    const TmpfsMount empty = {.size_bytes = options.tmpfs_size_bytes,
                              .mode = 0755,
                              .executable = true};
    ASSIGN_OR_RETURN(
        root.mount,
        MountTmpfs(mounts, empty, "tmpfs", {options.root_uid, options.root_gid},
                   options.mount_label,
                   /*content=*/BorrowedFd()));
    return root;
  }
  const bool mapped = options.idmap_user_namespace.valid();
  const bool detach = mounts.in_user_namespace();
  const bool single = options.layers.size() == 1;
  if (writes == RootWrites::kInPlace ||
      (writes == RootWrites::kNone && single)) {
    ASSIGN_OR_RETURN(
        root.mount,
        CloneLayer(mounts, options.layers[0], 0,
                   writes == RootWrites::kNone ? MOUNT_ATTR_RDONLY : 0,
                   options.idmap_user_namespace));
    root.is_clone = true;
    return root;
  }
  if (!scratch.detached_mounts() &&
      (mapped || detach || writes == RootWrites::kTmpfs)) {
    return absl::FailedPreconditionError(
        absl::StrCat(mapped   ? "RootFsOptions.idmap_user_namespace"
                     : detach ? "an overlay of a host without privileges"
                              : "RootFsOptions.writes: kTmpfs",
                     kNeeds615));
  }
  std::vector<BorrowedFd> layers = options.layers;
  if (mapped || detach) {
    for (size_t i = 0; i < layers.size(); ++i) {
      ASSIGN_OR_RETURN(
          UniqueFd clone,
          CloneLayer(mounts, layers[i], i, 0, options.idmap_user_namespace));
      layers[i] = clone.borrow();
      root.layers.push_back(std::move(clone));
    }
  }
  BorrowedFd upper = options.upper_directory;
  BorrowedFd work = options.work_directory;
  WritablePair pair;
  if (writes == RootWrites::kTmpfs) {
    RETURN_IF_ERROR(scratch.MakeUpper(layers[0]));
    upper = scratch.upper();
    work = scratch.work();
  } else if (detach && writes == RootWrites::kDirectories) {
    ASSIGN_OR_RETURN(pair, DetachWritablePair(mounts, upper, work));
    upper = pair.upper.borrow();
    work = pair.work.borrow();
  }
  OverlayMounter mounter(mounts, options, writes, layers, upper, work);
  ASSIGN_OR_RETURN(root.mount, MountOverlay(mounter, first));
  return root;
}

}  // namespace caisson::rootfs
