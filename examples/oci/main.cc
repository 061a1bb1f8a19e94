// caisson-oci: a runtime of the OCI runtime specification with runc's command
// line, for containerd, Docker, Podman and CRI-O. All of it is OciRuntime; this
// is what is particular to the command line.
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "caisson/unique_fd.h"
#include "examples/oci/arguments.h"
#include "examples/oci/commands.h"

namespace {

using oci::Arguments;

constexpr char kUsage[] =
    R"(usage: caisson-oci [OPTION...] COMMAND [OPTION...] [ARGUMENT...]

Runs containers as the OCI runtime specification describes them, with the
command line of runc.

Commands:
  create [-b BUNDLE] [--console-socket S] [--pid-file F] [--no-new-keyring]
         [--preserve-fds N] ID       make a container, without its program
  start ID                           let its program run
  run [...] [-d] [--keep] ID         create, start, wait, delete
  exec [-t] [-u USER] [-e VAR=VALUE] [--cwd DIR] [-d] [--pid-file F]
       [-p PROCESS.JSON] [...] ID [COMMAND...]
                                     another process in a container
  state ID                           the state document
  list [-q] [-f table|json]          all containers
  kill [-a] ID [SIGNAL]              send a signal (SIGTERM)
  delete [-f] ID                     remove what is left of a container
  pause ID, resume ID                stop all its processes, let them go on
  ps [-f table|json] ID [OPTION...]  its processes, as ps(1) shows them
  update [-r FILE] [LIMITS] ID       change its limits; FILE "-": from stdin
         --memory --memory-swap --memory-reservation --cpu-shares --cpu-quota
         --cpu-period --cpuset-cpus --cpuset-mems --pids-limit --blkio-weight
  events [--stats] [--interval 5s] ID   its statistics and when it is out of
                                     memory, one JSON object a line
  spec [-b BUNDLE] [--rootless]      write a config.json to begin with
  features                           what this runtime can do

Options:
  --root DIR           where containers are remembered (/run/caisson/oci; of an
                       ordinary user $XDG_RUNTIME_DIR/caisson/oci)
  --log FILE           where errors go, too
  --log-format F       text (default) or json
  --systemd-cgroup     linux.cgroupsPath is "slice:prefix:name"; understood
                       without it, too, and systemd is not told
  --debug, --rootless X, --criu X   accepted
  --version, --help
)";

constexpr char kVersion[] = "1.1.0";

const std::vector<oci::Option> kGlobalOptions = {
    {"root", true}, {"log", true},           {"log-format", true},
    {"debug"},      {"systemd-cgroup"},      {"rootless", true},
    {"criu", true}, {"version", false, "v"}, {"help", false, "h"},
};

// Made at once: containerd opens it after every failure.
class Log {
 public:
  Log(const std::string& path, bool json) : json_(json) {
    if (path.empty()) return;
    fd_.reset(open(path.c_str(),
                   O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0644));
  }

  void Write(const std::string& level, const std::string& message) const {
    std::cerr << "caisson-oci: " << message << "\n";
    if (!fd_.valid()) return;
    const std::string time =
        absl::FormatTime(absl::RFC3339_sec, absl::Now(), absl::UTCTimeZone());
    std::string line;
    if (json_) {
      line =
          nlohmann::json({{"level", level}, {"msg", message}, {"time", time}})
              .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    } else {
      line = absl::StrCat(
          "time=\"", time, "\" level=", level, " msg=",
          nlohmann::json(message).dump(
              -1, ' ', false, nlohmann::json::error_handler_t::replace));
    }
    line += "\n";
    if (write(fd_.get(), line.data(), line.size()) < 0) {
      std::cerr << "caisson-oci: the log: " << strerror(errno) << "\n";
    }
  }

 private:
  caisson::UniqueFd fd_;
  bool json_;
};

// Of an ordinary user, and where one is root of a user namespace, as runc has
// it.
std::string DefaultRoot() {
  const char* const own = getenv("XDG_RUNTIME_DIR");
  std::string map;
  std::getline(std::ifstream("/proc/self/uid_map"), map);
  const std::vector<std::string> words =
      absl::StrSplit(map, ' ', absl::SkipEmpty());
  const bool machines_root =
      geteuid() == 0 &&
      words == std::vector<std::string>{"0", "0", "4294967295"};
  if (machines_root || own == nullptr || *own == '\0')
    return "/run/caisson/oci";
  return absl::StrCat(own, "/caisson/oci");
}

int Fail(const Log& log, const absl::Status& status) {
  log.Write("error", std::string(status.message()));
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  const auto global = Arguments::Parse(words, 0, kGlobalOptions);
  if (!global.ok()) {
    std::cerr << "caisson-oci: " << global.status().message() << "\n" << kUsage;
    return 2;
  }
  if (global->Has("help")) {
    std::cout << kUsage;
    return 0;
  }
  if (global->Has("version")) {
    // Callers look for "runc version" at the beginning; this is not runc.
    std::cout << "caisson-oci version " << kVersion << "\nspec: 1.2.0\n";
    return 0;
  }
  if (global->rest().empty()) {
    std::cerr << kUsage;
    return 2;
  }
  const Log log(global->Get("log"), global->Get("log-format") == "json");
  const std::string command = global->rest()[0];
  const oci::Command* found = oci::FindCommand(command);
  if (found == nullptr) {
    log.Write("error", absl::StrCat("unknown command ", command));
    std::cerr << kUsage;
    return 2;
  }
  auto arguments = Arguments::Parse(global->rest(), 1, found->options);
  if (!arguments.ok()) return Fail(log, arguments.status());
  if (arguments->Has("help")) {
    std::cout << kUsage;
    return 0;
  }
  const std::string root =
      global->Has("root") ? global->Get("root") : DefaultRoot();
  oci::Context context = {.root = root, .warn = [&](const std::string& text) {
                            log.Write("warning", text);
                          }};
  const auto code = found->run(context, *arguments);
  if (code.ok()) return *code;
  Fail(log, code.status());
  return command == "exec" ? 255 : 1;
}
