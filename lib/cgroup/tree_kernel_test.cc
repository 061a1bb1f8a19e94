// Groups inside of groups, named hierarchies, finding, giving away, and the way
// out of the no-internal-process rule, on the real kernel.
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "caisson/cgroup.h"
#include "caisson/cgroup_bootstrap.h"
#include "lib/base/status_matchers.h"
#include "lib/cgroup/kernel_fixture.h"
#include "lib/sys/open.h"

namespace caisson {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

class TreeKernelTest : public CgroupKernelTest {
 protected:
  static bool Exists(const std::string& path) {
    return ::access(path.c_str(), F_OK) == 0;
  }
  // A controller that version 2 has here.
  CgroupController ControllerOfV2() const {
    for (const CgroupHierarchy& hierarchy : layout().hierarchies) {
      if (hierarchy.version != CgroupVersion::kV2) continue;
      for (const CgroupController controller : hierarchy.controllers) {
        if (controller == CgroupController::kHugetlb) return controller;
      }
      if (!hierarchy.controllers.empty()) return hierarchy.controllers[0];
    }
    return CgroupController::kFreezer;  // never one of version 2
  }
};

TEST_F(TreeKernelTest, NamedHierarchiesAreJoinedAndRecovered) {
  bool has_named = false;
  for (const CgroupHierarchy& hierarchy : layout().hierarchies) {
    has_named = has_named || !hierarchy.name.empty();
  }
  CgroupParent parent = Open();
  ASSERT_OK_AND_ASSIGN(Cgroup group, parent.Create({.name = "named"}));
  ASSERT_OK_AND_ASSIGN(
      Cgroup plain,
      parent.Create({.name = "plain", .named_hierarchies = false}));
  EXPECT_EQ(group.paths().size(), plain.paths().size() + (has_named ? 1 : 0));
  Signal ready;  // it enters version 1 itself
  Child child(group, [&] {
    ready.Send();
    return Sleep();
  });
  ready.Await();
  ASSERT_OK_AND_ASSIGN(const auto memberships,
                       CgroupMembershipsOf(child.pid()));
  for (const CgroupMembership& membership : memberships) {
    if (membership.name.empty()) continue;
    EXPECT_EQ(membership.path, group.path());
    EXPECT_TRUE(Exists(membership.directory)) << membership.directory;
  }
  EXPECT_OK(group.Destroy());
  for (const CgroupMembership& membership : memberships) {
    if (membership.name.empty()) continue;
    EXPECT_FALSE(Exists(membership.directory));
  }
}

TEST_F(TreeKernelTest, GroupsInsideOfAGroup) {
  CgroupParent parent = Open();
  ASSERT_OK_AND_ASSIGN(
      Cgroup pod,
      parent.Create(
          {.name = "pod", .limits = {.memory_max = 64 << 20, .pids_max = 20}}));
  ASSERT_OK_AND_ASSIGN(
      Cgroup inner,
      pod.CreateChild({.name = "inner",
                       .limits = {.memory_max = 32 << 20, .pids_max = 5}}));
  EXPECT_EQ(inner.path(), absl::StrCat(pod.path(), "/inner"));
  EXPECT_EQ(ReadFile(DirectoryOf(inner, CgroupController::kPids) + "/pids.max"),
            "5");
  ASSERT_OK_AND_ASSIGN(Cgroup deep, inner.CreateChild({.name = "deep"}));
  Child child(deep, Sleep);
  ASSERT_OK_AND_ASSIGN(const auto pids, pod.Processes());
  EXPECT_THAT(pids, ElementsAre(child.pid()));
  ASSERT_OK_AND_ASSIGN(const std::string name, parent.FindGroupOf(child.pid()));
  EXPECT_EQ(name, "pod");
  EXPECT_THAT(parent.FindGroupOf(::getpid()),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("in no group")));
  for (const char* bad : {"..", "a/b", "", "cgroup.x"}) {
    EXPECT_THAT(pod.CreateChild({.name = bad}),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("cgroup name ")));
  }
  EXPECT_THAT(pod.CreateChild({.name = "inner"}),
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("inner")));
  EXPECT_THAT(
      pod.CreateChild({.name = "x", .limits = {.cpu_weight = 1}}),
      StatusIs(absl::StatusCode::kFailedPrecondition,
               HasSubstr("limits.cpu_weight needs the cpu controller")));
  EXPECT_FALSE(Exists(pod.paths()[0].directory + "/x"));
  // All of it goes with the outermost, and the others do not mind.
  EXPECT_OK(pod.Destroy());
  EXPECT_EQ(WTERMSIG(child.Wait()), SIGKILL);
  EXPECT_OK(deep.Destroy());
  EXPECT_OK(inner.Destroy());
}

