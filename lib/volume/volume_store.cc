#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "caisson/volume.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/sys/directory.h"
#include "lib/sys/file_lock.h"
#include "lib/sys/open.h"
#include "lib/sys/owned_dir.h"
#include "lib/sys/remove_tree.h"
#include "lib/sys/tree_size.h"
#include "lib/volume/lease.h"
#include "lib/volume/volume_dir.h"
#include "lib/volume/volume_record.h"

namespace caisson {
namespace {

using ::caisson::volume::DeadUses;

constexpr char kStep[] = "volume.store";
constexpr char kLockFile[] = "volumes.lock";
constexpr char kVolumes[] = "volumes";
constexpr char kStaging[] = "staging";
constexpr char kRemoved[] = "removed";  // in a directory of kStaging
constexpr size_t kAnonymousBytes = 32;
constexpr int kMaxAttempts = 100;  // against somebody who removes what we make

absl::Status Error(int error, absl::string_view call, absl::string_view path) {
  return ErrnoError(error, absl::StrCat(call, "(", Quoted(path), ")"),
                    {.step = kStep, .path = path});
}

// Refuses to turn a directory with other things in it into a store.
absl::Status CheckIsStoreOrEmpty(BorrowedFd root, const std::string& path) {
  ASSIGN_OR_RETURN(const auto names, sys::ListDirectory(root));
  const auto has = [&names](const char* name) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  if (names.empty() || has(kLockFile) ||
      (names.size() == 1 && has("lost+found"))) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(absl::StrCat(
      Quoted(path), " is neither empty nor a volume store (it has ",
      Quoted(names.front()), " but no ", Quoted(kLockFile), ")"));
}

// Volumes hold set-id files of images and containers: nobody else may look in
// (CVE-2021-41091), and nobody else may have put the store there.
absl::Status MakePrivate(BorrowedFd root, const std::string& path) {
  struct stat status = {};
  if (::fstat(root.get(), &status) != 0) return Error(errno, "fstat", path);
  if (status.st_uid != ::geteuid()) {
    return absl::PermissionDeniedError(absl::StrCat(
        Quoted(path), " belongs to user ", status.st_uid,
        ", not to this process's user ", ::geteuid(),
        "; its owner could change volumes behind the store's back"));
  }
  if ((status.st_mode & 07777) == 0700) return absl::OkStatus();
  if (::fchmod(root.get(), 0700) != 0) return Error(errno, "fchmod", path);
  return absl::OkStatus();
}

absl::Status MakeLockFile(BorrowedFd root) {
  auto file = sys::OpenAt2(root, kLockFile, O_RDWR | O_CREAT | O_EXCL,
                           sys::kNoSymlinks, 0600);
  if (absl::IsAlreadyExists(file.status())) return absl::OkStatus();
  RETURN_IF_ERROR(file.status());
  if (::fchmod(file->get(), 0600) != 0)
    return Error(errno, "fchmod", kLockFile);
  return absl::OkStatus();
}

absl::Status NoVolume(absl::string_view name) {
  return absl::NotFoundError(
      absl::StrCat("there is no volume ", Quoted(name), " in the store"));
}

absl::StatusOr<std::string> AnonymousName() {
  char random[kAnonymousBytes];
  if (::getrandom(random, sizeof(random), 0) != sizeof(random)) {
    return ErrnoError(errno, "getrandom(32)", {.step = kStep});
  }
  return absl::BytesToHexString(absl::string_view(random, sizeof(random)));
}

}  // namespace

class VolumeStore::Impl {
 public:
  static absl::StatusOr<std::unique_ptr<Impl>> Open(const std::string& path);

  absl::StatusOr<VolumeInfo> Create(const VolumeOptions& options) const;
  absl::StatusOr<VolumeInfo> Inspect(const std::string& name) const;
  absl::StatusOr<VolumeUse> Use(const std::string& name,
                                const VolumeUseOptions& options) const;
  absl::Status Hold(const std::string& name, const std::string& hold,
                    const VolumeUseOptions& options) const;
  absl::Status Release(const std::string& name, const std::string& hold) const;
  // Empty if the volume was removed; otherwise those who use it.
  absl::StatusOr<std::vector<VolumeUser>> TryRemove(
      const std::string& name) const;
  absl::Status Recover() const;

  absl::StatusOr<std::vector<std::string>> Names() const;
  absl::StatusOr<UniqueFd> OpenVolume(const std::string& name) const;

