#include "lib/cgroup/limits.h"

#include <errno.h>

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "lib/base/status_matchers.h"

namespace caisson::cgroup {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const Versions kAllV1 = Versions::All(CgroupVersion::kV1);
const Versions kAllV2 = Versions::All(CgroupVersion::kV2);

std::string Plan(const CgroupLimits& limits, const Versions& versions,
                 const Current& current = {}) {
  const auto writes = PlanLimits(limits, versions, current);
  if (!writes.ok()) return writes.status().ToString();
  return absl::StrJoin(*writes, "; ",
                       [](std::string* out, const LimitWrite& write) {
                         absl::StrAppend(out, write.file, "=", write.value);
                       });
}

TEST(PlanLimitsTest, AllOfThemOnBothVersions) {
  const CgroupLimits limits = {
      .memory_max = 64 << 20,
      .memory_swap_max = 16 << 20,
      .cpu_quota = CpuQuota{absl::Milliseconds(150)},
      .cpu_weight = 50,
      .pids_max = 32,
  };
  EXPECT_EQ(Plan(limits, kAllV2),
            "memory.swap.max=16777216; cpu.weight=50; "
            "cpu.max=150000 100000; pids.max=32; memory.max=67108864");
  EXPECT_EQ(Plan(limits, kAllV1),
            "cpu.shares=512; cpu.cfs_quota_us=150000; pids.max=32; "
            "memory.limit_in_bytes=67108864; "
            "memory.memsw.limit_in_bytes=83886080");
  EXPECT_EQ(ControllersOf(limits).count(), 3);
}

TEST(PlanLimitsTest, NothingAskedNothingWritten) {
  EXPECT_EQ(Plan({}, kAllV1), "");
  EXPECT_EQ(Plan({}, kAllV2), "");
  EXPECT_TRUE(ControllersOf({}).none());
}

TEST(PlanLimitsTest, Unlimited) {
  const CgroupLimits limits = {
      .memory_max = CgroupLimits::kUnlimited,
      .memory_swap_max = CgroupLimits::kUnlimited,
      .cpu_quota = CpuQuota{absl::InfiniteDuration()},
      .pids_max = CgroupLimits::kUnlimited,
  };
  EXPECT_EQ(Plan(limits, kAllV2),
            "memory.swap.max=max; cpu.max=max 100000; pids.max=max; "
            "memory.max=max");
  // A limit of memory + swap has to go first.
  EXPECT_EQ(Plan(limits, kAllV1, {.v1_memory = 4096, .v1_memsw = 8192}),
            "cpu.cfs_quota_us=-1; pids.max=max; "
            "memory.memsw.limit_in_bytes=-1; memory.limit_in_bytes=-1");
}

TEST(PlanLimitsTest, WeightsAreWhatTheKernelMakesOfThem) {
  const auto shares = [](uint64_t weight) {
    return Plan({.cpu_weight = weight}, kAllV1);
  };
  EXPECT_EQ(shares(1), "cpu.shares=10");
  EXPECT_EQ(shares(100), "cpu.shares=1024");
  EXPECT_EQ(shares(10000), "cpu.shares=102400");
}

// At no moment may memory.limit_in_bytes exceed memory.memsw.limit_in_bytes.
TEST(PlanLimitsTest, V1MemoryOrder) {
  struct Case {
    Current current;
    CgroupLimits limits;
    const char* want;
  };
  const Case cases[] = {
      {{.v1_memory = 100, .v1_memsw = 150},
       {.memory_max = 120, .memory_swap_max = 0},
       "memory.limit_in_bytes=120; memory.memsw.limit_in_bytes=120"},
      {{.v1_memory = 100, .v1_memsw = 150},
       {.memory_max = 200, .memory_swap_max = 10},
       "memory.memsw.limit_in_bytes=210; memory.limit_in_bytes=200"},
      // The swap limit stays what it was: 50.
      {{.v1_memory = 100, .v1_memsw = 150},
       {.memory_max = 200},
       "memory.memsw.limit_in_bytes=250; memory.limit_in_bytes=200"},
      {{.v1_memory = 100, .v1_memsw = 150},
       {.memory_max = 60},
       "memory.limit_in_bytes=60; memory.memsw.limit_in_bytes=110"},
      {{.v1_memory = 100, .v1_memsw = 150},
       {.memory_swap_max = 10},
       "memory.memsw.limit_in_bytes=110"},
      {{.v1_memory = 100}, {.memory_max = 50}, "memory.limit_in_bytes=50"},
  };
  for (const Case& c : cases) {
    EXPECT_EQ(Plan(c.limits, kAllV1, c.current), c.want);
  }
}

TEST(PlanLimitsTest, V1CannotLimitSwapAlone) {
  EXPECT_THAT(PlanLimits({.memory_swap_max = 0}, kAllV1, {}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("limits.memory_swap_max is 0 without a "
                                 "limits.memory_max")));
  EXPECT_THAT(PlanLimits({.memory_max = CgroupLimits::kUnlimited}, kAllV1,
                         {.v1_memory = 4096, .v1_memsw = 8192}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("limits.memory_swap_max stays 4096")));
}

TEST(PlanLimitsTest, V1SumDoesNotOverflow) {
  const int64_t huge = std::numeric_limits<int64_t>::max();
  EXPECT_EQ(Plan({.memory_max = huge, .memory_swap_max = huge}, kAllV1),
            absl::StrCat("memory.limit_in_bytes=", huge));
}

// quota / period never exceeds the larger of the old and the new ratio.
TEST(PlanLimitsTest, V1QuotaOrder) {
  const Current current = {.quota_us = 50000, .period_us = 100000};
  EXPECT_EQ(
      Plan({.cpu_quota = CpuQuota{absl::Milliseconds(500), absl::Seconds(1)}},
           kAllV1, current),
      "cpu.cfs_period_us=1000000; cpu.cfs_quota_us=500000");
  EXPECT_EQ(Plan({.cpu_quota =
                      CpuQuota{absl::Milliseconds(5), absl::Milliseconds(10)}},
                 kAllV1, current),
            "cpu.cfs_quota_us=5000; cpu.cfs_period_us=10000");
  EXPECT_EQ(Plan({.cpu_quota =
                      CpuQuota{absl::Milliseconds(5), absl::Milliseconds(10)}},
                 kAllV1, {}),
            "cpu.cfs_period_us=10000; cpu.cfs_quota_us=5000");
}

TEST(PlanLimitsTest, MemoryOfEachVersion) {
  EXPECT_EQ(Plan({.memory_high = 1,
                  .memory_low = 2,
                  .memory_min = CgroupLimits::kUnlimited,
                  .memory_zswap_max = 0,
                  .memory_oom_group = true},
                 kAllV2),
            "memory.high=1; memory.low=2; memory.min=max; memory.zswap.max=0; "
            "memory.oom.group=1");
  EXPECT_EQ(Plan({.memory_low = 2,
                  .memory_swappiness = 7,
                  .memory_oom_kill_disable = true},
                 kAllV1),
            "memory.soft_limit_in_bytes=2; memory.swappiness=7; "
            "memory.oom_control=1");
}

TEST(PlanLimitsTest, SharesAreConvertedForV2Only) {
  EXPECT_EQ(Plan({.cpu_shares = 512}, kAllV1), "cpu.shares=512");
  EXPECT_EQ(Plan({.cpu_shares = 1024}, kAllV2), "cpu.weight=100");
}

// An idle group refuses a weight, so it must not be idle when one is written.
TEST(PlanLimitsTest, IdleAndWeight) {
  EXPECT_EQ(Plan({.cpu_weight = 10, .cpu_idle = false}, kAllV2),
            "cpu.idle=0; cpu.weight=10");
  EXPECT_EQ(
      Plan({.cpu_quota = CpuQuota{absl::Milliseconds(1)}, .cpu_idle = true},
           kAllV1),
      "cpu.cfs_quota_us=1000; cpu.idle=1");
}

// At no moment may the burst exceed the quota.
TEST(PlanLimitsTest, BurstOrder) {
  const auto quota = [](int quota_ms, int burst_ms) {
    return CgroupLimits{.cpu_quota = CpuQuota{absl::Milliseconds(quota_ms),
                                              absl::Milliseconds(100),
                                              absl::Milliseconds(burst_ms)}};
  };
  const Current current = {.quota_us = 20000, .burst_us = 20000};
  EXPECT_EQ(Plan(quota(10, 5), kAllV2, current),
            "cpu.max.burst=5000; cpu.max=10000 100000");
  EXPECT_EQ(Plan(quota(50, 30), kAllV2, current),
            "cpu.max=50000 100000; cpu.max.burst=30000");
  EXPECT_EQ(Plan(quota(10, 5), kAllV1, current),
            "cpu.cfs_burst_us=5000; cpu.cfs_quota_us=10000");
  EXPECT_EQ(Plan(quota(50, 30), kAllV1, {}),
            "cpu.cfs_quota_us=50000; cpu.cfs_burst_us=30000");
}

TEST(PlanLimitsTest, Cpuset) {
  const CgroupLimits same = {.cpuset_cpus = "", .cpuset_mems = " "};
  EXPECT_EQ(Plan({.cpuset_cpus = "0-3,7", .cpuset_mems = "1\n"}, kAllV2),
            "cpuset.cpus=0-3,7; cpuset.mems=1");
  EXPECT_EQ(Plan(same, kAllV2), "cpuset.cpus=\n; cpuset.mems=\n");
  EXPECT_EQ(
      Plan(same, kAllV1, {.v1_parent_cpus = "0-1", .v1_parent_mems = "0"}),
      "cpuset.cpus=0-1; cpuset.mems=0");
}

TEST(PlanLimitsTest, Disks) {
  const CgroupLimits limits = {.io_weight = 1050,
                               .io = {{.device = {.major = 8, .minor = 16},
                                       .read_bps = 1 << 20,
                                       .write_iops = CgroupLimits::kUnlimited,
                                       .weight = 50},
                                      {.device = {.major = 259}, .weight = 0}}};
  EXPECT_EQ(Plan(limits, kAllV2),
            "io.bfq.weight=186; io.weight=1050; io.bfq.weight=8:16 50; "
            "io.weight=8:16 50; io.bfq.weight=259:0 default; io.weight=259:0 "
            "default; io.max=8:16 rbps=1048576 wiops=max");
  EXPECT_EQ(Plan(limits, kAllV2, {.has_bfq_weight = false}),
            "io.weight=1050; io.weight=8:16 50; io.weight=259:0 default; "
            "io.max=8:16 rbps=1048576 wiops=max");
  EXPECT_EQ(Plan(limits, kAllV1),
            "blkio.bfq.weight=186; blkio.bfq.weight_device=8:16 50; "
            "blkio.bfq.weight_device=259:0 0; "
            "blkio.throttle.read_bps_device=8:16 1048576; "
            "blkio.throttle.write_iops_device=8:16 0");
  EXPECT_EQ(Plan({.blkio_weight = 500}, kAllV2),
            "io.bfq.weight=500; io.weight=4950");
  EXPECT_EQ(Plan({.blkio_weight = 500}, kAllV1), "blkio.bfq.weight=500");
}

TEST(PlanLimitsTest, HugePages) {
  const CgroupLimits limits = {
      .hugetlb = {
          {.max = 4 << 20},
          {.page_size = 1 << 30, .reserved_max = CgroupLimits::kUnlimited},
          {.page_size = 64 << 10, .max = 0, .reserved_max = 65536}}};
  EXPECT_EQ(Plan(limits, kAllV2),
            "hugetlb.2MB.max=4194304; hugetlb.1GB.rsvd.max=max; "
            "hugetlb.64KB.max=0; hugetlb.64KB.rsvd.max=65536");
  EXPECT_EQ(Plan(limits, kAllV1),
            "hugetlb.2MB.limit_in_bytes=4194304; "
            "hugetlb.1GB.rsvd.limit_in_bytes=-1; "
            "hugetlb.64KB.limit_in_bytes=0; "
            "hugetlb.64KB.rsvd.limit_in_bytes=65536");
}

TEST(PlanLimitsTest, Resources) {
  EXPECT_EQ(
      Plan({.rdma = {{.device = "mlx5_0", .hca_handles = 2},
                     {.device = "mlx5_1",
                      .hca_handles = 0,
                      .hca_objects = CgroupLimits::kUnlimited}},
            .misc = {{.resource = "sev", .max = CgroupLimits::kUnlimited}},
            .dmem = {{.region = "drm/card0/vram0", .max = 4096, .min = 1}}},
           kAllV2),
      "rdma.max=mlx5_0 hca_handle=2; rdma.max=mlx5_1 hca_handle=0 "
      "hca_object=max; misc.max=sev max; dmem.max=drm/card0/vram0 4096; "
      "dmem.min=drm/card0/vram0 1");
  EXPECT_EQ(Plan({.net_class = 0x00100001,
                  .net_priorities = {{.interface = "eth0", .priority = 5}}},
                 kAllV1),
            "net_cls.classid=1048577; net_prio.ifpriomap=eth0 5");
}

TEST(PlanLimitsTest, UnifiedIsWrittenLineByLineAfterTheRest) {
  const CgroupLimits limits = {
      .pids_max = 5,
      .unified = {{"io.max", "8:0 rbps=1\n8:16  wbps=2\n"},
                  {"memory.swap.high", "4096\n"},
                  {"cgroup.max.depth", "2"}}};
  EXPECT_EQ(Plan(limits, kAllV2),
            "pids.max=5; cgroup.max.depth=2; io.max=8:0 rbps=1; io.max=8:16 "
            "wbps=2; memory.swap.high=4096");
  EXPECT_EQ(ControllersOf(limits).count(), 3);
  EXPECT_EQ(FieldThatNeeds(limits, CgroupController::kIo), "limits.unified");
}

TEST(CheckVersionsTest, NamesFieldControllerAndVersion) {
  struct Case {
    CgroupLimits limits;
    const Versions& versions;
    const char* want;
  };
  const Case cases[] = {
      {{.memory_high = 1},
       kAllV1,
       "limits.memory_high exists in cgroup v2 only; the memory controller of "
       "this host is in a v1 hierarchy"},
      {{.memory_min = 1}, kAllV1, "limits.memory_min"},
      {{.memory_zswap_max = 1}, kAllV1, "limits.memory_zswap_max"},
      {{.memory_oom_group = false}, kAllV1, "limits.memory_oom_group"},
      {{.memory_swappiness = 1}, kAllV2, "limits.memory_swappiness"},
      {{.memory_oom_kill_disable = true},
       kAllV2,
       "limits.memory_oom_kill_disable exists in cgroup v1 only"},
      {{.unified = {{"io.max", "x"}}},
       kAllV1,
       "limits.unified[\"io.max\"] exists in cgroup v2 only; the blkio "},
  };
  for (const Case& c : cases) {
    EXPECT_THAT(
        CheckVersions(c.limits, c.versions),
        StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr(c.want)));
  }
  EXPECT_OK(CheckVersions({.memory_low = 1, .cpu_idle = true}, kAllV1));
  EXPECT_OK(CheckVersions({.unified = {{"cgroup.max.depth", "1"}}}, kAllV1));
}

