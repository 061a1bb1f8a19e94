#ifndef CAISSON_EXAMPLES_OCI_EXEC_PROCESS_H_
#define CAISSON_EXAMPLES_OCI_EXEC_PROCESS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "examples/oci/arguments.h"

namespace oci {

// Options of `exec` that say what is executed.
std::vector<Option> ExecOptions();

// The "process" object that `exec` means: a file's, or that of the container's
// `config` with what the arguments change.
absl::StatusOr<std::string> ExecProcess(const std::string& config,
                                        const Arguments& arguments);

}  // namespace oci

#endif  // CAISSON_EXAMPLES_OCI_EXEC_PROCESS_H_
