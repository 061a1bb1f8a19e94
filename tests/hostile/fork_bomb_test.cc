// A fork bomb in a container with a limit of processes: the limit holds, the
// host goes on, and the bomb ends when the host says so.
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "caisson/caisson.h"
#include "tests/hostile/hostile_test.h"

namespace caisson {
namespace {

using ::testing::HasSubstr;

constexpr int kMaxProcesses = 64;

class HostileForkBombTest : public testing::HostileTest {
 protected:
  void SetUp() override {
    HostileTest::SetUp();
    path_ = absl::StrCat("/caisson-hostile-", getpid());
    auto parent = CgroupParent::Open({.path = path_});
    ASSERT_OK(parent);
    parent_.emplace(*std::move(parent));
    auto cgroup = parent_->Create(
        {.name = "bomb",
         .limits = {.memory_max = 64 << 20, .pids_max = kMaxProcesses}});
    ASSERT_OK(cgroup);
    cgroup_.emplace(*std::move(cgroup));
    for (const CgroupPath& path : cgroup_->paths()) {
      const std::pair<std::string, std::string> parts =
          absl::StrSplit(path.directory, absl::MaxSplits(path_, 1));
      directories_.push_back(parts.first + path_);
    }
  }

  void TearDown() override {
    if (cgroup_) {
      EXPECT_OK(cgroup_->Destroy(absl::Seconds(20)));
    }
    cgroup_.reset();
    parent_.reset();
    for (const std::string& directory : directories_) {
      EXPECT_NE(::access(directory.c_str(), F_OK), 0) << directory;
    }
    HostileTest::TearDown();
  }

  // Starts it and waits until it has used up what it may.
  Running Explode() {
    ProcessSpec bomb = Attack({"bomb"});
    bomb.cgroup = &*cgroup_;
    auto running = StartUntilOutput(bomb);
    EXPECT_OK(running);
    if (!running.ok()) return {};
    size_t most = 0;
    for (int i = 0; i < 2000 && most + 1 < kMaxProcesses; ++i) {
      const auto processes = cgroup_->Processes();
      EXPECT_OK(processes);
      if (processes.ok()) most = processes->size();
      ::usleep(5000);
    }
    EXPECT_GE(most, kMaxProcesses - 1u);
    EXPECT_LE(most, static_cast<size_t>(kMaxProcesses));
    return *std::move(running);
  }

  static bool Ends(const Process& process) {
    pollfd poll = {process.exit_fd().get(), POLLIN, 0};
    return ::poll(&poll, 1, 20000) == 1;
  }

  std::string path_;
  std::vector<std::string> directories_;
  std::optional<CgroupParent> parent_;
  std::optional<Cgroup> cgroup_;
};

TEST_F(HostileForkBombTest, LimitHoldsAndOthersGoOn) {
  Running bomb = Explode();
  ASSERT_NE(bomb.process, nullptr);
  EXPECT_EQ(Output("echo others start"), "others start\n");
  // There is no room for another process; its error says so.
  ProcessSpec spec = Shell("exit 0");
  spec.start_timeout = absl::Seconds(5);
  const auto second = Exec(*bomb.process, spec);
  if (!second.ok()) {
    EXPECT_THAT(std::string(second.status().message()), HasSubstr("pids"));
  }
  ASSERT_OK(bomb.process->Signal(SIGKILL));
  ASSERT_TRUE(Ends(*bomb.process));
  ASSERT_OK_AND_ASSIGN(const ExitStatus status, bomb.process->Wait());
  EXPECT_EQ(status.signal, SIGKILL);
  ASSERT_OK_AND_ASSIGN(const auto left, cgroup_->Processes());
  EXPECT_EQ(left.size(), 0u);
}

TEST_F(HostileForkBombTest, KillOfTheGroupEndsIt) {
  Running bomb = Explode();
  ASSERT_NE(bomb.process, nullptr);
  ASSERT_OK(cgroup_->Kill(absl::Seconds(20)));
  ASSERT_TRUE(Ends(*bomb.process));
  ASSERT_OK_AND_ASSIGN(const ExitStatus status, bomb.process->Wait());
  EXPECT_EQ(status.signal, SIGKILL);
}

}  // namespace
}  // namespace caisson
