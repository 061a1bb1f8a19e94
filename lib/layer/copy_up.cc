#include "lib/layer/copy_up.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <memory>

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/layer/file_attributes.h"
#include "lib/sys/open.h"

namespace caisson::layer {
namespace {

constexpr size_t kBuffer = 256 << 10;

absl::Status CopyError(absl::string_view call, const std::string& path) {
  return ErrnoError(errno, absl::StrCat(call, "(", Quoted(path), ")"),
                    {.step = "layer.copy_up", .path = path});
}

// Copies [offset, end) of `from`.
absl::Status CopyRange(BorrowedFd from, BorrowedFd to, off_t offset, off_t end,
                       const std::string& path) {
  const auto buffer = std::make_unique<char[]>(kBuffer);
  while (offset < end) {
    const size_t want =
        static_cast<size_t>(std::min<off_t>(end - offset, kBuffer));
    const ssize_t got = ::pread(from.get(), buffer.get(), want, offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return CopyError("pread", path);
    if (got == 0) break;
    for (ssize_t done = 0; done < got;) {
      const ssize_t n =
          ::pwrite(to.get(), buffer.get() + done,
                   static_cast<size_t>(got - done), offset + done);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return CopyError("pwrite", path);
      done += n;
    }
    offset += got;
  }
  return absl::OkStatus();
}

absl::Status CopyData(BorrowedFd from, BorrowedFd to, off_t size,
                      const std::string& path) {
  for (off_t offset = 0; offset < size;) {
    const off_t data = ::lseek(from.get(), offset, SEEK_DATA);
    if (data < 0 && errno == ENXIO) break;  // a hole up to the end
    if (data < 0) return CopyError("lseek", path);
    off_t hole = ::lseek(from.get(), data, SEEK_HOLE);
    if (hole < 0) return CopyError("lseek", path);
    hole = std::min(hole, size);
    RETURN_IF_ERROR(CopyRange(from, to, data, hole, path));
    offset = hole;
  }
  if (::ftruncate(to.get(), size) != 0) return CopyError("ftruncate", path);
  return absl::OkStatus();
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
      CopyData(from.borrow(), to.borrow(), file.status.st_size, path));
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
