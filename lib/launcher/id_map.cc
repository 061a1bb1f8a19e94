#include "lib/launcher/id_map.h"

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status_macros.h"

namespace caisson::launcher {
namespace {

constexpr uint64_t kIds = 0xffffffff;  // 0 to 2^32 - 2
// user_namespaces(7): UID_GID_MAP_MAX_EXTENTS.
constexpr size_t kMaxRanges = 340;

std::string Describe(const IdRange& range) {
  return absl::StrCat("{inside ", range.inside, ", outside ", range.outside,
                      ", count ", range.count, "}");
}

bool Overlap(uint64_t a, uint64_t a_count, uint64_t b, uint64_t b_count) {
  return a < b + b_count && b < a + a_count;
}

absl::Status CheckRange(absl::string_view field,
                        const std::vector<IdRange>& ranges, size_t index) {
  const IdRange& range = ranges[index];
  auto bad = [&](absl::string_view what) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, "[", index, "] ", Describe(range), " ", what));
  };
  if (range.count == 0) return bad("maps nothing: its count is 0");
  if (range.inside + uint64_t{range.count} > kIds ||
      range.outside + uint64_t{range.count} > kIds) {
    return bad("goes beyond the last id, 4294967294");
  }
  for (size_t i = 0; i < index; ++i) {
    const IdRange& other = ranges[i];
    if (Overlap(range.inside, range.count, other.inside, other.count)) {
      return bad(absl::StrCat("overlaps ", Describe(other), " inside"));
    }
    if (Overlap(range.outside, range.count, other.outside, other.count)) {
      return bad(absl::StrCat("overlaps ", Describe(other), " outside"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckIdMap(absl::string_view field,
                        const std::vector<IdRange>& ranges) {
  if (ranges.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, " is empty: nothing would be mapped"));
  }
  if (ranges.size() > kMaxRanges) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, " has ", ranges.size(),
                     " ranges; the kernel takes ", kMaxRanges));
  }
  for (size_t i = 0; i < ranges.size(); ++i) {
    RETURN_IF_ERROR(CheckRange(field, ranges, i));
  }
  return absl::OkStatus();
}

}  // namespace caisson::launcher
