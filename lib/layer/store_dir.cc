#include "lib/layer/store_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <climits>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "caisson/error.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/layer/store_lock.h"
#include "lib/sys/directory.h"
#include "lib/sys/file_size.h"
#include "lib/sys/open.h"
#include "lib/sys/remove_tree.h"

namespace caisson::layer {
namespace {

constexpr char kIndexFile[] = "index.db";
constexpr char kReserve[] = "reserve";
// SQLite writes each page that a transaction changes: a removal some hundred
// KB.
constexpr off_t kReserveBytes = off_t{1} << 20;

// Opens `path`, making it if its parent exists.
absl::StatusOr<UniqueFd> OpenRoot(const std::string& path) {
  if (path.empty()) {
    return absl::InvalidArgumentError("LayerStoreOptions::path is empty");
  }
  const bool made = ::mkdir(path.c_str(), 0700) == 0;
  if (!made && errno != EEXIST) {
    return ErrnoError(errno, absl::StrCat("mkdir(", Quoted(path), ", 0700)"),
                      {.step = "layer.store", .path = path});
  }
  ASSIGN_OR_RETURN(UniqueFd root, sys::Open(path, O_RDONLY | O_DIRECTORY));
  if (!made) return root;
  // Its name, too, has to be there after a power failure.
  const std::string parent = absl::StrCat(path, "/..");
  const auto above = sys::Open(parent, O_RDONLY | O_DIRECTORY);
  if (above.ok()) {
    RETURN_IF_ERROR(sys::SyncDirectory(above->borrow(), parent));
  } else if (::syncfs(root.get()) != 0) {  // it may not be read
    return ErrnoError(errno, absl::StrCat("syncfs(", Quoted(path), ")"),
                      {.step = "layer.store", .path = path});
  }
  return root;
}

// Makes the layer of images without layers. Who was killed while making it may
// have left it with what the umask allows.
absl::Status MakeEmptyLayer(BorrowedFd root) {
  ASSIGN_OR_RETURN(const UniqueFd empty,
                   sys::OpenOrMakeDirectory(root, "empty", 0755));
  struct stat status = {};
  if (::fstat(empty.get(), &status) == 0 && (status.st_mode & 07777) == 0755) {
    return absl::OkStatus();
  }
  if (::fchmod(empty.get(), 0755) == 0) return absl::OkStatus();
  return ErrnoError(errno, "fchmod(\"empty\", 0755)",
                    {.step = "layer.store", .path = "empty"});
}

// A store holds set-id files of images and unfinished layers: nobody else may
// look in (CVE-2021-41091), and nobody else may have put it there.
absl::Status MakePrivate(BorrowedFd root, const std::string& path) {
  struct stat status = {};
  if (::fstat(root.get(), &status) != 0) {
    return ErrnoError(errno, absl::StrCat("fstat(", Quoted(path), ")"),
                      {.step = "layer.store", .path = path});
  }
  if (status.st_uid != ::geteuid()) {
    return absl::PermissionDeniedError(absl::StrCat(
        Quoted(path), " belongs to user ", status.st_uid,
        ", not to this process's user ", ::geteuid(),
        "; its owner could change images behind the store's back"));
  }
  if ((status.st_mode & 07777) == 0700) return absl::OkStatus();
  if (::fchmod(root.get(), 0700) != 0) {
    return ErrnoError(errno, absl::StrCat("fchmod(", Quoted(path), ", 0700)"),
                      {.step = "layer.store", .path = path});
  }
  return absl::OkStatus();
}

// Refuses to turn a directory with other things in it into a store.
absl::Status CheckIsStoreOrEmpty(BorrowedFd root, const std::string& path) {
  ASSIGN_OR_RETURN(const auto names, sys::ListDirectory(root));
  // What stores of the library have in it by default, whichever is opened first
  // (ContainerStoreOptions), and what a file system has of its own.
  constexpr std::array<absl::string_view, 4> kHarmless = {
      "containers", "ids", "lost+found", "volumes"};
  const auto foreign =
      std::find_if(names.begin(), names.end(), [&](const std::string& name) {
        return std::find(kHarmless.begin(), kHarmless.end(), name) ==
               kHarmless.end();
      });
  if (foreign == names.end() ||
      std::find(names.begin(), names.end(), kLockFile) != names.end()) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      absl::StrCat(Quoted(path), " is neither empty nor a layer store (it has ",
                   Quoted(*foreign), " but no ", Quoted(kLockFile), ")"));
}

// Makes an empty file, mode 0600 whatever the umask, unless it is there. SQLite
// takes an empty file for a new database, and its mode for its other files.
absl::Status MakeFile(BorrowedFd root, const char* name) {
  absl::StatusOr<UniqueFd> fd = sys::OpenAt2(
      root, name, O_RDWR | O_CREAT | O_EXCL, sys::kNoSymlinks, 0600);
  if (absl::IsAlreadyExists(fd.status())) return absl::OkStatus();
  RETURN_IF_ERROR(fd.status());
  if (::fchmod(fd->get(), 0600) == 0) return absl::OkStatus();
  return ErrnoError(errno, absl::StrCat("fchmod(", Quoted(name), ", 0600)"),
                    {.step = "layer.store", .path = name});
}

}  // namespace

const char* FormatName(LayerStoreFormat format) {
  switch (format) {
    case LayerStoreFormat::kOverlay:
      return "overlay";
    case LayerStoreFormat::kOverlayUserxattr:
      return "overlay-userxattr";
    case LayerStoreFormat::kOverlayUserxattrSingle:
      return "overlay-userxattr-single";
  }
  return "";
}

