// What the commands print.
#ifndef CAISSON_EXAMPLES_OCI_REPORT_H_
#define CAISSON_EXAMPLES_OCI_REPORT_H_

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "caisson/cgroup_stats.h"
#include "caisson/oci_runtime.h"

namespace oci {

void PrintList(const std::vector<caisson::OciState>& states, bool quiet,
               bool as_json);

// Runs ps(1) and shows the lines of these processes. The exit code.
absl::StatusOr<int> PrintProcesses(const std::vector<pid_t>& pids,
                                   const std::vector<std::string>& options);

// As `runc events` has them.
std::string OutOfMemoryJson(const std::string& id);
std::string StatsJson(const std::string& id, const caisson::CgroupStats& stats);

}  // namespace oci

#endif  // CAISSON_EXAMPLES_OCI_REPORT_H_
