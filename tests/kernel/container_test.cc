// Containers with their keepers, on the real kernel and from several processes.
#include "tests/support/container_test.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "caisson/caisson.h"
#include "lib/sys/open.h"
#include "lib/sys/remove_tree.h"
#include "tests/support/machine.h"

namespace caisson {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::_;
using ::testing::AnyOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

constexpr absl::Duration kPatience = absl::Seconds(30);
constexpr char kForever[] =
    "trap 'exit 9' TERM; echo ready; while :; do sleep 1000 & wait; done";

std::string ReadAll(const UniqueFd& fd) {
  return sys::ReadAll(fd.borrow(), 1 << 20, "a stream").value_or("");
}

// Whether it becomes true in time.
template <typename Condition>
bool Await(Condition condition) {
  const absl::Time end = absl::Now() + kPatience;
  while (!condition()) {
    if (absl::Now() > end) return false;
    absl::SleepFor(absl::Milliseconds(5));
  }
  return true;
}

class ContainerTest : public testing::ContainerTest {
 protected:
  void SetUp() override {
    directory_ = absl::StrCat(absl::StripSuffix(::testing::TempDir(), "/"),
                              "/container-", ::getpid());
    std::filesystem::create_directories(directory_);
    testing::ContainerTest::SetUp();
    options_ = {.path = directory_ + "/containers",
                .layers = directory_ + "/layers",
                .volumes = directory_ + "/volumes",
                .network_state = directory_ + "/net"};
    ASSERT_OK_AND_ASSIGN(ContainerStore store, ContainerStore::Open(options_));
    store_.emplace(std::move(store));
  }
  void TearDown() override {
    ASSERT_OK_AND_ASSIGN(const std::vector<ContainerInfo> left,
                         store_->List({.all = true}));
    for (const ContainerInfo& info : left) {
      const auto container = store_->Find(info.id);
      if (!container.ok()) continue;  // removed itself meanwhile
      EXPECT_OK(container->Remove({.force = true, .volumes = true}));
    }
    const std::string layers = options_.layers + "/kept";
    if (std::filesystem::exists(layers)) {
      EXPECT_TRUE(std::filesystem::is_empty(layers));
    }
    EXPECT_TRUE(std::filesystem::is_empty(options_.path + "/names"));
    store_.reset();
    testing::ContainerTest::TearDown();
    const size_t slash = directory_.rfind('/');
    ASSERT_OK_AND_ASSIGN(
        const UniqueFd above,
        sys::Open(directory_.substr(0, slash), O_RDONLY | O_DIRECTORY));
    EXPECT_OK(sys::RemoveTree(above.borrow(), directory_.substr(slash + 1)));
  }

  // In a root of its own, which is written to in place.
  ContainerSpec Spec(const std::string& script) {
    ContainerSpec spec;
    spec.rootfs = NewRoot();
    spec.command = {"sh", "-c", script};
    spec.network = "none";
    spec.cgroup_parent = Parent();
    return spec;
  }
  static std::string Parent() {
    return absl::StrCat("/caisson-test-", ::getpid());
  }
  std::string NewRoot() {
    const std::string root = absl::StrCat(directory_, "/root", ++roots_);
    std::filesystem::copy(root_->path(), root,
                          std::filesystem::copy_options::recursive |
                              std::filesystem::copy_options::copy_symlinks);
    return root;
  }
  // "busybox", of the test root.
  void ImportImage() {
    const std::string tar = directory_ + "/root.tar";
    ASSERT_EQ(
        ::system(
            absl::StrCat("tar -C ", root_->path(), " -cf ", tar, " .").c_str()),
        0);
    ASSERT_OK_AND_ASSIGN(LayerStore layers,
                         LayerStore::Open({.path = options_.layers}));
    CommitOptions options = {.name = "busybox"};
    options.changes.env = {"PATH=/bin", "FROM=image"};
    options.changes.cmd = {{"sh", "-c", "echo $FROM $WHO; pwd"}};
    options.changes.working_dir = "/made";
    options.changes.stop_signal = "SIGUSR1";
    options.changes.volumes = {"/of/image"};
    options.changes.labels = {{"tier", "image"}, {"kept", "yes"}};
    ASSERT_OK(layers.ImportRootFs(tar, options));
  }

  absl::StatusOr<Container> Started(const ContainerSpec& spec) {
    auto container = store_->Create(spec);
    if (!container.ok()) return container;
    if (const absl::Status status = container->Start(); !status.ok()) {
      return status;
    }
    return container;
  }
  // Runs until its first output is in the log.
  absl::StatusOr<Container> Ready(const ContainerSpec& spec) {
    auto container = Started(spec);
    if (container.ok()) {
      EXPECT_TRUE(Await([&] { return !LogText(*container).empty(); }));
    }
    return container;
  }

  static std::string LogText(const Container& container,
                             ContainerLogReadOptions options = {}) {
    auto logs = container.Logs(options);
    if (!logs.ok()) return logs.status().ToString();
    std::string text;
    while (!logs->at_end()) {
      const auto entries = logs->Wait(kPatience);
      if (!entries.ok() || (entries->empty() && !logs->at_end())) break;
      for (const ContainerLogEntry& entry : *entries) text += entry.text;
    }
    return text;
  }

  struct Ran {
    int code = -1;
    std::string out;
    std::string err;
  };
  static absl::StatusOr<Ran> Exec(const Container& container,
                                  ContainerExecSpec spec) {
    spec.out = Stdio::Pipe();
    spec.err = Stdio::Pipe();
    auto exec = container.Exec(spec);
    if (!exec.ok()) return exec.status();
    const ContainerStreams streams = exec->TakeStreams();
    Ran ran;
    ran.out = ReadAll(streams.out);
    ran.err = ReadAll(streams.err);
    const auto exit = exec->Wait(absl::Now() + kPatience);
    if (!exit.ok()) return exit.status();
    ran.code = exit->shell_code();
    return ran;
  }
  static absl::StatusOr<Ran> Sh(const Container& container,
                                const std::string& script) {
    return Exec(container, {.argv = {"sh", "-c", script}});
  }

  static ContainerInfo Info(const Container& container) {
    auto info = container.Inspect();
    EXPECT_OK(info);
    return info.ok() ? *std::move(info) : ContainerInfo();
  }
  static bool Exists(pid_t pid) {
    return ::kill(pid, 0) == 0 || errno != ESRCH;
  }

  std::vector<std::string> Actions(const std::string& id) {
    std::vector<std::string> actions;
    auto events = store_->Events(
        {.since = absl::UnixEpoch(), .until = absl::Now(), .containers = {id}});
    EXPECT_OK(events);
    if (!events.ok()) return actions;
    while (!events->at_end()) {
      const auto some = events->Wait(absl::Seconds(1));
      EXPECT_OK(some);
      if (!some.ok()) break;
      for (const ContainerEvent& event : *some) actions.push_back(event.action);
    }
    return actions;
  }

