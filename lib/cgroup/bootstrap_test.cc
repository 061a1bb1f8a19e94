// Out of the way of one's children: on plain files, with a failure at every
// step. And what is advised to whom.
#include "lib/cgroup/bootstrap.h"

#include <errno.h>
#include <fcntl.h>

#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "caisson/error.h"
#include "lib/base/status_matchers.h"
#include "lib/cgroup/fake_cgroupfs.h"
#include "lib/cgroup/layout.h"

namespace caisson::cgroup {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Kind = FakeCgroupfs::Kind;

// Two processes, of which one is the caller, in a group below the root.
void Settle(FakeCgroupfs& fs) {
  const UniqueFd root(*fs.OpenMount(
      {.version = CgroupVersion::kV2, .mount_point = fs.root() + "/unified"}));
  ASSERT_EQ(fs.MakeDir(root.borrow(), "ours", 0755), 0);
  fs.Set("unified/ours/cgroup.controllers", "cpu memory pids");
  fs.Set("unified/ours/cgroup.procs", "12\n34\n");
  fs.own_path = "/ours";
  fs.own_pid = "34";
}

TEST(BootstrapTest, MovesAndEnables) {
  FakeCgroupfs fs(Kind::kV2);
  Settle(fs);
  ASSERT_OK_AND_ASSIGN(const CgroupBootstrap result, Bootstrap(fs, {}));
  EXPECT_EQ(result.path, "/ours");
  EXPECT_EQ(result.leaf, "/ours/host");
  EXPECT_THAT(result.moved, ElementsAre(12, 34));
  EXPECT_THAT(result.enabled,
              ElementsAre(CgroupController::kCpu, CgroupController::kMemory,
                          CgroupController::kPids));
  EXPECT_EQ(fs.Get("unified/ours/cgroup.procs"), "");
  EXPECT_EQ(fs.Get("unified/ours/host/cgroup.procs"), "12\n34");
  EXPECT_EQ(fs.Get("unified/ours/cgroup.subtree_control"), "cpu memory pids");
  // Nothing is left to do.
  fs.log.clear();
  ASSERT_EQ(fs.own_path, "/ours/host");
  ASSERT_OK_AND_ASSIGN(const CgroupBootstrap again, Bootstrap(fs, {}));
  EXPECT_EQ(again.path, "/ours");
  EXPECT_THAT(again.moved, IsEmpty());
  EXPECT_THAT(again.enabled, IsEmpty());
  EXPECT_THAT(fs.log, IsEmpty());
}

TEST(BootstrapTest, ASecondCallEnablesMoreInTheSameGroup) {
  FakeCgroupfs fs(Kind::kV2);
  Settle(fs);
  ASSERT_OK(Bootstrap(fs, {.controllers = {CgroupController::kCpu}}));
  ASSERT_OK_AND_ASSIGN(
      const CgroupBootstrap again,
      Bootstrap(fs, {.controllers = {CgroupController::kPids}}));
  EXPECT_EQ(again.path, "/ours");
  EXPECT_THAT(again.moved, IsEmpty());
  EXPECT_THAT(again.enabled, ElementsAre(CgroupController::kPids));
  EXPECT_EQ(fs.Get("unified/ours/cgroup.subtree_control"), "cpu pids");
  EXPECT_FALSE(fs.Exists("unified/ours/host/host"));
}

// A group that has the leaf's name by chance.
TEST(BootstrapTest, NothingIsEnabledAboveAGroupOfThatName) {
  FakeCgroupfs fs(Kind::kV2);
  Settle(fs);
  ASSERT_OK_AND_ASSIGN(const CgroupBootstrap result,
                       Bootstrap(fs, {.leaf = "ours"}));
  EXPECT_EQ(result.path, "/ours");
  EXPECT_EQ(result.leaf, "/ours/ours");
  EXPECT_EQ(fs.Get("unified/cgroup.subtree_control"), "");
}

TEST(BootstrapTest, SystemdHasToGiveTheGroupAway) {
  FakeCgroupfs fs(Kind::kV2);
  Settle(fs);
  fs.systemd = true;
  const auto before = fs.Directories();
  fs.log.clear();
  EXPECT_THAT(
      Bootstrap(fs, {}),
      StatusIs(absl::StatusCode::kFailedPrecondition,
               ::testing::AllOf(HasSubstr("\"/ours\""),
                                HasSubstr("systemd-run --scope -p Delegate"))));
  EXPECT_THAT(fs.log, IsEmpty());
  EXPECT_EQ(fs.Directories(), before);
  ASSERT_OK(Bootstrap(fs, {.controllers = {CgroupController::kCpu},
                           .unsafe_even_if_not_delegated = true}));
  // It is the group above the leaf that counts.
  EXPECT_THAT(Bootstrap(fs, {}), StatusIs(absl::StatusCode::kFailedPrecondition,
                                          HasSubstr("\"/ours\"")));
  fs.delegated = "unified/ours";
  ASSERT_OK(Bootstrap(fs, {}));
  EXPECT_EQ(fs.Get("unified/ours/cgroup.subtree_control"), "cpu memory pids");
}

// One process forks just before the step that fails.
TEST(BootstrapTest, ChildrenBornInTheLeafComeBack) {
  FakeCgroupfs fs(Kind::kV2);
  Settle(fs);
  const auto before = fs.Directories();
  fs.fault = [&](const std::string& operation) {
    if (!absl::StrContains(operation, "+memory")) return 0;
    fs.Set("unified/ours/host/cgroup.procs", "12\n34\n56\n");
    return EIO;
  };
  EXPECT_FALSE(Bootstrap(fs, {}).ok());
  EXPECT_EQ(fs.Get("unified/ours/cgroup.procs"), "12\n34\n56");
  EXPECT_EQ(fs.Get("unified/ours/cgroup.subtree_control"), "");
  EXPECT_EQ(fs.Directories(), before);
}

TEST(BootstrapTest, AFailureLeavesAloneWhatIsOfOthers) {
  FakeCgroupfs fs(Kind::kV2);
  Settle(fs);
  const UniqueFd ours(::open((fs.root() + "/unified/ours").c_str(),
                             O_PATH | O_DIRECTORY | O_CLOEXEC));
  ASSERT_EQ(fs.MakeDir(ours.borrow(), "host", 0755), 0);
  fs.Set("unified/ours/host/cgroup.procs", "7\n");
  fs.fault = [&](const std::string& operation) {
    if (!absl::StrContains(operation, "+memory")) return 0;
    // Somebody else enables it meanwhile.
    fs.Set("unified/ours/cgroup.subtree_control", "pids cpu");
    return EIO;
  };
  EXPECT_FALSE(Bootstrap(fs, {}).ok());
  EXPECT_EQ(fs.Get("unified/ours/cgroup.procs"), "12\n34");
  EXPECT_EQ(fs.Get("unified/ours/host/cgroup.procs"), "7");
  EXPECT_EQ(fs.Get("unified/ours/cgroup.subtree_control"), "pids");
}

TEST(BootstrapTest, AFailureAtAnyStepChangesNothing) {
  int step = 0;
  for (bool done = false; !done; ++step) {
    ASSERT_LT(step, 50);
    FakeCgroupfs fs(Kind::kV2);
    Settle(fs);
    const auto before = fs.Directories();
    int seen = 0;
    bool failed = false;
    fs.fault = [&](const std::string&) {
      if (seen++ != step) return 0;
      failed = true;
      return EIO;
    };
    const auto result = Bootstrap(fs, {});
    done = !failed;
    EXPECT_EQ(result.ok(), done);
    if (done) continue;
    EXPECT_EQ(GetErrorDetail(result.status())->error, EIO);
    EXPECT_EQ(fs.Directories(), before) << step;
    EXPECT_THAT(std::vector<std::string>(
                    absl::StrSplit(fs.Get("unified/ours/cgroup.procs"), '\n')),
                ::testing::UnorderedElementsAre("12", "34"))
        << step;
    EXPECT_EQ(fs.Get("unified/ours/cgroup.subtree_control"), "") << step;
  }
  EXPECT_GT(step, 6);
}

TEST(BootstrapTest, RootOfTheHierarchyKeepsItsProcesses) {
  FakeCgroupfs fs(Kind::kV2);
  fs.Set("unified/cgroup.procs", "1\n");
  ASSERT_OK_AND_ASSIGN(
      const CgroupBootstrap result,
      Bootstrap(fs, {.controllers = {CgroupController::kMemory}}));
  EXPECT_EQ(result.path, "/");
  EXPECT_THAT(result.moved, IsEmpty());
  EXPECT_THAT(result.enabled, ElementsAre(CgroupController::kMemory));
  EXPECT_EQ(fs.Get("unified/cgroup.procs"), "1");
}

TEST(BootstrapTest, Refusals) {
  FakeCgroupfs fs(Kind::kV2);
  Settle(fs);
  EXPECT_THAT(Bootstrap(fs, {.controllers = {CgroupController::kIo}}),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("is not offered the io controller")));
  EXPECT_THAT(Bootstrap(fs, {.leaf = "../x"}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("cgroup name \"../x\"")));
  fs.Set("unified/ours/cgroup.procs", "0\n");
  EXPECT_THAT(Bootstrap(fs, {}), StatusIs(absl::StatusCode::kInvalidArgument,
                                          HasSubstr("another PID namespace")));
  fs.Set("unified/ours/cgroup.procs", "12\n");
  fs.fault = [](const std::string& operation) {
    return absl::StrContains(operation, "cgroup.procs") ? EACCES : 0;
  };
  EXPECT_THAT(Bootstrap(fs, {}), StatusIs(absl::StatusCode::kPermissionDenied,
                                          HasSubstr("Delegate=yes")));
}

