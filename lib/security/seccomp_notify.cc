#include "caisson/seccomp_notify.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"

namespace caisson {
namespace {

constexpr char kStep[] = "seccomp.notify";
constexpr char kGone[] =
    "the caller is gone, was interrupted or has its answer";
constexpr int kMaxErrno = 4095;
constexpr uint64_t kPage = 4096;

int PollTimeout(absl::Time deadline) {
  if (deadline == absl::InfiniteFuture()) return -1;
  const absl::Duration left =
      std::max(deadline - absl::Now(), absl::ZeroDuration());
  const int64_t ms =
      absl::ToInt64Milliseconds(absl::Ceil(left, absl::Milliseconds(1)));
  return static_cast<int>(
      std::min<int64_t>(ms, std::numeric_limits<int>::max()));
}

// The kernel's structures may be longer than those of the headers.
absl::StatusOr<seccomp_notif_sizes> Sizes() {
  seccomp_notif_sizes sizes = {};
  if (::syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &sizes) != 0) {
    return ErrnoError(errno, "seccomp(SECCOMP_GET_NOTIF_SIZES)",
                      {.step = kStep});
  }
  return sizes;
}

absl::Status AnswerError(int error, absl::string_view operation) {
  return ErrnoError(error, operation,
                    {.step = kStep, .hint = error == ENOENT ? kGone : ""});
}

}  // namespace

SeccompListener::SeccompListener(UniqueFd fd) : fd_(std::move(fd)) {}

absl::StatusOr<SeccompNotification> SeccompListener::Receive(
    absl::Time deadline) const {
  ASSIGN_OR_RETURN(const seccomp_notif_sizes sizes, Sizes());
  std::vector<uint64_t> buffer(
      (std::max<size_t>(sizes.seccomp_notif, sizeof(seccomp_notif)) + 7) / 8);
  for (;;) {
    pollfd poll = {.fd = fd_.get(), .events = POLLIN, .revents = 0};
    const int ready = ::poll(&poll, 1, PollTimeout(deadline));
    if (ready < 0 && errno != EINTR) {
      return ErrnoError(errno, "poll(seccomp listener)", {.step = kStep});
    }
    if (ready <= 0) {
      if (ready < 0 || absl::Now() < deadline) continue;
      return absl::DeadlineExceededError("no system call waits for an answer");
    }
    if ((poll.revents & POLLIN) == 0) {
      return absl::UnavailableError(
          "no process is left that could ask this seccomp listener");
    }
    std::fill(buffer.begin(), buffer.end(), 0);
    if (::ioctl(fd_.get(), SECCOMP_IOCTL_NOTIF_RECV, buffer.data()) == 0) {
      break;
    }
    // Who asked is gone again.
    if (errno == ENOENT || errno == EINTR) continue;
    return ErrnoError(errno, "ioctl(SECCOMP_IOCTL_NOTIF_RECV)",
                      {.step = kStep});
  }
  seccomp_notif received;
  memcpy(&received, buffer.data(), sizeof(received));
  SeccompNotification call;
  call.id = received.id;
  call.pid = static_cast<pid_t>(received.pid);
  call.audit_arch = received.data.arch;
  call.number = static_cast<uint32_t>(received.data.nr);
  call.name = SyscallName(call.audit_arch, call.number);
  std::copy(std::begin(received.data.args), std::end(received.data.args),
            call.args.begin());
  return call;
}

absl::Status SeccompListener::Respond(uint64_t id, int64_t value, int error,
                                      uint32_t flags) const {
  ASSIGN_OR_RETURN(const seccomp_notif_sizes sizes, Sizes());
  std::vector<uint64_t> buffer(
      (std::max<size_t>(sizes.seccomp_notif_resp, sizeof(seccomp_notif_resp)) +
       7) /
      8);
  seccomp_notif_resp response = {};
  response.id = id;
  response.val = value;
  response.error = -error;
  response.flags = flags;
  memcpy(buffer.data(), &response, sizeof(response));
  if (::ioctl(fd_.get(), SECCOMP_IOCTL_NOTIF_SEND, buffer.data()) == 0) {
    return absl::OkStatus();
  }
  // Answered before.
  const int failed = errno == EINPROGRESS ? ENOENT : errno;
  return AnswerError(failed, "ioctl(SECCOMP_IOCTL_NOTIF_SEND)");
}

