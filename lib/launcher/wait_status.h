// What a launcher tells of the end of a process, as an ExitStatus.
#ifndef CAISSON_LIB_LAUNCHER_WAIT_STATUS_H_
#define CAISSON_LIB_LAUNCHER_WAIT_STATUS_H_

#include "caisson/process.h"
#include "lib/launcher/protocol.h"

namespace caisson::launcher {

// `status` as wait4(2) reports it.
ExitStatus FromWaitStatus(int status);

// Of a kExited.
ExitStatus ExitStatusOf(const Message& exited);

}  // namespace caisson::launcher

#endif  // CAISSON_LIB_LAUNCHER_WAIT_STATUS_H_
