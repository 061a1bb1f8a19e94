#include "lib/unpacker/confined_process.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/types.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "caisson/process.h"
#include "caisson/root_fs.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/unpacker/places.h"

namespace caisson::unpacker {
namespace {

constexpr char kStep[] = "layer.unpack.confined";
constexpr int kIdleMilliseconds = 500;
// After its last word: it is about to end, or else it is ended.
constexpr absl::Duration kEndsWithin = absl::Seconds(2);
constexpr size_t kReceive = 256 << 10;
// Of one Handle(); who talks without end is still to be got rid of.
constexpr int kMaxRounds = 16;
constexpr uint64_t kTurnsPerReport = 256;
// The root has a directory for the layer, and /dev.
constexpr uint64_t kRootBytes = 1 << 20;
// The first victim when memory runs out, long before the host.
constexpr int kOomScore = 900;

absl::StatusOr<std::pair<UniqueFd, UniqueFd>> StreamPair() {
  int fds[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) {
    return ErrnoError(errno, "socketpair(AF_UNIX, SOCK_STREAM)",
                      {.step = kStep});
  }
  return std::make_pair(UniqueFd(fds[0]), UniqueFd(fds[1]));
}

// Nothing but an empty tmpfs, /dev of which nothing can be opened, and the
// layer.
absl::StatusOr<RootFs> MakeRoot(BorrowedFd layer) {
  RootFsOptions options;
  options.writes = RootWrites::kTmpfs;
  options.tmpfs_size_bytes = kRootBytes;
  options.read_only = true;
  options.etc_files = false;
  options.cgroup = CgroupMounts::kNone;
  options.own_mounts = {
      .proc = false, .sys = false, .pts = false, .shm = false, .mqueue = false};
  if (layer.valid()) {
    options.binds.push_back({.destination = kLayerPath,
                             .source_fd = layer,
                             .recursive = false,
                             .nosuid = true,
                             .noexec = true,
                             .nosymfollow = true});
  }
  return RootFs::Create(options);
}

ProcessSpec MakeSpec(const Confinement& confinement, bool unpacks,
                     uint64_t max_memory_bytes) {
  ProcessSpec spec;
  spec.argv = {"caisson-unpacker"};
  spec.executable_fd = confinement.program;
  spec.default_path_and_term = false;
  // Who only decompresses needs to be nobody.
  spec.user = unpacks ? "0:0" : "65534:65534";
  spec.limits = {{"RLIMIT_AS", max_memory_bytes, max_memory_bytes},
                 {"RLIMIT_CORE", 0, 0},
                 {"RLIMIT_NOFILE", 256, 256}};
  // As it is now: what is not said is as it was when the launcher began.
  rlimit size;
  if (unpacks && ::getrlimit(RLIMIT_FSIZE, &size) == 0) {
    spec.limits.push_back({"RLIMIT_FSIZE", size.rlim_cur, size.rlim_max});
  }
  spec.oom_score_adj = kOomScore;
  spec.namespaces = confinement.namespaces;
  spec.cgroup = confinement.cgroup;
  spec.security = unpacks ? confinement.unpacker : confinement.decompressor;
  return spec;
}

// What became of a process whose last words are missing.
absl::Status HowItEnded(const ExitStatus& status, uint64_t max_memory_bytes) {
  const std::string how =
      absl::StrCat("the confined unpacker ", status.ToString());
  if (status.out_of_memory) return absl::ResourceExhaustedError(how);
  if (status.signaled && status.signal == SIGSYS) {
    return absl::PermissionDeniedError(absl::StrCat(
        how,
        ": it made a system call that no unpacker makes, as one does that "
        "an image has taken over"));
  }
  if (!status.signaled && status.code == kExitOutOfMemory) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "the confined unpacker needs more than the ", max_memory_bytes,
        " bytes of memory that it may have (RLIMIT_AS)"));
  }
  return absl::InternalError(how);
}

}  // namespace

absl::StatusOr<std::unique_ptr<ConfinedProcess>> ConfinedProcess::Start(
    const Confinement& confinement, const Options& options) {
  const bool unpacks = options.layer.valid();
  std::unique_ptr<ConfinedProcess> process(
      new ConfinedProcess(options.max_memory_bytes));
  ASSIGN_OR_RETURN(auto input, StreamPair());
  ASSIGN_OR_RETURN(auto control, StreamPair());
  ASSIGN_OR_RETURN(RootFs root, MakeRoot(options.layer));
  ProcessSpec spec = MakeSpec(confinement, unpacks, options.max_memory_bytes);
  spec.root = &root;
  spec.in = Stdio::Inherit(input.second.borrow());
  spec.descriptors = {{kControl, control.second.borrow()}};
  std::pair<UniqueFd, UniqueFd> output;
  if (!unpacks) {
    ASSIGN_OR_RETURN(output, StreamPair());
    spec.out = Stdio::Inherit(output.second.borrow());
  }
  auto started = confinement.launcher->Start(spec);
  if (!started.ok()) {
    return Annotate(started.status(), "starting the confined unpacker");
  }
  process->input_ = std::move(input.first);
  process->output_ = std::move(output.first);
  process->control_ = std::move(control.first);
  process->process_ = *std::move(started);
  return process;
}

