#include "lib/sys/tree_size.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/sys/directory.h"
#include "lib/sys/open.h"

namespace caisson::sys {
namespace {

constexpr uint64_t kHere = kNoSymlinks | RESOLVE_NO_XDEV;
constexpr int kDirectory = O_RDONLY | O_DIRECTORY | O_NOFOLLOW;
constexpr uint64_t kBlock = 512;  // stat(3type), st_blocks

using Identity = std::pair<dev_t, ino_t>;

struct Level {
  Identity identity;
  std::vector<std::string> directories;  // still to be looked at
};

absl::Status Error(int error, absl::string_view call, const std::string& name) {
  return ErrnoError(error, absl::StrCat(call, "(", Quoted(name), ")"),
                    {.step = "tree_size", .path = name});
}

class TreeSizer final {
 public:
  absl::StatusOr<TreeSize> Run(BorrowedFd dir) {
    ASSIGN_OR_RETURN(at_, OpenAt2(dir, ".", kDirectory, kHere));
    RETURN_IF_ERROR(Enter());
    while (!levels_.empty()) {
      std::vector<std::string>& directories = levels_.back().directories;
      if (directories.empty()) {
        RETURN_IF_ERROR(Leave());
        continue;
      }
      const std::string name = std::move(directories.back());
      directories.pop_back();
      UniqueFd next(OpenAt2Raw(at_.get(), name.c_str(), kDirectory, kHere));
      if (next.valid()) {
        at_ = std::move(next);
        RETURN_IF_ERROR(Enter());
      } else if (errno != ENOENT && errno != ENOTDIR && errno != EXDEV) {
        return Error(errno, "open", name);
      }
    }
    return size_;
  }

 private:
  void Count(const struct stat& status) {
    ++size_.files;
    const bool once = S_ISDIR(status.st_mode) || status.st_nlink <= 1 ||
                      linked_.emplace(status.st_dev, status.st_ino).second;
    if (once) size_.bytes += static_cast<uint64_t>(status.st_blocks) * kBlock;
  }

  absl::Status Enter() {
    struct stat status;
    if (::fstat(at_.get(), &status) != 0) return Error(errno, "fstat", ".");
    Count(status);
    Level level = {{status.st_dev, status.st_ino}, {}};
    ASSIGN_OR_RETURN(const auto names, ListDirectory(at_.borrow()));
    for (const std::string& name : names) {
      if (::fstatat(at_.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) !=
          0) {
        if (errno == ENOENT) continue;
        return Error(errno, "fstatat", name);
      }
      if (S_ISDIR(status.st_mode)) {
        level.directories.push_back(name);
      } else {
        Count(status);
      }
    }
    levels_.push_back(std::move(level));
    return absl::OkStatus();
  }

  absl::Status Leave() {
    levels_.pop_back();
    if (levels_.empty()) return absl::OkStatus();
    UniqueFd parent(::openat(at_.get(), "..", kDirectory | O_CLOEXEC));
    struct stat status;
    if (!parent.valid() || ::fstat(parent.get(), &status) != 0) {
      return Error(errno, "openat", "..");
    }
    if (Identity(status.st_dev, status.st_ino) != levels_.back().identity) {
      return absl::AbortedError(
          "a directory was moved away while the tree was looked at");
    }
    at_ = std::move(parent);
    return absl::OkStatus();
  }

  UniqueFd at_;
  std::vector<Level> levels_;
  std::set<Identity> linked_;
  TreeSize size_;
};

}  // namespace

absl::StatusOr<TreeSize> SizeOfTree(BorrowedFd dir) {
  return TreeSizer().Run(dir);
}

}  // namespace caisson::sys
