#include "lib/launcher/detached_directory.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "caisson/detached.h"
#include "lib/base/errno_error.h"
#include "lib/base/record.h"
#include "lib/base/status_macros.h"
#include "lib/launcher/wait_status.h"
#include "lib/sys/directory.h"
#include "lib/sys/open.h"
#include "lib/sys/private_dir.h"

namespace caisson {
namespace launcher {
namespace {

constexpr sys::PrivateDirUse kUse = {"LauncherOptions.directory",
                                     "launcher.detached"};
constexpr char kRecordType[] = "caisson-process";
constexpr int kBacklog = 64;

absl::StatusOr<UniqueFd> NewSocket() {
  UniqueFd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (socket.valid()) return socket;
  return ErrnoError(errno, "socket(AF_UNIX, SOCK_SEQPACKET)",
                    {.step = kUse.step});
}

// By descriptor, since an address has room for 107 bytes only.
sockaddr_un AddressIn(BorrowedFd directory) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  const std::string path =
      absl::StrCat("/proc/self/fd/", directory.get(), "/", kSocketName);
  memcpy(address.sun_path, path.data(), path.size());
  return address;
}

// 0 or errno.
template <typename Call>
int WithAddress(Call call, const UniqueFd& socket, BorrowedFd directory) {
  const sockaddr_un address = AddressIn(directory);
  const int result =
      call(socket.get(), reinterpret_cast<const sockaddr*>(&address),
           static_cast<socklen_t>(sizeof(address)));
  return result == 0 ? 0 : errno;
}

// Whether a launcher lives behind the socket: one that is about to end takes
// its socket away first.
bool Answers(const UniqueFd& socket) {
  char byte;
  return ::recv(socket.get(), &byte, 1, MSG_PEEK) == 1;
}

absl::Status SocketError(int error, absl::string_view call,
                         const std::string& path) {
  return ErrnoError(error, absl::StrCat(call, "(", Quoted(path), ")"),
                    {.step = kUse.step, .path = path});
}

// nullopt if it is gone.
absl::StatusOr<std::optional<ProcessRecord>> ReadRecord(
    const DetachedDirectory& directory, const std::string& name) {
  const auto text =
      sys::ReadFileAt(directory.fd(), name, sys::kNoSymlinks, Record::kMaxSize);
  if (absl::IsNotFound(text.status())) return std::nullopt;
  RETURN_IF_ERROR(text.status());
  return ParseRecord(*text);
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
  // "launcher.sock" has a dot, too, but it is taken.
  if (!name.empty() && name.size() < kNameSize && characters &&
      absl::ascii_isalnum(name.front()) && name != kSocketName) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "name of a detached process: ", Quoted(name.substr(0, 100)),
      ", expected a letter or digit, then up to 62 letters, digits, \"_\", "
      "\".\" and \"-\", and not ",
      Quoted(kSocketName)));
}

absl::StatusOr<DetachedDirectory> DetachedDirectory::Open(
    const std::string& path, Missing missing) {
  ASSIGN_OR_RETURN(const std::string clean, sys::CleanPath(path, kUse.option));
  auto fd = missing == Missing::kMake ? sys::OpenOrMakePrivateDir(clean, kUse)
                                      : sys::OpenPrivateDir(clean, kUse);
  RETURN_IF_ERROR(fd.status());
  return DetachedDirectory(*std::move(fd), clean);
}

absl::StatusOr<UniqueFd> DetachedDirectory::Listen() const {
  // A socket that is bound and does not listen yet looks like that of a dead
  // launcher.
  while (::flock(fd_.get(), LOCK_EX) != 0) {
    if (errno != EINTR) return SocketError(errno, "flock", path_);
  }
  const absl::Cleanup unlock = [this] { ::flock(fd_.get(), LOCK_UN); };
  ASSIGN_OR_RETURN(UniqueFd socket, Bind());
  absl::Status status = RecordLost();
  if (status.ok() && ::listen(socket.get(), kBacklog) != 0) {
    status = SocketError(errno, "listen", path_);
  }
  if (status.ok()) return socket;
  RemoveSocket();
  return status;
}

