// One control group as a set of directories, one in each hierarchy.
#ifndef CAISSON_LIB_CGROUP_GROUP_H_
#define CAISSON_LIB_CGROUP_GROUP_H_

#include <sys/types.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "caisson/cgroup.h"
#include "caisson/unique_fd.h"
#include "lib/base/deadline.h"
#include "lib/cgroup/devices.h"
#include "lib/cgroup/filesystem.h"
#include "lib/cgroup/layout.h"
#include "lib/cgroup/limits.h"

namespace caisson::cgroup {

// A group in one hierarchy.
struct Member {
  CgroupVersion version = CgroupVersion::kV2;
  ControllerSet controllers;               // that this group uses there
  std::shared_ptr<const UniqueFd> parent;  // the directory above
  Dir dir;
  // Owned by the group's keep_alive; null in what Recover() finds.
  const CgroupHierarchy* hierarchy = nullptr;
  bool threaded = false;  // v2: cgroup.type
  bool attached = false;  // what its owner did to it before is not known
};

// FAILED_PRECONDITION: `field` needs what the group called `name` is not in.
absl::Status MissingController(const std::string& name, absl::string_view field,
                               CgroupController controller);

// That cgroup.kill was written to a group: nothing can be born in the v2
// directories of it and of those that were below it any more.
struct KillMark {
  std::atomic<bool> killed = false;
  std::shared_ptr<const KillMark> above;  // of the group that it was made in
};

// Thread-safe where const. Does nothing on destruction.
class Group final {
 public:
  // `keep_alive` is let go with the group.
  Group(std::shared_ptr<const Filesystem> filesystem, std::string name,
        std::string path, std::shared_ptr<const void> keep_alive)
      : filesystem_(std::move(filesystem)),
        keep_alive_(std::move(keep_alive)),
        name_(std::move(name)),
        path_(std::move(path)),
        creator_(::getpid()) {}

  // Before the group is used.
  void SetAbove(const Group& parent) { mark_->above = parent.mark_; }

  // Members are removed in the reverse order of their addition.
  void Add(Member member) { members_.push_back(std::move(member)); }

  // False in a process that was forked from the one that made the group: its
  // copies of the objects must not destroy what is the parent's. And once it
  // was disowned.
  bool IsOurs() const { return !disowned_ && creator_ == ::getpid(); }
  void Disown() { disowned_ = true; }
  // One that was attached is in use as long as this object lives.
  void HoldLifeline(UniqueFd lifeline) { lifeline_ = std::move(lifeline); }

  const std::string& name() const { return name_; }
  const std::string& path() const { return path_; }
  const std::vector<Member>& members() const { return members_; }
  const std::shared_ptr<const void>& keep_alive() const { return keep_alive_; }
  const std::shared_ptr<const Filesystem>& filesystem() const {
    return filesystem_;
  }

  // Where the group uses the controller; null if it does not.
  const Member* Find(CgroupController controller) const;
  // The v2 directory; null without.
  const Member* FindV2() const;
  // The directory in v1's freezer hierarchy; null without.
  const Member* FindFreezerV1() const;

  // FAILED_PRECONDITION after Destroy().
  absl::Status CheckExists() const;
  // FAILED_PRECONDITION if it is threaded, too: `operation` is of processes.
  absl::Status CheckHasProcesses(absl::string_view operation) const;
  // Whether a process can enter the v2 directory by being moved only.
  bool WasKilled() const;
  absl::StatusOr<CgroupEntry> OpenEntry() const;
  // In a new group nothing needs to be remembered for a failure.
  enum class LimitMode { kNewGroup, kRestoreOnFailure };
  absl::Status SetLimits(const CgroupLimits& limits, LimitMode mode);
  absl::StatusOr<int64_t> OomKills() const;
  absl::StatusOr<std::vector<pid_t>> Processes() const;
  absl::StatusOr<std::vector<pid_t>> Threads() const;
  absl::Status Freeze(const Deadline& deadline) const;
  absl::Status Thaw(const Deadline& deadline) const;
  absl::StatusOr<CgroupFreezeState> FreezeState() const;
  // See lifelines.h.
  absl::StatusOr<std::vector<UniqueFd>> Lifelines() const;
  absl::Status Signal(int signal, const Deadline& deadline) const;
  absl::Status Kill(const Deadline& deadline) const;
  absl::Status Destroy(const Deadline& deadline);

 private:
  // rmdir of every member. OK, or EBUSY's status if something is inside.
  absl::Status RemoveMembers();

  std::shared_ptr<const Filesystem> filesystem_;
  std::shared_ptr<const void> keep_alive_;
  std::string name_;
  std::string path_;
  pid_t creator_;
  bool disowned_ = false;
  UniqueFd lifeline_;
  std::vector<Member> members_;
  // What was set last in v1; devices.list does not tell all of it.
  std::optional<DeviceListV1> device_list_;
  const std::shared_ptr<KillMark> mark_ = std::make_shared<KillMark>();
};

}  // namespace caisson::cgroup

#endif  // CAISSON_LIB_CGROUP_GROUP_H_
