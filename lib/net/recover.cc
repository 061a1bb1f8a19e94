#include "lib/net/recover.h"

#include <optional>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/net/host_links.h"
#include "lib/net/lease.h"
#include "lib/sys/rtnetlink.h"

namespace caisson {
namespace {

using Sentences = std::vector<std::string>;

constexpr size_t kMaxAlias = 255;  // IFALIASZ - 1

absl::Status ReapLeases(const NetworkDir& dir, const NetworkRecord& record,
                        sys::NetlinkSocket& route, Sentences& removed) {
  LeaseStore store(&dir, record, [&](const LeaseRecord& lease) {
    return RemoveEndpointLink(route, record, lease);
  });
  ASSIGN_OR_RETURN(const std::vector<LeaseRecord> reaped, store.ReapStale());
  for (const LeaseRecord& lease : reaped) {
    removed.push_back(absl::StrCat("lease of ", lease.address.ToString(),
                                   " by ", Quoted(lease.name), " on network ",
                                   Quoted(record.name)));
  }
  return absl::OkStatus();
}

// One network's directory. `bridges` collects the names that records claim.
absl::Status RecoverNetwork(const StateRoot& root, const std::string& name,
                            sys::NetlinkSocket& route,
                            std::set<std::string>& bridges,
                            Sentences& removed) {
  // Whatever part of it is missing is made, so that it can be removed.
  ASSIGN_OR_RETURN(NetworkDir dir,
                   NetworkDir::Open(root, name, /*create=*/true));
  ASSIGN_OR_RETURN(const bool in_use, dir.HasOtherUsers());
  if (in_use) {
    ASSIGN_OR_RETURN(const std::optional<NetworkRecord> record,
                     dir.ReadRecord());
    if (!record.has_value()) return absl::OkStatus();
    bridges.insert(record->bridge);
    return ReapLeases(dir, *record, route, removed);
  }
  ASSIGN_OR_RETURN(const Sentences remains, RemoveRemains(dir, route));
  removed.insert(removed.end(), remains.begin(), remains.end());
  RETURN_IF_ERROR(dir.Remove(root));
  removed.push_back(absl::StrCat("state of network ", Quoted(name)));
  return absl::OkStatus();
}

// Bridges that no record knows any more, because the state was deleted under
// their owners. One that has ports is still of use to somebody.
absl::Status RemoveOrphanBridges(const std::string& state_dir,
                                 const std::set<std::string>& known,
                                 sys::NetlinkSocket& route,
                                 Sentences& removed) {
  ASSIGN_OR_RETURN(const std::vector<sys::LinkInfo> bridges,
                   sys::ListLinks(route, "bridge"));
  const std::string prefix = BridgeAlias(state_dir, "");
  for (const sys::LinkInfo& bridge : bridges) {
    if (known.count(bridge.name) != 0 ||
        !absl::StartsWith(bridge.alias, prefix)) {
      continue;
    }
    ASSIGN_OR_RETURN(const std::vector<sys::LinkInfo> ports,
                     sys::ListLinks(route, "veth", bridge.index));
    if (!ports.empty()) continue;
    sys::NetlinkTrain train;
    sys::DeleteLink(train, bridge.index);
    RETURN_IF_ERROR(route.Run(train));
    removed.push_back(absl::StrCat("bridge ", Quoted(bridge.name)));
  }
  return absl::OkStatus();
}

}  // namespace

std::string BridgeAlias(absl::string_view state_dir, absl::string_view name) {
  return absl::StrCat("caisson network of ", state_dir, ": ", name)
      .substr(0, kMaxAlias);
}

absl::StatusOr<Sentences> RemoveRemains(const NetworkDir& dir,
                                        sys::NetlinkSocket& route) {
  Sentences removed;
  const absl::StatusOr<std::optional<NetworkRecord>> record = dir.ReadRecord();
  if (!record.ok() && !absl::IsDataLoss(record.status())) {
    return record.status();
  }
  // Without a readable record nothing was made: it is the first thing written.
  if (!record.ok() || !record->has_value()) return removed;
  RETURN_IF_ERROR(ReapLeases(dir, **record, route, removed));
  ASSIGN_OR_RETURN(const bool bridge, RemoveBridge(route, **record));
  if (bridge) {
    removed.push_back(absl::StrCat("bridge ", Quoted((*record)->bridge)));
  }
  return removed;
}

absl::StatusOr<Sentences> RecoverNetworks(const std::string& state_dir) {
  Sentences removed;
  const absl::StatusOr<StateRoot> root =
      StateRoot::Open(state_dir, /*create=*/false);
  if (!root.ok()) {
    if (absl::IsNotFound(root.status())) return removed;
    return root.status();
  }
  ASSIGN_OR_RETURN(sys::NetlinkSocket route,
                   sys::NetlinkSocket::Open(NETLINK_ROUTE));
  ASSIGN_OR_RETURN(const std::vector<std::string> names, root->NetworkNames());
  std::set<std::string> bridges;
  absl::Status failed;
  for (const std::string& name : names) {
    failed.Update(Annotate(RecoverNetwork(*root, name, route, bridges, removed),
                           absl::StrCat("network ", Quoted(name))));
  }
  RETURN_IF_ERROR(failed);
  RETURN_IF_ERROR(RemoveOrphanBridges(state_dir, bridges, route, removed));
  return removed;
}

}  // namespace caisson
