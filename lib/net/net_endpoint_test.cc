#include "caisson/net_endpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "caisson/error.h"
#include "lib/base/status_matchers.h"
#include "lib/net/net_testbed.h"

namespace caisson {
namespace {

using ::caisson::testing::BindUdp;
using ::caisson::testing::CountFds;
using ::caisson::testing::Join;
using ::caisson::testing::kHostAddress;
using ::caisson::testing::ListenTcp;
using ::caisson::testing::NetKernelTest;
using ::caisson::testing::OpenNetwork;
using ::caisson::testing::RunInTestbed;
using ::caisson::testing::StatusIs;
using ::caisson::testing::Testbed;
using ::caisson::testing::TestSocket;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr PortMapping::Protocol kTcp = PortMapping::Protocol::kTcp;
constexpr PortMapping::Protocol kUdp = PortMapping::Protocol::kUdp;

class NetEndpointTest : public NetKernelTest {};

absl::Status CreateError(Testbed& bed, Network& network,
                         const EndpointOptions& options) {
  return NetEndpoint::Create(network, bed.MakeNamespace(), options).status();
}

TEST_F(NetEndpointTest, HasWhatItSays) {
  RunInTestbed([](Testbed& bed) {
    NetworkOptions options = bed.Options("web");
    options.subnet = "10.77.0.0/16";
    Network network = OpenNetwork(options);
    NetEndpoint endpoint = Join(bed, network,
                                {.name = "api",
                                 .address = "10.77.3.4",
                                 .mac = "02:00:00:00:00:07",
                                 .interface_name = "net7"});
    EXPECT_EQ(endpoint.name(), "api");
    EXPECT_EQ(endpoint.address(), "10.77.3.4");
    EXPECT_EQ(endpoint.prefix_length(), 16);
    EXPECT_EQ(endpoint.gateway(), "10.77.0.1");
    EXPECT_EQ(endpoint.mac(), "02:00:00:00:00:07");
    EXPECT_FALSE(endpoint.poll_fd().valid());
    EXPECT_OK(endpoint.Forward());
    bed.Do(endpoint.netns(), [&] {
      absl::StatusOr<sys::NetlinkSocket> route =
          sys::NetlinkSocket::Open(NETLINK_ROUTE);
      absl::StatusOr<sys::LinkInfo> link = sys::GetLink(*route, "net7");
      ASSERT_OK(link);
      EXPECT_EQ(sys::FormatMac(link->mac), "02:00:00:00:00:07");
      EXPECT_EQ(static_cast<int>(link->mtu), network.mtu());
      absl::StatusOr<std::vector<sys::AddressInfo>> addresses =
          sys::ListAddresses(*route);
      ASSERT_OK(addresses);
      ASSERT_EQ(addresses->size(), 2u);  // 127.0.0.1 and its own
      EXPECT_EQ((*addresses)[1].prefix_length, 16);
    });
  });
}

TEST_F(NetEndpointTest, RefusesBadOptions) {
  struct Case {
    EndpointOptions options;
    const char* message;
  };
  RunInTestbed([](Testbed& bed) {
    NetworkOptions options = bed.Options("web");
    options.subnet = "10.77.0.0/24";
    Network network = OpenNetwork(options);
    const std::vector<Case> cases = {
        {{}, "EndpointOptions::name: \"\""},
        {{.name = "a b"}, "EndpointOptions::name: \"a b\""},
        {{.name = "../x"}, "EndpointOptions::name"},
        {{.name = "a", .aliases = {"x", "#"}}, "EndpointOptions::aliases[1]"},
        {{.name = "a", .address = "10.77.0.256"}, "EndpointOptions::address"},
        {{.name = "a", .address = "0.0.0.0"}, "EndpointOptions::address"},
        {{.name = "a", .address = "10.77.1.2"}, "not an address for an"},
        {{.name = "a", .address = "10.77.0.1"}, "gateway 10.77.0.1"},
        {{.name = "a", .address = "10.77.0.255"}, "not an address for an"},
        {{.name = "a", .mac = "01:00:00:00:00:01"}, "EndpointOptions::mac"},
        {{.name = "a", .mac = "02:00"}, "EndpointOptions::mac"},
        {{.name = "a", .interface_name = "eth%d"}, "interface_name"},
        {{.name = "a", .interface_name = "lo"}, "interface_name"},
        {{.name = "a", .interface_name = "a23456789012345678"},
         "interface_name"},
        {{.name = "a", .ports = {{.host_port = 80}}},
         "EndpointOptions::ports[0].container_port: 0"},
        {{.name = "a",
          .ports = {{.host_address = "localhost", .container_port = 80}}},
         "EndpointOptions::ports[0].host_address: \"localhost\""},
        {{.name = "a",
          .ports = {{.host_port = 81, .container_port = 80},
                    {.host_address = "0.0.0.0",
                     .host_port = 81,
                     .container_port = 81}}},
         "EndpointOptions::ports[1]: 0.0.0.0:81/tcp is that of "
         "EndpointOptions::ports[0]"},
        {{.name = "a", .max_forwarded = 0}, "max_forwarded: 0"},
    };
    for (const Case& test : cases) {
      EXPECT_THAT(CreateError(bed, network, test.options),
                  StatusIs(absl::StatusCode::kInvalidArgument,
                           HasSubstr(test.message)));
    }
    ASSERT_OK(network.Remove());
    bed.ExpectClean();
  });
}

TEST_F(NetEndpointTest, RefusesNamespacesThatDoNotFit) {
  RunInTestbed([](Testbed& bed) {
    Network network = OpenNetwork(bed.Options("web"));
    NetNamespace mixed = bed.MakeNamespace();
    mixed.rtnetlink = bed.MakeNamespace().rtnetlink;
    EXPECT_THAT(
        NetEndpoint::Create(network, std::move(mixed), {.name = "a"}).status(),
        StatusIs(absl::StatusCode::kInvalidArgument,
                 HasSubstr("another network namespace")));
    NetNamespace host;
    host.ns = UniqueFd(::open("/proc/thread-self/ns/net", O_RDONLY));
    host.rtnetlink = UniqueFd(::socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE));
    EXPECT_THAT(
        NetEndpoint::Create(network, std::move(host), {.name = "a"}).status(),
        StatusIs(absl::StatusCode::kInvalidArgument,
                 HasSubstr("the host's own network namespace")));
    NetNamespace file;
    file.ns = UniqueFd(::open("/proc/thread-self/ns/mnt", O_RDONLY));
    file.rtnetlink = bed.MakeNamespace().rtnetlink;
    EXPECT_THAT(
        NetEndpoint::Create(network, std::move(file), {.name = "a"}).status(),
        StatusIs(absl::StatusCode::kInvalidArgument,
                 HasSubstr("not of a network namespace")));
    EXPECT_FALSE(
        NetEndpoint::Create(network, NetNamespace{}, {.name = "a"}).ok());
  });
}

TEST_F(NetEndpointTest, NamesAndAddressesAreUnique) {
  RunInTestbed([](Testbed& bed) {
    Network network = OpenNetwork(bed.Options("web"));
    NetEndpoint a = Join(bed, network, {.name = "a"});
    EXPECT_THAT(CreateError(bed, network, {.name = "A"}),
                StatusIs(absl::StatusCode::kAlreadyExists,
                         HasSubstr("\"A\" is the name of a live endpoint")));
    EndpointOptions same = {.name = "b"};
    same.address = std::string(a.address());
    EXPECT_THAT(CreateError(bed, network, same),
                StatusIs(absl::StatusCode::kAlreadyExists,
                         HasSubstr("belongs to a live endpoint")));
    NetEndpoint c =
        Join(bed, network, {.name = "c", .aliases = {"db", "db.local"}});
    NetEndpoint d = Join(bed, network, {.name = "d", .aliases = {"db"}});
    absl::StatusOr<std::vector<HostsEntry>> hosts = network.Hosts();
    ASSERT_OK(hosts);
    ASSERT_EQ(hosts->size(), 3u);
    EXPECT_EQ((*hosts)[1].address, c.address());
    EXPECT_THAT((*hosts)[1].names, ElementsAre("c", "db", "db.local"));
    EXPECT_THAT((*hosts)[2].names, ElementsAre("d", "db"));
  });
}

TEST_F(NetEndpointTest, EverythingCanBeUsedAgainAfterDestroy) {
  RunInTestbed([](Testbed& bed) {
    NetworkOptions options = bed.Options("web");
    options.subnet = "10.77.0.0/24";
    Network network = OpenNetwork(options);
    const EndpointOptions same = {
        .name = "a",
        .address = "10.77.0.9",
        .ports = {{.host_port = 8080, .container_port = 80},
                  {.host_port = 53, .container_port = 53, .protocol = kUdp},
                  {.host_address = kHostAddress,
                   .host_port = 8081,
                   .container_port = 80}}};
    for (int i = 0; i < 20; ++i) {
      NetEndpoint endpoint = Join(bed, network, same);
      ASSERT_OK(endpoint.Destroy());
      ASSERT_OK(endpoint.Destroy());
      EXPECT_FALSE(endpoint.netns().valid());
    }
    ListenTcp(8080);
    ASSERT_OK(network.Remove());
    bed.ExpectClean();
  });
}

TEST_F(NetEndpointTest, DestructorsLeaveNothing) {
  RunInTestbed([](Testbed& bed) {
    const int fds = CountFds();
    {
      Network network = OpenNetwork(bed.Options("web"));
      NetEndpoint a = Join(
          bed, network,
          {.name = "a", .ports = {{.host_port = 8080, .container_port = 80}}});
      NetEndpoint moved = std::move(a);
      NetEndpoint b = Join(bed, network, {.name = "b"});
      // The endpoints outlive the Network object.
      Network gone = std::move(network);
    }
    EXPECT_EQ(CountFds(), fds);
    bed.ExpectClean();
  });
}

TEST_F(NetEndpointTest, AddressesAreReusedLate) {
  RunInTestbed([](Testbed& bed) {
    NetworkOptions options = bed.Options("web");
    options.subnet = "10.77.0.0/29";  // .1 gateway, .2 to .6
    Network network = OpenNetwork(options);
    std::vector<std::string> seen;
    for (int i = 0; i < 7; ++i) {
      NetEndpoint endpoint = Join(bed, network, {.name = "a"});
      seen.push_back(std::string(endpoint.address()));
    }
    EXPECT_THAT(seen,
                ElementsAre("10.77.0.2", "10.77.0.3", "10.77.0.4", "10.77.0.5",
                            "10.77.0.6", "10.77.0.2", "10.77.0.3"));
  });
}

TEST_F(NetEndpointTest, FullSubnetIsResourceExhausted) {
  RunInTestbed([](Testbed& bed) {
    NetworkOptions options = bed.Options("web");
    options.subnet = "10.77.0.0/30";
    Network network = OpenNetwork(options);
    NetEndpoint a = Join(bed, network, {.name = "a"});
    EXPECT_THAT(CreateError(bed, network, {.name = "b"}),
                StatusIs(absl::StatusCode::kResourceExhausted,
                         HasSubstr("all 1 addresses of 10.77.0.0/30")));
    ASSERT_OK(a.Destroy());
    Join(bed, network, {.name = "b"});
  });
}

// The kernel's limit of 1024 port numbers, of which 0 is not used.
TEST_F(NetEndpointTest, FullBridgeIsExfull) {
  RunInTestbed([](Testbed& bed) {
    NetworkOptions options = bed.Options("web");
    options.subnet = "10.77.0.0/20";
    Network network = OpenNetwork(options);
    absl::StatusOr<sys::NetlinkSocket> route =
        sys::NetlinkSocket::Open(NETLINK_ROUTE);
    absl::StatusOr<sys::LinkInfo> bridge =
        sys::GetLink(*route, std::string(network.bridge()));
    ASSERT_OK(bridge);
    NetNamespace crowd = bed.MakeNamespace();
    for (int i = 0; i < 1023; ++i) {
      sys::VethRequest request;
      request.name = absl::StrCat("t", i);
      request.mac = {
          2, 0, 1, 0, static_cast<uint8_t>(i >> 8), static_cast<uint8_t>(i)};
      request.master = bridge->index;
      request.mtu = 1400;
      request.peer_name = absl::StrCat("p", i);
      request.peer_mac = {
          2, 0, 2, 0, static_cast<uint8_t>(i >> 8), static_cast<uint8_t>(i)};
      request.peer_namespace = crowd.ns.borrow();
      sys::NetlinkTrain train;
      sys::AddVeth(train, request);
      ASSERT_OK(route->Run(train)) << i;
    }
    const absl::Status status = CreateError(bed, network, {.name = "a"});
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kResourceExhausted,
                                 HasSubstr("1023 ports")));
    ASSERT_TRUE(GetErrorDetail(status).has_value());
    EXPECT_EQ(GetErrorDetail(status)->error, EXFULL);
    EXPECT_EQ(GetErrorDetail(status)->step, "endpoint.link");
    EXPECT_THAT(network.Warnings(),
                ::testing::Contains(HasSubstr("1023 of 1023")));
    EXPECT_EQ(network.Hosts()->size(), 0u);
  });
}

