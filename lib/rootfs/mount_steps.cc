#include "lib/rootfs/mount_steps.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/rootfs/mount_label.h"
#include "lib/rootfs/scratch.h"
#include "lib/sys/mount.h"

namespace caisson::rootfs {
namespace {

using ::caisson::plan::Arg;
using ::caisson::plan::Data;
using ::caisson::plan::PlanBuilder;
using ::caisson::plan::Slot;

constexpr unsigned kNoPrivileges =
    MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
constexpr unsigned kClone = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC;
// Something that exists in every "/" and is not looked up by anybody before it
// is unmounted with it.
constexpr char kOldRootDirectory[] = "/sys";

constexpr char kDevptsOptions[] = "newinstance,ptmxmode=0666,mode=0620";
constexpr char kTtyGroup[] = ",gid=5";  // "tty" by convention of all systems

constexpr char kCgroupMountPoint[] = "/sys/fs/cgroup";

constexpr char kSysfs[] =
    "sysfs shows the network namespace, which must belong to the container's "
    "user namespace; and there the kernel mounts it only where an unobstructed "
    "one is visible (mount_too_revealing(), linux fs/namespace.c)";
constexpr char kRevealing[] =
    "in a user namespace the kernel mounts this file system only where an "
    "unobstructed one is visible (mount_too_revealing(), linux "
    "fs/namespace.c)";

// "open_tree("/a", CLONE)". Most paths need no escapes, and this runs dozens of
// times in every start.
std::string CallText(absl::string_view function, absl::string_view path,
                     absl::string_view rest) {
  for (const char c : path) {
    if (c < ' ' || c > '~' || c == '"' || c == '\\') {
      return absl::StrCat(function, "(", Quoted(path), rest);
    }
  }
  return absl::StrCat(function, "(\"", path, "\"", rest);
}

// A place for a mount, in the child: a descriptor, or a name below one.
struct Place {
  Slot dir;
  absl::string_view name;  // empty: `dir` itself
  absl::string_view path;  // for errors
};

class MountSteps {
 public:
  MountSteps(const TreeView& tree, const MountContext& context,
             PlanBuilder& plan)
      : tree_(tree), context_(context), plan_(plan), empty_(plan.String("")) {}

  RootFsSlots Append() {
    if (!context_.isolated_launcher) MakePrivate();
    MakeProcAndSys();
    if (tree_.root_in_scratch) AttachScratch();
    AttachRoot();
    if (!tree_.root_in_scratch) AttachScratch();
    AttachPending();
    // After everything that an image can steer: nothing can come to lie over
    // them.
    if (tree_.layout->proc) {
      Attach(slots_.proc, {plan_.Send(tree_.proc), "", "/proc"});
    }
    if (tree_.layout->sys) {
      Attach(sys_, {plan_.Send(tree_.sys), "", "/sys"});
    }
    if (ShowsCgroups()) MountCgroups();
    MountInDev();
    Protect();
    AttachLate();
    Pivot();
    return slots_;
  }

 private:
  bool FromLauncher(bool new_namespace) const {
    return context_.user_namespace && !new_namespace;
  }

  void MakePrivate() {
    plan_.Call(SYS_mount, {0, plan_.String("/"), 0, MS_REC | MS_PRIVATE, 0},
               "mount(\"/\", MS_REC | MS_PRIVATE)");
  }

  PlanBuilder::OpRef Attach(Slot mount, const Place& place) {
    const Data name = place.name.empty() ? empty_ : plan_.String(place.name);
    const unsigned flags = MOVE_MOUNT_F_EMPTY_PATH |
                           (place.name.empty() ? MOVE_MOUNT_T_EMPTY_PATH : 0u);
    PlanBuilder::OpRef op =
        plan_.Call(SYS_move_mount, {mount, empty_, place.dir, name, flags},
                   CallText("move_mount", place.path, ")"));
    op.Path(place.path);
    return op;
  }

  // The number of operations that Clone() takes.
  int CloneLength(bool read_only) const {
    return read_only && !tree_.detached_mounts ? 2 : 1;
  }

