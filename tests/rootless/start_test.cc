// Whole starts by an ordinary user.
#include <errno.h>
#include <fcntl.h>
#include <linux/prctl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "lib/base/status_macros.h"
#include "lib/base/status_matchers.h"
#include "lib/sys/open.h"
#include "tests/rootless/rootless_test.h"
#include "tests/support/machine.h"
#include "tests/support/ordinary_user.h"

namespace caisson {
namespace {

using ::caisson::testing::kFirstSubordinate;
using ::caisson::testing::kOrdinaryGroup;
using ::caisson::testing::kOrdinaryUser;
using ::caisson::testing::kSubordinates;
using ::caisson::testing::Outcome;
using ::caisson::testing::RootlessTest;
using ::caisson::testing::RunIn;
using ::caisson::testing::Shell;
using ::caisson::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

using StartTest = RootlessTest;

struct stat StatOf(const std::string& path) {
  struct stat status = {};
  EXPECT_EQ(::lstat(path.c_str(), &status), 0) << path;
  return status;
}

std::string HostFile(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

BorrowedFd Open(const std::string& path, std::vector<UniqueFd>& fds) {
  auto fd = sys::Open(path, O_PATH);
  EXPECT_OK(fd);
  fds.push_back(fd.ok() ? *std::move(fd) : UniqueFd());
  return fds.back().borrow();
}

// ---- Who it is -------------------------------------------------------------

TEST_F(StartTest, ExitCodeAndOutput) {
  ASSERT_OK_AND_ASSIGN(Outcome outcome, RunIn(single(), root().Options(),
                                              Shell("echo hello; exit 3")));
  EXPECT_EQ(outcome.output, "hello\n");
  EXPECT_EQ(outcome.status.code, 3);
}

TEST_F(StartTest, OwnUserAloneIsRootInside) {
  const LauncherIdentity& identity = single().identity();
  EXPECT_TRUE(identity.own_user_namespace);
  EXPECT_FALSE(identity.setgroups);
  EXPECT_EQ(identity.why_single, "LauncherOptions.ids is kOwn");
  ASSERT_EQ(identity.users.size(), 1u);
  EXPECT_EQ(identity.users[0].outside, kOrdinaryUser);
  EXPECT_EQ(identity.groups[0].outside, kOrdinaryGroup);
  const std::string output =
      Output(single(), root().Options(),
             "id -u; id -g; cat /proc/self/setgroups; echo $(cat "
             "/proc/self/uid_map) / $(cat /proc/self/gid_map)");
  EXPECT_EQ(output, absl::StrCat("0\n0\ndeny\n0 ", kOrdinaryUser, " 1 / 0 ",
                                 kOrdinaryGroup, " 1\n"));
}

TEST_F(StartTest, SubordinateIdsAreOtherUsers) {
  const LauncherIdentity& identity = many().identity();
  EXPECT_TRUE(identity.setgroups);
  EXPECT_THAT(identity.why_single, IsEmpty());
  ASSERT_EQ(identity.users.size(), 2u);
  EXPECT_EQ(identity.users[1].inside, 1u);
  EXPECT_EQ(identity.users[1].outside, kFirstSubordinate);
  EXPECT_EQ(identity.users[1].count, kSubordinates);
  EXPECT_EQ(Output(many(), root().Options(),
                   "cat /proc/self/setgroups; echo $(cat /proc/self/uid_map); "
                   "echo $(cat /proc/self/gid_map)"),
            absl::StrCat("allow\n0 ", kOrdinaryUser, " 1 1 ", kFirstSubordinate,
                         " 65536\n0 ", kOrdinaryGroup, " 1 1 ",
                         kFirstSubordinate, " 65536\n"));
  ProcessSpec spec = Shell("id -u; id -g; id -G");
  spec.user = "user";  // 1000:1001, also in group 1002
  ASSERT_OK_AND_ASSIGN(Outcome outcome, RunIn(many(), root().Options(), spec));
  EXPECT_EQ(outcome.output, "1000\n1001\n1001 1002\n");
}

TEST_F(StartTest, AvailableIdsAreTheSubordinateOnes) {
  ASSERT_OK_AND_ASSIGN(Launcher launcher, Launcher::Create());
  EXPECT_EQ(launcher.identity().users.size(), 2u);
}

// ---- Files -----------------------------------------------------------------

TEST_F(StartTest, FilesBelongToTheHostsUserAndItsSubordinates) {
  RootFsOptions options = root().Options();
  options.writes = RootWrites::kInPlace;
  ProcessSpec spec = Shell("touch /tmp/other");
  spec.user = "1000:1000";
  ASSERT_OK(RunIn(many(), options, Shell("touch /tmp/own; mkdir /srv")));
  ASSERT_OK(RunIn(many(), options, spec));
  EXPECT_EQ(StatOf(root().path() + "/tmp/own").st_uid, kOrdinaryUser);
  EXPECT_EQ(StatOf(root().path() + "/srv").st_gid, kOrdinaryGroup);
  const struct stat other = StatOf(root().path() + "/tmp/other");
  EXPECT_EQ(other.st_uid, kFirstSubordinate + 999);
  EXPECT_EQ(other.st_gid, kFirstSubordinate + 999);
  // Only root of such a namespace can take it away again.
  EXPECT_EQ(Output(many(), options, "rm /tmp/other && echo removed"),
            "removed\n");
}

TEST_F(StartTest, WritesGoToMemory) {
  NEED_KERNEL(6, 15);
  EXPECT_EQ(Output(single(), root().Options(),
                   "echo x > /new && rm -r /home && cat /new; ls -d /home"),
            "x\nls: /home: No such file or directory\n");
  EXPECT_NE(::access((root().path() + "/new").c_str(), F_OK), 0);
  EXPECT_EQ(::access((root().path() + "/home").c_str(), F_OK), 0);
}

TEST_F(StartTest, WritesGoToDirectories) {
  NEED_KERNEL(6, 15);
  const std::string base = NewDirectory("writable");
  std::vector<UniqueFd> fds;
  RootFsOptions options = root().Options();
  options.writes = RootWrites::kDirectories;
  for (const char* name : {"/upper", "/work"}) {
    ASSERT_EQ(::mkdir((base + name).c_str(), 0755), 0);
  }
  options.upper_directory = Open(base + "/upper", fds);
  options.work_directory = Open(base + "/work", fds);
  EXPECT_EQ(Output(single(), options,
                   "echo x > /new; rm -r /home; mkdir /home; echo y >> "
                   "/etc/passwd; ls /home"),
            "");
  EXPECT_EQ(HostFile(base + "/upper/new"), "x\n");
  EXPECT_EQ(StatOf(base + "/upper/new").st_uid, kOrdinaryUser);
  // What was written is there for the next container: marks of overlayfs
  // (an opaque directory) are read back.
  ASSERT_EQ(::mkdir((root().path() + "/home/lower").c_str(), 0755), 0);
  EXPECT_EQ(Output(single(), options,
                   "cat /new; ls /home; tail -n1 "
                   "/etc/passwd"),
            "x\ny\n");
  options.work_directory = Open(NewDirectory("elsewhere"), fds);
  options.mounts = single().mounts();
  EXPECT_THAT(RootFs::Create(options),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("must be entries of one directory")));
  fds.clear();
  // The work directory's inner one has mode 0.
  ASSERT_EQ(::chmod((base + "/work/work").c_str(), 0700), 0);
  std::filesystem::remove_all(base);
  std::filesystem::remove_all(NewDirectory("x") + "/../elsewhere");
}

TEST_F(StartTest, ReadOnlyRoots) {
  // Before, mount points that the root lacks cannot be made.
  NEED_KERNEL(6, 15);
  RootFsOptions options = root().Options();
  const std::string script =
      "touch /tmp/x; touch /x; touch /dev/shm/x && ls "
      "/dev/shm";
  const std::string refused =
      "touch: /tmp/x: Read-only file system\n"
      "touch: /x: Read-only file system\nx\n";
  options.writes = RootWrites::kNone;
  EXPECT_EQ(Output(single(), options, script), refused);
  options.writes = RootWrites::kTmpfs;
  options.read_only = true;
  EXPECT_EQ(Output(single(), options, script), refused);
  options.writes = RootWrites::kInPlace;
  EXPECT_EQ(Output(single(), options, script), refused);
}

TEST_F(StartTest, DevicesAndFileSystems) {
  const std::string output = Output(
      single(), root().Options(),
      "echo x > /dev/null; head -c 4 /dev/zero | wc -c; head -c 4 /dev/urandom "
      "| wc -c; echo x > /dev/full; ls /dev/mqueue /dev/shm; stat -c %t:%T "
      "/dev/null /dev/tty; test -e /dev/pts/ptmx; ls /sys/class/net; ls -d "
      "/proc/1; (echo 1 > /proc/sys/kernel/panic) 2>&1; cat /etc/hostname");
  EXPECT_THAT(output,
              AllOf(HasSubstr("4\n4\n"), HasSubstr("No space left on device"),
                    HasSubstr("1:3\n5:0\n"), HasSubstr("\nlo\n/proc/1\n"),
                    HasSubstr("kernel/panic: Read-only file system")));
}

TEST_F(StartTest, MaskedFilesAreEmptyAndStayEmpty) {
  const std::string output = Output(
      single(), root().Options(),
      "for f in /proc/keys /proc/timer_list /proc/interrupts; do wc -c < "
      "$f; (echo x > $f) 2>&1; chmod 666 $f; (echo x > $f) 2>&1; done; "
      "cat /proc/keys; ls -A /sys/firmware /proc/acpi");
  EXPECT_THAT(output, AllOf(HasSubstr("0\n"), Not(HasSubstr("\nx\n")),
                            HasSubstr("Read-only file system")));
}

// ---- Binds -----------------------------------------------------------------

TEST_F(StartTest, BindsOfDirectoriesAndFiles) {
  const std::string source = NewDirectory("source");
  std::ofstream(source + "/file") << "text\n";
  RootFsOptions options = root().Options();
  options.binds = {{.destination = "/data", .source = source},
                   {.destination = "/ro", .source = source, .read_only = true},
                   {.destination = "/etc/file", .source = source + "/file"}};
  EXPECT_EQ(Output(single(), options,
                   "cat /data/file /etc/file; echo more >> /etc/file; cat "
                   "/ro/file; touch /ro/x; touch /data/x"),
            "text\ntext\ntext\nmore\ntouch: /ro/x: Read-only file system\n");
  EXPECT_EQ(StatOf(source + "/x").st_uid, kOrdinaryUser);
  std::filesystem::remove_all(source);
}

// Flags that the source's mount has cannot be taken away, and are kept.
TEST_F(StartTest, LockedFlagsOfTheSourceAreKept) {
  const std::string locked =
      absl::StrCat(::getenv("TEST_TMPDIR"), "/../locked");
  RootFsOptions options = root().Options();
  options.binds = {{.destination = "/data", .source = locked},
                   {.destination = "/again", .source = locked, .noexec = true}};
  const std::string output =
      Output(single(), options,
             "cat /data/file /again/file; touch /data/x; grep -e ' /data ' "
             "/proc/self/mountinfo");
  EXPECT_THAT(output, AllOf(HasSubstr("locked\nlocked\n"),
                            HasSubstr("/data/x: Read-only file system"),
                            HasSubstr("ro,nosuid,nodev,noexec")));
}

// What lies below a mount may be hidden on purpose.
TEST_F(StartTest, MountsBelowASourceComeAlongOrAreAnError) {
  const std::string parent =
      absl::StrCat(::getenv("TEST_TMPDIR"), "/../covering");
  RootFsOptions options = root().Options();
  options.binds = {{.destination = "/data", .source = parent}};
  EXPECT_EQ(Output(single(), options, "cat /data/below/file"), "on top\n");
  options.binds[0].recursive = false;
  options.mounts = single().mounts();
  EXPECT_THAT(RootFs::Create(options),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("RootFsOptions.binds[0]"),
                             HasSubstr("locked mounts below it"))));
}

