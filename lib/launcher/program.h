// Why a program could not be executed.
#ifndef CAISSON_LIB_LAUNCHER_PROGRAM_H_
#define CAISSON_LIB_LAUNCHER_PROGRAM_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "caisson/unique_fd.h"

namespace caisson::launcher {

// The paths that execve(2) is tried with for `argv0`, in order: itself if it
// has a slash, else one per directory of the PATH in `env`. An empty directory
// of PATH is left out: it would mean the working directory.
std::vector<std::string> Candidates(absl::string_view argv0,
                                    const std::vector<std::string>& env);

// Opens a file as the container will see it.
using OpenInside =
    std::function<absl::StatusOr<UniqueFd>(const std::string& path, int flags)>;

// What `error` of execve(2) meant. The kernel says ENOENT for a missing
// program, for a missing ELF interpreter and for a missing interpreter of a
// script alike; this looks into the file and names what is missing. The status
// is NOT_FOUND with ENOENT for what does not exist, PERMISSION_DENIED for what
// may not be executed, INVALID_ARGUMENT for what is no program, or one for
// another machine.
absl::Status ExplainExecFailure(int error,
                                const std::vector<std::string>& candidates,
                                const OpenInside& open);

}  // namespace caisson::launcher

#endif  // CAISSON_LIB_LAUNCHER_PROGRAM_H_
