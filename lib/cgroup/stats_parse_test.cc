// The kernel's texts, as several kernels print them, and texts that none does.
#include "lib/cgroup/stats_parse.h"

#include <unistd.h>

#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "caisson/cgroup.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/base/status_matchers.h"
#include "lib/cgroup/stats_text.h"

namespace caisson::cgroup {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Optional;
using ::testing::Pair;

constexpr std::nullopt_t kAbsent = std::nullopt;

TEST(StatsParseTest, Counts) {
  const auto parse = [](absl::string_view text) {
    return ParseCount(text).value_or(-7);
  };
  EXPECT_EQ(parse("0"), 0);
  EXPECT_EQ(parse("12\n"), 12);
  EXPECT_EQ(parse("max\n"), CgroupLimits::kUnlimited);
  EXPECT_EQ(parse("18446744073709551615"), std::numeric_limits<int64_t>::max());
  EXPECT_EQ(parse("99999999999999999999999"),
            std::numeric_limits<int64_t>::max());
  for (const char* bad : {"", "\n", "-1", "1 2", "0x10", "maximum", "1.5"}) {
    EXPECT_THAT(ParseCount(bad),
                StatusIs(absl::StatusCode::kDataLoss, HasSubstr("cannot read")))
        << bad;
  }
}

TEST(StatsParseTest, LimitOfV1) {
  std::optional<int64_t> limit;
  ASSERT_OK(ParseLimitV1("9223372036854771712\n", limit));
  EXPECT_THAT(limit, Optional(CgroupLimits::kUnlimited));
  ASSERT_OK(ParseLimitV1("4096\n", limit));
  EXPECT_THAT(limit, Optional(4096));
  EXPECT_THAT(ParseLimitV1("much\n", limit),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("much")));
}

TEST(StatsParseTest, CpuOfV2) {
  CgroupCpuStats cpu;
  ASSERT_OK(ParseCpuStatV2(
      "usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\n"
      "nice_usec 3\ncore_sched.force_idle_usec 4\nnr_periods 10\n"
      "nr_throttled 5\nthrottled_usec 70\nnr_bursts 2\nburst_usec 9\n"
      "something_new 1 2 3\n",
      cpu));
  EXPECT_THAT(cpu.usage, Optional(absl::Milliseconds(2500)));
  EXPECT_THAT(cpu.user, Optional(absl::Seconds(2)));
  EXPECT_THAT(cpu.system, Optional(absl::Milliseconds(500)));
  EXPECT_THAT(cpu.nice, Optional(absl::Microseconds(3)));
  EXPECT_THAT(cpu.core_sched_force_idle, Optional(absl::Microseconds(4)));
  EXPECT_THAT(cpu.periods, Optional(10));
  EXPECT_THAT(cpu.throttled_periods, Optional(5));
  EXPECT_THAT(cpu.throttled, Optional(absl::Microseconds(70)));
  EXPECT_THAT(cpu.bursts, Optional(2));
  EXPECT_THAT(cpu.burst, Optional(absl::Microseconds(9)));
}

// Without the controller and before 5.16, what is not told stays absent.
TEST(StatsParseTest, CpuOfV2WithoutController) {
  CgroupCpuStats cpu;
  ASSERT_OK(ParseCpuStatV2("usage_usec 0\nuser_usec 0\nsystem_usec 0\n", cpu));
  EXPECT_THAT(cpu.usage, Optional(absl::ZeroDuration()));
  EXPECT_EQ(cpu.periods, kAbsent);
  EXPECT_EQ(cpu.throttled, kAbsent);
  EXPECT_EQ(cpu.burst, kAbsent);
}

// The same times as of v2 in the units of v1.
TEST(StatsParseTest, CpuOfV1) {
  CgroupCpuStats cpu;
  ASSERT_OK(ParseCpuStatV1(
      "nr_periods 10\nnr_throttled 5\nthrottled_time 70000\nnr_bursts 2\n"
      "burst_time 9000\nwait_sum 11\n",
      cpu));
  EXPECT_THAT(cpu.throttled, Optional(absl::Microseconds(70)));
  EXPECT_THAT(cpu.burst, Optional(absl::Microseconds(9)));
  EXPECT_THAT(cpu.waited, Optional(absl::Nanoseconds(11)));
  ASSERT_OK(ParseCpuacctStat("user 200\nsystem 50\n", cpu));
  EXPECT_THAT(cpu.user, Optional(absl::Seconds(2)));
  EXPECT_THAT(cpu.system, Optional(absl::Milliseconds(500)));
  ASSERT_OK(ParseCpuacctPerCpu("1000 0 3000 \n", cpu));
  EXPECT_THAT(cpu.per_cpu,
              ElementsAre(absl::Microseconds(1), absl::ZeroDuration(),
                          absl::Microseconds(3)));
}