// ---- What is there beside the files ----------------------------------------

TEST_F(StartTest, Terminal) {
  for (Launcher* launcher : {&single(), &many()}) {
    RootFsOptions options = root().Options();
    options.mounts = launcher->mounts();
    ASSERT_OK_AND_ASSIGN(RootFs fs, RootFs::Create(options));
    ProcessSpec spec = Shell("tty; stty size; test -c /dev/console; exit 5");
    spec.root = &fs;
    spec.terminal = TerminalSize{.rows = 11, .columns = 22};
    ASSERT_OK_AND_ASSIGN(Process process, launcher->Start(spec));
    std::string text;
    char buffer[256];
    for (;;) {
      const ssize_t size =
          ::read(process.terminal().get(), buffer, sizeof(buffer));
      if (size <= 0) break;
      text.append(buffer, static_cast<size_t>(size));
    }
    EXPECT_EQ(text, "/dev/pts/0\r\n11 22\r\n");
    ASSERT_OK_AND_ASSIGN(const ExitStatus status, process.Wait());
    EXPECT_EQ(status.code, 5);
  }
}

TEST_F(StartTest, LoopbackOfItsOwnNetwork) {
  EXPECT_EQ(Output(single(), root().Options(),
                   "(nc -l -p 7000 -e echo answer) & sleep 0.2; nc 127.0.0.1 "
                   "7000; ip -o addr | grep -c inet"),
            "answer\n2\n");
}

