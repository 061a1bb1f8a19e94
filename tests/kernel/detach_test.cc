// Processes that outlive the host that started them.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "caisson/caisson.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/base/status_matchers.h"
#include "lib/sys/mount.h"
#include "lib/sys/open.h"
#include "lib/sys/pidfd.h"
#include "lib/sys/remove_tree.h"
#include "tests/host_safety/scenario.h"
#include "tests/support/test_root.h"

namespace caisson {
namespace {

using ::caisson::testing::HostSnapshot;
using ::caisson::testing::StatusIs;
using ::caisson::testing::TakeHostSnapshot;
using ::caisson::testing::TestRoot;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr absl::Duration kPatience = absl::Seconds(20);
constexpr char kForever[] =
    "trap 'exit 7' TERM; echo ready; while :; do sleep 1000 & wait; done";

// What both sides of a test know, by the environment.
constexpr char kRoot[] = "CAISSON_DETACH_TEST_ROOT";
constexpr char kDirectory[] = "CAISSON_DETACH_TEST_DIRECTORY";
constexpr char kGroups[] = "CAISSON_DETACH_TEST_GROUPS";

ProcessSpec Shell(const std::string& script) {
  ProcessSpec spec;
  spec.argv = {"sh", "-c", script};
  return spec;
}

absl::StatusOr<RootFs> MakeRoot(const std::string& path) {
  ASSIGN_OR_RETURN(const UniqueFd dir, sys::Open(path, O_RDONLY | O_DIRECTORY));
  RootFsOptions options;
  options.layers = {dir.borrow()};
  options.writes = RootWrites::kTmpfs;
  options.resolv_conf = "";
  return RootFs::Create(options);
}

bool EndsSoon(BorrowedFd pidfd) {
  pollfd poll = {pidfd.get(), POLLIN, 0};
  return ::poll(&poll, 1, 20000) == 1;
}

class DetachTest : public ::testing::Test {
 protected:
  void SetUp() override {
    // What outlives a host becomes a child of this process.
    ASSERT_EQ(::prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    base_ = absl::StrCat(::testing::TempDir(), "/detach.XXXXXX");
    ASSERT_NE(::mkdtemp(base_.data()), nullptr);
    directory_ = base_ + "/launcher";
    before_ = TakeHostSnapshot();
  }

  void TearDown() override {
    // Launchers that nobody needs end by themselves.
    const absl::Time deadline = absl::Now() + kPatience;
    while (::waitpid(-1, nullptr, WNOHANG | __WALL) >= 0) {
      ASSERT_LT(absl::Now(), deadline) << "a launcher is left";
      absl::SleepFor(absl::Milliseconds(1));
    }
    const HostSnapshot after = TakeHostSnapshot();
    EXPECT_EQ(after.mounts, before_.mounts);
    EXPECT_EQ(after.descriptors, before_.descriptors);
    EXPECT_EQ(after.children, before_.children);
    const size_t slash = base_.rfind('/');
    ASSERT_OK_AND_ASSIGN(
        const UniqueFd parent,
        sys::Open(base_.substr(0, slash), O_RDONLY | O_DIRECTORY));
    EXPECT_OK(sys::RemoveTree(parent.borrow(), base_.substr(slash + 1)));
  }

  absl::StatusOr<Launcher> NewLauncher() const {
    return Launcher::Create({.directory = directory_});
  }

  // A process whose script has said its first line.
  absl::StatusOr<Process> Start(Launcher& launcher, ProcessSpec spec) const {
    ASSIGN_OR_RETURN(RootFs root, MakeRoot(root_.path()));
    spec.root = &root;
    if (!spec.terminal) spec.out = Stdio::Pipe();
    ASSIGN_OR_RETURN(Process process, launcher.Start(spec));
    if (spec.terminal) return process;
    const UniqueFd out = process.TakeStdout();
    char byte;
    if (::read(out.get(), &byte, 1) != 1) {
      return absl::InternalError("the process said nothing");
    }
    return process;
  }

  // The only detached process of the directory.
  DetachedProcess Only() const {
    auto all = ListDetached(directory_);
    EXPECT_OK(all);
    if (!all.ok() || all->size() != 1) {
      ADD_FAILURE() << "not one process";
      return {};
    }
    return (*all)[0];
  }

  static std::string ExecOutput(Launcher& launcher, const Process& process,
                                const std::string& script) {
    ProcessSpec spec = Shell(script);
    spec.out = Stdio::Pipe();
    auto exec = launcher.Exec(process, spec);
    EXPECT_OK(exec);
    if (!exec.ok()) return "";
    const UniqueFd out = exec->TakeStdout();
    auto text = sys::ReadAll(out.borrow(), 4096, "output");
    EXPECT_OK(exec->Wait());
    return text.value_or("");
  }

  TestRoot root_;
  std::string base_;
  std::string directory_;
  HostSnapshot before_;
};

TEST_F(DetachTest, OutlivesItsObjectsAndIsFoundAgain) {
  pid_t pid = -1;
  {
    ASSERT_OK_AND_ASSIGN(Launcher launcher, NewLauncher());
    ASSERT_OK_AND_ASSIGN(Process process, Start(launcher, Shell(kForever)));
    ASSERT_OK(process.Detach({.name = "web"}));
    pid = process.pid();
    ASSERT_GT(pid, 0);
  }
  EXPECT_EQ(Only().state, DetachedProcess::State::kRunning);
  EXPECT_EQ(Only().name, "web");
  UniqueFd pidfd;
  {
    ASSERT_OK_AND_ASSIGN(Launcher launcher, Launcher::Attach(directory_));
    ASSERT_OK_AND_ASSIGN(Process process, launcher.Find("web"));
    EXPECT_EQ(process.pid(), pid);
    EXPECT_THAT(process.Wait(absl::Now()),
                StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("")));
    EXPECT_THAT(ExecOutput(launcher, process, "ps"), HasSubstr("sleep 1000"));
    // Nor does it end with this object.
  }
  EXPECT_EQ(::kill(pid, 0), 0);
  {
    ASSERT_OK_AND_ASSIGN(Launcher launcher, Launcher::Attach(directory_));
    ASSERT_OK_AND_ASSIGN(Process process, launcher.Find("web"));
    ASSERT_OK_AND_ASSIGN(pidfd, sys::Duplicate(launcher.pidfd()));
    ASSERT_OK_AND_ASSIGN(const ExitStatus status,
                         process.Stop(absl::Seconds(20)));
    EXPECT_EQ(status.code, 7);
    // All is on disk when that is known.
    EXPECT_EQ(Only().state, DetachedProcess::State::kEnded);
    EXPECT_EQ(Only().exit.code, 7);
    EXPECT_EQ(Only().exit.max_rss_bytes, status.max_rss_bytes);
    EXPECT_THAT(launcher.Find("web"),
                StatusIs(absl::StatusCode::kNotFound, HasSubstr("web")));
  }
  // With the last host, now that no process is left, the launcher ends.
  EXPECT_TRUE(EndsSoon(pidfd.borrow()));
  EXPECT_THAT(
      Launcher::Attach(directory_),
      StatusIs(absl::StatusCode::kNotFound, HasSubstr("no launcher lives in")));
  ASSERT_OK(ForgetDetached(directory_, "web"));
  EXPECT_THAT(ForgetDetached(directory_, "web"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("web")));
  EXPECT_THAT(*ListDetached(directory_), IsEmpty());
}

TEST_F(DetachTest, EndsWithoutAnyHost) {
  UniqueFd pidfd;
  pid_t pid = -1;
  {
    ASSERT_OK_AND_ASSIGN(Launcher launcher, NewLauncher());
    ASSERT_OK_AND_ASSIGN(pidfd, sys::Duplicate(launcher.pidfd()));
    // An init changes a signal into a code; the record has the signal.
    ProcessSpec spec = Shell(
        "trap 'kill -SEGV $$' TERM; echo; while :; do sleep 1000 & wait; done");
    spec.init = true;
    ASSERT_OK_AND_ASSIGN(Process process, Start(launcher, spec));
    ASSERT_OK(process.Detach({.name = "alone"}));
    pid = process.pid();
  }
  EXPECT_EQ(Only().state, DetachedProcess::State::kRunning);
  ASSERT_EQ(::kill(pid, SIGTERM), 0);
  ASSERT_TRUE(EndsSoon(pidfd.borrow()));
  const DetachedProcess process = Only();
  EXPECT_EQ(process.state, DetachedProcess::State::kEnded);
  EXPECT_EQ(process.exit.signal, SIGSEGV) << process.exit.ToString();
  EXPECT_NE(::access((directory_ + "/launcher.sock").c_str(), F_OK), 0);
}

TEST_F(DetachTest, OthersEndWithTheirHost) {
  UniqueFd other;
  ASSERT_OK_AND_ASSIGN(Launcher first, NewLauncher());
  ASSERT_OK_AND_ASSIGN(Process process, Start(first, Shell(kForever)));
  ASSERT_OK(process.Detach({.name = "stays"}));
  {
    ASSERT_OK_AND_ASSIGN(Launcher second, Launcher::Attach(directory_));
    ASSERT_OK_AND_ASSIGN(Process own, Start(second, Shell(kForever)));
    ASSERT_OK_AND_ASSIGN(other, sys::Duplicate(own.pidfd()));
    ASSERT_OK(second.Shutdown());
    EXPECT_TRUE(EndsSoon(other.borrow()));
    ASSERT_OK(second.Shutdown());
    EXPECT_THAT(own.Wait(), ::testing::_);
  }
  EXPECT_EQ(sys::SendSignal(process.pidfd(), 0), absl::OkStatus());
  ASSERT_OK(first.Shutdown());
  EXPECT_EQ(sys::SendSignal(process.pidfd(), 0), absl::OkStatus());
  ASSERT_OK(process.Destroy());
}

TEST_F(DetachTest, EveryHostThatWaitsLearnsTheEnd) {
  ASSERT_OK_AND_ASSIGN(Launcher first, NewLauncher());
  ASSERT_OK_AND_ASSIGN(Process process, Start(first, Shell(kForever)));
  ASSERT_OK(process.Detach({.name = "watched"}));
  std::vector<Launcher> launchers;
  std::vector<Process> found;
  for (int i = 0; i < 5; ++i) {
    ASSERT_OK_AND_ASSIGN(Launcher launcher, Launcher::Attach(directory_));
    ASSERT_OK_AND_ASSIGN(Process one, launcher.Find("watched"));
    launchers.push_back(std::move(launcher));
    found.push_back(std::move(one));
  }
  // One that is not there any more when it happens.
  launchers.pop_back();
  found.pop_back();
  ASSERT_OK(found[0].Signal(SIGTERM));
  for (const Process& one : found) {
    ASSERT_OK_AND_ASSIGN(const ExitStatus status, one.Wait());
    EXPECT_EQ(status.code, 7);
  }
  ASSERT_OK_AND_ASSIGN(const ExitStatus status, process.Wait());
  EXPECT_EQ(status.code, 7);
}

TEST_F(DetachTest, KeepsDescriptorsAndTheTerminal) {
  int fds[2];
  ASSERT_EQ(::pipe2(fds, O_CLOEXEC), 0);
  UniqueFd reader(fds[0]);
  UniqueFd writer(fds[1]);
  {
    ASSERT_OK_AND_ASSIGN(Launcher launcher, NewLauncher());
    ProcessSpec spec = Shell("read line; echo \"got $line\"; sleep 1000");
    spec.terminal = TerminalSize{};
    ASSERT_OK_AND_ASSIGN(Process process, Start(launcher, spec));
    ASSERT_OK(process.Detach({.name = "tty", .keep = {writer.borrow()}}));
  }
  writer.reset();
  pollfd poll = {reader.get(), POLLIN, 0};
  EXPECT_EQ(::poll(&poll, 1, 0), 0) << "nobody holds the pipe";
  {
    ASSERT_OK_AND_ASSIGN(Launcher launcher, Launcher::Attach(directory_));
    ASSERT_OK_AND_ASSIGN(Process process, launcher.Find("tty"));
    std::vector<UniqueFd> kept = process.TakeKept();
    ASSERT_THAT(kept, SizeIs(1));
    EXPECT_THAT(process.TakeKept(), IsEmpty());
    ASSERT_EQ(::write(kept[0].get(), "x", 1), 1);
    char byte;
    ASSERT_EQ(::read(reader.get(), &byte, 1), 1);
    ASSERT_TRUE(process.terminal().valid());
    ASSERT_EQ(::write(process.terminal().get(), "word\n", 5), 5);
    std::string text;
    while (text.find("got word") == std::string::npos) {
      char buffer[256];
      const ssize_t size =
          ::read(process.terminal().get(), buffer, sizeof(buffer));
      ASSERT_GT(size, 0) << text;
      text.append(buffer, static_cast<size_t>(size));
    }
    ASSERT_OK(process.Destroy());
  }
  // The launcher held it no longer than the process lived.
  char byte;
  EXPECT_EQ(::read(reader.get(), &byte, 1), 0);
}

TEST_F(DetachTest, PolicyOfAnotherHostHasToBeNamed) {
  ASSERT_OK_AND_ASSIGN(const SecurityPolicy policy,
                       SecurityPolicy::Create({.drop_capabilities = {"ALL"}}));
  ASSERT_OK_AND_ASSIGN(Launcher first, NewLauncher());
  ProcessSpec spec = Shell(kForever);
  spec.security = &policy;
  ASSERT_OK_AND_ASSIGN(Process process, Start(first, spec));
  ASSERT_OK(process.Detach({.name = "strict"}));
  ASSERT_OK_AND_ASSIGN(Launcher second, Launcher::Attach(directory_));
  ASSERT_OK_AND_ASSIGN(Process found, second.Find("strict"));
  EXPECT_THAT(second.Exec(found, Shell("true")),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("ProcessSpec.security")));
  ProcessSpec exec = Shell("true");
  exec.security = &policy;
  ASSERT_OK_AND_ASSIGN(const Process other, second.Exec(found, exec));
  EXPECT_OK(other.Wait());
  ASSERT_OK(found.Destroy());
}

TEST_F(DetachTest, RefusesWhatCannotBeDetached) {
  ASSERT_OK_AND_ASSIGN(Launcher launcher, NewLauncher());
  ASSERT_OK_AND_ASSIGN(Process process, Start(launcher, Shell(kForever)));
  for (const char* name : {"", ".hidden", "a/b", "..", "a\nb"}) {
    EXPECT_THAT(process.Detach({.name = name}),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("name of a detached process")));
  }
  EXPECT_THAT(process.Detach({.name = std::string(64, 'a')}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("62")));
  EXPECT_THAT(process.Detach({.name = "a", .keep = {BorrowedFd()}}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("DetachOptions.keep[0]")));
  EXPECT_THAT(
      process.Detach(
          {.name = "a",
           .keep = std::vector<BorrowedFd>(100, BorrowedFd(STDERR_FILENO))}),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("too many")));
  ASSERT_OK(process.Detach({.name = std::string(63, 'a')}));
  EXPECT_THAT(process.Detach({.name = "b"}),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("detached already")));
  ASSERT_OK_AND_ASSIGN(Process second, Start(launcher, Shell(kForever)));
  EXPECT_THAT(
      second.Detach({.name = std::string(63, 'a')}),
      StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("ForgetDetached")));
  ASSERT_OK(second.Destroy());
  EXPECT_THAT(second.Detach({.name = "b"}),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("was destroyed")));
  ASSERT_OK(process.Destroy());
  ASSERT_OK_AND_ASSIGN(Process ended, Start(launcher, Shell("echo; exit 3")));
  ASSERT_OK(ended.Wait());
  EXPECT_THAT(ended.Detach({.name = "late"}),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("has ended")));
  EXPECT_THAT(ListDetached(directory_).value(), SizeIs(1));

  ASSERT_OK_AND_ASSIGN(Launcher plain, Launcher::Create());
  ASSERT_OK_AND_ASSIGN(Process bound, Start(plain, Shell(kForever)));
  EXPECT_THAT(bound.Detach({.name = "c"}),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("LauncherOptions.directory")));
  ASSERT_OK(bound.Destroy());
}

