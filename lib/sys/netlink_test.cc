#include "lib/sys/netlink.h"

#include <errno.h>
#include <fcntl.h>
#include <libmnl/libmnl.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <sys/socket.h>

#include <atomic>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "caisson/error.h"
#include "lib/base/status_matchers.h"
#include "lib/sys/net_namespace_test_util.h"
#include "lib/sys/rtnetlink.h"

namespace caisson::sys {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::HasSubstr;

TEST(NetlinkTrainTest, MessagesFollowEachOther) {
  NetlinkTrain train;
  EXPECT_TRUE(train.empty());
  AddBridge(train, "br-test", {2, 0, 0, 0, 0, 1}, 1400);
  AskLink(train, "br-test");
  EXPECT_EQ(train.count(), 2u);
  const std::string bytes(train.bytes());
  int left = static_cast<int>(bytes.size());
  auto* message = reinterpret_cast<const nlmsghdr*>(bytes.data());
  ASSERT_TRUE(mnl_nlmsg_ok(message, left));
  EXPECT_EQ(message->nlmsg_type, RTM_NEWLINK);
  EXPECT_EQ(message->nlmsg_flags, NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL);
  std::string name;
  ForEachAttribute(*message, sizeof(ifinfomsg), [&](const nlattr& attribute) {
    if (AttributeType(attribute) == IFLA_IFNAME) {
      name = AttributeString(attribute);
    }
    if (AttributeType(attribute) == IFLA_MTU) {
      EXPECT_EQ(AttributeU32(attribute), 1400u);
    }
  });
  EXPECT_EQ(name, "br-test");
  message = mnl_nlmsg_next(message, &left);
  ASSERT_TRUE(mnl_nlmsg_ok(message, left));
  EXPECT_EQ(message->nlmsg_type, RTM_GETLINK);
  mnl_nlmsg_next(message, &left);
  EXPECT_EQ(left, 0);
}

// One message: both ends, with names, addresses and the peer's namespace.
TEST(NetlinkTrainTest, VethIsBornComplete) {
  NetlinkTrain train;
  AddVeth(train, {.name = "host-end",
                  .mac = {2, 0, 0, 0, 0, 1},
                  .master = 7,
                  .mtu = 1400,
                  .peer_name = "eth0",
                  .peer_mac = {2, 0, 0, 0, 0, 2},
                  .peer_namespace = BorrowedFd(33)});
  ASSERT_EQ(train.count(), 1u);
  const std::string bytes(train.bytes());
  auto* message = reinterpret_cast<const nlmsghdr*>(bytes.data());
  std::set<int> seen;
  std::string peer;
  ForEachAttribute(*message, sizeof(ifinfomsg), [&](const nlattr& attribute) {
    seen.insert(AttributeType(attribute));
    if (AttributeType(attribute) != IFLA_LINKINFO) return;
    ForEachNested(attribute, [&](const nlattr& info) {
      if (AttributeType(info) != IFLA_INFO_DATA) return;
      ForEachNested(info, [&](const nlattr& data) {
        if (AttributeType(data) == VETH_INFO_PEER) {
          peer = std::string(AttributeBytes(data));
        }
      });
    });
  });
  EXPECT_EQ(seen.count(IFLA_MASTER), 1u);
  EXPECT_EQ(seen.count(IFLA_ADDRESS), 1u);
  EXPECT_THAT(peer, HasSubstr("eth0"));
  EXPECT_THAT(peer, HasSubstr(std::string("\x21\0\0\0", 4)));
}

TEST(NetlinkSocketTest, AdoptsOnlyWhatItShould) {
  UniqueFd udp(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  EXPECT_THAT(NetlinkSocket::Adopt(std::move(udp), NETLINK_ROUTE).status(),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("not a netlink socket")));
  UniqueFd other(
      ::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG));
  EXPECT_FALSE(NetlinkSocket::Adopt(std::move(other), NETLINK_ROUTE).ok());
  EXPECT_FALSE(NetlinkSocket::Adopt(UniqueFd(), NETLINK_ROUTE).ok());
  UniqueFd route(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
  EXPECT_OK(NetlinkSocket::Adopt(std::move(route), NETLINK_ROUTE));
}

TEST(NetlinkSocketTest, NamespacesAreIdentified) {
  ASSERT_OK_AND_ASSIGN(NetlinkSocket socket,
                       NetlinkSocket::Open(NETLINK_ROUTE));
  UniqueFd ns(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
  ASSERT_OK_AND_ASSIGN(const NamespaceId id, NetNamespaceIdOf(ns.borrow()));
  EXPECT_NE(id.inode, 0u);
  UniqueFd mount(::open("/proc/thread-self/ns/mnt", O_RDONLY | O_CLOEXEC));
  EXPECT_THAT(NetNamespaceIdOf(mount.borrow()),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("not of a network namespace")));
  UniqueFd file(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  EXPECT_FALSE(NetNamespaceIdOf(file.borrow()).ok());
  EXPECT_FALSE(NetNamespaceIdOf(BorrowedFd()).ok());
}

TEST(NetlinkSocketTest, ErrorsNameTheMessage) {
  ASSERT_OK_AND_ASSIGN(NetlinkSocket socket,
                       NetlinkSocket::Open(NETLINK_ROUTE));
  const absl::Status status = GetLink(socket, "no-such-link").status();
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kNotFound,
                               HasSubstr("RTM_GETLINK(\"no-such-link\"): "
                                         "ENODEV")));
  EXPECT_EQ(GetErrorDetail(status)->error, ENODEV);
}