TEST_F(StartTest, SharesTheHostsNetworkAndQueues) {
  ASSERT_OK_AND_ASSIGN(
      const Namespace shared,
      Namespace::Create({.ipc = NamespaceSource::ShareWithHost(),
                         .net = NamespaceSource::ShareWithHost()}));
  ProcessSpec spec = Shell(
      "readlink /proc/self/ns/net; ls /sys/class/net | grep -vx lo; ls "
      "/dev/mqueue");
  spec.namespaces = &shared;
  ASSERT_OK_AND_ASSIGN(const Outcome outcome,
                       RunIn(single(), root().Options(), spec));
  char own[64] = {};
  ASSERT_GT(::readlink("/proc/self/ns/net", own, sizeof(own) - 1), 0);
  // The host's devices cannot be shown: that sysfs is not the user's.
  EXPECT_EQ(outcome.output, absl::StrCat(own, "\n"));
}

TEST_F(StartTest, NewNetNamespaceCanBeMade) {
  ASSERT_OK_AND_ASSIGN(const NetNamespace net, single().NewNetNamespace());
  EXPECT_TRUE(net.ns.valid());
}

TEST_F(StartTest, HookProgramsRunInside) {
  const auto hook = [&](const std::string& script) {
    return RunProgramInside(single(), {.path = "/bin/sh",
                                       .args = {"sh", "-c", script},
                                       .env = {"PATH=/usr/bin:/bin"}});
  };
  ProcessSpec spec = Shell("readlink /proc/self/ns/mnt; cat /early /late");
  spec.hooks.create_container = {
      hook("{ readlink /proc/self/ns/mnt; id -u; } > ./early")};
  spec.hooks.start_container = {hook("echo \"$(id -u) $PWD\" > /late")};
  ASSERT_OK_AND_ASSIGN(const Outcome outcome,
                       RunIn(single(), root().Options(), spec));
  const std::string mounts =
      outcome.output.substr(0, outcome.output.find('\n') + 1);
  EXPECT_THAT(mounts, HasSubstr("mnt:["));
  EXPECT_EQ(outcome.output, absl::StrCat(mounts, mounts, "0\n0 /\n"));
}

