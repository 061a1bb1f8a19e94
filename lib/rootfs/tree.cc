#include "lib/rootfs/tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include <deque>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/sys/mount.h"
#include "lib/sys/open.h"

namespace caisson::rootfs {
namespace {

constexpr char kStep[] = "rootfs.tree";
constexpr int kMaxLinks = 40;     // linux include/linux/namei.h, MAXSYMLINKS
constexpr int kMaxAttempts = 16;  // against somebody who creates and deletes
constexpr mode_t kParentMode = 0755;

std::string Absolute(absl::string_view path) { return absl::StrCat("/", path); }

absl::Status LookupError(int error, absl::string_view path,
                         absl::string_view hint = {}) {
  const std::string absolute = Absolute(path);
  return ErrnoError(error,
                    absl::StrCat("look up ", Quoted(absolute), " in the root"),
                    {.step = kStep, .path = absolute, .hint = hint});
}

absl::Status CreateError(int error, absl::string_view call,
                         absl::string_view path) {
  const std::string absolute = Absolute(path);
  absl::string_view hint;
  if (error == EROFS) {
    hint =
        "it is missing and must be created, but the file system there is "
        "read-only";
  } else if (error == ENOSPC || error == EDQUOT) {
    hint = "the file system that takes the container's writes is full";
  }
  return ErrnoError(error,
                    absl::StrCat(call, "(", Quoted(absolute), ") in the root"),
                    {.step = kStep, .path = absolute, .hint = hint});
}

absl::StatusOr<struct stat> Stat(BorrowedFd fd, absl::string_view path) {
  struct stat status;
  if (::fstat(fd.get(), &status) != 0) return LookupError(errno, path);
  return status;
}

absl::string_view KindName(mode_t mode) {
  return S_ISDIR(mode) ? "a directory" : "a file";
}

// Whether a directory is as mkdir(2) of this process makes it.
bool IsFresh(BorrowedFd fd) {
  struct stat status;
  if (::fstat(fd.get(), &status) != 0 || status.st_uid != ::geteuid()) {
    return false;
  }
  const int copy = ::openat(fd.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* const directory = copy >= 0 ? ::fdopendir(copy) : nullptr;
  if (directory == nullptr) {
    if (copy >= 0) ::close(copy);
    return false;
  }
  int entries = 0;
  while (::readdir(directory) != nullptr) ++entries;
  ::closedir(directory);
  return entries <= 2;  // "." and ".."
}

// Why `mount` could not be attached at `target`, if their kinds differ.
absl::Status CheckKinds(const PendingMount& mount) {
  struct stat source;
  struct stat target;
  if (mount.source == PendingMount::Source::kReadOnly ||
      ::fstat(mount.object.get(), &source) != 0 ||
      ::fstat(mount.target.get(), &target) != 0 ||
      S_ISDIR(source.st_mode) == S_ISDIR(target.st_mode)) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(absl::StrCat(
      Quoted(Absolute(mount.path)), " is ", KindName(target.st_mode),
      " of the image, but what is to be mounted there is ",
      KindName(source.st_mode)));
}

}  // namespace

// One look-up, component by component. Every step opens one name, without
// following it, below a directory that is held open; ".." goes back to a
// directory that was passed on the way. So nothing that is renamed meanwhile
// can lead it out of the root.
class Tree::Walk {
 public:
  Walk(const Tree& tree, absl::string_view path, Create create, mode_t mode)
      : tree_(tree), path_(path), create_(create), mode_(mode) {
    Prepend(path);
  }

