// Hosts and launchers that are killed at any instant leave nothing behind but
// what CgroupParent::Recover() and Network::Recover() remove.
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "caisson/caisson.h"
#include "gtest/gtest.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/base/status_matchers.h"
#include "lib/sys/pidfd.h"
#include "lib/sys/remove_tree.h"
#include "tests/host_safety/scenario.h"
#include "tests/support/test_root.h"

namespace caisson {
namespace {

using ::caisson::testing::HostSnapshot;
using ::caisson::testing::TakeHostSnapshot;
using ::caisson::testing::TestRoot;

// Of each kind there are two tests, to be run side by side: they wait more than
// they work.
constexpr int kTests = 2;
#ifdef CAISSON_SANITIZED
constexpr int kKills = 20;
#else
constexpr int kKills = 125;
#endif
constexpr size_t kPortNameSize = 15;  // a bridge's is shorter
constexpr absl::Duration kPatience = absl::Seconds(20);
constexpr int kLongestDelay = 30000;  // microseconds: a round and more

// What both sides of a test know, by the environment.
constexpr char kDirectory[] = "CAISSON_KILL_TEST_DIRECTORY";
constexpr char kGroups[] = "CAISSON_KILL_TEST_GROUPS";

std::string StateDirectory() {
  return absl::StrCat(::getenv(kDirectory), "/net");
}

struct Directories {
  UniqueFd root;
  UniqueFd upper;
  UniqueFd work;
};

absl::StatusOr<UniqueFd> OpenDirectory(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) return ErrnoError(errno, absl::StrCat("open ", path));
  return fd;
}

absl::StatusOr<Directories> OpenDirectories() {
  const std::string base = ::getenv(kDirectory);
  Directories result;
  ASSIGN_OR_RETURN(result.root, OpenDirectory(base + "/root"));
  ASSIGN_OR_RETURN(result.upper, OpenDirectory(base + "/upper"));
  ASSIGN_OR_RETURN(result.work, OpenDirectory(base + "/work"));
  return result;
}

// One container in a group of its own that writes, with an address and a
// published port, and a second program in it; and their end.
absl::Status RunContainer(Launcher& launcher, const CgroupParent& parent,
                          Network& network, const Directories& directories) {
  RootFsOptions options;
  options.layers = {directories.root.borrow()};
  options.writes = RootWrites::kDirectories;
  options.upper_directory = directories.upper.borrow();
  options.work_directory = directories.work.borrow();
  options.resolv_conf = "";
  ASSIGN_OR_RETURN(RootFs root, RootFs::Create(options));
  CgroupOptions group_options;
  group_options.name = "job";
  group_options.limits.pids_max = 16;
  ASSIGN_OR_RETURN(Cgroup group, parent.Create(group_options));
  ASSIGN_OR_RETURN(NetNamespace ns, launcher.NewNetNamespace());
  ASSIGN_OR_RETURN(
      NetEndpoint endpoint,
      NetEndpoint::Create(
          network, std::move(ns),
          {.name = "job", .ports = {{.host_port = 80, .container_port = 80}}}));
  ProcessSpec spec;
  spec.network = &endpoint;
  spec.argv = {"sh", "-c", "sleep 1000 & echo written > /file; read line"};
  spec.root = &root;
  spec.cgroup = &group;
  spec.in = Stdio::Pipe();
  ASSIGN_OR_RETURN(Process process, launcher.Start(spec));
  ProcessSpec second;
  second.argv = {"sh", "-c", "echo again > /file"};
  ASSIGN_OR_RETURN(const Process other, launcher.Exec(process, second));
  RETURN_IF_ERROR(other.Wait().status());
  process.TakeStdin().reset();
  RETURN_IF_ERROR(process.Wait().status());
  RETURN_IF_ERROR(endpoint.Destroy());
  return group.Destroy();
}

// Tells on standard output that it is about to begin and which process is the
// launcher; goes on until one of them is killed.
absl::Status StartsForever() {
  ASSIGN_OR_RETURN(const Directories directories, OpenDirectories());
  ASSIGN_OR_RETURN(const CgroupParent parent,
                   CgroupParent::Open({.path = ::getenv(kGroups)}));
  ASSIGN_OR_RETURN(Launcher launcher, Launcher::Create());
  const pid_t pid = sys::PidOf(launcher.pidfd());
  if (::write(STDOUT_FILENO, &pid, sizeof(pid)) != sizeof(pid)) {
    return absl::InternalError("write");
  }
  ASSIGN_OR_RETURN(
      Network network,
      Network::Open({.subnet = "10.66.0.0/16", .state_dir = StateDirectory()}));
  absl::Status status;
  while (status.ok()) {
    status = RunContainer(launcher, parent, network, directories);
  }
  pollfd dead = {launcher.pidfd().get(), POLLIN, 0};
  if (::poll(&dead, 1, /*ms=*/5000) == 1) return absl::OkStatus();
  return status;
}

// Of the calling thread's network namespace, without its loopback.
std::set<std::string> Interfaces() {
  std::set<std::string> names;
  struct if_nameindex* const all = ::if_nameindex();
  for (const auto* one = all; one != nullptr && one->if_index != 0; ++one) {
    names.insert(one->if_name);
  }
  ::if_freenameindex(all);
  names.erase("lo");
  return names;
}

class KillTest : public ::testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    // The host's network: all interfaces there are the test's.
    ASSERT_EQ(::unshare(CLONE_NEWNET), 0);
    // What outlives a host becomes a child of this process.
    ASSERT_EQ(::prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    const std::string base = std::filesystem::path(root_.path()).parent_path();
    directory_ = absl::StrCat(base, "/kill.XXXXXX");
    ASSERT_NE(::mkdtemp(directory_.data()), nullptr);
    ASSERT_EQ(::symlink(root_.path().c_str(), (directory_ + "/root").c_str()),
              0);
    for (const char* name : {"/upper", "/work", "/net"}) {
      ASSERT_EQ(::mkdir((directory_ + name).c_str(), 0700), 0);
    }
    groups_ = absl::StrCat("/caisson-kill-test-", ::getpid());
    ::setenv(kDirectory, directory_.c_str(), 1);
    ::setenv(kGroups, groups_.c_str(), 1);
    before_ = TakeHostSnapshot();
  }

