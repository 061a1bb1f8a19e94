// The tree of mounts that the host builds, and look-ups in it.
//
// On Linux 6.15 and later everything is attached to the detached root at once,
// and a look-up in the root is all that it takes. Before, a mount can only be
// attached in the child. Until then, and for some of them after the child, the
// tree remembers what belongs where and its look-ups cross over by themselves.
// Thread-compatible.
#ifndef CAISSON_LIB_ROOTFS_TREE_H_
#define CAISSON_LIB_ROOTFS_TREE_H_

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/unique_fd.h"
#include "lib/rootfs/scratch.h"
#include "lib/sys/mount.h"

namespace caisson::rootfs {

// Something that the child has to attach.
struct PendingMount {
  enum class Source {
    kMount,     // `object` itself
    kScratch,   // a clone of `name` in the scratch file system
    kMask,      // the same, read-only
    kReadOnly,  // a read-only clone of what is at `target`
  };
  Source source = Source::kMount;
  std::string name;
  UniqueFd object;  // what the child will find at `target`; for look-ups
  UniqueFd target;
  std::string path;  // for errors
  // Look-ups must find it even when the child's namespace is gone: what is
  // mounted below a mount gets lost then.
  bool outlives_child = false;
};

class Tree final {
 public:
  // `detached_mounts` as Scratch says. What is created belongs to `owner`.
  // `mounts` must outlive the tree.
  Tree(const sys::MountExecutor& mounts, UniqueFd root, bool detached_mounts,
       Owner owner)
      : mounts_(&mounts),
        root_(std::move(root)),
        detached_mounts_(detached_mounts),
        owner_(owner) {}

  BorrowedFd root() const { return root_.borrow(); }

  // The directory `name` of the root, created if it is missing: for /proc, /sys
  // and /dev, which no symbolic link may lead away (CVE-2019-19921,
  // CVE-2026-41579).
  absl::StatusOr<UniqueFd> OwnDirectory(const char* name);

  enum class Create { kNothing, kFile, kDirectory };
  // An O_PATH descriptor of "etc/hosts", looked up as a process with this root
  // would. What is missing is created as `create` says, with `mode`; its
  // parents as directories with mode 0755. ENOENT with kNothing.
  absl::StatusOr<UniqueFd> Find(absl::string_view path, Create create,
                                mode_t mode);

  absl::StatusOr<UniqueFd> Find(absl::string_view path) const;

  // Attaches `mount` at `target`, or keeps both for the child.
  absl::Status Attach(PendingMount mount);

  // Keeps a mask or read-only copy (kMask, kReadOnly) for the child. A file
  // that is itself waiting to be mounted is mounted that way at once: it has no
  // place yet that something could be attached to.
  absl::Status ProtectLater(PendingMount mount);

  // In the order in which they must be attached.
  const std::vector<PendingMount>& pending() const { return pending_; }
  // The child has attached them.
  void DropPending();

 private:
  class Walk;

  const PendingMount* MountedAt(BorrowedFd place) const;

  const sys::MountExecutor* mounts_;
  UniqueFd root_;
  bool detached_mounts_;
  Owner owner_;
  std::vector<PendingMount> pending_;
  std::vector<PendingMount> attached_;  // of those that outlive the child
};

}  // namespace caisson::rootfs

#endif  // CAISSON_LIB_ROOTFS_TREE_H_
