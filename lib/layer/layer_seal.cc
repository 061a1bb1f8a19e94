#include "lib/layer/layer_seal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fsverity.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <map>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/layer/digest.h"
#include "lib/sys/directory.h"
#include "lib/sys/open.h"
#include "lib/sys/xattr.h"

namespace caisson::layer {
namespace {

constexpr uint64_t kHere = sys::kNoSymlinks | RESOLVE_NO_XDEV;
constexpr char kProbe[] = "verity";
// A descriptor for writing that a child of this process inherited by fork goes
// when the child executes something or ends. No event says so.
constexpr int kBusyMs = 2;
constexpr int kBusyAttempts = 500;

absl::Status Error(absl::string_view call, const std::string& path) {
  return ErrnoError(errno, absl::StrCat(call, "(", Quoted(path), ")"),
                    {.step = "layer.seal", .path = path});
}

absl::Status NoVerity(int error) {
  if (error == EOPNOTSUPP) {
    return absl::FailedPreconditionError(
        "fs-verity: this file system has it turned off (ext4 and f2fs need the "
        "feature \"verity\", tune2fs -O verity, and ext4 before Linux 6.3 "
        "blocks "
        "of the page's size), or the kernel lacks CONFIG_FS_VERITY");
  }
  return absl::FailedPreconditionError(
      "fs-verity: this file system has none (ext4, f2fs and btrfs have), or "
      "the kernel lacks CONFIG_FS_VERITY");
}

// 0 or an errno.
int EnableOnce(BorrowedFd file) {
  struct fsverity_enable_arg argument = {};
  argument.version = 1;
  argument.hash_algorithm = FS_VERITY_HASH_ALG_SHA256;
  // What every kernel can on every architecture: the page's size.
  argument.block_size = static_cast<uint32_t>(::sysconf(_SC_PAGESIZE));
  return ::ioctl(file.get(), FS_IOC_ENABLE_VERITY, &argument) == 0 ? 0 : errno;
}

absl::Status Enable(BorrowedFd file, const std::string& path) {
  int error = EnableOnce(file);
  for (int i = 0; error == ETXTBSY && i < kBusyAttempts; ++i) {
    ::poll(nullptr, 0, kBusyMs);
    error = EnableOnce(file);
  }
  if (error == 0 || error == EEXIST) return absl::OkStatus();
  if (error == EOPNOTSUPP || error == ENOTTY) return NoVerity(error);
  errno = error;
  return Error("ioctl(FS_IOC_ENABLE_VERITY)", path);
}

// "sha256:..." of a file with fs-verity.
absl::StatusOr<std::string> Measure(BorrowedFd file, const std::string& path) {
  constexpr size_t kSha256 = 32;
  alignas(fsverity_digest) std::array<char, sizeof(fsverity_digest) + kSha256>
      buffer = {};
  auto* digest = reinterpret_cast<fsverity_digest*>(buffer.data());
  digest->digest_size = kSha256;
  if (::ioctl(file.get(), FS_IOC_MEASURE_VERITY, digest) == 0) {
    return absl::BytesToHexString(absl::string_view(
        buffer.data() + sizeof(fsverity_digest), digest->digest_size));
  }
  if (errno == ENODATA) {
    return absl::FailedPreconditionError(
        absl::StrCat(Quoted(path), " has no fs-verity"));
  }
  if (errno == EOPNOTSUPP || errno == ENOTTY) return NoVerity(errno);
  return Error("ioctl(FS_IOC_MEASURE_VERITY)", path);
}

class Sealer final {
 public:
  Sealer(BorrowedFd layer, bool enable) : layer_(layer), enable_(enable) {}

  absl::StatusOr<std::string> Run() {
    std::vector<std::string> pending = {""};
    while (!pending.empty()) {
      const std::string path = std::move(pending.back());
      pending.pop_back();
      ASSIGN_OR_RETURN(
          const UniqueFd dir,
          sys::OpenAt2(layer_, path.empty() ? "." : path,
                       O_RDONLY | O_DIRECTORY | O_NOFOLLOW, kHere));
      ASSIGN_OR_RETURN(std::vector<std::string> names,
                       sys::ListDirectory(dir.borrow()));
      std::sort(names.begin(), names.end());
      for (const std::string& name : names) {
        const std::string child =
            path.empty() ? name : absl::StrCat(path, "/", name);
        ASSIGN_OR_RETURN(const bool directory, Add(dir.borrow(), name, child));
        if (directory) pending.push_back(child);
      }
    }
    return hash_.Finish().str();
  }

