// What a single process can be given: limits, scheduling, streams, descriptors.
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "caisson/caisson.h"
#include "lib/sys/open.h"
#include "tests/support/container_test.h"

namespace caisson {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

class ProcessTest : public testing::ContainerTest {
 protected:
  static std::string OutputOf(const ProcessSpec& spec) {
    auto outcome = Run(spec);
    EXPECT_OK(outcome);
    return outcome.ok() ? outcome->output : "";
  }

  static absl::Status Error(const ProcessSpec& spec) {
    return Run(spec).status();
  }
};

// ---- The program -----------------------------------------------------------

TEST_F(ProcessTest, Argv0IsFreeWithAnExecutable) {
  ProcessSpec spec = Shell("echo $0");
  spec.argv[0] = "busybox-by-another-name";
  spec.executable = "/bin/busybox";
  // busybox looks at argv[0] for the applet and finds none.
  ASSERT_OK_AND_ASSIGN(Outcome outcome, Run(spec));
  EXPECT_THAT(outcome.output, HasSubstr("applet not found"));
  spec.argv = {"-sh", "-c", "echo $0"};
  EXPECT_EQ(OutputOf(spec), "-sh\n");
}

TEST_F(ProcessTest, ProgramByDescriptor) {
  ASSERT_OK_AND_ASSIGN(
      const std::string busybox,
      sys::ReadFileAt(BorrowedFd(AT_FDCWD), "/bin/busybox", 0, 16 << 20));
  UniqueFd sealed(::memfd_create("program", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_OK(sys::WriteAll(sealed.borrow(), busybox, "memfd"));
  ASSERT_EQ(::fcntl(sealed.get(), F_ADD_SEALS,
                    F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL),
            0);
  ProcessSpec spec = Shell("echo by descriptor; echo x > /proc/self/exe");
  spec.executable_fd = sealed.borrow();
  const std::string output = OutputOf(spec);
  EXPECT_THAT(output, HasSubstr("by descriptor\n"));
  EXPECT_THAT(output, HasSubstr("can't create /proc/self/exe"));
}

TEST_F(ProcessTest, ProgramByDescriptorIsAFile) {
  ASSERT_OK_AND_ASSIGN(UniqueFd directory, sys::Open("/", O_PATH));
  ProcessSpec spec = Shell("true");
  spec.executable_fd = directory.borrow();
  EXPECT_THAT(Error(spec), StatusIs(absl::StatusCode::kInvalidArgument,
                                    HasSubstr("no open regular file")));
}

TEST_F(ProcessTest, UmaskAndGroups) {
  ProcessSpec spec = Shell("umask; id -G");
  spec.user = "1000:1000";
  spec.umask = 0077;
  spec.additional_groups = {"4242", "root", "4242"};
  EXPECT_EQ(OutputOf(spec), "0077\n1000 0 4242\n");
  spec.additional_groups = {"nobody-knows-it"};
  EXPECT_THAT(Error(spec),
              StatusIs(absl::StatusCode::kNotFound,
                       HasSubstr("ProcessSpec.additional_groups: group "
                                 "\"nobody-knows-it\" is not in the root's")));
}

// ---- Limits ----------------------------------------------------------------

TEST_F(ProcessTest, LimitsAreSet) {
  ProcessSpec spec = Shell("ulimit -Sn; ulimit -Hn; ulimit -Sf; ulimit -Sc");
  spec.limits = {{.name = "RLIMIT_NOFILE", .soft = 100, .hard = 200},
                 {.name = "fsize", .soft = 1 << 20, .hard = 2 << 20},
                 {.name = "core", .soft = 0, .hard = 0}};
  EXPECT_EQ(OutputOf(spec), "100\n200\n2048\n0\n");
}

TEST_F(ProcessTest, LimitsOfTheHostArePassedOn) {
  rlimit host;
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &host), 0);
  EXPECT_EQ(Output("ulimit -Sn; ulimit -Hn"),
            absl::StrCat(host.rlim_cur, "\n", host.rlim_max, "\n"));
}

TEST_F(ProcessTest, LimitThatTheHostMayNotGrantIsLeftOutAndReported) {
  // CAP_SYS_RESOURCE may be there; a process without it asks for more.
  rlimit host;
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &host), 0);
  ASSERT_OK_AND_ASSIGN(RootFs root, RootFs::Create(root_->Options()));
  ProcessSpec spec = Shell("exit 0");
  spec.root = &root;
  spec.limits = {
      {.name = "nofile", .soft = host.rlim_max + 1, .hard = host.rlim_max + 2}};
  absl::StatusOr<Process> process = absl::UnknownError("not run");
  std::thread([&] {
    // Capabilities are those of a thread.
    struct {
      uint32_t version;
      int pid;
    } header = {0x20080522, 0};
    uint32_t sets[2][3];
    ASSERT_EQ(::syscall(SYS_capget, &header, sets), 0);
    sets[0][0] &= ~(1u << 24);
    ASSERT_EQ(::syscall(SYS_capset, &header, sets), 0);
    process = launcher_->Start(spec);
  }).join();
  ASSERT_OK(process);
  EXPECT_THAT(process->omissions(), ElementsAre(HasSubstr("RLIMIT_NOFILE: ")));
  ASSERT_OK_AND_ASSIGN(ExitStatus status, process->Wait());
  EXPECT_TRUE(status.success());
}