TEST_F(StartTest, CapabilitiesAreThoseOfTheUserNamespace) {
  EXPECT_EQ(Output(single(), root().Options(),
                   "grep -e Cap -e NoNew -e Seccomp: /proc/self/status | tr -d "
                   "'\\n\\t'"),
            "CapInh:0000000000000000CapPrm:00000000a80425fb"
            "CapEff:00000000a80425fbCapBnd:00000000a80425fb"
            "CapAmb:0000000000000000NoNewPrivs:1Seccomp:2");
}

// ---- What it cannot do -----------------------------------------------------

// Without filter and with every capability that there is: what is left is the
// kernel's own fence around a user namespace.
TEST_F(StartTest, EscapesFail) {
  SecurityOptions options;
  options.unsafe_seccomp = SeccompUnconfined{};
  options.unsafe_add_capabilities = {"ALL"};
  ASSERT_OK_AND_ASSIGN(const SecurityPolicy policy,
                       SecurityPolicy::Create(options));
  ProcessSpec spec = Shell(absl::StrCat(
      "mknod /disk b 8 0 && echo device\n"
      "chmod 666 /dev/null && echo chmod\n"
      "kill -0 ",
      ::getpid(),
      " && echo kill\n"
      "test -e /proc/",
      ::getpid(),
      "/root && echo host process\n"
      "ls /proc/1/root/work /proc/1/cwd/.. | grep host\n"
      "mkdir /m; mount -t ext4 /dev/vda /m && echo mount\n"
      "mount -t tmpfs t /m && echo tmpfs\n"
      "mount -o remount,rw /sys && echo writable > /sys/kernel/uevent_helper "
      "&& echo sys\n"
      "mount -t proc p /m && (echo x > /m/sysrq-trigger) && echo sysrq\n"
      "(echo 0 > /m/sys/kernel/panic) && echo sysctl\n"
      "hostname inside && hostname\n"
      "setuidgid 1 true && echo setuid"));
  spec.security = &policy;
  ASSERT_OK_AND_ASSIGN(const Outcome outcome,
                       RunIn(single(), root().Options(), spec));
  for (const char* word :
       {"device\n", "\nchmod\n", "\nkill\n", "host process", "\nmount\n",
        "\nsys\n", "sysrq\n", "sysctl\n", "\nsetuid\n"}) {
    EXPECT_THAT(outcome.output, Not(HasSubstr(word)));
  }
  // Its own things it may change.
  EXPECT_THAT(outcome.output,
              AllOf(HasSubstr("tmpfs\n"), HasSubstr("inside\n")));
}