TEST_F(DetachTest, DirectoryIsPrivateAndHasOneLauncher) {
  EXPECT_THAT(
      Launcher::Create({.directory = "relative"}),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("relative")));
  EXPECT_THAT(Launcher::Attach(directory_),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("launcher")));
  ASSERT_EQ(::mkdir(directory_.c_str(), 0755), 0);
  ASSERT_EQ(::chmod(directory_.c_str(), 0755), 0);
  EXPECT_THAT(NewLauncher(), StatusIs(absl::StatusCode::kPermissionDenied,
                                      HasSubstr("accessible to nobody else")));
  ASSERT_EQ(::chmod(directory_.c_str(), 0700), 0);
  ASSERT_OK_AND_ASSIGN(Launcher launcher, NewLauncher());
  EXPECT_THAT(NewLauncher(), StatusIs(absl::StatusCode::kAlreadyExists,
                                      HasSubstr("Launcher::Attach")));
  ASSERT_OK(launcher.Shutdown());
  ASSERT_OK(NewLauncher());
}

TEST_F(DetachTest, LauncherThatIsKilledLeavesALostProcess) {
  UniqueFd pidfd;
  {
    ASSERT_OK_AND_ASSIGN(Launcher launcher, NewLauncher());
    ASSERT_OK_AND_ASSIGN(Process process, Start(launcher, Shell(kForever)));
    ASSERT_OK(process.Detach({.name = "lost"}));
    EXPECT_THAT(
        ForgetDetached(directory_, "lost"),
        StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("runs")));
    ASSERT_OK_AND_ASSIGN(pidfd, sys::Duplicate(process.pidfd()));
    ASSERT_OK(sys::SendSignal(launcher.pidfd(), SIGKILL));
    EXPECT_TRUE(EndsSoon(launcher.pidfd()));
  }
  EXPECT_TRUE(EndsSoon(pidfd.borrow()));
  EXPECT_EQ(Only().state, DetachedProcess::State::kLost);
  EXPECT_THAT(Launcher::Attach(directory_),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("killed")));
  // Its socket is in nobody's way.
  ASSERT_OK_AND_ASSIGN(Launcher launcher, NewLauncher());
  ASSERT_OK(ForgetDetached(directory_, "lost"));
}