  std::string directory_;
  ContainerStoreOptions options_;
  std::optional<ContainerStore> store_;
  int roots_ = 0;
};

// ---- From image to end -----------------------------------------------------

TEST_F(ContainerTest, AnImageFromCreateToRemove) {
  ImportImage();
  ContainerSpec spec = {.image = "busybox", .name = "web"};
  spec.labels = {{"tier", "front"}};
  spec.command = {
      "sh", "-c",
      "echo out; echo err >&2; echo kept >/file; echo $WHO; exit 7"};
  spec.env = {"WHO=me"};
  spec.network = "none";
  spec.cgroup_parent = Parent();
  ASSERT_OK_AND_ASSIGN(const Container container, store_->Create(spec));
  ContainerInfo info = Info(container);
  EXPECT_EQ(info.status, ContainerStatus::kCreated);
  EXPECT_EQ(info.spec.name, "web");
  EXPECT_TRUE(absl::StartsWith(info.image_id, "sha256:"));
  EXPECT_EQ(info.started, absl::InfinitePast());
  EXPECT_EQ(info.argv, spec.command);
  EXPECT_THAT(info.env, Contains("WHO=me"));
  EXPECT_THAT(info.env, Contains(::testing::StartsWith("PATH=")));
  EXPECT_EQ(info.working_dir, "/made");
  EXPECT_THAT(info.labels, ElementsAre(::testing::Pair("kept", "yes"),
                                       ::testing::Pair("tier", "front")));

  ASSERT_OK(container.Start());
  EXPECT_THAT(container.Wait(absl::Now() + kPatience).value_or(-1), 7);
  info = Info(container);
  EXPECT_EQ(info.status, ContainerStatus::kExited);
  EXPECT_EQ(info.exit_code, 7);
  ASSERT_TRUE(info.exit.has_value());
  EXPECT_EQ(info.exit->code, 7);
  EXPECT_EQ(info.pid, 0);
  EXPECT_GE(info.finished, info.started);
  EXPECT_EQ(LogText(container, {.err = false}), "out\nme\n");
  EXPECT_EQ(LogText(container, {.out = false}), "err\n");

  // What it has written is there in its next run.
  EXPECT_THAT(store_->Create({.image = "busybox", .name = "web"}),
              StatusIs(absl::StatusCode::kAlreadyExists,
                       HasSubstr("name: \"web\" is the name of container")));
  ASSERT_OK(container.Remove());
  EXPECT_THAT(container.Inspect(), StatusIs(absl::StatusCode::kNotFound, _));
  EXPECT_THAT(store_->Find("web"),
              StatusIs(absl::StatusCode::kNotFound,
                       HasSubstr("there is no container \"web\"")));
  EXPECT_THAT(Actions(info.id),
              ElementsAre("create", "start", "die", "destroy"));
}

TEST_F(ContainerTest, WhatTheImageSays) {
  ImportImage();
  ContainerSpec spec = {.image = "busybox"};
  spec.labels = {{"tier", "spec"}};
  spec.env = {"WHO=me"};
  spec.network = "none";
  spec.cgroup_parent = Parent();
  ASSERT_OK_AND_ASSIGN(const Container said, Started(spec));
  EXPECT_EQ(said.Wait(absl::Now() + kPatience).value_or(-1), 0);
  EXPECT_EQ(LogText(said), "image me\n/made\n");
  EXPECT_THAT(
      store_->List({.all = true, .labels = {{"kept", "yes"}, {"tier", "spec"}}})
          .value(),
      SizeIs(1));

  spec.command = {"sh", "-c",
                  "trap 'exit 4' USR1; echo ready; "
                  "mount | grep -c ' /of/image '; sleep 9 & wait"};
  ASSERT_OK_AND_ASSIGN(const Container stopped, Ready(spec));
  ASSERT_OK(stopped.Stop());
  EXPECT_EQ(Info(stopped).exit_code, 4);
  EXPECT_EQ(LogText(stopped), "ready\n1\n");

  // An entrypoint takes the place of the image's command, too.
  spec.command.clear();
  spec.entrypoint = {"echo", "instead"};
  ASSERT_OK_AND_ASSIGN(const Container other, Started(spec));
  EXPECT_EQ(other.Wait(absl::Now() + kPatience).value_or(-1), 0);
  EXPECT_EQ(LogText(other), "instead\n");
}

TEST_F(ContainerTest, WritesStayFromRunToRun) {
  ImportImage();
  ContainerSpec spec = {.image = "busybox"};
  spec.command = {"sh", "-c", "cat /count; echo more >>/count"};
  spec.network = "none";
  spec.cgroup_parent = Parent();
  ASSERT_OK_AND_ASSIGN(const Container container, store_->Create(spec));
  for (int i = 0; i < 3; ++i) {
    ASSERT_OK(container.Start());
    ASSERT_OK(container.Wait(absl::Now() + kPatience));
  }
  EXPECT_EQ(LogText(container, {.err = false}), "more\nmore\nmore\n");
}

TEST_F(ContainerTest, NamesAreMadeUpAndBeginningsOfIdsFound) {
  ASSERT_OK_AND_ASSIGN(const Container container, store_->Create(Spec("true")));
  const ContainerInfo info = Info(container);
  EXPECT_THAT(info.spec.name, ::testing::MatchesRegex("[a-z]+_[a-z]+"));
  for (const std::string& reference :
       {info.spec.name, info.id, info.id.substr(0, 6)}) {
    ASSERT_OK_AND_ASSIGN(const Container found, store_->Find(reference));
    EXPECT_EQ(found.id(), info.id);
  }
  EXPECT_THAT(store_->Find(""), StatusIs(absl::StatusCode::kNotFound, _));
  EXPECT_THAT(store_->Find("../names"),
              StatusIs(absl::StatusCode::kNotFound, _));
}

TEST_F(ContainerTest, Lists) {
  ContainerSpec spec = Spec(kForever);
  spec.name = "one";
  spec.labels = {{"tier", "front"}};
  ASSERT_OK_AND_ASSIGN(const Container one, Ready(spec));
  ContainerSpec other = Spec("true");
  other.name = "two";
  ASSERT_OK_AND_ASSIGN(const Container two, store_->Create(other));
  const auto names = [&](const ContainerFilter& filter) {
    std::vector<std::string> names;
    const auto list = store_->List(filter);
    EXPECT_OK(list);
    for (const ContainerInfo& info : *list) names.push_back(info.spec.name);
    return names;
  };
  EXPECT_THAT(names({}), ElementsAre("one"));
  EXPECT_THAT(names({.all = true}), ElementsAre("two", "one"));
  EXPECT_THAT(names({.statuses = {ContainerStatus::kCreated}}),
              ElementsAre("two"));
  EXPECT_THAT(names({.labels = {{"tier", std::nullopt}}}), ElementsAre("one"));
  EXPECT_THAT(names({.labels = {{"tier", "back"}}}), IsEmpty());
  EXPECT_THAT(names({.all = true, .name = "tw"}), ElementsAre("two"));
}

TEST_F(ContainerTest, BadSpecsNameTheField) {
  const auto refused = [&](auto change, absl::string_view text) {
    ContainerSpec spec = Spec("true");
    change(spec);
    EXPECT_THAT(store_->Create(spec),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr(std::string(text))));
  };
  refused([](ContainerSpec& s) { s.image = "x"; }, "one of image, rootfs");
  refused([](ContainerSpec& s) { s.rootfs = "x"; }, "rootfs: not an absolute");
  refused([](ContainerSpec& s) { s.command.clear(); }, "command: nothing");
  refused([](ContainerSpec& s) { s.name = "-x"; }, "name: \"-x\", expected");
  refused([](ContainerSpec& s) { s.env = {"A=1", "B"}; }, "env[1]: \"B\"");
  refused([](ContainerSpec& s) { s.volumes = {"/a:/b", "x"}; }, "volumes[1]: ");
  refused([](ContainerSpec& s) { s.tmpfs = {"x"}; }, "tmpfs[0]: ");
  refused([](ContainerSpec& s) { s.devices = {"x"}; }, "devices[0]: ");
  refused([](ContainerSpec& s) { s.working_dir = "x"; }, "working_dir: ");
  refused([](ContainerSpec& s) { s.stop_signal = "NO"; }, "stop_signal: ");
  refused([](ContainerSpec& s) { s.cgroup_parent = "x"; }, "cgroup_parent: ");
  refused([](ContainerSpec& s) { s.limits.memory_max = -7; }, "limits: ");
  refused([](ContainerSpec& s) { s.ports = {{.container_port = 80}}; },
          "ports: needs a bridge network, not \"none\"");
  refused(
      [](ContainerSpec& s) {
        s.restart.max_retries = -1;
        s.restart.kind = RestartPolicy::Kind::kOnFailure;
      },
      "restart: ");
  refused([](ContainerSpec& s) { s.logs.max_files = 0; }, "logs: ");
  refused([](ContainerSpec& s) { s.drop_capabilities = {"BANANA"}; },
          "security: ");
  refused([](ContainerSpec& s) { s.health = HealthCheck{.test = {"X"}}; },
          "health: ");
  refused(
      [](ContainerSpec& s) {
        s.auto_remove = true;
        s.restart.kind = RestartPolicy::Kind::kAlways;
      },
      "auto_remove: ");
  refused(
      [](ContainerSpec& s) {
        s.bundle = s.rootfs;
        s.rootfs.clear();
      },
      "command: a bundle's config.json says this");
  EXPECT_THAT(store_->Create({.image = "none"}),
              StatusIs(absl::StatusCode::kNotFound, _));
  EXPECT_THAT(store_->List({.all = true}).value(), IsEmpty());
}

