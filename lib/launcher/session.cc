#include "lib/launcher/session.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/launcher/id_maps.h"
#include "lib/launcher/start_errors.h"
#include "lib/launcher/stub_image.h"
#include "lib/plan/format.h"
#include "lib/sys/detached_child.h"
#include "lib/sys/local_socket.h"
#include "lib/sys/memfd.h"
#include "lib/sys/open.h"
#include "lib/sys/pidfd.h"

namespace caisson::launcher {
namespace {

absl::Status TimedOut(const Deadline& deadline) {
  return absl::DeadlineExceededError(absl::StrCat(
      "the start took longer than ", absl::FormatDuration(deadline.timeout()),
      " and was given up; a frozen control group, or a file system that hangs, "
      "does this"));
}

// Of what is answered at once.
absl::Status NoAnswer(absl::Duration timeout) {
  return absl::DeadlineExceededError(absl::StrCat(
      "the launcher did not answer within ", absl::FormatDuration(timeout),
      "; is it stopped, or in a frozen control group?"));
}

// Waits until one of `polls` is ready.
absl::Status Poll(absl::Span<pollfd> polls, const Deadline& deadline) {
  for (;;) {
    const int ready = deadline.Poll(polls);
    if (ready > 0) return absl::OkStatus();
    if (ready == 0 && deadline.expired()) return TimedOut(deadline);
    if (ready < 0 && errno != EINTR) {
      return ErrnoError(errno, "ppoll(launcher)", {.step = "launcher"});
    }
  }
}

// As sendmsg(2). A launcher that is stopped reads nothing: its queue is full at
// some time, and EAGAIN what is left at the deadline.
ssize_t SendMessage(BorrowedFd control, const msghdr& message,
                    const Deadline& deadline) {
  for (;;) {
    const ssize_t sent =
        ::sendmsg(control.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent >= 0 || (errno != EINTR && errno != EAGAIN)) return sent;
    if (errno == EINTR) continue;
    pollfd poll = {.fd = control.get(), .events = POLLOUT, .revents = 0};
    if (!Poll(absl::MakeSpan(&poll, 1), deadline).ok()) {
      errno = EAGAIN;
      return -1;
    }
  }
}

absl::Status SendRequest(BorrowedFd control, Request request,
                         const std::vector<int>& fds,
                         const Deadline& deadline) {
  request.version = kProtocolVersion;
  iovec iov = {.iov_base = &request, .iov_len = sizeof(request)};
  msghdr message = {};
  message.msg_iov = &iov;
  message.msg_iovlen = 1;
  sys::SentDescriptors descriptors(fds);
  descriptors.AddTo(message);
  if (SendMessage(control, message, deadline) >= 0) return absl::OkStatus();
  const int error = errno;
  if (error == EAGAIN) return NoAnswer(deadline.timeout());
  if (error == EPIPE || error == ECONNRESET) return Dead("sendmsg(launcher)");
  if (error == EBADF) {
    for (const int fd : fds) {
      if (::fcntl(fd, F_GETFD) >= 0) continue;
      return ErrnoError(EBADF, "sendmsg(launcher)",
                        {.step = "launcher",
                         .hint = absl::StrCat("descriptor ", fd,
                                              " of the specification is not "
                                              "open")});
    }
  }
  return ErrnoError(
      error, absl::StrCat("sendmsg(launcher, ", fds.size(), " descriptors)"),
      {.step = "launcher",
       .hint = error == ETOOMANYREFS
                   ? "more descriptors than RLIMIT_NOFILE are on their way"
                   : ""});
}

// Waits until the other end is closed everywhere.
absl::Status AwaitEndOfFile(BorrowedFd pipe, const Deadline& deadline) {
  for (;;) {
    pollfd poll = {.fd = pipe.get(), .events = POLLIN, .revents = 0};
    RETURN_IF_ERROR(Poll(absl::MakeSpan(&poll, 1), deadline));
    char byte;
    const ssize_t size = ::read(pipe.get(), &byte, 1);
    if (size == 0) return absl::OkStatus();
    // Nobody writes there.
    if (size > 0) return absl::InternalError("data on a start's status pipe");
  }
}

absl::StatusOr<plan::Result> ReadResult(BorrowedFd plan) {
  plan::Result result;
  if (::pread(plan.get(), &result, sizeof(result),
              offsetof(plan::Header, result)) != sizeof(result)) {
    return ErrnoError(errno, "pread(plan)", {.step = "launcher"});
  }
  return result;
}

constexpr char kName[] = "caisson-launcher";

// The program in a file that can only be executed.
absl::StatusOr<UniqueFd> MakeImage() {
  return sys::MakeMemfd(
      kName, sys::MemfdKind::kProgram,
      F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL, StubImage());
}

absl::Duration MonotonicNow() {
  timespec now;
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return absl::DurationFromTimespec(now);
}

// The child takes no time after an exec: it ended when its host saw that.
std::vector<StepLatency> Latencies(const plan::PlanBuilder& plan,
                                   plan::Result result, absl::Duration ended) {
  if (result.steps <= plan::kMaxSteps && result.state == plan::kExecuting) {
    result.time[1 + result.steps] =
        static_cast<uint64_t>(absl::ToInt64Nanoseconds(ended));
  }
  std::vector<StepLatency> latencies;
  auto add = [&](absl::string_view name, size_t i) {
    if (result.time[i] < result.time[i - 1]) return;
    latencies.push_back(
        {std::string(name), absl::Nanoseconds(static_cast<int64_t>(
                                result.time[i] - result.time[i - 1]))});
  };
  add("clone", 1);
  const size_t count =
      std::min<size_t>({result.steps, plan.steps().size(), plan::kMaxSteps});
  for (size_t i = 0; i < count; ++i) add(plan.steps()[i], 2 + i);
  return latencies;
}

}  // namespace

absl::StatusOr<Message> ReceiveMessage(BorrowedFd socket,
                                       std::vector<UniqueFd>* fds, int flags) {
  constexpr size_t kMaxFds = 1 + kMaxKept;
  Message message = {};
  iovec iov = {.iov_base = &message, .iov_len = sizeof(message)};
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxFds * sizeof(int))];
  msghdr header = {};
  header.msg_iov = &iov;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof(control);
  ssize_t size;
  do {
    size = ::recvmsg(socket.get(), &header, flags | MSG_CMSG_CLOEXEC);
  } while (size < 0 && errno == EINTR);
  if (size < 0 && errno != ECONNRESET) {
    return ErrnoError(errno, "recvmsg(launcher)", {.step = "launcher"});
  }
  if (size <= 0) return Dead("recvmsg(launcher)");
  std::vector<UniqueFd> received = sys::TakeDescriptors(header);
  if (fds != nullptr) *fds = std::move(received);
  if (size != sizeof(message) || message.version != kProtocolVersion) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the launcher speaks version ", message.version,
        " of the protocol, this library version ", kProtocolVersion,
        ": it was started by another version of the library; use that to stop "
        "its processes, or kill it"));
  }
  return message;
}

