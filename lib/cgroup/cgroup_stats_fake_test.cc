// Snapshots of layouts and kernels that this machine does not have, on plain
// files.
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "caisson/cgroup.h"
#include "gmock/gmock.h"
#include "lib/base/status_matchers.h"
#include "lib/cgroup/fake_cgroupfs.h"
#include "lib/cgroup/owner.h"

namespace caisson {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Optional;
using ::testing::Pair;
using Kind = cgroup::FakeCgroupfs::Kind;

struct Host {
  explicit Host(Kind kind) : fs(std::make_shared<cgroup::FakeCgroupfs>(kind)) {
    auto owner = cgroup::Owner::Open({.path = "/ours"}, fs);
    EXPECT_OK(owner);
    parent = std::make_unique<CgroupParent>(*std::move(owner));
  }
  // A group with cpu, memory and pids.
  absl::StatusOr<Cgroup> Create() const {
    return parent->Create(
        {.name = "job",
         .controllers = {CgroupController::kCpu, CgroupController::kMemory,
                         CgroupController::kPids}});
  }
  std::string Path(const std::string& mount, const std::string& file) const {
    return absl::StrCat(mount, parent->path(), "/job/", file);
  }
  void Set(const std::string& mount, const std::string& file,
           const std::string& text) const {
    fs->Set(Path(mount, file), text);
  }