 private:
  // Held while users are counted or added.
  absl::StatusOr<UniqueFd> Lock() const;
  // The volume, made if it is missing, with Lock() held.
  struct Found {
    UniqueFd dir;
    UniqueFd lock;
  };
  absl::StatusOr<Found> FindOrMake(const std::string& name,
                                   const VolumeUseOptions& options) const;
  absl::Status RecoverStaging() const;
  absl::Status RecoverVolume(const std::string& name) const;

  std::string path_;  // absolute
  UniqueFd root_;
  UniqueFd volumes_;
  UniqueFd staging_;
};

absl::StatusOr<std::unique_ptr<VolumeStore::Impl>> VolumeStore::Impl::Open(
    const std::string& path) {
  if (path.empty() || path.find('\0') != std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat(
        "VolumeStoreOptions.path ", Quoted(path), " is empty or has a NUL"));
  }
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
    return Error(errno, "mkdir", path);
  }
  auto impl = std::make_unique<Impl>();
  ASSIGN_OR_RETURN(impl->root_, sys::Open(path, O_RDONLY | O_DIRECTORY));
  const BorrowedFd root = impl->root_.borrow();
  RETURN_IF_ERROR(CheckIsStoreOrEmpty(root, path));
  RETURN_IF_ERROR(MakePrivate(root, path));
  RETURN_IF_ERROR(MakeLockFile(root));
  ASSIGN_OR_RETURN(impl->volumes_,
                   sys::OpenOrMakeDirectory(root, kVolumes, 0700));
  ASSIGN_OR_RETURN(impl->staging_,
                   sys::OpenOrMakeDirectory(root, kStaging, 0700));
  RETURN_IF_ERROR(sys::SyncDirectory(root, path));
  char resolved[PATH_MAX];
  if (::realpath(path.c_str(), resolved) == nullptr) {
    return Error(errno, "realpath", path);
  }
  impl->path_ = resolved;
  return impl;
}

absl::StatusOr<UniqueFd> VolumeStore::Impl::Lock() const {
  ASSIGN_OR_RETURN(UniqueFd lock, sys::OpenAt2(root_.borrow(), kLockFile,
                                               O_RDWR, sys::kNoSymlinks));
  RETURN_IF_ERROR(sys::LockExclusive(lock.borrow(), kLockFile));
  return lock;
}

absl::StatusOr<UniqueFd> VolumeStore::Impl::OpenVolume(
    const std::string& name) const {
  RETURN_IF_ERROR(volume::CheckName(name));
  auto dir = sys::OpenDirectory(volumes_.borrow(), name);
  if (absl::IsNotFound(dir.status())) return NoVolume(name);
  return dir;
}

absl::StatusOr<std::vector<std::string>> VolumeStore::Impl::Names() const {
  ASSIGN_OR_RETURN(auto names, sys::ListDirectory(volumes_.borrow()));
  std::sort(names.begin(), names.end());
  return names;
}

absl::StatusOr<VolumeInfo> VolumeStore::Impl::Create(
    const VolumeOptions& options) const {
  VolumeInfo info;
  info.name = options.name;
  info.anonymous = options.name.empty();
  if (info.anonymous) {
    ASSIGN_OR_RETURN(info.name, AnonymousName());
  }
  RETURN_IF_ERROR(volume::CheckName(info.name));
  RETURN_IF_ERROR(volume::CheckLabels(options.labels));
  info.labels = options.labels;
  info.created = absl::Now();
  ASSIGN_OR_RETURN(const sys::OwnedDir made,
                   sys::CreateOwnedDir(staging_.borrow()));
  absl::Cleanup remove = [&] {
    sys::RemoveTree(staging_.borrow(), made.name).IgnoreError();
  };
  RETURN_IF_ERROR(
      volume::MakeVolume(made.fd.borrow(), info, options.uid, options.gid));
  const absl::Status renamed = sys::RenameNoReplace(
      staging_.borrow(), made.name, volumes_.borrow(), info.name);
  if (absl::IsAlreadyExists(renamed)) {
    return absl::AlreadyExistsError(absl::StrCat(
        "there is a volume ", Quoted(info.name), " in the store already"));
  }
  RETURN_IF_ERROR(renamed);
  std::move(remove).Cancel();
  RETURN_IF_ERROR(sys::SyncDirectory(volumes_.borrow(), kVolumes));
  info.path =
      absl::StrCat(path_, "/", kVolumes, "/", info.name, "/", volume::kData);
  return info;
}

