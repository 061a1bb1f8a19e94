// `run` and `exec` without --detach: the caller's streams, signals and exit
// status are those of the process.
#ifndef CAISSON_EXAMPLES_OCI_FOREGROUND_H_
#define CAISSON_EXAMPLES_OCI_FOREGROUND_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "caisson/oci_runtime.h"

namespace oci {

// Before the process is made: it becomes a child of this program. Signals that
// come from now on wait for WaitInForeground().
absl::Status BecomeItsParent();

// Forwards signals and, with a terminal, moves its bytes until the process has
// ended. The exit status as a shell has it.
absl::StatusOr<int> WaitInForeground(const caisson::OciProcess& process);

}  // namespace oci

#endif  // CAISSON_EXAMPLES_OCI_FOREGROUND_H_
