#include <unistd.h>

#include <iostream>
#include <optional>
#include <utility>

#include "caisson/console.h"
#include "caisson/launcher.h"
#include "examples/containers/commands.h"
#include "examples/containers/foreground.h"
#include "examples/containers/spec_flags.h"

namespace containers {
namespace {

// What Docker's command line does when a program cannot be executed.
template <typename T>
T CheckStarted(absl::StatusOr<T> value) {
  if (const int code = caisson::ExecFailure(value.status()); code != 0) {
    throw Failure{std::string(value.status().message()), code};
  }
  return Check(std::move(value));
}

void RequireTerminal() {
  if (isatty(STDIN_FILENO)) return;
  throw Failure{"-t with -i: standard input is no terminal"};
}

// Starts it and stays with it to its end.
int StartInForeground(const caisson::Container& container, bool input) {
  const caisson::ContainerInfo info = Check(container.Inspect());
  const caisson::UniqueFd signals = CatchSignals();
  caisson::ContainerRun run = CheckStarted(container.StartAttached(
      {.in = input, .terminal_size = OwnTerminalSize()}));
  if (!Attend(container, run, info.spec.terminal, signals)) return 0;
  return CodeOf(run);
}

}  // namespace

int Create(const Call& call) {
  SpecFlags flags;
  const auto words = call.Parse(flags.All());
  const caisson::ContainerStore store = call.Containers();
  std::cout << Check(store.Create(flags.Finish(words))).id() << "\n";
  return 0;
}

int Run(const Call& call) {
  bool detach = false;
  SpecFlags spec_flags;
  std::vector<Flag> flags = spec_flags.All();
  flags.push_back(
      Switch('d', "detach", "leave it alone; print its id", detach));
  const auto words = call.Parse(flags);
  caisson::ContainerSpec spec = spec_flags.Finish(words);
  if (spec.terminal) {
    spec.terminal_size = OwnTerminalSize().value_or(spec.terminal_size);
  }
  if (!detach && spec.terminal && spec.open_stdin) RequireTerminal();
  spec.stdin_once = spec.open_stdin && !detach;

  const caisson::ContainerStore store = call.Containers();
  const caisson::Container container = Check(store.Create(spec));
  if (!detach) return StartInForeground(container, spec.open_stdin);
  if (const absl::Status started = container.Start(); !started.ok()) {
    CheckStarted(absl::StatusOr<int>(started));
  }
  std::cout << container.id() << "\n";
  return 0;
}

int Start(const Call& call) {
  bool attach = false, interactive = false;
  const auto names = call.Parse(
      {Switch('a', "attach", "stay with it to its end", attach),
       Switch('i', "interactive", "attach standard input, too", interactive)});
  if (!attach && !interactive) {
    return ForEach(call, names, [](const caisson::Container& container) {
      Check(container.Start());
    });
  }
  if (names.size() != 1) throw Failure{"-a and -i are for one container"};
  const caisson::ContainerStore store = call.Containers();
  return StartInForeground(Check(store.Find(names[0])), interactive);
}

int Attach(const Call& call) {
  bool no_stdin = false;
  const auto words =
      call.Parse({Switch(0, "no-stdin", "output alone", no_stdin)});
  const caisson::ContainerStore store = call.Containers();
  const caisson::Container container = Check(store.Find(words[0]));
  const caisson::ContainerInfo info = Check(container.Inspect());
  const caisson::UniqueFd signals = CatchSignals();
  caisson::ContainerRun run = Check(
      container.Attach({.in = !no_stdin, .terminal_size = OwnTerminalSize()}));
  if (!Attend(container, run, info.spec.terminal, signals)) return 0;
  return CodeOf(run);
}

int Exec(const Call& call) {
  bool detach = false, interactive = false, terminal = false;
  caisson::ContainerExecSpec spec;
  const auto words = call.Parse(
      {Switch('d', "detach", "do not wait for it", detach),
       Switch('i', "interactive", "connect standard input", interactive),
       Switch('t', "tty", "give it a terminal", terminal),
       {'e', "env", "NAME[=VALUE]", "set a variable, or pass one on",
        [&](const std::string& v) { AddVariable(v, spec.env); }},
       Text('u', "user", "USER[:GROUP]", "run as this user", spec.user),
       Text('w', "workdir", "DIRECTORY", "start in this directory",
            spec.working_dir)});
  spec.argv.assign(words.begin() + 1, words.end());
  const caisson::BorrowedFd in(STDIN_FILENO), out(STDOUT_FILENO);
  if (terminal) {
    if (interactive && !detach) RequireTerminal();
    spec.terminal = caisson::SizeOfTerminal(out);
  } else if (!detach) {
    if (interactive) spec.in = caisson::Stdio::Inherit(in);
    spec.out = caisson::Stdio::Inherit(out);
    spec.err = caisson::Stdio::Inherit(caisson::BorrowedFd(STDERR_FILENO));
  }
  const caisson::ContainerStore store = call.Containers();
  const caisson::Container container = Check(store.Find(words[0]));
  if (!terminal || detach) {
    caisson::ContainerExec exec = CheckStarted(container.Exec(spec));
    return detach ? 0 : Check(exec.Wait()).shell_code();
  }
  const caisson::UniqueFd signals = CatchSignals();
  caisson::ContainerExec exec = CheckStarted(container.Exec(spec));
  return AttendExec(exec, interactive, signals);
}

}  // namespace containers
