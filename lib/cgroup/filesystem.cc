#include "lib/cgroup/filesystem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/cgroup/devices.h"
#include "lib/sys/open.h"

namespace caisson::cgroup {
namespace {

// A file of cgroupfs or of /proc that is larger is not what we asked for.
constexpr size_t kMaxFileSize = 64 << 20;

// sd_booted(3).
constexpr char kSystemdBooted[] = "/run/systemd/system";
// What systemd marks the groups with that it gave away
// (systemd.resource-control (5), Delegate=; xattrs since version 251,
// "trusted." readable by root alone).
constexpr const char* kDelegateMarks[] = {"user.delegate", "trusted.delegate"};

// The kernel keeps 15 characters.
constexpr char kDeviceProgramName[] = "caisson_devices";

absl::Status FileError(int error, absl::string_view operation,
                       const std::string& path, absl::string_view value = {}) {
  return ErrnoError(error,
                    value.data() == nullptr
                        ? absl::StrCat(operation, "(", Quoted(path), ")")
                        : absl::StrCat(operation, "(", Quoted(path), ", ",
                                       Quoted(value), ")"),
                    {.step = "cgroup", .path = path});
}

bool IsCgroupfs(BorrowedFd fd, CgroupVersion version) {
  struct statfs fs = {};
  return ::fstatfs(fd.get(), &fs) == 0 &&
         static_cast<uint64_t>(fs.f_type) == (version == CgroupVersion::kV2
                                                  ? CGROUP2_SUPER_MAGIC
                                                  : CGROUP_SUPER_MAGIC);
}

}  // namespace

absl::StatusOr<std::string> Filesystem::ReadProc(
    const std::string& name) const {
  const std::string path = absl::StrCat("/proc/", name);
  ASSIGN_OR_RETURN(UniqueFd fd, sys::Open(path, O_RDONLY));
  return sys::ReadAll(fd.borrow(), kMaxFileSize, path);
}

absl::StatusOr<UniqueFd> Filesystem::OpenMount(const Mount& mount) const {
  ASSIGN_OR_RETURN(UniqueFd fd,
                   sys::Open(mount.mount_point, O_PATH | O_DIRECTORY));
  struct statx st = {};
  if (::statx(fd.get(), "", AT_EMPTY_PATH, STATX_MNT_ID, &st) != 0) {
    return FileError(errno, "statx", mount.mount_point);
  }
  if (st.stx_mnt_id != mount.id || !IsCgroupfs(fd.borrow(), mount.version)) {
    return absl::NotFoundError(
        absl::StrCat("something else is mounted over the cgroup mount at ",
                     Quoted(mount.mount_point)));
  }
  return fd;
}

int Filesystem::MakeDir(BorrowedFd parent, const std::string& name,
                        mode_t mode) const {
  if (::mkdirat(parent.get(), name.c_str(), mode) != 0) return errno;
  // The umask of the host must not decide who may read a group.
  struct stat st = {};
  if (::fstatat(parent.get(), name.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0 &&
      (st.st_mode & 07777) == mode) {
    return 0;
  }
  if (::fchmodat(parent.get(), name.c_str(), mode, 0) != 0) {
    const int error = errno;
    ::unlinkat(parent.get(), name.c_str(), AT_REMOVEDIR);
    return error;
  }
  return 0;
}

int Filesystem::RemoveDir(BorrowedFd parent, const std::string& name) const {
  return ::unlinkat(parent.get(), name.c_str(), AT_REMOVEDIR) == 0 ? 0 : errno;
}

bool Filesystem::SystemdBooted() const {
  struct stat st = {};
  return ::lstat(kSystemdBooted, &st) == 0 && S_ISDIR(st.st_mode);
}

bool Filesystem::IsDelegated(const Dir& dir) const {
  for (const char* mark : kDelegateMarks) {
    char value = 0;
    if (::fgetxattr(dir.fd.get(), mark, &value, 1) == 1 && value == '1') {
      return true;
    }
  }
  return false;
}

absl::Status Filesystem::ProbeDevicePrograms() const {
  return sys::LoadDeviceProgram(DeviceProgram({}), kDeviceProgramName).status();
}

absl::Status Filesystem::SetDeviceProgram(
    const Dir& dir, const std::vector<sys::BpfInstruction>& program) const {
  MutexLock lock(&loaded_->mutex);
  const size_t bytes = program.size() * sizeof(program[0]);
  if (!loaded_->fd.valid() || program.size() != loaded_->code.size() ||
      ::memcmp(program.data(), loaded_->code.data(), bytes) != 0) {
    ASSIGN_OR_RETURN(loaded_->fd,
                     sys::LoadDeviceProgram(program, kDeviceProgramName));
    loaded_->code = program;
  }
  return sys::AttachDeviceProgram(dir.fd.borrow(), dir.path,
                                  loaded_->fd.borrow(), kDeviceProgramName);
}

absl::StatusOr<Dir> Filesystem::OpenDir(BorrowedFd parent,
                                        absl::string_view parent_path,
                                        const std::string& name) const {
  Dir dir;
  dir.path = Join(parent_path, name);
  dir.fd = UniqueFd(sys::OpenAt2Raw(parent.get(), name.c_str(),
                                    O_RDONLY | O_DIRECTORY, sys::kNoSymlinks));
  if (!dir.fd.valid()) return FileError(errno, "open", dir.path);
  return dir;
}

absl::StatusOr<UniqueFd> Filesystem::OpenFile(const Dir& dir,
                                              const std::string& file,
                                              int flags) const {
  UniqueFd fd(
      sys::OpenAt2Raw(dir.fd.get(), file.c_str(), flags, sys::kNoSymlinks));
  if (!fd.valid()) return FileError(errno, "open", Join(dir.path, file));
  return fd;
}

absl::StatusOr<std::string> Filesystem::Read(const Dir& dir,
                                             absl::string_view file) const {
  ASSIGN_OR_RETURN(UniqueFd fd, OpenFile(dir, std::string(file), O_RDONLY));
  return sys::ReadAll(fd.borrow(), kMaxFileSize, Join(dir.path, file));
}

absl::Status Filesystem::Write(const Dir& dir, absl::string_view file,
                               absl::string_view value) const {
  ASSIGN_OR_RETURN(UniqueFd fd, OpenFile(dir, std::string(file), O_WRONLY));
  ssize_t n;
  do {
    n = ::write(fd.get(), value.data(), value.size());
  } while (n < 0 && errno == EINTR);
  if (n == static_cast<ssize_t>(value.size())) return absl::OkStatus();
  return FileError(n < 0 ? errno : EIO, "write", Join(dir.path, file), value);
}

absl::StatusOr<std::vector<std::string>> Filesystem::Children(
    const Dir& dir) const {
  // A descriptor of its own: readdir moves the offset of the open file.
  ASSIGN_OR_RETURN(UniqueFd fd, OpenFile(dir, ".", O_RDONLY | O_DIRECTORY));
  std::unique_ptr<DIR, int (*)(DIR*)> stream(::fdopendir(fd.get()), ::closedir);
  if (stream == nullptr) return FileError(errno, "fdopendir", dir.path);
  (void)fd.release();
  std::vector<std::string> names;
  for (;;) {
    errno = 0;
    const dirent* entry = ::readdir(stream.get());
    if (entry == nullptr) break;
    const absl::string_view name(entry->d_name);
    if (entry->d_type == DT_DIR && name != "." && name != "..") {
      names.emplace_back(name);
    }
  }
  if (errno != 0) return FileError(errno, "readdir", dir.path);
  return names;
}

absl::StatusOr<int64_t> FlatKeyedValue(absl::string_view text,
                                       absl::string_view key) {
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    int64_t value = 0;
    if (absl::ConsumePrefix(&line, key) && absl::ConsumePrefix(&line, " ") &&
        absl::SimpleAtoi(line, &value)) {
      return value;
    }
  }
  return absl::NotFoundError(absl::StrCat("no ", Quoted(key), " in it"));
}

std::string Join(absl::string_view path, absl::string_view name) {
  return absl::StrCat(absl::StripSuffix(path, "/"), "/",
                      absl::StripPrefix(name, "/"));
}

}  // namespace caisson::cgroup
