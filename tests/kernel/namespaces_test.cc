// Namespaces that are joined, shared and pinned.
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "caisson/caisson.h"
#include "lib/sys/open.h"
#include "tests/support/container_test.h"
#include "tests/support/machine.h"

namespace caisson {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::HasSubstr;

constexpr char kForever[] = "echo ready; while :; do sleep 1000; done";

class NamespacesTest : public testing::ContainerTest {
 protected:
  // Joins the namespaces of `process` that `kinds` names.
  static NamespaceOptions Join(const Process& process,
                               std::initializer_list<NamespaceKind> kinds) {
    NamespaceOptions options;
    for (const NamespaceKind kind : kinds) {
      auto ns = OpenNamespace(process.pidfd(), kind);
      EXPECT_OK(ns);
      if (!ns.ok()) continue;
      NamespaceSource source = NamespaceSource::Join(*std::move(ns));
      switch (kind) {
        case NamespaceKind::kMount:
          options.mount = std::move(source);
          break;
        case NamespaceKind::kPid:
          options.pid = std::move(source);
          options.unsafe_joined_pid = PidNamespaceTrusted{};
          break;
        case NamespaceKind::kNet:
          options.net = std::move(source);
          break;
        case NamespaceKind::kIpc:
          options.ipc = std::move(source);
          break;
        case NamespaceKind::kUts:
          options.uts = std::move(source);
          break;
        case NamespaceKind::kCgroup:
          options.cgroup = std::move(source);
          break;
        case NamespaceKind::kTime:
          options.time = std::move(source);
          break;
        case NamespaceKind::kUser:
          break;
      }
    }
    return options;
  }

  static std::string OutputIn(NamespaceOptions options,
                              const std::string& script) {
    auto ns = Namespace::Create(std::move(options));
    EXPECT_OK(ns);
    if (!ns.ok()) return "";
    ProcessSpec spec = Shell(script);
    spec.namespaces = &*ns;
    auto outcome = Run(spec);
    EXPECT_OK(outcome);
    return outcome.ok() ? outcome->output : "";
  }
};

// The members of a pod: processes, network, ipc and name in common, each with a
// root of its own.
TEST_F(NamespacesTest, PodSharesWhatItJoins) {
  NamespaceOptions options;
  options.hostname = "pod";
  ASSERT_OK_AND_ASSIGN(Namespace ns, Namespace::Create(std::move(options)));
  ProcessSpec spec = Shell(
      "echo only here > /tmp/file; echo ready; while :; do sleep 1000; done");
  spec.namespaces = &ns;
  ASSERT_OK_AND_ASSIGN(Running first, StartUntilOutput(spec));
  const std::string output = OutputIn(
      Join(*first.process, {NamespaceKind::kPid, NamespaceKind::kNet,
                            NamespaceKind::kIpc, NamespaceKind::kUts}),
      "hostname; cat /tmp/file 2>&1; ps -o args | grep -c '^sleep 1000'; "
      "for ns in pid net ipc uts mnt; do "
      "[ $(readlink /proc/1/ns/$ns) = $(readlink /proc/self/ns/$ns) ] && "
      "echo same $ns; done");
  EXPECT_EQ(output,
            "pod\ncat: can't open '/tmp/file': No such file or directory\n1\n"
            "same pid\nsame net\nsame ipc\nsame uts\n");
}

TEST_F(NamespacesTest, PidNamespaceOfStrangersIsJoinedKnowingly) {
  ASSERT_OK_AND_ASSIGN(Running first, StartUntilOutput(Shell(kForever)));
  NamespaceOptions options = Join(*first.process, {NamespaceKind::kPid});
  options.unsafe_joined_pid.reset();
  ASSERT_OK_AND_ASSIGN(Namespace ns, Namespace::Create(std::move(options)));
  ProcessSpec spec = Shell("true");
  spec.namespaces = &ns;
  EXPECT_THAT(Run(spec).status(), StatusIs(absl::StatusCode::kInvalidArgument,
                                           HasSubstr("unsafe_joined_pid")));
}

TEST_F(NamespacesTest, JoinedPidNamespaceEndsWithItsFirstProcess) {
  ASSERT_OK_AND_ASSIGN(Running first, StartUntilOutput(Shell(kForever)));
  ASSERT_OK_AND_ASSIGN(
      Namespace ns,
      Namespace::Create(Join(*first.process, {NamespaceKind::kPid})));
  ProcessSpec spec = Shell(kForever);
  spec.namespaces = &ns;
  ASSERT_OK_AND_ASSIGN(Running second, StartUntilOutput(spec));
  ASSERT_OK(first.process->Signal(SIGKILL));
  ASSERT_OK_AND_ASSIGN(ExitStatus status, second.process->Wait());
  EXPECT_EQ(status.signal, SIGKILL);
  // Nothing can be born there any more.
  ProcessSpec third = Shell("true");
  third.namespaces = &ns;
  EXPECT_FALSE(Run(third).ok());
}

TEST_F(NamespacesTest, MountNamespaceIsJoinedWithoutARoot) {
  ASSERT_OK_AND_ASSIGN(
      Running first,
      StartUntilOutput(Shell("echo shared > /tmp/file; echo; sleep 1000")));
  ASSERT_OK_AND_ASSIGN(
      Namespace ns,
      Namespace::Create(Join(*first.process, {NamespaceKind::kMount})));
  ProcessSpec spec = Shell("cat /tmp/file; echo; sleep 1000");
  spec.namespaces = &ns;
  ASSERT_OK_AND_ASSIGN(RootFs root, RootFs::Create(root_->Options()));
  spec.root = &root;
  EXPECT_THAT(launcher_->Start(spec).status(),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("exclude each other")));
  spec.root = nullptr;
  spec.out = Stdio::Pipe();
  ASSERT_OK_AND_ASSIGN(Process process, launcher_->Start(spec));
  const UniqueFd output = process.TakeStdout();
  char buffer[16];
  ASSERT_EQ(::read(output.get(), buffer, 7), 7);
  EXPECT_EQ(std::string(buffer, 7), "shared\n");
}

