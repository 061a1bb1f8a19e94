#include "lib/layer/lower_layers.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/xattr.h>

#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/layer/file_attributes.h"
#include "lib/sys/directory.h"
#include "lib/sys/open.h"

namespace caisson::layer {
namespace {

constexpr uint64_t kHere = sys::kNoSymlinks | RESOLVE_NO_XDEV;

bool IsWhiteout(const struct stat& status) {
  return S_ISCHR(status.st_mode) && status.st_rdev == 0;
}

// False if there is no such file.
absl::StatusOr<bool> Lstat(BorrowedFd dir, const std::string& name,
                           struct stat& status) {
  if (::fstatat(dir.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0) {
    return true;
  }
  if (errno == ENOENT || errno == ENOTDIR) return false;
  return ErrnoError(errno,
                    absl::StrCat("fstatat(lower layer, ", Quoted(name), ")"),
                    {.step = "layer.lower", .path = name});
}

bool IsOpaque(BorrowedFd dir, LayerFormat format) {
  const std::string key = absl::StrCat(OverlayXattrPrefix(format), "opaque");
  char value = 0;
  return ::fgetxattr(dir.get(), key.c_str(), &value, 1) == 1 && value == 'y';
}

}  // namespace

absl::StatusOr<std::vector<UniqueFd>> LowerLayers::OpenRoots() const {
  std::vector<UniqueFd> stack;
  if (!roots_.has_value()) return stack;
  for (const BorrowedFd root : *roots_) {
    ASSIGN_OR_RETURN(UniqueFd fd,
                     sys::OpenAt2(root, ".", O_RDONLY | O_DIRECTORY, kHere));
    stack.push_back(std::move(fd));
  }
  return stack;
}

// A directory merges with those of the same name below it, until one is opaque
// or something else than a directory hides the rest.
absl::StatusOr<std::vector<UniqueFd>> LowerLayers::OpenLevel(
    const std::vector<UniqueFd>& stack, const std::string& name) const {
  std::vector<UniqueFd> level;
  for (const UniqueFd& dir : stack) {
    struct stat status;
    ASSIGN_OR_RETURN(const bool found, Lstat(dir.borrow(), name, status));
    if (!found) continue;
    if (!S_ISDIR(status.st_mode)) break;
    ASSIGN_OR_RETURN(UniqueFd fd, sys::OpenAt2(dir.borrow(), name,
                                               O_RDONLY | O_DIRECTORY, kHere));
    const bool opaque = IsOpaque(fd.borrow(), format_);
    level.push_back(std::move(fd));
    if (opaque) break;
  }
  return level;
}

absl::Status LowerLayers::Enter(const std::string& dir) {
  if (entered_ == dir) return absl::OkStatus();
  entered_.reset();
  ASSIGN_OR_RETURN(stack_, OpenRoots());
  for (const absl::string_view name :
       absl::StrSplit(dir, '/', absl::SkipEmpty())) {
    if (stack_.empty()) break;
    ASSIGN_OR_RETURN(stack_, OpenLevel(stack_, std::string(name)));
  }
  entered_ = dir;
  return absl::OkStatus();
}

absl::StatusOr<std::optional<LowerFile>> LowerLayers::Find(
    const std::string& dir, const std::string& name) {
  RETURN_IF_ERROR(Enter(dir));
  for (const UniqueFd& layer : stack_) {
    LowerFile file = {layer.borrow(), name, {}};
    ASSIGN_OR_RETURN(const bool found,
                     Lstat(layer.borrow(), name, file.status));
    if (!found) continue;
    if (IsWhiteout(file.status)) break;
    return std::optional<LowerFile>(std::move(file));
  }
  return std::optional<LowerFile>();
}

absl::StatusOr<std::vector<std::string>> LowerLayers::RootNames() const {
  std::set<std::string> names;
  ASSIGN_OR_RETURN(const std::vector<UniqueFd> stack, OpenRoots());
  for (const UniqueFd& root : stack) {
    ASSIGN_OR_RETURN(std::vector<std::string> some,
                     sys::ListDirectory(root.borrow()));
    names.insert(some.begin(), some.end());
  }
  return std::vector<std::string>(names.begin(), names.end());
}

}  // namespace caisson::layer