TEST_F(ContainerTest, WhatCannotStartSaysWhy) {
  ContainerSpec spec = Spec("true");
  spec.command = {"/no/such"};
  ASSERT_OK_AND_ASSIGN(const Container container, store_->Create(spec));
  const absl::Status status = container.Start();
  EXPECT_THAT(status,
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/no/such")));
  EXPECT_EQ(ExecFailure(status), 127);
  const ContainerInfo info = Info(container);
  EXPECT_EQ(info.status, ContainerStatus::kExited);
  EXPECT_EQ(info.exit_code, 127);
  EXPECT_THAT(info.error, HasSubstr("/no/such"));
  EXPECT_EQ(info.keeper_pid, 0);

  spec = Spec("true");
  spec.rootfs = "/no/such/root";
  ASSERT_OK_AND_ASSIGN(const Container rootless, store_->Create(spec));
  EXPECT_THAT(rootless.Start(), StatusIs(absl::StatusCode::kNotFound,
                                         HasSubstr("/no/such/root")));
  EXPECT_EQ(Info(rootless).exit_code, 125);
}

TEST_F(ContainerTest, ABundle) {
  const std::string bundle = directory_ + "/bundle";
  std::filesystem::create_directory(bundle);
  std::filesystem::rename(NewRoot(), bundle + "/rootfs");
  std::ofstream(bundle + "/config.json")
      << R"({"ociVersion": "1.0.2", "root": {"path": "rootfs"},
             "process": {"args": ["sh", "-c", "echo $HOME $X; exit 3"],
                         "env": ["PATH=/bin", "X=1"], "cwd": "/",
                         "user": {"uid": 0, "gid": 0}},
             "mounts": [{"destination": "/proc", "type": "proc",
                         "source": "proc"}],
             "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}]}})";
  ContainerSpec spec = {.bundle = bundle};
  spec.cgroup_parent = Parent();
  ASSERT_OK_AND_ASSIGN(const Container container, Started(spec));
  EXPECT_EQ(container.Wait(absl::Now() + kPatience).value_or(-1), 3);
  EXPECT_EQ(LogText(container), "/root 1\n");
}

// ---- Streams ---------------------------------------------------------------

TEST_F(ContainerTest, AttachedFromTheFirstByteOn) {
  ContainerSpec spec = Spec("echo first; cat; echo last >&2");
  spec.open_stdin = spec.stdin_once = true;
  ASSERT_OK_AND_ASSIGN(const Container container, store_->Create(spec));
  ASSERT_OK_AND_ASSIGN(ContainerRun run, container.StartAttached());
  ContainerStreams streams = run.TakeStreams();
  // More than the pipes hold.
  const std::string much(300'000, 'x');
  std::thread writer([&] {
    ASSERT_OK(sys::WriteAll(streams.in.borrow(), much, "stdin"));
    streams.in.reset();
  });
  EXPECT_EQ(ReadAll(streams.out), "first\n" + much);
  writer.join();
  EXPECT_EQ(ReadAll(streams.err), "last\n");
  ASSERT_OK_AND_ASSIGN(const ExitStatus exit,
                       run.Wait(absl::Now() + kPatience));
  EXPECT_TRUE(exit.success());
}

TEST_F(ContainerTest, TheEndOfARunIsNeverMissed) {
  ContainerSpec spec = Spec("read x; exit 7");
  spec.open_stdin = true;
  ASSERT_OK_AND_ASSIGN(const Container container, store_->Create(spec));
  for (int i = 0; i < 3; ++i) {
    ASSERT_OK_AND_ASSIGN(ContainerRun run, container.StartAttached());
    const ContainerStreams streams = run.TakeStreams();
    ASSERT_OK_AND_ASSIGN(ContainerRun other, container.Attach());
    EXPECT_THAT(run.Wait(absl::Now()),
                StatusIs(absl::StatusCode::kDeadlineExceeded, _));
    ASSERT_OK(sys::WriteAll(streams.in.borrow(), "go\n", "stdin"));
    pollfd poll = {run.exit_fd().get(), POLLIN, 0};
    EXPECT_EQ(::poll(&poll, 1, 20000), 1);
    EXPECT_EQ(run.Wait().value().code, 7);
    EXPECT_EQ(run.Wait().value().code, 7);
    EXPECT_EQ(other.Wait().value().code, 7);
  }
  // Nor by one that does not run any more, or not yet.
  EXPECT_THAT(container.Attach(),
              StatusIs(absl::StatusCode::kFailedPrecondition, _));
  ASSERT_OK_AND_ASSIGN(ContainerRun killed, container.StartAttached());
  ASSERT_EQ(::kill(Info(container).keeper_pid, SIGKILL), 0);
  EXPECT_THAT(
      killed.Wait(absl::Now() + kPatience),
      StatusIs(absl::StatusCode::kUnavailable, HasSubstr("keeper was killed")));

  // The end of one that removes itself is known, and that it is gone.
  spec.auto_remove = true;
  spec.name = "short";
  for (const char* script : {"exit 7", "kill -9 $$", "exec sleep 100"}) {
    spec.command = {"sh", "-c", script};
    spec.init = true;
    ASSERT_OK_AND_ASSIGN(const Container gone, store_->Create(spec));
    ASSERT_OK_AND_ASSIGN(ContainerRun run, gone.StartAttached());
    if (script[0] == 'e' && script[2] == 'e') {
      ASSERT_OK(gone.Restart(absl::ZeroDuration()));
      EXPECT_THAT(run.Wait(absl::Now()),
                  StatusIs(absl::StatusCode::kDeadlineExceeded, _));
      ASSERT_OK(gone.Kill());
    }
    ASSERT_OK_AND_ASSIGN(const ExitStatus exit,
                         run.Wait(absl::Now() + kPatience));
    EXPECT_EQ(exit.shell_code(), script[2] == 'i' ? 7 : 137);
    EXPECT_THAT(store_->Find("short"),
                StatusIs(absl::StatusCode::kNotFound, _));
  }
}

TEST_F(ContainerTest, ManyAreAttachedAndOneIsSlow) {
  ContainerSpec spec = Spec(
      "echo ready; read x; head -c 3000000 /dev/zero | tr '\\0' y; echo end");
  spec.open_stdin = true;
  ASSERT_OK_AND_ASSIGN(const Container container, Ready(spec));
  ASSERT_OK_AND_ASSIGN(ContainerRun slow_run, container.Attach());
  ContainerStreams slow = slow_run.TakeStreams();
  ASSERT_OK_AND_ASSIGN(ContainerRun quick_run,
                       container.Attach({.in = false, .err = false}));
  ContainerStreams quick = quick_run.TakeStreams();
  EXPECT_FALSE(quick.in.valid());
  EXPECT_FALSE(quick.err.valid());
  ASSERT_OK(sys::WriteAll(slow.in.borrow(), "go\n", "stdin"));
  const std::string expected = std::string(3000000, 'y') + "end\n";
  std::string other;
  std::thread reader([&] {
    other = sys::ReadAll(quick.out.borrow(), 4 << 20, "quick").value_or("");
  });
  // The program waits for this one: it cannot have ended.
  absl::SleepFor(absl::Milliseconds(50));
  EXPECT_EQ(Info(container).status, ContainerStatus::kRunning);
  EXPECT_TRUE(sys::ReadAll(slow.out.borrow(), 4 << 20, "slow").value_or("") ==
              expected);
  reader.join();
  EXPECT_TRUE(other == expected);
  EXPECT_EQ(container.Wait(absl::Now() + kPatience).value_or(-1), 0);
}

TEST_F(ContainerTest, ATerminal) {
  ContainerSpec spec = Spec("stty size; read x; stty size; echo got $x");
  spec.terminal = true;
  spec.terminal_size = {.rows = 30, .columns = 90};
  spec.open_stdin = true;
  ASSERT_OK_AND_ASSIGN(const Container container, Ready(spec));
  ASSERT_OK_AND_ASSIGN(ContainerRun run, container.Attach());
  const ContainerStreams streams = run.TakeStreams();
  EXPECT_FALSE(streams.err.valid());
  ASSERT_OK(container.ResizeTerminal({.rows = 50, .columns = 132}));
  ASSERT_OK(sys::WriteAll(streams.in.borrow(), "it\n", "terminal"));
  EXPECT_THAT(ReadAll(streams.out), HasSubstr("50 132\r\ngot it\r\n"));
  EXPECT_EQ(container.Wait(absl::Now() + kPatience).value_or(-1), 0);
  EXPECT_THAT(LogText(container), HasSubstr("30 90"));

  // Of one who is attached from the start, and of those who come later.
  ASSERT_OK_AND_ASSIGN(
      ContainerRun sized,
      container.StartAttached(
          {.terminal_size = TerminalSize{.rows = 60, .columns = 160}}));
  EXPECT_TRUE(
      Await([&] { return absl::StrContains(LogText(container), "60 160"); }));
  ASSERT_OK_AND_ASSIGN(
      ContainerRun second,
      container.Attach(
          {.in = false, .terminal_size = TerminalSize{.rows = 61}}));
  const ContainerStreams there = sized.TakeStreams();
  ASSERT_OK(sys::WriteAll(there.in.borrow(), "on\n", "terminal"));
  const std::string out = ReadAll(there.out);
  EXPECT_THAT(out, ::testing::StartsWith("60 160\r\n"));
  EXPECT_THAT(out, HasSubstr("61 80\r\ngot on\r\n"));
}

TEST_F(ContainerTest, LogsAreFollowedToTheEnd) {
  ASSERT_OK_AND_ASSIGN(
      const Container container,
      Ready(Spec("echo one; while ! test -e /go; do sleep 0.02; done; "
                 "echo two; echo -n three")));
  std::string text;
  std::thread follower(
      [&] { text = LogText(container, {.follow = true, .tail = 1}); });
  ASSERT_OK(Sh(container, "touch /go"));
  follower.join();
  EXPECT_EQ(text, "one\ntwo\nthree");

  ContainerSpec silent = Spec("echo nothing");
  silent.logged = false;
  ASSERT_OK_AND_ASSIGN(const Container unlogged, Started(silent));
  ASSERT_OK(unlogged.Wait(absl::Now() + kPatience));
  EXPECT_THAT(unlogged.Logs(),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("was created without a log")));
}

// ---- Further programs ------------------------------------------------------

TEST_F(ContainerTest, Execs) {
  ContainerSpec spec = Spec(kForever);
  spec.env = {"FROM=container"};
  spec.working_dir = "/tmp/work";
  spec.additional_groups = {"4242"};
  spec.ulimits = {{.name = "nofile", .soft = 77, .hard = 77}};
  ASSERT_OK_AND_ASSIGN(const Container container, Ready(spec));
  ASSERT_OK_AND_ASSIGN(
      const Ran ran,
      Exec(container,
           {.argv = {"sh", "-c", "pwd; echo $FROM $MORE; id -u >&2; exit 5"},
            .env = {"MORE=exec"},
            .user = "7"}));
  EXPECT_EQ(ran.code, 5);
  EXPECT_EQ(ran.out, "/tmp/work\ncontainer exec\n");
  EXPECT_EQ(ran.err, "7\n");

  ASSERT_OK_AND_ASSIGN(const Ran same, Sh(container, "id -G; ulimit -n"));
  EXPECT_EQ(same.out, "0 4242\n77\n");

  const auto missing = Exec(container, {.argv = {"/no/such"}});
  EXPECT_THAT(missing,
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/no/such")));
  EXPECT_EQ(ExecFailure(missing.status()), 127);
  EXPECT_THAT(Exec(container, {}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("argv: nothing to execute")));

  ASSERT_OK_AND_ASSIGN(
      ContainerExec terminal,
      container.Exec({.argv = {"sh", "-c", "test -t 0 && stty size"},
                      .terminal = TerminalSize{.rows = 30, .columns = 90}}));
  EXPECT_TRUE(terminal.terminal().valid());
  ASSERT_OK_AND_ASSIGN(const ExitStatus exit,
                       terminal.Wait(absl::Now() + kPatience));
  EXPECT_TRUE(exit.success());

  // One that runs when the container ends.
  ASSERT_OK_AND_ASSIGN(ContainerExec long_one,
                       container.Exec({.argv = {"sleep", "1000"}}));
  EXPECT_THAT(container.Processes().value(), Contains(long_one.pid()));
  ASSERT_OK(container.Kill());
  ASSERT_OK_AND_ASSIGN(const ExitStatus killed,
                       long_one.Wait(absl::Now() + kPatience));
  EXPECT_EQ(killed.signal, SIGKILL);
  EXPECT_THAT(Sh(container, "true"),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("is not running")));
}

// ---- Its life --------------------------------------------------------------

TEST_F(ContainerTest, StopsBySignalOrForce) {
  ASSERT_OK_AND_ASSIGN(const Container polite, Ready(Spec(kForever)));
  ASSERT_OK(polite.Stop());
  EXPECT_EQ(Info(polite).exit_code, 9);
  ASSERT_OK(polite.Stop());  // again
  ASSERT_OK(polite.Start());
  EXPECT_TRUE(Await([&] { return LogText(polite) == "ready\nready\n"; }));
  EXPECT_THAT(polite.Start(), StatusIs(absl::StatusCode::kFailedPrecondition,
                                       HasSubstr("is running already")));
  EXPECT_THAT(polite.Remove(), StatusIs(absl::StatusCode::kFailedPrecondition,
                                        HasSubstr("stop it")));

  ASSERT_OK_AND_ASSIGN(
      const Container deaf,
      Ready(Spec("trap '' TERM; echo ready; while :; do sleep 1; done")));
  ASSERT_OK(deaf.Stop(absl::Milliseconds(10)));
  EXPECT_EQ(Info(deaf).exit_code, 137);

  ContainerSpec spec = Spec("trap 'exit 4' USR1; echo ready; sleep 99 & wait");
  spec.stop_signal = "SIGUSR1";
  ASSERT_OK_AND_ASSIGN(const Container other, Ready(spec));
  ASSERT_OK(other.Stop());
  EXPECT_EQ(Info(other).exit_code, 4);
  EXPECT_THAT(Actions(other.id()),
              ElementsAre("create", "start", "kill", "die", "stop"));
}

TEST_F(ContainerTest, PausesAndResumes) {
  ASSERT_OK_AND_ASSIGN(const Container container, Ready(Spec(kForever)));
  ASSERT_OK(container.Pause());
  EXPECT_EQ(Info(container).status, ContainerStatus::kPaused);
  EXPECT_THAT(container.Pause(), StatusIs(absl::StatusCode::kFailedPrecondition,
                                          HasSubstr("is paused already")));
  EXPECT_THAT(Sh(container, "true"),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("is paused: resume it first")));
  ASSERT_OK(container.Resume());
  ASSERT_OK_AND_ASSIGN(const Ran ran, Sh(container, "echo on"));
  EXPECT_EQ(ran.out, "on\n");
  EXPECT_THAT(container.Resume(),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("is not paused")));
  // A paused one can be stopped.
  ASSERT_OK(container.Pause());
  ASSERT_OK(container.Stop());
  EXPECT_EQ(Info(container).exit_code, 9);
}

