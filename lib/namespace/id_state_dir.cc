#include "lib/namespace/id_state_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/namespace/host_ids.h"
#include "lib/sys/directory.h"
#include "lib/sys/open.h"
#include "lib/sys/private_dir.h"

namespace caisson::ids {
namespace {

constexpr char kLockFile[] = "lock";
constexpr char kNamesDir[] = "names";
constexpr char kOption[] = "IdRangePoolOptions.directory";
constexpr sys::PrivateDirUse kUse = {kOption, "ids.state"};
constexpr size_t kMaxName = 128;
// Ten digits and a line break.
constexpr size_t kTurnSize = 11;
constexpr int kMaxTurnTries = 1000;

// Bytes of the lock file: one per user id, one per group id, the turn, one per
// 60 bits of a name's hash.
constexpr off_t kUidBase = 0;
constexpr off_t kGidBase = off_t{1} << 32;
constexpr off_t kTurnByte = off_t{1} << 33;
constexpr off_t kNameBase = off_t{1} << 62;

absl::Status FileError(int error, absl::string_view call,
                       absl::string_view path, absl::string_view hint = "") {
  return ErrnoError(error, absl::StrCat(call, "(", Quoted(path), ")"),
                    {.step = "ids.state", .path = path, .hint = hint});
}

// FNV-1a; a collision makes two names wait for each other and nothing else.
uint64_t Hash(absl::string_view text) {
  uint64_t hash = 14695981039346656037u;
  for (const char c : text) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211u;
  }
  return hash;
}

// Returns the file's inode. Writes into a new one, so that a full disk is met
// here and not when a container starts.
absl::StatusOr<uint64_t> StartTurns(BorrowedFd lock, const std::string& path) {
  Turn turn(lock);
  struct stat info;
  if (::fstat(lock.get(), &info) != 0) return FileError(errno, "stat", path);
  if (info.st_size == 0) RETURN_IF_ERROR(turn.Write(0));
  return info.st_ino;
}

absl::StatusOr<UniqueFd> OpenNames(BorrowedFd dir, const std::string& path) {
  ASSIGN_OR_RETURN(UniqueFd names,
                   sys::OpenOrMakeDirectory(dir, kNamesDir, 0700));
  RETURN_IF_ERROR(sys::CheckPrivate(names.borrow(), path, S_IFDIR, kUse));
  RETURN_IF_ERROR(sys::SyncDirectory(dir, path));
  return names;
}

}  // namespace

absl::Status ValidateName(absl::string_view name) {
  if (name.empty() || name.size() > kMaxName) {
    return absl::InvalidArgumentError(
        absl::StrCat("the name ", Quoted(name), " of an id range has ",
                     name.size(), " bytes, not 1 to ", kMaxName));
  }
  for (const char c : name) {
    if (!absl::ascii_isalnum(c) && c != '_' && c != '-' && c != '.') {
      return absl::InvalidArgumentError(absl::StrCat(
          "the name ", Quoted(name), " of an id range has a character that ",
          "is not a letter, digit, '_', '-' or '.'"));
    }
  }
  if (!absl::ascii_isalnum(name[0])) {
    return absl::InvalidArgumentError(
        absl::StrCat("the name ", Quoted(name), " of an id range begins with '",
                     name.substr(0, 1), "'"));
  }
  return absl::OkStatus();
}

std::string ToEntry(const IdReservation& reservation) {
  return absl::StrCat(reservation.name, "@", reservation.first_uid, "-",
                      reservation.first_gid, "-", reservation.count);
}

std::optional<IdReservation> ParseEntry(absl::string_view entry) {
  const std::vector<absl::string_view> halves = absl::StrSplit(entry, '@');
  if (halves.size() != 2 || !ValidateName(halves[0]).ok()) return std::nullopt;
  const std::vector<absl::string_view> numbers = absl::StrSplit(halves[1], '-');
  if (numbers.size() != 3) return std::nullopt;
  const auto uid = ParseId(numbers[0]);
  const auto gid = ParseId(numbers[1]);
  const auto count = ParseId(numbers[2]);
  if (!uid || !gid || !count) return std::nullopt;
  const IdReservation reservation = {std::string(halves[0]), *uid, *gid,
                                     *count};
  if (!CheckRange("", {*uid, *count}).ok() ||
      !CheckRange("", {*gid, *count}).ok() || ToEntry(reservation) != entry) {
    return std::nullopt;
  }
  return reservation;
}

sys::LockRange UidLock(const HostIdRange& uids) {
  return {kUidBase + uids.first, uids.count};
}

sys::LockRange GidLock(const HostIdRange& gids) {
  return {kGidBase + gids.first, gids.count};
}

sys::LockRange NameLock(absl::string_view name) {
  return {kNameBase + static_cast<off_t>(Hash(name) >> 4), 1};
}