TEST(IdListTest, RangesAndSubsets) {
  ASSERT_OK_AND_ASSIGN(const IdRanges some, ParseIdList("f", "7,0-3\n"));
  EXPECT_THAT(some,
              ::testing::ElementsAre(std::pair(0u, 3u), std::pair(7u, 7u)));
  ASSERT_OK_AND_ASSIGN(const IdRanges none, ParseIdList("f", ""));
  EXPECT_THAT(none, IsEmpty());
  ASSERT_OK_AND_ASSIGN(const IdRanges joined, ParseIdList("f", "0-1,2-7"));
  EXPECT_TRUE(IsSubset(some, joined));
  EXPECT_FALSE(IsSubset(joined, some));
  EXPECT_TRUE(IsSubset(none, some));
  for (const char* bad : {"a", "1-", "-1", "1-2-3", "3-1", "1,,2", "0-99999",
                          "1 2", "0-3:1/2", "99999999999"}) {
    EXPECT_THAT(ParseIdList("cpuset_cpus", bad),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("limits.cpuset_cpus is ")))
        << bad;
  }
}

TEST(WeightTest, FormulasOfTheField) {
  struct Case {
    uint64_t shares, curve, line;
  };
  // The first column of opencontainers/cgroups' own test, the second of the
  // formula in Kubernetes' KEP-2254.
  for (const Case& c :
       {Case{0, 1, 1}, Case{2, 1, 1}, Case{1024, 100, 39},
        Case{262144, 10000, 10000}, Case{300000, 10000, 10000}}) {
    EXPECT_EQ(CgroupWeightOfShares(c.shares), c.curve) << c.shares;
    EXPECT_EQ(CgroupWeightOfSharesLinear(c.shares), c.line) << c.shares;
  }
  uint64_t last = 0;
  for (uint64_t shares = 2; shares <= 262144; ++shares) {
    const uint64_t weight = CgroupWeightOfShares(shares);
    ASSERT_GE(weight, last);
    ASSERT_LE(weight, 10000);
    last = weight;
  }
  EXPECT_EQ(CgroupIoWeightOfBlkio(10), 1);
  EXPECT_EQ(CgroupIoWeightOfBlkio(1000), 10000);
}