class NetlinkKernelTest : public NetNamespaceTest {};

TEST_F(NetlinkKernelTest, KernelsOwnWordsAreInTheError) {
  RunInNamespace(NETLINK_ROUTE, [](NetlinkSocket& socket) {
    NetlinkTrain train;
    AddBridge(train, "br", {2, 0, 0, 0, 0, 1}, 70'000);
    const absl::Status status = socket.Run(train);
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kInvalidArgument,
                                 HasSubstr("RTM_NEWLINK(bridge \"br\", mtu "
                                           "70000): EINVAL")));
    EXPECT_THAT(std::string(status.message()), HasSubstr("the kernel says: "));
  });
}

TEST_F(NetlinkKernelTest, FirstFailureIsReportedAndLaterMessagesRun) {
  RunInNamespace(NETLINK_ROUTE, [](NetlinkSocket& socket) {
    NetlinkTrain train;
    AddBridge(train, "one", {2, 0, 0, 0, 0, 1}, 1500);
    AddBridge(train, "one", {2, 0, 0, 0, 0, 2}, 1500);
    DeleteLink(train, 4711);
    AddBridge(train, "two", {2, 0, 0, 0, 0, 3}, 1500);
    EXPECT_THAT(socket.Run(train), StatusIs(absl::StatusCode::kAlreadyExists,
                                            HasSubstr("\"one\"")));
    EXPECT_OK(GetLink(socket, "two"));
    // The socket is in order afterwards.
    absl::StatusOr<std::vector<LinkInfo>> bridges = ListLinks(socket, "bridge");
    ASSERT_OK(bridges);
    EXPECT_EQ(bridges->size(), 2u);
    EXPECT_EQ(FormatMac((*bridges)[0].mac), "02:00:00:00:00:01");

    NetlinkTrain tolerant;
    DeleteLink(tolerant, 4711);
    tolerant.Tolerate(ENODEV);
    DeleteLink(tolerant, (*bridges)[0].index);
    EXPECT_OK(socket.Run(tolerant));
    NetlinkTrain strict;
    DeleteLink(strict, (*bridges)[1].index);
    strict.Tolerate(ENODEV);
    DeleteLink(strict, 4711);
    EXPECT_FALSE(socket.Run(strict).ok());
  });
}

