// Hooks, in the order that the OCI runtime specification gives them.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
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
