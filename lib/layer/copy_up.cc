#include "lib/layer/copy_up.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/layer/file_attributes.h"
#include "lib/sys/copy_tree.h"
#include "lib/sys/open.h"

namespace caisson::layer {
namespace {

absl::Status CopyError(absl::string_view call, const std::string& path) {
  return ErrnoError(errno, absl::StrCat(call, "(", Quoted(path), ")"),
                    {.step = "layer.copy_up", .path = path});
}

absl::Status CopyRegular(const OverlayFile& file, BorrowedFd dir,
                         const std::string& name,
                         const FileAttributes& attributes,
                         const std::string& path, uint64_t& skipped) {
  ASSIGN_OR_RETURN(
      UniqueFd from,
      sys::OpenAt2(file.dir, file.name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK,
                   sys::kNoSymlinks));
  UniqueFd to(::openat(dir.get(), name.c_str(),
                       O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                       0600));
  if (!to.valid()) return CopyError("openat", path);
  RETURN_IF_ERROR(
      sys::CopyFileData(from.borrow(), to.borrow(), file.status.st_size, path));
  return WriteAttributes(to.borrow(), attributes, path, skipped);
}

absl::Status CopySymlink(const OverlayFile& file, BorrowedFd dir,
                         const std::string& name, const std::string& path) {
  char target[PATH_MAX];
  const ssize_t size = ::readlinkat(file.dir.get(), file.name.c_str(), target,
                                    sizeof(target) - 1);
  if (size < 0) return CopyError("readlinkat", path);
  target[size] = '\0';
  if (::symlinkat(target, dir.get(), name.c_str()) != 0) {
    return CopyError("symlinkat", path);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CopyUp(const OverlayFile& file, BorrowedFd dir,
                    const std::string& name, LayerFormat format,
                    const std::string& path) {
  ASSIGN_OR_RETURN(const FileAttributes attributes,
                   ReadAttributes(file.dir, file.name, file.status, format));
  // The lower layer has stored them, so nothing should be refused here.
  uint64_t skipped = 0;
  if (S_ISREG(file.status.st_mode)) {
    return CopyRegular(file, dir, name, attributes, path, skipped);
  }
  const bool is_symlink = S_ISLNK(file.status.st_mode);
  if (is_symlink) {
    RETURN_IF_ERROR(CopySymlink(file, dir, name, path));
  } else if (::mknodat(dir.get(), name.c_str(),
                       (file.status.st_mode & S_IFMT) | 0600,
                       file.status.st_rdev) != 0) {
    return CopyError("mknodat", path);
  }
  return WriteAttributesAt(dir, name, is_symlink, attributes, path, skipped);
}

}  // namespace caisson::layer
