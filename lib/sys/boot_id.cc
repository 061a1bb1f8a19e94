#include "lib/sys/boot_id.h"

#include <fcntl.h>

#include "absl/strings/ascii.h"
#include "lib/base/status_macros.h"
#include "lib/sys/open.h"

namespace caisson::sys {

absl::StatusOr<std::string> BootId() {
  ASSIGN_OR_RETURN(
      const std::string text,
      ReadFileAt(BorrowedFd(AT_FDCWD), "/proc/sys/kernel/random/boot_id",
                 /*resolve=*/0, /*limit=*/256));
  return std::string(absl::StripAsciiWhitespace(text));
}

}  // namespace caisson::sys