TEST_F(ProcessTest, BadLimitsNameTheField) {
  ProcessSpec spec = Shell("true");
  spec.limits = {{.name = "RLIMIT_LUCK", .soft = 1, .hard = 1}};
  EXPECT_THAT(Error(spec), StatusIs(absl::StatusCode::kInvalidArgument,
                                    HasSubstr("\"RLIMIT_LUCK\" is no limit")));
  spec.limits = {{.name = "nofile", .soft = 2, .hard = 1}};
  EXPECT_THAT(Error(spec), StatusIs(absl::StatusCode::kInvalidArgument,
                                    HasSubstr("above its hard limit")));
}

TEST_F(ProcessTest, OomScore) {
  ProcessSpec spec = Shell("cat /proc/self/oom_score_adj");
  spec.oom_score_adj = 555;
  EXPECT_EQ(OutputOf(spec), "555\n");
  spec.oom_score_adj = 1001;
  EXPECT_THAT(Error(spec), StatusIs(absl::StatusCode::kInvalidArgument,
                                    HasSubstr("from -1000 to 1000")));
}

TEST_F(ProcessTest, OomScoreBelowWhatTheHostMayGiveIsReported) {
  ASSERT_OK_AND_ASSIGN(RootFs root, RootFs::Create(root_->Options()));
  ProcessSpec spec = Shell("cat /proc/self/oom_score_adj");
  spec.root = &root;
  spec.oom_score_adj = -999;
  spec.out = Stdio::Pipe();
  ASSERT_OK_AND_ASSIGN(Process process, launcher_->Start(spec));
  const UniqueFd output = process.TakeStdout();
  ASSERT_OK_AND_ASSIGN(const std::string score,
                       sys::ReadAll(output.borrow(), 100, "output"));
  if (score == "-999\n") {
    EXPECT_THAT(process.omissions(), IsEmpty());
  } else {
    EXPECT_THAT(process.omissions(), ElementsAre(HasSubstr("oom_score_adj: ")));
  }
  EXPECT_OK(process.Wait());
}

// ---- Scheduling ------------------------------------------------------------

TEST_F(ProcessTest, NiceAffinityAndIoPriority) {
  ProcessSpec spec = Shell(
      "set -- $(cat /proc/self/stat); echo ${19}; "
      "grep Cpus_allowed_list /proc/self/status; ionice -p $$");
  spec.scheduling.nice = 7;
  spec.scheduling.cpus = {1};
  spec.scheduling.io = {.io_class = IoClass::kBestEffort, .level = 6};
  EXPECT_EQ(OutputOf(spec), "7\nCpus_allowed_list:\t1\nbest-effort: prio 6\n");
}

