// Kill() and Destroy() on the real kernel, through every layout that this
// machine can be made to look like.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "caisson/cgroup.h"
#include "lib/base/status_matchers.h"
#include "lib/cgroup/attach.h"
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

// What a killer has to deal with, and through which layouts.
struct KillCase {
  const char* name;
  std::vector<std::string> hidden;
  bool barrier;  // something stops forks
};
const KillCase kKillCases[] = {
    {"AsMounted", {}, true},
    {"V1WithPids", {"cgroup2"}, true},
    {"V1WithFreezer", {"cgroup2", "/pids "}, true},
    {"V1WithNeither", {"cgroup2", "/pids ", "/freezer "}, false},
};

class CgroupKillTest : public CgroupKernelTest,
                       public ::testing::WithParamInterface<KillCase> {
 protected:
  void SetUp() override {
    CgroupKernelTest::SetUp();
    if (IsSkipped() || HasFatalFailure() || GetParam().hidden.empty()) return;
    if (layout().mode == CgroupLayout::Mode::kV2) {
      SkipIf("this machine has no cgroup v1");
    }
  }
  absl::StatusOr<Cgroup> Create() {
    parent_ = std::make_unique<CgroupParent>(Open(GetParam().hidden));
    return parent_->Create({.name = "kill", .limits = {.cpu_weight = 100}});
  }
  void TearDown() override {
    parent_.reset();
    CgroupKernelTest::TearDown();
  }
  std::unique_ptr<CgroupParent> parent_;
};

INSTANTIATE_TEST_SUITE_P(Layouts, CgroupKillTest,
                         ::testing::ValuesIn(kKillCases),
                         [](const auto& info) { return info.param.name; });

TEST_P(CgroupKillTest, TreeOfProcesses) {
  ASSERT_OK_AND_ASSIGN(Cgroup group, Create());
  Signal ready;
  Child child(group, [&] {
    for (int i = 0; i < 7; ++i) (void)::fork();  // 128 processes
    ::signal(SIGTERM, SIG_IGN);
    ready.Send();
    return Sleep();
  });
  for (int i = 0; i < 128; ++i) ready.Await();
  ASSERT_OK_AND_ASSIGN(std::vector<pid_t> pids, group.Processes());
  EXPECT_EQ(pids.size(), 128);
  EXPECT_OK(group.Kill());
  ASSERT_OK_AND_ASSIGN(pids, group.Processes());
  EXPECT_THAT(pids, IsEmpty());
  EXPECT_OK(group.Kill());  // an empty group

  // The group can be used again, forks included.
  Child second(group, [] {
    const pid_t pid = ::fork();
    if (pid == 0) ::_exit(3);
    int status = 0;
    return ::waitpid(pid, &status, 0) == pid ? WEXITSTATUS(status) : 4;
  });
  EXPECT_EQ(second.Wait() >> 8, 3);
  EXPECT_OK(group.Destroy());
  EXPECT_OK(group.Destroy());
}

TEST_P(CgroupKillTest, ForkBomb) {
  if (!GetParam().barrier) return;  // may win on such a host, see cgroup.h
  ASSERT_OK_AND_ASSIGN(Cgroup group, Create());
  Child child(group, [&] {
    if (!BecomeLimitedUser(150)) return 1;
    ::signal(SIGCHLD, SIG_IGN);
    while (!ShouldGiveUp()) (void)::fork();
    return 0;
  });
  for (size_t size = 0; size < 60 && !ShouldGiveUp();) {
    ASSERT_OK_AND_ASSIGN(const std::vector<pid_t> pids, group.Processes());
    size = pids.size();
  }
  EXPECT_OK(group.Destroy());
  EXPECT_EQ(WTERMSIG(child.Wait()), SIGKILL);
}

