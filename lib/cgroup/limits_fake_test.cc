// All limits on all controllers, and a failure at every write, on plain files.
#include <errno.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "caisson/cgroup.h"
#include "caisson/error.h"
#include "lib/base/status_matchers.h"
#include "lib/cgroup/fake_cgroupfs.h"
#include "lib/cgroup/owner.h"

namespace caisson {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;
using Kind = cgroup::FakeCgroupfs::Kind;

constexpr int64_t kUnlimited = CgroupLimits::kUnlimited;

// Everything that the version has; two disks, so that one line is changed
// beside another.
CgroupLimits Everything(Kind kind, int64_t n) {
  CgroupLimits limits = {
      .memory_max = n << 20,
      .memory_swap_max = n << 20,
      .memory_low = n << 12,
      .cpu_quota = CpuQuota{absl::Milliseconds(50 * n), absl::Milliseconds(100),
                            absl::Milliseconds(10 * n)},
      .cpu_weight = 10 * n,
      .cpuset_cpus = absl::StrCat("0-", n),
      .cpuset_mems = absl::StrCat(n),
      .pids_max = n,
      .io_weight = 10 * n,
      .io = {{.device = {.major = 8, .minor = 0},
              .read_bps = n,
              .weight = 100 * n},
             {.device = {.major = 8, .minor = 16 * static_cast<uint32_t>(n)},
              .write_iops = n}},
      .hugetlb = {{.max = n << 21, .reserved_max = n << 22}}};
  if (kind == Kind::kFullV1) {
    limits.memory_swappiness = n;
    limits.memory_oom_kill_disable = n % 2 == 1;
    limits.net_class = n;
    limits.net_priorities = {{.interface = "eth0", .priority = 7}};
  } else {
    limits.memory_high = n << 20;
    limits.memory_min = n << 12;
    limits.memory_zswap_max = n << 12;
    limits.memory_oom_group = n % 2 == 1;
    limits.rdma = {{.device = "mlx5_0", .hca_handles = n, .hca_objects = n}};
    limits.misc = {{.resource = "sev", .max = n}};
    limits.dmem = {{.region = "vram0", .max = n}};
    limits.unified = {{"io.max", absl::StrCat("8:99 rbps=", n)}};
  }
  return limits;
}

struct Host {
  explicit Host(Kind kind) : fs(std::make_shared<cgroup::FakeCgroupfs>(kind)) {
    auto owner = cgroup::Owner::Open({.path = "/ours"}, fs);
    EXPECT_OK(owner);
    parent = std::make_unique<CgroupParent>(*std::move(owner));
  }

  // The content of all files of `group`.
  std::map<std::string, std::string> Values(const Cgroup& group) const {
    std::map<std::string, std::string> values;
    for (const CgroupPath& path : group.paths()) {
      const std::string below = path.directory.substr(fs->root().size() + 1);
      for (const std::string& file : fs->Files(below)) {
        values[file] = fs->Get(absl::StrCat(below, "/", file));
      }
    }
    return values;
  }

