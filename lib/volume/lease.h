// What a VolumeUse and its BindMounts share.
#ifndef CAISSON_LIB_VOLUME_LEASE_H_
#define CAISSON_LIB_VOLUME_LEASE_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "caisson/unique_fd.h"
#include "caisson/volume.h"

namespace caisson::volume {

// A use, which ends with the object unless a duplicate of lock() lives.
// Immutable, hence thread-safe.
class Lease final {
 public:
  // With the store's lock held. `dir` is the volume's directory.
  static absl::StatusOr<std::shared_ptr<const Lease>> Take(
      UniqueFd dir, std::string volume, const VolumeUseOptions& options);

  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;
  ~Lease();

  const std::string& volume() const { return volume_; }
  BorrowedFd lock() const { return lock_.borrow(); }
  absl::StatusOr<UniqueFd> OpenData(BorrowedFd covered) const;

 private:
  Lease() = default;

  UniqueFd dir_;
  UniqueFd uses_;
  UniqueFd lock_;
  std::string name_;  // in uses_
  std::string volume_;
  bool copy_ = true;
};

}  // namespace caisson::volume

#endif  // CAISSON_LIB_VOLUME_LEASE_H_
