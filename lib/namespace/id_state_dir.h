// What an IdRangePool keeps on disk: the lock file and the reservations.
//
//   <directory>/lock            every lock, and whose turn it is
//   <directory>/names/<entry>   an empty file per reservation:
//                               <name>@<first uid>-<first gid>-<count>
//
// doc/id-ranges.md is the specification. Thread-safe.
#ifndef CAISSON_LIB_NAMESPACE_ID_STATE_DIR_H_
#define CAISSON_LIB_NAMESPACE_ID_STATE_DIR_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/id_range_pool.h"
#include "caisson/unique_fd.h"
#include "lib/sys/file_lock.h"

namespace caisson::ids {

absl::Status ValidateName(absl::string_view name);

// The file name of a reservation and back; nullopt if `entry` is none.
std::string ToEntry(const IdReservation& reservation);
std::optional<IdReservation> ParseEntry(absl::string_view entry);

// Which bytes of the lock file stand for what.
sys::LockRange UidLock(const HostIdRange& uids);
sys::LockRange GidLock(const HostIdRange& gids);
sys::LockRange NameLock(absl::string_view name);

class IdStateDir final {
 public:
  // Makes what is missing, and checks what is there.
  static absl::StatusOr<IdStateDir> Open(const std::string& path);

  IdStateDir(IdStateDir&&) = default;
  IdStateDir& operator=(IdStateDir&&) = default;

  // A new open file description of the lock file. FAILED_PRECONDITION if the
  // file that Open() found is no longer there.
  absl::StatusOr<UniqueFd> OpenLock() const;

  // By name. Entries that are no reservations are passed over.
  absl::StatusOr<std::vector<IdReservation>> Reservations() const;
  // On disk when it returns. Precondition: the name's lock is held.
  absl::Status Add(const IdReservation& reservation);
  absl::Status Remove(const IdReservation& reservation);
  // Whether reservations outlive a reboot.
  absl::StatusOr<bool> IsDurable() const;

  const std::string& path() const { return path_; }

 private:
  IdStateDir() = default;

  std::string path_;
  UniqueFd dir_;
  UniqueFd names_;
  uint64_t lock_inode_ = 0;
};

// Keeps others from looking for a range at the same time, so that ranges are
// given in turn. Only for the order: nobody waits for it long, since its owner
// may be stopped or frozen, and goes on without it then.
class Turn final {
 public:
  // Precondition: `lock` outlives the object.
  explicit Turn(BorrowedFd lock);
  ~Turn();
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

  // The user id from which on the next range is looked for; 0 if what is
  // written there is damaged.
  uint64_t Read() const;
  absl::Status Write(uint64_t uid);

 private:
  BorrowedFd lock_;
  bool mine_ = false;
};

}  // namespace caisson::ids

#endif  // CAISSON_LIB_NAMESPACE_ID_STATE_DIR_H_