TEST_F(ProcessTest, SchedulerPolicies) {
  ProcessSpec spec = Shell("set -- $(cat /proc/self/stat); echo ${41}");
  spec.scheduling.scheduler = {.policy = SchedulerPolicy::kBatch};
  EXPECT_EQ(OutputOf(spec), "3\n");
  spec.scheduling.scheduler = {.policy = SchedulerPolicy::kIdle};
  EXPECT_EQ(OutputOf(spec), "5\n");
}

TEST_F(ProcessTest, DeadlineSchedulerIsSetOrItsRefusalExplained) {
  ProcessSpec spec = Shell("set -- $(cat /proc/self/stat); echo ${41}");
  spec.scheduling.scheduler = {.policy = SchedulerPolicy::kDeadline,
                               .runtime = absl::Milliseconds(10),
                               .deadline = absl::Milliseconds(50),
                               .period = absl::Milliseconds(100),
                               .reset_on_fork = true};
  auto outcome = Run(spec);
  if (outcome.ok()) {
    EXPECT_EQ(outcome->status.code, 0);
  } else {
    // Not admitted by this machine.
    EXPECT_THAT(outcome.status().message(), HasSubstr("sched_setattr()"));
  }
  spec.scheduling.scheduler->runtime = absl::Milliseconds(60);
  EXPECT_THAT(Error(spec), StatusIs(absl::StatusCode::kInvalidArgument,
                                    HasSubstr("runtime <= deadline")));
}

TEST_F(ProcessTest, MemoryPolicy) {
  ProcessSpec spec = Shell("head -n 1 /proc/self/numa_maps");
  spec.scheduling.memory = {.mode = MemoryPolicyMode::kBind, .nodes = {0}};
  EXPECT_THAT(OutputOf(spec), HasSubstr(" bind:0 "));
  spec.scheduling.memory->nodes = {900};
  EXPECT_THAT(Error(spec).message(), HasSubstr("set_mempolicy()"));
  spec.scheduling.memory->nodes = {};
  EXPECT_THAT(Error(spec), StatusIs(absl::StatusCode::kInvalidArgument,
                                    HasSubstr("nodes are missing")));
}

TEST_F(ProcessTest, CoreSchedulingIsSetOrItsRefusalExplained) {
  ProcessSpec spec = Shell("exit 4");
  spec.scheduling.own_core_group = true;
  auto outcome = Run(spec);
  if (outcome.ok()) {
    EXPECT_EQ(outcome->status.code, 4);
  } else {
    EXPECT_THAT(outcome.status().message(), HasSubstr("PR_SCHED_CORE_CREATE"));
  }
}

TEST_F(ProcessTest, PersonalityChangesTheMachine) {
  ProcessSpec spec = Shell("uname -m");
  spec.personality = 8;  // PER_LINUX32
  EXPECT_EQ(OutputOf(spec), "i686\n");
}

TEST_F(ProcessTest, ImpossibleSchedulingNamesTheField) {
  ProcessSpec spec = Shell("true");
  spec.scheduling.nice = 20;
  EXPECT_THAT(Error(spec), StatusIs(absl::StatusCode::kInvalidArgument,
                                    HasSubstr("scheduling.nice 20")));
  spec.scheduling.nice.reset();
  spec.scheduling.cpus = {8000};
  EXPECT_THAT(Error(spec).message(),
              HasSubstr("none of ProcessSpec.scheduling.cpus exists"));
}

// ---- Streams and descriptors -----------------------------------------------

