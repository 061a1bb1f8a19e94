// A host with an uplink, containers and an outside world, made of network
// namespaces, for tests.
//
//   RunInTestbed([](Testbed& bed) {
//     Network network = ...;                   // on the "host"
//     NetNamespace ns = bed.MakeNamespace();   // a container
//     TestSocket server = bed.In(ns.ns, [] { return ListenTcp(80); });
//   });
//
// The body runs in a forked child whose network namespace is the host. It is
// single-threaded and pinned to one processor, on which the kernel delivers
// packets between namespaces in the order in which they were sent. Sockets keep
// the namespace that they were made in, so one thread plays all parts.
#ifndef CAISSON_LIB_NET_NET_TESTBED_H_
#define CAISSON_LIB_NET_NET_TESTBED_H_

#include <netinet/in.h>

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "caisson/net_endpoint.h"
#include "caisson/net_namespace.h"
#include "caisson/network.h"
#include "caisson/unique_fd.h"
#include "gtest/gtest.h"
#include "lib/sys/netlink.h"
#include "lib/sys/rtnetlink.h"

namespace caisson::testing {

// The addresses of the uplink: the host's end and the world's.
inline constexpr char kHostAddress[] = "203.0.113.1";
inline constexpr char kOutsideAddress[] = "203.0.113.2";
inline constexpr int kUplinkMtu = 1400;

class Testbed final {
 public:
  Testbed();
  ~Testbed();
  Testbed(const Testbed&) = delete;
  Testbed& operator=(const Testbed&) = delete;

  // Absolute, empty at the start.
  const std::string& state_dir() const { return state_dir_; }
  BorrowedFd host() const { return host_.borrow(); }
  BorrowedFd outside() const { return outside_.ns.borrow(); }

  // Fails the test and returns an unusable namespace if that is impossible.
  NetNamespace MakeNamespace();

  // Calls `body` with the thread inside `ns`.
  template <typename Body>
  auto In(BorrowedFd ns, Body body) {
    Enter(ns);
    auto result = body();
    Enter(host_.borrow());
    return result;
  }
  void Do(BorrowedFd ns, const std::function<void()>& body);

  NetworkOptions Options(const std::string& name) const;

  // The host's interfaces, without "lo" and the uplink.
  std::vector<std::string> Links();
  // Waits until the kernel has removed the ports of dropped namespaces.
  bool WaitForLinks(const std::vector<std::string>& expected);
  // Names of the nf_tables tables of all families.
  std::vector<std::string> Tables();
  // Paths below the state directory.
  std::vector<std::string> StateFiles();
  // Fails the test if the host has links, tables or state files.
  void ExpectClean();

 private:
  void Enter(BorrowedFd ns);

  UniqueFd host_;
  NetNamespace outside_;
  std::string state_dir_;
};

// Base of tests that need the kernel: skipped, with the reason, where a network
// namespace cannot be made; with CAISSON_TESTS_MUST_RUN=1 that is a failure.
class NetKernelTest : public ::testing::Test {
 protected:
  void SetUp() override;
};

// Runs `body` in a fresh testbed, in a child. A failed expectation there fails
// the calling test.
void RunInTestbed(const std::function<void(Testbed&)>& body);

// Runs `body` in a forked child of the testbed's process and in its namespace;
// returns the wait status.
int RunForked(const std::function<void()>& body);

// --- Sockets; all wait at most a few seconds ---

struct Datagram {
  std::string text;
  std::string from;  // address
  uint16_t from_port = 0;
};

class TestSocket final {
 public:
  TestSocket() = default;
  explicit TestSocket(UniqueFd fd) : fd_(std::move(fd)) {}

  bool valid() const { return fd_.valid(); }
  int fd() const { return fd_.get(); }
  uint16_t port() const;

  TestSocket Accept();
  std::string PeerAddress() const;
  uint16_t PeerPort() const;
  bool Send(absl::string_view text);
  // What arrives next; empty at the end of the stream.
  std::string Receive();
  std::string ReceiveAll();

  bool SendTo(absl::string_view address, uint16_t port, absl::string_view text);
  // nullopt if nothing came in time.
  std::optional<Datagram> ReceiveFrom();
  // What is queued already.
  std::optional<Datagram> TryReceiveFrom();
  void Close() { fd_.reset(); }

 private:
  UniqueFd fd_;
};

// Bound to the wildcard address of the current namespace; port 0 = any.
TestSocket ListenTcp(uint16_t port, const std::string& address = "0.0.0.0");
TestSocket ConnectTcp(const std::string& address, uint16_t port);
TestSocket BindUdp(uint16_t port, const std::string& address = "0.0.0.0");

// A connection that carries bytes both ways; who the server saw as the client.
std::string Converse(TestSocket client, TestSocket& server);

// A network and an endpoint; if that is impossible the test's child ends.
Network OpenNetwork(const NetworkOptions& options);
NetEndpoint Join(Testbed& bed, Network& network,
                 const EndpointOptions& options);

// Plays the host's event loop until `socket` is readable.
void ForwardUntilReadable(NetEndpoint& endpoint, const TestSocket& socket);

// The number of open descriptors of this process.
int CountFds();

}  // namespace caisson::testing

#endif  // CAISSON_LIB_NET_NET_TESTBED_H_
