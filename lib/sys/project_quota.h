// Project quotas: what a directory with all that is ever made in it may take of
// its file system. ext4 and XFS have them, if they were made and mounted so.
//
// Project ids are numbers of a file system, without names or owners.
// Thread-safe functions; quotactl_fd(2), Linux 5.14. Needs CAP_SYS_ADMIN in the
// initial user namespace.
#ifndef CAISSON_LIB_SYS_PROJECT_QUOTA_H_
#define CAISSON_LIB_SYS_PROJECT_QUOTA_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "caisson/unique_fd.h"

namespace caisson::sys {

struct ProjectQuota {
  uint64_t bytes = 0;
  uint64_t files = 0;
  uint64_t max_bytes = 0;  // 0: no limit
  uint64_t max_files = 0;
};

// FAILED_PRECONDITION unless the file system of `dir` enforces limits of
// projects: says what it lacks (kernel option, feature, mount option).
absl::Status CheckProjectQuota(BorrowedFd dir);

// The project of a directory; 0 where there are no projects.
absl::StatusOr<uint32_t> ProjectOf(BorrowedFd dir);

// Makes an empty directory and what is made in it from now on belong to a
// project.
absl::Status SetProject(BorrowedFd dir, uint32_t project);

// Of all files of a project on the file system of `dir`.
absl::StatusOr<ProjectQuota> QuotaOfProject(BorrowedFd dir, uint32_t project);

// Limits in effect at once; 0: none. Bytes are rounded up to 1024.
absl::Status LimitProject(BorrowedFd dir, uint32_t project, uint64_t max_bytes,
                          uint64_t max_files);

}  // namespace caisson::sys

#endif  // CAISSON_LIB_SYS_PROJECT_QUOTA_H_
