#include "examples/containers/foreground.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "caisson/console.h"
#include "examples/containers/arguments.h"

namespace containers {
namespace {

using caisson::BorrowedFd;
using caisson::UniqueFd;

constexpr int kForwarded[] = {SIGINT,  SIGTERM, SIGHUP,  SIGQUIT,
                              SIGUSR1, SIGUSR2, SIGWINCH};
// Of SIGINT and SIGTERM, after which this process gives up, as Docker's does.
constexpr int kMaxRequests = 3;
constexpr absl::Duration kEventTimeout = absl::Seconds(1);
constexpr absl::Duration kRemovalTimeout = absl::Seconds(20);

// The next signal, 0 if there is none.
int NextSignal(const UniqueFd& signals) {
  signalfd_siginfo info;
  return read(signals.get(), &info, sizeof(info)) == sizeof(info)
             ? static_cast<int>(info.ssi_signo)
             : 0;
}

bool WriteAll(int fd, absl::string_view text) {
  while (!text.empty()) {
    const ssize_t written = write(fd, text.data(), text.size());
    if (written < 0 && errno != EINTR) return false;
    if (written > 0) text.remove_prefix(static_cast<size_t>(written));
  }
  return true;
}

// The terminal of our input in raw mode, if it is one.
class RawMode final {
 public:
  RawMode() : active_(tcgetattr(STDIN_FILENO, &saved_) == 0) {
    termios raw = saved_;
    cfmakeraw(&raw);
    if (active_) tcsetattr(STDIN_FILENO, TCSANOW, &raw);
  }
  RawMode(const RawMode&) = delete;
  RawMode& operator=(const RawMode&) = delete;
  ~RawMode() {
    if (active_) tcsetattr(STDIN_FILENO, TCSANOW, &saved_);
  }

 private:
  termios saved_ = {};
  bool active_;
};

// Our input on its way to the program.
class InputCopy final {
 public:
  InputCopy(UniqueFd sink, bool terminal)
      : sink_(std::move(sink)), terminal_(terminal) {}

  bool left() const { return left_; }
  // One entry: to read, or to write what the program has not taken yet.
  pollfd Watch() const {
    if (!sink_.valid()) return {-1, 0, 0};
    return pending_.empty() ? pollfd{STDIN_FILENO, POLLIN, 0}
                            : pollfd{sink_.get(), POLLOUT, 0};
  }
  void Handle(const pollfd& poll) {
    if (poll.revents == 0) return;
    if (pending_.empty() && !Read()) sink_.reset();
    if (!sink_.valid() || pending_.empty()) return;
    // At most PIPE_BUF, so that a pipe with room takes it all.
    const ssize_t written = write(sink_.get(), pending_.data(),
                                  std::min(pending_.size(), size_t{4096}));
    if (written > 0) pending_.erase(0, static_cast<size_t>(written));
    if (written < 0 && errno != EAGAIN && errno != EINTR) sink_.reset();
  }

 private:
  // False at the end.
  bool Read() {
    char buffer[4096];
    const ssize_t size = read(STDIN_FILENO, buffer, sizeof(buffer));
    if (size < 0 && errno == EINTR) return true;
    if (size <= 0) return false;
    for (const char c : absl::string_view(buffer, static_cast<size_t>(size))) {
      constexpr char kCtrlP = 0x10, kCtrlQ = 0x11;
      if (terminal_ && held_ && c == kCtrlQ) left_ = true;
      if (held_ && !left_) pending_ += kCtrlP;
      held_ = terminal_ && c == kCtrlP && !left_;
      if (left_) return false;
      if (!held_) pending_ += c;
    }
    return true;
  }

  UniqueFd sink_;
  bool terminal_;
  bool held_ = false;  // a Ctrl-P, which a Ctrl-Q may follow
  bool left_ = false;
  std::string pending_;
};

// One output stream; closes it at its end, or when nobody reads ours.
void CopyOutput(const pollfd& poll, UniqueFd& source, int sink) {
  if (poll.revents == 0) return;
  char buffer[65536];
  const ssize_t size = read(source.get(), buffer, sizeof(buffer));
  if (size < 0 && (errno == EINTR || errno == EAGAIN)) return;
  if (size <= 0 ||
      !WriteAll(sink, absl::string_view(buffer, static_cast<size_t>(size)))) {
    source.reset();
  }
}

// Signals for the program; throws when there were too many.
void Forward(const UniqueFd& signals, const caisson::Container& container,
             bool terminal, int& requests) {
  while (const int signal = NextSignal(signals)) {
    if (signal == SIGWINCH) {
      if (terminal) {
        container
            .ResizeTerminal(caisson::SizeOfTerminal(BorrowedFd(STDOUT_FILENO)))
            .IgnoreError();
      }
      continue;
    }
    if (signal == SIGINT || signal == SIGTERM) ++requests;
    if (requests == kMaxRequests) {
      throw Failure{"asked to end three times; the container goes on", 1};
    }
    container.Kill(signal).IgnoreError();
  }
}

}  // namespace

UniqueFd CatchSignals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : kForwarded) sigaddset(&set, signal);
  UniqueFd fd(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  // A reader of our output that has gone away is an error of write(2).
  sigaddset(&set, SIGPIPE);
  sigprocmask(SIG_BLOCK, &set, nullptr);
  return fd;
}

