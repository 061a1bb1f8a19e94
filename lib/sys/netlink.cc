#include "lib/sys/netlink.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/magic.h>
#include <linux/nsfs.h>
#include <linux/sockios.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"

#ifndef SO_NETNS_COOKIE  // Linux 5.14
#define SO_NETNS_COOKIE 71
#endif

namespace caisson::sys {
namespace {

// The kernel sizes its dump datagrams by the largest buffer that it has seen,
// up to this.
constexpr size_t kReceiveBuffer = 32 * 1024;
constexpr int kMaxDumpAttempts = 64;
// The kernel answers within the send; a wait ends only if an answer was lost.
constexpr int kAnswerTimeoutMs = 10'000;

void VisitAttributes(const char* data, size_t size,
                     absl::FunctionRef<void(const nlattr&)> visit) {
  auto* attribute = reinterpret_cast<const nlattr*>(data);
  const char* end = data + size;
  while (mnl_attr_ok(
      attribute,
      static_cast<int>(end - reinterpret_cast<const char*>(attribute)))) {
    visit(*attribute);
    attribute = mnl_attr_next(attribute);
  }
}

struct ReceiveBuffer {
  std::unique_ptr<char[]> data{new char[kReceiveBuffer]};
};

absl::Status LostAnswer(int error, absl::string_view what,
                        absl::string_view hint) {
  return ErrnoError(error, absl::StrCat("netlink answer to ", what),
                    {.step = "netlink", .hint = hint});
}

// Receives one datagram from the kernel into `buffer`; 0 if none is queued and
// `wait` is false.
absl::StatusOr<size_t> Receive(int fd, const ReceiveBuffer& buffer, bool wait,
                               absl::string_view what) {
  for (;;) {
    sockaddr_nl from = {};
    iovec part = {buffer.data.get(), kReceiveBuffer};
    msghdr header = {};
    header.msg_name = &from;
    header.msg_namelen = sizeof(from);
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    const ssize_t n = ::recvmsg(fd, &header, MSG_DONTWAIT);
    if (n >= 0) {
      // Another process may write to this port; only port 0 is the kernel.
      if (header.msg_namelen != sizeof(from) || from.nl_pid != 0) continue;
      if ((header.msg_flags & MSG_TRUNC) != 0) {
        return LostAnswer(EMSGSIZE, what, "it exceeds the receive buffer");
      }
      return static_cast<size_t>(n);
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN) {
      return LostAnswer(errno, what,
                        errno == ENOBUFS ? "the receive queue overran" : "");
    }
    if (!wait) return 0;
    pollfd ready = {fd, POLLIN, 0};
    const int count = ::poll(&ready, 1, kAnswerTimeoutMs);
    if (count == 0) return LostAnswer(ETIMEDOUT, what, "the kernel is silent");
    if (count < 0 && errno != EINTR) return LostAnswer(errno, what, "");
  }
}

// What the kernel said beside errno: NLMSGERR_ATTR_MSG (extended ACK).
std::string ExtendedAckText(const nlmsghdr& message) {
  const auto* error =
      static_cast<const nlmsgerr*>(mnl_nlmsg_get_payload(&message));
  if ((message.nlmsg_flags & NLM_F_ACK_TLVS) == 0) return "";
  size_t offset = sizeof(nlmsgerr);
  if ((message.nlmsg_flags & NLM_F_CAPPED) == 0) {
    if (error->msg.nlmsg_len < sizeof(nlmsghdr)) return "";
    offset += error->msg.nlmsg_len - sizeof(nlmsghdr);
  }
  const size_t payload = mnl_nlmsg_get_payload_len(&message);
  offset = MNL_ALIGN(offset);
  if (offset >= payload) return "";
  std::string text;
  VisitAttributes(
      static_cast<const char*>(mnl_nlmsg_get_payload(&message)) + offset,
      payload - offset, [&text](const nlattr& attribute) {
        if (AttributeType(attribute) != NLMSGERR_ATTR_MSG) return;
        text = AttributeString(attribute);
      });
  return text;
}

absl::Status RequestError(int error, absl::string_view what,
                          absl::string_view kernel_text) {
  const std::string hint =
      kernel_text.empty()
          ? ""
          : absl::StrCat("the kernel says: ", absl::CHexEscape(kernel_text));
  return ErrnoError(error, what, {.step = "netlink", .hint = hint});
}

// The errno of an NLMSG_ERROR or NLMSG_DONE message; 0 for an acknowledgement.
int ErrnoOf(const nlmsghdr& message) {
  if (mnl_nlmsg_get_payload_len(&message) < sizeof(int)) return 0;
  int error;
  ::memcpy(&error, mnl_nlmsg_get_payload(&message), sizeof(error));
  return error < 0 ? -error : 0;
}

}  // namespace

void ForEachAttribute(const nlmsghdr& message, size_t header_size,
                      absl::FunctionRef<void(const nlattr&)> visit) {
  const size_t offset = MNL_ALIGN(header_size);
  const size_t payload = mnl_nlmsg_get_payload_len(&message);
  if (offset >= payload) return;
  VisitAttributes(
      static_cast<const char*>(mnl_nlmsg_get_payload(&message)) + offset,
      payload - offset, visit);
}

void ForEachNested(const nlattr& nest,
                   absl::FunctionRef<void(const nlattr&)> visit) {
  VisitAttributes(static_cast<const char*>(mnl_attr_get_payload(&nest)),
                  mnl_attr_get_payload_len(&nest), visit);
}

int AttributeType(const nlattr& attribute) {
  return mnl_attr_get_type(&attribute);
}

uint32_t AttributeU32(const nlattr& attribute) {
  return mnl_attr_get_payload_len(&attribute) < sizeof(uint32_t)
             ? 0
             : mnl_attr_get_u32(&attribute);
}

absl::string_view AttributeBytes(const nlattr& attribute) {
  return absl::string_view(
      static_cast<const char*>(mnl_attr_get_payload(&attribute)),
      mnl_attr_get_payload_len(&attribute));
}

std::string AttributeString(const nlattr& attribute) {
  const absl::string_view bytes = AttributeBytes(attribute);
  return std::string(bytes.data(), ::strnlen(bytes.data(), bytes.size()));
}

absl::StatusOr<uint64_t> NetNamespaceCookie(BorrowedFd socket) {
  uint64_t cookie = 0;
  socklen_t length = sizeof(cookie);
  if (::getsockopt(socket.get(), SOL_SOCKET, SO_NETNS_COOKIE, &cookie,
                   &length) != 0) {
    return ErrnoError(errno, "getsockopt(SO_NETNS_COOKIE)",
                      {.step = "netlink", .hint = "Linux 5.14 introduced it"});
  }
  return cookie;
}

absl::StatusOr<NamespaceId> NetNamespaceIdOf(BorrowedFd ns) {
  struct statfs filesystem;
  struct stat info;
  if (::fstatfs(ns.get(), &filesystem) != 0 || ::fstat(ns.get(), &info) != 0) {
    return ErrnoError(errno, "fstat(network namespace)", {.step = "netns"});
  }
  if (filesystem.f_type != NSFS_MAGIC ||
      ::ioctl(ns.get(), NS_GET_NSTYPE) != CLONE_NEWNET) {
    return absl::InvalidArgumentError(
        "the descriptor is not of a network namespace");
  }
  return NamespaceId{info.st_dev, info.st_ino};
}

absl::StatusOr<NamespaceId> NetNamespaceIdOfSocket(BorrowedFd socket) {
  UniqueFd ns(::ioctl(socket.get(), SIOCGSKNS));
  if (!ns.valid()) {
    return ErrnoError(
        errno, "ioctl(SIOCGSKNS)",
        {.step = "netns",
         .hint = "the descriptor must be a socket, and the "
                 "caller needs CAP_NET_ADMIN over its namespace"});
  }
  return NetNamespaceIdOf(ns.borrow());
}

nlmsghdr* NetlinkTrain::at(size_t index) {
  return reinterpret_cast<nlmsghdr*>(buffer_.data() + messages_[index].offset);
}

// Counts the last message, which its builder has filled by now.
void NetlinkTrain::Close() {
  if (messages_.empty()) return;
  end_ =
      messages_.back().offset + MNL_ALIGN(at(messages_.size() - 1)->nlmsg_len);
  if (end_ > buffer_.size()) std::abort();  // the builder broke its promise
}

nlmsghdr* NetlinkTrain::Add(uint16_t type, uint16_t flags, std::string what,
                            size_t room) {
  Close();
  buffer_.resize(end_ + MNL_ALIGN(std::max(room, MNL_NLMSG_HDRLEN)));
  messages_.push_back({end_, std::move(what), {}});
  nlmsghdr* message = mnl_nlmsg_put_header(buffer_.data() + end_);
  message->nlmsg_type = type;
  message->nlmsg_flags = NLM_F_REQUEST | flags;
  return message;
}

bool NetlinkTrain::Tolerates(size_t index, int error) const {
  const std::vector<int>& tolerated = messages_[index].tolerated;
  return std::find(tolerated.begin(), tolerated.end(), error) !=
         tolerated.end();
}

absl::string_view NetlinkTrain::bytes() {
  Close();
  return absl::string_view(buffer_.data(), end_);
}

absl::StatusOr<NetlinkSocket> NetlinkSocket::Open(int protocol) {
  UniqueFd fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol));
  if (!fd.valid()) {
    return ErrnoError(errno, absl::StrCat("socket(AF_NETLINK, ", protocol, ")"),
                      {.step = "netlink"});
  }
  NetlinkSocket socket(std::move(fd));
  socket.Configure();
  return socket;
}

