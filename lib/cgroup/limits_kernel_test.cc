// Every controller on the real kernel: either its limits read back as they were
// set, or Detect() says why it is missing and Create() repeats that.
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "caisson/cgroup.h"
#include "caisson/error.h"
#include "lib/base/status_matchers.h"
#include "lib/cgroup/kernel_fixture.h"

namespace caisson {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::HasSubstr;

constexpr int64_t kUnlimited = CgroupLimits::kUnlimited;

class LimitsKernelTest : public CgroupKernelTest {
 protected:
  using Files = std::map<std::string, std::string>;

  bool IsV2(CgroupController controller) const {
    return VersionOf(controller) == CgroupVersion::kV2;
  }

  // Makes a group with `limits`, or sees that it is refused because of
  // `controller`.
  std::optional<Cgroup> Make(const CgroupParent& parent,
                             CgroupController controller,
                             const CgroupLimits& limits) {
    auto group = parent.Create({.name = "job", .limits = limits});
    const CgroupControllerInfo& info = layout().Find(controller);
    if (info.usable) {
      EXPECT_OK(group);
      return group.ok() ? std::optional<Cgroup>(*std::move(group))
                        : std::nullopt;
    }
    EXPECT_NE(info.reason, "");
    EXPECT_THAT(
        group.status(),
        StatusIs(absl::StatusCode::kFailedPrecondition,
                 AllOf(HasSubstr(absl::StrCat(
                           " needs the ", CgroupControllerName(controller))),
                       HasSubstr(info.reason))));
    return std::nullopt;
  }

