#include "lib/launcher/detached_directory.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "caisson/detached.h"
#include "lib/base/errno_error.h"
#include "lib/base/record.h"
#include "lib/base/status_macros.h"
#include "lib/launcher/wait_status.h"
#include "lib/sys/directory.h"
#include "lib/sys/file_lock.h"
#include "lib/sys/local_socket.h"
#include "lib/sys/open.h"
#include "lib/sys/owned_dir.h"
#include "lib/sys/private_dir.h"

namespace caisson {
namespace launcher {
namespace {

constexpr sys::PrivateDirUse kUse = {"LauncherOptions.directory",
                                     "launcher.detached"};
constexpr char kRecordType[] = "caisson-process";
constexpr int kBacklog = 64;

absl::Status FileError(int error, absl::string_view call,
                       const std::string& path) {
  return ErrnoError(error, absl::StrCat(call, "(", Quoted(path), ")"),
                    {.step = kUse.step, .path = path});
}

std::string FileOf(const std::string& name) {
  return absl::StrCat(name, kRecordSuffix);
}

}  // namespace

std::optional<ProcessRecord> ParseRecord(absl::string_view text) {
  const auto record = Record::Parse(kRecordType, text);
  if (!record.ok()) return std::nullopt;
  const std::string state = record->Get("state").value_or("");
  if (state == "running") return ProcessRecord();
  if (state == "lost") return ProcessRecord{.lost = true};
  auto number = [&](absl::string_view key, auto* value) {
    return absl::SimpleAtoi(record->Get(key).value_or(""), value);
  };
  Message message = {};
  message.kind = kExited;
  uint32_t status = 0;
  if (state != "ended" || !number("wait_status", &status) ||
      !number("user_us", &message.user_us) ||
      !number("system_us", &message.system_us) ||
      !number("max_rss_kib", &message.max_rss_kib)) {
    return std::nullopt;
  }
  message.wait_status = static_cast<int32_t>(status);
  return ProcessRecord{.exited = message, .lost = false};
}

absl::Status CheckDetachedName(absl::string_view name) {
  const bool characters = std::all_of(name.begin(), name.end(), [](char c) {
    return absl::ascii_isalnum(c) || c == '_' || c == '.' || c == '-';
  });
  if (!name.empty() && name.size() < kNameSize && characters &&
      absl::ascii_isalnum(name.front())) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "name of a detached process: ", Quoted(name.substr(0, 100)),
      ", expected a letter or digit, then up to 62 letters, digits, \"_\", "
      "\".\" and \"-\""));
}

absl::StatusOr<DetachedDirectory> DetachedDirectory::Open(
    const std::string& path, Missing missing) {
  ASSIGN_OR_RETURN(const std::string clean, sys::CleanPath(path, kUse.option));
  auto fd = missing == Missing::kMake ? sys::OpenOrMakePrivateDir(clean, kUse)
                                      : sys::OpenPrivateDir(clean, kUse);
  RETURN_IF_ERROR(fd.status());
  return DetachedDirectory(*std::move(fd), clean);
}

