#include "caisson/hooks.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "caisson/launcher.h"
#include "lib/base/deadline.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/launcher/launcher_state.h"
#include "lib/launcher/process_state.h"
#include "lib/launcher/session.h"
#include "lib/plan/builder.h"
#include "lib/sys/open.h"
#include "lib/sys/pidfd.h"

namespace caisson {
namespace {

using ::caisson::plan::PlanBuilder;
using ::caisson::plan::Slot;

constexpr char kOciVersion[] = "1.2.0";
constexpr size_t kKeptOutput = 1024;
constexpr int kMaxDrained = 16;  // reads of a full pipe

// What the host's own programs see: its mounts, its root and its directory.
struct HostPlace {
  UniqueFd mounts;
  UniqueFd root;
  UniqueFd directory;
};

absl::StatusOr<HostPlace> OpenHostPlace() {
  HostPlace place;
  ASSIGN_OR_RETURN(place.mounts,
                   sys::Open("/proc/thread-self/ns/mnt", O_RDONLY));
  ASSIGN_OR_RETURN(place.root, sys::Open("/", O_PATH | O_DIRECTORY));
  ASSIGN_OR_RETURN(place.directory, sys::Open(".", O_PATH | O_DIRECTORY));
  return place;
}

absl::StatusOr<UniqueFd> InputFile(const std::string& text) {
  UniqueFd file(::memfd_create("caisson-hook", MFD_CLOEXEC));
  if (!file.valid()) {
    return ErrnoError(errno, "memfd_create(hook)", {.step = "hooks"});
  }
  RETURN_IF_ERROR(sys::WriteAll(file.borrow(), text, "standard input"));
  if (::lseek(file.get(), 0, SEEK_SET) != 0) {
    return ErrnoError(errno, "lseek(hook)", {.step = "hooks"});
  }
  return file;
}

PlanBuilder PlanOf(const HookProgram& program, HostPlace place, UniqueFd input,
                   UniqueFd output) {
  PlanBuilder plan;
  plan.Step("hook");
  plan.Call(SYS_setns, {plan.Send(std::move(place.mounts)), CLONE_NEWNS},
            "setns(the host's mount namespace)");
  plan.Call(SYS_fchdir, {plan.Send(std::move(place.root))}, "fchdir(\"/\")");
  plan.Call(SYS_chroot, {plan.String(".")}, "chroot(\".\")");
  plan.Call(SYS_fchdir, {plan.Send(std::move(place.directory))},
            "fchdir(\".\")");
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
            {plan.String(program.path),
             plan.StringArray(program.args.empty()
                                  ? std::vector<std::string>{program.path}
                                  : program.args),
             plan.StringArray(program.env)},
            absl::StrCat("execve(", Quoted(program.path), ")"),
            /*try_next=*/false)
      .Path(program.path);
  return plan;
}

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

// Reads until the program has ended; its wait status. A descendant that keeps
// the pipe open is not waited for.
absl::StatusOr<int> AwaitExit(const launcher::Started& started, BorrowedFd pipe,
                              absl::Duration timeout, std::string& output) {
  const Deadline deadline(timeout);
  bool open = true;
  for (;;) {
    pollfd polls[] = {{started.channel.get(), POLLIN, 0},
                      {open ? pipe.get() : -1, POLLIN, 0}};
    const int ready = deadline.Poll(polls);
    if (ready < 0 && errno != EINTR) {
      return ErrnoError(errno, "ppoll(hook)", {.step = "hooks"});
    }
    if (ready > 0 && polls[0].revents != 0) {
      ASSIGN_OR_RETURN(
          const launcher::Message message,
          launcher::ReceiveMessage(started.channel.borrow(), nullptr, 0));
      return message.wait_status;
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

absl::Status RunOnHost(const launcher::Session& session,
                       const HookProgram& program, const HookState& state) {
  RETURN_IF_ERROR(CheckProgram(program));
  ASSIGN_OR_RETURN(HostPlace place, OpenHostPlace());
  ASSIGN_OR_RETURN(UniqueFd input, InputFile(state.ToJson()));
  int fds[2];
  if (::pipe2(fds, O_CLOEXEC | O_NONBLOCK) != 0) {
    return ErrnoError(errno, "pipe2(hook)", {.step = "hooks"});
  }
  const UniqueFd pipe(fds[0]);
  UniqueFd output_end(fds[1]);
  ::fcntl(output_end.get(), F_SETFL, 0);
  PlanBuilder plan = PlanOf(program, std::move(place), std::move(input),
                            std::move(output_end));
  ASSIGN_OR_RETURN(const launcher::Started started, session.Run(plan));
  plan = PlanBuilder();  // closes the writing end here

  std::string output;
  const auto status =
      AwaitExit(started, pipe.borrow(), program.timeout, output);
  if (!status.ok()) {
    sys::SendSignal(started.pidfd.borrow(), SIGKILL).IgnoreError();
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

}  // namespace

std::string HookState::ToJson() const {
  nlohmann::json json = {{"ociVersion", kOciVersion},
                         {"id", id},
                         {"status", status},
                         {"bundle", bundle},
                         {"annotations", annotations}};
  if (pid > 0) json["pid"] = pid;
  return json.dump(-1, ' ', /*ensure_ascii=*/false,
                   nlohmann::json::error_handler_t::replace);
}

Hook RunProgram(Launcher& launcher, HookProgram program) {
  return [session = launcher.state_->session,
          program = std::move(program)](const HookState& state) {
    return RunOnHost(*session, program, state);
  };
}

absl::Status RunHooks(absl::string_view point, const std::vector<Hook>& hooks,
                      const HookState& state) {
  for (size_t i = 0; i < hooks.size(); ++i) {
    const absl::Status status = hooks[i](state);
    if (status.ok()) continue;
    return Annotate(status, absl::StrCat("Hooks.", point, "[", i, "]"));
  }
  return absl::OkStatus();
}

}  // namespace caisson
