// Events of real groups, in whatever layout and kernel this machine has: what
// it cannot tell must say why. And on plain files what no machine does on
// demand.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "caisson/cgroup.h"
#include "lib/base/status_matchers.h"
#include "lib/cgroup/fake_cgroupfs.h"
#include "lib/cgroup/kernel_fixture.h"
#include "lib/cgroup/owner.h"
#include "lib/sys/open.h"

namespace caisson {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Optional;
using Kind = CgroupEventKind;

constexpr int64_t kMiB = 1 << 20;
// Long for a loaded machine; no test waits so long unless it fails.
constexpr absl::Duration kLong = absl::Seconds(20);

void TouchMemory(int64_t bytes) {
  char* memory =
      static_cast<char*>(::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  for (int64_t i = 0; i < bytes; i += 4096) memory[i] = 1;
}

MATCHER_P(IsEvent, kind, CgroupEventName(kind).data()) {
  *result_listener << "which is " << CgroupEventName(arg.kind);
  return arg.kind == kind;
}

bool Readable(const CgroupEvents& events) {
  pollfd poll = {.fd = events.fd().get(), .events = POLLIN};
  return ::poll(&poll, 1, 0) > 0;
}

// The count of the next `kind`; -1 if it does not come. Others pass by.
int64_t Await(const CgroupEvents& events, Kind kind) {
  for (;;) {
    const auto read = events.Wait(kLong);
    EXPECT_OK(read);
    if (!read.ok() || read->empty()) return -1;
    for (const CgroupEvent& event : *read) {
      if (event.kind == kind) return event.count;
    }
  }
}

class CgroupEventsTest : public CgroupKernelTest {
 protected:
  static absl::StatusOr<Cgroup> Create(const CgroupParent& parent,
                                       const CgroupLimits& limits = {}) {
    return parent.Create(
        {.name = "events",
         .limits = limits,
         .controllers = {CgroupController::kMemory, CgroupController::kPids}});
  }
  bool HasV2() const {
    return layout().hierarchies[0].version == CgroupVersion::kV2;
  }
  bool MemoryIsV2() const {
    return VersionOf(CgroupController::kMemory) == CgroupVersion::kV2;
  }
};

TEST_F(CgroupEventsTest, PopulatedAndEmpty) {
  CgroupParent parent = Open();
  ASSERT_OK_AND_ASSIGN(const Cgroup group, Create(parent));
  auto events = group.Watch({.kinds = {Kind::kPopulated, Kind::kEmpty}});
  if (!HasV2()) {
    EXPECT_THAT(events, StatusIs(absl::StatusCode::kFailedPrecondition,
                                 HasSubstr("release_agent")));
    return;
  }
  ASSERT_OK(events);
  EXPECT_FALSE(Readable(*events));
  ASSERT_OK_AND_ASSIGN(std::vector<CgroupEvent> read, events->Read());
  EXPECT_THAT(read, IsEmpty());
  Child child(group, Sleep);
  ASSERT_OK_AND_ASSIGN(read, events->Wait(kLong));
  EXPECT_THAT(read, ElementsAre(IsEvent(Kind::kPopulated)));
  ASSERT_OK(group.Kill());
  ASSERT_OK_AND_ASSIGN(read, events->Wait(kLong));
  EXPECT_THAT(read, ElementsAre(IsEvent(Kind::kEmpty)));
  ASSERT_OK_AND_ASSIGN(read, events->Wait(absl::ZeroDuration()));
  EXPECT_THAT(read, IsEmpty());
}

TEST_F(CgroupEventsTest, FrozenAndThawed) {
  CgroupParent parent = Open();
  ASSERT_OK_AND_ASSIGN(const Cgroup group, Create(parent));
  // Only what was asked for.
  auto frozen = group.Watch({.kinds = {Kind::kFrozen}});
  if (!HasV2()) {
    EXPECT_THAT(frozen, StatusIs(absl::StatusCode::kFailedPrecondition,
                                 HasSubstr("freezer.state")));
    return;
  }
  ASSERT_OK(frozen);
  ASSERT_OK_AND_ASSIGN(const CgroupEvents both,
                       group.Watch({.kinds = {Kind::kFrozen, Kind::kThawed}}));
  Child child(group, Sleep);
  ASSERT_OK(group.Freeze());
  EXPECT_EQ(Await(both, Kind::kFrozen), 1);
  EXPECT_EQ(Await(*frozen, Kind::kFrozen), 1);
  ASSERT_OK(group.Thaw());
  EXPECT_EQ(Await(both, Kind::kThawed), 1);
  ASSERT_OK_AND_ASSIGN(const std::vector<CgroupEvent> read, frozen->Read());
  EXPECT_THAT(read, IsEmpty());
}

// Kills before the subscription are not told, later ones with their number.
TEST_F(CgroupEventsTest, OutOfMemory) {
  CgroupParent parent = Open();
  ASSERT_OK_AND_ASSIGN(const Cgroup group,
                       Create(parent, {.memory_max = 16 * kMiB}));
  const auto run_out = [&] {
    Child child(group, [] {
      TouchMemory(256 * kMiB);
      return 0;
    });
    EXPECT_EQ(WTERMSIG(child.Wait()), SIGKILL);
  };
  run_out();
  ASSERT_OK_AND_ASSIGN(const CgroupEvents events,
                       group.Watch({.kinds = {Kind::kOom, Kind::kOomKill}}));
  ASSERT_OK_AND_ASSIGN(const CgroupEvents kills,
                       group.Watch({.kinds = {Kind::kOomKill}, .local = true}));
  // The kernel may still have something to tell of the time before.
  EXPECT_THAT(*events.Read(), IsEmpty());
  for (int round = 0; round < 2; ++round) {
    run_out();
    EXPECT_EQ(Await(kills, Kind::kOomKill), 1);
    int64_t killed = 0, oom = 0;
    while (killed == 0 || oom == 0) {
      ASSERT_OK_AND_ASSIGN(const std::vector<CgroupEvent> read,
                           events.Wait(kLong));
      ASSERT_FALSE(read.empty());
      for (const CgroupEvent& event : read) {
        if (event.kind == Kind::kOomKill) killed += event.count;
        if (event.kind == Kind::kOom) oom += event.count;
      }
    }
    EXPECT_EQ(killed, 1);
    EXPECT_GT(oom, 0);
  }
}

TEST_F(CgroupEventsTest, WholeGroupsKilled) {
  CgroupParent parent = Open();
  ASSERT_OK_AND_ASSIGN(const Cgroup group,
                       Create(parent, {.memory_max = 16 * kMiB}));
  auto events =
      group.Watch({.kinds = {Kind::kOomGroupKill, Kind::kOomKill, Kind::kMax}});
  if (!MemoryIsV2()) {
    EXPECT_THAT(events, StatusIs(absl::StatusCode::kFailedPrecondition,
                                 HasSubstr("memory.failcnt")));
    EXPECT_THAT(group.Watch({.kinds = {Kind::kOomGroupKill}}),
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         HasSubstr("never kills a whole group")));
    return;
  }
  ASSERT_OK(events);
  const std::string file =
      DirectoryOf(group, CgroupController::kMemory) + "/memory.oom.group";
  ASSERT_OK_AND_ASSIGN(const UniqueFd fd, sys::Open(file, O_WRONLY));
  ASSERT_OK(sys::WriteAll(fd.borrow(), "1", file));
  Child bystander(group, Sleep);
  Child child(group, [] {
    TouchMemory(256 * kMiB);
    return 0;
  });
  EXPECT_EQ(WTERMSIG(child.Wait()), SIGKILL);
  EXPECT_EQ(WTERMSIG(bystander.Wait()), SIGKILL);
  int64_t killed = 0, groups = 0, max = 0;
  while (killed < 2 || groups < 1) {
    ASSERT_OK_AND_ASSIGN(const std::vector<CgroupEvent> read,
                         events->Wait(kLong));
    ASSERT_FALSE(read.empty());
    for (const CgroupEvent& event : read) {
      if (event.kind == Kind::kOomKill) killed += event.count;
      if (event.kind == Kind::kOomGroupKill) groups += event.count;
      if (event.kind == Kind::kMax) max += event.count;
    }
  }
  // The kernel counts the first one twice if it still has its memory when it
  // comes to the group.
  EXPECT_GE(killed, 2);
  EXPECT_LE(killed, 3);
  EXPECT_EQ(groups, 1);
  EXPECT_GT(max, 0);
}

TEST_F(CgroupEventsTest, AboveTheHighMark) {
  CgroupParent parent = Open();
  ASSERT_OK_AND_ASSIGN(const Cgroup group, Create(parent));
  auto events = group.Watch({.kinds = {Kind::kHigh}});
  if (!MemoryIsV2()) {
    EXPECT_THAT(events, StatusIs(absl::StatusCode::kFailedPrecondition,
                                 AllOf(HasSubstr("high"),
                                       HasSubstr("usage_thresholds"))));
    return;
  }
  ASSERT_OK(events);
  const std::string file =
      DirectoryOf(group, CgroupController::kMemory) + "/memory.high";
  ASSERT_OK_AND_ASSIGN(const UniqueFd fd, sys::Open(file, O_WRONLY));
  ASSERT_OK(sys::WriteAll(fd.borrow(), "4194304", file));
  Child child(group, [] {
    TouchMemory(64 * kMiB);
    return 0;
  });
  EXPECT_GT(Await(*events, Kind::kHigh), 0);
}

// A group below one that is full: nothing else is left to be reclaimed.
TEST_F(CgroupEventsTest, BelowTheLowMark) {
  CgroupParent parent = Open();
  ASSERT_OK_AND_ASSIGN(const Cgroup group,
                       Create(parent, {.memory_max = 16 * kMiB}));
  if (!MemoryIsV2()) {
    EXPECT_THAT(
        group.Watch({.kinds = {Kind::kLow}}),
        StatusIs(absl::StatusCode::kFailedPrecondition,
                 AllOf(HasSubstr("low"), HasSubstr("cgroup v1 has no"))));
    return;
  }
  ASSERT_OK_AND_ASSIGN(
      const Cgroup inside,
      group.CreateChild({.name = "in", .limits = {.memory_low = 64 * kMiB}}));
  ASSERT_OK_AND_ASSIGN(const CgroupEvents events,
                       inside.Watch({.kinds = {Kind::kLow}}));
  ASSERT_OK_AND_ASSIGN(
      const UniqueFd file,
      sys::Open(::testing::TempDir(), O_TMPFILE | O_RDWR, 0600));
  ASSERT_EQ(::ftruncate(file.get(), 64 * kMiB), 0);
  Child child(inside, [&] {
    char buffer[65536];
    while (::read(file.get(), buffer, sizeof(buffer)) > 0) continue;
    return 0;
  });
  EXPECT_GT(Await(events, Kind::kLow), 0);
}

TEST_F(CgroupEventsTest, FailedForks) {
  CgroupParent parent = Open();
  ASSERT_OK_AND_ASSIGN(const Cgroup group, Create(parent, {.pids_max = 1}));
  auto watched = group.Watch({.kinds = {Kind::kPidsMax}});
  if (!watched.ok()) {
    EXPECT_EQ(VersionOf(CgroupController::kPids), CgroupVersion::kV1);
    EXPECT_THAT(watched, StatusIs(absl::StatusCode::kFailedPrecondition,
                                  HasSubstr("since Linux 6.11")));
    return;
  }
  const CgroupEvents& events = *watched;
  ASSERT_OK_AND_ASSIGN(const CgroupEvents local,
                       group.Watch({.kinds = {Kind::kPidsMax}, .local = true}));
  Child child(group, [] {
    for (int i = 0; i < 3; ++i) {
      if (::fork() >= 0) return 1;
    }
    return 0;
  });
  EXPECT_EQ(child.Wait(), 0);
  for (const CgroupEvents* one : {&events, &local}) {
    int64_t failed = 0;
    while (failed < 3) {
      const int64_t count = Await(*one, Kind::kPidsMax);
      ASSERT_GT(count, 0);
      failed += count;
    }
    EXPECT_EQ(failed, 3);
  }
}

TEST_F(CgroupEventsTest, UsageThresholds) {
  CgroupParent parent = Open();
  ASSERT_OK_AND_ASSIGN(const Cgroup group, Create(parent));
  auto events = group.Watch({.usage_thresholds = {8 * kMiB, 512 * kMiB}});
  if (MemoryIsV2()) {
    EXPECT_THAT(events, StatusIs(absl::StatusCode::kFailedPrecondition,
                                 AllOf(HasSubstr("usage_thresholds"),
                                       HasSubstr("memory.high"))));
    return;
  }
  ASSERT_OK(events);
  EXPECT_FALSE(Readable(*events));
  Child child(group, [] {
    TouchMemory(32 * kMiB);
    return 0;
  });
  ASSERT_OK_AND_ASSIGN(const std::vector<CgroupEvent> read,
                       events->Wait(kLong));
  ASSERT_THAT(read, ElementsAre(IsEvent(Kind::kUsage)));
  EXPECT_THAT(read[0].threshold, Optional(8 * kMiB));
  EXPECT_EQ(child.Wait(), 0);
}

TEST_F(CgroupEventsTest, Reclaim) {
  CgroupParent parent = Open();
  ASSERT_OK_AND_ASSIGN(const Cgroup group,
                       Create(parent, {.memory_max = 16 * kMiB}));
  auto events = group.Watch({.reclaim_level = CgroupReclaimLevel::kLow});
  if (MemoryIsV2()) {
    EXPECT_THAT(events, StatusIs(absl::StatusCode::kFailedPrecondition,
                                 AllOf(HasSubstr("reclaim_level"),
                                       HasSubstr("WatchPressure()"))));
    return;
  }
  ASSERT_OK(events);
  std::string path = ::testing::TempDir() + "/reclaim-XXXXXX";
  const UniqueFd file(::mkostemp(path.data(), O_CLOEXEC));
  ASSERT_TRUE(file.valid());
  ASSERT_EQ(::unlink(path.c_str()), 0);
  ASSERT_EQ(::ftruncate(file.get(), 64 * kMiB), 0);
  Child child(group, [&] {
    char buffer[65536];
    while (::read(file.get(), buffer, sizeof(buffer)) > 0) continue;
    return 0;
  });
  EXPECT_GT(Await(*events, Kind::kReclaim), 0);
}

TEST_F(CgroupEventsTest, RemovedGroups) {
  CgroupParent parent = Open();
  ASSERT_OK_AND_ASSIGN(Cgroup group, Create(parent));
  std::vector<CgroupEvents> all;
  const auto add = [&](absl::StatusOr<CgroupEvents> events) {
    ASSERT_OK(events);
    all.push_back(*std::move(events));
  };
  add(group.Watch({.kinds = {Kind::kOomKill}}));
  if (HasV2()) {
    add(group.Watch({.kinds = {Kind::kEmpty}}));
    if (::access("/proc/pressure/memory", R_OK) == 0) {
      add(group.WatchPressure({}));
    }
  }
  if (!MemoryIsV2()) add(group.Watch({.usage_thresholds = {kMiB}}));
  ASSERT_OK(group.Destroy());
  for (const CgroupEvents& events : all) {
    ASSERT_OK_AND_ASSIGN(std::vector<CgroupEvent> read, events.Read());
    EXPECT_THAT(read, ElementsAre(IsEvent(Kind::kRemoved)));
    EXPECT_FALSE(Readable(events));
    ASSERT_OK_AND_ASSIGN(read, events.Read());
    EXPECT_THAT(read, IsEmpty());
  }
  EXPECT_THAT(group.Watch({.kinds = {Kind::kEmpty}}),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("was destroyed")));
}

