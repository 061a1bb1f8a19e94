#include "lib/launcher/hook_runner.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "lib/base/deadline.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/sys/memfd.h"
#include "lib/sys/pidfd.h"

namespace caisson::launcher {
namespace {

using ::caisson::plan::PlanBuilder;
using ::caisson::plan::Slot;

constexpr size_t kKeptOutput = 1024;
constexpr int kMaxDrained = 16;  // reads of a full pipe

// Keeps the end of what the program writes; false when nothing is there now.
bool ReadSome(BorrowedFd pipe, std::string& output) {
  char buffer[4096];
  const ssize_t n = ::read(pipe.get(), buffer, sizeof(buffer));
  if (n <= 0) return n < 0 && errno == EINTR;
  output.append(buffer, static_cast<size_t>(n));
  if (output.size() > kKeptOutput) {
    output.erase(0, output.size() - kKeptOutput);
  }
  return true;
}

// The process that waits for the hook: without it, the hook is for nothing.
BorrowedFd WaitingProcess(const HookState& state) {
  const bool waits = state.status == "creating" || state.status == "created";
  return waits ? state.pidfd : BorrowedFd();
}

// Reads until the program has ended; its wait status. A descendant that keeps
// the pipe open is not waited for.
absl::StatusOr<int> AwaitExit(const Started& started, BorrowedFd pipe,
                              BorrowedFd container, absl::Duration timeout,
                              std::string& output) {
  const Deadline deadline(timeout);
  bool open = true;
  for (;;) {
    pollfd polls[] = {{started.channel.get(), POLLIN, 0},
                      {open ? pipe.get() : -1, POLLIN, 0},
                      {container.get(), POLLIN, 0}};
    const int ready = deadline.Poll(polls);
    if (ready < 0 && errno != EINTR) {
      return ErrnoError(errno, "ppoll(hook)", {.step = "hooks"});
    }
    if (ready > 0 && polls[0].revents != 0) {
      ASSIGN_OR_RETURN(const Message message,
                       ReceiveMessage(started.channel.borrow(), nullptr, 0));
      return message.wait_status;
    }
    if (ready > 0 && polls[2].revents != 0) {
      return absl::AbortedError("was killed: the container's process ended");
    }
    if (deadline.expired()) {
      return absl::DeadlineExceededError(absl::StrCat(
          "did not end within ", absl::FormatDuration(timeout), "; killed"));
    }
    if (ready > 0 && polls[1].revents != 0) open = ReadSome(pipe, output);
  }
}

absl::Status CheckProgram(const HookProgram& program) {
  if (!absl::StartsWith(program.path, "/")) {
    return absl::InvalidArgumentError(absl::StrCat(
        "HookProgram.path ", Quoted(program.path), " is not absolute"));
  }
  if (program.timeout <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError("HookProgram.timeout is not positive");
  }
  return absl::OkStatus();
}

absl::Status Failed(const HookProgram& program, absl::string_view how,
                    absl::string_view output) {
  output = absl::StripAsciiWhitespace(output);
  return absl::AbortedError(absl::StrCat("hook ", Quoted(program.path), " ",
                                         how, output.empty() ? "" : ": ",
                                         output));
}

}  // namespace

absl::Status RunHookProgram(const HookProgram& program, const HookState& state,
                            const std::string& text, StartHook start) {
  RETURN_IF_ERROR(CheckProgram(program));
  ASSIGN_OR_RETURN(UniqueFd input, sys::SealedMemfd("caisson-hook", text));
  int fds[2];
  if (::pipe2(fds, O_CLOEXEC | O_NONBLOCK) != 0) {
    return ErrnoError(errno, "pipe2(hook)", {.step = "hooks"});
  }
  const UniqueFd pipe(fds[0]);
  UniqueFd output_end(fds[1]);
  ::fcntl(output_end.get(), F_SETFL, 0);
  const auto started = start(std::move(input), std::move(output_end));
  // Not "exec", which would be the container's program.
  if (!started.ok()) return WithStep(started.status(), "hooks");

  std::string output;
  const auto status = AwaitExit(*started, pipe.borrow(), WaitingProcess(state),
                                program.timeout, output);
  if (!status.ok()) {
    sys::SendSignal(started->pidfd.borrow(), SIGKILL).IgnoreError();
    return Failed(program, status.status().message(), output);
  }
  // What it wrote before its end; a descendant may write for ever.
  for (int i = 0; i < kMaxDrained && ReadSome(pipe.borrow(), output); ++i) {
  }
  if (*status == 0) return absl::OkStatus();
  return Failed(program,
                WIFSIGNALED(*status)
                    ? absl::StrCat("was killed by signal ", WTERMSIG(*status))
                    : absl::StrCat("exited with code ", WEXITSTATUS(*status)),
                output);
}

std::vector<std::string> ArgsOf(const HookProgram& program) {
  if (program.args.empty()) return {program.path};
  return program.args;
}

void AddHookProgram(PlanBuilder& plan, const HookProgram& program,
                    UniqueFd input, UniqueFd output) {
  plan.Call(SYS_dup3, {plan.Send(std::move(input)), STDIN_FILENO, 0},
            "dup3(0)");
  const Slot out = plan.Send(std::move(output));
  plan.Call(SYS_dup3, {out, STDOUT_FILENO, 0}, "dup3(1)");
  plan.Call(SYS_dup3, {out, STDERR_FILENO, 0}, "dup3(2)");
  plan.Call(SYS_umask, {022}, "umask()");
  plan.Call(SYS_setsid, {}, "setsid()");
  plan.CloseDescriptors();
  plan.Step("exec");
  plan.Exec(SYS_execve,
            {plan.String(program.path), plan.StringArray(ArgsOf(program)),
             plan.StringArray(program.env)},
            absl::StrCat("execve(", Quoted(program.path), ")"),
            /*try_next=*/false)
      .Path(program.path);
}

}  // namespace caisson::launcher