// Each process lives only until it has forked the next.
TEST_P(CgroupKillTest, Rabbit) {
  if (!GetParam().barrier) return;  // may win on such a host, see cgroup.h
  ASSERT_OK_AND_ASSIGN(Cgroup group, Create());
  Signal ready;
  Child child(group, [&] {
    if (!BecomeLimitedUser(150)) return 1;
    ::signal(SIGCHLD, SIG_IGN);
    for (int i = 0; !ShouldGiveUp(); ++i) {
      if (::fork() > 0) return 0;
      if (i == 50) ready.Send();
    }
    return 0;
  });
  ready.Await();
  EXPECT_OK(group.Kill());
  ASSERT_OK_AND_ASSIGN(std::vector<pid_t> pids, group.Processes());
  EXPECT_THAT(pids, IsEmpty());
  EXPECT_EQ(child.Wait(), 0);
}

// A process whose first thread has ended while another one runs.
int LeaveAThread() {
  std::thread(Sleep).detach();
  ::syscall(SYS_exit, 0);
  return 1;
}

void AwaitZombie(pid_t pid) {
  const auto is_zombie = [&] {
    auto stat = sys::ReadFileAt(BorrowedFd(AT_FDCWD),
                                absl::StrCat("/proc/", pid, "/stat"),
                                /*resolve=*/0, /*limit=*/4096);
    return stat.ok() && absl::StrContains(*stat, ") Z ");
  };
  while (!is_zombie() && !ShouldGiveUp()) ::usleep(1000);
}

// The kernel's cgroup.kill leaves such a one alone.
TEST_P(CgroupKillTest, ProcessWhoseFirstThreadHasEnded) {
  ASSERT_OK_AND_ASSIGN(Cgroup group, Create());
  Child child(group, LeaveAThread);
  AwaitZombie(child.pid());
  EXPECT_OK(group.Kill());
  EXPECT_EQ(WTERMSIG(child.Wait()), SIGKILL);
  ASSERT_OK_AND_ASSIGN(const std::vector<pid_t> pids, group.Processes());
  EXPECT_THAT(pids, IsEmpty());
}

TEST_P(CgroupKillTest, Pid1WhoseFirstThreadHasEnded) {
  ASSERT_OK_AND_ASSIGN(Cgroup group, Create());
  Signal ready;
  Child child(group, [&] {
    if (::unshare(CLONE_NEWPID) != 0) return 1;
    const pid_t pid = ::fork();
    if (pid == 0) ::_exit(LeaveAThread());
    ready.SendPid(pid);
    return Sleep();
  });
  AwaitZombie(ready.AwaitPid());
  EXPECT_OK(group.Destroy());
}

TEST_P(CgroupKillTest, SignalReachesAllAndLetsThemGoOn) {
  ASSERT_OK_AND_ASSIGN(Cgroup group, Create());
  Signal ready;
  const auto body = [&] {
    sigset_t set;
    ::sigemptyset(&set);
    ::sigaddset(&set, SIGUSR1);
    ::sigprocmask(SIG_BLOCK, &set, nullptr);
    ready.Send();
    int signal = 0;
    ::sigwait(&set, &signal);
    return 7;
  };
  Child one(group, body);
  Child two(group, body);
  ready.Await();
  ready.Await();
  ASSERT_OK(group.Signal(SIGUSR1));
  EXPECT_EQ(WEXITSTATUS(one.Wait()), 7);
  EXPECT_EQ(WEXITSTATUS(two.Wait()), 7);
  EXPECT_OK(group.Signal(SIGUSR1));  // to nobody

  Child third(group, [&] {
    ready.Send();
    return Sleep();
  });
  ready.Await();
  EXPECT_OK(group.Signal(SIGKILL));
  EXPECT_EQ(WTERMSIG(third.Wait()), SIGKILL);
}

