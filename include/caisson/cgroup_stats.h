// What a control group uses: one typed snapshot, the same on v1 and v2.
//
//   auto reader = group->OpenStats();  // opens the kernel's files once
//   auto before = reader->Read();
//   ... a second later ...
//   auto now = reader->Read();
//   std::cout << *caisson::CpuPercent(*before, *now) << " % of a CPU, "
//             << *caisson::MemoryWithoutInactiveFile(now->memory) << "
//             bytes\n";
//
// A field that is absent (std::nullopt, an empty list) is not zero: the kernel
// does not tell it here, because this version of cgroups or of the kernel does
// not have it, or because the group was not created with its controller
// (CgroupOptions::controllers; CgroupStatsControllers() lists those that
// count). Each comment names the file and key: v2, then v1; "-" where there is
// none. Counts include the group's descendants unless said otherwise. Bytes are
// bytes and counts are counts since the group was made.
//
// On a hybrid host, a group has a directory of v2 beside those of v1: processor
// time and pressure then come from v2 whatever controllers it has.
//
// Not for: limits (see CgroupLimits), or being told (see cgroup_events.h).
// Sources: admin-guide/cgroup-v2.rst, admin-guide/cgroup-v1/*.rst,
// accounting/psi.rst, and the kernel's source where they are silent.
#ifndef CAISSON_CGROUP_STATS_H_
#define CAISSON_CGROUP_STATS_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "caisson/cgroup_layout.h"

namespace caisson {

namespace cgroup {
class Group;
class StatsFiles;
}  // namespace cgroup

// Share of the last 10, 60 and 300 s, in percent, in which something waited,
// and the sum of that time.
struct CgroupStall {
  double avg10 = 0;
  double avg60 = 0;
  double avg300 = 0;
  absl::Duration total;
};

// PSI: `some` while at least one task waited, `full` while all of them did.
// v2 only, also without the controller. Absent where PSI is switched off (the
// boot parameter psi=0, or cgroup.pressure of the group).
struct CgroupPressure {
  std::optional<CgroupStall> some;
  std::optional<CgroupStall> full;  // of the CPU since 5.13
};

struct CgroupCpuStats {
  std::optional<absl::Duration> usage;  // cpu.stat usage_usec; cpuacct.usage
  // cpu.stat user_usec, system_usec; cpuacct.stat in ticks of 10 ms.
  std::optional<absl::Duration> user;
  std::optional<absl::Duration> system;
  std::optional<absl::Duration> nice;  // cpu.stat nice_usec; -
  // By processor. -; cpuacct.usage_percpu
  std::vector<absl::Duration> per_cpu;

  // The quota (CgroupLimits::cpu_quota): periods that passed while something
  // was runnable, those in which it was used up, and the sum over the CPUs of
  // the time stopped. cpu.stat nr_periods, nr_throttled, throttled_usec;
  // cpu.stat nr_periods, nr_throttled, throttled_time. The group's own: the
  // quota of a descendant counts there.
  std::optional<int64_t> periods;
  std::optional<int64_t> throttled_periods;
  std::optional<absl::Duration> throttled;
  // As `throttled`, whoever's quota it was: of an ancestor, too.
  // cpu.stat.local throttled_usec (6.6); cpu.stat.local throttled_time
  std::optional<absl::Duration> throttled_local;
  // Periods that went over the quota by the burst allowance, and by how much.
  // cpu.stat nr_bursts, burst_usec (5.16); cpu.stat nr_bursts, burst_time
  std::optional<int64_t> bursts;
  std::optional<absl::Duration> burst;
  // Time that siblings of a core idled for core scheduling.
  // cpu.stat core_sched.force_idle_usec; -
  std::optional<absl::Duration> core_sched_force_idle;
  // Runnable but not running, where schedstats are on. -; cpu.stat wait_sum
  std::optional<absl::Duration> waited;

