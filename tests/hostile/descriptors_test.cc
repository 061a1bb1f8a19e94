// What of the host's descriptors and processes a container could get hold of.
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "caisson/caisson.h"
#include "lib/sys/open.h"
#include "tests/hostile/hostile_test.h"
#include "tests/support/machine.h"

namespace caisson {
namespace {

using ::caisson::testing::Plant;
using ::caisson::testing::TestRoot;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr char kForever[] = "echo ready; while :; do sleep 1000; done";

class HostileDescriptorsTest : public testing::HostileTest {
 protected:
  // Opens what a careless host may have open, inheritable: directories and
  // files outside of all roots, sockets, the control groups.
  std::vector<UniqueFd> OpenCanaries() {
    std::vector<UniqueFd> canaries;
    for (int i = 0; i < 30; ++i) {
      canaries.emplace_back(::open(outside().c_str(), O_RDONLY | O_DIRECTORY));
      canaries.emplace_back(::open((outside() + "/file").c_str(), O_RDWR));
      canaries.emplace_back(::open("/sys/fs/cgroup", O_PATH | O_DIRECTORY));
      canaries.emplace_back(::socket(AF_UNIX, SOCK_STREAM, 0));
    }
    for (const UniqueFd& canary : canaries) EXPECT_TRUE(canary.valid());
    return canaries;
  }

  // Where the descriptors of a process lead.
  static std::vector<std::string> Descriptors(const std::string& pid) {
    std::vector<std::string> links;
    for (const auto& entry :
         std::filesystem::directory_iterator("/proc/" + pid + "/fd")) {
      std::error_code error;
      links.push_back(
          std::filesystem::read_symlink(entry.path(), error).string());
    }
    return links;
  }