TEST_F(NamespacesTest, NamespacesOutliveTheirProcessesWhenHeld) {
  NamespaceOptions options;
  options.hostname = "pinned";
  ASSERT_OK_AND_ASSIGN(Namespace ns, Namespace::Create(std::move(options)));
  NamespaceOptions later;
  {
    ProcessSpec spec = Shell(kForever);
    spec.namespaces = &ns;
    ASSERT_OK_AND_ASSIGN(Running first, StartUntilOutput(spec));
    later = Join(*first.process, {NamespaceKind::kUts, NamespaceKind::kIpc});
    ASSERT_OK(first.process->Destroy());
  }
  EXPECT_EQ(OutputIn(std::move(later), "hostname"), "pinned\n");
}

TEST_F(NamespacesTest, UserNamespaceOwnsWhatItsMembersShare) {
  NEED_KERNEL(6, 15);
  ASSERT_OK_AND_ASSIGN(UniqueFd user,
                       launcher_->NewUserNamespace({0, 400000, 65536}));
  RootFsOptions root_options = root_->Options();
  root_options.root_uid = root_options.root_gid = 400000;
  root_options.idmap_user_namespace = user.borrow();
  NamespaceOptions options;
  options.hostname = "members";
  ASSERT_OK_AND_ASSIGN(options.user, sys::Duplicate(user.borrow()));
  ASSERT_OK_AND_ASSIGN(Namespace ns, Namespace::Create(std::move(options)));
  ASSERT_OK_AND_ASSIGN(RootFs root, RootFs::Create(root_options));
  ProcessSpec spec = Shell("sleep 1000");
  spec.root = &root;
  spec.namespaces = &ns;
  ASSERT_OK_AND_ASSIGN(Process first, launcher_->Start(spec));

  NamespaceOptions second =
      Join(first, {NamespaceKind::kPid, NamespaceKind::kNet,
                   NamespaceKind::kUts, NamespaceKind::kIpc});
  ASSERT_OK_AND_ASSIGN(second.user, sys::Duplicate(user.borrow()));
  ASSERT_OK_AND_ASSIGN(Namespace joined, Namespace::Create(std::move(second)));
  ProcessSpec other = Shell("hostname; id -u; ls -ld /proc/1/root");
  other.namespaces = &joined;
  ASSERT_OK_AND_ASSIGN(Outcome outcome, Run(other, root_options));
  EXPECT_THAT(outcome.output, HasSubstr("members\n0\n"));
}

TEST_F(NamespacesTest, ForeignNamespaceIsJoinedBeforeTheUserNamespace) {
  NEED_KERNEL(6, 15);
  ASSERT_OK_AND_ASSIGN(UniqueFd user,
                       launcher_->NewUserNamespace({0, 400000, 65536}));
  RootFsOptions root_options = root_->Options();
  root_options.root_uid = root_options.root_gid = 400000;
  root_options.idmap_user_namespace = user.borrow();
  NamespaceOptions named;
  named.hostname = "foreign";
  ASSERT_OK_AND_ASSIGN(Namespace plain, Namespace::Create(std::move(named)));
  ProcessSpec spec = Shell(kForever);
  spec.namespaces = &plain;
  ASSERT_OK_AND_ASSIGN(Running first, StartUntilOutput(spec));
  NamespaceOptions options = Join(*first.process, {NamespaceKind::kUts});
  ASSERT_OK_AND_ASSIGN(options.user, sys::Duplicate(user.borrow()));
  ASSERT_OK_AND_ASSIGN(Namespace ns, Namespace::Create(std::move(options)));
  ProcessSpec other = Shell("hostname; hostname mine 2>&1; sleep 1000");
  other.namespaces = &ns;
  ASSERT_OK_AND_ASSIGN(RootFs root, RootFs::Create(root_options));
  other.root = &root;
  other.out = Stdio::Pipe();
  ASSERT_OK_AND_ASSIGN(Process process, launcher_->Start(other));
  const UniqueFd output = process.TakeStdout();
  char buffer[8];
  ASSERT_EQ(::read(output.get(), buffer, 8), 8);
  EXPECT_EQ(std::string(buffer, 8), "foreign\n");
  // And a second program finds its way, too.
  EXPECT_EQ(ExecOutput(process, "hostname; id -u"), "foreign\n0\n");
}

