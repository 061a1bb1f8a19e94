#include "tests/host_safety/workload.h"

#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "caisson/container.h"
#include "caisson/process.h"
#include "caisson/root_fs.h"
#include "lib/base/status_macros.h"

namespace caisson::testing {
namespace {

// Only the streams are inherited: there are four descriptors, with the one that
// lists them.
constexpr char kCheckDescriptors[] =
    "set -- /proc/self/fd/*; exit $((75 + $#))";
// No signal is blocked or ignored. (A shell ignores some itself.)
constexpr char kCheckSignals[] =
    "/^Sig(Blk|Ign)/ && $2 !~ /^0+$/ { bad = 1 } END { exit 78 + bad }";

absl::Status ExpectCode(const Process& process, int code) {
  ASSIGN_OR_RETURN(const ExitStatus status, process.Wait());
  if (status.signaled || status.code != code) {
    return absl::InternalError(absl::StrCat("expected the exit code ", code,
                                            ", got: ", status.ToString()));
  }
  return absl::OkStatus();
}

absl::Status ExecOne(Launcher& launcher, const Process& container,
                     std::vector<std::string> argv, int code) {
  ProcessSpec spec;
  spec.argv = std::move(argv);
  ASSIGN_OR_RETURN(const Process process, launcher.Exec(container, spec));
  return ExpectCode(process, code);
}

}  // namespace

absl::Status StartOne(Launcher& launcher, const TestRoot& root, int number) {
  const bool with_exec = number % 10 == 0;
  const int code = 1 + number % 100;
  ASSIGN_OR_RETURN(RootFs tree, RootFs::Create(root.Options()));
  ProcessSpec spec;
  spec.argv = {"sh", "-c",
               absl::StrCat(with_exec ? "read line; exit " : "exit ", code)};
  spec.root = &tree;
  if (with_exec) spec.in = Stdio::Pipe();
  ASSIGN_OR_RETURN(Process process, launcher.Start(spec));
  if (with_exec) {
    const UniqueFd in = process.TakeStdin();
    RETURN_IF_ERROR(
        ExecOne(launcher, process, {"sh", "-c", kCheckDescriptors}, 79));
    RETURN_IF_ERROR(ExecOne(launcher, process,
                            {"awk", kCheckSignals, "/proc/self/status"}, 78));
    if (::write(in.get(), "\n", 1) != 1) return absl::InternalError("write");
  }
  return ExpectCode(process, code);
}

absl::Status KeepOne(const TestRoot& root) {
  const std::string directory = absl::StrCat(root.path(), "/tmp/kept");
  ASSIGN_OR_RETURN(const ContainerStore store,
                   ContainerStore::Open({.path = directory}));
  ContainerSpec spec;
  spec.rootfs = root.path();
  spec.command = {"sh", "-c", "read line; exit 5"};
  spec.open_stdin = true;
  spec.network = "none";
  ASSIGN_OR_RETURN(const Container container, store.Create(spec));
  ASSIGN_OR_RETURN(ContainerRun run, container.StartAttached());
  const ContainerStreams streams = run.TakeStreams();
  const std::pair<std::vector<std::string>, int> checks[] = {
      {{"sh", "-c", kCheckDescriptors}, 79},
      {{"awk", kCheckSignals, "/proc/self/status"}, 78}};
  for (const auto& [argv, code] : checks) {
    ASSIGN_OR_RETURN(ContainerExec exec, container.Exec({.argv = argv}));
    ASSIGN_OR_RETURN(const ExitStatus status, exec.Wait());
    if (status.shell_code() != code) {
      return absl::InternalError(absl::StrCat(
          argv.front(), " ", status.ToString(), ", not with ", code));
    }
  }
  if (::write(streams.in.get(), "\n", 1) != 1) {
    return absl::InternalError("write");
  }
  ASSIGN_OR_RETURN(const ExitStatus exit, run.Wait());
  if (exit.shell_code() != 5) {
    return absl::InternalError(absl::StrCat("it ", exit.ToString()));
  }
  return container.Remove();
}

absl::Status StartMany(const TestRoot& root, int starts) {
  ASSIGN_OR_RETURN(Launcher launcher, Launcher::Create());
  for (int i = 0; i < starts; ++i) {
    RETURN_IF_ERROR(StartOne(launcher, root, i));
  }
  return launcher.Shutdown();
}

}  // namespace caisson::testing
