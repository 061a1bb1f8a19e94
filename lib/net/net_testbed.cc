#include "lib/net/net_testbed.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/rtnetlink.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "absl/strings/str_cat.h"
#include "lib/base/status_matchers.h"
#include "lib/net/host_links.h"
#include "lib/net/ipv4.h"

namespace caisson::testing {
namespace {

constexpr int kTimeoutMs = 5000;
constexpr unsigned kTestTimeoutSeconds = 120;

UniqueFd OpenCurrentNamespace() {
  return UniqueFd(::open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
}

sockaddr_in SocketAddress(const std::string& address, uint16_t port) {
  sockaddr_in result = {};
  result.sin_family = AF_INET;
  result.sin_port = htons(port);
  ::inet_pton(AF_INET, address.c_str(), &result.sin_addr);
  return result;
}

bool WaitFor(int fd, short events) {
  pollfd ready = {fd, events, 0};
  return ::poll(&ready, 1, kTimeoutMs) == 1;
}

in_addr Address(const char* text) {
  return ParseIpv4Address("test", text)->in();
}

// A failure that ends the child: nothing in it makes sense any more.
void Require(bool condition, const char* what) {
  if (condition) return;
  ADD_FAILURE() << what << ": " << ::strerror(errno);
  ::fflush(nullptr);
  ::_exit(1);
}

void RequireOk(const absl::Status& status, const char* what) {
  if (status.ok()) return;
  ADD_FAILURE() << what << ": " << status;
  ::fflush(nullptr);
  ::_exit(1);
}

void PinToOneProcessor() {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(::sched_getcpu(), &set);
  ::sched_setaffinity(0, sizeof(set), &set);
}

void BringUp(sys::NetlinkSocket& route, const char* interface,
             const char* address, const char* gateway) {
  const absl::StatusOr<sys::LinkInfo> link = sys::GetLink(route, interface);
  RequireOk(link.status(), interface);
  sys::NetlinkTrain train;
  sys::SetLinkUp(train, link->index);
  if (address != nullptr) {
    sys::AddAddress(train, link->index, Address(address), 24);
  }
  if (gateway != nullptr) {
    sys::AddDefaultRoute(train, link->index, Address(gateway));
  }
  RequireOk(route.Run(train), interface);
}

void AwaitOperational(const char* interface) {
  absl::StatusOr<sys::NetlinkSocket> route =
      sys::NetlinkSocket::Open(NETLINK_ROUTE);
  const absl::StatusOr<sys::LinkInfo> link = sys::GetLink(*route, interface);
  RequireOk(link.status(), interface);
  RequireOk(sys::AwaitOperational(*route, {link->index}), interface);
}

}  // namespace

Testbed::Testbed() {
  Require(::unshare(CLONE_NEWNET | CLONE_NEWNS) == 0, "unshare(NEWNET|NEWNS)");
  Require(::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0,
          "mount(private)");
  host_ = OpenCurrentNamespace();
  std::string path = absl::StrCat(::testing::TempDir(), "/caisson-net-XXXXXX");
  Require(::mkdtemp(path.data()) != nullptr, "mkdtemp()");
  // As /run is.
  Require(::mount("tmpfs", path.c_str(), "tmpfs", 0, "mode=0755") == 0,
          "mount(tmpfs)");
  state_dir_ = absl::StrCat(path, "/net");

  outside_ = MakeNamespace();
  absl::StatusOr<sys::NetlinkSocket> route =
      sys::NetlinkSocket::Open(NETLINK_ROUTE);
  RequireOk(route.status(), "netlink");
  sys::VethRequest uplink;
  uplink.name = "up0";
  uplink.mac = RandomMac();
  uplink.mtu = kUplinkMtu;
  uplink.peer_name = "out0";
  uplink.peer_mac = RandomMac();
  uplink.peer_namespace = outside();
  sys::NetlinkTrain train;
  sys::AddVeth(train, uplink);
  RequireOk(route->Run(train), "uplink");
  Do(outside(), [] {
    absl::StatusOr<sys::NetlinkSocket> inside =
        sys::NetlinkSocket::Open(NETLINK_ROUTE);
    BringUp(*inside, "lo", nullptr, nullptr);
    BringUp(*inside, "out0", kOutsideAddress, nullptr);
  });
  BringUp(*route, "lo", nullptr, nullptr);
  BringUp(*route, "up0", kHostAddress, kOutsideAddress);
  AwaitOperational("up0");
  Do(outside(), [] { AwaitOperational("out0"); });
}

// The mount goes with the process; the directory below it needs a hand.
Testbed::~Testbed() {
  const std::string path =
      std::filesystem::path(state_dir_).parent_path().string();
  ::umount2(path.c_str(), MNT_DETACH);
  ::rmdir(path.c_str());
}

void Testbed::Enter(BorrowedFd ns) {
  Require(::setns(ns.get(), CLONE_NEWNET) == 0, "setns()");
}

void Testbed::Do(BorrowedFd ns, const std::function<void()>& body) {
  Enter(ns);
  body();
  Enter(host_.borrow());
}

NetNamespace Testbed::MakeNamespace() {
  NetNamespace made;
  Require(::unshare(CLONE_NEWNET) == 0, "unshare(NEWNET)");
  made.ns = OpenCurrentNamespace();
  made.rtnetlink =
      UniqueFd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
  Require(made.ns.valid() && made.rtnetlink.valid(), "namespace");
  Enter(host_.borrow());
  return made;
}

NetworkOptions Testbed::Options(const std::string& name) const {
  NetworkOptions options;
  options.name = name;
  options.state_dir = state_dir_;
  options.uplink_forwarding = UplinkForwarding::kEnable;
  return options;
}

std::vector<std::string> Testbed::Links() {
  absl::StatusOr<sys::NetlinkSocket> route =
      sys::NetlinkSocket::Open(NETLINK_ROUTE);
  std::vector<std::string> names;
  for (const char* kind : {"bridge", "veth"}) {
    const absl::StatusOr<std::vector<sys::LinkInfo>> links =
        sys::ListLinks(*route, kind);
    EXPECT_OK(links);
    if (!links.ok()) continue;
    for (const sys::LinkInfo& link : *links) {
      if (link.name != "up0") names.push_back(link.name);
    }
  }
  std::sort(names.begin(), names.end());
  return names;
}

bool Testbed::WaitForLinks(const std::vector<std::string>& expected) {
  UniqueFd events(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK,
                           NETLINK_ROUTE));
  sockaddr_nl groups = {};
  groups.nl_family = AF_NETLINK;
  groups.nl_groups = RTMGRP_LINK;
  Require(::bind(events.get(), reinterpret_cast<sockaddr*>(&groups),
                 sizeof(groups)) == 0,
          "bind(RTMGRP_LINK)");
  std::set<std::string> wanted(expected.begin(), expected.end());
  for (;;) {
    const std::vector<std::string> now = Links();
    if (std::set<std::string>(now.begin(), now.end()) == wanted) return true;
    if (!WaitFor(events.get(), POLLIN)) return false;
    char buffer[65536];
    while (::recv(events.get(), buffer, sizeof(buffer), 0) > 0) {
    }
  }
}

std::vector<std::string> Testbed::Tables() {
  absl::StatusOr<sys::NetlinkSocket> socket =
      sys::NetlinkSocket::Open(NETLINK_NETFILTER);
  sys::NetlinkTrain request;
  nlmsghdr* message = request.Add(NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETTABLE,
                                  0, "list tables");
  mnl_nlmsg_put_extra_header(message, sizeof(nfgenmsg));
  std::vector<std::string> tables;
  EXPECT_OK(socket->Dump(request, [&tables](const nlmsghdr& row) {
    sys::ForEachAttribute(row, sizeof(nfgenmsg), [&](const nlattr& attribute) {
      if (sys::AttributeType(attribute) == NFTA_TABLE_NAME) {
        tables.push_back(sys::AttributeString(attribute));
      }
    });
  }));
  return tables;
}

std::vector<std::string> Testbed::StateFiles() {
  std::vector<std::string> files;
  std::error_code error;
  for (const auto& entry :
       std::filesystem::recursive_directory_iterator(state_dir_, error)) {
    const std::string name =
        std::filesystem::relative(entry.path(), state_dir_).string();
    if (name != "caisson-net.lock") files.push_back(name);
  }
  std::sort(files.begin(), files.end());
  return files;
}

void Testbed::ExpectClean() {
  EXPECT_TRUE(WaitForLinks({})) << ::testing::PrintToString(Links());
  EXPECT_EQ(Tables(), std::vector<std::string>());
  EXPECT_EQ(StateFiles(), std::vector<std::string>());
}

void NetKernelTest::SetUp() {
  const int status = RunForked([] {
    if (::unshare(CLONE_NEWNET | CLONE_NEWNS) != 0) ::_exit(77);
  });
  if (status == 0) return;
  if (testing::TestsMustRun()) {
    FAIL() << "cannot make a network namespace: CAP_SYS_ADMIN is missing";
  }
  GTEST_SKIP() << "cannot make a network namespace: CAP_SYS_ADMIN is missing";
}

void RunInTestbed(const std::function<void(Testbed&)>& body) {
  const int status = RunForked([&body] {
    ::alarm(kTestTimeoutSeconds);
    PinToOneProcessor();
    Testbed bed;
    body(bed);
  });
  EXPECT_EQ(status, 0) << "the testbed's child failed";
}

int RunForked(const std::function<void()>& body) {
  ::fflush(nullptr);
  const pid_t child = ::fork();
  if (child == 0) {
    body();
    ::fflush(nullptr);
    ::_exit(::testing::Test::HasFailure() ? 1 : 0);
  }
  int status = -1;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  return status;
}

uint16_t TestSocket::port() const {
  sockaddr_in address = {};
  socklen_t length = sizeof(address);
  ::getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&address), &length);
  return ntohs(address.sin_port);
}

