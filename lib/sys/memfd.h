// Files in memory. Thread-safe functions.
#ifndef CAISSON_LIB_SYS_MEMFD_H_
#define CAISSON_LIB_SYS_MEMFD_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/unique_fd.h"

namespace caisson::sys {

enum class MemfdKind { kData, kProgram };

// A memfd_create(2) that holds `bytes`, with `seals` (F_SEAL_*, fcntl(2)), to
// be read from its beginning. `name` is seen in /proc. Data is never executable
// where the kernel can tell the two apart (Linux 6.3).
absl::StatusOr<UniqueFd> MakeMemfd(const char* name, MemfdKind kind, int seals,
                                   absl::string_view bytes);

// Data that nobody can change any more.
absl::StatusOr<UniqueFd> SealedMemfd(const char* name, absl::string_view bytes);

}  // namespace caisson::sys

#endif  // CAISSON_LIB_SYS_MEMFD_H_
