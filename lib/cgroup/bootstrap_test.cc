// Out of the way of one's children: on plain files, with a failure at every
// step. And what is advised to whom.
#include "lib/cgroup/bootstrap.h"

#include <errno.h>

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
  ASSERT_OK_AND_ASSIGN(const CgroupBootstrap again, Bootstrap(fs, {}));
  EXPECT_THAT(again.moved, IsEmpty());
  EXPECT_THAT(fs.log, IsEmpty());
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