 private:
  // Length first, so that no two trees have the same bytes.
  void Put(absl::string_view text) {
    const std::string line = absl::StrCat(text.size(), ":", text, "\n");
    hash_.Update(line);
  }

  // True for a directory.
  absl::StatusOr<bool> Add(BorrowedFd dir, const std::string& name,
                           const std::string& path) {
    struct stat status;
    if (::fstatat(dir.get(), name.c_str(), &status, AT_SYMLINK_NOFOLLOW) != 0) {
      return Error("fstatat", path);
    }
    Put(path);
    Put(absl::StrCat(status.st_mode, " ", status.st_uid, " ", status.st_gid,
                     " ", status.st_mtim.tv_sec, " ", status.st_mtim.tv_nsec,
                     " ", status.st_rdev));
    RETURN_IF_ERROR(AddXattrs(dir, name));
    if (S_ISREG(status.st_mode))
      RETURN_IF_ERROR(AddFile(dir, name, path, status));
    if (S_ISLNK(status.st_mode)) RETURN_IF_ERROR(AddLink(dir, name, path));
    return S_ISDIR(status.st_mode);
  }

  absl::Status AddXattrs(BorrowedFd dir, const std::string& name) {
    ASSIGN_OR_RETURN(std::vector<sys::Xattr> xattrs,
                     sys::ReadXattrsAt(dir, name));
    std::sort(xattrs.begin(), xattrs.end());
    for (const auto& [key, value] : xattrs) {
      // The host's to give, and to change.
      if (key == "security.selinux") continue;
      Put(key);
      Put(value);
    }
    return absl::OkStatus();
  }

  absl::Status AddFile(BorrowedFd dir, const std::string& name,
                       const std::string& path, const struct stat& status) {
    if (status.st_nlink > 1) {
      const auto [first, added] = names_.try_emplace(status.st_ino, path);
      if (!added) {
        Put(first->second);
        return absl::OkStatus();
      }
    }
    ASSIGN_OR_RETURN(
        const UniqueFd file,
        sys::OpenAt2(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, kHere));
    if (enable_) {
      RETURN_IF_ERROR(Enable(file.borrow(), path));
      // The hash tree counts as a write to ext4.
      const struct timespec times[2] = {status.st_atim, status.st_mtim};
      if (::futimens(file.get(), times) != 0) return Error("futimens", path);
    }
    ASSIGN_OR_RETURN(const std::string digest, Measure(file.borrow(), path));
    Put(absl::StrCat(status.st_size, " ", digest));
    return absl::OkStatus();
  }

  absl::Status AddLink(BorrowedFd dir, const std::string& name,
                       const std::string& path) {
    char target[PATH_MAX];
    const ssize_t n =
        ::readlinkat(dir.get(), name.c_str(), target, sizeof(target));
    if (n < 0) return Error("readlinkat", path);
    Put(absl::string_view(target, static_cast<size_t>(n)));
    return absl::OkStatus();
  }

  const BorrowedFd layer_;
  const bool enable_;
  Sha256 hash_;
  std::map<ino_t, std::string> names_;  // of files with several, the first
};

}  // namespace

absl::Status CheckVerity(BorrowedFd dir) {
  {
    ASSIGN_OR_RETURN(const UniqueFd made,
                     sys::OpenAt2(dir, kProbe, O_WRONLY | O_CREAT | O_EXCL,
                                  sys::kNoSymlinks, 0600));
  }
  const absl::Status status = [dir]() -> absl::Status {
    ASSIGN_OR_RETURN(const UniqueFd file,
                     sys::OpenAt2(dir, kProbe, O_RDONLY, sys::kNoSymlinks));
    return Enable(file.borrow(), kProbe);
  }();
  if (::unlinkat(dir.get(), kProbe, 0) != 0) return Error("unlinkat", kProbe);
  return status;
}

absl::StatusOr<std::string> SealLayer(BorrowedFd layer) {
  return Sealer(layer, /*enable=*/true).Run();
}

absl::StatusOr<std::string> SealOfLayer(BorrowedFd layer) {
  return Sealer(layer, /*enable=*/false).Run();
}

}  // namespace caisson::layer