TEST_F(DetachTest, LookingForItAgainAndAgainCostsNothing) {
  ASSERT_OK_AND_ASSIGN(Launcher launcher, NewLauncher());
  ASSERT_OK_AND_ASSIGN(Process process, Start(launcher, Shell(kForever)));
  ASSERT_OK(process.Detach({.name = "wanted"}));
  const auto descriptors = [&] {
    const std::string path =
        absl::StrCat("/proc/", sys::PidOf(launcher.pidfd()), "/fd");
    return std::distance(std::filesystem::directory_iterator(path), {});
  };
  ASSERT_OK(launcher.Find("wanted").status());
  const auto before = descriptors();
  for (int i = 0; i < 5000; ++i) {
    ASSERT_OK(launcher.Find("wanted").status()) << i;
  }
  // (The last requests may still be on their way.)
  EXPECT_LE(descriptors(), before + 10);
  // Nor does one that is found end with the connection.
  std::optional<Process> found;
  {
    ASSERT_OK_AND_ASSIGN(Launcher other, Launcher::Attach(directory_));
    ASSERT_OK_AND_ASSIGN(found, other.Find("wanted"));
    ASSERT_OK(other.Shutdown());
    EXPECT_THAT(other.Find("wanted"), StatusIs(absl::StatusCode::kUnavailable,
                                               HasSubstr("Shutdown()")));
  }
  pollfd poll = {found->exit_fd().get(), POLLIN, 0};
  EXPECT_EQ(::poll(&poll, 1, 0), 0);
  ASSERT_OK(process.Signal(SIGTERM));
  ASSERT_OK_AND_ASSIGN(const ExitStatus status, found->Wait());
  EXPECT_EQ(status.code, 7);
}

