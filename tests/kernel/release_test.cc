// Processes that become somebody else's children: what an OCI runtime's
// "create", "start" and "exec --detach" are made of. The test is the subreaper
// that a shim is there.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "caisson/caisson.h"
#include "lib/sys/directory.h"
#include "lib/sys/open.h"
#include "lib/sys/pidfd.h"
#include "tests/support/container_test.h"

namespace caisson {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr absl::Duration kPatience = absl::Seconds(20);

pid_t ParentOf(pid_t pid) {
  std::ifstream status(absl::StrCat("/proc/", pid, "/status"));
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("PPid:", 0) == 0) return std::atoi(line.c_str() + 5);
  }
  return -1;
}

bool IsReadable(BorrowedFd fd, absl::Duration patience) {
  pollfd poll = {fd.get(), POLLIN, 0};
  return ::poll(&poll, 1,
                static_cast<int>(absl::ToInt64Milliseconds(patience))) == 1;
}

// Collects every child, until there is none; their wait statuses.
std::vector<int> CollectAll() {
  std::vector<int> statuses;
  int status = 0;
  while (::waitpid(-1, &status, 0) > 0) statuses.push_back(status);
  return statuses;
}

class ReleaseTest : public testing::ContainerTest {
 protected:
  void SetUp() override {
    ASSERT_EQ(::prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    ContainerTest::SetUp();
    ASSERT_OK_AND_ASSIGN(auto launcher, Launcher::Create({.releases = true}));
    launcher_.emplace(std::move(launcher));
    char name[] = "/tmp/caisson-gate.XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    const std::string path = absl::StrCat(name, "/fifo");
    ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
    ASSERT_OK_AND_ASSIGN(gate_, sys::Open(path, O_RDWR));
    ASSERT_EQ(::unlink(path.c_str()), 0);
    ASSERT_EQ(::rmdir(name), 0);
    int fds[2];
    ASSERT_EQ(::pipe2(fds, O_CLOEXEC), 0);
    output_.reset(fds[0]);
    input_.reset(fds[1]);
  }
  void TearDown() override {
    root_fs_.reset();
    if (launcher_) EndLauncher();
    EXPECT_THAT(CollectAll(), IsEmpty());
    gate_.reset();
    output_.reset();
    input_.reset();
    ContainerTest::TearDown();
    EXPECT_EQ(::prctl(PR_SET_CHILD_SUBREAPER, 0), 0);
  }

  // In a root of its own, writing to output_.
  ProcessSpec InRoot(const std::string& script) {
    auto fs = RootFs::Create(root_->Options());
    EXPECT_OK(fs);
    root_fs_ = std::make_unique<RootFs>(*std::move(fs));
    ProcessSpec spec = Shell(script);
    spec.root = root_fs_.get();
    spec.out = Stdio::Inherit(input_.borrow());
    spec.err = Stdio::LikeStdout();
    return spec;
  }
  // What was written, once nobody can write any more.
  std::string Written() {
    input_.reset();
    auto text = sys::ReadAll(output_.borrow(), 1 << 20, "output");
    EXPECT_OK(text);
    return text.value_or("");
  }
  // Ends the launcher, which the host has adopted, and so collects it.
  void EndLauncher() {
    EXPECT_OK(launcher_->Shutdown());
    launcher_.reset();
  }

  std::optional<Launcher> launcher_;
  std::unique_ptr<RootFs> root_fs_;
  UniqueFd gate_;
  UniqueFd output_;
  UniqueFd input_;
};

TEST_F(ReleaseTest, CreatedOneWaitsForItsGateAsTheSubreapersChild) {
  ProcessSpec spec = InRoot("echo runs; exit 7");
  spec.gate = gate_.borrow();
  pid_t pid = -1;
  {
    ASSERT_OK_AND_ASSIGN(Process process, launcher_->CreateProcess(spec));
    pid = process.pid();
    EXPECT_NE(ParentOf(pid), ::getpid());
    EXPECT_OK(process.Release());
    EXPECT_THAT(process.Release(),
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         HasSubstr("nobody's here already")));
    EXPECT_THAT(process.Start(),
                StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("")));
  }
  EndLauncher();
  EXPECT_EQ(ParentOf(pid), ::getpid());
  EXPECT_FALSE(IsReadable(output_.borrow(), absl::Milliseconds(50)));
  // Nothing of the host is open in it while it waits, but what it will have,
  // the gate and the pipe that tells of the exec.
  auto open = sys::ListDirectory(
      sys::Open(absl::StrCat("/proc/", pid, "/fd"), O_RDONLY)->borrow());
  ASSERT_OK(open);
  EXPECT_EQ(open->size(), 5u) << absl::StrJoin(*open, " ");

  ASSERT_EQ(::write(gate_.get(), "g", 1), 1);
  EXPECT_EQ(Written(), "runs\n");
  int status = 0;
  ASSERT_EQ(::waitpid(pid, &status, 0), pid);
  EXPECT_EQ(WEXITSTATUS(status), 7);
}