TEST_F(NetEndpointTest, PortInUseNamesTheHolder) {
  RunInTestbed([](Testbed& bed) {
    Network network = OpenNetwork(bed.Options("web"));
    TestSocket tcp = ListenTcp(8080, "127.0.0.1");
    const absl::Status status = CreateError(
        bed, network,
        {.name = "a", .ports = {{.host_port = 8080, .container_port = 80}}});
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kAlreadyExists,
                                 HasSubstr("bind(0.0.0.0:8080/tcp)")));
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("a socket at 127.0.0.1:8080 of uid 0"));
    ASSERT_TRUE(GetErrorDetail(status).has_value());
    EXPECT_EQ(GetErrorDetail(status)->error, EADDRINUSE);
    EXPECT_EQ(GetErrorDetail(status)->step, "endpoint.reserve");

    TestSocket udp = BindUdp(5353);
    EXPECT_THAT(CreateError(bed, network,
                            {.name = "a",
                             .ports = {{.host_port = 5353,
                                        .container_port = 53,
                                        .protocol = kUdp}}}),
                StatusIs(absl::StatusCode::kAlreadyExists,
                         HasSubstr("a socket at 0.0.0.0:5353 of uid 0")));
    // The other protocol has ports of its own.
    NetEndpoint a = Join(
        bed, network,
        {.name = "a",
         .ports = {{.host_port = 8080, .container_port = 80, .protocol = kUdp},
                   {.host_port = 5353, .container_port = 53}}});
    // And another endpoint finds those taken.
    EXPECT_THAT(
        CreateError(
            bed, network,
            {.name = "b", .ports = {{.host_port = 5353, .container_port = 1}}}),
        StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("5353/tcp")));
    EXPECT_THAT(CreateError(bed, network,
                            {.name = "b",
                             .ports = {{.host_address = "198.51.100.9",
                                        .host_port = 1,
                                        .container_port = 1}}}),
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         HasSubstr("the host has no such address")));
  });
}