TEST_F(ContainerTest, RestartsAtOnce) {
  ASSERT_OK_AND_ASSIGN(const Container container, Ready(Spec(kForever)));
  const ContainerInfo before = Info(container);
  ASSERT_OK(container.Restart());
  const ContainerInfo after = Info(container);
  EXPECT_EQ(after.status, ContainerStatus::kRunning);
  EXPECT_NE(after.pid, before.pid);
  EXPECT_EQ(after.keeper_pid, before.keeper_pid);
  EXPECT_EQ(after.restart_count, 0);
  ASSERT_OK(container.Kill());
  ASSERT_OK(container.Wait(absl::Now() + kPatience));
  ASSERT_OK(container.Restart());  // of one that does not run
  EXPECT_EQ(Info(container).status, ContainerStatus::kRunning);
}

TEST_F(ContainerTest, RestartPolicies) {
  ContainerSpec spec = Spec("echo run; exit 3");
  spec.restart = {.kind = RestartPolicy::Kind::kOnFailure, .max_retries = 2};
  ASSERT_OK_AND_ASSIGN(const Container failing, Started(spec));
  EXPECT_TRUE(Await([&] {
    const ContainerInfo info = Info(failing);
    return info.status == ContainerStatus::kExited && info.restart_count == 2;
  }));
  EXPECT_EQ(LogText(failing), "run\nrun\nrun\n");

  ContainerSpec fine = Spec("true");
  fine.restart = {.kind = RestartPolicy::Kind::kOnFailure};
  ASSERT_OK_AND_ASSIGN(const Container once, Started(fine));
  EXPECT_EQ(once.Wait(absl::Now() + kPatience).value_or(-1), 0);
  EXPECT_TRUE(Await([&] { return Info(once).keeper_pid == 0; }));
  EXPECT_EQ(Info(once).restart_count, 0);

  ContainerSpec always = Spec("echo run; sleep 0.01");
  always.restart = {.kind = RestartPolicy::Kind::kAlways};
  ASSERT_OK_AND_ASSIGN(const Container again, Started(always));
  EXPECT_TRUE(Await([&] { return Info(again).restart_count >= 2; }));
  ASSERT_OK(again.Stop());
  const int count = Info(again).restart_count;
  EXPECT_EQ(Info(again).status, ContainerStatus::kExited);
  EXPECT_TRUE(Await([&] { return Info(again).keeper_pid == 0; }));
  EXPECT_EQ(Info(again).restart_count, count);
}

