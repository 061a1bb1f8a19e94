#include "caisson/network.h"

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "caisson/net_endpoint.h"
#include "lib/base/status_matchers.h"
#include "lib/net/ipv4.h"
#include "lib/net/net_testbed.h"
#include "lib/sys/nftables.h"
#include "lib/sys/rtnetlink.h"

namespace caisson {
namespace {

using ::caisson::testing::BindUdp;
using ::caisson::testing::CountFds;
using ::caisson::testing::Join;
using ::caisson::testing::kUplinkMtu;
using ::caisson::testing::NetKernelTest;
using ::caisson::testing::OpenNetwork;
using ::caisson::testing::RunForked;
using ::caisson::testing::RunInTestbed;
using ::caisson::testing::StatusIs;
using ::caisson::testing::Testbed;
using ::caisson::testing::TestSocket;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class NetworkTest : public NetKernelTest {};

in_addr Address(absl::string_view text) {
  return ParseIpv4Address("test", text)->in();
}

void AddHostAddress(const char* address, int prefix_length) {
  absl::StatusOr<sys::NetlinkSocket> route =
      sys::NetlinkSocket::Open(NETLINK_ROUTE);
  absl::StatusOr<sys::LinkInfo> link = sys::GetLink(*route, "up0");
  sys::NetlinkTrain train;
  sys::AddAddress(train, link->index, Address(address), prefix_length);
  ASSERT_OK(route->Run(train));
}

TEST_F(NetworkTest, OpenChoosesWhatIsNotGiven) {
  RunInTestbed([](Testbed& bed) {
    Network network = OpenNetwork(bed.Options("web"));
    EXPECT_EQ(network.name(), "web");
    EXPECT_EQ(network.mtu(), kUplinkMtu);
    EXPECT_EQ(network.subnet().substr(0, 3), "10.");
    EXPECT_THAT(bed.Links(), ElementsAre(std::string(network.bridge())));
    EXPECT_THAT(network.Warnings(), IsEmpty());
    EXPECT_THAT(*network.Hosts(), IsEmpty());
    ASSERT_OK(network.Remove());
    bed.ExpectClean();
    // The same name gets the same subnet again.
    const std::string subnet(network.subnet());
    EXPECT_EQ(OpenNetwork(bed.Options("web")).subnet(), subnet);
  });
}

TEST_F(NetworkTest, RefusesBadOptions) {
  RunInTestbed([](Testbed& bed) {
    struct Case {
      NetworkOptions options;
      const char* message;
    };
    const std::vector<Case> cases = {
        {{.name = ""}, "NetworkOptions::name: \"\""},
        {{.name = "../up"}, "NetworkOptions::name: \"../up\""},
        {{.name = std::string("a\0b", 3)}, "NetworkOptions::name: \"a\\x00"},
        {{.name = "a", .subnet = "10.0.0.0"}, "NetworkOptions::subnet"},
        {{.name = "a", .subnet = "10.0.0.1/24"}, "the subnet is 10.0.0.0/24"},
        {{.name = "a", .subnet = "10.0.0.0/31"}, "a prefix of 8 to 30"},
        {{.name = "a", .subnet = "10.0.0.0/7"}, "NetworkOptions::subnet"},
        {{.name = "a", .subnet = "127.0.0.0/24"}, "that hosts can have"},
        {{.name = "a", .gateway = "10.0.0.1"}, "needs NetworkOptions::subnet"},
        {{.name = "a", .subnet = "10.0.0.0/24", .gateway = "10.0.1.1"},
         "not a host address of 10.0.0.0/24"},
        {{.name = "a", .mtu = 67}, "NetworkOptions::mtu: 67"},
        {{.name = "a", .mtu = 65536}, "NetworkOptions::mtu: 65536"},
        {{.name = "a", .state_dir = "relative"}, "not an absolute path"},
    };
    for (const Case& test : cases) {
      EXPECT_THAT(Network::Open(test.options),
                  StatusIs(absl::StatusCode::kInvalidArgument,
                           HasSubstr(test.message)));
    }
    bed.ExpectClean();
  });
}

TEST_F(NetworkTest, SubnetsThatTheHostUsesAreNamed) {
  RunInTestbed([](Testbed& bed) {
    AddHostAddress("10.9.8.7", 24);
    NetworkOptions options = bed.Options("web");
    options.subnet = "10.9.8.0/24";
    EXPECT_THAT(Network::Open(options),
                StatusIs(absl::StatusCode::kAlreadyExists,
                         HasSubstr("10.9.8.0/24 overlaps what this host uses: "
                                   "route 10.9.8.0/24 dev \"up0\"")));
    bed.ExpectClean();
    options.subnet = "10.9.0.0/16";
    EXPECT_THAT(
        Network::Open(options),
        StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("10.9.8.0/24")));
    // A wider route does not forbid what the caller asks for by name, but is
    // worth a warning.
    AddHostAddress("172.16.0.1", 12);
    options.subnet = "172.20.0.0/24";
    Network network = OpenNetwork(options);
    EXPECT_THAT(network.Warnings(),
                Contains(HasSubstr("overlaps route 172.16.0.0/12")));
  });
}

TEST_F(NetworkTest, AutomaticSubnetAvoidsWhatTheHostUses) {
  RunInTestbed([](Testbed& bed) {
    AddHostAddress("10.200.0.1", 8);
    Network network = OpenNetwork(bed.Options("web"));
    EXPECT_EQ(network.subnet().substr(0, 4), "172.");
    AddHostAddress("172.16.0.1", 12);
    AddHostAddress("192.168.0.1", 16);
    EXPECT_THAT(Network::Open(bed.Options("other")),
                StatusIs(absl::StatusCode::kResourceExhausted,
                         HasSubstr("route 10.0.0.0/8 dev \"up0\"")));
    EXPECT_EQ(bed.Links().size(), 1u);
  });
}

TEST_F(NetworkTest, SecondOpenJoins) {
  RunInTestbed([](Testbed& bed) {
    NetworkOptions options = bed.Options("web");
    options.subnet = "10.77.0.0/24";
    Network first = OpenNetwork(options);
    Network second = OpenNetwork(bed.Options("web"));
    EXPECT_EQ(second.subnet(), "10.77.0.0/24");
    EXPECT_EQ(second.bridge(), first.bridge());
    EXPECT_EQ(bed.Links().size(), 1u);
    EXPECT_EQ(bed.Tables().size(), 4u);
    NetEndpoint a = Join(bed, first, {.name = "a"});
    EXPECT_EQ(second.Hosts()->size(), 1u);
    EXPECT_THAT(second.Remove(),
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         HasSubstr("live endpoints: \"a\" (10.77.0.2)")));
    ASSERT_OK(a.Destroy());
    EXPECT_THAT(second.Remove(),
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         HasSubstr("open in another process or object")));
    { Network gone = std::move(first); }
    EXPECT_EQ(bed.Tables().size(), 2u);
    ASSERT_OK(second.Remove());
    bed.ExpectClean();
    EXPECT_THAT(second.Remove(), StatusIs(absl::StatusCode::kFailedPrecondition,
                                          HasSubstr("was removed")));
    EXPECT_THAT(NetEndpoint::Create(second, bed.MakeNamespace(), {.name = "b"})
                    .status(),
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         HasSubstr("was removed")));
  });
}

