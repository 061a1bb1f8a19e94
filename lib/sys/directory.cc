#include "lib/sys/directory.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/sys/open.h"

namespace caisson::sys {

absl::StatusOr<std::vector<std::string>> ListDirectory(BorrowedFd dir) {
  ASSIGN_OR_RETURN(UniqueFd fd,
                   OpenAt2(dir, ".", O_RDONLY | O_DIRECTORY, kNoSymlinks));
  DIR* stream = ::fdopendir(fd.get());
  if (stream == nullptr) {
    return ErrnoError(errno, "fdopendir()", {.step = "directory"});
  }
  std::ignore = fd.release();
  std::vector<std::string> names;
  for (;;) {
    // Each time: what follows may allocate, which may set it.
    errno = 0;
    const dirent* entry = ::readdir(stream);
    if (entry == nullptr) break;
    const absl::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
  }
  const int error = errno;
  ::closedir(stream);
  if (error != 0) {
    return ErrnoError(error, "readdir()", {.step = "directory"});
  }
  return names;
}

absl::Status MakeDirectory(BorrowedFd parent, const std::string& name,
                           mode_t mode) {
  // fchmodat because the umask takes bits from mkdirat's mode.
  if (::mkdirat(parent.get(), name.c_str(), mode) != 0 ||
      ::fchmodat(parent.get(), name.c_str(), mode, 0) != 0) {
    return ErrnoError(errno, absl::StrCat("mkdirat(", Quoted(name), ")"),
                      {.step = "directory", .path = name});
  }
  return absl::OkStatus();
}

absl::StatusOr<UniqueFd> OpenOrMakeDirectory(BorrowedFd parent,
                                             const std::string& name,
                                             mode_t mode) {
  const absl::Status made = MakeDirectory(parent, name, mode);
  if (!made.ok() && !absl::IsAlreadyExists(made)) return made;
  return OpenDirectory(parent, name);
}

absl::StatusOr<UniqueFd> OpenDirectory(BorrowedFd parent,
                                       const std::string& path) {
  return OpenAt2(parent, path, O_RDONLY | O_DIRECTORY, kNoSymlinks);
}

absl::Status RenameNoReplace(BorrowedFd from_dir, const std::string& from,
                             BorrowedFd to_dir, const std::string& to) {
  if (::renameat2(from_dir.get(), from.c_str(), to_dir.get(), to.c_str(),
                  RENAME_NOREPLACE) == 0) {
    return absl::OkStatus();
  }
  return ErrnoError(
      errno, absl::StrCat("renameat2(", Quoted(from), ", ", Quoted(to), ")"),
      {.step = "directory", .path = to});
}

absl::Status SyncDirectory(BorrowedFd dir, absl::string_view what) {
  if (::fsync(dir.get()) == 0) return absl::OkStatus();
  return ErrnoError(errno, absl::StrCat("fsync(", Quoted(what), ")"),
                    {.step = "directory.sync", .path = what});
}

}  // namespace caisson::sys
