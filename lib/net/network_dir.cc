#include "lib/net/network_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <memory>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "lib/base/errno_error.h"
#include "lib/base/record.h"
#include "lib/base/status_macros.h"
#include "lib/net/names.h"
#include "lib/sys/file_lock.h"
#include "lib/sys/open.h"

namespace caisson {
namespace {

constexpr char kRecordType[] = "caisson-network";
constexpr char kRecordFile[] = "network";
constexpr char kNewRecordFile[] = "network.new";
constexpr char kRootLockFile[] = "caisson-net.lock";
constexpr char kLockFile[] = "lock";
constexpr char kUsersFile[] = "users";
constexpr char kLeasesDir[] = "leases";
constexpr char kNamesDir[] = "names";

absl::Status FileError(int error, absl::string_view call,
                       absl::string_view path, absl::string_view hint = "") {
  return ErrnoError(error, absl::StrCat(call, "(", Quoted(path), ")"),
                    {.step = "network.state", .path = path, .hint = hint});
}

// mkdir(2) with the exact mode, whatever the umask is. True if it was made.
absl::StatusOr<bool> MakeDirectory(BorrowedFd parent, const std::string& path,
                                   mode_t mode) {
  if (::mkdirat(parent.get(), path.c_str(), 0700) != 0) {
    if (errno == EEXIST) return false;
    return FileError(errno, "mkdir", path);
  }
  if (::fchmodat(parent.get(), path.c_str(), mode, 0) != 0) {
    return FileError(errno, "chmod", path);
  }
  return true;
}

absl::Status MakePath(const std::string& path) {
  for (size_t slash = path.find('/', 1); slash != std::string::npos;
       slash = path.find('/', slash + 1)) {
    RETURN_IF_ERROR(
        MakeDirectory(BorrowedFd(AT_FDCWD), path.substr(0, slash), 0755)
            .status());
  }
  return MakeDirectory(BorrowedFd(AT_FDCWD), path, 0700).status();
}

// What is in the directory is believed, so nobody else may write there.
absl::Status CheckOwner(BorrowedFd dir, const std::string& path) {
  struct stat info;
  if (::fstat(dir.get(), &info) != 0) return FileError(errno, "stat", path);
  if (info.st_uid != ::geteuid() || (info.st_mode & 022) != 0) {
    return absl::PermissionDeniedError(absl::StrCat(
        "NetworkOptions::state_dir: ", Quoted(path), " must belong to uid ",
        ::geteuid(), " and be writable for nobody else; it belongs to uid ",
        info.st_uid, " with mode ",
        absl::StrFormat("%04o", info.st_mode & 07777)));
  }
  return absl::OkStatus();
}

absl::StatusOr<UniqueFd> OpenDirectory(BorrowedFd parent,
                                       const std::string& name) {
  return sys::OpenAt2(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW,
                      sys::kNoSymlinks);
}

// Opens for writing, made with mode 0600 whatever the umask is.
absl::StatusOr<UniqueFd> OpenFile(BorrowedFd dir, const std::string& name,
                                  int flags) {
  ASSIGN_OR_RETURN(UniqueFd file,
                   sys::OpenAt2(dir, name, flags | O_CREAT | O_NONBLOCK,
                                sys::kNoSymlinks, 0600));
  if (::fchmod(file.get(), 0600) != 0) return FileError(errno, "chmod", name);
  return file;
}

absl::Status RemoveEntries(BorrowedFd dir) {
  ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(dir));
  for (const std::string& name : names) {
    if (::unlinkat(dir.get(), name.c_str(), 0) != 0 && errno != ENOENT) {
      return FileError(errno, "unlink", name);
    }
  }
  return absl::OkStatus();
}

void RemoveTree(BorrowedFd parent, const std::string& name) {
  absl::StatusOr<UniqueFd> dir = OpenDirectory(parent, name);
  if (dir.ok()) {
    for (const char* sub : {kLeasesDir, kNamesDir}) {
      absl::StatusOr<UniqueFd> entries = OpenDirectory(dir->borrow(), sub);
      if (entries.ok()) RemoveEntries(entries->borrow()).IgnoreError();
      ::unlinkat(dir->get(), sub, AT_REMOVEDIR);
    }
    // The mark of a network's directory goes last.
    for (const char* file :
         {kRecordFile, kNewRecordFile, kLockFile, kUsersFile}) {
      ::unlinkat(dir->get(), file, 0);
    }
  }
  ::unlinkat(parent.get(), name.c_str(), AT_REMOVEDIR);
}

}  // namespace

std::string NetworkRecord::ToString() const {
  Record record(kRecordType);
  record.Add("name", name);
  record.Add("boot", boot_id);
  record.Add("bridge", bridge);
  record.Add("mac", sys::FormatMac(bridge_mac));
  record.Add("subnet", subnet.ToString());
  record.Add("gateway", gateway.ToString());
  record.Add("mtu", absl::StrCat(mtu));
  record.Add("internal", internal ? "1" : "0");
  return record.ToString();
}

