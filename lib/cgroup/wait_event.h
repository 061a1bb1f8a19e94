// Waiting for cgroup.events of v2.
#ifndef CAISSON_LIB_CGROUP_WAIT_EVENT_H_
#define CAISSON_LIB_CGROUP_WAIT_EVENT_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "lib/base/deadline.h"
#include "lib/cgroup/filesystem.h"

namespace caisson::cgroup {

// Waits until the line of `key` in cgroup.events says `want`, by poll(2); false
// if it does not in time.
absl::StatusOr<bool> WaitForEvent(const Filesystem& filesystem,
                                  const Dir& group, absl::string_view key,
                                  int64_t want, const Deadline& deadline);

}  // namespace caisson::cgroup

#endif  // CAISSON_LIB_CGROUP_WAIT_EVENT_H_