TEST_F(StartTest, RootFsWithoutTheLauncherSaysWhatToDo) {
  EXPECT_THAT(RootFs::Create(root().Options()),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("set RootFsOptions::mounts to "
                                 "Launcher::mounts()")));
}

TEST_F(StartTest, UsersThatDoNotExistAreAnError) {
  ProcessSpec spec = Shell("true");
  spec.user = "user";
  EXPECT_THAT(RunIn(single(), root().Options(), spec),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("\"user\": user 1000 does not exist"),
                             HasSubstr("kOwn"))));
  spec.user = "0:7";
  EXPECT_THAT(RunIn(single(), root().Options(), spec),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("group 7 does not exist")));
  spec.user = "70000";
  EXPECT_THAT(RunIn(many(), root().Options(), spec),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("user 70000 does not exist")));
}

TEST_F(StartTest, GroupsThatCannotBeGivenAreAnErrorOnlyIfAskedFor) {
  root().Write("etc/group", "root:x:0:\nwheel:x:10:root\n", 0644);
  EXPECT_EQ(Output(single(), root().Options(), "id -u"), "0\n");
  ProcessSpec spec = Shell("id -u");
  spec.user = "root";
  EXPECT_THAT(RunIn(single(), root().Options(), spec),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("further groups"), HasSubstr("0:0"))));
  spec.user = "root:root";
  EXPECT_OK(RunIn(single(), root().Options(), spec));
}