  // Clones what is at `name` below `dir`. The operation that looks it up comes
  // first; missing things may be tolerated there.
  void Clone(const Place& source, bool read_only, int missing_skip,
             Slot result) {
    const Data name = source.name.empty() ? empty_ : plan_.String(source.name);
    const unsigned flags = kClone | AT_SYMLINK_NOFOLLOW |
                           (source.name.empty() ? AT_EMPTY_PATH : 0u);
    const std::string call = CallText("open_tree", source.path, ", CLONE)");
    const mount_attr attributes = {.attr_set = MOUNT_ATTR_RDONLY};
    // open_tree_attr(2) came with the release that detached_mounts stands for.
    PlanBuilder::OpRef op =
        read_only && tree_.detached_mounts
            ? plan_.Call(sys::kSysOpenTreeAttr,
                         {source.dir, name, flags, plan_.Object(attributes),
                          sizeof(attributes)},
                         call)
            : plan_.Call(SYS_open_tree, {source.dir, name, flags}, call);
    op.Into(result).Path(source.path);
    if (missing_skip >= 0) {
      op.Tolerate(ENOENT, static_cast<uint16_t>(missing_skip));
    }
    if (!read_only || tree_.detached_mounts) return;
    plan_
        .Call(SYS_mount_setattr,
              {result, empty_, AT_EMPTY_PATH, plan_.Object(attributes),
               sizeof(attributes)},
              CallText("mount_setattr", source.path, ", RDONLY)"))
        .Path(source.path);
  }

  // A new file system of the child's namespaces.
  Slot NewFileSystem(
      const char* type, unsigned attributes, const char* hint,
      const std::vector<std::pair<const char*, std::string>>& options = {}) {
    const Slot context = plan_.NewSlot();
    const Slot mount = plan_.NewSlot();
    const Data name = plan_.String(type);
    plan_
        .Call(SYS_fsopen, {name, FSOPEN_CLOEXEC},
              absl::StrCat("fsopen(", type, ")"))
        .Into(context);
    plan_.Call(SYS_fsconfig,
               {context, FSCONFIG_SET_STRING, plan_.String("source"), name, 0},
               absl::StrCat("fsconfig(", type, ", source)"));
    for (const auto& [key, value] : options) {
      plan_
          .Call(SYS_fsconfig,
                {context, FSCONFIG_SET_STRING, plan_.String(key),
                 plan_.String(value), 0},
                absl::StrCat("fsconfig(", type, ", ", key, "=", value, ")"))
          .Hint("needs Linux 5.8");
    }
    plan_
        .Call(SYS_fsconfig, {context, FSCONFIG_CMD_CREATE, 0, 0, 0},
              absl::StrCat("fsconfig(", type, ", CMD_CREATE)"))
        .Hint(hint);
    plan_
        .Call(SYS_fsmount, {context, FSMOUNT_CLOEXEC, attributes},
              absl::StrCat("fsmount(", type, ")"))
        .Into(mount)
        .Hint(hint);
    return mount;
  }

  // A copy of what the launcher has at `path`, for a file system that the
  // child's user namespace may not mount. Without the host's mounts below it
  // where the launcher has none.
  Slot CopyFromLauncher(const char* path, uint64_t attributes) {
    const Slot mount = plan_.NewSlot();
    const unsigned recursive = context_.isolated_launcher ? 0 : AT_RECURSIVE;
    plan_
        .Call(SYS_open_tree, {AT_FDCWD, plan_.String(path), kClone | recursive},
              CallText("open_tree", path, ", CLONE)"))
        .Into(mount)
        .Path(path);
    const mount_attr attr = {.attr_set = attributes, .propagation = MS_PRIVATE};
    plan_.Call(SYS_mount_setattr,
               {mount, empty_, AT_EMPTY_PATH | recursive, plan_.Object(attr),
                sizeof(attr)},
               CallText("mount_setattr", path, ")"));
    return mount;
  }

  void AttachRoot() {
    slots_.root = plan_.Send(tree_.root);
    plan_
        .Call(SYS_move_mount,
              {slots_.root, empty_, AT_FDCWD, plan_.String("/"),
               MOVE_MOUNT_F_EMPTY_PATH},
              "move_mount(root, \"/\")")
        .Path("/")
        .Hint("a RootFs can be started once");
    if (!tree_.read_only) return;
    // Not before: until the start, mount points and directories are created.
    const mount_attr attributes = {.attr_set = MOUNT_ATTR_RDONLY};
    plan_
        .Call(SYS_mount_setattr,
              {slots_.root, empty_, AT_EMPTY_PATH, plan_.Object(attributes),
               sizeof(attributes)},
              "mount_setattr(root, RDONLY)")
        .Path("/");
  }

  // While the launcher's are still in sight.
  void MakeProcAndSys() {
    if (tree_.layout->proc) slots_.proc = MakeProc();
    if (tree_.layout->sys) sys_ = MakeSys();
  }

  Slot MakeProc() {
    if (tree_.proc_bind.valid()) return plan_.Send(tree_.proc_bind);
    if (FromLauncher(context_.new_pid_namespace)) {
      return CopyFromLauncher("/proc", kNoPrivileges);
    }
    return NewFileSystem("proc", kNoPrivileges, kRevealing, ProcOptions());
  }