TEST_F(NetEndpointTest, EphemeralPortsAreFilledIn) {
  RunInTestbed([](Testbed& bed) {
    Network network = OpenNetwork(bed.Options("web"));
    NetEndpoint a = Join(bed, network,
                         {.name = "a",
                          .ports = {{.container_port = 80},
                                    {.container_port = 80},
                                    {.container_port = 53, .protocol = kUdp}}});
    ASSERT_EQ(a.ports().size(), 3u);
    for (const PortMapping& port : a.ports()) EXPECT_GT(port.host_port, 1023);
    EXPECT_NE(a.ports()[0].host_port, a.ports()[1].host_port);
    EXPECT_EQ(a.ports()[2].protocol, kUdp);
    EXPECT_EQ(a.ports()[0].protocol, kTcp);
  });
}

TEST_F(NetEndpointTest, ThreadInAnotherNamespaceIsRefused) {
  RunInTestbed([](Testbed& bed) {
    Network network = OpenNetwork(bed.Options("web"));
    NetNamespace ns = bed.MakeNamespace();
    bed.Do(bed.outside(), [&] {
      EXPECT_THAT(
          NetEndpoint::Create(
              network, std::move(ns),
              {.name = "a", .ports = {{.host_port = 80, .container_port = 80}}})
              .status(),
          StatusIs(absl::StatusCode::kFailedPrecondition,
                   HasSubstr("another network namespace than the one")));
    });
  });
}