TEST_F(ProcessTest, StreamsAreFiles) {
  const std::string in = root_->path() + "/../in.txt";
  const std::string out = root_->path() + "/../out.txt";
  for (const auto& [path, text] :
       {std::pair(in, "from a file\n"), std::pair(out, "before\n")}) {
    UniqueFd file(::open(path.c_str(), O_CREAT | O_WRONLY | O_TRUNC, 0600));
    ASSERT_OK(sys::WriteAll(file.borrow(), text, path));
  }
  ASSERT_OK_AND_ASSIGN(RootFs root, RootFs::Create(root_->Options()));
  ProcessSpec spec = Shell("cat; echo error >&2");
  spec.root = &root;
  spec.in = Stdio::File(in);
  spec.out = Stdio::File(out);
  spec.err = Stdio::LikeStdout();
  ASSERT_OK_AND_ASSIGN(Process process, launcher_->Start(spec));
  ASSERT_OK(process.Wait());
  ASSERT_OK_AND_ASSIGN(const std::string written,
                       sys::ReadFileAt(BorrowedFd(AT_FDCWD), out, 0, 1000));
  EXPECT_EQ(written, "before\nfrom a file\nerror\n");
  ::unlink(in.c_str());
  ::unlink(out.c_str());
}

TEST_F(ProcessTest, StreamFilesAreRegular) {
  ASSERT_OK_AND_ASSIGN(RootFs root, RootFs::Create(root_->Options()));
  ProcessSpec spec = Shell("true");
  spec.root = &root;
  spec.in = Stdio::File("/dev/zero");
  EXPECT_THAT(launcher_->Start(spec).status(),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("\"/dev/zero\" is no regular file")));
  spec.in = Stdio::LikeStdout();
  EXPECT_THAT(launcher_->Start(spec).status(),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("cannot be LikeStdout()")));
}

TEST_F(ProcessTest, DescriptorsHaveTheirNumbersAndNoOtherIsInherited) {
  UniqueFd one(::memfd_create("one", MFD_CLOEXEC));
  UniqueFd two(::memfd_create("two", MFD_CLOEXEC));
  ASSERT_OK(sys::WriteAll(one.borrow(), "one", "memfd"));
  ProcessSpec spec = Shell(
      "for fd in /proc/self/fd/*; do echo $fd $(readlink $fd); done; "
      "echo two >&255");
  // The numbers of the plan's own descriptors among them.
  spec.descriptors = {{.number = 3, .fd = one.borrow()},
                      {.number = 7, .fd = two.borrow()},
                      {.number = 255, .fd = two.borrow()}};
  const std::string output = OutputOf(spec);
  EXPECT_THAT(output, HasSubstr("/proc/self/fd/3 /memfd:one (deleted)\n"));
  EXPECT_THAT(output, HasSubstr("/proc/self/fd/7 /memfd:two (deleted)\n"));
  EXPECT_THAT(output, HasSubstr("/proc/self/fd/255 /memfd:two (deleted)\n"));
  // 0, 1, 2 and those three; the shell's own look at the directory is gone
  // when readlink runs.
  int count = 0;
  for (absl::string_view line : absl::StrSplit(output, '\n')) {
    if (!line.empty()) ++count;
  }
  EXPECT_LE(count, 7) << output;
  EXPECT_EQ(::lseek(two.get(), 0, SEEK_END), 4);
}

TEST_F(ProcessTest, EveryNumberWorks) {
  UniqueFd file(::memfd_create("file", MFD_CLOEXEC));
  ProcessSpec spec = Shell("ls /proc/self/fd | wc -l");
  for (int number = 3; number <= 120; ++number) {
    spec.descriptors.push_back({.number = number, .fd = file.borrow()});
  }
  // ls itself has the directory open.
  EXPECT_EQ(OutputOf(spec), "122\n");
}

