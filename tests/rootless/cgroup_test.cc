// Control groups of an ordinary user: only what was given away.
#include <signal.h>
#include <stdlib.h>

#include <fstream>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status_matchers.h"
#include "tests/rootless/rootless_test.h"
#include "tests/support/ordinary_user.h"

namespace caisson {
namespace {

using ::caisson::testing::Outcome;
using ::caisson::testing::RootlessTest;
using ::caisson::testing::RunIn;
using ::caisson::testing::Shell;
using ::caisson::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

class CgroupTest : public RootlessTest {
 protected:
  void SetUp() override {
    const char* path = ::getenv("CAISSON_DELEGATED_GROUP");
    if (path == nullptr) {
      ASSERT_FALSE(testing::TestsMustRun()) << "needs cgroup v2";
      GTEST_SKIP() << "needs cgroup v2";
    }
    path_ = path;
    RootlessTest::SetUp();
  }

  std::string path_;
};

TEST_F(CgroupTest, ProcessesLiveInAGroupThatWasGivenAway) {
  ASSERT_OK_AND_ASSIGN(CgroupParent parent,
                       CgroupParent::Open({.path = path_}));
  ASSERT_OK_AND_ASSIGN(Cgroup group, parent.Create({.name = "job"}));
  ProcessSpec spec = Shell("cat /proc/self/cgroup");
  spec.cgroup = &group;
  ASSERT_OK_AND_ASSIGN(const Outcome outcome,
                       RunIn(single(), root().Options(), spec));
  // Its own group is the root that it sees.
  EXPECT_THAT(outcome.output, HasSubstr("0::/\n"));

  RootFsOptions options = root().Options();
  options.mounts = single().mounts();
  ASSERT_OK_AND_ASSIGN(RootFs fs, RootFs::Create(options));
  spec = Shell("sleep 1000 & sleep 1000");
  spec.root = &fs;
  spec.cgroup = &group;
  ASSERT_OK_AND_ASSIGN(const Process process, single().Start(spec));
  std::ifstream file(absl::StrCat("/proc/", process.pid(), "/cgroup"));
  const std::string where{std::istreambuf_iterator<char>(file), {}};
  EXPECT_THAT(where, HasSubstr(absl::StrCat("0::", group.path(), "\n")));
  EXPECT_OK(group.Kill());
  ASSERT_OK_AND_ASSIGN(const ExitStatus status, process.Wait());
  EXPECT_EQ(status.signal, SIGKILL);
  EXPECT_OK(group.Destroy());
  EXPECT_OK(parent.Close());
}

TEST_F(CgroupTest, ControllersThatWereNotGivenAwayAreAnError) {
  ASSERT_OK_AND_ASSIGN(CgroupParent parent,
                       CgroupParent::Open({.path = path_}));
  const absl::Status status =
      parent.Create({.name = "job", .limits = {.memory_max = 64 << 20}})
          .status();
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("memory"), HasSubstr("EACCES")));
}

TEST_F(CgroupTest, GroupsOfOthersAreAnError) {
  auto parent = CgroupParent::Open({.path = "/"});
  ASSERT_OK(parent);
  EXPECT_THAT(
      parent->Create({.name = "job"}),
      StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr("EACCES")));
}

TEST_F(CgroupTest, FeaturesKnowWhatMayBeDone) {
  const FeatureReport report = Features();
  const Feature* delegation = report.Find("cgroup v2 delegation");
  ASSERT_NE(delegation, nullptr);
  // The tests' own group belongs to the user, but not its controllers' file.
  EXPECT_FALSE(delegation->available);
  EXPECT_THAT(delegation->detail,
              AllOf(HasSubstr(path_ + "/host/cgroup.subtree_control"),
                    HasSubstr("Delegate=yes")));
}

}  // namespace
}  // namespace caisson

int main(int argc, char** argv) {
  return caisson::testing::RunTestsAsOrdinaryUser(argc, argv);
}
