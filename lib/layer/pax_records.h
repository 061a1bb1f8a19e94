// The payload of PAX extended headers ("x"). Internal to tar_reader.h.
#ifndef CAISSON_LIB_LAYER_PAX_RECORDS_H_
#define CAISSON_LIB_LAYER_PAX_RECORDS_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace caisson::layer {

struct PaxTime {
  int64_t sec = 0;
  int32_t nsec = 0;
};

// What the records say that the reader knows; unset where there is no record
// or one with an empty value, which means "as the header has it".
struct PaxRecords {
  std::optional<std::string> path;
  std::optional<std::string> linkpath;
  std::optional<uint64_t> size;
  std::optional<uint64_t> uid;
  std::optional<uint64_t> gid;
  std::optional<PaxTime> mtime;
  std::optional<uint64_t> devmajor;
  std::optional<uint64_t> devminor;
  std::map<std::string, std::string> xattrs;

  // GNU.sparse.*
  std::optional<uint64_t> sparse_major;
  std::optional<uint64_t> sparse_minor;
  std::optional<std::string> sparse_name;
  std::optional<uint64_t> sparse_size;  // of "size" or "realsize"
  std::optional<uint64_t> sparse_blocks;
  std::vector<uint64_t> sparse_map;  // offset, length, offset, length, ...
  bool sparse_map_is_text = false;   // from "map", not "offset"/"numbytes"

  bool is_sparse() const {
    return sparse_major.has_value() || sparse_minor.has_value() ||
           sparse_blocks.has_value() || !sparse_map.empty();
  }
};

// INVALID_ARGUMENT for anything that is not a sequence of "LENGTH KEY=VALUE\n"
// or has an invalid value for a known key; unknown keys are passed over. Of
// repeated keys the last counts. A sparse map of more than `max_sparse_extents`
// regions is RESOURCE_EXHAUSTED.
absl::StatusOr<PaxRecords> ParsePaxRecords(absl::string_view payload,
                                           size_t max_sparse_extents);

// A decimal number without sign, at most 2^63-1.
std::optional<uint64_t> ParseDecimal(absl::string_view text);

// "[-]SECONDS[.FRACTION]"; seconds that do not fit are clamped, digits beyond
// the nanosecond are cut off.
std::optional<PaxTime> ParsePaxTime(absl::string_view text);

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_PAX_RECORDS_H_
