// Whole starts: every class of the library composed, on the real kernel.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "caisson/caisson.h"
#include "lib/base/status_matchers.h"
#include "lib/sys/open.h"
#include "tests/support/container_test.h"
#include "tests/support/machine.h"
#include "tests/support/test_root.h"

namespace caisson {
namespace {

using ::caisson::testing::StatusIs;
using ::caisson::testing::TestRoot;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

std::string CgroupPath() { return absl::StrCat("/caisson-test-", getpid()); }

using StartTest = ::caisson::testing::ContainerTest;

// ---- What a container is ---------------------------------------------------

TEST_F(StartTest, ExitCodeAndOutput) {
  ASSERT_OK_AND_ASSIGN(Outcome outcome, Run(Shell("echo hello; exit 3")));
  EXPECT_EQ(outcome.output, "hello\n");
  EXPECT_EQ(outcome.status.code, 3);
  EXPECT_FALSE(outcome.status.signaled);
  EXPECT_EQ(outcome.status.ToString(), "exited with code 3");
}

TEST_F(StartTest, SignalIsReported) {
  ASSERT_OK_AND_ASSIGN(
      Outcome outcome,
      Run(Shell("sh -c 'kill -SEGV $$'; echo $?; trap - TERM; kill -KILL $$; "
                "exit 4")));
  EXPECT_EQ(outcome.output, "Segmentation fault\n139\n");
  EXPECT_EQ(outcome.status.code, 4);  // PID 1 is immune to its own SIGKILL
}

TEST_F(StartTest, IsPidOneWithItsOwnHostname) {
  ProcessSpec spec = Shell("echo $$; hostname; ls -d /proc/[0-9]* | wc -l");
  NamespaceOptions options;
  options.hostname = "caisson-test";
  ASSERT_OK_AND_ASSIGN(Namespace ns, Namespace::Create(std::move(options)));
  spec.namespaces = &ns;
  ASSERT_OK_AND_ASSIGN(Outcome outcome, Run(std::move(spec)));
  const std::vector<std::string> lines = absl::StrSplit(outcome.output, '\n');
  ASSERT_GE(lines.size(), 3u) << outcome.output;
  EXPECT_EQ(lines[0], "1");
  EXPECT_EQ(lines[1], "caisson-test");
  EXPECT_LE(std::stoi(lines[2]), 3);  // the shell, ls, wc
}

TEST_F(StartTest, EveryNamespaceIsItsOwn) {
  const std::string inside = Output(
      "for n in mnt pid net ipc uts cgroup; do readlink /proc/self/ns/$n; "
      "done");
  for (const char* name : {"mnt", "pid", "net", "ipc", "uts", "cgroup"}) {
    char link[64] = {};
    ASSERT_GT(::readlink(absl::StrCat("/proc/self/ns/", name).c_str(), link,
                         sizeof(link) - 1),
              0);
    EXPECT_THAT(inside, Not(HasSubstr(link)));
    EXPECT_THAT(inside, HasSubstr(absl::StrCat(name, ":[")));
  }
}

TEST_F(StartTest, RootIsTheOnlyMountOfTheHostsFiles) {
  const std::string mounts = Output("cut -d' ' -f2,3 /proc/mounts");
  EXPECT_THAT(mounts, HasSubstr("/ overlay\n"));
  EXPECT_THAT(mounts, HasSubstr("/proc proc\n"));
  EXPECT_THAT(mounts, HasSubstr("/sys sysfs\n"));
  EXPECT_THAT(mounts, HasSubstr("/dev/pts devpts\n"));
  EXPECT_THAT(mounts, Not(HasSubstr("ext4")));
}

TEST_F(StartTest, DefaultSecurityIsAtLeastDockers) {
  const std::string status = Output("cat /proc/self/status");
  EXPECT_THAT(status, HasSubstr("CapInh:\t0000000000000000"));
  EXPECT_THAT(status, HasSubstr("CapPrm:\t00000000a80425fb"));
  EXPECT_THAT(status, HasSubstr("CapEff:\t00000000a80425fb"));
  EXPECT_THAT(status, HasSubstr("CapBnd:\t00000000a80425fb"));
  EXPECT_THAT(status, HasSubstr("CapAmb:\t0000000000000000"));
  EXPECT_THAT(status, HasSubstr("NoNewPrivs:\t1"));
  EXPECT_THAT(status, HasSubstr("Seccomp:\t2"));
}

TEST_F(StartTest, InheritsNothing) {
  UniqueFd canary(::open("/etc/passwd", O_RDONLY));  // inheritable on purpose
  ProcessSpec list;
  list.argv = {"ls", "/proc/self/fd"};
  ASSERT_OK_AND_ASSIGN(Outcome fds, Run(std::move(list)));
  // 3 is the directory that ls reads.
  EXPECT_EQ(fds.output, "0\n1\n2\n3\n");
  EXPECT_EQ(Output("umask; cat /proc/self/status | grep -E 'SigBlk|SigIgn'"),
            "0022\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
  setenv("CAISSON_SECRET", "x", 1);
  EXPECT_THAT(Output("env"), Not(HasSubstr("CAISSON_SECRET")));
  unsetenv("CAISSON_SECRET");
}

TEST_F(StartTest, EnvironmentHasPathAndHome) {
  const std::string env = Output("env");
  EXPECT_THAT(env, HasSubstr("PATH=/usr/local/sbin:"));
  EXPECT_THAT(env, HasSubstr("HOME=/root"));
}

TEST_F(StartTest, WritesDoNotReachTheLayers) {
  EXPECT_EQ(Output("echo x > /etc/passwd && rm /bin/true && cat /etc/passwd"),
            "x\n");
  EXPECT_THAT(Output("cat /etc/passwd; ls /bin/true"), HasSubstr("root:x:0:0"));
}

TEST_F(StartTest, NetworkIsALoopbackInterface) {
  EXPECT_EQ(Output("ip -o link | cut -d: -f2 | tr -d '\\n'"), " lo");
  EXPECT_THAT(Output("ifconfig lo"), HasSubstr("UP LOOPBACK RUNNING"));
}

TEST_F(StartTest, UserIsResolvedInsideTheRoot) {
  ProcessSpec spec = Shell("id; echo $HOME; cat /proc/self/status | grep Cap");
  spec.user = "user";
  ASSERT_OK_AND_ASSIGN(Outcome outcome, Run(std::move(spec)));
  EXPECT_THAT(outcome.output,
              HasSubstr("uid=1000(user) gid=1001(users) "
                        "groups=1001(users),1002(extra)\n/home\n"));
  EXPECT_THAT(outcome.output, HasSubstr("CapEff:\t0000000000000000"));
  EXPECT_THAT(outcome.output, HasSubstr("CapPrm:\t0000000000000000"));
  EXPECT_THAT(outcome.output, HasSubstr("CapBnd:\t00000000a80425fb"));
}

TEST_F(StartTest, UserNamespaceMapsIdsAndLayers) {
  NEED_KERNEL(6, 15);
  ASSERT_OK_AND_ASSIGN(UniqueFd user,
                       launcher_->NewUserNamespace({0, 100000, 65536}));
  RootFsOptions root = root_->Options();
  root.idmap_user_namespace = user.borrow();
  root.root_uid = root.root_gid = 100000;
  std::string shared = root_->path() + "/../shared";
  ::mkdir(shared.c_str(), 0777);
  ASSERT_EQ(::chmod(shared.c_str(), 0777), 0);
  root.binds.push_back({.destination = "/shared", .source = shared});
  NamespaceOptions options;
  ASSERT_OK_AND_ASSIGN(options.user, sys::Duplicate(user.borrow()));
  ASSERT_OK_AND_ASSIGN(Namespace ns, Namespace::Create(std::move(options)));
  ProcessSpec spec = Shell(
      "cat /proc/self/uid_map; id -u; stat -c '%u %a' /etc/passwd; "
      "touch /shared/new; echo x >> /etc/passwd && echo written; ls /sys; "
      "ls /dev/pts");
  spec.namespaces = &ns;
  ASSERT_OK_AND_ASSIGN(Outcome outcome, Run(std::move(spec), root));
  std::string flat;
  for (const auto part : absl::StrSplit(outcome.output, absl::ByAnyChar(" \n"),
                                        absl::SkipEmpty())) {
    absl::StrAppend(&flat, part, " ");
  }
  EXPECT_THAT(flat, HasSubstr("0 100000 65536 0 0 644 written"));
  struct stat stat;
  ASSERT_EQ(::stat((shared + "/new").c_str(), &stat), 0);
  EXPECT_EQ(stat.st_uid, 100000u);
  ::unlink((shared + "/new").c_str());
  ::rmdir(shared.c_str());
}

TEST_F(StartTest, UserNamespaceWithANetworkNamespaceOfItsOwn) {
  ASSERT_OK_AND_ASSIGN(UniqueFd user,
                       launcher_->NewUserNamespace({0, 100000, 65536}));
  ASSERT_OK_AND_ASSIGN(NetNamespace net,
                       launcher_->NewNetNamespace(user.borrow()));
  EXPECT_TRUE(net.ns.valid());
  EXPECT_TRUE(net.rtnetlink.valid());
}

TEST_F(StartTest, StepsHaveLatencies) {
  ASSERT_OK_AND_ASSIGN(RootFs root, RootFs::Create(root_->Options()));
  ProcessSpec spec = Shell("exit 0");
  spec.root = &root;
  ASSERT_OK_AND_ASSIGN(Process process, launcher_->Start(spec));
  std::vector<std::string> steps;
  for (const StepLatency& latency : process.latencies()) {
    steps.push_back(latency.step);
    EXPECT_GE(latency.duration, absl::ZeroDuration());
  }
  EXPECT_THAT(steps, ElementsAre("clone", "cgroup", "namespaces", "mounts",
                                 "stdio", "security", "exec"));
  EXPECT_OK(process.Wait());
}

// ---- Processes -------------------------------------------------------------

TEST_F(StartTest, WaitHasADeadlineAndManyWaiters) {
  ASSERT_OK_AND_ASSIGN(RootFs root, RootFs::Create(root_->Options()));
  ProcessSpec spec = Shell("read line; exit 9");
  spec.root = &root;
  spec.in = Stdio::Pipe();
  ASSERT_OK_AND_ASSIGN(Process process, launcher_->Start(spec));
  EXPECT_THAT(process.Wait(absl::Now()),
              StatusIs(absl::StatusCode::kDeadlineExceeded,
                       HasSubstr("still running")));
  std::vector<std::thread> waiters;
  for (int i = 0; i < 8; ++i) {
    waiters.emplace_back([&process] {
      auto status = process.Wait();
      ASSERT_OK(status);
      EXPECT_EQ(status->code, 9);
    });
  }
  UniqueFd input = process.TakeStdin();
  ASSERT_EQ(::write(input.get(), "\n", 1), 1);
  for (std::thread& waiter : waiters) waiter.join();
  ASSERT_OK_AND_ASSIGN(ExitStatus again, process.Wait());
  EXPECT_EQ(again.code, 9);
  EXPECT_THAT(process.Signal(SIGTERM),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("has ended")));
}

TEST_F(StartTest, DestroyingAProcessKillsIt) {
  ASSERT_OK_AND_ASSIGN(RootFs root, RootFs::Create(root_->Options()));
  ProcessSpec spec = Shell("sleep 1000");
  spec.root = &root;
  UniqueFd pidfd;
  {
    ASSERT_OK_AND_ASSIGN(Process process, launcher_->Start(spec));
    ASSERT_OK_AND_ASSIGN(pidfd, sys::Duplicate(process.pidfd()));
  }
  pollfd poll = {pidfd.get(), POLLIN, 0};
  EXPECT_EQ(::poll(&poll, 1, 10000), 1);
}

TEST_F(StartTest, KilledFromOutside) {
  ASSERT_OK_AND_ASSIGN(RootFs root, RootFs::Create(root_->Options()));
  ProcessSpec spec = Shell("sleep 1000");
  spec.root = &root;
  ASSERT_OK_AND_ASSIGN(Process process, launcher_->Start(spec));
  ASSERT_OK(process.Signal(SIGKILL));
  ASSERT_OK_AND_ASSIGN(ExitStatus status, process.Wait());
  EXPECT_EQ(status.signal, SIGKILL);
  EXPECT_EQ(status.shell_code(), 137);
  EXPECT_EQ(status.ToString(), "killed by signal 9 (SIGKILL)");
}

TEST_F(StartTest, RootStartsOnce) {
  ASSERT_OK_AND_ASSIGN(RootFs root, RootFs::Create(root_->Options()));
  ProcessSpec spec = Shell("exit 0");
  spec.root = &root;
  ASSERT_OK_AND_ASSIGN(Process process, launcher_->Start(spec));
  EXPECT_THAT(
      launcher_->Start(spec).status(),
      StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("RootFs")));
  EXPECT_OK(process.Wait());
}

TEST_F(StartTest, ManyAtOnceFromManyThreads) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 6; ++t) {
    threads.emplace_back([t] {
      for (int i = 0; i < 10; ++i) {
        auto outcome = Run(Shell(absl::StrCat("exit ", t * 10 + i)));
        ASSERT_OK(outcome);
        EXPECT_EQ(outcome->status.code, t * 10 + i);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// ---- Terminals -------------------------------------------------------------

class TerminalTest : public StartTest {
 protected:
  // Reads from the terminal until `text` has appeared.
  static std::string ReadUntil(const Process& process,
                               const std::string& text) {
    std::string seen;
    while (!absl::StrContains(seen, text)) {
      pollfd poll = {process.terminal().get(), POLLIN, 0};
      char buffer[4096];
      if (::poll(&poll, 1, 20000) != 1) break;
      const ssize_t n =
          ::read(process.terminal().get(), buffer, sizeof(buffer));
      if (n <= 0) break;
      seen.append(buffer, static_cast<size_t>(n));
    }
    EXPECT_THAT(seen, HasSubstr(text));
    return seen;
  }

  static void Type(const Process& process, const std::string& text) {
    ASSERT_EQ(::write(process.terminal().get(), text.data(), text.size()),
              static_cast<ssize_t>(text.size()));
  }
};

TEST_F(TerminalTest, BelongsToTheContainerAndResizes) {
  ASSERT_OK_AND_ASSIGN(RootFs root, RootFs::Create(root_->Options()));
  ProcessSpec spec;
  spec.argv = {"sh"};
  spec.root = &root;
  spec.terminal = TerminalSize{.rows = 33, .columns = 99};
  ASSERT_OK_AND_ASSIGN(Process process, launcher_->Start(spec));
  Type(process, "stty -echo; tty; stty size; echo $TERM\n");
  const std::string first = ReadUntil(process, "xterm");
  EXPECT_THAT(first, HasSubstr("/dev/pts/0"));
  EXPECT_THAT(first, HasSubstr("33 99"));
  ASSERT_OK(process.ResizeTerminal({.rows = 44, .columns = 111}));
  Type(process, "stty size; echo console > /dev/console\n");
  EXPECT_THAT(ReadUntil(process, "console"), HasSubstr("44 111"));
  // Ctrl-C ends sleep, not the shell. (The shell takes it for an editing
  // command until it runs something.)
  Type(process, "sh -c 'echo asl\"\"eep; exec sleep 1000'\n");
  ReadUntil(process, "asleep");
  Type(process, "\003");
  ReadUntil(process, "# ");
  // What is typed before the prompt may be dropped.
  Type(process, "exit 5\n");
  ASSERT_OK_AND_ASSIGN(ExitStatus status,
                       process.Wait(absl::Now() + absl::Seconds(20)));
  EXPECT_EQ(status.code, 5);
}

TEST_F(TerminalTest, BelongsToTheUser) {
  ASSERT_OK_AND_ASSIGN(RootFs root, RootFs::Create(root_->Options()));
  ProcessSpec spec = Shell("stat -c '%u %a' $(tty); echo done");
  spec.user = "user";
  spec.root = &root;
  spec.terminal = TerminalSize{};
  ASSERT_OK_AND_ASSIGN(Process process, launcher_->Start(spec));
  EXPECT_THAT(ReadUntil(process, "done"), HasSubstr("1000 620"));
  EXPECT_OK(process.Wait());
}

TEST_F(TerminalTest, StreamsAndTerminalExcludeEachOther) {
  ASSERT_OK_AND_ASSIGN(RootFs root, RootFs::Create(root_->Options()));
  ProcessSpec spec = Shell("exit 0");
  spec.root = &root;
  spec.terminal = TerminalSize{};
  spec.out = Stdio::Pipe();
  EXPECT_THAT(launcher_->Start(spec).status(),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("ProcessSpec.terminal")));
}

// ---- Control groups --------------------------------------------------------

class CgroupStartTest : public StartTest {
 protected:
  absl::StatusOr<Cgroup> Make(const CgroupLimits& limits) {
    if (!parent_.has_value()) {
      ASSIGN_OR_RETURN(parent_, CgroupParent::Open({.path = CgroupPath()}));
    }
    return parent_->Create({.name = "c",
                            .limits = limits,
                            .controllers = {CgroupController::kMemory}});
  }
  void TearDown() override {
    parent_.reset();
    StartTest::TearDown();
  }

  std::optional<CgroupParent> parent_;
};

TEST_F(CgroupStartTest, ProcessIsInItsGroupAndSeesItAsTheRoot) {
  ASSERT_OK_AND_ASSIGN(Cgroup cgroup,
                       Make({.memory_max = 64 << 20, .pids_max = 20}));
  ProcessSpec spec = Shell("cat /proc/self/cgroup");
  spec.cgroup = &cgroup;
  ASSERT_OK_AND_ASSIGN(Outcome outcome, Run(std::move(spec)));
  if (::access("/sys/fs/cgroup/cgroup.controllers", F_OK) == 0) {
    EXPECT_EQ(outcome.output, "0::/\n");  // v2 alone
  } else {
    EXPECT_THAT(outcome.output, HasSubstr(":memory:/\n"));
    EXPECT_THAT(outcome.output, HasSubstr(":pids:/\n"));
  }
  EXPECT_THAT(outcome.output, Not(HasSubstr("caisson")));
  EXPECT_OK(cgroup.Destroy());
}

TEST_F(CgroupStartTest, OutOfMemoryIsKnown) {
  ASSERT_OK_AND_ASSIGN(Cgroup cgroup,
                       Make({.memory_max = 24 << 20, .memory_swap_max = 0}));
  ProcessSpec spec;
  spec.argv = {"tail", "/dev/zero"};
  spec.cgroup = &cgroup;
  ASSERT_OK_AND_ASSIGN(Outcome outcome, Run(std::move(spec)));
  EXPECT_EQ(outcome.status.signal, SIGKILL);
  ASSERT_OK_AND_ASSIGN(const int64_t kills, cgroup.OomKills());
  EXPECT_GE(kills, 1);
  EXPECT_OK(cgroup.Destroy());
}

TEST_F(CgroupStartTest, ProcessLimitStopsForks) {
  ASSERT_OK_AND_ASSIGN(Cgroup cgroup, Make({.pids_max = 4}));
  ProcessSpec spec =
      Shell("for i in 1 2 3 4 5 6 7 8; do sleep 100 & done; echo unreachable");
  spec.cgroup = &cgroup;
  ASSERT_OK_AND_ASSIGN(Outcome outcome, Run(std::move(spec)));
  EXPECT_THAT(outcome.output, HasSubstr("can't fork"));
  EXPECT_THAT(outcome.output, Not(HasSubstr("unreachable")));
  EXPECT_OK(cgroup.Destroy());
}

TEST_F(CgroupStartTest, LimitTooSmallToStartIsExplained) {
  ASSERT_OK_AND_ASSIGN(Cgroup cgroup,
                       Make({.memory_max = 4096, .memory_swap_max = 0}));
  ProcessSpec spec = Shell("exit 0");
  spec.cgroup = &cgroup;
  const auto outcome = Run(std::move(spec));
  if (outcome.ok()) {
    EXPECT_EQ(outcome->status.signal, SIGKILL);
  } else {
    EXPECT_THAT(outcome.status(),
                StatusIs(absl::StatusCode::kAborted,
                         AllOf(HasSubstr("killed by signal 9 (SIGKILL)"),
                               HasSubstr("memory limit"))));
  }
  EXPECT_OK(cgroup.Destroy());
}

TEST_F(CgroupStartTest, RemovedGroupIsAnError) {
  ASSERT_OK_AND_ASSIGN(Cgroup cgroup, Make({.memory_max = 64 << 20}));
  ASSERT_OK(cgroup.Destroy());
  ProcessSpec spec = Shell("exit 0");
  spec.cgroup = &cgroup;
  EXPECT_FALSE(Run(std::move(spec)).ok());
}

// ---- Bad input -------------------------------------------------------------

TEST_F(StartTest, MissingProgram) {
  ProcessSpec spec;
  spec.argv = {"nonesuch"};
  const absl::Status status = Run(spec).status();
  EXPECT_THAT(status,
              StatusIs(absl::StatusCode::kNotFound,
                       HasSubstr("executable file not found in $PATH")));
  EXPECT_EQ(ExecFailure(status), 127);
  spec.argv = {"/bin/nonesuch"};
  EXPECT_EQ(ExecFailure(Run(spec).status()), 127);
}

TEST_F(StartTest, MissingElfInterpreterIsNamed) {
  root_->Write("bin/dynamic", "", 0755);
  {
    std::ifstream from("/bin/ls", std::ios::binary);
    std::ofstream to(root_->path() + "/bin/dynamic", std::ios::binary);
    to << from.rdbuf();
  }
  ProcessSpec spec;
  spec.argv = {"dynamic"};
  const absl::Status status = Run(spec).status();
  EXPECT_THAT(status,
              StatusIs(absl::StatusCode::kNotFound,
                       AllOf(HasSubstr("execve(\"/bin/dynamic\"): ENOENT"),
                             HasSubstr("ELF interpreter \"/lib"),
                             HasSubstr("does not exist in the root"))));
  EXPECT_EQ(ExecFailure(status), 127);
  ::unlink((root_->path() + "/bin/dynamic").c_str());
}

TEST_F(StartTest, ProgramThatIsNone) {
  root_->Write("bin/text", "hello\n", 0755);
  root_->Write("bin/data", "hello\n", 0644);
  ProcessSpec spec;
  spec.argv = {"text"};
  EXPECT_EQ(ExecFailure(Run(spec).status()), 126);
  spec.argv = {"data"};
  const absl::Status denied = Run(spec).status();
  EXPECT_EQ(ExecFailure(denied), 126);
  EXPECT_THAT(std::string(denied.message()), HasSubstr("not executable"));
  spec.argv = {"/etc"};
  EXPECT_EQ(ExecFailure(Run(spec).status()), 126);
  ::unlink((root_->path() + "/bin/text").c_str());
  ::unlink((root_->path() + "/bin/data").c_str());
}

TEST_F(StartTest, UnknownUser) {
  ProcessSpec spec = Shell("exit 0");
  spec.user = "nobody-here";
  const absl::Status status = Run(spec).status();
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kNotFound,
                               HasSubstr("user \"nobody-here\" is not in the "
                                         "root's /etc/passwd")));
  EXPECT_EQ(ExecFailure(status), 0);
}

TEST_F(StartTest, BadSpecsNameTheField) {
  struct {
    const char* field;
    ProcessSpec spec;
  } cases[] = {
      {"ProcessSpec.argv", {}},
      {"ProcessSpec.argv", {.argv = {std::string("a\0b", 3)}}},
      {"ProcessSpec.env", {.argv = {"a"}, .env = {"novalue"}}},
      {"ProcessSpec.env", {.argv = {"a"}, .env = {"=x"}}},
      {"ProcessSpec.cwd", {.argv = {"a"}, .cwd = "relative"}},
      {"PATH", {.argv = {"a"}, .env = {"PATH="}}},
  };
  for (const auto& test : cases) {
    EXPECT_THAT(
        Run(test.spec).status(),
        StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(test.field)));
  }
  ProcessSpec no_root = Shell("exit 0");
  EXPECT_THAT(launcher_->Start(no_root).status(),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("ProcessSpec.root")));
}