  void TearDown() override {
    const HostSnapshot after = TakeHostSnapshot();
    EXPECT_EQ(after.mounts, before_.mounts);
    EXPECT_EQ(after.descriptors, before_.descriptors);
    EXPECT_EQ(after.children, before_.children);
    ASSERT_OK_AND_ASSIGN(const UniqueFd parent,
                         OpenDirectory(directory_ + "/.."));
    EXPECT_OK(sys::RemoveTree(parent.borrow(),
                              directory_.substr(directory_.rfind('/') + 1)));
  }

  // A host that has a launcher, and the launcher's number.
  struct Host {
    pid_t pid = -1;
    pid_t launcher = -1;
  };
  static absl::StatusOr<Host> StartHost() {
    int fds[2];
    if (::pipe2(fds, O_CLOEXEC) != 0) return ErrnoError(errno, "pipe2");
    const UniqueFd reader(fds[0]);
    UniqueFd writer(fds[1]);
    Host host;
    host.pid = ::fork();
    if (host.pid == 0) {
      ::dup2(writer.get(), STDOUT_FILENO);
      ::execl("/proc/self/exe", "kill_test", "--scenario=starts",
              static_cast<char*>(nullptr));
      ::_exit(127);
    }
    writer.reset();
    if (::read(reader.get(), &host.launcher, sizeof(host.launcher)) !=
        sizeof(host.launcher)) {
      return absl::InternalError("the host said nothing");
    }
    return host;
  }

  // Collects every process that the host left, until there is none.
  static ::testing::AssertionResult AllEnd(pid_t host, int& status) {
    const absl::Time deadline = absl::Now() + kPatience;
    while (absl::Now() < deadline) {
      int one = 0;
      const pid_t pid = ::waitpid(-1, &one, WNOHANG | __WALL);
      if (pid == host) status = one;
      if (pid < 0) return ::testing::AssertionSuccess();
      if (pid == 0) absl::SleepFor(absl::Microseconds(200));
    }
    return ::testing::AssertionFailure() << "a process is left";
  }

