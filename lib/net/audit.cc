#include "lib/net/audit.h"

#include <optional>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/net/host_links.h"
#include "lib/net/sysctl.h"
#include "lib/sys/nft_inspect.h"
#include "lib/sys/rtnetlink.h"

namespace caisson {
namespace {

using Sentences = std::vector<std::string>;

// BR_PORT_BITS of the kernel: 1024 ids, of which 0 is not used.
constexpr size_t kMaxBridgePorts = 1023;
constexpr size_t kNearlyFull = 960;

void AddFailure(Sentences& sentences, absl::string_view what,
                const absl::Status& status) {
  sentences.push_back(
      absl::StrCat("cannot tell ", what, ": ", status.message()));
}

void AuditForwarding(sys::NetlinkSocket& route, const NetworkRecord& network,
                     Sentences& sentences) {
  const absl::StatusOr<bool> bridge = ForwardsIpv4(network.bridge);
  if (!bridge.ok()) {
    AddFailure(sentences, "whether the bridge forwards", bridge.status());
  } else if (!*bridge) {
    sentences.push_back(absl::StrCat(
        "net.ipv4.conf.", network.bridge,
        ".forwarding is 0 although Open set it: packets of containers do not "
        "leave the network; something resets it"));
  }
  const absl::StatusOr<std::optional<Uplink>> uplink = FindUplink(route);
  if (!uplink.ok()) {
    AddFailure(sentences, "which interface is the uplink", uplink.status());
    return;
  }
  if (!uplink->has_value()) {
    sentences.push_back(
        "the host has no default route: containers reach only the host and "
        "each other");
    return;
  }
  const std::string& interface = (*uplink)->interface;
  const absl::StatusOr<bool> forwards = ForwardsIpv4(interface);
  if (!forwards.ok()) {
    AddFailure(sentences, "whether the uplink forwards", forwards.status());
  } else if (!*forwards) {
    sentences.push_back(absl::StrCat(
        "net.ipv4.conf.", interface,
        ".forwarding is 0: containers get no answers from beyond the host and "
        "their published ports are closed from there; "
        "UplinkForwarding::kEnable sets it"));
  }
}

std::string ChainName(const sys::NftBaseChain& chain) {
  return absl::StrCat("chain ",
                      chain.family == sys::NftFamily::kInet ? "inet " : "ip ",
                      Quoted(chain.table), " ", Quoted(chain.chain));
}

void AuditForwardChains(Sentences& sentences) {
  constexpr char kConsequence[] =
      ": forwarded packets of containers need a rule there that accepts them "
      "first (nf_tables: an accept elsewhere does not overrule a drop)";
  absl::StatusOr<sys::NetlinkSocket> socket =
      sys::NetlinkSocket::Open(NETLINK_NETFILTER);
  if (!socket.ok()) {
    AddFailure(sentences, "what other firewalls do", socket.status());
    return;
  }
  const absl::StatusOr<std::vector<sys::NftBaseChain>> chains =
      sys::ListBaseChains(*socket);
  if (!chains.ok()) {
    AddFailure(sentences, "what other firewalls do", chains.status());
    return;
  }
  for (const sys::NftBaseChain& chain : *chains) {
    if (chain.hook != sys::NftHook::kForward) continue;
    if (chain.policy_drops) {
      sentences.push_back(
          absl::StrCat(ChainName(chain), " has the policy drop", kConsequence));
      continue;
    }
    const absl::StatusOr<bool> drops =
        sys::HasUnconditionalDrop(*socket, chain);
    if (!drops.ok()) {
      AddFailure(sentences, absl::StrCat("what ", ChainName(chain), " drops"),
                 drops.status());
    } else if (*drops) {
      sentences.push_back(absl::StrCat(
          ChainName(chain), " ends in a rule that drops", kConsequence));
    }
  }
  const absl::StatusOr<bool> legacy = sys::LegacyForwardPolicyDrops();
  if (!legacy.ok()) {
    AddFailure(sentences, "the policy of iptables", legacy.status());
  } else if (*legacy) {
    sentences.push_back(absl::StrCat(
        "the FORWARD chain of iptables has the policy DROP", kConsequence));
  }
}

void AuditBridge(sys::NetlinkSocket& route, const NetworkRecord& network,
                 int bridge, Sentences& sentences) {
  const absl::StatusOr<std::vector<sys::LinkInfo>> ports =
      sys::ListLinks(route, "veth", bridge);
  if (!ports.ok()) {
    AddFailure(sentences, "how full the bridge is", ports.status());
  } else if (ports->size() >= kNearlyFull) {
    sentences.push_back(absl::StrCat("the bridge has ", ports->size(), " of ",
                                     kMaxBridgePorts, " possible ports"));
  }
  const absl::StatusOr<std::vector<OccupiedRange>> occupied =
      ListOccupied(route, bridge);
  if (!occupied.ok()) {
    AddFailure(sentences, "which routes there are", occupied.status());
    return;
  }
  for (const OccupiedRange& range : *occupied) {
    if (!range.subnet.Overlaps(network.subnet)) continue;
    sentences.push_back(absl::StrCat("the subnet ", network.subnet.ToString(),
                                     " overlaps ", range.what));
  }
}

}  // namespace

std::vector<std::string> AuditHost(sys::NetlinkSocket& route,
                                   const NetworkRecord& network) {
  Sentences sentences;
  if (!network.internal) {
    AuditForwarding(route, network, sentences);
    AuditForwardChains(sentences);
  }
  const absl::StatusOr<std::optional<int>> bridge = FindBridge(route, network);
  if (!bridge.ok()) {
    AddFailure(sentences, "how the bridge is", bridge.status());
  } else if (!bridge->has_value()) {
    sentences.push_back(absl::StrCat("bridge ", Quoted(network.bridge),
                                     " is gone or was replaced"));
  } else {
    AuditBridge(route, network, **bridge, sentences);
  }
  return sentences;
}

}  // namespace caisson