// memory.stat as Linux 6.1 prints it, shortened.
TEST(StatsParseTest, MemoryOfV2) {
  CgroupMemoryStats memory;
  ASSERT_OK(ParseMemoryStatV2(
      "anon 1\nfile 2\nkernel 3\nkernel_stack 4\npagetables 5\n"
      "sec_pagetables 6\npercpu 7\nsock 8\nvmalloc 9\nshmem 10\nzswap 11\n"
      "zswapped 12\nfile_mapped 13\nfile_dirty 14\nfile_writeback 15\n"
      "swapcached 16\nanon_thp 17\nfile_thp 18\nshmem_thp 19\n"
      "inactive_anon 20\nactive_anon 21\ninactive_file 22\nactive_file 23\n"
      "unevictable 24\nslab_reclaimable 25\nslab_unreclaimable 26\nslab 27\n"
      "workingset_refault_anon 28\nworkingset_refault_file 29\n"
      "workingset_nodereclaim 30\npgscan 31\npgsteal 32\npgscan_kswapd 33\n"
      "pgfault 34\npgmajfault 35\nthp_fault_alloc 36\nhugetlb 37\n",
      memory));
  const CgroupMemoryUse& use = memory.use;
  int64_t want = 1;
  for (const auto& value : {use.anon,
                            use.file,
                            use.kernel,
                            use.kernel_stack,
                            use.page_tables,
                            use.secondary_page_tables,
                            use.per_cpu,
                            use.sockets,
                            use.vmalloc,
                            use.shmem,
                            use.zswap,
                            use.zswapped,
                            use.file_mapped,
                            use.file_dirty,
                            use.file_writeback,
                            use.swap_cached,
                            use.anon_thp,
                            use.file_thp,
                            use.shmem_thp,
                            use.inactive_anon,
                            use.active_anon,
                            use.inactive_file,
                            use.active_file,
                            use.unevictable,
                            use.slab_reclaimable,
                            use.slab_unreclaimable,
                            use.slab}) {
    EXPECT_THAT(value, Optional(want++));
  }
  EXPECT_THAT(memory.refaults_anon, Optional(28));
  EXPECT_THAT(memory.refaults_file, Optional(29));
  EXPECT_THAT(memory.pages_scanned, Optional(31));
  EXPECT_THAT(memory.pages_reclaimed, Optional(32));
  EXPECT_THAT(memory.page_faults, Optional(34));
  EXPECT_THAT(memory.major_page_faults, Optional(35));
  EXPECT_THAT(use.hugetlb, Optional(37));
  EXPECT_THAT(memory.other, ElementsAre(Pair("workingset_nodereclaim", 30),
                                        Pair("pgscan_kswapd", 33),
                                        Pair("thp_fault_alloc", 36)));
}

// Linux 5.15 has fewer lines, and the order does not matter.
TEST(StatsParseTest, MemoryOfAnOlderKernel) {
  CgroupMemoryStats memory;
  ASSERT_OK(ParseMemoryStatV2("slab 1\nfile 2\npgfault 0\nanon 3\n", memory));
  EXPECT_THAT(memory.use.slab, Optional(1));
  EXPECT_THAT(memory.use.file, Optional(2));
  EXPECT_THAT(memory.use.anon, Optional(3));
  EXPECT_THAT(memory.page_faults, Optional(0));
  EXPECT_EQ(memory.use.kernel, kAbsent);
  EXPECT_EQ(memory.use.zswap, kAbsent);
}

