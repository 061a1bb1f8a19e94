// A second process in a running container.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "caisson/caisson.h"
#include "lib/sys/open.h"
#include "tests/support/container_test.h"
#include "tests/support/machine.h"

namespace caisson {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kForever[] = "echo ready; while :; do sleep 1000; done";

class ExecTest : public testing::ContainerTest {
 protected:
  static Running Container(ProcessSpec spec = Shell(kForever)) {
    auto running = StartUntilOutput(std::move(spec));
    EXPECT_OK(running);
    return running.ok() ? *std::move(running) : Running();
  }
};

TEST_F(ExecTest, JoinsEveryNamespaceOfTheContainer) {
  Running container = Container();
  const std::string links =
      "for ns in mnt pid net ipc uts cgroup user time; do "
      "readlink /proc/$0/ns/$ns; done";
  ProcessSpec first = Shell(links);
  first.argv.push_back("1");
  ProcessSpec own = Shell(links);
  own.argv.push_back("self");
  ASSERT_OK_AND_ASSIGN(Outcome of_init, Exec(*container.process, first));
  ASSERT_OK_AND_ASSIGN(Outcome of_exec, Exec(*container.process, own));
  EXPECT_EQ(of_init.output, of_exec.output);
  EXPECT_THAT(of_exec.output, HasSubstr("mnt:["));
}

TEST_F(ExecTest, SeesTheContainersFilesAndProcesses) {
  Running container =
      Container(Shell("echo from the first > /tmp/file; echo; sleep 1000; :"));
  EXPECT_EQ(ExecOutput(*container.process, "cat /tmp/file"),
            "from the first\n");
  EXPECT_THAT(ExecOutput(*container.process, "ps"), HasSubstr("sleep 1000"));
}

TEST_F(ExecTest, ExitStatusIsItsOwn) {
  Running container = Container();
  ASSERT_OK_AND_ASSIGN(Outcome outcome,
                       Exec(*container.process, Shell("exit 42")));
  EXPECT_EQ(outcome.status.code, 42);
  ASSERT_OK_AND_ASSIGN(outcome, Exec(*container.process, Shell("kill -9 $$")));
  EXPECT_EQ(outcome.status.signal, SIGKILL);
  EXPECT_THAT(container.process->Wait(absl::Now()),
              StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("")));
}

TEST_F(ExecTest, HasTheContainersSecurity) {
  ASSERT_OK_AND_ASSIGN(
      SecurityPolicy policy,
      SecurityPolicy::Create({.drop_capabilities = {"ALL"},
                              .unsafe_add_capabilities = {"CAP_CHOWN"}}));
  ProcessSpec spec = Shell(kForever);
  spec.security = &policy;
  Running container = Container(spec);
  const std::string fields =
      "grep -E '^(Cap...|NoNewPrivs|Seccomp):' /proc/$0/status";
  ProcessSpec first = Shell(fields);
  first.argv.push_back("1");
  ProcessSpec own = Shell(fields);
  own.argv.push_back("self");
  ASSERT_OK_AND_ASSIGN(Outcome of_init, Exec(*container.process, first));
  ASSERT_OK_AND_ASSIGN(Outcome of_exec, Exec(*container.process, own));
  EXPECT_EQ(of_exec.output, of_init.output);
  EXPECT_THAT(of_exec.output, AllOf(HasSubstr("CapBnd:\t0000000000000001"),
                                    HasSubstr("Seccomp:\t2")));
}

TEST_F(ExecTest, HasAUserOfItsOwn) {
  Running container = Container();
  ProcessSpec spec = Shell("id -u; id -g; id -G; echo $HOME; pwd");
  spec.user = "1000:1001";
  spec.additional_groups = {"7"};
  spec.cwd = "/tmp";
  ASSERT_OK_AND_ASSIGN(Outcome outcome, Exec(*container.process, spec));
  EXPECT_EQ(outcome.output, "1000\n1001\n1001 7\n/home\n/tmp\n");
}

TEST_F(ExecTest, UsersAreThoseOfTheContainerNow) {
  Running container = Container(
      Shell("echo late:x:321:321::/:/bin/sh >> /etc/passwd; echo; sleep 1000"));
  ProcessSpec spec = Shell("id -u");
  spec.user = "late";
  ASSERT_OK_AND_ASSIGN(Outcome outcome, Exec(*container.process, spec));
  EXPECT_EQ(outcome.output, "321\n");
}

