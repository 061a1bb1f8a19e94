// Open file description locks (fcntl(2), F_OFD_*): they belong to a descriptor,
// not to the process, so two objects of one process exclude each other like two
// processes do, and the kernel releases them when the last duplicate closes.
//
// Thread-safe.
#ifndef CAISSON_LIB_NET_FILE_LOCK_H_
#define CAISSON_LIB_NET_FILE_LOCK_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/unique_fd.h"

namespace caisson {

// Waits for the lock. `what` names the file in errors, here and below.
absl::Status LockExclusive(BorrowedFd file, absl::string_view what);
absl::Status LockShared(BorrowedFd file, absl::string_view what);

// False if another holds it. A shared lock of one's own is upgraded; when that
// fails it is kept.
absl::StatusOr<bool> TryLockExclusive(BorrowedFd file, absl::string_view what);

// Whether another descriptor holds a lock of any kind; acquires nothing.
absl::StatusOr<bool> IsLockedElsewhere(BorrowedFd file, absl::string_view what);

void Unlock(BorrowedFd file);

}  // namespace caisson

#endif  // CAISSON_LIB_NET_FILE_LOCK_H_
