#include "lib/rootfs/built_root.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/rootfs/bind_mount.h"
#include "lib/rootfs/cgroup_view.h"
#include "lib/rootfs/filesystem_mount.h"
#include "lib/rootfs/mount_label.h"
#include "lib/rootfs/tmpfs_mount.h"
#include "lib/sys/capability.h"
#include "lib/sys/mount.h"
#include "lib/sys/mount_info.h"
#include "lib/sys/open.h"

namespace caisson::rootfs {
namespace {

constexpr uint64_t kDefaultScratchSize = uint64_t{64} << 20;
constexpr mode_t kMountPointMode = 0755;
constexpr mode_t kFileMode = 0644;
constexpr gid_t kTtyGroup = 5;

bool HasErrno(const absl::Status& status, int error) {
  const auto detail = GetErrorDetail(status);
  return detail.has_value() && detail->error == error;
}

// "/a/../b" as "a/../b": ".." stays inside the root, as for a process in it.
absl::StatusOr<std::string> RelativePath(absl::string_view path) {
  if (path.empty() || path[0] != '/') {
    return absl::InvalidArgumentError(
        absl::StrCat("path ", Quoted(path), " is not absolute"));
  }
  if (path.find('\0') != absl::string_view::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("path ", Quoted(path), " has a NUL"));
  }
  path.remove_prefix(std::min(path.find_first_not_of('/'), path.size()));
  return std::string(path);
}

std::shared_ptr<const sys::MountExecutor> MountsOf(
    const RootFsOptions& options) {
  if (options.mounts != nullptr) return options.mounts;
  // Nobody owns it.
  return {std::shared_ptr<void>(), &sys::DirectMounts()};
}

absl::Status CheckOwner(const RootFsOptions& options) {
  if (options.mounts == nullptr) {
    if (sys::HasCapability(CAP_SYS_ADMIN)) return absl::OkStatus();
    return absl::FailedPreconditionError(
        "RootFs::Create(): making mounts needs CAP_SYS_ADMIN, which this "
        "process lacks; set RootFsOptions::mounts to Launcher::mounts(), so "
        "that the launcher makes them");
  }
  if (options.idmap_user_namespace.valid()) {
    return absl::FailedPreconditionError(
        "RootFsOptions.idmap_user_namespace: mapping the ids of a file system "
        "of the host needs CAP_SYS_ADMIN there (mount_setattr(2))");
  }
  if (options.root_uid == 0 && options.root_gid == 0) return absl::OkStatus();
  return absl::FailedPreconditionError(
      "RootFsOptions.root_uid and root_gid: a host without CAP_CHOWN cannot "
      "give files away; root of the container is the host's own user, 0");
}

absl::Status CheckHostNode(BorrowedFd node, const std::string& name) {
  struct stat status;
  if (::fstat(node.get(), &status) == 0 && S_ISCHR(status.st_mode) &&
      status.st_rdev == Scratch::DeviceOf(name)) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(absl::StrCat(
      "\"/dev/", name, "\" of the host is not the device of this name"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<BuiltRoot>> BuiltRoot::Build(
    const RootFsOptions& options, const KernelLimits& limits) {
  ASSIGN_OR_RETURN(const auto layout, MakeLayout(options));
  RETURN_IF_ERROR(CheckOwner(options));
  RETURN_IF_ERROR(CheckDevices(options, layout->mounts));
  RETURN_IF_ERROR(CheckMountLabel(options.mount_label));
  auto root = BuildWith(options, layout, options.writes, limits);
  // A mount point is missing, and there is no layer to create it in: take one
  // in memory that the container cannot write to.
  if (options.writes == RootWrites::kNone && HasErrno(root.status(), EROFS) &&
      !limits.attached_mounts_only) {
    auto retried = BuildWith(options, layout, RootWrites::kTmpfs, limits);
    if (retried.ok()) return retried;
  }
  return root;
}

absl::StatusOr<std::unique_ptr<BuiltRoot>> BuiltRoot::BuildWith(
    const RootFsOptions& options, const std::shared_ptr<const Layout>& layout,
    RootWrites writes, const KernelLimits& limits) {
  const Owner owner = {options.root_uid, options.root_gid};
  const auto mounts = MountsOf(options);
  const bool in_memory = options.writes == RootWrites::kTmpfs;
  ASSIGN_OR_RETURN(
      Scratch scratch,
      Scratch::Create({.mounts = mounts.get(),
                       .size_bytes = in_memory ? options.tmpfs_size_bytes
                                               : kDefaultScratchSize,
                       .owner = owner,
                       .label = options.mount_label,
                       .attached_mounts_only = limits.attached_mounts_only}));
  ASSIGN_OR_RETURN(auto devices,
                   MakeDevices(*mounts, options.devices, scratch.dev(), owner,
                               limits.bound_devices));
  ASSIGN_OR_RETURN(RootMount mount, MountRoot(*mounts, options, writes,
                                              limits.layer_syntax, scratch));
  // So that they end with the scratch mount. Where each call takes a process,
  // waiting is cheaper.
  if (!mounts->in_user_namespace()) {
    for (const UniqueFd& layer : mount.layers) {
      RETURN_IF_ERROR(scratch.Adopt(layer.borrow()));
    }
  }
  const bool hold = mount.is_clone && mounts->in_user_namespace() &&
                    scratch.detached_mounts();
  if (hold) RETURN_IF_ERROR(scratch.Hold(mount.mount.borrow()));
  Tree tree(*mounts, std::move(mount.mount), scratch.detached_mounts(), owner);
  std::unique_ptr<BuiltRoot> root(
      new BuiltRoot(layout, mounts, std::move(scratch), std::move(tree)));
  root->owner_ = owner;
  root->tty_group_ = options.tty_group_mapped && mounts->HasGroup(kTtyGroup);
  root->root_in_scratch_ = hold;
  // Without writes the mount itself was made read-only.
  root->read_only_ = writes != RootWrites::kNone &&
                     (options.read_only || options.writes == RootWrites::kNone);
  RETURN_IF_ERROR(root->MakeOwnMountPoints(std::move(devices)));
  RETURN_IF_ERROR(root->AddMounts(options));
  RETURN_IF_ERROR(root->Protect());
  return root;
}

absl::Status BuiltRoot::MakeOwnMountPoints(std::vector<BoundDevice> devices) {
  if (layout_->proc) {
    ASSIGN_OR_RETURN(proc_, tree_.OwnDirectory("proc"));
  }
  if (layout_->sys) {
    ASSIGN_OR_RETURN(sys_, tree_.OwnDirectory("sys"));
  }
  RETURN_IF_ERROR(AttachDev());
  if (dev_bind_.valid()) return absl::OkStatus();
  for (BoundDevice& device : devices) {
    PendingMount node;
    node.path = device.path.substr(1);
    node.object = std::move(device.mount);
    node.target = std::move(device.target);
    RETURN_IF_ERROR(tree_.Attach(std::move(node)));
  }
  return scratch_.missing_nodes().empty() ? absl::OkStatus() : AddHostNodes();
}

absl::Status BuiltRoot::AttachDev() {
  for (const Mount& mount : layout_->mounts) {
    if (mount.destination.path() != "dev") continue;
    ASSIGN_OR_RETURN(dev_bind_, MakeBind(mount));
  }
  PendingMount dev;
  dev.path = "dev";
  ASSIGN_OR_RETURN(dev.target, tree_.OwnDirectory("dev"));
  ASSIGN_OR_RETURN(
      dev.object,
      sys::Duplicate(dev_bind_.valid() ? dev_bind_.borrow() : scratch_.dev()));
  return tree_.Attach(std::move(dev));
}

// The host's device nodes, mounted where /dev has files for them. Which device
// each is, is checked: nothing else of the host's /dev can appear.
absl::Status BuiltRoot::AddHostNodes() {
  ASSIGN_OR_RETURN(const UniqueFd host_dev,
                   sys::Open("/dev", O_PATH | O_DIRECTORY));
  if (!scratch_.detached_mounts()) return AddHostNodesLater(host_dev.borrow());
  const sys::MountResult result = mounts_->BindHostFiles(
      host_dev.borrow(), scratch_.missing_nodes(), scratch_.dev());
  RETURN_IF_ERROR(result.failure);
  if (!result.ok()) {
    return ErrnoError(result.error, "bind the device nodes of the host's /dev",
                      {.step = "rootfs.dev", .path = "/dev"});
  }
  for (const std::string& name : scratch_.missing_nodes()) {
    ASSIGN_OR_RETURN(
        const UniqueFd node,
        sys::OpenAt2(scratch_.dev(), name, O_PATH, sys::kNoSymlinks));
    RETURN_IF_ERROR(CheckHostNode(node.borrow(), name));
  }
  return absl::OkStatus();
}

absl::Status BuiltRoot::AddHostNodesLater(BorrowedFd host_dev) {
  for (const std::string& name : scratch_.missing_nodes()) {
    PendingMount node;
    node.path = absl::StrCat("dev/", name);
    ASSIGN_OR_RETURN(
        node.object,
        sys::CloneHostMount(*mounts_, host_dev, name.c_str(),
                            /*recursive=*/false, Quoted("/" + node.path)));
    RETURN_IF_ERROR(CheckHostNode(node.object.borrow(), name));
    RETURN_IF_ERROR(sys::SetMountAttributes(*mounts_, node.object.borrow(),
                                            sys::kHostNode,
                                            /*recursive=*/false, node.path));
    ASSIGN_OR_RETURN(node.target, sys::OpenAt2(scratch_.dev(), name, O_PATH,
                                               sys::kNoSymlinks));
    RETURN_IF_ERROR(tree_.Attach(std::move(node)));
  }
  return absl::OkStatus();
}

absl::Status BuiltRoot::AddMounts(const RootFsOptions& options) {
  for (const Mount& mount : layout_->mounts) {
    if (mount.destination.path() == "dev") continue;  // AttachDev()
    RETURN_IF_ERROR(AddMount(options, mount));
  }
  return absl::OkStatus();
}

absl::Status BuiltRoot::AddMount(const RootFsOptions& options,
                                 const Mount& mount) {
  absl::StatusOr<UniqueFd> object;
  switch (mount.kind) {
    case Mount::Kind::kEtcFile:
      return AddEtcFile(mount);
    case Mount::Kind::kShm:
      object = MountTmpfs(*mounts_, {.size_bytes = options.shm_size_bytes},
                          "shm", owner_, layout_->mount_label,
                          /*content=*/BorrowedFd());
      break;
    case Mount::Kind::kTmpfs:
      object = MakeTmpfs(mount);
      break;
    case Mount::Kind::kBind:
      object = MakeBind(mount);
      break;
    case Mount::Kind::kFilesystem:
      object = MakeFilesystem(mount);
      break;
  }
  RETURN_IF_ERROR(object.status());
  return Place(mount, *std::move(object));
}

absl::StatusOr<UniqueFd> BuiltRoot::MakeTmpfs(const Mount& mount) {
  UniqueFd covered;
  if (mount.tmpfs->copy_up) {
    ASSIGN_OR_RETURN(covered, CoveredDirectory(mount));
  }
  auto object = MountTmpfs(*mounts_, *mount.tmpfs, "tmpfs", owner_,
                           layout_->mount_label, covered.borrow());
  return object.ok() ? std::move(object)
                     : Annotate(object.status(), mount.Field());
}

absl::StatusOr<UniqueFd> BuiltRoot::MakeBind(const Mount& mount) {
  const BindMount& bind = *mount.bind;
  const std::string field = mount.Field();
  UniqueFd covered;
  if (bind.open_source) {
    ASSIGN_OR_RETURN(covered, CoveredDirectory(mount));
  }
  ASSIGN_OR_RETURN(UniqueFd source,
                   OpenBindSource(bind, covered.borrow(), field));
  ASSIGN_OR_RETURN(UniqueFd object,
                   MakeBindMount(*mounts_, bind, source.borrow(), field));
  RETURN_IF_ERROR(Remember(bind, std::move(source)));
  return object;
}

absl::StatusOr<UniqueFd> BuiltRoot::MakeFilesystem(const Mount& mount) {
  UniqueFd covered;
  if (mount.filesystem->copy_up) {
    ASSIGN_OR_RETURN(covered, CoveredDirectory(mount));
  }
  auto object = MountFilesystem(*mounts_, *mount.filesystem, owner_,
                                layout_->mount_label, covered.borrow());
  return object.ok() ? std::move(object)
                     : Annotate(object.status(), mount.Field());
}

absl::Status BuiltRoot::Remember(const BindMount& bind, UniqueFd source) {
  const bool by_path = !bind.source.empty();
  BindMount& kept = binds_.emplace_back();
  if (by_path) {
    // Its descriptor would keep the host from unmounting it.
    ASSIGN_OR_RETURN(kept, PinSource(bind, source.borrow()));
  } else {
    kept = bind;
  }
  if (bind.source_fd.valid()) {
    kept.source_fd = source.borrow();
    held_.push_back(std::move(source));
  }
  if (bind.idmap_user_namespace.valid()) {
    ASSIGN_OR_RETURN(UniqueFd user, sys::Duplicate(bind.idmap_user_namespace));
    kept.idmap_user_namespace = user.borrow();
    held_.push_back(std::move(user));
  }
  return absl::OkStatus();
}

// What the image itself has there: not what another mount shows there.
absl::StatusOr<UniqueFd> BuiltRoot::CoveredDirectory(const Mount& mount) {
  if (mount.destination.area() != Area::kRoot) return UniqueFd();
  auto found = tree_.Find(mount.destination.path());
  if (HasErrno(found.status(), ENOENT)) return UniqueFd();
  if (!found.ok()) return Annotate(found.status(), mount.Field());
  struct stat status;
  if (::fstat(found->get(), &status) != 0) {
    return ErrnoError(errno, absl::StrCat("fstat(", mount.Field(), ")"),
                      {.step = "rootfs.bind"});
  }
  if (!S_ISDIR(status.st_mode)) return UniqueFd();
  const std::string& path = mount.destination.absolute();
  ASSIGN_OR_RETURN(const uint64_t there, sys::MountIdOf(found->borrow(), path));
  ASSIGN_OR_RETURN(const uint64_t root, sys::MountIdOf(tree_.root(), "/"));
  return there == root ? *std::move(found) : UniqueFd();
}

absl::Status BuiltRoot::AddEtcFile(const Mount& mount) {
  const std::string& absolute = mount.destination.absolute();
  const std::string name = absolute.substr(absolute.rfind('/') + 1);
  RETURN_IF_ERROR(scratch_.WriteFile(name, mount.content));
  PendingMount pending;
  pending.path = std::string(mount.destination.path());
  ASSIGN_OR_RETURN(pending.target,
                   tree_.Find(pending.path, Tree::Create::kFile, kFileMode));
  if (scratch_.detached_mounts()) {
    ASSIGN_OR_RETURN(pending.object,
                     sys::CloneMount(*mounts_, scratch_.mount(), name.c_str(),
                                     /*recursive=*/false, name));
  } else {
    pending.source = PendingMount::Source::kScratch;
    pending.name = name;
    ASSIGN_OR_RETURN(pending.object, sys::OpenAt2(scratch_.mount(), name,
                                                  O_PATH, sys::kNoSymlinks));
  }
  return tree_.Attach(std::move(pending));
}

absl::Status BuiltRoot::Place(const Mount& mount, UniqueFd object) {
  if (mount.destination.path() == "proc" || mount.destination.path() == "sys") {
    (mount.destination.path() == "proc" ? proc_bind_ : sys_bind_) =
        std::move(object);
    return absl::OkStatus();
  }
  if (mount.destination.area() != Area::kRoot) {
    late_.push_back({std::move(object), mount.destination});
    return absl::OkStatus();
  }
  PendingMount pending;
  pending.path = std::string(mount.destination.path());
  pending.object = std::move(object);
  pending.outlives_child = mount.kind == Mount::Kind::kBind;
  auto target = tree_.Find(pending.path);
  if (HasErrno(target.status(), ENOENT)) {
    struct stat status;
    if (::fstat(pending.object.get(), &status) != 0) {
      return ErrnoError(errno, absl::StrCat("fstat(", mount.Field(), ")"),
                        {.step = "rootfs.bind"});
    }
    target = S_ISDIR(status.st_mode)
                 ? tree_.Find(pending.path, Tree::Create::kDirectory,
                              kMountPointMode)
                 : tree_.Find(pending.path, Tree::Create::kFile, kFileMode);
  }
  if (!target.ok()) return Annotate(target.status(), mount.Field());
  pending.target = *std::move(target);
  const absl::Status status = tree_.Attach(std::move(pending));
  return status.ok() ? status : Annotate(status, mount.Field());
}

// Masked and read-only paths outside of /proc and /sys; what lies there, the
// plan protects.
absl::Status BuiltRoot::Protect() {
  for (const ProtectedPath& mask : layout_->masked) {
    if (mask.area != Area::kRoot) continue;
    RETURN_IF_ERROR(ProtectPath(mask.path(), /*mask=*/true));
  }
  for (const ProtectedPath& path : layout_->read_only) {
    if (path.area != Area::kRoot) continue;
    RETURN_IF_ERROR(ProtectPath(path.path(), /*mask=*/false));
  }
  return absl::OkStatus();
}

absl::Status BuiltRoot::ProtectPath(absl::string_view path, bool mask) {
  PendingMount pending;
  pending.path = std::string(path);
  auto target = tree_.Find(path);
  if (HasErrno(target.status(), ENOENT) || HasErrno(target.status(), ENOTDIR)) {
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(target.status());
  pending.target = *std::move(target);
  struct stat status;
  if (::fstat(pending.target.get(), &status) != 0) {
    return ErrnoError(errno, absl::StrCat("fstat(", Quoted(path), ")"),
                      {.step = "rootfs.protect", .path = path});
  }
  pending.source =
      mask ? PendingMount::Source::kMask : PendingMount::Source::kReadOnly;
  if (mask) {
    pending.name = S_ISDIR(status.st_mode) ? scratch_.empty_directory()
                                           : scratch_.null_file();
  }
  if (!scratch_.detached_mounts())
    return tree_.ProtectLater(std::move(pending));
  ASSIGN_OR_RETURN(
      pending.object,
      mask ? sys::CloneMount(*mounts_, scratch_.mount(), pending.name.c_str(),
                             /*recursive=*/false, path)
           : sys::CloneMount(*mounts_, pending.target.borrow(), "",
                             /*recursive=*/true, path));
  const mount_attr attributes = {.attr_set = MOUNT_ATTR_RDONLY};
  RETURN_IF_ERROR(sys::SetMountAttributes(
      *mounts_, pending.object.borrow(), attributes, /*recursive=*/true, path));
  return tree_.Attach(std::move(pending));
}

absl::StatusOr<UniqueFd> BuiltRoot::Open(absl::string_view path,
                                         int flags) const {
  ASSIGN_OR_RETURN(const std::string relative, RelativePath(path));
  if ((flags & (O_CREAT | O_TRUNC | (O_TMPFILE & ~O_DIRECTORY))) != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("flags of Open(", Quoted(path), ") create or truncate"));
  }
  ASSIGN_OR_RETURN(UniqueFd found, tree_.Find(relative));
  return sys::OpenFound(std::move(found), path, flags);
}

absl::Status BuiltRoot::MakeDirectory(absl::string_view path, mode_t mode) {
  if (attached_) {
    return absl::FailedPreconditionError(absl::StrCat(
        "MakeDirectory(", Quoted(path), "): the root was started already"));
  }
  ASSIGN_OR_RETURN(const std::string relative, RelativePath(path));
  ASSIGN_OR_RETURN(const UniqueFd directory,
                   tree_.Find(relative, Tree::Create::kDirectory, mode));
  struct stat status;
  if (::fstat(directory.get(), &status) == 0 && S_ISDIR(status.st_mode)) {
    return absl::OkStatus();
  }
  return ErrnoError(ENOTDIR, absl::StrCat("mkdir(", Quoted(path), ")"),
                    {.step = "rootfs.mkdir", .path = path});
}

absl::StatusOr<RootFsSlots> BuiltRoot::AddTo(
    plan::PlanBuilder& plan, const MountContext& context) const {
  if (attached_) {
    return absl::FailedPreconditionError(
        "this RootFs was started already; a mount tree can be attached once: "
        "create another one");
  }
  if (context.user_namespace && !context.new_pid_namespace &&
      (layout_->proc_hide_pid != ProcHidePid::kNone ||
       layout_->proc_subset_pid)) {
    return absl::FailedPreconditionError(
        "RootFsOptions.proc_hide_pid and proc_subset_pid need a procfs of the "
        "container's own, which a user namespace can only have together with a "
        "PID namespace");
  }
  std::vector<NamedMount> v1_groups;
  if (layout_->cgroup) {
    ASSIGN_OR_RETURN(v1_groups, MountV1Groups(*mounts_, scratch_, context,
                                              layout_->cgroup_writable));
  }
  TreeView view;
  view.v1_groups = &v1_groups;
  view.root = tree_.root();
  view.root_in_scratch = root_in_scratch_;
  view.scratch = scratch_.mount();
  view.null_file = scratch_.null_file();
  view.empty_directory = scratch_.empty_directory();
  view.null_is_file = !scratch_.missing_nodes().empty();
  view.proc = proc_.borrow();
  view.sys = sys_.borrow();
  view.proc_bind = proc_bind_.borrow();
  view.sys_bind = sys_bind_.borrow();
  view.dev = dev_bind_.valid() ? dev_bind_.borrow() : scratch_.dev();
  view.detached_mounts = scratch_.detached_mounts();
  view.tty_group = tty_group_;
  view.read_only = read_only_;
  view.pending = &tree_.pending();
  view.late = &late_;
  view.layout = layout_.get();
  return AppendMounts(view, context, plan);
}

void BuiltRoot::MarkAttached() {
  attached_ = true;
  proc_.reset();
  sys_.reset();
  proc_bind_.reset();
  sys_bind_.reset();
  dev_bind_.reset();
  late_.clear();
  tree_.DropPending();
  scratch_.Close();
}

}  // namespace caisson::rootfs