TEST_F(NetworkTest, JoinRefusesOtherSettings) {
  RunInTestbed([](Testbed& bed) {
    NetworkOptions options = bed.Options("web");
    options.subnet = "10.77.0.0/24";
    Network network = OpenNetwork(options);
    NetworkOptions other = options;
    other.subnet = "10.78.0.0/24";
    EXPECT_THAT(Network::Open(other),
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         HasSubstr("NetworkOptions::subnet: network \"web\" is "
                                   "in use with 10.77.0.0/24")));
    other = options;
    other.gateway = "10.77.0.9";
    EXPECT_THAT(Network::Open(other),
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         HasSubstr("NetworkOptions::gateway")));
    other = options;
    other.mtu = 1000;
    EXPECT_THAT(Network::Open(other),
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         HasSubstr("NetworkOptions::mtu")));
    other = options;
    other.internal = true;
    EXPECT_THAT(Network::Open(other),
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         HasSubstr("NetworkOptions::internal")));
    EXPECT_EQ(bed.Tables().size(), 2u);
    EXPECT_OK(network.Remove());
  });
}

TEST_F(NetworkTest, TwoProcessesShareOneNetwork) {
  RunInTestbed([](Testbed& bed) {
    Network network = OpenNetwork(bed.Options("web"));
    NetEndpoint mine = Join(bed, network, {.name = "mine"});
    const int status = RunForked([&] {
      // What the child inherits of the parent's objects it must not destroy.
      Network* joined = new Network(OpenNetwork(bed.Options("web")));
      NetEndpoint theirs = Join(bed, *joined, {.name = "theirs"});
      EXPECT_EQ(joined->Hosts()->size(), 2u);
      EXPECT_THAT(
          NetEndpoint::Create(*joined, bed.MakeNamespace(), {.name = "mine"})
              .status(),
          StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("mine")));
      TestSocket server = bed.In(theirs.netns(), [] { return BindUdp(53); });
      TestSocket client = bed.In(mine.netns(), [] { return BindUdp(0); });
      EXPECT_TRUE(client.SendTo(theirs.address(), 53, "across"));
      EXPECT_TRUE(server.ReceiveFrom().has_value());
      EXPECT_OK(theirs.Destroy());
      delete joined;
    });
    EXPECT_EQ(status, 0);
    EXPECT_EQ(network.Hosts()->size(), 1u);
    EXPECT_EQ(bed.Tables().size(), 2u);
    ASSERT_OK(mine.Destroy());
    ASSERT_OK(network.Remove());
    bed.ExpectClean();
  });
}

