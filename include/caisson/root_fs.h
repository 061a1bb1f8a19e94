// RootFs: the file system that a container will see, put together before the
// container exists.
//
//   caisson::RootFsOptions options;
//   options.layers = layer_set.dirs();                 // top layer first
//   options.writes = caisson::RootWrites::kDirectories;
//   options.upper_directory = top.upper();
//   options.work_directory = top.work();
//   options.hostname = "web";
//   options.binds.push_back({.destination = "/srv", .source = "/data/www",
//                            .read_only = true});
//   auto root = caisson::RootFs::Create(options);
//   if (!root.ok()) return root.status();
//   spec.root = &*root;                                // ProcessSpec
//
// The tree is an overlay of the layers with, as Docker has them: /proc and /sys
// (read-only) of the container's own namespaces, parts of both masked or
// read-only; /dev, a tmpfs with null, zero, full, random, urandom and tty, its
// own pts, shm and mqueue; /etc/hostname, /etc/hosts and /etc/resolv.conf; and
// the binds and tmpfs mounts that the options ask for.
//
// Device nodes can be opened in /dev only: the root and everything else is
// mounted nodev, so a node that an image or a program brings opens nothing.
//
// Nothing is ever mounted in the host's mount namespace: the parts are detached
// mounts that only descriptors refer to, so they end with this process however
// it ends. A destination is looked up once, inside the root, component by
// component where it must be created, and from then on held as a descriptor: no
// symbolic link of an image and no race can move a mount elsewhere. /proc, /sys
// and /dev must be real directories, or missing.
//
// A mount tree can be attached once: one RootFs, one start.
//
// Not for: volumes with a name and a life of their own (VolumeStore), images
// (LayerStore) and anything inside of a container that runs already.
//
// Needs CAP_SYS_ADMIN, or a launcher without it (RootFsOptions::mounts), and
// Linux 5.15. What needs more is said at the option;
// doc/kernel-support.md has the table.
#ifndef CAISSON_ROOT_FS_H_
#define CAISSON_ROOT_FS_H_

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/hosts_entry.h"
#include "caisson/mount.h"
#include "caisson/unique_fd.h"

namespace caisson {

namespace plan {
class PlanBuilder;
}  // namespace plan
namespace sys {
class MountExecutor;
}  // namespace sys
namespace rootfs {
class BuiltRoot;
}  // namespace rootfs
struct MountContext;
struct RootFsSlots;

// A device node in the container's /dev: the one place where nodes open. Or a
// FIFO, which runtimes make in the same way.
struct DeviceNode {
  enum class Type { kCharacter, kBlock, kFifo };
  struct Number {
    Type type = Type::kCharacter;
    uint32_t major = 0;  // 0 of a FIFO, as minor
    uint32_t minor = 0;
  };

  // Absolute path inside, below /dev ("/dev/net/tun"); parents are created.
  std::string path;

  // Which device, one of: that of a node of the host at this path, which is
  // looked at but never opened, following symbolic links;
  std::string source;
  // that of a node by descriptor (O_PATH), borrowed for the duration of
  // Create();
  BorrowedFd source_fd;
  // one by number.
  std::optional<Number> number;

  // Permission bits and owner (host ids). Default: those of the source, as
  // `docker run --device` does; with a number 0666. With
  // RootFsOptions::root_uid the default owner is the container's root.
  std::optional<uint32_t> mode;
  std::optional<uid_t> uid;
  std::optional<gid_t> gid;
};

// Who sees processes of others in /proc; hidepid in proc(5).
enum class ProcHidePid {
  kNone = 0,           // everybody sees all
  kNoAccess = 1,       // their directories cannot be entered
  kInvisible = 2,      // nor are they listed
  kNotPtraceable = 4,  // listed are only those that one may ptrace
};

// The container's view of its control groups at /sys/fs/cgroup.
enum class CgroupMounts {
  kNone,
  // Its own groups and what is below them, nothing above: of v2, and of every
  // v1 hierarchy that it has a group of its own in, below a tmpfs and with the
  // names that hosts use ("cpu,cpuacct", with links "cpu" and "cpuacct"). Where
  // there are both, v2 is at "unified". Empty without a Cgroup; of v2 also
  // without a cgroup namespace of its own.
  kReadOnly,
  // Weakening: with the rights that the files give. Root without a user
  // namespace may change its own limits.
  kUnsafeWritable,
};

// What RootFs mounts of its own accord. false leaves it out.
struct OwnMounts {
  bool proc = true;    // masked and read-only paths below are left out with it
  bool sys = true;     // the same, and CgroupMounts
  bool pts = true;     // /dev/pts; a terminal needs it
  bool shm = true;     // /dev/shm
  bool mqueue = true;  // /dev/mqueue
};

// Whether mounts of the container take part in what happens in mount namespaces
// that are made inside of it. The host never sees any of it.
enum class RootPropagation {
  kPrivate,            // as BindMount::propagation says for each
  kShared,             // "/" itself is shared
  kSharedRecursively,  // "/" and every mount below it
};

// Where writes to the root go.
enum class RootWrites {
  // Nowhere: the root is read-only.
  kNone,
  // Into memory, gone with the last user. Needs Linux 6.15 if there are layers.
  kTmpfs,
  // Into RootFsOptions::upper_directory.
  kDirectories,
  // Into the one layer itself, which is no overlay then (an OCI bundle's root).
  kInPlace,
};

struct RootFsOptions {
  // Who makes the mount system calls. Null: this process, which needs
  // CAP_SYS_ADMIN. Launcher::mounts() of a host without it (and null of others,
  // so that it can be given always), the same launcher's that will start the
  // process. Files that Create() makes belong to the host's user then, who is
  // root in the container; doc/rootless.md has the rest.
  std::shared_ptr<const sys::MountExecutor> mounts;

