// The module's pure parts: addresses, names, records, the choice of subnets.
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "lib/base/record.h"
#include "lib/base/status_matchers.h"
#include "lib/net/ipv4.h"
#include "lib/net/names.h"
#include "lib/net/network_dir.h"
#include "lib/net/subnet_choice.h"

namespace caisson {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(Ipv4Test, AddressesParseStrictly) {
  ASSERT_OK_AND_ASSIGN(const Ipv4Address address,
                       ParseIpv4Address("f", "10.1.2.3"));
  EXPECT_EQ(address.value, 0x0a010203u);
  EXPECT_EQ(address.ToString(), "10.1.2.3");
  EXPECT_EQ(Ipv4Address::From(address.in()), address);
  for (absl::string_view bad :
       {"", "10.1.2", "10.1.2.3.4", "10.1.2.256", " 10.1.2.3", "10.1.2.3 ",
        "010.1.2.3", "0x0a.1.2.3", "::1", "localhost"}) {
    EXPECT_THAT(ParseIpv4Address("Options::field", bad),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("Options::field")))
        << bad;
  }
  EXPECT_FALSE(
      ParseIpv4Address("f", absl::string_view("10.1.2.3\0x", 10)).ok());
}

TEST(Ipv4Test, SubnetsParseStrictly) {
  ASSERT_OK_AND_ASSIGN(const Ipv4Subnet subnet,
                       ParseIpv4Subnet("f", "10.1.2.0/23"));
  EXPECT_EQ(subnet.ToString(), "10.1.2.0/23");
  EXPECT_EQ(subnet.broadcast().ToString(), "10.1.3.255");
  EXPECT_TRUE(subnet.Contains({0x0a0103ff}));
  EXPECT_FALSE(subnet.Contains({0x0a010400}));
  EXPECT_OK(ParseIpv4Subnet("f", "0.0.0.0/0"));
  EXPECT_OK(ParseIpv4Subnet("f", "1.2.3.4/32"));
  for (absl::string_view bad :
       {"", "10.1.2.0", "10.1.2.0/", "10.1.2.0/33", "10.1.2.0/-1",
        "10.1.2.0/024", "10.1.2.0/+8", "10.1.2.0/ 8", "10.1.2.1/24", "/24"}) {
    EXPECT_THAT(ParseIpv4Subnet("f", bad),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("f")))
        << bad;
  }
}

TEST(Ipv4Test, Overlap) {
  const auto overlaps = [](const char* a, const char* b) {
    return ParseIpv4Subnet("a", a)->Overlaps(*ParseIpv4Subnet("b", b));
  };
  EXPECT_TRUE(overlaps("10.1.0.0/16", "10.1.2.0/24"));
  EXPECT_TRUE(overlaps("10.1.2.0/24", "10.1.0.0/16"));
  EXPECT_TRUE(overlaps("10.1.2.0/24", "10.1.2.0/24"));
  EXPECT_TRUE(overlaps("0.0.0.0/0", "10.1.2.0/24"));
  EXPECT_FALSE(overlaps("10.1.2.0/24", "10.1.3.0/24"));
  EXPECT_FALSE(overlaps("10.1.2.0/32", "10.1.2.1/32"));
}

TEST(NamesTest, Networks) {
  for (const char* good : {"a", "web-1", "a.b_c", "0"}) {
    EXPECT_OK(ValidateNetworkName("f", good));
  }
  for (const std::string& bad :
       {std::string(), std::string("."), std::string(".."), std::string("a/b"),
        std::string("-a"), std::string(64, 'a'), std::string("a\nb"),
        std::string("\xc3\xa9")}) {
    EXPECT_FALSE(ValidateNetworkName("f", bad).ok()) << bad;
  }
}

TEST(NamesTest, Hosts) {
  for (const std::string& good :
       {std::string("a"), std::string("web.example.org"), std::string("a_b-c"),
        std::string("UPPER"), std::string(63, 'a'), std::string("1")}) {
    EXPECT_OK(ValidateHostName("f", good));
  }
  for (const std::string& bad :
       {std::string(), std::string("."), std::string("a."), std::string(".a"),
        std::string("a..b"), std::string("-a"), std::string("a-"),
        std::string("a b"), std::string("a\n127.0.0.1 b"), std::string("a#"),
        std::string(64, 'a'), std::string("../x"), std::string("a/b"),
        absl::StrCat(std::string(63, 'a'), ".", std::string(63, 'b'), ".",
                     std::string(63, 'c'), ".", std::string(63, 'd'))}) {
    EXPECT_FALSE(ValidateHostName("f", bad).ok()) << bad;
  }
  EXPECT_EQ(FoldName("WeB"), "web");
}

TEST(NamesTest, Interfaces) {
  for (const char* good : {"eth0", "a", "123456789012345", "net.7"}) {
    EXPECT_OK(ValidateInterfaceName("f", good));
  }
  for (const char* bad : {"", ".", "..", "lo", "all", "default", "a/b", "a b",
                          "eth%d", "a:1", "1234567890123456", "a\n"}) {
    EXPECT_FALSE(ValidateInterfaceName("f", bad).ok()) << bad;
  }
}

TEST(NamesTest, TagsAreRandom) {
  const std::string tag = RandomTag(8);
  EXPECT_EQ(tag.size(), 8u);
  EXPECT_EQ(tag.find_first_not_of("abcdefghijklmnopqrstuvwxyz234567"),
            std::string::npos);
  EXPECT_NE(tag, RandomTag(8));
}

