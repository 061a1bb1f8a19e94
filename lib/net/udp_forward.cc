#include "lib/net/udp_forward.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "lib/base/status_macros.h"

namespace caisson {
namespace {

constexpr int kDatagramsPerEvent = 32;
constexpr size_t kControlSize = CMSG_SPACE(sizeof(in_pktinfo));

int64_t Now() {
  timespec now;
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

// The address that a datagram was sent to.
in_addr DestinationOf(msghdr& header) {
  for (cmsghdr* control = CMSG_FIRSTHDR(&header); control != nullptr;
       control = CMSG_NXTHDR(&header, control)) {
    if (control->cmsg_level == IPPROTO_IP && control->cmsg_type == IP_PKTINFO) {
      in_pktinfo info;
      ::memcpy(&info, CMSG_DATA(control), sizeof(info));
      return info.ipi_spec_dst;
    }
  }
  return {};
}

}  // namespace

absl::StatusOr<std::unique_ptr<UdpForward>> UdpForward::Create(
    ForwardedPort port, ForwardContext* context) {
  std::unique_ptr<UdpForward> forward(new UdpForward(std::move(port), context));
  RETURN_IF_ERROR(context->poller->Watch(forward->port_.socket.get(), EPOLLIN,
                                         forward.get()));
  return forward;
}

UdpForward::~UdpForward() {
  while (!sessions_.empty()) Forget(sessions_.begin());
  context_->poller->Unwatch(port_.socket.get());
  context_->poller->CancelTimer(this);
}

UdpForward::Key UdpForward::KeyOf(const Client& client) {
  return {client.from.sin_addr.s_addr, client.from.sin_port, client.to.s_addr};
}

void UdpForward::OnEvents(int fd, uint32_t /*events*/) {
  if (fd == port_.socket.get()) {
    ReceiveFromClients();
    return;
  }
  const auto session = by_fd_.find(fd);
  if (session != by_fd_.end()) ReceiveFromContainer(session->second);
}

void UdpForward::ReceiveFromClients() {
  for (int i = 0; i < kDatagramsPerEvent; ++i) {
    Client client;
    alignas(cmsghdr) char control[kControlSize];
    iovec part = {context_->buffer.get(), ForwardContext::kBufferSize};
    msghdr header = {};
    header.msg_name = &client.from;
    header.msg_namelen = sizeof(client.from);
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = control;
    header.msg_controllen = sizeof(control);
    const ssize_t n =
        ::recvmsg(port_.socket.get(), &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0) {
      // An ICMP error about an earlier answer is reported once and is over.
      if (errno == EAGAIN) return;
      continue;
    }
    client.to = DestinationOf(header);
    const auto session = SessionOf(client);
    if (session == sessions_.end()) continue;
    Touch(session);
    ::send(session->upstream.get(), part.iov_base, static_cast<size_t>(n),
           MSG_DONTWAIT | MSG_NOSIGNAL);
  }
}

void UdpForward::ReceiveFromContainer(Sessions::iterator session) {
  for (int i = 0; i < kDatagramsPerEvent; ++i) {
    char* buffer = context_->buffer.get();
    const ssize_t n = ::recv(session->upstream.get(), buffer,
                             ForwardContext::kBufferSize, MSG_DONTWAIT);
    if (n < 0) {
      // ECONNREFUSED: nobody listens in the container, perhaps not yet.
      if (errno == EAGAIN) return;
      continue;
    }
    Touch(session);
    alignas(cmsghdr) char control[kControlSize] = {};
    iovec part = {buffer, static_cast<size_t>(n)};
    msghdr header = {};
    header.msg_name = &session->client.from;
    header.msg_namelen = sizeof(session->client.from);
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = control;
    header.msg_controllen = sizeof(control);
    cmsghdr* info_header = CMSG_FIRSTHDR(&header);
    info_header->cmsg_level = IPPROTO_IP;
    info_header->cmsg_type = IP_PKTINFO;
    info_header->cmsg_len = CMSG_LEN(sizeof(in_pktinfo));
    in_pktinfo info = {};
    info.ipi_spec_dst = session->client.to;
    ::memcpy(CMSG_DATA(info_header), &info, sizeof(info));
    ::sendmsg(port_.socket.get(), &header, MSG_DONTWAIT | MSG_NOSIGNAL);
  }
}

UdpForward::Sessions::iterator UdpForward::SessionOf(const Client& client) {
  const auto found = by_client_.find(KeyOf(client));
  if (found != by_client_.end()) return found->second;
  if (sessions_.size() >= context_->limits.max_connections) {
    Forget(sessions_.begin());
  }
  Session session;
  session.client = client;
  session.upstream =
      UniqueFd(::socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  const int fd = session.upstream.get();
  if (fd < 0 ||
      ::connect(fd, reinterpret_cast<const sockaddr*>(&port_.target),
                sizeof(port_.target)) != 0 ||
      !context_->poller->Watch(fd, EPOLLIN, this).ok()) {
    return sessions_.end();
  }
  sessions_.push_back(std::move(session));
  const auto added = std::prev(sessions_.end());
  by_client_[KeyOf(client)] = added;
  by_fd_[fd] = added;
  added->last_used = Now();
  if (sessions_.size() == 1) ArmTimer();
  return added;
}

void UdpForward::Touch(Sessions::iterator session) {
  session->last_used = Now();
  sessions_.splice(sessions_.end(), sessions_, session);
}

void UdpForward::Forget(Sessions::iterator session) {
  const int fd = session->upstream.get();
  context_->poller->Unwatch(fd);
  by_fd_.erase(fd);
  by_client_.erase(KeyOf(session->client));
  sessions_.erase(session);
}

void UdpForward::ArmTimer() {
  if (sessions_.empty()) return;
  const absl::Duration silent =
      absl::Nanoseconds(Now() - sessions_.front().last_used);
  context_->poller->SetTimer(
      this, std::max(context_->limits.udp_idle - silent, absl::ZeroDuration()));
}

void UdpForward::OnTimer() {
  const int64_t limit =
      Now() - absl::ToInt64Nanoseconds(context_->limits.udp_idle);
  while (!sessions_.empty() && sessions_.front().last_used <= limit) {
    Forget(sessions_.begin());
  }
  ArmTimer();
}

}  // namespace caisson
