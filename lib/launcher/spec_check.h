// What can be wrong with a ProcessSpec by itself.
#ifndef CAISSON_LIB_LAUNCHER_SPEC_CHECK_H_
#define CAISSON_LIB_LAUNCHER_SPEC_CHECK_H_

#include "absl/status/status.h"
#include "caisson/process.h"

namespace caisson::launcher {

// INVALID_ARGUMENT names the field. Looks at no file and no pointer.
absl::Status CheckSpec(const ProcessSpec& spec);

// That nothing is set that Launcher::Exec() takes from the container.
absl::Status CheckExecSpec(const ProcessSpec& spec);

}  // namespace caisson::launcher

#endif  // CAISSON_LIB_LAUNCHER_SPEC_CHECK_H_
