// The tmpfs that holds what RootFs adds to an image: /dev, the files of /etc
// and, if writes go to memory, the upper directory.
//
// One superblock serves all of them, because making and ending a file system
// costs more than the files in it. Its own mount never appears in a container:
// /dev and the files are mounts of parts of it. Thread-compatible.
#ifndef CAISSON_LIB_ROOTFS_SCRATCH_H_
#define CAISSON_LIB_ROOTFS_SCRATCH_H_

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "caisson/unique_fd.h"
#include "lib/rootfs/mount_context.h"
#include "lib/sys/mount.h"

namespace caisson::rootfs {

// Who owns what is created.
struct Owner {
  uid_t uid = 0;
  gid_t gid = 0;

  bool is_root() const { return uid == 0 && gid == 0; }
};

// Gives the open file its final owner and mode, whatever the umask was.
absl::Status SetOwnerAndMode(BorrowedFd file, const Owner& owner, mode_t mode,
                             absl::string_view what);

class Scratch final {
 public:
  struct Options {
    const sys::MountExecutor* mounts = nullptr;  // outlives the object
    uint64_t size_bytes = 0;                     // 0: the kernel's default
    Owner owner;
    std::string label;  // RootFsOptions::mount_label
    // Tests only: behave as a kernel before 6.15.
    bool attached_mounts_only = false;
  };

  static absl::StatusOr<Scratch> Create(const Options& options);

  // The directories of an overlay that writes to memory. Owner and mode of
  // `upper` are those of `model`, which is the directory it will lie over.
  absl::Status MakeUpper(BorrowedFd model);
  BorrowedFd upper() const { return upper_.borrow(); }
  BorrowedFd work() const { return work_.borrow(); }

  // A file with mode 0644.
  absl::Status WriteFile(const std::string& name, const std::string& content);

  // The directories and links of /sys/fs/cgroup, below kCgroupDirectory. Does
  // nothing where they exist.
  absl::Status MakeCgroupDirectories(const std::vector<V1Group>& groups,
                                     bool unified) const;
  static constexpr char kCgroupDirectory[] = "cgroup";
  static constexpr char kUnified[] = "unified";

  // Attaches a detached mount that is not needed any more, where it is never
  // seen and ends together with this one.
  absl::Status Adopt(BorrowedFd mount);

  // Attaches the root itself, which is to be moved on from here. The kernel
  // lets a detached clone be mounted upon only from the mount namespace in
  // which it was made (mnt_namespace::seq_origin, Linux 6.15); attached to this
  // file system, which was cloned from nowhere, it may be from any.
  absl::Status Hold(BorrowedFd root);

  BorrowedFd mount() const { return mount_.borrow(); }
  // What is mounted over masked files and directories, as paths below mount():
  // a null device (an empty file where none can be made) and an empty
  // directory. Nothing that is mounted in /dev, not even over /dev/null, shows
  // there.
  const char* null_file() const {
    return detached_mounts_ ? "dev/null" : "null";
  }
  const char* empty_directory() const {
    return detached_mounts_ ? "dev/pts" : "dev";
  }

  // A mount of /dev.
  BorrowedFd dev() const { return dev_.borrow(); }

  // Whether this kernel takes detached mounts as layers, as sources of clones
  // and as places to attach to (Linux 6.15). Otherwise all of that has to wait
  // until the mounts are in the child's namespace.
  bool detached_mounts() const { return detached_mounts_; }

  // The number of a device node of /dev; 0 for other names.
  static dev_t DeviceOf(const std::string& name);
  // The names of the device nodes that could not be made, because that takes
  // CAP_MKNOD of the host: empty files of /dev that want the host's nodes to be
  // mounted over them.
  const std::vector<std::string>& missing_nodes() const {
    return missing_nodes_;
  }

  void Close();

 private:
  Scratch(const sys::MountExecutor& mounts, UniqueFd mount, Owner owner)
      : mounts_(&mounts), mount_(std::move(mount)), owner_(owner) {}

  absl::Status MakeDirectory(BorrowedFd parent, const char* name,
                             mode_t mode) const;
  absl::Status MakeNode(BorrowedFd parent, const char* name, unsigned major,
                        unsigned minor);
  absl::Status MakePlaceholder(BorrowedFd parent, const char* name);
  absl::Status MountDev(const Options& options);
  absl::Status FillDev();

  const sys::MountExecutor* mounts_;
  UniqueFd mount_;
  UniqueFd dev_;
  UniqueFd upper_;
  UniqueFd work_;
  Owner owner_;
  bool detached_mounts_ = true;
  std::vector<std::string> missing_nodes_;
};

}  // namespace caisson::rootfs

#endif  // CAISSON_LIB_ROOTFS_SCRATCH_H_
