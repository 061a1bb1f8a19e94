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
    : terminal_(terminal), input_(input), output_(output) {
  const int master = terminal_.get();
  ::fcntl(master, F_SETFL, ::fcntl(master, F_GETFL) | O_NONBLOCK);
  if (input_.valid() && ::tcgetattr(input_.get(), &saved_) == 0) {
    termios raw = saved_;
    ::cfmakeraw(&raw);
    raw_ = ::tcsetattr(input_.get(), TCSAFLUSH, &raw) == 0;
  }
}

Console::~Console() {
  if (raw_) ::tcsetattr(input_.get(), TCSAFLUSH, &saved_);
}

void Console::Watch(std::vector<pollfd>& polls) {
  const bool full = !pending_.empty();
  polls.push_back({full ? -1 : input_.get(), POLLIN, 0});
  polls.push_back({terminal_.get(),
                   static_cast<short>(full ? POLLIN | POLLOUT : POLLIN), 0});
}

void Console::Handle(const pollfd* polls) {
  if (polls[0].revents != 0) {
    char buffer[kBufferSize];
    const ssize_t n = ::read(input_.get(), buffer, sizeof(buffer));
    if (n > 0) {
      pending_.assign(buffer, static_cast<size_t>(n));
    } else if (n == 0 || (errno != EINTR && errno != EAGAIN)) {
      input_ = BorrowedFd();
      pending_.assign(1, kEndOfFile);
    }
  }
  if (!pending_.empty()) {
    const ssize_t n =
        ::write(terminal_.get(), pending_.data(), pending_.size());
    if (n > 0) pending_.erase(0, static_cast<size_t>(n));
  }
  if ((polls[1].revents & (POLLIN | POLLHUP)) != 0) CopyOutput();
}

bool Console::CopyOutput() {
  char buffer[kBufferSize];
  const ssize_t n = ::read(terminal_.get(), buffer, sizeof(buffer));
  if (n <= 0) return n < 0 && errno == EINTR;
  WriteAll(output_, buffer, static_cast<size_t>(n));
  return true;
}

void Console::Resize() {
  const TerminalSize size = SizeOfTerminal(output_);
  const winsize window = {.ws_row = size.rows, .ws_col = size.columns};
  // A terminal whose last user has gone cannot be resized and need not be.
  ::ioctl(terminal_.get(), TIOCSWINSZ, &window);
}

void Console::Drain() {
  while (CopyOutput()) {
  }
}

}  // namespace caisson