TEST(StatsParseTest, MemoryOfV1CountsDescendants) {
  CgroupMemoryStats memory;
  ASSERT_OK(ParseMemoryStatV1(
      "cache 900\nrss 900\ninactive_file 900\npgfault 900\n"
      "hierarchical_memory_limit 900\ntotal_cache 1\ntotal_rss 2\n"
      "total_rss_huge 3\ntotal_shmem 4\ntotal_mapped_file 5\ntotal_dirty 6\n"
      "total_writeback 7\ntotal_swap 8\ntotal_pgpgin 9\ntotal_pgfault 10\n"
      "total_pgmajfault 11\ntotal_inactive_file 12\ntotal_unevictable 13\n",
      memory));
  EXPECT_THAT(memory.use.file, Optional(1));
  EXPECT_THAT(memory.use.anon, Optional(2));
  EXPECT_THAT(memory.use.anon_thp, Optional(3));
  EXPECT_THAT(memory.use.shmem, Optional(4));
  EXPECT_THAT(memory.use.file_mapped, Optional(5));
  EXPECT_THAT(memory.use.file_dirty, Optional(6));
  EXPECT_THAT(memory.use.file_writeback, Optional(7));
  EXPECT_THAT(memory.swap, Optional(8));
  EXPECT_THAT(memory.page_faults, Optional(10));
  EXPECT_THAT(memory.major_page_faults, Optional(11));
  EXPECT_THAT(memory.use.inactive_file, Optional(12));
  EXPECT_THAT(memory.use.unevictable, Optional(13));
  EXPECT_THAT(memory.other, ElementsAre(Pair("pgpgin", 9)));
}

TEST(StatsParseTest, KnownKeysMustHaveNumbers) {
  CgroupMemoryStats memory;
  EXPECT_THAT(ParseMemoryStatV2("anon 1\nfile lots\n", memory),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("file lots")));
  EXPECT_THAT(ParseMemoryStatV2("anon\n", memory),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("anon")));
  // Unknown ones may have anything.
  EXPECT_OK(ParseMemoryStatV2("\n\nnew a=b\n \n=\nx\n", memory));
  EXPECT_THAT(memory.other, IsEmpty());
  CgroupCpuStats cpu;
  EXPECT_THAT(ParseCpuStatV2("nr_periods -3\n", cpu),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("nr_periods")));
  const std::string hostile = "anon \x1b[2J" + std::string(100000, 'x');
  const absl::Status status = ParseMemoryStatV2(hostile, memory);
  EXPECT_LT(status.message().size(), 1000);
  EXPECT_THAT(status.message(), ::testing::Not(HasSubstr("\x1b")));
}

TEST(StatsParseTest, NumaOfV2) {
  CgroupMemoryStats memory;
  ASSERT_OK(ParseNumaStatV2(
      "anon N0=10 N1=20\nfile N0=30 N1=40\npagetables N0=5 N1=6\n"
      "workingset_refault_anon N0=7 N1=8\n",
      memory));
  ASSERT_EQ(memory.nodes.size(), 2);
  EXPECT_EQ(memory.nodes[1].node, 1);
  EXPECT_THAT(memory.nodes[1].use.anon, Optional(20));
  EXPECT_THAT(memory.nodes[0].use.file, Optional(30));
  EXPECT_THAT(memory.nodes[1].use.page_tables, Optional(6));
  EXPECT_EQ(memory.nodes[0].total, kAbsent);
  EXPECT_THAT(ParseNumaStatV2("anon N0=10 X1=20\n", memory),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("X1=20")));
  EXPECT_THAT(ParseNumaStatV2("anon N0\n", memory),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("N0")));
}

TEST(StatsParseTest, NumaOfV1IsInPages) {
  const int64_t page = ::sysconf(_SC_PAGESIZE);
  CgroupMemoryStats memory;
  ASSERT_OK(ParseNumaStatV1(
      "total=9 N0=9\nhierarchical_total=6 N0=1 N3=5\n"
      "hierarchical_file=2 N0=2 N3=0\nhierarchical_anon=3 N0=0 N3=3\n"
      "hierarchical_unevictable=0 N0=0 N3=0\n",
      memory));
  ASSERT_EQ(memory.nodes.size(), 2);
  EXPECT_EQ(memory.nodes[1].node, 3);
  EXPECT_THAT(memory.nodes[1].total, Optional(5 * page));
  EXPECT_THAT(memory.nodes[0].use.file, Optional(2 * page));
  EXPECT_THAT(memory.nodes[1].use.anon, Optional(3 * page));
  EXPECT_THAT(memory.nodes[1].use.unevictable, Optional(0));
  EXPECT_EQ(memory.nodes[1].use.shmem, kAbsent);
}