  std::shared_ptr<cgroup::FakeCgroupfs> fs;
  std::unique_ptr<CgroupParent> parent;
};

TEST(LimitsFakeTest, EveryLimitOfV2) {
  Host host(Kind::kFullV2);
  ASSERT_OK_AND_ASSIGN(
      Cgroup group,
      host.parent->Create(
          {.name = "job", .limits = Everything(Kind::kFullV2, 3)}));
  auto values = host.Values(group);
  const std::map<std::string, std::string> want = {
      {"memory.max", "3145728"},
      {"memory.swap.max", "3145728"},
      {"memory.high", "3145728"},
      {"memory.low", "12288"},
      {"memory.min", "12288"},
      {"memory.zswap.max", "12288"},
      {"memory.oom.group", "1"},
      {"cpu.max", "150000 100000"},
      {"cpu.max.burst", "30000"},
      {"cpu.weight", "30"},
      {"cpuset.cpus", "0-3"},
      {"cpuset.mems", "3"},
      {"pids.max", "3"},
      {"io.weight", "8:0 300\ndefault 30"},
      {"io.max", "8:0 rbps=3\n8:48 wiops=3\n8:99 rbps=3"},
      {"hugetlb.2MB.max", "6291456"},
      {"hugetlb.2MB.rsvd.max", "12582912"},
      {"rdma.max", "mlx5_0 hca_handle=3 hca_object=3"},
      {"misc.max", "sev 3"},
      {"dmem.max", "vram0 3"}};
  for (const auto& [file, value] : want) EXPECT_EQ(values[file], value) << file;
}

TEST(LimitsFakeTest, EveryLimitOfV1) {
  Host host(Kind::kFullV1);
  ASSERT_OK_AND_ASSIGN(
      Cgroup group,
      host.parent->Create(
          {.name = "job", .limits = Everything(Kind::kFullV1, 3)}));
  auto values = host.Values(group);
  const std::map<std::string, std::string> want = {
      {"memory.limit_in_bytes", "3145728"},
      {"memory.memsw.limit_in_bytes", "6291456"},
      {"memory.soft_limit_in_bytes", "12288"},
      {"memory.swappiness", "3"},
      {"memory.oom_control", "1"},
      {"cpu.cfs_quota_us", "150000"},
      {"cpu.cfs_burst_us", "30000"},
      {"cpu.shares", "307"},
      {"cpuset.cpus", "0-3"},
      {"cpuset.mems", "3"},
      {"pids.max", "3"},
      {"blkio.bfq.weight", "30"},
      {"blkio.bfq.weight_device", "8:0 118"},
      {"blkio.throttle.read_bps_device", "8:0 3"},
      {"blkio.throttle.write_iops_device", "8:48 3"},
      {"hugetlb.2MB.limit_in_bytes", "6291456"},
      {"hugetlb.2MB.rsvd.limit_in_bytes", "12582912"},
      {"net_cls.classid", "3"},
      {"net_prio.ifpriomap", "eth0 7\nlo 0"}};
  for (const auto& [file, value] : want) EXPECT_EQ(values[file], value) << file;
}

// All limits are changed; each write fails once; every file is as before.
TEST(LimitsFakeTest, AFailureAtAnyWriteChangesNothing) {
  for (const Kind kind : {Kind::kFullV1, Kind::kFullV2}) {
    Host host(kind);
    ASSERT_OK_AND_ASSIGN(
        Cgroup group,
        host.parent->Create({.name = "job", .limits = Everything(kind, 3)}));
    const auto before = host.Values(group);
    int step = 0;
    for (bool done = false; !done; ++step) {
      ASSERT_LT(step, 100);
      int seen = 0;
      std::string failed;
      host.fs->fault = [&](const std::string& operation) {
        if (seen++ != step) return 0;
        failed = operation.substr(operation.find("job/") + 4);
        failed = failed.substr(0, failed.find(' '));
        return EIO;
      };
      const absl::Status status = group.SetLimits(Everything(kind, 5));
      host.fs->fault = nullptr;
      done = failed.empty();
      if (done) {
        EXPECT_OK(status);
        continue;
      }
      EXPECT_EQ(GetErrorDetail(status)->error, EIO);
      EXPECT_THAT(std::string(status.message()), HasSubstr(failed));
      // The fake remembers nothing but what oom_control is set to.
      auto after = host.Values(group);
      if (kind == Kind::kFullV1) {
        after["memory.oom_control"] = before.at("memory.oom_control");
      }
      EXPECT_EQ(after, before) << failed;
    }
    EXPECT_GT(step, 18);
    EXPECT_NE(host.Values(group), before);
  }
}

// The kernel kills for a lower limit at once, and nothing takes that back.
TEST(LimitsFakeTest, MemoryIsLimitedOnlyWhenNothingElseCanBeRefused) {
  Host host(Kind::kFullV2);
  for (const bool unified : {false, true}) {
    ASSERT_OK_AND_ASSIGN(
        Cgroup group,
        host.parent->Create(
            {.name = "job",
             .controllers = {CgroupController::kMemory, CgroupController::kCpu,
                             CgroupController::kIo}}));
    CgroupLimits limits = {.cpu_weight = 7};
    if (unified) {
      limits.unified = {{"memory.max", "4096"}, {"io.max", "8:0 rbps=1"}};
    } else {
      limits.memory_max = 4096;
      limits.unified = {{"io.max", "8:0 rbps=1"}};
    }
    host.fs->log.clear();
    host.fs->fault = [](const std::string& operation) {
      return absl::StrContains(operation, "rbps=1") ? EIO : 0;
    };
    EXPECT_FALSE(group.SetLimits(limits).ok());
    for (const std::string& line : host.fs->log) {
      EXPECT_THAT(line, ::testing::Not(HasSubstr("memory.max")));
    }
    EXPECT_FALSE(host.fs->log.empty());
    host.fs->fault = nullptr;
    EXPECT_OK(group.SetLimits(limits));
    EXPECT_THAT(host.fs->log.back(), HasSubstr("memory.max 4096"));
    EXPECT_OK(group.Destroy());
  }
}

// Leaving the idle class resets the weight, so both are taken back.
TEST(LimitsFakeTest, IdleIsTakenBackTogetherWithTheWeight) {
  Host host(Kind::kFullV2);
  ASSERT_OK_AND_ASSIGN(
      Cgroup group,
      host.parent->Create({.name = "job", .limits = {.cpu_weight = 77}}));
  host.fs->log.clear();
  host.fs->fault = [](const std::string& operation) {
    return absl::StrContains(operation, "cpu.max.burst") ? EIO : 0;
  };
  EXPECT_FALSE(
      group.SetLimits({.cpu_idle = true, .unified = {{"cpu.max.burst", "1"}}})
          .ok());
  std::vector<std::string> tails;
  for (const std::string& line : host.fs->log) {
    tails.push_back(line.substr(line.find("job/") + 4));
  }
  EXPECT_THAT(tails, ::testing::ElementsAre("cpu.idle 1", "cpu.idle 0",
                                            "cpu.weight 77"));
}

TEST(LimitsFakeTest, CpusOfOthersAreRefusedBeforeAnythingIsWritten) {
  for (const Kind kind : {Kind::kFullV1, Kind::kFullV2}) {
    Host host(kind);
    ASSERT_OK_AND_ASSIGN(
        Cgroup group,
        host.parent->Create({.name = "job", .limits = {.cpuset_cpus = "0"}}));
    host.fs->log.clear();
    EXPECT_THAT(
        group.SetLimits({.cpuset_cpus = "6-8"}),
        StatusIs(absl::StatusCode::kInvalidArgument,
                 AllOf(HasSubstr("limits.cpuset_cpus is \"6-8\"; the group "
                                 "above, "),
                       HasSubstr("has \"0-7\""))));
    EXPECT_THAT(host.fs->log, ::testing::IsEmpty());
    EXPECT_OK(group.SetLimits({.cpuset_cpus = ""}));
  }
}

TEST(LimitsFakeTest, WhatTheVersionLacksIsRefusedBeforeAnythingIsWritten) {
  Host v1(Kind::kFullV1);
  EXPECT_THAT(
      v1.parent->Create({.name = "x", .limits = {.memory_high = 1}}),
      StatusIs(absl::StatusCode::kFailedPrecondition,
               HasSubstr("limits.memory_high exists in cgroup v2 only")));
  EXPECT_THAT(
      v1.parent->Create(
          {.name = "x", .limits = {.unified = {{"cgroup.max.depth", "1"}}}}),
      StatusIs(absl::StatusCode::kFailedPrecondition,
               HasSubstr("limits.unified needs cgroup v2")));
  Host v2(Kind::kFullV2);
  EXPECT_THAT(
      v2.parent->Create({.name = "x", .limits = {.memory_swappiness = 1}}),
      StatusIs(absl::StatusCode::kFailedPrecondition,
               HasSubstr("limits.memory_swappiness exists in cgroup v1 only")));
  EXPECT_THAT(
      v2.parent->Create({.name = "x", .limits = {.net_class = 1}}),
      StatusIs(absl::StatusCode::kFailedPrecondition,
               AllOf(HasSubstr("limits.net_class needs the net_cls"),
                     HasSubstr("nftables matches on the group's path"))));
  Host hybrid(Kind::kHybrid);
  EXPECT_THAT(hybrid.parent->Create(
                  {.name = "x", .limits = {.unified = {{"memory.high", "1"}}}}),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("unified[\"memory.high\"] exists in cgroup v2 "
                                 "only; the memory controller of this host is "
                                 "in a v1 hierarchy")));
  for (const Host* host : {&v1, &v2, &hybrid}) {
    for (const std::string& directory : host->fs->Directories()) {
      EXPECT_FALSE(absl::EndsWith(directory, "/x")) << directory;
    }
  }
}

