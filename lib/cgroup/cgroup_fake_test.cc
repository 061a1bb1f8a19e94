// Errors, layouts that this machine does not have, and clean-up after a failure
// at every step, on plain files.
#include <errno.h>

#include <memory>
#include <string>
#include <utility>
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
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using Kind = cgroup::FakeCgroupfs::Kind;

struct Host {
  explicit Host(Kind kind) : fs(std::make_shared<cgroup::FakeCgroupfs>(kind)) {
    auto owner = cgroup::Owner::Open({.path = "/ours"}, fs);
    EXPECT_OK(owner);
    parent = std::make_unique<CgroupParent>(*std::move(owner));
    before = fs->Directories();
  }
  std::string Path(const std::string& mount, const std::string& rest) const {
    return absl::StrCat(mount, parent->path(), "/", rest);
  }

  std::shared_ptr<cgroup::FakeCgroupfs> fs;
  std::unique_ptr<CgroupParent> parent;
  std::vector<std::string> before;
};

CgroupOptions FullOptions() {
  return {.name = "job",
          .limits = {.memory_max = 1 << 20,
                     .memory_swap_max = 0,
                     .cpu_quota = CpuQuota{absl::Milliseconds(50)},
                     .cpu_weight = 200,
                     .pids_max = 7}};
}

TEST(CgroupFakeTest, V2WritesLimitsAndEnablesControllersFromTheTop) {
  Host host(Kind::kV2);
  ASSERT_OK_AND_ASSIGN(Cgroup group, host.parent->Create(FullOptions()));
  EXPECT_EQ(group.path(), absl::StrCat(host.parent->path(), "/job"));
  EXPECT_EQ(host.fs->Get(host.Path("unified", "job/memory.max")), "1048576");
  EXPECT_EQ(host.fs->Get(host.Path("unified", "job/memory.swap.max")), "0");
  EXPECT_EQ(host.fs->Get(host.Path("unified", "job/cpu.max")), "50000 100000");
  EXPECT_EQ(host.fs->Get(host.Path("unified", "job/cpu.weight")), "200");
  EXPECT_EQ(host.fs->Get(host.Path("unified", "job/pids.max")), "7");
  for (const std::string& path :
       {std::string("unified"), std::string("unified/ours"),
        host.Path("unified", "")}) {
    EXPECT_EQ(host.fs->Get(path + "/cgroup.subtree_control"),
              "cpu memory pids");
  }
  // Nothing is enabled below the group itself.
  EXPECT_EQ(host.fs->Get(host.Path("unified", "job/cgroup.subtree_control")),
            "");
  ASSERT_OK_AND_ASSIGN(CgroupEntry entry, group.OpenEntry());
  EXPECT_TRUE(entry.v2_directory.valid());
  EXPECT_THAT(entry.join_files, IsEmpty());
  ASSERT_OK_AND_ASSIGN(const int64_t kills, group.OomKills());
  EXPECT_EQ(kills, 2);
  EXPECT_OK(group.Destroy());
  EXPECT_OK(group.Destroy());
  EXPECT_THAT(group.OpenEntry(),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("cgroup \"job\" was destroyed")));
  EXPECT_FALSE(group.Processes().ok());
  EXPECT_FALSE(group.SetLimits({.pids_max = 1}).ok());
  EXPECT_OK(host.parent->Close());
  EXPECT_EQ(host.fs->Directories(), host.before);
}

TEST(CgroupFakeTest, V1JoinsOnlyWhatIsNeeded) {
  Host host(Kind::kV1);
  ASSERT_OK_AND_ASSIGN(
      Cgroup cpu,
      host.parent->Create({.name = "c", .limits = {.cpu_weight = 100}}));
  // pids is there to stop forks while the group is killed.
  EXPECT_THAT(cpu.paths(), SizeIs(2));
  EXPECT_FALSE(host.fs->Exists("memory/ours"));
  ASSERT_OK_AND_ASSIGN(Cgroup full, host.parent->Create(FullOptions()));
  EXPECT_THAT(full.paths(), SizeIs(3));
  EXPECT_EQ(host.fs->Get(host.Path("memory", "job/memory.limit_in_bytes")),
            "1048576");
  EXPECT_EQ(
      host.fs->Get(host.Path("memory", "job/memory.memsw.limit_in_bytes")),
      "1048576");
  EXPECT_EQ(host.fs->Get(host.Path("cpu", "job/cpu.shares")), "2048");
  EXPECT_EQ(host.fs->Get(host.Path("cpu", "job/cpu.cfs_quota_us")), "50000");
  EXPECT_EQ(host.fs->Get(host.Path("pids", "job/pids.max")), "7");
  ASSERT_OK_AND_ASSIGN(CgroupEntry entry, full.OpenEntry());
  EXPECT_FALSE(entry.v2_directory.valid());
  EXPECT_THAT(entry.join_files, SizeIs(3));
}