TEST(StatsParseTest, MemoryEvents) {
  CgroupMemoryEvents events;
  ASSERT_OK(ParseMemoryEvents(
      "low 1\nhigh 2\nmax 3\noom 4\noom_kill 5\noom_group_kill 6\nnew 7\n",
      events));
  EXPECT_THAT(events.low, Optional(1));
  EXPECT_THAT(events.high, Optional(2));
  EXPECT_THAT(events.max, Optional(3));
  EXPECT_THAT(events.oom, Optional(4));
  EXPECT_THAT(events.oom_kill, Optional(5));
  EXPECT_THAT(events.oom_group_kill, Optional(6));
  EXPECT_EQ(events.sock_throttled, kAbsent);
}

TEST(StatsParseTest, Pressure) {
  std::optional<CgroupPressure> pressure;
  ASSERT_OK(
      ParsePressure("some avg10=1.25 avg60=0.50 avg300=0.10 total=1500000\n"
                    "full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
                    pressure));
  ASSERT_TRUE(pressure.has_value());
  ASSERT_TRUE(pressure->some.has_value());
  EXPECT_DOUBLE_EQ(pressure->some->avg10, 1.25);
  EXPECT_DOUBLE_EQ(pressure->some->avg60, 0.5);
  EXPECT_DOUBLE_EQ(pressure->some->avg300, 0.1);
  EXPECT_EQ(pressure->some->total, absl::Milliseconds(1500));
  ASSERT_TRUE(pressure->full.has_value());
  // The CPU before 5.13 has no "full", interrupts have no "some".
  ASSERT_OK(ParsePressure("some avg10=0.00 avg60=0.00 avg300=0.00 total=9\n",
                          pressure));
  EXPECT_EQ(pressure->full, kAbsent);
  EXPECT_THAT(ParsePressure("some avg10=high total=1\n", pressure),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("avg10=high")));
}

TEST(StatsParseTest, IoOfV2) {
  CgroupIoStats io;
  ASSERT_OK(
      ParseIoStat("8:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n"
                  "253:0 rbytes=10 wbytes=20 rios=30 wios=40 dbytes=50 dios=60 "
                  "cost.usage=7 cost.vrate=100.00 depth=max\n",
                  io));
  ASSERT_EQ(io.devices.size(), 2);
  EXPECT_EQ(io.devices[0].major, 8);
  EXPECT_EQ(io.devices[0].minor, 16);
  EXPECT_THAT(io.devices[0].discard_count, Optional(6));
  EXPECT_THAT(io.devices[1].other,
              ElementsAre(Pair("cost.usage", 7),
                          Pair("depth", CgroupLimits::kUnlimited)));
  EXPECT_THAT(io.read_bytes(), Optional(11));
  EXPECT_THAT(io.write_bytes(), Optional(22));
}

// As 5.15 prints disks that have nothing to tell.
TEST(StatsParseTest, IoLinesOfOlderKernels) {
  CgroupIoStats io;
  ASSERT_OK(ParseIoStat(
      "7:7 7:6 7:5 253:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n"
      "8:0 \n",
      io));
  ASSERT_EQ(io.devices.size(), 1);
  EXPECT_EQ(io.devices[0].major, 253);
  EXPECT_THAT(ParseIoStat("rbytes=1\n", io),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("rbytes=1")));
  EXPECT_THAT(ParseIoStat("8:0 rbytes=x\n", io),
              StatusIs(absl::StatusCode::kDataLoss, HasSubstr("rbytes x")));
}

TEST(StatsParseTest, NoIoIsAbsentNotZero) {
  CgroupIoStats io;
  ASSERT_OK(ParseIoStat("", io));
  EXPECT_EQ(io.read_bytes(), kAbsent);
  ASSERT_OK(ParseBlkio("Total 0\n", BlkioUnit::kBytes, io));
  EXPECT_EQ(io.read_bytes(), kAbsent);
}