TestSocket TestSocket::Accept() {
  if (!WaitFor(fd_.get(), POLLIN)) return TestSocket();
  return TestSocket(
      UniqueFd(::accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC)));
}

std::string TestSocket::PeerAddress() const {
  sockaddr_in address = {};
  socklen_t length = sizeof(address);
  ::getpeername(fd_.get(), reinterpret_cast<sockaddr*>(&address), &length);
  return sys::FormatAddress(address.sin_addr);
}

uint16_t TestSocket::PeerPort() const {
  sockaddr_in address = {};
  socklen_t length = sizeof(address);
  ::getpeername(fd_.get(), reinterpret_cast<sockaddr*>(&address), &length);
  return ntohs(address.sin_port);
}

bool TestSocket::Send(absl::string_view text) {
  return ::send(fd_.get(), text.data(), text.size(), MSG_NOSIGNAL) ==
         static_cast<ssize_t>(text.size());
}

std::string TestSocket::Receive() {
  char buffer[65536];
  if (!WaitFor(fd_.get(), POLLIN)) return "(timeout)";
  const ssize_t n = ::recv(fd_.get(), buffer, sizeof(buffer), 0);
  if (n < 0) return absl::StrCat("(", ::strerrorname_np(errno), ")");
  return std::string(buffer, static_cast<size_t>(n));
}