  static std::string PidOf(BorrowedFd pidfd) {
    std::ifstream info(absl::StrCat("/proc/self/fdinfo/", pidfd.get()));
    std::string word;
    while (info >> word && word != "Pid:") {
    }
    info >> word;
    return word;
  }
};

// CVE-2024-21626 by way of the image: the working directory is a link of it to
// a descriptor. (The path itself: StartTest and
// ExecTest.WorkingDirectoryIsNeverADescriptor in tests/kernel.)
TEST_F(HostileDescriptorsTest, WorkingDirectoryThroughALink) {
  const std::vector<UniqueFd> canaries = OpenCanaries();
  ASSERT_OK_AND_ASSIGN(Running container, StartUntilOutput(Shell(kForever)));
  const TestRoot image;
  for (int fd = 0; fd <= 64; ++fd) {
    const std::string target = absl::StrCat("/proc/self/fd/", fd);
    Plant(image.path(), {"cwd -> " + target});
    ProcessSpec spec = Shell("pwd; ls ..");
    spec.cwd = "/cwd";
    const auto outcome = RunIn(image, spec);
    ASSERT_FALSE(outcome.ok()) << fd << ": " << outcome->output;
    EXPECT_THAT(std::string(outcome.status().message()), HasSubstr("\"/cwd\""))
        << fd;
    spec.cwd = absl::StrCat("/proc/1/cwd/../proc/self/fd/", fd, "/..");
    const auto exec = Exec(*container.process, spec);
    ASSERT_FALSE(exec.ok()) << fd << ": " << exec->output;
    EXPECT_THAT(std::string(exec.status().message()), HasSubstr(spec.cwd));
  }
}

// CVE-2024-21626, the leak: a launcher that is made while the host has many
// inheritable descriptors, and all that it starts.
TEST_F(HostileDescriptorsTest, NothingLeaks) {
  const std::vector<UniqueFd> canaries = OpenCanaries();
  ASSERT_OK_AND_ASSIGN(Launcher launcher, Launcher::Create());
  for (const std::string& link : Descriptors(PidOf(launcher.pidfd()))) {
    EXPECT_THAT(link, Not(AnyOf(HasSubstr(outside()), HasSubstr("cgroup"))));
  }
  // Of every process that it sees, but the one that looks.
  const std::string list =
      "for p in /proc/[0-9]*; do [ $p = /proc/$$ ] || ls -l $p/fd 2>&1 | grep "
      "-e '->' | sed 's/.* \\([0-9]* ->\\)/\\1/'; done; echo end";
  for (const bool init : {false, true}) {
    ASSERT_OK_AND_ASSIGN(RootFs root, RootFs::Create(root_->Options()));
    ProcessSpec first = Shell("sleep 1000 & wait");
    first.root = &root;
    first.init = init;
    ASSERT_OK_AND_ASSIGN(Process container, launcher.Start(first));
    ProcessSpec look = Shell(list);
    look.out = Stdio::Pipe();
    ASSERT_OK_AND_ASSIGN(Process second, launcher.Exec(container, look));
    UniqueFd out = second.TakeStdout();
    ASSERT_OK_AND_ASSIGN(const std::string seen,
                         sys::ReadAll(out.borrow(), 1 << 20, "output"));
    int lines = 0;
    for (const absl::string_view line :
         absl::StrSplit(seen, '\n', absl::SkipEmpty())) {
      if (line == "end") continue;
      ++lines;
      EXPECT_THAT(std::string(line),
                  AnyOf("0 -> /dev/null", "1 -> /dev/null", "2 -> /dev/null"))
          << init;
    }
    EXPECT_GE(lines, 6) << seen;
    EXPECT_THAT(seen, HasSubstr("end\n"));
    for (const std::string& link : Descriptors(PidOf(container.pidfd()))) {
      EXPECT_EQ(link, "/dev/null");
    }
    EXPECT_OK(container.Destroy());
    EXPECT_OK(second.Wait());
  }
  EXPECT_OK(launcher.Shutdown());
}

// CVE-2016-9962: a container stops what enters it. It reaches its programs;
// with CAP_SYS_PTRACE and no user namespace, before they execute, the
// launcher's sealed helper, too, with the pipe whose end says that the program
// runs and a descriptor of its working directory. (One that only looks:
// ExecTest.WatcherWithPtraceFindsNothingOfTheHost.)
TEST_F(HostileDescriptorsTest, ExecUnderATracer) {
  const std::vector<UniqueFd> canaries = OpenCanaries();
  ASSERT_OK_AND_ASSIGN(
      SecurityPolicy policy,
      SecurityPolicy::Create({.unsafe_add_capabilities = {"CAP_SYS_PTRACE"},
                              .unsafe_seccomp = SeccompUnconfined{}}));
  for (const bool capable : {false, true}) {
    ProcessSpec tracer = Attack({"trace"});
    if (capable) tracer.security = &policy;
    ASSERT_OK_AND_ASSIGN(Running container, StartUntilOutput(tracer));
    for (int i = 0; i < testing::Repetitions(80); ++i) {
      ProcessSpec spec = Shell("sleep 0.01; exit 7");
      if (i % 2 == 0) spec.terminal = TerminalSize{};
      ASSERT_OK_AND_ASSIGN(Process process,
                           launcher_->Exec(*container.process, spec));
      ASSERT_OK_AND_ASSIGN(const ExitStatus status, process.Wait());
      EXPECT_EQ(status.code, 7) << status.ToString();
    }
    const std::string seen = KillAndRead(container);
    EXPECT_THAT(seen, HasSubstr("seized\n"));
    EXPECT_THAT(seen, HasSubstr("exe /bin/busybox\n"));
    for (const absl::string_view line :
         absl::StrSplit(seen, '\n', absl::SkipEmpty())) {
      const auto own = AnyOf("seized", "exe /bin/busybox", "cwd /",
                             "fd /dev/null", StartsWith("fd /dev/pts/"));
      const auto helper =
          AnyOf("exe /memfd:caisson-launcher (deleted)", "fd /", "fd pipe");
      if (capable) {
        EXPECT_THAT(std::string(line), AnyOf(own, helper));
      } else {
        EXPECT_THAT(std::string(line), own);
      }
    }
  }
}

// A tracer that never lets go keeps what it holds, but not the host: a start
// and a wait have their ends.
TEST_F(HostileDescriptorsTest, ExecUnderATracerThatHolds) {
  ASSERT_OK_AND_ASSIGN(
      SecurityPolicy policy,
      SecurityPolicy::Create({.unsafe_add_capabilities = {"CAP_SYS_PTRACE"},
                              .unsafe_seccomp = SeccompUnconfined{}}));
  ProcessSpec tracer = Attack({"hold"});
  tracer.security = &policy;
  ASSERT_OK_AND_ASSIGN(Running container, StartUntilOutput(tracer));
  std::vector<Process> held;
  for (int i = 0; i < 5; ++i) {
    ProcessSpec spec = Shell("sleep 1000");
    spec.start_timeout = absl::Milliseconds(300);
    auto process = launcher_->Exec(*container.process, spec);
    if (process.ok()) {
      EXPECT_EQ(process->Wait(absl::Now()).status().code(),
                absl::StatusCode::kDeadlineExceeded);
      held.push_back(*std::move(process));
    } else {
      EXPECT_EQ(process.status().code(), absl::StatusCode::kDeadlineExceeded)
          << process.status();
    }
  }
  EXPECT_EQ(Output("echo others start"), "others start\n");
  EXPECT_EQ(KillAndRead(container), "");
  for (const Process& process : held) {
    ASSERT_OK_AND_ASSIGN(const ExitStatus status,
                         process.Wait(absl::Now() + absl::Seconds(10)));
    EXPECT_TRUE(status.signaled);
  }
}

}  // namespace
}  // namespace caisson