TEST_F(StartTest, MissingWorkingDirectory) {
  ProcessSpec spec = Shell("exit 0");
  spec.cwd = "/no/such";
  EXPECT_THAT(Run(spec).status(),
              StatusIs(absl::StatusCode::kNotFound,
                       HasSubstr("chdir(\"/no/such\"): ENOENT")));
}

TEST_F(StartTest, TooManyArguments) {
  ProcessSpec spec = Shell("exit 0");
  spec.argv.push_back(std::string(200 << 10, 'x'));
  EXPECT_THAT(std::string(Run(spec).status().message()), HasSubstr("E2BIG"));
}

// ---- Attacks ---------------------------------------------------------------

TEST_F(StartTest, WorkingDirectoryIsNeverADescriptor) {
  // CVE-2024-21626, for every descriptor that could be open.
  for (int fd = 0; fd < 64; ++fd) {
    for (const char* process : {"self", "thread-self", "1"}) {
      ProcessSpec spec = Shell("pwd; ls");
      spec.cwd = absl::StrCat("/proc/", process, "/fd/", fd);
      EXPECT_FALSE(Run(spec).ok()) << spec.cwd;
    }
  }
}

TEST_F(StartTest, ProgramIsNeverADescriptor) {
  for (int fd = 0; fd < 32; ++fd) {
    ProcessSpec spec;
    spec.argv = {absl::StrCat("/proc/self/fd/", fd, "/bin/sh"), "-c", "true"};
    EXPECT_FALSE(Run(spec).ok()) << spec.argv[0];
  }
}