absl::StatusOr<NetworkRecord> NetworkRecord::Parse(absl::string_view text) {
  ASSIGN_OR_RETURN(const Record record, Record::Parse(kRecordType, text));
  NetworkRecord network;
  ASSIGN_OR_RETURN(network.name, record.Get("name"));
  ASSIGN_OR_RETURN(network.boot_id, record.Get("boot"));
  ASSIGN_OR_RETURN(network.bridge, record.Get("bridge"));
  RETURN_IF_ERROR(ValidateInterfaceName("bridge", network.bridge));
  ASSIGN_OR_RETURN(const std::string mac, record.Get("mac"));
  ASSIGN_OR_RETURN(network.bridge_mac, ParseMac("mac", mac));
  ASSIGN_OR_RETURN(const std::string subnet, record.Get("subnet"));
  ASSIGN_OR_RETURN(network.subnet, ParseIpv4Subnet("subnet", subnet));
  ASSIGN_OR_RETURN(const std::string gateway, record.Get("gateway"));
  ASSIGN_OR_RETURN(network.gateway, ParseIpv4Address("gateway", gateway));
  ASSIGN_OR_RETURN(const std::string mtu, record.Get("mtu"));
  if (!absl::SimpleAtoi(mtu, &network.mtu)) {
    return absl::DataLossError(absl::StrCat("mtu: ", Quoted(mtu)));
  }
  ASSIGN_OR_RETURN(const std::string internal, record.Get("internal"));
  network.internal = internal == "1";
  return network;
}

absl::StatusOr<sys::MacAddress> ParseMac(absl::string_view field,
                                         absl::string_view text) {
  const std::vector<absl::string_view> parts = absl::StrSplit(text, ':');
  sys::MacAddress mac = {};
  bool valid = parts.size() == mac.size();
  for (size_t i = 0; valid && i < mac.size(); ++i) {
    valid = parts[i].size() == 2 && absl::ascii_isxdigit(parts[i][0]) &&
            absl::ascii_isxdigit(parts[i][1]);
    if (!valid) break;
    mac[i] = static_cast<uint8_t>(absl::HexStringToBytes(parts[i])[0]);
  }
  if (valid && (mac[0] & 1) == 0 && mac != sys::MacAddress{}) return mac;
  return absl::InvalidArgumentError(
      absl::StrCat(field, ": ", Quoted(text),
                   " is not a unicast MAC address like 02:00:00:00:00:01"));
}

absl::StatusOr<std::vector<std::string>> ListDirectory(BorrowedFd dir) {
  // A descriptor of its own, because reading moves the position.
  ASSIGN_OR_RETURN(UniqueFd fd, OpenDirectory(dir, "."));
  std::unique_ptr<DIR, int (*)(DIR*)> stream(::fdopendir(fd.get()), ::closedir);
  if (stream == nullptr) return FileError(errno, "fdopendir", ".");
  (void)fd.release();
  std::vector<std::string> names;
  for (;;) {
    errno = 0;
    const dirent* entry = ::readdir(stream.get());
    if (entry == nullptr) break;
    const absl::string_view name = entry->d_name;
    if (name != "." && name != "..") names.emplace_back(name);
  }
  if (errno != 0) return FileError(errno, "readdir", ".");
  std::sort(names.begin(), names.end());
  return names;
}

absl::StatusOr<StateRoot> StateRoot::Open(const std::string& path,
                                          bool create) {
  if (path.empty() || path[0] != '/' || path.find('\0') != std::string::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("NetworkOptions::state_dir: ", Quoted(path),
                     " is not an absolute path"));
  }
  if (create) RETURN_IF_ERROR(MakePath(path));
  ASSIGN_OR_RETURN(UniqueFd dir, sys::Open(path, O_RDONLY | O_DIRECTORY));
  RETURN_IF_ERROR(CheckOwner(dir.borrow(), path));
  if (!create &&
      ::faccessat(dir.get(), kRootLockFile, F_OK, AT_SYMLINK_NOFOLLOW) != 0) {
    return absl::NotFoundError(
        absl::StrCat(Quoted(path), " is not a state directory of networks"));
  }
  ASSIGN_OR_RETURN(UniqueFd lock,
                   OpenFile(dir.borrow(), kRootLockFile, O_RDWR));
  RETURN_IF_ERROR(sys::LockExclusive(lock.borrow(),
                                     absl::StrCat(path, "/", kRootLockFile)));
  return StateRoot(std::move(dir), std::move(lock));
}