TEST_F(NetlinkKernelTest, DumpsAreConsistentWhileThingsChange) {
  RunInNamespace(NETLINK_ROUTE, [](NetlinkSocket& socket) {
    constexpr uint32_t kFirst = 0x0a000000;
    constexpr uint32_t kCount = 2000;  // more than one datagram
    for (uint32_t i = 0; i < kCount; i += 100) {
      NetlinkTrain train;
      for (uint32_t j = i; j < i + 100; ++j) {
        AddAddress(train, 1, {htonl(kFirst + j)}, 32);
      }
      ASSERT_OK(socket.Run(train));
    }
    std::atomic<bool> stop = false;
    std::thread changer([&stop] {
      absl::StatusOr<NetlinkSocket> own = NetlinkSocket::Open(NETLINK_ROUTE);
      while (!stop) {
        NetlinkTrain train;
        AddAddress(train, 1, {htonl(0x0b000000)}, 32);
        DeleteAddress(train, 1, {htonl(0x0b000000)}, 32);
        EXPECT_OK(own->Run(train));
        std::this_thread::yield();
      }
    });
    for (int i = 0; i < 50; ++i) {
      const absl::StatusOr<std::vector<AddressInfo>> addresses =
          ListAddresses(socket);
      // Giving up after many attempts is honest, too.
      if (absl::IsUnavailable(addresses.status())) continue;
      ASSERT_OK(addresses);
      std::set<uint32_t> seen;
      for (const AddressInfo& info : *addresses) {
        EXPECT_TRUE(seen.insert(info.address.s_addr).second);
      }
      EXPECT_GE(seen.size(), kCount);
    }
    stop = true;
    changer.join();
  });
}

// Linux 6.8 and later tell what they were told; older ones have no such limit.
TEST_F(NetlinkKernelTest, BridgeLearnsABoundedNumberOfAddresses) {
  constexpr int kMaxLearned = 49;
  RunInNamespace(NETLINK_ROUTE, [](NetlinkSocket& socket) {
    NetlinkTrain train;
    AddBridge(train, "br", {2, 0, 0, 0, 0, 1}, 1500);
    AskLink(train, "br");
    uint32_t limit = 0;
    bool known = false;
    ASSERT_OK(socket.Run(train, [&](const nlmsghdr& reply) {
      ForEachAttribute(reply, sizeof(ifinfomsg), [&](const nlattr& attribute) {
        if (AttributeType(attribute) != IFLA_LINKINFO) return;
        ForEachNested(attribute, [&](const nlattr& info) {
          if (AttributeType(info) != IFLA_INFO_DATA) return;
          ForEachNested(info, [&](const nlattr& data) {
            if (AttributeType(data) != kMaxLearned) return;
            limit = AttributeU32(data);
            known = true;
          });
        });
      });
    }));
    EXPECT_EQ(limit, known ? 16384u : 0u);
  });
}

TEST_F(NetlinkKernelTest, MonitorHearsOfLinks) {
  RunInNamespace(NETLINK_ROUTE, [](NetlinkSocket& socket) {
    absl::StatusOr<NetlinkSocket> monitor =
        NetlinkSocket::OpenMonitor(NETLINK_ROUTE, RTMGRP_LINK);
    ASSERT_OK(monitor);
    EXPECT_FALSE(*monitor->WaitForNotification(absl::ZeroDuration()));
    NetlinkTrain train;
    AddBridge(train, "br", {2, 0, 0, 0, 0, 1}, 1500);
    ASSERT_OK(socket.Run(train));
    EXPECT_TRUE(*monitor->WaitForNotification(absl::Seconds(10)));
    EXPECT_FALSE(*monitor->WaitForNotification(absl::ZeroDuration()));
  });
}

TEST_F(NetlinkKernelTest, LinksBecomeOperational) {
  RunInNamespace(NETLINK_ROUTE, [](NetlinkSocket& socket) {
    NetlinkTrain train;
    AddVeth(train, {.name = "a",
                    .mac = {2, 0, 0, 0, 0, 1},
                    .mtu = 1500,
                    .peer_name = "b",
                    .peer_mac = {2, 0, 0, 0, 0, 2},
                    .peer_namespace = BorrowedFd(::open(
                        "/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC))});
    SetLinkUp(train, "a");
    SetLinkUp(train, "b");
    ASSERT_OK(socket.Run(train));
    absl::StatusOr<LinkInfo> a = GetLink(socket, "a");
    absl::StatusOr<LinkInfo> b = GetLink(socket, "b");
    ASSERT_OK(a);
    ASSERT_OK(b);
    EXPECT_EQ(a->kind, "veth");
    EXPECT_OK(AwaitOperational(socket, {a->index, b->index}));
    EXPECT_TRUE(GetLink(socket, a->index)->operational);
    EXPECT_FALSE(AwaitOperational(socket, {4711}).ok());
  });
}

}  // namespace
}  // namespace caisson::sys
