// Containers and what they do, on the real kernel.
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "caisson/caisson.h"
#include "lib/sys/open.h"
#include "lib/sys/remove_tree.h"
#include "tests/kernel/container_store_test.h"

namespace caisson {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::_;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

using ContainerTest = ContainerStoreTest;

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

TEST_F(ContainerTest, AnImageStaysAsLongAsItsContainers) {
  ImportImage();
  ContainerSpec spec = {.image = "busybox"};
  spec.command = {"sh", "-c", kForever};
  spec.network = "none";
  spec.cgroup_parent = Parent();
  ASSERT_OK_AND_ASSIGN(const Container container, store_->Create(spec));
  ASSERT_OK_AND_ASSIGN(const Container other, store_->Create(spec));
  const auto in_use = [&](const Container& by) {
    // Whoever asks.
    const pid_t child = ::fork();
    if (child == 0) {
      auto layers = LayerStore::Open({.path = options_.layers});
      const absl::Status removed = layers->Remove("busybox");
      const auto pruned = layers->Prune(/*all=*/true);
      const bool kept = absl::IsFailedPrecondition(removed) &&
                        absl::StrContains(removed.message(), by.id()) &&
                        pruned.ok() && pruned->empty();
      if (!kept) std::cerr << removed << "\n";
      ::_exit(kept ? 0 : 1);
    }
    int status = -1;
    return ::waitpid(child, &status, 0) == child && status == 0;
  };
  ASSERT_OK(other.Remove());
  EXPECT_TRUE(in_use(container));
  ASSERT_OK(container.Start());
  ASSERT_EQ(::kill(Info(container).keeper_pid, SIGKILL), 0);
  ASSERT_OK(container.Wait(absl::Now() + kPatience));
  EXPECT_TRUE(in_use(container));
  ASSERT_OK(store_->Recover());
  EXPECT_TRUE(in_use(container));
  // One that was killed while it created left a directory without a record.
  ASSERT_OK_AND_ASSIGN(const Container cut, store_->Create(spec));
  std::filesystem::remove(
      absl::StrCat(options_.path, "/", cut.id(), "/container.pb"));
  ASSERT_OK(container.Remove());
  EXPECT_TRUE(in_use(cut));
  ASSERT_OK(store_->Recover());
  ASSERT_OK_AND_ASSIGN(LayerStore layers,
                       LayerStore::Open({.path = options_.layers}));
  EXPECT_OK(layers.Remove("busybox"));
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

  // Nor is it an error that it has, of whoever wants it to end.
  spec = Spec("exec sleep 100");
  spec.auto_remove = true;
  for (int i = 0; i < 4; ++i) {
    ASSERT_OK_AND_ASSIGN(const Container other, Started(spec));
    if (i % 2 == 0) {
      EXPECT_OK(other.Stop(absl::ZeroDuration()));
    } else {
      EXPECT_OK(other.Remove({.force = true}));
      EXPECT_THAT(other.Inspect(), StatusIs(absl::StatusCode::kNotFound, _));
    }
  }
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
  EXPECT_THAT(layers.ListLeases().value(), IsEmpty());
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
    if (runs) {
      ASSERT_OK(container.Start());
    }
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
  ASSERT_OK(container.Stop(absl::ZeroDuration()));
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

}  // namespace
}  // namespace caisson
