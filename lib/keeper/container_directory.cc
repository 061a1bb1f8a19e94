#include "lib/keeper/container_directory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "caisson/container.h"
#include "lib/base/deadline.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/sys/directory.h"
#include "lib/sys/file_lock.h"
#include "lib/sys/local_socket.h"
#include "lib/sys/open.h"
#include "lib/sys/private_dir.h"
#include "lib/sys/remove_tree.h"

namespace caisson::keeper {
namespace {

constexpr char kStep[] = "container.state";
constexpr char kRecord[] = "container.pb";
constexpr char kState[] = "state.pb";
constexpr char kLock[] = "lock";
constexpr char kKeeperLock[] = "keeper.lock";
constexpr char kSocket[] = "keeper.sock";
constexpr char kLogs[] = "log";
constexpr char kNames[] = "names";
constexpr char kNamesLock[] = "names.lock";
constexpr int kBacklog = 128;
constexpr size_t kIdSize = 64;
constexpr size_t kMaxName = 63;
constexpr size_t kMaxRecord = 16 << 20;

absl::Status FileError(int error, absl::string_view call,
                       const std::string& path) {
  return ErrnoError(error, absl::StrCat(call, "(", Quoted(path), ")"),
                    {.step = kStep, .path = path});
}

// No event tells that a lock is free, but to a thread that does nothing else.
absl::Status LockWithin(BorrowedFd file, const std::string& path,
                        absl::Duration patience) {
  const Deadline deadline(patience);
  for (absl::Duration pause = absl::Milliseconds(1);;
       pause = std::min(pause * 2, absl::Milliseconds(20))) {
    ASSIGN_OR_RETURN(const bool locked, sys::TryLockExclusive(file, path));
    if (locked) return absl::OkStatus();
    if (deadline.expired()) {
      return absl::DeadlineExceededError(
          absl::StrCat(Quoted(path), " has been locked by another process for ",
                       absl::FormatDuration(patience), "; is it stopped?"));
    }
    absl::SleepFor(pause);
  }
}

template <typename Message>
absl::StatusOr<Message> Parse(const std::string& text,
                              const std::string& path) {
  Message message;
  if (!message.ParseFromString(text)) {
    return absl::DataLossError(
        absl::StrCat(Quoted(path), " is no record of a container"));
  }
  if (message.version() == kRecordVersion) return message;
  return absl::FailedPreconditionError(
      absl::StrCat(Quoted(path), " is of version ", message.version(),
                   "; this library knows version ", kRecordVersion));
}

}  // namespace

bool IsContainerId(absl::string_view id) {
  return id.size() == kIdSize &&
         std::all_of(id.begin(), id.end(), [](unsigned char c) {
           return absl::ascii_isdigit(c) || (c >= 'a' && c <= 'f');
         });
}

absl::Status CheckContainerName(absl::string_view name) {
  const bool characters =
      std::all_of(name.begin(), name.end(), [](unsigned char c) {
        return absl::ascii_isalnum(c) || c == '_' || c == '.' || c == '-';
      });
  if (name.size() >= 2 && name.size() <= kMaxName && characters &&
      absl::ascii_isalnum(static_cast<unsigned char>(name.front()))) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("name: ", Quoted(name.substr(0, 100)),
                   ", expected a letter or digit, then 1 to 62 letters, "
                   "digits, \"_\", \".\" and \"-\""));
}

// ---- One container ---------------------------------------------------------

absl::Status ContainerDirectory::Gone() const {
  return absl::NotFoundError(
      absl::StrCat("container ", Quoted(id_.substr(0, 12)), " was removed"));
}

