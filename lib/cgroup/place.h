// The directory of one CgroupParent in one hierarchy: made, locked, found again
// by others when its owner is dead, removed.
#ifndef CAISSON_LIB_CGROUP_PLACE_H_
#define CAISSON_LIB_CGROUP_PLACE_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/cgroup.h"
#include "lib/cgroup/filesystem.h"
#include "lib/cgroup/layout.h"

namespace caisson::cgroup {

// "caisson-<pid>-<16 hex digits>": the PID is for people, the random number is
// what makes it unique.
absl::StatusOr<std::string> NewOwnerName();
bool IsOwnerName(absl::string_view name);

// Syntax of a path or name; `what` names it in the error.
absl::Status ValidatePath(absl::string_view path);
absl::Status ValidateName(absl::string_view name);

// Where the group of that path lies, or would lie: in each writable hierarchy
// that shows the place. Looks at nothing but `layout`.
std::vector<CgroupPath> PathsAt(const CgroupLayout& layout,
                                absl::string_view path);

// A locked directory and the open directories above it. Everything but
// `enabled` is fixed once made. Closing `dir` unlocks it.
struct Place {
  const CgroupHierarchy* hierarchy = nullptr;
  Dir mount;          // root of the mount
  std::string below;  // path of the parent below the mount, "" for the root
  Dir parent;
  Dir dir;
  ControllerSet enabled;  // v2: for the children of dir
};

// Makes `owner` below `path` in the hierarchy, and what does not exist of
// `path`, and locks it. Without an `owner`, the place is `path` itself, and not
// locked.
absl::StatusOr<Place> MakePlace(const Filesystem& filesystem,
                                const CgroupHierarchy& hierarchy,
                                const Mount& mount, const std::string& path,
                                const std::string& owner);

// Whether `name` below `parent` is still the directory that `dir` has open.
bool StillThere(BorrowedFd parent, const std::string& name, const Dir& dir);

// v2: enables `controllers` from the mount's root down to the children of
// place.dir. FAILED_PRECONDITION, EACCES, ... with what to do.
absl::Status EnableControllers(const Filesystem& filesystem,
                               const ControllerSet& controllers, Place& place);

// v2: enables what is missing of `controllers` for the children of `dir`. After
// a failure what was enabled before it stays: others may use it by now. It is
// added to `enabled`.
absl::Status EnableIn(const Filesystem& filesystem, const Dir& dir,
                      const ControllerSet& controllers,
                      ControllerSet* enabled = nullptr);

// mkdir of a group that can be joined at once, with an error that explains.
absl::StatusOr<Dir> MakeGroupDir(const Filesystem& filesystem,
                                 const CgroupHierarchy& hierarchy,
                                 const Dir& parent, const std::string& name,
                                 mode_t mode);

// Removes place.dir, which must have no groups, then what MakePlace() made of
// the path, if it is empty by now.
absl::Status RemovePlace(const Filesystem& filesystem, const Place& place);

// Whether some MakePlace() made the directory.
bool IsMade(BorrowedFd dir);

// Removes the empty directories of `below` that some MakePlace() made.
void RemoveMadeParents(const Filesystem& filesystem, const Dir& mount,
                       absl::string_view below);

}  // namespace caisson::cgroup

#endif  // CAISSON_LIB_CGROUP_PLACE_H_
