// Hooks that run inside of the container.
#include <fcntl.h>
#include <sched.h>
#include <sys/syscall.h>

#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "caisson/hooks.h"
#include "caisson/launcher.h"
#include "lib/base/status_macros.h"
#include "lib/launcher/compose.h"
#include "lib/launcher/hook_runner.h"
#include "lib/launcher/hooked_process.h"
#include "lib/launcher/launcher_state.h"
#include "lib/launcher/process_state.h"
#include "lib/launcher/session.h"
#include "lib/plan/builder.h"
#include "lib/sys/open.h"
#include "lib/sys/pidfd.h"

namespace caisson {
namespace {

using ::caisson::launcher::HookedProcess;
using ::caisson::launcher::HookPoint;
using ::caisson::launcher::Started;

absl::StatusOr<pid_t> PidOfContainer(BorrowedFd pidfd) {
  const pid_t pid = sys::PidOf(pidfd);
  if (pid > 0) return pid;
  return absl::NotFoundError("the container's process has ended");
}

// Its number in the innermost pid namespace that it is in.
absl::StatusOr<pid_t> PidInside(BorrowedFd pidfd) {
  ASSIGN_OR_RETURN(const pid_t pid, PidOfContainer(pidfd));
  const std::string path = absl::StrCat("/proc/", pid, "/status");
  ASSIGN_OR_RETURN(const std::string status,
                   sys::ReadFileAt(BorrowedFd(AT_FDCWD), path, /*resolve=*/0,
                                   /*limit=*/65536));
  // Otherwise the number may be another process's by now.
  RETURN_IF_ERROR(PidOfContainer(pidfd).status());
  for (absl::string_view line : absl::StrSplit(status, '\n')) {
    if (!absl::ConsumePrefix(&line, "NSpid:")) continue;
    const std::vector<absl::string_view> numbers =
        absl::StrSplit(line, absl::ByAnyChar(" \t"), absl::SkipEmpty());
    int inside = 0;
    if (!numbers.empty() && absl::SimpleAtoi(numbers.back(), &inside)) {
      return inside;
    }
  }
  return absl::InternalError(absl::StrCat(path, " has no line NSpid"));
}

// The program is the host's and has its rights, so it stays out of the pid
// namespace: there, whoever shares or later inherits it could take hold of
// /proc/PID/exe, root and fd.
absl::StatusOr<Started> StartBesideContainer(const launcher::Session& session,
                                             const HookProgram& program,
                                             const HookState& state,
                                             UniqueFd input, UniqueFd output) {
  ASSIGN_OR_RETURN(UniqueFd root, sys::Open("/", O_PATH | O_DIRECTORY));
  ASSIGN_OR_RETURN(const pid_t pid, PidOfContainer(state.pidfd));
  ASSIGN_OR_RETURN(
      UniqueFd directory,
      sys::Open(absl::StrCat("/proc/", pid, "/cwd"), O_PATH | O_DIRECTORY));
  RETURN_IF_ERROR(PidOfContainer(state.pidfd).status());  // as above
  launcher::ContainerNamespaces namespaces = state.process->namespaces;
  namespaces.first &= ~uint64_t{CLONE_NEWPID};
  namespaces.second &= ~uint64_t{CLONE_NEWPID};

  plan::PlanBuilder plan;
  plan.Step("hook");
  launcher::AddEnterContainer(plan, state.pidfd, namespaces);
  plan.Call(SYS_fchdir, {plan.Send(std::move(root))}, "fchdir(\"/\")");
  plan.Call(SYS_chroot, {plan.String(".")}, "chroot(\".\")");
  plan.Call(SYS_fchdir, {plan.Send(std::move(directory))},
            "fchdir(the container's root)");
  launcher::AddHookProgram(plan, program, std::move(input), std::move(output));
  return session.Run(plan);
}

// As Launcher::Exec().
absl::StatusOr<Started> StartInContainer(const launcher::Session& session,
                                         const LauncherIdentity& identity,
                                         const HookProgram& program,
                                         const HookState& state, UniqueFd input,
                                         UniqueFd output) {
  ProcessSpec spec = state.process->spec;
  spec.executable = program.path;
  spec.argv = launcher::ArgsOf(program);
  spec.env = program.env;
  spec.in = Stdio::Inherit(input.borrow());
  spec.out = Stdio::Inherit(output.borrow());
  spec.err = Stdio::LikeStdout();
  ASSIGN_OR_RETURN(
      launcher::Composition composition,
      launcher::ComposeExec({.pidfd = state.pidfd,
                             .namespaces = state.process->namespaces,
                             .group = state.process->group},
                            spec, *state.process->policy,
                            {session.isolated(), identity}));
  auto started = session.Run(composition.plan);
  if (!started.ok()) return ExplainFailure(started.status(), composition);
  return started;
}

}  // namespace

namespace launcher {

ProcessSpec SpecInside(const ProcessSpec& spec) {
  ProcessSpec inside;
  inside.cwd = spec.cwd;
  inside.user = spec.user;
  inside.additional_groups = spec.additional_groups;
  inside.umask = spec.umask;
  inside.limits = spec.limits;
  inside.oom_score_adj = spec.oom_score_adj;
  inside.personality = spec.personality;
  inside.start_timeout = spec.start_timeout;
  return inside;
}

}  // namespace launcher

Hook RunProgramInside(Launcher& launcher, HookProgram program) {
  return [owner = launcher.state_.get(),
          program = std::move(program)](const HookState& state) {
    const HookPoint point =
        state.process != nullptr ? state.process->point : HookPoint::kOther;
    if (point == HookPoint::kOther) {
      return absl::FailedPreconditionError(
          "RunProgramInside(): not at this point; programs run inside as "
          "Hooks.create_container and Hooks.start_container");
    }
    if (!state.process->policy.has_value() ||
        state.process->session != owner->session.get()) {
      return absl::InvalidArgumentError(
          "RunProgramInside(): the container belongs to another Launcher");
    }
    HookState seen = state;
    auto pid = PidInside(state.pidfd);
    if (!pid.ok()) return pid.status();
    seen.pid = *pid;
    return launcher::RunHookProgram(
        program, state, seen.ToJson(), [&](UniqueFd input, UniqueFd output) {
          return point == HookPoint::kCreateContainer
                     ? StartBesideContainer(*owner->session, program, state,
                                            std::move(input), std::move(output))
                     : StartInContainer(*owner->session, owner->identity,
                                        program, state, std::move(input),
                                        std::move(output));
        });
  };
}

}  // namespace caisson
