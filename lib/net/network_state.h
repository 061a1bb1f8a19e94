// What the Network and NetEndpoint objects of one process share about one open
// network: its directory, its sockets, its firewall tables.
//
// Thread-safe.
#ifndef CAISSON_LIB_NET_NETWORK_STATE_H_
#define CAISSON_LIB_NET_NETWORK_STATE_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "caisson/network.h"
#include "caisson/unique_fd.h"
#include "lib/base/mutex.h"
#include "lib/net/firewall.h"
#include "lib/net/lease.h"
#include "lib/net/network_dir.h"
#include "lib/sys/netlink.h"
#include "lib/sys/rtnetlink.h"

namespace caisson {

// Called with the name of every step of an operation before it is done; an
// error makes the operation fail there and undo what it did. For tests and
// measurements.
using StepHook = std::function<absl::Status(absl::string_view step)>;

class NetworkState final {
 public:
  static absl::StatusOr<std::shared_ptr<NetworkState>> Open(
      const NetworkOptions& options, StepHook hook);

  NetworkState(const NetworkState&) = delete;
  NetworkState& operator=(const NetworkState&) = delete;
  ~NetworkState();

  const NetworkRecord& record() const { return record_; }
  const std::string& subnet() const { return subnet_; }
  const std::string& gateway() const { return gateway_; }
  int bridge_index() const { return bridge_index_; }
  const sys::NamespaceId& host_ns() const { return host_ns_; }

  // FAILED_PRECONDITION if the calling thread is in another network namespace
  // than the thread that opened the network; `socket` is one it just made.
  absl::Status CheckSameNamespace(BorrowedFd socket) const;

  absl::Status Step(absl::string_view name) const {
    return hook_ ? hook_(name) : absl::OkStatus();
  }

  absl::StatusOr<Lease> AllocateLease(LeaseRecord record);
  absl::StatusOr<std::vector<LeaseRecord>> ListLeases();

  // Runs a train in the host's namespace.
  absl::Status RunHostTrain(
      sys::NetlinkTrain& train,
      sys::NetlinkSocket::Row on_reply = [](const nlmsghdr&) {});
  // Waits until the bridge passes packets to and from one of its ports.
  absl::Status AwaitPort(int port);
  absl::Status RemoveLinkOf(const LeaseRecord& lease);

  // Descriptors that keep the network for one endpoint when this process is
  // gone: a use of it, and tables in which its ports are published.
  absl::StatusOr<std::vector<UniqueFd>> Lifelines(
      absl::Span<const PublishedPort> ports);
  // Takes over a lease that another process disowned.
  absl::StatusOr<Lease> AdoptLease(UniqueFd file, const LeaseRecord& record);

  absl::Status Publish(absl::Span<const PublishedPort> ports);
  absl::Status Withdraw(absl::Span<const PublishedPort> ports);
  // Deletes the UDP flows to the ports that are not translated as the ports say
  // (after publishing), or that are (after withdrawing).
  enum class Flows { kNotTranslated, kTranslated };
  absl::Status DeleteUdpFlows(absl::Span<const PublishedPort> ports,
                              Flows flows);

  // Tells the other containers that an address is at another MAC address now.
  absl::Status AnnounceAddress(Ipv4Address address, const sys::MacAddress& mac);

  std::vector<std::string> Warnings();

  // Leaves the network, and removes it if nobody else has it open. Idempotent.
  absl::Status Close();
  // As Close, but only if the network is then gone; FAILED_PRECONDITION, with
  // nothing done, if there are endpoints or other users.
  absl::Status Remove();

 private:
  NetworkState(const NetworkOptions& options, StepHook hook, NetworkDir dir,
               sys::NetlinkSocket route);

  absl::Status Establish(const NetworkOptions& options, const StateRoot& root);
  absl::Status EstablishNew(const NetworkOptions& options);
  absl::Status JoinExisting(const NetworkOptions& options);
  absl::Status MakeBridge() ABSL_EXCLUSIVE_LOCKS_REQUIRED(route_mutex_);
  absl::Status EnableUplink();
  std::string NewTableName() const;
  // Removes what the network has in the kernel and on disk.
  absl::Status Dismantle(const StateRoot& root);
  void DropFirewall();

  const std::string state_dir_;
  const StepHook hook_;
  NetworkDir dir_;
  NetworkRecord record_;
  std::string subnet_;
  std::string gateway_;
  int bridge_index_ = 0;
  uint64_t netns_cookie_ = 0;
  sys::NamespaceId host_ns_;

  Mutex lease_mutex_;
  // Empty once the network is closed.
  std::optional<LeaseStore> leases_ ABSL_GUARDED_BY(lease_mutex_);
  Mutex route_mutex_ ABSL_ACQUIRED_AFTER(lease_mutex_);
  sys::NetlinkSocket route_ ABSL_GUARDED_BY(route_mutex_);
  UniqueFd arp_ ABSL_GUARDED_BY(route_mutex_);
  Mutex firewall_mutex_;
  std::optional<Firewall> firewall_ ABSL_GUARDED_BY(firewall_mutex_);
};

// Lets the module's own code and tests reach the state of a Network.
class NetworkAccess final {
 public:
  static Network Make(std::shared_ptr<NetworkState> state);
  static const std::shared_ptr<NetworkState>& State(const Network& network);
};

}  // namespace caisson

#endif  // CAISSON_LIB_NET_NETWORK_STATE_H_
