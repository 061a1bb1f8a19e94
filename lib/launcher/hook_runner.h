// Runs a hook's program to its end, wherever it runs.
#ifndef CAISSON_LIB_LAUNCHER_HOOK_RUNNER_H_
#define CAISSON_LIB_LAUNCHER_HOOK_RUNNER_H_

#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "caisson/hooks.h"
#include "caisson/unique_fd.h"
#include "lib/launcher/session.h"
#include "lib/plan/builder.h"

namespace caisson::launcher {

// Starts the program with these streams; `output` is for two of them.
using StartHook =
    absl::FunctionRef<absl::StatusOr<Started>(UniqueFd input, UniqueFd output)>;

// ABORTED if the program does not exit with 0 within its timeout, with what it
// wrote last; and, killing it, if the process of `state`, which does not run
// yet, ends before. `text` is what the program is told.
absl::Status RunHookProgram(const HookProgram& program, const HookState& state,
                            const std::string& text, StartHook start);

std::vector<std::string> ArgsOf(const HookProgram& program);

// The end of a plan that executes a program with the host's rights: streams,
// umask, session, execve(2).
void AddHookProgram(plan::PlanBuilder& plan, const HookProgram& program,
                    UniqueFd input, UniqueFd output);

}  // namespace caisson::launcher

#endif  // CAISSON_LIB_LAUNCHER_HOOK_RUNNER_H_
