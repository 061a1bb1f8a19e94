// What is behind a CgroupEvents.
#ifndef CAISSON_LIB_CGROUP_EVENTS_H_
#define CAISSON_LIB_CGROUP_EVENTS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/cgroup_events.h"
#include "caisson/unique_fd.h"
#include "lib/base/mutex.h"
#include "lib/cgroup/filesystem.h"
#include "lib/cgroup/group.h"

namespace caisson::cgroup {

// A file of the kernel that tells something, read after it said that it
// changed. Not thread-safe.
class Watched {
 public:
  virtual ~Watched() = default;

  // What to poll, and for what; several for one file are possible.
  struct Poll {
    BorrowedFd fd;
    uint32_t events;  // EPOLL...
  };
  virtual std::vector<Poll> polls() const = 0;

  // Appends what happened since the last call. NOT_FOUND if the group is gone.
  virtual absl::Status Collect(std::vector<CgroupEvent>& events) = 0;
};

// One epoll descriptor over them. Thread-safe.
class EventSource final {
 public:
  // Takes what is so at this moment as the beginning.
  static absl::StatusOr<std::unique_ptr<EventSource>> Create(
      std::vector<std::unique_ptr<Watched>> watched);

  BorrowedFd fd() const { return epoll_.borrow(); }
  absl::StatusOr<std::vector<CgroupEvent>> Read();

 private:
  EventSource() = default;
  absl::Status Forget() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  UniqueFd epoll_;
  Mutex mutex_;
  // Empty after the group was removed.
  std::vector<std::unique_ptr<Watched>> watched_ ABSL_GUARDED_BY(mutex_);
};

// INVALID_ARGUMENT or FAILED_PRECONDITION with the reason.
absl::StatusOr<std::unique_ptr<EventSource>> OpenWatch(
    const Group& group, const CgroupWatchOptions& options);
absl::StatusOr<std::unique_ptr<EventSource>> OpenPressure(
    const Group& group, const CgroupPressureTrigger& trigger);

// A control file that is read again and again.
class ControlFile final {
 public:
  static absl::StatusOr<ControlFile> Open(const Filesystem& filesystem,
                                          const Dir& dir,
                                          absl::string_view name, int flags);
  BorrowedFd fd() const { return fd_.borrow(); }
  const std::string& path() const { return path_; }
  // NOT_FOUND if the group is gone.
  absl::StatusOr<std::string> Read() const;

 private:
  UniqueFd fd_;
  std::string path_;
};

// The v1 half: eventfds that are registered in cgroup.event_control.
absl::StatusOr<std::unique_ptr<Watched>> WatchOomV1(
    const Filesystem& filesystem, const Dir& memory, bool oom, bool oom_kill);
absl::StatusOr<std::unique_ptr<Watched>> WatchUsageV1(
    const Filesystem& filesystem, const Dir& memory, int64_t threshold);
absl::StatusOr<std::unique_ptr<Watched>> WatchReclaimV1(
    const Filesystem& filesystem, const Dir& memory, CgroupReclaimLevel level,
    bool local);

}  // namespace caisson::cgroup

#endif  // CAISSON_LIB_CGROUP_EVENTS_H_
