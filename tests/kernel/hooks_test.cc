// Hooks, in the order that the OCI runtime specification gives them.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "caisson/caisson.h"
#include "lib/sys/open.h"
#include "tests/support/container_test.h"

namespace caisson {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class HooksTest : public testing::ContainerTest {
 protected:
  Hook Note(const std::string& name) {
    return [this, name](const HookState& state) {
      notes_.push_back(absl::StrCat(name, ":", state.status));
      pid_ = state.pid;
      return absl::OkStatus();
    };
  }

  Hooks AllNoted() {
    Hooks hooks;
    hooks.id = "box";
    hooks.prestart = {Note("prestart")};
    hooks.create_runtime = {Note("create_runtime")};
    hooks.create_container = {Note("create_container")};
    hooks.start_container = {Note("start_container")};
    hooks.poststart = {Note("poststart")};
    hooks.poststop = {Note("poststop")};
    return hooks;
  }

  std::vector<std::string> notes_;
  pid_t pid_ = 0;
};

TEST_F(HooksTest, RunInOrder) {
  ASSERT_OK_AND_ASSIGN(RootFs root, RootFs::Create(root_->Options()));
  ProcessSpec spec = Shell("exit 3");
  spec.root = &root;
  spec.hooks = AllNoted();
  ASSERT_OK_AND_ASSIGN(Process process, launcher_->CreateProcess(spec));
  EXPECT_THAT(notes_,
              ElementsAre("prestart:creating", "create_runtime:creating",
                          "create_container:creating"));
  EXPECT_EQ(pid_, process.pid());
  notes_.clear();
  ASSERT_OK(process.Start());
  EXPECT_THAT(notes_,
              ElementsAre("start_container:created", "poststart:running"));
  notes_.clear();
  ASSERT_OK_AND_ASSIGN(ExitStatus status, process.Wait());
  EXPECT_EQ(status.code, 3);
  EXPECT_THAT(notes_, IsEmpty());
  ASSERT_OK(process.Destroy());
  EXPECT_THAT(notes_, ElementsAre("poststop:stopped"));
  EXPECT_EQ(pid_, -1);
  EXPECT_THAT(process.Destroy(),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("")));
}

TEST_F(HooksTest, OneStartRunsThemAll) {
  ASSERT_OK_AND_ASSIGN(RootFs root, RootFs::Create(root_->Options()));
  ProcessSpec spec = Shell("exit 0");
  spec.root = &root;
  spec.hooks = AllNoted();
  ASSERT_OK_AND_ASSIGN(Process process, launcher_->Start(spec));
  EXPECT_EQ(notes_.size(), 5u);
  EXPECT_OK(process.Wait());
}

TEST_F(HooksTest, NamespacesExistBeforeTheRootIsEntered) {
  ASSERT_OK_AND_ASSIGN(RootFs root, RootFs::Create(root_->Options()));
  ProcessSpec spec = Shell("cat /proc/sys/kernel/hostname");
  spec.root = &root;
  NamespaceOptions options;
  options.hostname = "hooked";
  ASSERT_OK_AND_ASSIGN(Namespace ns, Namespace::Create(std::move(options)));
  spec.namespaces = &ns;
  bool other_net = false;
  spec.hooks.create_runtime = {[&](const HookState& state) {
    auto theirs = OpenNamespace(state.pidfd, NamespaceKind::kNet);
    auto ours = OpenNamespace("/proc/self/ns/net", NamespaceKind::kNet);
    struct stat a, b;
    if (theirs.ok() && ours.ok() && ::fstat(theirs->get(), &a) == 0 &&
        ::fstat(ours->get(), &b) == 0) {
      other_net = a.st_ino != b.st_ino;
    }
    return absl::OkStatus();
  }};
  ASSERT_OK_AND_ASSIGN(Process process, launcher_->Start(spec));
  EXPECT_TRUE(other_net);
  EXPECT_OK(process.Wait());
}

TEST_F(HooksTest, FailureOfAnyEndsTheProcessAndIsNamed) {
  const auto fail = [](const HookState&) {
    return absl::AbortedError("no luck");
  };
  std::vector<Hook> Hooks::*points[] = {
      &Hooks::prestart, &Hooks::create_runtime, &Hooks::create_container,
      &Hooks::start_container, &Hooks::poststart};
  for (std::vector<Hook> Hooks::*point : points) {
    ASSERT_OK_AND_ASSIGN(RootFs root, RootFs::Create(root_->Options()));
    ProcessSpec spec = Shell("sleep 1000");
    spec.root = &root;
    (spec.hooks.*point) = {Note("before"), fail, Note("after")};
    notes_.clear();
    EXPECT_THAT(launcher_->Start(spec).status(),
                StatusIs(absl::StatusCode::kAborted,
                         AllOf(HasSubstr("Hooks."), HasSubstr("[1]"),
                               HasSubstr("no luck"))));
    EXPECT_EQ(notes_.size(), 1u);
  }
}