TEST_F(DetachTest, NoMoreHostsThanTheLauncherTakes) {
  ASSERT_OK_AND_ASSIGN(Launcher first, NewLauncher());
  std::vector<Launcher> launchers;
  absl::Status status;
  while (launchers.size() < 100) {
    auto launcher = Launcher::Attach(directory_);
    status = launcher.status();
    if (!launcher.ok()) break;
    launchers.push_back(*std::move(launcher));
  }
  EXPECT_THAT(launchers, SizeIs(63));
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kResourceExhausted,
                               HasSubstr("64 hosts")));
  EXPECT_THAT(NewLauncher(), StatusIs(absl::StatusCode::kAlreadyExists,
                                      HasSubstr("Launcher::Attach")));
  ASSERT_OK(launchers.back().Shutdown());
  launchers.pop_back();
  EXPECT_OK(Launcher::Attach(directory_));
}

TEST_F(DetachTest, LeavesOtherFilesOfTheDirectoryAlone) {
  {
    ASSERT_OK_AND_ASSIGN(Launcher first, NewLauncher());
    ASSERT_OK(first.Shutdown());
  }
  const std::string config = directory_ + "/config.json";
  {
    std::ofstream file(config);
    file << "{}";
  }
  ASSERT_EQ(::mkdir((directory_ + "/logs").c_str(), 0700), 0);
  // One that was cut off, and one that a launcher would have written.
  std::ofstream(directory_ + "/torn.process") << "caisson-process 1\nstate";
  std::ofstream(directory_ + "/old.process")
      << "caisson-process 1\nstate running\nend\n";
  // What a launcher leaves that is killed while it writes, and a stranger's.
  const std::string unfinished = directory_ + "/.torn.process";
  const std::string hidden = directory_ + "/.hidden";
  std::ofstream(unfinished) << "caisson";
  std::ofstream(hidden) << "mine";
  ASSERT_OK_AND_ASSIGN(Launcher launcher, NewLauncher());
  EXPECT_NE(::access(unfinished.c_str(), F_OK), 0);
  EXPECT_EQ(::access(hidden.c_str(), F_OK), 0);
  ASSERT_OK_AND_ASSIGN(const std::vector<DetachedProcess> all,
                       ListDetached(directory_));
  ASSERT_THAT(all, SizeIs(2));
  EXPECT_EQ(all[0].name, "old");
  EXPECT_EQ(all[0].state, DetachedProcess::State::kLost);
  EXPECT_EQ(all[1].name, "torn");
  EXPECT_EQ(all[1].state, DetachedProcess::State::kLost);
  ASSERT_OK(ForgetDetached(directory_, "torn"));
  ASSERT_OK(ForgetDetached(directory_, "old"));
  std::ifstream file(config);
  std::string text;
  file >> text;
  EXPECT_EQ(text, "{}");
}

