#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "caisson/layer_store.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/layer/layer_quota.h"
#include "lib/layer/layer_store_impl.h"
#include "lib/layer/store_dir.h"
#include "lib/sys/directory.h"
#include "lib/sys/open.h"
#include "lib/sys/owned_dir.h"
#include "lib/sys/remove_tree.h"
#include "lib/sys/tree_size.h"

namespace caisson {
namespace {

constexpr char kUpper[] = "upper";
constexpr char kWork[] = "work";

absl::Status AttributeError(absl::string_view call) {
  return ErrnoError(errno, absl::StrCat(call, "(", Quoted(kUpper), ")"),
                    {.step = "layer.writable", .path = kUpper});
}

// Attributes that say how overlayfs uses a directory, or that the kernel makes.
bool IsCopied(absl::string_view name) {
  return !absl::StartsWith(name, "trusted.overlay.") &&
         !absl::StartsWith(name, "user.overlay.") &&
         !absl::StartsWith(name, "security.");
}

absl::Status CopyXattrs(BorrowedFd from, BorrowedFd to) {
  std::vector<char> names(XATTR_LIST_MAX);
  std::vector<char> value(XATTR_SIZE_MAX);
  const ssize_t length = ::flistxattr(from.get(), names.data(), names.size());
  if (length < 0 && errno == ENOTSUP) return absl::OkStatus();
  if (length < 0) return AttributeError("flistxattr");
  for (const char* name = names.data(); name < names.data() + length;
       name += ::strlen(name) + 1) {
    if (!IsCopied(name)) continue;
    const ssize_t size =
        ::fgetxattr(from.get(), name, value.data(), value.size());
    if (size < 0 && errno == ENODATA) continue;
    if (size < 0 || ::fsetxattr(to.get(), name, value.data(),
                                static_cast<size_t>(size), 0) != 0) {
      return AttributeError(absl::StrCat("setxattr ", name));
    }
  }
  return absl::OkStatus();
}

// Makes `upper` look like the root of the layer below it: in an overlay, the
// root's attributes are those of its upper directory.
absl::Status SetRootAttributes(BorrowedFd upper,
                               const WritableLayerOptions& options) {
  struct stat root = {};
  root.st_mode = 0755;
  // Root, but for a process that can give files to nobody else.
  root.st_uid = ::geteuid();
  root.st_gid = ::getegid();
  if (options.lower != nullptr) {
    const BorrowedFd lower = options.lower->dirs().front();
    if (::fstat(lower.get(), &root) != 0) return AttributeError("fstat");
    RETURN_IF_ERROR(CopyXattrs(lower, upper));
  }
  const uid_t uid = options.uid.value_or(root.st_uid);
  const gid_t gid = options.gid.value_or(root.st_gid);
  if (::fchown(upper.get(), uid, gid) != 0) return AttributeError("fchown");
  if (::fchmod(upper.get(), root.st_mode & 07777) != 0) {
    return AttributeError("fchmod");
  }
  if (options.lower == nullptr) return absl::OkStatus();
  const struct timespec times[2] = {root.st_atim, root.st_mtim};
  if (::futimens(upper.get(), times) != 0) return AttributeError("futimens");
  return absl::OkStatus();
}

absl::Status CheckName(absl::string_view name) {
  return layer::CheckKeptName("name of a writable layer", name);
}

absl::StatusOr<UniqueFd> OpenPart(BorrowedFd dir, const char* name) {
  return sys::OpenDirectory(dir, name);
}

absl::Status ChangeOwner(BorrowedFd work, const WritableLayerOptions& options) {
  if (!options.uid.has_value() && !options.gid.has_value()) {
    return absl::OkStatus();
  }
  if (::fchown(work.get(), options.uid.value_or(::geteuid()),
               options.gid.value_or(::getegid())) == 0) {
    return absl::OkStatus();
  }
  return ErrnoError(errno, "fchown(\"work\")",
                    {.step = "layer.writable", .path = kWork});
}

}  // namespace

absl::Status layer::CheckKeptName(absl::string_view what,
                                  absl::string_view name) {
  const bool characters = std::all_of(name.begin(), name.end(), [](char c) {
    return absl::ascii_isalnum(c) || c == '_' || c == '.' || c == '-';
  });
  if (!name.empty() && name.size() <= 128 && characters &&
      absl::ascii_isalnum(name.front())) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      what, ": ", Quoted(name.substr(0, 160)),
      ", expected a letter or digit, then up to 127 letters, digits, \"_\", "
      "\".\" and \"-\""));
}

