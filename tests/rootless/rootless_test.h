// What the tests of an ordinary user share.
#ifndef CAISSON_TESTS_ROOTLESS_ROOTLESS_TEST_H_
#define CAISSON_TESTS_ROOTLESS_ROOTLESS_TEST_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "caisson/caisson.h"
#include "gtest/gtest.h"
#include "tests/support/test_root.h"

namespace caisson::testing {

struct Outcome {
  ExitStatus status;
  std::string output;  // both streams
};

ProcessSpec Shell(const std::string& script);

// Runs `spec` in a fresh root; the output is collected.
absl::StatusOr<Outcome> RunIn(Launcher& launcher, RootFsOptions options,
                              ProcessSpec spec);

// A test leaves the host as it was: no mount, descriptor, child.
class RootlessTest : public ::testing::Test {
 protected:
  void SetUp() override;
  void TearDown() override;

  const TestRoot& root() const { return *root_; }
  // A launcher with root alone, or with other users.
  Launcher& single();
  Launcher& many();

  // The output of a script; failures are fatal to the test.
  static std::string Output(Launcher& launcher, const RootFsOptions& options,
                            const std::string& script);

  // A new directory below $TEST_TMPDIR.
  static std::string NewDirectory(const std::string& name);

 private:
  std::unique_ptr<TestRoot> root_;
  std::unique_ptr<Launcher> single_;
  std::unique_ptr<Launcher> many_;
  HostSnapshot before_;
};

}  // namespace caisson::testing

#endif  // CAISSON_TESTS_ROOTLESS_ROOTLESS_TEST_H_