TEST_F(DetachTest, LauncherWithoutDescriptorsSaysSo) {
  ASSERT_OK_AND_ASSIGN(Launcher launcher, NewLauncher());
  ASSERT_OK_AND_ASSIGN(Process process, Start(launcher, Shell(kForever)));
  ASSERT_OK_AND_ASSIGN(Process second, Start(launcher, Shell(kForever)));
  ASSERT_OK(process.Detach({.name = "first"}));
  const pid_t pid = sys::PidOf(launcher.pidfd());
  rlim_t used = 0;
  for (const auto& entry : std::filesystem::directory_iterator(
           absl::StrCat("/proc/", pid, "/fd"))) {
    used = std::max<rlim_t>(used, std::stoul(entry.path().filename()) + 1);
  }
  rlimit before;
  ASSERT_EQ(::prlimit(pid, RLIMIT_NOFILE, nullptr, &before), 0);
  const rlimit full = {used, before.rlim_max};
  ASSERT_EQ(::prlimit(pid, RLIMIT_NOFILE, &full, nullptr), 0);
  EXPECT_THAT(Launcher::Attach(directory_),
              StatusIs(absl::StatusCode::kUnavailable,
                       HasSubstr("takes no connection")));
  EXPECT_THAT(second.Detach({.name = "second"}),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("Process::Detach(): EMFILE")));
  EXPECT_THAT(launcher.Find("first"),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("Launcher::Find(): EMFILE")));
  EXPECT_FALSE(Start(launcher, Shell(kForever)).ok());
  ASSERT_EQ(::prlimit(pid, RLIMIT_NOFILE, &before, nullptr), 0);
  ASSERT_OK(second.Detach({.name = "second"}));
  ASSERT_OK(Launcher::Attach(directory_));
  ASSERT_OK(second.Destroy());
  ASSERT_OK(process.Destroy());
}

