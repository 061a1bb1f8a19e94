// Carries connections between host sockets and container ports in user space.
//
// Serves what comes in at the sockets that reserve published ports: a TCP
// connection is joined to one to the container, a UDP client gets a socket of
// its own towards it. Everything is non-blocking and driven by RunOnce.
//
// Thread-compatible.
#ifndef CAISSON_LIB_NET_FORWARDER_H_
#define CAISSON_LIB_NET_FORWARDER_H_

#include <netinet/in.h>

#include <cstddef>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "caisson/unique_fd.h"
#include "lib/net/poller.h"

namespace caisson {

struct ForwardLimits {
  size_t max_connections = 1024;  // TCP, in all; UDP, clients of each port
  // A UDP client that was silent so long, in both directions, is forgotten.
  absl::Duration udp_idle = absl::Seconds(60);
};

// What the parts of a forwarder share.
struct ForwardContext {
  static constexpr size_t kBufferSize = 64 * 1024;

  ForwardLimits limits;
  std::unique_ptr<Poller> poller;
  // Scratch for one transfer: nothing stays in it between calls.
  std::unique_ptr<char[]> buffer;
};

struct ForwardedPort {
  UniqueFd socket;  // TCP listening or UDP bound; non-blocking
  bool tcp = true;
  sockaddr_in target = {};  // the container's port
};

class Forwarder final {
 public:
  static absl::StatusOr<std::unique_ptr<Forwarder>> Create(
      std::vector<ForwardedPort> ports, const ForwardLimits& limits);

  Forwarder(const Forwarder&) = delete;
  Forwarder& operator=(const Forwarder&) = delete;
  // Closes all sockets; connections are reset.
  ~Forwarder();

  BorrowedFd fd() const { return context_->poller->fd(); }
  // Of the ports, in the order that Create() was given.
  const std::vector<BorrowedFd>& sockets() const { return sockets_; }
  absl::Status RunOnce() { return context_->poller->RunOnce(); }

 private:
  Forwarder() = default;

  std::unique_ptr<ForwardContext> context_;
  std::vector<std::unique_ptr<Watcher>> parts_;  // own the sockets
  std::vector<BorrowedFd> sockets_;
};

}  // namespace caisson

#endif  // CAISSON_LIB_NET_FORWARDER_H_
