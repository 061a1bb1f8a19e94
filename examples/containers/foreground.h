// A person, or a shell's pipes, connected to a container or a program in one.
#ifndef CAISSON_EXAMPLES_CONTAINERS_FOREGROUND_H_
#define CAISSON_EXAMPLES_CONTAINERS_FOREGROUND_H_

#include <optional>

#include "caisson/container.h"
#include "caisson/unique_fd.h"

namespace containers {

// From now on the signals that end a program, and those about its terminal, are
// read from the descriptor. To be called before something is started that they
// are meant for.
caisson::UniqueFd CatchSignals();

// The size of the terminal that a person sits at, or that of none.
std::optional<caisson::TerminalSize> OwnTerminalSize();

// Moves bytes between the container and this process's own streams, and passes
// signals on, until it has ended. With a terminal, Ctrl-P Ctrl-Q leaves it
// alone: false then. Throws if nobody reads what it writes, as Docker's command
// line does; the container goes on.
bool Attend(const caisson::Container& container, caisson::ContainerRun& run,
            bool terminal, const caisson::UniqueFd& signals);

// The exit code of a run that has ended.
int CodeOf(caisson::ContainerRun& run);

// The same for a program that Exec() has started with a terminal.
int AttendExec(caisson::ContainerExec& exec, bool interactive,
               const caisson::UniqueFd& signals);

}  // namespace containers

#endif  // CAISSON_EXAMPLES_CONTAINERS_FOREGROUND_H_
