// What a control group may use. Every limit can be set when the group is made
// and changed while processes run in it (Cgroup::SetLimits()).
//
//   caisson::CgroupLimits limits = {
//       .memory_max = 64 << 20,
//       .cpu_quota = caisson::CpuQuota{absl::Milliseconds(150)},
//       .pids_max = 32,
//       .io = {{.device = {.path = "/dev/vda"}, .write_bps = 10 << 20}}};
//
// A change is all or nothing: values are validated, devices looked up and
// controllers found before the first write, and if the kernel refuses a write,
// those before it are taken back.
//
// Version 2 and version 1 of a controller do not offer the same. Each field
// says which kernel file it becomes in which version; where there is none,
// FAILED_PRECONDITION names the field and the version that this host has.
//
// Sources: admin-guide/cgroup-v2.rst, admin-guide/cgroup-v1/, cgroups(7),
// config-linux.md of the OCI runtime specification.
#ifndef CAISSON_CGROUP_LIMITS_H_
#define CAISSON_CGROUP_LIMITS_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "caisson/cgroup_devices.h"

namespace caisson {

// `quota` of CPU time in each `period`, over all CPUs: 150 ms of 100 ms is one
// and a half CPUs. Whole microseconds, rounded down.
struct CpuQuota {
  absl::Duration quota;  // 1 ms or more; InfiniteDuration(): no limit
  absl::Duration period = absl::Milliseconds(100);  // 1 ms to 1 s
  // What may be saved up in periods that used less, up to `quota`. Absent: as
  // it is. v2 cpu.max.burst, v1 cpu.cfs_burst_us; Linux 5.14.
  std::optional<absl::Duration> burst;
};

// A whole disk (the kernel refuses partitions): the device node, looked up when
// the limit is set, or, where `path` is empty, its numbers.
struct CgroupBlockDevice {
  std::string path;
  uint32_t major = 0;
  uint32_t minor = 0;
};

// For one disk, per second; CgroupLimits::kUnlimited takes a limit away.
// v2 io.max, v1 blkio.throttle.{read,write}_{bps,iops}_device.
struct CgroupIoLimit {
  CgroupBlockDevice device;
  std::optional<int64_t> read_bps;  // bytes, more than 0
  std::optional<int64_t> write_bps;
  std::optional<int64_t> read_iops;  // operations, 1 to 2^32 - 1
  std::optional<int64_t> write_iops;
  // Share of this disk, as CgroupLimits::io_weight; 0: the same as on others.
  std::optional<uint64_t> weight;
};

// Bytes of huge pages of one size; kUnlimited.
struct CgroupHugetlbLimit {
  int64_t page_size = 2 << 20;  // bytes: 2 MiB or 1 GiB on x86-64
  // Pages in use. v2 hugetlb.2MB.max, v1 hugetlb.2MB.limit_in_bytes. A page
  // over it is a SIGBUS.
  std::optional<int64_t> max;
  // Pages reserved: mmap(2) fails instead. v2 hugetlb.2MB.rsvd.max, v1
  // hugetlb.2MB.rsvd.limit_in_bytes; Linux 5.7.
  std::optional<int64_t> reserved_max;
};

// rdma.max of one device ("mlx5_0"); 0 or more, kUnlimited.
struct CgroupRdmaLimit {
  std::string device;
  std::optional<int64_t> hca_handles;
  std::optional<int64_t> hca_objects;
};

// misc.max of one resource ("sev", "sev_es", "sgx_epc"); 0 or more, kUnlimited.
// v2 alone; on v1 the controller has the same file.
struct CgroupMiscLimit {
  std::string resource;
  int64_t max = 0;
};

// Device memory (of a GPU) by region, in bytes; kUnlimited. v2 dmem.max,
// dmem.low and dmem.min; Linux 6.14.
struct CgroupDmemLimit {
  std::string region;  // "drm/0000:03:00.0/vram0"
  std::optional<int64_t> max;
  std::optional<int64_t> low;
  std::optional<int64_t> min;
};

// Priority of what is sent through one interface. v1 net_prio.ifpriomap.
struct CgroupNetPriority {
  std::string interface;
  uint32_t priority = 0;
};

// Absent (empty) means: as it is; in a new group no limit. kUnlimited takes a
// limit away.
struct CgroupLimits {
  static constexpr int64_t kUnlimited = -1;

  // Bytes of memory, more than 0; the kernel rounds down to whole pages. Over
  // it the kernel reclaims, then kills. v2 memory.max, v1
  // memory.limit_in_bytes.
  std::optional<int64_t> memory_max;

  // Bytes of swap alone, as v2 counts them (memory.swap.max); 0: no swap.
  // v1 limits memory and swap together (memory.memsw.limit_in_bytes), so the
  // sum is written there and memory_max must be limited too.
  std::optional<int64_t> memory_swap_max;

  // Bytes over which the group is slowed down and reclaimed from, but never
  // killed. v2 memory.high.
  std::optional<int64_t> memory_high;

  // Bytes that are reclaimed only if nothing else is left (best effort): what
  // Docker's --memory-reservation and OCI's memory.reservation set. v2
  // memory.low; v1 memory.soft_limit_in_bytes, the amount that the group is
  // pushed back to when the host lacks memory.
  std::optional<int64_t> memory_low;

  // Bytes that are never reclaimed. v2 memory.min.
  std::optional<int64_t> memory_min;

  // Bytes of compressed swap in memory. v2 memory.zswap.max; Linux 5.19.
  std::optional<int64_t> memory_zswap_max;

