#include "lib/layer/save_target.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "caisson/error.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/sys/directory.h"
#include "lib/sys/open.h"
#include "lib/sys/owned_dir.h"
#include "lib/sys/remove_tree.h"

namespace caisson::layer {
namespace {

std::string ParentOf(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash + 1);
}

absl::Status SyncFile(BorrowedFd file, const std::string& path) {
  if (::fsync(file.get()) == 0) return absl::OkStatus();
  return ErrnoError(errno, absl::StrCat("fsync(", Quoted(path), ")"),
                    {.step = "layer.save", .path = path});
}

// The name of a file that is complete.
absl::Status SyncName(const std::string& parent) {
  ASSIGN_OR_RETURN(const UniqueFd dir,
                   sys::Open(parent, O_RDONLY | O_DIRECTORY));
  return SyncFile(dir.borrow(), parent);
}

}  // namespace

absl::Status SaveByRename(const std::string& path, const SaveFunction& save) {
  ASSIGN_OR_RETURN(const std::string unique, sys::UniqueName());
  const std::string partial = absl::StrCat(path, ".", unique);
  ASSIGN_OR_RETURN(const UniqueFd file,
                   sys::Open(partial, O_RDWR | O_CREAT | O_EXCL, 0644));
  absl::Cleanup remove = [&partial] { ::unlink(partial.c_str()); };
  RETURN_IF_ERROR(save(file.borrow()));
  RETURN_IF_ERROR(SyncFile(file.borrow(), partial));
  if (::renameat2(AT_FDCWD, partial.c_str(), AT_FDCWD, path.c_str(),
                  RENAME_NOREPLACE) != 0) {
    return ErrnoError(errno, absl::StrCat("renameat2(", Quoted(path), ")"),
                      {.step = "layer.save", .path = path});
  }
  std::move(remove).Cancel();
  return SyncName(ParentOf(path));
}

absl::Status SaveToDirectory(const std::string& path,
                             const SaveFunction& save) {
  const bool made = ::mkdir(path.c_str(), 0755) == 0;
  if (!made && errno != EEXIST) {
    return ErrnoError(errno, absl::StrCat("mkdir(", Quoted(path), ")"),
                      {.step = "layer.save", .path = path});
  }
  ASSIGN_OR_RETURN(const UniqueFd dir, sys::Open(path, O_RDONLY | O_DIRECTORY));
  // It must be empty, so all that is in it afterwards is ours.
  ASSIGN_OR_RETURN(const auto names, sys::ListDirectory(dir.borrow()));
  if (!names.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("the directory to save to is not empty: it has ",
                     Quoted(names.front())));
  }
  const absl::Status status = save(dir.borrow());
  if (status.ok()) {
    return made ? SyncName(absl::StrCat(path, "/..")) : status;
  }
  sys::RemoveContents(dir.borrow()).IgnoreError();
  if (made) ::rmdir(path.c_str());
  return status;
}

absl::Status SaveToFile(const std::string& path, const SaveFunction& save) {
  const std::string parent = ParentOf(path);
  absl::StatusOr<UniqueFd> unnamed =
      sys::Open(parent, O_RDWR | O_TMPFILE, 0644);
  const auto detail = GetErrorDetail(unnamed.status());
  if (detail.has_value() &&
      (detail->error == EOPNOTSUPP || detail->error == EISDIR)) {
    return SaveByRename(path, save);
  }
  RETURN_IF_ERROR(unnamed.status());
  const UniqueFd file = *std::move(unnamed);
  RETURN_IF_ERROR(save(file.borrow()));
  RETURN_IF_ERROR(SyncFile(file.borrow(), path));
  const std::string link = absl::StrCat("/proc/self/fd/", file.get());
  if (::linkat(AT_FDCWD, link.c_str(), AT_FDCWD, path.c_str(),
               AT_SYMLINK_FOLLOW) != 0) {
    return ErrnoError(errno, absl::StrCat("linkat(", Quoted(path), ")"),
                      {.step = "layer.save", .path = path});
  }
  return SyncName(parent);
}

}  // namespace caisson::layer
