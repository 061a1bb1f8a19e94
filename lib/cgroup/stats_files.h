// Which file tells what.
#ifndef CAISSON_LIB_CGROUP_STATS_FILES_H_
#define CAISSON_LIB_CGROUP_STATS_FILES_H_

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "caisson/cgroup_layout.h"
#include "lib/cgroup/stats.h"

namespace caisson::cgroup {

struct StatsFile {
  absl::string_view name;
  StatsFiles::Parse parse;
};
absl::Span<const StatsFile> StatsFilesOf(CgroupVersion version);

// hugetlb.SIZE and a suffix.
struct HugetlbFile {
  absl::string_view suffix;
  StatsFiles::ParseHugetlb parse;
};
absl::Span<const HugetlbFile> HugetlbFilesOf(CgroupVersion version);

}  // namespace caisson::cgroup

#endif  // CAISSON_LIB_CGROUP_STATS_FILES_H_
