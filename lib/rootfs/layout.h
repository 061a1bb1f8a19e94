// What is mounted where, in which order: the options, checked and completed
// with the defaults. Pure: nothing is opened.
#ifndef CAISSON_LIB_ROOTFS_LAYOUT_H_
#define CAISSON_LIB_ROOTFS_LAYOUT_H_

#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/root_fs.h"

namespace caisson::rootfs {

// Where a destination lies: in the tree that the host builds, or in a file
// system that only the child can mount.
enum class Area { kRoot, kProc, kSys };

// A destination in normal form: "/etc/hosts".
class Destination final {
 public:
  Destination() = default;
  // `absolute` must have that form.
  explicit Destination(std::string absolute);

  const std::string& absolute() const { return absolute_; }
  // Below the root: "etc/hosts".
  absl::string_view path() const {
    return absl::string_view(absolute_).substr(1);
  }
  Area area() const { return area_; }
  // Below its area: "kcore" for "/proc/kcore".
  absl::string_view relative() const;
  size_t depth() const { return depth_; }

 private:
  std::string absolute_;
  Area area_ = Area::kRoot;
  size_t depth_ = 0;
};

// `field` names the option in errors. INVALID_ARGUMENT for a path that is not
// absolute, names "/", has a ".." or NUL, or is too long.
absl::StatusOr<Destination> ParseDestination(absl::string_view field,
                                             absl::string_view path);

struct Mount {
  enum class Kind { kBind, kTmpfs, kFilesystem, kShm, kEtcFile };
  Kind kind = Kind::kBind;
  Destination destination;
  size_t index = 0;  // of the first three: in the list of the options
  const BindMount* bind = nullptr;
  const TmpfsMount* tmpfs = nullptr;
  const FilesystemMount* filesystem = nullptr;
  std::string content;  // kEtcFile

  // "RootFsOptions.binds[2]", or the destination of a default.
  std::string Field() const;
};

enum class MaskKind { kFile, kDirectory, kUnknown };

struct ProtectedPath {
  absl::string_view absolute;  // constant, or in Layout::texts
  absl::string_view relative;
  Area area = Area::kRoot;
  MaskKind kind = MaskKind::kUnknown;
  // What it is was guessed, so that masking it can fail.
  bool guessed = false;

  absl::string_view path() const { return absolute.substr(1); }
};

// Refers to the options that it was made of, which must outlive it as far as
// `mounts` is used.
struct Layout {
  Layout() = default;
  Layout(const Layout&) = delete;
  Layout& operator=(const Layout&) = delete;

  std::vector<Mount> mounts;  // by depth
  // Paths that every kernel has are last of their kind.
  std::vector<ProtectedPath> masked;
  std::vector<ProtectedPath> read_only;
  bool proc = true;
  bool sys = true;
  bool sys_writable = false;
  bool devpts = true;
  bool mqueue = true;
  bool cgroup = true;
  bool cgroup_writable = false;
  ProcHidePid proc_hide_pid = ProcHidePid::kNone;
  bool proc_subset_pid = false;
  RootPropagation propagation = RootPropagation::kPrivate;
  std::string mount_label;

  std::deque<std::string> texts;
};

// INVALID_ARGUMENT names the option that is wrong.
absl::StatusOr<std::shared_ptr<const Layout>> MakeLayout(
    const RootFsOptions& options);

}  // namespace caisson::rootfs

#endif  // CAISSON_LIB_ROOTFS_LAYOUT_H_
