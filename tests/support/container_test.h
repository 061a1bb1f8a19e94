// The fixture of tests that start containers: one launcher and one root
// directory for all tests of a suite; each test must leave the host as it was.
#ifndef CAISSON_TESTS_SUPPORT_CONTAINER_TEST_H_
#define CAISSON_TESTS_SUPPORT_CONTAINER_TEST_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "caisson/caisson.h"
#include "lib/base/status_matchers.h"
#include "tests/support/test_root.h"

namespace caisson::testing {

class ContainerTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite();
  static void TearDownTestSuite();
  void SetUp() override;
  void TearDown() override;

  struct Outcome {
    ExitStatus status;
    std::string output;  // both streams
  };

  // A process with its root, and the reading end of both its streams.
  struct Running {
    std::unique_ptr<RootFs> root;
    UniqueFd output;
    std::unique_ptr<Process> process;
  };

  // Runs `spec` to its end in a fresh root.
  static absl::StatusOr<Outcome> Run(ProcessSpec spec, RootFsOptions options);
  static absl::StatusOr<Outcome> Run(ProcessSpec spec);
  // Starts it, and waits for its first output.
  static absl::StatusOr<Running> StartUntilOutput(ProcessSpec spec);
  // Runs `spec` in the container of `process`.
  static absl::StatusOr<Outcome> Exec(const Process& process, ProcessSpec spec);

  static ProcessSpec Shell(const std::string& script);
  // The output of a script in the default composition.
  static std::string Output(const std::string& script);
  static std::string ExecOutput(const Process& process,
                                const std::string& script);

  static TestRoot* root_;
  static Launcher* launcher_;
  HostSnapshot before_;
};

}  // namespace caisson::testing

#endif  // CAISSON_TESTS_SUPPORT_CONTAINER_TEST_H_
