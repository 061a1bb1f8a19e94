// The directories of a container store: one for each container, and the names.
// doc/container.md lists what is in them.
//
// Thread-safe, also between processes.
#ifndef CAISSON_LIB_KEEPER_CONTAINER_DIRECTORY_H_
#define CAISSON_LIB_KEEPER_CONTAINER_DIRECTORY_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "caisson/unique_fd.h"
#include "lib/keeper/record.pb.h"

namespace caisson::keeper {

inline constexpr uint32_t kRecordVersion = 1;

// A lock that ends with the object.
using HeldLock = UniqueFd;

// How long a lock is waited for. It is held for milliseconds, but whoever holds
// it may have been stopped (SIGSTOP), and a keeper has other things to do.
inline constexpr absl::Duration kLockPatience = absl::Minutes(1);
inline constexpr absl::Duration kKeeperLockPatience = absl::Seconds(2);

class ContainerDirectory final {
 public:
  ContainerDirectory(ContainerDirectory&&) = default;
  ContainerDirectory& operator=(ContainerDirectory&&) = default;

  const std::string& id() const { return id_; }
  const std::string& path() const { return path_; }
  BorrowedFd fd() const { return fd_.borrow(); }

  // For whoever changes the container, and for making and ending a keeper: held
  // for milliseconds, and never while a keeper is waited for; also while the
  // files of a container are copied that does not run. NOT_FOUND if the
  // container was removed, DEADLINE_EXCEEDED.
  absl::StatusOr<HeldLock> Lock(absl::Duration patience = kLockPatience) const;

  // A keeper holds this lock for as long as it lives; it begins and ends with
  // Lock() held. Precondition of the first: Lock() is held.
  absl::StatusOr<HeldLock> LockForKeeper() const;
  absl::StatusOr<bool> HasKeeper() const;

  // Where a keeper is asked. Listening takes away the socket of a dead one.
  absl::StatusOr<UniqueFd> Listen() const;
  absl::StatusOr<UniqueFd> Connect() const;
  void RemoveSocket() const;

  // NOT_FOUND if the container was removed, DATA_LOSS if it is unreadable.
  absl::StatusOr<ContainerRecord> ReadRecord() const;
  // Survives a power failure when it returns.
  absl::Status WriteRecord(const ContainerRecord& record) const;
  // An empty one if the container was never started.
  absl::StatusOr<StateRecord> ReadState() const;
  absl::Status WriteState(const StateRecord& state) const;

  // The directory of the log, made if it is missing.
  absl::StatusOr<UniqueFd> OpenLogs() const;

  // Removes the directory. The record goes first, so that nobody finds half a
  // container. Precondition: Lock() is held.
  absl::Status Remove() const;

 private:
  friend class StoreDirectory;
  ContainerDirectory(std::string id, std::string path, UniqueFd parent,
                     UniqueFd fd)
      : id_(std::move(id)),
        path_(std::move(path)),
        parent_(std::move(parent)),
        fd_(std::move(fd)) {}

  absl::StatusOr<UniqueFd> OpenLock(const char* name) const;
  absl::Status WriteFile(const char* name, const std::string& text,
                         bool durable) const;
  absl::StatusOr<std::string> ReadFile(const char* name) const;
  absl::Status Gone() const;

  std::string id_;
  std::string path_;
  UniqueFd parent_;
  UniqueFd fd_;
};

class StoreDirectory final {
 public:
  // Makes it with mode 0700 if it is missing.
  static absl::StatusOr<StoreDirectory> Open(const std::string& path);

  // Events are written here.
  BorrowedFd fd() const { return fd_.borrow(); }
  const std::string& path() const { return path_; }

  // A new container, which exists for others once its record is written.
  absl::StatusOr<ContainerDirectory> Make(const std::string& id) const;
  // NOT_FOUND if there is no directory.
  absl::StatusOr<ContainerDirectory> Find(const std::string& id) const;
  // Sorted. Also those without a record.
  absl::StatusOr<std::vector<std::string>> Ids() const;

  // Names are changed by one process at a time. DEADLINE_EXCEEDED.
  absl::StatusOr<HeldLock> LockNames(
      absl::Duration patience = kLockPatience) const;
  // ALREADY_EXISTS, naming the container that has it. A name that was left by
  // one that is gone is free. Precondition: LockNames() is held.
  absl::Status TakeName(const std::string& name, const std::string& id) const;
  // If it is that container's. Precondition: LockNames() is held.
  void DropName(const std::string& name, const std::string& id) const;
  // What killed processes left. Precondition: LockNames() is held.
  absl::Status DropStaleNames() const;
  // Empty if no container has the name.
  std::string IdOfName(const std::string& name) const;

 private:
  StoreDirectory(UniqueFd fd, UniqueFd names, std::string path)
      : fd_(std::move(fd)), names_(std::move(names)), path_(std::move(path)) {}

  UniqueFd fd_;
  UniqueFd names_;
  std::string path_;
};

// 64 lower-case hexadecimal digits.
bool IsContainerId(absl::string_view id);

// INVALID_ARGUMENT unless a container can have the name.
absl::Status CheckContainerName(absl::string_view name);

}  // namespace caisson::keeper

#endif  // CAISSON_LIB_KEEPER_CONTAINER_DIRECTORY_H_