TEST(CgroupFakeTest, HybridUsesV2ForKillAndV1ForLimits) {
  Host host(Kind::kHybrid);
  ASSERT_OK_AND_ASSIGN(
      Cgroup group,
      host.parent->Create({.name = "job", .limits = {.memory_max = 4096}}));
  ASSERT_THAT(group.paths(), SizeIs(2));
  EXPECT_EQ(group.paths()[0].version, CgroupVersion::kV2);
  ASSERT_THAT(group.v1_directories(), SizeIs(1));
  EXPECT_EQ(group.v1_directories()[0].hierarchy, "memory");
  EXPECT_THAT(group.v1_directories()[0].controllers, ElementsAre("memory"));
  EXPECT_TRUE(group.v1_directories()[0].directory.valid());
  EXPECT_THAT(group.paths()[1].controllers,
              ElementsAre(CgroupController::kMemory));
  host.fs->Set(host.Path("unified", "job/cgroup.procs"), "1\n");
  host.fs->Set(host.Path("unified", "job/cgroup.events"), "populated 1\n");
  EXPECT_OK(group.Destroy());
  EXPECT_THAT(host.fs->log,
              ::testing::Contains("write " +
                                  host.Path("unified", "job/cgroup.kill 1")));
}

TEST(CgroupFakeTest, RejectsNamesAndPaths) {
  Host host(Kind::kV2);
  const std::string nul("a\0b", 3);
  for (const std::string& name :
       {std::string(), std::string("."), std::string(".."), std::string("a/b"),
        std::string("a\nb"), nul, std::string(256, 'x'),
        std::string("cgroup.procs"),
        std::string("caisson-1-0123456789abcdef")}) {
    EXPECT_THAT(
        host.parent->Create({.name = name}),
        StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("cgroup name ")))
        << name;
  }
  for (const char* path : {"", "ours", "/ours/", "//ours", "/ours/../x", "/./x",
                           "/a\nb", "/cgroup.procs"}) {
    EXPECT_THAT(
        cgroup::Owner::Open({.path = path}, host.fs).status(),
        StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("cgroup path ")))
        << path;
  }
  EXPECT_THAT(host.parent->Create({.name = "x", .limits = {.memory_max = 0}}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("limits.memory_max is 0")));
  EXPECT_THAT(host.fs->log, IsEmpty());
}

TEST(CgroupFakeTest, SameNameTwice) {
  Host host(Kind::kHybrid);
  ASSERT_OK_AND_ASSIGN(Cgroup group, host.parent->Create(FullOptions()));
  EXPECT_THAT(host.parent->Create(FullOptions()),
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("/job")));
  // The first one is untouched.
  EXPECT_EQ(host.fs->Get(host.Path("pids", "job/pids.max")), "7");
}

TEST(CgroupFakeTest, MissingControllerNamesFieldControllerAndLayout) {
  Host host(Kind::kHybrid);
  EXPECT_THAT(host.parent->Create(
                  {.name = "x", .controllers = {CgroupController::kIo}}),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("controllers needs the io controller"),
                             HasSubstr("this host has hybrid: cpu v1"))));
  EXPECT_EQ(host.fs->Directories(), host.before);
}

TEST(CgroupFakeTest, NoInternalProcessRuleIsExplained) {
  Host host(Kind::kV2);
  ASSERT_OK_AND_ASSIGN(Cgroup first, host.parent->Create({.name = "x"}));
  host.fs->Set("unified/ours/cgroup.procs", "12\n34\n");
  EXPECT_THAT(host.parent->Create(FullOptions()),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("unified/ours/cgroup.subtree_control"),
                             HasSubstr("processes of its own (12, 34)"),
                             HasSubstr("no-internal-process rule"))));
  host.fs->Set("unified/ours/cgroup.procs", "");
}

