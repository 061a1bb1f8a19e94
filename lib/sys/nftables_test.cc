#include "lib/sys/nftables.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter_ipv4/ip_tables.h>
#include <string.h>
#include <sys/socket.h>

#include <string>
#include <vector>

#include "caisson/error.h"
#include "lib/base/status_matchers.h"
#include "lib/sys/net_namespace_test_util.h"
#include "lib/sys/netlink.h"
#include "lib/sys/nft_inspect.h"

namespace caisson::sys {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::HasSubstr;

class NftablesTest : public NetNamespaceTest {};

const NftTable kTable = {NftFamily::kIpv4, "test"};
const NftMap kMap = {"ports",
                     {NftField::kProtocol, NftField::kPort},
                     {NftField::kIpv4Address, NftField::kPort}};

NftElement Element(uint16_t port) {
  NftElement element;
  element.key.Protocol(6).Port(port);
  element.data.Address({htonl(0x0a000001)}).Port(80);
  return element;
}

TEST(NftValueTest, FieldsAreFourBytesInNetworkOrder) {
  NftValue value;
  value.Address({htonl(0x0a010203)}).Protocol(17).Port(0x1234);
  EXPECT_EQ(value.bytes(),
            std::string("\x0a\x01\x02\x03\x11\0\0\0\x12\x34\0\0", 12));
}

TEST_F(NftablesTest, BatchIsAllOrNothing) {
  RunInNamespace(NETLINK_NETFILTER, [](NetlinkSocket& socket) {
    NftBatch bad;
    bad.AddTable(kTable);
    bad.AddMap(kTable, kMap);
    bad.AddElements(kTable, "ports", {Element(1), Element(2)});
    bad.AddChain(kTable, {"forward", "filter", NftHook::kForward, 0});
    bad.DeleteElements(kTable, "ports", {Element(3)});
    bad.AddChain(kTable, {"more", "filter", NftHook::kForward, 0});
    const absl::Status status = bad.Commit(socket);
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kNotFound,
                                 HasSubstr("nft(delete element \"test\" "
                                           "ports): ENOENT")));
    EXPECT_TRUE(ListBaseChains(socket)->empty());
    NftBatch good;
    good.AddTable(kTable);
    good.AddMap(kTable, kMap);
    good.AddElements(kTable, "ports", {Element(1)});
    EXPECT_OK(good.Commit(socket));
    NftBatch twice;
    twice.AddElements(kTable, "ports", {Element(2), Element(1)});
    EXPECT_THAT(twice.Commit(socket), StatusIs(absl::StatusCode::kAlreadyExists,
                                               HasSubstr("add element")));
    // So element 2 is not there.
    NftBatch second;
    second.AddElements(kTable, "ports", {Element(2)});
    EXPECT_OK(second.Commit(socket));
    NftBatch empty;
    EXPECT_OK(empty.Commit(socket));
  });
}

TEST_F(NftablesTest, TableGoesWithItsSocket) {
  RunInNamespace(NETLINK_NETFILTER, [](NetlinkSocket& other) {
    {
      absl::StatusOr<NetlinkSocket> owner =
          NetlinkSocket::Open(NETLINK_NETFILTER);
      NftBatch batch;
      batch.AddTable(kTable);
      batch.AddChain(kTable, {"forward", "filter", NftHook::kForward, 0});
      ASSERT_OK(batch.Commit(*owner));
      EXPECT_EQ(ListBaseChains(other)->size(), 1u);
      // Nobody else may touch it.
      NftBatch foreign;
      foreign.DeleteTable(kTable);
      const absl::Status status = foreign.Commit(other);
      ASSERT_TRUE(GetErrorDetail(status).has_value());
      EXPECT_EQ(GetErrorDetail(status)->error, EPERM);
      NftBatch again;
      again.AddTable(kTable);
      EXPECT_FALSE(again.Commit(other).ok());
    }
    EXPECT_TRUE(ListBaseChains(other)->empty());
  });
}

// More than the default send buffer of a socket holds.
TEST_F(NftablesTest, LargeBatches) {
  RunInNamespace(NETLINK_NETFILTER, [](NetlinkSocket& socket) {
    std::vector<NftElement> elements;
    for (int port = 1; port <= 20'000; ++port) {
      elements.push_back(Element(static_cast<uint16_t>(port)));
    }
    NftBatch batch;
    batch.AddTable(kTable);
    batch.AddMap(kTable, kMap);
    batch.AddElements(kTable, "ports", elements);
    ASSERT_OK(batch.Commit(socket));
    NftBatch remove;
    remove.DeleteElements(kTable, "ports", elements);
    EXPECT_OK(remove.Commit(socket));
  });
}