TEST_F(StartTest, UserNamespacesBelow) {
  ASSERT_OK_AND_ASSIGN(UniqueFd user, many().NewUserNamespace({0, 0, 1000}));
  NamespaceOptions options;
  options.user = std::move(user);
  ASSERT_OK_AND_ASSIGN(const Namespace below,
                       Namespace::Create(std::move(options)));
  ProcessSpec spec = Shell("echo $(cat /proc/self/uid_map); touch /x && id -u");
  spec.namespaces = &below;
  ASSERT_OK_AND_ASSIGN(const Outcome outcome,
                       RunIn(many(), root().Options(), spec));
  EXPECT_EQ(outcome.output, "0 0 1 1 1 999\n0\n");
  EXPECT_THAT(many().NewUserNamespace({0, 100000, 65536}),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("outside 100000 to 165535 (users)")));
  EXPECT_THAT(single().NewUserNamespace({0, 0, 2}),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("has root only: LauncherOptions.ids")));
}

// What `spec --rootless` prints, with another program.
TEST_F(StartTest, BundleWithAUserNamespace) {
  const std::string text = absl::StrReplaceAll(
      OciDefaultConfig(/*rootless=*/true),
      {{"\"terminal\": true", "\"terminal\": false"},
       {"\"rootfs\"", absl::StrCat("\"", root().path(), "\"")},
       {"\"sh\"",
        R"("sh", "-c", "id -u; hostname; cat /proc/self/uid_map; (echo > /x) 2>/dev/null; echo $?; stat -c %u /bin/busybox /dev/pts")"}});
  ASSERT_OK_AND_ASSIGN(const Bundle bundle, Bundle::Parse("/", text));
  ASSERT_OK_AND_ASSIGN(
      BundleParts parts,
      bundle.Compose({.id = "rootless", .launcher = &single()}));
  parts.spec().out = Stdio::Pipe();
  parts.spec().err = Stdio::LikeStdout();
  ASSERT_OK_AND_ASSIGN(Process process, single().Start(parts.spec()));
  const UniqueFd pipe = process.TakeStdout();
  ASSERT_OK_AND_ASSIGN(const std::string output,
                       sys::ReadAll(pipe.borrow(), 4096, "output"));
  ASSERT_OK(process.Wait().status());
  EXPECT_EQ(output, "0\ncaisson\n         0          0          1\n1\n0\n0\n");
}

TEST_F(StartTest, WhatNeedsRootSaysSo) {
  RootFsOptions options = root().Options();
  options.mounts = single().mounts();
  options.root_uid = 5;
  EXPECT_THAT(
      RootFs::Create(options),
      StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("CAP_CHOWN")));
  options.root_uid = 0;
  ASSERT_OK_AND_ASSIGN(const UniqueFd user,
                       sys::Open("/proc/self/ns/user", O_RDONLY));
  options.idmap_user_namespace = user.borrow();
  EXPECT_THAT(RootFs::Create(options),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("idmap_user_namespace: mapping the ids")));
  EXPECT_THAT(Network::Open({.state_dir = NewDirectory("net")}),
              StatusIs(absl::StatusCode::kPermissionDenied,
                       HasSubstr("CAP_NET_ADMIN")));
}

// ---- The host --------------------------------------------------------------

std::string StatusLine(const std::string& name) {
  for (absl::string_view line :
       absl::StrSplit(HostFile("/proc/self/status"), '\n')) {
    if (absl::StartsWith(line, name)) return std::string(line);
  }
  return "";
}

std::string HostState() {
  std::string state = absl::StrCat(
      "dumpable ", ::prctl(PR_GET_DUMPABLE), " subreaper ",
      StatusLine("Umask:"), StatusLine("Threads:"), StatusLine("Uid:"),
      StatusLine("Gid:"), StatusLine("Groups:"), StatusLine("CapEff:"),
      StatusLine("CapPrm:"), StatusLine("NoNewPrivs:"), StatusLine("SigBlk:"),
      StatusLine("SigCgt:"), StatusLine("SigIgn:"));
  for (const char* ns : {"user", "mnt", "pid", "net"}) {
    char link[64] = {};
    EXPECT_GT(::readlink(absl::StrCat("/proc/self/ns/", ns).c_str(), link,
                         sizeof(link) - 1),
              0);
    absl::StrAppend(&state, " ", link);
  }
  return state;
}

