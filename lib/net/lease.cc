#include "lib/net/lease.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/errno_error.h"
#include "lib/base/record.h"
#include "lib/base/status_macros.h"
#include "lib/net/names.h"
#include "lib/sys/file_lock.h"
#include "lib/sys/open.h"

namespace caisson {
namespace {

constexpr char kRecordType[] = "caisson-lease";
constexpr size_t kMaxCursor = 64;

absl::Status FileError(int error, absl::string_view call,
                       absl::string_view path) {
  return ErrnoError(error, absl::StrCat(call, "(", Quoted(path), ")"),
                    {.step = "network.lease", .path = path});
}

// Of removals the missing file is no failure.
absl::Status Unlink(BorrowedFd dir, const std::string& name) {
  if (::unlinkat(dir.get(), name.c_str(), 0) != 0 && errno != ENOENT) {
    return FileError(errno, "unlink", name);
  }
  return absl::OkStatus();
}

// The same if `name` is a link to `file`.
absl::Status UnlinkLink(BorrowedFd dir, const std::string& name,
                        BorrowedFd file) {
  struct stat named;
  struct stat open;
  if (::fstatat(dir.get(), name.c_str(), &named, AT_SYMLINK_NOFOLLOW) != 0 ||
      ::fstat(file.get(), &open) != 0 || named.st_dev != open.st_dev ||
      named.st_ino != open.st_ino) {
    return absl::OkStatus();
  }
  return Unlink(dir, name);
}

// Whether both names are links to one file.
bool SameFile(BorrowedFd a_dir, const std::string& a, BorrowedFd b_dir,
              const std::string& b) {
  struct stat first;
  struct stat second;
  return ::fstatat(a_dir.get(), a.c_str(), &first, AT_SYMLINK_NOFOLLOW) == 0 &&
         ::fstatat(b_dir.get(), b.c_str(), &second, AT_SYMLINK_NOFOLLOW) == 0 &&
         first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

}  // namespace

std::string LeaseRecord::ToString() const {
  Record record(kRecordType);
  record.Add("address", address.ToString());
  record.Add("boot", boot_id);
  record.Add("netns", absl::StrCat(ns.device, ":", ns.inode));
  record.Add("veth", veth);
  record.Add("mac", sys::FormatMac(veth_mac));
  record.Add("name", name);
  for (const std::string& alias : aliases) record.Add("alias", alias);
  return record.ToString();
}

absl::StatusOr<LeaseRecord> LeaseRecord::Parse(absl::string_view text) {
  ASSIGN_OR_RETURN(const Record record, Record::Parse(kRecordType, text));
  LeaseRecord lease;
  ASSIGN_OR_RETURN(const std::string address, record.Get("address"));
  ASSIGN_OR_RETURN(lease.address, ParseIpv4Address("address", address));
  ASSIGN_OR_RETURN(lease.boot_id, record.Get("boot"));
  ASSIGN_OR_RETURN(const std::string netns, record.Get("netns"));
  const std::pair<std::string, std::string> ids = absl::StrSplit(netns, ':');
  if (!absl::SimpleAtoi(ids.first, &lease.ns.device) ||
      !absl::SimpleAtoi(ids.second, &lease.ns.inode)) {
    return absl::DataLossError(absl::StrCat("netns: ", Quoted(netns)));
  }
  ASSIGN_OR_RETURN(lease.veth, record.Get("veth"));
  RETURN_IF_ERROR(ValidateInterfaceName("veth", lease.veth));
  ASSIGN_OR_RETURN(const std::string mac, record.Get("mac"));
  ASSIGN_OR_RETURN(lease.veth_mac, ParseMac("mac", mac));
  ASSIGN_OR_RETURN(lease.name, record.Get("name"));
  RETURN_IF_ERROR(ValidateHostName("name", lease.name));
  lease.aliases = record.GetAll("alias");
  for (const std::string& alias : lease.aliases) {
    RETURN_IF_ERROR(ValidateHostName("alias", alias));
  }
  return lease;
}

Lease::Lease(Lease&& other) noexcept { *this = std::move(other); }

Lease& Lease::operator=(Lease&& other) noexcept {
  if (this != &other) {
    Release().IgnoreError();
    address_ = other.address_;
    name_ = std::move(other.name_);
    reused_ = other.reused_;
    adopted_ = other.adopted_;
    file_ = std::move(other.file_);
    dir_ = other.dir_;
  }
  return *this;
}

// Needs no network lock: nobody touches a lease whose lock is held, and the
// lock goes last. But of one that was adopted there can be several; address and
// name may be somebody else's by now.
absl::Status Lease::Release() {
  if (!file_.valid()) return absl::OkStatus();
  absl::Status result;
  if (adopted_) {
    ASSIGN_OR_RETURN(const UniqueFd lock, dir_->LockSeparately());
    result = UnlinkLink(dir_->names(), name_, fd());
    result.Update(UnlinkLink(dir_->leases(), address_.ToString(), fd()));
    file_.reset();
    return result;
  }
  result = Unlink(dir_->names(), name_);
  result.Update(Unlink(dir_->leases(), address_.ToString()));
  file_.reset();
  return result;
}

Lease Lease::Adopt(UniqueFd file, const LeaseRecord& record,
                   const NetworkDir* dir) {
  Lease lease;
  lease.address_ = record.address;
  lease.name_ = FoldName(record.name);
  lease.file_ = std::move(file);
  lease.dir_ = dir;
  lease.adopted_ = true;
  return lease;
}

bool Lease::IsGone() const {
  struct stat info;
  return file_.valid() && ::fstat(file_.get(), &info) == 0 &&
         info.st_nlink == 0;
}

class LeaseStore::Guard final {
 public:
  explicit Guard(const NetworkDir* dir) : dir_(dir) {
    status_ = sys::LockExclusive(dir_->lock(), "lock");
  }
  ~Guard() {
    if (status_.ok()) sys::Unlock(dir_->lock());
  }
  Guard(const Guard&) = delete;
  Guard& operator=(const Guard&) = delete;
  const absl::Status& status() const { return status_; }