  Slot MakeSys() {
    if (tree_.sys_bind.valid()) return plan_.Send(tree_.sys_bind);
    const unsigned writes = tree_.layout->sys_writable ? 0 : MOUNT_ATTR_RDONLY;
    if (FromLauncher(context_.new_net_namespace)) {
      return CopyFromLauncher("/sys", kNoPrivileges | writes);
    }
    return NewFileSystem("sysfs", kNoPrivileges | writes, kSysfs);
  }

  // Of v2 only what a cgroup namespace hides the rest of.
  bool ShowsCgroups() const {
    return tree_.layout->cgroup &&
           (context_.new_cgroup_namespace || !tree_.v1_groups->empty());
  }

  std::vector<std::pair<const char*, std::string>> ProcOptions() const {
    std::vector<std::pair<const char*, std::string>> options;
    const int hide_pid = static_cast<int>(tree_.layout->proc_hide_pid);
    if (hide_pid != 0) options.emplace_back("hidepid", absl::StrCat(hide_pid));
    if (tree_.layout->proc_subset_pid) options.emplace_back("subset", "pid");
    return options;
  }

  void MountCgroups() {
    const bool v1 = !tree_.v1_groups->empty();
    Place place = {sys_, kCgroupMountPoint + 5, kCgroupMountPoint};
    if (v1) {
      const Slot base = plan_.NewSlot();
      Clone({scratch_, Scratch::kCgroupDirectory, kCgroupMountPoint},
            /*read_only=*/true, /*missing_skip=*/-1, base);
      Attach(base, place);
      for (NamedMount& group : *tree_.v1_groups) {
        const std::string path =
            absl::StrCat(kCgroupMountPoint, "/", group.name);
        Attach(plan_.Send(std::move(group.mount)), {base, group.name, path});
      }
      place = {base, Scratch::kUnified, kCgroupMountPoint};
    }
    if (!context_.own_cgroup2) return;
    const unsigned writable =
        tree_.layout->cgroup_writable ? 0 : MOUNT_ATTR_RDONLY;
    Attach(NewFileSystem("cgroup2", kNoPrivileges | writable,
                         "the child needs a cgroup namespace of its own"),
           place);
  }

  // Where nobody sees it: it goes away with the old root. On kernels that
  // cannot attach to or clone detached mounts this is what makes its files
  // usable; on others it saves the wait for an RCU grace period that closing a
  // mount which was never attached costs.
  void AttachScratch() {
    scratch_ = plan_.Send(tree_.scratch);
    if (tree_.detached_mounts && !context_.isolated_launcher) return;
    plan_
        .Call(SYS_move_mount,
              {scratch_, empty_, AT_FDCWD, plan_.String(kOldRootDirectory),
               MOVE_MOUNT_F_EMPTY_PATH},
              "move_mount(scratch)")
        .Path(kOldRootDirectory);
  }

  void AttachPending() {
    if (tree_.pending->empty()) {
      slots_.dev = plan_.Send(tree_.dev);
      return;
    }
    for (const PendingMount& mount : *tree_.pending) {
      const std::string path = absl::StrCat("/", mount.path);
      const Place target = {plan_.Send(mount.target.borrow()), "", path};
      Slot object;
      switch (mount.source) {
        case PendingMount::Source::kMount:
          object = plan_.Send(mount.object.borrow());
          if (!slots_.dev.valid()) slots_.dev = object;
          break;
        case PendingMount::Source::kScratch:
          object = plan_.NewSlot();
          Clone({scratch_, mount.name, target.path}, /*read_only=*/false,
                /*missing_skip=*/-1, object);
          break;
        case PendingMount::Source::kMask:
          object = plan_.NewSlot();
          Clone({scratch_, mount.name, target.path}, /*read_only=*/true,
                /*missing_skip=*/-1, object);
          break;
        case PendingMount::Source::kReadOnly:
          object = plan_.NewSlot();
          Clone(target, /*read_only=*/true, /*missing_skip=*/-1, object);
          break;
      }
      Attach(object, target);
    }
  }

  // By name: /dev is ours, nothing in the image can have put anything there.
  void MountInDev() {
    const std::string& label = tree_.layout->mount_label;
    plan_.Call(SYS_fchdir, {slots_.dev}, "fchdir(\"/dev\")");
    if (tree_.layout->devpts) {
      MountByName("devpts", "pts", MS_NOSUID | MS_NOEXEC,
                  plan_.String(absl::StrCat(kDevptsOptions,
                                            tree_.tty_group ? kTtyGroup : "",
                                            LabelOption(label))),
                  "group 5 (tty) must be mapped in the user namespace; see "
                  "RootFsOptions::tty_group_mapped");
    }
    if (tree_.layout->mqueue && !FromLauncher(context_.new_ipc_namespace)) {
      // Without the label: the kernel has mounted each namespace's queues
      // itself before, and SELinux refuses another label for them (EINVAL).
      MountByName("mqueue", "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, Arg(0),
                  "the kernel must have POSIX message queues");
    }
    if (!context_.terminal) return;
    slots_.devpts = plan_.NewSlot();
    plan_
        .Call(SYS_openat,
              {slots_.dev, plan_.String("pts"),
               O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0},
              "open(\"/dev/pts\")")
        .Into(slots_.devpts);
  }

