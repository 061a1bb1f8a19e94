// UNIX sockets (SOCK_SEQPACKET) that have a name in a directory, by the
// directory's descriptor: an address has room for 107 bytes only, and a path
// may be longer; and descriptors that go with messages. Thread-safe functions.
#ifndef CAISSON_LIB_SYS_LOCAL_SOCKET_H_
#define CAISSON_LIB_SYS_LOCAL_SOCKET_H_

#include <sys/socket.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "caisson/unique_fd.h"

namespace caisson::sys {

// Listens at `name`, at most 64 bytes, which must not exist. Errors have `step`
// and name `directory_path`.
absl::StatusOr<UniqueFd> ListenAt(BorrowedFd directory, absl::string_view name,
                                  int backlog, absl::string_view step,
                                  absl::string_view directory_path);

// Connects without waiting: UNAVAILABLE if whoever listens has a full queue, or
// has ended, with or without its name.
absl::StatusOr<UniqueFd> ConnectAt(BorrowedFd directory, absl::string_view name,
                                   absl::string_view step,
                                   absl::string_view directory_path);

absl::StatusOr<std::pair<UniqueFd, UniqueFd>> SocketPair(
    absl::string_view step);

// What sendmsg(2) is told of descriptors (SCM_RIGHTS).
class SentDescriptors final {
 public:
  explicit SentDescriptors(absl::Span<const int> descriptors);
  // `message` refers to this object then.
  void AddTo(msghdr& message);

 private:
  std::string control_;
};

// Those that recvmsg(2) has brought, all of them.
std::vector<UniqueFd> TakeDescriptors(const msghdr& message);

}  // namespace caisson::sys

#endif  // CAISSON_LIB_SYS_LOCAL_SOCKET_H_
