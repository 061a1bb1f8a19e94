// The fixture of tests in which an image or a container attacks: beside what
// every container test checks, a directory outside of all roots, which the
// attacks aim at, must be after each test what it was before.
#ifndef CAISSON_TESTS_HOSTILE_HOSTILE_TEST_H_
#define CAISSON_TESTS_HOSTILE_HOSTILE_TEST_H_

#include <string>
#include <vector>

#include "tests/support/container_test.h"

namespace caisson::testing {

// A new directory in $TEST_TMPDIR, removed (never across a mount) at the end.
class ScratchDir final {
 public:
  explicit ScratchDir(const std::string& name);
  ScratchDir(const ScratchDir&) = delete;
  ScratchDir& operator=(const ScratchDir&) = delete;
  ~ScratchDir();

  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// Puts entries into a directory, in place of what is there: "name -> target",
// "name=content" or "name/". Parents are made.
void Plant(const std::string& directory,
           const std::vector<std::string>& entries);

class HostileTest : public ContainerTest {
 protected:
  // Puts the program `attacker` into the root.
  static void SetUpTestSuite();
  void SetUp() override;
  void TearDown() override;

  // Holds "file" and "dir/inner", both "untouched", "etc/passwd" with an entry
  // "evil" for root, and empty directories "dev", "pts", "proc" and "sys".
  const std::string& outside() const { return outside_->path(); }

  // Runs `spec` in `image`, whose directory itself takes the writes: with an
  // overlay in between less could go wrong.
  static absl::StatusOr<Outcome> RunIn(const TestRoot& image, ProcessSpec spec);
  static RootFsOptions InPlace(const TestRoot& image);

  // One of the attacks of attacker.c.
  static ProcessSpec Attack(std::vector<std::string> words);
  // Reads what the process says until it is killed.
  static std::string KillAndRead(Running& running);

 private:
  std::unique_ptr<ScratchDir> outside_;
  std::string before_outside_;
};

}  // namespace caisson::testing

#endif  // CAISSON_TESTS_HOSTILE_HOSTILE_TEST_H_