TEST_F(ReleaseTest, LauncherStartsInTwoHalves) {
  EndLauncher();
  {
    ASSERT_OK_AND_ASSIGN(LauncherStart start,
                         LauncherStart::Begin({.releases = true}));
    LauncherStart moved = std::move(start);
    ASSERT_OK_AND_ASSIGN(Launcher launcher, moved.Finish());
    ASSERT_OK_AND_ASSIGN(Process process, launcher.Start(InRoot("echo runs")));
    EXPECT_EQ(Written(), "runs\n");
    ASSERT_OK_AND_ASSIGN(const ExitStatus status, process.Wait());
    EXPECT_EQ(status.code, 0);
    EXPECT_OK(launcher.Shutdown());
  }
  EXPECT_THAT(CollectAll(), IsEmpty());
}

TEST_F(ReleaseTest, LauncherThatNobodyTakesEnds) {
  EXPECT_OK(LauncherStart::Begin({.releases = true}));
  EndLauncher();
  // The subreaper's, as any orphan; it may have ended before it was ready.
  EXPECT_THAT(CollectAll(), SizeIs(1));
}

TEST_F(ReleaseTest, ByteThatComesBeforeTheReleaseStartsIt) {
  ProcessSpec spec = InRoot("echo runs");
  spec.gate = gate_.borrow();
  ASSERT_OK_AND_ASSIGN(Process process, launcher_->CreateProcess(spec));
  ASSERT_EQ(::write(gate_.get(), "g", 1), 1);
  EXPECT_FALSE(IsReadable(output_.borrow(), absl::Milliseconds(50)));
  EXPECT_OK(process.Release());
  EXPECT_EQ(Written(), "runs\n");
  EXPECT_THAT(process.Wait(absl::Now() + kPatience).status(),
              ::testing::AnyOf(StatusIs(absl::StatusCode::kOk, ::testing::_),
                               StatusIs(absl::StatusCode::kUnavailable,
                                        HasSubstr("went to its parent"))));
  EndLauncher();
  EXPECT_THAT(CollectAll(), ElementsAre(0));
}

TEST_F(ReleaseTest, GateOpensByStartToo) {
  ProcessSpec spec = InRoot("echo runs");
  spec.gate = gate_.borrow();
  ASSERT_OK_AND_ASSIGN(Process process, launcher_->CreateProcess(spec));
  EXPECT_OK(process.Start());
  ASSERT_OK_AND_ASSIGN(const ExitStatus status, process.Wait());
  EXPECT_TRUE(status.success());
  EndLauncher();
  EXPECT_THAT(CollectAll(), IsEmpty());
}

// A shim must learn how it ended all the same.
TEST_F(ReleaseTest, StatusOfOneThatHasEndedGoesToTheSubreaper) {
  ASSERT_OK_AND_ASSIGN(Process process, launcher_->Start(InRoot("exit 3")));
  ASSERT_OK_AND_ASSIGN(const ExitStatus status, process.Wait());
  EXPECT_EQ(status.code, 3);
  EXPECT_OK(process.Release());
  EndLauncher();
  EXPECT_THAT(CollectAll(), ElementsAre(3 << 8));
}

TEST_F(ReleaseTest, OneThatRunsGoesOn) {
  pid_t pid = -1;
  {
    ASSERT_OK_AND_ASSIGN(const Process other,
                         launcher_->Start(InRoot("echo ready; sleep 1000; :")));
    ASSERT_TRUE(IsReadable(output_.borrow(), kPatience));
    ASSERT_OK_AND_ASSIGN(Process process,
                         launcher_->Start(InRoot("trap 'exit 9' TERM; echo "
                                                 "ready; while :; do sleep "
                                                 "1000 & wait; done")));
    char text[16];
    while (IsReadable(output_.borrow(), absl::Milliseconds(100))) {
      ASSERT_GT(::read(output_.get(), text, sizeof(text)), 0);
    }
    pid = process.pid();
    EXPECT_OK(process.Release());
    EndLauncher();
    EXPECT_EQ(ParentOf(pid), ::getpid());
    EXPECT_TRUE(IsReadable(other.pidfd(), kPatience));
    EXPECT_FALSE(IsReadable(process.pidfd(), absl::ZeroDuration()));
    EXPECT_OK(process.Signal(SIGTERM));
  }
  int status = 0;
  ASSERT_EQ(::waitpid(pid, &status, 0), pid);
  EXPECT_EQ(WEXITSTATUS(status), 9);
}