std::string TestSocket::ReceiveAll() {
  std::string all;
  for (std::string part = Receive(); !part.empty(); part = Receive()) {
    all += part;
    if (part[0] == '(') break;
  }
  return all;
}

bool TestSocket::SendTo(absl::string_view address, uint16_t port,
                        absl::string_view text) {
  const sockaddr_in to = SocketAddress(std::string(address), port);
  return ::sendto(fd_.get(), text.data(), text.size(), MSG_NOSIGNAL,
                  reinterpret_cast<const sockaddr*>(&to),
                  sizeof(to)) == static_cast<ssize_t>(text.size());
}

std::optional<Datagram> TestSocket::ReceiveFrom() {
  if (!WaitFor(fd_.get(), POLLIN)) return std::nullopt;
  return TryReceiveFrom();
}

std::optional<Datagram> TestSocket::TryReceiveFrom() {
  char buffer[65536];
  sockaddr_in from = {};
  socklen_t length = sizeof(from);
  const ssize_t n = ::recvfrom(fd_.get(), buffer, sizeof(buffer), MSG_DONTWAIT,
                               reinterpret_cast<sockaddr*>(&from), &length);
  if (n < 0) return std::nullopt;
  return Datagram{std::string(buffer, static_cast<size_t>(n)),
                  sys::FormatAddress(from.sin_addr), ntohs(from.sin_port)};
}

