// Names that change while a start, an exec, a mount or a look into a container
// is under way. What RootFs alone does with them: HostileRootTest.RacingRenames
// (lib/rootfs/hostile_root_test.cc).
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "caisson/caisson.h"
#include "lib/sys/open.h"
#include "tests/hostile/hostile_test.h"
#include "tests/support/machine.h"

namespace caisson {
namespace {

using ::caisson::testing::Plant;
using ::caisson::testing::ScratchDir;
using ::caisson::testing::TestRoot;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::Not;

// Exchanges two names, again and again, until it is destroyed.
class Swapper final {
 public:
  Swapper(std::string a, std::string b)
      : thread_([this, a = std::move(a), b = std::move(b)] {
          while (!stop_) {
            if (::syscall(SYS_renameat2, AT_FDCWD, a.c_str(), AT_FDCWD,
                          b.c_str(), RENAME_EXCHANGE) == 0) {
              ++swaps_;
            }
          }
        }) {}
  ~Swapper() {
    stop_ = true;
    thread_.join();
    EXPECT_GT(swaps_, 0);
  }

 private:
  std::atomic<bool> stop_{false};
  std::atomic<int> swaps_{0};
  std::thread thread_;
};

// Counts to `least`, and on until what a race must bring about was seen: on a
// busy machine the attacker may not run for as long as all that takes.
class Attempts {
 public:
  explicit Attempts(int least) : least_(least) {}
  bool Next(bool seen) {
    return ++count_ <= least_ || (!seen && absl::Now() < deadline_);
  }