  std::optional<CgroupPressure> pressure;      // cpu.pressure; -
  std::optional<CgroupPressure> irq_pressure;  // irq.pressure (6.1, `full`); -
};

// How often limits were met. `oom_kill` counts processes, the others
// occurrences. memory.events; on v1 see CgroupMemoryStats.
struct CgroupMemoryEvents {
  std::optional<int64_t> low;   // reclaimed although below memory.low
  std::optional<int64_t> high;  // throttled above memory.high
  std::optional<int64_t> max;   // met memory.max; v1 memory.failcnt
  std::optional<int64_t> oom;   // about to fail at the limit; v1 does not count
  std::optional<int64_t> oom_kill;        // v1 memory.oom_control oom_kill
  std::optional<int64_t> oom_group_kill;  // 5.17
  std::optional<int64_t> sock_throttled;  // by it; newest kernels
};

// What memory is used for. v2: memory.stat, memory.numa_stat in bytes; v1:
// `total_` of memory.stat, and for a node `hierarchical_` of memory.numa_stat,
// which has only anon, file, unevictable and the sum.
struct CgroupMemoryUse {
  std::optional<int64_t> anon;    // anon; rss
  std::optional<int64_t> file;    // file; cache. Page cache and shmem
  std::optional<int64_t> kernel;  // kernel (5.18); memory.kmem.usage_in_bytes
  std::optional<int64_t> kernel_stack;           // kernel_stack; -
  std::optional<int64_t> page_tables;            // pagetables; -
  std::optional<int64_t> secondary_page_tables;  // sec_pagetables; -
  std::optional<int64_t> per_cpu;                // percpu; -
  // sock; memory.kmem.tcp.usage_in_bytes, which has TCP only
  std::optional<int64_t> sockets;
  std::optional<int64_t> vmalloc;             // vmalloc (5.18); -
  std::optional<int64_t> shmem;               // shmem; shmem
  std::optional<int64_t> zswap;               // zswap (5.19); -
  std::optional<int64_t> zswapped;            // zswapped (5.19); -
  std::optional<int64_t> file_mapped;         // file_mapped; mapped_file
  std::optional<int64_t> file_dirty;          // file_dirty; dirty
  std::optional<int64_t> file_writeback;      // file_writeback; writeback
  std::optional<int64_t> swap_cached;         // swapcached; swapcached
  std::optional<int64_t> anon_thp;            // anon_thp; rss_huge
  std::optional<int64_t> file_thp;            // file_thp; -
  std::optional<int64_t> shmem_thp;           // shmem_thp; -
  std::optional<int64_t> inactive_anon;       // inactive_anon; inactive_anon
  std::optional<int64_t> active_anon;         // active_anon; active_anon
  std::optional<int64_t> inactive_file;       // inactive_file; inactive_file
  std::optional<int64_t> active_file;         // active_file; active_file
  std::optional<int64_t> unevictable;         // unevictable; unevictable
  std::optional<int64_t> slab_reclaimable;    // slab_reclaimable; -
  std::optional<int64_t> slab_unreclaimable;  // slab_unreclaimable; -
  std::optional<int64_t> slab;                // slab; -
  std::optional<int64_t> hugetlb;  // hugetlb, where it is accounted; -
};

struct CgroupMemoryNode {
  int node = 0;  // of NUMA
  CgroupMemoryUse use;
  std::optional<int64_t>
      total;  // -; hierarchical_total: anon, file, unevictable
};

struct CgroupMemoryStats {
  // memory.current; memory.usage_in_bytes, without the kernel's memory where
  // nokmem was booted. Includes page cache: see MemoryWithoutInactiveFile().
  std::optional<int64_t> usage;
  // CgroupLimits::kUnlimited if none. memory.max; memory.limit_in_bytes. The
  // group's own: an ancestor's may be lower.
  std::optional<int64_t> limit;
  // memory.peak (5.19); memory.max_usage_in_bytes
  std::optional<int64_t> peak;

