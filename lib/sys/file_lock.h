// Open file description locks (fcntl(2), F_OFD_*): they belong to a descriptor,
// not to the process, so two objects of one process exclude each other like two
// processes do, and the kernel releases them when the last duplicate closes.
//
// A forked child has duplicates. Unlock() takes the lock from all of them;
// closing one takes it from none. So the lock of a process that is killed lasts
// as long as a child of it that neither executed a program nor ended.
//
// Thread-safe.
#ifndef CAISSON_LIB_SYS_FILE_LOCK_H_
#define CAISSON_LIB_SYS_FILE_LOCK_H_

#include <sys/types.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/unique_fd.h"

namespace caisson::sys {

// The bytes that a lock is for; they need not exist. The default is the whole
// file, however it grows.
struct LockRange {
  off_t start = 0;
  off_t length = 0;  // 0: to the end
};

// Waits for the lock. `what` names the file in errors, here and below.
absl::Status LockExclusive(BorrowedFd file, absl::string_view what,
                           const LockRange& range = {});
absl::Status LockShared(BorrowedFd file, absl::string_view what,
                        const LockRange& range = {});

// False if another holds it. A shared lock of one's own is upgraded; when that
// fails it is kept.
absl::StatusOr<bool> TryLockExclusive(BorrowedFd file, absl::string_view what,
                                      const LockRange& range = {});

// Whether another descriptor holds a lock of any kind; acquires nothing.
absl::StatusOr<bool> IsLockedElsewhere(BorrowedFd file, absl::string_view what,
                                       const LockRange& range = {});

void Unlock(BorrowedFd file, const LockRange& range = {});

}  // namespace caisson::sys

#endif  // CAISSON_LIB_SYS_FILE_LOCK_H_
