#include "caisson/hooks.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/syscall.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "caisson/launcher.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/launcher/hook_runner.h"
#include "lib/launcher/launcher_state.h"
#include "lib/launcher/process_state.h"
#include "lib/launcher/session.h"
#include "lib/plan/builder.h"
#include "lib/sys/open.h"

namespace caisson {
namespace {

using ::caisson::plan::PlanBuilder;

constexpr char kOciVersion[] = "1.2.0";

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

absl::StatusOr<launcher::Started> StartOnHost(const launcher::Session& session,
                                              const HookProgram& program,
                                              UniqueFd input, UniqueFd output) {
  ASSIGN_OR_RETURN(HostPlace place, OpenHostPlace());
  PlanBuilder plan;
  plan.Step("hook");
  plan.Call(SYS_setns, {plan.Send(std::move(place.mounts)), CLONE_NEWNS},
            "setns(the host's mount namespace)");
  plan.Call(SYS_fchdir, {plan.Send(std::move(place.root))}, "fchdir(\"/\")");
  plan.Call(SYS_chroot, {plan.String(".")}, "chroot(\".\")");
  plan.Call(SYS_fchdir, {plan.Send(std::move(place.directory))},
            "fchdir(\".\")");
  launcher::AddHookProgram(plan, program, std::move(input), std::move(output));
  return session.Run(plan);
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
    return launcher::RunHookProgram(
        program, state, state.ToJson(), [&](UniqueFd input, UniqueFd output) {
          return StartOnHost(*session, program, std::move(input),
                             std::move(output));
        });
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
