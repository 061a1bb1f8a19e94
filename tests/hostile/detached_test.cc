// What a container can do to those who detach and recover it.
#include <fcntl.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "caisson/caisson.h"
#include "lib/sys/open.h"
#include "tests/hostile/hostile_test.h"

namespace caisson {
namespace {

using ::caisson::testing::HostileTest;
using ::caisson::testing::ScratchDir;
using ::testing::HasSubstr;
using ::testing::SizeIs;

class HostileDetachedTest : public HostileTest {
 protected:
  void SetUp() override {
    HostileTest::SetUp();
    scratch_ = std::make_unique<ScratchDir>("launcher");
    directory_ = scratch_->path() + "/directory";
    auto launcher = Launcher::Create({.directory = directory_});
    ASSERT_OK(launcher);
    detaching_ = std::make_unique<Launcher>(*std::move(launcher));
  }

  void TearDown() override {
    ASSERT_OK(detaching_->Shutdown());
    detaching_.reset();
    scratch_.reset();
    HostileTest::TearDown();
  }

  // Its first output, or all of it if it ends.
  absl::StatusOr<Process> Start(ProcessSpec spec, RootFsOptions options,
                                std::string& output) {
    auto root = RootFs::Create(options);
    if (!root.ok()) return root.status();
    spec.root = &*root;
    spec.out = Stdio::Pipe();
    auto process = detaching_->Start(spec);
    if (!process.ok()) return process.status();
    const UniqueFd out = process->TakeStdout();
    char buffer[256];
    const ssize_t size = ::read(out.get(), buffer, sizeof(buffer));
    output.assign(buffer, size > 0 ? static_cast<size_t>(size) : 0);
    return process;
  }

  std::unique_ptr<ScratchDir> scratch_;
  std::string directory_;
  std::unique_ptr<Launcher> detaching_;
};

// The directory's mode keeps nobody out who has the same user.
TEST_F(HostileDetachedTest, ProcessOfAContainerCannotAttach) {
  RootFsOptions options = root_->Options();
  options.binds = {{.destination = "/launcher", .source = directory_}};
  std::string output;
  ASSERT_OK_AND_ASSIGN(
      const Process process,
      Start(Attack({"connect", "/launcher/launcher.sock"}), options, output));
  ASSERT_OK(process.Wait());
  // Nothing: end of file.
  EXPECT_EQ(output, "received 0 bytes\n");
  // As a host does.
  EXPECT_OK(Launcher::Attach(directory_));
}

// A container sees its own group's directory, read-only, and can lock it.
TEST_F(HostileDetachedTest, LocksOfAContainerKeepNoGroup) {
  const std::string groups =
      absl::StrCat("/caisson-hostile-detached-", ::getpid());
  std::string path;
  {
    ASSERT_OK_AND_ASSIGN(const CgroupParent parent,
                         CgroupParent::Open({.path = groups}));
    ASSERT_OK_AND_ASSIGN(
        Cgroup group,
        parent.Create({.name = "job", .limits = {.pids_max = 16}}));
    path = group.path();
    std::vector<std::string> directories = {"/sys/fs/cgroup",
                                            "/sys/fs/cgroup/unified"};
    for (const CgroupV1Directory& v1 : group.v1_directories()) {
      directories.push_back("/sys/fs/cgroup/" + v1.hierarchy);
    }
    std::vector<Process> lockers;
    for (const std::string& directory : directories) {
      ProcessSpec spec = Attack({"lock", directory});
      spec.cgroup = &group;
      std::string output;
      RootFsOptions options = root_->Options();
      ASSERT_OK_AND_ASSIGN(Process process, Start(spec, options, output));
      // Some are directories of the container's own.
      lockers.push_back(std::move(process));
    }
    ASSERT_OK_AND_ASSIGN(const std::vector<UniqueFd> lifelines,
                         group.Lifelines());
    EXPECT_FALSE(lifelines.empty());
    // The owner of the group is gone, and so are the lifelines.
    group.Disown();
  }
  ASSERT_OK_AND_ASSIGN(const std::vector<std::string> removed,
                       CgroupParent::Recover({.path = groups}));
  ASSERT_THAT(removed, SizeIs(1));
  EXPECT_THAT(path, HasSubstr(removed[0]));
}

}  // namespace
}  // namespace caisson