  void Expect(const Cgroup& group, CgroupController controller,
              const Files& want) {
    for (const auto& [file, value] : want) {
      EXPECT_EQ(
          ReadFile(absl::StrCat(DirectoryOf(group, controller), "/", file)),
          value)
          << file;
    }
  }
};

TEST_F(LimitsKernelTest, Memory) {
  CgroupParent parent = Open();
  CgroupLimits limits = {.memory_max = 64 << 20, .memory_low = 16 << 20};
  constexpr CgroupController kMemory = CgroupController::kMemory;
  if (!IsV2(kMemory)) {
    limits.memory_swappiness = 10;
    limits.memory_oom_kill_disable = true;
    auto group = Make(parent, kMemory, limits);
    ASSERT_TRUE(group.has_value());
    Expect(*group, kMemory,
           {{"memory.limit_in_bytes", "67108864"},
            {"memory.soft_limit_in_bytes", "16777216"},
            {"memory.swappiness", "10"}});
    const std::string control =
        DirectoryOf(*group, kMemory) + "/memory.oom_control";
    EXPECT_THAT(ReadFile(control), HasSubstr("oom_kill_disable 1"));
    // What v1 lacks is refused, and nothing else is changed with it.
    EXPECT_THAT(
        group->SetLimits({.memory_max = 32 << 20, .memory_high = 1 << 20}),
        StatusIs(absl::StatusCode::kFailedPrecondition,
                 HasSubstr("limits.memory_high exists in cgroup v2 only")));
    Expect(*group, kMemory, {{"memory.limit_in_bytes", "67108864"}});
    EXPECT_OK(group->SetLimits(
        {.memory_low = kUnlimited, .memory_oom_kill_disable = false}));
    EXPECT_THAT(ReadFile(control), HasSubstr("oom_kill_disable 0"));
    return;
  }
  limits.memory_high = 32 << 20;
  limits.memory_min = 8 << 20;
  limits.memory_oom_group = true;
  auto group = Make(parent, kMemory, limits);
  ASSERT_TRUE(group.has_value());
  Expect(*group, kMemory,
         {{"memory.max", "67108864"},
          {"memory.high", "33554432"},
          {"memory.low", "16777216"},
          {"memory.min", "8388608"},
          {"memory.oom.group", "1"}});
  EXPECT_OK(group->SetLimits({.memory_high = kUnlimited, .memory_min = 0}));
  Expect(*group, kMemory, {{"memory.high", "max"}, {"memory.min", "0"}});
  const absl::Status zswap = group->SetLimits({.memory_zswap_max = 1 << 20});
  if (zswap.ok()) {
    Expect(*group, kMemory, {{"memory.zswap.max", "1048576"}});
  } else {
    EXPECT_THAT(zswap, StatusIs(absl::StatusCode::kNotFound,
                                HasSubstr("CONFIG_ZSWAP")));
  }
  EXPECT_OK(group->SetLimits({.unified = {{"memory.high", "40960"}}}));
  Expect(*group, kMemory, {{"memory.high", "40960"}});
}

TEST_F(LimitsKernelTest, CpuBurstAndIdle) {
  CgroupParent parent = Open();
  constexpr CgroupController kCpu = CgroupController::kCpu;
  const auto quota = [](int quota, int burst) {
    return CpuQuota{absl::Milliseconds(quota), absl::Milliseconds(100),
                    absl::Milliseconds(burst)};
  };
  auto group = Make(parent, kCpu, {.cpu_quota = quota(50, 40)});
  ASSERT_TRUE(group.has_value());
  const bool v2 = IsV2(kCpu);
  const std::string burst = v2 ? "cpu.max.burst" : "cpu.cfs_burst_us";
  Expect(*group, kCpu, {{burst, "40000"}});
  // Down and up again: at no moment more burst than quota.
  EXPECT_OK(group->SetLimits({.cpu_quota = quota(20, 10)}));
  EXPECT_OK(group->SetLimits({.cpu_quota = quota(70, 60)}));
  Expect(*group, kCpu, {{burst, "60000"}});
  EXPECT_THAT(group->SetLimits({.cpu_quota = CpuQuota{absl::Milliseconds(10)}}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("burst")));

  const std::string weight = v2 ? "cpu.weight" : "cpu.shares";
  EXPECT_OK(group->SetLimits({.cpu_shares = 512}));
  Expect(*group, kCpu,
         {{weight, v2 ? absl::StrCat(CgroupWeightOfShares(512)) : "512"}});
  EXPECT_OK(group->SetLimits({.cpu_idle = true}));
  Expect(*group, kCpu, {{"cpu.idle", "1"}});
  EXPECT_THAT(group->SetLimits({.cpu_weight = 50}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("idle")));
  EXPECT_OK(group->SetLimits({.cpu_weight = 200, .cpu_idle = false}));
  Expect(*group, kCpu, {{"cpu.idle", "0"}, {weight, v2 ? "200" : "2048"}});
}

// The kernel resets the weight of a group that is no longer idle.
TEST_F(LimitsKernelTest, ARefusalTakesIdleAndWeightBack) {
  CgroupParent parent = Open();
  constexpr CgroupController kCpu = CgroupController::kCpu;
  auto group = Make(parent, kCpu, {.cpu_shares = 512, .pids_max = 10});
  ASSERT_TRUE(group.has_value());
  const std::string weight = IsV2(kCpu) ? "cpu.weight" : "cpu.shares";
  const std::string before =
      ReadFile(absl::StrCat(DirectoryOf(*group, kCpu), "/", weight));
  // No such disk: what is before it in the order has been written by then.
  EXPECT_FALSE(group
                   ->SetLimits({.cpu_idle = true,
                                .unified = {{"cgroup.max.depth", "x"}}})
                   .ok());
  Expect(*group, kCpu, {{"cpu.idle", "0"}, {weight, before}});
}

TEST_F(LimitsKernelTest, Cpuset) {
  CgroupParent parent = Open();
  constexpr CgroupController kCpuset = CgroupController::kCpuset;
  auto group = Make(parent, kCpuset, {.cpuset_cpus = "0", .cpuset_mems = "0"});
  if (!group.has_value()) return;
  Expect(*group, kCpuset, {{"cpuset.cpus", "0"}, {"cpuset.mems", "0"}});
  Child child(*group, [] {
    cpu_set_t set;
    if (::sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
    return CPU_COUNT(&set) == 1 && CPU_ISSET(0, &set) ? 0 : 2;
  });
  EXPECT_EQ(child.Wait(), 0);
  EXPECT_THAT(group->SetLimits({.cpuset_cpus = "4000"}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("the group above")));
  EXPECT_OK(group->SetLimits({.cpuset_cpus = "", .cpuset_mems = ""}));
  EXPECT_NE(
      ReadFile(DirectoryOf(*group, kCpuset) +
               (IsV2(kCpuset) ? "/cpuset.cpus.effective" : "/cpuset.cpus")),
      "");
}

TEST_F(LimitsKernelTest, Disks) {
  std::string name;
  const std::string numbers = AnyDisk(&name);
  if (numbers.empty()) return SkipIf("this machine has no disk");
  CgroupBlockDevice disk;
  ASSERT_EQ(sscanf(numbers.c_str(), "%u:%u", &disk.major, &disk.minor), 2);
  CgroupParent parent = Open();
  constexpr CgroupController kIo = CgroupController::kIo;
  auto group = Make(parent, kIo,
                    {.io = {{.device = disk,
                             .read_bps = 1 << 20,
                             .write_bps = 2 << 20,
                             .read_iops = 100,
                             .write_iops = 200}}});
  if (!group.has_value()) return;
  const auto v1 = [&](const std::string& limit, const std::string& value) {
    Expect(*group, kIo,
           {{absl::StrCat("blkio.throttle.", limit, "_device"), value}});
  };
  const std::string prefix = numbers + " ";
  if (IsV2(kIo)) {
    Expect(
        *group, kIo,
        {{"io.max", prefix + "rbps=1048576 wbps=2097152 riops=100 wiops=200"}});
  } else {
    v1("read_bps", prefix + "1048576");
    v1("write_bps", prefix + "2097152");
    v1("read_iops", prefix + "100");
    v1("write_iops", prefix + "200");
  }
  // By path; one of four is taken away, the others stay.
  const CgroupBlockDevice path = {.path = "/dev/" + name};
  EXPECT_OK(
      group->SetLimits({.io = {{.device = path, .write_bps = kUnlimited}}}));
  if (IsV2(kIo)) {
    Expect(*group, kIo,
           {{"io.max", prefix + "rbps=1048576 wbps=max riops=100 wiops=200"}});
  } else {
    v1("write_bps", "");
    v1("read_bps", prefix + "1048576");
  }
  // No such disk: the memory limit before it is taken back.
  const absl::Status none = group->SetLimits(
      {.io = {{.device = disk, .read_bps = 4096},
              {.device = {.major = 4095, .minor = 77}, .read_bps = 4096}}});
  EXPECT_THAT(none, StatusIs(absl::StatusCode::kNotFound,
                             HasSubstr("a partition is none")));
  if (IsV2(kIo)) {
    Expect(*group, kIo,
           {{"io.max", prefix + "rbps=1048576 wbps=max riops=100 wiops=200"}});
  } else {
    v1("read_bps", prefix + "1048576");
  }
}

TEST_F(LimitsKernelTest, WeightsOfDisks) {
  CgroupParent parent = Open();
  constexpr CgroupController kIo = CgroupController::kIo;
  if (!layout().Find(kIo).usable) {
    Make(parent, kIo, {.io_weight = 50});
    return;
  }
  const auto made = parent.Create({.name = "job", .limits = {.io_weight = 50}});
  if (!made.ok()) {
    EXPECT_THAT(made.status(), StatusIs(absl::StatusCode::kFailedPrecondition,
                                        HasSubstr("CONFIG_BFQ")));
    return;
  }
  int files = 0;
  for (const auto& [file, want] : Files{{"io.weight", "default 50"},
                                        {"io.bfq.weight", "default 50"},
                                        {"blkio.bfq.weight", "50"}}) {
    const std::string path = absl::StrCat(DirectoryOf(*made, kIo), "/", file);
    if (::access(path.c_str(), F_OK) != 0) continue;
    ++files;
    EXPECT_EQ(ReadFile(path), want);
  }
  EXPECT_GT(files, 0);
}

TEST_F(LimitsKernelTest, HugePages) {
  CgroupParent parent = Open();
  constexpr CgroupController kHugetlb = CgroupController::kHugetlb;
  auto group = Make(parent, kHugetlb,
                    {.hugetlb = {{.max = 4 << 20, .reserved_max = 8 << 20}}});
  if (!group.has_value()) return;
  const std::string end = IsV2(kHugetlb) ? "max" : "limit_in_bytes";
  Expect(*group, kHugetlb,
         {{"hugetlb.2MB." + end, "4194304"},
          {"hugetlb.2MB.rsvd." + end, "8388608"}});
  // 8 MiB cannot be reserved by one who may have 2 MiB; whether there are huge
  // pages at all does not matter for that.
  EXPECT_OK(group->SetLimits({.hugetlb = {{.reserved_max = 2 << 20}}}));
  Child child(*group, [] {
    void* memory = ::mmap(nullptr, 8 << 20, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
    return memory == MAP_FAILED && errno == ENOMEM ? 0 : 1;
  });
  EXPECT_EQ(child.Wait(), 0);
  EXPECT_THAT(group->SetLimits({.hugetlb = {{.page_size = 1 << 14, .max = 0}}}),
              StatusIs(absl::StatusCode::kNotFound,
                       HasSubstr("/sys/kernel/mm/hugepages")));
}

TEST_F(LimitsKernelTest, UnifiedFiles) {
  CgroupParent parent = Open();
  auto group =
      parent.Create({.name = "job",
                     .limits = {.unified = {{"cgroup.max.depth", "3"},
                                            {"cgroup.max.descendants", "7"}}}});
  if (layout().mode == CgroupLayout::Mode::kV1) {
    EXPECT_THAT(group.status(),
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         HasSubstr("limits.unified needs cgroup v2")));
    return;
  }
  ASSERT_OK(group);
  const std::string directory = group->paths()[0].directory;
  EXPECT_EQ(ReadFile(directory + "/cgroup.max.depth"), "3");
  EXPECT_EQ(ReadFile(directory + "/cgroup.max.descendants"), "7");
  const absl::Status refused =
      group->SetLimits({.unified = {{"cgroup.max.depth", "5"},
                                    {"cgroup.max.descendants", "x"}}});
  EXPECT_THAT(refused, StatusIs(absl::StatusCode::kInvalidArgument,
                                HasSubstr("cgroup.max.descendants")));
  EXPECT_EQ(ReadFile(directory + "/cgroup.max.depth"), "3");
}

}  // namespace
}  // namespace caisson
