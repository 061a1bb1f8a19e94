#include "lib/layer/store_lock.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <string>
#include <utility>

#include "lib/base/status_macros.h"
#include "lib/sys/file_lock.h"
#include "lib/sys/open.h"

namespace caisson::layer {
namespace {

constexpr off_t kStoreByte = 0;
constexpr off_t kImageBase = off_t{1} << 61;
constexpr off_t kLayerBase = off_t{1} << 62;

// The first 15 digits, which are 60 bits.
off_t Bits(const Digest& digest) {
  return std::strtoll(std::string(digest.hex().substr(0, 15)).c_str(), nullptr,
                      16);
}

}  // namespace

StoreLock::StoreLock(UniqueFd fd) : fd_(std::move(fd)), owner_(::getpid()) {}

StoreLock& StoreLock::operator=(StoreLock&& other) noexcept {
  if (this == &other) return *this;
  Release();
  fd_ = std::move(other.fd_);
  owner_ = other.owner_;
  return *this;
}

void StoreLock::Release() {
  if (fd_.valid() && owner_ == ::getpid()) sys::Unlock(fd_.borrow());
  fd_.reset();
}

absl::StatusOr<StoreLock> StoreLock::Open(BorrowedFd store, Mode mode) {
  const int access = mode == Mode::kExclusive ? O_RDWR : O_RDONLY;
  ASSIGN_OR_RETURN(UniqueFd fd,
                   sys::OpenAt2(store, kLockFile, access, sys::kNoSymlinks));
  return StoreLock(std::move(fd));
}

absl::StatusOr<StoreLock> StoreLock::Acquire(BorrowedFd store) {
  ASSIGN_OR_RETURN(StoreLock lock, Open(store, Mode::kExclusive));
  RETURN_IF_ERROR(
      sys::LockExclusive(lock.fd_.borrow(), kLockFile, {kStoreByte, 1}));
  return lock;
}

absl::StatusOr<std::optional<StoreLock>> StoreLock::TryAcquire(
    BorrowedFd store) {
  ASSIGN_OR_RETURN(StoreLock lock, Open(store, Mode::kExclusive));
  ASSIGN_OR_RETURN(
      const bool free,
      sys::TryLockExclusive(lock.fd_.borrow(), kLockFile, {kStoreByte, 1}));
  if (!free) return std::nullopt;
  return lock;
}

absl::Status StoreLock::ShareImage(const Digest& id) {
  return sys::LockShared(fd_.borrow(), kLockFile, {kImageBase + Bits(id), 1});
}

absl::Status StoreLock::ShareLayer(const Digest& chain_id) {
  return sys::LockShared(fd_.borrow(), kLockFile,
                         {kLayerBase + Bits(chain_id), 1});
}

absl::StatusOr<bool> StoreLock::TryImage(const Digest& id) {
  return sys::TryLockExclusive(fd_.borrow(), kLockFile,
                               {kImageBase + Bits(id), 1});
}

absl::StatusOr<bool> StoreLock::TryLayer(const Digest& chain_id) {
  return sys::TryLockExclusive(fd_.borrow(), kLockFile,
                               {kLayerBase + Bits(chain_id), 1});
}

}  // namespace caisson::layer
