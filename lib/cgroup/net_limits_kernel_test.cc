// The controllers of network traffic, which exist in version 1 only and which
// few hosts still mount: on a hierarchy that the test mounts for itself. What
// is in /proc/PID/cgroup of the whole machine meanwhile is why it runs alone.
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "caisson/cgroup.h"
#include "caisson/cgroup_bootstrap.h"
#include "lib/base/status_matchers.h"
#include "lib/cgroup/kernel_fixture.h"

namespace caisson {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::Contains;
using ::testing::Field;
using ::testing::HasSubstr;

constexpr CgroupController kClass = CgroupController::kNetCls;
constexpr CgroupController kPriority = CgroupController::kNetPrio;

class NetLimitsTest : public CgroupKernelTest {
 protected:
  void SetUp() override {
    CgroupKernelTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    if (layout().Find(kClass).usable && layout().Find(kPriority).usable) return;
    ASSERT_EQ(::unshare(CLONE_NEWNS), 0) << strerror(errno);
    ASSERT_EQ(::mount("", "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
    mount_ = absl::StrCat(::testing::TempDir(), "/net.XXXXXX");
    ASSERT_NE(::mkdtemp(mount_.data()), nullptr);
    if (::mount("none", mount_.c_str(), "cgroup", 0, "net_cls,net_prio") != 0) {
      const int error = errno;
      ::rmdir(mount_.c_str());
      mount_.clear();
      SkipIf(
          absl::StrCat("mount(cgroup, net_cls,net_prio): ", strerror(error)));
    }
  }

  void TearDown() override {
    CgroupKernelTest::TearDown();
    if (mount_.empty()) return;
    EXPECT_NE(::access((mount_ + options().path).c_str(), F_OK), 0);
    // A hierarchy that is unmounted while the kernel still needs a group that
    // was removed stays as it is.
    const absl::Time deadline = absl::Now() + absl::Seconds(10);
    while (GroupsOf("net_cls") > 1 && absl::Now() < deadline) {
      absl::SleepFor(absl::Milliseconds(1));
    }
    EXPECT_EQ(GroupsOf("net_cls"), 1);
    EXPECT_EQ(::umount(mount_.c_str()), 0) << strerror(errno);
    EXPECT_EQ(::rmdir(mount_.c_str()), 0);
  }

  // Removed ones, too, as long as the kernel needs them.
  static int GroupsOf(absl::string_view controller) {
    const std::string text = ReadFile("/proc/cgroups");
    for (const absl::string_view line : absl::StrSplit(text, '\n')) {
      const std::vector<absl::string_view> words = absl::StrSplit(line, '\t');
      int groups = 0;
      if (words.size() == 4 && words[0] == controller &&
          absl::SimpleAtoi(words[2], &groups)) {
        return groups;
      }
    }
    return -1;
  }

  static std::string Read(const Cgroup& group, CgroupController controller,
                          const std::string& file) {
    return ReadFile(absl::StrCat(DirectoryOf(group, controller), "/", file));
  }

 private:
  std::string mount_;
};

TEST_F(NetLimitsTest, ClassAndPriorities) {
  CgroupParent parent = Open();
  ASSERT_TRUE(parent.layout().Find(kClass).usable)
      << parent.layout().Find(kClass).reason;
  ASSERT_OK_AND_ASSIGN(
      Cgroup group,
      parent.Create({.name = "job",
                     .limits = {.net_class = 0x00100001,
                                .net_priorities = {
                                    {.interface = "lo", .priority = 5}}}}));
  EXPECT_EQ(Read(group, kClass, "net_cls.classid"), "1048577");
  EXPECT_THAT(Read(group, kPriority, "net_prio.ifpriomap"), HasSubstr("lo 5"));

  // While processes run; what is not named stays.
  Signal ready;
  Child child(group, [&] {
    ready.Send();
    return Sleep();
  });
  ready.Await();
  ASSERT_OK(group.SetLimits({.net_class = 0x00100002}));
  EXPECT_EQ(Read(group, kClass, "net_cls.classid"), "1048578");
  EXPECT_THAT(Read(group, kPriority, "net_prio.ifpriomap"), HasSubstr("lo 5"));
  ASSERT_OK_AND_ASSIGN(const auto memberships,
                       CgroupMembershipsOf(child.pid()));
  EXPECT_THAT(memberships,
              Contains(Field(&CgroupMembership::path, group.path())));

  // All or nothing.
  EXPECT_THAT(group.SetLimits({.net_class = 7,
                               .net_priorities = {{"lo", 6}, {"nosuch0", 1}}}),
              StatusIs(absl::StatusCode::kNotFound,
                       HasSubstr("there is no such interface")));
  EXPECT_EQ(Read(group, kClass, "net_cls.classid"), "1048578");
  EXPECT_THAT(Read(group, kPriority, "net_prio.ifpriomap"), HasSubstr("lo 5"));
}

// A group without the limits is not in the hierarchy, and says so.
TEST_F(NetLimitsTest, OnlyForThoseThatAskForIt) {
  CgroupParent parent = Open();
  ASSERT_OK_AND_ASSIGN(Cgroup plain, parent.Create({.name = "plain"}));
  EXPECT_EQ(DirectoryOf(plain, kClass), "");
  EXPECT_THAT(plain.SetLimits({.net_class = 1}),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("limits.net_class needs the net_cls")));
  ASSERT_OK_AND_ASSIGN(
      Cgroup later,
      parent.Create({.name = "later", .controllers = {kClass, kPriority}}));
  EXPECT_EQ(Read(later, kClass, "net_cls.classid"), "0");
  EXPECT_OK(later.SetLimits({.net_class = 1}));
  EXPECT_EQ(Read(later, kClass, "net_cls.classid"), "1");
}

}  // namespace
}  // namespace caisson