TEST_F(NetworkTest, WarnsOfForwardingThatIsOff) {
  RunInTestbed([](Testbed& bed) {
    NetworkOptions options = bed.Options("web");
    options.uplink_forwarding = UplinkForwarding::kReport;
    Network network = OpenNetwork(options);
    EXPECT_THAT(network.Warnings(),
                ElementsAre(HasSubstr("net.ipv4.conf.up0.forwarding is 0")));
    std::ifstream global("/proc/sys/net/ipv4/ip_forward");
    int value = -1;
    global >> value;
    EXPECT_EQ(value, 0);
    std::ofstream off(absl::StrCat("/proc/sys/net/ipv4/conf/",
                                   std::string(network.bridge()),
                                   "/forwarding"));
    off << "0" << std::flush;
    EXPECT_THAT(network.Warnings(), Contains(HasSubstr("something resets it")));
  });
}

TEST_F(NetworkTest, WarnsOfChainsThatDrop) {
  RunInTestbed([](Testbed& bed) {
    Network network = OpenNetwork(bed.Options("web"));
    absl::StatusOr<sys::NetlinkSocket> socket =
        sys::NetlinkSocket::Open(NETLINK_NETFILTER);
    const sys::NftTable table = {sys::NftFamily::kInet, "strict"};
    sys::NftBatch batch;
    batch.AddTable(table);
    batch.AddChain(table, {"fwd", "filter", sys::NftHook::kForward, 10});
    batch.AddChain(table, {"in", "filter", sys::NftHook::kInput, 10});
    batch.AddRule(table, "in", sys::NftRule().Drop());
    ASSERT_OK(batch.Commit(*socket));
    EXPECT_THAT(network.Warnings(), IsEmpty());
    sys::NftBatch drop;
    drop.AddRule(
        table, "fwd",
        sys::NftRule().InputInterface(sys::NftMatch::kIs, "elsewhere").Drop());
    ASSERT_OK(drop.Commit(*socket));
    EXPECT_THAT(network.Warnings(), IsEmpty());
    sys::NftBatch drop_all;
    drop_all.AddRule(table, "fwd", sys::NftRule().Drop());
    ASSERT_OK(drop_all.Commit(*socket));
    EXPECT_THAT(network.Warnings(),
                ElementsAre(HasSubstr("chain inet \"strict\" \"fwd\" ends in a "
                                      "rule that drops")));
  });
}

