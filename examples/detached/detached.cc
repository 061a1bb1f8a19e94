// Containers that outlive the program that started them, as `docker run -d`,
// `docker exec` and `docker stop` without a daemon: Process::Detach(),
// Launcher::Attach(), lifelines of a control group. See --help.
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "caisson/caisson.h"

namespace {

constexpr char kUsage[] =
    R"(usage: detached DIRECTORY run NAME ROOT COMMAND [ARGUMENT...]
       detached DIRECTORY list
       detached DIRECTORY exec NAME COMMAND [ARGUMENT...]
       detached DIRECTORY stop NAME
       detached DIRECTORY wait NAME
       detached DIRECTORY forget NAME

Runs a command of the directory ROOT in a container that goes on when this program
has ended, and finds it again. Its output is appended to DIRECTORY/NAME.log. Needs
root.

  run     start it; it has at most 256 MiB of memory and 64 processes
  list    what runs in DIRECTORY, and how the rest ended
  exec    run another command inside; exits with its exit code
  stop    SIGTERM, and SIGKILL after ten seconds
  wait    until it has ended; exits with its exit code
  forget  the record of one that has ended, so that its name is free again

DIRECTORY, made if it is missing, is where the container's helper process waits
for the next call. There is no daemon: the helper ends with its last container.
Exits with 125 if something cannot be done.
)";

constexpr char kGroups[] = "/caisson-detached";

// Thrown for what ends the program, so that everything made so far is undone.
struct Failure {
  std::string message;
  int code = 125;
};

void Check(const absl::Status& status) {
  if (!status.ok()) throw Failure{std::string(status.message())};
}

template <typename T>
T Check(absl::StatusOr<T> value) {
  Check(value.status());
  return *std::move(value);
}

// The launcher of the directory, or a new one.
caisson::Launcher AttachOrCreate(const std::string& directory) {
  auto launcher = caisson::Launcher::Attach(directory);
  if (absl::IsNotFound(launcher.status())) {
    launcher = caisson::Launcher::Create({.directory = directory});
  }
  return Check(std::move(launcher));
}

int Run(const std::string& directory, const std::string& name,
        const std::string& root_path, std::vector<std::string> command) {
  caisson::Launcher launcher = AttachOrCreate(directory);
  const caisson::UniqueFd layer(
      ::open(root_path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!layer.valid()) throw Failure{absl::StrCat("cannot open ", root_path)};
  caisson::RootFsOptions options;
  options.layers = {layer.borrow()};
  options.writes = caisson::RootWrites::kTmpfs;
  caisson::RootFs root = Check(caisson::RootFs::Create(options));

  // What hosts that were killed have left.
  Check(caisson::CgroupParent::Recover({.path = kGroups}).status());
  const caisson::CgroupParent groups =
      Check(caisson::CgroupParent::Open({.path = kGroups}));
  caisson::Cgroup group = Check(groups.Create(
      {.name = name, .limits = {.memory_max = 256 << 20, .pids_max = 64}}));

  caisson::ProcessSpec spec;
  spec.argv = std::move(command);
  spec.root = &root;
  spec.cgroup = &group;
  spec.init = true;
  spec.out = caisson::Stdio::File(absl::StrCat(directory, "/", name, ".log"));
  spec.err = caisson::Stdio::LikeStdout();
  caisson::Process process = Check(launcher.Start(spec));

  // The group is the process's from here on.
  const std::vector<caisson::UniqueFd> lifelines = Check(group.Lifelines());
  caisson::DetachOptions detach = {.name = name};
  for (const caisson::UniqueFd& lifeline : lifelines) {
    detach.keep.push_back(lifeline.borrow());
  }
  Check(process.Detach(detach));
  group.Disown();
  return 0;
}

std::string Describe(const caisson::DetachedProcess& process) {
  switch (process.state) {
    case caisson::DetachedProcess::State::kRunning:
      return "running";
    case caisson::DetachedProcess::State::kEnded:
      return process.exit.ToString();
    case caisson::DetachedProcess::State::kLost:
      return "lost: its helper was killed";
  }
  return "";
}

int List(const std::string& directory) {
  const auto all = Check(caisson::ListDetached(directory));
  std::cout << absl::StreamFormat("%-24s %s\n", "NAME", "STATE");
  for (const caisson::DetachedProcess& process : all) {
    std::cout << absl::StreamFormat("%-24s %s\n", process.name,
                                    Describe(process));
  }
  return 0;
}

int Exec(const std::string& directory, const std::string& name,
         std::vector<std::string> command) {
  caisson::Launcher launcher = Check(caisson::Launcher::Attach(directory));
  const caisson::Process container = Check(launcher.Find(name));
  caisson::ProcessSpec spec;
  spec.argv = std::move(command);
  spec.in = caisson::Stdio::Inherit(caisson::BorrowedFd(STDIN_FILENO));
  spec.out = caisson::Stdio::Inherit(caisson::BorrowedFd(STDOUT_FILENO));
  spec.err = caisson::Stdio::Inherit(caisson::BorrowedFd(STDERR_FILENO));
  const caisson::Process process = Check(launcher.Exec(container, spec));
  return Check(process.Wait()).shell_code();
}

// Waits for its end, sends it a signal before if there is one, and removes its
// control group.
int End(const std::string& directory, const std::string& name, bool stop) {
  for (const auto& known : Check(caisson::ListDetached(directory))) {
    if (known.name == name &&
        known.state == caisson::DetachedProcess::State::kEnded) {
      return stop ? 0 : known.exit.shell_code();
    }
  }
  caisson::Launcher launcher = Check(caisson::Launcher::Attach(directory));
  caisson::Process process = Check(launcher.Find(name));
  caisson::Cgroup group = Check(caisson::Cgroup::Attach(process.TakeKept()));
  const caisson::ExitStatus status =
      Check(stop ? process.Stop(absl::Seconds(10)) : process.Wait());
  Check(group.Destroy());
  Check(caisson::CgroupParent::Recover({.path = kGroups}).status());
  return stop ? 0 : status.shell_code();
}

int Main(int argc, char** argv) {
  std::vector<std::string> words(argv + 1, argv + argc);
  if (!words.empty() && (words[0] == "--help" || words[0] == "-h")) {
    std::cout << kUsage;
    return 0;
  }
  if (words.size() < 2) throw Failure{"expected a command; see --help", 2};
  const std::string& directory = words[0];
  const std::string& command = words[1];
  const size_t count = words.size();
  const std::string name = count > 2 ? words[2] : "";
  auto rest = [&](size_t from) {
    return std::vector<std::string>(words.begin() + static_cast<long>(from),
                                    words.end());
  };
  if (command == "run" && count >= 5) {
    return Run(directory, name, words[3], rest(4));
  }
  if (command == "list" && count == 2) return List(directory);
  if (command == "exec" && count >= 4) return Exec(directory, name, rest(3));
  if (command == "stop" && count == 3) return End(directory, name, true);
  if (command == "wait" && count == 3) return End(directory, name, false);
  if (command == "forget" && count == 3) {
    Check(caisson::ForgetDetached(directory, name));
    return 0;
  }
  throw Failure{absl::StrCat(command, ": wrong words; see --help"), 2};
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return Main(argc, argv);
  } catch (const Failure& failure) {
    std::cerr << "detached: " << failure.message << "\n";
    return failure.code;
  }
}
