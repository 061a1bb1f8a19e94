#include "lib/cgroup/limits.h"

#include <errno.h>

#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "lib/base/status_matchers.h"

namespace caisson::cgroup {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr Versions kAllV1 = {CgroupVersion::kV1, CgroupVersion::kV1};
constexpr Versions kAllV2 = {CgroupVersion::kV2, CgroupVersion::kV2};

std::string Plan(const CgroupLimits& limits, const Versions& versions,
                 const CurrentV1& current = {}) {
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
            "memory.max=67108864; memory.swap.max=16777216; cpu.weight=50; "
            "cpu.max=150000 100000; pids.max=32");
  EXPECT_EQ(Plan(limits, kAllV1),
            "memory.limit_in_bytes=67108864; "
            "memory.memsw.limit_in_bytes=83886080; cpu.shares=512; "
            "cpu.cfs_quota_us=150000; pids.max=32");
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
            "memory.max=max; memory.swap.max=max; cpu.max=max 100000; "
            "pids.max=max");
  // A limit of memory + swap has to go first.
  EXPECT_EQ(Plan(limits, kAllV1, {.memory = 4096, .memsw = 8192}),
            "memory.memsw.limit_in_bytes=-1; memory.limit_in_bytes=-1; "
            "cpu.cfs_quota_us=-1; pids.max=max");
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
    CurrentV1 current;
    CgroupLimits limits;
    const char* want;
  };
  const Case cases[] = {
      {{.memory = 100, .memsw = 150},
       {.memory_max = 120, .memory_swap_max = 0},
       "memory.limit_in_bytes=120; memory.memsw.limit_in_bytes=120"},
      {{.memory = 100, .memsw = 150},
       {.memory_max = 200, .memory_swap_max = 10},
       "memory.memsw.limit_in_bytes=210; memory.limit_in_bytes=200"},
      // The swap limit stays what it was: 50.
      {{.memory = 100, .memsw = 150},
       {.memory_max = 200},
       "memory.memsw.limit_in_bytes=250; memory.limit_in_bytes=200"},
      {{.memory = 100, .memsw = 150},
       {.memory_max = 60},
       "memory.limit_in_bytes=60; memory.memsw.limit_in_bytes=110"},
      {{.memory = 100, .memsw = 150},
       {.memory_swap_max = 10},
       "memory.memsw.limit_in_bytes=110"},
      {{.memory = 100}, {.memory_max = 50}, "memory.limit_in_bytes=50"},
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
                         {.memory = 4096, .memsw = 8192}),
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
  const CurrentV1 current = {.quota_us = 50000, .period_us = 100000};
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