  absl::StatusOr<UniqueFd> Run() {
    ASSIGN_OR_RETURN(UniqueFd root, sys::Duplicate(tree_.root()));
    passed_.push_back(std::move(root));
    while (!todo_.empty()) {
      const std::string name = std::move(todo_.front());
      todo_.pop_front();
      if (name == "..") {
        if (passed_.size() > 1) passed_.pop_back();
        continue;
      }
      ASSIGN_OR_RETURN(UniqueFd next, Step(name));
      ASSIGN_OR_RETURN(const struct stat status, Stat(next.borrow(), path_));
      if (S_ISLNK(status.st_mode)) {
        RETURN_IF_ERROR(Follow(next.borrow()));
        continue;
      }
      ASSIGN_OR_RETURN(next, CrossMounts(std::move(next)));
      if (!todo_.empty() && !S_ISDIR(status.st_mode)) {
        return LookupError(ENOTDIR, path_);
      }
      passed_.push_back(std::move(next));
    }
    return std::move(passed_.back());
  }

 private:
  void Prepend(absl::string_view path) {
    std::vector<std::string> names =
        absl::StrSplit(path, '/', absl::SkipEmpty());
    for (auto it = names.rbegin(); it != names.rend(); ++it) {
      if (*it != ".") todo_.push_front(std::move(*it));
    }
  }

  absl::Status Follow(BorrowedFd link) {
    char target[PATH_MAX];
    const ssize_t size = ::readlinkat(link.get(), "", target, sizeof(target));
    if (size < 0) return LookupError(errno, path_);
    if (++links_ > kMaxLinks || size == static_cast<ssize_t>(sizeof(target))) {
      return LookupError(ELOOP, path_);
    }
    const absl::string_view text(target, static_cast<size_t>(size));
    if (text.empty()) return LookupError(ENOENT, path_);
    if (text[0] == '/') passed_.resize(1);
    Prepend(text);
    return absl::OkStatus();
  }

