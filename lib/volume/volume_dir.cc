#include "lib/volume/volume_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/record.h"
#include "lib/base/status_macros.h"
#include "lib/sys/copy_tree.h"
#include "lib/sys/directory.h"
#include "lib/sys/file_lock.h"
#include "lib/sys/open.h"
#include "lib/sys/owned_dir.h"
#include "lib/sys/remove_tree.h"
#include "lib/volume/volume_record.h"

namespace caisson::volume {
namespace {

constexpr char kStep[] = "volume";
constexpr char kRecord[] = "volume";
constexpr char kUses[] = "uses";
constexpr char kHolds[] = "holds";
// No hold has this name; what a killed process left of one is overwritten.
constexpr char kNewHold[] = ".new";
constexpr char kCopying[] = "copying";  // may be incomplete
constexpr char kCopied[] = "copied";    // complete; on its way to "data"
constexpr mode_t kDataMode = 0755;

absl::Status Error(int error, absl::string_view call, absl::string_view name) {
  return ErrnoError(error, absl::StrCat(call, "(", Quoted(name), ")"),
                    {.step = kStep, .path = name});
}

bool Exists(BorrowedFd dir, const char* name) {
  return ::faccessat(dir.get(), name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

// Makes the file with mode 0600, whatever the umask.
absl::StatusOr<UniqueFd> MakeFile(BorrowedFd dir, const std::string& name) {
  ASSIGN_OR_RETURN(UniqueFd file,
                   sys::OpenAt2(dir, name, O_RDWR | O_CREAT | O_EXCL,
                                sys::kNoSymlinks, 0600));
  if (::fchmod(file.get(), 0600) != 0) return Error(errno, "fchmod", name);
  return file;
}

absl::StatusOr<bool> IsEmpty(BorrowedFd dir) {
  ASSIGN_OR_RETURN(const auto names, sys::ListDirectory(dir));
  return names.empty();
}

// Moves what was copied to where the containers see it. Each file appears at
// once and complete. One that a container has made meanwhile stays.
absl::Status Publish(BorrowedFd dir, BorrowedFd data) {
  if (!Exists(dir, kCopied)) return absl::OkStatus();
  ASSIGN_OR_RETURN(const UniqueFd copied, sys::OpenDirectory(dir, kCopied));
  ASSIGN_OR_RETURN(const auto names, sys::ListDirectory(copied.borrow()));
  for (const std::string& name : names) {
    const absl::Status moved =
        sys::RenameNoReplace(copied.borrow(), name, data, name);
    if (!moved.ok() && !absl::IsAlreadyExists(moved)) return moved;
  }
  RETURN_IF_ERROR(sys::CopyAttributes(copied.borrow(), data));
  RETURN_IF_ERROR(sys::SyncDirectory(data, kData));
  RETURN_IF_ERROR(sys::RemoveTree(dir, kCopied));
  return sys::SyncDirectory(dir, ".");
}

// With the copy lock held.
absl::Status CopyUp(BorrowedFd dir, BorrowedFd data, BorrowedFd covered) {
  ASSIGN_OR_RETURN(const bool nothing, IsEmpty(covered));
  if (nothing) return sys::CopyAttributes(covered, data);
  RETURN_IF_ERROR(sys::MakeDirectory(dir, kCopying, 0700));
  absl::Cleanup remove = [dir] {
    sys::RemoveTree(dir, kCopying).IgnoreError();
  };
  ASSIGN_OR_RETURN(const UniqueFd copy, sys::OpenDirectory(dir, kCopying));
  RETURN_IF_ERROR(sys::CopyTree(covered, copy.borrow()));
  // Everything before its name: what has the name is complete.
  if (::syncfs(copy.get()) != 0) return Error(errno, "syncfs", kCopying);
  RETURN_IF_ERROR(sys::RenameNoReplace(dir, kCopying, dir, kCopied));
  std::move(remove).Cancel();
  RETURN_IF_ERROR(sys::SyncDirectory(dir, "."));
  return Publish(dir, data);
}

}  // namespace

absl::Status MakeVolume(BorrowedFd dir, const VolumeInfo& info, uid_t uid,
                        gid_t gid) {
  RETURN_IF_ERROR(sys::MakeDirectory(dir, kUses, 0700));
  RETURN_IF_ERROR(sys::MakeDirectory(dir, kData, kDataMode));
  if (::fchownat(dir.get(), kData, uid, gid, AT_SYMLINK_NOFOLLOW) != 0) {
    return Error(errno, "fchownat", kData);
  }
  ASSIGN_OR_RETURN(const UniqueFd data, sys::OpenDirectory(dir, kData));
  RETURN_IF_ERROR(sys::SyncDirectory(data.borrow(), kData));
  ASSIGN_OR_RETURN(const UniqueFd record, MakeFile(dir, kRecord));
  RETURN_IF_ERROR(sys::WriteAll(record.borrow(), RenderVolume(info), kRecord));
  if (::fsync(record.get()) != 0) return Error(errno, "fsync", kRecord);
  return sys::SyncDirectory(dir, info.name);
}

absl::StatusOr<VolumeInfo> ReadVolume(BorrowedFd dir, absl::string_view name) {
  auto text = sys::ReadFileAt(dir, kRecord, sys::kNoSymlinks, Record::kMaxSize);
  if (!text.ok()) {
    return Annotate(text.status(), absl::StrCat("volume ", Quoted(name)));
  }
  auto info = ParseVolume(*text);
  if (!info.ok()) {
    return Annotate(info.status(),
                    absl::StrCat("the record of volume ", Quoted(name)));
  }
  info->name = std::string(name);
  return info;
}

absl::StatusOr<UniqueFd> OpenUses(BorrowedFd dir) {
  return sys::OpenDirectory(dir, kUses);
}

absl::StatusOr<UniqueFd> AddUse(BorrowedFd uses, const VolumeUser& user,
                                std::string& name) {
  ASSIGN_OR_RETURN(name, sys::UniqueName());
  ASSIGN_OR_RETURN(UniqueFd file, MakeFile(uses, name));
  absl::Cleanup remove = [&] { ::unlinkat(uses.get(), name.c_str(), 0); };
  RETURN_IF_ERROR(sys::LockExclusive(file.borrow(), name));
  RETURN_IF_ERROR(sys::WriteAll(file.borrow(), RenderUser(user), name));
  std::move(remove).Cancel();
  return file;
}

void EndUse(BorrowedFd uses, const std::string& name) {
  const UniqueFd file(
      sys::OpenAt2Raw(uses.get(), name.c_str(), O_RDWR, sys::kNoSymlinks));
  if (!file.valid()) return;
  const auto free = sys::TryLockExclusive(file.borrow(), name);
  if (free.ok() && *free) ::unlinkat(uses.get(), name.c_str(), 0);
}

absl::Status AddHold(BorrowedFd dir, const std::string& hold,
                     const std::string& user) {
  ASSIGN_OR_RETURN(const UniqueFd holds,
                   sys::OpenOrMakeDirectory(dir, kHolds, 0700));
  ::unlinkat(holds.get(), kNewHold, 0);
  ASSIGN_OR_RETURN(const UniqueFd file, MakeFile(holds.borrow(), kNewHold));
  RETURN_IF_ERROR(
      sys::WriteAll(file.borrow(), RenderUser({.name = user}), hold));
  if (::fsync(file.get()) != 0) return Error(errno, "fsync", hold);
  if (::renameat(holds.get(), kNewHold, holds.get(), hold.c_str()) != 0) {
    return Error(errno, "rename", hold);
  }
  RETURN_IF_ERROR(sys::SyncDirectory(holds.borrow(), kHolds));
  return sys::SyncDirectory(dir, ".");
}

absl::Status DropHold(BorrowedFd dir, const std::string& hold) {
  const std::string path = absl::StrCat(kHolds, "/", hold);
  if (::unlinkat(dir.get(), path.c_str(), 0) == 0 || errno == ENOENT) {
    return absl::OkStatus();
  }
  return Error(errno, "unlink", path);
}

namespace {

absl::Status AppendHolds(BorrowedFd dir, std::vector<VolumeUser>& users) {
  auto holds = sys::OpenDirectory(dir, kHolds);
  if (absl::IsNotFound(holds.status())) return absl::OkStatus();
  RETURN_IF_ERROR(holds.status());
  ASSIGN_OR_RETURN(const auto names, sys::ListDirectory(holds->borrow()));
  for (const std::string& name : names) {
    if (name == kNewHold) continue;
    const auto text = sys::ReadFileAt(holds->borrow(), name, sys::kNoSymlinks,
                                      Record::kMaxSize);
    if (absl::IsNotFound(text.status())) continue;
    auto user = text.ok() ? ParseUser(*text) : text.status();
    // One that cannot be read is one nevertheless.
    users.push_back(user.ok() ? *std::move(user) : VolumeUser());
    users.back().hold = name;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<VolumeUser>> LiveUsers(BorrowedFd dir,
                                                  DeadUses dead) {
  ASSIGN_OR_RETURN(const UniqueFd uses, OpenUses(dir));
  ASSIGN_OR_RETURN(const auto names, sys::ListDirectory(uses.borrow()));
  std::vector<VolumeUser> users;
  for (const std::string& name : names) {
    auto file = sys::OpenAt2(uses.borrow(), name, O_RDWR, sys::kNoSymlinks);
    if (absl::IsNotFound(file.status())) continue;
    RETURN_IF_ERROR(file.status());
    ASSIGN_OR_RETURN(const bool live,
                     sys::IsLockedElsewhere(file->borrow(), name));
    if (!live) {
      if (dead == DeadUses::kRemove) {
        ::unlinkat(uses.get(), name.c_str(), 0);
      }
      continue;
    }
    ASSIGN_OR_RETURN(const std::string text,
                     sys::ReadAll(file->borrow(), Record::kMaxSize, name));
    auto user = ParseUser(text);
    // Without the store's lock one may be seen before its text is written.
    users.push_back(user.ok() ? *std::move(user) : VolumeUser());
  }
  RETURN_IF_ERROR(AppendHolds(dir, users));
  return users;
}

absl::StatusOr<UniqueFd> OpenData(BorrowedFd dir, BorrowedFd covered,
                                  bool copy) {
  ASSIGN_OR_RETURN(
      UniqueFd data,
      sys::OpenAt2(dir, kData, O_RDONLY | O_DIRECTORY, sys::kNoSymlinks));
  const bool wanted = copy && covered.valid();
  bool work = Exists(dir, kCopied);
  if (!work && wanted) {
    ASSIGN_OR_RETURN(work, IsEmpty(data.borrow()));
  }
  if (work) {
    ASSIGN_OR_RETURN(const UniqueFd lock,
                     sys::OpenAt2(dir, kRecord, O_RDWR, sys::kNoSymlinks));
    RETURN_IF_ERROR(sys::LockExclusive(lock.borrow(), kRecord));
    RETURN_IF_ERROR(Publish(dir, data.borrow()));
    RETURN_IF_ERROR(sys::RemoveTree(dir, kCopying));
    ASSIGN_OR_RETURN(const bool empty, IsEmpty(data.borrow()));
    if (wanted && empty) {
      RETURN_IF_ERROR(CopyUp(dir, data.borrow(), covered));
    }
  }
  return sys::OpenAt2(dir, kData, O_PATH | O_DIRECTORY, sys::kNoSymlinks);
}

absl::Status RecoverCopy(BorrowedFd dir) {
  if (!Exists(dir, kCopied) && !Exists(dir, kCopying)) return absl::OkStatus();
  ASSIGN_OR_RETURN(const UniqueFd lock,
                   sys::OpenAt2(dir, kRecord, O_RDWR, sys::kNoSymlinks));
  ASSIGN_OR_RETURN(const bool free,
                   sys::TryLockExclusive(lock.borrow(), kRecord));
  if (!free) return absl::OkStatus();
  ASSIGN_OR_RETURN(const UniqueFd data, sys::OpenDirectory(dir, kData));
  RETURN_IF_ERROR(Publish(dir, data.borrow()));
  return sys::RemoveTree(dir, kCopying);
}

}  // namespace caisson::volume
