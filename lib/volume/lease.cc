#include "lib/volume/lease.h"

#include <unistd.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/volume/volume_dir.h"

namespace caisson {
namespace volume {

absl::StatusOr<std::shared_ptr<const Lease>> Lease::Take(
    UniqueFd dir, std::string volume, const VolumeUseOptions& options) {
  std::shared_ptr<Lease> lease(new Lease);
  lease->dir_ = std::move(dir);
  lease->volume_ = std::move(volume);
  lease->copy_ = options.copy;
  ASSIGN_OR_RETURN(lease->uses_, OpenUses(lease->dir_.borrow()));
  ASSIGN_OR_RETURN(
      lease->lock_,
      AddUse(lease->uses_.borrow(), {options.user, ::getpid()}, lease->name_));
  return std::shared_ptr<const Lease>(std::move(lease));
}

Lease::~Lease() {
  if (!lock_.valid()) return;
  lock_.reset();
  EndUse(uses_.borrow(), name_);
}

absl::StatusOr<UniqueFd> Lease::OpenData(BorrowedFd covered) const {
  auto data = volume::OpenData(dir_.borrow(), covered, copy_);
  if (data.ok()) return data;
  return Annotate(data.status(), absl::StrCat("volume ", Quoted(volume_)));
}

}  // namespace volume

VolumeUse::VolumeUse(std::shared_ptr<const volume::Lease> lease)
    : lease_(std::move(lease)) {}
VolumeUse::VolumeUse(VolumeUse&&) noexcept = default;
VolumeUse& VolumeUse::operator=(VolumeUse&&) noexcept = default;
VolumeUse::~VolumeUse() = default;

const std::string& VolumeUse::name() const { return lease_->volume(); }
BorrowedFd VolumeUse::lock() const { return lease_->lock(); }

absl::StatusOr<UniqueFd> VolumeUse::OpenData(BorrowedFd covered) const {
  return lease_->OpenData(covered);
}

BindMount VolumeUse::BindAt(std::string destination, bool read_only) const {
  BindMount bind;
  bind.destination = std::move(destination);
  bind.open_source = [lease = lease_](BorrowedFd covered) {
    return lease->OpenData(covered);
  };
  bind.read_only = read_only;
  return bind;
}

}  // namespace caisson
