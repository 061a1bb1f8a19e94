#include "tests/host_safety/scenario.h"

#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "gtest/gtest.h"
#include "lib/base/status_macros.h"
#include "tests/host_safety/host_state.h"

namespace caisson::testing {
namespace {

constexpr char kOption[] = "--scenario=";

}  // namespace

int RunTestsOrScenario(int argc, char** argv, const Scenarios& scenarios) {
  absl::string_view name = argc == 2 ? argv[1] : "";
  if (!absl::ConsumePrefix(&name, kOption)) {
    ::testing::InitGoogleTest(&argc, argv);
    return RUN_ALL_TESTS();
  }
  const absl::Status status = scenarios.at(std::string(name))();
  if (status.ok()) return 0;
  fprintf(stderr, "scenario %s: %s\n", std::string(name).c_str(),
          status.ToString().c_str());
  return 1;
}

bool Passes(const std::string& scenario) {
  const std::string option = absl::StrCat(kOption, scenario);
  const pid_t child = fork();
  if (child == 0) {
    execl("/proc/self/exe", program_invocation_short_name, option.c_str(),
          static_cast<char*>(nullptr));
    _exit(127);
  }
  int status = -1;
  if (waitpid(child, &status, 0) != child) return false;
  if (status != 0) {
    fprintf(stderr, "scenario %s: wait status %#x\n", scenario.c_str(),
            static_cast<unsigned>(status));
  }
  return status == 0;
}

absl::Status LeavesTheHostAlone(const std::function<absl::Status()>& body) {
  const HostState before = TakeHostState();
  RETURN_IF_ERROR(body());
  const std::string differences = Differences(before, TakeHostState());
  if (differences.empty()) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat("the host is not as before:\n", differences));
}

}  // namespace caisson::testing
