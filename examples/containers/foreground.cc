#include "examples/containers/foreground.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "caisson/console.h"
#include "examples/containers/arguments.h"
#include "examples/containers/call.h"

namespace containers {
namespace {

using caisson::BorrowedFd;
using caisson::UniqueFd;

constexpr int kForwarded[] = {SIGINT,  SIGTERM, SIGHUP,  SIGQUIT,
                              SIGUSR1, SIGUSR2, SIGWINCH};
// Of SIGINT and SIGTERM, after which this process gives up, as Docker's does.
constexpr int kMaxRequests = 3;
constexpr char kDetachKeys[] = "\x10\x11";  // Ctrl-P Ctrl-Q
constexpr int kKilled = 137;

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

// Our input on its way to the program.
class InputCopy final {
 public:
  explicit InputCopy(UniqueFd sink) : sink_(std::move(sink)) {}

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
    if (size < 0) return errno == EINTR;
    pending_.assign(buffer, static_cast<size_t>(size));
    return size > 0;
  }

  UniqueFd sink_;
  std::string pending_;
};

// One output stream; closes it at its end.
void CopyOutput(const pollfd& poll, UniqueFd& source, int sink) {
  if (poll.revents == 0) return;
  char buffer[65536];
  const ssize_t size = read(source.get(), buffer, sizeof(buffer));
  if (size < 0 && (errno == EINTR || errno == EAGAIN)) return;
  if (size <= 0) {
    source.reset();
    return;
  }
  if (WriteAll(sink, absl::string_view(buffer, static_cast<size_t>(size)))) {
    return;
  }
  throw Failure{
      absl::StrCat("write to ", sink == STDOUT_FILENO ? "stdout" : "stderr",
                   ": ", strerror(errno), "; the container goes on"),
      1};
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

std::optional<caisson::TerminalSize> OwnTerminalSize() {
  if (!isatty(STDOUT_FILENO)) return std::nullopt;
  return caisson::SizeOfTerminal(BorrowedFd(STDOUT_FILENO));
}

int CodeOf(caisson::ContainerRun& run) {
  const auto exit = run.Wait();
  if (absl::IsUnavailable(exit.status())) {
    PrintError(std::string(exit.status().message()));
    return kKilled;
  }
  return Check(exit).shell_code();
}

namespace {

bool AttendTerminal(const caisson::Container& container,
                    caisson::ContainerRun& run, const UniqueFd& signals) {
  const caisson::ContainerStreams streams = run.TakeStreams();
  caisson::Console console(streams.in.borrow(), streams.out.borrow(),
                           BorrowedFd(STDIN_FILENO), BorrowedFd(STDOUT_FILENO));
  console.SetDetachKeys(kDetachKeys);
  int requests = 0;
  for (bool ended = false; !ended || !console.ended();) {
    // poll(2) leaves out what is -1.
    std::vector<pollfd> polls = {{ended ? -1 : run.exit_fd().get(), POLLIN, 0},
                                 {signals.get(), POLLIN, 0}};
    const size_t first = polls.size();
    console.Watch(polls);
    if (poll(polls.data(), polls.size(), -1) < 0) continue;
    if (polls[0].revents != 0) ended = true;
    Forward(signals, container, /*terminal=*/true, requests);
    console.Handle(&polls[first]);
    if (console.detached()) return false;
  }
  return true;
}

}  // namespace

bool Attend(const caisson::Container& container, caisson::ContainerRun& run,
            bool terminal, const UniqueFd& signals) {
  if (terminal) return AttendTerminal(container, run, signals);
  caisson::ContainerStreams streams = run.TakeStreams();
  InputCopy input(std::move(streams.in));
  int requests = 0;
  for (bool ended = false;
       !ended || streams.out.valid() || streams.err.valid();) {
    pollfd polls[] = {{ended ? -1 : run.exit_fd().get(), POLLIN, 0},
                      {signals.get(), POLLIN, 0},
                      {streams.out.get(), POLLIN, 0},
                      {streams.err.get(), POLLIN, 0},
                      input.Watch()};
    if (poll(polls, std::size(polls), -1) < 0) continue;
    if (polls[0].revents != 0) ended = true;
    Forward(signals, container, /*terminal=*/false, requests);
    CopyOutput(polls[2], streams.out, STDOUT_FILENO);
    CopyOutput(polls[3], streams.err, STDERR_FILENO);
    input.Handle(polls[4]);
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
