// `docker` without a daemon, as far as containers go: each call is a program of
// its own on top of caisson::ContainerStore. See --help.
#include <iostream>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "examples/containers/commands.h"

namespace containers {
namespace {

struct Command {
  Syntax syntax;
  int (*run)(const Call&);
  int failure_code = 1;
};

constexpr char kOne[] = "CONTAINER";
constexpr char kSome[] = "[OPTIONS] CONTAINER...";
constexpr char kRun[] = "[OPTIONS] IMAGE [COMMAND [ARGUMENT...]]";
constexpr char kExec[] = "[OPTIONS] CONTAINER COMMAND [ARGUMENT...]";
constexpr char kNone[] = "[OPTIONS]";

constexpr Command kCommands[] = {
    {{"import", "[OPTIONS] PATH",
      "Adds the images of an archive (docker save, OCI) or an OCI layout.", 1,
      1},
     Import},
    {{"images", kNone, "Lists the images.", 0, 0}, Images},
    {{"rmi", "IMAGE...", "Removes images, or their names.", 1, 0}, RemoveImage},
    {{"create", kRun, "Makes a container, and prints its id.", 1, 0, true},
     Create},
    {{"run", kRun, "Makes a container and starts it.", 1, 0, true}, Run, 125},
    {{"start", kSome, "Starts containers.", 1, 0}, Start},
    {{"stop", kSome, "Asks containers to end, then kills them.", 1, 0}, Stop},
    {{"restart", kSome, "Stops containers and starts them.", 1, 0}, Restart},
    {{"kill", kSome, "Sends containers a signal.", 1, 0}, Kill},
    {{"pause", "CONTAINER...", "Freezes containers.", 1, 0}, Pause},
    {{"unpause", "CONTAINER...", "Lets them go on.", 1, 0}, Unpause},
    {{"wait", "CONTAINER...",
      "Waits for the ends of containers, and prints their exit codes.", 1, 0},
     Wait},
    {{"rm", kSome, "Removes containers.", 1, 0}, Remove},
    {{"ps", kNone, "Lists containers.", 0, 0}, Ps},
    {{"logs", "[OPTIONS] CONTAINER", "Prints what a container has written.", 1,
      1},
     Logs},
    {{"exec", kExec, "Runs another program in a container.", 2, 0, true}, Exec},
    {{"attach", "[OPTIONS] CONTAINER",
      "Connects to the streams of a container.", 1, 1},
     Attach},
    {{"top", kOne, "Lists the processes of a container.", 1, 1}, Top},
    {{"stats", "[OPTIONS] [CONTAINER...]",
      "Shows what containers use: those named, or all that run.", 0, 0},
     Stats},
    {{"inspect", "CONTAINER...", "Prints all about containers, as JSON.", 1, 0},
     Inspect},
    {{"cp", "[OPTIONS] CONTAINER:PATH|PATH|- CONTAINER:PATH|PATH|-",
      "Copies files out of a container, or in; \"-\" is a tar.", 2, 2},
     Cp},
    {{"port", "CONTAINER [PORT[/udp]]", "Prints where ports are published.", 1,
      2},
     Port},
    {{"events", kNone, "Prints what happens to containers.", 0, 0}, Events},
    {{"update", kSome, "Changes limits and the restart policy.", 1, 0}, Update},
    {{"rename", "CONTAINER NAME", "Gives a container another name.", 2, 2},
     Rename},
    {{"prune", kNone, "Removes all containers that do not run.", 0, 0}, Prune},
    {{"recover", "",
      "Puts right what a reboot or a killed keeper has left, and starts again.",
      0, 0},
     Recover},
    {{"system", "df", "Prints what the store takes on the disk.", 1, 1}, Df},
};

constexpr char kUsage[] =
    R"(usage: containers [--store DIRECTORY] COMMAND [ARGUMENT...]

Containers that need neither a daemon nor this program: each has a keeper, a small
process that ends with it. Needs root. CONTAINER is a name, an id, or its beginning.

)";

constexpr char kUsageEnd[] =
    R"(
The store (/var/lib/caisson) has images, containers and volumes.
`containers COMMAND --help` says more. Exits with the exit code of the program that
it has run in the foreground: 128 + signal if a signal ended it; 125 if the container
could not be set up, 126 if the program cannot be executed, 127 if it does not exist.
Else with 1 if something failed.
)";

int PrintUsage() {
  std::cout << kUsage;
  for (const Command& command : kCommands) {
    std::cout << absl::StrFormat("  %-9s %s\n", command.syntax.name,
                                 command.syntax.summary);
  }
  std::cout << kUsageEnd;
  return 0;
}

int Main(const std::vector<std::string>& words) {
  std::string store = "/var/lib/caisson";
  size_t i = 0;
  for (; i < words.size() && absl::StartsWith(words[i], "-"); ++i) {
    if (words[i] == "--help" || words[i] == "-h") return PrintUsage();
    if (words[i] != "--store" || i + 1 == words.size()) {
      throw Failure{absl::StrCat(words[i], ": see containers --help"), 125};
    }
    store = words[++i];
  }
  if (i == words.size()) throw Failure{"no command; see containers --help"};
  for (const Command& command : kCommands) {
    if (words[i] != command.syntax.name) continue;
    const std::vector<std::string> rest(
        words.begin() + static_cast<ptrdiff_t>(i) + 1, words.end());
    try {
      return command.run({command.syntax, store, rest});
    } catch (Failure& failure) {
      if (failure.code == 0) failure.code = command.failure_code;
      throw;
    }
  }
  throw Failure{
      absl::StrCat("\"", words[i], "\" is no command; see containers --help")};
}

}  // namespace
}  // namespace containers

int main(int argc, char** argv) try {
  return containers::Main({argv + 1, argv + argc});
} catch (const containers::Failure& failure) {
  containers::PrintError(failure.message);
  return failure.code == 0 ? 1 : failure.code;
}
