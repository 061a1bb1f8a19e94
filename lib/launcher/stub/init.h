// The minimal PID 1 of a container.
#ifndef CAISSON_LIB_LAUNCHER_STUB_INIT_H_
#define CAISSON_LIB_LAUNCHER_STUB_INIT_H_

#include "lib/plan/format.h"

namespace caisson::launcher {

// Forwards every signal to `child`, collects whatever ends, and ends when
// `child` does: with its exit code, or 128 and the signal that killed it.
// `result` takes its exact wait status. Holds no descriptor and no capability
// but CAP_KILL, and can make only the system calls that `filter`, a sock_fprog,
// lets through. All signals must be blocked.
[[noreturn]] void RunInit(int child, const void* filter, plan::Result& result);

}  // namespace caisson::launcher

#endif  // CAISSON_LIB_LAUNCHER_STUB_INIT_H_