LayerFormat UnpackFormat(LayerStoreFormat format) {
  return format == LayerStoreFormat::kOverlay ? LayerFormat::kOverlayTrusted
                                              : LayerFormat::kOverlayUser;
}

absl::StatusOr<StoreDir> StoreDir::Open(const std::string& path,
                                        LayerStoreFormat format,
                                        bool fs_verity) {
  StoreDir store;
  store.format_ = FormatName(format);
  store.fs_verity_ = fs_verity;
  ASSIGN_OR_RETURN(store.root_, OpenRoot(path));
  RETURN_IF_ERROR(CheckIsStoreOrEmpty(store.root(), path));
  RETURN_IF_ERROR(MakePrivate(store.root(), path));
  RETURN_IF_ERROR(MakeFile(store.root(), kLockFile));
  RETURN_IF_ERROR(MakeFile(store.root(), kIndexFile));
  const auto open = [&store](const char* name) {
    return sys::OpenOrMakeDirectory(store.root(), name, 0700);
  };
  ASSIGN_OR_RETURN(UniqueFd formats, open("layers"));
  ASSIGN_OR_RETURN(store.layers_, sys::OpenOrMakeDirectory(
                                      formats.borrow(), store.format_, 0700));
  ASSIGN_OR_RETURN(store.staging_, open("staging"));
  ASSIGN_OR_RETURN(store.writable_, open(kWritable));
  ASSIGN_OR_RETURN(store.kept_, open(kKept));
  RETURN_IF_ERROR(MakeEmptyLayer(store.root()));
  RETURN_IF_ERROR(sys::SyncDirectory(formats.borrow(), "layers"));
  RETURN_IF_ERROR(sys::SyncDirectory(store.root(), path));
  return store;
}

absl::StatusOr<std::string> StoreDir::IndexPath() const {
  const std::string link = absl::StrCat("/proc/self/fd/", root_.get());
  char buffer[PATH_MAX];
  const ssize_t n = ::readlink(link.c_str(), buffer, sizeof(buffer));
  if (n < 0) {
    return ErrnoError(errno, absl::StrCat("readlink(", Quoted(link), ")"),
                      {.step = "layer.store",
                       .path = link,
                       .hint = "the store needs /proc to be mounted"});
  }
  return absl::StrCat(absl::string_view(buffer, static_cast<size_t>(n)), "/",
                      kIndexFile);
}

absl::StatusOr<UniqueFd> StoreDir::OpenLayer(const Digest& chain_id) const {
  return sys::OpenDirectory(layers(), absl::StrCat(chain_id.hex(), "/", kDiff));
}

absl::StatusOr<UniqueFd> StoreDir::OpenLayerDirectory(
    const Digest& chain_id) const {
  return sys::OpenDirectory(layers(), std::string(chain_id.hex()));
}

absl::StatusOr<UniqueFd> StoreDir::OpenTarSplitOf(
    const Digest& chain_id) const {
  return sys::OpenAt2(layers(), absl::StrCat(chain_id.hex(), "/", kTarSplit),
                      O_RDONLY, sys::kNoSymlinks);
}

bool StoreDir::HasLayer(const Digest& chain_id) const {
  struct stat status = {};
  return ::fstatat(layers_.get(), std::string(chain_id.hex()).c_str(), &status,
                   AT_SYMLINK_NOFOLLOW) == 0;
}

absl::StatusOr<UniqueFd> StoreDir::OpenEmptyLayer() const {
  return sys::OpenDirectory(root(), "empty");
}

void StoreDir::KeepReserve() const {
  const absl::StatusOr<UniqueFd> file = sys::OpenAt2(
      root(), kReserve, O_WRONLY | O_CREAT, sys::kNoSymlinks, 0600);
  if (!file.ok()) return;
  struct stat status = {};
  // Who was killed while making it has left it empty.
  if (::fstat(file->get(), &status) == 0 && status.st_size == kReserveBytes) {
    return;
  }
  if (sys::CheckFileSize(kReserveBytes).ok() &&
      ::fallocate(file->get(), 0, 0, kReserveBytes) == 0) {
    return;
  }
  ::unlinkat(root_.get(), kReserve, 0);
}

bool GiveUpReserve(BorrowedFd root, const absl::Status& status) {
  const auto detail = GetErrorDetail(status);
  return detail.has_value() &&
         (detail->error == ENOSPC || detail->error == EDQUOT) &&
         ::unlinkat(root.get(), kReserve, 0) == 0;
}

Staging::Staging(BorrowedFd parent, sys::OwnedDir dir)
    : parent_(parent), dir_(std::move(dir)), owner_(::getpid()) {}

absl::StatusOr<Staging> Staging::Create(const StoreDir& store) {
  ASSIGN_OR_RETURN(sys::OwnedDir dir, sys::CreateOwnedDir(store.staging()));
  return Staging(store.staging(), std::move(dir));
}

Staging& Staging::operator=(Staging&& other) noexcept {
  if (this == &other) return *this;
  Remove().IgnoreError();
  parent_ = other.parent_;
  dir_ = std::move(other.dir_);
  owner_ = other.owner_;
  return *this;
}

Staging::~Staging() { Remove().IgnoreError(); }

absl::Status Staging::Remove() {
  if (!dir_.fd.valid() || owner_ != ::getpid()) return absl::OkStatus();
  RETURN_IF_ERROR(sys::RemoveTree(parent_, dir_.name));
  dir_.fd.reset();
  return absl::OkStatus();
}

}  // namespace caisson::layer
