#include "lib/sys/file_size.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"

namespace caisson::sys {
namespace {

// The limit, or RLIM_INFINITY.
rlim_t Limit() {
  rlimit limit;
  return ::getrlimit(RLIMIT_FSIZE, &limit) == 0 ? limit.rlim_cur
                                                : RLIM_INFINITY;
}

absl::Status Beyond(uint64_t size, rlim_t limit) {
  return absl::ResourceExhaustedError(absl::StrCat(
      "its ", size, " bytes are more than RLIMIT_FSIZE (", limit, ")"));
}

// Writing to files of these is a command to the kernel.
bool IsOfKernel(BorrowedFd fd) {
  struct statfs status;
  if (::fstatfs(fd.get(), &status) != 0) return false;
  switch (static_cast<uint32_t>(status.f_type)) {
    case PROC_SUPER_MAGIC:
    case SYSFS_MAGIC:
    case CGROUP_SUPER_MAGIC:
    case CGROUP2_SUPER_MAGIC:
      return true;
    default:
      return false;
  }
}

}  // namespace

absl::Status CheckFileSize(uint64_t size) {
  const rlim_t limit = Limit();
  if (limit == RLIM_INFINITY || size <= limit) return absl::OkStatus();
  return Beyond(size, limit);
}

absl::Status CheckFileGrowth(BorrowedFd fd, size_t count) {
  const rlim_t limit = Limit();
  if (limit == RLIM_INFINITY) return absl::OkStatus();
  struct stat status;
  if (::fstat(fd.get(), &status) != 0 || !S_ISREG(status.st_mode)) {
    return absl::OkStatus();
  }
  const int flags = ::fcntl(fd.get(), F_GETFL);
  const off_t at = flags >= 0 && (flags & O_APPEND) != 0
                       ? status.st_size
                       : ::lseek(fd.get(), 0, SEEK_CUR);
  if (at < 0) return absl::OkStatus();
  const uint64_t size = static_cast<uint64_t>(at) + count;
  if (size <= limit || IsOfKernel(fd)) return absl::OkStatus();
  return Beyond(size, limit);
}

}  // namespace caisson::sys
