#include "caisson/network.h"

#include <utility>

#include "lib/base/status_macros.h"
#include "lib/net/lease.h"
#include "lib/net/network_state.h"
#include "lib/net/recover.h"

namespace caisson {

Network::Network(std::shared_ptr<NetworkState> state)
    : state_(std::move(state)) {}
Network::Network(Network&&) noexcept = default;
Network& Network::operator=(Network&&) noexcept = default;
Network::~Network() = default;

absl::StatusOr<Network> Network::Open(const NetworkOptions& options) {
  ASSIGN_OR_RETURN(std::shared_ptr<NetworkState> state,
                   NetworkState::Open(options, /*hook=*/nullptr));
  return Network(std::move(state));
}

absl::string_view Network::name() const { return state_->record().name; }
absl::string_view Network::subnet() const { return state_->subnet(); }
absl::string_view Network::gateway() const { return state_->gateway(); }
absl::string_view Network::bridge() const { return state_->record().bridge; }
int Network::mtu() const { return state_->record().mtu; }

absl::StatusOr<std::vector<HostsEntry>> Network::Hosts() const {
  ASSIGN_OR_RETURN(const std::vector<LeaseRecord> leases, state_->ListLeases());
  std::vector<HostsEntry> hosts;
  for (const LeaseRecord& lease : leases) {
    HostsEntry entry = {lease.address.ToString(), {lease.name}};
    entry.names.insert(entry.names.end(), lease.aliases.begin(),
                       lease.aliases.end());
    hosts.push_back(std::move(entry));
  }
  return hosts;
}

std::vector<std::string> Network::Warnings() const {
  return state_->Warnings();
}

absl::Status Network::Remove() { return state_->Remove(); }

absl::StatusOr<std::vector<std::string>> Network::Recover(
    const std::string& state_dir) {
  return RecoverNetworks(state_dir);
}

Network NetworkAccess::Make(std::shared_ptr<NetworkState> state) {
  return Network(std::move(state));
}

const std::shared_ptr<NetworkState>& NetworkAccess::State(
    const Network& network) {
  return network.state_;
}

}  // namespace caisson
