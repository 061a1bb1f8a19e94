#include "lib/rootfs/writable_pair.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/sys/open.h"

namespace caisson::rootfs {
namespace {

constexpr char kStep[] = "rootfs.overlay";

bool IsSame(BorrowedFd a, BorrowedFd b) {
  struct stat first;
  struct stat second;
  return ::fstat(a.get(), &first) == 0 && ::fstat(b.get(), &second) == 0 &&
         first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

absl::StatusOr<UniqueFd> ParentOf(BorrowedFd directory,
                                  absl::string_view what) {
  UniqueFd parent(
      ::openat(directory.get(), "..", O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (parent.valid()) return parent;
  return ErrnoError(errno, absl::StrCat("open(", what, "/..)"),
                    {.step = kStep});
}

// The entry of `parent` that `directory` is, opened there.
absl::StatusOr<UniqueFd> FindAgain(BorrowedFd parent, BorrowedFd directory,
                                   absl::string_view what) {
  const std::string link =
      absl::StrCat("/proc/thread-self/fd/", directory.get());
  char path[PATH_MAX];
  const ssize_t size = ::readlink(link.c_str(), path, sizeof(path));
  if (size < 0) {
    return ErrnoError(errno, "readlink(/proc/thread-self/fd/N)",
                      {.step = kStep, .hint = "the host needs its /proc"});
  }
  const std::string text(path, static_cast<size_t>(size));
  auto found = sys::OpenAt2(parent, text.substr(text.rfind('/') + 1),
                            O_PATH | O_DIRECTORY, sys::kNoSymlinks);
  if (found.ok() && IsSame(found->borrow(), directory)) return found;
  return absl::FailedPreconditionError(absl::StrCat(
      "RootFsOptions.", what, " was moved, or lies under another mount"));
}

}  // namespace

absl::StatusOr<WritablePair> DetachWritablePair(
    const sys::MountExecutor& mounts, BorrowedFd upper, BorrowedFd work) {
  ASSIGN_OR_RETURN(const UniqueFd parent, ParentOf(upper, "upper_directory"));
  ASSIGN_OR_RETURN(const UniqueFd other, ParentOf(work, "work_directory"));
  if (!IsSame(parent.borrow(), other.borrow())) {
    return absl::FailedPreconditionError(
        "RootFsOptions.upper_directory and work_directory must be entries of "
        "one directory on a host without privileges");
  }
  WritablePair pair;
  ASSIGN_OR_RETURN(pair.mount, sys::CloneHostMount(mounts, parent.borrow(), "",
                                                   /*recursive=*/false,
                                                   "upper_directory/.."));
  ASSIGN_OR_RETURN(pair.upper,
                   FindAgain(pair.mount.borrow(), upper, "upper_directory"));
  ASSIGN_OR_RETURN(pair.work,
                   FindAgain(pair.mount.borrow(), work, "work_directory"));
  return pair;
}

}  // namespace caisson::rootfs
