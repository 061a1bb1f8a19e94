#include "lib/layer/overlay_view.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/xattr.h>

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/layer/copy_up.h"
#include "lib/layer/file_attributes.h"
#include "lib/sys/directory.h"
#include "lib/sys/open.h"

namespace caisson::layer {
namespace {

constexpr uint64_t kHere = sys::kNoSymlinks | RESOLVE_NO_XDEV;
// Of all levels together; beyond, only those of the deepest one are kept.
constexpr size_t kMaxDescriptors = 256;

// False if there is no such file.
absl::StatusOr<bool> Lstat(BorrowedFd dir, const std::string& name,
                           struct stat& status) {
  if (::fstatat(dir.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) == 0) {
    return true;
  }
  if (errno == ENOENT || errno == ENOTDIR) return false;
  return ErrnoError(errno, absl::StrCat("fstatat(layer, ", Quoted(name), ")"),
                    {.step = "layer.lower", .path = name});
}

absl::Status Gone(const std::string& name) {
  return absl::NotFoundError(
      absl::StrCat(Quoted(name), " is not in the lower layers"));
}

bool IsOpaque(BorrowedFd dir, LayerFormat format) {
  const std::string key = absl::StrCat(OverlayXattrPrefix(format), "opaque");
  char value = 0;
  return ::fgetxattr(dir.get(), key.c_str(), &value, 1) == 1 && value == 'y';
}

}  // namespace

bool IsWhiteout(const struct stat& status) {
  return S_ISCHR(status.st_mode) && status.st_rdev == 0;
}

absl::Status OverlayView::OpenRoots() {
  Level root;
  for (const BorrowedFd fd : *roots_) {
    ASSIGN_OR_RETURN(UniqueFd dir,
                     sys::OpenAt2(fd, ".", O_RDONLY | O_DIRECTORY, kHere));
    root.dirs.push_back(std::move(dir));
  }
  levels_.clear();
  levels_.push_back(std::move(root));
  reusable_ = 0;
  return absl::OkStatus();
}

// A directory merges with those of the same name below it, until one is opaque
// or something else than a directory hides the rest.
absl::Status OverlayView::Descend(absl::string_view name) {
  const Level& parent = levels_.back();
  Level level{.name = std::string(name), .closed = parent.closed};
  for (const UniqueFd& dir : parent.dirs) {
    struct stat status;
    ASSIGN_OR_RETURN(const bool found, Lstat(dir.borrow(), level.name, status));
    if (!found) continue;
    if (!S_ISDIR(status.st_mode)) {
      level.closed = true;
      break;
    }
    UniqueFd fd(sys::OpenAt2Raw(dir.get(), level.name.c_str(),
                                O_RDONLY | O_DIRECTORY, kHere));
    // A mount point of a container's tree is not entered.
    if (!fd.valid() && errno == EXDEV && format_ == LayerFormat::kPlain) break;
    // A container has just removed it, or made it something else.
    if (!fd.valid() && errno == ENOENT) continue;
    if (!fd.valid() && (errno == ENOTDIR || errno == ELOOP)) {
      level.closed = true;
      break;
    }
    if (!fd.valid()) {
      return ErrnoError(
          errno, absl::StrCat("openat2(layer, ", Quoted(level.name), ")"),
          {.step = "layer.lower", .path = level.name});
    }
    const bool opaque = IsOpaque(fd.borrow(), format_);
    level.dirs.push_back(std::move(fd));
    if (!opaque) continue;
    level.closed = true;
    break;
  }
  levels_.push_back(std::move(level));
  return absl::OkStatus();
}

absl::Status OverlayView::Enter(const std::string& dir) {
  const std::vector<absl::string_view> names =
      absl::StrSplit(dir, '/', absl::SkipEmpty());
  size_t common = 0;  // levels below the root that stay
  while (common < names.size() && common + 1 < levels_.size() &&
         levels_[common + 1].name == names[common]) {
    ++common;
  }
  if (levels_.empty() || common < reusable_) {
    RETURN_IF_ERROR(OpenRoots());
    common = 0;
  }
  levels_.resize(common + 1);
  size_t descriptors = 0;
  for (const Level& level : levels_) descriptors += level.dirs.size();
  for (size_t i = common; i < names.size(); ++i) {
    const absl::Status status = Descend(names[i]);
    if (!status.ok()) {
      levels_.clear();
      return status;
    }
    descriptors += levels_.back().dirs.size();
    if (descriptors <= kMaxDescriptors) continue;
    for (; reusable_ + 1 < levels_.size(); ++reusable_) {
      descriptors -= levels_[reusable_].dirs.size();
      levels_[reusable_].dirs.clear();
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<OverlayFile>> OverlayView::Find(
    const std::string& dir, const std::string& name) {
  if (!known()) return std::nullopt;
  RETURN_IF_ERROR(Enter(dir));
  for (const UniqueFd& layer : levels_.back().dirs) {
    OverlayFile file = {layer.borrow(), name, {}};
    ASSIGN_OR_RETURN(const bool found,
                     Lstat(layer.borrow(), name, file.status));
    if (!found) continue;
    if (IsWhiteout(file.status)) break;
    return std::optional<OverlayFile>(std::move(file));
  }
  return std::optional<OverlayFile>();
}

absl::StatusOr<std::vector<OverlayFile>> OverlayView::List(
    const std::string& dir, uint64_t limit) {
  std::vector<OverlayFile> files;
  if (!known()) return files;
  RETURN_IF_ERROR(Enter(dir));
  absl::flat_hash_set<std::string> seen;
  for (const UniqueFd& layer : levels_.back().dirs) {
    ASSIGN_OR_RETURN(std::vector<std::string> names,
                     sys::ListDirectory(layer.borrow()));
    if (names.size() > limit - std::min<uint64_t>(limit, files.size())) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "there are more than ", limit, " files in ", Quoted(dir)));
    }
    for (std::string& name : names) {
      if (levels_.back().dirs.size() > 1 && !seen.insert(name).second) continue;
      OverlayFile file = {layer.borrow(), std::move(name), {}};
      ASSIGN_OR_RETURN(const bool found,
                       Lstat(layer.borrow(), file.name, file.status));
      if (found) files.push_back(std::move(file));
    }
  }
  std::sort(files.begin(), files.end(),
            [](const OverlayFile& a, const OverlayFile& b) {
              return a.name < b.name;
            });
  return files;
}

absl::StatusOr<FileAttributes> OverlayView::Attributes(
    const std::string& dir, const std::string& name) {
  ASSIGN_OR_RETURN(const std::optional<OverlayFile> file, Find(dir, name));
  if (!file.has_value()) return Gone(name);
  return ReadAttributes(file->dir, file->name, file->status, format_);
}

absl::Status OverlayView::CopyUp(const std::string& dir,
                                 const std::string& name, BorrowedFd to,
                                 const std::string& to_name,
                                 const std::string& path) {
  ASSIGN_OR_RETURN(const std::optional<OverlayFile> file, Find(dir, name));
  if (!file.has_value()) return Gone(name);
  return layer::CopyUp(*file, to, to_name, format_, path);
}

absl::StatusOr<bool> OverlayView::IsClosed(const std::string& dir) {
  if (!known()) return false;
  RETURN_IF_ERROR(Enter(dir));
  return levels_.back().closed;
}

}  // namespace caisson::layer
