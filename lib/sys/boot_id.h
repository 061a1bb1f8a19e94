// Which run of the kernel this is. Thread-safe function.
#ifndef CAISSON_LIB_SYS_BOOT_ID_H_
#define CAISSON_LIB_SYS_BOOT_ID_H_

#include <string>

#include "absl/status/statusor.h"

namespace caisson::sys {

// /proc/sys/kernel/random/boot_id (random(4)): another one after each boot.
absl::StatusOr<std::string> BootId();

}  // namespace caisson::sys

#endif  // CAISSON_LIB_SYS_BOOT_ID_H_
