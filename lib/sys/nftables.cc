#include "lib/sys/nftables.h"

#include <arpa/inet.h>
#include <libmnl/libmnl.h>
#include <libnftnl/chain.h>
#include <libnftnl/expr.h>
#include <libnftnl/rule.h>
#include <libnftnl/set.h>
#include <libnftnl/table.h>
#include <linux/netfilter/nf_conntrack_common.h>
#include <linux/netfilter/nf_nat.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <string.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"

namespace caisson::sys {
namespace {

static_assert(static_cast<int>(NftFamily::kInet) == NFPROTO_INET);
static_assert(static_cast<int>(NftFamily::kIpv4) == NFPROTO_IPV4);
static_assert(static_cast<int>(NftFamily::kBridge) == NFPROTO_BRIDGE);
static_assert(static_cast<int>(NftHook::kForward) == NF_INET_FORWARD);
static_assert(static_cast<int>(NftHook::kPostRouting) == NF_INET_POST_ROUTING);

constexpr uint32_t kFieldSize = 4;
// Offsets in the IPv4 header and in that of TCP and UDP.
constexpr uint32_t kIpv4Source = 12;
constexpr uint32_t kIpv4Destination = 16;
constexpr uint32_t kDestinationPort = 2;
// A message's element list is one attribute of at most 64 KiB.
constexpr size_t kElementsPerMessage = 256;
constexpr size_t kElementRoom = 96;
constexpr size_t kRoom = 4096;
// nft(8)'s datatype numbers, which the kernel stores for nft to display.
constexpr uint32_t kNftTypeBits = 6;

uint32_t NftType(NftField field) {
  switch (field) {
    case NftField::kIpv4Address:
      return 7;
    case NftField::kProtocol:
      return 12;
    case NftField::kPort:
      return 13;
  }
  return 0;
}

uint32_t NftType(const std::vector<NftField>& fields) {
  uint32_t type = 0;
  for (NftField field : fields) type = type << kNftTypeBits | NftType(field);
  return type;
}

// libnftnl returns null only when memory is exhausted, where C++ code ends too.
template <typename T>
T* OrDie(T* pointer) {
  if (pointer == nullptr) std::abort();
  return pointer;
}

std::string Describe(const char* verb, const NftTable& table,
                     absl::string_view object) {
  return absl::StrCat("nft(", verb, " ", Quoted(table.name),
                      object.empty() ? "" : " ", object, ")");
}

}  // namespace

NftValue& NftValue::Address(in_addr address) {
  bytes_.append(reinterpret_cast<const char*>(&address), sizeof(address));
  return *this;
}

NftValue& NftValue::Protocol(uint8_t protocol) {
  bytes_.push_back(static_cast<char>(protocol));
  bytes_.append(kFieldSize - sizeof(protocol), '\0');
  return *this;
}

NftValue& NftValue::Port(uint16_t port) {
  const uint16_t network_order = htons(port);
  bytes_.append(reinterpret_cast<const char*>(&network_order),
                sizeof(network_order));
  bytes_.append(kFieldSize - sizeof(network_order), '\0');
  return *this;
}

void NftRule::Free::operator()(nftnl_rule* rule) const {
  nftnl_rule_free(rule);
}

NftRule::NftRule() : rule_(OrDie(nftnl_rule_alloc())) {}

nftnl_expr* NftRule::Add(const char* name) {
  nftnl_expr* expression = OrDie(nftnl_expr_alloc(name));
  nftnl_rule_add_expr(rule_.get(), expression);
  return expression;
}

void NftRule::LoadMeta(uint32_t key, uint32_t destination) {
  nftnl_expr* meta = Add("meta");
  nftnl_expr_set_u32(meta, NFTNL_EXPR_META_KEY, key);
  nftnl_expr_set_u32(meta, NFTNL_EXPR_META_DREG, destination);
}

void NftRule::LoadPayload(uint32_t base, uint32_t offset, uint32_t length,
                          uint32_t destination) {
  nftnl_expr* payload = Add("payload");
  nftnl_expr_set_u32(payload, NFTNL_EXPR_PAYLOAD_BASE, base);
  nftnl_expr_set_u32(payload, NFTNL_EXPR_PAYLOAD_OFFSET, offset);
  nftnl_expr_set_u32(payload, NFTNL_EXPR_PAYLOAD_LEN, length);
  nftnl_expr_set_u32(payload, NFTNL_EXPR_PAYLOAD_DREG, destination);
}

// Four bytes of register 1, the mask in the register's byte order.
void NftRule::Mask(uint32_t mask) {
  const uint32_t zero = 0;
  nftnl_expr* bitwise = Add("bitwise");
  nftnl_expr_set_u32(bitwise, NFTNL_EXPR_BITWISE_SREG, NFT_REG_1);
  nftnl_expr_set_u32(bitwise, NFTNL_EXPR_BITWISE_DREG, NFT_REG_1);
  nftnl_expr_set_u32(bitwise, NFTNL_EXPR_BITWISE_LEN, sizeof(mask));
  nftnl_expr_set(bitwise, NFTNL_EXPR_BITWISE_MASK, &mask, sizeof(mask));
  nftnl_expr_set(bitwise, NFTNL_EXPR_BITWISE_XOR, &zero, sizeof(zero));
}

void NftRule::Compare(NftMatch match, const void* data, uint32_t length) {
  nftnl_expr* compare = Add("cmp");
  nftnl_expr_set_u32(compare, NFTNL_EXPR_CMP_SREG, NFT_REG_1);
  nftnl_expr_set_u32(compare, NFTNL_EXPR_CMP_OP,
                     match == NftMatch::kIs ? NFT_CMP_EQ : NFT_CMP_NEQ);
  nftnl_expr_set(compare, NFTNL_EXPR_CMP_DATA, data, length);
}

void NftRule::MatchName(uint32_t key, NftMatch match, const std::string& name) {
  char padded[IFNAMSIZ] = {};
  ::memcpy(padded, name.data(), std::min(name.size(), sizeof(padded) - 1));
  LoadMeta(key, NFT_REG_1);
  Compare(match, padded, sizeof(padded));
}

void NftRule::MatchNetwork(uint32_t offset, NftMatch match, in_addr network,
                           int prefix_length) {
  LoadPayload(NFT_PAYLOAD_NETWORK_HEADER, offset, sizeof(network), NFT_REG_1);
  if (prefix_length < 32) {
    Mask(prefix_length == 0 ? 0 : htonl(~uint32_t{0} << (32 - prefix_length)));
  }
  Compare(match, &network, sizeof(network));
}

NftRule&& NftRule::InputInterface(NftMatch match, const std::string& name) && {
  MatchName(NFT_META_IIFNAME, match, name);
  return std::move(*this);
}

NftRule&& NftRule::OutputInterface(NftMatch match, const std::string& name) && {
  MatchName(NFT_META_OIFNAME, match, name);
  return std::move(*this);
}

NftRule&& NftRule::InputInterfacePrefix(const std::string& prefix) && {
  LoadMeta(NFT_META_IIFNAME, NFT_REG_1);
  Compare(NftMatch::kIs, prefix.data(), static_cast<uint32_t>(prefix.size()));
  return std::move(*this);
}

NftRule&& NftRule::Source(NftMatch match, in_addr network,
                          int prefix_length) && {
  MatchNetwork(kIpv4Source, match, network, prefix_length);
  return std::move(*this);
}

NftRule&& NftRule::Destination(NftMatch match, in_addr network,
                               int prefix_length) && {
  MatchNetwork(kIpv4Destination, match, network, prefix_length);
  return std::move(*this);
}

NftRule&& NftRule::DestinationIsLocal() && {
  nftnl_expr* fib = Add("fib");
  nftnl_expr_set_u32(fib, NFTNL_EXPR_FIB_FLAGS, NFTA_FIB_F_DADDR);
  nftnl_expr_set_u32(fib, NFTNL_EXPR_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE);
  nftnl_expr_set_u32(fib, NFTNL_EXPR_FIB_DREG, NFT_REG_1);
  const uint32_t local = RTN_LOCAL;
  Compare(NftMatch::kIs, &local, sizeof(local));
  return std::move(*this);
}

NftRule&& NftRule::EtherType(uint16_t type) && {
  const uint16_t network_order = htons(type);
  LoadMeta(NFT_META_PROTOCOL, NFT_REG_1);
  Compare(NftMatch::kIs, &network_order, sizeof(network_order));
  return std::move(*this);
}

NftRule&& NftRule::ConnectionIsDnat() && {
  nftnl_expr* ct = Add("ct");
  nftnl_expr_set_u32(ct, NFTNL_EXPR_CT_KEY, NFT_CT_STATUS);
  nftnl_expr_set_u32(ct, NFTNL_EXPR_CT_DREG, NFT_REG_1);
  const uint32_t zero = 0;
  Mask(IPS_DST_NAT);
  Compare(NftMatch::kIsNot, &zero, sizeof(zero));
  return std::move(*this);
}

NftRule&& NftRule::Drop() && {
  nftnl_expr* immediate = Add("immediate");
  nftnl_expr_set_u32(immediate, NFTNL_EXPR_IMM_DREG, NFT_REG_VERDICT);
  nftnl_expr_set_u32(immediate, NFTNL_EXPR_IMM_VERDICT, NF_DROP);
  return std::move(*this);
}

NftRule&& NftRule::Masquerade() && {
  Add("masq");
  return std::move(*this);
}

NftRule&& NftRule::DnatByMap(const NftMap& map) && {
  uint32_t destination = NFT_REG32_00;
  for (NftField field : map.key) {
    switch (field) {
      case NftField::kIpv4Address:
        LoadPayload(NFT_PAYLOAD_NETWORK_HEADER, kIpv4Destination,
                    sizeof(in_addr), destination);
        break;
      case NftField::kProtocol:
        LoadMeta(NFT_META_L4PROTO, destination);
        break;
      case NftField::kPort:
        LoadPayload(NFT_PAYLOAD_TRANSPORT_HEADER, kDestinationPort,
                    sizeof(uint16_t), destination);
        break;
    }
    ++destination;
  }
  nftnl_expr* lookup = Add("lookup");
  nftnl_expr_set_u32(lookup, NFTNL_EXPR_LOOKUP_SREG, NFT_REG32_00);
  nftnl_expr_set_u32(lookup, NFTNL_EXPR_LOOKUP_DREG, NFT_REG32_00);
  nftnl_expr_set_str(lookup, NFTNL_EXPR_LOOKUP_SET, map.name.c_str());
  nftnl_expr* nat = Add("nat");
  nftnl_expr_set_u32(nat, NFTNL_EXPR_NAT_TYPE, NFT_NAT_DNAT);
  nftnl_expr_set_u32(nat, NFTNL_EXPR_NAT_FAMILY, NFPROTO_IPV4);
  nftnl_expr_set_u32(nat, NFTNL_EXPR_NAT_REG_ADDR_MIN, NFT_REG32_00);
  nftnl_expr_set_u32(nat, NFTNL_EXPR_NAT_REG_PROTO_MIN, NFT_REG32_01);
  return std::move(*this);
}

NftBatch::NftBatch() {
  nlmsghdr* begin = train_.Add(NFNL_MSG_BATCH_BEGIN, 0, "nft(begin)", kRoom);
  auto* header = static_cast<nfgenmsg*>(
      mnl_nlmsg_put_extra_header(begin, sizeof(nfgenmsg)));
  header->nfgen_family = AF_UNSPEC;
  header->version = NFNETLINK_V0;
  header->res_id = htons(NFNL_SUBSYS_NFTABLES);
}

nlmsghdr* NftBatch::Add(uint8_t type, uint16_t flags, NftFamily family,
                        std::string what, size_t room) {
  nlmsghdr* message =
      train_.Add(static_cast<uint16_t>(NFNL_SUBSYS_NFTABLES << 8 | type), flags,
                 std::move(what), room);
  auto* header = static_cast<nfgenmsg*>(
      mnl_nlmsg_put_extra_header(message, sizeof(nfgenmsg)));
  header->nfgen_family = static_cast<uint8_t>(family);
  header->version = NFNETLINK_V0;
  return message;
}

void NftBatch::AddTable(const NftTable& table) {
  nlmsghdr* message =
      Add(NFT_MSG_NEWTABLE, NLM_F_CREATE | NLM_F_EXCL, table.family,
          Describe("add table", table, ""), kRoom);
  mnl_attr_put_strz(message, NFTA_TABLE_NAME, table.name.c_str());
  mnl_attr_put_u32(message, NFTA_TABLE_FLAGS, htonl(NFT_TABLE_F_OWNER));
}

void NftBatch::DeleteTable(const NftTable& table) {
  nlmsghdr* message = Add(NFT_MSG_DELTABLE, 0, table.family,
                          Describe("delete table", table, ""), kRoom);
  mnl_attr_put_strz(message, NFTA_TABLE_NAME, table.name.c_str());
}

void NftBatch::AddChain(const NftTable& table, const NftChain& chain) {
  nftnl_chain* object = OrDie(nftnl_chain_alloc());
  nftnl_chain_set_str(object, NFTNL_CHAIN_TABLE, table.name.c_str());
  nftnl_chain_set_str(object, NFTNL_CHAIN_NAME, chain.name.c_str());
  nftnl_chain_set_str(object, NFTNL_CHAIN_TYPE, chain.type.c_str());
  nftnl_chain_set_u32(object, NFTNL_CHAIN_HOOKNUM,
                      static_cast<uint32_t>(chain.hook));
  nftnl_chain_set_s32(object, NFTNL_CHAIN_PRIO, chain.priority);
  nftnl_chain_set_u32(object, NFTNL_CHAIN_POLICY, NF_ACCEPT);
  nlmsghdr* message =
      Add(NFT_MSG_NEWCHAIN, NLM_F_CREATE | NLM_F_EXCL, table.family,
          Describe("add chain", table, chain.name), kRoom);
  nftnl_chain_nlmsg_build_payload(message, object);
  nftnl_chain_free(object);
}

void NftBatch::AddMap(const NftTable& table, const NftMap& map) {
  nftnl_set* object = OrDie(nftnl_set_alloc());
  nftnl_set_set_str(object, NFTNL_SET_TABLE, table.name.c_str());
  nftnl_set_set_str(object, NFTNL_SET_NAME, map.name.c_str());
  nftnl_set_set_u32(object, NFTNL_SET_FLAGS, NFT_SET_MAP);
  nftnl_set_set_u32(object, NFTNL_SET_ID, next_set_id_++);
  nftnl_set_set_u32(object, NFTNL_SET_KEY_TYPE, NftType(map.key));
  nftnl_set_set_u32(object, NFTNL_SET_KEY_LEN,
                    static_cast<uint32_t>(map.key.size()) * kFieldSize);
  nftnl_set_set_u32(object, NFTNL_SET_DATA_TYPE, NftType(map.data));
  nftnl_set_set_u32(object, NFTNL_SET_DATA_LEN,
                    static_cast<uint32_t>(map.data.size()) * kFieldSize);
  nlmsghdr* message =
      Add(NFT_MSG_NEWSET, NLM_F_CREATE | NLM_F_EXCL, table.family,
          Describe("add map", table, map.name), kRoom);
  nftnl_set_nlmsg_build_payload(message, object);
  nftnl_set_free(object);
}

void NftBatch::AddRule(const NftTable& table, const std::string& chain,
                       NftRule rule) {
  nftnl_rule* object = rule.rule_.get();
  nftnl_rule_set_str(object, NFTNL_RULE_TABLE, table.name.c_str());
  nftnl_rule_set_str(object, NFTNL_RULE_CHAIN, chain.c_str());
  nlmsghdr* message =
      Add(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, table.family,
          Describe("add rule", table, chain), kRoom);
  nftnl_rule_nlmsg_build_payload(message, object);
}

void NftBatch::AddElements(const NftTable& table, const std::string& map,
                           absl::Span<const NftElement> elements) {
  ChangeElements(NFT_MSG_NEWSETELEM, NLM_F_CREATE | NLM_F_EXCL, "add element",
                 table, map, elements);
}

void NftBatch::DeleteElements(const NftTable& table, const std::string& map,
                              absl::Span<const NftElement> elements) {
  ChangeElements(NFT_MSG_DELSETELEM, 0, "delete element", table, map, elements);
}

void NftBatch::ChangeElements(uint8_t type, uint16_t flags, const char* verb,
                              const NftTable& table, const std::string& map,
                              absl::Span<const NftElement> elements) {
  for (size_t i = 0; i < elements.size(); i += kElementsPerMessage) {
    nftnl_set* object = OrDie(nftnl_set_alloc());
    nftnl_set_set_str(object, NFTNL_SET_TABLE, table.name.c_str());
    nftnl_set_set_str(object, NFTNL_SET_NAME, map.c_str());
    const auto part = elements.subspan(i, kElementsPerMessage);
    for (const NftElement& element : part) {
      nftnl_set_elem* entry = OrDie(nftnl_set_elem_alloc());
      const std::string& key = element.key.bytes();
      const std::string& data = element.data.bytes();
      nftnl_set_elem_set(entry, NFTNL_SET_ELEM_KEY, key.data(),
                         static_cast<uint32_t>(key.size()));
      if (type == NFT_MSG_NEWSETELEM) {
        nftnl_set_elem_set(entry, NFTNL_SET_ELEM_DATA, data.data(),
                           static_cast<uint32_t>(data.size()));
      }
      nftnl_set_elem_add(object, entry);
    }
    nlmsghdr* message =
        Add(type, flags, table.family, Describe(verb, table, map),
            kRoom + part.size() * kElementRoom);
    nftnl_set_elems_nlmsg_build_payload(message, object);
    nftnl_set_free(object);
  }
}

absl::Status NftBatch::Commit(NetlinkSocket& socket) {
  const size_t last = train_.count() - 1;
  if (last == 0) return absl::OkStatus();
  nlmsghdr* end = train_.Add(NFNL_MSG_BATCH_END, 0, "nft(commit)", kRoom);
  auto* header =
      static_cast<nfgenmsg*>(mnl_nlmsg_put_extra_header(end, sizeof(nfgenmsg)));
  header->nfgen_family = AF_UNSPEC;
  header->version = NFNETLINK_V0;
  header->res_id = htons(NFNL_SUBSYS_NFTABLES);
  train_.set_last_answered(last);
  return socket.Run(train_);
}

}  // namespace caisson::sys
