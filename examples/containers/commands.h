// The commands of `containers`, by what they are about.
#ifndef CAISSON_EXAMPLES_CONTAINERS_COMMANDS_H_
#define CAISSON_EXAMPLES_CONTAINERS_COMMANDS_H_

#include "examples/containers/call.h"

namespace containers {

// import.cc
int Import(const Call& call);

// images.cc
int Images(const Call& call);
int RemoveImage(const Call& call);
int Df(const Call& call);

// run.cc: with a program in the foreground. They return its exit code.
int Create(const Call& call);
int Run(const Call& call);
int Start(const Call& call);
int Attach(const Call& call);
int Exec(const Call& call);

// life.cc
int Stop(const Call& call);
int Restart(const Call& call);
int Kill(const Call& call);
int Pause(const Call& call);
int Unpause(const Call& call);
int Wait(const Call& call);
int Remove(const Call& call);
int Update(const Call& call);
int Rename(const Call& call);
int Prune(const Call& call);
int Recover(const Call& call);

// look.cc
int Ps(const Call& call);
int Logs(const Call& call);
int Events(const Call& call);
int Inspect(const Call& call);
int Port(const Call& call);

// copy.cc
int Cp(const Call& call);

// processes.cc
int Top(const Call& call);
int Stats(const Call& call);

}  // namespace containers

#endif  // CAISSON_EXAMPLES_CONTAINERS_COMMANDS_H_
