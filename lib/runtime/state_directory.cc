#include "lib/runtime/state_directory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/sys/directory.h"
#include "lib/sys/file_lock.h"
#include "lib/sys/open.h"
#include "lib/sys/private_dir.h"
#include "lib/sys/remove_tree.h"

namespace caisson::runtime {
namespace {

constexpr char kStep[] = "state";
constexpr char kRecord[] = "state.pb";
constexpr char kProcess[] = "process.pb";
constexpr char kNewRecord[] = "new.pb";
constexpr char kGate[] = "gate";
constexpr char kLock[] = "lock";
constexpr size_t kMaxId = 1024;
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

absl::Status ContainerDirectory::Lock() {
  RETURN_IF_ERROR(sys::LockExclusive(lock_.borrow(), path_));
  struct stat stat;
  if (::fstat(lock_.get(), &stat) != 0) {
    return FileError(errno, "fstat", path_);
  }
  return stat.st_nlink > 0 ? absl::OkStatus() : NoContainer(id_);
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
  ASSIGN_OR_RETURN(ContainerRecord record, ReadFile<ContainerRecord>(kRecord));
  if (record.version() == kRecordVersion) return record;
  return absl::FailedPreconditionError(absl::StrCat(
      Quoted(absl::StrCat(path_, "/", kRecord)), " is of version ",
      record.version(), "; this library knows version ", kRecordVersion));
}

absl::Status ContainerDirectory::Write(const ContainerRecord& record) const {
  return WriteFile(kRecord, record);
}

absl::StatusOr<ProcessRecord> ContainerDirectory::ReadProcess() const {
  auto record = ReadFile<ProcessRecord>(kProcess);
  if (absl::IsNotFound(record.status())) return ProcessRecord();
  return record;
}

absl::Status ContainerDirectory::WriteProcess(
    const ProcessRecord& record) const {
  return WriteFile(kProcess, record);
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

bool ContainerDirectory::HasGate() const {
  return ::faccessat(fd_.get(), kGate, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

absl::StatusOr<UniqueFd> ContainerDirectory::FindGate() const {
  const std::string path = absl::StrCat(path_, "/", kGate);
  // Succeeds only if somebody has it open for reading.
  const UniqueFd probe(::openat(
      fd_.get(), kGate, O_WRONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC));
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
  if (::unlinkat(fd_.get(), kGate, 0) != 0) {
    return FileError(errno, "unlink", absl::StrCat(path_, "/", kGate));
  }
  return absl::OkStatus();
}

absl::Status ContainerDirectory::Remove() {
  // Nobody finds a half-removed one: without its record it is none.
  for (const char* name : {kRecord, kProcess, kNewRecord, kGate, kLock}) {
    if (::unlinkat(fd_.get(), name, 0) != 0 && errno != ENOENT) {
      return FileError(errno, "unlink", absl::StrCat(path_, "/", name));
    }
  }
  return sys::RemoveTree(parent_.borrow(), id_);
}

absl::StatusOr<StateDirectory> StateDirectory::Open(const std::string& path) {
  constexpr sys::PrivateDirUse kUse = {.option = "OciRuntimeOptions.root",
                                       .step = kStep};
  ASSIGN_OR_RETURN(const std::string clean, sys::CleanPath(path, kUse.option));
  ASSIGN_OR_RETURN(UniqueFd fd, sys::OpenOrMakePrivateDir(clean, kUse));
  return StateDirectory(std::move(fd), clean);
}

absl::StatusOr<ContainerDirectory> StateDirectory::Open(const std::string& id,
                                                        UniqueFd dir) const {
  const std::string path = absl::StrCat(path_, "/", id);
  UniqueFd lock(::openat(dir.get(), kLock,
                         O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!lock.valid()) {
    return errno == ENOENT ? NoContainer(id) : FileError(errno, "open", path);
  }
  ASSIGN_OR_RETURN(UniqueFd parent, sys::Duplicate(fd_.borrow()));
  return ContainerDirectory(id, path, std::move(parent), std::move(dir),
                            std::move(lock));
}

absl::StatusOr<ContainerDirectory> StateDirectory::Create(
    const std::string& id) const {
  RETURN_IF_ERROR(CheckId(id));
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
  ASSIGN_OR_RETURN(ContainerDirectory made, Open(id, std::move(dir)));
  RETURN_IF_ERROR(made.Lock());
  return made;
}

absl::StatusOr<ContainerDirectory> StateDirectory::Find(
    const std::string& id) const {
  RETURN_IF_ERROR(CheckId(id));
  auto dir =
      sys::OpenAt2(fd_.borrow(), id, O_RDONLY | O_DIRECTORY, sys::kNoSymlinks);
  if (!dir.ok()) return NoContainer(id);
  return Open(id, *std::move(dir));
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