absl::StatusOr<IdStateDir> IdStateDir::Open(const std::string& unclean_path) {
  IdStateDir state;
  ASSIGN_OR_RETURN(state.path_, sys::CleanPath(unclean_path, kOption));
  const std::string& path = state.path_;
  ASSIGN_OR_RETURN(state.dir_, sys::OpenOrMakePrivateDir(path, kUse));
  const BorrowedFd dir = state.dir_.borrow();
  const std::string lock_path = absl::StrCat(path, "/", kLockFile);
  ASSIGN_OR_RETURN(UniqueFd lock,
                   sys::OpenAt2(dir, kLockFile, O_RDWR | O_CREAT | O_NONBLOCK,
                                sys::kNoSymlinks, 0600));
  RETURN_IF_ERROR(sys::CheckPrivate(lock.borrow(), lock_path, S_IFREG, kUse));
  ASSIGN_OR_RETURN(state.lock_inode_, StartTurns(lock.borrow(), lock_path));
  ASSIGN_OR_RETURN(state.names_,
                   OpenNames(dir, absl::StrCat(path, "/", kNamesDir)));
  return state;
}

absl::StatusOr<UniqueFd> IdStateDir::OpenLock() const {
  absl::StatusOr<UniqueFd> lock = sys::OpenAt2(
      dir_.borrow(), kLockFile, O_RDWR | O_NONBLOCK, sys::kNoSymlinks);
  if (!lock.ok() && !absl::IsNotFound(lock.status())) return lock.status();
  struct stat info;
  if (lock.ok() && ::fstat(lock->get(), &info) != 0) {
    return FileError(errno, "stat", kLockFile);
  }
  if (!lock.ok() || info.st_ino != lock_inode_) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the lock file of id range pool ", Quoted(path_),
        " was removed while the pool was open: what is leased by it is not "
        "known to others; end the containers and open the pool anew"));
  }
  return lock;
}

absl::StatusOr<std::vector<IdReservation>> IdStateDir::Reservations() const {
  ASSIGN_OR_RETURN(const std::vector<std::string> entries,
                   sys::ListDirectory(names_.borrow()));
  std::vector<IdReservation> reservations;
  for (const std::string& entry : entries) {
    auto reservation = ParseEntry(entry);
    if (reservation) reservations.push_back(*std::move(reservation));
  }
  std::sort(reservations.begin(), reservations.end(),
            [](const IdReservation& a, const IdReservation& b) {
              return ToEntry(a) < ToEntry(b);
            });
  return reservations;
}

absl::Status IdStateDir::Add(const IdReservation& reservation) {
  const std::string entry = ToEntry(reservation);
  ASSIGN_OR_RETURN(
      const UniqueFd file,
      sys::OpenAt2(names_.borrow(), entry, O_WRONLY | O_CREAT | O_EXCL,
                   sys::kNoSymlinks, 0600));
  absl::Status synced = ::fsync(file.get()) == 0
                            ? absl::OkStatus()
                            : FileError(errno, "fsync", entry);
  if (synced.ok()) synced = sys::SyncDirectory(names_.borrow(), kNamesDir);
  if (!synced.ok()) ::unlinkat(names_.get(), entry.c_str(), 0);
  return synced;
}

absl::Status IdStateDir::Remove(const IdReservation& reservation) {
  const std::string entry = ToEntry(reservation);
  if (::unlinkat(names_.get(), entry.c_str(), 0) != 0 && errno != ENOENT) {
    return FileError(errno, "unlink", entry);
  }
  return sys::SyncDirectory(names_.borrow(), kNamesDir);
}

absl::StatusOr<bool> IdStateDir::IsDurable() const {
  struct statfs info;
  if (::fstatfs(names_.get(), &info) != 0) {
    return FileError(errno, "statfs", path_);
  }
  return info.f_type != TMPFS_MAGIC && info.f_type != RAMFS_MAGIC;
}

Turn::Turn(BorrowedFd lock) : lock_(lock) {
  for (int i = 0; i < kMaxTurnTries && !mine_; ++i) {
    const auto locked = sys::TryLockExclusive(lock_, kLockFile, {kTurnByte, 1});
    if (!locked.ok()) return;
    mine_ = *locked;
    if (!mine_) ::sched_yield();
  }
}

Turn::~Turn() {
  if (mine_) sys::Unlock(lock_, {kTurnByte, 1});
}

uint64_t Turn::Read() const {
  char text[kTurnSize];
  const ssize_t n = ::pread(lock_.get(), text, sizeof(text), 0);
  if (n != static_cast<ssize_t>(sizeof(text)) || text[kTurnSize - 1] != '\n') {
    return 0;
  }
  return ParseId(absl::string_view(text, kTurnSize - 1)).value_or(0);
}

absl::Status Turn::Write(uint64_t uid) {
  const std::string text = absl::StrFormat("%010d\n", uid);
  const ssize_t n = ::pwrite(lock_.get(), text.data(), text.size(), 0);
  if (n == static_cast<ssize_t>(text.size())) return absl::OkStatus();
  return FileError(n < 0 ? errno : ENOSPC, "write", kLockFile);
}

}  // namespace caisson::ids