TEST_F(ReleaseTest, WhatWasNotReleasedEndsWithItsHost) {
  ProcessSpec spec = InRoot("echo runs");
  spec.gate = gate_.borrow();
  std::vector<UniqueFd> pidfds;
  {
    ASSERT_OK_AND_ASSIGN(Process process, launcher_->CreateProcess(spec));
    ASSERT_OK_AND_ASSIGN(UniqueFd pidfd, sys::Duplicate(process.pidfd()));
    pidfds.push_back(std::move(pidfd));
    EndLauncher();
    EXPECT_TRUE(IsReadable(pidfds[0].borrow(), kPatience));
  }
  EXPECT_EQ(Written(), "");
  EXPECT_THAT(CollectAll(), IsEmpty()) << "collected by the launcher";
}

// Nothing but its destructor ends it then: the launcher is no PID 1.
TEST_F(ReleaseTest, DestructorEndsWhatADeadLauncherLeft) {
  ProcessSpec spec = InRoot("echo runs");
  spec.gate = gate_.borrow();
  ASSERT_OK_AND_ASSIGN(UniqueFd launcher, sys::Duplicate(launcher_->pidfd()));
  UniqueFd pidfd;
  {
    ASSERT_OK_AND_ASSIGN(Process process, launcher_->CreateProcess(spec));
    ASSERT_OK_AND_ASSIGN(pidfd, sys::Duplicate(process.pidfd()));
    ASSERT_OK(sys::SendSignal(launcher.borrow(), SIGKILL));
    ASSERT_TRUE(IsReadable(launcher.borrow(), kPatience));
    EXPECT_FALSE(IsReadable(pidfd.borrow(), absl::Milliseconds(50)));
    EXPECT_THAT(process.Release(),
                StatusIs(absl::StatusCode::kUnavailable, HasSubstr("ended")));
  }
  EXPECT_TRUE(IsReadable(pidfd.borrow(), kPatience));
  EXPECT_EQ(Written(), "");
  launcher_.reset();
  EXPECT_THAT(CollectAll(), ::testing::SizeIs(2));  // and the launcher
}

// As "exec --detach" by another process than the one that made the container.
TEST_F(ReleaseTest, AnotherLauncherAdoptsAndExecutes) {
  ASSERT_OK_AND_ASSIGN(
      CgroupParent parent,
      CgroupParent::Open({.path = absl::StrCat("/caisson-test-", getpid())}));
  ASSERT_OK_AND_ASSIGN(
      Cgroup group,
      parent.Create({.name = "released", .limits = {.pids_max = 50}}));
  ProcessSpec spec = InRoot("hostname inside 2>/dev/null; sleep 1000; :");
  spec.cgroup = &group;
  UniqueFd container;
  {
    ASSERT_OK_AND_ASSIGN(Process process, launcher_->Start(spec));
    ASSERT_OK_AND_ASSIGN(container, sys::Duplicate(process.pidfd()));
    EXPECT_OK(process.Release());
    EndLauncher();
  }

  ASSERT_OK_AND_ASSIGN(Launcher second, Launcher::Create({.releases = true}));
  {
    ASSERT_OK_AND_ASSIGN(Process adopted, second.Adopt(container.borrow()));
    EXPECT_THAT(second.Exec(adopted, Shell(":")),
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         HasSubstr("ProcessSpec.security")));
    ASSERT_OK_AND_ASSIGN(const SecurityPolicy policy,
                         SecurityPolicy::Create({}));
    ProcessSpec inside = Shell(
        "for ns in mnt pid net ipc uts cgroup user; do "
        "[ $(readlink /proc/1/ns/$ns) = $(readlink /proc/self/ns/$ns) ] || "
        "echo another $ns; done; cat /proc/self/cgroup; exit 5");
    inside.security = &policy;
    inside.out = Stdio::Inherit(input_.borrow());
    ASSERT_OK_AND_ASSIGN(Process process, second.Exec(adopted, inside));
    const pid_t pid = process.pid();
    EXPECT_OK(process.Release());
    EXPECT_OK(second.Shutdown());
    int status = 0;
    ASSERT_EQ(::waitpid(pid, &status, 0), pid);
    EXPECT_EQ(WEXITSTATUS(status), 5);
    EXPECT_THAT(adopted.Wait(absl::Now()),
                StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("")));
    EXPECT_OK(sys::SendSignal(container.borrow(), SIGKILL));
    EXPECT_TRUE(IsReadable(adopted.exit_fd(), kPatience));
  }
  // In its own group, which is the root of what it sees.
  const std::string written = Written();
  EXPECT_THAT(written, ::testing::Not(HasSubstr("another")));
  // Version 2 alone has no line for a controller.
  EXPECT_THAT(written, ::testing::AnyOf(HasSubstr(":pids:/\n"), "0::/\n"));
  EXPECT_THAT(CollectAll(), ElementsAre(SIGKILL));
  ASSERT_OK_AND_ASSIGN(Launcher third, Launcher::Create({.releases = true}));
  EXPECT_THAT(third.Adopt(container.borrow()),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("has ended")));
  EXPECT_OK(third.Shutdown());
  EXPECT_OK(group.Destroy());
  EXPECT_OK(parent.Close());
}

