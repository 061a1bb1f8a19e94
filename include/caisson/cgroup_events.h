// Being told what happens in a control group, by descriptors to poll.
//
//   auto events = group->Watch({.kinds = {CgroupEventKind::kOomKill,
//                                         CgroupEventKind::kEmpty}});
//   ... add events->fd() to the program's own loop; when it is readable:
//   for (const caisson::CgroupEvent& event : *events->Read()) { ... }
//
// There are no threads and no timers behind it but those of the kernel: v2
// notifies whoever polls a file (kernfs), v1 counts in an eventfd that was
// registered in cgroup.event_control, and pressure is a trigger of PSI. All of
// them are behind one epoll descriptor for each subscription.
//
// What each event is made of, and where there is none:
//
//   kind            v2                            v1
//   kLow, kHigh     memory.events                 –
//   kMax            memory.events max             – (a threshold at the limit)
//   kOom            memory.events oom             eventfd on memory.oom_control
//   kOomKill        memory.events oom_kill        the same, with its oom_kill;
//                                                 not when the whole machine is
//                                                 out of memory
//   kOomGroupKill   memory.events oom_group_kill  –
//   kPopulated,     cgroup.events populated       –
//   kEmpty
//   kFrozen,        cgroup.events frozen          –
//   kThawed
//   kPidsMax        pids.events max               pids.events max, before 6.11
//   kUsage          –                             eventfd on a threshold of
//                                                 memory.usage_in_bytes
//   kReclaim        –                             eventfd on
//                                                 memory.pressure_level
//   kPressure       {cpu,memory,io}.pressure      –
//
// On a hybrid host a group has a v2 directory, too: kPopulated, kEmpty,
// kFrozen, kThawed and kPressure work there. Watch() of a kind that this host
// does not have is FAILED_PRECONDITION and says why.
//
// Sources: admin-guide/cgroup-v2.rst, admin-guide/cgroup-v1/memory.rst,
// accounting/psi.rst.
#ifndef CAISSON_CGROUP_EVENTS_H_
#define CAISSON_CGROUP_EVENTS_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "caisson/cgroup_stats.h"
#include "caisson/unique_fd.h"

namespace caisson {

namespace cgroup {
class EventSource;
}  // namespace cgroup

enum class CgroupEventKind {
  kLow,           // memory below memory.low was reclaimed
  kHigh,          // throttled and reclaimed above memory.high
  kMax,           // memory was about to go over the limit
  kOom,           // an allocation was about to fail at the limit
  kOomKill,       // the kernel's out-of-memory killer killed a process
  kOomGroupKill,  // ... and the whole group with it (5.17)
  kPopulated,     // the first process is in the group or below it
  kEmpty,         // the last one is gone
  kFrozen,        // all processes have stopped
  kThawed,
  kPidsMax,   // a fork failed at the limit
  kUsage,     // memory usage went over or below a threshold
  kReclaim,   // memory is reclaimed, at the level that was asked for
  kPressure,  // processes waited too long
  // The group is gone; there will be no more events. Read() says so whenever it
  // is called, but only pressure triggers and v1's memory events become
  // readable for it: the kernel does not tell the others.
  kRemoved,
};
inline constexpr int kCgroupEventKindCount = 15;

// "oom_kill"
absl::string_view CgroupEventName(CgroupEventKind kind);

struct CgroupEvent {
  CgroupEventKind kind = CgroupEventKind::kRemoved;
  // How many since the Read() before; of states (kPopulated, kFrozen, ...) 1.
  // Killed processes for kOomKill, where the kernel may count one twice if it
  // kills a whole group.
  int64_t count = 1;
  // kUsage: which threshold, in bytes.
  std::optional<int64_t> threshold;
  // kPressure: as the file is at the time of Read().
  std::optional<CgroupPressure> pressure;
};

// v1, memory.pressure_level: reclaim begins; the working set suffers; the
// system is close to killing.
enum class CgroupReclaimLevel { kLow, kMedium, kCritical };

struct CgroupWatchOptions {
  // Neither kUsage nor kReclaim nor kPressure, which have options, nor
  // kRemoved, which always comes.
  std::vector<CgroupEventKind> kinds;
  // Of the group alone, not of its descendants: memory.events.local and
  // pids.events.local. On v1, memory and pids are always local; cgroup.events
  // has no such difference.
  bool local = false;
  // v1: kUsage for each of these, in bytes of memory.usage_in_bytes.
  std::vector<int64_t> usage_thresholds;
  // v1: kReclaim at this level or above, of the group and its descendants.
  std::optional<CgroupReclaimLevel> reclaim_level;
};

enum class CgroupResource { kCpu, kMemory, kIo };

// Tells when tasks of the group waited for `stall` in any `window`, at most
// once in a window. One trigger costs the kernel some time in each tenth of a
// window, as long as it is open and somebody waits.
struct CgroupPressureTrigger {
  CgroupResource resource = CgroupResource::kMemory;
  // All tasks at once, not some. Of the CPU: 5.13.
  bool full = false;
  absl::Duration stall = absl::Milliseconds(150);  // above 0, within the window
  // 500 ms to 10 s; without CAP_SYS_RESOURCE in the initial user namespace, a
  // multiple of 2 s (6.5; before that such processes cannot have triggers).
  absl::Duration window = absl::Seconds(2);
};

// One subscription; events since Watch() are told, none before. Thread-safe.
// The destructor ends it and tells the kernel so. Independent of the Cgroup's
// lifetime.
class [[nodiscard]] CgroupEvents final {
 public:
  CgroupEvents(CgroupEvents&&) noexcept;
  CgroupEvents& operator=(CgroupEvents&&) noexcept;
  ~CgroupEvents();

  // Readable (POLLIN, EPOLLIN, edge- or level-triggered) when there may be
  // something to Read(). Not to be read by others.
  BorrowedFd fd() const;

  // What happened, without waiting; nothing is a result, too. Changes that
  // undid themselves before the call (populated and empty again) are not seen.
  // After kRemoved the descriptor is never readable again.
  //
  // For a pressure trigger: call it when fd() was reported readable, and only
  // then; the result is always kPressure (or kRemoved). The kernel hands each
  // of those events to one poll(2) only, and that was yours.
  absl::StatusOr<std::vector<CgroupEvent>> Read() const;

  // poll(2) and Read(), until something happened or the time has passed (then
  // the list is empty). For programs without a loop.
  absl::StatusOr<std::vector<CgroupEvent>> Wait(absl::Duration timeout) const;

  // For the library itself.
  explicit CgroupEvents(std::unique_ptr<cgroup::EventSource> source);

 private:
  std::unique_ptr<cgroup::EventSource> source_;  // null when moved from
};

}  // namespace caisson

#endif  // CAISSON_CGROUP_EVENTS_H_
