// Where networks keep their state: `state_dir` and a directory per network.
//
//   <state_dir>/caisson-net.lock   held while a network is opened or closed
//   <state_dir>/<network>/network  the record of the network
//   <state_dir>/<network>/users    a shared lock per open Network
//   <state_dir>/<network>/lock     held while an address is allocated
//   <state_dir>/<network>/leases/  one file per address in use
//   <state_dir>/<network>/names/   the same files by endpoint name
//
// doc/network-state.md is the specification. Thread-compatible.
#ifndef CAISSON_LIB_NET_NETWORK_DIR_H_
#define CAISSON_LIB_NET_NETWORK_DIR_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "caisson/unique_fd.h"
#include "lib/net/ipv4.h"
#include "lib/sys/rtnetlink.h"

namespace caisson {

// What all users of a network agree on.
struct NetworkRecord {
  std::string name;
  std::string boot_id;
  std::string bridge;  // also the prefix of its ports' names
  sys::MacAddress bridge_mac = {};
  Ipv4Subnet subnet;
  Ipv4Address gateway;
  int mtu = 0;
  bool internal = false;

  std::string ToString() const;
  static absl::StatusOr<NetworkRecord> Parse(absl::string_view text);
};

// /proc/sys/kernel/random/boot_id.
absl::StatusOr<std::string> ReadBootId();
absl::StatusOr<sys::MacAddress> ParseMac(absl::string_view field,
                                         absl::string_view text);

// `state_dir`, with its lock held from Open to destruction.
class StateRoot final {
 public:
  // Creates the directory if it is missing and `create` is set (NOT_FOUND
  // otherwise, also if it was never used as a state directory), checks that
  // only the caller can write to it, and waits for the lock.
  static absl::StatusOr<StateRoot> Open(const std::string& path, bool create);

  StateRoot(StateRoot&&) = default;
  StateRoot& operator=(StateRoot&&) = default;

  BorrowedFd dir() const { return dir_.borrow(); }
  // The directories of networks. Removes empty directories, which are what a
  // process leaves that dies while it makes one.
  absl::StatusOr<std::vector<std::string>> NetworkNames() const;

 private:
  StateRoot(UniqueFd dir, UniqueFd lock)
      : dir_(std::move(dir)), lock_(std::move(lock)) {}

  UniqueFd dir_;
  UniqueFd lock_;
};

// The directory of one network. The methods that open, join, leave and remove
// want the root's lock held.
class NetworkDir final {
 public:
  // NOT_FOUND if it does not exist and `create` is not set.
  static absl::StatusOr<NetworkDir> Open(const StateRoot& root,
                                         const std::string& name, bool create);

  NetworkDir(NetworkDir&&) = default;
  NetworkDir& operator=(NetworkDir&&) = default;

  // nullopt if there is none; DATA_LOSS if it cannot be read as one.
  absl::StatusOr<std::optional<NetworkRecord>> ReadRecord() const;
  // Replaces the record in one step.
  absl::Status WriteRecord(const NetworkRecord& record);

  // Whether somebody else has the network open.
  absl::StatusOr<bool> HasOtherUsers() const;
  absl::Status Join();
  void Leave();
  // A use of its own, which ends with the last duplicate of the result.
  absl::StatusOr<UniqueFd> JoinSeparately() const;
  // The lock of lock(), but excluding other threads, too, until the result is
  // closed.
  absl::StatusOr<UniqueFd> LockSeparately() const;
  // True if nobody else has it open; nobody can join until the root's lock is
  // released.
  absl::StatusOr<bool> BecomeOnlyUser();

  // Removes the directory with the files that the library puts there.
  // Precondition: no other user.
  absl::Status Remove(const StateRoot& root);

  BorrowedFd dir() const { return dir_.borrow(); }
  BorrowedFd leases() const { return leases_.borrow(); }
  BorrowedFd names() const { return names_.borrow(); }
  BorrowedFd lock() const { return lock_.borrow(); }

 private:
  NetworkDir() = default;

  std::string name_;
  UniqueFd dir_;
  UniqueFd users_;
  UniqueFd lock_;
  UniqueFd leases_;
  UniqueFd names_;
};

// Names in a directory, without "." and "..", sorted.
absl::StatusOr<std::vector<std::string>> ListDirectory(BorrowedFd dir);

}  // namespace caisson

#endif  // CAISSON_LIB_NET_NETWORK_DIR_H_