  // Swap alone. memory.swap.current; memory.stat total_swap
  std::optional<int64_t> swap;
  std::optional<int64_t> swap_limit;        // memory.swap.max; -
  std::optional<int64_t> swap_peak;         // memory.swap.peak (6.5); -
  std::optional<int64_t> swap_max_events;   // memory.swap.events max; -
  std::optional<int64_t> swap_fail_events;  // memory.swap.events fail; -
  std::optional<int64_t> zswap_limit;       // memory.zswap.max (5.19); -
  // Memory and swap together, as v1 limits them: -;
  // memory.memsw.usage_in_bytes, memory.memsw.limit_in_bytes,
  // memory.memsw.max_usage_in_bytes, memory.memsw.failcnt
  std::optional<int64_t> memory_and_swap;
  std::optional<int64_t> memory_and_swap_limit;
  std::optional<int64_t> memory_and_swap_peak;
  std::optional<int64_t> memory_and_swap_max_events;

  CgroupMemoryUse use;
  // memory.numa_stat; empty in kernels without NUMA
  std::vector<CgroupMemoryNode> nodes;

  std::optional<int64_t> page_faults;        // pgfault; total_pgfault
  std::optional<int64_t> major_page_faults;  // pgmajfault; total_pgmajfault
  // Pages that were wanted again soon after they had been reclaimed.
  // workingset_refault_anon, _file; total_workingset_refault_anon, _file
  std::optional<int64_t> refaults_anon;
  std::optional<int64_t> refaults_file;
  std::optional<int64_t> pages_scanned;    // pgscan; -
  std::optional<int64_t> pages_reclaimed;  // pgsteal; -
  // Everything else in memory.stat (v1: its `total_` lines) by the kernel's
  // names, which differ from kernel to kernel.
  std::vector<std::pair<std::string, int64_t>> other;

  // With descendants: memory.events; on v1 the sum over those that exist.
  CgroupMemoryEvents events;
  // Of the group itself: memory.events.local; memory.failcnt and
  // memory.oom_control
  CgroupMemoryEvents local_events;
  // Its processes wait for memory. -; memory.oom_control under_oom
  std::optional<bool> under_oom;

  std::optional<CgroupPressure> pressure;  // memory.pressure; -
};

// One disk. v2: io.stat. v1: blkio.throttle.io_service_bytes_recursive and
// io_serviced_recursive, and for disks that are missing there those of
// blkio.bfq. Newer kernels (seen in 6.18) count in v1 only what has a limit or
// the BFQ scheduler.
struct CgroupIoDevice {
  int major = 0;
  int minor = 0;
  std::optional<int64_t> read_bytes;     // rbytes; Read
  std::optional<int64_t> write_bytes;    // wbytes; Write
  std::optional<int64_t> read_count;     // rios; Read
  std::optional<int64_t> write_count;    // wios; Write
  std::optional<int64_t> discard_bytes;  // dbytes; Discard
  std::optional<int64_t> discard_count;  // dios; Discard
  // iocost and iolatency, where the disk uses them: the rest of the line, by
  // the kernel's names (cost.usage, cost.wait, depth, avg_lat, ...) and in its
  // units. io.stat; -
  std::vector<std::pair<std::string, int64_t>> other;
};

struct CgroupIoStats {
  std::vector<CgroupIoDevice> devices;     // that the group has used
  std::optional<CgroupPressure> pressure;  // io.pressure; -

