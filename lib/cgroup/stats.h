// The files of a group that statistics are in, kept open.
#ifndef CAISSON_LIB_CGROUP_STATS_H_
#define CAISSON_LIB_CGROUP_STATS_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/cgroup_stats.h"
#include "lib/base/mutex.h"
#include "lib/cgroup/filesystem.h"
#include "lib/cgroup/group.h"

namespace caisson::cgroup {

// Thread-safe.
class StatsFiles final {
 public:
  // Opens what exists of the files in the directories of `members`.
  static absl::StatusOr<std::unique_ptr<StatsFiles>> Open(
      std::shared_ptr<const Filesystem> filesystem,
      const std::vector<Member>& members);

  absl::StatusOr<CgroupStats> Read() const;

  using Parse = absl::Status (*)(absl::string_view text, CgroupStats& stats);
  // Of one page size.
  using ParseHugetlb = absl::Status (*)(absl::string_view text,
                                        CgroupHugetlbStats& stats);

 private:
  struct File {
    UniqueFd fd;
    std::string path;
    Parse parse = nullptr;
    ParseHugetlb parse_hugetlb = nullptr;
    size_t page_size = 0;  // index into page_sizes_
  };

  StatsFiles() = default;
  absl::Status OpenMember(const Member& member);
  absl::Status OpenHugetlb(const Member& member);
  absl::Status Add(const Dir& dir, absl::string_view name, File file);
  // Whole, into buffer_; empty if the kernel does not offer it after all.
  absl::StatusOr<absl::string_view> ReadFile(const File& file) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // v1 counts events for each group alone.
  absl::Status SumEventsV1(CgroupMemoryStats& memory) const;

  std::shared_ptr<const Filesystem> filesystem_;
  std::vector<File> files_;
  std::vector<std::string> page_sizes_;
  Dir memory_v1_;  // invalid without

  mutable Mutex mutex_;
  mutable std::string buffer_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace caisson::cgroup

#endif  // CAISSON_LIB_CGROUP_STATS_H_
