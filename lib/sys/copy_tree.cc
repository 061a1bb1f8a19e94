#include "lib/sys/copy_tree.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/sys/directory.h"
#include "lib/sys/file_size.h"
#include "lib/sys/open.h"
#include "lib/sys/owned_dir.h"
#include "lib/sys/xattr.h"

namespace caisson::sys {
namespace {

constexpr char kStep[] = "copy_tree";
constexpr uint64_t kHere = kNoSymlinks | RESOLVE_NO_XDEV;
constexpr int kDirectory = O_RDONLY | O_DIRECTORY | O_NOFOLLOW;
constexpr size_t kBuffer = 256 << 10;
constexpr size_t kMaxChunk = 1 << 30;

absl::Status CopyError(int error, absl::string_view call,
                       const std::string& name, absl::string_view hint = {}) {
  if (error == ENOSPC || error == EDQUOT) {
    hint = "the file system that the copy goes to is full";
  }
  return ErrnoError(error, absl::StrCat(call, "(", Quoted(name), ")"),
                    {.step = kStep, .path = name, .hint = hint});
}

bool IsCopied(absl::string_view key) {
  return !absl::StartsWith(key, "trusted.overlay.") &&
         !absl::StartsWith(key, "user.overlay.") &&
         !absl::StartsWith(key, "security.SMACK64") &&
         key != "security.selinux" && key != "security.evm" &&
         key != "security.ima" && key != "system.nfs4_acl";
}

// Whether a file may lack an attribute that could not be stored.
bool MayLack(absl::string_view key, int error) {
  return (error == ENOTSUP || error == EPERM) && key != "security.capability" &&
         !absl::StartsWith(key, "system.");
}

// Reads from `from` to `end` where the kernel cannot copy by itself.
absl::Status CopyByHand(BorrowedFd from, BorrowedFd to, off_t offset, off_t end,
                        const std::string& name) {
  const auto buffer = std::make_unique<char[]>(kBuffer);
  while (offset < end) {
    const size_t want =
        static_cast<size_t>(std::min<off_t>(end - offset, kBuffer));
    const ssize_t got = ::pread(from.get(), buffer.get(), want, offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return CopyError(errno, "pread", name);
    if (got == 0) break;
    for (ssize_t done = 0; done < got;) {
      const ssize_t n =
          ::pwrite(to.get(), buffer.get() + done,
                   static_cast<size_t>(got - done), offset + done);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return CopyError(errno, "pwrite", name);
      done += n;
    }
    offset += got;
  }
  return absl::OkStatus();
}

absl::Status CopyRange(BorrowedFd from, BorrowedFd to, off_t offset, off_t end,
                       const std::string& name) {
  while (offset < end) {
    off_t in = offset;
    off_t out = offset;
    const size_t want =
        static_cast<size_t>(std::min<off_t>(end - offset, kMaxChunk));
    const ssize_t n =
        ::copy_file_range(from.get(), &in, to.get(), &out, want, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && (errno == ENOSPC || errno == EDQUOT || errno == EIO)) {
      return CopyError(errno, "copy_file_range", name);
    }
    // Between file systems, on those that cannot, at the end of a file that
    // has become shorter.
    if (n <= 0) return CopyByHand(from, to, offset, end, name);
    offset += n;
  }
  return absl::OkStatus();
}

absl::Status CopyData(BorrowedFd from, BorrowedFd to, off_t size,
                      const std::string& name) {
  if (absl::Status fits = CheckFileSize(static_cast<uint64_t>(size));
      !fits.ok()) {
    return Annotate(fits, Quoted(name));
  }
  for (off_t offset = 0; offset < size;) {
    const off_t data = ::lseek(from.get(), offset, SEEK_DATA);
    if (data < 0 && errno == ENXIO) break;  // a hole up to the end
    if (data < 0) return CopyError(errno, "lseek", name);
    off_t hole = ::lseek(from.get(), data, SEEK_HOLE);
    if (hole < 0) return CopyError(errno, "lseek", name);
    hole = std::min(hole, size);
    RETURN_IF_ERROR(CopyRange(from, to, data, hole, name));
    offset = hole;
  }
  if (::ftruncate(to.get(), size) != 0) {
    return CopyError(errno, "ftruncate", name);
  }
  return absl::OkStatus();
}

// The attributes of `name` in `from` for `to_name` in `to`. Owner first,
// because chown(2) clears set-id bits and capabilities.
absl::Status CopyAttributesAt(BorrowedFd from, const std::string& name,
                              const struct stat& status, BorrowedFd to,
                              const std::string& to_name) {
  const char* target = to_name.c_str();
  if (::fchownat(to.get(), target, status.st_uid, status.st_gid,
                 AT_SYMLINK_NOFOLLOW) != 0) {
    return CopyError(errno, "fchownat", name);
  }
  ASSIGN_OR_RETURN(const std::vector<Xattr> xattrs, ReadXattrsAt(from, name));
  for (const auto& [key, value] : xattrs) {
    if (!IsCopied(key)) continue;
    const int error = SetXattrAt(to, to_name, key, value);
    if (error != 0 && !MayLack(key, error)) {
      return CopyError(error, absl::StrCat("setxattr ", key), name);
    }
  }
  // A symbolic link has no mode.
  if (!S_ISLNK(status.st_mode) &&
      ::fchmodat(to.get(), target, status.st_mode & 07777,
                 AT_SYMLINK_NOFOLLOW) != 0) {
    return CopyError(errno, "fchmodat", name);
  }
  const timespec times[2] = {status.st_atim, status.st_mtim};
  if (::utimensat(to.get(), target, times, AT_SYMLINK_NOFOLLOW) != 0) {
    return CopyError(errno, "utimensat", name);
  }
  return absl::OkStatus();
}

struct Identity {
  explicit Identity(const struct stat& status)
      : device(status.st_dev), inode(status.st_ino) {}
  bool operator==(const Identity& other) const {
    return device == other.device && inode == other.inode;
  }
  bool operator<(const Identity& other) const {
    return std::pair(device, inode) < std::pair(other.device, other.inode);
  }
  dev_t device;
  ino_t inode;
};

class TreeCopier final {
 public:
  TreeCopier(BorrowedFd from, BorrowedFd to) : top_from_(from), top_to_(to) {}

  absl::Status Run() {
    ASSIGN_OR_RETURN(from_, OpenAt2(top_from_, ".", kDirectory, kHere));
    ASSIGN_OR_RETURN(to_, OpenAt2(top_to_, ".", kDirectory, kHere));
    RETURN_IF_ERROR(Enter());
    while (!levels_.empty()) {
      if (levels_.back().directories.empty()) {
        RETURN_IF_ERROR(Leave());
      } else {
        const std::string name = std::move(levels_.back().directories.back());
        levels_.back().directories.pop_back();
        RETURN_IF_ERROR(Descend(name));
      }
    }
    return absl::OkStatus();
  }

 private:
  // A directory on the way from the top to where the copy is.
  struct Level {
    struct stat from;
    Identity to;
    std::vector<std::string> directories;  // still to be copied
  };

  // Copies everything in the current directory but its directories.
  absl::Status Enter() {
    struct stat from;
    struct stat to;
    if (::fstat(from_.get(), &from) != 0 || ::fstat(to_.get(), &to) != 0) {
      return CopyError(errno, "fstat", ".");
    }
    levels_.push_back({from, Identity(to), {}});
    ASSIGN_OR_RETURN(const std::vector<std::string> names,
                     ListDirectory(from_.borrow()));
    for (const std::string& name : names) {
      struct stat status;
      if (::fstatat(from_.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) !=
          0) {
        if (errno == ENOENT) continue;
        return CopyError(errno, "fstatat", name);
      }
      if (S_ISDIR(status.st_mode)) {
        levels_.back().directories.push_back(name);
      } else {
        RETURN_IF_ERROR(CopyEntry(name, status));
      }
    }
    return absl::OkStatus();
  }

  absl::Status Descend(const std::string& name) {
    UniqueFd from(OpenAt2Raw(from_.get(), name.c_str(), kDirectory, kHere));
    if (!from.valid() && (errno == ENOENT || errno == ENOTDIR)) {
      return absl::OkStatus();  // gone, or something else by now
    }
    const bool mount_point = !from.valid() && errno == EXDEV;
    if (!from.valid() && !mount_point) return CopyError(errno, "open", name);
    RETURN_IF_ERROR(MakeDirectory(to_.borrow(), name, 0700));
    if (mount_point) return absl::OkStatus();
    ASSIGN_OR_RETURN(UniqueFd to,
                     OpenAt2(to_.borrow(), name, kDirectory, kHere));
    from_ = std::move(from);
    to_ = std::move(to);
    return Enter();
  }

  // Ends the current directory, whose times are changed no more.
  absl::Status Leave() {
    if (levels_.size() == 1) RETURN_IF_ERROR(RemoveLinks());
    RETURN_IF_ERROR(CopyAttributesAt(from_.borrow(), ".", levels_.back().from,
                                     to_.borrow(), "."));
    levels_.pop_back();
    if (levels_.empty()) return absl::OkStatus();
    const Level& parent = levels_.back();
    RETURN_IF_ERROR(GoUp(from_, Identity(parent.from)));
    return GoUp(to_, parent.to);
  }

  // Nothing but the directory that it came through will do: somebody may have
  // moved this one.
  static absl::Status GoUp(UniqueFd& at, const Identity& expected) {
    UniqueFd parent(::openat(at.get(), "..", kDirectory | O_CLOEXEC));
    struct stat status;
    if (!parent.valid() || ::fstat(parent.get(), &status) != 0) {
      return CopyError(errno, "openat", "..");
    }
    if (!(Identity(status) == expected)) {
      return absl::AbortedError(
          "a directory was moved away while the tree was copied");
    }
    at = std::move(parent);
    return absl::OkStatus();
  }

  absl::Status CopyEntry(const std::string& name, const struct stat& status) {
    if (status.st_nlink <= 1) {
      return Copy(name, status, to_.borrow(), name);
    }
    // The first name of the file is kept aside, however deep the tree.
    const auto [found, added] =
        linked_.emplace(Identity(status), absl::StrCat(linked_.size()));
    const std::string& kept = found->second;
    if (added) {
      RETURN_IF_ERROR(MakeLinks());
      RETURN_IF_ERROR(Copy(name, status, links_.borrow(), kept));
    }
    if (::linkat(links_.get(), kept.c_str(), to_.get(), name.c_str(), 0) == 0) {
      return absl::OkStatus();
    }
    const int error = errno;
    // More links than the file system has room for, or the source has changed.
    if (error == EMLINK || error == ENOENT) {
      return Copy(name, status, to_.borrow(), name);
    }
    return CopyError(error, "linkat", name);
  }

  absl::Status Copy(const std::string& name, const struct stat& status,
                    BorrowedFd to, const std::string& to_name) {
    if (S_ISREG(status.st_mode)) return CopyFile(name, to, to_name);
    if (S_ISLNK(status.st_mode)) {
      char target[PATH_MAX];
      const ssize_t size =
          ::readlinkat(from_.get(), name.c_str(), target, sizeof(target) - 1);
      if (size < 0) return Vanished("readlinkat", name);
      target[size] = '\0';
      if (::symlinkat(target, to.get(), to_name.c_str()) != 0) {
        return CopyError(errno, "symlinkat", name);
      }
    } else if (::mknodat(to.get(), to_name.c_str(),
                         (status.st_mode & S_IFMT) | 0600,
                         status.st_rdev) != 0) {
      return CopyError(
          errno, "mknodat", name,
          errno == EPERM ? "making device nodes needs CAP_MKNOD" : "");
    }
    return CopyAttributesAt(from_.borrow(), name, status, to, to_name);
  }

  absl::Status CopyFile(const std::string& name, BorrowedFd to,
                        const std::string& to_name) {
    // By now it may be a device, which must not even be opened.
    UniqueFd found(
        OpenAt2Raw(from_.get(), name.c_str(), O_PATH | O_NOFOLLOW, kHere));
    if (!found.valid() && errno == EXDEV) return absl::OkStatus();
    if (!found.valid()) return Vanished("open", name);
    struct stat status;
    if (::fstat(found.get(), &status) != 0) return Vanished("fstat", name);
    if (!S_ISREG(status.st_mode)) return absl::OkStatus();
    ASSIGN_OR_RETURN(const UniqueFd in,
                     OpenFound(std::move(found), name, O_RDONLY | O_NONBLOCK));
    UniqueFd out(::openat(to.get(), to_name.c_str(),
                          O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                          0600));
    if (!out.valid()) return CopyError(errno, "openat", name);
    RETURN_IF_ERROR(CopyData(in.borrow(), out.borrow(), status.st_size, name));
    return CopyAttributesAt(from_.borrow(), name, status, to, to_name);
  }

  // What is gone is not copied.
  static absl::Status Vanished(absl::string_view call,
                               const std::string& name) {
    if (errno == ENOENT || errno == ELOOP || errno == EINVAL) {
      return absl::OkStatus();
    }
    return CopyError(errno, call, name);
  }

  absl::Status MakeLinks() {
    if (links_.valid()) return absl::OkStatus();
    ASSIGN_OR_RETURN(const std::string unique, UniqueName());
    links_name_ = absl::StrCat(".caisson-links-", unique);
    RETURN_IF_ERROR(MakeDirectory(top_to_, links_name_, 0700));
    ASSIGN_OR_RETURN(links_, OpenDirectory(top_to_, links_name_));
    return absl::OkStatus();
  }

  absl::Status RemoveLinks() {
    if (!links_.valid()) return absl::OkStatus();
    for (const auto& [identity, kept] : linked_) {
      if (::unlinkat(links_.get(), kept.c_str(), 0) != 0 && errno != ENOENT) {
        return CopyError(errno, "unlinkat", kept);
      }
    }
    if (::unlinkat(top_to_.get(), links_name_.c_str(), AT_REMOVEDIR) != 0) {
      return CopyError(errno, "rmdir", links_name_);
    }
    return absl::OkStatus();
  }

  const BorrowedFd top_from_;
  const BorrowedFd top_to_;
  UniqueFd from_;  // where the copy is
  UniqueFd to_;
  std::vector<Level> levels_;
  UniqueFd links_;  // below top_to_: one name of every file with several
  std::string links_name_;
  std::map<Identity, std::string> linked_;
};

}  // namespace

absl::Status CopyTree(BorrowedFd from, BorrowedFd to) {
  return TreeCopier(from, to).Run();
}

absl::Status CopyAttributes(BorrowedFd from, BorrowedFd to) {
  struct stat status;
  if (::fstat(from.get(), &status) != 0) return CopyError(errno, "fstat", ".");
  return CopyAttributesAt(from, ".", status, to, ".");
}

absl::Status CopyFileData(BorrowedFd from, BorrowedFd to, off_t size,
                          const std::string& name) {
  return CopyData(from, to, size, name);
}

}  // namespace caisson::sys