ExitWatch::ExitWatch(const caisson::ContainerStore& store,
                     const caisson::Container& container)
    : container_(container),
      events_(Check(store.Events(
          {.containers = {container.id()}, .actions = {"die", "destroy"}}))) {}

caisson::BorrowedFd ExitWatch::Arm() {
  auto fd = container_.ExitFd();
  if (absl::IsNotFound(fd.status())) {
    // It has ended and removed itself: one end of a pipe that is closed.
    int pipe[2];
    if (pipe2(pipe, O_CLOEXEC) != 0) throw Failure{"cannot make a pipe"};
    exit_fd_.reset(pipe[0]);
    close(pipe[1]);
  } else {
    exit_fd_ = Check(std::move(fd));
  }
  return exit_fd_.borrow();
}

void ExitWatch::ReadEvents(absl::Duration patience, bool removed) {
  const absl::Time end = absl::Now() + patience;
  while ((!code_ || (removed && !removed_)) && absl::Now() < end) {
    for (const caisson::ContainerEvent& event :
         Check(events_.Wait(end - absl::Now()))) {
      removed_ |= event.action == "destroy";
      const auto code = event.attributes.find("exitCode");
      int number = 0;
      if (!code_ && event.action == "die" && code != event.attributes.end() &&
          absl::SimpleAtoi(code->second, &number)) {
        code_ = number;
      }
    }
  }
}

int ExitWatch::Wait(bool removed) {
  // A keeper that was killed has told nothing; Wait() knows.
  ReadEvents(kEventTimeout, /*removed=*/false);
  if (!code_) return Check(container_.Wait());
  if (removed) ReadEvents(kRemovalTimeout, /*removed=*/true);
  return *code_;
}

bool Attend(const caisson::Container& container,
            caisson::ContainerStreams streams, bool terminal,
            caisson::BorrowedFd exit_fd, const UniqueFd& signals) {
  std::optional<RawMode> raw;
  if (terminal) {
    // Of one that has ended, nobody needs the size.
    container.ResizeTerminal(caisson::SizeOfTerminal(BorrowedFd(STDOUT_FILENO)))
        .IgnoreError();
    if (streams.in.valid()) raw.emplace();
  }
  InputCopy input(std::move(streams.in), terminal);
  int requests = 0;
  for (bool ended = false;
       !ended || streams.out.valid() || streams.err.valid();) {
    // poll(2) leaves out what is -1.
    pollfd polls[] = {{ended ? -1 : exit_fd.get(), POLLIN, 0},
                      {signals.get(), POLLIN, 0},
                      {streams.out.get(), POLLIN, 0},
                      {streams.err.get(), POLLIN, 0},
                      input.Watch()};
    if (poll(polls, std::size(polls), -1) < 0) continue;
    if (polls[0].revents != 0) ended = true;
    Forward(signals, container, terminal, requests);
    CopyOutput(polls[2], streams.out, STDOUT_FILENO);
    CopyOutput(polls[3], streams.err, STDERR_FILENO);
    input.Handle(polls[4]);
    if (input.left()) return false;
  }
  return true;
}

int AttendExec(caisson::ContainerExec& exec, bool interactive,
               const UniqueFd& signals) {
  const BorrowedFd out(STDOUT_FILENO);
  caisson::Console console(exec.terminal(),
                           BorrowedFd(interactive ? STDIN_FILENO : -1), out);
  for (bool ended = false; !ended;) {
    std::vector<pollfd> polls = {{exec.exit_fd().get(), POLLIN, 0},
                                 {signals.get(), POLLIN, 0}};
    const size_t first = polls.size();
    console.Watch(polls);
    if (poll(polls.data(), polls.size(), -1) < 0) continue;
    console.Handle(&polls[first]);
    while (const int signal = NextSignal(signals)) {
      if (signal == SIGWINCH) console.Resize();
      if (signal == SIGTERM || signal == SIGHUP) {
        throw Failure{"asked to end; the program goes on", 128 + signal};
      }
    }
    ended = polls[0].revents != 0;
  }
  console.Drain();
  return Check(exec.Wait()).shell_code();
}

}  // namespace containers
