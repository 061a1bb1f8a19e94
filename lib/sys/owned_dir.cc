#include "lib/sys/owned_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/sys/directory.h"
#include "lib/sys/open.h"

namespace caisson::sys {
namespace {

// Each attempt can only fail because a Recover found the directory in the
// instant between its creation and its lock.
constexpr int kMaxAttempts = 100;

// Whether `fd` is still what `name` refers to.
absl::StatusOr<bool> IsAt(BorrowedFd parent, const std::string& name,
                          BorrowedFd fd) {
  struct stat named = {};
  struct stat open = {};
  if (::fstat(fd.get(), &open) != 0) {
    return ErrnoError(errno, absl::StrCat("fstat(", Quoted(name), ")"),
                      {.step = "directory", .path = name});
  }
  if (::fstatat(parent.get(), name.c_str(), &named, AT_SYMLINK_NOFOLLOW) != 0) {
    if (errno == ENOENT) return false;
    return ErrnoError(errno, absl::StrCat("fstatat(", Quoted(name), ")"),
                      {.step = "directory", .path = name});
  }
  return named.st_ino == open.st_ino && named.st_dev == open.st_dev;
}

}  // namespace

absl::StatusOr<std::string> UniqueName() {
  char random[16];
  if (::getrandom(random, sizeof(random), 0) != sizeof(random)) {
    return ErrnoError(errno, "getrandom(16)", {.step = "directory"});
  }
  return absl::BytesToHexString(absl::string_view(random, sizeof(random)));
}

absl::StatusOr<std::optional<OwnedDir>> TryOwnDir(BorrowedFd parent,
                                                  const std::string& name) {
  ASSIGN_OR_RETURN(UniqueFd fd,
                   OpenAt2(parent, name, O_RDONLY | O_DIRECTORY, kNoSymlinks));
  int result;
  do {
    result = ::flock(fd.get(), LOCK_EX | LOCK_NB);
  } while (result != 0 && errno == EINTR);
  if (result != 0) {
    if (errno == EWOULDBLOCK) return std::nullopt;
    return ErrnoError(errno, absl::StrCat("flock(", Quoted(name), ", LOCK_EX)"),
                      {.step = "directory.lock", .path = name});
  }
  // Its former owner may have removed or renamed it just before.
  ASSIGN_OR_RETURN(const bool there, IsAt(parent, name, fd.borrow()));
  if (!there) {
    return absl::NotFoundError(absl::StrCat(Quoted(name), " is gone"));
  }
  return OwnedDir{.name = name, .fd = std::move(fd)};
}

absl::StatusOr<OwnedDir> CreateOwnedDir(BorrowedFd parent) {
  for (int i = 0; i < kMaxAttempts; ++i) {
    ASSIGN_OR_RETURN(std::string name, UniqueName());
    absl::Status made = MakeDirectory(parent, name, 0700);
    if (absl::IsNotFound(made)) continue;
    RETURN_IF_ERROR(made);
    absl::StatusOr<std::optional<OwnedDir>> owned = TryOwnDir(parent, name);
    if (absl::IsNotFound(owned.status())) continue;
    if (!owned.ok()) {
      ::unlinkat(parent.get(), name.c_str(), AT_REMOVEDIR);
      return owned.status();
    }
    if (owned->has_value()) return **std::move(owned);
  }
  return absl::AbortedError(
      absl::StrCat("a new directory was taken away ", kMaxAttempts, " times"));
}

}  // namespace caisson::sys