TEST_F(NetworkTest, WarnsOfMissingUplink) {
  RunInTestbed([](Testbed& bed) {
    bed.Do(bed.outside(), [&] {
      Network network = OpenNetwork(bed.Options("web"));
      EXPECT_EQ(network.mtu(), 1500);
      EXPECT_THAT(network.Warnings(),
                  ElementsAre(HasSubstr("no default route")));
    });
  });
}

TEST_F(NetworkTest, BridgeThatWasReplacedIsNotTouched) {
  RunInTestbed([](Testbed& bed) {
    absl::StatusOr<sys::NetlinkSocket> route =
        sys::NetlinkSocket::Open(NETLINK_ROUTE);
    std::string bridge;
    {
      Network network = OpenNetwork(bed.Options("web"));
      bridge = std::string(network.bridge());
      absl::StatusOr<sys::LinkInfo> link = sys::GetLink(*route, bridge);
      ASSERT_OK(link);
      sys::NetlinkTrain train;
      sys::DeleteLink(train, link->index);
      sys::AddBridge(train, bridge, {2, 0, 0, 0, 0, 1}, 1500);
      ASSERT_OK(route->Run(train));
      EXPECT_THAT(network.Warnings(),
                  Contains(HasSubstr("is gone or was replaced")));
      EXPECT_THAT(Network::Open(bed.Options("web")),
                  StatusIs(absl::StatusCode::kFailedPrecondition,
                           HasSubstr("was removed by somebody")));
      EXPECT_FALSE(
          NetEndpoint::Create(network, bed.MakeNamespace(), {.name = "a"})
              .ok());
    }
    // The stranger's bridge survives the network.
    EXPECT_OK(sys::GetLink(*route, bridge));
    EXPECT_THAT(bed.StateFiles(), IsEmpty());
  });
}

TEST_F(NetworkTest, StateDirectoryOfOthersIsRefused) {
  RunInTestbed([](Testbed& bed) {
    std::filesystem::create_directories(bed.state_dir());
    ASSERT_EQ(::chmod(bed.state_dir().c_str(), 0777), 0);
    EXPECT_THAT(Network::Open(bed.Options("web")),
                StatusIs(absl::StatusCode::kPermissionDenied,
                         HasSubstr("writable for nobody else; it belongs to "
                                   "uid 0 with mode 0777")));
    ASSERT_EQ(::chmod(bed.state_dir().c_str(), 0700), 0);
    ASSERT_EQ(::chown(bed.state_dir().c_str(), 12345, 0), 0);
    EXPECT_THAT(
        Network::Open(bed.Options("web")),
        StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr("uid 12345")));
    bed.ExpectClean();
  });
}

TEST_F(NetworkTest, UmaskDoesNotMatter) {
  RunInTestbed([](Testbed& bed) {
    ::umask(0);
    Network open = OpenNetwork(bed.Options("web"));
    NetEndpoint a = Join(bed, open, {.name = "a"});
    for (const std::string& file : bed.StateFiles()) {
      struct stat info;
      ASSERT_EQ(::stat(absl::StrCat(bed.state_dir(), "/", file).c_str(), &info),
                0);
      EXPECT_EQ(info.st_mode & 077, 0u) << file;
    }
    ::umask(0777);
    Network closed = OpenNetwork(bed.Options("other"));
    NetEndpoint b = Join(bed, closed, {.name = "b"});
    for (const std::string& file : bed.StateFiles()) {
      struct stat info;
      ASSERT_EQ(::stat(absl::StrCat(bed.state_dir(), "/", file).c_str(), &info),
                0);
      EXPECT_EQ(info.st_mode & 0600, 0600u) << file;
    }
  });
}

TEST_F(NetworkTest, StateDirectoryMayVanish) {
  RunInTestbed([](Testbed& bed) {
    {
      Network network = OpenNetwork(bed.Options("web"));
      NetEndpoint a = Join(bed, network, {.name = "a"});
      std::filesystem::remove_all(bed.state_dir());
    }
    bed.ExpectClean();
  });
}

}  // namespace
}  // namespace caisson