// ---- Programs --------------------------------------------------------------

TEST_F(HooksTest, ProgramRunsOnTheHostWithTheState) {
  const std::string out = root_->path() + "/../state.json";
  ASSERT_OK_AND_ASSIGN(RootFs root, RootFs::Create(root_->Options()));
  ProcessSpec spec = Shell("exit 0");
  spec.root = &root;
  spec.hooks.id = "box \"1\"";
  spec.hooks.bundle = "/bundle";
  spec.hooks.annotations = {{"a", "b"}};
  spec.hooks.create_runtime = {RunProgram(
      *launcher_,
      {.path = "/bin/sh",
       .args = {"sh", "-c", "cat > $OUT; readlink /proc/self/ns/mnt >> $OUT"},
       .env = {"PATH=/usr/bin:/bin", absl::StrCat("OUT=", out)},
       .timeout = absl::Seconds(30)})};
  ASSERT_OK_AND_ASSIGN(Process process, launcher_->Start(spec));
  const pid_t pid = process.pid();
  EXPECT_OK(process.Wait());
  ASSERT_OK_AND_ASSIGN(const std::string text,
                       sys::ReadFileAt(BorrowedFd(AT_FDCWD), out, 0, 4096));
  char mounts[64] = {};
  ASSERT_GT(::readlink("/proc/self/ns/mnt", mounts, sizeof(mounts) - 1), 0);
  EXPECT_THAT(text, HasSubstr("\"id\":\"box \\\"1\\\"\""));
  EXPECT_THAT(text, HasSubstr("\"status\":\"creating\""));
  EXPECT_THAT(text, HasSubstr("\"annotations\":{\"a\":\"b\"}"));
  EXPECT_THAT(text, HasSubstr("\"ociVersion\":\"1."));
  EXPECT_THAT(text, HasSubstr(mounts));
  (void)pid;
  ::unlink(out.c_str());
}

absl::Status RunAlone(Launcher& launcher, HookProgram program) {
  return RunProgram(launcher, std::move(program))(HookState{});
}

TEST_F(HooksTest, FailedProgramSaysWhy) {
  EXPECT_THAT(
      RunAlone(*launcher_, {.path = "/bin/sh",
                            .args = {"sh", "-c", "echo too bad >&2; exit 7"}}),
      StatusIs(absl::StatusCode::kAborted,
               HasSubstr("hook \"/bin/sh\" exited with code 7: too "
                         "bad")));
  EXPECT_THAT(RunAlone(*launcher_,
                       {.path = "/bin/sh", .args = {"sh", "-c", "kill -9 $$"}}),
              StatusIs(absl::StatusCode::kAborted,
                       HasSubstr("was killed by signal 9")));
}

TEST_F(HooksTest, ProgramOverItsTimeoutIsKilled) {
  EXPECT_THAT(
      RunAlone(*launcher_, {.path = "/bin/sleep",
                            .args = {"sleep", "1000"},
                            .timeout = absl::Milliseconds(50)}),
      StatusIs(absl::StatusCode::kAborted, HasSubstr("did not end within")));
}

TEST_F(HooksTest, ProgramThatFloodsItsOutputIsBounded) {
  const absl::Status status =
      RunAlone(*launcher_,
               {.path = "/bin/sh",
                .args = {"sh", "-c",
                         "/usr/bin/yes | /usr/bin/head -c 1000000; exit 1"}});
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kAborted,
                               HasSubstr("exited with code 1")));
  EXPECT_LT(status.message().size(), 2000u);
}

TEST_F(HooksTest, DescendantThatWritesForEverIsNotWaitedFor) {
  // timeout(1) ends it when the test is long over.
  EXPECT_OK(RunAlone(
      *launcher_,
      {.path = "/bin/sh",
       .args = {"sh", "-c", "/usr/bin/timeout 20 /usr/bin/yes & exit 0"},
       .timeout = absl::Seconds(30)}));
}

// ---- Programs inside -------------------------------------------------------

class InsideTest : public HooksTest {
 protected:
  // The start of a container whose program runs `script`, with one hook.
  absl::StatusOr<Outcome> RunHooked(std::vector<Hook> Hooks::*point,
                                    HookProgram hook, ProcessSpec spec) {
    return RunHooked(point, std::move(hook), std::move(spec), root_->Options());
  }
  absl::StatusOr<Outcome> RunHooked(std::vector<Hook> Hooks::*point,
                                    HookProgram hook, ProcessSpec spec,
                                    RootFsOptions root) {
    spec.hooks.id = "box";
    (spec.hooks.*point) = {RunProgramInside(*launcher_, std::move(hook))};
    return Run(std::move(spec), std::move(root));
  }

