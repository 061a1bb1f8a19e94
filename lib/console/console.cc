#include "caisson/console.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

namespace caisson {
namespace {

constexpr size_t kBufferSize = 16 << 10;
constexpr char kEndOfFile = '\x04';  // ^D: how a terminal says it

void WriteAll(BorrowedFd fd, const char* data, size_t size) {
  while (size > 0) {
    const ssize_t n = ::write(fd.get(), data, size);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) {
      pollfd poll = {fd.get(), POLLOUT, 0};
      ::poll(&poll, 1, -1);
      continue;
    }
    if (n <= 0) return;
    data += n;
    size -= static_cast<size_t>(n);
  }
}

}  // namespace

TerminalSize SizeOfTerminal(BorrowedFd fd) {
  winsize window = {};
  if (::ioctl(fd.get(), TIOCGWINSZ, &window) != 0 || window.ws_row == 0 ||
      window.ws_col == 0) {
    return {};
  }
  return {window.ws_row, window.ws_col};
}

Console::Console(const Process& process, BorrowedFd input, BorrowedFd output)
    : Console(process.terminal(), input, output) {}

Console::Console(BorrowedFd terminal, BorrowedFd input, BorrowedFd output)
    : Console(terminal, terminal, input, output) {}

Console::Console(BorrowedFd to_terminal, BorrowedFd from_terminal,
                 BorrowedFd input, BorrowedFd output)
    : to_(to_terminal), from_(from_terminal), input_(input), output_(output) {
  for (const BorrowedFd fd : {to_, from_}) {
    if (!fd.valid()) continue;
    ::fcntl(fd.get(), F_SETFL, ::fcntl(fd.get(), F_GETFL) | O_NONBLOCK);
  }
  if (!to_.valid()) input_ = BorrowedFd();
  if (input_.valid() && ::tcgetattr(input_.get(), &saved_) == 0) {
    termios raw = saved_;
    ::cfmakeraw(&raw);
    raw_ = ::tcsetattr(input_.get(), TCSANOW, &raw) == 0;
    terminal_of_input_ = input_;
  }
}

Console::~Console() {
  if (raw_) ::tcsetattr(terminal_of_input_.get(), TCSANOW, &saved_);
}

void Console::Watch(std::vector<pollfd>& polls) {
  const bool full = !pending_.empty();
  polls.push_back({full ? to_.get() : input_.get(),
                   static_cast<short>(full ? POLLOUT : POLLIN), 0});
  polls.push_back({from_.get(), POLLIN, 0});
}

void Console::Handle(const pollfd* polls) {
  if (pending_.empty() && polls[0].revents != 0) ReadInput();
  if (!pending_.empty()) {
    const ssize_t n = ::write(to_.get(), pending_.data(), pending_.size());
    if (n > 0) {
      pending_.erase(0, static_cast<size_t>(n));
    } else if (errno == EPIPE) {
      // Nobody reads it any more.
      input_ = BorrowedFd();
      pending_.clear();
    }
  }
  if (polls[1].revents != 0) CopyOutput();
}

void Console::ReadInput() {
  char buffer[kBufferSize];
  const ssize_t n = ::read(input_.get(), buffer, sizeof(buffer));
  if (n < 0 && (errno == EINTR || errno == EAGAIN)) return;
  if (n <= 0) {
    input_ = BorrowedFd();
    pending_.assign(1, kEndOfFile);
    return;
  }
  for (ssize_t i = 0; i < n; ++i) {
    if (matched_ > 0 && buffer[i] != detach_keys_[matched_]) {
      pending_.append(detach_keys_, 0, matched_);
      matched_ = 0;
    }
    if (detach_keys_.empty() || buffer[i] != detach_keys_[matched_]) {
      pending_ += buffer[i];
    } else if (++matched_ == detach_keys_.size()) {
      detached_ = true;
      input_ = BorrowedFd();
      return;
    }
  }
}

bool Console::CopyOutput() {
  char buffer[kBufferSize];
  const ssize_t n = ::read(from_.get(), buffer, sizeof(buffer));
  // EIO of a terminal need not be the end: nobody has it open at the moment.
  if (n == 0) from_ = BorrowedFd();
  if (n <= 0) return n < 0 && errno == EINTR;
  WriteAll(output_, buffer, static_cast<size_t>(n));
  return true;
}

void Console::Resize() {
  const TerminalSize size = SizeOfTerminal(output_);
  const winsize window = {.ws_row = size.rows, .ws_col = size.columns};
  // A terminal whose last user has gone cannot be resized and need not be.
  ::ioctl(to_.get(), TIOCSWINSZ, &window);
}

void Console::Drain() {
  while (from_.valid() && CopyOutput()) {
  }
}

}  // namespace caisson
