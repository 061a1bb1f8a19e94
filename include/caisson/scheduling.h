// Scheduling: how a process competes for processors, memory nodes and disks.
//
//   spec.scheduling.nice = 10;
//   spec.scheduling.cpus = {0, 1};
//   spec.scheduling.io = {.io_class = caisson::IoClass::kIdle};
//
// Everything is applied in the process itself, after it entered its control
// group and before its program runs, with the rights of the launcher: what the
// kernel refuses fails the start. Absent means: as the launcher has it, which
// is ordinary whatever the host is (SCHED_OTHER; a negative nice value of the
// host is not passed on).
//
// Values only; see sched(7), ioprio_set(2), set_mempolicy(2), prctl(2).
#ifndef CAISSON_SCHEDULING_H_
#define CAISSON_SCHEDULING_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/time/time.h"

namespace caisson {

// SCHED_*; the numbers are the kernel's.
enum class SchedulerPolicy {
  kOther = 0,
  kFifo = 1,
  kRoundRobin = 2,
  kBatch = 3,
  kIdle = 5,
  kDeadline = 6,
};

// sched_setattr(2).
struct Scheduler {
  SchedulerPolicy policy = SchedulerPolicy::kOther;
  int priority = 0;  // 1 to 99 with kFifo and kRoundRobin, otherwise 0
  // With kDeadline: at most `runtime` of each `period`, done `deadline` after
  // its begin. runtime <= deadline <= period; 0 is not allowed for runtime.
  absl::Duration runtime;
  absl::Duration deadline;
  absl::Duration period;
  bool reset_on_fork = false;   // SCHED_FLAG_RESET_ON_FORK
  bool reclaim = false;         // SCHED_FLAG_RECLAIM, kDeadline only
  bool overrun_signal = false;  // SCHED_FLAG_DL_OVERRUN, kDeadline only
};

// IOPRIO_CLASS_*; the numbers are the kernel's.
enum class IoClass { kRealtime = 1, kBestEffort = 2, kIdle = 3 };

struct IoPriority {
  IoClass io_class = IoClass::kBestEffort;
  int level = 4;  // 0 (first) to 7; not used by kIdle
};

// MPOL_*; the numbers are the kernel's.
enum class MemoryPolicyMode {
  kDefault = 0,
  kPreferred = 1,
  kBind = 2,
  kInterleave = 3,
  kLocal = 4,
  kPreferredMany = 5,       // Linux 5.15
  kWeightedInterleave = 6,  // Linux 6.9
};

struct MemoryPolicy {
  MemoryPolicyMode mode = MemoryPolicyMode::kDefault;
  std::vector<int> nodes;       // none for kDefault and kLocal
  bool static_nodes = false;    // MPOL_F_STATIC_NODES
  bool relative_nodes = false;  // MPOL_F_RELATIVE_NODES
  // MPOL_F_NUMA_BALANCING, for kBind (Linux 5.12; kPreferredMany: 6.9): pages
  // move to where they are used.
  bool numa_balancing = false;
};

struct Scheduling {
  std::optional<int> nice;  // -20 (first) to 19
  std::optional<Scheduler> scheduler;
  std::optional<IoPriority> io;
  std::vector<int> cpus;  // sched_setaffinity(2); empty: all that are allowed
  std::optional<MemoryPolicy> memory;
  // A core scheduling group of its own (PR_SCHED_CORE_CREATE): hardware threads
  // of one core never run the process beside another group's. Needs SMT.
  bool own_core_group = false;
};

}  // namespace caisson

#endif  // CAISSON_SCHEDULING_H_