Session::Session(UniqueFd control, UniqueFd pidfd, const Message& hello)
    : control_(std::move(control)),
      pidfd_(std::move(pidfd)),
      hello_(hello),
      creator_(::getpid()) {}

absl::StatusOr<Session> Session::Create(bool releases) {
  ASSIGN_OR_RETURN(UniqueFd control, Spawn(releases));
  return Connect(std::move(control));
}

absl::StatusOr<UniqueFd> Session::Spawn(bool releases) {
  ASSIGN_OR_RETURN(const UniqueFd image, MakeImage());
  ASSIGN_OR_RETURN(auto sockets, sys::SocketPair("launcher"));
  RETURN_IF_ERROR(sys::SpawnDetached(image.borrow(), kName,
                                     sockets.second.borrow(),
                                     {.new_pid_namespace = !releases}));
  return std::move(sockets.first);
}

absl::StatusOr<Session> Session::Connect(UniqueFd control) {
  std::vector<UniqueFd> pidfd;
  auto hello = ReceiveMessage(control.borrow(), &pidfd, 0);
  if (!hello.ok() || hello->kind != kHello || pidfd.size() != 1) {
    return absl::UnavailableError(absl::StrCat(
        "the launcher process ended while it started: the hard limit "
        "RLIMIT_NOFILE must be at least 512 and the system calls pidfd_open, "
        "close_range and signalfd4 must be allowed here",
        hello.ok() ? "; no pidfd was received" : ""));
  }
  if (hello->isolation_error != 0) {
    return ErrnoError(hello->isolation_error,
                      "mount(launcher's own tmpfs, procfs and sysfs)",
                      {.step = "launcher",
                       .hint = hello->isolation_error == EPERM
                                   ? "the host needs CAP_SYS_ADMIN and "
                                     "CAP_SYS_CHROOT, or, in a "
                                     "user namespace, a /proc and /sys of "
                                     "which nothing is masked (as containers "
                                     "have it; mount_too_revealing(), linux "
                                     "fs/namespace.c)"
                                   : "the launcher cannot leave the host's "
                                     "mounts; is the machine's root a "
                                     "file system that can be left?"});
  }
  return Session(std::move(control), std::move(pidfd[0]), *hello);
}