TEST(LimitsFakeTest, NoFileForWeights) {
  for (const Kind kind : {Kind::kFullV1, Kind::kFullV2}) {
    Host host(kind);
    ASSERT_OK_AND_ASSIGN(
        Cgroup group,
        host.parent->Create({.name = "job", .limits = {.io_weight = 5}}));
    for (const CgroupPath& path : group.paths()) {
      const std::string below =
          path.directory.substr(host.fs->root().size() + 1);
      for (const char* file :
           {"/io.weight", "/io.bfq.weight", "/blkio.bfq.weight"}) {
        host.fs->Remove(below + file);
      }
    }
    EXPECT_THAT(group.SetLimits({.io_weight = 6}),
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         HasSubstr("BFQ scheduler's weights")));
  }
}

TEST(LimitsFakeTest, UnlimitedEverywhere) {
  Host host(Kind::kFullV2);
  ASSERT_OK_AND_ASSIGN(
      Cgroup group,
      host.parent->Create(
          {.name = "job", .limits = Everything(Kind::kFullV2, 3)}));
  EXPECT_OK(group.SetLimits(
      {.memory_high = kUnlimited,
       .cpuset_cpus = "",
       .io = {{.device = {.major = 8}, .read_bps = kUnlimited, .weight = 0}},
       .hugetlb = {{.max = kUnlimited}},
       .rdma = {{.device = "mlx5_0",
                 .hca_handles = kUnlimited,
                 .hca_objects = kUnlimited}},
       .misc = {{.resource = "sev", .max = kUnlimited}}}));
  auto values = host.Values(group);
  EXPECT_EQ(values["memory.high"], "max");
  EXPECT_EQ(values["cpuset.cpus"], "");
  EXPECT_EQ(values["io.weight"], "default 30");
  EXPECT_EQ(values["hugetlb.2MB.max"], "max");
  EXPECT_EQ(values["rdma.max"], "");
  EXPECT_EQ(values["misc.max"], "sev max");
}

}  // namespace
}  // namespace caisson
