// What packet filters of others are in the way: a look at base chains.
//
// An "accept" in one nf_tables base chain does not overrule a "drop" in
// another, so whoever wants to know whether forwarded packets pass has to look
// at all of them, and at the older iptables tables, which nf_tables does not
// show.
//
// Thread-safe; the socket is thread-compatible.
#ifndef CAISSON_LIB_SYS_NFT_INSPECT_H_
#define CAISSON_LIB_SYS_NFT_INSPECT_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "lib/sys/netlink.h"
#include "lib/sys/nftables.h"

namespace caisson::sys {

struct NftBaseChain {
  NftFamily family = NftFamily::kIpv4;
  std::string table;
  std::string chain;
  NftHook hook = NftHook::kPreRouting;
  bool policy_drops = false;
};

// Base chains of the families "ip" and "inet".
absl::StatusOr<std::vector<NftBaseChain>> ListBaseChains(
    NetlinkSocket& nfnetlink);

// Whether a rule of the chain drops or rejects whatever reaches it.
absl::StatusOr<bool> HasUnconditionalDrop(NetlinkSocket& nfnetlink,
                                          const NftBaseChain& chain);

// Whether the FORWARD chain of the legacy iptables filter table has the policy
// DROP, in the calling thread's network namespace. Does not bring the table
// into being.
absl::StatusOr<bool> LegacyForwardPolicyDrops();

}  // namespace caisson::sys

#endif  // CAISSON_LIB_SYS_NFT_INSPECT_H_
