// Address leases: which endpoint has which address and name.
//
// A lease is a file `leases/<address>`, linked a second time as `names/<name>`,
// which its owner keeps open and locked. The kernel drops the lock with the
// process, so a lease is live exactly if its lock is held, and anybody may
// reap one whose lock is free.
//
// Thread-compatible. Other processes are excluded by the network's lock.
#ifndef CAISSON_LIB_NET_LEASE_H_
#define CAISSON_LIB_NET_LEASE_H_

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "caisson/unique_fd.h"
#include "lib/net/ipv4.h"
#include "lib/net/network_dir.h"
#include "lib/sys/netlink.h"
#include "lib/sys/rtnetlink.h"

namespace caisson {

// What is written in a lease. The veth pair is recorded before it is made, so
// that whoever reaps the lease finds it.
struct LeaseRecord {
  Ipv4Address address;
  std::string boot_id;
  std::string name;
  std::vector<std::string> aliases;
  std::string veth;  // the host's end
  sys::MacAddress veth_mac = {};
  sys::NamespaceId ns;

  std::string ToString() const;
  static absl::StatusOr<LeaseRecord> Parse(absl::string_view text);
};

// A live lease of this process. The destructor releases it.
class Lease final {
 public:
  Lease() = default;
  Lease(Lease&& other) noexcept;
  Lease& operator=(Lease&& other) noexcept;
  ~Lease() { Release().IgnoreError(); }

  Ipv4Address address() const { return address_; }
  // Whether the address may have belonged to another endpoint before.
  bool reused() const { return reused_; }

  // The file with its lock; invalid once released.
  BorrowedFd fd() const { return file_.borrow(); }
  // Gives address and name back. Idempotent.
  absl::Status Release();
  // Leaves them to whoever has a duplicate of the descriptor.
  void Disown() { file_.reset(); }
  // Whether another that adopted it has released it.
  bool IsGone() const;
  // The lease behind such a duplicate. `dir` must outlive it.
  static Lease Adopt(UniqueFd file, const LeaseRecord& record,
                     const NetworkDir* dir);

 private:
  friend class LeaseStore;

  Ipv4Address address_;
  std::string name_;  // folded
  bool reused_ = false;
  bool adopted_ = false;
  UniqueFd file_;  // valid while the lease is held
  const NetworkDir* dir_ = nullptr;
};

class LeaseStore final {
 public:
  // Undoes in the kernel what a stale lease stands for.
  using Reaper = std::function<absl::Status(const LeaseRecord&)>;

  // `dir` must outlive the store and its leases.
  LeaseStore(const NetworkDir* dir, const NetworkRecord& network,
             Reaper reaper);

  // Leases `record.address`, or the next free address in turn if it is zero.
  // ALREADY_EXISTS if a live lease has the address or the name,
  // RESOURCE_EXHAUSTED if all addresses are live.
  absl::StatusOr<Lease> Allocate(LeaseRecord record);

  // The live leases, of every process, by address.
  absl::StatusOr<std::vector<LeaseRecord>> List();

  // Reaps every lease whose owner died; returns them.
  absl::StatusOr<std::vector<LeaseRecord>> ReapStale();

 private:
  // Holds the network's lock.
  class Guard;

  struct Cursor {
    Ipv4Address last;
    bool wrapped = false;  // every address was in use once
  };

  Cursor ReadCursor() const;
  absl::Status WriteCursor(const Cursor& cursor);
  absl::Status CheckName(const std::string& name);
  absl::StatusOr<bool> TryCreate(const LeaseRecord& record, Lease& lease);
  absl::StatusOr<Lease> AllocateFixed(LeaseRecord record);
  absl::StatusOr<Lease> AllocateNext(LeaseRecord record);
  // nullopt if `file` below `dir` is live or gone; otherwise what it says
  // (nothing if its owner died before it wrote).
  absl::StatusOr<std::optional<LeaseRecord>> ReadIfStale(
      BorrowedFd dir, const std::string& file);
  absl::Status Reap(const std::string& file, const LeaseRecord& record);
  absl::Status ReapOrphanNames();

  const NetworkDir* dir_;
  Ipv4Subnet subnet_;
  Ipv4Address gateway_;
  std::string network_;
  Reaper reaper_;
};

}  // namespace caisson

#endif  // CAISSON_LIB_NET_LEASE_H_
