#include "lib/launcher/session.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "caisson/error.h"
#include "lib/base/status_matchers.h"
#include "lib/launcher/detached_directory.h"
#include "lib/plan/send_fds.h"
#include "lib/sys/pidfd.h"

namespace caisson::launcher {
namespace {

using ::caisson::plan::PlanBuilder;
using ::caisson::plan::Slot;
using ::caisson::testing::StatusIs;
using ::testing::HasSubstr;

// A plan that executes a shell of the host through a directory descriptor of
// its root, so that no mount is needed.
class ShellPlan {
 public:
  explicit ShellPlan(const std::string& script) {
    plan_.Step("root");
    UniqueFd root(::open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
    plan_.Call(SYS_fchdir, {plan_.Send(std::move(root))}, "fchdir(\"/\")");
    plan_.Call(SYS_chroot, {plan_.String(".")}, "chroot(\".\")");
    UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    const Slot slot = plan_.Send(std::move(null));
    for (int i = 0; i < 3; ++i) {
      plan_.Call(SYS_dup3, {slot, i, 0}, "dup3(/dev/null)");
    }
    plan_.Step("security");
    plan_.CloseDescriptors();
    plan_.Step("exec");
    plan_.Exec(SYS_execve,
               {plan_.String("/bin/sh"),
                plan_.StringArray({"sh", "-c", script}), plan_.StringArray({})},
               "execve(\"/bin/sh\")", /*try_next=*/false);
  }
  PlanBuilder& plan() { return plan_; }

 private:
  PlanBuilder plan_;
};

int WaitStatus(const Started& started) {
  auto message = ReceiveMessage(started.channel.borrow(), nullptr, 0);
  EXPECT_OK(message);
  if (!message.ok()) return -1;
  EXPECT_EQ(message->kind, kExited);
  return message->wait_status;
}

size_t OpenDescriptors() {
  size_t count = 0;
  for (int fd = 0; fd < 1024; ++fd) {
    if (::fcntl(fd, F_GETFD) >= 0) ++count;
  }
  return count;
}

TEST(SessionTest, RunsAProgramAndReportsItsExitCode) {
  ASSERT_OK_AND_ASSIGN(Session session, Session::Create());
  ShellPlan shell("exit 42");
  ASSERT_OK_AND_ASSIGN(Started started, session.Run(shell.plan()));
  EXPECT_TRUE(started.pidfd.valid());
  EXPECT_EQ(WEXITSTATUS(WaitStatus(started)), 42);
  ASSERT_EQ(started.latencies.size(), 4u);
  EXPECT_EQ(started.latencies[0].step, "clone");
  EXPECT_EQ(started.latencies[3].step, "exec");
  EXPECT_OK(session.Close(/*wait=*/true));
}

TEST(SessionTest, LivesInAnEmptyMountNamespace) {
  ASSERT_OK_AND_ASSIGN(Session session, Session::Create());
  EXPECT_TRUE(session.isolated());
  PlanBuilder plan;
  plan.Step("look");
  plan.Call(SYS_openat, {AT_FDCWD, plan.String("/etc"), O_PATH, 0},
            "open(\"/etc\")");
  plan.Exit();
  EXPECT_THAT(session.Run(plan), StatusIs(absl::StatusCode::kNotFound,
                                          HasSubstr("open(\"/etc\"): ENOENT")));
}

TEST(SessionTest, FailedOperationIsNamedWithItsStepAndHint) {
  ASSERT_OK_AND_ASSIGN(Session session, Session::Create());
  PlanBuilder plan;
  plan.Step("one");
  plan.Call(SYS_close, {plan.NewSlot()}, "close(a)").Tolerate(EBADF, 1);
  plan.Call(SYS_close, {plan.NewSlot()}, "close(skipped)");
  plan.Step("two");
  plan.Call(SYS_close, {plan.NewSlot()}, "close(b)")
      .Path("b")
      .Hint("it was never open");
  plan.Exit();
  const absl::Status status = session.Run(plan).status();
  EXPECT_EQ(status.message(),
            "close(b): EBADF: bad file descriptor; it was never open");
  ASSERT_TRUE(GetErrorDetail(status).has_value());
  EXPECT_EQ(GetErrorDetail(status)->step, "two");
  EXPECT_EQ(GetErrorDetail(status)->error, EBADF);
  EXPECT_EQ(GetErrorDetail(status)->path, "b");
}

TEST(SessionTest, PlanThatOnlyMakesANamespaceSendsItBack) {
  ASSERT_OK_AND_ASSIGN(Session session, Session::Create());
  int sockets[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets),
            0);
  UniqueFd mine(sockets[0]);
  PlanBuilder plan;
  plan.set_clone_flags(CLONE_NEWUTS);
  plan.Step("open");
  const Slot ns = plan.NewSlot();
  const Slot socket = plan.Send(UniqueFd(sockets[1]));
  plan.Call(
          SYS_openat,
          {AT_FDCWD, plan.String("/proc/self/ns/uts"), O_RDONLY | O_CLOEXEC, 0},
          "open(ns)")
      .Into(ns);
  plan::AppendSendFds(plan, socket, {ns});
  plan.Exit();
  ASSERT_OK(session.Run(plan));
  ASSERT_OK_AND_ASSIGN(std::vector<UniqueFd> fds,
                       plan::ReceiveFds(mine.borrow(), 1));
  char link[64] = {};
  char own[64] = {};
  const std::string path = "/proc/self/fd/" + std::to_string(fds[0].get());
  ASSERT_GT(::readlink(path.c_str(), link, sizeof(link) - 1), 0);
  ASSERT_GT(::readlink("/proc/self/ns/uts", own, sizeof(own) - 1), 0);
  EXPECT_THAT(link, HasSubstr("uts:["));
  EXPECT_STRNE(link, own);
}

TEST(SessionTest, UserNamespaceMapsAreWrittenBeforeTheFirstOperation) {
  ASSERT_OK_AND_ASSIGN(Session session, Session::Create());
  PlanBuilder plan;
  plan.set_clone_flags(CLONE_NEWUSER);
  plan.set_id_maps("0 100000 65536\n", "0 100000 65536\n", false);
  plan.Step("become root");
  plan.Call(SYS_setresgid, {0, 0, 0}, "setresgid(0)");
  plan.Call(SYS_setresuid, {0, 0, 0}, "setresuid(0)");
  plan.Exit();
  EXPECT_OK(session.Run(plan));
}

TEST(SessionTest, BadIdMapIsAnErrorThatNamesTheFile) {
  ASSERT_OK_AND_ASSIGN(Session session, Session::Create());
  PlanBuilder plan;
  plan.set_clone_flags(CLONE_NEWUSER);
  plan.set_id_maps("0 0 1\n0 0 1\n", "0 0 1\n", false);
  plan.Step("x");
  plan.Exit();
  EXPECT_THAT(session.Run(plan),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("write(\"/proc/PID/uid_map\"): EINVAL")));
}

TEST(SessionTest, HostSeesNoChild) {
  ASSERT_OK_AND_ASSIGN(Session session, Session::Create());
  ShellPlan shell("exit 0");
  ASSERT_OK_AND_ASSIGN(Started started, session.Run(shell.plan()));
  WaitStatus(started);
  EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG | __WALL), -1);
  EXPECT_EQ(errno, ECHILD);
}