absl::StatusOr<VolumeInfo> VolumeStore::Impl::Inspect(
    const std::string& name) const {
  ASSIGN_OR_RETURN(const UniqueFd dir, OpenVolume(name));
  auto info = volume::ReadVolume(dir.borrow(), name);
  // Removed since.
  if (absl::IsNotFound(info.status())) return NoVolume(name);
  RETURN_IF_ERROR(info.status());
  auto users = volume::LiveUsers(dir.borrow(), DeadUses::kKeep);
  if (absl::IsNotFound(users.status())) return NoVolume(name);
  RETURN_IF_ERROR(users.status());
  info->users = *std::move(users);
  info->path =
      absl::StrCat(path_, "/", kVolumes, "/", name, "/", volume::kData);
  return info;
}

absl::StatusOr<VolumeStore::Impl::Found> VolumeStore::Impl::FindOrMake(
    const std::string& name, const VolumeUseOptions& options) const {
  for (int i = 0; i < kMaxAttempts; ++i) {
    {
      ASSIGN_OR_RETURN(UniqueFd lock, Lock());
      auto dir = OpenVolume(name);
      if (dir.ok()) return Found{*std::move(dir), std::move(lock)};
      if (!absl::IsNotFound(dir.status()) || !options.create) {
        return dir.status();
      }
    }
    VolumeOptions wanted = options.options;
    wanted.name = name;
    const auto made = Create(wanted);
    if (!made.ok() && !absl::IsAlreadyExists(made.status())) {
      return made.status();
    }
  }
  return absl::AbortedError(absl::StrCat("volume ", Quoted(name),
                                         " was removed ", kMaxAttempts,
                                         " times while it was made"));
}

absl::StatusOr<VolumeUse> VolumeStore::Impl::Use(
    const std::string& name, const VolumeUseOptions& options) const {
  ASSIGN_OR_RETURN(Found found, FindOrMake(name, options));
  ASSIGN_OR_RETURN(auto lease,
                   volume::Lease::Take(std::move(found.dir), name, options));
  return VolumeUse(std::move(lease));
}

absl::Status VolumeStore::Impl::Hold(const std::string& name,
                                     const std::string& hold,
                                     const VolumeUseOptions& options) const {
  RETURN_IF_ERROR(Annotate(volume::CheckName(hold), "the name of the hold"));
  ASSIGN_OR_RETURN(const Found found, FindOrMake(name, options));
  return volume::AddHold(found.dir.borrow(), hold, options.user);
}

absl::Status VolumeStore::Impl::Release(const std::string& name,
                                        const std::string& hold) const {
  RETURN_IF_ERROR(Annotate(volume::CheckName(hold), "the name of the hold"));
  const auto dir = OpenVolume(name);
  if (absl::IsNotFound(dir.status())) return absl::OkStatus();
  RETURN_IF_ERROR(dir.status());
  return volume::DropHold(dir->borrow(), hold);
}

absl::StatusOr<std::vector<VolumeUser>> VolumeStore::Impl::TryRemove(
    const std::string& name) const {
  absl::StatusOr<sys::OwnedDir> trash = absl::UnknownError("");
  {
    ASSIGN_OR_RETURN(const UniqueFd lock, Lock());
    ASSIGN_OR_RETURN(const UniqueFd dir, OpenVolume(name));
    ASSIGN_OR_RETURN(auto users,
                     volume::LiveUsers(dir.borrow(), DeadUses::kRemove));
    if (!users.empty()) return users;
    trash = sys::CreateOwnedDir(staging_.borrow());
    RETURN_IF_ERROR(trash.status());
    absl::Status moved = sys::RenameNoReplace(volumes_.borrow(), name,
                                              trash->fd.borrow(), kRemoved);
    if (!moved.ok()) {
      sys::RemoveTree(staging_.borrow(), trash->name).IgnoreError();
      return moved;
    }
    RETURN_IF_ERROR(sys::SyncDirectory(volumes_.borrow(), kVolumes));
  }
  RETURN_IF_ERROR(sys::RemoveTree(staging_.borrow(), trash->name));
  return std::vector<VolumeUser>();
}

absl::Status VolumeStore::Impl::RecoverStaging() const {
  ASSIGN_OR_RETURN(const auto names, sys::ListDirectory(staging_.borrow()));
  absl::Status first;
  for (const std::string& name : names) {
    const auto owned = sys::TryOwnDir(staging_.borrow(), name);
    if (absl::IsNotFound(owned.status())) continue;
    if (owned.ok() && !owned->has_value()) continue;
    first.Update(owned.ok() ? sys::RemoveTree(staging_.borrow(), name)
                            : owned.status());
  }
  return first;
}

