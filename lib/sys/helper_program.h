// Running one of the few programs that the kernel or a standard makes the only
// way: newuidmap(1), newgidmap(1).
#ifndef CAISSON_LIB_SYS_HELPER_PROGRAM_H_
#define CAISSON_LIB_SYS_HELPER_PROGRAM_H_

#include <string>
#include <vector>

#include "absl/status/status.h"

namespace caisson::sys {

// Runs `argv` (argv[0] is a path) to its end, with /dev/null as its input, no
// other descriptor, and LC_ALL=C as its environment. OK if it exits with 0.
// Otherwise the error has the exit status and what it wrote.
//
// The calling process is not forked: two clone(CLONE_VM | CLONE_VFORK) lead to
// the exec. The program is the child of the first, which collects it, so a
// waitpid(-1) of the caller sees neither, and there is no SIGCHLD. Blocks the
// calling thread until the program has ended. Thread-safe.
absl::Status RunHelperProgram(const std::vector<std::string>& argv);

}  // namespace caisson::sys

#endif  // CAISSON_LIB_SYS_HELPER_PROGRAM_H_