TEST_F(NftablesTest, ChainsThatDropAreFound) {
  RunInNamespace(NETLINK_NETFILTER, [](NetlinkSocket& socket) {
    const NftTable inet = {NftFamily::kInet, "strict"};
    NftBatch batch;
    batch.AddTable(inet);
    batch.AddChain(inet, {"open", "filter", NftHook::kForward, 0});
    batch.AddChain(inet, {"closed", "filter", NftHook::kForward, 1});
    batch.AddRule(inet, "open",
                  NftRule().InputInterface(NftMatch::kIs, "x").Drop());
    batch.AddRule(inet, "closed", NftRule().Drop());
    ASSERT_OK(batch.Commit(socket));
    // Changing a policy takes a raw message: the library never does that.
    NetlinkTrain train;
    const auto frame = [&](uint16_t type) {
      nlmsghdr* message = train.Add(type, 0, "frame");
      auto* header = static_cast<nfgenmsg*>(
          mnl_nlmsg_put_extra_header(message, sizeof(nfgenmsg)));
      header->nfgen_family =
          type < 256 ? AF_UNSPEC : static_cast<uint8_t>(NFPROTO_INET);
      header->res_id = htons(type < 256 ? NFNL_SUBSYS_NFTABLES : 0);
      return message;
    };
    frame(NFNL_MSG_BATCH_BEGIN);
    nlmsghdr* chain = frame(NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWCHAIN);
    mnl_attr_put_strz(chain, NFTA_CHAIN_TABLE, "strict");
    mnl_attr_put_strz(chain, NFTA_CHAIN_NAME, "open");
    mnl_attr_put_u32(chain, NFTA_CHAIN_POLICY, htonl(NF_DROP));
    frame(NFNL_MSG_BATCH_END);
    train.set_last_answered(1);
    ASSERT_OK(socket.Run(train));

    absl::StatusOr<std::vector<NftBaseChain>> chains = ListBaseChains(socket);
    ASSERT_OK(chains);
    ASSERT_EQ(chains->size(), 2u);
    for (const NftBaseChain& found : *chains) {
      EXPECT_EQ(found.family, NftFamily::kInet);
      EXPECT_EQ(found.table, "strict");
      EXPECT_EQ(found.hook, NftHook::kForward);
      EXPECT_EQ(found.policy_drops, found.chain == "open");
      EXPECT_EQ(*HasUnconditionalDrop(socket, found), found.chain == "closed");
    }
  });
}

// Sets the policy of the legacy FORWARD chain, as `iptables-legacy -P` does.
void SetLegacyForwardPolicy(int verdict) {
  UniqueFd raw(::socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW));
  ipt_getinfo info = {};
  ::strncpy(info.name, "filter", sizeof(info.name) - 1);
  socklen_t length = sizeof(info);
  ASSERT_EQ(::getsockopt(raw.get(), SOL_IP, IPT_SO_GET_INFO, &info, &length),
            0);
  std::string blob(sizeof(ipt_get_entries) + info.size, '\0');
  auto* request = reinterpret_cast<ipt_get_entries*>(blob.data());
  ::memcpy(request->name, info.name, sizeof(info.name));
  request->size = info.size;
  length = static_cast<socklen_t>(blob.size());
  ASSERT_EQ(
      ::getsockopt(raw.get(), SOL_IP, IPT_SO_GET_ENTRIES, blob.data(), &length),
      0);
  std::vector<xt_counters> counters(info.num_entries);
  std::string change(sizeof(ipt_replace) + info.size, '\0');
  auto* replace = reinterpret_cast<ipt_replace*>(change.data());
  ::memcpy(replace->name, info.name, sizeof(info.name));
  replace->valid_hooks = info.valid_hooks;
  replace->num_entries = info.num_entries;
  replace->size = info.size;
  ::memcpy(replace->hook_entry, info.hook_entry, sizeof(info.hook_entry));
  ::memcpy(replace->underflow, info.underflow, sizeof(info.underflow));
  replace->num_counters = info.num_entries;
  replace->counters = counters.data();
  char* entries = change.data() + sizeof(ipt_replace);
  ::memcpy(entries, blob.data() + sizeof(ipt_get_entries), info.size);
  char* forward = entries + info.underflow[NF_INET_FORWARD];
  auto* entry = reinterpret_cast<ipt_entry*>(forward);
  auto* target =
      reinterpret_cast<xt_standard_target*>(forward + entry->target_offset);
  target->verdict = -verdict - 1;
  ASSERT_EQ(::setsockopt(raw.get(), SOL_IP, IPT_SO_SET_REPLACE, change.data(),
                         static_cast<socklen_t>(change.size())),
            0)
      << ::strerror(errno);
}

TEST_F(NftablesTest, LegacyForwardPolicyIsRead) {
  RunInNamespace(NETLINK_NETFILTER, [](NetlinkSocket&) {
    absl::StatusOr<bool> drops = LegacyForwardPolicyDrops();
    ASSERT_OK(drops);
    EXPECT_FALSE(*drops);
    // A kernel without the legacy tables has nothing more to show.
    UniqueFd raw(::socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW));
    ipt_getinfo info = {};
    ::strncpy(info.name, "filter", sizeof(info.name) - 1);
    socklen_t length = sizeof(info);
    if (::getsockopt(raw.get(), SOL_IP, IPT_SO_GET_INFO, &info, &length) != 0) {
      return;
    }
    EXPECT_FALSE(*LegacyForwardPolicyDrops());
    SetLegacyForwardPolicy(NF_DROP);
    EXPECT_TRUE(*LegacyForwardPolicyDrops());
    SetLegacyForwardPolicy(NF_ACCEPT);
    EXPECT_FALSE(*LegacyForwardPolicyDrops());
  });
}

}  // namespace
}  // namespace caisson::sys
