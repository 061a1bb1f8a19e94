#include "lib/keeper/call.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
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
// To reach a keeper that has its lock. One that was killed takes some
// milliseconds to be taken apart.
constexpr int kAttempts = 40;

// write(2) of more than RLIMIT_FSIZE would be a signal to the host.
absl::Status CheckFileSize(size_t size) {
  rlimit limit = {};
  if (::getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur >= size) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      absl::StrCat("RLIMIT_FSIZE is ", limit.rlim_cur,
                   " bytes; a container's keeper takes ", size));
}

}  // namespace

absl::StatusOr<std::pair<UniqueFd, UniqueFd>> MakePipe() {
  int fds[2];
  if (::pipe2(fds, O_CLOEXEC) != 0) {
    return ErrnoError(errno, "pipe2()", {.step = "container"});
  }
  return std::make_pair(UniqueFd(fds[0]), UniqueFd(fds[1]));
}

absl::StatusOr<UniqueFd> StartKeeper(const ContainerDirectory& directory,
                                     HeldLock held, Request::Start start,
                                     absl::Span<const BorrowedFd> streams) {
  constexpr int kSeals =
      F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
  RETURN_IF_ERROR(CheckFileSize(KeeperImage().size()));
  ASSIGN_OR_RETURN(const UniqueFd program,
                   sys::MakeMemfd("caisson-keeper", sys::MemfdKind::kProgram,
                                  kSeals, KeeperImage()));
  ASSIGN_OR_RETURN(auto sockets, sys::SocketPair("keeper"));
  ASSIGN_OR_RETURN(HeldLock lock, directory.LockForKeeper());
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
  // From here on others find it, and wait for it as this does.
  held.reset();
  const Deadline deadline(kStartTimeout);
  const auto answered = ReadAnswer(sockets.first.borrow(), deadline);
  if (absl::IsUnavailable(answered.status())) {
    return absl::UnavailableError(
        "the container's keeper has ended without a word: it was killed, or "
        "could not be executed (it needs the system's libcrypto, libsqlite3, "
        "libisal, libzstd and libmnl)");
  }
  RETURN_IF_ERROR(answered.status());
  status = StatusOf(answered->reply);
  // So that it is no keeper any more when this returns.
  if (!status.ok()) {
    AwaitEnd(sockets.first.borrow(), deadline).IgnoreError();
    return status;
  }
  return std::move(sockets.first);
}

absl::StatusOr<UniqueFd> Ask(const ContainerDirectory& directory,
                             const Request& request,
                             absl::Span<const BorrowedFd> descriptors) {
  for (int attempt = 0;; ++attempt) {
    ASSIGN_OR_RETURN(const bool lives, directory.HasKeeper());
    if (!lives) return UniqueFd();
    auto connection = directory.Connect();
    absl::Status status = connection.status();
    if (connection.ok()) {
      status = Send(connection->borrow(), request, descriptors);
      if (status.ok()) return connection;
    }
    if (!absl::IsUnavailable(status) || attempt == kAttempts) return status;
    // It does not listen yet, or not any more: whoever makes one holds this
    // lock, and one that ends does.
    RETURN_IF_ERROR(directory.Lock().status());
    // One that was killed holds neither; its end is some milliseconds away, and
    // nothing tells of it that could not be held by one whose socket is gone.
    if (attempt > 0) absl::SleepFor(absl::Milliseconds(1) * attempt);
  }
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
