// From the text of the kernel's files to CgroupStats. Pure: nothing here opens
// a file. A line that is not known is left out (or kept by its name where the
// header says so); a known one that cannot be read is DATA_LOSS.
#ifndef CAISSON_LIB_CGROUP_STATS_PARSE_H_
#define CAISSON_LIB_CGROUP_STATS_PARSE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/cgroup_stats.h"

namespace caisson::cgroup {

// A file that is one count.
absl::Status ParseValue(absl::string_view text, std::optional<int64_t>& value);
// The same for a limit of v1, which prints a huge number for none.
absl::Status ParseLimitV1(absl::string_view text,
                          std::optional<int64_t>& value);
// The value of one line "key value"; absent without such a line.
absl::Status ParseKey(absl::string_view text, absl::string_view key,
                      std::optional<int64_t>& value);

absl::Status ParsePressure(absl::string_view text,
                           std::optional<CgroupPressure>& pressure);

absl::Status ParseCpuStatV2(absl::string_view text, CgroupCpuStats& cpu);
absl::Status ParseCpuStatV1(absl::string_view text, CgroupCpuStats& cpu);
absl::Status ParseCpuacctStat(absl::string_view text, CgroupCpuStats& cpu);
absl::Status ParseCpuacctPerCpu(absl::string_view text, CgroupCpuStats& cpu);

absl::Status ParseMemoryStatV2(absl::string_view text, CgroupMemoryStats& mem);
absl::Status ParseMemoryStatV1(absl::string_view text, CgroupMemoryStats& mem);
absl::Status ParseNumaStatV2(absl::string_view text, CgroupMemoryStats& mem);
absl::Status ParseNumaStatV1(absl::string_view text, CgroupMemoryStats& mem);
absl::Status ParseMemoryEvents(absl::string_view text,
                               CgroupMemoryEvents& events);

absl::Status ParseIoStat(absl::string_view text, CgroupIoStats& io);
// io_service_bytes and io_serviced of v1; leaves alone what is known already.
enum class BlkioUnit { kBytes, kOperations };
absl::Status ParseBlkio(absl::string_view text, BlkioUnit unit,
                        CgroupIoStats& io);

// `limit`: rdma.max instead of rdma.current.
absl::Status ParseRdma(absl::string_view text, bool limit,
                       std::vector<CgroupRdmaStats>& rdma);

absl::Status ParseMisc(absl::string_view text,
                       std::optional<int64_t> CgroupMiscStats::*field,
                       std::vector<CgroupMiscStats>& misc);
absl::Status ParseMiscEvents(absl::string_view text,
                             std::vector<CgroupMiscStats>& misc);

// hugetlb.SIZE.numa_stat
absl::Status ParseHugetlbNuma(absl::string_view text,
                              CgroupHugetlbStats& hugetlb);

}  // namespace caisson::cgroup

#endif  // CAISSON_LIB_CGROUP_STATS_PARSE_H_