// Nothing that lies where records are written leads elsewhere or holds the
// launcher up.
TEST_F(DetachTest, RecordsAreFilesOfTheLaunchersOwn) {
  const std::string victim = base_ + "/victim";
  const std::string unfinished = directory_ + "/.web.process";
  std::ofstream(victim) << "untouched";
  ASSERT_OK_AND_ASSIGN(Launcher launcher, NewLauncher());
  ASSERT_OK_AND_ASSIGN(Process process, Start(launcher, Shell(kForever)));
  ASSERT_EQ(::symlink(victim.c_str(), unfinished.c_str()), 0);
  ASSERT_OK(process.Detach({.name = "web"}));
  EXPECT_EQ(Only().state, DetachedProcess::State::kRunning);
  ASSERT_EQ(::mkfifo(unfinished.c_str(), 0600), 0);
  ASSERT_OK(process.Signal(SIGTERM));
  ASSERT_OK(process.Wait());
  EXPECT_EQ(Only().state, DetachedProcess::State::kEnded);
  std::ifstream file(victim);
  std::string text;
  file >> text;
  EXPECT_EQ(text, "untouched");
}

TEST_F(DetachTest, DiskThatIsFullTakesNoRecordAway) {
  ASSERT_OK_AND_ASSIGN(sys::FsContext tmpfs,
                       sys::FsContext::Open(sys::DirectMounts(), "tmpfs"));
  ASSERT_OK(tmpfs.SetString("size", "65536"));
  ASSERT_OK_AND_ASSIGN(const UniqueFd disk, tmpfs.Mount(0));
  directory_ = absl::StrCat("/proc/self/fd/", disk.get(), "/launcher");
  ASSERT_OK_AND_ASSIGN(Launcher launcher, NewLauncher());
  ASSERT_OK_AND_ASSIGN(Process process, Start(launcher, Shell(kForever)));
  ASSERT_OK(process.Detach({.name = "web"}));
  ASSERT_OK_AND_ASSIGN(Process late, Start(launcher, Shell(kForever)));
  {
    ASSERT_OK_AND_ASSIGN(
        const UniqueFd filler,
        sys::Open(directory_ + "/filler", O_WRONLY | O_CREAT, 0600));
    const std::string page(4096, 'x');
    while (::write(filler.get(), page.data(), page.size()) > 0) {
    }
    ASSERT_EQ(errno, ENOSPC);
  }
  EXPECT_THAT(late.Detach({.name = "late"}),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("Process::Detach(): ENOSPC")));
  ASSERT_OK(late.Destroy());
  ASSERT_OK(process.Signal(SIGTERM));
  ASSERT_OK(process.Wait());
  EXPECT_EQ(Only().name, "web");
  EXPECT_EQ(Only().state, DetachedProcess::State::kEnded);
  EXPECT_EQ(Only().exit.code, 7);
  ASSERT_OK(ForgetDetached(directory_, "web"));
}

TEST_F(DetachTest, LookingLeavesNothing) {
  ASSERT_EQ(::mkdir(directory_.c_str(), 0700), 0);
  EXPECT_THAT(Launcher::Attach(directory_),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("launcher")));
  EXPECT_THAT(ListDetached(directory_).value(), IsEmpty());
  EXPECT_TRUE(std::filesystem::is_empty(directory_));
  ASSERT_EQ(::chmod(directory_.c_str(), 0711), 0);
  EXPECT_THAT(ListDetached(directory_),
              StatusIs(absl::StatusCode::kPermissionDenied,
                       HasSubstr("accessible to nobody else")));
}

// The calls that a policy asks the host about wait for the next one.
TEST_F(DetachTest, KeepsTheSeccompListener) {
  ASSERT_OK_AND_ASSIGN(
      const SecurityPolicy policy,
      SecurityPolicy::Create({.notify_syscalls = {"mkdir", "mkdirat"}}));
  {
    ASSERT_OK_AND_ASSIGN(Launcher launcher, NewLauncher());
    ProcessSpec spec = Shell("echo; mkdir /asked; exit 3");
    spec.security = &policy;
    ASSERT_OK_AND_ASSIGN(Process process, Start(launcher, spec));
    ASSERT_OK(process.Detach({.name = "asks"}));
  }
  ASSERT_OK_AND_ASSIGN(Launcher launcher, Launcher::Attach(directory_));
  ASSERT_OK_AND_ASSIGN(Process process, launcher.Find("asks"));
  SeccompListener listener(process.TakeSeccompListener());
  ASSERT_OK_AND_ASSIGN(const auto call,
                       listener.Receive(absl::Now() + kPatience));
  EXPECT_OK(listener.Fail(call.id, EROFS));
  ASSERT_OK_AND_ASSIGN(const ExitStatus status, process.Wait());
  EXPECT_EQ(status.code, 3);
  EXPECT_THAT(process.TakeKept(), IsEmpty());
}