// docs.docker.com/engine/containers/resource_constraints, "--memory-swap
// details".
TEST(DockerMemoryTest, AsDocumented) {
  struct Case {
    DockerMemory flags;
    int64_t max, swap, low;
  };
  constexpr int64_t kMiB = 1 << 20;
  const Case cases[] = {
      {{.memory = 300 * kMiB, .memory_swap = 1000 * kMiB},
       300 * kMiB,
       700 * kMiB,
       -2},
      {{.memory = 300 * kMiB}, 300 * kMiB, 300 * kMiB, -2},
      {{.memory = 300 * kMiB, .memory_swap = 300 * kMiB}, 300 * kMiB, 0, -2},
      {{.memory = 300 * kMiB, .memory_swap = -1}, 300 * kMiB, -1, -2},
      {{.memory_reservation = 200 * kMiB}, -2, -2, 200 * kMiB},
      {{.memory = 300 * kMiB, .memory_reservation = 200 * kMiB},
       300 * kMiB,
       300 * kMiB,
       200 * kMiB},
      {{}, -2, -2, -2},
  };
  for (const Case& c : cases) {
    CgroupLimits limits;
    EXPECT_OK(SetDockerMemory(c.flags, limits));
    EXPECT_EQ(limits.memory_max.value_or(-2), c.max);
    EXPECT_EQ(limits.memory_swap_max.value_or(-2), c.swap);
    EXPECT_EQ(limits.memory_low.value_or(-2), c.low);
  }
}