TEST_F(ContainerTest, RemovesItself) {
  ContainerSpec spec = Spec("exit 2");
  spec.auto_remove = true;
  ASSERT_OK_AND_ASSIGN(const Container container, store_->Create(spec));
  ASSERT_OK(container.Start());
  EXPECT_TRUE(
      Await([&] { return absl::IsNotFound(container.Inspect().status()); }));
  EXPECT_TRUE(Await([&] { return Actions(container.id()).size() == 4; }));
  EXPECT_THAT(Actions(container.id()),
              ElementsAre("create", "start", "die", "destroy"));
}

TEST_F(ContainerTest, Health) {
  ContainerSpec spec = Spec(kForever);
  spec.health = HealthCheck{.test = {"CMD-SHELL", "echo looked; test -e /well"},
                            .interval = absl::Milliseconds(20),
                            .start_period = absl::Seconds(30),
                            .start_interval = absl::Milliseconds(20),
                            .retries = 2};
  ASSERT_OK_AND_ASSIGN(const Container container, Ready(spec));
  EXPECT_EQ(Info(container).health.status, HealthStatus::kStarting);
  ASSERT_OK(Sh(container, "touch /well"));
  EXPECT_TRUE(Await(
      [&] { return Info(container).health.status == HealthStatus::kHealthy; }));
  ASSERT_OK(Sh(container, "rm /well"));
  EXPECT_TRUE(Await([&] {
    return Info(container).health.status == HealthStatus::kUnhealthy;
  }));
  const HealthState health = Info(container).health;
  EXPECT_GE(health.failing_streak, 2);
  ASSERT_THAT(health.log, Not(IsEmpty()));
  EXPECT_EQ(health.log.back().exit_code, 1);
  EXPECT_EQ(health.log.back().output, "looked\n");
  EXPECT_TRUE(Await([&] {
    const auto actions = Actions(container.id());
    return std::count(actions.begin(), actions.end(),
                      "health_status: unhealthy") == 1;
  }));
  EXPECT_THAT(Actions(container.id()), Contains("health_status: healthy"));
  ASSERT_OK(Sh(container, "touch /well"));
  EXPECT_TRUE(Await(
      [&] { return Info(container).health.status == HealthStatus::kHealthy; }));
  ASSERT_OK(container.Stop());
  EXPECT_EQ(Info(container).health.status, HealthStatus::kUnhealthy);
}

TEST_F(ContainerTest, UpdatesLimitsWhileItRunsAndNot) {
  ContainerSpec spec = Spec(kForever);
  spec.limits.memory_max = 64 << 20;
  ASSERT_OK_AND_ASSIGN(const Container container, Ready(spec));
  const auto limit = [&] {
    const auto stats = container.Stats();
    EXPECT_OK(stats);
    return stats.ok() ? stats->cgroup.memory.limit.value_or(0) : 0;
  };
  EXPECT_EQ(limit(), 64 << 20);
  ASSERT_OK(container.Update({.limits = {.memory_max = 96 << 20}}));
  EXPECT_EQ(limit(), 96 << 20);
  EXPECT_EQ(Info(container).spec.limits.memory_max, 96 << 20);
  // What the kernel refuses is not remembered either.
  EXPECT_FALSE(
      container
          .Update({.limits = {.memory_max = 48 << 20, .cpuset_cpus = "4000"}})
          .ok());
  EXPECT_EQ(limit(), 96 << 20);
  EXPECT_EQ(Info(container).spec.limits.memory_max, 96 << 20);

  ASSERT_OK(container.Stop());
  ASSERT_OK(container.Update(
      {.limits = {.memory_max = 80 << 20},
       .restart = RestartPolicy{.kind = RestartPolicy::Kind::kAlways}}));
  ASSERT_OK(container.Start());
  EXPECT_EQ(limit(), 80 << 20);
  EXPECT_EQ(Info(container).spec.restart.kind, RestartPolicy::Kind::kAlways);
  ASSERT_OK(container.Stop());
  EXPECT_THAT(
      container.Update({.limits = {.memory_max = -5}}),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("limits")));
  EXPECT_THAT(
      container.Update(
          {.restart = RestartPolicy{.kind = RestartPolicy::Kind::kOnFailure,
                                    .max_retries = -1}}),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("restart")));
}

TEST_F(ContainerTest, OutOfMemory) {
  ContainerSpec spec = Spec("exec tail /dev/zero");
  spec.limits.memory_max = 16 << 20;
  spec.limits.memory_swap_max = 0;
  ASSERT_OK_AND_ASSIGN(const Container container, Started(spec));
  EXPECT_EQ(container.Wait(absl::Now() + kPatience).value_or(-1), 137);
  ASSERT_TRUE(Info(container).exit.has_value());
  EXPECT_TRUE(Info(container).exit->out_of_memory);
  EXPECT_THAT(Actions(container.id()),
              ElementsAre("create", "start", "oom", "die"));
}

TEST_F(ContainerTest, Renames) {
  ContainerSpec spec = Spec(kForever);
  spec.name = "before";
  ASSERT_OK_AND_ASSIGN(const Container container, Ready(spec));
  ContainerSpec other = Spec("true");
  other.name = "taken";
  ASSERT_OK(store_->Create(other));
  EXPECT_THAT(container.Rename("taken"),
              StatusIs(absl::StatusCode::kAlreadyExists, _));
  ASSERT_OK(container.Rename("after"));
  EXPECT_OK(store_->Find("after"));
  EXPECT_THAT(store_->Find("before"), StatusIs(absl::StatusCode::kNotFound, _));
  ASSERT_OK(container.Stop());
  ASSERT_OK(container.Start());
  EXPECT_EQ(Info(container).spec.name, "after");
  ASSERT_OK(container.Stop());
}

// ---- What it lives in ------------------------------------------------------

TEST_F(ContainerTest, Volumes) {
  ImportImage();
  ContainerSpec spec = {.image = "busybox"};
  spec.command = {"sh", "-c", "echo 1 >/data/named; echo 2 >/scratch/unnamed"};
  spec.volumes = {"db:/data", "/scratch"};
  spec.network = "none";
  spec.cgroup_parent = Parent();
  ASSERT_OK_AND_ASSIGN(const Container container, Started(spec));
  EXPECT_EQ(container.Wait(absl::Now() + kPatience).value_or(-1), 0)
      << LogText(container);
  ASSERT_OK_AND_ASSIGN(const VolumeStore volumes,
                       VolumeStore::Open({.path = options_.volumes}));
  // And the image's.
  EXPECT_THAT(volumes.List().value(), SizeIs(3));
  // It does not run, and has them nevertheless.
  EXPECT_THAT(volumes.Prune({.named = true}).value().removed, IsEmpty());
  ASSERT_OK(container.Rename("renamed"));
  EXPECT_THAT(volumes.Remove("db"),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("in use by \"renamed\" (not running)")));
  ASSERT_OK(container.Remove({.volumes = true}));
  ASSERT_OK_AND_ASSIGN(const std::vector<VolumeInfo> left, volumes.List());
  ASSERT_THAT(left, SizeIs(1));
  EXPECT_EQ(left[0].name, "db");

  // Of one that was never started, and of one whose directory somebody removes.
  ASSERT_OK_AND_ASSIGN(const Container created, store_->Create(spec));
  EXPECT_THAT(volumes.Prune({.named = true}).value().removed, IsEmpty());
  ASSERT_OK_AND_ASSIGN(const UniqueFd containers,
                       sys::Open(options_.path, O_RDONLY | O_DIRECTORY));
  ASSERT_OK(sys::RemoveTree(containers.borrow(), created.id()));
  ASSERT_OK_AND_ASSIGN(const ContainerRecovery recovery, store_->Recover());
  EXPECT_THAT(recovery.failures, IsEmpty());
  EXPECT_THAT(volumes.Prune({.named = true}).value().removed,
              ElementsAre("db"));
  EXPECT_THAT(volumes.List().value(), IsEmpty());
  ASSERT_OK_AND_ASSIGN(LayerStore layers,
                       LayerStore::Open({.path = options_.layers}));
  ASSERT_OK_AND_ASSIGN(WritableLayer writable,
                       layers.OpenWritableLayer(created.id()));
  ASSERT_OK(writable.Destroy());
}