absl::StatusOr<WritableLayer> LayerStore::CreateWritableLayer(
    const WritableLayerOptions& options) const {
  const layer::StoreDir& store = impl_->dir;
  ASSIGN_OR_RETURN(sys::OwnedDir owned, sys::CreateOwnedDir(store.writable()));
  absl::Cleanup remove = [&store, &owned] {
    layer::ReleaseLayer(owned.fd.borrow()).IgnoreError();
    sys::RemoveTree(store.writable(), owned.name).IgnoreError();
  };
  WritableLayer made;
  made.name_ = owned.name;
  made.directory_ = layer::kWritable;
  made.owner_ = ::getpid();
  if (options.size_bytes != 0 || options.max_files != 0) {
    // First of all: what is made in it is limited by that.
    RETURN_IF_ERROR(layer::LimitLayer(owned.fd.borrow(), options.size_bytes,
                                      options.max_files));
  }
  RETURN_IF_ERROR(sys::MakeDirectory(owned.fd.borrow(), kUpper, 0700));
  RETURN_IF_ERROR(sys::MakeDirectory(owned.fd.borrow(), kWork, 0700));
  ASSIGN_OR_RETURN(made.upper_, OpenPart(owned.fd.borrow(), kUpper));
  ASSIGN_OR_RETURN(made.work_, OpenPart(owned.fd.borrow(), kWork));
  RETURN_IF_ERROR(SetRootAttributes(made.upper(), options));
  RETURN_IF_ERROR(ChangeOwner(made.work(), options));
  ASSIGN_OR_RETURN(made.store_, sys::Duplicate(store.root()));
  // From here on the destructor removes it.
  std::move(remove).Cancel();
  made.dir_ = std::move(owned.fd);
  return made;
}

absl::StatusOr<WritableLayer> LayerStore::OpenWritableLayer(
    absl::string_view name) const {
  RETURN_IF_ERROR(CheckName(name));
  const layer::StoreDir& store = impl_->dir;
  auto owned = sys::TryOwnDir(store.kept(), std::string(name));
  if (absl::IsNotFound(owned.status())) {
    return absl::NotFoundError(absl::StrCat("there is no kept writable layer ",
                                            Quoted(name), " in the store"));
  }
  RETURN_IF_ERROR(owned.status());
  if (!owned->has_value()) {
    return absl::FailedPreconditionError(
        absl::StrCat("the writable layer ", Quoted(name),
                     " is in use by another process or "
                     "another WritableLayer"));
  }
  WritableLayer opened;
  opened.keep_ = true;
  opened.name_ = std::string(name);
  opened.directory_ = layer::kKept;
  opened.owner_ = ::getpid();
  opened.dir_ = std::move((*owned)->fd);
  ASSIGN_OR_RETURN(opened.upper_, OpenPart(opened.lock(), kUpper));
  ASSIGN_OR_RETURN(opened.work_, OpenPart(opened.lock(), kWork));
  ASSIGN_OR_RETURN(opened.store_, sys::Duplicate(store.root()));
  return opened;
}

absl::StatusOr<UniqueFd> LayerStore::OpenUpper(absl::string_view name) const {
  RETURN_IF_ERROR(CheckName(name));
  auto upper =
      sys::OpenDirectory(impl_->dir.kept(), absl::StrCat(name, "/", kUpper));
  if (!absl::IsNotFound(upper.status())) return upper;
  return absl::NotFoundError(absl::StrCat("there is no kept writable layer ",
                                          Quoted(name), " in the store"));
}

absl::StatusOr<std::vector<std::string>> LayerStore::ListWritableLayers()
    const {
  ASSIGN_OR_RETURN(std::vector<std::string> names,
                   sys::ListDirectory(impl_->dir.kept()));
  std::sort(names.begin(), names.end());
  return names;
}

