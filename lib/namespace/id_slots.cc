#include "lib/namespace/id_slots.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace caisson::ids {
namespace {

uint64_t Count(const std::vector<HostIdRange>& ranges, uint32_t per_slot) {
  uint64_t count = 0;
  for (const HostIdRange& range : ranges) count += range.count / per_slot;
  return count;
}

uint32_t FirstId(const std::vector<HostIdRange>& ranges, uint32_t per_slot,
                 uint64_t index) {
  for (const HostIdRange& range : ranges) {
    const uint64_t here = range.count / per_slot;
    if (index < here) {
      return range.first + static_cast<uint32_t>(index) * per_slot;
    }
    index -= here;
  }
  return 0;
}

bool Within(const std::vector<HostIdRange>& ranges, const HostIdRange& inner) {
  return std::any_of(ranges.begin(), ranges.end(),
                     [&](const HostIdRange& range) {
                       return inner.first >= range.first &&
                              uint64_t{inner.first} + inner.count <=
                                  uint64_t{range.first} + range.count;
                     });
}

}  // namespace

absl::StatusOr<IdSlots> IdSlots::Create(std::vector<HostIdRange> uids,
                                        std::vector<HostIdRange> gids,
                                        uint32_t ids_per_slot) {
  if (ids_per_slot == 0) {
    return absl::InvalidArgumentError(
        "IdRangePoolOptions.ids_per_container is 0");
  }
  IdSlots slots;
  slots.size_ = std::min(Count(uids, ids_per_slot), Count(gids, ids_per_slot));
  if (slots.size_ == 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "IdRangePoolOptions.ids_per_container: there are no ", ids_per_slot,
        Count(uids, ids_per_slot) == 0 ? " user" : " group",
        " ids in a row in the pool"));
  }
  slots.uids_ = std::move(uids);
  slots.gids_ = std::move(gids);
  slots.ids_per_slot_ = ids_per_slot;
  return slots;
}

IdSlot IdSlots::at(uint64_t index) const {
  return {FirstId(uids_, ids_per_slot_, index),
          FirstId(gids_, ids_per_slot_, index)};
}

uint64_t IdSlots::IndexFrom(uint64_t uid) const {
  uint64_t index = 0;
  for (const HostIdRange& range : uids_) {
    const uint64_t here = range.count / ids_per_slot_;
    const uint64_t skipped =
        uid <= range.first
            ? 0
            : (uid - range.first + ids_per_slot_ - 1) / ids_per_slot_;
    if (skipped < here) {
      index += skipped;
      return index < size_ ? index : 0;
    }
    index += here;
  }
  return 0;
}

bool IdSlots::Contains(const HostIdRange& uids, const HostIdRange& gids) const {
  return Within(uids_, uids) && Within(gids_, gids);
}

}  // namespace caisson::ids
