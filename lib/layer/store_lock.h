// The locks of a layer store: byte ranges of one file, "store.lock".
//
//   byte 0                    whoever changes index and layers together
//   2^61 + 60 bits of an id   one image: shared by who uses its layers
//   2^62 + 60 bits of a chain one layer: shared by an import that builds on it
//
// They are open-file-description locks (fcntl(2), F_OFD_SETLK): they exclude
// threads of one process as well as processes, survive fork, pass with
// SCM_RIGHTS, and the kernel drops them with the last descriptor. Two digests
// that agree in 60 bits share a lock, which costs a wait and nothing else.
#ifndef CAISSON_LIB_LAYER_STORE_LOCK_H_
#define CAISSON_LIB_LAYER_STORE_LOCK_H_

#include <optional>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "caisson/unique_fd.h"
#include "lib/layer/digest.h"

namespace caisson::layer {

inline constexpr char kLockFile[] = "store.lock";

// One open description of the lock file, with the locks taken through it. The
// destructor drops them, also from duplicates of the descriptor: a child that
// the host forked meanwhile must not keep others waiting. It does nothing in
// such a child. Thread-compatible.
class StoreLock final {
 public:
  enum class Mode { kShared, kExclusive };

  // `store` is the directory. kShared can take no exclusive locks.
  static absl::StatusOr<StoreLock> Open(BorrowedFd store, Mode mode);
  // Opens and waits for byte 0.
  static absl::StatusOr<StoreLock> Acquire(BorrowedFd store);
  // The same without waiting: nullopt if somebody has it.
  static absl::StatusOr<std::optional<StoreLock>> TryAcquire(BorrowedFd store);

  StoreLock(StoreLock&& other) noexcept = default;
  StoreLock& operator=(StoreLock&& other) noexcept;
  ~StoreLock() { Release(); }

  // Waits for a shared lock.
  absl::Status ShareImage(const Digest& id);
  absl::Status ShareLayer(const Digest& chain_id);

  // Takes an exclusive lock, or answers false if anyone else has a lock there.
  absl::StatusOr<bool> TryImage(const Digest& id);
  absl::StatusOr<bool> TryLayer(const Digest& chain_id);

  // Drops all locks and closes the file.
  void Release();
  // From now on the locks last as long as the descriptor and its duplicates.
  UniqueFd TakeFd() { return std::move(fd_); }

 private:
  explicit StoreLock(UniqueFd fd);

  UniqueFd fd_;
  int owner_;  // process id
};

}  // namespace caisson::layer

#endif  // CAISSON_LIB_LAYER_STORE_LOCK_H_