  // A shell of the host or of the container.
  static HookProgram Script(const std::string& script) {
    return {.path = "/bin/sh",
            .args = {"sh", "-c", script},
            .env = {"PATH=/usr/bin:/bin"},
            .timeout = absl::Seconds(30)};
  }

  static std::string HostLink(const std::string& name) {
    char link[64] = {};
    (void)!::readlink(absl::StrCat("/proc/self/ns/", name).c_str(), link,
                      sizeof(link) - 1);
    return link;
  }

  // "ns:[1]\n" of each kind, of the shell that runs it.
  static constexpr char kNamespaces[] =
      "for n in mnt net ipc uts cgroup; do readlink /proc/self/ns/$n; done";
};

TEST_F(InsideTest, CreateContainerRunsInTheNamespacesBesideTheRoot) {
  NamespaceOptions options;
  options.hostname = "hooked";
  ASSERT_OK_AND_ASSIGN(Namespace ns, Namespace::Create(std::move(options)));
  ProcessSpec spec = Shell(absl::StrCat("cat /state /seen; echo; ", kNamespaces,
                                        "; readlink /proc/self/ns/pid"));
  spec.namespaces = &ns;
  ASSERT_OK_AND_ASSIGN(
      const Outcome outcome,
      RunHooked(&Hooks::create_container,
                Script(absl::StrCat(
                    "cat > ./state; { echo; ", kNamespaces,
                    "; readlink /proc/self/ns/pid; ls -d ./proc/1 "
                    "./dev/null /usr/include/linux; "
                    "cat /proc/sys/kernel/hostname; } > ./seen 2>/dev/null")),
                spec));
  const std::vector<std::string> lines =
      absl::StrSplit(absl::StripAsciiWhitespace(outcome.output), '\n');
  ASSERT_EQ(lines.size(), 18u) << outcome.output;
  EXPECT_THAT(lines[0], AllOf(HasSubstr("\"status\":\"creating\""),
                              HasSubstr("\"pid\":1"), HasSubstr("\"box\"")));
  for (int i = 0; i < 5; ++i) EXPECT_EQ(lines[1 + i], lines[12 + i]);
  EXPECT_NE(lines[1], HostLink("mnt"));
  // Nobody in the container can see it.
  EXPECT_NE(lines[6], lines[17]);
  // Everything is mounted where it stands; its root is the host's.
  EXPECT_EQ(lines[7], "./dev/null");
  EXPECT_EQ(lines[8], "./proc/1");
  EXPECT_EQ(lines[9], "/usr/include/linux");
  EXPECT_EQ(lines[10], "hooked");
}

TEST_F(InsideTest, CreateContainerMayMountInTheContainer) {
  ASSERT_OK_AND_ASSIGN(
      const Outcome outcome,
      RunHooked(&Hooks::create_container,
                {.path = "/bin/busybox",
                 .args = {"busybox", "mount", "-t", "tmpfs", "of-the-hook",
                          "/proc/self/cwd/home"}},
                Shell("grep -c 'of-the-hook' /proc/self/mounts; "
                      "sleep 0; ls /home | wc -l")));
  EXPECT_EQ(outcome.output, "1\n0\n");
}

TEST_F(InsideTest, CreateContainerIsRootOfTheUserNamespace) {
  ASSERT_OK_AND_ASSIGN(UniqueFd user,
                       launcher_->NewUserNamespace({0, 100000, 65536}));
  RootFsOptions root = root_->Options();
  root.idmap_user_namespace = user.borrow();
  root.root_uid = root.root_gid = 100000;
  NamespaceOptions options;
  ASSERT_OK_AND_ASSIGN(options.user, sys::Duplicate(user.borrow()));
  ASSERT_OK_AND_ASSIGN(Namespace ns, Namespace::Create(std::move(options)));
  ProcessSpec spec = Shell("cat /seen; stat -c %u /seen");
  spec.namespaces = &ns;
  ASSERT_OK_AND_ASSIGN(
      const Outcome outcome,
      RunHooked(&Hooks::create_container,
                Script("{ cat /proc/self/uid_map; id -u; "
                       "grep NoNewPrivs /proc/self/status; } > ./seen"),
                spec, std::move(root)));
  EXPECT_EQ(outcome.output,
            "         0     100000      65536\n0\nNoNewPrivs:\t0\n0\n");
}

