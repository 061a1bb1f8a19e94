#include "lib/layer/store_lock.h"

#include <errno.h>
#include <fcntl.h>

#include <cstdlib>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/sys/open.h"

namespace caisson::layer {
namespace {

constexpr uint64_t kStoreByte = 0;
constexpr uint64_t kImageBase = uint64_t{1} << 61;
constexpr uint64_t kLayerBase = uint64_t{1} << 62;

// The first 15 digits, which are 60 bits.
uint64_t Bits(const Digest& digest) {
  return std::strtoull(std::string(digest.hex().substr(0, 15)).c_str(), nullptr,
                       16);
}

}  // namespace

absl::StatusOr<StoreLock> StoreLock::Open(BorrowedFd store, Mode mode) {
  const int access = mode == Mode::kExclusive ? O_RDWR : O_RDONLY;
  ASSIGN_OR_RETURN(UniqueFd fd,
                   sys::OpenAt2(store, kLockFile, access, sys::kNoSymlinks));
  return StoreLock(std::move(fd));
}

absl::StatusOr<StoreLock> StoreLock::Acquire(BorrowedFd store) {
  ASSIGN_OR_RETURN(StoreLock lock, Open(store, Mode::kExclusive));
  RETURN_IF_ERROR(
      lock.Lock(kStoreByte, Mode::kExclusive, /*wait=*/true).status());
  return lock;
}

absl::Status StoreLock::ShareImage(const Digest& id) {
  return Lock(kImageBase + Bits(id), Mode::kShared, /*wait=*/true).status();
}

absl::Status StoreLock::ShareLayer(const Digest& chain_id) {
  return Lock(kLayerBase + Bits(chain_id), Mode::kShared, /*wait=*/true)
      .status();
}

absl::StatusOr<bool> StoreLock::TryImage(const Digest& id) {
  return Lock(kImageBase + Bits(id), Mode::kExclusive, /*wait=*/false);
}

absl::StatusOr<bool> StoreLock::TryLayer(const Digest& chain_id) {
  return Lock(kLayerBase + Bits(chain_id), Mode::kExclusive, /*wait=*/false);
}

absl::StatusOr<bool> StoreLock::Lock(uint64_t offset, Mode mode, bool wait) {
  struct flock range = {};
  range.l_type = mode == Mode::kExclusive ? F_WRLCK : F_RDLCK;
  range.l_whence = SEEK_SET;
  range.l_start = static_cast<off_t>(offset);
  range.l_len = 1;
  int result;
  do {
    result = ::fcntl(fd_.get(), wait ? F_OFD_SETLKW : F_OFD_SETLK, &range);
  } while (result != 0 && errno == EINTR);
  if (result == 0) return true;
  if (!wait && (errno == EAGAIN || errno == EACCES)) return false;
  return ErrnoError(errno,
                    absl::StrCat("fcntl(", Quoted(kLockFile), ", ",
                                 wait ? "F_OFD_SETLKW" : "F_OFD_SETLK", ")"),
                    {.step = "layer.lock", .path = kLockFile});
}

}  // namespace caisson::layer
