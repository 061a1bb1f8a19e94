// A person, or a shell's pipes, connected to a container or a program in one.
#ifndef CAISSON_EXAMPLES_CONTAINERS_FOREGROUND_H_
#define CAISSON_EXAMPLES_CONTAINERS_FOREGROUND_H_

#include <optional>

#include "absl/time/time.h"
#include "caisson/container.h"
#include "caisson/unique_fd.h"

namespace containers {

// From now on the signals that end a program, and those about its terminal, are
// read from the descriptor. To be called before something is started that they
// are meant for.
caisson::UniqueFd CatchSignals();

// Learns how a container's next run ends. To be made before the run: one that
// removes itself may be gone before anybody can ask it.
class ExitWatch final {
 public:
  ExitWatch(const caisson::ContainerStore& store,
            const caisson::Container& container);

  // To be called once it runs; readable when it does not any more.
  caisson::BorrowedFd Arm();
  // The exit code. With `removed` it also waits until the container, which
  // removes itself, is gone.
  int Wait(bool removed);

 private:
  void ReadEvents(absl::Duration patience, bool removed);

  const caisson::Container& container_;
  caisson::ContainerEvents events_;
  caisson::UniqueFd exit_fd_;
  std::optional<int> code_;
  bool removed_ = false;
};

// Moves bytes between the container and this process's own streams, and passes
// signals on, until it has ended. With a terminal, Ctrl-P Ctrl-Q leaves it
// alone: false then.
bool Attend(const caisson::Container& container,
            caisson::ContainerStreams streams, bool terminal,
            caisson::BorrowedFd exit_fd, const caisson::UniqueFd& signals);

// The same for a program that Exec() has started with a terminal.
int AttendExec(caisson::ContainerExec& exec, bool interactive,
               const caisson::UniqueFd& signals);

}  // namespace containers

#endif  // CAISSON_EXAMPLES_CONTAINERS_FOREGROUND_H_
