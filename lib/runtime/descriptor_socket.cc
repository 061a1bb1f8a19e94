#include "lib/runtime/descriptor_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/sys/local_socket.h"
#include "lib/sys/open.h"

namespace caisson::runtime {
namespace {

// What the receivers take for the terminal's name.
constexpr char kTerminalName[] = "/dev/ptmx";
// How long a receiver may take that is there and reads nothing.
constexpr timeval kPatience = {.tv_sec = 10, .tv_usec = 0};

absl::Status SocketError(int error, const char* call, const char* step,
                         const std::string& path) {
  if (error == EAGAIN) {
    return absl::DeadlineExceededError(absl::StrCat(
        call, "(", Quoted(path), "): nobody reads from the socket"));
  }
  return ErrnoError(error, absl::StrCat(call, "(", Quoted(path), ")"),
                    {.step = step, .path = path});
}

absl::StatusOr<UniqueFd> Connect(const char* step, const std::string& path) {
  // By its descriptor, since the path may be longer than an address.
  ASSIGN_OR_RETURN(const UniqueFd file, sys::Open(path, O_PATH));
  const std::string name = absl::StrCat("/proc/self/fd/", file.get());
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket.valid() || ::setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO,
                                      &kPatience, sizeof(kPatience)) != 0) {
    return SocketError(errno, "socket", step, path);
  }
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  name.copy(address.sun_path, sizeof(address.sun_path) - 1);
  if (::connect(socket.get(), reinterpret_cast<sockaddr*>(&address),
                sizeof(address)) != 0) {
    return SocketError(errno, "connect", step, path);
  }
  return socket;
}

// The descriptor goes with the first byte.
absl::Status Send(const char* step, const std::string& path,
                  absl::string_view text, BorrowedFd descriptor) {
  ASSIGN_OR_RETURN(const UniqueFd socket, Connect(step, path));
  const int fd = descriptor.get();
  sys::SentDescriptors descriptors(absl::MakeConstSpan(&fd, 1));
  msghdr message = {};
  descriptors.AddTo(message);
  while (!text.empty()) {
    iovec iov = {.iov_base = const_cast<char*>(text.data()),
                 .iov_len = text.size()};
    message.msg_iov = &iov;
    message.msg_iovlen = 1;
    const ssize_t sent = ::sendmsg(socket.get(), &message, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0) return SocketError(errno, "sendmsg", step, path);
    text.remove_prefix(static_cast<size_t>(sent));
    message.msg_control = nullptr;
    message.msg_controllen = 0;
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status SendTerminal(const std::string& path, BorrowedFd master) {
  return Send("console socket", path, kTerminalName, master);
}

absl::Status SendListener(const std::string& path, absl::string_view state,
                          BorrowedFd listener) {
  return Send("seccomp agent", path, state, listener);
}

}  // namespace caisson::runtime
