// What a root file system mounts beside its layers: the values that
// RootFsOptions takes.
//
//   options.binds.push_back({.destination = "/srv", .source = "/data/www",
//                            .read_only = true});
//   options.binds.push_back(volume_use.BindAt("/var/lib/db"));   // volume.h
//   options.tmpfs.push_back({.destination = "/run", .copy_up = true});
//
// Plain values: nothing is opened or checked before RootFs::Create().
#ifndef CAISSON_MOUNT_H_
#define CAISSON_MOUNT_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "caisson/unique_fd.h"

namespace caisson {

// Whether what is mounted below a mount on one side, host or container, appears
// on the other; see mount_namespaces(7). Holds for the mount and, with
// BindMount::recursive, for every mount below it.
enum class MountPropagation {
  // In neither direction: Docker's "rprivate".
  kPrivate,
  // Weakening: what the host mounts or unmounts below the source does so in the
  // container, too ("rslave"). The source must lie in a shared mount or in a
  // slave; FAILED_PRECONDITION otherwise.
  kUnsafeSlave,
  // Weakening: in both directions ("rshared"): what a container with
  // CAP_SYS_ADMIN mounts there appears on the host, and outlives it. The source
  // must lie in a shared mount; FAILED_PRECONDITION otherwise.
  kUnsafeShared,
};

// When reading a file changes its access time; see mount(8).
enum class AccessTimes {
  kUnchanged,  // as the source's mount has it
  kRelative,   // relatime
  kNever,      // noatime
  kAlways,     // strictatime
};

// A file or directory of the host inside of the container.
struct BindMount {
  // Absolute path inside. Missing parents and the mount point itself are
  // created, as `docker run -v` does: in the writable part of the root, or in
  // the source of the bind mount that they lie in. Symbolic links of the image
  // are followed inside the root.
  std::string destination;

  // What to mount, one of: a path of the host, which is opened once, following
  // symbolic links;
  std::string source;
  // a descriptor (O_PATH will do), borrowed for the duration of
  // RootFs::Create();
  BorrowedFd source_fd;
  // a function that opens it, called by RootFs::Create(), twice if that has to
  // begin anew. Its argument is the directory of the image that the mount is
  // about to cover (O_PATH), or invalid if the image has none there: a new
  // volume takes its content from it (VolumeUse::BindAt()). A failure fails
  // Create().
  std::function<absl::StatusOr<UniqueFd>(BorrowedFd covered)> open_source;

  // Of the mount and, with `recursive`, of every mount below it.
  bool read_only = false;
  // Takes along what is mounted below the source.
  bool recursive = true;
  // As `read_only`.
  bool nosuid = false;
  bool noexec = false;
  bool nosymfollow = false;  // symbolic links in it are not followed
  bool nodiratime = false;   // reading a directory changes no access time
  AccessTimes access_times = AccessTimes::kUnchanged;
  MountPropagation propagation = MountPropagation::kPrivate;
  // Shows the source with the ids of this user namespace: a file of user 0 on
  // disk is user 0 in a container that lives in the namespace. Of the mount
  // and, with `recursive`, of every mount below it; each file system must
  // support it (the error names the one that does not), and no mount can be
  // mapped twice. Borrowed for the duration of RootFs::Create().
  BorrowedFd idmap_user_namespace;

  // Weakening: device nodes in it can be opened, by whoever may open them.
  bool unsafe_devices = false;
  // Weakening: `read_only` stops at what is mounted below the source (the "ro"
  // of OCI; without this, it is "rro").
  bool unsafe_writable_submounts = false;
};

// A file system in memory, empty; nosuid and nodev.
struct TmpfsMount {
  std::string destination;  // as BindMount::destination
  uint64_t size_bytes = 0;  // 0: the kernel's default, half of the memory
  uint64_t max_inodes = 0;  // 0: the kernel's default
  uint32_t mode = 01777;    // of its root directory, which root owns
  bool read_only = false;
  bool executable = false;  // whether programs in it may run
  // Begins with a copy of the image's directory at this place, its owner and
  // mode included (`mode` then counts only if the image has none).
  bool copy_up = false;
};

// A file system of the kernel, new for the container: what mount(8) does with a
// type, a device and options. The host makes it, in the host's namespaces, so
// paths among the options are the host's ("lowerdir=/a:/b").
//
// Not for: what shows the container's own namespaces (proc, sysfs, devpts,
// mqueue, cgroup, cgroup2), which RootFs mounts itself, and a plain tmpfs.
struct FilesystemMount {
  std::string destination;  // as BindMount::destination
  std::string type;         // "tmpfs", "overlay", "ext4"
  std::string source;       // the device, or a name; empty: the type
  // For the file system: "size=65536k", "noswap"; see fsconfig(2). Ids are the
  // host's. A tmpfs without "uid" or "gid" belongs to the container's root.
  std::vector<std::string> options;

  bool read_only = false;  // the file system as well as the mount
  bool noexec = false;
  bool nosymfollow = false;
  bool nodiratime = false;
  AccessTimes access_times = AccessTimes::kRelative;  // not kUnchanged
  bool copy_up = false;  // as TmpfsMount::copy_up; of a tmpfs only

  // Weakenings: set-user-ID bits count, device nodes can be opened.
  bool unsafe_setuid = false;
  bool unsafe_devices = false;
};

}  // namespace caisson

#endif  // CAISSON_MOUNT_H_