 private:
  const NetworkDir* dir_;
  absl::Status status_;
};

LeaseStore::LeaseStore(const NetworkDir* dir, const NetworkRecord& network,
                       Reaper reaper)
    : dir_(dir),
      subnet_(network.subnet),
      gateway_(network.gateway),
      network_(network.name),
      reaper_(std::move(reaper)) {}

// The lock file carries "<address> <wrapped>"; anything else counts as empty.
LeaseStore::Cursor LeaseStore::ReadCursor() const {
  Cursor cursor = {subnet_.network, false};
  char text[kMaxCursor];
  const ssize_t n = ::pread(dir_->lock().get(), text, sizeof(text), 0);
  if (n <= 0) return cursor;
  const std::vector<std::string> parts = absl::StrSplit(
      absl::string_view(text, static_cast<size_t>(n)), absl::ByAnyChar(" \n"));
  if (parts.size() < 2) return cursor;
  const absl::StatusOr<Ipv4Address> last = ParseIpv4Address("cursor", parts[0]);
  if (!last.ok() || !subnet_.Contains(*last)) return cursor;
  return {*last, parts[1] == "1"};
}

absl::Status LeaseStore::WriteCursor(const Cursor& cursor) {
  const std::string text = absl::StrCat(cursor.last.ToString(), " ",
                                        cursor.wrapped ? "1" : "0", "\n");
  const int file = dir_->lock().get();
  if (::pwrite(file, text.data(), text.size(), 0) !=
          static_cast<ssize_t>(text.size()) ||
      ::ftruncate(file, static_cast<off_t>(text.size())) != 0) {
    return FileError(errno, "write", "lock");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<LeaseRecord>> LeaseStore::ReadIfStale(
    BorrowedFd dir, const std::string& file) {
  absl::StatusOr<UniqueFd> fd =
      sys::OpenAt2(dir, file, O_RDWR | O_NONBLOCK, sys::kNoSymlinks);
  if (!fd.ok()) {
    if (absl::IsNotFound(fd.status())) return std::optional<LeaseRecord>();
    return fd.status();
  }
  ASSIGN_OR_RETURN(const bool live, sys::IsLockedElsewhere(fd->borrow(), file));
  if (live) return std::optional<LeaseRecord>();
  ASSIGN_OR_RETURN(const std::string text,
                   sys::ReadAll(fd->borrow(), Record::kMaxSize, file));
  absl::StatusOr<LeaseRecord> record = LeaseRecord::Parse(text);
  if (record.ok()) return std::optional<LeaseRecord>(*std::move(record));
  // Its owner died before it had written anything: there is only the file.
  return std::optional<LeaseRecord>(LeaseRecord{});
}

// The kernel's side first: as long as the file is there, somebody can try
// again.
absl::Status LeaseStore::Reap(const std::string& file,
                              const LeaseRecord& record) {
  if (!record.veth.empty()) RETURN_IF_ERROR(reaper_(record));
  const std::string name = FoldName(record.name);
  if (!name.empty() && SameFile(dir_->names(), name, dir_->leases(), file)) {
    RETURN_IF_ERROR(Unlink(dir_->names(), name));
  }
  return Unlink(dir_->leases(), file);
}

absl::Status LeaseStore::CheckName(const std::string& name) {
  const std::string folded = FoldName(name);
  struct stat info;
  if (::fstatat(dir_->names().get(), folded.c_str(), &info,
                AT_SYMLINK_NOFOLLOW) != 0) {
    if (errno == ENOENT) return absl::OkStatus();
    return FileError(errno, "stat", folded);
  }
  ASSIGN_OR_RETURN(const std::optional<LeaseRecord> stale,
                   ReadIfStale(dir_->names(), folded));
  if (stale.has_value()) {
    const std::string file = stale->address.ToString();
    if (SameFile(dir_->names(), folded, dir_->leases(), file)) {
      RETURN_IF_ERROR(Reap(file, *stale));
    }
    return Unlink(dir_->names(), folded);
  }
  return absl::AlreadyExistsError(absl::StrCat(
      "EndpointOptions::name: ", Quoted(name),
      " is the name of a live endpoint on network ", Quoted(network_)));
}

// False if the address is taken. Otherwise `lease` holds it, complete.
absl::StatusOr<bool> LeaseStore::TryCreate(const LeaseRecord& record,
                                           Lease& lease) {
  const std::string file = record.address.ToString();
  absl::StatusOr<UniqueFd> fd = sys::OpenAt2(
      dir_->leases(), file, O_RDWR | O_CREAT | O_EXCL, sys::kNoSymlinks, 0600);
  if (!fd.ok()) {
    if (absl::IsAlreadyExists(fd.status())) return false;
    return fd.status();
  }
  Lease created;
  created.address_ = record.address;
  created.name_ = FoldName(record.name);
  created.dir_ = dir_;
  // From here on the destructor of `created` removes the file.
  created.file_ = *std::move(fd);
  const int raw = created.file_.get();
  if (::fchmod(raw, 0600) != 0) return FileError(errno, "chmod", file);
  ASSIGN_OR_RETURN(const bool locked,
                   sys::TryLockExclusive(created.file_.borrow(), file));
  if (!locked) {
    return absl::InternalError(
        absl::StrCat("lease ", Quoted(file), " is locked by a stranger"));
  }
  RETURN_IF_ERROR(
      sys::WriteAll(created.file_.borrow(), record.ToString(), file));
  if (::linkat(dir_->leases().get(), file.c_str(), dir_->names().get(),
               created.name_.c_str(), 0) != 0) {
    const int error = errno;
    created.name_ = "";
    return FileError(error, "link", FoldName(record.name));
  }
  lease = std::move(created);
  return true;
}

absl::StatusOr<Lease> LeaseStore::AllocateFixed(LeaseRecord record) {
  const std::string address = record.address.ToString();
  if (!subnet_.Contains(record.address) || record.address == gateway_ ||
      record.address == subnet_.network ||
      record.address == subnet_.broadcast()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "EndpointOptions::address: ", address, " is not an address for an ",
        "endpoint of ", subnet_.ToString(), " (gateway ", gateway_.ToString(),
        ")"));
  }
  Lease lease;
  ASSIGN_OR_RETURN(bool created, TryCreate(record, lease));
  if (!created) {
    ASSIGN_OR_RETURN(const std::optional<LeaseRecord> stale,
                     ReadIfStale(dir_->leases(), address));
    if (stale.has_value()) {
      RETURN_IF_ERROR(Reap(address, *stale));
      ASSIGN_OR_RETURN(created, TryCreate(record, lease));
    }
  }
  if (!created) {
    return absl::AlreadyExistsError(absl::StrCat(
        "EndpointOptions::address: ", address,
        " belongs to a live endpoint on network ", Quoted(network_)));
  }
  lease.reused_ = true;
  return lease;
}

absl::StatusOr<Lease> LeaseStore::AllocateNext(LeaseRecord record) {
  Cursor cursor = ReadCursor();
  const uint32_t first = subnet_.network.value + 1;
  const uint32_t count = subnet_.broadcast().value - first;
  uint32_t index = cursor.last.value + 1 - first;
  for (uint32_t tried = 0; tried < count; ++tried, ++index) {
    if (index >= count) {
      index = 0;
      cursor.wrapped = true;
    }
    record.address = {first + index};
    if (record.address == gateway_) continue;
    Lease lease;
    ASSIGN_OR_RETURN(bool created, TryCreate(record, lease));
    if (!created) {
      const std::string file = record.address.ToString();
      ASSIGN_OR_RETURN(const std::optional<LeaseRecord> stale,
                       ReadIfStale(dir_->leases(), file));
      if (!stale.has_value()) continue;
      RETURN_IF_ERROR(Reap(file, *stale));
      ASSIGN_OR_RETURN(created, TryCreate(record, lease));
      if (!created) continue;
    }
    cursor.last = record.address;
    RETURN_IF_ERROR(WriteCursor(cursor));
    lease.reused_ = cursor.wrapped;
    return lease;
  }
  return absl::ResourceExhaustedError(absl::StrCat(
      "network ", Quoted(network_), ": all ", count - 1, " addresses of ",
      subnet_.ToString(),
      " belong to live endpoints; NetworkOptions::subnet can be larger"));
}

absl::StatusOr<Lease> LeaseStore::Allocate(LeaseRecord record) {
  const Guard guard(dir_);
  RETURN_IF_ERROR(guard.status());
  RETURN_IF_ERROR(CheckName(record.name));
  return record.address == Ipv4Address{} ? AllocateNext(std::move(record))
                                         : AllocateFixed(std::move(record));
}

absl::StatusOr<std::vector<LeaseRecord>> LeaseStore::List() {
  const Guard guard(dir_);
  RETURN_IF_ERROR(guard.status());
  ASSIGN_OR_RETURN(const std::vector<std::string> files,
                   ListDirectory(dir_->leases()));
  std::vector<LeaseRecord> live;
  for (const std::string& file : files) {
    absl::StatusOr<UniqueFd> fd = sys::OpenAt2(
        dir_->leases(), file, O_RDWR | O_NONBLOCK, sys::kNoSymlinks);
    if (!fd.ok()) {
      // Released since the directory was read.
      if (absl::IsNotFound(fd.status())) continue;
      return fd.status();
    }
    ASSIGN_OR_RETURN(const bool locked,
                     sys::IsLockedElsewhere(fd->borrow(), file));
    if (!locked) continue;
    ASSIGN_OR_RETURN(const std::string text,
                     sys::ReadAll(fd->borrow(), Record::kMaxSize, file));
    absl::StatusOr<LeaseRecord> record = LeaseRecord::Parse(text);
    if (!record.ok()) {
      return Annotate(record.status(), absl::StrCat("lease ", Quoted(file)));
    }
    live.push_back(*std::move(record));
  }
  std::sort(live.begin(), live.end(),
            [](const LeaseRecord& a, const LeaseRecord& b) {
              return a.address < b.address;
            });
  return live;
}

// A name whose lease is gone: its owner died between two unlinks.
absl::Status LeaseStore::ReapOrphanNames() {
  ASSIGN_OR_RETURN(const std::vector<std::string> names,
                   ListDirectory(dir_->names()));
  for (const std::string& name : names) {
    ASSIGN_OR_RETURN(const std::optional<LeaseRecord> stale,
                     ReadIfStale(dir_->names(), name));
    if (stale.has_value()) RETURN_IF_ERROR(Unlink(dir_->names(), name));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<LeaseRecord>> LeaseStore::ReapStale() {
  const Guard guard(dir_);
  RETURN_IF_ERROR(guard.status());
  ASSIGN_OR_RETURN(const std::vector<std::string> files,
                   ListDirectory(dir_->leases()));
  std::vector<LeaseRecord> reaped;
  for (const std::string& file : files) {
    ASSIGN_OR_RETURN(std::optional<LeaseRecord> stale,
                     ReadIfStale(dir_->leases(), file));
    if (!stale.has_value()) continue;
    RETURN_IF_ERROR(Reap(file, *stale));
    reaped.push_back(*std::move(stale));
  }
  RETURN_IF_ERROR(ReapOrphanNames());
  return reaped;
}

}  // namespace caisson