TEST_F(ProcessTest, BadDescriptorsAreRefused) {
  ASSERT_OK_AND_ASSIGN(UniqueFd root, sys::Open("/", O_PATH));
  UniqueFd file(::memfd_create("file", MFD_CLOEXEC));
  ProcessSpec spec = Shell("true");
  spec.descriptors = {{.number = 3, .fd = root.borrow()}};
  EXPECT_THAT(Error(spec), StatusIs(absl::StatusCode::kInvalidArgument,
                                    HasSubstr("a way out of the root")));
  spec.descriptors = {{.number = 2, .fd = file.borrow()}};
  EXPECT_THAT(Error(spec), StatusIs(absl::StatusCode::kInvalidArgument,
                                    HasSubstr("not from 3 to 255")));
  spec.descriptors = {{.number = 5, .fd = file.borrow()},
                      {.number = 5, .fd = file.borrow()}};
  EXPECT_THAT(Error(spec), StatusIs(absl::StatusCode::kInvalidArgument,
                                    HasSubstr("number 5 is there twice")));
}

// ---- Two-phase start -------------------------------------------------------

TEST_F(ProcessTest, CreatedProcessRunsWhenItIsStarted) {
  ASSERT_OK_AND_ASSIGN(RootFs root, RootFs::Create(root_->Options()));
  ProcessSpec spec = Shell("exit 11");
  spec.root = &root;
  ASSERT_OK_AND_ASSIGN(Process process, launcher_->CreateProcess(spec));
  EXPECT_GT(process.pid(), 0);
  EXPECT_THAT(process.Wait(absl::Now() + absl::Milliseconds(50)),
              StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("")));
  // It sits in its root already.
  const std::string exe = absl::StrCat("/proc/", process.pid(), "/root/bin/sh");
  EXPECT_EQ(::access(exe.c_str(), F_OK), 0);
  ASSERT_OK(process.Start());
  ASSERT_OK_AND_ASSIGN(ExitStatus status, process.Wait());
  EXPECT_EQ(status.code, 11);
  EXPECT_THAT(process.latencies(), Not(IsEmpty()));
  EXPECT_THAT(process.Start(), StatusIs(absl::StatusCode::kFailedPrecondition,
                                        HasSubstr("started already")));
}

