#include "lib/cgroup/stats_files.h"

#include "absl/strings/match.h"
#include "lib/base/status_macros.h"
#include "lib/cgroup/stats_parse.h"

namespace caisson::cgroup {
namespace {

using Text = absl::string_view;
using Stats = CgroupStats;
using Hugetlb = CgroupHugetlbStats;

absl::Status CgroupEvents(Text text, Stats& s) {
  std::optional<int64_t> populated, frozen;
  RETURN_IF_ERROR(ParseKey(text, "populated", populated));
  RETURN_IF_ERROR(ParseKey(text, "frozen", frozen));
  if (populated.has_value()) s.populated = *populated != 0;
  if (frozen.has_value()) s.frozen = *frozen != 0 || s.frozen.value_or(false);
  return absl::OkStatus();
}

absl::Status CgroupStat(Text text, Stats& s) {
  RETURN_IF_ERROR(ParseKey(text, "nr_descendants", s.descendants));
  return ParseKey(text, "nr_dying_descendants", s.dying_descendants);
}

absl::Status SwapEvents(Text text, Stats& s) {
  RETURN_IF_ERROR(ParseKey(text, "max", s.memory.swap_max_events));
  return ParseKey(text, "fail", s.memory.swap_fail_events);
}

// A file with one duration under `key`.
absl::Status ThrottledLocal(Text text, Text key, absl::Duration unit,
                            Stats& s) {
  std::optional<int64_t> count;
  RETURN_IF_ERROR(ParseKey(text, key, count));
  if (count.has_value()) s.cpu.throttled_local = *count * unit;
  return absl::OkStatus();
}

absl::Status CpuacctUsage(Text text, Stats& s) {
  if (s.cpu.usage.has_value()) return absl::OkStatus();
  std::optional<int64_t> nanoseconds;
  RETURN_IF_ERROR(ParseValue(text, nanoseconds));
  s.cpu.usage = absl::Nanoseconds(*nanoseconds);
  return absl::OkStatus();
}

absl::Status CpuacctStat(Text text, Stats& s) {
  // v2 beside it is more precise.
  if (s.cpu.user.has_value()) return absl::OkStatus();
  return ParseCpuacctStat(text, s.cpu);
}

absl::Status OomControl(Text text, Stats& s) {
  std::optional<int64_t> under_oom;
  RETURN_IF_ERROR(ParseKey(text, "under_oom", under_oom));
  if (under_oom.has_value()) s.memory.under_oom = *under_oom != 0;
  return ParseKey(text, "oom_kill", s.memory.local_events.oom_kill);
}

absl::Status FreezerState(Text text, Stats& s) {
  s.frozen = absl::StartsWith(text, "FROZEN") || s.frozen.value_or(false);
  return absl::OkStatus();
}

#define CAISSON_STAT(name, call)                \
  {                                             \
    name, [](Text t, Stats& s) { return call; } \
  }
#define CAISSON_HUGETLB(name, call)               \
  {                                               \
    name, [](Text t, Hugetlb& s) { return call; } \
  }

// Order matters where a hybrid host tells something twice.
constexpr StatsFile kV2[] = {
    CAISSON_STAT("cgroup.events", CgroupEvents(t, s)),
    CAISSON_STAT("cgroup.stat", CgroupStat(t, s)),
    CAISSON_STAT("cpu.stat", ParseCpuStatV2(t, s.cpu)),
    CAISSON_STAT("cpu.stat.local",
                 ThrottledLocal(t, "throttled_usec", absl::Microseconds(1), s)),
    CAISSON_STAT("cpu.pressure", ParsePressure(t, s.cpu.pressure)),
    CAISSON_STAT("irq.pressure", ParsePressure(t, s.cpu.irq_pressure)),
    CAISSON_STAT("memory.current", ParseValue(t, s.memory.usage)),
    CAISSON_STAT("memory.max", ParseValue(t, s.memory.limit)),
    CAISSON_STAT("memory.peak", ParseValue(t, s.memory.peak)),
    CAISSON_STAT("memory.swap.current", ParseValue(t, s.memory.swap)),
    CAISSON_STAT("memory.swap.max", ParseValue(t, s.memory.swap_limit)),
    CAISSON_STAT("memory.swap.peak", ParseValue(t, s.memory.swap_peak)),
    CAISSON_STAT("memory.swap.events", SwapEvents(t, s)),
    CAISSON_STAT("memory.zswap.max", ParseValue(t, s.memory.zswap_limit)),
    CAISSON_STAT("memory.stat", ParseMemoryStatV2(t, s.memory)),
    CAISSON_STAT("memory.numa_stat", ParseNumaStatV2(t, s.memory)),
    CAISSON_STAT("memory.events", ParseMemoryEvents(t, s.memory.events)),
    CAISSON_STAT("memory.events.local",
                 ParseMemoryEvents(t, s.memory.local_events)),
    CAISSON_STAT("memory.pressure", ParsePressure(t, s.memory.pressure)),
    CAISSON_STAT("io.stat", ParseIoStat(t, s.io)),
    CAISSON_STAT("io.pressure", ParsePressure(t, s.io.pressure)),
    CAISSON_STAT("pids.current", ParseValue(t, s.pids.current)),
    CAISSON_STAT("pids.peak", ParseValue(t, s.pids.peak)),
    CAISSON_STAT("pids.max", ParseValue(t, s.pids.limit)),
    CAISSON_STAT("pids.events", ParseKey(t, "max", s.pids.max_events)),
    CAISSON_STAT("pids.events.local",
                 ParseKey(t, "max", s.pids.local_max_events)),
    CAISSON_STAT("rdma.current", ParseRdma(t, /*limit=*/false, s.rdma)),
    CAISSON_STAT("rdma.max", ParseRdma(t, /*limit=*/true, s.rdma)),
    CAISSON_STAT("misc.current", ParseMisc(t, &CgroupMiscStats::usage, s.misc)),
    CAISSON_STAT("misc.max", ParseMisc(t, &CgroupMiscStats::limit, s.misc)),
    CAISSON_STAT("misc.peak", ParseMisc(t, &CgroupMiscStats::peak, s.misc)),
    CAISSON_STAT("misc.events", ParseMiscEvents(t, s.misc)),
};

constexpr StatsFile kV1[] = {
    CAISSON_STAT("cpu.stat", ParseCpuStatV1(t, s.cpu)),
    CAISSON_STAT("cpu.stat.local",
                 ThrottledLocal(t, "throttled_time", absl::Nanoseconds(1), s)),
    CAISSON_STAT("cpuacct.usage", CpuacctUsage(t, s)),
    CAISSON_STAT("cpuacct.stat", CpuacctStat(t, s)),
    CAISSON_STAT("cpuacct.usage_percpu", ParseCpuacctPerCpu(t, s.cpu)),
    CAISSON_STAT("memory.usage_in_bytes", ParseValue(t, s.memory.usage)),
    CAISSON_STAT("memory.limit_in_bytes", ParseLimitV1(t, s.memory.limit)),
    CAISSON_STAT("memory.max_usage_in_bytes", ParseValue(t, s.memory.peak)),
    CAISSON_STAT("memory.failcnt", ParseValue(t, s.memory.local_events.max)),
    CAISSON_STAT("memory.oom_control", OomControl(t, s)),
    CAISSON_STAT("memory.kmem.usage_in_bytes",
                 ParseValue(t, s.memory.use.kernel)),
    CAISSON_STAT("memory.kmem.tcp.usage_in_bytes",
                 ParseValue(t, s.memory.use.sockets)),
    CAISSON_STAT("memory.memsw.usage_in_bytes",
                 ParseValue(t, s.memory.memory_and_swap)),
    CAISSON_STAT("memory.memsw.limit_in_bytes",
                 ParseLimitV1(t, s.memory.memory_and_swap_limit)),
    CAISSON_STAT("memory.memsw.max_usage_in_bytes",
                 ParseValue(t, s.memory.memory_and_swap_peak)),
    CAISSON_STAT("memory.memsw.failcnt",
                 ParseValue(t, s.memory.memory_and_swap_max_events)),
    CAISSON_STAT("memory.stat", ParseMemoryStatV1(t, s.memory)),
    CAISSON_STAT("memory.numa_stat", ParseNumaStatV1(t, s.memory)),
    CAISSON_STAT("blkio.throttle.io_service_bytes_recursive",
                 ParseBlkio(t, BlkioUnit::kBytes, s.io)),
    CAISSON_STAT("blkio.throttle.io_serviced_recursive",
                 ParseBlkio(t, BlkioUnit::kOperations, s.io)),
    CAISSON_STAT("blkio.bfq.io_service_bytes_recursive",
                 ParseBlkio(t, BlkioUnit::kBytes, s.io)),
    CAISSON_STAT("blkio.bfq.io_serviced_recursive",
                 ParseBlkio(t, BlkioUnit::kOperations, s.io)),
    CAISSON_STAT("pids.current", ParseValue(t, s.pids.current)),
    CAISSON_STAT("pids.peak", ParseValue(t, s.pids.peak)),
    CAISSON_STAT("pids.max", ParseValue(t, s.pids.limit)),
    CAISSON_STAT("pids.events", ParseKey(t, "max", s.pids.max_events)),
    CAISSON_STAT("rdma.current", ParseRdma(t, /*limit=*/false, s.rdma)),
    CAISSON_STAT("rdma.max", ParseRdma(t, /*limit=*/true, s.rdma)),
    CAISSON_STAT("misc.current", ParseMisc(t, &CgroupMiscStats::usage, s.misc)),
    CAISSON_STAT("misc.max", ParseMisc(t, &CgroupMiscStats::limit, s.misc)),
    CAISSON_STAT("misc.peak", ParseMisc(t, &CgroupMiscStats::peak, s.misc)),
    CAISSON_STAT("misc.events", ParseMiscEvents(t, s.misc)),
    CAISSON_STAT("freezer.state", FreezerState(t, s)),
};

constexpr HugetlbFile kHugetlbV2[] = {
    CAISSON_HUGETLB(".current", ParseValue(t, s.usage)),
    CAISSON_HUGETLB(".max", ParseValue(t, s.limit)),
    CAISSON_HUGETLB(".events", ParseKey(t, "max", s.max_events)),
    CAISSON_HUGETLB(".events.local", ParseKey(t, "max", s.local_max_events)),
    CAISSON_HUGETLB(".rsvd.current", ParseValue(t, s.reserved)),
    CAISSON_HUGETLB(".rsvd.max", ParseValue(t, s.reserved_limit)),
    CAISSON_HUGETLB(".numa_stat", ParseHugetlbNuma(t, s)),
};

constexpr HugetlbFile kHugetlbV1[] = {
    CAISSON_HUGETLB(".usage_in_bytes", ParseValue(t, s.usage)),
    CAISSON_HUGETLB(".limit_in_bytes", ParseLimitV1(t, s.limit)),
    CAISSON_HUGETLB(".max_usage_in_bytes", ParseValue(t, s.peak)),
    CAISSON_HUGETLB(".failcnt", ParseValue(t, s.max_events)),
    CAISSON_HUGETLB(".rsvd.usage_in_bytes", ParseValue(t, s.reserved)),
    CAISSON_HUGETLB(".rsvd.limit_in_bytes", ParseLimitV1(t, s.reserved_limit)),
    CAISSON_HUGETLB(".numa_stat", ParseHugetlbNuma(t, s)),
};

#undef CAISSON_STAT
#undef CAISSON_HUGETLB

}  // namespace

absl::Span<const StatsFile> StatsFilesOf(CgroupVersion version) {
  if (version == CgroupVersion::kV2) return kV2;
  return kV1;
}

absl::Span<const HugetlbFile> HugetlbFilesOf(CgroupVersion version) {
  if (version == CgroupVersion::kV2) return kHugetlbV2;
  return kHugetlbV1;
}

}  // namespace caisson::cgroup