TEST_F(ContainerTest, FilesGoInAndOut) {
  ImportImage();
  std::filesystem::create_directories(directory_ + "/bound");
  ContainerSpec spec = {.image = "busybox"};
  spec.command = {"sh", "-c", kForever};
  spec.volumes = {"db:/data", directory_ + "/bound:/mnt/bound"};
  spec.tmpfs = {"/scratch"};
  spec.network = "none";
  spec.cgroup_parent = Parent();
  ASSERT_OK_AND_ASSIGN(const Container container, store_->Create(spec));
  std::filesystem::create_directories(directory_ + "/host/sub");
  std::ofstream(directory_ + "/host/sub/file") << "content";
  ASSERT_OK_AND_ASSIGN(const UniqueFd host,
                       sys::Open(directory_, O_PATH | O_DIRECTORY));
  const std::string tar = directory_ + "/files.tar";
  const auto open_tar = [&] {
    return sys::Open(tar, O_RDWR | O_CREAT | O_CLOEXEC).value();
  };
  const auto read = [&](const std::string& path) {
    std::string text;
    std::ifstream(path) >> text;
    return text;
  };
  // Whether it runs or not: the layer, a volume, and what is bound.
  for (const bool runs : {false, true}) {
    SCOPED_TRACE(runs);
    if (runs) ASSERT_OK(container.Start());
    std::vector<std::string> places = {"/etc", "/data", "/mnt/bound"};
    if (runs) places.push_back("/scratch");
    for (const std::string& place : places) {
      SCOPED_TRACE(place);
      std::filesystem::remove(tar);
      ASSERT_OK(CopyOut(host.borrow(), "host/sub", open_tar().borrow()));
      ASSERT_OK(container.CopyIn(open_tar().borrow(), place));
      std::filesystem::remove(tar);
      ASSERT_OK(container.CopyOut(place + "/sub/file", open_tar().borrow()));
      std::filesystem::create_directories(directory_ + "/back");
      ASSERT_OK(CopyIn(open_tar().borrow(), host.borrow(), "back"));
      EXPECT_EQ(read(directory_ + "/back/file"), "content");
      std::filesystem::remove_all(directory_ + "/back");
    }
    EXPECT_EQ(read(directory_ + "/bound/sub/file"), "content");
    EXPECT_EQ(read(options_.volumes + "/volumes/db/data/sub/file"), "content");
    EXPECT_THAT(container.CopyOut("/none", open_tar().borrow()),
                StatusIs(absl::StatusCode::kNotFound, _));
  }
  ASSERT_OK_AND_ASSIGN(
      const Ran ran,
      Sh(container,
         "cat /etc/sub/file /data/sub/file /mnt/bound/sub/file "
         "/scratch/sub/file; ln -s / /data/up; ln -s /proc/1/root "
         "/data/root; ls /scratch"));
  EXPECT_EQ(ran.out, "contentcontentcontentcontentsub\n");
  // A link leads where it leads the container, and no link of procfs leads on.
  {
    ASSERT_OK_AND_ASSIGN(const ContainerFiles files, container.OpenFiles());
    std::ofstream(directory_ + "/host/secret") << "x";
    ASSERT_OK(
        Copy(host.borrow(), "host/secret", files.root(), "/data/up/made"));
    EXPECT_FALSE(
        Copy(host.borrow(), "host/secret", files.root(), "/data/root").ok());
  }
  ASSERT_OK(container.Stop());
  ASSERT_OK_AND_ASSIGN(ContainerFiles open, container.OpenFiles());
  std::optional<ContainerFiles> files(std::move(open));
  EXPECT_OK(Copy(files->root(), "/data/up/made/secret", host.borrow(), ".",
                 {.name = "again"}));
  EXPECT_EQ(read(directory_ + "/again"), "x");
  // Nobody starts it meanwhile.
  std::atomic<bool> started{false};
  std::thread starter([&] {
    EXPECT_OK(container.Start());
    started = true;
  });
  absl::SleepFor(absl::Milliseconds(50));
  EXPECT_FALSE(started);
  files.reset();
  starter.join();

  // What is read-only for the container is so for others.
  spec = Spec("true");
  spec.read_only = true;
  spec.volumes = {"db:/data"};
  ASSERT_OK_AND_ASSIGN(const Container sealed, store_->Create(spec));
  ASSERT_OK_AND_ASSIGN(const ContainerFiles there, sealed.OpenFiles());
  EXPECT_OK(Copy(host.borrow(), "host/secret", there.root(), "/data"));
  EXPECT_FALSE(Copy(host.borrow(), "host/secret", there.root(), "/").ok());
}

TEST_F(ContainerTest, NetworksAndPods) {
  ContainerSpec spec = Spec("echo ready; exec nc -ll -p 80 -e cat");
  spec.network = absl::StrCat("ct", ::getpid());
  spec.name = "server";
  spec.ports = {{.host_address = "127.0.0.1", .container_port = 80}};
  ASSERT_OK_AND_ASSIGN(const Container server, Ready(spec));
  const ContainerInfo info = Info(server);
  EXPECT_NE(info.address, "");
  ASSERT_THAT(info.ports, SizeIs(1));
  EXPECT_NE(info.ports[0].host_port, 0);

  ContainerSpec neighbour = Spec(
      "for i in 1 2 3 4 5 6 7 8 9; do "
      "echo hello | nc -w 2 server 80 && exit; sleep 0.2; done; exit 1");
  neighbour.network = spec.network;
  ASSERT_OK_AND_ASSIGN(const Container client, Started(neighbour));
  EXPECT_EQ(client.Wait(absl::Now() + kPatience).value_or(-1), 0)
      << LogText(client);
  EXPECT_EQ(LogText(client), "hello\n");
  ASSERT_OK_AND_ASSIGN(const ContainerStats stats, server.Stats());
  EXPECT_GT(stats.received_bytes, 0);

  ContainerSpec pod = Spec("echo pod | nc -w 2 127.0.0.1 80");
  pod.network = "container:server";
  ASSERT_OK_AND_ASSIGN(const Container member, Started(pod));
  EXPECT_EQ(member.Wait(absl::Now() + kPatience).value_or(-1), 0)
      << LogText(member);
  EXPECT_EQ(LogText(member), "pod\n");

  // It keeps its address from run to run.
  ASSERT_OK(server.Restart(absl::ZeroDuration()));
  EXPECT_EQ(Info(server).address, info.address);
  ASSERT_OK(server.Stop(absl::ZeroDuration()));
  EXPECT_THAT(member.Start(),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("network: container \"server\" is not")));
}

// ---- Several processes, and killed ones ------------------------------------

