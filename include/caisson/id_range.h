// IdRange: a range of user or group ids, seen from two user namespaces.
//
//   caisson::IdRange range = {.inside = 0, .outside = 100000, .count = 65536};
//
// A value; see user_namespaces(7).
#ifndef CAISSON_ID_RANGE_H_
#define CAISSON_ID_RANGE_H_

#include <cstdint>
#include <vector>

namespace caisson {

// One range of user or group ids: `count` ids from `inside` on are the host's
// ids from `outside` on.
struct IdRange {
  uint32_t inside = 0;
  uint32_t outside = 0;
  uint32_t count = 0;
};

// The maps of a user namespace.
struct IdMap {
  std::vector<IdRange> users;
  std::vector<IdRange> groups;
  // Denies setgroups(2) inside, for good: nobody can leave a group that takes
  // rights away (CVE-2014-8989).
  bool deny_setgroups = false;
};

}  // namespace caisson

#endif  // CAISSON_ID_RANGE_H_