absl::StatusOr<NetlinkSocket> NetlinkSocket::OpenMonitor(int protocol,
                                                         uint32_t groups) {
  ASSIGN_OR_RETURN(NetlinkSocket socket, Open(protocol));
  sockaddr_nl address = {};
  address.nl_family = AF_NETLINK;
  address.nl_groups = groups;
  if (::bind(socket.fd_.get(), reinterpret_cast<const sockaddr*>(&address),
             sizeof(address)) != 0) {
    return ErrnoError(errno, absl::StrCat("bind(netlink groups ", groups, ")"),
                      {.step = "netlink"});
  }
  return socket;
}

absl::StatusOr<NetlinkSocket> NetlinkSocket::Adopt(UniqueFd fd, int protocol) {
  int domain = 0;
  int actual = 0;
  socklen_t length = sizeof(int);
  if (::getsockopt(fd.get(), SOL_SOCKET, SO_DOMAIN, &domain, &length) != 0 ||
      ::getsockopt(fd.get(), SOL_SOCKET, SO_PROTOCOL, &actual, &length) != 0) {
    return ErrnoError(errno, "getsockopt(SO_PROTOCOL)", {.step = "netlink"});
  }
  if (domain != AF_NETLINK || actual != protocol) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the descriptor is not a netlink socket of protocol ", protocol));
  }
  NetlinkSocket socket(std::move(fd));
  socket.Configure();
  // Leftovers of an earlier user could carry the numbers of new requests.
  socket.Drain();
  return socket;
}

