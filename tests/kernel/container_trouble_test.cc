// Containers whose keepers, clients and disks fail, and several processes.
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "caisson/caisson.h"
#include "lib/sys/open.h"
#include "tests/kernel/container_store_test.h"
#include "tests/support/machine.h"

namespace caisson {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::_;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

using ContainerTroubleTest = ContainerStoreTest;

// ---- Several processes, and killed ones ------------------------------------

TEST_F(ContainerTroubleTest, ManyProcessesAtOnce) {
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

TEST_F(ContainerTroubleTest, AKilledKeeperTakesTheContainerAlong) {
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

TEST_F(ContainerTroubleTest, ATerminatedKeeperStopsTheContainer) {
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

TEST_F(ContainerTroubleTest, KeepersThatAreKilledAtTheWrongTime) {
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

TEST_F(ContainerTroubleTest, RecordsThatWereLost) {
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

// The store on a file system of 1 MiB, where nobody else sees it.
TEST_F(ContainerTroubleTest, AFullDisk) {
  const std::string disk = directory_ + "/disk";
  std::filesystem::create_directory(disk);
  ContainerSpec spec = Spec(
      "echo ready; for i in 1 2; do read x; yes $x | head -c 1500000; "
      "echo wrote; done; exit 5");
  spec.open_stdin = true;
  const auto test = [&] {
    ASSERT_EQ(::unshare(CLONE_NEWNS), 0);
    ASSERT_EQ(::mount("", "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
    ASSERT_EQ(::mount("", disk.c_str(), "tmpfs", 0, "size=1m"), 0);
    ASSERT_OK_AND_ASSIGN(const ContainerStore store,
                         ContainerStore::Open({.path = disk + "/containers"}));
    std::ofstream(disk + "/filler") << std::string(400'000, 'x');
    ASSERT_OK_AND_ASSIGN(const Container container, store.Create(spec));
    ASSERT_OK_AND_ASSIGN(ContainerRun run, container.StartAttached());
    const ContainerStreams streams = run.TakeStreams();
    std::string seen;
    const auto read_to = [&](const std::string& end) {
      char buffer[65536];
      ssize_t size = 1;
      while (size > 0 && !absl::EndsWith(seen, end)) {
        size = ::read(streams.out.get(), buffer, sizeof(buffer));
        if (size > 0) seen.append(buffer, static_cast<size_t>(size));
      }
    };
    ASSERT_OK(sys::WriteAll(streams.in.borrow(), "one\n", "stdin"));
    read_to("wrote\n");
    // Who is attached has it all; the log has what there was room for.
    EXPECT_EQ(seen.size(), strlen("ready\nwrote\n") + 1500000);
    EXPECT_LT(LogText(container).size(), size_t{1} << 20);
    EXPECT_THAT(
        container.Update({.limits = {.pids_max = 77}}),
        StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("ENOSPC")));
    EXPECT_EQ(Info(container).spec.limits.pids_max, std::nullopt);
    EXPECT_OK(Sh(container, "true"));
    ASSERT_OK(container.Pause());
    EXPECT_EQ(Info(container).status, ContainerStatus::kPaused);
    ASSERT_OK(container.Resume());

    std::filesystem::remove(disk + "/filler");
    seen.clear();
    ASSERT_OK(sys::WriteAll(streams.in.borrow(), "two\n", "stdin"));
    read_to("wrote\n");
    EXPECT_EQ(run.Wait(absl::Now() + kPatience).value().code, 5);
    EXPECT_EQ(Info(container).exit_code, 5);
    EXPECT_EQ(Info(container).status, ContainerStatus::kExited);
    EXPECT_THAT(LogText(container),
                HasSubstr("entries of this log could not be written: "));
    EXPECT_THAT(LogText(container), HasSubstr("\ntwo\n"));
    // It can be started and removed.
    ASSERT_OK(container.Start());
    EXPECT_EQ(Info(container).status, ContainerStatus::kRunning);
    ASSERT_OK(container.Remove({.force = true}));
  };
  const pid_t child = ::fork();
  if (child == 0) {
    test();
    ::_exit(HasFailure() ? 1 : 0);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST_F(ContainerTroubleTest, BytesThatAreNoText) {
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

TEST_F(ContainerTroubleTest, StopsThatMeetOthers) {
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

TEST_F(ContainerTroubleTest, WhoHasGivenUpIsNotServed) {
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
TEST_F(ContainerTroubleTest, LocksOfOthersDoNotStopAKeeper) {
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
  // Not before the keeper, which has given up, is gone.
  EXPECT_TRUE(Await([&] {
    EXPECT_OK(store_->Recover());
    return absl::IsNotFound(container.Inspect().status());
  }));
}

TEST_F(ContainerTroubleTest, NamesThatKilledProcessesLeft) {
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

TEST_F(ContainerTroubleTest, WhoIsAttachedMayGoAway) {
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

TEST_F(ContainerTroubleTest, SomebodyElseWritesToItsStreams) {
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

TEST_F(ContainerTroubleTest, ATerminalThatNobodyHasOpenForAWhile) {
  ContainerSpec spec =
      Spec("t=$(tty); exec <&- >/dev/null 2>&1; sleep 0.2; exec >$t; echo on");
  spec.terminal = true;
  ASSERT_OK_AND_ASSIGN(const Container container, Started(spec));
  EXPECT_EQ(container.Wait(absl::Now() + kPatience).value_or(-1), 0);
  EXPECT_EQ(LogText(container), "on\r\n");
}

TEST_F(ContainerTroubleTest, WhoIsKilledLeavesNothing) {
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

TEST_F(ContainerTroubleTest, EventsArePollable) {
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
