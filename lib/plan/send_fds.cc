#include "lib/plan/send_fds.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <utility>

#include "lib/base/errno_error.h"

namespace caisson::plan {
namespace {

constexpr size_t kMaxSent = 8;

// A control message with one SCM_RIGHTS array.
struct Control {
  alignas(cmsghdr) char bytes[CMSG_SPACE(kMaxSent * sizeof(int))];
};

}  // namespace

void AppendSendFds(PlanBuilder& plan, Slot socket,
                   const std::vector<Slot>& slots) {
  Control control = {};
  cmsghdr header = {};
  header.cmsg_len = CMSG_LEN(slots.size() * sizeof(int));
  header.cmsg_level = SOL_SOCKET;
  header.cmsg_type = SCM_RIGHTS;
  memcpy(control.bytes, &header, sizeof(header));
  const Data control_data = plan.Object(control);
  for (size_t i = 0; i < slots.size(); ++i) {
    plan.Store(
        control_data.at(static_cast<uint32_t>(CMSG_LEN(i * sizeof(int)))),
        slots[i]);
  }
  iovec iov = {.iov_base = nullptr, .iov_len = 1};
  const Data iov_data = plan.Object(iov);
  plan.PointTo(iov_data.at(offsetof(iovec, iov_base)), plan.String("f"));
  msghdr message = {};
  message.msg_iovlen = 1;
  message.msg_controllen = CMSG_SPACE(slots.size() * sizeof(int));
  const Data message_data = plan.Object(message);
  plan.PointTo(message_data.at(offsetof(msghdr, msg_iov)), iov_data);
  plan.PointTo(message_data.at(offsetof(msghdr, msg_control)), control_data);
  plan.Call(SYS_sendmsg, {socket, message_data, MSG_NOSIGNAL},
            "sendmsg(SCM_RIGHTS)");
}

absl::StatusOr<std::vector<UniqueFd>> ReceiveFds(BorrowedFd socket,
                                                 size_t count) {
  Control control = {};
  char byte;
  iovec iov = {.iov_base = &byte, .iov_len = 1};
  msghdr message = {};
  message.msg_iov = &iov;
  message.msg_iovlen = 1;
  message.msg_control = control.bytes;
  message.msg_controllen = sizeof(control.bytes);
  ssize_t size;
  do {
    size = ::recvmsg(socket.get(), &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  } while (size < 0 && errno == EINTR);
  if (size < 0) {
    return ErrnoError(errno, "recvmsg(SCM_RIGHTS)", {.step = "receive"});
  }
  std::vector<UniqueFd> fds;
  const cmsghdr* header = CMSG_FIRSTHDR(&message);
  if (header != nullptr && header->cmsg_level == SOL_SOCKET &&
      header->cmsg_type == SCM_RIGHTS) {
    const size_t received = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < received; ++i) {
      int fd;
      memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof(fd));
      fds.emplace_back(fd);
    }
  }
  if (fds.size() != count || (message.msg_flags & MSG_CTRUNC) != 0) {
    return absl::ResourceExhaustedError(
        "recvmsg(SCM_RIGHTS): descriptors got lost; the process has reached "
        "RLIMIT_NOFILE");
  }
  return fds;
}

}  // namespace caisson::plan