TEST_F(ProcessTest, CreatedProcessFailsAtItsStartAsAnyOther) {
  ASSERT_OK_AND_ASSIGN(RootFs root, RootFs::Create(root_->Options()));
  ProcessSpec spec;
  spec.argv = {"/bin/nothing"};
  spec.root = &root;
  ASSERT_OK_AND_ASSIGN(Process process, launcher_->CreateProcess(spec));
  const absl::Status status = process.Start();
  EXPECT_THAT(status,
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/bin/nothing")));
  EXPECT_EQ(ExecFailure(status), 127);
  EXPECT_OK(process.Wait());
}

TEST_F(ProcessTest, CreatedProcessEndsWithItsObject) {
  ASSERT_OK_AND_ASSIGN(RootFs root, RootFs::Create(root_->Options()));
  ProcessSpec spec = Shell("true");
  spec.root = &root;
  pid_t pid = 0;
  {
    ASSERT_OK_AND_ASSIGN(Process process, launcher_->CreateProcess(spec));
    pid = process.pid();
    ASSERT_OK(process.Destroy());
  }
  EXPECT_NE(::access(absl::StrCat("/proc/", pid).c_str(), F_OK), 0);
}

TEST_F(ProcessTest, CreatedProcessCanBeKilled) {
  ASSERT_OK_AND_ASSIGN(RootFs root, RootFs::Create(root_->Options()));
  ProcessSpec spec = Shell("true");
  spec.root = &root;
  ASSERT_OK_AND_ASSIGN(Process process, launcher_->CreateProcess(spec));
  ASSERT_OK(process.Signal(SIGKILL));
  ASSERT_OK_AND_ASSIGN(ExitStatus status, process.Wait());
  EXPECT_EQ(status.signal, SIGKILL);
  EXPECT_FALSE(process.Start().ok());
}

// ---- Signals ---------------------------------------------------------------

TEST_F(ProcessTest, StopSignalsAndWaits) {
  ASSERT_OK_AND_ASSIGN(
      Running running,
      StartUntilOutput(Shell("trap 'exit 5' TERM; echo; while :; do sleep 1 & "
                             "wait; done")));
  ASSERT_OK_AND_ASSIGN(ExitStatus status,
                       running.process->Stop(absl::Seconds(20)));
  EXPECT_EQ(status.code, 5);
  // Again: it has ended.
  ASSERT_OK_AND_ASSIGN(status, running.process->Stop(absl::Seconds(20)));
  EXPECT_EQ(status.code, 5);
}

TEST_F(ProcessTest, StopKillsAfterTheGrace) {
  ASSERT_OK_AND_ASSIGN(
      Running running,
      StartUntilOutput(Shell("trap '' TERM; echo; sleep 1000")));
  ASSERT_OK_AND_ASSIGN(ExitStatus status,
                       running.process->Stop(absl::Milliseconds(50)));
  EXPECT_EQ(status.signal, SIGKILL);
}

TEST_F(ProcessTest, SignalAllReachesEveryProcess) {
  ASSERT_OK_AND_ASSIGN(
      Running running,
      StartUntilOutput(
          Shell("trap 'echo first; seen=1' USR1; "
                "(trap 'echo second; exit' USR1; echo; while :; do sleep 1 & "
                "wait; done) & "
                "while [ -z \"$seen\" ]; do sleep 0.01; done; wait")));
  ASSERT_OK(running.process->SignalAll(SIGUSR1));
  ASSERT_OK_AND_ASSIGN(const std::string output,
                       sys::ReadAll(running.output.borrow(), 1000, "output"));
  EXPECT_THAT(output, HasSubstr("first"));
  EXPECT_THAT(output, HasSubstr("second"));
  EXPECT_OK(running.process->Wait());
  EXPECT_THAT(running.process->SignalAll(SIGUSR1),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("has ended")));
}

TEST_F(ProcessTest, SignalAllReachesTheProgramBelowAnInitOnce) {
  // wait(1) lets the trap run at once, so that two signals are two lines.
  ProcessSpec spec = Shell(
      "trap 'echo got it; seen=1' USR1; echo; "
      "while [ -z \"$seen\" ]; do sleep 1000 & wait $!; done; "
      "for i in 1 2 3; do sleep 0.1 & wait $!; done");
  spec.init = true;
  ASSERT_OK_AND_ASSIGN(Running running, StartUntilOutput(spec));
  ASSERT_OK(running.process->SignalAll(SIGUSR1));
  ASSERT_OK_AND_ASSIGN(const std::string output,
                       sys::ReadAll(running.output.borrow(), 1000, "output"));
  // (The shell may say what became of its sleep.)
  const size_t first = output.find("got it\n");
  ASSERT_NE(first, std::string::npos) << output;
  EXPECT_EQ(output.find("got it\n", first + 1), std::string::npos) << output;
  EXPECT_OK(running.process->Wait());
}

TEST_F(ProcessTest, PipesOfACreatedProcessEndWithIt) {
  ASSERT_OK_AND_ASSIGN(RootFs root, RootFs::Create(root_->Options()));
  ProcessSpec spec = Shell("true");
  spec.root = &root;
  spec.out = Stdio::Pipe();
  ASSERT_OK_AND_ASSIGN(Process process, launcher_->CreateProcess(spec));
  const UniqueFd output = process.TakeStdout();
  ASSERT_OK(process.Signal(SIGKILL));
  char c;
  EXPECT_EQ(::read(output.get(), &c, 1), 0);
  // Its start fails, and says the same as its wait.
  EXPECT_THAT(process.Start(), StatusIs(absl::StatusCode::kAborted,
                                        HasSubstr("killed by signal 9")));
  ASSERT_OK_AND_ASSIGN(ExitStatus status, process.Wait());
  EXPECT_EQ(status.signal, SIGKILL);
}