ConfinedProcess::~ConfinedProcess() {
  if (process_.has_value()) process_->Destroy().IgnoreError();
}

absl::Status ConfinedProcess::Nonsense(absl::string_view what) {
  return absl::InternalError(
      absl::StrCat("the confined unpacker says what no unpacker says: ", what));
}

absl::Status ConfinedProcess::Died() {
  const auto status = process_->Wait(absl::Now() + kEndsWithin);
  if (status.ok()) return HowItEnded(*status, max_memory_bytes_);
  if (absl::IsDeadlineExceeded(status.status())) {
    return Nonsense("it has closed its socket and goes on");
  }
  return Annotate(status.status(), "the confined unpacker");
}

absl::Status ConfinedProcess::Send(Message& message, const Idle& idle) {
  absl::string_view rest = message.bytes();
  while (!rest.empty()) {
    const ssize_t n = ::send(control_.get(), rest.data(), rest.size(),
                             MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n >= 0) {
      rest.remove_prefix(static_cast<size_t>(n));
      continue;
    }
    if (errno == EINTR) continue;
    if (errno == EPIPE || errno == ECONNRESET) return Died();
    if (errno != EAGAIN) {
      return ErrnoError(errno, "send(confined unpacker)", {.step = kStep});
    }
    pollfd room = {control_.get(), POLLOUT, 0};
    if (::poll(&room, 1, kIdleMilliseconds) == 0 && idle) {
      RETURN_IF_ERROR(idle());
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<size_t> ConfinedProcess::TryWrite(absl::string_view bytes) {
  for (;;) {
    const ssize_t n = ::send(input_.get(), bytes.data(), bytes.size(),
                             MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n >= 0) return static_cast<size_t>(n);
    if (errno == EAGAIN) return 0;
    // It has seen enough, and is about to say why.
    if (errno == EPIPE || errno == ECONNRESET) return bytes.size();
    if (errno == EINTR) continue;
    return ErrnoError(errno, "send(confined unpacker)", {.step = kStep});
  }
}

absl::StatusOr<std::optional<size_t>> ConfinedProcess::TryRead(
    absl::Span<char> buffer) {
  for (;;) {
    const ssize_t n =
        ::recv(output_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (n >= 0) return static_cast<size_t>(n);
    if (errno == EAGAIN) return std::nullopt;
    if (errno == ECONNRESET) return 0;
    if (errno == EINTR) continue;
    return ErrnoError(errno, "recv(confined unpacker)", {.step = kStep});
  }
}

absl::StatusOr<bool> ConfinedProcess::Handle(Handler handler) {
  size_t used = 0;
  for (int rounds = 0; rounds < kMaxRounds;) {
    const absl::string_view rest = absl::string_view(received_).substr(used);
    if (const auto message = FirstMessage(rest); message.has_value()) {
      used += message->size;
      ASSIGN_OR_RETURN(const bool done,
                       handler(message->type, message->payload));
      if (!done) continue;
      received_.erase(0, used);
      return true;
    }
    if (MessageSize(rest) > kMaxMessage) return Nonsense("too much at once");
    ++rounds;
    received_.erase(0, used);
    used = 0;
    const size_t before = received_.size();
    received_.resize(before + kReceive);
    const ssize_t n =
        ::recv(control_.get(), &received_[before], kReceive, MSG_DONTWAIT);
    const int error = errno;
    received_.resize(before + static_cast<size_t>(n > 0 ? n : 0));
    if (n > 0 || (n < 0 && error == EINTR)) continue;
    if (n < 0 && error == EAGAIN) return false;
    return Died();
  }
  return false;
}

absl::Status ConfinedProcess::Wait(bool to_write, bool to_read,
                                   const Idle& idle) {
  pollfd fds[3] = {{control_.get(), POLLIN, 0},
                   {to_write ? input_.get() : -1, POLLOUT, 0},
                   {to_read ? output_.get() : -1, POLLIN, 0}};
  const int ready = ::poll(fds, 3, kIdleMilliseconds);
  if (ready < 0 && errno != EINTR) {
    return ErrnoError(errno, "poll(confined unpacker)", {.step = kStep});
  }
  const bool report = ready == 0 || ++turns_ % kTurnsPerReport == 0;
  return report && idle ? idle() : absl::OkStatus();
}

}  // namespace caisson::unpacker