  std::shared_ptr<cgroup::FakeCgroupfs> fs;
  std::unique_ptr<CgroupParent> parent;
};

absl::StatusOr<CgroupStats> ReadOnce(const Cgroup& group) {
  auto reader = group.OpenStats();
  if (!reader.ok()) return reader.status();
  return reader->Read();
}

TEST(CgroupStatsFakeTest, V2) {
  Host host(Kind::kV2);
  ASSERT_OK_AND_ASSIGN(const Cgroup group, host.Create());
  const auto set = [&](const char* file, const std::string& text) {
    host.Set("unified", file, text);
  };
  set("cgroup.events", "populated 1\nfrozen 0\n");
  set("cgroup.stat", "nr_descendants 3\nnr_dying_descendants 0\n");
  set("cpu.stat", "usage_usec 1000\n");
  set("cpu.stat.local", "throttled_usec 20\n");
  set("irq.pressure", "full avg10=0.00 avg60=0.00 avg300=0.00 total=4\n");
  set("memory.current", "8192\n");
  set("memory.max", "16384\n");
  set("memory.peak", "12288\n");
  set("memory.swap.current", "4096\n");
  set("memory.swap.max", "max\n");
  set("memory.swap.events", "high 0\nmax 1\nfail 2\n");
  set("memory.stat", "anon 10\ninactive_file 4096\n");
  set("memory.numa_stat", "anon N0=10\n");
  set("memory.events", "oom_kill 4\n");
  set("memory.events.local", "oom_kill 3\n");
  set("pids.current", "5\n");
  set("pids.max", "max\n");
  set("pids.events", "max 9\n");
  set("hugetlb.2MB.current", "2097152\n");
  set("hugetlb.2MB.max", "max\n");
  set("hugetlb.2MB.events", "max 1\n");
  set("hugetlb.2MB.rsvd.current", "0\n");
  set("hugetlb.1GB.current", "0\n");
  set("misc.current", "sev 1\n");
  set("rdma.current", "mlx4_0 hca_handle=2 hca_object=3\n");
  ASSERT_OK_AND_ASSIGN(const CgroupStats stats, ReadOnce(group));
  EXPECT_THAT(stats.populated, Optional(true));
  EXPECT_THAT(stats.frozen, Optional(false));
  EXPECT_THAT(stats.descendants, Optional(3));
  EXPECT_THAT(stats.cpu.usage, Optional(absl::Milliseconds(1)));
  EXPECT_THAT(stats.cpu.throttled_local, Optional(absl::Microseconds(20)));
  ASSERT_TRUE(stats.cpu.irq_pressure.has_value());
  EXPECT_FALSE(stats.cpu.irq_pressure->some.has_value());
  EXPECT_FALSE(stats.cpu.pressure.has_value());
  EXPECT_THAT(stats.memory.limit, Optional(16384));
  EXPECT_THAT(stats.memory.peak, Optional(12288));
  EXPECT_THAT(stats.memory.swap, Optional(4096));
  EXPECT_THAT(stats.memory.swap_limit, Optional(CgroupLimits::kUnlimited));
  EXPECT_THAT(stats.memory.swap_fail_events, Optional(2));
  EXPECT_THAT(stats.memory.memory_and_swap, std::nullopt);
  EXPECT_EQ(stats.memory.nodes.size(), 1);
  EXPECT_THAT(stats.memory.events.oom_kill, Optional(4));
  EXPECT_THAT(stats.memory.local_events.oom_kill, Optional(3));
  EXPECT_THAT(stats.memory.under_oom, std::nullopt);
  EXPECT_THAT(MemoryWithoutInactiveFile(stats.memory), Optional(4096));
  EXPECT_THAT(stats.pids.current, Optional(5));
  EXPECT_THAT(stats.pids.peak, std::nullopt);
  EXPECT_THAT(stats.pids.max_events, Optional(9));
  ASSERT_EQ(stats.hugetlb.size(), 2);
  EXPECT_EQ(stats.hugetlb[1].page_size, "2MB");
  EXPECT_THAT(stats.hugetlb[1].usage, Optional(2097152));
  EXPECT_THAT(stats.hugetlb[1].reserved, Optional(0));
  EXPECT_THAT(stats.hugetlb[0].max_events, std::nullopt);
  ASSERT_EQ(stats.misc.size(), 1);
  ASSERT_EQ(stats.rdma.size(), 1);
  EXPECT_GT(stats.taken_at, absl::ZeroDuration());
}

TEST(CgroupStatsFakeTest, V1) {
  Host host(Kind::kV1);
  ASSERT_OK_AND_ASSIGN(const Cgroup group, host.Create());
  host.Set("cpu", "cpuacct.usage", "2000000\n");
  host.Set("cpu", "cpuacct.stat", "user 1\nsystem 2\n");
  host.Set("cpu", "cpu.stat", "nr_throttled 1\nthrottled_time 5000\n");
  host.Set("memory", "memory.usage_in_bytes", "8192\n");
  host.Set("memory", "memory.memsw.usage_in_bytes", "9000\n");
  host.Set("memory", "memory.kmem.usage_in_bytes", "100\n");
  host.Set("memory", "memory.failcnt", "7\n");
  host.Set("memory", "memory.stat", "total_rss 5\ntotal_swap 6\n");
  host.Set("pids", "pids.current", "3\n");
  ASSERT_OK_AND_ASSIGN(const CgroupStats stats, ReadOnce(group));
  EXPECT_THAT(stats.cpu.usage, Optional(absl::Milliseconds(2)));
  EXPECT_THAT(stats.cpu.system, Optional(absl::Milliseconds(20)));
  EXPECT_THAT(stats.cpu.throttled, Optional(absl::Microseconds(5)));
  EXPECT_THAT(stats.memory.usage, Optional(8192));
  EXPECT_THAT(stats.memory.limit, Optional(CgroupLimits::kUnlimited));
  EXPECT_THAT(stats.memory.memory_and_swap, Optional(9000));
  EXPECT_THAT(stats.memory.memory_and_swap_limit,
              Optional(CgroupLimits::kUnlimited));
  EXPECT_THAT(stats.memory.use.kernel, Optional(100));
  EXPECT_THAT(stats.memory.use.anon, Optional(5));
  EXPECT_THAT(stats.memory.swap, Optional(6));
  EXPECT_THAT(stats.memory.under_oom, Optional(false));
  EXPECT_THAT(stats.memory.events.max, Optional(7));
  EXPECT_THAT(stats.memory.events.oom_kill, Optional(2));
  EXPECT_THAT(stats.memory.events.oom, std::nullopt);
  EXPECT_THAT(stats.pids.current, Optional(3));
  EXPECT_THAT(stats.populated, std::nullopt);
  EXPECT_THAT(stats.hugetlb, IsEmpty());
}

// v1 counts each group's events alone; the snapshot adds them up.
TEST(CgroupStatsFakeTest, V1EventsOfDescendants) {
  Host host(Kind::kV1);
  ASSERT_OK_AND_ASSIGN(const Cgroup group, host.Create());
  ASSERT_OK_AND_ASSIGN(const CgroupStatsReader reader, group.OpenStats());
  ASSERT_OK_AND_ASSIGN(
      UniqueFd memory,
      host.fs->OpenMount(
          {.id = 2, .mount_point = host.fs->root() + "/memory"}));
  const std::string group_path =
      absl::StrCat(host.parent->path().substr(1), "/job");
  host.Set("memory", "memory.failcnt", "1\n");
  ASSERT_EQ(host.fs->MakeDir(memory.borrow(), group_path + "/inner", 0755), 0);
  host.Set("memory", "inner/memory.failcnt", "10\n");
  host.Set("memory", "inner/memory.oom_control", "oom_kill 5\n");
  ASSERT_OK_AND_ASSIGN(const CgroupStats stats, reader.Read());
  EXPECT_THAT(stats.memory.local_events.oom_kill, Optional(2));
  EXPECT_THAT(stats.memory.events.oom_kill, Optional(7));
  EXPECT_THAT(stats.memory.local_events.max, std::nullopt);  // came too late
  EXPECT_THAT(stats.memory.events.max, Optional(11));
  host.fs->Remove(host.Path("memory", "inner"));
}

// Both know the processor time; v2 is the more precise.
TEST(CgroupStatsFakeTest, HybridPrefersV2) {
  Host host(Kind::kHybrid);
  ASSERT_OK_AND_ASSIGN(const Cgroup group, host.Create());
  host.Set("unified", "cpu.stat", "usage_usec 3\nuser_usec 2\n");
  host.Set("unified", "cgroup.events", "populated 1\nfrozen 0\n");
  host.Set("cpu", "cpu.stat", "nr_periods 8\n");
  host.Set("cpu", "cpuacct.usage", "999999\n");
  host.Set("cpu", "cpuacct.stat", "user 100\nsystem 100\n");
  host.Set("unified", "memory.pressure",
           "some avg10=2.00 avg60=0.00 avg300=0.00 total=1\n");
  ASSERT_OK_AND_ASSIGN(const CgroupStats stats, ReadOnce(group));
  EXPECT_THAT(stats.cpu.usage, Optional(absl::Microseconds(3)));
  EXPECT_THAT(stats.cpu.user, Optional(absl::Microseconds(2)));
  EXPECT_THAT(stats.cpu.periods, Optional(8));
  EXPECT_THAT(stats.populated, Optional(true));
  EXPECT_TRUE(stats.memory.pressure.has_value());
}

TEST(CgroupStatsFakeTest, WithoutControllersNearlyEverythingIsAbsent) {
  Host host(Kind::kHybrid);
  ASSERT_OK_AND_ASSIGN(const Cgroup group,
                       host.parent->Create({.name = "job"}));
  ASSERT_OK_AND_ASSIGN(const CgroupStats stats, ReadOnce(group));
  EXPECT_THAT(stats.memory.usage, std::nullopt);
  EXPECT_THAT(stats.memory.events.oom_kill, std::nullopt);
  EXPECT_THAT(stats.pids.current, std::nullopt);
  EXPECT_THAT(stats.cpu.usage, std::nullopt);
  EXPECT_THAT(stats.io.devices, IsEmpty());
  EXPECT_THAT(stats.populated, Optional(false));
}

// Text that no kernel prints is an error with the file and the line in it.
TEST(CgroupStatsFakeTest, OddText) {
  Host host(Kind::kV2);
  ASSERT_OK_AND_ASSIGN(const Cgroup group, host.Create());
  host.Set("unified", "memory.stat", "anon 1\nfile \x01\n");
  EXPECT_THAT(ReadOnce(group),
              StatusIs(absl::StatusCode::kDataLoss,
                       AllOf(HasSubstr("/job/memory.stat"),
                             HasSubstr("cannot read \"file \\x01\""))));
  host.Set("unified", "memory.stat", "");
  EXPECT_OK(ReadOnce(group));
}

// Longer than the buffer: 200 nodes.
TEST(CgroupStatsFakeTest, LongFiles) {
  Host host(Kind::kV2);
  ASSERT_OK_AND_ASSIGN(const Cgroup group, host.Create());
  std::string text = "anon";
  for (int i = 0; i < 20000; ++i) absl::StrAppend(&text, " N", i % 200, "=", i);
  host.Set("unified", "memory.numa_stat", text + "\n");
  host.Set("unified", "memory.current", "1\n");
  ASSERT_OK_AND_ASSIGN(const CgroupStats stats, ReadOnce(group));
  ASSERT_EQ(stats.memory.nodes.size(), 200);
  EXPECT_THAT(stats.memory.nodes[199].use.anon, Optional(19999));
  EXPECT_THAT(stats.memory.usage, Optional(1));
}

TEST(CgroupStatsFakeTest, DestroyedGroup) {
  Host host(Kind::kV2);
  ASSERT_OK_AND_ASSIGN(Cgroup group, host.Create());
  ASSERT_OK(group.Destroy());
  EXPECT_THAT(group.OpenStats(), StatusIs(absl::StatusCode::kFailedPrecondition,
                                          HasSubstr("\"job\" was destroyed")));
}

TEST(CgroupStatsFakeTest, Controllers) {
  EXPECT_THAT(CgroupStatsControllers(Host(Kind::kV2).parent->layout()),
              ElementsAre(CgroupController::kCpu, CgroupController::kMemory,
                          CgroupController::kPids));
}

}  // namespace
}  // namespace caisson