TEST_F(ExecTest, TerminalOfTheContainer) {
  Running container = Container();
  ProcessSpec spec = Shell("tty; stty size; exit 3");
  spec.terminal = TerminalSize{.rows = 33, .columns = 44};
  ASSERT_OK_AND_ASSIGN(Process process,
                       launcher_->Exec(*container.process, spec));
  std::string seen;
  char buffer[256];
  ssize_t n;
  while ((n = ::read(process.terminal().get(), buffer, sizeof(buffer))) > 0) {
    seen.append(buffer, static_cast<size_t>(n));
  }
  EXPECT_EQ(seen, "/dev/pts/0\r\n33 44\r\n");
  ASSERT_OK_AND_ASSIGN(ExitStatus status, process.Wait());
  EXPECT_EQ(status.code, 3);
}

TEST_F(ExecTest, InAUserNamespace) {
  NEED_KERNEL(6, 15);
  ASSERT_OK_AND_ASSIGN(UniqueFd user,
                       launcher_->NewUserNamespace({0, 300000, 65536}));
  NamespaceOptions options;
  ASSERT_OK_AND_ASSIGN(options.user, sys::Duplicate(user.borrow()));
  ASSERT_OK_AND_ASSIGN(Namespace ns, Namespace::Create(std::move(options)));
  RootFsOptions root_options = root_->Options();
  root_options.root_uid = 300000;
  root_options.root_gid = 300000;
  root_options.idmap_user_namespace = user.borrow();
  ASSERT_OK_AND_ASSIGN(RootFs root, RootFs::Create(root_options));
  ProcessSpec spec = Shell("sleep 1000");
  spec.root = &root;
  spec.namespaces = &ns;
  ASSERT_OK_AND_ASSIGN(Process process, launcher_->Start(spec));
  EXPECT_EQ(ExecOutput(process, "id -u; cat /proc/self/uid_map | tr -s ' '"),
            "0\n 0 300000 65536\n");
}

TEST_F(ExecTest, OfAContainerThatSharesTheNetwork) {
  NamespaceOptions options;
  options.net = NamespaceSource::ShareWithHost();
  options.uts = NamespaceSource::ShareWithHost();
  ASSERT_OK_AND_ASSIGN(Namespace ns, Namespace::Create(std::move(options)));
  ProcessSpec spec = Shell(kForever);
  spec.namespaces = &ns;
  Running container = Container(spec);
  char host[64];
  const ssize_t n = ::readlink("/proc/self/ns/net", host, sizeof(host));
  EXPECT_EQ(ExecOutput(*container.process, "readlink /proc/self/ns/net"),
            std::string(host, static_cast<size_t>(n)) + "\n");
}

TEST_F(ExecTest, BelowAnInit) {
  ProcessSpec spec = Shell(kForever);
  spec.init = true;
  Running container = Container(spec);
  EXPECT_EQ(ExecOutput(*container.process, "cat /proc/1/comm"),
            "caisson-init\n");
}

TEST_F(ExecTest, EndsWithTheContainer) {
  Running container = Container();
  ASSERT_OK_AND_ASSIGN(Process second,
                       launcher_->Exec(*container.process, Shell(kForever)));
  ASSERT_OK(container.process->Signal(SIGKILL));
  ASSERT_OK_AND_ASSIGN(ExitStatus status, second.Wait());
  EXPECT_EQ(status.signal, SIGKILL);
}

TEST_F(ExecTest, ManyAtOnce) {
  Running container = Container();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&container, t] {
      for (int i = 0; i < 10; ++i) {
        auto outcome =
            Exec(*container.process, Shell(absl::StrCat("exit ", t * 10 + i)));
        ASSERT_OK(outcome);
        EXPECT_EQ(outcome->status.code, t * 10 + i);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// ---- What can be wrong -----------------------------------------------------

TEST_F(ExecTest, ContainerThatHasEnded) {
  Running container = Container();
  ASSERT_OK(container.process->Signal(SIGKILL));
  ASSERT_OK(container.process->Wait());
  EXPECT_THAT(launcher_->Exec(*container.process, Shell("true")).status(),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("has ended")));
}

TEST_F(ExecTest, PausedContainer) {
  ASSERT_OK_AND_ASSIGN(const CgroupParent cgroups, CgroupParent::Open({}));
  CgroupOptions options = {.name = "paused"};
  // Where v1 alone could pause it.
  if (cgroups.layout().mode == CgroupLayout::Mode::kV1) {
    options.controllers = {CgroupController::kFreezer};
  }
  ASSERT_OK_AND_ASSIGN(const Cgroup cgroup, cgroups.Create(options));
  ProcessSpec spec = Shell(kForever);
  spec.cgroup = &cgroup;
  const Running container = Container(std::move(spec));
  EXPECT_EQ(ExecOutput(*container.process, "echo in"), "in\n");
  ASSERT_OK(cgroup.Freeze());
  EXPECT_THAT(Exec(*container.process, Shell("echo in")).status(),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("the container is paused")));
  ASSERT_OK(cgroup.Thaw());
  EXPECT_EQ(ExecOutput(*container.process, "echo in"), "in\n");
  // What is paused can be ended.
  ASSERT_OK(cgroup.Freeze());
  EXPECT_OK(cgroup.Kill());
  ASSERT_OK_AND_ASSIGN(const ExitStatus status, container.process->Wait());
  EXPECT_EQ(status.signal, SIGKILL);
}