absl::Status DetachedDirectory::RecordLost() const {
  constexpr char kFresh[] = ".lost";
  Record lost(kRecordType);
  lost.Add("state", "lost");
  ASSIGN_OR_RETURN(const std::vector<std::string> names,
                   sys::ListDirectory(fd()));
  for (const std::string& name : names) {
    if (!CheckDetachedName(name).ok()) continue;
    ASSIGN_OR_RETURN(const auto record, ReadRecord(*this, name));
    if (record && (record->exited || record->lost)) continue;
    UniqueFd file(
        ::openat(fd_.get(), kFresh,
                 O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600));
    if (!file.valid()) return SocketError(errno, "open", kFresh);
    RETURN_IF_ERROR(sys::WriteAll(file.borrow(), lost.ToString(), kFresh));
    if (::renameat(fd_.get(), kFresh, fd_.get(), name.c_str()) != 0) {
      return SocketError(errno, "rename", name);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<UniqueFd> DetachedDirectory::Bind() const {
  const std::string path = absl::StrCat(path_, "/", kSocketName);
  for (;;) {
    ASSIGN_OR_RETURN(UniqueFd socket, NewSocket());
    const int bound = WithAddress(::bind, socket, fd());
    if (bound == 0) return socket;
    if (bound != EADDRINUSE) return SocketError(bound, "bind", path);
    ASSIGN_OR_RETURN(const UniqueFd other, NewSocket());
    const int connected = WithAddress(::connect, other, fd());
    if (connected == 0 && Answers(other)) {
      return absl::AlreadyExistsError(absl::StrCat(
          kUse.option, ": a launcher uses ", Quoted(path_),
          " already; attach to it (Launcher::Attach), or name another "
          "directory"));
    }
    // Of a launcher that is dead.
    if (connected == ECONNREFUSED &&
        ::unlinkat(fd_.get(), kSocketName, 0) != 0 && errno != ENOENT) {
      return SocketError(errno, "unlink", path);
    }
    if (connected != 0 && connected != ECONNREFUSED && connected != ENOENT) {
      return SocketError(connected, "connect", path);
    }
  }
}

absl::StatusOr<UniqueFd> DetachedDirectory::Connect() const {
  ASSIGN_OR_RETURN(UniqueFd socket, NewSocket());
  const int error = WithAddress(::connect, socket, fd());
  if (error == 0) return socket;
  if (error == ECONNREFUSED || error == ENOENT) {
    return absl::NotFoundError(
        absl::StrCat("no launcher lives in ", Quoted(path_),
                     ": its detached processes have all ended, or it was "
                     "killed; ListDetached() tells"));
  }
  return SocketError(error, "connect", absl::StrCat(path_, "/", kSocketName));
}

void DetachedDirectory::RemoveSocket() const {
  ::unlinkat(fd_.get(), kSocketName, 0);
}

}  // namespace launcher

namespace {

using ::caisson::launcher::DetachedDirectory;

absl::StatusOr<std::optional<DetachedProcess>> Look(
    const DetachedDirectory& directory, const std::string& name) {
  ASSIGN_OR_RETURN(auto record, launcher::ReadRecord(directory, name));
  if (record && record->lost) {
    return DetachedProcess{name, DetachedProcess::State::kLost, {}};
  }
  // A launcher that is about to write the record is one that listens.
  if ((!record || !record->exited) &&
      absl::IsNotFound(directory.Connect().status())) {
    ASSIGN_OR_RETURN(auto again, launcher::ReadRecord(directory, name));
    if (!again || !again->exited) {
      return DetachedProcess{name, DetachedProcess::State::kLost, {}};
    }
    record = again;
  }
  if (!record) return std::nullopt;
  DetachedProcess process = {name, DetachedProcess::State::kRunning, {}};
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
  ASSIGN_OR_RETURN(std::vector<std::string> names,
                   sys::ListDirectory(directory.fd()));
  std::sort(names.begin(), names.end());
  std::vector<DetachedProcess> processes;
  for (const std::string& name : names) {
    // The socket, and a record that is being written.
    if (!launcher::CheckDetachedName(name).ok()) continue;
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
  const std::string file(name);
  ASSIGN_OR_RETURN(const auto process, Look(directory, file));
  if (process && process->state == DetachedProcess::State::kRunning) {
    return absl::FailedPreconditionError(
        absl::StrCat("detached process ", Quoted(name), " runs"));
  }
  if (::unlinkat(directory.fd().get(), file.c_str(), 0) == 0) {
    return absl::OkStatus();
  }
  return ErrnoError(errno, absl::StrCat("unlink(", Quoted(name), ")"),
                    {.step = launcher::kUse.step, .path = file});
}

}  // namespace caisson
