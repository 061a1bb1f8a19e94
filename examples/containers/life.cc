#include <unistd.h>

#include <iostream>
#include <optional>

#include "absl/strings/str_cat.h"
#include "caisson/notation.h"
#include "examples/containers/commands.h"
#include "examples/containers/spec_flags.h"

namespace containers {
namespace {

using caisson::Container;

Flag Grace(std::optional<absl::Duration>& grace) {
  return {'t', "time", "SECONDS", "until it is killed; else the container's",
          [&grace](const std::string& v) {
            grace = absl::Seconds(ParseNumber(v, 0, 1 << 20));
          }};
}

}  // namespace

int Stop(const Call& call) {
  std::optional<absl::Duration> grace;
  const auto names = call.Parse({Grace(grace)});
  return ForEach(call, names,
                 [&](const Container& c) { Check(c.Stop(grace)); });
}

int Restart(const Call& call) {
  std::optional<absl::Duration> grace;
  const auto names = call.Parse({Grace(grace)});
  return ForEach(call, names,
                 [&](const Container& c) { Check(c.Restart(grace)); });
}

int Kill(const Call& call) {
  int signal = 9;
  const auto names =
      call.Parse({{'s', "signal", "SIGNAL", "its name or number (KILL)",
                   [&](const std::string& v) {
                     signal = Check(caisson::ParseSignal(v));
                   }}});
  return ForEach(call, names,
                 [&](const Container& c) { Check(c.Kill(signal)); });
}

int Pause(const Call& call) {
  return ForEach(call, call.Parse({}),
                 [](const Container& c) { Check(c.Pause()); });
}

int Unpause(const Call& call) {
  return ForEach(call, call.Parse({}),
                 [](const Container& c) { Check(c.Resume()); });
}

int Wait(const Call& call) {
  const caisson::ContainerStore store = call.Containers();
  for (const std::string& name : call.Parse({})) {
    std::cout << Check(Check(store.Find(name)).Wait()) << "\n" << std::flush;
  }
  return 0;
}

int Remove(const Call& call) {
  caisson::ContainerRemoveOptions options;
  const auto names = call.Parse(
      {Switch('f', "force", "kill it first", options.force),
       Switch('v', "volumes", "with its anonymous volumes", options.volumes)});
  return ForEach(call, names,
                 [&](const Container& c) { Check(c.Remove(options)); });
}

int Update(const Call& call) {
  caisson::ContainerUpdate update;
  std::vector<Flag> flags = LimitFlags(update.limits);
  flags.push_back({0, "restart", "POLICY",
                   "no, on-failure[:N], always or unless-stopped",
                   [&](const std::string& v) {
                     update.restart = Check(caisson::ParseRestartPolicy(v));
                   }});
  const auto names = call.Parse(flags);
  return ForEach(call, names,
                 [&](const Container& c) { Check(c.Update(update)); });
}

int Rename(const Call& call) {
  const auto words = call.Parse({});
  Check(Check(call.Containers().Find(words[0])).Rename(words[1]));
  return 0;
}

int Prune(const Call& call) {
  bool force = false;
  call.Parse({Switch('f', "force", "do not ask", force)});
  if (!force) {
    std::cerr << "This removes all containers that do not run. Go on? [y/N] ";
    std::string answer;
    std::getline(std::cin, answer);
    if (answer != "y" && answer != "Y") return 1;
  }
  for (const std::string& id : Check(call.Containers().Prune())) {
    std::cout << id << "\n";
  }
  return 0;
}

int Recover(const Call& call) {
  call.Parse({});
  const caisson::ContainerRecovery recovery =
      Check(call.Containers().Recover());
  for (const std::string& id : recovery.ended) {
    std::cout << "had ended  " << id << "\n";
  }
  for (const std::string& id : recovery.started) {
    std::cout << "started    " << id << "\n";
  }
  for (const absl::Status& failure : recovery.failures) {
    PrintError(std::string(failure.message()));
  }
  return recovery.failures.empty() ? 0 : 1;
}

}  // namespace containers