  // The directories that overlayfs merges, the top one first: what
  // LayerSet::dirs() returns. At least one, except for kTmpfs: without a layer
  // the root is an empty tmpfs, on every kernel, for a program that brings all
  // it needs (ProcessSpec::executable_fd). This and every other descriptor here
  // is borrowed for the duration of Create() only.
  std::vector<BorrowedFd> layers;

  RootWrites writes = RootWrites::kNone;
  // kDirectories: upper and work directory of an overlay (on one file system,
  // used by no other mount), as LayerStore::CreateWritableLayer() makes them.
  // Owner and mode of `upper_directory` are those of the container's "/".
  BorrowedFd upper_directory;
  BorrowedFd work_directory;
  // kDirectories: fsync(2) inside does nothing, and unmounting does not sync
  // the file system that holds the upper directory (which takes between 0.2 ms
  // and seconds). For layers that are thrown away: after a crash of the machine
  // their content is undefined. overlayfs refuses to mount such directories
  // again.
  bool volatile_upper = false;
  // kTmpfs: how much it may hold, with the files of /dev and /etc. 0: the
  // kernel's default, half of the memory.
  uint64_t tmpfs_size_bytes = 0;
  // The container sees "/" read-only, whatever `writes` is; mount points and
  // directories that Create() and MakeDirectory() add still go there.
  bool read_only = false;

  // The ids that root of the container has outside, if it lives in a user
  // namespace: the owner of what Create() makes (/dev and so on).
  uid_t root_uid = 0;
  gid_t root_gid = 0;
  // Whether group 5 (tty) is mapped there; otherwise terminals belong to root's
  // group.
  bool tty_group_mapped = true;
  // A user namespace through whose map the layers are shown, so that one set of
  // layers owned by root serves every container: a file of user 0 on disk is
  // user 0 inside. Upper and work directory are used as they are. With an
  // overlay, needs Linux 6.15 and a file system with idmapped mounts.
  BorrowedFd idmap_user_namespace;

  // For /etc/hostname and /etc/hosts; the namespace gets its name elsewhere
  // (NamespaceOptions::hostname). Empty: no /etc/hostname.
  std::string hostname;
  // For /etc/hosts, after localhost and the IPv6 multicast names. A `hostname`
  // that none of them names is added for 127.0.0.1.
  std::vector<HostsEntry> hosts;
  // The text of /etc/resolv.conf. Default: HostResolvConf() without loopback
  // servers, read by Create(); a host that starts many containers reads it
  // once.
  std::optional<std::string> resolv_conf;
  // The three files are private copies, mounted over what the image has: a
  // symbolic link there is followed inside the root. false leaves the image's
  // alone; so does, for one of them, a bind mount at its place.
  bool etc_files = true;

  // Attached in the order of their depth, so that a mount never hides one that
  // lies below it. Two mounts at one place are an error, "/" too. A mount at
  // /dev/shm, /dev/mqueue, /dev/pts, /sys/fs/cgroup or one of the /etc files
  // takes the place of the default, and so does a bind mount at /proc, /sys or
  // /dev: RootFs makes no node in the latter. Below /proc and /sys nothing can
  // be created; /proc/self and processes are refused.
  std::vector<BindMount> binds;
  std::vector<TmpfsMount> tmpfs;
  std::vector<FilesystemMount> filesystems;
  OwnMounts own_mounts;
  RootPropagation propagation = RootPropagation::kPrivate;
  uint64_t shm_size_bytes = uint64_t{64} << 20;  // of /dev/shm; not 0

  // Beside null, zero, full, random, urandom and tty. Which devices a container
  // may open is up to its control group (and to their modes): this makes nodes.
  std::vector<DeviceNode> devices;

