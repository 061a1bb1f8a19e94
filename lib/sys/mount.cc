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
#include "lib/base/status_macros.h"

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

MountResult FromDescriptor(long result) {
  if (result < 0) return {.error = errno};
  return {.fd = UniqueFd(static_cast<int>(result))};
}

MountResult FromZero(long result) { return {.error = result < 0 ? errno : 0}; }

unsigned CloneFlags(bool recursive) {
  return OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_SYMLINK_NOFOLLOW |
         AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0);
}

class Direct final : public MountExecutor {
 public:
  MountResult OpenContext(const char* type) const override {
    return FromDescriptor(::syscall(SYS_fsopen, type, FSOPEN_CLOEXEC));
  }

  MountResult CreateMount(BorrowedFd context, unsigned attributes,
                          const char** call) const override {
    *call = "fsconfig(CMD_CREATE)";
    if (::syscall(SYS_fsconfig, context.get(), FSCONFIG_CMD_CREATE, nullptr,
                  nullptr, 0) != 0) {
      return {.error = errno};
    }
    *call = "fsmount()";
    return FromDescriptor(
        ::syscall(SYS_fsmount, context.get(), FSMOUNT_CLOEXEC, attributes));
  }

  MountResult OpenTree(BorrowedFd dir, const char* path,
                       unsigned flags) const override {
    return FromDescriptor(::syscall(SYS_open_tree, dir.get(), path, flags));
  }

  MountResult OpenHostTree(BorrowedFd dir, const char* path,
                           unsigned flags) const override {
    return OpenTree(dir, path, flags);
  }

  MountResult BindHostFiles(BorrowedFd from,
                            const std::vector<std::string>& names,
                            BorrowedFd to) const override {
    for (const std::string& name : names) {
      MountResult clone =
          OpenTree(from, name.c_str(), CloneFlags(/*recursive=*/false));
      if (!clone.ok()) return clone;
      MountResult set = SetAttributes(clone.fd.borrow(), kHostNode, 0);
      if (!set.ok()) return set;
      const long moved = ::syscall(SYS_move_mount, clone.fd.get(), "", to.get(),
                                   name.c_str(), MOVE_MOUNT_F_EMPTY_PATH);
      if (moved != 0) return FromZero(moved);
    }
    return {};
  }

  MountResult SetAttributes(BorrowedFd mount, const mount_attr& attributes,
                            unsigned flags) const override {
    return FromZero(::syscall(SYS_mount_setattr, mount.get(), "",
                              flags | AT_EMPTY_PATH, &attributes,
                              sizeof(attributes)));
  }

  MountResult Attach(BorrowedFd mount, BorrowedFd target) const override {
    return FromZero(
        ::syscall(SYS_move_mount, mount.get(), "", target.get(), "",
                  MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH));
  }
};

absl::StatusOr<UniqueFd> FinishClone(MountResult result,
                                     absl::string_view what) {
  if (result.ok()) return std::move(result.fd);
  RETURN_IF_ERROR(result.failure);
  return ErrnoError(result.error, absl::StrCat("open_tree(", what, ", CLONE)"),
                    {.step = "open_tree", .path = what});
}

}  // namespace

const MountExecutor& DirectMounts() {
  static const auto* const direct = new Direct;
  return *direct;
}

absl::StatusOr<FsContext> FsContext::Open(const MountExecutor& mounts,
                                          const char* type) {
  MountResult result = mounts.OpenContext(type);
  if (result.ok()) return FsContext(mounts, std::move(result.fd), type);
  RETURN_IF_ERROR(result.failure);
  absl::string_view hint;
  if (result.error == ENODEV)
    hint = "the kernel does not have this file system";
  if (result.error == EPERM) {
    hint =
        "mounting needs CAP_SYS_ADMIN in the user namespace of the mount "
        "namespace";
  }
  return ErrnoError(result.error, absl::StrCat("fsopen(", type, ")"),
                    {.step = type, .hint = hint});
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
  const char* call = "";
  MountResult result = mounts_->CreateMount(fd_.borrow(), attributes, &call);
  if (result.ok()) return std::move(result.fd);
  RETURN_IF_ERROR(result.failure);
  return Error(result.error, call);
}

absl::StatusOr<UniqueFd> CloneMount(const MountExecutor& mounts, BorrowedFd dir,
                                    const char* path, bool recursive,
                                    absl::string_view what) {
  return FinishClone(mounts.OpenTree(dir, path, CloneFlags(recursive)), what);
}

absl::StatusOr<UniqueFd> CloneHostMount(const MountExecutor& mounts,
                                        BorrowedFd dir, const char* path,
                                        bool recursive,
                                        absl::string_view what) {
  return FinishClone(mounts.OpenHostTree(dir, path, CloneFlags(recursive)),
                     what);
}

absl::Status SetMountAttributes(const MountExecutor& mounts, BorrowedFd mount,
                                const mount_attr& attributes, bool recursive,
                                absl::string_view what) {
  const MountResult result = mounts.SetAttributes(
      mount, attributes, recursive ? unsigned{AT_RECURSIVE} : 0u);
  if (result.ok()) return absl::OkStatus();
  RETURN_IF_ERROR(result.failure);
  return ErrnoError(result.error, absl::StrCat("mount_setattr(", what, ")"),
                    {.step = "mount_setattr", .path = what});
}

}  // namespace caisson::sys
