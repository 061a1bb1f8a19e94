#include "lib/runtime/console_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/sys/open.h"

namespace caisson::runtime {
namespace {

// What the receivers take for the terminal's name.
constexpr char kName[] = "/dev/ptmx";

absl::Status SocketError(const char* call, const std::string& path) {
  return ErrnoError(errno, absl::StrCat(call, "(", Quoted(path), ")"),
                    {.step = "console socket", .path = path});
}

}  // namespace

absl::Status SendTerminal(const std::string& path, BorrowedFd master) {
  // By its descriptor, since the path may be longer than an address.
  ASSIGN_OR_RETURN(const UniqueFd file, sys::Open(path, O_PATH));
  const std::string name = absl::StrCat("/proc/self/fd/", file.get());
  const UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket.valid()) return SocketError("socket", path);
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  name.copy(address.sun_path, sizeof(address.sun_path) - 1);
  if (::connect(socket.get(), reinterpret_cast<sockaddr*>(&address),
                sizeof(address)) != 0) {
    return SocketError("connect", path);
  }
  iovec iov = {.iov_base = const_cast<char*>(kName), .iov_len = strlen(kName)};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message = {};
  message.msg_iov = &iov;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  const int fd = master.get();
  memcpy(CMSG_DATA(header), &fd, sizeof(fd));
  if (::sendmsg(socket.get(), &message, MSG_NOSIGNAL) < 0) {
    return SocketError("sendmsg", path);
  }
  return absl::OkStatus();
}

}  // namespace caisson::runtime
