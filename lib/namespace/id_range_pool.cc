#include "caisson/id_range_pool.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/namespace/host_ids.h"
#include "lib/namespace/id_slots.h"
#include "lib/namespace/id_state_dir.h"
#include "lib/sys/file_lock.h"
#include "lib/sys/open.h"

namespace caisson {
namespace {

constexpr char kLock[] = "lock";
// Directories of large sites have some 10^5 accounts.
constexpr size_t kMaxEtcFile = 64 << 20;

// The ranges of one kind of ids, and who else could have some of them.
struct Side {
  std::vector<HostIdRange> ranges;
  std::string accounts_file;
  std::string accounts;
  std::string subid_file;
  std::vector<ids::SubidLine> subids;
};

// Empty if it is missing.
absl::StatusOr<std::string> ReadIfThere(const std::string& path) {
  auto text =
      sys::ReadFileAt(BorrowedFd(AT_FDCWD), path, /*resolve=*/0, kMaxEtcFile);
  if (absl::IsNotFound(text.status())) return std::string();
  return text;
}

absl::StatusOr<Side> ReadSide(const IdRangePoolOptions& options,
                              const char* accounts, const char* subids) {
  Side side;
  side.accounts_file = absl::StrCat(options.etc_directory, "/", accounts);
  side.subid_file = absl::StrCat(options.etc_directory, "/", subids);
  ASSIGN_OR_RETURN(side.accounts, ReadIfThere(side.accounts_file));
  auto text = sys::ReadFileAt(BorrowedFd(AT_FDCWD), side.subid_file,
                              /*resolve=*/0, kMaxEtcFile);
  if (absl::IsNotFound(text.status())) {
    if (options.subid_user.empty()) return side;
    return absl::NotFoundError(absl::StrCat(
        "IdRangePoolOptions.subid_user: ", text.status().message(),
        "; it holds the ids that users may give to containers, as in \"",
        options.subid_user,
        ":1000000:1048576\" (subuid(5)); or give IdRangePoolOptions.range"));
  }
  RETURN_IF_ERROR(text.status());
  ASSIGN_OR_RETURN(side.subids, ids::ParseSubids(side.subid_file, *text));
  return side;
}

absl::Status CheckPrivate(const Side& side,
                          const std::optional<ids::SubidUser>& user) {
  const ids::Neighbours others = {side.accounts_file,
                                  ids::ParseAccounts(side.accounts),
                                  side.subid_file, side.subids};
  for (const HostIdRange& range : side.ranges) {
    RETURN_IF_ERROR(ids::CheckPrivate(range, others, user));
  }
  return absl::OkStatus();
}

absl::StatusOr<ids::IdSlots> FindSlots(const IdRangePoolOptions& options) {
  const bool given = options.range.count != 0 || options.range.first != 0;
  if (given != options.subid_user.empty()) {
    return absl::InvalidArgumentError(
        "IdRangePoolOptions needs range or subid_user, one of the two");
  }
  ASSIGN_OR_RETURN(Side users, ReadSide(options, "passwd", "subuid"));
  ASSIGN_OR_RETURN(Side groups, ReadSide(options, "group", "subgid"));
  std::optional<ids::SubidUser> user;
  if (given) {
    RETURN_IF_ERROR(ids::CheckRange("IdRangePoolOptions.range", options.range));
    users.ranges = {options.range};
    groups.ranges = {options.range};
  } else {
    user = ids::FindSubidUser(options.subid_user,
                              ids::ParseAccounts(users.accounts));
    ASSIGN_OR_RETURN(users.ranges,
                     ids::RangesOf(*user, users.subid_file, users.subids));
    ASSIGN_OR_RETURN(groups.ranges,
                     ids::RangesOf(*user, groups.subid_file, groups.subids));
  }
  if (!options.unsafe_host_ids.has_value()) {
    RETURN_IF_ERROR(CheckPrivate(users, user));
    RETURN_IF_ERROR(CheckPrivate(groups, user));
  }
  return ids::IdSlots::Create(std::move(users.ranges), std::move(groups.ranges),
                              options.ids_per_container);
}

HostIdRange Uids(const IdReservation& r) { return {r.first_uid, r.count}; }
HostIdRange Gids(const IdReservation& r) { return {r.first_gid, r.count}; }

bool IsReserved(const std::vector<IdReservation>& reservations,
                const IdReservation& wanted) {
  return std::any_of(reservations.begin(), reservations.end(),
                     [&](const IdReservation& other) {
                       return ids::Overlap(Uids(other), Uids(wanted)) ||
                              ids::Overlap(Gids(other), Gids(wanted));
                     });
}

// All of it or nothing.
absl::StatusOr<bool> TryLockIds(BorrowedFd lock, const IdReservation& wanted) {
  ASSIGN_OR_RETURN(
      const bool uids,
      sys::TryLockExclusive(lock, kLock, ids::UidLock(Uids(wanted))));
  if (!uids) return false;
  ASSIGN_OR_RETURN(
      const bool gids,
      sys::TryLockExclusive(lock, kLock, ids::GidLock(Gids(wanted))));
  if (!gids) sys::Unlock(lock, ids::UidLock(Uids(wanted)));
  return gids;
}

void UnlockIds(BorrowedFd lock, const IdReservation& wanted) {
  sys::Unlock(lock, ids::UidLock(Uids(wanted)));
  sys::Unlock(lock, ids::GidLock(Gids(wanted)));
}

std::string Describe(const std::vector<HostIdRange>& ranges) {
  return absl::StrJoin(ranges, ",",
                       [](std::string* out, const HostIdRange& range) {
                         absl::StrAppend(out, ids::ToString(range));
                       });
}

}  // namespace

struct IdRangePool::State {
  ids::IdSlots slots;
  ids::IdStateDir dir;

