// What packets do in a network: between containers, outwards, inwards, and not
// at all.
#include <arpa/inet.h>
#include <netinet/if_ether.h>
#include <netinet/ip6.h>
#include <netpacket/packet.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fstream>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "caisson/net_endpoint.h"
#include "caisson/network.h"
#include "lib/base/status_matchers.h"
#include "lib/net/arp.h"
#include "lib/net/ipv4.h"
#include "lib/net/net_testbed.h"
#include "lib/sys/rtnetlink.h"

namespace caisson {
namespace {

using ::caisson::testing::BindUdp;
using ::caisson::testing::ConnectTcp;
using ::caisson::testing::Converse;
using ::caisson::testing::Datagram;
using ::caisson::testing::ForwardUntilReadable;
using ::caisson::testing::Join;
using ::caisson::testing::kHostAddress;
using ::caisson::testing::kOutsideAddress;
using ::caisson::testing::ListenTcp;
using ::caisson::testing::NetKernelTest;
using ::caisson::testing::OpenNetwork;
using ::caisson::testing::RunInTestbed;
using ::caisson::testing::Testbed;
using ::caisson::testing::TestSocket;

constexpr PortMapping::Protocol kUdp = PortMapping::Protocol::kUdp;

class TrafficTest : public NetKernelTest {};

std::string Text(absl::string_view text) { return std::string(text); }

in_addr Address(absl::string_view text) {
  return ParseIpv4Address("test", text)->in();
}

// Runs rtnetlink requests on an interface of `ns`.
template <typename Fill>
void Change(Testbed& bed, BorrowedFd ns, const std::string& interface,
            Fill fill) {
  bed.Do(ns, [&] {
    absl::StatusOr<sys::NetlinkSocket> route =
        sys::NetlinkSocket::Open(NETLINK_ROUTE);
    absl::StatusOr<sys::LinkInfo> link = sys::GetLink(*route, interface);
    ASSERT_OK(link);
    sys::NetlinkTrain train;
    fill(train, link->index);
    ASSERT_OK(route->Run(train));
  });
}

TEST_F(TrafficTest, ContainersReachEachOtherByAddress) {
  RunInTestbed([](Testbed& bed) {
    Network network = OpenNetwork(bed.Options("web"));
    NetEndpoint a = Join(bed, network, {.name = "a"});
    NetEndpoint b = Join(bed, network, {.name = "b"});
    TestSocket server = bed.In(b.netns(), [] { return ListenTcp(80); });
    EXPECT_EQ(
        Converse(bed.In(a.netns(),
                        [&] { return ConnectTcp(Text(b.address()), 80); }),
                 server),
        a.address());
    // And the host reaches both, by their addresses.
    EXPECT_EQ(Converse(ConnectTcp(Text(b.address()), 80), server),
              network.gateway());
  });
}

TEST_F(TrafficTest, OutsideSeesTheHostsAddress) {
  RunInTestbed([](Testbed& bed) {
    Network network = OpenNetwork(bed.Options("web"));
    EXPECT_EQ(network.Warnings(), std::vector<std::string>());
    NetEndpoint a = Join(bed, network, {.name = "a"});
    TestSocket server = bed.In(bed.outside(), [] { return ListenTcp(80); });
    EXPECT_EQ(Converse(bed.In(a.netns(),
                              [] { return ConnectTcp(kOutsideAddress, 80); }),
                       server),
              kHostAddress);
    TestSocket outside = bed.In(bed.outside(), [] { return BindUdp(53); });
    TestSocket inside = bed.In(a.netns(), [] { return BindUdp(0); });
    ASSERT_TRUE(inside.SendTo(kOutsideAddress, 53, "question"));
    std::optional<Datagram> question = outside.ReceiveFrom();
    ASSERT_TRUE(question.has_value());
    EXPECT_EQ(question->from, kHostAddress);
    ASSERT_TRUE(outside.SendTo(question->from, question->from_port, "answer"));
    std::optional<Datagram> answer = inside.ReceiveFrom();
    ASSERT_TRUE(answer.has_value());
    EXPECT_EQ(answer->from, kOutsideAddress);
  });
}

TEST_F(TrafficTest, PublishedPortsShowTheClientsAddress) {
  RunInTestbed([](Testbed& bed) {
    Network network = OpenNetwork(bed.Options("web"));
    NetEndpoint a = Join(
        bed, network,
        {.name = "a",
         .ports = {
             {.host_port = 8080, .container_port = 80},
             {.host_port = 53, .container_port = 5353, .protocol = kUdp}}});
    TestSocket server = bed.In(a.netns(), [] { return ListenTcp(80); });
    EXPECT_EQ(Converse(bed.In(bed.outside(),
                              [] { return ConnectTcp(kHostAddress, 8080); }),
                       server),
              kOutsideAddress);
    // From the host itself, at its own address.
    EXPECT_EQ(Converse(ConnectTcp(kHostAddress, 8080), server), kHostAddress);

    TestSocket dns = bed.In(a.netns(), [] { return BindUdp(5353); });
    TestSocket client = bed.In(bed.outside(), [] { return BindUdp(0); });
    ASSERT_TRUE(client.SendTo(kHostAddress, 53, "question"));
    std::optional<Datagram> question = dns.ReceiveFrom();
    ASSERT_TRUE(question.has_value());
    EXPECT_EQ(question->from, kOutsideAddress);
    EXPECT_EQ(question->from_port, client.port());
    ASSERT_TRUE(dns.SendTo(question->from, question->from_port, "answer"));
    std::optional<Datagram> answer = client.ReceiveFrom();
    ASSERT_TRUE(answer.has_value());
    EXPECT_EQ(answer->from, kHostAddress);
    EXPECT_EQ(answer->from_port, 53);
  });
}

TEST_F(TrafficTest, ManyPortsAreOneElementEach) {
  RunInTestbed([](Testbed& bed) {
    Network network = OpenNetwork(bed.Options("web"));
    EndpointOptions options = {.name = "a"};
    for (uint16_t i = 0; i < 600; ++i) {
      options.ports.push_back(
          {.host_port = static_cast<uint16_t>(20000 + i),
           .container_port = static_cast<uint16_t>(1000 + i)});
    }
    NetEndpoint a = Join(bed, network, options);
    for (uint16_t port : {1000, 1255, 1256, 1599}) {
      TestSocket server = bed.In(a.netns(), [&] { return ListenTcp(port); });
      EXPECT_EQ(Converse(bed.In(bed.outside(),
                                [&] {
                                  return ConnectTcp(
                                      kHostAddress,
                                      static_cast<uint16_t>(port + 19000));
                                }),
                         server),
                kOutsideAddress);
    }
    ASSERT_OK(a.Destroy());
    ASSERT_OK(network.Remove());
    bed.ExpectClean();
  });
}

// With and without br_netfilter, which takes bridged packets through the
// host's rules as well.
TEST_F(TrafficTest, ContainersReachPublishedPortsThroughTheHost) {
  for (const char* bridge_netfilter : {"0", "1"}) {
    RunInTestbed([bridge_netfilter](Testbed& bed) {
      std::ofstream sysctl("/proc/sys/net/bridge/bridge-nf-call-iptables");
      sysctl << bridge_netfilter << std::flush;
      Network network = OpenNetwork(bed.Options("web"));
      NetEndpoint a = Join(
          bed, network,
          {.name = "a", .ports = {{.host_port = 8080, .container_port = 80}}});
      NetEndpoint b = Join(bed, network, {.name = "b"});
      TestSocket server = bed.In(a.netns(), [] { return ListenTcp(80); });
      const auto connect = [](const std::string& address) {
        return [address] { return ConnectTcp(address, 8080); };
      };
      const std::string gateway(network.gateway());
      EXPECT_EQ(Converse(bed.In(b.netns(), connect(kHostAddress)), server),
                gateway);
      EXPECT_EQ(Converse(bed.In(b.netns(), connect(gateway)), server), gateway);
      // To itself: a hairpin.
      EXPECT_EQ(Converse(bed.In(a.netns(), connect(kHostAddress)), server),
                gateway);
      EXPECT_EQ(Converse(bed.In(a.netns(), connect(gateway)), server), gateway);
      // Direct traffic keeps its addresses.
      EXPECT_EQ(
          Converse(bed.In(b.netns(),
                          [&] { return ConnectTcp(Text(a.address()), 80); }),
                   server),
          b.address());
    });
  }
}

// What only passes the host keeps its destination, whatever port it goes to.
TEST_F(TrafficTest, PublishedPortsDoNotCatchPassingTraffic) {
  RunInTestbed([](Testbed& bed) {
    Network network = OpenNetwork(bed.Options("web"));
    NetEndpoint a = Join(
        bed, network,
        {.name = "a", .ports = {{.host_port = 8080, .container_port = 80}}});
    NetEndpoint b = Join(bed, network, {.name = "b"});
    TestSocket wrong = bed.In(a.netns(), [] { return ListenTcp(80); });
    TestSocket right = bed.In(bed.outside(), [] { return ListenTcp(8080); });
    EXPECT_EQ(Converse(bed.In(b.netns(),
                              [] { return ConnectTcp(kOutsideAddress, 8080); }),
                       right),
              kHostAddress);
    EXPECT_EQ(Converse(ConnectTcp(kOutsideAddress, 8080), right), kHostAddress);
  });
}

TEST_F(TrafficTest, PortOnOneAddressIsClosedOnOthers) {
  RunInTestbed([](Testbed& bed) {
    Change(bed, bed.host(), "up0", [](sys::NetlinkTrain& train, int link) {
      sys::AddAddress(train, link, Address("203.0.113.9"), 32);
    });
    Network network = OpenNetwork(bed.Options("web"));
    NetEndpoint a = Join(bed, network,
                         {.name = "a",
                          .ports = {{.host_address = "203.0.113.9",
                                     .host_port = 53,
                                     .container_port = 53,
                                     .protocol = kUdp}}});
    TestSocket server = bed.In(a.netns(), [] { return BindUdp(53); });
    TestSocket client = bed.In(bed.outside(), [] { return BindUdp(0); });
    ASSERT_TRUE(client.SendTo(kHostAddress, 53, "other address"));
    ASSERT_TRUE(client.SendTo("203.0.113.9", 53, "its address"));
    std::optional<Datagram> got = server.ReceiveFrom();
    ASSERT_TRUE(got.has_value());
    EXPECT_EQ(got->text, "its address");
    // The other address's port is even free for others.
    EXPECT_TRUE(BindUdp(53, kHostAddress).valid());
  });
}

TEST_F(TrafficTest, OutsideCannotAddressContainers) {
  RunInTestbed([](Testbed& bed) {
    Network network = OpenNetwork(bed.Options("web"));
    NetEndpoint a = Join(
        bed, network,
        {.name = "a",
         .ports = {{.host_port = 53, .container_port = 53, .protocol = kUdp}}});
    Change(bed, bed.outside(), "out0", [](sys::NetlinkTrain& train, int link) {
      sys::AddDefaultRoute(train, link, Address(kHostAddress));
    });
    TestSocket server = bed.In(a.netns(), [] { return BindUdp(53); });
    TestSocket client = bed.In(bed.outside(), [] { return BindUdp(0); });
    ASSERT_TRUE(client.SendTo(a.address(), 53, "direct"));
    ASSERT_TRUE(client.SendTo(kHostAddress, 53, "published"));
    std::optional<Datagram> got = server.ReceiveFrom();
    ASSERT_TRUE(got.has_value());
    EXPECT_EQ(got->text, "published");
  });
}

TEST_F(TrafficTest, NetworksAreIsolatedButForPublishedPorts) {
  RunInTestbed([](Testbed& bed) {
    Network red = OpenNetwork(bed.Options("red"));
    Network blue = OpenNetwork(bed.Options("blue"));
    EXPECT_NE(red.subnet(), blue.subnet());
    NetEndpoint a = Join(bed, red, {.name = "a"});
    NetEndpoint b = Join(
        bed, blue,
        {.name = "b",
         .ports = {{.host_port = 53, .container_port = 53, .protocol = kUdp},
                   {.host_port = 80, .container_port = 80}}});
    TestSocket server = bed.In(b.netns(), [] { return BindUdp(53); });
    TestSocket client = bed.In(a.netns(), [] { return BindUdp(0); });
    ASSERT_TRUE(client.SendTo(b.address(), 53, "direct"));
    ASSERT_TRUE(client.SendTo(kHostAddress, 53, "published"));
    std::optional<Datagram> got = server.ReceiveFrom();
    ASSERT_TRUE(got.has_value());
    EXPECT_EQ(got->text, "published");
    TestSocket web = bed.In(b.netns(), [] { return ListenTcp(80); });
    EXPECT_NE(
        Converse(bed.In(a.netns(), [] { return ConnectTcp(kHostAddress, 80); }),
                 web),
        "(no connection)");
  });
}

TEST_F(TrafficTest, InternalNetworkEndsAtTheHost) {
  RunInTestbed([](Testbed& bed) {
    // As other software sets it: the rules alone must hold.
    std::ofstream sysctl("/proc/sys/net/ipv4/ip_forward");
    sysctl << "1" << std::flush;
    NetworkOptions options = bed.Options("cellar");
    options.internal = true;
    Network network = OpenNetwork(options);
    EXPECT_EQ(
        NetEndpoint::Create(
            network, bed.MakeNamespace(),
            {.name = "a", .ports = {{.host_port = 80, .container_port = 80}}})
            .status()
            .code(),
        absl::StatusCode::kInvalidArgument);
    NetEndpoint a = Join(bed, network, {.name = "a"});
    NetEndpoint b = Join(bed, network, {.name = "b"});
    TestSocket outside = bed.In(bed.outside(), [] { return BindUdp(53); });
    TestSocket inside = bed.In(a.netns(), [] { return BindUdp(0); });
    EXPECT_FALSE(inside.SendTo(kOutsideAddress, 53, "no route"));
    Change(bed, a.netns(), "eth0", [&](sys::NetlinkTrain& train, int link) {
      sys::AddDefaultRoute(train, link, Address(network.gateway()));
    });
    EXPECT_TRUE(inside.SendTo(kOutsideAddress, 53, "through the host"));
    TestSocket other = bed.In(b.netns(), [] { return BindUdp(53); });
    ASSERT_TRUE(inside.SendTo(b.address(), 53, "neighbour"));
    EXPECT_TRUE(other.ReceiveFrom().has_value());
    TestSocket host = BindUdp(54);
    ASSERT_TRUE(inside.SendTo(network.gateway(), 54, "host"));
    EXPECT_TRUE(host.ReceiveFrom().has_value());
    // What would have gone out left before these did.
    EXPECT_FALSE(outside.TryReceiveFrom().has_value());
    // Nor can a published port of another network be reached from it.
    Network web = OpenNetwork(bed.Options("web"));
    NetEndpoint c = Join(
        bed, web,
        {.name = "c",
         .ports = {{.host_port = 55, .container_port = 55, .protocol = kUdp}}});
    TestSocket published = bed.In(c.netns(), [] { return BindUdp(55); });
    EXPECT_TRUE(inside.SendTo(kHostAddress, 55, "around"));
    TestSocket client = bed.In(bed.outside(), [] { return BindUdp(0); });
    ASSERT_TRUE(client.SendTo(kHostAddress, 55, "outside"));
    EXPECT_EQ(published.ReceiveFrom()->text, "outside");
  });
}

TEST_F(TrafficTest, ForeignSourceAddressesDoNotLeave) {
  RunInTestbed([](Testbed& bed) {
    Network network = OpenNetwork(bed.Options("web"));
    NetEndpoint a = Join(bed, network, {.name = "a"});
    Change(bed, a.netns(), "eth0", [](sys::NetlinkTrain& train, int link) {
      sys::AddAddress(train, link, Address("198.51.100.7"), 32);
    });
    Change(bed, bed.outside(), "out0", [](sys::NetlinkTrain& train, int link) {
      sys::AddDefaultRoute(train, link, Address(kHostAddress));
    });
    TestSocket outside = bed.In(bed.outside(), [] { return BindUdp(53); });
    TestSocket spoofing =
        bed.In(a.netns(), [] { return BindUdp(0, "198.51.100.7"); });
    TestSocket honest = bed.In(a.netns(), [] { return BindUdp(0); });
    ASSERT_TRUE(spoofing.SendTo(kOutsideAddress, 53, "spoofed"));
    ASSERT_TRUE(honest.SendTo(kOutsideAddress, 53, "honest"));
    EXPECT_EQ(outside.ReceiveFrom()->text, "honest");
  });
}

// A router advertisement, say, by which a container could take over others.
TEST_F(TrafficTest, Ipv6DoesNotPassBetweenContainers) {
  RunInTestbed([](Testbed& bed) {
    Network network = OpenNetwork(bed.Options("web"));
    NetEndpoint a = Join(bed, network, {.name = "a"});
    NetEndpoint b = Join(bed, network, {.name = "b"});
    const auto open = [&](BorrowedFd ns, uint16_t protocol) {
      return bed.In(ns, [&] {
        UniqueFd fd(
            ::socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, htons(protocol)));
        absl::StatusOr<sys::NetlinkSocket> route =
            sys::NetlinkSocket::Open(NETLINK_ROUTE);
        sockaddr_ll local = {};
        local.sll_family = AF_PACKET;
        local.sll_protocol = htons(protocol);
        local.sll_ifindex = sys::GetLink(*route, "eth0")->index;
        EXPECT_EQ(::bind(fd.get(), reinterpret_cast<sockaddr*>(&local),
                         sizeof(local)),
                  0);
        return fd;
      });
    };
    const UniqueFd sender = open(a.netns(), ETH_P_ALL);
    const UniqueFd receiver = open(b.netns(), ETH_P_ALL);
    for (uint16_t protocol : {ETH_P_IPV6, 0x88b5}) {  // 0x88b5: experiments
      sockaddr_ll to = {};
      to.sll_family = AF_PACKET;
      to.sll_protocol = htons(protocol);
      to.sll_halen = ETH_ALEN;
      ::memset(to.sll_addr, 0xff, ETH_ALEN);
      socklen_t length = sizeof(to);
      sockaddr_ll local = {};
      ::getsockname(sender.get(), reinterpret_cast<sockaddr*>(&local), &length);
      to.sll_ifindex = local.sll_ifindex;
      ip6_hdr packet = {};
      packet.ip6_vfc = 6 << 4;
      packet.ip6_nxt = IPPROTO_NONE;
      packet.ip6_hlim = 255;
      ::inet_pton(AF_INET6, "fe80::1", &packet.ip6_src);
      ::inet_pton(AF_INET6, "ff02::1", &packet.ip6_dst);
      ASSERT_EQ(::sendto(sender.get(), &packet, sizeof(packet), 0,
                         reinterpret_cast<sockaddr*>(&to), sizeof(to)),
                static_cast<ssize_t>(sizeof(packet)));
    }
    for (;;) {
      pollfd ready = {receiver.get(), POLLIN, 0};
      ASSERT_EQ(::poll(&ready, 1, 5000), 1);
      char frame[2048];
      sockaddr_ll from = {};
      socklen_t length = sizeof(from);
      ASSERT_GT(::recvfrom(receiver.get(), frame, sizeof(frame), 0,
                           reinterpret_cast<sockaddr*>(&from), &length),
                0);
      EXPECT_NE(ntohs(from.sll_protocol), ETH_P_IPV6);
      if (ntohs(from.sll_protocol) == 0x88b5) break;
    }
  });
}

// moby #44742: flows that began before the port was published stay with the
// translation that they began with.
TEST_F(TrafficTest, UdpClientsFollowThePort) {
  RunInTestbed([](Testbed& bed) {
    Network network = OpenNetwork(bed.Options("web"));
    TestSocket client = bed.In(bed.outside(), [] { return BindUdp(40000); });
    // Before anybody serves the port, over a host socket that does not answer.
    {
      TestSocket nobody = BindUdp(53);
      ASSERT_TRUE(client.SendTo(kHostAddress, 53, "early"));
      EXPECT_TRUE(nobody.ReceiveFrom().has_value());
    }
    const PortMapping mapping = {
        .host_port = 53, .container_port = 5353, .protocol = kUdp};
    for (int i = 0; i < 3; ++i) {
      NetEndpoint a = Join(bed, network, {.name = "a", .ports = {mapping}});
      TestSocket server = bed.In(a.netns(), [] { return BindUdp(5353); });
      const std::string text = absl::StrCat("to server ", i);
      ASSERT_TRUE(client.SendTo(kHostAddress, 53, text));
      std::optional<Datagram> got = server.ReceiveFrom();
      ASSERT_TRUE(got.has_value()) << i;
      EXPECT_EQ(got->text, text);
    }
  });
}

// moby #36069: a neighbour's ARP entry outlives the container.
TEST_F(TrafficTest, ReusedAddressLeadsToTheNewContainer) {
  RunInTestbed([](Testbed& bed) {
    NetworkOptions options = bed.Options("web");
    options.subnet = "10.77.0.0/24";
    Network network = OpenNetwork(options);
    NetEndpoint client = Join(bed, network, {.name = "client"});
    TestSocket from = bed.In(client.netns(), [] { return BindUdp(0); });
    TestSocket host = BindUdp(0);
    for (int i = 0; i < 3; ++i) {
      NetEndpoint server =
          Join(bed, network, {.name = "server", .address = "10.77.0.50"});
      TestSocket to = bed.In(server.netns(), [] { return BindUdp(53); });
      ASSERT_TRUE(from.SendTo("10.77.0.50", 53, "from a container"));
      ASSERT_TRUE(to.ReceiveFrom().has_value()) << i;
      ASSERT_TRUE(host.SendTo("10.77.0.50", 53, "from the host"));
      ASSERT_TRUE(to.ReceiveFrom().has_value()) << i;
    }
  });
}

// A container that says it has another's address, or the gateway's, to catch
// what is sent there.
TEST_F(TrafficTest, ArpDoesNotRedirectTheHostOrTheGateway) {
  RunInTestbed([](Testbed& bed) {
    Network network = OpenNetwork(bed.Options("web"));
    NetEndpoint thief = Join(bed, network, {.name = "thief"});
    NetEndpoint victim = Join(bed, network, {.name = "victim"});
    Change(bed, thief.netns(), "eth0", [&](sys::NetlinkTrain& train, int link) {
      sys::AddAddress(train, link, Address(victim.address()), 32);
    });
    const auto claim = [&](absl::string_view address) {
      bed.Do(thief.netns(), [&] {
        absl::StatusOr<sys::NetlinkSocket> route =
            sys::NetlinkSocket::Open(NETLINK_ROUTE);
        const sys::LinkInfo link = *sys::GetLink(*route, "eth0");
        absl::StatusOr<UniqueFd> socket = OpenArpSocket();
        ASSERT_OK(socket);
        ASSERT_OK(AnnounceByArp(socket->borrow(), link.index,
                                *ParseIpv4Address("test", address), link.mac));
      });
    };
    claim(victim.address());
    claim(network.gateway());
    TestSocket server = bed.In(victim.netns(), [] { return BindUdp(53); });
    TestSocket caught = bed.In(thief.netns(), [] { return BindUdp(53); });
    TestSocket host = BindUdp(54);
    ASSERT_TRUE(host.SendTo(victim.address(), 53, "to the victim"));
    EXPECT_TRUE(server.ReceiveFrom().has_value());
    ASSERT_TRUE(server.SendTo(network.gateway(), 54, "to the host"));
    EXPECT_TRUE(host.ReceiveFrom().has_value());
    EXPECT_FALSE(caught.TryReceiveFrom().has_value());
  });
}

TEST_F(TrafficTest, DestroyedEndpointPassesNothing) {
  RunInTestbed([](Testbed& bed) {
    Network network = OpenNetwork(bed.Options("web"));
    NetEndpoint a = Join(bed, network, {.name = "a"});
    NetEndpoint b = Join(bed, network, {.name = "b"});
    TestSocket server = bed.In(b.netns(), [] { return BindUdp(53); });
    // The socket keeps a's namespace alive, as a forgotten process would.
    TestSocket leftover = bed.In(a.netns(), [] { return BindUdp(0); });
    ASSERT_TRUE(leftover.SendTo(b.address(), 53, "alive"));
    ASSERT_TRUE(server.ReceiveFrom().has_value());
    ASSERT_OK(a.Destroy());
    leftover.SendTo(b.address(), 53, "dead");
    TestSocket host = BindUdp(0);
    ASSERT_TRUE(host.SendTo(b.address(), 53, "sentinel"));
    EXPECT_EQ(server.ReceiveFrom()->text, "sentinel");
  });
}

TEST_F(TrafficTest, LoopbackIsForwarded) {
  RunInTestbed([](Testbed& bed) {
    Network network = OpenNetwork(bed.Options("web"));
    NetEndpoint a = Join(
        bed, network,
        {.name = "a",
         .ports = {{.host_port = 8080, .container_port = 80},
                   {.host_address = "127.0.0.1",
                    .host_port = 8081,
                    .container_port = 80},
                   {.host_port = 53, .container_port = 53, .protocol = kUdp}}});
    TestSocket server = bed.In(a.netns(), [] { return ListenTcp(80); });
    for (uint16_t port : {8080, 8081}) {
      TestSocket client = ConnectTcp("127.0.0.1", port);
      ASSERT_TRUE(client.valid());
      ForwardUntilReadable(a, server);
      TestSocket accepted = server.Accept();
      EXPECT_EQ(accepted.PeerAddress(), network.gateway());
      ASSERT_TRUE(client.Send("ping"));
      ForwardUntilReadable(a, accepted);
      EXPECT_EQ(accepted.Receive(), "ping");
      ASSERT_TRUE(accepted.Send("pong"));
      ForwardUntilReadable(a, client);
      EXPECT_EQ(client.Receive(), "pong");
    }
    TestSocket dns = bed.In(a.netns(), [] { return BindUdp(53); });
    TestSocket client = BindUdp(0);
    ASSERT_TRUE(client.SendTo("127.0.0.9", 53, "question"));
    ForwardUntilReadable(a, dns);
    std::optional<Datagram> question = dns.ReceiveFrom();
    ASSERT_TRUE(question.has_value());
    ASSERT_TRUE(dns.SendTo(question->from, question->from_port, "answer"));
    ForwardUntilReadable(a, client);
    std::optional<Datagram> answer = client.ReceiveFrom();
    ASSERT_TRUE(answer.has_value());
    EXPECT_EQ(answer->text, "answer");
    EXPECT_EQ(answer->from, "127.0.0.9");
  });
}

// The same from inside: whoever sets route_localnet for all interfaces does not
// mean the library's bridges.
TEST_F(TrafficTest, ContainersDoNotReachTheHostsLoopback) {
  RunInTestbed([](Testbed& bed) {
    Network network = OpenNetwork(bed.Options("web"));
    NetEndpoint a = Join(bed, network, {.name = "a"});
    const auto allow = [] {
      std::ofstream all("/proc/sys/net/ipv4/conf/all/route_localnet");
      all << "1" << std::flush;
    };
    allow();
    bed.Do(a.netns(), allow);
    Change(bed, a.netns(), "lo", [](sys::NetlinkTrain& train, int link) {
      sys::DeleteAddress(train, link, Address("127.0.0.1"), 8);
    });
    TestSocket loopback = BindUdp(53, "127.0.0.1");
    TestSocket gateway = BindUdp(54);
    TestSocket inside =
        bed.In(a.netns(), [&] { return BindUdp(0, Text(a.address())); });
    ASSERT_TRUE(inside.SendTo("127.0.0.1", 53, "loopback"));
    ASSERT_TRUE(inside.SendTo(network.gateway(), 54, "sentinel"));
    ASSERT_TRUE(gateway.ReceiveFrom().has_value());
    EXPECT_FALSE(loopback.TryReceiveFrom().has_value());
  });
}

// CVE-2020-8558: with route_localnet set, by other software, neighbours can
// address 127.0.0.0/8 of a host.
TEST_F(TrafficTest, LoopbackPortsAreForTheHostAlone) {
  RunInTestbed([](Testbed& bed) {
    std::ofstream sysctl("/proc/sys/net/ipv4/conf/up0/route_localnet");
    sysctl << "1" << std::flush;
    Network network = OpenNetwork(bed.Options("web"));
    NetEndpoint a = Join(
        bed, network,
        {.name = "a",
         .ports = {{.host_address = "127.0.0.1",
                    .host_port = 53,
                    .container_port = 53,
                    .protocol = kUdp},
                   {.host_port = 54, .container_port = 53, .protocol = kUdp}}});
    bed.Do(bed.outside(), [] {
      std::ofstream all("/proc/sys/net/ipv4/conf/all/route_localnet");
      all << "1" << std::flush;
    });
    // 127.0.0.1 of the host, by way of a route in the outside's main table that
    // is looked up before its own loopback.
    Change(bed, bed.outside(), "lo", [](sys::NetlinkTrain& train, int link) {
      sys::DeleteAddress(train, link, Address("127.0.0.1"), 8);
    });
    Change(bed, bed.outside(), "out0", [](sys::NetlinkTrain& train, int link) {
      sys::AddDefaultRoute(train, link, Address(kHostAddress));
    });
    TestSocket server = bed.In(a.netns(), [] { return BindUdp(53); });
    TestSocket client =
        bed.In(bed.outside(), [] { return BindUdp(0, kOutsideAddress); });
    ASSERT_TRUE(client.SendTo("127.0.0.1", 53, "neighbour"));
    ASSERT_TRUE(client.SendTo(kHostAddress, 54, "sentinel"));
    ForwardUntilReadable(a, server);
    EXPECT_EQ(server.ReceiveFrom()->text, "sentinel");
    EXPECT_OK(a.Forward());
    EXPECT_FALSE(server.TryReceiveFrom().has_value());
  });
}

}  // namespace
}  // namespace caisson