// ---- Init ------------------------------------------------------------------

TEST_F(ProcessTest, InitIsPidOneAndReapsOrphans) {
  ProcessSpec spec = Shell(
      "echo $$ $(cat /proc/1/comm); "
      // An orphan, which init must collect.
      "(sleep 0.05 & exec true); sleep 0.3; "
      "for p in /proc/[0-9]*; do grep -l '^State:.*zombie' $p/status; done; "
      "exit 6");
  spec.init = true;
  ASSERT_OK_AND_ASSIGN(Outcome outcome, Run(spec));
  EXPECT_EQ(outcome.status.code, 6);
  EXPECT_EQ(outcome.output, "2 caisson-init\n");
}

TEST_F(ProcessTest, InitForwardsSignals) {
  ProcessSpec spec = Shell(
      "trap 'exit 9' TERM; echo; while :; do sleep 1 & "
      "wait; done");
  spec.init = true;
  ASSERT_OK_AND_ASSIGN(Running running, StartUntilOutput(spec));
  ASSERT_OK(running.process->Signal(SIGTERM));
  ASSERT_OK_AND_ASSIGN(ExitStatus status, running.process->Wait());
  EXPECT_EQ(status.code, 9);
}

TEST_F(ProcessTest, InitTellsHowItsChildEnded) {
  ProcessSpec spec = Shell("kill -SEGV $$");
  spec.init = true;
  ASSERT_OK_AND_ASSIGN(Outcome outcome, Run(spec));
  EXPECT_EQ(outcome.status.signal, SIGSEGV);
  EXPECT_EQ(outcome.status.shell_code(), 139);
}

TEST_F(ProcessTest, InitOfAnotherUserForwardsAndHoldsNothing) {
  ProcessSpec spec = Shell(
      "trap 'exit 9' TERM; "
      "grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/1/status; "
      "ls /proc/1/fd 2>/dev/null | wc -l; "
      "kill -KILL 1 2>/dev/null; echo; while :; do sleep 1 & wait; done");
  spec.user = "1000";
  spec.init = true;
  ASSERT_OK_AND_ASSIGN(RootFs root, RootFs::Create(root_->Options()));
  spec.root = &root;
  spec.out = Stdio::Pipe();
  ASSERT_OK_AND_ASSIGN(Process process, launcher_->Start(spec));
  const UniqueFd output = process.TakeStdout();
  std::string text;
  char c;
  while (!absl::StrContains(text, "\n\n") && ::read(output.get(), &c, 1) == 1) {
    text.push_back(c);
  }
  EXPECT_EQ(text,
            "CapEff:\t0000000000000020\nNoNewPrivs:\t1\nSeccomp:\t2\n0\n\n");
  ASSERT_OK(process.Signal(SIGTERM));
  ASSERT_OK_AND_ASSIGN(ExitStatus status, process.Wait());
  EXPECT_EQ(status.code, 9);
}

TEST_F(ProcessTest, TerminalBelowAnInit) {
  ASSERT_OK_AND_ASSIGN(RootFs root, RootFs::Create(root_->Options()));
  ProcessSpec spec = Shell("tty; exit 3");
  spec.root = &root;
  spec.init = true;
  spec.terminal = TerminalSize{};
  ASSERT_OK_AND_ASSIGN(Process process, launcher_->Start(spec));
  // A terminal gives what there is, be it half a line.
  std::string line;
  while (!absl::EndsWith(line, "\n")) {
    char byte;
    ASSERT_EQ(::read(process.terminal().get(), &byte, 1), 1) << line;
    line += byte;
  }
  EXPECT_EQ(line, "/dev/pts/0\r\n");
  ASSERT_OK_AND_ASSIGN(ExitStatus status, process.Wait());
  EXPECT_EQ(status.code, 3);
}

}  // namespace
}  // namespace caisson