 private:
  const int least_;
  int count_ = 0;
  const absl::Time deadline_ = absl::Now() + absl::Seconds(30);
};

class HostileRacesTest : public testing::HostileTest {
 protected:
  // Counts how often something came off. What did not says where it failed.
  struct Tally {
    int done = 0;
    int refused = 0;
    void Add(const absl::Status& status, const std::string& place) {
      if (status.ok()) {
        ++done;
      } else {
        ++refused;
        EXPECT_THAT(std::string(status.message()), HasSubstr(place));
      }
    }
  };
};

// CVE-2021-30465: a container that runs swaps, in a volume that it shares, the
// directory that others shall have something mounted in for a link.
TEST_F(HostileRacesTest, MountPointInASharedVolume) {
  const ScratchDir volume("volume");
  const ScratchDir source("source");
  Plant(source.path(), {"file=bound"});
  Plant(volume.path(), {"x/file=inside", "y -> " + outside()});
  RootFsOptions options = root_->Options();
  options.binds = {{.destination = "/v", .source = volume.path()}};
  ASSERT_OK_AND_ASSIGN(RootFs attackers, RootFs::Create(options));
  ProcessSpec attack = Attack({"swap", "/v/x", "/v/y"});
  attack.root = &attackers;
  attack.out = Stdio::Pipe();
  ASSERT_OK_AND_ASSIGN(Process attacker, launcher_->Start(attack));
  UniqueFd out = attacker.TakeStdout();
  char ready[6];
  ASSERT_EQ(::read(out.get(), ready, sizeof(ready)), 6);

  options.binds.push_back(
      {.destination = "/v/x/new/deep", .source = source.path()});
  options.tmpfs.push_back({.destination = "/v/x/memory"});
  Tally tally;
  Attempts attempts(testing::Repetitions(100));
  while (attempts.Next(tally.done > 0)) {
    const auto outcome =
        Run(Shell("cat /v/x/new/deep/file; cat /v/x/file /v/y/file"), options);
    tally.Add(outcome.status(), "/v/x");
    if (outcome.ok()) {
      EXPECT_THAT(outcome->output, Not(HasSubstr("untouched")));
    }
  }
  EXPECT_GT(tally.done, 0) << tally.refused;
  EXPECT_THAT(attacker.Wait(absl::Now()).status().code(),
              absl::StatusCode::kDeadlineExceeded);
  ASSERT_OK(attacker.Destroy());
}

// CVE-2019-19921, CVE-2026-41579, CVE-2026-47766, as races: /proc, /sys, /dev
// and /etc of a root that is written in place. A directory that was renamed
// takes what is mounted on it along; inside, its old name leads nowhere then.
TEST_F(HostileRacesTest, MountPointsOfTheKernel) {
  for (const std::string name : {"proc", "sys", "dev", "etc"}) {
    const TestRoot image;
    Plant(image.path(), {"proc/", "sys/", "dev/",
                         "link -> " + absl::StrCat(outside(), "/", name)});
    RootFsOptions options = InPlace(image);
    options.hostname = "hostile";
    const Swapper swapper(image.path() + "/" + name, image.path() + "/link");
    Tally tally;
    for (int i = 0; i < 30; ++i) {
      const auto outcome = Run(
          Shell("stat -c %t:%T /dev/null; stat -f -c %T /proc /sys"), options);
      tally.Add(outcome.status(), "/" + name);
      if (!outcome.ok()) continue;
      for (const absl::string_view line :
           absl::StrSplit(outcome->output, '\n', absl::SkipEmpty())) {
        EXPECT_THAT(std::string(line),
                    AnyOf("1:3", "proc", "sysfs", HasSubstr("No such file")));
      }
    }
    EXPECT_EQ(tally.done + tally.refused, 30);
  }
}

// CVE-2024-42472: a source that is held by descriptor stays what it was.
TEST_F(HostileRacesTest, SourceOfABind) {
  const ScratchDir dir("source");
  Plant(dir.path(), {"a/file=inside", "b -> " + outside()});
  UniqueFd source(
      ::open((dir.path() + "/a").c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  RootFsOptions options = root_->Options();
  options.binds = {{.destination = "/v", .source_fd = source.borrow()}};
  const Swapper swapper(dir.path() + "/a", dir.path() + "/b");
  for (int i = 0; i < 40; ++i) {
    ASSERT_OK_AND_ASSIGN(Outcome outcome, Run(Shell("cat /v/file"), options));
    EXPECT_EQ(outcome.output, "inside");
  }
}

// CVE-2025-31133: a link at the container's /dev/null, while the streams of
// further processes are opened.
TEST_F(HostileRacesTest, NullDevice) {
  ASSERT_OK_AND_ASSIGN(
      Running container,
      StartUntilOutput(Shell(
          "echo secret > /secret; exec attacker replace /dev/null /secret")));
  Tally tally;
  Attempts attempts(testing::Repetitions(100));
  while (attempts.Next(tally.done > 0 && tally.refused > 0)) {
    const auto outcome = Exec(*container.process, Shell("echo done; cat"));
    tally.Add(outcome.status(), "/dev/null");
    if (outcome.ok()) {
      EXPECT_EQ(outcome->output, "done\n");
    }
  }
  EXPECT_GT(tally.done, 0);
  EXPECT_GT(tally.refused, 0);
  EXPECT_EQ(KillAndRead(container), "");
}

// CVE-2025-52565: links at what leads to the container's terminals.
TEST_F(HostileRacesTest, Terminals) {
  for (const char* name : {"/dev/ptmx", "/dev/console", "/dev/tty"}) {
    ASSERT_OK_AND_ASSIGN(Running container,
                         StartUntilOutput(Shell(absl::StrCat(
                             "echo secret > /secret; exec attacker replace ",
                             name, " /secret"))));
    for (int i = 0; i < testing::Repetitions(20); ++i) {
      ProcessSpec spec = Shell("tty; stat -L -c %t /proc/self/fd/0");
      spec.terminal = TerminalSize{};
      ASSERT_OK_AND_ASSIGN(Process process,
                           launcher_->Exec(*container.process, spec));
      std::string seen;
      char buffer[256];
      ssize_t n;
      while ((n = ::read(process.terminal().get(), buffer, sizeof(buffer))) >
             0) {
        seen.append(buffer, static_cast<size_t>(n));
      }
      EXPECT_EQ(seen, "/dev/pts/0\r\n88\r\n") << name;  // 136: a pts
      EXPECT_OK(process.Wait());
    }
    EXPECT_EQ(KillAndRead(container), "");
  }
}

// CVE-2018-15664 (docker cp): the host reads files of a container that swaps
// a directory for a link to the host's.
TEST_F(HostileRacesTest, FilesThatTheHostReads) {
  ASSERT_OK_AND_ASSIGN(Running container,
                       StartUntilOutput(Shell(absl::StrCat(
                           "mkdir -p /d/x; echo inside > /d/x/file; ln -s ",
                           outside(), " /d/y; exec attacker swap /d/x /d/y"))));
  int read = 0;
  int refused = 0;
  Attempts attempts(2000);
  while (attempts.Next(read > 0 && refused > 0)) {
    const auto file = container.root->Open("/d/x/file", O_RDONLY);
    if (!file.ok()) {
      EXPECT_THAT(std::string(file.status().message()), HasSubstr("/d/x/file"));
      ++refused;
      continue;
    }
    ASSERT_OK_AND_ASSIGN(const std::string text,
                         sys::ReadAll(file->borrow(), 100, "file"));
    EXPECT_EQ(text, "inside\n");
    ++read;
  }
  EXPECT_GT(read, 0);
  EXPECT_GT(refused, 0);
  EXPECT_EQ(KillAndRead(container), "");
}

// CVE-2021-30465 and CVE-2024-45310 for mounts into a container that runs.
TEST_F(HostileRacesTest, LiveMounts) {
  const ScratchDir source("source");
  Plant(source.path(), {"file=bound"});
  ASSERT_OK_AND_ASSIGN(Running container,
                       StartUntilOutput(Shell(absl::StrCat(
                           "mkdir -p /d/x; ln -s ", outside(),
                           " /d/y; exec attacker swap /d/x /d/y"))));
  Tally tally;
  Attempts attempts(60);
  for (int i = 0; attempts.Next(tally.done > 0); ++i) {
    const std::string place = absl::StrCat("/d/x/made/", i);
    tally.Add(launcher_->AddMount(
                  *container.process,
                  BindMount{.destination = place, .source = source.path()}),
              "/d/x");
  }
  EXPECT_GT(tally.done, 0) << tally.refused;
  EXPECT_EQ(KillAndRead(container), "");
}

}  // namespace
}  // namespace caisson