absl::StatusOr<Session::InUserNamespace> Session::CreateInUserNamespace(
    LauncherIds ids) {
  std::string why_single = "LauncherOptions.ids is kOwn";
  if (ids != LauncherIds::kOwn) {
    const auto subordinates = FindSubordinates(::getuid(), IdFiles());
    absl::Status status = subordinates.status();
    if (status.ok()) {
      auto created = CreateMapped([&subordinates](pid_t pid) {
        return MapSubordinateIds(pid, *subordinates);
      });
      if (created.ok() || ids == LauncherIds::kSubordinate) return created;
      status = created.status();
    }
    if (ids == LauncherIds::kSubordinate) {
      return Annotate(status, "LauncherOptions.ids: kSubordinate");
    }
    why_single = std::string(status.message());
  }
  ASSIGN_OR_RETURN(InUserNamespace created, CreateMapped(MapOwnIds));
  created.identity.why_single = std::move(why_single);
  return created;
}

absl::StatusOr<Session::InUserNamespace> Session::CreateMapped(MapIds map_ids) {
  ASSIGN_OR_RETURN(const UniqueFd image, MakeImage());
  ASSIGN_OR_RETURN(auto control, sys::SocketPair("launcher"));
  ASSIGN_OR_RETURN(auto mounts, sys::SocketPair("launcher"));
  RETURN_IF_ERROR(sys::SpawnDetached(
      image.borrow(), kName, control.second.borrow(),
      {.second_socket = mounts.second.borrow(), .new_user_namespace = true}));
  control.second.reset();
  mounts.second.reset();
  std::vector<UniqueFd> pidfd;
  ASSIGN_OR_RETURN(const Message message,
                   ReceiveMessage(control.first.borrow(), &pidfd, 0));
  if (message.kind != kNeedsIdMaps || pidfd.size() != 1) {
    return absl::UnavailableError(
        "the launcher process did not ask for its id maps: the system call "
        "pidfd_open must be allowed here");
  }
  ASSIGN_OR_RETURN(LauncherIdentity identity,
                   map_ids(sys::PidOf(pidfd[0].borrow())));
  const Request mapped = {.version = kProtocolVersion, .kind = kIdMapsWritten};
  if (::send(control.first.get(), &mapped, sizeof(mapped), MSG_NOSIGNAL) < 0) {
    return Dead("send(launcher)");
  }
  ASSIGN_OR_RETURN(Session launcher, Connect(std::move(control.first)));
  ASSIGN_OR_RETURN(Session helper, Connect(std::move(mounts.first)));
  return InUserNamespace{std::move(launcher), std::move(helper),
                         std::move(identity)};
}

