#include "lib/sys/private_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"

namespace caisson::sys {
namespace {

absl::Status FileError(int error, absl::string_view call,
                       const std::string& path, const PrivateDirUse& use) {
  return ErrnoError(error, absl::StrCat(call, "(", Quoted(path), ")"),
                    {.step = use.step, .path = path});
}

// True if the directory itself was made.
absl::StatusOr<bool> MakePath(const std::string& path,
                              const PrivateDirUse& use) {
  for (size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
    const bool last = end == std::string::npos;
    const std::string part = path.substr(0, end);
    if (::mkdir(part.c_str(), last ? 0700 : 0755) == 0) {
      if (last) return true;
    } else if (errno != EEXIST) {
      return FileError(errno, "mkdir", part, use);
    } else if (last) {
      return false;
    }
  }
}

absl::StatusOr<UniqueFd> Open(const std::string& path,
                              const PrivateDirUse& use) {
  UniqueFd dir(
      ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (dir.valid()) return dir;
  return ErrnoError(errno, absl::StrCat("open(", Quoted(path), ")"),
                    {.step = use.step,
                     .path = path,
                     .hint = errno == ENOTDIR || errno == ELOOP
                                 ? "it must be a directory, and no symbolic "
                                   "link to one"
                                 : ""});
}

}  // namespace

absl::StatusOr<std::string> CleanPath(const std::string& path,
                                      absl::string_view option) {
  std::string clean;
  bool good = absl::StartsWith(path, "/") && !absl::StrContains(path, '\0');
  for (const absl::string_view part :
       absl::StrSplit(path, '/', absl::SkipEmpty())) {
    good = good && part != "." && part != "..";
    absl::StrAppend(&clean, "/", part);
  }
  if (good && !clean.empty()) return clean;
  return absl::InvalidArgumentError(
      absl::StrCat(option, ": ", Quoted(path),
                   " is not an absolute path without \".\" and \"..\""));
}

absl::Status CheckPrivate(BorrowedFd fd, const std::string& path, mode_t type,
                          const PrivateDirUse& use) {
  struct stat info;
  if (::fstat(fd.get(), &info) != 0) return FileError(errno, "stat", path, use);
  if ((info.st_mode & S_IFMT) != type) {
    return absl::FailedPreconditionError(
        absl::StrCat(use.option, ": ", Quoted(path), " is not a ",
                     type == S_IFDIR ? "directory" : "regular file"));
  }
  if (info.st_uid != ::geteuid() || (info.st_mode & 077) != 0) {
    return absl::PermissionDeniedError(absl::StrCat(
        use.option, ": ", Quoted(path), " must belong to uid ", ::geteuid(),
        " and be accessible to nobody else; it belongs to uid ", info.st_uid,
        " with mode ", absl::StrFormat("%04o", info.st_mode & 07777)));
  }
  return absl::OkStatus();
}

absl::StatusOr<UniqueFd> OpenOrMakePrivateDir(const std::string& path,
                                              const PrivateDirUse& use) {
  ASSIGN_OR_RETURN(const bool made, MakePath(path, use));
  ASSIGN_OR_RETURN(UniqueFd dir, Open(path, use));
  // Whatever the umask took away.
  if (made && ::fchmod(dir.get(), 0700) != 0) {
    return FileError(errno, "chmod", path, use);
  }
  RETURN_IF_ERROR(CheckPrivate(dir.borrow(), path, S_IFDIR, use));
  return dir;
}

absl::StatusOr<UniqueFd> OpenPrivateDir(const std::string& path,
                                        const PrivateDirUse& use) {
  ASSIGN_OR_RETURN(UniqueFd dir, Open(path, use));
  RETURN_IF_ERROR(CheckPrivate(dir.borrow(), path, S_IFDIR, use));
  return dir;
}

}  // namespace caisson::sys
