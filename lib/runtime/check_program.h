#ifndef CAISSON_LIB_RUNTIME_CHECK_PROGRAM_H_
#define CAISSON_LIB_RUNTIME_CHECK_PROGRAM_H_

#include "absl/status/status.h"
#include "caisson/process.h"
#include "lib/spec/runtime_config.h"

namespace caisson::runtime {

// NOT_FOUND or PERMISSION_DENIED, in runc's words, if the program of a process
// that is about to be created is not there: when it executes, nobody listens
// any more. OK where a mount, which may not be made yet, could have it.
absl::Status CheckProgram(const ProcessSpec& spec,
                          const spec::RuntimeConfig& config);

}  // namespace caisson::runtime

#endif  // CAISSON_LIB_RUNTIME_CHECK_PROGRAM_H_
