// What is behind RootFs: the mounts, and where each belongs.
#ifndef CAISSON_LIB_ROOTFS_BUILT_ROOT_H_
#define CAISSON_LIB_ROOTFS_BUILT_ROOT_H_

#include <sys/types.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/root_fs.h"
#include "caisson/unique_fd.h"
#include "lib/plan/builder.h"
#include "lib/rootfs/devices.h"
#include "lib/rootfs/layout.h"
#include "lib/rootfs/mount_context.h"
#include "lib/rootfs/mount_steps.h"
#include "lib/rootfs/overlay.h"
#include "lib/rootfs/scratch.h"
#include "lib/rootfs/tree.h"

namespace caisson::rootfs {

// What a kernel offers is found out by trying. Tests start further down.
struct KernelLimits {
  bool attached_mounts_only = false;  // before Linux 6.15
  LayerSyntax layer_syntax = LayerSyntax::kDescriptors;
  bool bound_devices = false;  // as if device nodes could not be made
};

// The methods are those of RootFs. Thread-compatible.
class BuiltRoot final {
 public:
  static absl::StatusOr<std::unique_ptr<BuiltRoot>> Build(
      const RootFsOptions& options, const KernelLimits& limits);

  absl::StatusOr<UniqueFd> Open(absl::string_view path, int flags) const;
  absl::Status MakeDirectory(absl::string_view path, mode_t mode);
  absl::StatusOr<RootFsSlots> AddTo(plan::PlanBuilder& plan,
                                    const MountContext& context) const;
  void MarkAttached();
  const std::vector<BindMount>& binds() const { return binds_; }

 private:
  BuiltRoot(std::shared_ptr<const Layout> layout,
            std::shared_ptr<const sys::MountExecutor> mounts, Scratch scratch,
            Tree tree)
      : layout_(std::move(layout)),
        mounts_(std::move(mounts)),
        scratch_(std::move(scratch)),
        tree_(std::move(tree)) {}

  static absl::StatusOr<std::unique_ptr<BuiltRoot>> BuildWith(
      const RootFsOptions& options, const std::shared_ptr<const Layout>& layout,
      RootWrites writes, const KernelLimits& limits);

  absl::Status MakeOwnMountPoints(std::vector<BoundDevice> devices);
  absl::Status AttachDev();
  absl::Status AddHostNodes();
  absl::Status AddHostNodesLater(BorrowedFd host_dev);
  absl::Status AddMounts(const RootFsOptions& options);
  absl::Status AddMount(const RootFsOptions& options, const Mount& mount);
  absl::StatusOr<UniqueFd> MakeTmpfs(const Mount& mount);
  absl::StatusOr<UniqueFd> MakeBind(const Mount& mount);
  absl::StatusOr<UniqueFd> MakeFilesystem(const Mount& mount);
  absl::Status Remember(const BindMount& bind, UniqueFd source);
  absl::StatusOr<UniqueFd> CoveredDirectory(const Mount& mount);
  absl::Status AddEtcFile(const Mount& mount);
  absl::Status Place(const Mount& mount, UniqueFd object);
  absl::Status Protect();
  absl::Status ProtectPath(absl::string_view path, bool mask);

  // Without the mounts, which refer to options that are gone.
  std::shared_ptr<const Layout> layout_;
  std::shared_ptr<const sys::MountExecutor> mounts_;
  Scratch scratch_;
  Tree tree_;
  UniqueFd proc_;  // places
  UniqueFd sys_;
  UniqueFd proc_bind_;  // what to mount there; invalid: a new one
  UniqueFd sys_bind_;
  UniqueFd dev_bind_;  // what is mounted there; invalid: that of scratch_
  std::vector<LateMount> late_;
  std::vector<BindMount> binds_;
  std::vector<UniqueFd> held_;  // descriptors that binds_ refers to
  Owner owner_;
  bool tty_group_ = true;
  bool read_only_ = false;
  bool root_in_scratch_ = false;
  bool attached_ = false;
};

}  // namespace caisson::rootfs

#endif  // CAISSON_LIB_ROOTFS_BUILT_ROOT_H_