TEST(CgroupFakeTest, ControllerThatTheGroupAboveDoesNotOffer) {
  Host host(Kind::kV2);
  host.fs->fault = [](const std::string& operation) {
    return absl::StrContains(operation, "+memory") ? ENOENT : 0;
  };
  EXPECT_THAT(host.parent->Create(FullOptions()),
              StatusIs(absl::StatusCode::kNotFound,
                       AllOf(HasSubstr("\"+memory\""),
                             HasSubstr("the group above has to enable it"))));
}

TEST(CgroupFakeTest, NotDelegated) {
  Host host(Kind::kV2);
  host.fs->fault = [](const std::string& operation) {
    return absl::StartsWith(operation, "mkdir") ? EACCES : 0;
  };
  EXPECT_THAT(host.parent->Create(FullOptions()),
              StatusIs(absl::StatusCode::kPermissionDenied,
                       HasSubstr("delegated to you")));
}

TEST(CgroupFakeTest, SwapAccountingOff) {
  for (Kind kind : {Kind::kV1, Kind::kV2}) {
    Host host(kind);
    ASSERT_OK_AND_ASSIGN(
        Cgroup group,
        host.parent->Create({.name = "job", .limits = {.memory_max = 8192}}));
    host.fs->Remove(host.Path("memory", "job/memory.memsw.limit_in_bytes"));
    host.fs->Remove(host.Path("unified", "job/memory.swap.max"));
    EXPECT_THAT(group.SetLimits({.memory_max = 4096, .memory_swap_max = 4096}),
                StatusIs(absl::StatusCode::kNotFound,
                         AllOf(HasSubstr("swapaccount=1"), HasSubstr("job"))));
    // memory_max, which had been written before, is as it was.
    EXPECT_EQ(
        host.fs->Get(kind == Kind::kV1
                         ? host.Path("memory", "job/memory.limit_in_bytes")
                         : host.Path("unified", "job/memory.max")),
        "8192");
    EXPECT_OK(group.SetLimits({.memory_max = 4096}));
  }
}

TEST(CgroupFakeTest, SetLimitsRestoresAfterAFailureAtAnyWrite) {
  const CgroupLimits other = {
      .memory_max = 1 << 21,
      .memory_swap_max = 1 << 20,
      .cpu_quota = CpuQuota{absl::Milliseconds(70), absl::Milliseconds(200)},
      .cpu_weight = 300,
      .pids_max = 9};
  for (Kind kind : {Kind::kV1, Kind::kV2}) {
    Host host(kind);
    ASSERT_OK_AND_ASSIGN(Cgroup group, host.parent->Create(FullOptions()));
    const auto values = [&] {
      std::string all;
      for (const char* file :
           {"memory.max", "memory.swap.max", "cpu.max", "cpu.weight",
            "memory.limit_in_bytes", "memory.memsw.limit_in_bytes",
            "cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.shares",
            "pids.max"}) {
        for (const char* mount : {"unified", "memory", "cpu", "pids"}) {
          const std::string path = host.Path(mount, absl::StrCat("job/", file));
          if (host.fs->Exists(path)) {
            absl::StrAppend(&all, file, "=", host.fs->Get(path), " ");
          }
        }
      }
      return all;
    };
    const std::string before = values();
    const int writes = kind == Kind::kV1 ? 6 : 5;
    for (int step = 0; step < writes; ++step) {
      int seen = 0;
      std::string failed;
      host.fs->fault = [&](const std::string& operation) {
        if (seen++ != step) return 0;
        failed = operation.substr(operation.find("job/"));
        failed = failed.substr(4, failed.find(' ') - 4);
        return EIO;
      };
      const absl::Status status = group.SetLimits(other);
      EXPECT_EQ(GetErrorDetail(status)->error, EIO);
      EXPECT_THAT(std::string(status.message()), HasSubstr(failed));
      EXPECT_EQ(values(), before) << "step " << step;
    }
    host.fs->fault = nullptr;
    EXPECT_OK(group.SetLimits(other));
    EXPECT_NE(values(), before);
  }
}

TEST(CgroupFakeTest, SetLimitsNeedsTheControllerFromTheStart) {
  Host host(Kind::kV1);
  ASSERT_OK_AND_ASSIGN(Cgroup group, host.parent->Create({.name = "job"}));
  EXPECT_THAT(group.SetLimits({.memory_max = 4096}),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("limits.memory_max needs the memory"),
                             HasSubstr("CgroupOptions::controllers"))));
  EXPECT_THAT(group.OomKills(),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("OomKills() needs the memory")));
}

