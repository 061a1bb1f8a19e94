// Volumes: directories with a name and a life of their own, for data that
// outlives containers.
//
//   auto volumes = caisson::VolumeStore::Open({.path = "/var/lib/x/volumes"});
//   auto use = volumes->Use("db", {.user = "web"});    // made if it is missing
//   options.binds.push_back(use->BindAt("/var/lib/db"));     // RootFsOptions
//   ...
//   volumes->Remove("db");    // refused while anybody uses it
//
// A VolumeStore is a directory, which any number of processes may have open; so
// may any number of containers use one volume at once. A volume is what
// Docker's "local" driver makes without options: a plain directory. There are
// no mounts of devices or network file systems behind it: whoever wants these
// mounts them on the host and binds them (BindMount).
//
// Copy-up. A container that mounts an empty volume gives it what its image has
// at that place, as Docker does: files with all their attributes, and owner and
// mode of the directory itself. The content appears when the copy is complete
// and on disk; one that was interrupted is redone by the next container.
//
// In use. A VolumeUse is a lock that the kernel drops with the process that
// holds it, however that ends. A hold is a file, which lasts until Release():
// for a container that does not run, but shall find its data when it does.
// Nothing removes a volume that is in use or held.
//
// Durability. What Create and Remove reported as done survives a power failure;
// a volume is never visible in part. kill -9 at any instant leaves at most what
// the next Recover removes. doc/volumes.md describes the files.
#ifndef CAISSON_VOLUME_H_
#define CAISSON_VOLUME_H_

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "caisson/mount.h"
#include "caisson/unique_fd.h"

namespace caisson {

namespace volume {
class Lease;
}  // namespace volume

struct VolumeStoreOptions {
  // The store's directory; created with mode 0700 if missing (its parent must
  // exist). A directory that is neither empty nor a store is refused.
  std::string path;
  // Whether Open begins with Recover.
  bool recover = true;
};

using VolumeLabels = std::map<std::string, std::string>;

struct VolumeOptions {
  // A letter or digit, then letters, digits, "_", "." and "-"; at most 255
  // bytes. Empty: 64 random hexadecimal digits; the volume is anonymous then.
  std::string name;
  // Keys are not empty and have no "="; everything together fits in 60 KB.
  VolumeLabels labels;
  // Owner of the volume's directory until an image's is copied: the host's ids
  // for root in the user namespace that will use it. Its mode is 0755.
  uid_t uid = 0;
  gid_t gid = 0;
};

struct VolumeUser {
  std::string name;  // VolumeUseOptions::user
  pid_t pid = 0;     // of the process that made the VolumeUse; 0 of a hold
  std::string hold;  // of a hold: its name
};

struct VolumeInfo {
  std::string name;
  std::string path;  // of the data: what Docker calls the mount point
  absl::Time created;
  bool anonymous = false;
  VolumeLabels labels;
  std::vector<VolumeUser> users;  // at this moment, and holds
};

struct VolumeUsage {
  uint64_t bytes = 0;  // on disk, a file with several names once
  uint64_t files = 0;  // of every kind, directories included
};

// Volumes for which all of this holds.
struct VolumeFilter {
  std::optional<bool> in_use;  // false: Docker's "dangling"
  // Has the label, with this value if there is one.
  std::map<std::string, std::optional<std::string>> labels;
};

struct VolumePruneOptions {
  // Also those that were given a name (Docker: --all).
  bool named = false;
  VolumeFilter filter;  // in_use counts as false
};

struct VolumePruneReport {
  std::vector<std::string> removed;
  // What could not be removed; the next Prune or Recover tries again.
  std::vector<absl::Status> failures;
};

struct VolumeUseOptions {
  // For the reader of errors and VolumeInfo: the container's name.
  std::string user;
  // Makes the volume, with `options`, if there is none.
  bool create = true;
  VolumeOptions options;  // its name does not count
  // false: an empty volume stays empty (Docker's "nocopy").
  bool copy = true;
};

// A volume, in use. Movable. The use ends with the last of the object, the
// BindMounts that BindAt() made, and the RootFs that were made with those; or
// with the process.
//
// Thread-compatible; BindMounts of one use may be mounted by several threads.
class [[nodiscard]] VolumeUse final {
 public:
  VolumeUse(VolumeUse&&) noexcept;
  VolumeUse& operator=(VolumeUse&&) noexcept;
  ~VolumeUse();

