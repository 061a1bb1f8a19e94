// The ranges of a pool, numbered: the n-th range of user ids goes with the n-th
// range of group ids. Computed, not stored. Immutable, hence thread-safe.
#ifndef CAISSON_LIB_NAMESPACE_ID_SLOTS_H_
#define CAISSON_LIB_NAMESPACE_ID_SLOTS_H_

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "caisson/id_range_pool.h"

namespace caisson::ids {

struct IdSlot {
  uint32_t uid = 0;
  uint32_t gid = 0;
};

class IdSlots final {
 public:
  // The ranges ascend and do not overlap. INVALID_ARGUMENT if `ids_per_slot` is
  // 0 or no range has room for so many.
  static absl::StatusOr<IdSlots> Create(std::vector<HostIdRange> uids,
                                        std::vector<HostIdRange> gids,
                                        uint32_t ids_per_slot);

  uint64_t size() const { return size_; }
  uint32_t ids_per_slot() const { return ids_per_slot_; }
  // Precondition: index < size().
  IdSlot at(uint64_t index) const;
  // Of the first slot from user id `uid` on; 0 if there is none.
  uint64_t IndexFrom(uint64_t uid) const;
  // Whether `uids` and `gids` lie within the ranges, at whatever offset.
  bool Contains(const HostIdRange& uids, const HostIdRange& gids) const;

  const std::vector<HostIdRange>& uids() const { return uids_; }
  const std::vector<HostIdRange>& gids() const { return gids_; }

 private:
  IdSlots() = default;

  std::vector<HostIdRange> uids_;
  std::vector<HostIdRange> gids_;
  uint32_t ids_per_slot_ = 0;
  uint64_t size_ = 0;
};

}  // namespace caisson::ids

#endif  // CAISSON_LIB_NAMESPACE_ID_SLOTS_H_