TestSocket ListenTcp(uint16_t port, const std::string& address) {
  UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int on = 1;
  ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  const sockaddr_in local = SocketAddress(address, port);
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&local),
             sizeof(local)) != 0 ||
      ::listen(fd.get(), 128) != 0) {
    ADD_FAILURE() << "listen on " << port << ": " << ::strerror(errno);
    return TestSocket();
  }
  return TestSocket(std::move(fd));
}

TestSocket ConnectTcp(const std::string& address, uint16_t port) {
  UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const sockaddr_in remote = SocketAddress(address, port);
  ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&remote),
            sizeof(remote));
  int error = 0;
  socklen_t length = sizeof(error);
  if (!WaitFor(fd.get(), POLLOUT) ||
      ::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &length) != 0 ||
      error != 0) {
    errno = error;
    return TestSocket();
  }
  ::fcntl(fd.get(), F_SETFL, 0);
  return TestSocket(std::move(fd));
}

TestSocket BindUdp(uint16_t port, const std::string& address) {
  UniqueFd fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const sockaddr_in local = SocketAddress(address, port);
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&local),
             sizeof(local)) != 0) {
    ADD_FAILURE() << "bind to " << port << ": " << ::strerror(errno);
    return TestSocket();
  }
  return TestSocket(std::move(fd));
}

std::string Converse(TestSocket client, TestSocket& server) {
  if (!client.valid()) return "(no connection)";
  TestSocket accepted = server.Accept();
  EXPECT_TRUE(client.Send("ping"));
  EXPECT_EQ(accepted.Receive(), "ping");
  EXPECT_TRUE(accepted.Send("pong"));
  EXPECT_EQ(client.Receive(), "pong");
  return accepted.PeerAddress();
}

Network OpenNetwork(const NetworkOptions& options) {
  absl::StatusOr<Network> network = Network::Open(options);
  RequireOk(network.status(), "Network::Open()");
  return *std::move(network);
}

NetEndpoint Join(Testbed& bed, Network& network,
                 const EndpointOptions& options) {
  absl::StatusOr<NetEndpoint> endpoint =
      NetEndpoint::Create(network, bed.MakeNamespace(), options);
  RequireOk(endpoint.status(), "NetEndpoint::Create()");
  return *std::move(endpoint);
}

void ForwardUntilReadable(NetEndpoint& endpoint, const TestSocket& socket) {
  for (;;) {
    pollfd ready[] = {{endpoint.poll_fd().get(), POLLIN, 0},
                      {socket.fd(), POLLIN, 0}};
    ASSERT_GT(::poll(ready, 2, kTimeoutMs), 0) << "nothing to forward";
    if (ready[1].revents != 0) return;
    ASSERT_OK(endpoint.Forward());
  }
}

int CountFds() {
  int count = 0;
  for ([[maybe_unused]] const auto& entry :
       std::filesystem::directory_iterator("/proc/self/fd")) {
    ++count;
  }
  return count;
}

}  // namespace caisson::testing