  // Options of the container's procfs; FAILED_PRECONDITION at the start if the
  // kernel gives it no procfs of its own (a user namespace without a PID
  // namespace).
  ProcHidePid proc_hide_pid = ProcHidePid::kNone;
  // Processes only: no /proc/sys, /proc/meminfo and the like.
  bool proc_subset_pid = false;

  // Weakening: /sys is writable, as far as its files are. Not of a bind mount
  // there.
  bool unsafe_writable_sys = false;

  CgroupMounts cgroup = CgroupMounts::kReadOnly;

  // SELinux: the label of every file in the root and in the file systems in
  // memory (mount option "context"),
  // "system_u:object_r:container_file_t:s0:c1". Binds and volumes keep theirs.
  // FAILED_PRECONDITION where SELinux is off.
  std::string mount_label;

  // Hidden, or made read-only, beside DefaultMaskedPaths() and
  // DefaultReadOnlyPaths(). What does not exist is left out.
  std::vector<std::string> masked_paths;
  std::vector<std::string> read_only_paths;
  // Weakenings: instead of the defaults.
  std::optional<std::vector<std::string>> unsafe_replace_masked_paths;
  std::optional<std::vector<std::string>> unsafe_replace_read_only_paths;
};

// Docker's lists (moby daemon/pkg/oci/defaults.go), less what no supported
// kernel has (/proc/sched_debug, /proc/timer_stats). On a machine with them,
// the thermal_throttle directory of each processor is masked, too.
std::vector<std::string> DefaultMaskedPaths();
std::vector<std::string> DefaultReadOnlyPaths();

enum class LoopbackServers {
  kRemove,  // they are not reachable from another network namespace
  kKeep,
};

// The host's /etc/resolv.conf for a container. If kRemove leaves no server at
// all, the list that systemd-resolved keeps for this purpose
// (/run/systemd/resolve/resolv.conf) is taken. A missing file is an empty text.
absl::StatusOr<std::string> HostResolvConf(LoopbackServers loopback);

// Thread-compatible. Nothing here blocks but on the disk that holds the layers,
// and Create() for as long as a volume or tmpfs takes the image's content.
class [[nodiscard]] RootFs final {
 public:
  // Builds the tree. INVALID_ARGUMENT names the option that is wrong;
  // FAILED_PRECONDITION says what an image (a symbolic link at /proc) or the
  // kernel stands in the way with; other errors name the system call, the path
  // and, for overlayfs, what the kernel logged. After a failure the only trace
  // are mount points that were created in an upper directory, a layer that is
  // written in place or a bind mount's source.
  static absl::StatusOr<RootFs> Create(const RootFsOptions& options);

  RootFs(RootFs&&) noexcept;
  RootFs& operator=(RootFs&&) noexcept;
  // Closes the descriptors. A tree that was never attached is unmounted by
  // that; one that was attached goes when the last process in it has ended,
  // too. Nothing can fail in it that could be reported.
  ~RootFs();

  // Opens a file or directory as the container will find it: symbolic links
  // are followed inside the root, magic links never. Without O_PATH only
  // regular files and directories are opened, so that no device or pipe of an
  // image can do something to the host. `flags` may not create or truncate.
  //
  // Also while the container runs and after it: what changes there changes
  // here. While it runs, the files below /proc and /sys are the container's;
  // afterwards the root and the bind mounts are left.
  absl::StatusOr<UniqueFd> Open(absl::string_view path, int flags) const;

  // Creates the directory and its missing parents, owned by the container's
  // root, as Open() would find it. Does nothing if it exists. `mode` is exact:
  // the umask plays no part. Only before the start, and not below /proc or
  // /sys.
  absl::Status MakeDirectory(absl::string_view path, mode_t mode);

  // The bind mounts that the options asked for, to mount the same in another
  // root (`docker run --volumes-from`); change `read_only` as wanted. What was
  // named by path is opened by that path again, and refused with
  // FAILED_PRECONDITION if something else is there by now. A use of a volume
  // goes with it. The result refers to this object, which must live until the
  // other Create() returns.
  std::vector<BindMount> binds() const;

  // For launchers: appends the operations that attach the tree to a child's
  // mount namespace and make it the child's root and working directory; see
  // lib/rootfs/mount_context.h. The object must outlive the start. Fails with
  // FAILED_PRECONDITION after MarkAttached().
  absl::StatusOr<RootFsSlots> AddTo(plan::PlanBuilder& plan,
                                    const MountContext& context) const;
  // For launchers: the operations of AddTo() ran, or some of them. Closes what
  // Open() does not need. Without this call, the kernel refuses the second
  // start with EINVAL.
  void MarkAttached();

 private:
  explicit RootFs(std::unique_ptr<rootfs::BuiltRoot> built);

  std::unique_ptr<rootfs::BuiltRoot> built_;
};

}  // namespace caisson

#endif  // CAISSON_ROOT_FS_H_