// A guest with a cgroupfs of its own may make groups below its group.
TEST_P(CgroupKillTest, DestroyRemovesDescendantsWithTheirProcesses) {
  ASSERT_OK_AND_ASSIGN(Cgroup group, Create());
  std::vector<std::unique_ptr<Child>> children;
  for (const CgroupPath& path : group.paths()) {
    const std::string deep = path.directory + "/a/b/c";
    for (const char* level : {"/a", "/a/b", "/a/b/c", "/wide", "/a/wide"}) {
      ASSERT_EQ(::mkdir((path.directory + level).c_str(), 0755), 0);
    }
    Signal ready;
    children.push_back(std::make_unique<Child>(group, [&] {
      auto procs = sys::Open(deep + "/cgroup.procs", O_WRONLY);
      if (!procs.ok() || ::write(procs->get(), "0", 1) != 1) return 1;
      ready.Send();
      return Sleep();
    }));
    ready.Await();
  }
  ASSERT_OK_AND_ASSIGN(std::vector<pid_t> pids, group.Processes());
  EXPECT_EQ(pids.size(), children.size());
  EXPECT_OK(group.Destroy());
  for (auto& child : children) EXPECT_EQ(WTERMSIG(child->Wait()), SIGKILL);
}

// The kernel would kill at birth what is born there (kill_seq).
TEST_P(CgroupKillTest, ProcessesStartInChildrenOfAKilledGroup) {
  ASSERT_OK_AND_ASSIGN(Cgroup pod, Create());
  ASSERT_OK_AND_ASSIGN(Cgroup before, pod.CreateChild({.name = "before"}));
  EXPECT_FALSE(before.paths()[0].killed);
  Signal ready;
  Child killed(before, [&] {
    ready.Send();
    return Sleep();
  });
  ready.Await();
  EXPECT_OK(pod.Kill());
  EXPECT_EQ(WTERMSIG(killed.Wait()), SIGKILL);
  ASSERT_OK_AND_ASSIGN(Cgroup after, pod.CreateChild({.name = "after"}));
  for (const Cgroup* group : {&pod, &before, &after}) {
    Child child(*group, [] { return 7; });
    const int status = child.Wait();
    EXPECT_TRUE(WIFEXITED(status)) << "killed at birth in " << group->name();
    EXPECT_EQ(WEXITSTATUS(status), 7);
    // What Launcher::Exec() enters the group by.
    ASSERT_OK_AND_ASSIGN(const CgroupEntry entry,
                         cgroup::OpenEntry(group->paths()));
    EXPECT_FALSE(entry.v2_directory.valid());
    EXPECT_EQ(entry.join_files.size(), group->paths().size());
  }
}

TEST_P(CgroupKillTest, ProcessesStartInAnAttachedGroupThatWasKilled) {
  ASSERT_OK_AND_ASSIGN(Cgroup group, Create());
  EXPECT_OK(group.Kill());
  ASSERT_OK_AND_ASSIGN(auto lifelines, group.Lifelines());
  ASSERT_OK_AND_ASSIGN(Cgroup attached, Cgroup::Attach(std::move(lifelines)));
  ASSERT_OK_AND_ASSIGN(Cgroup below, attached.CreateChild({.name = "below"}));
  for (const Cgroup* place : {&attached, &below}) {
    Child child(*place, [] { return 7; });
    const int status = child.Wait();
    EXPECT_TRUE(WIFEXITED(status)) << "killed at birth in " << place->name();
    EXPECT_EQ(WEXITSTATUS(status), 7);
  }
}

TEST_F(CgroupKernelTest, DestroyOfADeepTreeNeedsFewDescriptors) {
  CgroupParent parent = Open();
  ASSERT_OK_AND_ASSIGN(Cgroup group, parent.Create({.name = "deep"}));
  ASSERT_OK_AND_ASSIGN(UniqueFd here, sys::Open(group.paths()[0].directory,
                                                O_RDONLY | O_DIRECTORY));
  for (int i = 0; i < 400; ++i) {
    ASSERT_EQ(::mkdirat(here.get(), "d", 0755), 0);
    here =
        UniqueFd(::openat(here.get(), "d", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  }
  const rlimit few = {static_cast<rlim_t>(here.get() + 16), 20000};
  rlimit old;
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &old), 0);
  const rlimit soft = {few.rlim_cur, old.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &soft), 0);
  EXPECT_OK(group.Destroy());
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &old), 0);
}

}  // namespace
}  // namespace caisson
