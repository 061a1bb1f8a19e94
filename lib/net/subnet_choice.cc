#include "lib/net/subnet_choice.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace caisson {
namespace {

constexpr int kPrefixLength = 24;
constexpr size_t kMaxNamedConflicts = 8;

struct Pool {
  uint32_t network;
  int prefix_length;
};
constexpr Pool kPools[] = {
    {0x0a000000, 8},
    {0xac100000, 12},
    {0xc0a80000, 16},
};

// FNV-1a: the same on every machine and in every version, unlike std::hash.
uint32_t StableHash(absl::string_view text) {
  uint32_t hash = 2166136261u;
  for (unsigned char c : text) hash = (hash ^ c) * 16777619u;
  return hash;
}

const OccupiedRange* FirstConflict(const Ipv4Subnet& subnet,
                                   absl::Span<const OccupiedRange> occupied) {
  for (const OccupiedRange& range : occupied) {
    // A default route does not make the whole Internet local.
    if (range.subnet.prefix_length > 0 && range.subnet.Overlaps(subnet)) {
      return &range;
    }
  }
  return nullptr;
}

}  // namespace

absl::StatusOr<Ipv4Subnet> ChooseSubnet(
    absl::string_view network_name, absl::Span<const OccupiedRange> occupied) {
  std::vector<std::string> conflicts;
  for (const Pool& pool : kPools) {
    const uint32_t count = uint32_t{1} << (kPrefixLength - pool.prefix_length);
    const uint32_t start = StableHash(network_name) % count;
    for (uint32_t i = 0; i < count; ++i) {
      const uint32_t index = (start + i) % count;
      const Ipv4Subnet subnet = {
          {pool.network + (index << (32 - kPrefixLength))}, kPrefixLength};
      const OccupiedRange* conflict = FirstConflict(subnet, occupied);
      if (conflict == nullptr) return subnet;
      if (conflicts.size() < kMaxNamedConflicts &&
          std::find(conflicts.begin(), conflicts.end(), conflict->what) ==
              conflicts.end()) {
        conflicts.push_back(conflict->what);
      }
    }
  }
  return absl::ResourceExhaustedError(absl::StrCat(
      "no /24 of 10.0.0.0/8, 172.16.0.0/12 and 192.168.0.0/16 is free for a "
      "network; in the way are, for example, ",
      absl::StrJoin(conflicts, ", "),
      "; set NetworkOptions::subnet to choose one"));
}

absl::Status CheckSubnet(const Ipv4Subnet& subnet,
                         absl::Span<const OccupiedRange> occupied) {
  for (const OccupiedRange& range : occupied) {
    if (range.subnet.prefix_length >= subnet.prefix_length &&
        range.subnet.Overlaps(subnet)) {
      return absl::AlreadyExistsError(
          absl::StrCat("NetworkOptions::subnet: ", subnet.ToString(),
                       " overlaps what this host uses: ", range.what));
    }
  }
  return absl::OkStatus();
}

}  // namespace caisson
