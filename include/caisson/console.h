// Console: the host's terminal connected to the terminal of a process.
//
//   caisson::Console console(process, STDIN_FILENO, STDOUT_FILENO);
//   for (;;) {
//     std::vector<pollfd> polls = {...};
//     const size_t first = polls.size();
//     console.Watch(polls);
//     poll(polls.data(), polls.size(), -1);
//     console.Handle(&polls[first]);
//   }
//
// For programs that give a person a shell in a container. It moves bytes in the
// host's own loop: no thread, no signal handler. A terminal on the input is in
// raw mode from the constructor to the destructor, so that Ctrl-C and friends
// are characters for the container; nothing else of the host changes.
//
// Thread-compatible.
#ifndef CAISSON_CONSOLE_H_
#define CAISSON_CONSOLE_H_

#include <poll.h>
#include <termios.h>

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "caisson/process.h"
#include "caisson/unique_fd.h"

namespace caisson {

class Console final {
 public:
  // `process` has a terminal and outlives the object, as do the descriptors.
  // Without a valid `input` the process gets no input.
  Console(const Process& process, BorrowedFd input, BorrowedFd output);
  // The same with the master of a terminal (OciProcess::terminal).
  Console(BorrowedFd terminal, BorrowedFd input, BorrowedFd output);
  // The same with pipes to and from a terminal that is elsewhere: `in` and
  // `out` of ContainerStreams. Its size is Container::ResizeTerminal()'s.
  Console(BorrowedFd to_terminal, BorrowedFd from_terminal, BorrowedFd input,
          BorrowedFd output);
  Console(const Console&) = delete;
  Console& operator=(const Console&) = delete;
  // Restores the input's mode.
  ~Console();

  // Characters of the input by which a person leaves the process alone, which
  // does not get them: Docker's are "\x10\x11", Ctrl-P Ctrl-Q. Default: none.
  void SetDetachKeys(std::string keys) { detach_keys_ = std::move(keys); }
  // They were typed. The input is not read any more.
  bool detached() const { return detached_; }

  // The pipe from the terminal has ended.
  bool ended() const { return !from_.valid(); }

  // Appends the two entries to poll for. While a side does not take what it is
  // sent, the other one is not read.
  void Watch(std::vector<pollfd>& polls);

  // Moves what poll(2) said is there, without blocking (unless `output` itself
  // blocks). `polls` points to the entries that Watch() appended.
  void Handle(const pollfd* polls);

  // Gives the process's terminal the size of the output's, if that is a
  // terminal: to be called when the host gets SIGWINCH.
  void Resize();

  // Writes what the terminal still holds, once the process has ended.
  void Drain();

 private:
  void ReadInput();
  bool CopyOutput();

  BorrowedFd to_;
  BorrowedFd from_;
  BorrowedFd input_;
  BorrowedFd output_;
  BorrowedFd terminal_of_input_;
  bool raw_ = false;
  termios saved_ = {};
  std::string pending_;  // input that the terminal has not taken yet
  std::string detach_keys_;
  size_t matched_ = 0;  // of them: typed, and held back
  bool detached_ = false;
};

// The size of the terminal behind `fd`; the default size if it is none.
TerminalSize SizeOfTerminal(BorrowedFd fd);

}  // namespace caisson

#endif  // CAISSON_CONSOLE_H_