  const std::string& name() const;

  // For RootFsOptions::binds. RootFs::Create() copies the image's content to
  // an empty volume then, and waits for another process that is doing so.
  BindMount BindAt(std::string destination, bool read_only = false) const;

  // The volume's directory (O_PATH), for hosts that mount it by other means.
  // If it is empty, it first gets the content of the directory `covered`; none
  // if that is invalid. Blocks as long as copying takes.
  absl::StatusOr<UniqueFd> OpenData(BorrowedFd covered = BorrowedFd()) const;

  // The lock as a descriptor. A process that receives a duplicate (by fork or
  // SCM_RIGHTS) keeps the volume in use until it closes it; hand one to
  // whatever outlives this process and has the volume mounted.
  BorrowedFd lock() const;

 private:
  friend class VolumeStore;
  explicit VolumeUse(std::shared_ptr<const volume::Lease> lease);

  std::shared_ptr<const volume::Lease> lease_;
};

// Thread-safe: every method may be called from several threads at once. All
// block on the disk and for the microseconds in which another process changes
// the list of volumes or of users. NOT_FOUND: there is no such volume.
class [[nodiscard]] VolumeStore final {
 public:
  static absl::StatusOr<VolumeStore> Open(const VolumeStoreOptions& options);

  VolumeStore(VolumeStore&&) noexcept;
  VolumeStore& operator=(VolumeStore&&) noexcept;
  // Closes the store. Uses go on.
  ~VolumeStore();

  // ALREADY_EXISTS if the name is taken; INVALID_ARGUMENT names the option.
  absl::StatusOr<VolumeInfo> Create(const VolumeOptions& options) const;

  // DATA_LOSS if its record was damaged.
  absl::StatusOr<VolumeInfo> Inspect(absl::string_view name) const;

  // Sorted by name.
  absl::StatusOr<std::vector<VolumeInfo>> List(
      const VolumeFilter& filter = {}) const;

  // Looks at every file. What changes meanwhile may be counted or not.
  absl::StatusOr<VolumeUsage> Usage(absl::string_view name) const;

  absl::StatusOr<VolumeUse> Use(absl::string_view name,
                                const VolumeUseOptions& options = {}) const;

  // Says that `options.user` needs the volume, in use or not, until Release().
  // It is made as Use() makes it. `hold` names the hold: a letter or digit,
  // then letters, digits, "_", "." and "-", at most 255 bytes; one of that name
  // is replaced. Survives a power failure.
  absl::Status Hold(absl::string_view name, absl::string_view hold,
                    const VolumeUseOptions& options = {}) const;
  // Ends it. OK also if there is no such hold, or no such volume any more.
  absl::Status Release(absl::string_view name, absl::string_view hold) const;

  // Removes the volume with its data. FAILED_PRECONDITION while it is in use,
  // naming the users. Once it has begun, nobody finds the volume any more; if
  // it fails later, the next Recover goes on.
  absl::Status Remove(absl::string_view name) const;

  // Removes the anonymous volumes, or all, that nobody uses. Goes on after a
  // failure.
  absl::StatusOr<VolumePruneReport> Prune(
      const VolumePruneOptions& options = {}) const;

  // Removes what processes that died left behind: unfinished volumes, removals
  // and copies, records of uses. Leaves alone what live processes are doing.
  // Safe at any time.
  absl::Status Recover() const;

 private:
  class Impl;
  explicit VolumeStore(std::unique_ptr<Impl> impl);

  std::unique_ptr<Impl> impl_;
};

}  // namespace caisson

#endif  // CAISSON_VOLUME_H_
