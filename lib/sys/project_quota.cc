#include "lib/sys/project_quota.h"

#include <errno.h>
#include <linux/dqblk_xfs.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <linux/quota.h>
#include <sys/ioctl.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"

namespace caisson::sys {
namespace {

constexpr uint64_t kQuotaBlock = QIF_DQBLKSIZE;
// linux/magic.h of glibc's time has no XFS.
constexpr auto kXfsMagic = 0x58465342;
constexpr auto kBtrfsMagic = 0x9123683E;

int Quotactl(BorrowedFd dir, int command, uint32_t project, void* argument) {
  return static_cast<int>(::syscall(
      SYS_quotactl_fd, dir.get(), QCMD(command, PRJQUOTA), project, argument));
}

absl::Status Error(absl::string_view operation, absl::string_view hint = {}) {
  return ErrnoError(errno, operation, {.step = "project_quota", .hint = hint});
}

absl::Status Lacks(absl::string_view what) {
  return absl::FailedPreconditionError(
      absl::StrCat("a limit needs project quotas: ", what));
}

// How ext4 and XFS come to enforce limits.
absl::Status NotEnforced(long magic) {
  if (magic == EXT4_SUPER_MAGIC) {
    return Lacks(
        "this ext4 must have the features \"quota\" and \"project\" (tune2fs "
        "-O "
        "quota,project -Q prjquota, while it is not mounted) and the mount "
        "option \"prjquota\"; the kernel, CONFIG_QUOTA and CONFIG_QFMT_V2");
  }
  if (magic == kXfsMagic) {
    return Lacks(
        "this XFS must be mounted with the option \"prjquota\", which a "
        "remount "
        "does not add");
  }
  return Lacks("this file system has them turned off");
}

absl::Status NotThere(long magic) {
  switch (magic) {
    case TMPFS_MAGIC:
      return Lacks(
          "tmpfs has none; a root that is written in memory has a size "
          "of its own (RootFsOptions::tmpfs_size_bytes)");
    case kBtrfsMagic:
      return Lacks("btrfs has none; ext4 and XFS have");
    case OVERLAYFS_SUPER_MAGIC:
      return Lacks("overlayfs has none; ext4 and XFS have");
    case EXT4_SUPER_MAGIC:
    case kXfsMagic:
      // ENOSYS also where the kernel could, but was not told to.
      return NotEnforced(magic);
    default:
      return Lacks(absl::StrCat("a file system of type 0x", absl::Hex(magic),
                                " has none; ext4 and XFS have"));
  }
}

}  // namespace

absl::Status CheckProjectQuota(BorrowedFd dir) {
  struct statfs info = {};
  if (::fstatfs(dir.get(), &info) != 0) return Error("fstatfs()");
  const long magic = static_cast<long>(info.f_type);
  struct fs_quota_statv state = {};
  state.qs_version = FS_QSTATV_VERSION1;
  if (Quotactl(dir, Q_XGETQSTATV, 0, &state) != 0) {
    if (errno == ENOSYS || errno == EINVAL) return NotThere(magic);
    return Error("quotactl_fd(Q_XGETQSTATV)");
  }
  if ((state.qs_flags & FS_QUOTA_PDQ_ENFD) == 0) return NotEnforced(magic);
  return absl::OkStatus();
}

absl::StatusOr<uint32_t> ProjectOf(BorrowedFd dir) {
  struct fsxattr attributes = {};
  if (::ioctl(dir.get(), FS_IOC_FSGETXATTR, &attributes) == 0) {
    return attributes.fsx_projid;
  }
  if (errno == ENOTTY || errno == EOPNOTSUPP) return 0;
  return Error("ioctl(FS_IOC_FSGETXATTR)");
}

absl::Status SetProject(BorrowedFd dir, uint32_t project) {
  struct fsxattr attributes = {};
  if (::ioctl(dir.get(), FS_IOC_FSGETXATTR, &attributes) != 0) {
    return Error("ioctl(FS_IOC_FSGETXATTR)");
  }
  attributes.fsx_projid = project;
  attributes.fsx_xflags |= FS_XFLAG_PROJINHERIT;
  if (::ioctl(dir.get(), FS_IOC_FSSETXATTR, &attributes) == 0) {
    return absl::OkStatus();
  }
  return Error(absl::StrCat("ioctl(FS_IOC_FSSETXATTR, project ", project, ")"),
               errno == EINVAL ? "projects can be set in the initial user "
                                 "namespace only"
                               : "");
}

absl::StatusOr<ProjectQuota> QuotaOfProject(BorrowedFd dir, uint32_t project) {
  struct if_dqblk quota = {};
  if (Quotactl(dir, Q_GETQUOTA, project, &quota) != 0) {
    // XFS has no record of a project that never had a file.
    if (errno == ENOENT) return ProjectQuota{};
    return Error(absl::StrCat("quotactl_fd(Q_GETQUOTA, ", project, ")"));
  }
  return ProjectQuota{.bytes = quota.dqb_curspace,
                      .files = quota.dqb_curinodes,
                      .max_bytes = quota.dqb_bhardlimit * kQuotaBlock,
                      .max_files = quota.dqb_ihardlimit};
}

absl::Status LimitProject(BorrowedFd dir, uint32_t project, uint64_t max_bytes,
                          uint64_t max_files) {
  struct if_dqblk quota = {};
  quota.dqb_bhardlimit =
      max_bytes / kQuotaBlock + (max_bytes % kQuotaBlock != 0 ? 1 : 0);
  quota.dqb_ihardlimit = max_files;
  quota.dqb_valid = QIF_LIMITS;
  if (Quotactl(dir, Q_SETQUOTA, project, &quota) == 0) return absl::OkStatus();
  return Error(absl::StrCat("quotactl_fd(Q_SETQUOTA, ", project, ", ",
                            max_bytes, " bytes, ", max_files, " files)"),
               errno == EPERM
                   ? "needs CAP_SYS_ADMIN in the initial user namespace"
                   : "");
}

}  // namespace caisson::sys