absl::Status SeccompListener::Return(uint64_t id, int64_t value) const {
  return Respond(id, value, 0, 0);
}

absl::Status SeccompListener::Fail(uint64_t id, int error) const {
  if (error < 1 || error > kMaxErrno) {
    return absl::InvalidArgumentError(
        absl::StrCat("SeccompListener::Fail: ", error, " is no errno"));
  }
  return Respond(id, 0, error, 0);
}

absl::Status SeccompListener::UnsafeContinue(uint64_t id) const {
  return Respond(id, 0, 0, SECCOMP_USER_NOTIF_FLAG_CONTINUE);
}

absl::StatusOr<bool> SeccompListener::IsValid(uint64_t id) const {
  if (::ioctl(fd_.get(), SECCOMP_IOCTL_NOTIF_ID_VALID, &id) == 0) return true;
  if (errno == ENOENT) return false;
  return ErrnoError(errno, "ioctl(SECCOMP_IOCTL_NOTIF_ID_VALID)",
                    {.step = kStep});
}

absl::StatusOr<int> SeccompListener::AddFd(uint64_t id, BorrowedFd fd,
                                           const AddFdOptions& options) const {
  seccomp_notif_addfd request = {};
  request.id = id;
  request.srcfd = static_cast<uint32_t>(fd.get());
  if (options.number.has_value()) {
    request.flags |= SECCOMP_ADDFD_FLAG_SETFD;
    request.newfd = static_cast<uint32_t>(*options.number);
  }
  if (options.answer) request.flags |= SECCOMP_ADDFD_FLAG_SEND;
  if (options.close_on_exec) request.newfd_flags = O_CLOEXEC;
  const int number = ::ioctl(fd_.get(), SECCOMP_IOCTL_NOTIF_ADDFD, &request);
  if (number >= 0) return number;
  return AnswerError(errno, "ioctl(SECCOMP_IOCTL_NOTIF_ADDFD)");
}

absl::StatusOr<std::string> SeccompListener::ReadMemory(
    const SeccompNotification& call, uint64_t address, size_t size) const {
  std::string bytes(size, '\0');
  const iovec local = {.iov_base = bytes.data(), .iov_len = bytes.size()};
  // NOLINTNEXTLINE(performance-no-int-to-ptr): of another process.
  const iovec remote = {.iov_base = reinterpret_cast<void*>(address),
                        .iov_len = bytes.size()};
  const ssize_t got = ::process_vm_readv(call.pid, &local, 1, &remote, 1, 0);
  const int error = errno;
  // As long as the call waits, its pid is nobody else's.
  ASSIGN_OR_RETURN(const bool valid, IsValid(call.id));
  if (!valid) return absl::NotFoundError(kGone);
  if (got == static_cast<ssize_t>(size)) return bytes;
  return ErrnoError(got < 0 ? error : EFAULT,
                    absl::StrCat("process_vm_readv(", call.pid, ", ", size,
                                 " bytes of an argument of ", call.name, ")"),
                    {.step = kStep});
}

absl::StatusOr<std::string> SeccompListener::ReadString(
    const SeccompNotification& call, uint64_t address, size_t limit) const {
  std::string text;
  while (text.size() <= limit) {
    // Not beyond a page: the next one may not be there.
    const uint64_t at = address + text.size();
    const uint64_t rest = kPage - at % kPage;
    ASSIGN_OR_RETURN(const std::string part, ReadMemory(call, at, rest));
    const size_t end = part.find('\0');
    text.append(part, 0, end);
    if (end != std::string::npos && text.size() <= limit) return text;
    if (end != std::string::npos) break;
  }
  return absl::OutOfRangeError(absl::StrCat("an argument of ", call.name,
                                            " is a string of more than ", limit,
                                            " bytes"));
}

}  // namespace caisson