TEST_F(StartTest, NothingOfTheHostChanges) {
  const std::string before = HostState();
  {
    ASSERT_OK_AND_ASSIGN(Launcher launcher,
                         Launcher::Create({.ids = LauncherIds::kSubordinate}));
    EXPECT_EQ(HostState(), before);
    EXPECT_EQ(Output(launcher, root().Options(), "echo x"), "x\n");
    EXPECT_EQ(HostState(), before);
  }
  EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG | __WALL), -1);
  EXPECT_EQ(errno, ECHILD);
}

// A daemon that gave up root is not dumpable: /proc/self belongs to root then.
TEST_F(StartTest, HostThatIsNotDumpable) {
  ASSERT_EQ(::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), 0);
  const std::string before = HostState();
  for (const LauncherIds ids : {LauncherIds::kOwn, LauncherIds::kSubordinate}) {
    auto launcher = Launcher::Create({.ids = ids});
    ASSERT_OK(launcher);
    EXPECT_EQ(Output(*launcher, root().Options(), "echo x"), "x\n");
    EXPECT_EQ(HostState(), before);
  }
  ASSERT_EQ(::prctl(PR_SET_DUMPABLE, 1, 0, 0, 0), 0);
}

TEST_F(StartTest, HostWithManyThreads) {
  std::vector<std::thread> threads;
  Launcher& launcher = single();
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      for (int k = 0; k < 3; ++k) {
        EXPECT_EQ(Output(launcher, root().Options(), absl::StrCat("echo ", i)),
                  absl::StrCat(i, "\n"));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// Without set-user-ID rights newuidmap fails, after the launcher was born.
TEST_F(StartTest, NoNewPrivilegesOfTheHostIsNamed) {
  const pid_t host = ::fork();
  if (host == 0) {
    ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    const auto failed =
        Launcher::Create({.ids = LauncherIds::kSubordinate}).status();
    if (failed.message().find("no_new_privs") == std::string::npos) ::_exit(1);
    auto single = Launcher::Create();
    if (!single.ok()) ::_exit(2);
    const std::string& why = single->identity().why_single;
    ::_exit(why.find("no_new_privs") == std::string::npos ? 3 : 0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(host, &status, 0), host);
  EXPECT_EQ(status, 0);
}

TEST_F(StartTest, KilledHostLeavesNothing) {
  int fds[2];
  ASSERT_EQ(::pipe2(fds, O_CLOEXEC), 0);
  const pid_t host = ::fork();
  if (host == 0) {
    auto launcher = Launcher::Create();
    if (!launcher.ok()) ::_exit(1);
    RootFsOptions options = root().Options();
    options.mounts = launcher->mounts();
    auto fs = RootFs::Create(options);
    if (!fs.ok()) ::_exit(2);
    ProcessSpec spec = Shell("sleep 1000 & sleep 1000");
    spec.root = &*fs;
    auto process = launcher->Start(spec);
    if (!process.ok()) ::_exit(3);
    const pid_t pid = process->pid();
    if (::write(fds[1], &pid, sizeof(pid)) != sizeof(pid)) ::_exit(4);
    ::pause();
  }
  pid_t pid = 0;
  ASSERT_EQ(::read(fds[0], &pid, sizeof(pid)),
            static_cast<ssize_t>(sizeof(pid)));
  const UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  ASSERT_TRUE(pidfd.valid());
  ASSERT_EQ(::kill(host, SIGKILL), 0);
  pollfd poll = {pidfd.get(), POLLIN, 0};
  EXPECT_EQ(::poll(&poll, 1, 10000), 1);
  ::waitpid(host, nullptr, 0);
  ::close(fds[0]);
  ::close(fds[1]);
  // The launcher and its helper belong to this user: nothing is left.
  for (int i = 0;; ++i) {
    std::string left;
    for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
      const std::string comm = HostFile(entry.path().string() + "/comm");
      if (comm == "caisson-launch\n" &&
          StatOf(entry.path().string()).st_uid == kOrdinaryUser) {
        absl::StrAppend(&left, entry.path().string(), " ");
      }
    }
    if (left.empty()) break;
    ASSERT_LT(i, 1000) << left;
    ::usleep(10000);
  }
}

// The launcher of another host's: its ids are read from the kernel.
TEST_F(StartTest, DetachedProcessIsFoundAgain) {
  const std::string directory = NewDirectory("detached") + "/launcher";
  UniqueFd pidfd;
  {
    ASSERT_OK_AND_ASSIGN(Launcher launcher,
                         Launcher::Create({.ids = LauncherIds::kSubordinate,
                                           .directory = directory}));
    RootFsOptions options = root().Options();
    options.mounts = launcher.mounts();
    ASSERT_OK_AND_ASSIGN(RootFs made, RootFs::Create(options));
    ProcessSpec spec =
        Shell("trap 'exit 7' TERM; echo; while :; do sleep 1000 & wait; done");
    spec.root = &made;
    spec.out = Stdio::Pipe();
    ASSERT_OK_AND_ASSIGN(Process process, launcher.Start(spec));
    const UniqueFd out = process.TakeStdout();
    char byte;
    ASSERT_EQ(::read(out.get(), &byte, 1), 1);
    ASSERT_OK(process.Detach({.name = "mine"}));
  }
  {
    ASSERT_OK_AND_ASSIGN(Launcher launcher, Launcher::Attach(directory));
    EXPECT_TRUE(launcher.identity().own_user_namespace);
    ASSERT_EQ(launcher.identity().users.size(), 2u);
    EXPECT_EQ(launcher.identity().users[0].outside, kOrdinaryUser);
    EXPECT_EQ(launcher.identity().users[1].outside, kFirstSubordinate);
    EXPECT_TRUE(launcher.identity().setgroups);
    ASSERT_OK_AND_ASSIGN(const Process process, launcher.Find("mine"));
    ASSERT_OK_AND_ASSIGN(pidfd, sys::Duplicate(launcher.pidfd()));
    ProcessSpec spec = Shell("test $(id -u) = 5");
    spec.user = "5:5";
    ASSERT_OK_AND_ASSIGN(const Process exec, launcher.Exec(process, spec));
    ASSERT_OK_AND_ASSIGN(ExitStatus status, exec.Wait());
    EXPECT_TRUE(status.success()) << status.ToString();
    ASSERT_OK_AND_ASSIGN(status, process.Stop(absl::Seconds(20)));
    EXPECT_EQ(status.code, 7);
  }
  pollfd poll = {pidfd.get(), POLLIN, 0};
  EXPECT_EQ(::poll(&poll, 1, 20000), 1);
}

TEST_F(StartTest, RootThatOutlivesItsLauncherDoesNotKeepIt) {
  std::vector<UniqueFd> pidfd;
  RootFsOptions options = root().Options();
  {
    ASSERT_OK_AND_ASSIGN(Launcher launcher, Launcher::Create());
    options.mounts = launcher.mounts();
    auto copy = sys::Duplicate(launcher.pidfd());
    ASSERT_OK(copy);
    pidfd.push_back(*std::move(copy));
  }
  pollfd poll = {pidfd[0].get(), POLLIN, 0};
  EXPECT_EQ(::poll(&poll, 1, 10000), 1);
  EXPECT_THAT(RootFs::Create(options),
              StatusIs(absl::StatusCode::kUnavailable,
                       HasSubstr("create a new Launcher")));
}

}  // namespace
}  // namespace caisson

int main(int argc, char** argv) {
  return caisson::testing::RunTestsAsOrdinaryUser(argc, argv);
}