TEST_F(StartTest, WhatAnUntrustedProgramTriesIsRefused) {
  const struct {
    const char* name;
    const char* script;  // prints "broken" if it gets through
  } attempts[] = {
      {"mount", "mount -t tmpfs none /tmp && echo broken"},
      {"write sysctl", "echo x > /proc/sys/kernel/hostname && echo broken"},
      {"sysrq", "echo b > /proc/sysrq-trigger && echo broken"},
      // /dev/full, which the host itself can open: only the container may not.
      {"device node", "mknod /tmp/full c 1 7 && echo broken"},
      {"device node in /dev", "mknod /dev/mine c 1 7 && echo broken"},
      {"kcore", "head -c 1 /proc/kcore | grep . && echo broken"},
      {"keys", "grep . /proc/keys && echo broken"},
      {"sys write", "touch /sys/kernel/x && echo broken"},
      {"host files",
       "test -e /proc/1/root/../../../caisson-secret && echo "
       "broken; test -e /../../caisson-secret && echo broken"},
      {"remount", "mount -o remount,rw /sys && echo broken"},
  };
  const std::string secret = "/caisson-secret";
  ASSERT_TRUE(
      UniqueFd(::open(secret.c_str(), O_CREAT | O_CLOEXEC, 0666)).valid());
  for (const auto& attempt : attempts) {
    EXPECT_THAT(Output(attempt.script), Not(HasSubstr("broken")))
        << attempt.name;
  }
  ::unlink(secret.c_str());
}

