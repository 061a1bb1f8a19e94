// IdRange: a range of user or group ids, seen from two user namespaces.
//
//   caisson::IdRange range = {.inside = 0, .outside = 100000, .count = 65536};
//
// A value; see user_namespaces(7).
#ifndef CAISSON_ID_RANGE_H_
#define CAISSON_ID_RANGE_H_

#include <cstdint>

namespace caisson {

// One range of user or group ids: `count` ids from `inside` on are the host's
// ids from `outside` on.
struct IdRange {
  uint32_t inside = 0;
  uint32_t outside = 0;
  uint32_t count = 0;
};

}  // namespace caisson

#endif  // CAISSON_ID_RANGE_H_