TEST_F(ExecTest, ProgramThatDoesNotExist) {
  Running container = Container();
  ProcessSpec spec;
  spec.argv = {"nothing-of-this-name"};
  const absl::Status status =
      launcher_->Exec(*container.process, spec).status();
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kNotFound,
                               HasSubstr("nothing-of-this-name")));
  EXPECT_EQ(ExecFailure(status), 127);
}

TEST_F(ExecTest, FieldsOfTheContainerAreRefused) {
  Running container = Container();
  ProcessSpec spec = Shell("true");
  spec.init = true;
  EXPECT_THAT(launcher_->Exec(*container.process, spec).status(),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("ProcessSpec.init")));
  spec.init = false;
  spec.root = container.root.get();
  EXPECT_THAT(launcher_->Exec(*container.process, spec).status(),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("ProcessSpec.root")));
}

TEST_F(ExecTest, ContainerOfAnotherLauncher) {
  Running container = Container();
  ASSERT_OK_AND_ASSIGN(Launcher other, Launcher::Create());
  EXPECT_THAT(other.Exec(*container.process, Shell("true")).status(),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("another Launcher")));
  EXPECT_OK(other.Shutdown());
}

// ---- What the container could do to it -------------------------------------

// A container with CAP_SYS_PTRACE and no user namespace of its own can look
// into every process that it sees. What it sees must have nothing of the host:
// no descriptor but the three streams, no right that the container lacks.
TEST_F(ExecTest, WatcherWithPtraceFindsNothingOfTheHost) {
  ASSERT_OK_AND_ASSIGN(
      SecurityPolicy policy,
      SecurityPolicy::Create({.unsafe_add_capabilities = {"CAP_SYS_PTRACE"},
                              .unsafe_seccomp = SeccompUnconfined{}}));
  // (The container's own "/" is open while the working directory is set.)
  // Prints what every process but itself has open and may do, all the time.
  ProcessSpec watcher = Shell(
      "echo ready; while :; do for p in /proc/[0-9]*; do "
      "[ $p = /proc/1 ] && continue; "
      "ls -l $p/fd 2>/dev/null | grep -- '->' | "
      "grep -v 'pipe:\\|/dev/null\\|/proc/\\|-> /$' | sed 's/.*-> /fd /'; "
      "grep -h '^CapPrm' $p/status 2>/dev/null; "
      "ls -ld $p/root/bin/busybox >/dev/null 2>&1 || { [ -d $p/root ] && "
      "echo other root; }; done; done");
  watcher.security = &policy;
  ASSERT_OK_AND_ASSIGN(Running container, StartUntilOutput(watcher));
  std::string seen;
  std::thread reader([&] {
    char buffer[65536];
    ssize_t n;
    while ((n = ::read(container.output.get(), buffer, sizeof(buffer))) > 0) {
      if (seen.size() < (8 << 20)) seen.append(buffer, static_cast<size_t>(n));
    }
  });
  for (int i = 0; i < 150; ++i) {
    ASSERT_OK(Exec(*container.process, Shell("sleep 0.01")));
  }
  ASSERT_OK(container.process->Signal(SIGKILL));
  ASSERT_OK(container.process->Wait());
  reader.join();
  EXPECT_THAT(seen, HasSubstr("CapPrm"));
  EXPECT_THAT(seen, Not(HasSubstr("cgroup")));
  EXPECT_THAT(seen, Not(HasSubstr("caisson-plan")));
  EXPECT_THAT(seen, Not(HasSubstr("fd ")));
  EXPECT_THAT(seen, Not(HasSubstr("other root")));
  // Its own capabilities and, for the first process, those of the policy.
  for (const absl::string_view line : absl::StrSplit(seen, '\n')) {
    absl::string_view mask = line;
    uint64_t capabilities = 0;
    if (!absl::ConsumePrefix(&mask, "CapPrm:\t") ||
        !absl::SimpleHexAtoi(mask, &capabilities)) {
      continue;
    }
    EXPECT_EQ(capabilities & ~policy.capabilities(), 0u) << line;
  }
}