TEST_F(StartTest, DeviceNodesOfAnImageOpenNothing) {
  const std::string node = root_->path() + "/bin/evil";
  ASSERT_EQ(::mknod(node.c_str(), S_IFCHR | 0666, makedev(1, 5)), 0);
  ASSERT_TRUE(UniqueFd(::open(node.c_str(), O_RDONLY | O_CLOEXEC)).valid());
  const std::string shared = root_->path() + "/../shared-node";
  ASSERT_EQ(::mknod(shared.c_str(), S_IFCHR | 0666, makedev(1, 5)), 0);
  RootFsOptions options = root_->Options();
  options.binds.push_back({.destination = "/node", .source = shared});
  ASSERT_OK_AND_ASSIGN(
      Outcome outcome,
      Run(Shell("head -c 1 /bin/evil && echo broken; head -c 1 /node && echo "
                "broken; head -c 1 /dev/zero | wc -c"),
          options));
  EXPECT_THAT(outcome.output, Not(HasSubstr("broken")));
  EXPECT_THAT(outcome.output, HasSubstr("Permission denied"));
  EXPECT_THAT(outcome.output, HasSubstr("1\n"));
  ::unlink(node.c_str());
  ::unlink(shared.c_str());
}

TEST_F(StartTest, ReadOnlyRoot) {
  RootFsOptions options = root_->Options();
  options.read_only = true;
  ASSERT_OK_AND_ASSIGN(
      Outcome outcome,
      Run(Shell("touch /x || echo refused; touch /dev/shm/x && echo shm"),
          options));
  EXPECT_THAT(outcome.output, HasSubstr("refused\nshm\n"));
}