TEST_F(NetEndpointTest, ManyThreadsOnOneNetwork) {
  RunInTestbed([](Testbed& bed) {
    Network network = OpenNetwork(bed.Options("web"));
    constexpr int kThreads = 8;
    constexpr int kEach = 6;
    std::vector<std::vector<NetNamespace>> namespaces(kThreads);
    for (auto& own : namespaces) {
      for (int i = 0; i < kEach; ++i) own.push_back(bed.MakeNamespace());
    }
    std::vector<std::thread> threads;
    std::vector<std::vector<NetEndpoint>> endpoints(kThreads);
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        for (int i = 0; i < kEach; ++i) {
          absl::StatusOr<NetEndpoint> endpoint =
              NetEndpoint::Create(network, std::move(namespaces[t][i]),
                                  {.name = absl::StrCat("e", t, "-", i),
                                   .ports = {{.container_port = 80}}});
          EXPECT_OK(endpoint);
          if (endpoint.ok()) endpoints[t].push_back(*std::move(endpoint));
          EXPECT_OK(network.Hosts());
        }
        endpoints[t].pop_back();
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(network.Hosts()->size(), size_t{kThreads * (kEach - 1)});
    endpoints.clear();
    EXPECT_OK(network.Remove());
    bed.ExpectClean();
  });
}

TEST_F(NetEndpointTest, WorksWithHighDescriptorNumbers) {
  RunInTestbed([](Testbed& bed) {
    rlimit limit;
    ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = limit.rlim_max;
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &limit), 0);
    ASSERT_GT(limit.rlim_max, 2048u);
    std::vector<UniqueFd> fill;
    do {
      fill.emplace_back(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    } while (fill.back().get() < 1100);
    Network network = OpenNetwork(bed.Options("web"));
    NetEndpoint a = Join(
        bed, network,
        {.name = "a", .ports = {{.host_port = 8080, .container_port = 80}}});
    EXPECT_GT(a.poll_fd().get(), 1023);
    TestSocket server = bed.In(a.netns(), [] { return ListenTcp(80); });
    TestSocket client = testing::ConnectTcp("127.0.0.1", 8080);
    ASSERT_TRUE(client.valid());
    testing::ForwardUntilReadable(a, server);
    TestSocket accepted = server.Accept();
    EXPECT_TRUE(accepted.valid());
  });
}

}  // namespace
}  // namespace caisson
