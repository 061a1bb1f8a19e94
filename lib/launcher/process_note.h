// What the host of a detached process leaves with the launcher for hosts that
// attach to it: a memfd with what a Process object has to know
// (doc/detached.md).
#ifndef CAISSON_LIB_LAUNCHER_PROCESS_NOTE_H_
#define CAISSON_LIB_LAUNCHER_PROCESS_NOTE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/cgroup.h"

namespace caisson::launcher {

struct ProcessNote {
  // ContainerNamespaces.
  uint64_t first_namespaces = 0;
  uint64_t second_namespaces = 0;
  bool own_pid_namespace = false;
  bool has_init = false;
  bool default_policy = false;  // SecurityPolicy::Create({})
  int64_t oom_kills_before = 0;
  std::vector<CgroupPath> group;
  // What the descriptors behind this one (and the plan of one with an init)
  // are: "terminal", "in", "out", "err", "seccomp_listener", "keep".
  std::vector<std::string> descriptors;
};

std::string WriteNote(const ProcessNote& note);

// DATA_LOSS for a text that is no note, or one of another version of the
// library.
absl::StatusOr<ProcessNote> ReadNote(absl::string_view text);

}  // namespace caisson::launcher

#endif  // CAISSON_LIB_LAUNCHER_PROCESS_NOTE_H_
