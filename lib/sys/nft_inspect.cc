#include "lib/sys/nft_inspect.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <libnftnl/chain.h>
#include <libnftnl/expr.h>
#include <libnftnl/rule.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter_ipv4/ip_tables.h>
#include <string.h>
#include <sys/socket.h>

#include <cstdlib>
#include <memory>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "caisson/unique_fd.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/sys/open.h"

namespace caisson::sys {
namespace {

constexpr char kLegacyTable[] = "filter";
constexpr char kLegacyTables[] = "/proc/thread-self/net/ip_tables_names";
// A standard target's verdict is -(NF_DROP) - 1.
constexpr int kLegacyDrop = -NF_DROP - 1;
constexpr int kMaxLegacyAttempts = 16;

nlmsghdr* AddRequest(NetlinkTrain& train, uint8_t type, NftFamily family,
                     std::string what) {
  nlmsghdr* message =
      train.Add(static_cast<uint16_t>(NFNL_SUBSYS_NFTABLES << 8 | type), 0,
                std::move(what));
  auto* header = static_cast<nfgenmsg*>(
      mnl_nlmsg_put_extra_header(message, sizeof(nfgenmsg)));
  header->nfgen_family = static_cast<uint8_t>(family);
  header->version = NFNETLINK_V0;
  return message;
}

std::optional<NftBaseChain> ParseBaseChain(const nlmsghdr& row) {
  std::unique_ptr<nftnl_chain, void (*)(const nftnl_chain*)> chain(
      nftnl_chain_alloc(), nftnl_chain_free);
  if (chain == nullptr || nftnl_chain_nlmsg_parse(&row, chain.get()) != 0 ||
      !nftnl_chain_is_set(chain.get(), NFTNL_CHAIN_HOOKNUM)) {
    return std::nullopt;
  }
  NftBaseChain base;
  base.family = static_cast<NftFamily>(
      static_cast<const nfgenmsg*>(mnl_nlmsg_get_payload(&row))->nfgen_family);
  if (base.family != NftFamily::kIpv4 && base.family != NftFamily::kInet) {
    return std::nullopt;
  }
  base.table = nftnl_chain_get_str(chain.get(), NFTNL_CHAIN_TABLE);
  base.chain = nftnl_chain_get_str(chain.get(), NFTNL_CHAIN_NAME);
  base.hook = static_cast<NftHook>(
      nftnl_chain_get_u32(chain.get(), NFTNL_CHAIN_HOOKNUM));
  base.policy_drops =
      nftnl_chain_get_u32(chain.get(), NFTNL_CHAIN_POLICY) == NF_DROP;
  return base;
}

// Whether the rule has no match before a drop or reject.
bool DropsEverything(const nftnl_rule* rule) {
  std::unique_ptr<nftnl_expr_iter, void (*)(nftnl_expr_iter*)> expressions(
      nftnl_expr_iter_create(rule), nftnl_expr_iter_destroy);
  if (expressions == nullptr) return false;
  while (nftnl_expr* expression = nftnl_expr_iter_next(expressions.get())) {
    const absl::string_view name =
        nftnl_expr_get_str(expression, NFTNL_EXPR_NAME);
    if (name == "counter" || name == "log") continue;
    if (name == "reject") return true;
    return name == "immediate" &&
           nftnl_expr_is_set(expression, NFTNL_EXPR_IMM_VERDICT) &&
           nftnl_expr_get_u32(expression, NFTNL_EXPR_IMM_VERDICT) == NF_DROP;
  }
  return false;
}

absl::Status LegacyError(const char* what) {
  return ErrnoError(
      errno, absl::StrCat("getsockopt(", what, ", \"", kLegacyTable, "\")"),
      {.step = "iptables"});
}

// The verdict of the rule at `offset` of the table's blob, which for an
// underflow point is the chain's policy.
std::optional<int> StandardVerdictAt(absl::string_view entries, size_t offset) {
  ipt_entry entry;
  xt_standard_target target;
  if (offset > entries.size() || entries.size() - offset < sizeof(entry)) {
    return std::nullopt;
  }
  ::memcpy(&entry, entries.data() + offset, sizeof(entry));
  offset += entry.target_offset;
  if (offset > entries.size() || entries.size() - offset < sizeof(target)) {
    return std::nullopt;
  }
  ::memcpy(&target, entries.data() + offset, sizeof(target));
  return target.verdict;
}

}  // namespace

absl::StatusOr<std::vector<NftBaseChain>> ListBaseChains(
    NetlinkSocket& nfnetlink) {
  NetlinkTrain request;
  AddRequest(request, NFT_MSG_GETCHAIN, NftFamily::kAny, "nft(list chains)");
  std::vector<NftBaseChain> chains;
  RETURN_IF_ERROR(nfnetlink.Dump(request, [&chains](const nlmsghdr& row) {
    std::optional<NftBaseChain> chain = ParseBaseChain(row);
    if (chain.has_value()) chains.push_back(*std::move(chain));
  }));
  return chains;
}

absl::StatusOr<bool> HasUnconditionalDrop(NetlinkSocket& nfnetlink,
                                          const NftBaseChain& chain) {
  NetlinkTrain request;
  nlmsghdr* message =
      AddRequest(request, NFT_MSG_GETRULE, chain.family,
                 absl::StrCat("nft(list chain ", Quoted(chain.table), " ",
                              Quoted(chain.chain), ")"));
  mnl_attr_put_strz(message, NFTA_RULE_TABLE, chain.table.c_str());
  mnl_attr_put_strz(message, NFTA_RULE_CHAIN, chain.chain.c_str());
  bool drops = false;
  RETURN_IF_ERROR(nfnetlink.Dump(request, [&](const nlmsghdr& row) {
    std::unique_ptr<nftnl_rule, void (*)(const nftnl_rule*)> rule(
        nftnl_rule_alloc(), nftnl_rule_free);
    if (rule == nullptr || nftnl_rule_nlmsg_parse(&row, rule.get()) != 0) {
      return;
    }
    drops = drops || DropsEverything(rule.get());
  }));
  return drops;
}

absl::StatusOr<bool> LegacyForwardPolicyDrops() {
  // Asking for a table creates it, so look whether it exists first.
  const absl::StatusOr<std::string> names = ReadFileAt(
      BorrowedFd(AT_FDCWD), kLegacyTables, /*resolve=*/0, /*limit=*/65536);
  if (!names.ok()) {
    if (absl::IsNotFound(names.status())) return false;
    return names.status();
  }
  bool present = false;
  for (absl::string_view name : absl::StrSplit(*names, '\n')) {
    present = present || name == kLegacyTable;
  }
  if (!present) return false;

  UniqueFd socket(::socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW));
  if (!socket.valid()) {
    return ErrnoError(errno, "socket(AF_INET, SOCK_RAW)", {.step = "iptables"});
  }
  for (int attempt = 0;; ++attempt) {
    ipt_getinfo info = {};
    ::strncpy(info.name, kLegacyTable, sizeof(info.name) - 1);
    socklen_t length = sizeof(info);
    if (::getsockopt(socket.get(), SOL_IP, IPT_SO_GET_INFO, &info, &length) !=
        0) {
      return LegacyError("IPT_SO_GET_INFO");
    }
    ipt_get_entries request = {};
    ::memcpy(request.name, info.name, sizeof(request.name));
    request.size = info.size;
    std::string blob(sizeof(request) + info.size, '\0');
    ::memcpy(blob.data(), &request, sizeof(request));
    length = static_cast<socklen_t>(blob.size());
    if (::getsockopt(socket.get(), SOL_IP, IPT_SO_GET_ENTRIES, blob.data(),
                     &length) == 0) {
      const std::optional<int> policy =
          StandardVerdictAt(absl::string_view(blob).substr(sizeof(request)),
                            info.underflow[NF_INET_FORWARD]);
      return policy.has_value() && *policy == kLegacyDrop;
    }
    // The table changed between the two calls.
    if (errno != EAGAIN || attempt == kMaxLegacyAttempts) {
      return LegacyError("IPT_SO_GET_ENTRIES");
    }
  }
}

}  // namespace caisson::sys