  // Sums over the devices; absent if no device has it.
  std::optional<int64_t> read_bytes() const;
  std::optional<int64_t> write_bytes() const;
};

// The same files on v1 and v2. Processes and threads are both counted.
struct CgroupPidsStats {
  std::optional<int64_t> current;  // pids.current
  std::optional<int64_t> peak;     // pids.peak (6.1)
  std::optional<int64_t> limit;    // pids.max; CgroupLimits::kUnlimited if none
  // Forks that failed at the limit. pids.events max: of the group and its
  // descendants on v2 since 6.11; else, and on v1, of those that were tried in
  // it because of whatever limit above.
  std::optional<int64_t> max_events;
  std::optional<int64_t> local_max_events;  // pids.events.local max (6.11); -
};

// Huge pages of one size.
struct CgroupHugetlbStats {
  std::string page_size;                    // the kernel's name, "2MB"
  std::optional<int64_t> usage;             // .current; .usage_in_bytes
  std::optional<int64_t> limit;             // .max; .limit_in_bytes
  std::optional<int64_t> peak;              // -; .max_usage_in_bytes
  std::optional<int64_t> max_events;        // .events max; .failcnt
  std::optional<int64_t> local_max_events;  // .events.local max; -
  std::optional<int64_t> reserved;        // .rsvd.current; .rsvd.usage_in_bytes
  std::optional<int64_t> reserved_limit;  // .rsvd.max; .rsvd.limit_in_bytes
  // NUMA nodes and their bytes. .numa_stat total; hierarchical_total (5.17)
  std::vector<std::pair<int, int64_t>> nodes;
};

// One device. rdma.current and rdma.max on both; limits kUnlimited if none.
struct CgroupRdmaStats {
  std::string device;  // "mlx4_0"
  std::optional<int64_t> hca_handles;
  std::optional<int64_t> hca_objects;
  std::optional<int64_t> hca_handles_limit;
  std::optional<int64_t> hca_objects_limit;
};

// One resource of the misc controller, the same files on both.
struct CgroupMiscStats {
  std::string resource;               // "sev"
  std::optional<int64_t> usage;       // misc.current
  std::optional<int64_t> limit;       // misc.max; kUnlimited if none
  std::optional<int64_t> peak;        // misc.peak (6.11)
  std::optional<int64_t> max_events;  // misc.events NAME.max (5.16)
};

struct CgroupStats {
  // CLOCK_MONOTONIC when the reading began; for differences only.
  absl::Duration taken_at;

  CgroupCpuStats cpu;
  CgroupMemoryStats memory;
  CgroupIoStats io;
  CgroupPidsStats pids;
  std::vector<CgroupHugetlbStats> hugetlb;
  std::vector<CgroupRdmaStats> rdma;
  std::vector<CgroupMiscStats> misc;

  // Processes are in the group or below it. cgroup.events populated; -
  std::optional<bool> populated;
  // All of them are stopped. cgroup.events frozen; freezer.state FROZEN
  std::optional<bool> frozen;
  // Groups below this one, and removed ones that the kernel still needs.
  // cgroup.stat nr_descendants, nr_dying_descendants; -
  std::optional<int64_t> descendants;
  std::optional<int64_t> dying_descendants;
};

// What `docker stats` and the kubelet call memory usage: usage without the page
// cache that was not used lately, which the kernel drops at will. Docker:
// memory.stat inactive_file, on v1 total_inactive_file. Never negative. Absent
// if either part is.
std::optional<int64_t> MemoryWithoutInactiveFile(
    const CgroupMemoryStats& memory);

// Processor time between two snapshots over the time between them: 100 is one
// CPU used all the time, as in `docker stats`. Absent if either lacks
// cpu.usage, or if no time is between them.
std::optional<double> CpuPercent(const CgroupStats& earlier,
                                 const CgroupStats& later);

// The controllers of `layout` that are usable and have something to tell: for
// CgroupOptions::controllers of a group whose statistics shall be complete.
std::vector<CgroupController> CgroupStatsControllers(
    const CgroupLayout& layout);

// The open files of one group: 20 to 50 descriptors, depending on its
// controllers. Independent of the Cgroup's lifetime. Thread-safe; calls at once
// wait for one another. Read() does not block longer than the kernel needs to
// sum its counters: some 50 us.
class [[nodiscard]] CgroupStatsReader final {
 public:
  CgroupStatsReader(CgroupStatsReader&&) noexcept;
  CgroupStatsReader& operator=(CgroupStatsReader&&) noexcept;
  ~CgroupStatsReader();

  // A snapshot. Not atomic: the kernel counts on while its files are read, one
  // after the other. FAILED_PRECONDITION once the group was removed; DATA_LOSS,
  // naming file and line, if the kernel's text is not what its documents say.
  absl::StatusOr<CgroupStats> Read() const;

  // For the library itself.
  explicit CgroupStatsReader(std::unique_ptr<cgroup::StatsFiles> files);

 private:
  std::unique_ptr<cgroup::StatsFiles> files_;  // null when moved from
};

}  // namespace caisson

#endif  // CAISSON_CGROUP_STATS_H_
