// What a caisson error carries beside its absl::Status code and text.
//
// Every error that comes from the kernel names the operation with its
// arguments, the errno and, where errno is vague, what the kernel means:
//
//   mount(overlay, "/run/x", ro): EINVAL: invalid argument; <what to do>
//
// A program that wants to branch on the cause reads the payload instead of the
// text:
//
//   if (auto e = caisson::GetErrorDetail(status); e && e->error == ENOSPC) ...
#ifndef CAISSON_ERROR_H_
#define CAISSON_ERROR_H_

#include <optional>
#include <string>

#include "absl/status/status.h"

namespace caisson {

struct ErrorDetail {
  std::string step;  // the operation that failed, e.g. "rootfs.overlay"
  int error = 0;     // errno
  std::string path;  // the file that the operation was about; may be empty
};

// The detail that `status` carries; nullopt if the error did not come from the
// kernel (a validation error, for example).
std::optional<ErrorDetail> GetErrorDetail(const absl::Status& status);

}  // namespace caisson

#endif  // CAISSON_ERROR_H_