absl::StatusOr<UniqueFd> ContainerDirectory::OpenLock(const char* name) const {
  UniqueFd lock(::openat(fd_.get(), name,
                         O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (lock.valid()) return lock;
  if (errno == ENOENT) return Gone();
  return FileError(errno, "open", absl::StrCat(path_, "/", name));
}

absl::StatusOr<HeldLock> ContainerDirectory::Lock(
    absl::Duration patience) const {
  ASSIGN_OR_RETURN(UniqueFd lock, OpenLock(kLock));
  RETURN_IF_ERROR(
      LockWithin(lock.borrow(), absl::StrCat(path_, "/", kLock), patience));
  struct stat stat;
  if (::fstat(lock.get(), &stat) != 0) {
    return FileError(errno, "fstat", absl::StrCat(path_, "/", kLock));
  }
  if (stat.st_nlink == 0) return Gone();
  return lock;
}

absl::StatusOr<HeldLock> ContainerDirectory::LockForKeeper() const {
  const std::string path = absl::StrCat(path_, "/", kKeeperLock);
  ASSIGN_OR_RETURN(UniqueFd lock, OpenLock(kKeeperLock));
  ASSIGN_OR_RETURN(const bool locked,
                   sys::TryLockExclusive(lock.borrow(), path));
  if (locked) return lock;
  return absl::FailedPreconditionError(
      absl::StrCat(Quoted(path), " is held by another keeper"));
}

absl::StatusOr<bool> ContainerDirectory::HasKeeper() const {
  const UniqueFd lock(
      ::openat(fd_.get(), kKeeperLock, O_RDWR | O_NOFOLLOW | O_CLOEXEC));
  if (!lock.valid()) {
    if (errno == ENOENT) return false;
    return FileError(errno, "open", absl::StrCat(path_, "/", kKeeperLock));
  }
  return sys::IsLockedElsewhere(lock.borrow(), kKeeperLock);
}

absl::StatusOr<UniqueFd> ContainerDirectory::Listen() const {
  RemoveSocket();
  return sys::ListenAt(fd(), kSocket, kBacklog, kStep, path_);
}

absl::StatusOr<UniqueFd> ContainerDirectory::Connect() const {
  return sys::ConnectAt(fd(), kSocket, kStep, path_);
}

void ContainerDirectory::RemoveSocket() const {
  ::unlinkat(fd_.get(), kSocket, 0);
}

absl::StatusOr<std::string> ContainerDirectory::ReadFile(
    const char* name) const {
  return sys::ReadFileAt(fd(), name, sys::kNoSymlinks, kMaxRecord);
}

absl::Status ContainerDirectory::WriteFile(const char* name,
                                           const std::string& text,
                                           bool durable) const {
  const std::string path = absl::StrCat(path_, "/", name);
  const std::string fresh = absl::StrCat(name, ".new");
  const UniqueFd file(::openat(fd_.get(), fresh.c_str(),
                               O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!file.valid()) return FileError(errno, "open", path);
  // Of what a full disk takes half of, nothing stays.
  auto undo =
      absl::MakeCleanup([&] { ::unlinkat(fd_.get(), fresh.c_str(), 0); });
  RETURN_IF_ERROR(sys::WriteAll(file.borrow(), text, path));
  if (durable && ::fsync(file.get()) != 0) {
    return FileError(errno, "fsync", path);
  }
  if (::renameat(fd_.get(), fresh.c_str(), fd_.get(), name) != 0) {
    return FileError(errno, "rename", path);
  }
  std::move(undo).Cancel();
  return durable ? sys::SyncDirectory(fd(), path_) : absl::OkStatus();
}

absl::StatusOr<ContainerRecord> ContainerDirectory::ReadRecord() const {
  const auto text = ReadFile(kRecord);
  if (absl::IsNotFound(text.status())) return Gone();
  RETURN_IF_ERROR(text.status());
  return Parse<ContainerRecord>(*text, absl::StrCat(path_, "/", kRecord));
}

absl::Status ContainerDirectory::WriteRecord(
    const ContainerRecord& record) const {
  return WriteFile(kRecord, record.SerializeAsString(), /*durable=*/true);
}

absl::StatusOr<StateRecord> ContainerDirectory::ReadState() const {
  const auto text = ReadFile(kState);
  if (absl::IsNotFound(text.status())) return StateRecord();
  RETURN_IF_ERROR(text.status());
  auto state = Parse<StateRecord>(*text, absl::StrCat(path_, "/", kState));
  if (!absl::IsDataLoss(state.status()) && !text->empty()) return state;
  // It is not synced: after a power failure it may be empty. The container may
  // have run then, and nobody knows more.
  StateRecord unknown;
  unknown.set_version(kRecordVersion);
  unknown.set_ever_started(true);
  unknown.set_composing(true);
  unknown.set_status(static_cast<int>(ContainerStatus::kExited));
  unknown.set_boot_id("unknown");
  return unknown;
}

absl::Status ContainerDirectory::WriteState(const StateRecord& state) const {
  const std::string text = state.SerializeAsString();
  const absl::Status written = WriteFile(kState, text, /*durable=*/false);
  if (written.ok()) return written;
  // On a full disk there is the room of the last one.
  const UniqueFd file(
      ::openat(fd_.get(), kState, O_WRONLY | O_NOFOLLOW | O_CLOEXEC));
  if (!file.valid()) return written;
  const ssize_t size = ::pwrite(file.get(), text.data(), text.size(), 0);
  if (size != static_cast<ssize_t>(text.size()) ||
      ::ftruncate(file.get(), size) != 0) {
    return written;
  }
  return absl::OkStatus();
}

absl::StatusOr<UniqueFd> ContainerDirectory::OpenLogs() const {
  return sys::OpenOrMakeDirectory(fd(), kLogs, 0700);
}

absl::Status ContainerDirectory::Remove() const {
  for (const char* name : {kRecord, kState, kSocket, kKeeperLock, kLock}) {
    if (::unlinkat(fd_.get(), name, 0) != 0 && errno != ENOENT) {
      return FileError(errno, "unlink", absl::StrCat(path_, "/", name));
    }
  }
  return sys::RemoveTree(parent_.borrow(), id_);
}

// ---- All of them -----------------------------------------------------------

absl::StatusOr<StoreDirectory> StoreDirectory::Open(const std::string& path) {
  constexpr sys::PrivateDirUse kUse = {.option = "ContainerStoreOptions.path",
                                       .step = kStep};
  ASSIGN_OR_RETURN(const std::string clean, sys::CleanPath(path, kUse.option));
  ASSIGN_OR_RETURN(UniqueFd fd, sys::OpenOrMakePrivateDir(clean, kUse));
  ASSIGN_OR_RETURN(UniqueFd names,
                   sys::OpenOrMakeDirectory(fd.borrow(), kNames, 0700));
  return StoreDirectory(std::move(fd), std::move(names), clean);
}

absl::StatusOr<ContainerDirectory> StoreDirectory::Make(
    const std::string& id) const {
  RETURN_IF_ERROR(sys::MakeDirectory(fd(), id, 0700));
  return Find(id);
}

absl::StatusOr<ContainerDirectory> StoreDirectory::Find(
    const std::string& id) const {
  if (!IsContainerId(id)) {
    return absl::NotFoundError(
        absl::StrCat("no container has the id ", Quoted(id)));
  }
  auto dir = sys::OpenAt2(fd(), id, O_RDONLY | O_DIRECTORY, sys::kNoSymlinks);
  if (absl::IsNotFound(dir.status())) {
    return absl::NotFoundError(
        absl::StrCat("no container has the id ", Quoted(id)));
  }
  RETURN_IF_ERROR(dir.status());
  ASSIGN_OR_RETURN(UniqueFd parent, sys::Duplicate(fd()));
  return ContainerDirectory(id, absl::StrCat(path_, "/", id), std::move(parent),
                            *std::move(dir));
}

absl::StatusOr<std::vector<std::string>> StoreDirectory::Ids() const {
  ASSIGN_OR_RETURN(std::vector<std::string> names, sys::ListDirectory(fd()));
  names.erase(std::remove_if(
                  names.begin(), names.end(),
                  [](const std::string& name) { return !IsContainerId(name); }),
              names.end());
  std::sort(names.begin(), names.end());
  return names;
}

absl::StatusOr<HeldLock> StoreDirectory::LockNames(
    absl::Duration patience) const {
  UniqueFd lock(::openat(fd_.get(), kNamesLock,
                         O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
  const std::string path = absl::StrCat(path_, "/", kNamesLock);
  if (!lock.valid()) return FileError(errno, "open", path);
  RETURN_IF_ERROR(LockWithin(lock.borrow(), path, patience));
  return lock;
}

std::string StoreDirectory::IdOfName(const std::string& name) const {
  if (!CheckContainerName(name).ok()) return "";
  char target[kIdSize + 1];
  const ssize_t size =
      ::readlinkat(names_.get(), name.c_str(), target, sizeof(target));
  if (size != static_cast<ssize_t>(kIdSize)) return "";
  const std::string id(target, kIdSize);
  // One that was killed while it created, renamed or removed leaves a name.
  const auto directory = Find(id);
  if (!directory.ok()) return "";
  const auto record = directory->ReadRecord();
  if (absl::IsNotFound(record.status())) return "";
  return record.ok() && record->spec().name() != name ? "" : id;
}

absl::Status StoreDirectory::TakeName(const std::string& name,
                                      const std::string& id) const {
  RETURN_IF_ERROR(CheckContainerName(name));
  const std::string owner = IdOfName(name);
  if (!owner.empty() && owner != id) {
    return absl::AlreadyExistsError(absl::StrCat("name: ", Quoted(name),
                                                 " is the name of container ",
                                                 Quoted(owner.substr(0, 12))));
  }
  const std::string path = absl::StrCat(path_, "/", kNames, "/", name);
  if (::unlinkat(names_.get(), name.c_str(), 0) != 0 && errno != ENOENT) {
    return FileError(errno, "unlink", path);
  }
  if (::symlinkat(id.c_str(), names_.get(), name.c_str()) != 0) {
    return FileError(errno, "symlink", path);
  }
  return sys::SyncDirectory(names_.borrow(), path);
}

void StoreDirectory::DropName(const std::string& name,
                              const std::string& id) const {
  char target[kIdSize + 1];
  const ssize_t size =
      ::readlinkat(names_.get(), name.c_str(), target, sizeof(target));
  if (size == static_cast<ssize_t>(kIdSize) &&
      absl::string_view(target, kIdSize) == id) {
    ::unlinkat(names_.get(), name.c_str(), 0);
  }
}

absl::Status StoreDirectory::DropStaleNames() const {
  ASSIGN_OR_RETURN(const std::vector<std::string> names,
                   sys::ListDirectory(names_.borrow()));
  for (const std::string& name : names) {
    if (IdOfName(name).empty()) ::unlinkat(names_.get(), name.c_str(), 0);
  }
  return absl::OkStatus();
}

}  // namespace caisson::keeper
