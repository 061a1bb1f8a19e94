// What can be wrong with the map of a user namespace.
#ifndef CAISSON_LIB_LAUNCHER_ID_MAP_H_
#define CAISSON_LIB_LAUNCHER_ID_MAP_H_

#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "caisson/id_range.h"

namespace caisson::launcher {

// INVALID_ARGUMENT names `field` and the range: none at all, empty, overlapping
// another inside or outside, leaving the 32 bits (2^32 - 1 is no id), or more
// ranges than the kernel takes (340).
absl::Status CheckIdMap(absl::string_view field,
                        const std::vector<IdRange>& ranges);

}  // namespace caisson::launcher

#endif  // CAISSON_LIB_LAUNCHER_ID_MAP_H_
