#include "lib/layer/layer_quota.h"

#include <errno.h>
#include <sys/random.h>

#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"

namespace caisson::layer {
namespace {

// Far from the numbers that people write into /etc/projid, and from those that
// Docker and Podman count up from 1 and from their directory's. "ca" in ASCII.
constexpr uint32_t kFirstProject = 0x63610000;
constexpr uint32_t kProjects = 1 << 24;
// Numbers are drawn from the lowest ones first: XFS never gives back the blocks
// in which it counts a project, so few shall ever be used.
constexpr uint32_t kWindow = 64;
constexpr int kDrawsPerWindow = 4;

bool IsOurs(uint32_t project) {
  return project >= kFirstProject && project - kFirstProject < kProjects;
}

bool IsFree(const sys::ProjectQuota& quota) {
  return quota.bytes == 0 && quota.files == 0 && quota.max_bytes == 0 &&
         quota.max_files == 0;
}

// True if the directory is now in the project and alone there: of two that
// take the same at once, at least one sees both.
absl::StatusOr<bool> TryProject(BorrowedFd layer, uint32_t project) {
  ASSIGN_OR_RETURN(const sys::ProjectQuota before,
                   sys::QuotaOfProject(layer, project));
  if (!IsFree(before)) return false;
  RETURN_IF_ERROR(sys::SetProject(layer, project));
  ASSIGN_OR_RETURN(const sys::ProjectQuota after,
                   sys::QuotaOfProject(layer, project));
  return after.files == 1 && after.max_bytes == 0 && after.max_files == 0;
}

absl::StatusOr<uint32_t> TakeProject(BorrowedFd layer) {
  uint32_t window = kWindow;
  for (int draw = 1;; ++draw) {
    uint32_t random = 0;
    if (::getrandom(&random, sizeof(random), 0) != sizeof(random)) {
      return ErrnoError(errno, "getrandom()", {.step = "layer.quota"});
    }
    const uint32_t project = kFirstProject + random % window;
    ASSIGN_OR_RETURN(const bool taken, TryProject(layer, project));
    if (taken) return project;
    if (draw % kDrawsPerWindow != 0) continue;
    if (window >= kProjects) {
      return absl::ResourceExhaustedError(
          "no project id is free for the limit of a writable layer");
    }
    window *= 2;
  }
}

}  // namespace

absl::Status LimitLayer(BorrowedFd layer, uint64_t max_bytes,
                        uint64_t max_files) {
  RETURN_IF_ERROR(sys::CheckProjectQuota(layer));
  ASSIGN_OR_RETURN(const uint32_t project, TakeProject(layer));
  return sys::LimitProject(layer, project, max_bytes, max_files);
}

absl::StatusOr<std::optional<sys::ProjectQuota>> QuotaOfLayer(
    BorrowedFd layer) {
  ASSIGN_OR_RETURN(const uint32_t project, sys::ProjectOf(layer));
  if (!IsOurs(project)) return std::nullopt;
  return sys::QuotaOfProject(layer, project);
}

absl::Status ReleaseLayer(BorrowedFd layer) {
  ASSIGN_OR_RETURN(const uint32_t project, sys::ProjectOf(layer));
  if (!IsOurs(project)) return absl::OkStatus();
  return sys::LimitProject(layer, project, 0, 0);
}

}  // namespace caisson::layer
