// Hosts of their own for tests: a test executes its own program anew, which
// then is the host that a scenario needs.
#ifndef CAISSON_TESTS_HOST_SAFETY_SCENARIO_H_
#define CAISSON_TESTS_HOST_SAFETY_SCENARIO_H_

#include <functional>
#include <map>
#include <string>

#include "absl/status/status.h"

namespace caisson::testing {

using Scenarios = std::map<std::string, std::function<absl::Status()>>;

// main() of such a test program.
int RunTestsOrScenario(int argc, char** argv, const Scenarios& scenarios);

// Runs one in a fresh process; what failed in it is on standard error.
bool Passes(const std::string& scenario);

// Runs `body`; the process must be afterwards as it was before.
absl::Status LeavesTheHostAlone(const std::function<absl::Status()>& body);

}  // namespace caisson::testing

#endif  // CAISSON_TESTS_HOST_SAFETY_SCENARIO_H_
