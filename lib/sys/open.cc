#include "lib/sys/open.h"

#include <errno.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/sys/file_size.h"

namespace caisson::sys {
namespace {

// A scoped look-up that raced with a rename answers EAGAIN; a bound keeps a
// hostile renamer from holding the host for ever.
constexpr int kMaxLookupRetries = 128;

absl::Status OpenError(int error, const std::string& path) {
  return ErrnoError(error, absl::StrCat("open(", Quoted(path), ")"),
                    {.step = "open", .path = path});
}

}  // namespace

int OpenAt2Raw(int dir, const char* path, int flags, uint64_t resolve,
               mode_t mode) {
  open_how how = {};
  how.flags = static_cast<uint64_t>(flags) | O_CLOEXEC;
  how.mode = mode;
  how.resolve = resolve;
  int fd = -1;
  for (int i = 0; i < kMaxLookupRetries; ++i) {
    fd = static_cast<int>(::syscall(SYS_openat2, dir, path, &how, sizeof(how)));
    if (fd >= 0 || (errno != EAGAIN && errno != EINTR)) break;
  }
  return fd;
}

absl::StatusOr<UniqueFd> OpenAt2(BorrowedFd dir, const std::string& path,
                                 int flags, uint64_t resolve, mode_t mode) {
  UniqueFd fd(OpenAt2Raw(dir.get(), path.c_str(), flags, resolve, mode));
  if (!fd.valid()) return OpenError(errno, path);
  return fd;
}

absl::StatusOr<UniqueFd> OpenFound(UniqueFd found, absl::string_view path,
                                   int flags) {
  struct stat status;
  if (::fstat(found.get(), &status) != 0) {
    return ErrnoError(errno, absl::StrCat("fstat(", Quoted(path), ")"),
                      {.step = "open", .path = path});
  }
  const bool directory = S_ISDIR(status.st_mode);
  if ((flags & O_DIRECTORY) != 0 && !directory) {
    return OpenError(ENOTDIR, std::string(path));
  }
  if ((flags & O_PATH) != 0) return found;
  if (!directory && !S_ISREG(status.st_mode)) {
    return absl::FailedPreconditionError(
        absl::StrCat(Quoted(path),
                     " of the root is neither a regular file nor a directory, "
                     "and is not opened"));
  }
  // The very file that was looked at, whatever the name means by now.
  const std::string again = absl::StrCat("/proc/thread-self/fd/", found.get());
  UniqueFd opened(
      ::open(again.c_str(), (flags & ~O_NOFOLLOW) | O_NOCTTY | O_CLOEXEC));
  if (opened.valid()) return opened;
  return ErrnoError(
      errno, absl::StrCat("open(", Quoted(path), ") in the root"),
      {.step = "open",
       .path = path,
       .hint = errno == ENOENT ? "the host needs its /proc" : ""});
}

absl::StatusOr<UniqueFd> OpenRegularInRoot(BorrowedFd root,
                                           const std::string& path, int flags) {
  ASSIGN_OR_RETURN(UniqueFd found, OpenAt2(root, path, O_PATH, kInRoot));
  return OpenFound(std::move(found), path, flags);
}

absl::StatusOr<UniqueFd> Open(const std::string& path, int flags, mode_t mode) {
  UniqueFd fd(::open(path.c_str(), flags | O_CLOEXEC, mode));
  if (!fd.valid()) return OpenError(errno, path);
  return fd;
}

absl::StatusOr<UniqueFd> Duplicate(BorrowedFd fd) {
  UniqueFd copy(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 3));
  if (!copy.valid()) {
    return ErrnoError(errno, absl::StrCat("fcntl(", fd.get(), ", F_DUPFD)"),
                      {.step = "dup"});
  }
  return copy;
}

absl::StatusOr<std::string> ReadAll(BorrowedFd fd, size_t limit,
                                    absl::string_view what) {
  std::string data;
  size_t used = 0;
  for (;;) {
    if (used == data.size()) {
      data.resize(std::min(limit + 1, std::max<size_t>(4096, used * 2)));
    }
    const ssize_t n = ::read(fd.get(), data.data() + used, data.size() - used);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      return ErrnoError(errno, absl::StrCat("read(", Quoted(what), ")"),
                        {.step = "read", .path = what});
    }
    if (n == 0) break;
    used += static_cast<size_t>(n);
    if (used > limit) {
      return absl::ResourceExhaustedError(absl::StrCat(
          Quoted(what), " is larger than the limit of ", limit, " bytes"));
    }
  }
  data.resize(used);
  return data;
}

absl::StatusOr<std::string> ReadFileAt(BorrowedFd dir, const std::string& path,
                                       uint64_t resolve, size_t limit) {
  // O_NONBLOCK: a FIFO that an image put there must not block the host.
  ASSIGN_OR_RETURN(
      UniqueFd fd,
      OpenAt2(dir, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, resolve));
  return ReadAll(fd.borrow(), limit, path);
}

absl::Status WriteAll(BorrowedFd fd, absl::string_view data,
                      absl::string_view what) {
  while (!data.empty()) {
    if (absl::Status fits = CheckFileGrowth(fd, data.size()); !fits.ok()) {
      return Annotate(fits, absl::StrCat("write(", Quoted(what), ")"));
    }
    const ssize_t n = ::write(fd.get(), data.data(), data.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      return ErrnoError(errno, absl::StrCat("write(", Quoted(what), ")"),
                        {.step = "write", .path = what});
    }
    data.remove_prefix(static_cast<size_t>(n));
  }
  return absl::OkStatus();
}

absl::Status WriteFileAt(BorrowedFd dir, const std::string& path,
                         absl::string_view data) {
  ASSIGN_OR_RETURN(UniqueFd fd, OpenAt2(dir, path, O_WRONLY, kNoSymlinks));
  ssize_t n;
  do {
    n = ::write(fd.get(), data.data(), data.size());
  } while (n < 0 && errno == EINTR);
  if (n == static_cast<ssize_t>(data.size())) return absl::OkStatus();
  const int error = n < 0 ? errno : EIO;
  return ErrnoError(
      error, absl::StrCat("write(", Quoted(path), ", ", Quoted(data), ")"),
      {.step = "write", .path = path});
}

}  // namespace caisson::sys
