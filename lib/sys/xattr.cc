#include "lib/sys/xattr.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstdint>
#include <functional>

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"

namespace caisson::sys {
namespace {

// One number on all architectures; newer than the headers of Debian 12.
constexpr long kSetxattrat = 463;
constexpr long kGetxattrat = 464;
constexpr long kListxattrat = 465;

// struct xattr_args of <linux/xattr.h>.
struct XattrArgs {
  alignas(8) uint64_t value;
  uint32_t size;
  uint32_t flags;
};

// A value or list that grows while it is read is asked for again.
constexpr int kMaxAttempts = 16;

std::string ProcPath(BorrowedFd dir, const std::string& name) {
  return absl::StrCat("/proc/self/fd/", dir.get(), "/", name);
}

ssize_t ListAt(BorrowedFd dir, const std::string& name, char* out,
               size_t size) {
  const ssize_t n = ::syscall(kListxattrat, dir.get(), name.c_str(),
                              AT_SYMLINK_NOFOLLOW, out, size);
  if (n >= 0 || errno != ENOSYS) return n;
  return ::llistxattr(ProcPath(dir, name).c_str(), out, size);
}

ssize_t GetAt(BorrowedFd dir, const std::string& name, const char* key,
              char* out, size_t size) {
  XattrArgs args = {reinterpret_cast<uintptr_t>(out),
                    static_cast<uint32_t>(size), 0};
  const ssize_t n = ::syscall(kGetxattrat, dir.get(), name.c_str(),
                              AT_SYMLINK_NOFOLLOW, key, &args, sizeof(args));
  if (n >= 0 || errno != ENOSYS) return n;
  return ::lgetxattr(ProcPath(dir, name).c_str(), key, out, size);
}

using Reader = std::function<ssize_t(char* out, size_t size)>;

// Asks for the size, then for the content. False with errno on failure.
bool ReadSized(const Reader& reader, std::string& out) {
  for (int i = 0; i < kMaxAttempts; ++i) {
    const ssize_t size = reader(nullptr, 0);
    if (size < 0) return false;
    out.resize(static_cast<size_t>(size));
    if (size == 0) return true;
    const ssize_t got = reader(out.data(), out.size());
    if (got >= 0) {
      out.resize(static_cast<size_t>(got));
      return true;
    }
    if (errno != ERANGE) return false;
  }
  return false;
}

absl::StatusOr<std::vector<Xattr>> ReadAll(
    const Reader& list,
    const std::function<ssize_t(const char* key, char* out, size_t size)>& get,
    absl::string_view what) {
  std::vector<Xattr> xattrs;
  std::string keys;
  if (!ReadSized(list, keys)) {
    if (errno == ENOTSUP) return xattrs;
    return ErrnoError(errno, absl::StrCat("listxattr(", Quoted(what), ")"),
                      {.step = "xattr", .path = what});
  }
  for (size_t at = 0; at < keys.size();) {
    const std::string key(keys.c_str() + at);
    at += key.size() + 1;
    std::string value;
    const bool found = ReadSized(
        [&](char* out, size_t size) { return get(key.c_str(), out, size); },
        value);
    // Removed in between, or listed without being readable.
    if (!found && (errno == ENODATA || errno == ENOTSUP)) continue;
    if (!found) {
      return ErrnoError(
          errno,
          absl::StrCat("getxattr(", Quoted(what), ", ", Quoted(key), ")"),
          {.step = "xattr", .path = what});
    }
    xattrs.emplace_back(key, std::move(value));
  }
  return xattrs;
}

}  // namespace

int SetXattrAt(BorrowedFd dir, const std::string& name, const std::string& key,
               absl::string_view value) {
  XattrArgs args = {reinterpret_cast<uintptr_t>(value.data()),
                    static_cast<uint32_t>(value.size()), 0};
  if (::syscall(kSetxattrat, dir.get(), name.c_str(), AT_SYMLINK_NOFOLLOW,
                key.c_str(), &args, sizeof(args)) == 0) {
    return 0;
  }
  if (errno != ENOSYS) return errno;
  return ::lsetxattr(ProcPath(dir, name).c_str(), key.c_str(), value.data(),
                     value.size(), 0) == 0
             ? 0
             : errno;
}

absl::StatusOr<std::vector<Xattr>> ReadXattrsAt(BorrowedFd dir,
                                                const std::string& name) {
  return ReadAll(
      [&](char* out, size_t size) { return ListAt(dir, name, out, size); },
      [&](const char* key, char* out, size_t size) {
        return GetAt(dir, name, key, out, size);
      },
      name);
}

absl::StatusOr<std::vector<Xattr>> ReadXattrs(BorrowedFd fd,
                                              absl::string_view what) {
  return ReadAll(
      [fd](char* out, size_t size) {
        return ::flistxattr(fd.get(), out, size);
      },
      [fd](const char* key, char* out, size_t size) {
        return ::fgetxattr(fd.get(), key, out, size);
      },
      what);
}

}  // namespace caisson::sys