TEST_F(TreeKernelTest, ThreadedGroups) {
  CgroupParent parent = Open();
  EXPECT_THAT(
      parent.Create({.name = "x", .threaded = true}),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("CreateChild()")));
  ASSERT_OK_AND_ASSIGN(Cgroup process, parent.Create({.name = "process"}));
  ASSERT_OK_AND_ASSIGN(Cgroup threads, process.CreateChild({.name = "threads",
                                                            .threaded = true}));
  if (layout().mode == CgroupLayout::Mode::kV1) return;
  EXPECT_EQ(ReadFile(threads.paths()[0].directory + "/cgroup.type"),
            "threaded");
  EXPECT_EQ(ReadFile(process.paths()[0].directory + "/cgroup.type"),
            "domain threaded");
}

TEST_F(TreeKernelTest, WhatIsAboutProcessesIsRefusedInThreadedGroups) {
  if (layout().mode == CgroupLayout::Mode::kV1) {
    return SkipIf("threaded groups are those of cgroup v2");
  }
  CgroupParent parent = Open();
  ASSERT_OK_AND_ASSIGN(Cgroup process, parent.Create({.name = "process"}));
  ASSERT_OK_AND_ASSIGN(Cgroup threads, process.CreateChild({.name = "threads",
                                                            .threaded = true}));
  EXPECT_OK(threads.Kill());  // nothing is there
  Signal ready;
  Child child(process, [&] {
    ready.Send();
    return Sleep();
  });
  ready.Await();
  const auto refused =
      StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("is threaded"));
  EXPECT_THAT(threads.OpenEntry(), refused);
  EXPECT_THAT(threads.MoveIn(child.pid()), refused);
  EXPECT_THAT(threads.Processes(), refused);
  const std::string file = threads.paths()[0].directory + "/cgroup.threads";
  {
    ASSERT_OK_AND_ASSIGN(const UniqueFd fd, sys::Open(file, O_WRONLY));
    const std::string thread = absl::StrCat(child.pid());
    ASSERT_EQ(::write(fd.get(), thread.data(), thread.size()),
              static_cast<ssize_t>(thread.size()));
  }
  ASSERT_OK_AND_ASSIGN(const std::vector<pid_t> ids, threads.Threads());
  EXPECT_THAT(ids, ElementsAre(child.pid()));
  // At once, not after the timeout.
  EXPECT_THAT(threads.Kill(absl::InfiniteDuration()), refused);
  EXPECT_THAT(threads.Destroy(absl::InfiniteDuration()), refused);
  EXPECT_EQ(::kill(child.pid(), 0), 0);
  EXPECT_OK(process.Kill());
  EXPECT_EQ(WTERMSIG(child.Wait()), SIGKILL);
  EXPECT_OK(threads.Destroy());
}

TEST_F(TreeKernelTest, GivenAwayToAUser) {
  constexpr uid_t kUser = 12345;
  CgroupParent parent = Open();
  ASSERT_OK_AND_ASSIGN(
      Cgroup group,
      parent.Create({.name = "given", .limits = {.pids_max = 10}}));
  const absl::Status given = group.Delegate(kUser, kUser);
  if (layout().mode == CgroupLayout::Mode::kV1) {
    EXPECT_THAT(given, StatusIs(absl::StatusCode::kFailedPrecondition,
                                HasSubstr("cgroup v2")));
    return;
  }
  ASSERT_OK(given);
  const std::string directory = group.paths()[0].directory;
  std::vector<std::string> theirs;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    struct stat info;
    ASSERT_EQ(::lstat(entry.path().c_str(), &info), 0);
    if (info.st_uid == kUser) theirs.push_back(entry.path().filename());
  }
  EXPECT_THAT(theirs, UnorderedElementsAre("cgroup.procs", "cgroup.threads",
                                           "cgroup.subtree_control"));
  Child child(group, [&] {
    if (::setresgid(kUser, kUser, kUser) != 0 ||
        ::setresuid(kUser, kUser, kUser) != 0) {
      return 1;
    }
    // The directory above is not to be searched by others, so from within.
    if (::mkdir((directory + "/mine").c_str(), 0755) != 0) return 2;
    if (::access((directory + "/cgroup.max.depth").c_str(), W_OK) == 0) {
      return 3;
    }
    return ::rmdir((directory + "/mine").c_str()) == 0 ? 0 : 4;
  });
  EXPECT_EQ(child.Wait() >> 8, 0);
}