TEST_F(ContainerTest, ManyProcessesAtOnce) {
  ContainerSpec spec = Spec(kForever);
  spec.name = "shared";
  ASSERT_OK_AND_ASSIGN(const Container container, Ready(spec));
  std::vector<pid_t> children;
  for (int i = 0; i < 6; ++i) {
    const pid_t child = ::fork();
    if (child == 0) {
      // What the parent knows is of no use here.
      const auto store = ContainerStore::Open(options_);
      const auto found = store->Find("shared");
      bool good = found.ok();
      for (int round = 0; good && round < 5; ++round) {
        const auto ran = Sh(*found, absl::StrCat("echo ", i));
        // Another one restarts it.
        good = ran.ok() ? ran->out == absl::StrCat(i, "\n") || ran->code != 0
                        : absl::IsFailedPrecondition(ran.status()) ||
                              absl::IsAborted(ran.status()) ||
                              absl::IsUnavailable(ran.status()) ||
                              absl::IsNotFound(ran.status());
        if (!ran.ok() && !good) std::cerr << ran.status() << "\n";
        absl::Status status;
        if (good && i == 0) status = found->Restart(absl::ZeroDuration());
        if (good && i == 1) {
          status = found->Update({.limits = {.pids_max = 50 + round}});
        }
        if (!status.ok()) std::cerr << i << ": " << status << "\n";
        good = good && status.ok();
        if (good && i == 2) good = found->Inspect().ok();
        if (good && i == 3) good = store->List().ok();
      }
      ::_exit(good ? 0 : 1);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = -1;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
  }
  EXPECT_EQ(Info(container).status, ContainerStatus::kRunning);
  EXPECT_EQ(Info(container).spec.limits.pids_max, 54);
  ASSERT_OK(container.Stop(absl::ZeroDuration()));
}

TEST_F(ContainerTest, AKilledKeeperTakesTheContainerAlong) {
  ContainerSpec spec = Spec(kForever);
  ASSERT_OK_AND_ASSIGN(const Container container, Ready(spec));
  ContainerSpec again = Spec(kForever);
  again.restart = {.kind = RestartPolicy::Kind::kUnlessStopped};
  ASSERT_OK_AND_ASSIGN(const Container kept, Ready(again));
  for (const Container* one : {&container, &kept}) {
    const ContainerInfo info = Info(*one);
    ASSERT_GT(info.keeper_pid, 0);
    ASSERT_OK_AND_ASSIGN(UniqueFd exit, one->ExitFd());
    ASSERT_EQ(::kill(info.keeper_pid, SIGKILL), 0);
    EXPECT_EQ(one->Wait(absl::Now() + kPatience).value_or(-1), 137);
    pollfd poll = {exit.get(), POLLIN, 0};
    EXPECT_EQ(::poll(&poll, 1, 20000), 1);
    EXPECT_TRUE(Await([&] { return !Exists(info.pid); }));
    const ContainerInfo after = Info(*one);
    EXPECT_EQ(after.status, ContainerStatus::kExited);
    EXPECT_THAT(after.error, HasSubstr("its keeper was killed"));
    EXPECT_EQ(after.keeper_pid, 0);
  }
  ASSERT_OK_AND_ASSIGN(const ContainerRecovery recovery, store_->Recover());
  EXPECT_THAT(recovery.failures, IsEmpty());
  EXPECT_THAT(recovery.ended,
              ::testing::UnorderedElementsAre(container.id(), kept.id()));
  EXPECT_THAT(recovery.started, ElementsAre(kept.id()));
  EXPECT_EQ(Info(kept).status, ContainerStatus::kRunning);
  ASSERT_OK_AND_ASSIGN(const ContainerRecovery nothing, store_->Recover());
  EXPECT_THAT(nothing.ended, IsEmpty());
  ASSERT_OK(kept.Stop());
  // One that was not recovered starts, too.
  ASSERT_OK(container.Start());
  ASSERT_OK(container.Stop());
}

TEST_F(ContainerTest, ATerminatedKeeperStopsTheContainer) {
  ContainerSpec spec = Spec(kForever);
  spec.restart = {.kind = RestartPolicy::Kind::kAlways};
  ASSERT_OK_AND_ASSIGN(const Container container, Ready(spec));
  ASSERT_EQ(::kill(Info(container).keeper_pid, SIGTERM), 0);
  EXPECT_EQ(container.Wait(absl::Now() + kPatience).value_or(-1), 9);
  EXPECT_TRUE(Await([&] { return Info(container).keeper_pid == 0; }));
  EXPECT_EQ(Info(container).status, ContainerStatus::kExited);
  EXPECT_EQ(LogText(container), "ready\n");
  // Nobody wanted it to stop.
  ASSERT_OK_AND_ASSIGN(const ContainerRecovery recovery, store_->Recover());
  EXPECT_THAT(recovery.started, ElementsAre(container.id()));
  EXPECT_EQ(Info(container).status, ContainerStatus::kRunning);
}

TEST_F(ContainerTest, KeepersThatAreKilledAtTheWrongTime) {
  // While it composes.
  ASSERT_OK_AND_ASSIGN(const Container early, store_->Create(Spec(kForever)));
  for (int i = 0; i < 5; ++i) {
    std::thread starter([&] { early.Start().IgnoreError(); });
    pid_t keeper = 0;
    EXPECT_TRUE(Await([&] { return (keeper = Info(early).keeper_pid) > 0; }));
    ::kill(keeper, SIGKILL);
    starter.join();
    ASSERT_OK(early.Start());
    ASSERT_OK(early.Stop(absl::ZeroDuration()));
    EXPECT_TRUE(Await([&] { return Info(early).keeper_pid == 0; }));
  }
  // While somebody waits for it to stop.
  ContainerSpec spec =
      Spec("trap '' TERM; echo ready; while :; do sleep 1; done");
  spec.restart = {.kind = RestartPolicy::Kind::kUnlessStopped};
  ASSERT_OK_AND_ASSIGN(const Container unwanted, Ready(spec));
  const pid_t keeper = Info(unwanted).keeper_pid;
  std::thread stopper([&] { EXPECT_OK(unwanted.Stop(absl::Seconds(20))); });
  EXPECT_TRUE(Await([&] {
    const auto actions = Actions(unwanted.id());
    return std::count(actions.begin(), actions.end(), "kill") > 0;
  }));
  ASSERT_EQ(::kill(keeper, SIGKILL), 0);
  stopper.join();
  // And one whose restarts are used up by keepers that were killed.
  spec = Spec(kForever);
  spec.restart = {.kind = RestartPolicy::Kind::kOnFailure, .max_retries = 1};
  ASSERT_OK_AND_ASSIGN(const Container unlucky, Ready(spec));
  ASSERT_EQ(::kill(Info(unlucky).keeper_pid, SIGKILL), 0);
  EXPECT_TRUE(Await([&] { return Info(unlucky).keeper_pid == 0; }));
  ASSERT_OK_AND_ASSIGN(const ContainerRecovery once, store_->Recover());
  EXPECT_THAT(once.started, ElementsAre(unlucky.id()));
  ASSERT_EQ(::kill(Info(unlucky).keeper_pid, SIGKILL), 0);
  EXPECT_TRUE(Await([&] { return Info(unlucky).keeper_pid == 0; }));
  ASSERT_OK_AND_ASSIGN(const ContainerRecovery twice, store_->Recover());
  EXPECT_THAT(twice.started, IsEmpty());
}

TEST_F(ContainerTest, RecordsThatWereLost) {
  ContainerSpec spec = Spec("true");
  spec.restart = {.kind = RestartPolicy::Kind::kAlways};
  ASSERT_OK_AND_ASSIGN(const Container container, store_->Create(spec));
  // As a power failure can leave it.
  const std::string directory =
      absl::StrCat(options_.path, "/", container.id());
  std::ofstream(directory + "/state.pb").close();
  EXPECT_EQ(Info(container).status, ContainerStatus::kExited);
  ASSERT_OK_AND_ASSIGN(const ContainerRecovery recovery, store_->Recover());
  EXPECT_THAT(recovery.started, ElementsAre(container.id()));
  ASSERT_OK(container.Stop());
  EXPECT_TRUE(Await([&] { return Info(container).keeper_pid == 0; }));
  // One that says nothing any more can still be removed.
  std::ofstream(directory + "/container.pb") << "\xff\xff";
  EXPECT_THAT(container.Inspect(), StatusIs(absl::StatusCode::kDataLoss, _));
  ASSERT_OK_AND_ASSIGN(const Container found,
                       store_->Find(container.id().substr(0, 12)));
  ASSERT_OK(found.Remove({.force = true}));
  ASSERT_OK(store_->Recover());
}

TEST_F(ContainerTest, BytesThatAreNoText) {
  ContainerSpec spec = Spec("printf \"$X\" | od -An -tx1; read x");
  spec.open_stdin = true;
  spec.env = {"X=\xff\xfe"};
  ASSERT_OK_AND_ASSIGN(const Container container, Ready(spec));
  EXPECT_EQ(LogText(container), " ff fe\n");
  ASSERT_OK_AND_ASSIGN(const Ran ran,
                       Exec(container, {.argv = {"echo", "\xfd"}}));
  EXPECT_EQ(ran.out, "\xfd\n");
  EXPECT_THAT(Exec(container, {.argv = {"/\xfd"}}),
              StatusIs(absl::StatusCode::kNotFound, _));
}

TEST_F(ContainerTest, StopsThatMeetOthers) {
  const std::string deaf =
      "trap '' TERM; echo ready; while :; do sleep 1; done";
  ASSERT_OK_AND_ASSIGN(const Container container, Ready(Spec(deaf)));
  std::thread stopper([&] { EXPECT_OK(container.Stop(absl::Seconds(20))); });
  EXPECT_TRUE(Await([&] {
    const auto actions = Actions(container.id());
    return std::count(actions.begin(), actions.end(), "kill") > 0;
  }));
  ASSERT_OK(container.Restart(absl::Milliseconds(10)));
  stopper.join();
  EXPECT_EQ(Info(container).status, ContainerStatus::kRunning);

  // Who asks again gives it no more time.
  const absl::Time begin = absl::Now();
  std::thread first([&] { EXPECT_OK(container.Stop(absl::Seconds(1))); });
  std::vector<std::thread> others;
  for (const absl::Duration grace : {absl::InfiniteDuration(), kPatience}) {
    absl::SleepFor(absl::Milliseconds(100));
    others.emplace_back([&, grace] { EXPECT_OK(container.Stop(grace)); });
  }
  first.join();
  for (std::thread& other : others) other.join();
  EXPECT_EQ(Info(container).exit_code, 137);
  EXPECT_LT(absl::Now() - begin, kPatience / 2);
}

TEST_F(ContainerTest, WhoHasGivenUpIsNotServed) {
  ASSERT_OK_AND_ASSIGN(const Container container, Ready(Spec(kForever)));
  const pid_t keeper = Info(container).keeper_pid;
  ASSERT_EQ(::kill(keeper, SIGSTOP), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    Sh(container, "touch /unwanted").status().IgnoreError();
    ::_exit(0);
  }
  // It has sent its request and waits.
  EXPECT_TRUE(Await([&] {
    return absl::StartsWith(
        sys::ReadFileAt(BorrowedFd(AT_FDCWD),
                        absl::StrCat("/proc/", child, "/syscall"),
                        /*resolve=*/0, 1000)
            .value_or(""),
        absl::StrCat(SYS_ppoll, " "));
  }));
  ASSERT_EQ(::kill(child, SIGKILL), 0);
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  ASSERT_EQ(::kill(keeper, SIGCONT), 0);
  ASSERT_OK_AND_ASSIGN(const Ran ran, Sh(container, "ls /"));
  EXPECT_THAT(ran.out, Not(HasSubstr("unwanted")));
  EXPECT_THAT(Actions(container.id()),
              ElementsAre("create", "start", "exec_start", "exec_die"));
}

// Somebody is stopped while he holds all locks of files that there are.
TEST_F(ContainerTest, LocksOfOthersDoNotStopAKeeper) {
  ContainerSpec spec = Spec(kForever);
  spec.auto_remove = true;
  ASSERT_OK_AND_ASSIGN(const Container container, Ready(spec));
  std::vector<UniqueFd> locks;
  for (const std::string& name :
       {container.id() + "/lock", std::string("names.lock"),
        std::string("events.lock")}) {
    ASSERT_OK_AND_ASSIGN(
        UniqueFd lock,
        sys::Open(absl::StrCat(options_.path, "/", name), O_RDWR));
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    ASSERT_EQ(::fcntl(lock.get(), F_OFD_SETLK, &whole), 0);
    locks.push_back(std::move(lock));
  }
  ASSERT_OK(container.Kill());
  EXPECT_TRUE(Await([&] { return Info(container).keeper_pid == 0; }));
  EXPECT_EQ(Info(container).exit_code, 137);
  locks.clear();
  ASSERT_OK(store_->Recover());
  EXPECT_THAT(container.Inspect(), StatusIs(absl::StatusCode::kNotFound, _));
}

TEST_F(ContainerTest, NamesThatKilledProcessesLeft) {
  ContainerSpec spec = Spec("true");
  spec.name = "one";
  ASSERT_OK_AND_ASSIGN(const Container one, store_->Create(spec));
  const std::string names = options_.path + "/names/";
  // Of one that was never made or is gone, and of one with another name.
  std::filesystem::create_symlink(std::string(64, 'a'), names + "ghost");
  std::filesystem::create_symlink(one.id(), names + "other");
  for (const char* name : {"ghost", "other"}) {
    EXPECT_THAT(store_->Find(name), StatusIs(absl::StatusCode::kNotFound, _));
    spec.name = name;
    ASSERT_OK_AND_ASSIGN(const Container made, store_->Create(spec));
    EXPECT_EQ(store_->Find(name).value().id(), made.id());
  }
  std::filesystem::create_symlink(one.id(), names + "third");
  ASSERT_OK(store_->Recover());
  EXPECT_FALSE(std::filesystem::is_symlink(names + "third"));
  EXPECT_TRUE(std::filesystem::is_symlink(names + "one"));
}

TEST_F(ContainerTest, WhoIsAttachedMayGoAway) {
  ContainerSpec spec = Spec(kForever);
  spec.open_stdin = true;
  ASSERT_OK_AND_ASSIGN(const Container container, Ready(spec));
  for (int i = 0; i < 600; ++i) {
    ASSERT_OK(container.Attach());
  }
  const std::string descriptors =
      absl::StrCat("/proc/", Info(container).keeper_pid, "/fd");
  EXPECT_TRUE(Await([&] {
    return std::distance(std::filesystem::directory_iterator(descriptors), {}) <
           200;
  }));
  ASSERT_OK(container.Stop());
}

TEST_F(ContainerTest, SomebodyElseWritesToItsStreams) {
  const auto before = ::signal(SIGPIPE, SIG_IGN);
  ASSERT_OK_AND_ASSIGN(const Container container, Ready(Spec(kForever)));
  ASSERT_OK_AND_ASSIGN(
      const UniqueFd foreign,
      sys::Open(absl::StrCat("/proc/", Info(container).pid, "/fd/1"),
                O_WRONLY | O_NONBLOCK));
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    const std::string much(4096, 'x');
    while (!stop) {
      if (::write(foreign.get(), much.data(), much.size()) < 0 &&
          errno != EAGAIN) {
        break;
      }
    }
  });
  EXPECT_OK(container.Stop());
  EXPECT_EQ(Info(container).status, ContainerStatus::kExited);
  stop = true;
  writer.join();
  ::signal(SIGPIPE, before);
}