TEST(RecordTest, RoundTrip) {
  Record record("kind");
  record.Add("name", "a value with spaces");
  record.Add("alias", "x");
  record.Add("alias", "y");
  record.Add("empty", "");
  ASSERT_OK_AND_ASSIGN(const Record parsed,
                       Record::Parse("kind", record.ToString()));
  EXPECT_EQ(*parsed.Get("name"), "a value with spaces");
  EXPECT_EQ(*parsed.Get("empty"), "");
  EXPECT_THAT(parsed.GetAll("alias"), ElementsAre("x", "y"));
  EXPECT_THAT(parsed.Get("missing"),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("missing")));
}

TEST(RecordTest, EveryTruncationIsDataLoss) {
  Record record("kind");
  record.Add("name", "value");
  const std::string text = record.ToString();
  for (size_t size = 0; size < text.size(); ++size) {
    EXPECT_THAT(Record::Parse("kind", text.substr(0, size)),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr("kind")));
  }
  EXPECT_FALSE(Record::Parse("other", text).ok());
  EXPECT_FALSE(Record::Parse("kind", "kind 2\nend\n").ok());
}

TEST(NetworkRecordTest, RoundTripAndHostileInput) {
  NetworkRecord record;
  record.name = "web";
  record.boot_id = "boot";
  record.bridge = "csabcde";
  record.bridge_mac = {2, 0, 0, 0, 0, 1};
  record.subnet = *ParseIpv4Subnet("s", "10.1.2.0/24");
  record.gateway = {0x0a010201};
  record.mtu = 1400;
  record.internal = true;
  ASSERT_OK_AND_ASSIGN(const NetworkRecord parsed,
                       NetworkRecord::Parse(record.ToString()));
  EXPECT_EQ(parsed.ToString(), record.ToString());
  for (const char* bridge : {"", "../x", "a b", "lo"}) {
    NetworkRecord hostile = record;
    hostile.bridge = bridge;
    EXPECT_FALSE(NetworkRecord::Parse(hostile.ToString()).ok()) << bridge;
  }
}

TEST(MacTest, ParsesUnicastOnly) {
  ASSERT_OK_AND_ASSIGN(const sys::MacAddress mac,
                       ParseMac("f", "02:0A:bc:00:00:ff"));
  EXPECT_EQ(sys::FormatMac(mac), "02:0a:bc:00:00:ff");
  for (const char* bad :
       {"", "02:00:00:00:00", "02:00:00:00:00:00:00", "2:0:0:0:0:0",
        "02-00-00-00-00-00", "0g:00:00:00:00:00", "01:00:00:00:00:00",
        "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00"}) {
    EXPECT_FALSE(ParseMac("f", bad).ok()) << bad;
  }
}

OccupiedRange Range(const char* subnet) {
  return {*ParseIpv4Subnet("range", subnet), absl::StrCat("route ", subnet)};
}

TEST(SubnetChoiceTest, IsStableAndFree) {
  ASSERT_OK_AND_ASSIGN(const Ipv4Subnet first, ChooseSubnet("web", {}));
  EXPECT_EQ(first.prefix_length, 24);
  EXPECT_EQ(*ChooseSubnet("web", {}), first);
  EXPECT_FALSE(*ChooseSubnet("db", {}) == first);
  // A default route overlaps everything and forbids nothing.
  EXPECT_EQ(*ChooseSubnet("web", {Range("0.0.0.0/0")}), first);
  const std::string text = first.ToString();
  ASSERT_OK_AND_ASSIGN(const Ipv4Subnet second,
                       ChooseSubnet("web", {Range(text.c_str())}));
  EXPECT_FALSE(second.Overlaps(first));
  // One address of it is enough to avoid it.
  const OccupiedRange address = {
      Ipv4Subnet::Around({first.network.value + 77}, 32), "address"};
  EXPECT_FALSE(ChooseSubnet("web", {address})->Overlaps(first));
}

TEST(SubnetChoiceTest, FindsTheLastFreeSubnet) {
  std::vector<OccupiedRange> occupied = {Range("172.16.0.0/12"),
                                         Range("192.168.0.0/16")};
  // All of 10/8 but 10.200.3.0/24.
  for (int prefix = 9; prefix <= 24; ++prefix) {
    const uint32_t free = 0x0ac80300;
    const Ipv4Address sibling = {free ^ (uint32_t{1} << (32 - prefix))};
    occupied.push_back({Ipv4Subnet::Around(sibling, prefix), "part"});
  }
  EXPECT_EQ(ChooseSubnet("web", occupied)->ToString(), "10.200.3.0/24");
  occupied.push_back(Range("10.200.3.128/25"));
  EXPECT_THAT(ChooseSubnet("web", occupied),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("NetworkOptions::subnet")));
}

TEST(SubnetChoiceTest, ExplicitSubnetsMayBePartOfWiderOnes) {
  const Ipv4Subnet wanted = *ParseIpv4Subnet("s", "10.1.2.0/24");
  EXPECT_OK(CheckSubnet(wanted, {Range("10.0.0.0/8"), Range("10.1.3.0/24")}));
  for (const char* conflict : {"10.1.2.0/24", "10.1.2.128/25", "10.1.2.9/32"}) {
    EXPECT_THAT(CheckSubnet(wanted, {Range(conflict)}),
                StatusIs(absl::StatusCode::kAlreadyExists,
                         HasSubstr(absl::StrCat("route ", conflict))));
  }
}

}  // namespace
}  // namespace caisson