// The process of a group moves itself out of the way, and then its group can
// have children that are limited.
TEST_F(TreeKernelTest, Bootstrap) {
  const CgroupController controller = ControllerOfV2();
  if (controller == CgroupController::kFreezer) {
    ASSERT_OK_AND_ASSIGN(const CgroupBootstrap nothing, BootstrapCgroups({}));
    EXPECT_TRUE(nothing.moved.empty());
    return;
  }
  CgroupParent parent = Open();
  ASSERT_OK_AND_ASSIGN(
      Cgroup group,
      parent.Create({.name = "boot", .controllers = {controller}}));
  const std::string directory = group.paths()[0].directory;
  Child other(group, Sleep);
  Child host(group, [&] {
    const CgroupBootstrapOptions options = {
        .leaf = "host",
        .controllers = {controller},
        .unsafe_even_if_not_delegated = true};
    const auto refused =
        BootstrapCgroups({.controllers = {CgroupController::kNetPrio}});
    if (refused.ok() || Exists(directory + "/host")) return 1;
    const auto first = BootstrapCgroups(options);
    if (!first.ok() || first->path != group.path() ||
        first->leaf != group.path() + "/host" || first->moved.size() != 2) {
      return 2;
    }
    const auto again = BootstrapCgroups(options);
    // The caller is in the leaf now; its group is the same.
    if (!again.ok() || again->path != first->path || !again->moved.empty() ||
        !again->enabled.empty() || Exists(directory + "/host/host")) {
      return 3;
    }
    auto below = CgroupParent::Open({.path = first->path});
    if (!below.ok()) return 4;
    auto job = below->Create({.name = "job", .controllers = {controller}});
    return job.ok() ? 0 : 5;
  });
  EXPECT_EQ(host.Wait() >> 8, 0);
  EXPECT_THAT(ReadFile(directory + "/cgroup.subtree_control"),
              HasSubstr(CgroupControllerName(controller).data()));
  EXPECT_EQ(ReadFile(directory + "/cgroup.procs"), "");
  ASSERT_OK_AND_ASSIGN(const auto pids, group.Processes());
  EXPECT_THAT(pids, ElementsAre(other.pid()));
}

// Processes of one group, all at once: whoever is moved by another call before
// its own has begun finds the same group.
TEST_F(TreeKernelTest, ConcurrentBootstraps) {
  const CgroupController controller = ControllerOfV2();
  if (controller == CgroupController::kFreezer) {
    GTEST_SKIP() << "version 2 has no controller here";
  }
  CgroupParent parent = Open();
  for (int round = 0; round < 10; ++round) {
    ASSERT_OK_AND_ASSIGN(
        Cgroup group,
        parent.Create({.name = "boot", .controllers = {controller}}));
    int gate[2];
    ASSERT_EQ(::pipe2(gate, O_CLOEXEC), 0);
    const auto bootstrap = [&] {
      ::close(gate[1]);
      char none = 0;
      if (::read(gate[0], &none, 1) != 0) return 2;
      const auto result = BootstrapCgroups(
          {.controllers = {controller}, .unsafe_even_if_not_delegated = true});
      return result.ok() && result->path == group.path() ? 0 : 1;
    };
    Child first(group, bootstrap), second(group, bootstrap),
        third(group, bootstrap);
    ::close(gate[0]);
    ::close(gate[1]);
    for (Child* child : {&first, &second, &third}) {
      EXPECT_EQ(child->Wait() >> 8, 0) << round;
    }
    const std::string directory = group.paths()[0].directory;
    EXPECT_THAT(ReadFile(directory + "/cgroup.subtree_control"),
                HasSubstr(CgroupControllerName(controller).data()));
    EXPECT_FALSE(Exists(directory + "/host/host")) << round;
    EXPECT_OK(group.Destroy());
  }
}

TEST_F(TreeKernelTest, MembershipOfAProcess) {
  EXPECT_THAT(CgroupMembershipsOf(0),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("pid 0")));
  EXPECT_THAT(CgroupMembershipsOf(4194304),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("4194304")));
  ASSERT_OK_AND_ASSIGN(const auto memberships, CgroupMembershipsOf(::getpid()));
  ASSERT_EQ(memberships.size(), layout().hierarchies.size());
  for (size_t i = 0; i < memberships.size(); ++i) {
    EXPECT_EQ(memberships[i].path, layout().hierarchies[i].own_path);
    EXPECT_THAT(ReadFile(memberships[i].directory + "/cgroup.procs") + "\n",
                HasSubstr(absl::StrCat(::getpid(), "\n")));
  }
}

}  // namespace
}  // namespace caisson