  // In any hierarchy: what Recover() could have missed.
  std::string GroupsLeft() const {
    std::string left;
    for (const auto& hierarchy :
         std::filesystem::directory_iterator("/sys/fs/cgroup")) {
      const std::string path = hierarchy.path().string() + groups_;
      if (::access(path.c_str(), F_OK) == 0) absl::StrAppend(&left, path, "\n");
    }
    if (::access(("/sys/fs/cgroup" + groups_).c_str(), F_OK) == 0) {
      absl::StrAppend(&left, groups_);
    }
    return left;
  }

  // The end of a container's network namespace takes its end of a pair, and
  // thereby the host's end. So when that is gone, the namespace is.
  static ::testing::AssertionResult NamespacesEnd() {
    const auto is_port = [](const std::string& name) {
      return name.size() == kPortNameSize;
    };
    const absl::Time deadline = absl::Now() + kPatience;
    for (;;) {
      const std::set<std::string> left = Interfaces();
      if (std::none_of(left.begin(), left.end(), is_port)) break;
      if (absl::Now() >= deadline) {
        return ::testing::AssertionFailure() << "an interface is left";
      }
      absl::SleepFor(absl::Microseconds(500));
    }
    return ::testing::AssertionSuccess();
  }

  // What a host does that starts anew; then nothing is left.
  void Recover(int delay) {
    ASSERT_OK_AND_ASSIGN(const std::vector<std::string> groups,
                         CgroupParent::Recover({.path = groups_}));
    with_groups_ += groups.empty() ? 0 : 1;
    ASSERT_EQ(GroupsLeft(), "") << "after " << delay << " us";
    ASSERT_OK_AND_ASSIGN(const std::vector<std::string> networks,
                         Network::Recover(StateDirectory()));
    with_networks_ += networks.empty() ? 0 : 1;
    ASSERT_EQ(Interfaces(), std::set<std::string>())
        << "after " << delay << " us";
  }

  template <typename Kill>
  void KillMany(const char* what, const Kill& kill) {
    std::mt19937 random(static_cast<unsigned>(::getpid()));
    std::uniform_int_distribution<int> delays(0, kLongestDelay);
    for (int i = 0; i < kKills; ++i) {
      ASSERT_OK_AND_ASSIGN(const Host host, StartHost());
      const int delay = delays(random);
      absl::SleepFor(absl::Microseconds(delay));
      kill(host);
      int status = -1;
      ASSERT_TRUE(AllEnd(host.pid, status)) << "after " << delay << " us";
      CheckHost(status, delay);
      ASSERT_TRUE(NamespacesEnd()) << "after " << delay << " us";
      ASSERT_NO_FATAL_FAILURE(Recover(delay));
      if (HasFailure()) return;
    }
    printf("%d %s killed, %d left control groups, %d a network\n", kKills, what,
           with_groups_, with_networks_);
  }

  virtual void CheckHost(int status, int delay) = 0;

  TestRoot root_;
  std::string directory_;
  std::string groups_;
  HostSnapshot before_;
  int with_groups_ = 0;
  int with_networks_ = 0;
};

class KillHostTest : public KillTest {
  void CheckHost(int status, int) override {
    EXPECT_TRUE(WIFSIGNALED(status)) << status;
  }
};

class KillLauncherTest : public KillTest {
  // It saw an error, nothing else happened to it, and it ended by itself.
  void CheckHost(int status, int delay) override {
    EXPECT_EQ(status, 0) << "after " << delay << " us";
  }
};

TEST_P(KillHostTest, LeavesNothing) {
  KillMany("hosts", [](const Host& host) { ::kill(host.pid, SIGKILL); });
}

TEST_P(KillLauncherTest, LeavesNothing) {
  KillMany("launchers",
           [](const Host& host) { ::kill(host.launcher, SIGKILL); });
}

INSTANTIATE_TEST_SUITE_P(All, KillHostTest, ::testing::Range(0, kTests));
INSTANTIATE_TEST_SUITE_P(All, KillLauncherTest, ::testing::Range(0, kTests));

}  // namespace
}  // namespace caisson

int main(int argc, char** argv) {
  return caisson::testing::RunTestsOrScenario(
      argc, argv, {{"starts", caisson::StartsForever}});
}