  std::string Describe() const {
    return absl::StrCat("id range pool ", Quoted(dir.path()), " (uids ",
                        caisson::Describe(slots.uids()), ", gids ",
                        caisson::Describe(slots.gids()), ")");
  }
};

// ---- IdRangeLease ----------------------------------------------------------

IdRangeLease::IdRangeLease(IdRangeLease&& other) noexcept {
  *this = std::move(other);
}

IdRangeLease& IdRangeLease::operator=(IdRangeLease&& other) noexcept {
  if (this == &other) return *this;
  Release();
  first_uid_ = other.first_uid_;
  first_gid_ = other.first_gid_;
  count_ = other.count_;
  name_ = std::move(other.name_);
  owner_ = other.owner_;
  fd_ = std::move(other.fd_);
  return *this;
}

void IdRangeLease::Release() {
  if (!fd_.valid()) return;
  // Closing would leave the lock with the copies that forked children have;
  // unlocking in such a child would take it from the owner.
  if (owner_ == ::getpid()) sys::Unlock(fd_.borrow());
  fd_.reset();
}

// ---- IdRangePool -----------------------------------------------------------

IdRangePool::IdRangePool(std::unique_ptr<State> state)
    : state_(std::move(state)) {}
IdRangePool::IdRangePool(IdRangePool&&) noexcept = default;
IdRangePool& IdRangePool::operator=(IdRangePool&&) noexcept = default;
IdRangePool::~IdRangePool() = default;

absl::StatusOr<IdRangePool> IdRangePool::Open(
    const IdRangePoolOptions& options) {
  ASSIGN_OR_RETURN(ids::IdSlots slots, FindSlots(options));
  ASSIGN_OR_RETURN(ids::IdStateDir dir,
                   ids::IdStateDir::Open(options.directory));
  return IdRangePool(std::make_unique<State>(
      State{.slots = std::move(slots), .dir = std::move(dir)}));
}

uint64_t IdRangePool::size() const { return state_->slots.size(); }

absl::StatusOr<IdRangeLease> IdRangePool::NewLease() const {
  IdRangeLease lease;
  ASSIGN_OR_RETURN(lease.fd_, state_->dir.OpenLock());
  lease.owner_ = ::getpid();
  return lease;
}

// Whoever reserves a range holds its lock meanwhile. So a range that has no
// reservation once its lock is held gets none as long as it is.
absl::Status IdRangePool::TakeNext(IdRangeLease& lease) const {
  const ids::IdSlots& slots = state_->slots;
  ids::Turn turn(lease.fd());
  ASSIGN_OR_RETURN(std::vector<IdReservation> reservations,
                   state_->dir.Reservations());
  const uint64_t start = slots.IndexFrom(turn.Read());
  uint64_t in_use = 0;
  for (uint64_t tried = 0; tried < slots.size(); ++tried) {
    const ids::IdSlot slot = slots.at((start + tried) % slots.size());
    const IdReservation wanted = {"", slot.uid, slot.gid, slots.ids_per_slot()};
    if (IsReserved(reservations, wanted)) {
      ASSIGN_OR_RETURN(const bool leased,
                       sys::IsLockedElsewhere(lease.fd(), kLock,
                                              ids::UidLock(Uids(wanted))));
      if (leased) ++in_use;
      continue;
    }
    ASSIGN_OR_RETURN(const bool locked, TryLockIds(lease.fd(), wanted));
    if (!locked) {
      ++in_use;
      continue;
    }
    ASSIGN_OR_RETURN(reservations, state_->dir.Reservations());
    if (IsReserved(reservations, wanted)) {
      UnlockIds(lease.fd(), wanted);
      continue;
    }
    RETURN_IF_ERROR(turn.Write(uint64_t{wanted.first_uid} + wanted.count));
    lease.first_uid_ = wanted.first_uid;
    lease.first_gid_ = wanted.first_gid;
    lease.count_ = wanted.count;
    return absl::OkStatus();
  }
  return absl::ResourceExhaustedError(absl::StrCat(
      state_->Describe(), ": all ", slots.size(), " ranges of ",
      slots.ids_per_slot(), " ids are taken: ", in_use, " in use, ",
      slots.size() - in_use,
      " reserved by name; end containers, Forget() names, or give the pool "
      "more ids"));
}

absl::StatusOr<IdRangeLease> IdRangePool::Allocate() {
  ASSIGN_OR_RETURN(IdRangeLease lease, NewLease());
  RETURN_IF_ERROR(TakeNext(lease));
  return lease;
}

absl::Status IdRangePool::TakeReserved(const IdReservation& reservation,
                                       IdRangeLease& lease) const {
  const ids::IdSlots& slots = state_->slots;
  const std::string what =
      absl::StrCat("the reservation ", Quoted(reservation.name), " of uids ",
                   ids::ToString(Uids(reservation)), " and gids ",
                   ids::ToString(Gids(reservation)));
  if (reservation.count != slots.ids_per_slot()) {
    return absl::FailedPreconditionError(absl::StrCat(
        what, " has ", reservation.count,
        " ids, but IdRangePoolOptions.ids_per_container is ",
        slots.ids_per_slot(), "; Forget() it or open the pool with its size"));
  }
  if (!slots.Contains(Uids(reservation), Gids(reservation))) {
    return absl::FailedPreconditionError(
        absl::StrCat(what, " is not of ", state_->Describe(),
                     " any more: its ids may be somebody else's now"));
  }
  ASSIGN_OR_RETURN(const bool locked, TryLockIds(lease.fd(), reservation));
  if (!locked) {
    return absl::UnavailableError(
        absl::StrCat(what, ": another lease has some of these ids"));
  }
  lease.first_uid_ = reservation.first_uid;
  lease.first_gid_ = reservation.first_gid;
  lease.count_ = reservation.count;
  return absl::OkStatus();
}

absl::StatusOr<IdRangeLease> IdRangePool::AllocateNamed(
    absl::string_view name) {
  RETURN_IF_ERROR(ids::ValidateName(name));
  ASSIGN_OR_RETURN(const bool durable, state_->dir.IsDurable());
  if (!durable) {
    return absl::FailedPreconditionError(absl::StrCat(
        "IdRangePoolOptions.directory ", Quoted(state_->dir.path()),
        " is on a tmpfs: a reservation would not outlive a reboot, which the "
        "files of a named container do; use a directory on a disk"));
  }
  ASSIGN_OR_RETURN(IdRangeLease lease, NewLease());
  ASSIGN_OR_RETURN(
      const bool locked,
      sys::TryLockExclusive(lease.fd(), kLock, ids::NameLock(name)));
  if (!locked) {
    return absl::AlreadyExistsError(absl::StrCat("the id range ", Quoted(name),
                                                 " of ", state_->Describe(),
                                                 " is leased already"));
  }
  lease.name_ = std::string(name);
  ASSIGN_OR_RETURN(const std::vector<IdReservation> reservations,
                   state_->dir.Reservations());
  for (const IdReservation& reservation : reservations) {
    if (reservation.name != name) continue;
    RETURN_IF_ERROR(TakeReserved(reservation, lease));
    return lease;
  }
  RETURN_IF_ERROR(TakeNext(lease));
  RETURN_IF_ERROR(state_->dir.Add(
      {lease.name_, lease.first_uid_, lease.first_gid_, lease.count_}));
  return lease;
}

absl::Status IdRangePool::Forget(absl::string_view name) {
  RETURN_IF_ERROR(ids::ValidateName(name));
  // Its destructor unlocks the name.
  ASSIGN_OR_RETURN(const IdRangeLease lease, NewLease());
  ASSIGN_OR_RETURN(
      const bool locked,
      sys::TryLockExclusive(lease.fd(), kLock, ids::NameLock(name)));
  if (!locked) {
    return absl::FailedPreconditionError(
        absl::StrCat("the id range ", Quoted(name), " of ", state_->Describe(),
                     " is leased; release the lease first"));
  }
  ASSIGN_OR_RETURN(const std::vector<IdReservation> reservations,
                   state_->dir.Reservations());
  bool found = false;
  for (const IdReservation& reservation : reservations) {
    if (reservation.name != name) continue;
    RETURN_IF_ERROR(state_->dir.Remove(reservation));
    found = true;
  }
  if (found) return absl::OkStatus();
  return absl::NotFoundError(
      absl::StrCat(state_->Describe(), " has no reservation ", Quoted(name)));
}

absl::StatusOr<std::vector<IdReservation>> IdRangePool::Reservations() const {
  return state_->dir.Reservations();
}

}  // namespace caisson