TEST_F(CgroupEventsTest, WithoutTheController) {
  CgroupParent parent = Open();
  ASSERT_OK_AND_ASSIGN(const Cgroup group, parent.Create({.name = "bare"}));
  EXPECT_THAT(group.Watch({.kinds = {Kind::kOomKill}}),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("oom_kill"),
                             HasSubstr("without the memory controller"))));
  EXPECT_THAT(group.Watch({.kinds = {Kind::kPressure}}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("an option of its own")));
  EXPECT_THAT(
      group.Watch({.kinds = {Kind::kRemoved}}),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("always comes")));
  EXPECT_THAT(group.Watch({}), StatusIs(absl::StatusCode::kInvalidArgument,
                                        HasSubstr("nothing to watch for")));
  EXPECT_THAT(group.Watch({.usage_thresholds = {0}}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("usage_thresholds has 0")));
  EXPECT_THAT(group.Watch({.kinds = {static_cast<Kind>(99)}}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("99")));
}

// v1 tells of an OOM before it kills: the kill is told when it is there.
TEST(CgroupEventsFakeTest, KillAfterTheOomOfV1) {
  auto fs =
      std::make_shared<cgroup::FakeCgroupfs>(cgroup::FakeCgroupfs::Kind::kV1);
  ASSERT_OK_AND_ASSIGN(auto owner, cgroup::Owner::Open({.path = "/ours"}, fs));
  const CgroupParent parent(std::move(owner));
  ASSERT_OK_AND_ASSIGN(
      const Cgroup group,
      parent.Create(
          {.name = "job", .controllers = {CgroupController::kMemory}}));
  const std::string directory = absl::StrCat("memory", parent.path(), "/job/");
  EXPECT_THAT(
      group.Watch({.kinds = {Kind::kOomKill}}),
      StatusIs(absl::StatusCode::kNotFound, HasSubstr("cgroup.event_control")));
  fs->Set(directory + "cgroup.event_control", "");
  ASSERT_OK_AND_ASSIGN(const CgroupEvents events,
                       group.Watch({.kinds = {Kind::kOom, Kind::kOomKill}}));
  EXPECT_FALSE(Readable(events));
  const std::vector<std::string> registered =
      absl::StrSplit(fs->Get(directory + "cgroup.event_control"), ' ');
  int eventfd = -1;
  ASSERT_TRUE(absl::SimpleAtoi(registered[0], &eventfd));
  const uint64_t one = 1;
  ASSERT_EQ(::write(eventfd, &one, sizeof(one)), 8);
  fs->Set(directory + "memory.oom_control",
          "oom_kill_disable 0\nunder_oom 1\noom_kill 2\n");
  ASSERT_OK_AND_ASSIGN(std::vector<CgroupEvent> read, events.Read());
  EXPECT_THAT(read, ElementsAre(IsEvent(Kind::kOom)));
  fs->Set(directory + "memory.oom_control",
          "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n");
  ASSERT_OK_AND_ASSIGN(read, events.Wait(kLong));
  ASSERT_THAT(read, ElementsAre(IsEvent(Kind::kOomKill)));
  EXPECT_EQ(read[0].count, 3);
  EXPECT_FALSE(Readable(events));
  fs->Set(directory + "memory.oom_control", "under_oom yes\n");
  EXPECT_THAT(events.Read(), StatusIs(absl::StatusCode::kDataLoss,
                                      HasSubstr("under_oom yes")));
}

TEST(CgroupEventsFakeTest, EveryKindHasAName) {
  for (int i = 0; i < kCgroupEventKindCount; ++i) {
    EXPECT_FALSE(CgroupEventName(static_cast<Kind>(i)).empty()) << i;
  }
  EXPECT_EQ(CgroupEventName(Kind::kRemoved), "removed");
}

}  // namespace
}  // namespace caisson