TEST_F(StartTest, HostsNullDeviceIsNotTheContainers) {
  struct stat before, after;
  ASSERT_EQ(::stat("/dev/null", &before), 0);
  Run(Shell("chmod 0 /proc/self/fd/0; chmod 0 /dev/null; chown 5 /dev/null"))
      .status()
      .IgnoreError();
  ProcessSpec spec = Shell("chmod 0 /proc/self/fd/0 /proc/self/fd/1");
  ASSERT_OK_AND_ASSIGN(RootFs root, RootFs::Create(root_->Options()));
  spec.root = &root;
  ASSERT_OK_AND_ASSIGN(Process process, launcher_->Start(spec));
  EXPECT_OK(process.Wait());
  ASSERT_EQ(::stat("/dev/null", &after), 0);
  EXPECT_EQ(before.st_mode, after.st_mode);
  EXPECT_EQ(before.st_uid, after.st_uid);
}

TEST_F(StartTest, BadInheritedStreamsAreRefused) {
  UniqueFd directory(::open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  UniqueFd path(::open("/etc/passwd", O_PATH | O_CLOEXEC));
  for (const int fd : {directory.get(), path.get(), -1, 9999}) {
    ASSERT_OK_AND_ASSIGN(RootFs root, RootFs::Create(root_->Options()));
    ProcessSpec spec = Shell("exit 0");
    spec.root = &root;
    spec.in = Stdio::Inherit(BorrowedFd(fd));
    EXPECT_THAT(launcher_->Start(spec).status(),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("stream 0 of ProcessSpec")));
    // Nothing was used up, and the launcher is well.
    spec.in = Stdio::Null();
    ASSERT_OK_AND_ASSIGN(Process process, launcher_->Start(spec));
    EXPECT_OK(process.Wait());
  }
}