TEST(DockerMemoryTest, RefusesWhatDockerRefuses) {
  constexpr int64_t kMiB = 1 << 20;
  for (const DockerMemory& flags :
       {DockerMemory{.memory = kMiB}, DockerMemory{.memory = -1},
        DockerMemory{.memory_swap = 100 * kMiB},
        DockerMemory{.memory = 100 * kMiB, .memory_swap = 50 * kMiB},
        DockerMemory{.memory = 100 * kMiB, .memory_swap = -2},
        DockerMemory{.memory_reservation = kMiB},
        DockerMemory{.memory = 100 * kMiB, .memory_reservation = 200 * kMiB}}) {
    CgroupLimits limits;
    EXPECT_THAT(SetDockerMemory(flags, limits),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("docker memory: ")));
    EXPECT_TRUE(ControllersOf(limits).none());
  }
}

TEST(ResolveLimitsTest, DisksByPath) {
  EXPECT_THAT(
      ResolveLimits({.io = {{.device = {.path = "/dev/caisson-none"}}}}),
      StatusIs(absl::StatusCode::kNotFound, HasSubstr("/dev/caisson-none")));
  EXPECT_THAT(ResolveLimits({.io = {{.device = {.path = "/dev/null"}}}}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("limits.io[0].device.path is \"/dev/null\"; "
                                 "want a block device")));
}