// None of these can fail on a kernel that has the option (the newest is strict
// checking, Linux 4.20), and without it only texts and filters are poorer.
void NetlinkSocket::Configure() {
  const int on = 1;
  for (int option :
       {NETLINK_EXT_ACK, NETLINK_CAP_ACK, NETLINK_GET_STRICT_CHK}) {
    ::setsockopt(fd_.get(), SOL_NETLINK, option, &on, sizeof(on));
  }
}

void NetlinkSocket::Drain() {
  char byte;
  // An overrun queue reports ENOBUFS once and goes on.
  while (::recv(fd_.get(), &byte, 1, MSG_DONTWAIT | MSG_TRUNC) >= 0 ||
         errno == ENOBUFS || errno == EINTR) {
  }
}

absl::Status NetlinkSocket::Send(NetlinkTrain& train) {
  const absl::string_view bytes = train.bytes();
  for (size_t i = 0; i < train.count(); ++i) {
    train.at(i)->nlmsg_seq = ++sequence_;
  }
  int room = 0;
  socklen_t length = sizeof(room);
  ::getsockopt(fd_.get(), SOL_SOCKET, SO_SNDBUF, &room, &length);
  if (bytes.size() + 4096 > static_cast<size_t>(room)) {
    // The kernel doubles the value; a train is at most a few megabytes.
    const int wanted = static_cast<int>(bytes.size());
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_SNDBUFFORCE, &wanted,
                 sizeof(wanted));
  }
  sockaddr_nl kernel = {};
  kernel.nl_family = AF_NETLINK;
  ssize_t n;
  do {
    n = ::sendto(fd_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL,
                 reinterpret_cast<const sockaddr*>(&kernel), sizeof(kernel));
  } while (n < 0 && errno == EINTR);
  if (n < 0) {
    return ErrnoError(errno,
                      absl::StrCat("send(", train.messages_[0].what, ")"),
                      {.step = "netlink"});
  }
  return absl::OkStatus();
}