TEST_F(StartTest, UsersCanReopenTheirPipes) {
  ASSERT_OK_AND_ASSIGN(RootFs root, RootFs::Create(root_->Options()));
  ProcessSpec spec = Shell("echo again > /dev/stdout");
  spec.user = "user";
  spec.root = &root;
  spec.out = Stdio::Pipe();
  ASSERT_OK_AND_ASSIGN(Process process, launcher_->Start(spec));
  UniqueFd out = process.TakeStdout();
  ASSERT_OK_AND_ASSIGN(const std::string output,
                       sys::ReadAll(out.borrow(), 1 << 20, "output"));
  EXPECT_EQ(output, "again\n");
  EXPECT_OK(process.Wait());
}

// ---- Death -----------------------------------------------------------------

// Starts a sleeping container in a forked host and returns its pid.
pid_t StartInForkedHost(const TestRoot& directory,
                        const std::string& cgroup_path, pid_t* host) {
  int fds[2];
  if (::pipe2(fds, O_CLOEXEC) != 0) return -1;
  *host = ::fork();
  if (*host == 0) {
    auto launcher = Launcher::Create();
    auto parent = CgroupParent::Open({.path = cgroup_path});
    auto root = RootFs::Create(directory.Options());
    if (!launcher.ok() || !parent.ok() || !root.ok()) ::_exit(1);
    auto cgroup = parent->Create({.name = "c", .limits = {.pids_max = 10}});
    if (!cgroup.ok()) ::_exit(2);
    ProcessSpec spec;
    spec.argv = {"sh", "-c", "sleep 1000 & sleep 1000"};
    spec.root = &*root;
    spec.cgroup = &*cgroup;
    auto process = launcher->Start(spec);
    if (!process.ok()) ::_exit(3);
    const pid_t pid = process->pid();
    if (::write(fds[1], &pid, sizeof(pid)) != sizeof(pid)) ::_exit(4);
    ::pause();
  }
  ::close(fds[1]);
  pid_t pid = -1;
  if (::read(fds[0], &pid, sizeof(pid)) != sizeof(pid)) pid = -1;
  ::close(fds[0]);
  return pid;
}

