// Walking the descendants of a group.
//
// The guest may own the tree and make it as deep and as wide as it likes, so
// the walk uses a constant number of descriptors, no recursion, and no paths
// that grow.
#ifndef CAISSON_LIB_CGROUP_TREE_H_
#define CAISSON_LIB_CGROUP_TREE_H_

#include <sys/types.h>

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "lib/cgroup/filesystem.h"

namespace caisson::cgroup {

// Calls `enter` for `top` and each descendant, parents first, and `leave` for
// each descendant, with its parent and its name, children first. Groups that
// vanish meanwhile are skipped. Either may be empty; an error ends the walk.
absl::Status WalkTree(const Filesystem& filesystem, const Dir& top,
                      const std::function<absl::Status(const Dir&)>& enter,
                      const std::function<absl::Status(
                          BorrowedFd parent, const std::string& name)>& leave);

// The processes of `top` and its descendants, ascending, without duplicates.
absl::StatusOr<std::vector<pid_t>> ListProcesses(const Filesystem& filesystem,
                                                 const Dir& top);

// The same of threads.
absl::StatusOr<std::vector<pid_t>> ListThreads(const Filesystem& filesystem,
                                               CgroupVersion version,
                                               const Dir& top);

// Removes the descendants of `top`, not itself. Those that are busy stay.
absl::Status RemoveDescendants(const Filesystem& filesystem, const Dir& top);

}  // namespace caisson::cgroup

#endif  // CAISSON_LIB_CGROUP_TREE_H_