// Everything that is born in the container is killed at once: nothing may be
// lost for the host, or kept by the launcher.
TEST_F(ExecTest, ContainerThatKillsWhatIsBornInIt) {
  ASSERT_OK_AND_ASSIGN(
      Running container,
      StartUntilOutput(
          Shell("echo ready; while :; do kill -9 -1 2>/dev/null; done")));
  int ran = 0;
  for (int i = 0; i < testing::Repetitions(100); ++i) {
    const auto outcome = Exec(*container.process, Shell("exit 3"));
    if (outcome.ok()) {
      ++ran;
      EXPECT_TRUE(outcome->status.code == 3 ||
                  outcome->status.signal == SIGKILL)
          << outcome->status.ToString();
    } else {
      EXPECT_THAT(outcome.status(), StatusIs(absl::StatusCode::kAborted,
                                             HasSubstr("killed by signal 9")));
    }
  }
  ASSERT_OK(container.process->Signal(SIGKILL));
  ASSERT_OK(container.process->Wait());
  RecordProperty("ran", ran);
  // The launcher is as good as before.
  EXPECT_EQ(Output("echo well"), "well\n");
}

TEST_F(ExecTest, WithoutNoNewPrivileges) {
  ASSERT_OK_AND_ASSIGN(SecurityPolicy policy,
                       SecurityPolicy::Create(
                           {.unsafe_new_privileges = NewPrivilegesAllowed{}}));
  ProcessSpec spec = Shell(kForever);
  spec.security = &policy;
  Running container = Container(spec);
  ProcessSpec own = Shell(
      "grep -E '^(CapEff|NoNewPrivs|Seccomp):' "
      "/proc/self/status");
  own.user = "1000";
  ASSERT_OK_AND_ASSIGN(Outcome outcome, Exec(*container.process, own));
  EXPECT_EQ(outcome.output,
            "CapEff:\t0000000000000000\nNoNewPrivs:\t0\nSeccomp:\t2\n");
}

TEST_F(ExecTest, LimitOfOneProcess) {
  Running container = Container();
  ProcessSpec spec = Shell("ulimit -Su; ulimit -Sn");
  spec.user = "54321";
  spec.limits = {{.name = "nproc", .soft = 1, .hard = 1},
                 {.name = "nofile", .soft = 4, .hard = 4}};
  ASSERT_OK_AND_ASSIGN(Outcome outcome, Exec(*container.process, spec));
  EXPECT_EQ(outcome.output, "1\n4\n");
}

TEST_F(ExecTest, WorkingDirectoryIsNeverADescriptor) {
  Running container = Container();
  for (int fd = 0; fd < 64; ++fd) {
    ProcessSpec spec = Shell("ls");
    spec.cwd = absl::StrCat("/proc/self/fd/", fd);
    const auto outcome = Exec(*container.process, spec);
    EXPECT_FALSE(outcome.ok()) << spec.cwd << ": " << outcome->output;
  }
}

TEST_F(ExecTest, DevicesThatTheContainerReplacedLeadNowhere) {
  Running container = Container(
      Shell("rm /dev/null; mkfifo /dev/null; echo; while :; do sleep 1; done"));
  // A pipe in place of /dev/null blocks nobody.
  ASSERT_OK_AND_ASSIGN(Outcome outcome,
                       Exec(*container.process, Shell("exit 8")));
  EXPECT_EQ(outcome.status.code, 8);
}

TEST_F(ExecTest, TerminalIsNotFoundThroughALink) {
  Running container = Container(
      Shell("rm /dev/null; ln -s /proc/1/fd/1 /dev/null; echo; sleep 1000"));
  EXPECT_THAT(launcher_->Exec(*container.process, Shell("true")).status(),
              StatusIs(absl::StatusCode::kUnknown, HasSubstr("/dev/null")));
}

}  // namespace
}  // namespace caisson
