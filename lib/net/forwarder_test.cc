// User-space forwarding, over the loopback interface.
#include "lib/net/forwarder.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "lib/base/status_matchers.h"

namespace caisson {
namespace {

constexpr int kTimeoutMs = 10'000;

sockaddr_in Loopback(uint16_t port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  return address;
}

uint16_t PortOf(int fd) {
  sockaddr_in address = {};
  socklen_t length = sizeof(address);
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length);
  return ntohs(address.sin_port);
}

UniqueFd Bound(int type) {
  UniqueFd fd(::socket(AF_INET, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const sockaddr_in any = Loopback(0);
  EXPECT_EQ(
      ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&any), sizeof(any)),
      0);
  if (type == SOCK_STREAM) {
    EXPECT_EQ(::listen(fd.get(), 64), 0);
  }
  const int on = 1;
  if (type == SOCK_DGRAM) {
    ::setsockopt(fd.get(), IPPROTO_IP, IP_PKTINFO, &on, sizeof(on));
  }
  return fd;
}

UniqueFd Connected(int type, uint16_t port) {
  UniqueFd fd(::socket(AF_INET, type | SOCK_CLOEXEC, 0));
  const sockaddr_in to = Loopback(port);
  EXPECT_EQ(
      ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&to), sizeof(to)),
      0);
  ::fcntl(fd.get(), F_SETFL, O_NONBLOCK);
  return fd;
}

class ForwarderTest : public ::testing::Test {
 protected:
  void Start(int type, ForwardLimits limits = {}) {
    server_ = Bound(type);
    UniqueFd front = Bound(type);
    port_ = PortOf(front.get());
    ForwardedPort forwarded;
    forwarded.socket = std::move(front);
    forwarded.tcp = type == SOCK_STREAM;
    forwarded.target = Loopback(PortOf(server_.get()));
    std::vector<ForwardedPort> ports;
    ports.push_back(std::move(forwarded));
    absl::StatusOr<std::unique_ptr<Forwarder>> forwarder =
        Forwarder::Create(std::move(ports), limits);
    ASSERT_OK(forwarder);
    forwarder_ = *std::move(forwarder);
  }

  // Runs the forwarder until `fd` has `events`; false if nothing happens.
  bool RunUntil(int fd, short events) {
    for (;;) {
      pollfd ready[] = {{fd, events, 0}, {forwarder_->fd().get(), POLLIN, 0}};
      if (::poll(ready, 2, kTimeoutMs) <= 0) return false;
      if (ready[0].revents != 0) return true;
      EXPECT_OK(forwarder_->RunOnce());
    }
  }
  // Runs it as long as it has something to do at once.
  void RunIdle() {
    pollfd ready = {forwarder_->fd().get(), POLLIN, 0};
    while (::poll(&ready, 1, 0) == 1) EXPECT_OK(forwarder_->RunOnce());
  }

  UniqueFd Accept() {
    if (!RunUntil(server_.get(), POLLIN)) return UniqueFd();
    return UniqueFd(::accept4(server_.get(), nullptr, nullptr,
                              SOCK_CLOEXEC | SOCK_NONBLOCK));
  }
  std::string Read(int fd) {
    if (!RunUntil(fd, POLLIN)) return "(timeout)";
    char buffer[65536];
    const ssize_t n = ::recv(fd, buffer, sizeof(buffer), 0);
    if (n < 0) return ::strerrorname_np(errno);
    return std::string(buffer, static_cast<size_t>(n));
  }

  UniqueFd server_;
  uint16_t port_ = 0;
  std::unique_ptr<Forwarder> forwarder_;
};

TEST_F(ForwarderTest, TcpBothWaysAndHalfClosed) {
  Start(SOCK_STREAM);
  UniqueFd client = Connected(SOCK_STREAM, port_);
  UniqueFd server = Accept();
  ASSERT_TRUE(server.valid());
  ASSERT_EQ(::send(client.get(), "ping", 4, 0), 4);
  EXPECT_EQ(Read(server.get()), "ping");
  ASSERT_EQ(::shutdown(client.get(), SHUT_WR), 0);
  EXPECT_EQ(Read(server.get()), "");
  // The other direction goes on.
  ASSERT_EQ(::send(server.get(), "late", 4, 0), 4);
  EXPECT_EQ(Read(client.get()), "late");
  server.reset();
  EXPECT_EQ(Read(client.get()), "");
  RunIdle();
  // Nothing is left to do, not even for a closed client.
  client.reset();
  pollfd ready = {forwarder_->fd().get(), POLLIN, 0};
  EXPECT_EQ(::poll(&ready, 1, 0), 0);
}