absl::StatusOr<Session> Session::Attach(UniqueFd control,
                                        absl::Duration timeout) {
  pollfd poll = {.fd = control.get(), .events = POLLIN, .revents = 0};
  const absl::Status ready = Poll(absl::MakeSpan(&poll, 1), Deadline(timeout));
  if (absl::IsDeadlineExceeded(ready)) return NoAnswer(timeout);
  RETURN_IF_ERROR(ready);
  std::vector<UniqueFd> pidfd;
  ASSIGN_OR_RETURN(const Message hello,
                   ReceiveMessage(control.borrow(), &pidfd, MSG_DONTWAIT));
  if (hello.kind == kRejected) return RejectError(hello);
  if (hello.kind != kHello || pidfd.size() != 1) {
    return absl::ResourceExhaustedError(
        "recvmsg(launcher): the pidfd got lost; the process has reached "
        "RLIMIT_NOFILE");
  }
  return Session(std::move(control), std::move(pidfd[0]), hello);
}

absl::StatusOr<Session> Session::Share() const {
  ASSIGN_OR_RETURN(UniqueFd control, sys::Duplicate(control_.borrow()));
  ASSIGN_OR_RETURN(UniqueFd pidfd, sys::Duplicate(pidfd_.borrow()));
  Session session(std::move(control), std::move(pidfd), hello_);
  session.creator_ = creator_;
  session.farewell_ = farewell_;
  return session;
}

absl::StatusOr<Message> Session::ReceiveAnswer(BorrowedFd channel,
                                               std::vector<UniqueFd>* fds,
                                               Deadline deadline,
                                               int flags) const {
  pollfd polls[] = {{channel.get(), POLLIN, 0}, {pidfd_.get(), POLLIN, 0}};
  RETURN_IF_ERROR(Poll(polls, deadline));
  if (polls[0].revents == 0) return Dead("start");
  return ReceiveMessage(channel, fds, MSG_DONTWAIT | flags);
}

void Session::Abandon(const Started& started) const {
  const Request request = {
      .version = kProtocolVersion, .kind = kAbandon, .serial = started.serial};
  iovec iov = {.iov_base = const_cast<Request*>(&request),
               .iov_len = sizeof(request)};
  msghdr message = {};
  message.msg_iov = &iov;
  message.msg_iovlen = 1;
  // A launcher that is dead has taken the process along.
  SendMessage(control_.borrow(), message, Deadline(kStartTimeout));
}

absl::Status Session::Listen(BorrowedFd listening, BorrowedFd directory,
                             BorrowedFd lock) const {
  Message answer;
  return Ask({.kind = kListen}, {listening, directory, lock}, kListening,
             &answer, nullptr)
      .status();
}

absl::StatusOr<UniqueFd> Session::Ask(const Request& request,
                                      const std::vector<BorrowedFd>& fds,
                                      MessageKind kind, Message* answer,
                                      std::vector<UniqueFd>* received) const {
  ASSIGN_OR_RETURN(auto channel, sys::SocketPair("launcher"));
  std::vector<int> numbers = {channel.second.get()};
  for (const BorrowedFd fd : fds) numbers.push_back(fd.get());
  const Deadline deadline(kStartTimeout);
  RETURN_IF_ERROR(SendRequest(control_.borrow(), request, numbers, deadline));
  channel.second.reset();
  auto received_answer =
      ReceiveAnswer(channel.first.borrow(), received, deadline);
  if (absl::IsDeadlineExceeded(received_answer.status())) {
    return NoAnswer(kStartTimeout);
  }
  ASSIGN_OR_RETURN(*answer, std::move(received_answer));
  if (answer->kind == kRejected) return RejectError(*answer);
  if (answer->kind != kind) {
    return absl::InternalError("the launcher sent an unexpected message");
  }
  return std::move(channel.first);
}

absl::Status Session::Detach(const Started& started, absl::string_view name,
                             absl::string_view note, BorrowedFd plan,
                             const std::vector<BorrowedFd>& kept) const {
  ASSIGN_OR_RETURN(const UniqueFd memfd,
                   sys::SealedMemfd("caisson-note", note));
  std::vector<BorrowedFd> fds = {memfd.borrow()};
  if (plan.valid()) fds.push_back(plan);
  fds.insert(fds.end(), kept.begin(), kept.end());
  Request request = {.kind = kDetach,
                     .serial = started.serial,
                     .has_init = plan.valid() ? 1u : 0u};
  name.copy(request.name, kNameSize - 1);
  Message answer;
  const absl::Status status =
      Ask(request, fds, kDetached, &answer, nullptr).status();
  return status.ok() ? status : Annotate(status, Quoted(name));
}

