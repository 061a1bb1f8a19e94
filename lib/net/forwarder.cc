#include "lib/net/forwarder.h"

#include <sys/epoll.h>

#include <utility>

#include "lib/base/status_macros.h"
#include "lib/net/tcp_forward.h"
#include "lib/net/udp_forward.h"

namespace caisson {

absl::StatusOr<std::unique_ptr<Forwarder>> Forwarder::Create(
    std::vector<ForwardedPort> ports, const ForwardLimits& limits) {
  auto context = std::make_unique<ForwardContext>();
  context->limits = limits;
  ASSIGN_OR_RETURN(context->poller, Poller::Create());
  context->buffer.reset(new char[ForwardContext::kBufferSize]);
  std::unique_ptr<Forwarder> forwarder(new Forwarder());
  forwarder->context_ = std::move(context);
  ForwardContext* shared = forwarder->context_.get();

  std::vector<ForwardedPort> listeners;
  for (ForwardedPort& port : ports) {
    forwarder->sockets_.push_back(port.socket.borrow());
    if (port.tcp) {
      listeners.push_back(std::move(port));
      continue;
    }
    ASSIGN_OR_RETURN(std::unique_ptr<UdpForward> part,
                     UdpForward::Create(std::move(port), shared));
    forwarder->parts_.push_back(std::move(part));
  }
  if (!listeners.empty()) {
    ASSIGN_OR_RETURN(std::unique_ptr<TcpForward> part,
                     TcpForward::Create(std::move(listeners), shared));
    forwarder->parts_.push_back(std::move(part));
  }
  return forwarder;
}

// The parts use the context.
Forwarder::~Forwarder() { parts_.clear(); }

}  // namespace caisson
