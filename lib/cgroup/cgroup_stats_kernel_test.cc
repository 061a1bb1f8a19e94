// Snapshots of real groups, in whatever layout and kernel this machine has.
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "caisson/cgroup.h"
#include "lib/base/status_matchers.h"
#include "lib/cgroup/kernel_fixture.h"
#include "lib/sys/open.h"

namespace caisson {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::Optional;

constexpr int64_t kMiB = 1 << 20;

class CgroupStatsKernelTest : public CgroupKernelTest {
 protected:
  // A group with everything that has statistics.
  static absl::StatusOr<Cgroup> CreateFull(const CgroupParent& parent,
                                           const CgroupLimits& limits = {}) {
    return parent.Create(
        {.name = "stats",
         .limits = limits,
         .controllers = CgroupStatsControllers(parent.layout())});
  }
};

void TouchMemory(int64_t bytes) {
  char* memory =
      static_cast<char*>(::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  for (int64_t i = 0; i < bytes; i += 4096) memory[i] = 1;
}

void UseCpu(int milliseconds) {
  timespec used;
  do {
    ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
  } while (used.tv_sec * 1000 + used.tv_nsec / 1000000 < milliseconds);
}

TEST_F(CgroupStatsKernelTest, MemoryAndProcesses) {
  CgroupParent parent = Open();
  ASSERT_OK_AND_ASSIGN(
      const Cgroup group,
      CreateFull(parent, {.memory_max = 256 * kMiB, .pids_max = 8}));
  ASSERT_OK_AND_ASSIGN(const CgroupStatsReader reader, group.OpenStats());
  ASSERT_OK_AND_ASSIGN(CgroupStats stats, reader.Read());
  EXPECT_THAT(stats.memory.limit, Optional(256 * kMiB));
  EXPECT_THAT(stats.pids.limit, Optional(8));
  EXPECT_THAT(stats.pids.current, Optional(0));
  EXPECT_THAT(stats.memory.use.anon, Optional(0));
  EXPECT_THAT(stats.memory.local_events.oom_kill, Optional(0));
  Signal ready;
  Child child(group, [&] {
    if (::fork() == 0) return Sleep();
    TouchMemory(48 * kMiB);
    ready.Send();
    return Sleep();
  });
  ready.Await();
  ASSERT_OK_AND_ASSIGN(stats, reader.Read());
  ASSERT_TRUE(stats.memory.usage.has_value());
  EXPECT_GT(*stats.memory.usage, 47 * kMiB);
  EXPECT_LT(*stats.memory.usage, 128 * kMiB);
  ASSERT_TRUE(stats.memory.page_faults.has_value());
  EXPECT_GT(*stats.memory.page_faults, 20);
  ASSERT_TRUE(stats.memory.use.kernel.has_value() ||
              stats.memory.use.kernel_stack.has_value());
  ASSERT_TRUE(MemoryWithoutInactiveFile(stats.memory).has_value());
  EXPECT_THAT(stats.pids.current, Optional(2));
  if (VersionOf(CgroupController::kMemory) == CgroupVersion::kV2) {
    EXPECT_FALSE(stats.memory.under_oom.has_value());
    EXPECT_THAT(stats.populated, Optional(true));
  } else {
    EXPECT_THAT(stats.memory.under_oom, Optional(false));
    ASSERT_TRUE(stats.memory.peak.has_value());
    EXPECT_GE(*stats.memory.peak, *stats.memory.usage);
  }
}

TEST_F(CgroupStatsKernelTest, ProcessorTimeAndThrottling) {
  CgroupParent parent = Open();
  ASSERT_OK_AND_ASSIGN(
      const Cgroup group,
      CreateFull(parent, {.cpu_quota = CpuQuota{absl::Milliseconds(2),
                                                absl::Milliseconds(10)}}));
  ASSERT_OK_AND_ASSIGN(const CgroupStatsReader reader, group.OpenStats());
  ASSERT_OK_AND_ASSIGN(const CgroupStats before, reader.Read());
  EXPECT_THAT(before.cpu.throttled_periods, Optional(0));
  Child child(group, [] {
    UseCpu(60);
    return 0;
  });
  EXPECT_EQ(child.Wait(), 0);
  ASSERT_OK_AND_ASSIGN(const CgroupStats after, reader.Read());
  ASSERT_TRUE(after.cpu.usage.has_value());
  EXPECT_GT(*after.cpu.usage, absl::Milliseconds(55));
  EXPECT_LT(*after.cpu.usage, absl::Seconds(2));
  ASSERT_TRUE(after.cpu.user.has_value() && after.cpu.system.has_value());
  EXPECT_GT(*after.cpu.user + *after.cpu.system, absl::Milliseconds(40));
  ASSERT_TRUE(after.cpu.throttled_periods.has_value());
  EXPECT_GT(*after.cpu.throttled_periods, 0);
  ASSERT_TRUE(after.cpu.throttled.has_value());
  EXPECT_GT(*after.cpu.throttled, absl::ZeroDuration());
  EXPECT_THAT(CpuPercent(before, after),
              Optional(::testing::AllOf(::testing::Gt(0), ::testing::Lt(50))));
}

TEST_F(CgroupStatsKernelTest, OutOfMemoryAndFailedForks) {
  CgroupParent parent = Open();
  ASSERT_OK_AND_ASSIGN(
      const Cgroup group,
      CreateFull(parent, {.memory_max = 16 * kMiB, .pids_max = 1}));
  ASSERT_OK_AND_ASSIGN(const CgroupStatsReader reader, group.OpenStats());
  Child child(group, [] {
    if (::fork() >= 0) return 1;
    TouchMemory(256 * kMiB);
    return 2;
  });
  EXPECT_EQ(WTERMSIG(child.Wait()), SIGKILL);
  ASSERT_OK_AND_ASSIGN(const CgroupStats stats, reader.Read());
  EXPECT_THAT(stats.memory.local_events.oom_kill, Optional(1));
  EXPECT_THAT(stats.memory.events.oom_kill, Optional(1));
  EXPECT_THAT(stats.memory.events.max, Optional(::testing::Gt(0)));
  EXPECT_THAT(stats.pids.max_events, Optional(1));
}

// What a v2 directory tells without controllers; on a host without v2 it is
// absent.
TEST_F(CgroupStatsKernelTest, PressureAndPopulation) {
  CgroupParent parent = Open();
  ASSERT_OK_AND_ASSIGN(const Cgroup group, parent.Create({.name = "bare"}));
  ASSERT_OK_AND_ASSIGN(const CgroupStatsReader reader, group.OpenStats());
  ASSERT_OK_AND_ASSIGN(const CgroupStats stats, reader.Read());
  if (layout().hierarchies[0].version == CgroupVersion::kV1) {
    EXPECT_FALSE(stats.populated.has_value());
    EXPECT_FALSE(stats.memory.pressure.has_value());
    return;
  }
  EXPECT_THAT(stats.populated, Optional(false));
  EXPECT_THAT(stats.frozen, Optional(false));
  EXPECT_THAT(stats.descendants, Optional(0));
  EXPECT_TRUE(stats.cpu.usage.has_value());
  const bool psi = ::access("/proc/pressure/memory", R_OK) == 0;
  EXPECT_EQ(stats.memory.pressure.has_value(), psi);
  EXPECT_EQ(stats.cpu.pressure.has_value(), psi);
  EXPECT_EQ(stats.io.pressure.has_value(), psi);
  if (psi) {
    EXPECT_TRUE(stats.memory.pressure->full.has_value());
  }
}

// The same group seen without its v2 directory, where there is another.
TEST_F(CgroupStatsKernelTest, PureV1) {
  const bool v2 = layout().mode == CgroupLayout::Mode::kV2;
  CgroupParent parent = v2 ? Open() : Open({"cgroup2"});
  ASSERT_OK_AND_ASSIGN(const Cgroup group, CreateFull(parent));
  Child child(group, [] {
    UseCpu(30);
    return 0;
  });
  EXPECT_EQ(child.Wait(), 0);
  ASSERT_OK_AND_ASSIGN(const CgroupStatsReader reader, group.OpenStats());
  ASSERT_OK_AND_ASSIGN(const CgroupStats stats, reader.Read());
  EXPECT_EQ(stats.populated.has_value(), v2);
  if (!v2) {
    EXPECT_FALSE(stats.memory.pressure.has_value());
  }
  EXPECT_THAT(stats.memory.usage, Optional(::testing::Ge(0)));
  if (layout().Find(CgroupController::kCpuacct).usable) {
    EXPECT_THAT(stats.cpu.usage,
                Optional(::testing::Gt(absl::Milliseconds(25))));
    EXPECT_FALSE(stats.cpu.per_cpu.empty());
  }
  EXPECT_THAT(stats.frozen, Optional(false));
}

TEST_F(CgroupStatsKernelTest, NodesAddUp) {
  CgroupParent parent = Open();
  ASSERT_OK_AND_ASSIGN(const Cgroup group, CreateFull(parent));
  Signal ready;
  Child child(group, [&] {
    TouchMemory(16 * kMiB);
    ready.Send();
    return Sleep();
  });
  ready.Await();
  ASSERT_OK_AND_ASSIGN(const CgroupStatsReader reader, group.OpenStats());
  ASSERT_OK_AND_ASSIGN(const CgroupStats stats, reader.Read());
  if (::access("/sys/devices/system/node/node0", F_OK) != 0) {
    EXPECT_TRUE(stats.memory.nodes.empty());
    return;
  }
  int64_t anon = 0;
  for (const CgroupMemoryNode& node : stats.memory.nodes) {
    ASSERT_TRUE(node.use.anon.has_value());
    anon += *node.use.anon;
  }
  EXPECT_GT(anon, 12 * kMiB);  // counted in batches for each CPU
}

TEST_F(CgroupStatsKernelTest, RemovedGroup) {
  CgroupParent parent = Open();
  ASSERT_OK_AND_ASSIGN(Cgroup group, CreateFull(parent));
  ASSERT_OK_AND_ASSIGN(const CgroupStatsReader reader, group.OpenStats());
  ASSERT_OK(reader.Read());
  ASSERT_OK(group.Destroy());
  EXPECT_THAT(reader.Read(), StatusIs(absl::StatusCode::kFailedPrecondition,
                                      HasSubstr("was removed")));
}

}  // namespace
}  // namespace caisson
