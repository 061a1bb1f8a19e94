#include "lib/net/ipv4.h"

#include <arpa/inet.h>

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"

namespace caisson {

std::string Ipv4Address::ToString() const {
  return absl::StrCat(value >> 24, ".", value >> 16 & 255, ".",
                      value >> 8 & 255, ".", value & 255);
}

Ipv4Subnet Ipv4Subnet::Around(Ipv4Address address, int prefix_length) {
  Ipv4Subnet subnet = {address, prefix_length};
  subnet.network.value &= subnet.mask();
  return subnet;
}

uint32_t Ipv4Subnet::mask() const {
  return prefix_length == 0 ? 0 : ~uint32_t{0} << (32 - prefix_length);
}

bool Ipv4Subnet::Contains(Ipv4Address address) const {
  return (address.value & mask()) == network.value;
}

bool Ipv4Subnet::Overlaps(const Ipv4Subnet& other) const {
  const uint32_t common = std::min(mask(), other.mask());
  return (network.value & common) == (other.network.value & common);
}

std::string Ipv4Subnet::ToString() const {
  return absl::StrCat(network.ToString(), "/", prefix_length);
}

absl::StatusOr<Ipv4Address> ParseIpv4Address(absl::string_view field,
                                             absl::string_view text) {
  in_addr address;
  if (::inet_pton(AF_INET, std::string(text).c_str(), &address) != 1 ||
      text.find('\0') != absl::string_view::npos) {
    return absl::InvalidArgumentError(absl::StrCat(
        field, ": ", Quoted(text), " is not an IPv4 address like 10.1.2.3"));
  }
  return Ipv4Address::From(address);
}

absl::StatusOr<Ipv4Subnet> ParseIpv4Subnet(absl::string_view field,
                                           absl::string_view text) {
  const size_t slash = text.find('/');
  int prefix_length = -1;
  if (slash != absl::string_view::npos) {
    const absl::string_view digits = text.substr(slash + 1);
    const bool plain =
        !digits.empty() && digits.size() <= 2 &&
        std::all_of(digits.begin(), digits.end(), absl::ascii_isdigit);
    if (!plain || !absl::SimpleAtoi(digits, &prefix_length)) {
      prefix_length = -1;
    }
  }
  if (prefix_length < 0 || prefix_length > 32) {
    return absl::InvalidArgumentError(absl::StrCat(
        field, ": ", Quoted(text), " is not a subnet like 10.1.2.0/24"));
  }
  ASSIGN_OR_RETURN(const Ipv4Address address,
                   ParseIpv4Address(field, text.substr(0, slash)));
  const Ipv4Subnet subnet = Ipv4Subnet::Around(address, prefix_length);
  if (subnet.network != address) {
    return absl::InvalidArgumentError(absl::StrCat(
        field, ": ", Quoted(text),
        " has bits set beyond its prefix; the subnet is ", subnet.ToString()));
  }
  return subnet;
}

}  // namespace caisson