absl::Status NetlinkSocket::Run(NetlinkTrain& train, Row on_reply) {
  if (train.empty()) return absl::OkStatus();
  const size_t last = std::min(train.last_answered_, train.count() - 1);
  train.at(last)->nlmsg_flags |= NLM_F_ACK;
  RETURN_IF_ERROR(Send(train));
  const uint32_t first_sequence = sequence_ - train.count() + 1;

  const ReceiveBuffer buffer;
  absl::Status result;
  size_t failed = train.count();
  bool answered = false;
  for (;;) {
    ASSIGN_OR_RETURN(const size_t size,
                     Receive(fd_.get(), buffer, /*wait=*/!answered,
                             train.messages_[last].what));
    if (size == 0) return result;
    int left = static_cast<int>(size);
    auto* message = reinterpret_cast<const nlmsghdr*>(buffer.data.get());
    for (; mnl_nlmsg_ok(message, left);
         message = mnl_nlmsg_next(message, &left)) {
      const uint32_t index = message->nlmsg_seq - first_sequence;
      if (index >= train.count()) continue;
      if (message->nlmsg_type != NLMSG_ERROR) {
        if (message->nlmsg_type >= NLMSG_MIN_TYPE) on_reply(*message);
        continue;
      }
      const int error = ErrnoOf(*message);
      if (error != 0 && index < failed && !train.Tolerates(index, error)) {
        failed = index;
        result = RequestError(error, train.messages_[index].what,
                              ExtendedAckText(*message));
      }
      // After an error nothing more need come: a batch may end right there.
      answered = answered || error != 0 || index == last;
    }
  }
}

// One attempt; the value is false if the kernel saw a change meanwhile.
absl::StatusOr<bool> NetlinkSocket::DumpOnce(NetlinkTrain& request,
                                             std::string& rows) {
  const std::string& what = request.messages_[0].what;
  RETURN_IF_ERROR(Send(request));
  const ReceiveBuffer buffer;
  bool consistent = true;
  rows.clear();
  for (;;) {
    ASSIGN_OR_RETURN(const size_t size,
                     Receive(fd_.get(), buffer, /*wait=*/true, what));
    int left = static_cast<int>(size);
    auto* message = reinterpret_cast<const nlmsghdr*>(buffer.data.get());
    for (; mnl_nlmsg_ok(message, left);
         message = mnl_nlmsg_next(message, &left)) {
      if (message->nlmsg_seq != sequence_) continue;
      if ((message->nlmsg_flags & NLM_F_DUMP_INTR) != 0) consistent = false;
      if (message->nlmsg_type == NLMSG_ERROR ||
          message->nlmsg_type == NLMSG_DONE) {
        const int error = ErrnoOf(*message);
        if (error == 0) return consistent;
        return RequestError(error, what,
                            message->nlmsg_type == NLMSG_ERROR
                                ? ExtendedAckText(*message)
                                : "");
      }
      if (message->nlmsg_type < NLMSG_MIN_TYPE) continue;
      rows.append(reinterpret_cast<const char*>(message),
                  MNL_ALIGN(message->nlmsg_len));
    }
  }
}

absl::StatusOr<bool> NetlinkSocket::WaitForNotification(
    absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  for (;;) {
    const absl::Duration left =
        std::max(deadline - absl::Now(), absl::ZeroDuration());
    pollfd ready = {fd_.get(), POLLIN, 0};
    const int count = ::poll(&ready, 1,
                             static_cast<int>(absl::ToInt64Milliseconds(
                                 absl::Ceil(left, absl::Milliseconds(1)))));
    if (count == 0) return false;
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return LostAnswer(errno, "poll()", "");
    Drain();
    return true;
  }
}

absl::Status NetlinkSocket::Dump(NetlinkTrain& request, Row row) {
  request.at(0)->nlmsg_flags |= NLM_F_DUMP;
  std::string rows;
  for (int attempt = 0; attempt < kMaxDumpAttempts; ++attempt) {
    ASSIGN_OR_RETURN(const bool consistent, DumpOnce(request, rows));
    if (!consistent) continue;
    int left = static_cast<int>(rows.size());
    auto* message = reinterpret_cast<const nlmsghdr*>(rows.data());
    for (; mnl_nlmsg_ok(message, left);
         message = mnl_nlmsg_next(message, &left)) {
      row(*message);
    }
    return absl::OkStatus();
  }
  return absl::UnavailableError(absl::StrCat(request.messages_[0].what,
                                             ": the kernel's state changed "
                                             "during each of ",
                                             kMaxDumpAttempts, " dumps"));
}

}  // namespace caisson::sys
