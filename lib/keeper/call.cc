#include "lib/keeper/call.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <utility>

#include "absl/time/time.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/keeper/keeper_image.h"
#include "lib/keeper/wire.h"
#include "lib/sys/detached_child.h"
#include "lib/sys/local_socket.h"
#include "lib/sys/memfd.h"

namespace caisson::keeper {
namespace {

// Composing takes milliseconds, unless a disk or a volume's copy is slow.
constexpr absl::Duration kStartTimeout = absl::Minutes(5);

}  // namespace

absl::StatusOr<std::pair<UniqueFd, UniqueFd>> MakePipe() {
  int fds[2];
  if (::pipe2(fds, O_CLOEXEC) != 0) {
    return ErrnoError(errno, "pipe2()", {.step = "container"});
  }
  return std::make_pair(UniqueFd(fds[0]), UniqueFd(fds[1]));
}

absl::Status StartKeeper(const ContainerDirectory& directory,
                         Request::Start start,
                         absl::Span<const BorrowedFd> streams) {
  constexpr int kSeals =
      F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
  ASSIGN_OR_RETURN(const UniqueFd program,
                   sys::MakeMemfd("caisson-keeper", sys::MemfdKind::kProgram,
                                  kSeals, KeeperImage()));
  ASSIGN_OR_RETURN(auto sockets, sys::SocketPair("keeper"));
  ASSIGN_OR_RETURN(UniqueFd lock, directory.LockForKeeper());
  ASSIGN_OR_RETURN(UniqueFd listening, directory.Listen());
  Request request;
  *request.mutable_start() = std::move(start);
  std::vector<BorrowedFd> descriptors = {lock.borrow(), listening.borrow()};
  descriptors.insert(descriptors.end(), streams.begin(), streams.end());
  absl::Status status = Send(sockets.first.borrow(), request, descriptors);
  if (status.ok()) {
    status = sys::SpawnDetached(
        program.borrow(), "caisson-keeper", sockets.second.borrow(),
        {.second_socket = BorrowedFd(), .new_pid_namespace = false});
  }
  if (!status.ok()) {
    directory.RemoveSocket();
    return status;
  }
  sockets.second.reset();
  lock.reset();
  listening.reset();
  const Deadline deadline(kStartTimeout);
  const auto answered = ReadAnswer(sockets.first.borrow(), deadline);
  RETURN_IF_ERROR(answered.status());
  status = StatusOf(answered->reply);
  // So that it is no keeper any more when this returns.
  if (!status.ok()) {
    AwaitEnd(sockets.first.borrow(), deadline).IgnoreError();
  }
  return status;
}

absl::StatusOr<UniqueFd> Ask(const ContainerDirectory& directory,
                             const Request& request,
                             absl::Span<const BorrowedFd> descriptors) {
  UniqueFd connection;
  {
    // A keeper that is about to end waits for this.
    ASSIGN_OR_RETURN(const HeldLock lock, directory.Lock());
    ASSIGN_OR_RETURN(const bool lives, directory.HasKeeper());
    if (!lives) return UniqueFd();
    auto connected = directory.Connect();
    if (!connected.ok()) {
      const auto detail = GetErrorDetail(connected.status());
      if (!detail ||
          (detail->error != ECONNREFUSED && detail->error != ENOENT)) {
        return connected.status();
      }
      // It was killed, and the kernel is taking it apart.
      RETURN_IF_ERROR(directory.AwaitNoKeeper());
      return UniqueFd();
    }
    connection = *std::move(connected);
  }
  const absl::Status sent = Send(connection.borrow(), request, descriptors);
  if (absl::IsUnavailable(sent)) return UniqueFd();
  RETURN_IF_ERROR(sent);
  return connection;
}

absl::StatusOr<Answered> ReadAnswer(BorrowedFd connection,
                                    const Deadline& deadline) {
  ASSIGN_OR_RETURN(Received received, Await(connection, deadline));
  Answered answered;
  if (!answered.reply.ParseFromString(received.bytes)) {
    return absl::InternalError(
        "the container's keeper answered in another version's words");
  }
  answered.descriptors = std::move(received.descriptors);
  return answered;
}

absl::Status AwaitEnd(BorrowedFd connection, const Deadline& deadline) {
  for (;;) {
    const auto received = Receive(connection);
    if (!received.ok()) return absl::OkStatus();
    if (*received) continue;
    pollfd poll = {.fd = connection.get(), .events = POLLIN, .revents = 0};
    const int ready = deadline.Poll(absl::MakeSpan(&poll, 1));
    if (ready < 0 && errno != EINTR) {
      return ErrnoError(errno, "ppoll(keeper)", {.step = "keeper"});
    }
    if (ready == 0 && deadline.expired()) {
      return absl::DeadlineExceededError(
          "the container's keeper has not ended in time");
    }
  }
}

}  // namespace caisson::keeper