TEST_F(ForwarderTest, TcpMovesEveryByteInOrder) {
  Start(SOCK_STREAM);
  UniqueFd client = Connected(SOCK_STREAM, port_);
  UniqueFd server = Accept();
  constexpr size_t kSize = 16 * 1024 * 1024;
  std::string sent(kSize, '\0');
  for (size_t i = 0; i < kSize; ++i) sent[i] = static_cast<char>(i * 7 >> 3);
  std::string received;
  size_t written = 0;
  while (received.size() < kSize) {
    if (written < kSize) {
      const ssize_t n = ::send(client.get(), sent.data() + written,
                               std::min<size_t>(kSize - written, 100'000), 0);
      if (n > 0) written += static_cast<size_t>(n);
      if (written == kSize) ::shutdown(client.get(), SHUT_WR);
    }
    EXPECT_OK(forwarder_->RunOnce());
    char buffer[70'000];
    const ssize_t n = ::recv(server.get(), buffer, sizeof(buffer), 0);
    ASSERT_NE(n, 0) << received.size();
    if (n > 0) received.append(buffer, static_cast<size_t>(n));
  }
  EXPECT_TRUE(received == sent);
  EXPECT_EQ(Read(server.get()), "");
}

// A reader that does not read stops the writer, and costs the host no memory
// and no wake-ups.
TEST_F(ForwarderTest, TcpBackPressure) {
  Start(SOCK_STREAM);
  UniqueFd client = Connected(SOCK_STREAM, port_);
  UniqueFd server = Accept();
  const std::string block(65536, 'x');
  size_t sent = 0;
  for (bool moved = true; moved;) {
    moved = false;
    for (ssize_t n;
         (n = ::send(client.get(), block.data(), block.size(), 0)) > 0;) {
      sent += static_cast<size_t>(n);
      moved = true;
    }
    RunIdle();
  }
  EXPECT_LT(sent, size_t{64} << 20);
  pollfd ready = {forwarder_->fd().get(), POLLIN, 0};
  EXPECT_EQ(::poll(&ready, 1, 0), 0) << "the host would spin";
  // An impatient end of the writer's stream does not change that.
  ::shutdown(client.get(), SHUT_WR);
  RunIdle();
  size_t received = 0;
  for (std::string part = Read(server.get()); !part.empty();
       part = Read(server.get())) {
    received += part.size();
  }
  EXPECT_EQ(received, sent);
}

TEST_F(ForwarderTest, TcpResetsArePassedOn) {
  Start(SOCK_STREAM);
  UniqueFd client = Connected(SOCK_STREAM, port_);
  UniqueFd server = Accept();
  const linger abort = {1, 0};
  ::setsockopt(server.get(), SOL_SOCKET, SO_LINGER, &abort, sizeof(abort));
  server.reset();
  EXPECT_EQ(Read(client.get()), "ECONNRESET");
}

TEST_F(ForwarderTest, TcpRefusalResetsTheClient) {
  Start(SOCK_STREAM);
  server_.reset();
  UniqueFd client = Connected(SOCK_STREAM, port_);
  EXPECT_EQ(Read(client.get()), "ECONNRESET");
  // And the listener goes on.
  UniqueFd again = Connected(SOCK_STREAM, port_);
  EXPECT_EQ(Read(again.get()), "ECONNRESET");
}

TEST_F(ForwarderTest, TcpConnectionsAreBounded) {
  Start(SOCK_STREAM, {.max_connections = 2});
  std::vector<UniqueFd> clients;
  for (int i = 0; i < 4; ++i) {
    clients.push_back(Connected(SOCK_STREAM, port_));
  }
  UniqueFd first = Accept();
  UniqueFd second = Accept();
  ASSERT_TRUE(second.valid());
  RunIdle();
  EXPECT_EQ(::accept4(server_.get(), nullptr, nullptr, 0), -1);
  first.reset();
  clients[0].reset();
  UniqueFd third = Accept();
  EXPECT_TRUE(third.valid());
}

// EMFILE: the listener pauses instead of making the host spin.
TEST_F(ForwarderTest, TcpPausesWithoutDescriptors) {
  Start(SOCK_STREAM);
  UniqueFd client = Connected(SOCK_STREAM, port_);
  rlimit old;
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &old), 0);
  rlimit none = old;
  none.rlim_cur = 3;
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  EXPECT_OK(forwarder_->RunOnce());
  pollfd ready = {forwarder_->fd().get(), POLLIN, 0};
  const int busy = ::poll(&ready, 1, 0);
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &old), 0);
  EXPECT_EQ(busy, 0);
  UniqueFd server = Accept();
  EXPECT_TRUE(server.valid());
}