absl::Status VolumeStore::Impl::RecoverVolume(const std::string& name) const {
  auto dir = OpenVolume(name);
  if (!dir.ok()) return dir.status();
  {
    ASSIGN_OR_RETURN(const UniqueFd lock, Lock());
    RETURN_IF_ERROR(
        volume::LiveUsers(dir->borrow(), DeadUses::kRemove).status());
  }
  return volume::RecoverCopy(dir->borrow());
}

absl::Status VolumeStore::Impl::Recover() const {
  absl::Status first = RecoverStaging();
  ASSIGN_OR_RETURN(const auto names, Names());
  for (const std::string& name : names) {
    absl::Status status = RecoverVolume(name);
    if (status.ok() || absl::IsNotFound(status)) continue;
    first.Update(Annotate(status, absl::StrCat("volume ", Quoted(name))));
  }
  return first;
}

VolumeStore::VolumeStore(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
VolumeStore::VolumeStore(VolumeStore&&) noexcept = default;
VolumeStore& VolumeStore::operator=(VolumeStore&&) noexcept = default;
VolumeStore::~VolumeStore() = default;

absl::StatusOr<VolumeStore> VolumeStore::Open(
    const VolumeStoreOptions& options) {
  ASSIGN_OR_RETURN(auto impl, Impl::Open(options.path));
  if (options.recover) RETURN_IF_ERROR(impl->Recover());
  return VolumeStore(std::move(impl));
}

absl::StatusOr<VolumeInfo> VolumeStore::Create(
    const VolumeOptions& options) const {
  return impl_->Create(options);
}

absl::StatusOr<VolumeInfo> VolumeStore::Inspect(absl::string_view name) const {
  return impl_->Inspect(std::string(name));
}

absl::StatusOr<std::vector<VolumeInfo>> VolumeStore::List(
    const VolumeFilter& filter) const {
  ASSIGN_OR_RETURN(const auto names, impl_->Names());
  std::vector<VolumeInfo> volumes;
  for (const std::string& name : names) {
    auto info = impl_->Inspect(name);
    if (absl::IsNotFound(info.status())) continue;
    RETURN_IF_ERROR(info.status());
    if (volume::Matches(filter, *info)) volumes.push_back(*std::move(info));
  }
  return volumes;
}

absl::StatusOr<VolumeUsage> VolumeStore::Usage(absl::string_view name) const {
  ASSIGN_OR_RETURN(const UniqueFd dir, impl_->OpenVolume(std::string(name)));
  ASSIGN_OR_RETURN(const UniqueFd data,
                   sys::OpenDirectory(dir.borrow(), volume::kData));
  ASSIGN_OR_RETURN(const sys::TreeSize size, sys::SizeOfTree(data.borrow()));
  return VolumeUsage{size.bytes, size.files};
}

absl::StatusOr<VolumeUse> VolumeStore::Use(
    absl::string_view name, const VolumeUseOptions& options) const {
  return impl_->Use(std::string(name), options);
}

absl::Status VolumeStore::Hold(absl::string_view name, absl::string_view hold,
                               const VolumeUseOptions& options) const {
  return impl_->Hold(std::string(name), std::string(hold), options);
}

absl::Status VolumeStore::Release(absl::string_view name,
                                  absl::string_view hold) const {
  return impl_->Release(std::string(name), std::string(hold));
}

absl::Status VolumeStore::Remove(absl::string_view name) const {
  ASSIGN_OR_RETURN(const auto users, impl_->TryRemove(std::string(name)));
  if (users.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "volume ", Quoted(name), " is in use by ", volume::DescribeUsers(users)));
}

absl::StatusOr<VolumePruneReport> VolumeStore::Prune(
    const VolumePruneOptions& options) const {
  ASSIGN_OR_RETURN(const auto names, impl_->Names());
  VolumeFilter filter = options.filter;
  filter.in_use = false;
  VolumePruneReport report;
  for (const std::string& name : names) {
    auto info = impl_->Inspect(name);
    if (absl::IsNotFound(info.status())) continue;
    if (!info.ok()) {
      report.failures.push_back(info.status());
      continue;
    }
    if ((!info->anonymous && !options.named) ||
        !volume::Matches(filter, *info)) {
      continue;
    }
    const auto users = impl_->TryRemove(name);
    if (absl::IsNotFound(users.status())) continue;
    if (!users.ok()) {
      report.failures.push_back(users.status());
    } else if (users->empty()) {
      report.removed.push_back(name);
    }
  }
  return report;
}

absl::Status VolumeStore::Recover() const { return impl_->Recover(); }

}  // namespace caisson