// As "start" by another process than the one that has created it.
TEST_F(ReleaseTest, AnotherLauncherStartsItWithItsHooks) {
  ASSERT_OK_AND_ASSIGN(const SecurityPolicy policy, SecurityPolicy::Create({}));
  ProcessSpec spec = InRoot("cat /tmp/of-the-hook; exit 4");
  spec.gate = gate_.borrow();
  spec.security = &policy;
  UniqueFd pidfd;
  {
    ASSERT_OK_AND_ASSIGN(Process process, launcher_->CreateProcess(spec));
    ASSERT_OK_AND_ASSIGN(pidfd, sys::Duplicate(process.pidfd()));
    EXPECT_OK(process.Release());
    EndLauncher();
  }
  ASSERT_OK_AND_ASSIGN(Launcher second, Launcher::Create({.releases = true}));
  {
    ProcessSpec known;
    known.gate = gate_.borrow();
    known.security = &policy;
    known.hooks.start_container.push_back(
        RunProgramInside(second, {.path = "/bin/sh",
                                  .args = {"sh", "-c",
                                           "cat >/tmp/state; "
                                           "echo hooked >/tmp/of-the-hook"}}));
    std::string told;
    known.hooks.poststart.push_back([&told](const HookState& state) {
      told = state.status;
      return absl::OkStatus();
    });
    ASSERT_OK_AND_ASSIGN(Process adopted, second.Adopt(pidfd.borrow(), known));
    EXPECT_OK(adopted.Start());
    EXPECT_EQ(told, "running");
    EXPECT_THAT(adopted.Start(),
                StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("")));
    EXPECT_EQ(Written(), "hooked\n");
  }
  EXPECT_OK(second.Shutdown());
  EXPECT_THAT(CollectAll(), ElementsAre(4 << 8)) << "and no hook";
}

TEST_F(ReleaseTest, MisuseIsExplained) {
  EXPECT_THAT(Launcher::Create({.directory = "/tmp/x", .releases = true}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("exclude each other")));
  ProcessSpec spec = InRoot("sleep 1000; :");
  {
    ASSERT_OK_AND_ASSIGN(Process process, launcher_->CreateProcess(spec));
    EXPECT_THAT(process.Release(),
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         HasSubstr("ProcessSpec.gate")));
  }
  spec = InRoot(":");
  spec.gate = gate_.borrow();
  EXPECT_THAT(
      launcher_->Start(spec),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("CreateProcess")));
  spec = InRoot(":");
  spec.gate = output_.borrow();
  EXPECT_THAT(launcher_->CreateProcess(spec),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("gate"), HasSubstr("O_RDWR"))));
  ASSERT_OK_AND_ASSIGN(
      Process process,
      testing::ContainerTest::launcher_->Start(InRoot("sleep 1000; :")));
  EXPECT_THAT(process.Release(),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("LauncherOptions.releases")));
  EXPECT_THAT(testing::ContainerTest::launcher_->Adopt(process.pidfd()),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("LauncherOptions.releases")));
  EndLauncher();
  CollectAll();
}

}  // namespace
}  // namespace caisson