absl::StatusOr<std::vector<std::string>> StateRoot::NetworkNames() const {
  ASSIGN_OR_RETURN(std::vector<std::string> names, ListDirectory(dir()));
  std::vector<std::string> networks;
  for (std::string& name : names) {
    const std::string users = absl::StrCat(name, "/", kUsersFile);
    struct stat info;
    if (::fstatat(dir_.get(), users.c_str(), &info, AT_SYMLINK_NOFOLLOW) == 0 &&
        S_ISREG(info.st_mode) && ValidateNetworkName("", name).ok()) {
      networks.push_back(std::move(name));
    } else {
      ::unlinkat(dir_.get(), name.c_str(), AT_REMOVEDIR);
    }
  }
  return networks;
}

absl::StatusOr<NetworkDir> NetworkDir::Open(const StateRoot& root,
                                            const std::string& name,
                                            bool create) {
  bool created = false;
  if (create) {
    ASSIGN_OR_RETURN(created, MakeDirectory(root.dir(), name, 0700));
  }
  absl::Cleanup undo = [&] {
    if (created) RemoveTree(root.dir(), name);
  };
  NetworkDir network;
  network.name_ = name;
  ASSIGN_OR_RETURN(network.dir_, OpenDirectory(root.dir(), name));
  const BorrowedFd dir = network.dir();
  // First: it marks the directory as a network's.
  ASSIGN_OR_RETURN(network.users_, OpenFile(dir, kUsersFile, O_RDWR));
  RETURN_IF_ERROR(MakeDirectory(dir, kLeasesDir, 0700).status());
  RETURN_IF_ERROR(MakeDirectory(dir, kNamesDir, 0700).status());
  ASSIGN_OR_RETURN(network.leases_, OpenDirectory(dir, kLeasesDir));
  ASSIGN_OR_RETURN(network.names_, OpenDirectory(dir, kNamesDir));
  ASSIGN_OR_RETURN(network.lock_, OpenFile(dir, kLockFile, O_RDWR));
  std::move(undo).Cancel();
  return network;
}

absl::StatusOr<std::optional<NetworkRecord>> NetworkDir::ReadRecord() const {
  const absl::StatusOr<std::string> text =
      sys::ReadFileAt(dir(), kRecordFile, sys::kNoSymlinks, Record::kMaxSize);
  if (!text.ok()) {
    if (absl::IsNotFound(text.status())) return std::optional<NetworkRecord>();
    return text.status();
  }
  absl::StatusOr<NetworkRecord> record = NetworkRecord::Parse(*text);
  if (!record.ok()) {
    return absl::DataLossError(
        absl::StrCat("the record of network ", Quoted(name_),
                     " cannot be read: ", record.status().message()));
  }
  return std::optional<NetworkRecord>(*std::move(record));
}

absl::Status NetworkDir::WriteRecord(const NetworkRecord& record) {
  ASSIGN_OR_RETURN(UniqueFd file,
                   OpenFile(dir(), kNewRecordFile, O_WRONLY | O_TRUNC));
  RETURN_IF_ERROR(
      sys::WriteAll(file.borrow(), record.ToString(), kNewRecordFile));
  if (::renameat(dir_.get(), kNewRecordFile, dir_.get(), kRecordFile) != 0) {
    return FileError(errno, "rename", kRecordFile);
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> NetworkDir::HasOtherUsers() const {
  return sys::IsLockedElsewhere(users_.borrow(), kUsersFile);
}

absl::Status NetworkDir::Join() {
  return sys::LockShared(users_.borrow(), kUsersFile);
}

absl::StatusOr<UniqueFd> NetworkDir::JoinSeparately() const {
  ASSIGN_OR_RETURN(UniqueFd users, OpenFile(dir(), kUsersFile, O_RDWR));
  RETURN_IF_ERROR(sys::LockShared(users.borrow(), kUsersFile));
  return users;
}

absl::StatusOr<UniqueFd> NetworkDir::LockSeparately() const {
  ASSIGN_OR_RETURN(UniqueFd lock, OpenFile(dir(), kLockFile, O_RDWR));
  RETURN_IF_ERROR(sys::LockExclusive(lock.borrow(), kLockFile));
  return lock;
}

void NetworkDir::Leave() { sys::Unlock(users_.borrow()); }

absl::StatusOr<bool> NetworkDir::BecomeOnlyUser() {
  return sys::TryLockExclusive(users_.borrow(), kUsersFile);
}

absl::Status NetworkDir::Remove(const StateRoot& root) {
  RemoveTree(root.dir(), name_);
  struct stat info;
  if (::fstatat(root.dir().get(), name_.c_str(), &info, AT_SYMLINK_NOFOLLOW) ==
      0) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the state of network ", Quoted(name_),
        " cannot be removed: its directory holds what is not of the library"));
  }
  return absl::OkStatus();
}

}  // namespace caisson