TEST_F(ContainerTest, ATerminalThatNobodyHasOpenForAWhile) {
  ContainerSpec spec =
      Spec("t=$(tty); exec <&- >/dev/null 2>&1; sleep 0.2; exec >$t; echo on");
  spec.terminal = true;
  ASSERT_OK_AND_ASSIGN(const Container container, Started(spec));
  EXPECT_EQ(container.Wait(absl::Now() + kPatience).value_or(-1), 0);
  EXPECT_EQ(LogText(container), "on\r\n");
}

TEST_F(ContainerTest, WhoIsKilledLeavesNothing) {
  ImportImage();
  for (int i = 0; i < testing::Repetitions(24); ++i) {
    const pid_t child = ::fork();
    if (child == 0) {
      const auto store = ContainerStore::Open(options_);
      for (;;) {
        ContainerSpec spec = {.image = "busybox", .name = "victim"};
        spec.command = {"sleep", "1000"};
        spec.volumes = {"/scratch"};
        spec.network = "none";
        spec.cgroup_parent = Parent();
        auto container = store->Create(spec);
        if (!container.ok()) container = store->Find("victim");
        if (!container.ok()) continue;
        container->Start().IgnoreError();
        container->Rename("other").IgnoreError();
        container->Remove({.force = true, .volumes = true}).IgnoreError();
      }
    }
    absl::SleepFor(absl::Milliseconds(3 + 7 * i % 60));
    ASSERT_EQ(::kill(child, SIGKILL), 0);
    ASSERT_EQ(::waitpid(child, nullptr, 0), child);
    ASSERT_OK_AND_ASSIGN(const ContainerRecovery recovery, store_->Recover());
    EXPECT_THAT(recovery.failures, IsEmpty()) << recovery.failures.front();
    ASSERT_OK_AND_ASSIGN(const std::vector<ContainerInfo> list,
                         store_->List({.all = true}));
    EXPECT_LE(list.size(), 1u);
    for (const ContainerInfo& info : list) {
      // It can be found by its name, and does what it should.
      ASSERT_OK_AND_ASSIGN(const Container left, store_->Find(info.spec.name));
      if (info.status == ContainerStatus::kRunning) {
        // Unless its end was asked for by the dead.
        const auto ran = Sh(left, "true");
        EXPECT_TRUE(ran.ok() || absl::IsFailedPrecondition(ran.status()))
            << ran.status();
      }
      ASSERT_OK(left.Remove({.force = true, .volumes = true}));
    }
  }
  ASSERT_OK_AND_ASSIGN(LayerStore layers,
                       LayerStore::Open({.path = options_.layers}));
  ASSERT_OK(layers.Recover());
  EXPECT_THAT(layers.ListWritableLayers().value(), IsEmpty());
}

TEST_F(ContainerTest, EventsArePollable) {
  ASSERT_OK_AND_ASSIGN(ContainerEvents events, store_->Events());
  ASSERT_OK_AND_ASSIGN(const Container container, Started(Spec("exit 6")));
  std::vector<std::string> actions;
  std::string code;
  while (actions.size() < 3) {
    pollfd poll = {events.fd().get(), POLLIN, 0};
    ASSERT_EQ(::poll(&poll, 1, 20000), 1);
    ASSERT_OK_AND_ASSIGN(const std::vector<ContainerEvent> some, events.Read());
    for (const ContainerEvent& event : some) {
      actions.push_back(event.action);
      if (event.action == "die") code = event.attributes.at("exitCode");
    }
  }
  EXPECT_THAT(actions, ElementsAre("create", "start", "die"));
  EXPECT_EQ(code, "6");
}

}  // namespace
}  // namespace caisson
