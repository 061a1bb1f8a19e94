#include "lib/keeper/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/sys/local_socket.h"
#include "lib/sys/memfd.h"
#include "lib/sys/open.h"

namespace caisson::keeper {
namespace {

constexpr char kStep[] = "keeper";

absl::Status Gone() {
  return absl::UnavailableError("the container's keeper has ended");
}

absl::Status NoMessage(absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("no keeper's message: ", why));
}

// The bytes of a message. They cannot change while they are read.
absl::StatusOr<std::string> ReadSealed(BorrowedFd memfd) {
  constexpr int kSeals = F_SEAL_WRITE | F_SEAL_SHRINK;
  const int seals = ::fcntl(memfd.get(), F_GET_SEALS);
  if (seals < 0 || (seals & kSeals) != kSeals) return NoMessage("not sealed");
  struct stat stat;
  if (::fstat(memfd.get(), &stat) != 0 || stat.st_size < 0 ||
      static_cast<size_t>(stat.st_size) > kMaxMessage) {
    return NoMessage("too long");
  }
  std::string bytes(static_cast<size_t>(stat.st_size), '\0');
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t size = ::pread(memfd.get(), bytes.data() + done,
                                 bytes.size() - done, static_cast<off_t>(done));
    if (size <= 0) return NoMessage("unreadable");
    done += static_cast<size_t>(size);
  }
  return bytes;
}

}  // namespace

absl::Status Send(BorrowedFd socket,
                  const google::protobuf::MessageLite& content,
                  absl::Span<const BorrowedFd> descriptors) {
  const std::string bytes = content.SerializeAsString();
  if (bytes.size() > kMaxMessage) {
    return absl::ResourceExhaustedError(
        absl::StrCat("a request of ", bytes.size(), " bytes; at most ",
                     kMaxMessage, " are possible"));
  }
  ASSIGN_OR_RETURN(const UniqueFd memfd,
                   sys::SealedMemfd("caisson-message", bytes));
  std::vector<int> fds = {memfd.get()};
  for (const BorrowedFd fd : descriptors) fds.push_back(fd.get());
  char byte = 0;
  iovec iov = {.iov_base = &byte, .iov_len = 1};
  msghdr message = {};
  message.msg_iov = &iov;
  message.msg_iovlen = 1;
  sys::SentDescriptors sent_descriptors(fds);
  sent_descriptors.AddTo(message);
  ssize_t sent;
  do {
    sent = ::sendmsg(socket.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
  } while (sent < 0 && errno == EINTR);
  if (sent >= 0) return absl::OkStatus();
  const int error = errno;
  if (error == EPIPE || error == ECONNRESET || error == ENOTCONN) return Gone();
  const absl::Status status =
      ErrnoError(error, "sendmsg(keeper)", {.step = kStep});
  return error == EAGAIN ? absl::UnavailableError(status.message()) : status;
}

absl::StatusOr<std::optional<Received>> Receive(BorrowedFd socket) {
  char byte;
  iovec iov = {.iov_base = &byte, .iov_len = 1};
  alignas(
      cmsghdr) char control[CMSG_SPACE((kMaxDescriptors + 1) * sizeof(int))];
  msghdr message = {};
  message.msg_iov = &iov;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  ssize_t size;
  do {
    size = ::recvmsg(socket.get(), &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  } while (size < 0 && errno == EINTR);
  if (size < 0) {
    if (errno == EAGAIN) return std::optional<Received>();
    if (errno == ECONNRESET) return Gone();
    return ErrnoError(errno, "recvmsg(keeper)", {.step = kStep});
  }
  if (size == 0) return Gone();
  std::vector<UniqueFd> fds = sys::TakeDescriptors(message);
  if ((message.msg_flags & MSG_CTRUNC) != 0) {
    return absl::ResourceExhaustedError(
        "the receiver of a message has no room for its descriptors "
        "(RLIMIT_NOFILE)");
  }
  if (fds.empty()) return NoMessage("descriptors are missing");
  Received received;
  ASSIGN_OR_RETURN(received.bytes, ReadSealed(fds.front().borrow()));
  fds.erase(fds.begin());
  received.descriptors = std::move(fds);
  return std::optional<Received>(std::move(received));
}

absl::StatusOr<Received> Await(BorrowedFd socket, const Deadline& deadline) {
  for (;;) {
    ASSIGN_OR_RETURN(std::optional<Received> received, Receive(socket));
    if (received) return *std::move(received);
    pollfd poll = {.fd = socket.get(), .events = POLLIN, .revents = 0};
    const int ready = deadline.Poll(absl::MakeSpan(&poll, 1));
    if (ready < 0 && errno != EINTR) {
      return ErrnoError(errno, "ppoll(keeper)", {.step = kStep});
    }
    if (ready == 0 && deadline.expired()) {
      return absl::DeadlineExceededError(
          absl::StrCat("the container's keeper did not answer within ",
                       absl::FormatDuration(deadline.timeout())));
    }
  }
}

void SetStatus(const absl::Status& status, Reply& reply) {
  reply.set_code(static_cast<int>(status.code()));
  reply.set_message(std::string(status.message()));
  status.ForEachPayload([&](absl::string_view type, const absl::Cord& payload) {
    (*reply.mutable_payloads())[std::string(type)] = std::string(payload);
  });
}

absl::Status StatusOf(const Reply& reply) {
  if (reply.code() == 0) return absl::OkStatus();
  absl::Status status(static_cast<absl::StatusCode>(reply.code()),
                      reply.message());
  for (const auto& [type, payload] : reply.payloads()) {
    status.SetPayload(type, absl::Cord(payload));
  }
  return status;
}

}  // namespace caisson::keeper