TEST_F(ForwarderTest, DestructionResetsConnections) {
  Start(SOCK_STREAM);
  UniqueFd client = Connected(SOCK_STREAM, port_);
  UniqueFd server = Accept();
  forwarder_.reset();
  char byte;
  EXPECT_EQ(::recv(client.get(), &byte, 1, 0), -1);
  EXPECT_EQ(errno, ECONNRESET);
  EXPECT_EQ(::recv(server.get(), &byte, 1, 0), -1);
  EXPECT_EQ(errno, ECONNRESET);
}

struct Received {
  std::string text;
  sockaddr_in from = {};
};

TEST_F(ForwarderTest, UdpAnswersReachTheirClients) {
  Start(SOCK_DGRAM);
  UniqueFd a = Connected(SOCK_DGRAM, port_);
  UniqueFd b = Connected(SOCK_DGRAM, port_);
  const auto exchange = [&](int client, const std::string& text) {
    ASSERT_EQ(::send(client, text.data(), text.size(), 0),
              static_cast<ssize_t>(text.size()));
    ASSERT_TRUE(RunUntil(server_.get(), POLLIN));
    char buffer[65536];
    sockaddr_in from = {};
    socklen_t length = sizeof(from);
    const ssize_t n = ::recvfrom(server_.get(), buffer, sizeof(buffer), 0,
                                 reinterpret_cast<sockaddr*>(&from), &length);
    ASSERT_EQ(std::string(buffer, static_cast<size_t>(n)), text);
    const std::string answer = "re: " + text;
    ::sendto(server_.get(), answer.data(), answer.size(), 0,
             reinterpret_cast<sockaddr*>(&from), length);
    EXPECT_EQ(Read(client), answer);
  };
  exchange(a.get(), "from a");
  exchange(b.get(), "from b");
  exchange(a.get(), "again");
  exchange(a.get(), std::string(60'000, 'x'));
}

TEST_F(ForwarderTest, UdpClientsAreBoundedAndForgotten) {
  Start(SOCK_DGRAM, {.max_connections = 2, .udp_idle = absl::Milliseconds(20)});
  const auto source = [&](int client) -> uint16_t {
    EXPECT_EQ(::send(client, "x", 1, 0), 1);
    EXPECT_TRUE(RunUntil(server_.get(), POLLIN));
    char byte;
    sockaddr_in from = {};
    socklen_t length = sizeof(from);
    ::recvfrom(server_.get(), &byte, 1, 0, reinterpret_cast<sockaddr*>(&from),
               &length);
    return ntohs(from.sin_port);
  };
  const int before = ::fcntl(0, F_DUPFD_CLOEXEC, 0);
  ::close(before);
  std::vector<UniqueFd> clients;
  for (int i = 0; i < 20; ++i) {
    clients.push_back(Connected(SOCK_DGRAM, port_));
    source(clients.back().get());
  }
  // Twenty clients, but two sockets of the forwarder.
  const int after = ::fcntl(0, F_DUPFD_CLOEXEC, 0);
  ::close(after);
  EXPECT_LE(after - before, 22);
  // Silence ends the sessions: the forwarder's timer makes it readable.
  pollfd ready = {forwarder_->fd().get(), POLLIN, 0};
  for (int fd = after; fd > before + 20;) {
    ASSERT_EQ(::poll(&ready, 1, kTimeoutMs), 1);
    EXPECT_OK(forwarder_->RunOnce());
    fd = ::fcntl(0, F_DUPFD_CLOEXEC, 0);
    ::close(fd);
  }
  // Afterwards there is nothing to wake up for.
  RunIdle();
  EXPECT_GT(source(clients[0].get()), 0);
}

TEST_F(ForwarderTest, UdpWithoutServerIsNoError) {
  Start(SOCK_DGRAM);
  server_.reset();
  UniqueFd client = Connected(SOCK_DGRAM, port_);
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ(::send(client.get(), "x", 1, 0), 1);
    RunIdle();
  }
  char byte;
  EXPECT_EQ(::recv(client.get(), &byte, 1, 0), -1);
  EXPECT_EQ(errno, EAGAIN);
}

}  // namespace
}  // namespace caisson
