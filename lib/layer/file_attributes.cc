#include "lib/layer/file_attributes.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/layer/unpack_host.h"
#include "lib/sys/xattr.h"

namespace caisson::layer {
namespace {

constexpr absl::string_view kTrustedOverlay = "trusted.overlay.";
constexpr absl::string_view kUserOverlay = "user.overlay.";
// overlayfs reads "trusted.overlay.overlay.X" as the file's own
// "trusted.overlay.X" (Linux 6.7, Documentation/filesystems/overlayfs.rst).
constexpr absl::string_view kEscape = "overlay.";
constexpr absl::string_view kCapabilityXattr = "security.capability";

// What ext4 with 256-byte inodes can hold, so that a layer has the same times
// on every file system.
constexpr int64_t kMinTime = -(int64_t{1} << 31);
constexpr int64_t kMaxTime = (int64_t{1} << 34) - (int64_t{1} << 31) - 1;

absl::Status AttributeError(absl::string_view call, const std::string& path,
                            absl::string_view hint = {}) {
  return ErrnoError(errno, absl::StrCat(call, "(", Quoted(path), ")"),
                    {.step = "layer.unpack", .path = path, .hint = hint});
}

absl::string_view ChownHint(int error) {
  if (error == EINVAL) return "the owner has no mapping in the user namespace";
  if (error != EPERM) return "";
  return "only root can give files to others; a layer store of an ordinary "
         "user "
         "has the format kOverlayUserxattrSingle";
}

// Labels of a security module, which are the host's to give.
bool IsHostLabel(absl::string_view key) {
  return key == "security.selinux" || key == "system.nfs4_acl" ||
         absl::StartsWith(key, "security.SMACK64");
}

// Whether a file may lack an attribute that could not be stored. Capabilities
// and access control lists change what a file does: these are errors.
bool MayLack(absl::string_view key, bool regular_or_directory, int error) {
  if (error == ENOTSUP) return true;
  if (error != EPERM) return false;
  if (absl::StartsWith(key, "user.")) return !regular_or_directory;
  return key != kCapabilityXattr && !absl::StartsWith(key, "system.");
}

absl::Status XattrError(int error, absl::string_view key,
                        const std::string& path) {
  absl::string_view hint;
  if (error == ENOSPC || error == E2BIG || error == ERANGE) {
    hint =
        "the file system has less room for extended attributes (ext4: about "
        "4 KB a file without ea_inode)";
  } else if (error == EPERM) {
    hint = "setting it needs CAP_SETFCAP or ownership of the file";
  }
  return ErrnoError(
      error, absl::StrCat("setxattr(", Quoted(path), ", ", Quoted(key), ")"),
      {.step = "layer.unpack", .path = path, .hint = hint});
}

// Without the extended ones.
FileAttributes AttributesOf(const struct stat& status) {
  FileAttributes attributes;
  attributes.mode = status.st_mode & 07777;
  attributes.uid = status.st_uid;
  attributes.gid = status.st_gid;
  attributes.mtime_sec = status.st_mtim.tv_sec;
  attributes.mtime_nsec = static_cast<int32_t>(status.st_mtim.tv_nsec);
  return attributes;
}

void TimesOf(const FileAttributes& attributes, timespec (&times)[2]) {
  const int64_t sec = std::clamp(attributes.mtime_sec, kMinTime, kMaxTime);
  times[1].tv_sec = sec;
  times[1].tv_nsec = sec == attributes.mtime_sec ? attributes.mtime_nsec : 0;
  times[0] = times[1];
}

}  // namespace

absl::string_view OverlayXattrPrefix(LayerFormat format) {
  switch (format) {
    case LayerFormat::kOverlayTrusted:
      return kTrustedOverlay;
    case LayerFormat::kOverlayUser:
      return kUserOverlay;
    case LayerFormat::kPlain:
      break;
  }
  return {};
}

std::optional<std::string> XattrKeyOnDisk(absl::string_view key,
                                          LayerFormat format) {
  if (IsHostLabel(key)) return std::nullopt;
  if (!absl::StartsWith(key, kTrustedOverlay) &&
      !absl::StartsWith(key, kUserOverlay)) {
    return std::string(key);
  }
  const absl::string_view prefix = OverlayXattrPrefix(format);
  if (prefix.empty() || !absl::ConsumePrefix(&key, prefix)) {
    return std::nullopt;
  }
  return absl::StrCat(prefix, kEscape, key);
}

FileAttributes TakeAttributes(TarEntry& entry, LayerFormat format,
                              const std::optional<LayerOwner>& owner,
                              uint64_t& skipped) {
  FileAttributes attributes;
  attributes.mode = entry.mode;
  attributes.uid = entry.uid;
  attributes.gid = entry.gid;
  attributes.mtime_sec = entry.mtime_sec;
  attributes.mtime_nsec = entry.mtime_nsec;
  for (auto& [key, value] : entry.xattrs) {
    std::optional<std::string> on_disk = XattrKeyOnDisk(key, format);
    const bool lacks_right = owner.has_value() && key == kCapabilityXattr;
    if (on_disk.has_value() && !lacks_right) {
      attributes.xattrs.emplace_back(*std::move(on_disk), std::move(value));
    } else {
      ++skipped;
    }
  }
  if (owner.has_value()) {
    SetOwner(*owner, entry.type == TarType::kDirectory, attributes);
  }
  return attributes;
}

void SetOwner(const LayerOwner& owner, bool directory,
              FileAttributes& attributes) {
  attributes.uid = owner.uid;
  attributes.gid = owner.gid;
  attributes.mode |= directory ? 0700 : 0400;
}

absl::StatusOr<FileAttributes> ReadAttributes(BorrowedFd dir,
                                              const std::string& name,
                                              const struct stat& status,
                                              LayerFormat format) {
  FileAttributes attributes = AttributesOf(status);
  ASSIGN_OR_RETURN(attributes.xattrs, sys::ReadXattrsAt(dir, name));
  const absl::string_view prefix = OverlayXattrPrefix(format);
  const std::string escaped = absl::StrCat(prefix, kEscape);
  auto& xattrs = attributes.xattrs;
  xattrs.erase(
      std::remove_if(xattrs.begin(), xattrs.end(),
                     [&](const auto& xattr) {
                       return IsHostLabel(xattr.first) ||
                              (!prefix.empty() &&
                               absl::StartsWith(xattr.first, prefix) &&
                               !absl::StartsWith(xattr.first, escaped));
                     }),
      xattrs.end());
  return attributes;
}

absl::StatusOr<FileAttributes> ReadImageAttributes(BorrowedFd dir,
                                                   const std::string& name,
                                                   const struct stat& status,
                                                   LayerFormat format,
                                                   const std::string& path) {
  FileAttributes attributes = AttributesOf(status);
  ASSIGN_OR_RETURN(std::vector<sys::Xattr> xattrs,
                   sys::ReadXattrsAt(dir, name));
  const absl::string_view prefix = OverlayXattrPrefix(format);
  for (auto& [key, value] : xattrs) {
    absl::string_view rest = key;
    if (!prefix.empty() && absl::ConsumePrefix(&rest, prefix)) {
      if (rest == "redirect" || rest == "metacopy") {
        return absl::FailedPreconditionError(absl::StrCat(
            Quoted(path), " has ", key,
            ": what is here is not all of it; the overlay must be mounted "
            "with redirect_dir=nofollow (or off) and metacopy=off"));
      }
      if (!absl::ConsumePrefix(&rest, kEscape)) continue;
      key = absl::StrCat(prefix, rest);
    } else if (!XattrKeyOnDisk(key, format).has_value()) {
      continue;
    }
    attributes.xattrs.emplace_back(std::move(key), std::move(value));
  }
  std::sort(attributes.xattrs.begin(), attributes.xattrs.end());
  return attributes;
}

int SetXattr(BorrowedFd fd, const std::string& path, const std::string& key,
             absl::string_view value, UnpackHost* host) {
  if (host != nullptr && UnpackHost::Sets(key)) {
    return host->SetXattr(path, key, value);
  }
  return ::fsetxattr(fd.get(), key.c_str(), value.data(), value.size(), 0) == 0
             ? 0
             : errno;
}

absl::Status WriteAttributes(BorrowedFd fd, const FileAttributes& attributes,
                             const std::string& path, uint64_t& skipped,
                             UnpackHost* host) {
  if (::fchown(fd.get(), attributes.uid, attributes.gid) != 0) {
    return AttributeError("fchown", path, ChownHint(errno));
  }
  for (const auto& [key, value] : attributes.xattrs) {
    const int error = SetXattr(fd, path, key, value, host);
    if (error == 0) continue;
    if (!MayLack(key, /*regular_or_directory=*/true, error)) {
      return XattrError(error, key, path);
    }
    ++skipped;
  }
  if (::fchmod(fd.get(), attributes.mode) != 0) {
    return AttributeError("fchmod", path);
  }
  timespec times[2];
  TimesOf(attributes, times);
  if (::futimens(fd.get(), times) != 0) return AttributeError("futimens", path);
  return absl::OkStatus();
}

absl::Status WriteAttributesAt(BorrowedFd dir, const std::string& name,
                               bool is_symlink,
                               const FileAttributes& attributes,
                               const std::string& path, uint64_t& skipped) {
  if (::fchownat(dir.get(), name.c_str(), attributes.uid, attributes.gid,
                 AT_SYMLINK_NOFOLLOW) != 0) {
    return AttributeError("fchownat", path, ChownHint(errno));
  }
  for (const auto& [key, value] : attributes.xattrs) {
    const int error = sys::SetXattrAt(dir, name, key, value);
    if (error == 0) continue;
    if (!MayLack(key, /*regular_or_directory=*/false, error)) {
      return XattrError(error, key, path);
    }
    ++skipped;
  }
  // A symbolic link has no mode. glibc does this by an O_PATH descriptor.
  if (!is_symlink && ::fchmodat(dir.get(), name.c_str(), attributes.mode,
                                AT_SYMLINK_NOFOLLOW) != 0) {
    return AttributeError("fchmodat", path);
  }
  timespec times[2];
  TimesOf(attributes, times);
  if (::utimensat(dir.get(), name.c_str(), times, AT_SYMLINK_NOFOLLOW) != 0) {
    return AttributeError("utimensat", path);
  }
  return absl::OkStatus();
}

}  // namespace caisson::layer
