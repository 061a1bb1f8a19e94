// RLIMIT_FSIZE, beyond which the kernel does not only refuse to let a file grow
// but raises SIGXFSZ, which ends a host that does not expect it. So whoever
// writes much asks first. Thread-safe.
#ifndef CAISSON_LIB_SYS_FILE_SIZE_H_
#define CAISSON_LIB_SYS_FILE_SIZE_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "caisson/unique_fd.h"

namespace caisson::sys {

// RESOURCE_EXHAUSTED if a file of `size` bytes is beyond the limit.
absl::Status CheckFileSize(uint64_t size);

// The same for `count` bytes more at the current position of `fd`, whatever
// that is: pipes and files of the kernel have no limit.
absl::Status CheckFileGrowth(BorrowedFd fd, size_t count);

}  // namespace caisson::sys

#endif  // CAISSON_LIB_SYS_FILE_SIZE_H_