// Every mkdir and every write fails once; the tree is as before each time.
TEST(CgroupFakeTest, CreateLeavesNothingAfterAFailureAtAnyStep) {
  for (Kind kind : {Kind::kV1, Kind::kV2, Kind::kHybrid}) {
    bool done = false;
    for (int step = 0; !done; ++step) {
      ASSERT_LT(step, 100);
      Host host(kind);
      int seen = 0;
      std::string failed;
      host.fs->fault = [&](const std::string& operation) {
        if (absl::StartsWith(operation, "rmdir") || seen++ != step) return 0;
        failed = operation;
        return EIO;
      };
      auto group = host.parent->Create(FullOptions());
      done = failed.empty();
      if (done) {
        EXPECT_OK(group);
        continue;
      }
      ASSERT_FALSE(group.ok()) << failed;
      EXPECT_EQ(GetErrorDetail(group.status())->error, EIO);
      EXPECT_FALSE(host.fs->Exists(host.Path("unified", "job"))) << failed;
      EXPECT_OK(host.parent->Close());
      EXPECT_EQ(host.fs->Directories(), host.before) << failed;
    }
  }
}

TEST(CgroupFakeTest, ParentIsMadeAgainIfSomebodyRemovesIt) {
  Host host(Kind::kV2);
  int removed = 0;
  host.fs->fault = [&](const std::string& operation) {
    if (absl::StrContains(operation, "mkdir unified/ours/caisson-") &&
        !absl::EndsWith(operation, "/job") && removed++ < 3) {
      host.fs->Remove("unified/ours");
    }
    return 0;
  };
  ASSERT_OK_AND_ASSIGN(Cgroup group, host.parent->Create(FullOptions()));
  EXPECT_EQ(removed, 4);
}

TEST(CgroupFakeTest, KillReportsWhatDoesNotDie) {
  Host host(Kind::kV2);
  ASSERT_OK_AND_ASSIGN(Cgroup group, host.parent->Create({.name = "job"}));
  host.fs->Set(host.Path("unified", "job/cgroup.procs"), "4194300\n4194301\n");
  host.fs->Set(host.Path("unified", "job/cgroup.events"), "populated 1\n");
  host.fs->fault = [](const std::string& operation) {
    return absl::StrContains(operation, "cgroup.kill") ? EOPNOTSUPP : 0;
  };
  EXPECT_THAT(group.Kill(absl::Milliseconds(5)),
              StatusIs(absl::StatusCode::kDeadlineExceeded,
                       AllOf(HasSubstr("2 of its processes (pid 4194300, "
                                       "4194301)"),
                             HasSubstr("within 5ms"))));
  EXPECT_THAT(group.Destroy(absl::Milliseconds(5)),
              StatusIs(absl::StatusCode::kDeadlineExceeded, HasSubstr("job")));
  host.fs->fault = nullptr;
  EXPECT_OK(group.Destroy());
  EXPECT_FALSE(host.fs->Exists(host.Path("unified", "job")));
}

TEST(CgroupFakeTest, CloseWithGroupsInside) {
  Host host(Kind::kHybrid);
  ASSERT_OK_AND_ASSIGN(Cgroup group, host.parent->Create(FullOptions()));
  EXPECT_THAT(host.parent->Close(),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("there are groups in it")));
  EXPECT_THAT(
      host.parent->Create({.name = "other"}),
      StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("is closed")));
  host.parent.reset();
  EXPECT_OK(group.Destroy());
  { Cgroup last = std::move(group); }
  EXPECT_EQ(host.fs->Directories(), host.before);
}

TEST(CgroupFakeTest, NothingMountedWritable) {
  Host host(Kind::kV2);
  class ReadOnly final : public cgroup::Filesystem {
   public:
    absl::StatusOr<std::string> ReadProc(const std::string&) const override {
      return std::string("1 0 0:1 / / rw - cgroup2 cgroup2 ro\n");
    }
    absl::StatusOr<UniqueFd> OpenMount(const cgroup::Mount&) const override {
      return UniqueFd();
    }
    absl::StatusOr<std::string> Read(const cgroup::Dir&,
                                     absl::string_view) const override {
      return std::string("memory");
    }
  };
  EXPECT_THAT(
      cgroup::Owner::Open({}, std::make_shared<ReadOnly>()).status(),
      StatusIs(absl::StatusCode::kFailedPrecondition,
               AllOf(HasSubstr("no cgroup hierarchy is mounted writable"),
                     HasSubstr("v2: memory v2 (read-only)"))));
}

}  // namespace
}  // namespace caisson
