// nf_tables transactions, built with libnftnl and sent as one atomic batch.
//
//   NftBatch batch;
//   batch.AddTable(table);
//   batch.AddChain(table, {"post", "nat", NftHook::kPostRouting, 100});
//   batch.AddRule(table, "post",
//                 NftRule().Source(kIs, subnet, 24).Masquerade());
//   RETURN_IF_ERROR(batch.Commit(socket));
//
// All of a batch happens or nothing does. The tables made here are owned by the
// socket that commits the batch (NFT_TABLE_F_OWNER): only that socket changes
// them, "flush ruleset" of others passes them by, and the kernel removes them
// when the socket closes, however the process ended.
//
// Thread-compatible. Source: include/uapi/linux/netfilter/nf_tables.h, nft(8).
#ifndef CAISSON_LIB_SYS_NFTABLES_H_
#define CAISSON_LIB_SYS_NFTABLES_H_

#include <netinet/in.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "lib/sys/netlink.h"

struct nftnl_expr;
struct nftnl_rule;

namespace caisson::sys {

// NFPROTO_* and NF_INET_* of <linux/netfilter.h>, which collides with the C
// library's headers. The bridge family's hooks have the same numbers.
enum class NftFamily : uint8_t { kAny = 0, kInet = 1, kIpv4 = 2, kBridge = 7 };
enum class NftHook : uint32_t {
  kPreRouting = 0,
  kInput = 1,
  kForward = 2,
  kOutput = 3,
  kPostRouting = 4,
};

struct NftTable {
  NftFamily family = NftFamily::kIpv4;
  std::string name;
};

// A base chain; its policy is "accept".
struct NftChain {
  std::string name;
  std::string type;  // "filter" or "nat"
  NftHook hook = NftHook::kPreRouting;
  int32_t priority = 0;
};

enum class NftField { kIpv4Address, kProtocol, kPort };

// A map from one concatenation of fields to another, by hash.
struct NftMap {
  std::string name;
  std::vector<NftField> key;
  std::vector<NftField> data;
};

// Fields as registers hold them: four bytes each.
class NftValue final {
 public:
  NftValue& Address(in_addr address);
  NftValue& Protocol(uint8_t protocol);
  NftValue& Port(uint16_t port);  // host byte order

  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

struct NftElement {
  NftValue key;
  NftValue data;
};

enum class NftMatch { kIs, kIsNot };

// The expressions of a rule, in order; every match that fails ends the rule.
class NftRule final {
 public:
  NftRule();
  NftRule(NftRule&&) = default;

  NftRule&& InputInterface(NftMatch match, const std::string& name) &&;
  NftRule&& OutputInterface(NftMatch match, const std::string& name) &&;
  // Interfaces whose name begins with `prefix`.
  NftRule&& InputInterfacePrefix(const std::string& prefix) &&;
  NftRule&& Source(NftMatch match, in_addr network, int prefix_length) &&;
  NftRule&& Destination(NftMatch match, in_addr network, int prefix_length) &&;
  // The destination is an address of this host (fib daddr type local).
  NftRule&& DestinationIsLocal() &&;
  // meta protocol: the network layer's EtherType, host byte order.
  NftRule&& EtherType(uint16_t type) &&;
  // The connection's destination was translated (ct status dnat).
  NftRule&& ConnectionIsDnat() &&;

  NftRule&& Drop() &&;
  NftRule&& Masquerade() &&;
  // Looks up (destination address, protocol, destination port), as far as they
  // are key fields of `map`, and translates the destination to what is found.
  NftRule&& DnatByMap(const NftMap& map) &&;

 private:
  friend class NftBatch;

  struct Free {
    void operator()(nftnl_rule* rule) const;
  };

  nftnl_expr* Add(const char* name);
  void LoadMeta(uint32_t key, uint32_t destination);
  void LoadPayload(uint32_t base, uint32_t offset, uint32_t length,
                   uint32_t destination);
  void Mask(uint32_t mask);
  void Compare(NftMatch match, const void* data, uint32_t length);
  void MatchName(uint32_t key, NftMatch match, const std::string& name);
  void MatchNetwork(uint32_t offset, NftMatch match, in_addr network,
                    int prefix_length);

  std::unique_ptr<nftnl_rule, Free> rule_;
};

class NftBatch final {
 public:
  NftBatch();

  // EEXIST if the table is there: a batch never changes what others made.
  void AddTable(const NftTable& table);
  void DeleteTable(const NftTable& table);
  void AddChain(const NftTable& table, const NftChain& chain);
  void AddMap(const NftTable& table, const NftMap& map);
  void AddRule(const NftTable& table, const std::string& chain, NftRule rule);
  // Adding a key that is there already is EEXIST, deleting one that is not
  // ENOENT.
  void AddElements(const NftTable& table, const std::string& map,
                   absl::Span<const NftElement> elements);
  void DeleteElements(const NftTable& table, const std::string& map,
                      absl::Span<const NftElement> elements);

  // Sends the batch on a NETLINK_NETFILTER socket. The batch is then used up.
  absl::Status Commit(NetlinkSocket& socket);

 private:
  nlmsghdr* Add(uint8_t type, uint16_t flags, NftFamily family,
                std::string what, size_t room);
  void ChangeElements(uint8_t type, uint16_t flags, const char* verb,
                      const NftTable& table, const std::string& map,
                      absl::Span<const NftElement> elements);

  NetlinkTrain train_;
  uint32_t next_set_id_ = 1;
};

}  // namespace caisson::sys

#endif  // CAISSON_LIB_SYS_NFTABLES_H_
