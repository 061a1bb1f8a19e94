#include "lib/net/tcp_forward.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"

namespace caisson {
namespace {

constexpr int kAcceptsPerEvent = 16;
constexpr size_t kBytesPerEvent = 4 * ForwardContext::kBufferSize;
// Without descriptors for a connection there is nothing to wait for but time.
constexpr absl::Duration kAcceptPause = absl::Milliseconds(100);

void SetNoDelay(int fd) {
  const int on = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

// Makes close(2) send a reset.
void SetAbortOnClose(int fd) {
  const linger abort = {.l_onoff = 1, .l_linger = 0};
  ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &abort, sizeof(abort));
}

bool IsTransient(int error) { return error == EAGAIN || error == EINTR; }

}  // namespace

TcpPair::TcpPair(UniqueFd client, UniqueFd upstream, ForwardContext* context)
    : context_(context) {
  client_.fd = std::move(client);
  upstream_.fd = std::move(upstream);
}

TcpPair::~TcpPair() { Finish(/*abort=*/true); }

bool TcpPair::Connect(const sockaddr_in& target) {
  SetNoDelay(client_.fd.get());
  SetNoDelay(upstream_.fd.get());
  if (::connect(upstream_.fd.get(), reinterpret_cast<const sockaddr*>(&target),
                sizeof(target)) != 0 &&
      errno != EINPROGRESS) {
    return false;
  }
  return UpdateInterest();
}

void TcpPair::OnEvents(int fd, uint32_t events) {
  const bool broken = (events & EPOLLERR) != 0 && !connecting_;
  if (connecting_ && fd == upstream_.fd.get() && !FinishConnecting()) {
    Finish(/*abort=*/true);
    return;
  }
  if (broken || !Pump(client_, upstream_) || !Pump(upstream_, client_) ||
      !UpdateInterest()) {
    Finish(/*abort=*/true);
    return;
  }
  if (client_.read_closed && upstream_.read_closed && client_.write_closed &&
      upstream_.write_closed) {
    Finish(/*abort=*/false);
  }
}

// False if the container refused or is unreachable.
bool TcpPair::FinishConnecting() {
  int error = 0;
  socklen_t length = sizeof(error);
  if (::getsockopt(upstream_.fd.get(), SOL_SOCKET, SO_ERROR, &error, &length) !=
          0 ||
      error != 0) {
    return false;
  }
  connecting_ = false;
  return true;
}

bool TcpPair::Flush(Side& to) {
  while (to.full()) {
    const ssize_t n =
        ::send(to.fd.get(), to.pending.data() + to.written,
               to.pending.size() - to.written, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0) return IsTransient(errno);
    to.written += static_cast<size_t>(n);
  }
  to.pending.clear();
  to.written = 0;
  return true;
}

bool TcpPair::Pump(Side& from, Side& to) {
  if (connecting_ || to.write_closed) return true;
  if (!Flush(to)) return false;
  for (size_t moved = 0; !from.read_closed && !to.full();) {
    if (moved >= kBytesPerEvent) return true;
    char* buffer = context_->buffer.get();
    const ssize_t n = ::recv(from.fd.get(), buffer, ForwardContext::kBufferSize,
                             MSG_DONTWAIT);
    if (n < 0 && IsTransient(errno)) return true;
    if (n < 0) return false;
    if (n == 0) from.read_closed = true;
    moved += static_cast<size_t>(n);
    to.pending.assign(buffer, static_cast<size_t>(n));
    if (!Flush(to)) return false;
  }
  if (from.read_closed && !to.full()) {
    ::shutdown(to.fd.get(), SHUT_WR);
    to.write_closed = true;
  }
  return true;
}

bool TcpPair::UpdateInterest() {
  for (Side* side : {&client_, &upstream_}) {
    const Side& other = side == &client_ ? upstream_ : client_;
    uint32_t events = 0;
    if (!connecting_ && !side->read_closed && !other.full()) events |= EPOLLIN;
    if (side->full() || (connecting_ && side == &upstream_)) {
      events |= EPOLLOUT;
    }
    if (!context_->poller->Watch(side->fd.get(), events, this).ok()) {
      return false;
    }
  }
  return true;
}

void TcpPair::Finish(bool abort) {
  if (finished_) return;
  finished_ = true;
  for (Side* side : {&client_, &upstream_}) {
    context_->poller->Unwatch(side->fd.get());
    if (abort) SetAbortOnClose(side->fd.get());
    side->fd.reset();
  }
  if (on_finish_) on_finish_(this);
}

TcpForward::TcpForward(std::vector<ForwardedPort> listeners,
                       ForwardContext* context)
    : context_(context) {
  for (ForwardedPort& port : listeners) {
    const int fd = port.socket.get();
    listeners_.emplace(fd, std::move(port));
  }
}

absl::StatusOr<std::unique_ptr<TcpForward>> TcpForward::Create(
    std::vector<ForwardedPort> listeners, ForwardContext* context) {
  std::unique_ptr<TcpForward> forward(
      new TcpForward(std::move(listeners), context));
  RETURN_IF_ERROR(forward->SetAccepting(true));
  return forward;
}

TcpForward::~TcpForward() {
  for (auto& [raw, pair] : pairs_) pair->set_on_finish(nullptr);
  pairs_.clear();
  SetAccepting(false).IgnoreError();
  context_->poller->CancelTimer(this);
}

absl::Status TcpForward::SetAccepting(bool accepting) {
  if (accepting == accepting_) return absl::OkStatus();
  accepting_ = accepting;
  absl::Status result;
  for (const auto& [fd, port] : listeners_) {
    result.Update(
        context_->poller->Watch(fd, accepting ? uint32_t{EPOLLIN} : 0, this));
  }
  return result;
}

void TcpForward::OnEvents(int fd, uint32_t /*events*/) {
  const ForwardedPort& port = listeners_.at(fd);
  for (int i = 0; i < kAcceptsPerEvent; ++i) {
    if (pairs_.size() >= context_->limits.max_connections) {
      SetAccepting(false).IgnoreError();
      return;
    }
    if (!AcceptOne(port)) return;
  }
}

void TcpForward::OnTimer() {
  if (pairs_.size() < context_->limits.max_connections) {
    SetAccepting(true).IgnoreError();
  }
}

bool TcpForward::AcceptOne(const ForwardedPort& port) {
  UniqueFd client(::accept4(port.socket.get(), nullptr, nullptr,
                            SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (!client.valid() && IsTransient(errno)) return false;
  // Errors of the connection itself (ECONNABORTED, ...) concern only that one.
  const bool exhausted =
      !client.valid() && (errno == EMFILE || errno == ENFILE ||
                          errno == ENOBUFS || errno == ENOMEM);
  if (!client.valid() && !exhausted) return true;
  UniqueFd upstream;
  if (!exhausted) {
    upstream = UniqueFd(
        ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  }
  if (!upstream.valid()) {
    SetAccepting(false).IgnoreError();
    context_->poller->SetTimer(this, kAcceptPause);
    return false;
  }
  auto pair = std::make_unique<TcpPair>(std::move(client), std::move(upstream),
                                        context_);
  if (pair->Connect(port.target)) {
    TcpPair* raw = pair.get();
    pair->set_on_finish([this](TcpPair* finished) { Remove(finished); });
    pairs_.emplace(raw, std::move(pair));
  }
  return true;
}

void TcpForward::Remove(TcpPair* pair) {
  const auto found = pairs_.find(pair);
  if (found == pairs_.end()) return;
  context_->poller->DestroyLater(std::move(found->second));
  pairs_.erase(found);
  SetAccepting(true).IgnoreError();
}

}  // namespace caisson