TEST_F(StartTest, KillOfTheHostEndsTheContainerAndRecoverCleansUp) {
  pid_t host = 0;
  const pid_t pid = StartInForkedHost(*root_, CgroupPath(), &host);
  ASSERT_GT(pid, 0);
  UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  ASSERT_TRUE(pidfd.valid());
  ASSERT_EQ(::kill(host, SIGKILL), 0);
  ASSERT_EQ(::waitpid(host, nullptr, 0), host);
  pollfd poll = {pidfd.get(), POLLIN, 0};
  EXPECT_EQ(::poll(&poll, 1, 10000), 1);
  ASSERT_OK_AND_ASSIGN(const std::vector<std::string> removed,
                       CgroupParent::Recover({.path = CgroupPath()}));
  EXPECT_FALSE(removed.empty());
}

TEST_F(StartTest, KillOfTheLauncherEndsTheContainerWithATypedError) {
  ASSERT_OK_AND_ASSIGN(Launcher launcher, Launcher::Create());
  ASSERT_OK_AND_ASSIGN(RootFs root, RootFs::Create(root_->Options()));
  ProcessSpec spec = Shell("sleep 1000");
  spec.root = &root;
  ASSERT_OK_AND_ASSIGN(Process process, launcher.Start(spec));
  ASSERT_EQ(::syscall(SYS_pidfd_send_signal, launcher.pidfd().get(), SIGKILL,
                      nullptr, 0),
            0);
  const auto status = process.Wait(absl::Now() + absl::Seconds(10));
  if (status.ok()) {
    EXPECT_EQ(status->signal, SIGKILL);  // the kernel still knew
  } else {
    EXPECT_THAT(status, StatusIs(absl::StatusCode::kUnavailable,
                                 HasSubstr("launcher died")));
  }
  ASSERT_OK_AND_ASSIGN(RootFs next, RootFs::Create(root_->Options()));
  spec.root = &next;
  EXPECT_THAT(launcher.Start(spec).status(),
              StatusIs(absl::StatusCode::kUnavailable,
                       HasSubstr("create a new Launcher")));
}