absl::Status Session::Release(const Started& started) const {
  Message answer;
  return Ask({.kind = kRelease, .serial = started.serial}, {}, kReleased,
             &answer, nullptr)
      .status();
}

absl::StatusOr<Session::Found> Session::Find(absl::string_view name) const {
  Request request = {.kind = kFind};
  name.copy(request.name, kNameSize - 1);
  Message answer;
  std::vector<UniqueFd> received;
  Found found;
  auto channel = Ask(request, {}, kFound, &answer, &received);
  if (!channel.ok()) return Annotate(channel.status(), Quoted(name));
  found.process.channel = *std::move(channel);
  // The pidfd and the note.
  if (received.size() < 2) {
    return absl::ResourceExhaustedError(
        "recvmsg(launcher): descriptors got lost; the process has reached "
        "RLIMIT_NOFILE");
  }
  found.process.serial = answer.serial;
  found.process.pidfd = std::move(received[0]);
  received.erase(received.begin());
  found.kept = std::move(received);
  return found;
}

absl::StatusOr<Started> Session::Begin(const plan::PlanBuilder& plan,
                                       Deadline deadline, BorrowedFd await,
                                       absl::FunctionRef<void()> sent) const {
  ASSIGN_OR_RETURN(const std::string block, plan.Serialize());
  Started started;
  ASSIGN_OR_RETURN(started.plan,
                   sys::MakeMemfd("caisson-plan", sys::MemfdKind::kData,
                                  F_SEAL_SHRINK | F_SEAL_GROW, block));
  ASSIGN_OR_RETURN(auto channel, sys::SocketPair("launcher"));
  std::vector<int> fds = {channel.second.get(), started.plan.get()};
  for (const BorrowedFd fd : plan.fds()) fds.push_back(fd.get());
  RETURN_IF_ERROR(
      SendRequest(control_.borrow(), {.kind = kStart}, fds, deadline));
  channel.second.reset();
  sent();

  std::vector<UniqueFd> received;
  absl::Status progress;
  if (await.valid()) {
    pollfd polls[] = {{await.get(), POLLIN, 0}, {pidfd_.get(), POLLIN, 0}};
    progress = Poll(polls, deadline);
  }
  absl::StatusOr<Message> first =
      progress.ok() ? ReceiveAnswer(channel.first.borrow(), &received, deadline)
                    : absl::StatusOr<Message>(progress);
  if (absl::IsDeadlineExceeded(first.status())) {
    // From here on the launcher cannot answer, and ends what it starts.
    ::shutdown(channel.first.get(), SHUT_RD);
    const auto late =
        ReceiveMessage(channel.first.borrow(), &received, MSG_DONTWAIT);
    if (late.ok()) started.serial = late->serial;
    if (late.ok()) Abandon(started);
  }
  ASSIGN_OR_RETURN(const Message answer, std::move(first));
  if (answer.kind == kRejected) return RejectError(answer);
  started.serial = answer.serial;
  if (answer.kind != kStarted || received.size() != 2) {
    Abandon(started);
    return absl::ResourceExhaustedError(
        "recvmsg(launcher): descriptors got lost; the process has reached "
        "RLIMIT_NOFILE");
  }
  started.pidfd = std::move(received[0]);
  started.status = std::move(received[1]);
  started.channel = std::move(channel.first);
  return started;
}

absl::Status Session::FollowFork(const plan::PlanBuilder& plan,
                                 Started& started, Deadline deadline) const {
  if (!plan.forks() || started.forked) return absl::OkStatus();
  std::vector<UniqueFd> pidfd;
  ASSIGN_OR_RETURN(const Message message,
                   ReceiveAnswer(started.channel.borrow(), &pidfd, deadline));
  if (message.kind != kForked || pidfd.size() != 1) {
    return absl::ResourceExhaustedError(
        "recvmsg(launcher): the pidfd got lost; the process or the launcher "
        "has reached RLIMIT_NOFILE");
  }
  started.pidfd = std::move(pidfd[0]);
  started.forked = true;
  return absl::OkStatus();
}

