// IdRangePool: private ranges of the host's user and group ids, one for each
// container, so that no two containers share an owner of files or processes.
//
//   auto pool = caisson::IdRangePool::Open({.subid_user = "containers"});
//   if (!pool.ok()) return pool.status();
//   auto lease = pool->Allocate();
//   if (!lease.ok()) return lease.status();
//   // Root inside is lease->uids().outside on the host.
//   auto user = launcher->NewUserNamespace(lease->uids());
//
// A lease is a lock of the kernel. It ends with the process that holds it,
// however that ends: there is nothing to recover. Every process of the machine
// that hands out the same ids must use the same state directory; then no two
// leases that live at one time have an id in common, whatever ranges and sizes
// the pools were opened with. doc/id-ranges.md has the format.
//
// Ranges are handed out in turn, so that one that was just given back comes
// last: files of its last owner may be around until the host removes them.
//
// Not for: user namespaces themselves (Launcher::NewUserNamespace), a directory
// on a network file system, or accounts that only NSS knows (LDAP, NIS): of the
// host's accounts only those in the files of `etc_directory` are seen.
#ifndef CAISSON_ID_RANGE_POOL_H_
#define CAISSON_ID_RANGE_POOL_H_

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/id_range.h"
#include "caisson/unique_fd.h"

namespace caisson {

// Ids of the host: `count` from `first` on.
struct HostIdRange {
  uint32_t first = 0;
  uint32_t count = 0;
};

// Permission to hand out ids that somebody on the host may have.
struct HostIdsAllowed {};

struct IdRangePoolOptions {
  // State, shared by all processes that hand out the same ids. Made with mode
  // 0700 if it is missing. An existing one must belong to the caller's
  // effective user, be open to nobody else and be no symbolic link. An absolute
  // path on a local file system, whose parents nobody else can change. For
  // AllocateNamed() on a disk, as in "/var/lib/caisson/ids".
  std::string directory = "/run/caisson/ids";

  // Where the ids come from, one of the two:
  // these ids, as users and as groups,
  HostIdRange range;
  // or what /etc/subuid and /etc/subgid (subuid(5)) give to this user, a name
  // or a uid. Files only; the "subid" line of nsswitch.conf is not looked at.
  std::string subid_user;

  uint32_t ids_per_container = 65536;

  // Where passwd, group, subuid and subgid are read, once, by Open().
  std::string etc_directory = "/etc";

  // Allows ids below 65536, ids of accounts in passwd and group, and ids that
  // subuid or subgid gives to another user. Whoever has such an id outside owns
  // what the container's users own.
  std::optional<HostIdsAllowed> unsafe_host_ids;
};

// A range of user ids and one of group ids of equal size, held. They begin at
// different ids if those of subuid and subgid do.
//
// Thread-compatible. In a forked child the object holds nothing: its destructor
// and Release() close the child's copy of the descriptor and leave the lease to
// the parent. What the child keeps open does not outlast a Release() in the
// parent either. But if the parent is killed, the lease lasts until the child
// ends or executes a program, as the parent's containers do.
class [[nodiscard]] IdRangeLease final {
 public:
  // Holds nothing.
  IdRangeLease() = default;
  IdRangeLease(IdRangeLease&& other) noexcept;
  IdRangeLease& operator=(IdRangeLease&& other) noexcept;
  // As Release().
  ~IdRangeLease() { Release(); }

  bool held() const { return fd_.valid(); }
  // From 0 inside.
  IdRange uids() const { return {0, first_uid_, count_}; }
  IdRange gids() const { return {0, first_gid_, count_}; }
  // Of the reservation; empty if there is none.
  const std::string& name() const { return name_; }

  // The open file that has the lock. A process that is given a duplicate holds
  // the range, too, until it closes it or anybody calls Release(): for
  // containers that outlive their host.
  BorrowedFd fd() const { return fd_.borrow(); }

  // Closes this descriptor and leaves the range to whoever has a duplicate
  // (detached.h).
  void Disown() { fd_.reset(); }

  // Gives the range back. The container's processes should be dead and its
  // files gone, or the next owner of the ids owns them. Idempotent.
  void Release();

 private:
  friend class IdRangePool;

  uint32_t first_uid_ = 0;
  uint32_t first_gid_ = 0;
  uint32_t count_ = 0;
  std::string name_;
  pid_t owner_ = -1;
  UniqueFd fd_;
};

// Ids that are kept for a name.
struct IdReservation {
  std::string name;
  uint32_t first_uid = 0;
  uint32_t first_gid = 0;
  uint32_t count = 0;
};

// Thread-safe. No call waits for another process. May be used in a forked
// child. Leases and reservations outlive the pool.
class IdRangePool final {
 public:
  // INVALID_ARGUMENT names a bad option, PERMISSION_DENIED what is wrong with
  // the directory, NOT_FOUND a missing subuid file or a user without a line in
  // it, FAILED_PRECONDITION the line of the file that is malformed or that
  // belongs to somebody else (see unsafe_host_ids).
  static absl::StatusOr<IdRangePool> Open(const IdRangePoolOptions& options);

  IdRangePool(IdRangePool&&) noexcept;
  IdRangePool& operator=(IdRangePool&&) noexcept;
  // Changes nothing on disk and ends no lease.
  ~IdRangePool();

  // How many ranges it has, free or not.
  uint64_t size() const;

  // The next range in turn that is free. RESOURCE_EXHAUSTED if there is none:
  // the error names the pool and says how many are in use.
  absl::StatusOr<IdRangeLease> Allocate();

  // The range that `name` got when this was first called with it, in whatever
  // process; then the next free one, which is kept for the name from now on.
  // For containers whose files are kept. The reservation is on disk when this
  // returns and stays there, leased or not, until Forget().
  //
  // `name` has 1 to 128 letters, digits, '_', '-' and '.', the first a letter
  // or digit. ALREADY_EXISTS if a lease of the name lives. FAILED_PRECONDITION
  // if the reserved ids are no longer of this pool or of another size, or if
  // the directory is on a tmpfs, where a reservation would not outlive a
  // reboot. After a failure nothing is leased and nothing newly reserved.
  absl::StatusOr<IdRangeLease> AllocateNamed(absl::string_view name);

  // Ends the reservation. The files of the container should be gone.
  // FAILED_PRECONDITION while a lease of the name lives, NOT_FOUND if there is
  // no such reservation.
  absl::Status Forget(absl::string_view name);

  // All reservations in the directory, by name.
  absl::StatusOr<std::vector<IdReservation>> Reservations() const;

 private:
  struct State;
  explicit IdRangePool(std::unique_ptr<State> state);

  // Takes the next free range into `lease`, which has an open lock file.
  absl::Status TakeNext(IdRangeLease& lease) const;
  absl::Status TakeReserved(const IdReservation& reservation,
                            IdRangeLease& lease) const;
  absl::StatusOr<IdRangeLease> NewLease() const;

  std::unique_ptr<State> state_;
};

}  // namespace caisson

#endif  // CAISSON_ID_RANGE_POOL_H_
