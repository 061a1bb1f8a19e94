#include "caisson/root_fs.h"

#include <utility>

#include "lib/base/status_macros.h"
#include "lib/rootfs/built_root.h"

namespace caisson {

RootFs::RootFs(std::unique_ptr<rootfs::BuiltRoot> built)
    : built_(std::move(built)) {}
RootFs::RootFs(RootFs&&) noexcept = default;
RootFs& RootFs::operator=(RootFs&&) noexcept = default;
RootFs::~RootFs() = default;

absl::StatusOr<RootFs> RootFs::Create(const RootFsOptions& options) {
  ASSIGN_OR_RETURN(auto built, rootfs::BuiltRoot::Build(options, {}));
  return RootFs(std::move(built));
}

absl::StatusOr<UniqueFd> RootFs::Open(absl::string_view path, int flags) const {
  return built_->Open(path, flags);
}

absl::Status RootFs::MakeDirectory(absl::string_view path, mode_t mode) {
  return built_->MakeDirectory(path, mode);
}

std::vector<BindMount> RootFs::binds() const { return built_->binds(); }

absl::StatusOr<RootFsSlots> RootFs::AddTo(plan::PlanBuilder& plan,
                                          const MountContext& context) const {
  return built_->AddTo(plan, context);
}

void RootFs::MarkAttached() { built_->MarkAttached(); }

}  // namespace caisson