absl::Status Session::ReachAwait(const plan::PlanBuilder& plan,
                                 Started& started, BorrowedFd socket,
                                 Deadline deadline) const {
  pollfd polls[] = {{socket.get(), POLLIN, 0},
                    {started.status.get(), POLLIN, 0}};
  absl::Status status = Poll(polls, deadline);
  char byte;
  if (status.ok() && ::recv(socket.get(), &byte, 1, MSG_DONTWAIT) == 1) {
    status = FollowFork(plan, started, deadline);
    if (status.ok()) return status;
  } else if (status.ok()) {
    // The plan is over before it came that far.
    status = AwaitEnd(plan, started, deadline).status();
    if (status.ok()) {
      status = absl::InternalError("the plan did not wait for its host");
    }
  }
  Abandon(started);
  return status;
}

absl::StatusOr<std::vector<StepLatency>> Session::AwaitEnd(
    const plan::PlanBuilder& plan, Started& started, Deadline deadline) const {
  RETURN_IF_ERROR(AwaitEndOfFile(started.status.borrow(), deadline));
  const absl::Duration ended = MonotonicNow();
  ASSIGN_OR_RETURN(const plan::Result result,
                   ReadResult(started.plan.borrow()));
  if (result.state == plan::kFailed) return OperationError(plan, result);
  if (result.state != plan::kExecuting && result.state != plan::kDone) {
    absl::Status followed = FollowFork(plan, started, deadline);
    // Left there for whoever waits for the process.
    const auto message =
        ReceiveAnswer(started.channel.borrow(), nullptr, deadline, MSG_PEEK);
    return KilledDuringSetup(plan, result, message);
  }
  RETURN_IF_ERROR(FollowFork(plan, started, deadline));
  return Latencies(plan, result, ended);
}

absl::StatusOr<std::vector<StepLatency>> Session::Finish(
    const plan::PlanBuilder& plan, Started& started, Deadline deadline) const {
  auto latencies = AwaitEnd(plan, started, deadline);
  if (!latencies.ok()) Abandon(started);
  started.status.reset();
  return latencies;
}

absl::StatusOr<Started> Session::Run(const plan::PlanBuilder& plan) const {
  const Deadline deadline(kStartTimeout);
  ASSIGN_OR_RETURN(Started started, Begin(plan, deadline));
  ASSIGN_OR_RETURN(started.latencies, Finish(plan, started, deadline));
  return started;
}

std::optional<int> InitStatus(BorrowedFd plan) {
  const auto result = ReadResult(plan);
  if (!result.ok() || result->init_ended == 0) return std::nullopt;
  return result->init_status;
}

absl::Status Session::Close(bool wait) const {
  // A forked copy of the host must not end what the host runs.
  if (creator_ != ::getpid()) return absl::OkStatus();
  // Not closed: another thread may be about to send on it.
  ::shutdown(control_.get(), SHUT_WR);
  if (!wait) return absl::OkStatus();
  // A launcher that goes on for others says so before it closes its end; one
  // that releases has no others.
  if (!releases()) {
    MutexLock lock(&farewell_->mutex);
    if (!farewell_->goes_on) {
      farewell_->goes_on = ReceiveMessage(control_.borrow(), nullptr, 0).ok();
    }
    if (farewell_->goes_on) return absl::OkStatus();
  }
  pollfd poll = {.fd = pidfd_.get(), .events = POLLIN, .revents = 0};
  while (::poll(&poll, 1, -1) < 0) {
    if (errno != EINTR) {
      return ErrnoError(errno, "poll(launcher)", {.step = "launcher"});
    }
  }
  // A host that is PID 1 or a subreaper has adopted it; others get ECHILD.
  siginfo_t info;
  while (::waitid(P_PIDFD, static_cast<id_t>(pidfd_.get()), &info,
                  WEXITED | __WALL) < 0 &&
         errno == EINTR) {
  }
  return absl::OkStatus();
}

}  // namespace caisson::launcher
