// What the launcher's child does: execute a plan.
#ifndef CAISSON_LIB_LAUNCHER_STUB_CHILD_H_
#define CAISSON_LIB_LAUNCHER_STUB_CHILD_H_

#include "lib/launcher/stub/syscall.h"
#include "lib/plan/format.h"

namespace caisson::launcher {

// Descriptors that the launcher keeps for itself start here, above all that a
// request can bring; a child closes them with one call.
inline constexpr int kOwnFds = 300;

static_assert(kOwnFds < plan::kFirstSetAside);

// The launcher's own pidfd.
inline constexpr int kSelfPidfd = 3;

// A child that cloned its successor (plan::kFork) ends under this name,
// followed by the successor's pid: what the launcher reads of it then cannot
// come from anybody else, and the successor inherits no way to the launcher.
inline constexpr char kForkedName = '>';

struct Rlimit {
  uint64_t soft;
  uint64_t hard;
};

struct ChildContext {
  plan::Header* plan;  // validated and relocated
  int slots[plan::kMaxSlots];
  int launchers_fds[2];  // of the request, not for the child
  int status_fd;
  int id_map_fd;        // read end of the pipe that says "maps are written"; -1
  int id_map_write_fd;  // the other end, to be closed; -1
  Rlimit nofile;        // the host's limit, which the launcher raised
};

// CLOCK_MONOTONIC in nanoseconds.
uint64_t Now();

// Runs the plan; returns never.
[[noreturn]] void RunPlan(ChildContext& child);

}  // namespace caisson::launcher

#endif  // CAISSON_LIB_LAUNCHER_STUB_CHILD_H_
