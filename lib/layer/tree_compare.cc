#include "lib/layer/tree_compare.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/layer/overlay_view.h"
#include "lib/sys/directory.h"
#include "lib/sys/open.h"
#include "lib/sys/xattr.h"

namespace caisson::layer {
namespace {

constexpr uint64_t kHere = sys::kNoSymlinks | RESOLVE_NO_XDEV;

absl::StatusOr<UniqueFd> OpenDirectory(BorrowedFd root,
                                       const std::string& path) {
  return sys::OpenAt2(root, path.empty() ? "." : path, O_RDONLY | O_DIRECTORY,
                      kHere);
}

absl::StatusOr<struct stat> StatOf(BorrowedFd dir, const std::string& name) {
  struct stat status;
  if (::fstatat(dir.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0) {
    return status;
  }
  return ErrnoError(errno, absl::StrCat("fstatat(", Quoted(name), ")"),
                    {.step = "layer.verify", .path = name});
}

absl::StatusOr<std::string> TargetOf(BorrowedFd dir, const std::string& name) {
  char target[PATH_MAX];
  const ssize_t n =
      ::readlinkat(dir.get(), name.c_str(), target, sizeof(target));
  if (n >= 0) return std::string(target, static_cast<size_t>(n));
  return ErrnoError(errno, absl::StrCat("readlinkat(", Quoted(name), ")"),
                    {.step = "layer.verify", .path = name});
}

// Labels are the host's.
absl::StatusOr<std::vector<sys::Xattr>> XattrsOf(BorrowedFd dir,
                                                 const std::string& name) {
  ASSIGN_OR_RETURN(std::vector<sys::Xattr> xattrs,
                   sys::ReadXattrsAt(dir, name));
  xattrs.erase(std::remove_if(xattrs.begin(), xattrs.end(),
                              [](const sys::Xattr& xattr) {
                                return xattr.first == "security.selinux";
                              }),
               xattrs.end());
  std::sort(xattrs.begin(), xattrs.end());
  return xattrs;
}

// What differs between the files `name` of two directories; empty if nothing.
absl::StatusOr<std::string> Compare(BorrowedFd a, BorrowedFd b,
                                    const std::string& name) {
  ASSIGN_OR_RETURN(const struct stat x, StatOf(a, name));
  ASSIGN_OR_RETURN(const struct stat y, StatOf(b, name));
  const mode_t type = x.st_mode & S_IFMT;
  if (type != (y.st_mode & S_IFMT)) return "its type";
  // A whiteout has no attributes of its own.
  if (IsWhiteout(x) && IsWhiteout(y)) return "";
  if (x.st_mode != y.st_mode) return "its mode";
  if (x.st_uid != y.st_uid || x.st_gid != y.st_gid) return "its owner";
  if (x.st_mtim.tv_sec != y.st_mtim.tv_sec ||
      x.st_mtim.tv_nsec != y.st_mtim.tv_nsec) {
    return "its time";
  }
  if (type != S_IFDIR && x.st_nlink != y.st_nlink) return "its links";
  if (type == S_IFREG && x.st_size != y.st_size) return "its size";
  if (x.st_rdev != y.st_rdev) return "its device number";
  if (type == S_IFLNK) {
    ASSIGN_OR_RETURN(const std::string target, TargetOf(a, name));
    ASSIGN_OR_RETURN(const std::string other, TargetOf(b, name));
    if (target != other) return "its target";
  }
  ASSIGN_OR_RETURN(const auto xattrs, XattrsOf(a, name));
  ASSIGN_OR_RETURN(const auto others, XattrsOf(b, name));
  return xattrs == others ? "" : "its extended attributes";
}

absl::StatusOr<std::vector<std::string>> Names(BorrowedFd dir) {
  ASSIGN_OR_RETURN(std::vector<std::string> names, sys::ListDirectory(dir));
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

absl::StatusOr<std::string> FirstDifference(BorrowedFd expected,
                                            BorrowedFd actual) {
  ASSIGN_OR_RETURN(const std::string root, Compare(expected, actual, "."));
  if (!root.empty()) return absl::StrCat("\"/\" has changed: ", root);
  std::vector<std::string> pending = {""};
  while (!pending.empty()) {
    const std::string dir = std::move(pending.back());
    pending.pop_back();
    ASSIGN_OR_RETURN(const UniqueFd a, OpenDirectory(expected, dir));
    ASSIGN_OR_RETURN(const UniqueFd b, OpenDirectory(actual, dir));
    ASSIGN_OR_RETURN(const auto names, Names(a.borrow()));
    ASSIGN_OR_RETURN(const auto others, Names(b.borrow()));
    const auto path = [&dir](const std::string& name) {
      return Quoted(absl::StrCat(dir, dir.empty() ? "" : "/", name));
    };
    const auto [x, y] =
        std::mismatch(names.begin(), names.end(), others.begin(), others.end());
    if (x != names.end() && (y == others.end() || *x < *y)) {
      return absl::StrCat(path(*x), " is missing");
    }
    if (y != others.end()) return absl::StrCat(path(*y), " was added");
    for (const std::string& name : names) {
      ASSIGN_OR_RETURN(const std::string what,
                       Compare(a.borrow(), b.borrow(), name));
      if (!what.empty())
        return absl::StrCat(path(name), " has changed: ", what);
      ASSIGN_OR_RETURN(const struct stat status, StatOf(a.borrow(), name));
      if (!S_ISDIR(status.st_mode)) continue;
      pending.push_back(absl::StrCat(dir, dir.empty() ? "" : "/", name));
    }
  }
  return "";
}

}  // namespace caisson::layer