TEST_F(NamespacesTest, MultiRangeMaps) {
  ASSERT_OK_AND_ASSIGN(
      UniqueFd user,
      launcher_->NewUserNamespace(
          IdMap{.users = {{0, 500000, 1}, {1, 600000, 999}, {1000, 1000, 1}},
                .groups = {{0, 500000, 2000}},
                .deny_setgroups = true}));
  NamespaceOptions options;
  options.user = std::move(user);
  ASSERT_OK_AND_ASSIGN(Namespace ns, Namespace::Create(std::move(options)));
  RootFsOptions root_options = root_->Options();
  root_options.root_uid = root_options.root_gid = 500000;
  ProcessSpec spec =
      Shell("tr -s ' ' < /proc/self/uid_map; cat /proc/self/setgroups");
  spec.namespaces = &ns;
  ASSERT_OK_AND_ASSIGN(Outcome outcome, Run(spec, root_options));
  EXPECT_EQ(outcome.output, " 0 500000 1\n 1 600000 999\n 1000 1000 1\ndeny\n");
}

TEST_F(NamespacesTest, ClocksHaveOffsets) {
  NamespaceOptions options;
  options.time = NamespaceSource::New();
  options.boottime_offset = absl::Hours(24 * 1000);
  options.monotonic_offset = absl::Hours(24 * 2000);
  const std::string output =
      OutputIn(std::move(options), "cut -d. -f1 /proc/uptime");
  timespec now;
  ASSERT_EQ(::clock_gettime(CLOCK_BOOTTIME, &now), 0);
  int64_t uptime = 0;
  ASSERT_TRUE(absl::SimpleAtoi(output, &uptime)) << output;
  EXPECT_GE(uptime, 24 * 1000 * 3600);
  EXPECT_LT(uptime, 24 * 1000 * 3600 + now.tv_sec + 600);
}

TEST_F(NamespacesTest, ClockThatWouldBeNegative) {
  NamespaceOptions options;
  options.time = NamespaceSource::New();
  options.monotonic_offset = -absl::Hours(24 * 10000);
  ASSERT_OK_AND_ASSIGN(Namespace ns, Namespace::Create(std::move(options)));
  ProcessSpec spec = Shell("true");
  spec.namespaces = &ns;
  EXPECT_THAT(Run(spec).status().message(),
              HasSubstr("write(\"/proc/self/timens_offsets\"): ERANGE"));
}

TEST_F(NamespacesTest, DomainName) {
  NamespaceOptions options;
  options.domainname = "example";
  EXPECT_EQ(OutputIn(std::move(options), "cat /proc/sys/kernel/domainname"),
            "example\n");
}

TEST_F(NamespacesTest, NamespaceOfAProcessThatHasEnded) {
  ASSERT_OK_AND_ASSIGN(Running first, StartUntilOutput(Shell(kForever)));
  ASSERT_OK(first.process->Destroy());
  EXPECT_THAT(OpenNamespace(first.process->pidfd(), NamespaceKind::kNet),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("has ended")));
}

TEST_F(NamespacesTest, PidNamespaceOfAnotherLauncherIsRefused) {
  ASSERT_OK_AND_ASSIGN(Running first, StartUntilOutput(Shell(kForever)));
  ASSERT_OK_AND_ASSIGN(
      Namespace ns,
      Namespace::Create(Join(*first.process, {NamespaceKind::kPid})));
  ASSERT_OK_AND_ASSIGN(Launcher other, Launcher::Create());
  ASSERT_OK_AND_ASSIGN(RootFs root, RootFs::Create(root_->Options()));
  ProcessSpec spec = Shell("true");
  spec.namespaces = &ns;
  spec.root = &root;
  EXPECT_THAT(other.Start(spec).status().message(),
              HasSubstr("only the pid namespace of what the same launcher"));
  EXPECT_OK(other.Shutdown());
}

}  // namespace
}  // namespace caisson