TEST(SessionTest, ManyThreadsShareOneLauncher) {
  ASSERT_OK_AND_ASSIGN(Session session, Session::Create());
  const size_t before = OpenDescriptors();
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&session, t] {
      for (int i = 0; i < 25; ++i) {
        const int code = (t * 25 + i) % 200;
        ShellPlan shell("exit " + std::to_string(code));
        auto started = session.Run(shell.plan());
        ASSERT_OK(started);
        EXPECT_EQ(WEXITSTATUS(WaitStatus(*started)), code);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(OpenDescriptors(), before);
}

TEST(SessionTest, ProgramsInheritNothing) {
  ASSERT_OK_AND_ASSIGN(Session session, Session::Create());
  UniqueFd marker(::open("/dev/null", O_RDONLY));  // inheritable on purpose
  // The shell itself opens its script's pipe below 10; count what is there at
  // its start.
  ShellPlan shell(
      "set -- /proc/self/fd/*; test \"$*\" = '/proc/self/fd/0 /proc/self/fd/1 "
      "/proc/self/fd/2 /proc/self/fd/3' || test \"$*\" = '/proc/self/fd/0 "
      "/proc/self/fd/1 /proc/self/fd/2'");
  ASSERT_OK_AND_ASSIGN(Started started, session.Run(shell.plan()));
  EXPECT_EQ(WEXITSTATUS(WaitStatus(started)), 0);
}

TEST(SessionTest, DeathOfTheHostKillsWhatRuns) {
  int fds[2];
  ASSERT_EQ(::pipe2(fds, O_CLOEXEC), 0);
  const pid_t host = ::fork();
  if (host == 0) {
    auto session = Session::Create();
    if (!session.ok()) ::_exit(1);
    ShellPlan shell("sleep 1000");
    auto started = session->Run(shell.plan());
    if (!started.ok()) ::_exit(2);
    const pid_t pid = sys::PidOf(started->pidfd.borrow());
    if (::write(fds[1], &pid, sizeof(pid)) != sizeof(pid)) ::_exit(3);
    ::pause();
  }
  pid_t pid = 0;
  ASSERT_EQ(::read(fds[0], &pid, sizeof(pid)),
            static_cast<ssize_t>(sizeof(pid)));
  UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  ASSERT_TRUE(pidfd.valid());
  ASSERT_EQ(::kill(host, SIGKILL), 0);
  pollfd poll = {pidfd.get(), POLLIN, 0};
  EXPECT_EQ(::poll(&poll, 1, 10000), 1);
  ::waitpid(host, nullptr, 0);
  ::close(fds[0]);
  ::close(fds[1]);
}

TEST(SessionTest, DeathOfTheLauncherKillsWhatRunsAndIsATypedError) {
  ASSERT_OK_AND_ASSIGN(Session session, Session::Create());
  ShellPlan shell("sleep 1000");
  ASSERT_OK_AND_ASSIGN(Started started, session.Run(shell.plan()));
  ASSERT_EQ(::syscall(SYS_pidfd_send_signal, session.pidfd().get(), SIGKILL,
                      nullptr, 0),
            0);
  pollfd poll = {started.pidfd.get(), POLLIN, 0};
  EXPECT_EQ(::poll(&poll, 1, 10000), 1);
  EXPECT_THAT(ReceiveMessage(started.channel.borrow(), nullptr, 0),
              StatusIs(absl::StatusCode::kUnavailable, HasSubstr("launcher")));
  ShellPlan next("exit 0");
  EXPECT_THAT(session.Run(next.plan()),
              StatusIs(absl::StatusCode::kUnavailable,
                       HasSubstr("create a new Launcher")));
}

TEST(SessionTest, WorksWhenTheHostIgnoresSigchld) {
  const pid_t host = ::fork();
  if (host == 0) {
    ::signal(SIGCHLD, SIG_IGN);
    auto session = Session::Create();
    if (!session.ok()) ::_exit(1);
    ShellPlan shell("exit 7");
    auto started = session->Run(shell.plan());
    if (!started.ok()) ::_exit(2);
    auto message = ReceiveMessage(started->channel.borrow(), nullptr, 0);
    if (!message.ok()) ::_exit(3);
    ::_exit(WEXITSTATUS(message->wait_status) == 7 ? 0 : 4);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(host, &status, 0), host);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST(SessionTest, WorksWithoutLowDescriptors) {
  const pid_t host = ::fork();
  if (host == 0) {
    ::close(0);
    ::close(1);
    ::close(2);
    ::close(3);
    auto session = Session::Create();
    if (!session.ok()) ::_exit(1);
    ShellPlan shell("exit 7");
    auto started = session->Run(shell.plan());
    if (!started.ok()) ::_exit(2);
    auto message = ReceiveMessage(started->channel.borrow(), nullptr, 0);
    ::_exit(message.ok() && WEXITSTATUS(message->wait_status) == 7 ? 0 : 4);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(host, &status, 0), host);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

// What a host names is looked for among its own processes only.
TEST(SessionTest, ProcessesOfAnotherHostAreNotTouched) {
  std::string path = ::testing::TempDir() + "/session-XXXXXX";
  ASSERT_NE(::mkdtemp(path.data()), nullptr);
  ASSERT_OK_AND_ASSIGN(
      const DetachedDirectory directory,
      DetachedDirectory::Open(path, DetachedDirectory::Missing::kIsError));
  ASSERT_OK_AND_ASSIGN(Session session, Session::Create());
  {
    ASSERT_OK_AND_ASSIGN(const DetachedDirectory::Place place,
                         directory.Take());
    ASSERT_OK(session.Listen(place.listening.borrow(), directory.fd(),
                             place.lock.borrow()));
  }
  ASSERT_OK_AND_ASSIGN(UniqueFd control, directory.Connect());
  ASSERT_OK_AND_ASSIGN(Session other, Session::Attach(std::move(control)));
  ShellPlan shell("exec sleep 1000");
  ASSERT_OK_AND_ASSIGN(Started started, session.Run(shell.plan()));
  EXPECT_THAT(other.Detach(started, "stolen", "note", BorrowedFd(), {}),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("\"stolen\"")));
  other.Abandon(started);
  EXPECT_OK(other.Close(/*wait=*/true));
  EXPECT_OK(sys::SendSignal(started.pidfd.borrow(), 0));
  EXPECT_OK(session.Close(/*wait=*/true));
  EXPECT_EQ(::unlink((path + "/launcher.lock").c_str()), 0);
  EXPECT_EQ(::rmdir(path.c_str()), 0);
}

// Whatever is asked of one that is stopped, the caller has its deadline: also
// when the launcher's queue is full.
TEST(SessionTest, LauncherThatReadsNothingHoldsNobodyUp) {
  ASSERT_OK_AND_ASSIGN(Session session, Session::Create());
  ASSERT_OK(sys::SendSignal(session.pidfd(), SIGSTOP));
  ShellPlan shell("exit 5");
  for (int i = 0; i < 500; ++i) {
    EXPECT_THAT(
        session.Begin(shell.plan(), Deadline(absl::Milliseconds(1))),
        StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("1ms")));
  }
  ASSERT_OK(sys::SendSignal(session.pidfd(), SIGCONT));
  ASSERT_OK_AND_ASSIGN(Started started, session.Run(shell.plan()));
  EXPECT_EQ(WEXITSTATUS(WaitStatus(started)), 5);
  EXPECT_OK(session.Close(/*wait=*/true));
}

TEST(SessionTest, OneThatDoesNotGreetIsNotWaitedForForEver) {
  int sockets[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets),
            0);
  const UniqueFd silent(sockets[1]);
  EXPECT_THAT(Session::Attach(UniqueFd(sockets[0]), absl::Milliseconds(1)),
              StatusIs(absl::StatusCode::kDeadlineExceeded,
                       HasSubstr("did not answer within 1ms; is it stopped")));
}

}  // namespace
}  // namespace caisson::launcher