TEST(StatsParseTest, IoOfV1) {
  CgroupIoStats io;
  ASSERT_OK(
      ParseBlkio("8:0 Read 4096\n8:0 Write 8192\n8:0 Sync 1\n8:0 Async 1\n"
                 "8:0 Discard 7\n8:0 Total 12288\nTotal 12288\n",
                 BlkioUnit::kBytes, io));
  ASSERT_OK(ParseBlkio("8:0 Read 1\n8:0 Write 2\nTotal 3\n",
                       BlkioUnit::kOperations, io));
  // What another file knows is not taken twice.
  ASSERT_OK(
      ParseBlkio("8:0 Read 1\n8:16 Read 5\nTotal 6\n", BlkioUnit::kBytes, io));
  ASSERT_EQ(io.devices.size(), 2);
  EXPECT_THAT(io.devices[0].read_bytes, Optional(4096));
  EXPECT_THAT(io.devices[0].write_bytes, Optional(8192));
  EXPECT_THAT(io.devices[0].discard_bytes, Optional(7));
  EXPECT_THAT(io.devices[0].read_count, Optional(1));
  EXPECT_THAT(io.devices[0].write_count, Optional(2));
  EXPECT_EQ(io.devices[0].discard_count, kAbsent);
  EXPECT_THAT(io.read_bytes(), Optional(4101));
}

TEST(StatsParseTest, Rdma) {
  std::vector<CgroupRdmaStats> rdma;
  ASSERT_OK(
      ParseRdma("mlx4_0 hca_handle=2 hca_object=2000\n"
                "ocrdma1 hca_handle=3 hca_object=1 \n",
                /*limit=*/false, rdma));
  ASSERT_OK(
      ParseRdma("ocrdma1 hca_handle=5 hca_object=max\n", /*limit=*/true, rdma));
  ASSERT_EQ(rdma.size(), 2);
  EXPECT_THAT(rdma[0].hca_objects, Optional(2000));
  EXPECT_EQ(rdma[0].hca_handles_limit, kAbsent);
  EXPECT_THAT(rdma[1].hca_handles, Optional(3));
  EXPECT_THAT(rdma[1].hca_handles_limit, Optional(5));
  EXPECT_THAT(rdma[1].hca_objects_limit, Optional(CgroupLimits::kUnlimited));
}

TEST(StatsParseTest, Misc) {
  std::vector<CgroupMiscStats> misc;
  ASSERT_OK(ParseMisc("sev 3\nsev_es 0\n", &CgroupMiscStats::usage, misc));
  ASSERT_OK(ParseMisc("sev 10\nsev_es max\n", &CgroupMiscStats::limit, misc));
  ASSERT_OK(ParseMiscEvents("sev.max 4\nsev_es.max 0\n", misc));
  ASSERT_EQ(misc.size(), 2);
  EXPECT_EQ(misc[0].resource, "sev");
  EXPECT_THAT(misc[0].usage, Optional(3));
  EXPECT_THAT(misc[0].limit, Optional(10));
  EXPECT_THAT(misc[0].max_events, Optional(4));
  EXPECT_EQ(misc[0].peak, kAbsent);
  EXPECT_THAT(misc[1].limit, Optional(CgroupLimits::kUnlimited));
}

TEST(StatsParseTest, HugetlbNodes) {
  CgroupHugetlbStats hugetlb;
  ASSERT_OK(ParseHugetlbNuma("total=4 N0=4 N2=0\n", hugetlb));
  EXPECT_THAT(hugetlb.nodes, ElementsAre(Pair(0, 4), Pair(2, 0)));
  ASSERT_OK(ParseHugetlbNuma("total=4 N0=4\nhierarchical_total=6 N0=4 N1=2\n",
                             hugetlb));
  EXPECT_THAT(hugetlb.nodes, ElementsAre(Pair(0, 4), Pair(1, 2)));
}

TEST(StatsParseTest, Derived) {
  CgroupMemoryStats memory;
  EXPECT_EQ(MemoryWithoutInactiveFile(memory), kAbsent);
  memory.usage = 100;
  EXPECT_EQ(MemoryWithoutInactiveFile(memory), kAbsent);
  memory.use.inactive_file = 30;
  EXPECT_THAT(MemoryWithoutInactiveFile(memory), Optional(70));
  memory.use.inactive_file = 101;  // the two are not read at one instant
  EXPECT_THAT(MemoryWithoutInactiveFile(memory), Optional(0));

  CgroupStats earlier, later;
  later.taken_at = absl::Seconds(2);
  EXPECT_EQ(CpuPercent(earlier, later), kAbsent);
  earlier.cpu.usage = absl::Seconds(1);
  later.cpu.usage = absl::Seconds(4);
  EXPECT_THAT(CpuPercent(earlier, later), Optional(150.0));
  EXPECT_EQ(CpuPercent(later, later), kAbsent);
}

}  // namespace
}  // namespace caisson::cgroup
