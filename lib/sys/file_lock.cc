#include "lib/sys/file_lock.h"

#include <errno.h>
#include <fcntl.h>

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"

namespace caisson::sys {
namespace {

// 0 or errno.
int Control(BorrowedFd file, int command, struct flock& lock) {
  int result;
  do {
    result = ::fcntl(file.get(), command, &lock);
  } while (result != 0 && errno == EINTR);
  return result == 0 ? 0 : errno;
}

// l_pid is 0, as F_OFD_* want it.
struct flock Describe(short type, const LockRange& range) {
  struct flock lock = {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = range.start;
  lock.l_len = range.length;
  return lock;
}

int SetLock(BorrowedFd file, int command, short type, const LockRange& range) {
  struct flock lock = Describe(type, range);
  return Control(file, command, lock);
}

absl::Status LockError(int error, absl::string_view what) {
  return ErrnoError(error, absl::StrCat("fcntl(OFD lock, ", Quoted(what), ")"),
                    {.step = "lock", .path = what});
}

}  // namespace

absl::Status LockExclusive(BorrowedFd file, absl::string_view what,
                           const LockRange& range) {
  const int error = SetLock(file, F_OFD_SETLKW, F_WRLCK, range);
  return error == 0 ? absl::OkStatus() : LockError(error, what);
}

absl::Status LockShared(BorrowedFd file, absl::string_view what,
                        const LockRange& range) {
  const int error = SetLock(file, F_OFD_SETLKW, F_RDLCK, range);
  return error == 0 ? absl::OkStatus() : LockError(error, what);
}

absl::StatusOr<bool> TryLockExclusive(BorrowedFd file, absl::string_view what,
                                      const LockRange& range) {
  const int error = SetLock(file, F_OFD_SETLK, F_WRLCK, range);
  if (error == 0) return true;
  if (error == EAGAIN || error == EACCES) return false;
  return LockError(error, what);
}

absl::StatusOr<bool> IsLockedElsewhere(BorrowedFd file, absl::string_view what,
                                       const LockRange& range) {
  struct flock lock = Describe(F_WRLCK, range);
  const int error = Control(file, F_OFD_GETLK, lock);
  if (error != 0) return LockError(error, what);
  return lock.l_type != F_UNLCK;
}

void Unlock(BorrowedFd file, const LockRange& range) {
  SetLock(file, F_OFD_SETLK, F_UNLCK, range);
}

}  // namespace caisson::sys
