// Processes that outlive their host.
//
//   auto launcher = caisson::Launcher::Create({.directory = "/run/jobs/7"});
//   auto process = launcher->Start(spec);
//   auto lifelines = group.Lifelines();            // of what it lives in
//   auto status = process->Detach({.name = "web", .keep = {...}});
//   group.Disown();
//   // The host may end now, or be killed. Later, in this or another process:
//   auto launcher = caisson::Launcher::Attach("/run/jobs/7");
//   auto process = launcher->Find("web");
//   process->Stop(absl::Seconds(10));
//
// A detached process keeps its launcher, which waits in the directory for hosts
// to attach and writes down there how the process ended: doc/detached.md. It
// ends when its last detached process has ended and no host is connected.
//
// What the process lives in (a control group, an address, a range of ids, a
// writable layer) belongs to objects of the host, which destroy it, and their
// Recover() functions take away what a dead host left. Both keep off what was
// handed over: each such object has descriptors, its lifelines, that are its
// owner's (doc/detached.md lists them); the launcher holds copies until the
// process has ended, and so does a Process that was found until TakeKept().
//
// The directory decides who may attach: whoever can connect to the socket in
// it can do what the launcher can. It must be the caller's own, with mode 0700.
// A process of one of the launcher's containers is turned away, even if it can
// reach the directory.
// The launcher stays in the control group and in the session of the host that
// made it: a service manager that kills those kills it, and what it started.
//
// Not for: streams. What a detached process reads and writes goes where it was
// led when it started: pipes whose host ends were neither taken nor closed are
// kept, and so is the terminal, but nobody reads them while no host is there.
// The same holds for a seccomp listener that nobody took: the calls that it is
// asked about wait until a host has attached and answers them.
#ifndef CAISSON_DETACHED_H_
#define CAISSON_DETACHED_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/process.h"
#include "caisson/unique_fd.h"

namespace caisson {

struct DetachOptions {
  // 1 to 63 letters, digits, '_', '-' and '.', the first a letter or digit; no
  // other detached process of the directory has it, running or not.
  std::string name;
  // Held open until the process has ended: at most 56. Lifelines, the host's
  // ends of pipes, or whatever those who attach shall get from
  // Process::TakeKept().
  std::vector<BorrowedFd> keep;
};

struct DetachedProcess {
  enum class State {
    kRunning,
    kEnded,
    kLost,  // its launcher was killed, and it with it; or the machine was off
  };

  std::string name;
  State state = State::kRunning;
  ExitStatus exit;  // of one that has ended; `out_of_memory` is not known
};

// The detached processes of `directory` (LauncherOptions) that were not
// forgotten, by name. NOT_FOUND if there is no such directory,
// PERMISSION_DENIED if it is not the caller's own. Changes nothing.
// Thread-safe, as ForgetDetached().
absl::StatusOr<std::vector<DetachedProcess>> ListDetached(
    const std::string& directory);

// Deletes the record of a process that does not run any more, so that the name
// can be used again. NOT_FOUND if there is none, FAILED_PRECONDITION if it
// runs.
absl::Status ForgetDetached(const std::string& directory,
                            absl::string_view name);

}  // namespace caisson

#endif  // CAISSON_DETACHED_H_