TEST_F(DetachTest, LauncherThatIsStoppedHoldsUpNobodyElse) {
  ASSERT_OK_AND_ASSIGN(Launcher launcher, NewLauncher());
  ASSERT_OK_AND_ASSIGN(Process process, Start(launcher, Shell(kForever)));
  ASSERT_OK(process.Detach({.name = "slow"}));
  ASSERT_OK(sys::SendSignal(launcher.pidfd(), SIGSTOP));
  EXPECT_EQ(Only().state, DetachedProcess::State::kRunning);
  EXPECT_THAT(NewLauncher(), StatusIs(absl::StatusCode::kAlreadyExists,
                                      HasSubstr("Launcher::Attach")));
  EXPECT_THAT(
      ForgetDetached(directory_, "slow"),
      StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("runs")));
  ASSERT_OK(sys::SendSignal(launcher.pidfd(), SIGCONT));
  ASSERT_OK(process.Destroy());
}

TEST_F(DetachTest, NeitherSocketNorDirectoryIsSeenInside) {
  ASSERT_OK_AND_ASSIGN(Launcher launcher, NewLauncher());
  ASSERT_OK_AND_ASSIGN(Process process, Start(launcher, Shell(kForever)));
  ASSERT_OK(process.Detach({.name = "inner"}));
  // One that is cloned after the launcher has all of it.
  ASSERT_OK_AND_ASSIGN(Process second, Start(launcher, Shell(kForever)));
  EXPECT_EQ(
      ExecOutput(launcher, second, "ls /proc/1/fd /proc/self/fd | wc -l"),
      ExecOutput(launcher, process, "ls /proc/1/fd /proc/self/fd | wc -l"));
  EXPECT_EQ(ExecOutput(launcher, second, "ls -l /proc/1/fd | grep -c socket"),
            "0\n");
  ASSERT_OK(process.Destroy());
}

// A host that may be killed at any instant: a process in a control group, with
// a name, then silence.
absl::Status DetachesAndSleeps() {
  ASSIGN_OR_RETURN(Launcher launcher,
                   Launcher::Create({.directory = ::getenv(kDirectory)}));
  if (::write(STDOUT_FILENO, "l", 1) != 1) return absl::InternalError("write");
  ASSIGN_OR_RETURN(RootFs root, MakeRoot(::getenv(kRoot)));
  ASSIGN_OR_RETURN(const CgroupParent parent,
                   CgroupParent::Open({.path = ::getenv(kGroups)}));
  ASSIGN_OR_RETURN(Cgroup group, parent.Create({.name = "job"}));
  ASSIGN_OR_RETURN(const Cgroup other, parent.Create({.name = "other"}));
  ProcessSpec spec = Shell(kForever);
  spec.root = &root;
  spec.cgroup = &group;
  ASSIGN_OR_RETURN(Process process, launcher.Start(spec));
  ASSIGN_OR_RETURN(const std::vector<UniqueFd> lifelines, group.Lifelines());
  std::vector<BorrowedFd> keep;
  for (const UniqueFd& lifeline : lifelines) keep.push_back(lifeline.borrow());
  RETURN_IF_ERROR(process.Detach({.name = "job", .keep = keep}));
  group.Disown();
  if (::write(STDOUT_FILENO, "d", 1) != 1) return absl::InternalError("write");
  for (;;) ::pause();
}

class KilledHostTest : public DetachTest {
 protected:
  void SetUp() override {
    DetachTest::SetUp();
    groups_ = absl::StrCat("/caisson-detach-test-", ::getpid());
    ::setenv(kRoot, root_.path().c_str(), 1);
    ::setenv(kDirectory, directory_.c_str(), 1);
    ::setenv(kGroups, groups_.c_str(), 1);
  }

  // Kills a host after `delay`, or when it has detached its process.
  void KillHost(std::optional<absl::Duration> delay) {
    int fds[2];
    ASSERT_EQ(::pipe2(fds, O_CLOEXEC), 0);
    const UniqueFd reader(fds[0]);
    UniqueFd writer(fds[1]);
    const pid_t pid = ::fork();
    if (pid == 0) {
      ::dup2(writer.get(), STDOUT_FILENO);
      ::execl("/proc/self/exe", "detach_test", "--scenario=detach",
              static_cast<char*>(nullptr));
      ::_exit(127);
    }
    writer.reset();
    char byte = 0;
    ASSERT_EQ(::read(reader.get(), &byte, 1), 1);
    if (delay) {
      absl::SleepFor(*delay);
    } else {
      ASSERT_EQ(::read(reader.get(), &byte, 1), 1);
      ASSERT_EQ(byte, 'd');
    }
    ::kill(pid, SIGKILL);
    int status = 0;
    ASSERT_EQ(::waitpid(pid, &status, 0), pid);
    ASSERT_TRUE(WIFSIGNALED(status)) << status;
  }