TEST(BootstrapTest, Version1HasNoSuchRule) {
  FakeCgroupfs fs(Kind::kV1);
  ASSERT_OK_AND_ASSIGN(const CgroupBootstrap result, Bootstrap(fs, {}));
  EXPECT_THAT(result.moved, IsEmpty());
  EXPECT_THAT(fs.log, IsEmpty());
}

TEST(AdviceTest, ByManagerAndRights) {
  CgroupLayout layout;
  EXPECT_THAT(Advice(layout), HasSubstr("mount -t cgroup2"));
  layout.hierarchies.emplace_back();
  layout.hierarchies[0].own_path = "/user.slice/x.scope";
  EXPECT_THAT(Advice(layout), HasSubstr("read-only"));
  layout.hierarchies[0].writable = true;
  EXPECT_THAT(Advice(layout), HasSubstr("/sys/kernel/cgroup/delegate"));
  layout.own_group_writable = true;
  EXPECT_EQ(Advice(layout), "");
  layout.systemd = true;
  EXPECT_THAT(Advice(layout), HasSubstr("systemd-run --scope -p Delegate=yes"));
  layout.own_group_delegated = true;
  EXPECT_THAT(Advice(layout), HasSubstr("make groups below it"));
}

}  // namespace
}  // namespace caisson::cgroup