TEST(ValidateLimitsTest, NamesFieldAndValue) {
  struct Case {
    CgroupLimits limits;
    const char* want;
  };
  const Case cases[] = {
      {{.memory_max = 0}, "limits.memory_max is 0"},
      {{.memory_max = -2}, "limits.memory_max is -2"},
      {{.memory_swap_max = -2}, "limits.memory_swap_max is -2"},
      {{.cpu_quota = CpuQuota{absl::Microseconds(999)}},
       "limits.cpu_quota.quota is 999us"},
      {{.cpu_quota = CpuQuota{-absl::InfiniteDuration()}},
       "limits.cpu_quota.quota is -inf"},
      {{.cpu_quota = CpuQuota{absl::Hours(24 * 365)}},
       "limits.cpu_quota.quota is 8760h"},
      {{.cpu_quota = CpuQuota{absl::Seconds(1), absl::Microseconds(999)}},
       "limits.cpu_quota.period is 999us"},
      {{.cpu_quota = CpuQuota{absl::Seconds(1), absl::Seconds(2)}},
       "limits.cpu_quota.period is 2s"},
      {{.cpu_quota = CpuQuota{absl::Seconds(1), absl::InfiniteDuration()}},
       "limits.cpu_quota.period is inf"},
      {{.cpu_weight = 0}, "limits.cpu_weight is 0; want 1 to 10000"},
      {{.cpu_weight = 10001}, "limits.cpu_weight is 10001"},
      {{.memory_high = -2}, "limits.memory_high is -2"},
      {{.memory_swappiness = 101}, "limits.memory_swappiness is 101"},
      {{.cpu_quota = CpuQuota{absl::Milliseconds(5), absl::Milliseconds(100),
                              absl::Milliseconds(6)}},
       "limits.cpu_quota.burst is 6ms"},
      {{.cpu_shares = 1}, "limits.cpu_shares is 1; want 2 to 262144"},
      {{.cpu_weight = 5, .cpu_shares = 5}, "say the same thing"},
      {{.cpu_weight = 5, .cpu_idle = true}, "an idle group has no weight"},
      {{.cpuset_cpus = "1-"}, "limits.cpuset_cpus is \"1-\""},
      {{.cpuset_mems = "x"}, "limits.cpuset_mems is \"x\""},
      {{.io_weight = 0}, "limits.io_weight is 0"},
      {{.io_weight = ~uint64_t{0}}, "limits.io_weight is 18446744073709551615"},
      {{.blkio_weight = 1001}, "limits.blkio_weight is 1001"},
      {{.io_weight = 5, .blkio_weight = 50}, "say the same thing"},
      {{.io = {{.read_bps = 0}}}, "limits.io[0].read_bps is 0"},
      {{.io = {{}, {.write_iops = int64_t{1} << 32}}},
       "limits.io[1].write_iops is 4294967296"},
      {{.io = {{.weight = 10001}}}, "limits.io[0].weight is 10001"},
      {{.hugetlb = {{.page_size = 3 << 20}}},
       "limits.hugetlb[0].page_size is 3145728"},
      {{.hugetlb = {{.max = -2}}}, "limits.hugetlb[0].max is -2"},
      {{.rdma = {{.device = "a b"}}}, "limits.rdma[0].device is \"a b\""},
      {{.rdma = {{.device = "a", .hca_handles = -2}}}, "limits.rdma[0].hca_"},
      {{.misc = {{.resource = ""}}}, "limits.misc[0].resource is \"\""},
      {{.misc = {{.resource = "r", .max = -2}}}, "limits.misc[0].max is -2"},
      {{.dmem = {{.region = "a\nb"}}}, "limits.dmem[0].region is"},
      {{.net_priorities = {{.interface = "a/b"}}},
       "limits.net_priorities[0].interface is \"a/b\""},
      {{.unified = {{"../memory.max", "1"}}}, "unified[\"../memory.max\"]"},
      {{.unified = {{"memory..max", "1"}}}, "want the name of a control file"},
      {{.unified = {{"memory", "1"}}}, "\"memory\" is no controller"},
      {{.unified = {{"blkio.weight", "1"}}}, "\"blkio\" is no controller"},
      {{.unified = {{"cgroup.procs", "1"}}}, "acts on the group"},
      {{.unified = {{"memory.pressure", "some 1 2"}}}, "acts on the group"},
      {{.unified = {{"memory.high", " "}}}, "want text"},
      {{.pids_max = -2}, "limits.pids_max is -2"},
      {{.pids_max = 4194305}, "limits.pids_max is 4194305"},
  };
  for (const Case& c : cases) {
    EXPECT_THAT(
        ValidateLimits(c.limits),
        StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(c.want)));
  }
  EXPECT_OK(ValidateLimits({.memory_max = 1,
                            .memory_swap_max = 0,
                            .cpu_quota = CpuQuota{absl::Milliseconds(1)},
                            .cpu_weight = 1,
                            .pids_max = 0}));
}

TEST(ParseV1BytesTest, HugeMeansUnlimited) {
  ASSERT_OK_AND_ASSIGN(int64_t bytes, ParseV1Bytes("4096\n"));
  EXPECT_EQ(bytes, 4096);
  ASSERT_OK_AND_ASSIGN(bytes, ParseV1Bytes("9223372036854771712\n"));
  EXPECT_EQ(bytes, CgroupLimits::kUnlimited);
  EXPECT_FALSE(ParseV1Bytes("max").ok());
}

TEST(LimitHintTest, ExplainsWhatErrnoDoesNot) {
  EXPECT_THAT(std::string(LimitHint(kMemswLimitV1, ENOENT)),
              HasSubstr("swapaccount=1"));
  EXPECT_THAT(std::string(LimitHint(kMemoryLimitV1, EBUSY)),
              HasSubstr("in use"));
  EXPECT_THAT(std::string(LimitHint(kPidsMax, EPERM)), IsEmpty());
}

}  // namespace
}  // namespace caisson::cgroup