  std::string groups_;
};

TEST_F(KilledHostTest, LeavesTheDetachedProcessAndItsGroup) {
  ASSERT_NO_FATAL_FAILURE(KillHost(std::nullopt));
  // The other group of the same parent is nobody's.
  ASSERT_OK_AND_ASSIGN(const std::vector<std::string> removed,
                       CgroupParent::Recover({.path = groups_}));
  ASSERT_THAT(removed, SizeIs(1));
  EXPECT_THAT(removed[0], HasSubstr("/other"));
  {
    ASSERT_OK_AND_ASSIGN(Launcher launcher, Launcher::Attach(directory_));
    ASSERT_OK_AND_ASSIGN(Process process, launcher.Find("job"));
    ASSERT_OK_AND_ASSIGN(Cgroup group, Cgroup::Attach(process.TakeKept()));
    EXPECT_EQ(group.name(), "job");
    EXPECT_THAT(group.path(), HasSubstr(groups_ + "/caisson-"));
    ASSERT_OK_AND_ASSIGN(const std::vector<pid_t> inside, group.Processes());
    EXPECT_THAT(inside, ::testing::Contains(process.pid()));
    EXPECT_THAT(ExecOutput(launcher, process, "ps"), HasSubstr("sleep 1000"));
    ASSERT_OK_AND_ASSIGN(const ExitStatus status,
                         process.Stop(absl::Seconds(20)));
    EXPECT_EQ(status.code, 7);
    ASSERT_OK(group.Destroy());
  }
  ASSERT_OK(CgroupParent::Recover({.path = groups_}).status());
  ASSERT_OK_AND_ASSIGN(const CgroupLayout layout, CgroupLayout::Detect());
  for (const CgroupHierarchy& hierarchy : layout.hierarchies) {
    EXPECT_NE(::access((hierarchy.mount_point + groups_).c_str(), F_OK), 0)
        << hierarchy.mount_point;
  }
}

TEST_F(KilledHostTest, AtAnyInstantItIsDetachedOrNothingIsLeft) {
  std::mt19937 random(static_cast<unsigned>(::getpid()));
  std::uniform_int_distribution<int> delays(0, 12000);
  int detached = 0;
  constexpr int kKills = 60;
  for (int i = 0; i < kKills; ++i) {
    const absl::Duration delay = absl::Microseconds(delays(random));
    ASSERT_NO_FATAL_FAILURE(KillHost(delay));
    auto launcher = Launcher::Attach(directory_);
    if (launcher.ok()) {
      auto process = launcher->Find("job");
      if (process.ok()) {
        ++detached;
        ASSERT_OK_AND_ASSIGN(Cgroup group, Cgroup::Attach(process->TakeKept()));
        ASSERT_OK(CgroupParent::Recover({.path = groups_}).status());
        ASSERT_OK(process->Signal(0)) << "after " << delay;
        ASSERT_OK(group.Destroy());
        ASSERT_OK(process->Wait());
      }
    } else {
      EXPECT_THAT(
          launcher.status().code(),
          AnyOf(absl::StatusCode::kNotFound, absl::StatusCode::kUnavailable));
    }
    launcher = absl::CancelledError();
    const absl::Time deadline = absl::Now() + kPatience;
    while (::waitpid(-1, nullptr, WNOHANG | __WALL) >= 0) {
      ASSERT_LT(absl::Now(), deadline) << "after " << delay;
      absl::SleepFor(absl::Microseconds(200));
    }
    ASSERT_OK(CgroupParent::Recover({.path = groups_}).status());
    ASSERT_OK_AND_ASSIGN(const std::vector<DetachedProcess> ended,
                         ListDetached(directory_));
    for (const DetachedProcess& process : ended) {
      EXPECT_EQ(process.state, DetachedProcess::State::kEnded);
      ASSERT_OK(ForgetDetached(directory_, process.name));
    }
    ASSERT_OK_AND_ASSIGN(const CgroupLayout layout, CgroupLayout::Detect());
    for (const CgroupHierarchy& hierarchy : layout.hierarchies) {
      ASSERT_NE(::access((hierarchy.mount_point + groups_).c_str(), F_OK), 0)
          << hierarchy.mount_point << " after " << delay;
    }
  }
  printf("%d of %d hosts were killed after they had detached their process\n",
         detached, kKills);
  EXPECT_GT(detached, 0);
  EXPECT_LT(detached, kKills);
}

}  // namespace
}  // namespace caisson

int main(int argc, char** argv) {
  return caisson::testing::RunTestsOrScenario(
      argc, argv, {{"detach", caisson::DetachesAndSleeps}});
}
