#include "lib/sys/mount.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"

namespace caisson::sys {
namespace {

constexpr int kMaxLogMessages = 16;  // linux include/linux/fs_context.h: 8

// What the file system wrote to the context's log, one message per read(2).
std::string ReadLog(int fd) {
  std::string log;
  char message[512];
  for (int i = 0; i < kMaxLogMessages; ++i) {
    const ssize_t n = ::read(fd, message, sizeof(message));
    if (n <= 0) break;
    absl::string_view text(message, static_cast<size_t>(n));
    text = absl::StripAsciiWhitespace(text);
    // "e overlay: text": severity, origin, text.
    if (text.size() > 2 && text[1] == ' ') text.remove_prefix(2);
    absl::StrAppend(&log, log.empty() ? "" : ", ", absl::CHexEscape(text));
  }
  return log;
}

}  // namespace

absl::StatusOr<FsContext> FsContext::Open(const char* type) {
  UniqueFd fd(static_cast<int>(::syscall(SYS_fsopen, type, FSOPEN_CLOEXEC)));
  if (!fd.valid()) {
    absl::string_view hint;
    if (errno == ENODEV) hint = "the kernel does not have this file system";
    if (errno == EPERM) {
      hint =
          "mounting needs CAP_SYS_ADMIN in the user namespace of the mount "
          "namespace";
    }
    return ErrnoError(errno, absl::StrCat("fsopen(", type, ")"),
                      {.step = type, .hint = hint});
  }
  return FsContext(std::move(fd), type);
}

absl::Status FsContext::Error(int error, const std::string& call) const {
  const std::string log = ReadLog(fd_.get());
  return ErrnoError(
      error, absl::StrCat(type_, ": ", call),
      {.step = type_,
       .hint = log.empty() ? log : absl::StrCat("the kernel says: ", log)});
}

absl::Status FsContext::SetString(const char* key, const std::string& value) {
  if (::syscall(SYS_fsconfig, fd_.get(), FSCONFIG_SET_STRING, key,
                value.c_str(), 0) == 0) {
    return absl::OkStatus();
  }
  return Error(errno, absl::StrCat("fsconfig(", key, "=", value, ")"));
}

absl::Status FsContext::SetFlag(const char* key) {
  if (::syscall(SYS_fsconfig, fd_.get(), FSCONFIG_SET_FLAG, key, nullptr, 0) ==
      0) {
    return absl::OkStatus();
  }
  return Error(errno, absl::StrCat("fsconfig(", key, ")"));
}

absl::Status FsContext::SetFd(const char* key, BorrowedFd fd,
                              absl::string_view what) {
  if (::syscall(SYS_fsconfig, fd_.get(), FSCONFIG_SET_FD, key, nullptr,
                fd.get()) == 0) {
    return absl::OkStatus();
  }
  return Error(errno, absl::StrCat("fsconfig(", key, ", ", what, ")"));
}

absl::StatusOr<UniqueFd> FsContext::Mount(unsigned attributes) {
  if (::syscall(SYS_fsconfig, fd_.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr,
                0) != 0) {
    return Error(errno, "fsconfig(CMD_CREATE)");
  }
  UniqueFd mount(static_cast<int>(
      ::syscall(SYS_fsmount, fd_.get(), FSMOUNT_CLOEXEC, attributes)));
  if (!mount.valid()) return Error(errno, "fsmount()");
  return mount;
}

absl::StatusOr<UniqueFd> CloneMount(BorrowedFd dir, const char* path,
                                    bool recursive, absl::string_view what) {
  const unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC |
                         AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH |
                         (recursive ? AT_RECURSIVE : 0);
  UniqueFd mount(
      static_cast<int>(::syscall(SYS_open_tree, dir.get(), path, flags)));
  if (!mount.valid()) {
    return ErrnoError(errno, absl::StrCat("open_tree(", what, ", CLONE)"),
                      {.step = "open_tree", .path = what});
  }
  return mount;
}

absl::Status SetMountAttributes(BorrowedFd mount, const mount_attr& attributes,
                                bool recursive, absl::string_view what) {
  const unsigned flags = AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0);
  if (::syscall(SYS_mount_setattr, mount.get(), "", flags, &attributes,
                sizeof(attributes)) == 0) {
    return absl::OkStatus();
  }
  return ErrnoError(errno, absl::StrCat("mount_setattr(", what, ")"),
                    {.step = "mount_setattr", .path = what});
}

int AttachMount(BorrowedFd mount, BorrowedFd target) {
  return ::syscall(SYS_move_mount, mount.get(), "", target.get(), "",
                   MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) == 0
             ? 0
             : errno;
}

}  // namespace caisson::sys
