#include "lib/sys/remove_tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/sys/open.h"

namespace caisson::sys {
namespace {

constexpr uint64_t kHere = kNoSymlinks | RESOLVE_NO_XDEV;
// Descriptors held at once. Deeper directories move to the top of the tree.
constexpr size_t kMaxDepth = 24;
constexpr char kMovedPrefix[] = ".caisson-removing-";
constexpr int kMaxNameAttempts = 1 << 16;

struct CloseDir {
  void operator()(DIR* dir) const { ::closedir(dir); }
};

class TreeRemover final {
 public:
  // `top` is an open directory of its own.
  explicit TreeRemover(UniqueFd top) { Push(std::move(top), ""); }

  absl::Status Run();

 private:
  struct Frame {
    std::unique_ptr<DIR, CloseDir> dir;
    std::string name;       // in the frame below
    bool progress = false;  // something went in this pass
    int fd() const { return ::dirfd(dir.get()); }
  };

  void Push(UniqueFd fd, std::string name);
  void HandleEntry(const char* name);
  void HandleDirectory(const std::string& name);
  int OpenChild(const std::string& name);
  void MoveToTop(const std::string& name);
  void FinishPass();
  void Fail(int error, absl::string_view operation, const std::string& name);

  std::vector<Frame> frames_;
  int moved_ = 0;
  absl::Status first_error_;
};

void TreeRemover::Fail(int error, absl::string_view operation,
                       const std::string& name) {
  if (!first_error_.ok()) return;
  first_error_ =
      ErrnoError(error, absl::StrCat(operation, "(", Quoted(name), ")"),
                 {.step = "directory.remove", .path = name});
}

void TreeRemover::Push(UniqueFd fd, std::string name) {
  DIR* dir = ::fdopendir(fd.get());
  if (dir == nullptr) {
    Fail(errno, "opendir", name);
    return;
  }
  (void)fd.release();
  Frame frame;
  frame.dir.reset(dir);
  frame.name = std::move(name);
  frames_.push_back(std::move(frame));
}

absl::Status TreeRemover::Run() {
  while (!frames_.empty()) {
    errno = 0;
    const dirent* entry = ::readdir(frames_.back().dir.get());
    if (entry != nullptr) {
      if (::strcmp(entry->d_name, ".") != 0 &&
          ::strcmp(entry->d_name, "..") != 0) {
        HandleEntry(entry->d_name);
      }
      continue;
    }
    if (errno != 0) Fail(errno, "readdir", frames_.back().name);
    FinishPass();
  }
  return first_error_;
}

void TreeRemover::HandleEntry(const char* entry) {
  const std::string name(entry);
  const int dir = frames_.back().fd();
  if (::unlinkat(dir, name.c_str(), 0) == 0) {
    frames_.back().progress = true;
    return;
  }
  // Without CAP_DAC_OVERRIDE the owner must first allow himself to write.
  if (errno == EACCES && ::fchmod(dir, 0700) == 0 &&
      ::unlinkat(dir, name.c_str(), 0) == 0) {
    frames_.back().progress = true;
    return;
  }
  if (errno == EISDIR) {
    HandleDirectory(name);
  } else if (errno != ENOENT) {
    Fail(errno, "unlinkat", name);
  }
}

int TreeRemover::OpenChild(const std::string& name) {
  const int dir = frames_.back().fd();
  const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW;
  int fd = OpenAt2Raw(dir, name.c_str(), flags, kHere);
  if (fd < 0 && errno == EACCES &&
      ::fchmodat(dir, name.c_str(), 0700, AT_SYMLINK_NOFOLLOW) == 0) {
    fd = OpenAt2Raw(dir, name.c_str(), flags, kHere);
  }
  return fd;
}

void TreeRemover::HandleDirectory(const std::string& name) {
  if (::unlinkat(frames_.back().fd(), name.c_str(), AT_REMOVEDIR) == 0) {
    frames_.back().progress = true;
    return;
  }
  if (frames_.size() >= kMaxDepth) {
    MoveToTop(name);
    return;
  }
  UniqueFd fd(OpenChild(name));
  if (!fd.valid()) {
    if (errno != ENOENT) Fail(errno, "open", name);
    return;
  }
  Push(std::move(fd), name);
}

void TreeRemover::MoveToTop(const std::string& name) {
  for (int i = 0; i < kMaxNameAttempts; ++i) {
    const std::string target = absl::StrCat(kMovedPrefix, ++moved_);
    if (::renameat2(frames_.back().fd(), name.c_str(), frames_.front().fd(),
                    target.c_str(), RENAME_NOREPLACE) == 0) {
      frames_.back().progress = true;
      frames_.front().progress = true;
      return;
    }
    if (errno == ENOENT) return;
    if (errno != EEXIST) break;
  }
  Fail(errno, "renameat2", name);
}

// At the end of a directory: removes it, or reads it again if it changed while
// it was read, or gives up on it.
void TreeRemover::FinishPass() {
  Frame& frame = frames_.back();
  if (frames_.size() > 1) {
    const int parent = frames_[frames_.size() - 2].fd();
    if (::unlinkat(parent, frame.name.c_str(), AT_REMOVEDIR) == 0 ||
        errno == ENOENT) {
      frames_.pop_back();
      frames_.back().progress = true;
      return;
    }
    if (errno != ENOTEMPTY && errno != EEXIST) {
      Fail(errno, "rmdir", frame.name);
      frame.progress = false;
    }
  }
  if (frame.progress) {
    frame.progress = false;
    ::rewinddir(frame.dir.get());
    return;
  }
  frames_.pop_back();
}

}  // namespace

absl::Status RemoveContents(BorrowedFd dir) {
  ASSIGN_OR_RETURN(UniqueFd top,
                   OpenAt2(dir, ".", O_RDONLY | O_DIRECTORY, kHere));
  return TreeRemover(std::move(top)).Run();
}

absl::Status RemoveTree(BorrowedFd parent, const std::string& name) {
  if (::unlinkat(parent.get(), name.c_str(), 0) == 0 || errno == ENOENT) {
    return absl::OkStatus();
  }
  if (errno != EISDIR) {
    return ErrnoError(errno, absl::StrCat("unlinkat(", Quoted(name), ")"),
                      {.step = "directory.remove", .path = name});
  }
  absl::StatusOr<UniqueFd> top =
      OpenAt2(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, kHere);
  if (absl::IsNotFound(top.status())) return absl::OkStatus();
  RETURN_IF_ERROR(top.status());
  RETURN_IF_ERROR(TreeRemover(*std::move(top)).Run());
  if (::unlinkat(parent.get(), name.c_str(), AT_REMOVEDIR) != 0 &&
      errno != ENOENT) {
    return ErrnoError(errno, absl::StrCat("rmdir(", Quoted(name), ")"),
                      {.step = "directory.remove", .path = name});
  }
  return absl::OkStatus();
}

}  // namespace caisson::sys
