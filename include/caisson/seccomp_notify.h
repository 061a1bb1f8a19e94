// SeccompListener: the host's side of system calls that a policy hands to it.
//
//   options.notify_syscalls = {"mkdir"};                    // SecurityOptions
//   ...
//   caisson::SeccompListener listener(process->TakeSeccompListener());
//   while (auto call = listener.Receive(); call.ok()) {
//     // ... do what the program may not do itself, then
//     listener.Return(call->id, 0).IgnoreError();           // or Fail(id,
//     EPERM)
//   }
//
// The caller waits in its system call until it is answered. See seccomp(2) and
// seccomp_unotify(2).
//
// What the program's memory says may change at any time, also between a look at
// it and the call: decide by what was read and then do the work in the host.
// UnsafeContinue() lets the kernel carry out the call as it is *then*.
#ifndef CAISSON_SECCOMP_NOTIFY_H_
#define CAISSON_SECCOMP_NOTIFY_H_

#include <sys/types.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "caisson/seccomp.h"
#include "caisson/unique_fd.h"

namespace caisson {

struct SeccompNotification {
  uint64_t id = 0;  // for the answer
  // The thread that called, as the host's pid namespace numbers it; 0 if it is
  // not visible there.
  pid_t pid = 0;
  uint32_t audit_arch = 0;  // AUDIT_ARCH_*
  uint32_t number = 0;
  std::string name;  // SyscallName()
  std::array<uint64_t, 6> args = {};

  // For SecurityPolicy::ExplainViolation().
  SyscallEvent event() const {
    return {.audit_arch = audit_arch, .number = number, .args = args};
  }
};

// How a descriptor comes into the caller's table.
struct AddFdOptions {
  // The number that it takes there, in place of one that is open; the lowest
  // free one otherwise.
  std::optional<int> number;
  bool close_on_exec = true;
  // The call is answered at once, with the number (Linux 5.14).
  bool answer = true;
};

// Thread-compatible: of several threads, one may receive while others answer.
class [[nodiscard]] SeccompListener final {
 public:
  // Takes what Process::TakeSeccompListener() returned. The destructor closes
  // it: calls that wait then fail with ENOSYS.
  explicit SeccompListener(UniqueFd fd);

  // Readable while a call waits; POLLHUP when no process uses the filter any
  // more.
  BorrowedFd fd() const { return fd_.borrow(); }

  // The next call. Blocks until there is one or `deadline` passes
  // (DEADLINE_EXCEEDED). UNAVAILABLE once no process is left.
  absl::StatusOr<SeccompNotification> Receive(
      absl::Time deadline = absl::InfiniteFuture()) const;

  // Each answers one call, once. NOT_FOUND if the caller is gone, a signal took
  // it out of the call, or it was answered.
  absl::Status Return(uint64_t id, int64_t value) const;
  // INVALID_ARGUMENT unless `error` is an errno, 1 to 4095.
  absl::Status Fail(uint64_t id, int error) const;
  // The kernel carries out the call. The arguments were seen, but what they
  // point to may have changed: not for a decision about security.
  absl::Status UnsafeContinue(uint64_t id) const;

  // Whether the caller still waits for this answer.
  absl::StatusOr<bool> IsValid(uint64_t id) const;

  // Gives the caller a descriptor; its number there.
  absl::StatusOr<int> AddFd(uint64_t id, BorrowedFd fd,
                            const AddFdOptions& options = {}) const;

  // The caller's memory at `address`, which an argument holds: exactly `size`
  // bytes, or a string of at most `limit` without its NUL. NOT_FOUND if the
  // caller is gone. Needs ptrace rights over the caller, as root has.
  absl::StatusOr<std::string> ReadMemory(const SeccompNotification& call,
                                         uint64_t address, size_t size) const;
  absl::StatusOr<std::string> ReadString(const SeccompNotification& call,
                                         uint64_t address,
                                         size_t limit = 4096) const;

 private:
  absl::Status Respond(uint64_t id, int64_t value, int error,
                       uint32_t flags) const;

  UniqueFd fd_;
};

}  // namespace caisson

#endif  // CAISSON_SECCOMP_NOTIFY_H_
