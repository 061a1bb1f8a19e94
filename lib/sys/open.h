// Opening and reading files below a directory descriptor.
//
// The resolve argument of OpenAt2 decides what a hostile path can do; the named
// combinations below are the only ones that the library uses. Thread-safe.
#ifndef CAISSON_LIB_SYS_OPEN_H_
#define CAISSON_LIB_SYS_OPEN_H_

#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/unique_fd.h"

namespace caisson::sys {

// Absolute symlinks and ".." stay below the directory, as if it were "/".
inline constexpr uint64_t kInRoot = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
// Nothing leaves the directory: an absolute path or an escaping ".." is EXDEV.
inline constexpr uint64_t kBeneath = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS;
// As kBeneath, and any symlink is ELOOP.
inline constexpr uint64_t kNoSymlinks = kBeneath | RESOLVE_NO_SYMLINKS;

// openat2(2) with O_CLOEXEC added. `mode` counts only with O_CREAT or
// O_TMPFILE. Retries EAGAIN, which the kernel answers when a rename raced with
// a scoped look-up. The error names `path`.
absl::StatusOr<UniqueFd> OpenAt2(BorrowedFd dir, const std::string& path,
                                 int flags, uint64_t resolve, mode_t mode = 0);

// The same without a Status: a descriptor, or -1 and errno. For hot loops.
int OpenAt2Raw(int dir, const char* path, int flags, uint64_t resolve,
               mode_t mode = 0);

// Opens `found`, an O_PATH descriptor, for reading or writing, if it is a
// regular file or a directory: a device or pipe of an image cannot do anything
// to the host. `flags` with O_PATH or O_DIRECTORY is honoured. `path` names it
// in errors.
absl::StatusOr<UniqueFd> OpenFound(UniqueFd found, absl::string_view path,
                                   int flags);

// Looks up `path`, absolute or not, with `root` as "/", and opens what is there
// as OpenFound() does.
absl::StatusOr<UniqueFd> OpenRegularInRoot(BorrowedFd root,
                                           const std::string& path, int flags);

// open(2) on a path of the host, O_CLOEXEC added.
absl::StatusOr<UniqueFd> Open(const std::string& path, int flags,
                              mode_t mode = 0);

// A second descriptor for the same open file, O_CLOEXEC, numbered 3 or above.
absl::StatusOr<UniqueFd> Duplicate(BorrowedFd fd);

// Reads from the current position to the end; more than `limit` bytes is
// RESOURCE_EXHAUSTED. `what` names the file in errors.
absl::StatusOr<std::string> ReadAll(BorrowedFd fd, size_t limit,
                                    absl::string_view what);

// Opens `path` below `dir` (AT_FDCWD allowed), reads it whole and closes it.
absl::StatusOr<std::string> ReadFileAt(BorrowedFd dir, const std::string& path,
                                       uint64_t resolve, size_t limit);

// Writes all of `data`, going on after short writes and EINTR.
absl::Status WriteAll(BorrowedFd fd, absl::string_view data,
                      absl::string_view what);

// Writes `data` with one write(2) into an existing file below `dir`, as kernel
// control files want it.
absl::Status WriteFileAt(BorrowedFd dir, const std::string& path,
                         absl::string_view data);

}  // namespace caisson::sys

#endif  // CAISSON_LIB_SYS_OPEN_H_