WritableLayer::WritableLayer(WritableLayer&&) noexcept = default;

WritableLayer& WritableLayer::operator=(WritableLayer&& other) noexcept {
  if (this == &other) return *this;
  Abandon();
  store_ = std::move(other.store_);
  directory_ = std::move(other.directory_);
  name_ = std::move(other.name_);
  dir_ = std::move(other.dir_);
  upper_ = std::move(other.upper_);
  work_ = std::move(other.work_);
  keep_ = other.keep_;
  disowned_ = other.disowned_;
  owner_ = other.owner_;
  return *this;
}

WritableLayer::~WritableLayer() { Abandon(); }

void WritableLayer::Abandon() {
  if (!keep_ && !disowned_ && owner_ == ::getpid()) Destroy().IgnoreError();
}

absl::StatusOr<LayerUsage> WritableLayer::Usage() const {
  if (!dir_.valid()) {
    return absl::FailedPreconditionError(
        "Usage: the writable layer has been destroyed");
  }
  ASSIGN_OR_RETURN(const auto quota, layer::QuotaOfLayer(lock()));
  if (quota.has_value()) {
    return LayerUsage{.bytes = quota->bytes,
                      .files = quota->files,
                      .max_bytes = quota->max_bytes,
                      .max_files = quota->max_files};
  }
  ASSIGN_OR_RETURN(const sys::TreeSize size, sys::SizeOfTree(upper_.borrow()));
  // Without the directory itself, which is there from the start.
  return LayerUsage{.bytes = size.bytes, .files = size.files - 1};
}

absl::Status WritableLayer::Keep(absl::string_view name) {
  RETURN_IF_ERROR(CheckName(name));
  if (!dir_.valid()) {
    return absl::FailedPreconditionError(
        "Keep: the writable layer has been destroyed");
  }
  if (keep_ && name_ == name) return absl::OkStatus();
  ASSIGN_OR_RETURN(UniqueFd from,
                   OpenPart(store_.borrow(), directory_.c_str()));
  ASSIGN_OR_RETURN(UniqueFd kept, OpenPart(store_.borrow(), layer::kKept));
  // The entries "upper" and "work" first: a kept layer must have both.
  RETURN_IF_ERROR(sys::SyncDirectory(dir_.borrow(), name_));
  const absl::Status renamed = sys::RenameNoReplace(
      from.borrow(), name_, kept.borrow(), std::string(name));
  if (absl::IsAlreadyExists(renamed)) {
    return absl::AlreadyExistsError(
        absl::StrCat("there is a kept writable layer ", Quoted(name),
                     " in the store already"));
  }
  RETURN_IF_ERROR(renamed);
  name_ = std::string(name);
  directory_ = layer::kKept;
  keep_ = true;
  RETURN_IF_ERROR(sys::SyncDirectory(kept.borrow(), layer::kKept));
  return sys::SyncDirectory(from.borrow(), layer::kWritable);
}

absl::Status WritableLayer::Destroy() {
  if (!dir_.valid()) return absl::OkStatus();
  ASSIGN_OR_RETURN(UniqueFd writable,
                   OpenPart(store_.borrow(), layer::kWritable));
  if (keep_) {
    // Back to where Recover would finish this if it is interrupted.
    ASSIGN_OR_RETURN(UniqueFd kept, OpenPart(store_.borrow(), layer::kKept));
    ASSIGN_OR_RETURN(std::string name, sys::UniqueName());
    RETURN_IF_ERROR(
        sys::RenameNoReplace(kept.borrow(), name_, writable.borrow(), name));
    name_ = std::move(name);
    directory_ = layer::kWritable;
    keep_ = false;
    RETURN_IF_ERROR(sys::SyncDirectory(kept.borrow(), layer::kKept));
  }
  RETURN_IF_ERROR(layer::ReleaseLayer(lock()));
  RETURN_IF_ERROR(sys::RemoveTree(writable.borrow(), name_));
  work_.reset();
  upper_.reset();
  dir_.reset();
  return absl::OkStatus();
}

}  // namespace caisson