TEST_F(StartTest, KillOfTheLauncherEndsWhatChangedItsUser) {
  // A change of user takes the parent-death signal away.
  ASSERT_OK_AND_ASSIGN(Launcher launcher, Launcher::Create());
  ASSERT_OK_AND_ASSIGN(RootFs root, RootFs::Create(root_->Options()));
  ProcessSpec spec = Shell("echo ready; exec su user -c 'sleep 1000'");
  spec.root = &root;
  spec.out = Stdio::Pipe();
  ASSERT_OK_AND_ASSIGN(Process process, launcher.Start(spec));
  UniqueFd out = process.TakeStdout();
  char byte;
  ASSERT_EQ(::read(out.get(), &byte, 1), 1);
  ASSERT_EQ(::syscall(SYS_pidfd_send_signal, launcher.pidfd().get(), SIGKILL,
                      nullptr, 0),
            0);
  pollfd poll = {process.pidfd().get(), POLLIN, 0};
  EXPECT_EQ(::poll(&poll, 1, 10000), 1);
}

TEST_F(StartTest, ForkedCopyOfTheHostDisturbsNothing) {
  ASSERT_OK_AND_ASSIGN(Launcher launcher, Launcher::Create());
  ASSERT_OK_AND_ASSIGN(RootFs root, RootFs::Create(root_->Options()));
  ProcessSpec spec = Shell("read line; exit 6");
  spec.root = &root;
  spec.in = Stdio::Pipe();
  ASSERT_OK_AND_ASSIGN(Process process, launcher.Start(spec));
  UniqueFd in = process.TakeStdin();
  const pid_t copy = ::fork();
  if (copy == 0) {
    { Process gone = std::move(process); }
    { Launcher gone = std::move(launcher); }
    ::_exit(0);
  }
  ASSERT_EQ(::waitpid(copy, nullptr, 0), copy);
  ASSERT_EQ(::write(in.get(), "\n", 1), 1);
  ASSERT_OK_AND_ASSIGN(ExitStatus status, process.Wait());
  EXPECT_EQ(status.code, 6);
}

TEST_F(StartTest, ShutdownEndsEverything) {
  ASSERT_OK_AND_ASSIGN(Launcher launcher, Launcher::Create());
  ASSERT_OK_AND_ASSIGN(RootFs root, RootFs::Create(root_->Options()));
  ProcessSpec spec = Shell("sleep 1000");
  spec.root = &root;
  ASSERT_OK_AND_ASSIGN(Process process, launcher.Start(spec));
  ASSERT_OK(launcher.Shutdown());
  ASSERT_OK_AND_ASSIGN(ExitStatus status, process.Wait(absl::Now()));
  EXPECT_EQ(status.signal, SIGKILL);
  ASSERT_OK(launcher.Shutdown());
}

}  // namespace
}  // namespace caisson
