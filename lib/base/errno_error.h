// absl::Status values for failed system calls.
#ifndef CAISSON_LIB_BASE_ERRNO_ERROR_H_
#define CAISSON_LIB_BASE_ERRNO_ERROR_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "caisson/error.h"

namespace caisson {

// Where and about what an error arose; see ErrorDetail.
struct ErrorContext {
  absl::string_view step = {};
  absl::string_view path = {};
  // What the kernel means by this errno here and what the reader can do.
  absl::string_view hint = {};
};

// The status for `error` (an errno value) of `operation`, which is written as a
// call: `openat2(rootfs, "etc/passwd")`. The text is
// "<operation>: ENAME: <description>[; <hint>]", the code the closest Abseil
// code, the payload an ErrorDetail. Precondition: error != 0.
absl::Status ErrnoError(int error, absl::string_view operation,
                        const ErrorContext& context = {});

// "ENOENT" for 2; "errno 4095" for an unknown number.
std::string ErrnoName(int error);

// "ENOENT: no such file or directory".
std::string ErrnoText(int error);

// `status` with `prefix` and ": " before its message; code and payloads kept.
absl::Status Annotate(const absl::Status& status, absl::string_view prefix);

// Replaces the step name in the payload of `status`; a status without a payload
// is returned as it is.
absl::Status WithStep(absl::Status status, absl::string_view step);

// `path` in double quotes with control characters and quotes escaped, so that
// a hostile name cannot forge a line of a log.
std::string Quoted(absl::string_view path);

}  // namespace caisson

#endif  // CAISSON_LIB_BASE_ERRNO_ERROR_H_
