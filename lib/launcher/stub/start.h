// Starting a process: from a request to a child that executes its plan.
#ifndef CAISSON_LIB_LAUNCHER_STUB_START_H_
#define CAISSON_LIB_LAUNCHER_STUB_START_H_

#include <stdint.h>

#include "lib/launcher/stub/child.h"
#include "lib/launcher/stub/message.h"

namespace caisson::launcher {

// The host's limit of descriptors, which the launcher raised for itself.
void SetChildLimit(const Rlimit& nofile);

// Serves kStart, for a host of this number, and answers on its channel.
void StartProcess(const Received& received, uint32_t host);

// "/proc/<pid>/<name>" in `buffer`, which has 64 bytes.
void ProcPath(int pid, const char* name, char* buffer);

}  // namespace caisson::launcher

#endif  // CAISSON_LIB_LAUNCHER_STUB_START_H_