  void MountByName(const char* type, const char* name, unsigned flags,
                   Arg options, const char* hint) {
    const std::string path = absl::StrCat("/dev/", name);
    plan_
        .Call(SYS_mount,
              {plan_.String(type), plan_.String(name), plan_.String(type),
               flags, options},
              absl::StrCat("mount(", type, ", ", Quoted(path), ")"))
        .Path(path)
        .Hint(hint);
  }

  Slot SlotOf(Area area) const {
    return area == Area::kProc ? slots_.proc : sys_;
  }

  // Whether the child finds what lies there.
  bool IsInChild(const ProtectedPath& path) const {
    return path.area != Area::kRoot && SlotOf(path.area).valid();
  }

  void Protect() {
    // Our own node and directory, not what the image calls /dev/null
    // (CVE-2025-31133).
    Mask(/*directories=*/false, {scratch_, tree_.null_file, "null"});
    Mask(/*directories=*/true, {scratch_, tree_.empty_directory, "empty"});
    for (const ProtectedPath& path : tree_.layout->read_only) {
      if (!IsInChild(path)) continue;
      MakeReadOnly({SlotOf(path.area), path.relative, path.absolute});
    }
  }

  // One clone ahead: what does not exist leaves it for the next path.
  void Mask(bool directories, const Place& source) {
    std::vector<const ProtectedPath*> paths;
    for (const ProtectedPath& path : tree_.layout->masked) {
      if (IsInChild(path) &&
          (path.kind == MaskKind::kDirectory) == directories) {
        paths.push_back(&path);
      }
    }
    if (paths.empty()) return;
    const bool read_only = directories || tree_.null_is_file;
    const Slot clone = plan_.NewSlot();
    Clone(source, read_only, /*missing_skip=*/-1, clone);
    for (const ProtectedPath* path : paths) {
      const bool last = path == paths.back();
      PlanBuilder::OpRef op =
          Attach(clone, {SlotOf(path->area), path->relative, path->absolute});
      op.Tolerate(ENOENT,
                  static_cast<uint16_t>(last ? 0 : CloneLength(read_only)));
      if (path->guessed) {
        op.Hint(
            "the masked path is not the file or directory that it was on "
            "the host");
      }
      if (!last) Clone(source, read_only, /*missing_skip=*/-1, clone);
    }
  }

  void MakeReadOnly(const Place& place) {
    const Slot clone = plan_.NewSlot();
    Clone(place, /*read_only=*/true, CloneLength(/*read_only=*/true), clone);
    Attach(clone, place);
  }

  void AttachLate() {
    for (const LateMount& late : *tree_.late) {
      const Destination& destination = late.destination;
      Attach(plan_.Send(late.mount.borrow()),
             {SlotOf(destination.area()), destination.relative(),
              destination.absolute()})
          .Hint(
              "a mount point below /proc or /sys must exist and be of the "
              "kind of what is mounted there");
    }
  }

  // pivot_root(2), "pivot_root(".", ".")": the old root comes to lie over the
  // new one, and goes.
  void Pivot() {
    const Data here = plan_.String(".");
    plan_.Call(SYS_fchdir, {slots_.root}, "fchdir(root)");
    if (context_.await.valid()) plan_.Await(context_.await);
    plan_.Call(SYS_pivot_root, {here, here}, "pivot_root(\".\", \".\")");
    plan_.Call(SYS_umount2, {here, sys::kMntDetach},
               "umount2(old root, MNT_DETACH)");
    // pivot_root(2) refuses a shared one.
    const RootPropagation propagation = tree_.layout->propagation;
    if (propagation == RootPropagation::kPrivate) return;
    const unsigned recursive =
        propagation == RootPropagation::kSharedRecursively ? MS_REC : 0;
    plan_.Call(SYS_mount, {0, plan_.String("/"), 0, MS_SHARED | recursive, 0},
               "mount(\"/\", MS_SHARED)");
  }

  const TreeView& tree_;
  const MountContext& context_;
  PlanBuilder& plan_;
  const Data empty_;
  Slot scratch_;
  Slot sys_;
  RootFsSlots slots_;
};

}  // namespace

RootFsSlots AppendMounts(const TreeView& tree, const MountContext& context,
                         PlanBuilder& plan) {
  return MountSteps(tree, context, plan).Append();
}

}  // namespace caisson::rootfs