TEST_F(InsideTest, StartContainerIsAsTheProgram) {
  constexpr char kStatus[] =
      "grep -E '^(Uid|Gid|Groups|Cap...|NoNewPrivs|Seccomp):' "
      "/proc/self/status; for n in mnt pid net ipc uts cgroup; do readlink "
      "/proc/self/ns/$n; done; pwd; umask; ulimit -n; ls /; ls /proc/self/fd "
      "| wc -l";
  ProcessSpec spec = Shell(absl::StrCat("{ ", kStatus,
                                        "; } > /tmp/program 2>&1; "
                                        "cat /tmp/state; echo; "
                                        "if test \"$(cat /tmp/program)\" = "
                                        "\"$(cat /tmp/hook)\"; then echo "
                                        "same; else cat /tmp/*; fi"));
  spec.user = "user";
  spec.additional_groups = {"extra"};
  spec.cwd = "/home";
  spec.umask = 027;
  spec.limits = {{.name = "nofile", .soft = 77, .hard = 78}};
  ASSERT_OK_AND_ASSIGN(
      const Outcome outcome,
      RunHooked(&Hooks::start_container,
                Script(absl::StrCat("cat > /tmp/state; { ", kStatus,
                                    "; } > /tmp/hook 2>&1")),
                std::move(spec)));
  const std::vector<std::string> lines =
      absl::StrSplit(absl::StripAsciiWhitespace(outcome.output), '\n');
  ASSERT_EQ(lines.size(), 2u) << outcome.output;
  EXPECT_THAT(lines[0], AllOf(HasSubstr("\"status\":\"created\""),
                              HasSubstr("\"pid\":1")));
  EXPECT_EQ(lines[1], "same");
}

TEST_F(InsideTest, StartContainerLooksItsProgramUpInTheRoot) {
  // On the host there is such a program.
  ASSERT_EQ(::access("/usr/bin/env", X_OK), 0);
  EXPECT_THAT(RunHooked(&Hooks::start_container, {.path = "/usr/bin/env"},
                        Shell("exit 0")),
              StatusIs(absl::StatusCode::kNotFound,
                       AllOf(HasSubstr("Hooks.start_container[0]"),
                             HasSubstr("execve(\"/usr/bin/env\"): ENOENT"))));
  EXPECT_OK(RunHooked(&Hooks::create_container, {.path = "/usr/bin/env"},
                      Shell("exit 0")));
}

TEST_F(InsideTest, FailuresEndTheProcessAndSayWhy) {
  for (const auto point : {&Hooks::create_container, &Hooks::start_container}) {
    EXPECT_THAT(
        RunHooked(point, Script("echo too bad >&2; exit 7"), Shell("exit 0")),
        StatusIs(absl::StatusCode::kAborted,
                 AllOf(HasSubstr("container[0]"),
                       HasSubstr("exited with code 7"), HasSubstr("too bad"))));
    EXPECT_THAT(
        RunHooked(point,
                  {.path = "/bin/sleep",
                   .args = {"sleep", "1000"},
                   .timeout = absl::Milliseconds(50)},
                  Shell("exit 0")),
        StatusIs(absl::StatusCode::kAborted, HasSubstr("did not end within")));
    EXPECT_THAT(RunHooked(point, {.path = "/nowhere/hook"}, Shell("exit 0")),
                StatusIs(absl::StatusCode::kNotFound,
                         HasSubstr("execve(\"/nowhere/hook\"): ENOENT")));
  }
}

TEST_F(InsideTest, WhatAHookLeavesBehindIsNotSeenInside) {
  ASSERT_OK_AND_ASSIGN(
      const Outcome outcome,
      RunHooked(&Hooks::create_container,
                Script("timeout 20 sleep 20 > /dev/null 2>&1 & echo > ./left"),
                Shell("ls -d /left /proc/[0-9]*")));
  EXPECT_EQ(outcome.output, "/left\n/proc/1\n");
}

TEST_F(InsideTest, OtherPointsHaveNoInside) {
  for (const auto point :
       {&Hooks::prestart, &Hooks::create_runtime, &Hooks::poststart}) {
    EXPECT_THAT(RunHooked(point, Script("exit 0"), Shell("exit 0")),
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         HasSubstr("RunProgramInside()")));
  }
}

TEST_F(InsideTest, HookOfAnotherLauncherIsRefused) {
  ASSERT_OK_AND_ASSIGN(Launcher other, Launcher::Create());
  ProcessSpec spec = Shell("exit 0");
  spec.hooks.start_container = {RunProgramInside(other, Script("exit 0"))};
  EXPECT_THAT(Run(std::move(spec)),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("belongs to another Launcher")));
  EXPECT_OK(other.Shutdown());
}

TEST_F(HooksTest, MissingProgram) {
  EXPECT_THAT(RunAlone(*launcher_, {.path = "/nowhere/hook"}),
              StatusIs(absl::StatusCode::kNotFound,
                       HasSubstr("execve(\"/nowhere/hook\"): ENOENT")));
  EXPECT_THAT(RunAlone(*launcher_, {.path = "hook"}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("is not absolute")));
}

}  // namespace
}  // namespace caisson