  // Whether the out-of-memory killer kills all processes of the group or one.
  // v2 memory.oom.group.
  std::optional<bool> memory_oom_group;

  // 0 to 100: how gladly the kernel swaps rather than drops file pages. v1
  // memory.swappiness.
  std::optional<int64_t> memory_swappiness;

  // Processes over the limit wait instead of being killed. v1
  // memory.oom_control.
  std::optional<bool> memory_oom_kill_disable;

  // v2 cpu.max, v1 cpu.cfs_quota_us and cpu.cfs_period_us.
  std::optional<CpuQuota> cpu_quota;

  // Share of the CPU when it is contended, 1 to 10000; a new group has 100.
  // v2 cpu.weight. v1 cpu.shares = weight * 1024 / 100, which is what the v2
  // kernel itself uses, so equal weights mean equal shares on both.
  std::optional<uint64_t> cpu_weight;

  // The same as Docker's --cpu-shares and OCI's cpu.shares count it, 2 to
  // 262144; 1024 is normal. v1 cpu.shares as it is, v2 cpu.weight =
  // CgroupWeightOfShares(). Not together with cpu_weight.
  std::optional<uint64_t> cpu_shares;

  // Runs only when nobody else wants the CPU; such a group has no weight. v2
  // and v1 cpu.idle; Linux 5.15.
  std::optional<bool> cpu_idle;

  // CPUs and memory nodes, in the kernel's list format ("0-3,7"); "": those of
  // the group above. They must be among those of the group above: v1 refuses
  // others and v2 ignores them, so both are refused here. v2 and v1
  // cpuset.cpus, cpuset.mems.
  std::optional<std::string> cpuset_cpus;
  std::optional<std::string> cpuset_mems;

  // Processes and threads, 0 to 4194304. 0 is the kernel's 0 (no fork
  // succeeds), not "unlimited". pids.max.
  std::optional<int64_t> pids_max;

  // Share of all disks when they are contended, 1 to 10000; a new group has
  // 100. v2 io.weight (with the cost model, io.cost.qos) and, with the BFQ
  // scheduler, io.bfq.weight; v1 blkio.bfq.weight. Whichever exist are set.
  // BFQ has 1 to 1000: what is over 100 is scaled down to that.
  std::optional<uint64_t> io_weight;

  // The same as Docker's --blkio-weight and OCI's blockIO.weight count it, 10
  // to 1000: BFQ's weight as it is, and io.weight =
  // CgroupIoWeightOfBlkio(). Not together with io_weight.
  std::optional<uint64_t> blkio_weight;

  std::vector<CgroupIoLimit> io;
  std::vector<CgroupHugetlbLimit> hugetlb;
  std::vector<CgroupRdmaLimit> rdma;
  std::vector<CgroupMiscLimit> misc;
  std::vector<CgroupDmemLimit> dmem;

  // The class of what is sent, for tc(8) and iptables: 0xAAAABBBB is class
  // "AAAA:BBBB". v1 net_cls.classid.
  std::optional<uint32_t> net_class;
  std::vector<CgroupNetPriority> net_priorities;

  // Which devices may be used; see cgroup_devices.h. Absent: as the group above
  // has it. v2 an eBPF program (BPF_CGROUP_DEVICE), v1 devices.allow and
  // devices.deny. A change is atomic on v2; on v1 what old and new rules both
  // allow is allowed all the time, and what both refuse is refused, but for an
  // instant in which the kernel turns rules that allow what they do not name
  // into such that refuse it.
  std::optional<CgroupDeviceRules> devices;

  // Further files of the group's v2 directory and what is written there, line
  // by line, after the other limits: OCI's linux.resources.unified. The part
  // before the dot names the controller ("memory.swap.high"), "cgroup" the
  // core ("cgroup.max.depth"). Not for files that act rather than limit
  // (cgroup.procs, cgroup.kill, ...).
  std::map<std::string, std::string> unified;
};

// cpu.shares -> cpu.weight as runc 1.4 (opencontainers/cgroups) and crun 1.23
// do it, by a curve through (2, 1), (1024, 100) and (262144, 10000). Shares
// out of range are taken as the nearest that is in it.
uint64_t CgroupWeightOfShares(uint64_t shares);

// As older ones did: 1 + (shares - 2) * 9999 / 262142, which makes 39 of the
// normal 1024. For hosts whose other containers are started by these.
uint64_t CgroupWeightOfSharesLinear(uint64_t shares);

// blockIO.weight -> io.weight as runc does it: 1 + (weight - 10) * 9999 / 990.
uint64_t CgroupIoWeightOfBlkio(uint64_t weight);

// Memory as the flags of `docker run` state it, in bytes; 0: not given.
struct DockerMemory {
  int64_t memory = 0;  // --memory
  // --memory-swap: memory and swap together. -1: swap without limit. 0: as
  // much swap as memory. The same as `memory`: no swap.
  int64_t memory_swap = 0;
  int64_t memory_reservation = 0;  // --memory-reservation
};

// Sets memory_max, memory_swap_max and memory_low as Docker documents the flags
// (docs.docker.com/engine/containers/resource_constraints). INVALID_ARGUMENT
// for what dockerd refuses: swap without memory, a sum below the memory, a
// reservation above it, less than 6 MiB; `limits` is then as before. A kernel
// without swap accounting cannot set memory_swap_max: reset it there.
absl::Status SetDockerMemory(const DockerMemory& flags, CgroupLimits& limits);

}  // namespace caisson

#endif  // CAISSON_CGROUP_LIMITS_H_
