#include "lib/sys/local_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"

namespace caisson::sys {
namespace {

absl::StatusOr<UniqueFd> NewSocket(absl::string_view step) {
  UniqueFd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (socket.valid()) return socket;
  return ErrnoError(errno, "socket(AF_UNIX, SOCK_SEQPACKET)", {.step = step});
}

// 0 or errno.
template <typename Call>
int WithAddress(Call call, const UniqueFd& socket, BorrowedFd directory,
                absl::string_view name) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  const std::string path =
      absl::StrCat("/proc/self/fd/", directory.get(), "/", name);
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  const int result =
      call(socket.get(), reinterpret_cast<const sockaddr*>(&address),
           static_cast<socklen_t>(sizeof(address)));
  return result == 0 ? 0 : errno;
}

absl::Status SocketError(int error, absl::string_view call,
                         absl::string_view directory_path,
                         absl::string_view name, absl::string_view step) {
  const std::string path = absl::StrCat(directory_path, "/", name);
  return ErrnoError(error, absl::StrCat(call, "(", Quoted(path), ")"),
                    {.step = step, .path = path});
}

}  // namespace

absl::StatusOr<UniqueFd> ListenAt(BorrowedFd directory, absl::string_view name,
                                  int backlog, absl::string_view step,
                                  absl::string_view directory_path) {
  ASSIGN_OR_RETURN(UniqueFd socket, NewSocket(step));
  if (const int error = WithAddress(::bind, socket, directory, name);
      error != 0) {
    return SocketError(error, "bind", directory_path, name, step);
  }
  if (::listen(socket.get(), backlog) != 0) {
    const int error = errno;
    ::unlinkat(directory.get(), std::string(name).c_str(), 0);
    return SocketError(error, "listen", directory_path, name, step);
  }
  return socket;
}

absl::StatusOr<UniqueFd> ConnectAt(BorrowedFd directory, absl::string_view name,
                                   absl::string_view step,
                                   absl::string_view directory_path) {
  ASSIGN_OR_RETURN(UniqueFd socket, NewSocket(step));
  const int flags = ::fcntl(socket.get(), F_GETFL);
  ::fcntl(socket.get(), F_SETFL, flags | O_NONBLOCK);
  const int error = WithAddress(::connect, socket, directory, name);
  ::fcntl(socket.get(), F_SETFL, flags);
  if (error == 0) return socket;
  const absl::Status status =
      SocketError(error, "connect", directory_path, name, step);
  // The name is gone before whoever listened is, or not there yet.
  if (error != ECONNREFUSED && error != EAGAIN && error != ENOENT) {
    return status;
  }
  absl::Status unavailable = absl::UnavailableError(status.message());
  status.ForEachPayload([&](absl::string_view type, const absl::Cord& payload) {
    unavailable.SetPayload(type, payload);
  });
  return unavailable;
}

absl::StatusOr<std::pair<UniqueFd, UniqueFd>> SocketPair(
    absl::string_view step) {
  int fds[2];
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) != 0) {
    return ErrnoError(errno, "socketpair(SOCK_SEQPACKET)", {.step = step});
  }
  return std::make_pair(UniqueFd(fds[0]), UniqueFd(fds[1]));
}

SentDescriptors::SentDescriptors(absl::Span<const int> descriptors)
    : control_(CMSG_SPACE(descriptors.size() * sizeof(int)), '\0') {
  msghdr message = {};
  AddTo(message);
  cmsghdr* const header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(descriptors.size() * sizeof(int));
  memcpy(CMSG_DATA(header), descriptors.data(),
         descriptors.size() * sizeof(int));
}

void SentDescriptors::AddTo(msghdr& message) {
  message.msg_control = control_.data();
  message.msg_controllen = control_.size();
}

std::vector<UniqueFd> TakeDescriptors(const msghdr& message) {
  std::vector<UniqueFd> descriptors;
  // The macros want what they do not change.
  auto* const all = const_cast<msghdr*>(&message);
  for (cmsghdr* header = CMSG_FIRSTHDR(all); header != nullptr;
       header = CMSG_NXTHDR(all, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) {
      continue;
    }
    const size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd;
      memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof(fd));
      descriptors.emplace_back(fd);
    }
  }
  return descriptors;
}

}  // namespace caisson::sys
