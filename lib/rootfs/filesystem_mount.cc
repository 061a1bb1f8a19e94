#include "lib/rootfs/filesystem_mount.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status_macros.h"
#include "lib/rootfs/mount_label.h"
#include "lib/sys/copy_tree.h"

namespace caisson::rootfs {
namespace {

constexpr char kTmpfs[] = "tmpfs";
constexpr size_t kMaxValue = 255;  // of fsconfig(2)

unsigned AttributesOf(const FilesystemMount& wanted) {
  unsigned set = 0;
  if (!wanted.unsafe_setuid) set |= MOUNT_ATTR_NOSUID;
  if (!wanted.unsafe_devices) set |= MOUNT_ATTR_NODEV;
  if (wanted.noexec) set |= MOUNT_ATTR_NOEXEC;
  if (wanted.nosymfollow) set |= MOUNT_ATTR_NOSYMFOLLOW;
  if (wanted.nodiratime) set |= MOUNT_ATTR_NODIRATIME;
  if (wanted.access_times == AccessTimes::kNever) set |= MOUNT_ATTR_NOATIME;
  if (wanted.access_times == AccessTimes::kAlways)
    set |= MOUNT_ATTR_STRICTATIME;
  return set;
}

bool Has(const FilesystemMount& wanted, absl::string_view option) {
  for (const std::string& own : wanted.options) {
    if (absl::StartsWith(own, option)) return true;
  }
  return false;
}

// "lowerdir=a:b" of overlayfs, where a backslash before a colon makes it a part
// of the path. One by one they may be longer than all of them together.
absl::Status SetLowerDirs(sys::FsContext& context, absl::string_view value) {
  std::string path;
  for (size_t i = 0; i <= value.size(); ++i) {
    if (i < value.size() && value[i] == '\\' && i + 1 < value.size()) {
      path += value[++i];
    } else if (i < value.size() && value[i] != ':') {
      path += value[i];
    } else {
      RETURN_IF_ERROR(context.SetString("lowerdir+", path));
      path.clear();
    }
  }
  return absl::OkStatus();
}

absl::Status SetOptions(sys::FsContext& context,
                        const FilesystemMount& wanted) {
  for (const std::string& option : wanted.options) {
    const size_t equals = option.find('=');
    if (equals == std::string::npos) {
      RETURN_IF_ERROR(context.SetFlag(option.c_str()));
      continue;
    }
    const std::string key = option.substr(0, equals);
    const std::string value = option.substr(equals + 1);
    if (wanted.type == "overlay" && key == "lowerdir" &&
        value.size() > kMaxValue && !absl::StrContains(value, "::")) {
      RETURN_IF_ERROR(SetLowerDirs(context, value));
    } else {
      RETURN_IF_ERROR(context.SetString(key.c_str(), value));
    }
  }
  return absl::OkStatus();
}

absl::Status SetTmpfsOwner(sys::FsContext& context,
                           const FilesystemMount& wanted, const Owner& owner) {
  if (owner.is_root()) return absl::OkStatus();
  if (!Has(wanted, "uid=")) {
    RETURN_IF_ERROR(context.SetString("uid", absl::StrCat(owner.uid)));
  }
  if (Has(wanted, "gid=")) return absl::OkStatus();
  return context.SetString("gid", absl::StrCat(owner.gid));
}

}  // namespace

absl::StatusOr<UniqueFd> MountFilesystem(const sys::MountExecutor& mounts,
                                         const FilesystemMount& wanted,
                                         const Owner& owner,
                                         const std::string& label,
                                         BorrowedFd content) {
  const char* type = wanted.type.c_str();
  ASSIGN_OR_RETURN(sys::FsContext context, sys::FsContext::Open(mounts, type));
  RETURN_IF_ERROR(context.SetString(
      "source", wanted.source.empty() ? wanted.type : wanted.source));
  if (wanted.type == kTmpfs) {
    RETURN_IF_ERROR(SetLabel(context, label));
    RETURN_IF_ERROR(SetTmpfsOwner(context, wanted, owner));
  }
  RETURN_IF_ERROR(SetOptions(context, wanted));
  const unsigned attributes = AttributesOf(wanted);
  if (!wanted.copy_up) {
    if (!wanted.read_only) return context.Mount(attributes);
    RETURN_IF_ERROR(context.SetFlag("ro"));
    return context.Mount(attributes | MOUNT_ATTR_RDONLY);
  }
  ASSIGN_OR_RETURN(UniqueFd mount, context.Mount(attributes));
  if (content.valid()) RETURN_IF_ERROR(sys::CopyTree(content, mount.borrow()));
  if (wanted.read_only) {
    const mount_attr change = {.attr_set = MOUNT_ATTR_RDONLY};
    RETURN_IF_ERROR(sys::SetMountAttributes(mounts, mount.borrow(), change,
                                            /*recursive=*/false, type));
  }
  return mount;
}

}  // namespace caisson::rootfs
