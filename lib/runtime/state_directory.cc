#include "lib/runtime/state_directory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "lib/base/deadline.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/sys/directory.h"
#include "lib/sys/file_lock.h"
#include "lib/sys/open.h"
#include "lib/sys/private_dir.h"

namespace caisson::runtime {
namespace {

constexpr char kStep[] = "state";
constexpr char kRecord[] = "state.pb";
constexpr char kProcess[] = "process.pb";
constexpr char kCreatingProcess[] = "creating.pb";
constexpr char kNewRecord[] = "new.pb";
constexpr char kGate[] = "gate";
constexpr char kLock[] = "lock";
constexpr size_t kMaxId = 1024;
constexpr int kTries = 10;
constexpr absl::Duration kLockPoll = absl::Milliseconds(5);
// Opening a FIFO so succeeds only if somebody has it open for reading.
constexpr int kProbe = O_WRONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC;
// A config.json and what is beside it.
constexpr size_t kMaxRecord = 8 << 20;

absl::Status FileError(int error, absl::string_view call,
                       const std::string& path) {
  return ErrnoError(error, absl::StrCat(call, "(", Quoted(path), ")"),
                    {.step = kStep, .path = path});
}

absl::Status NoContainer(absl::string_view id) {
  return absl::NotFoundError(
      absl::StrCat("container ", Quoted(id), " does not exist"));
}

}  // namespace

absl::Status CheckId(absl::string_view id) {
  const bool good = std::all_of(id.begin(), id.end(), [](unsigned char c) {
    return absl::ascii_isalnum(c) || c == '_' || c == '+' || c == '-' ||
           c == '.';
  });
  if (good && !id.empty() && id.size() <= kMaxId && id != "." && id != "..") {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("container id ", Quoted(id),
                   ": letters, digits and _+-. are allowed, up to ", kMaxId));
}

absl::Status ContainerDirectory::Lock(absl::Duration timeout) {
  if (timeout == absl::InfiniteDuration()) {
    RETURN_IF_ERROR(sys::LockExclusive(lock_.borrow(), path_));
  } else {
    RETURN_IF_ERROR(LockWithin(timeout));
  }
  struct stat stat;
  if (::fstat(lock_.get(), &stat) != 0) {
    return FileError(errno, "fstat", path_);
  }
  return stat.st_nlink > 0 ? absl::OkStatus() : NoContainer(id_);
}

absl::Status ContainerDirectory::LockWithin(absl::Duration timeout) {
  const Deadline deadline(timeout);
  for (;;) {
    ASSIGN_OR_RETURN(const bool locked,
                     sys::TryLockExclusive(lock_.borrow(), path_));
    if (locked) return absl::OkStatus();
    if (deadline.expired()) break;
    deadline.Poll({}, kLockPoll);
  }
  return absl::DeadlineExceededError(absl::StrCat(
      "container ", Quoted(id_),
      ": another command has not been done with it for ",
      absl::FormatDuration(timeout),
      "; it has the file open and locked (lslocks), and may wait for a hook: ",
      Quoted(absl::StrCat(path_, "/", kLock))));
}

absl::StatusOr<bool> ContainerDirectory::IsLocked() const {
  return sys::IsLockedElsewhere(lock_.borrow(), path_);
}

template <typename Record>
absl::StatusOr<Record> ContainerDirectory::ReadFile(const char* name) const {
  ASSIGN_OR_RETURN(const std::string text,
                   sys::ReadFileAt(fd_.borrow(), name,
                                   /*resolve=*/0, kMaxRecord));
  Record record;
  if (record.ParseFromString(text)) return record;
  return absl::DataLossError(absl::StrCat(
      Quoted(absl::StrCat(path_, "/", name)), " is no record of a container"));
}

absl::Status ContainerDirectory::WriteFile(
    const char* name, const google::protobuf::MessageLite& record) const {
  std::string text;
  if (!record.SerializeToString(&text)) {
    return absl::InternalError("a container's record cannot be serialised");
  }
  const std::string path = absl::StrCat(path_, "/", kNewRecord);
  const UniqueFd file(::openat(fd_.get(), kNewRecord,
                               O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!file.valid()) return FileError(errno, "open", path);
  RETURN_IF_ERROR(sys::WriteAll(file.borrow(), text, path));
  if (::renameat(fd_.get(), kNewRecord, fd_.get(), name) != 0) {
    return FileError(errno, "rename", path);
  }
  return absl::OkStatus();
}

absl::StatusOr<ContainerRecord> ContainerDirectory::Read() const {
  auto read = ReadFile<ContainerRecord>(kRecord);
  if (absl::IsNotFound(read.status())) return NoContainer(id_);
  RETURN_IF_ERROR(read.status());
  ContainerRecord& record = *read;
  if (record.version() == kRecordVersion) return read;
  return absl::FailedPreconditionError(absl::StrCat(
      Quoted(absl::StrCat(path_, "/", kRecord)), " is of version ",
      record.version(), "; this library knows version ", kRecordVersion));
}

absl::Status ContainerDirectory::Write(const ContainerRecord& record) const {
  return WriteFile(kRecord, record);
}

absl::StatusOr<ProcessRecord> ContainerDirectory::ReadProcess(
    Phase phase) const {
  auto record = ReadFile<ProcessRecord>(
      phase == Phase::kCreated ? kProcess : kCreatingProcess);
  if (absl::IsNotFound(record.status())) return ProcessRecord();
  return record;
}

absl::Status ContainerDirectory::WriteProcess(const ProcessRecord& record,
                                              Phase phase) const {
  return WriteFile(phase == Phase::kCreated ? kProcess : kCreatingProcess,
                   record);
}

absl::StatusOr<UniqueFd> ContainerDirectory::MakeGate() const {
  const std::string path = absl::StrCat(path_, "/", kGate);
  if (::mkfifoat(fd_.get(), kGate, 0600) != 0) {
    return FileError(errno, "mkfifo", path);
  }
  UniqueFd gate(::openat(fd_.get(), kGate, O_RDWR | O_NOFOLLOW | O_CLOEXEC));
  if (!gate.valid()) return FileError(errno, "open", path);
  return gate;
}

bool ContainerDirectory::IsAwaited() const {
  return UniqueFd(::openat(fd_.get(), kGate, kProbe)).valid();
}

absl::StatusOr<UniqueFd> ContainerDirectory::FindGate() const {
  const std::string path = absl::StrCat(path_, "/", kGate);
  const UniqueFd probe(::openat(fd_.get(), kGate, kProbe));
  if (!probe.valid() && errno == ENXIO) {
    return absl::FailedPreconditionError(
        absl::StrCat("container ", Quoted(id_), " waits for no start"));
  }
  UniqueFd gate;
  if (probe.valid()) {
    gate.reset(::openat(fd_.get(), kGate, O_RDWR | O_NOFOLLOW | O_CLOEXEC));
  }
  if (!gate.valid()) return FileError(errno, "open", path);
  return gate;
}

absl::Status ContainerDirectory::RemoveGate() const {
  if (::unlinkat(fd_.get(), kGate, 0) != 0 && errno != ENOENT) {
    return FileError(errno, "unlink", absl::StrCat(path_, "/", kGate));
  }
  return absl::OkStatus();
}

absl::Status ContainerDirectory::Remove() {
  // Nobody finds a half-removed one: without its record it is none.
  for (const char* name :
       {kRecord, kProcess, kCreatingProcess, kNewRecord, kGate, kLock}) {
    if (::unlinkat(fd_.get(), name, 0) != 0 && errno != ENOENT) {
      return FileError(errno, "unlink", absl::StrCat(path_, "/", name));
    }
  }
  // Without its lock others may remove it, too, and make another one. Of that
  // one, nothing is removed if it comes only now: Create() makes it anew.
  struct stat own, named;
  if (::fstat(fd_.get(), &own) != 0) return FileError(errno, "fstat", path_);
  if (::fstatat(parent_.get(), id_.c_str(), &named, AT_SYMLINK_NOFOLLOW) != 0 ||
      own.st_dev != named.st_dev || own.st_ino != named.st_ino) {
    return absl::OkStatus();
  }
  if (::unlinkat(parent_.get(), id_.c_str(), AT_REMOVEDIR) != 0 &&
      errno != ENOENT) {
    return FileError(errno, "rmdir", path_);
  }
  return absl::OkStatus();
}

absl::StatusOr<StateDirectory> StateDirectory::Open(const std::string& path) {
  constexpr sys::PrivateDirUse kUse = {.option = "OciRuntimeOptions.root",
                                       .step = kStep};
  ASSIGN_OR_RETURN(const std::string clean, sys::CleanPath(path, kUse.option));
  ASSIGN_OR_RETURN(UniqueFd fd, sys::OpenOrMakePrivateDir(clean, kUse));
  return StateDirectory(std::move(fd), clean);
}

absl::StatusOr<ContainerDirectory> StateDirectory::Open(const std::string& id,
                                                        UniqueFd dir,
                                                        int flags) const {
  const std::string path = absl::StrCat(path_, "/", id);
  UniqueFd lock(::openat(dir.get(), kLock,
                         O_RDWR | O_NOFOLLOW | O_CLOEXEC | flags, 0600));
  if (!lock.valid()) {
    return errno == ENOENT ? NoContainer(id) : FileError(errno, "open", path);
  }
  ASSIGN_OR_RETURN(UniqueFd parent, sys::Duplicate(fd_.borrow()));
  return ContainerDirectory(id, path, std::move(parent), std::move(dir),
                            std::move(lock));
}

absl::StatusOr<ContainerDirectory> StateDirectory::MakeOnce(
    const std::string& id) const {
  if (::mkdirat(fd_.get(), id.c_str(), 0700) != 0) {
    const int error = errno;
    if (error == EEXIST) {
      return absl::AlreadyExistsError(
          absl::StrCat("container ", Quoted(id), " already exists"));
    }
    return FileError(error, "mkdir", absl::StrCat(path_, "/", id));
  }
  ASSIGN_OR_RETURN(
      UniqueFd dir,
      sys::OpenAt2(fd_.borrow(), id, O_RDONLY | O_DIRECTORY, sys::kNoSymlinks));
  ASSIGN_OR_RETURN(ContainerDirectory made,
                   Open(id, std::move(dir), O_CREAT | O_EXCL));
  RETURN_IF_ERROR(made.Lock());
  return made;
}

absl::StatusOr<ContainerDirectory> StateDirectory::Create(
    const std::string& id) const {
  RETURN_IF_ERROR(CheckId(id));
  for (int i = 0; i < kTries; ++i) {
    auto made = MakeOnce(id);
    // Without its lock it was the rest of another one to somebody.
    if (!absl::IsNotFound(made.status())) return made;
  }
  return absl::AbortedError(absl::StrCat(
      "container ", Quoted(id), " is being deleted while it is created"));
}

absl::StatusOr<ContainerDirectory> StateDirectory::Find(
    const std::string& id) const {
  RETURN_IF_ERROR(CheckId(id));
  auto dir =
      sys::OpenAt2(fd_.borrow(), id, O_RDONLY | O_DIRECTORY, sys::kNoSymlinks);
  if (!dir.ok()) return NoContainer(id);
  return Open(id, *std::move(dir), 0);
}

absl::StatusOr<bool> StateDirectory::RemoveRest(const std::string& id) const {
  RETURN_IF_ERROR(CheckId(id));
  if (::unlinkat(fd_.get(), id.c_str(), AT_REMOVEDIR) == 0) return true;
  // Not empty: one that is being created.
  if (errno == ENOENT || errno == ENOTDIR || errno == ENOTEMPTY) return false;
  return FileError(errno, "rmdir", absl::StrCat(path_, "/", id));
}

std::vector<std::string> StateDirectory::Ids() const {
  std::vector<std::string> ids;
  auto names = sys::ListDirectory(fd_.borrow());
  if (!names.ok()) return ids;
  for (std::string& name : *names) {
    if (CheckId(name).ok()) ids.push_back(std::move(name));
  }
  std::sort(ids.begin(), ids.end());
  return ids;
}

}  // namespace caisson::runtime
