// What is behind a CgroupParent.
#ifndef CAISSON_LIB_CGROUP_OWNER_H_
#define CAISSON_LIB_CGROUP_OWNER_H_

#include <sys/types.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "caisson/cgroup.h"
#include "lib/base/deadline.h"
#include "lib/base/mutex.h"
#include "lib/cgroup/filesystem.h"
#include "lib/cgroup/group.h"
#include "lib/cgroup/layout.h"
#include "lib/cgroup/place.h"

namespace caisson::cgroup {

// Thread-safe. Groups keep it alive; the destructor removes its directories,
// but not in a forked copy of the process.
class Owner final : public std::enable_shared_from_this<Owner> {
 public:
  static absl::StatusOr<std::shared_ptr<Owner>> Open(
      const CgroupParentOptions& options,
      std::shared_ptr<const Filesystem> filesystem);
  static absl::StatusOr<std::vector<std::string>> Recover(
      const CgroupParentOptions& options, const Filesystem& filesystem,
      const Deadline& deadline);
  ~Owner();

  absl::StatusOr<std::unique_ptr<Group>> Create(const CgroupOptions& options);
  absl::Status Close();

  const std::string& path() const { return path_; }
  const CgroupLayout& layout() const { return detected_.layout; }

 private:
  // A hierarchy that a group joins, and for which controllers.
  struct Need {
    size_t hierarchy;
    ControllerSet controllers;
    bool optional = false;  // left out where this process may not make groups
  };

  Owner() = default;
  absl::StatusOr<std::vector<Need>> NeedsOf(const CgroupOptions& options) const;
  // How devices are filtered: adds the v1 controller to `wanted` if by that.
  absl::Status NeedDevices(const CgroupOptions& options,
                           ControllerSet& wanted) const;
  // The place in a hierarchy, made when first needed.
  absl::StatusOr<std::shared_ptr<const Place>> Prepare(const Need& need);
  // Lets Prepare() make the place again: somebody removed its directory.
  void Forget(const std::shared_ptr<const Place>& place);
  absl::StatusOr<Member> MakeMember(const Need& need, const std::string& name);

  std::shared_ptr<const Filesystem> filesystem_;
  DetectedLayout detected_;
  std::string parent_path_;
  std::string name_;  // empty: places are prescribed
  std::string path_;
  const pid_t creator_ = ::getpid();

  Mutex mutex_;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  // In the order of creation; removed backwards.
  std::vector<std::shared_ptr<Place>> places_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace caisson::cgroup

#endif  // CAISSON_LIB_CGROUP_OWNER_H_