absl::StatusOr<UniqueFd> DetachedDirectory::OpenLock(Missing missing) const {
  const int create = missing == Missing::kMake ? O_CREAT : 0;
  UniqueFd lock(::openat(fd_.get(), kLockName,
                         O_RDWR | create | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!lock.valid()) {
    return FileError(errno, "open", absl::StrCat(path_, "/", kLockName));
  }
  return lock;
}

absl::StatusOr<bool> DetachedDirectory::HasLauncher() const {
  const auto lock = OpenLock(Missing::kIsError);
  // No launcher was ever made here.
  if (absl::IsNotFound(lock.status())) return false;
  RETURN_IF_ERROR(lock.status());
  return sys::IsLockedElsewhere(lock->borrow(), kLockName);
}

absl::StatusOr<DetachedDirectory::Place> DetachedDirectory::Take() const {
  Place place;
  ASSIGN_OR_RETURN(place.lock, OpenLock(Missing::kMake));
  ASSIGN_OR_RETURN(const bool locked,
                   sys::TryLockExclusive(place.lock.borrow(), kLockName));
  if (!locked) {
    return absl::AlreadyExistsError(absl::StrCat(
        kUse.option, ": a launcher uses ", Quoted(path_),
        " already; attach to it (Launcher::Attach), or name another "
        "directory"));
  }
  // Of one that was killed.
  if (::unlinkat(fd_.get(), kSocketName, 0) != 0 && errno != ENOENT) {
    return FileError(errno, "unlink", absl::StrCat(path_, "/", kSocketName));
  }
  RETURN_IF_ERROR(RemoveUnfinished());
  RETURN_IF_ERROR(RecordLost());
  ASSIGN_OR_RETURN(place.listening, sys::ListenAt(fd(), kSocketName, kBacklog,
                                                  kUse.step, path_));
  return place;
}

void DetachedDirectory::GiveBack() const {
  ::unlinkat(fd_.get(), kSocketName, 0);
}

absl::StatusOr<UniqueFd> DetachedDirectory::Connect() const {
  ASSIGN_OR_RETURN(const bool lives, HasLauncher());
  if (!lives) {
    return absl::NotFoundError(
        absl::StrCat("no launcher lives in ", Quoted(path_),
                     ": its detached processes have all ended, or it was "
                     "killed; ListDetached() tells"));
  }
  return sys::ConnectAt(fd(), kSocketName, kUse.step, path_);
}

absl::StatusOr<std::vector<std::string>> DetachedDirectory::Names() const {
  ASSIGN_OR_RETURN(const std::vector<std::string> files,
                   sys::ListDirectory(fd()));
  std::vector<std::string> names;
  for (absl::string_view file : files) {
    if (absl::ConsumeSuffix(&file, kRecordSuffix) &&
        CheckDetachedName(file).ok()) {
      names.emplace_back(file);
    }
  }
  std::sort(names.begin(), names.end());
  return names;
}

absl::StatusOr<std::optional<ProcessRecord>> DetachedDirectory::Read(
    const std::string& name) const {
  const auto text =
      sys::ReadFileAt(fd(), FileOf(name), sys::kNoSymlinks, Record::kMaxSize);
  if (absl::IsNotFound(text.status())) return std::nullopt;
  RETURN_IF_ERROR(text.status());
  auto record = ParseRecord(*text);
  if (!record) record = ProcessRecord{.exited = std::nullopt, .lost = true};
  return record;
}

absl::Status DetachedDirectory::Rename(const std::string& from,
                                       const std::string& to) const {
  return sys::RenameNoReplace(fd(), from, fd(), to);
}

absl::Status DetachedDirectory::RemoveUnfinished() const {
  ASSIGN_OR_RETURN(const std::vector<std::string> files,
                   sys::ListDirectory(fd()));
  for (const std::string& file : files) {
    if (!absl::StartsWith(file, ".") || !absl::EndsWith(file, kRecordSuffix)) {
      continue;
    }
    if (::unlinkat(fd_.get(), file.c_str(), 0) != 0 && errno != ENOENT) {
      return FileError(errno, "unlink", absl::StrCat(path_, "/", file));
    }
  }
  return absl::OkStatus();
}

absl::Status DetachedDirectory::RecordLost() const {
  const std::string fresh = absl::StrCat(".", FileOf("lost"));
  Record lost(kRecordType);
  lost.Add("state", "lost");
  ASSIGN_OR_RETURN(const std::vector<std::string> names, Names());
  for (const std::string& name : names) {
    ASSIGN_OR_RETURN(const auto record, Read(name));
    if (!record || !record->running()) continue;
    const UniqueFd file(::openat(fd_.get(), fresh.c_str(),
                                 O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC,
                                 0600));
    if (!file.valid()) return FileError(errno, "open", fresh);
    RETURN_IF_ERROR(sys::WriteAll(file.borrow(), lost.ToString(), fresh));
    if (::renameat(fd_.get(), fresh.c_str(), fd_.get(), FileOf(name).c_str()) !=
        0) {
      return FileError(errno, "rename", FileOf(name));
    }
  }
  return absl::OkStatus();
}

absl::Status DetachedDirectory::Forget(const std::string& name) const {
  const absl::Status runs = absl::FailedPreconditionError(
      absl::StrCat("detached process ", Quoted(name), " runs"));
  // Out of the way first: a record of that name that is looked at and then
  // removed could be that of a later process.
  ASSIGN_OR_RETURN(const std::string unique, sys::UniqueName());
  const std::string aside = absl::StrCat(".", FileOf(unique));
  ASSIGN_OR_RETURN(const auto seen, Read(name));
  if (!seen) {
    return absl::NotFoundError(absl::StrCat(
        "there is no record of a detached process ", Quoted(name)));
  }
  if (seen->running()) {
    ASSIGN_OR_RETURN(const bool lives, HasLauncher());
    if (lives) return runs;
  }
  RETURN_IF_ERROR(Rename(FileOf(name), aside));
  const auto text =
      sys::ReadFileAt(fd(), aside, sys::kNoSymlinks, Record::kMaxSize);
  const auto record = text.ok() ? ParseRecord(*text) : std::nullopt;
  if (record && record->running() && HasLauncher().value_or(true)) {
    // Unless its end was recorded meanwhile.
    if (Rename(aside, FileOf(name)).ok()) return runs;
  }
  if (::unlinkat(fd_.get(), aside.c_str(), 0) == 0) return absl::OkStatus();
  return FileError(errno, "unlink", aside);
}

}  // namespace launcher

namespace {

using ::caisson::launcher::DetachedDirectory;
using ::caisson::launcher::ProcessRecord;

// nullopt if it was forgotten.
absl::StatusOr<std::optional<DetachedProcess>> Look(
    const DetachedDirectory& directory, const std::string& name) {
  ASSIGN_OR_RETURN(std::optional<ProcessRecord> record, directory.Read(name));
  DetachedProcess process = {name, DetachedProcess::State::kRunning, {}};
  if (record && record->running()) {
    ASSIGN_OR_RETURN(const bool lives, directory.HasLauncher());
    if (lives) return process;
    // The last that a launcher does is to write records.
    ASSIGN_OR_RETURN(record, directory.Read(name));
  }
  if (!record) return std::nullopt;
  process.state = DetachedProcess::State::kLost;
  if (record->exited) {
    process.state = DetachedProcess::State::kEnded;
    process.exit = launcher::ExitStatusOf(*record->exited);
  }
  return process;
}

}  // namespace

absl::StatusOr<std::vector<DetachedProcess>> ListDetached(
    const std::string& path) {
  ASSIGN_OR_RETURN(
      const DetachedDirectory directory,
      DetachedDirectory::Open(path, DetachedDirectory::Missing::kIsError));
  ASSIGN_OR_RETURN(const std::vector<std::string> names, directory.Names());
  std::vector<DetachedProcess> processes;
  for (const std::string& name : names) {
    ASSIGN_OR_RETURN(auto process, Look(directory, name));
    if (process) processes.push_back(*std::move(process));
  }
  return processes;
}

absl::Status ForgetDetached(const std::string& path, absl::string_view name) {
  RETURN_IF_ERROR(launcher::CheckDetachedName(name));
  ASSIGN_OR_RETURN(
      const DetachedDirectory directory,
      DetachedDirectory::Open(path, DetachedDirectory::Missing::kIsError));
  return directory.Forget(std::string(name));
}

}  // namespace caisson
