// Endpoints whose owner is gone, kept by their lifelines.
#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include "caisson/net_endpoint.h"
#include "caisson/network.h"
#include "lib/base/status_matchers.h"
#include "lib/net/net_testbed.h"
#include "lib/sys/pidfd_open.h"

namespace caisson {
namespace {

using ::caisson::testing::BindUdp;
using ::caisson::testing::ConnectTcp;
using ::caisson::testing::Converse;
using ::caisson::testing::CountFds;
using ::caisson::testing::ForwardUntilReadable;
using ::caisson::testing::Join;
using ::caisson::testing::kHostAddress;
using ::caisson::testing::kOutsideAddress;
using ::caisson::testing::ListenTcp;
using ::caisson::testing::NetKernelTest;
using ::caisson::testing::OpenNetwork;
using ::caisson::testing::RunInTestbed;
using ::caisson::testing::StatusIs;
using ::caisson::testing::Testbed;
using ::caisson::testing::TestSocket;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class LifelinesTest : public NetKernelTest {};

EndpointOptions Options() {
  return {.name = "web",
          .aliases = {"www"},
          .ports = {{.host_port = 8080, .container_port = 80},
                    {.host_port = 53,
                     .container_port = 5353,
                     .protocol = PortMapping::Protocol::kUdp}}};
}

enum class End { kDisowned, kKilled };

// The lifelines of an endpoint that another process made, which has ended.
std::vector<UniqueFd> OfAnotherProcess(Testbed& bed, End end) {
  int fds[2];
  EXPECT_EQ(::pipe(fds), 0);
  const UniqueFd reader(fds[0]);
  UniqueFd writer(fds[1]);
  const pid_t pid = ::fork();
  if (pid == 0) {
    Network network = OpenNetwork(bed.Options("web"));
    NetEndpoint other = Join(bed, network, {.name = "other"});
    NetEndpoint endpoint = Join(bed, network, Options());
    auto lifelines = endpoint.Lifelines();
    if (!lifelines.ok()) ::_exit(2);
    std::vector<int> numbers;
    for (const UniqueFd& lifeline : *lifelines) {
      numbers.push_back(lifeline.get());
    }
    const size_t size = numbers.size() * sizeof(int);
    if (::write(writer.get(), numbers.data(), size) < 0) ::_exit(3);
    // Goes on when the parent has taken them.
    ::raise(SIGSTOP);
    if (end == End::kKilled) ::raise(SIGKILL);
    endpoint.Disown();
    if (endpoint.netns().valid()) ::_exit(4);
    if (endpoint.Lifelines().ok()) ::_exit(5);
    if (!other.Destroy().ok()) ::_exit(6);
    {
      NetEndpoint gone = std::move(endpoint);
      const Network closed = std::move(network);
    }
    ::_exit(0);
  }
  writer.reset();
  std::vector<UniqueFd> lifelines;
  auto pidfd = sys::OpenPidfd(pid);
  EXPECT_OK(pidfd);
  int number;
  int status = 0;
  EXPECT_EQ(::waitpid(pid, &status, WUNTRACED), pid);
  EXPECT_TRUE(WIFSTOPPED(status)) << status;
  while (::read(reader.get(), &number, sizeof(number)) == sizeof(number)) {
    lifelines.emplace_back(
        static_cast<int>(::syscall(SYS_pidfd_getfd, pidfd->get(), number, 0)));
    EXPECT_TRUE(lifelines.back().valid());
    if (lifelines.size() == 7) break;
  }
  ::kill(pid, SIGCONT);
  EXPECT_EQ(::waitpid(pid, &status, 0), pid);
  EXPECT_EQ(status, end == End::kKilled ? SIGKILL : 0);
  return lifelines;
}

std::vector<UniqueFd> Duplicates(const std::vector<UniqueFd>& lifelines) {
  std::vector<UniqueFd> copies;
  for (const UniqueFd& lifeline : lifelines) {
    copies.emplace_back(::fcntl(lifeline.get(), F_DUPFD_CLOEXEC, 3));
  }
  return copies;
}

void CheckTraffic(Testbed& bed, BorrowedFd netns) {
  TestSocket server = bed.In(netns, [] { return ListenTcp(80); });
  EXPECT_EQ(Converse(bed.In(bed.outside(),
                            [] { return ConnectTcp(kHostAddress, 8080); }),
                     server),
            kOutsideAddress);
  TestSocket outside = bed.In(bed.outside(), [] { return ListenTcp(80); });
  EXPECT_EQ(
      Converse(bed.In(netns, [] { return ConnectTcp(kOutsideAddress, 80); }),
               outside),
      kHostAddress);
}

void OutlivesItsOwner(End end) {
  RunInTestbed([end](Testbed& bed) {
    const int fds = CountFds();
    {
      std::vector<UniqueFd> lifelines = OfAnotherProcess(bed, end);
      ASSERT_THAT(lifelines, SizeIs(7));
      // The other endpoint, of a process that was killed.
      ASSERT_OK_AND_ASSIGN(const std::vector<std::string> recovered,
                           Network::Recover(bed.state_dir()));
      if (end == End::kDisowned) {
        EXPECT_THAT(recovered, IsEmpty());
      } else {
        EXPECT_THAT(recovered, ElementsAre(HasSubstr("other")));
      }
      EXPECT_EQ(bed.Tables().size(), 2u);
      CheckTraffic(bed, lifelines[1].borrow());

      Network network = OpenNetwork(bed.Options("web"));
      ASSERT_OK_AND_ASSIGN(const std::vector<HostsEntry> hosts,
                           network.Hosts());
      ASSERT_THAT(hosts, SizeIs(1));
      EXPECT_THAT(NetEndpoint::Create(network, bed.MakeNamespace(), Options()),
                  StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("")));
      {
        // One that is only looked at stays.
        ASSERT_OK_AND_ASSIGN(
            const NetEndpoint seen,
            NetEndpoint::Attach(network, Duplicates(lifelines)));
        EXPECT_EQ(seen.name(), "web");
        EXPECT_EQ(seen.address(), hosts[0].address);
        EXPECT_EQ(seen.ports().size(), 2u);
        EXPECT_EQ(seen.ports()[1].host_port, 53);
      }
      CheckTraffic(bed, lifelines[1].borrow());
      ASSERT_OK_AND_ASSIGN(NetEndpoint endpoint,
                           NetEndpoint::Attach(network, std::move(lifelines)));
      {
        // Connections that the kernel does not translate are carried again.
        TestSocket server =
            bed.In(endpoint.netns(), [] { return ListenTcp(80); });
        TestSocket client = ConnectTcp("127.0.0.1", 8080);
        ForwardUntilReadable(endpoint, server);
        EXPECT_EQ(server.Accept().PeerAddress(), endpoint.gateway());
      }
      ASSERT_OK(endpoint.Destroy());
      EXPECT_THAT(*network.Hosts(), IsEmpty());
      // All of it can be used again.
      NetEndpoint next = Join(bed, network, Options());
      CheckTraffic(bed, next.netns());
    }
    EXPECT_TRUE(bed.WaitForLinks({}));
    bed.ExpectClean();
    EXPECT_EQ(CountFds(), fds);
  });
}

TEST_F(LifelinesTest, EndpointOutlivesAnOwnerThatIsKilled) {
  OutlivesItsOwner(End::kKilled);
}

TEST_F(LifelinesTest, EndpointOutlivesAnOwnerThatDisownsIt) {
  OutlivesItsOwner(End::kDisowned);
}

// Name and address are free when the first has destroyed it, and what the
// second does is not to be felt by whoever has them then.
TEST_F(LifelinesTest, TwoThatAttachedDestroyItOnce) {
  RunInTestbed([](Testbed& bed) {
    {
      std::vector<UniqueFd> lifelines = OfAnotherProcess(bed, End::kDisowned);
      Network network = OpenNetwork(bed.Options("web"));
      ASSERT_OK_AND_ASSIGN(NetEndpoint second,
                           NetEndpoint::Attach(network, Duplicates(lifelines)));
      ASSERT_OK_AND_ASSIGN(NetEndpoint first,
                           NetEndpoint::Attach(network, std::move(lifelines)));
      const std::string address(first.address());
      ASSERT_OK(first.Destroy());
      NetEndpoint next =
          Join(bed, network, {.name = "web", .address = address});
      ASSERT_OK(second.Destroy());
      ASSERT_OK_AND_ASSIGN(const std::vector<HostsEntry> hosts,
                           network.Hosts());
      ASSERT_THAT(hosts, SizeIs(1));
      EXPECT_EQ(hosts[0].address, address);
      TestSocket server = bed.In(next.netns(), [] { return ListenTcp(80); });
      EXPECT_EQ(Converse(ConnectTcp(address, 80), server), next.gateway());
    }
    EXPECT_TRUE(bed.WaitForLinks({}));
    bed.ExpectClean();
  });
}

TEST_F(LifelinesTest, WithoutThemItIsRecovered) {
  RunInTestbed([](Testbed& bed) {
    OfAnotherProcess(bed, End::kDisowned).clear();
    ASSERT_OK(Network::Recover(bed.state_dir()).status());
    EXPECT_TRUE(bed.WaitForLinks({}));
    bed.ExpectClean();
  });
}

TEST_F(LifelinesTest, OnlyOfTheirNetwork) {
  RunInTestbed([](Testbed& bed) {
    std::vector<UniqueFd> lifelines = OfAnotherProcess(bed, End::kDisowned);
    Network other = OpenNetwork(bed.Options("db"));
    EXPECT_THAT(NetEndpoint::Attach(other, {}),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("not all lifelines")));
    EXPECT_THAT(NetEndpoint::Attach(other, std::move(lifelines)),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("but of one of network \"web\"")));
    ASSERT_OK(Network::Recover(bed.state_dir()).status());
  });
}

}  // namespace
}  // namespace caisson