  absl::StatusOr<UniqueFd> Step(const std::string& name) {
    const int dir = passed_.back().get();
    for (int i = 0; i < kMaxAttempts; ++i) {
      UniqueFd fd(::openat(dir, name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
      if (fd.valid()) return fd;
      if (errno != ENOENT || create_ == Create::kNothing) {
        return LookupError(errno, path_);
      }
      const bool file = create_ == Create::kFile && todo_.empty();
      auto made = file ? MakeFile(dir, name) : MakeDirectory(dir, name);
      const auto detail = GetErrorDetail(made.status());
      const bool raced = detail.has_value() && detail->error == EEXIST;
      if (made.ok() || !raced) return made;
    }
    return LookupError(EAGAIN, path_,
                       "something else creates and deletes it all the time");
  }

  absl::StatusOr<UniqueFd> MakeFile(int dir, const std::string& name) {
    UniqueFd file(::openat(
        dir, name.c_str(),
        O_CREAT | O_EXCL | O_RDONLY | O_NOFOLLOW | O_NOCTTY | O_CLOEXEC,
        mode_));
    if (!file.valid()) return CreateError(errno, "open", path_);
    RETURN_IF_ERROR(SetOwnerAndMode(file.borrow(), tree_.owner_, mode_, path_));
    return file;
  }

  absl::StatusOr<UniqueFd> MakeDirectory(int dir, const std::string& name) {
    const mode_t mode = todo_.empty() ? mode_ : kParentMode;
    if (::mkdirat(dir, name.c_str(), mode) != 0) {
      return CreateError(errno, "mkdir", path_);
    }
    UniqueFd made(::openat(dir, name.c_str(),
                           O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!made.valid()) return CreateError(errno, "open", path_);
    // In a running container somebody may have put another one in its place,
    // whose owner and mode are not to be changed.
    if (!IsFresh(made.borrow())) return CreateError(EEXIST, "mkdir", path_);
    RETURN_IF_ERROR(SetOwnerAndMode(made.borrow(), tree_.owner_, mode, path_));
    return made;
  }

  absl::StatusOr<UniqueFd> CrossMounts(UniqueFd place) {
    const PendingMount* mount = tree_.MountedAt(place.borrow());
    if (mount == nullptr) return place;
    return sys::Duplicate(mount->object.borrow());
  }

  const Tree& tree_;
  const absl::string_view path_;
  const Create create_;
  const mode_t mode_;
  std::deque<std::string> todo_;
  std::vector<UniqueFd> passed_;  // from the root to where the walk is
  int links_ = 0;
};

const PendingMount* Tree::MountedAt(BorrowedFd place) const {
  struct stat wanted;
  if (::fstat(place.get(), &wanted) != 0) return nullptr;
  for (const auto* mounts : {&pending_, &attached_}) {
    for (auto it = mounts->rbegin(); it != mounts->rend(); ++it) {
      struct stat target;
      if (it->object.valid() && ::fstat(it->target.get(), &target) == 0 &&
          target.st_dev == wanted.st_dev && target.st_ino == wanted.st_ino) {
        return &*it;
      }
    }
  }
  return nullptr;
}

void Tree::DropPending() {
  for (PendingMount& mount : pending_) {
    if (mount.outlives_child) attached_.push_back(std::move(mount));
  }
  pending_.clear();
}

absl::StatusOr<UniqueFd> Tree::OwnDirectory(const char* name) {
  UniqueFd fd(sys::OpenAt2Raw(root_.get(), name, O_PATH | O_DIRECTORY,
                              sys::kNoSymlinks));
  if (fd.valid()) return fd;
  switch (errno) {
    case ENOENT:
      return Find(name, Create::kDirectory, kParentMode);
    case ELOOP:
    case ENOTDIR:
      // O_DIRECTORY on a symbolic link is either, depending on the kernel.
      return absl::FailedPreconditionError(absl::StrCat(
          "\"/", name,
          "\" of the image is a symbolic link or a file; a mount there would "
          "land elsewhere, so it must be a directory or missing"));
    default:
      return LookupError(errno, name);
  }
}

absl::StatusOr<UniqueFd> Tree::Find(absl::string_view path) const {
  if (pending_.empty() && attached_.empty()) {
    const std::string text = path.empty() ? "." : std::string(path);
    UniqueFd fd(
        sys::OpenAt2Raw(root_.get(), text.c_str(), O_PATH, sys::kInRoot));
    if (fd.valid()) return fd;
    return LookupError(errno, path);
  }
  return Walk(*this, path, Create::kNothing, 0).Run();
}

absl::StatusOr<UniqueFd> Tree::Find(absl::string_view path, Create create,
                                    mode_t mode) {
  auto found = Find(path);
  if (found.ok() || create == Create::kNothing) return found;
  const auto detail = GetErrorDetail(found.status());
  if (!detail.has_value() || detail->error != ENOENT) return found;
  return Walk(*this, path, create, mode).Run();
}

absl::Status Tree::Attach(PendingMount mount) {
  if (!detached_mounts_) {
    RETURN_IF_ERROR(CheckKinds(mount));
    pending_.push_back(std::move(mount));
    return absl::OkStatus();
  }
  const sys::MountResult result =
      mounts_->Attach(mount.object.borrow(), mount.target.borrow());
  if (result.ok()) {
    if (mount.outlives_child) attached_.push_back(std::move(mount));
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(result.failure);
  RETURN_IF_ERROR(CheckKinds(mount));
  const std::string absolute = Absolute(mount.path);
  return ErrnoError(
      result.error, absl::StrCat("move_mount(", Quoted(absolute), ")"),
      {.step = kStep,
       .path = absolute,
       .hint = result.error == ENOSPC ? "there are more mounts than the sysctl "
                                        "fs.mount-max allows in a namespace"
                                      : ""});
}

absl::Status Tree::ProtectLater(PendingMount mount) {
  ASSIGN_OR_RETURN(const struct stat target,
                   Stat(mount.target.borrow(), mount.path));
  for (PendingMount& other : pending_) {
    struct stat object;
    if (other.source != PendingMount::Source::kScratch ||
        ::fstat(other.object.get(), &object) != 0 ||
        object.st_dev != target.st_dev || object.st_ino != target.st_ino) {
      continue;
    }
    other.source = PendingMount::Source::kMask;
    if (mount.source == PendingMount::Source::kMask) other.name = mount.name;
    return absl::OkStatus();
  }
  pending_.push_back(std::move(mount));
  return absl::OkStatus();
}

}  // namespace caisson::rootfs
