// Lifetimes: owners that die, owners that share a path.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "caisson/cgroup.h"
#include "lib/base/status_matchers.h"
#include "lib/cgroup/filesystem.h"
#include "lib/cgroup/kernel_fixture.h"
#include "lib/cgroup/limits.h"
#include "lib/sys/open.h"
#include "lib/sys/pidfd_open.h"

namespace caisson {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

// Whoever can lock the directory beside a group keeps it from Recover().
TEST_F(CgroupKernelTest, LifelinesAreTheOwnersAlone) {
  CgroupParent parent = Open();
  ASSERT_OK_AND_ASSIGN(Cgroup group, parent.Create({.name = "job"}));
  ASSERT_OK_AND_ASSIGN(const std::vector<UniqueFd> lifelines,
                       group.Lifelines());
  ASSERT_FALSE(lifelines.empty());
  struct stat info;
  ASSERT_EQ(::fstat(lifelines[0].get(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 0700u);
  EXPECT_THAT(group.Lifelines(), StatusIs(absl::StatusCode::kFailedPrecondition,
                                          HasSubstr("has lifelines already")));
  ASSERT_OK_AND_ASSIGN(const Cgroup child, group.CreateChild({.name = "in"}));
  EXPECT_THAT(child.Lifelines(), StatusIs(absl::StatusCode::kFailedPrecondition,
                                          HasSubstr("child of another group")));
  EXPECT_THAT(
      parent.Create({.name = "caisson-lifeline.job"}),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("library's own")));
}

// Whoever attached to a group uses it, also when the process is gone for which
// its owner had made the lifelines.
TEST_F(CgroupKernelTest, RecoverLeavesAnAttachedGroupAlone) {
  std::vector<UniqueFd> lifelines;
  {
    CgroupParent parent = Open();
    ASSERT_OK_AND_ASSIGN(Cgroup group, parent.Create({.name = "job"}));
    ASSERT_OK_AND_ASSIGN(lifelines, group.Lifelines());
    group.Disown();
  }
  {
    ASSERT_OK_AND_ASSIGN(const Cgroup attached,
                         Cgroup::Attach(std::move(lifelines)));
    Signal ready;  // it enters the group itself
    Child child(attached, [&] {
      ready.Send();
      return Sleep();
    });
    ready.Await();
    ASSERT_OK_AND_ASSIGN(const std::vector<std::string> removed,
                         CgroupParent::Recover(options()));
    EXPECT_THAT(removed, IsEmpty());
    ASSERT_OK_AND_ASSIGN(const std::vector<pid_t> pids, attached.Processes());
    EXPECT_THAT(pids, ElementsAre(child.pid()));
  }
  ASSERT_OK_AND_ASSIGN(const std::vector<std::string> removed,
                       CgroupParent::Recover(options()));
  EXPECT_THAT(removed, SizeIs(1));
}

// What the first of two that attached has destroyed is not destroyed again when
// the name is another group's.
TEST_F(CgroupKernelTest, AttachedGroupIsDestroyedOnce) {
  CgroupParent parent = Open();
  ASSERT_OK_AND_ASSIGN(Cgroup group, parent.Create({.name = "job"}));
  ASSERT_OK_AND_ASSIGN(std::vector<UniqueFd> lifelines, group.Lifelines());
  std::vector<UniqueFd> copies;
  for (const UniqueFd& lifeline : lifelines) {
    ASSERT_OK_AND_ASSIGN(UniqueFd copy, sys::Duplicate(lifeline.borrow()));
    copies.push_back(std::move(copy));
  }
  group.Disown();
  ASSERT_OK_AND_ASSIGN(Cgroup first, Cgroup::Attach(std::move(lifelines)));
  ASSERT_OK_AND_ASSIGN(Cgroup second, Cgroup::Attach(std::move(copies)));
  ASSERT_OK(first.Destroy());
  ASSERT_OK_AND_ASSIGN(const Cgroup next, parent.Create({.name = "job"}));
  ASSERT_OK(second.Destroy());
  ASSERT_OK(group.Destroy());
  EXPECT_THAT(*next.Processes(), IsEmpty());
}

// An owner that is killed leaves a process and groups; Recover() finds them and
// leaves those of a living owner alone.
TEST_F(CgroupKernelTest, RecoverAfterKillOfTheOwner) {
  CgroupParent alive = Open();
  ASSERT_OK_AND_ASSIGN(Cgroup bystander, alive.Create({.name = "job"}));
  Child sleeper(bystander, Sleep);

  Signal ready;
  const pid_t owner = ::fork();
  if (owner == 0) {
    CgroupParent parent = Open();
    auto group = parent.Create(
        {.name = "job",
         .limits = {.memory_max = 64 << 20, .cpu_weight = 10, .pids_max = 10}});
    if (!group.ok()) ::_exit(1);
    // A program: a mere copy of the owner would hold its lock, too.
    Signal executed;
    Child orphan(*group, ExecSleep);
    executed.AwaitExec();
    ready.SendPid(orphan.pid());
    Sleep();
  }
  const pid_t orphan = ready.AwaitPid();
  ASSERT_OK_AND_ASSIGN(UniqueFd pidfd, sys::OpenPidfd(orphan));
  // As long as the owner lives, nothing of it is touched.
  ASSERT_OK_AND_ASSIGN(std::vector<std::string> removed,
                       CgroupParent::Recover(options()));
  EXPECT_THAT(removed, IsEmpty());

  ::kill(owner, SIGKILL);
  ASSERT_EQ(::waitpid(owner, nullptr, 0), owner);
  ASSERT_OK_AND_ASSIGN(removed, CgroupParent::Recover(options()));
  EXPECT_THAT(removed,
              ElementsAre(HasSubstr(absl::StrCat("/caisson-", owner, "-"))));
  pollfd ended = {.fd = pidfd.get(), .events = POLLIN};
  EXPECT_EQ(::poll(&ended, 1, 10000), 1);
  ASSERT_OK_AND_ASSIGN(removed, CgroupParent::Recover(options()));
  EXPECT_THAT(removed, IsEmpty());

  ASSERT_OK_AND_ASSIGN(std::vector<pid_t> pids, bystander.Processes());
  EXPECT_THAT(pids, ElementsAre(sleeper.pid()));
}

// What a dead owner has frozen is killed like anything else, by either freezer.
TEST_F(CgroupKernelTest, RecoverOfFrozenGroups) {
  const bool v1 = layout().Find(CgroupController::kFreezer).usable;
  for (const char* hidden : {"no mount", "cgroup2"}) {
    if (!v1 && absl::string_view(hidden) == "cgroup2") continue;
    Signal ready;
    const pid_t owner = ::fork();
    if (owner == 0) {
      CgroupParent parent = Open({hidden});
      CgroupOptions job = {.name = "job"};
      if (v1) job.controllers = {CgroupController::kFreezer};
      auto group = parent.Create(job);
      if (!group.ok()) ::_exit(1);
      Signal executed;
      Child orphan(*group, ExecSleep);
      executed.AwaitExec();
      if (!group->Freeze().ok()) ::_exit(2);
      ready.SendPid(orphan.pid());
      Sleep();
    }
    const pid_t orphan = ready.AwaitPid();
    ASSERT_OK_AND_ASSIGN(UniqueFd pidfd, sys::OpenPidfd(orphan));
    ::kill(owner, SIGKILL);
    ASSERT_EQ(::waitpid(owner, nullptr, 0), owner);
    ASSERT_OK_AND_ASSIGN(const std::vector<std::string> removed,
                         CgroupParent::Recover(options(), absl::Seconds(20)));
    EXPECT_THAT(removed, SizeIs(1));
    pollfd ended = {.fd = pidfd.get(), .events = POLLIN};
    EXPECT_EQ(::poll(&ended, 1, 10000), 1);
  }
}

TEST_F(CgroupKernelTest, RecoverLeavesForeignGroupsAlone) {
  const std::string mount = layout().hierarchies[0].mount_point;
  const std::string top = mount + options().path;
  const std::string foreign = top + "/caisson-1-notours";
  ASSERT_EQ(::mkdir(top.c_str(), 0755), 0);
  ASSERT_EQ(::mkdir(foreign.c_str(), 0755), 0);
  ASSERT_OK_AND_ASSIGN(std::vector<std::string> removed,
                       CgroupParent::Recover(options()));
  EXPECT_THAT(removed, IsEmpty());
  // A parent that we did not make stays, too.
  {
    CgroupParent parent = Open();
    EXPECT_OK(parent.Create({.name = "x"}));
  }
  EXPECT_EQ(::rmdir(foreign.c_str()), 0);
  EXPECT_OK(CgroupParent::Recover(options()));
  EXPECT_EQ(::rmdir(top.c_str()), 0);
}

// A host that forks: the copies of its objects end with the copy.
TEST_F(CgroupKernelTest, ForkedCopyDestroysNothing) {
  auto parent = std::make_unique<CgroupParent>(Open());
  ASSERT_OK_AND_ASSIGN(Cgroup group, parent->Create({.name = "job"}));
  Child child(group, Sleep);
  const pid_t copy = ::fork();
  if (copy == 0) {
    { const Cgroup end = std::move(group); }
    parent.reset();
    ::_exit(0);
  }
  ASSERT_EQ(::waitpid(copy, nullptr, 0), copy);
  ASSERT_OK_AND_ASSIGN(std::vector<pid_t> pids, group.Processes());
  EXPECT_THAT(pids, ElementsAre(child.pid()));
  EXPECT_OK(parent->Create({.name = "other"}));
}

// Somebody tidies up: an empty directory may go away at any time.
TEST_F(CgroupKernelTest, DirectoryThatWasRemovedIsMadeAgain) {
  CgroupParent parent = Open();
  ASSERT_OK_AND_ASSIGN(Cgroup group, parent.Create({.name = "job"}));
  const std::string directory = group.paths()[0].directory;
  ASSERT_OK(group.Destroy());
  ASSERT_EQ(::rmdir(directory.substr(0, directory.rfind('/')).c_str()), 0);
  ASSERT_OK_AND_ASSIGN(group, parent.Create({.name = "job"}));
  EXPECT_EQ(group.paths()[0].directory, directory);
}

TEST_F(CgroupKernelTest, RecoverOfAPathThatDoesNotExist) {
  ASSERT_OK_AND_ASSIGN(std::vector<std::string> removed,
                       CgroupParent::Recover(options()));
  EXPECT_THAT(removed, IsEmpty());
}

// Processes that share a path make, destroy and recover at the same time.
TEST_F(CgroupKernelTest, ManyProcessesShareOneParent) {
  std::vector<pid_t> workers;
  for (int i = 0; i < 6; ++i) {
    const pid_t pid = ::fork();
    if (pid == 0) {
      for (int round = 0; round < 20; ++round) {
        auto parent = CgroupParent::Open(options());
        if (!parent.ok()) ::_exit(1);
        auto group =
            parent->Create({.name = "same", .limits = {.pids_max = 5}});
        if (!group.ok()) ::_exit(2);
        auto removed = CgroupParent::Recover(options());
        if (!removed.ok() || absl::c_linear_search(*removed, parent->path())) {
          ::_exit(3);
        }
        if (!group->Destroy().ok()) ::_exit(4);
        // Half of them die without cleaning up: nothing may come of it.
        if (round == 19 && i % 2 == 0) ::_exit(0);
      }
      ::_exit(0);
    }
    workers.push_back(pid);
  }
  for (pid_t pid : workers) {
    int status = 0;
    ASSERT_EQ(::waitpid(pid, &status, 0), pid);
    EXPECT_EQ(status >> 8, 0);
  }
}

TEST_F(CgroupKernelTest, ManyThreadsShareOneCgroupParent) {
  CgroupParent parent = Open();
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&parent, t] {
      for (int i = 0; i < 10; ++i) {
        auto group =
            parent.Create({.name = absl::StrCat("g", t, "-", i),
                           .limits = {.memory_max = 8 << 20, .pids_max = 5}});
        EXPECT_OK(group);
        if (group.ok()) {
          EXPECT_OK(group->Destroy());
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_OK(parent.Close());
}

}  // namespace
}  // namespace caisson
