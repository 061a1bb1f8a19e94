// Limits, entry and evidence on the real kernel, in whatever layout this
// machine has.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "caisson/cgroup.h"
#include "lib/base/status_matchers.h"
#include "lib/cgroup/filesystem.h"
#include "lib/cgroup/kernel_fixture.h"
#include "lib/cgroup/limits.h"
#include "lib/sys/open.h"
#include "lib/sys/pidfd_open.h"

namespace caisson {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::_;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

TEST_F(CgroupKernelTest, LimitsReadBack) {
  CgroupParent parent = Open();
  CgroupLimits limits = {
      .memory_max = 64 << 20,
      .cpu_quota = CpuQuota{absl::Milliseconds(30), absl::Milliseconds(60)},
      .cpu_weight = 250,
      .pids_max = 17};
  ASSERT_OK_AND_ASSIGN(Cgroup group,
                       parent.Create({.name = "limits", .limits = limits}));
  const auto read = [&](CgroupController controller, const char* file) {
    return ReadFile(absl::StrCat(DirectoryOf(group, controller), "/", file));
  };
  const auto is_v2 = [&](CgroupController controller) {
    return VersionOf(controller) == CgroupVersion::kV2;
  };
  EXPECT_EQ(read(CgroupController::kPids, "pids.max"), "17");
  const auto expect_memory = [&](const std::string& want) {
    EXPECT_EQ(read(CgroupController::kMemory, is_v2(CgroupController::kMemory)
                                                  ? cgroup::kMemoryMax
                                                  : cgroup::kMemoryLimitV1),
              want);
  };
  const auto expect_quota = [&](const std::string& quota,
                                const std::string& period) {
    if (is_v2(CgroupController::kCpu)) {
      EXPECT_EQ(read(CgroupController::kCpu, "cpu.max"),
                absl::StrCat(quota == "-1" ? "max" : quota, " ", period));
    } else {
      EXPECT_EQ(read(CgroupController::kCpu, "cpu.cfs_quota_us"), quota);
      EXPECT_EQ(read(CgroupController::kCpu, "cpu.cfs_period_us"), period);
    }
  };
  expect_memory("67108864");
  expect_quota("30000", "60000");
  if (is_v2(CgroupController::kCpu)) {
    EXPECT_EQ(read(CgroupController::kCpu, "cpu.weight"), "250");
  } else {
    EXPECT_EQ(read(CgroupController::kCpu, "cpu.shares"), "2560");
  }

  // Live, up and down, with what was not named left alone.
  EXPECT_OK(group.SetLimits({.memory_max = 128 << 20}));
  expect_memory("134217728");
  EXPECT_OK(group.SetLimits({.memory_max = 32 << 20,
                             .cpu_quota = CpuQuota{absl::InfiniteDuration()},
                             .pids_max = CgroupLimits::kUnlimited}));
  expect_memory("33554432");
  expect_quota("-1", "100000");
  EXPECT_EQ(read(CgroupController::kPids, "pids.max"), "max");
  EXPECT_OK(group.Destroy());
}

TEST_F(CgroupKernelTest, SwapLimit) {
  CgroupParent parent = Open();
  auto group = parent.Create(
      {.name = "swap",
       .limits = {.memory_max = 32 << 20, .memory_swap_max = 8 << 20}});
  if (!group.ok()) {
    // Without swap accounting the error must say so.
    EXPECT_THAT(group.status(), StatusIs(absl::StatusCode::kNotFound,
                                         HasSubstr("swapaccount=1")));
    return;
  }
  const std::string memory = DirectoryOf(*group, CgroupController::kMemory);
  if (VersionOf(CgroupController::kMemory) == CgroupVersion::kV2) {
    EXPECT_EQ(ReadFile(memory + "/memory.swap.max"), "8388608");
    return;
  }
  const std::string memsw = memory + "/memory.memsw.limit_in_bytes";
  EXPECT_EQ(ReadFile(memsw), absl::StrCat(40 << 20));
  EXPECT_OK(group->SetLimits({.memory_max = 64 << 20}));
  EXPECT_EQ(ReadFile(memsw), absl::StrCat(72 << 20));
  EXPECT_OK(group->SetLimits({.memory_max = 16 << 20, .memory_swap_max = 0}));
  EXPECT_EQ(ReadFile(memsw), absl::StrCat(16 << 20));
  EXPECT_OK(group->SetLimits({.memory_max = CgroupLimits::kUnlimited,
                              .memory_swap_max = CgroupLimits::kUnlimited}));
  EXPECT_EQ(ReadFile(memsw), ReadFile(memory + "/memory.limit_in_bytes"));
}

// A change that the kernel refuses half-way is taken back.
TEST_F(CgroupKernelTest, RefusedLimitsAreTakenBack) {
  CgroupParent parent = Open();
  ASSERT_OK_AND_ASSIGN(
      Cgroup group,
      parent.Create({.name = "refused",
                     .limits = {.memory_max = 64 << 20},
                     .controllers = {CgroupController::kMemory}}));
  EXPECT_THAT(group.SetLimits({.memory_max = 32 << 20, .cpu_weight = 20000}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("limits.cpu_weight is 20000")));
  if (VersionOf(CgroupController::kCpu) == CgroupVersion::kV1) {
    EXPECT_THAT(group.SetLimits({.memory_max = 32 << 20, .cpu_weight = 20}),
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         HasSubstr("limits.cpu_weight needs the cpu")));
  }
  const std::string memory = DirectoryOf(group, CgroupController::kMemory);
  for (const char* file : {"/memory.max", "/memory.limit_in_bytes"}) {
    if (::access((memory + file).c_str(), F_OK) == 0) {
      EXPECT_EQ(ReadFile(memory + file), "67108864");
    }
  }
}

TEST_F(CgroupKernelTest, ProcessOverItsMemoryLimitIsKilledAndCounted) {
  CgroupParent parent = Open();
  ASSERT_OK_AND_ASSIGN(
      Cgroup group,
      parent.Create({.name = "oom", .limits = {.memory_max = 16 << 20}}));
  ASSERT_OK_AND_ASSIGN(int64_t kills, group.OomKills());
  EXPECT_EQ(kills, 0);
  Child child(group, [] {
    const size_t size = 256 << 20;
    char* memory =
        static_cast<char*>(::mmap(nullptr, size, PROT_READ | PROT_WRITE,
                                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    for (size_t i = 0; i < size; i += 4096) memory[i] = 1;
    return 0;
  });
  const int status = child.Wait();
  EXPECT_TRUE(WIFSIGNALED(status)) << status;
  EXPECT_EQ(WTERMSIG(status), SIGKILL);
  ASSERT_OK_AND_ASSIGN(kills, group.OomKills());
  EXPECT_EQ(kills, 1);
}

TEST_F(CgroupKernelTest, PlainSigkillIsNotAnOom) {
  CgroupParent parent = Open();
  ASSERT_OK_AND_ASSIGN(
      Cgroup group,
      parent.Create(
          {.name = "killed", .controllers = {CgroupController::kMemory}}));
  Child child(group, Sleep);
  EXPECT_OK(group.Kill());
  EXPECT_EQ(WTERMSIG(child.Wait()), SIGKILL);
  ASSERT_OK_AND_ASSIGN(const int64_t kills, group.OomKills());
  EXPECT_EQ(kills, 0);
}

TEST_F(CgroupKernelTest, PidsLimitStopsForks) {
  CgroupParent parent = Open();
  ASSERT_OK_AND_ASSIGN(
      Cgroup group, parent.Create({.name = "pids", .limits = {.pids_max = 5}}));
  Child child(group, [] {
    for (int forks = 0; forks < 20; ++forks) {
      const pid_t pid = ::fork();
      if (pid == 0) Sleep();
      if (pid < 0) return errno == EAGAIN ? forks : 100;
    }
    return 101;
  });
  EXPECT_EQ(child.Wait() >> 8, 4);  // itself and four more
  ASSERT_OK_AND_ASSIGN(std::vector<pid_t> pids, group.Processes());
  EXPECT_EQ(pids.size(), 4);
  EXPECT_OK(group.Destroy());
}

TEST_F(CgroupKernelTest, CpuQuotaThrottles) {
  CgroupParent parent = Open();
  ASSERT_OK_AND_ASSIGN(
      Cgroup group, parent.Create({.name = "cpu",
                                   .limits = {.cpu_quota = CpuQuota{
                                                  absl::Milliseconds(2),
                                                  absl::Milliseconds(10)}}}));
  const auto throttled = [&]() -> int64_t {
    auto value = cgroup::FlatKeyedValue(
        ReadFile(DirectoryOf(group, CgroupController::kCpu) + "/cpu.stat"),
        "nr_throttled");
    EXPECT_OK(value);
    return value.value_or(-1);
  };
  EXPECT_EQ(throttled(), 0);
  Child child(group, [] {
    timespec used;
    do {
      ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    } while (used.tv_sec == 0 && used.tv_nsec < 50000000);
    return 0;
  });
  EXPECT_EQ(child.Wait(), 0);
  EXPECT_GT(throttled(), 0);
}

TEST_F(CgroupKernelTest, EntryIsInEveryHierarchyOfTheGroup) {
  CgroupParent parent = Open();
  ASSERT_OK_AND_ASSIGN(Cgroup group,
                       parent.Create({.name = "entry",
                                      .limits = {.memory_max = 64 << 20,
                                                 .cpu_weight = 10,
                                                 .pids_max = 3}}));
  Signal ready;
  Child child(group, [&] {
    ready.Send();
    return Sleep();
  });
  ready.Await();
  for (const CgroupPath& path : group.paths()) {
    EXPECT_EQ(ReadFile(path.directory + "/cgroup.procs"),
              absl::StrCat(child.pid()))
        << path.directory;
  }
  ASSERT_OK_AND_ASSIGN(std::vector<pid_t> pids, group.Processes());
  EXPECT_THAT(pids, ElementsAre(child.pid()));
}

TEST_F(CgroupKernelTest, CpusetCanBeJoined) {
  if (!layout().Find(CgroupController::kCpuset).usable) {
    return SkipIf(layout().Find(CgroupController::kCpuset).reason);
  }
  CgroupParent parent = Open();
  ASSERT_OK_AND_ASSIGN(
      Cgroup group,
      parent.Create(
          {.name = "cpuset", .controllers = {CgroupController::kCpuset}}));
  Child child(group, [] { return 7; });
  EXPECT_EQ(child.Wait() >> 8, 7);
}

// Directories are readable as documented, whatever the umask of the host.
TEST_F(CgroupKernelTest, ModesDoNotDependOnTheUmask) {
  const mode_t old = ::umask(0777);
  CgroupParent parent = Open();
  auto group = parent.Create({.name = "modes"});
  ::umask(old);
  ASSERT_OK(group);
  struct stat st = {};
  const std::string directory = group->paths()[0].directory;
  ASSERT_EQ(::stat(directory.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0755);
  ASSERT_EQ(::stat(directory.substr(0, directory.rfind('/')).c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0711);
}

// As an engine wants it that calls a runtime again and again.
TEST_F(CgroupKernelTest, PrescribedPlaceIsFoundAgainByItsDirectories) {
  CgroupParentOptions engine = options();
  engine.path += "/engine/pod";
  engine.prescribed = true;
  std::vector<CgroupPath> paths;
  std::optional<Child> child;
  {
    ASSERT_OK_AND_ASSIGN(CgroupParent parent, CgroupParent::Open(engine));
    EXPECT_EQ(parent.path(), engine.path);
    ASSERT_OK_AND_ASSIGN(
        Cgroup group,
        parent.Create({.name = "c1", .limits = {.pids_max = 20}}));
    EXPECT_EQ(group.path(), engine.path + "/c1");
    EXPECT_THAT(parent.Create({.name = "c1"}),
                StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("c1")));
    EXPECT_THAT(group.Lifelines(),
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         HasSubstr("prescribed")));
    child.emplace(group, Sleep);
    paths = group.paths();
    group.Disown();
  }
  EXPECT_THAT(*CgroupParent::Recover(options()), IsEmpty());
  std::vector<UniqueFd> directories;
  for (const CgroupPath& path : paths) {
    EXPECT_TRUE(absl::EndsWith(path.directory, engine.path + "/c1"));
    ASSERT_OK_AND_ASSIGN(UniqueFd directory,
                         sys::Open(path.directory, O_RDONLY | O_DIRECTORY));
    directories.push_back(std::move(directory));
  }
  ASSERT_OK_AND_ASSIGN(Cgroup group, Cgroup::Attach(std::move(directories)));
  EXPECT_EQ(group.path(), engine.path + "/c1");
  EXPECT_THAT(*group.Processes(), ElementsAre(child->pid()));
  EXPECT_OK(group.SetLimits({.pids_max = 30}));
  EXPECT_EQ(ReadFile(DirectoryOf(group, CgroupController::kPids) + "/pids.max"),
            "30");
  // Somebody who still knows of it is in nobody's way.
  ASSERT_OK_AND_ASSIGN(CgroupParent again, CgroupParent::Open(engine));
  EXPECT_OK(group.Destroy());
  EXPECT_EQ(child->Wait(), SIGKILL);
  ASSERT_OK_AND_ASSIGN(Cgroup next, again.Create({.name = "c1"}));
  EXPECT_OK(next.Destroy());
  // What was made of the path goes when somebody looks after it.
  EXPECT_OK(again.Close());
  EXPECT_OK(CgroupParent::Recover(engine));
}

// The same for who kept a record, without a look at the host's mounts.
TEST_F(CgroupKernelTest, PrescribedPlaceIsFoundAgainByItsPaths) {
  CgroupParentOptions engine = options();
  engine.path += "/engine/pod";
  engine.prescribed = true;
  const std::string path = engine.path + "/c1";
  std::vector<CgroupPath> paths;
  std::optional<Child> child;
  {
    ASSERT_OK_AND_ASSIGN(CgroupParent parent, CgroupParent::Open(engine));
    ASSERT_OK_AND_ASSIGN(
        Cgroup group,
        parent.Create({.name = "c1",
                       .limits = {.pids_max = 20},
                       .controllers = {CgroupController::kPids}}));
    child.emplace(group, Sleep);
    paths = group.paths();
    group.Disown();
  }
  std::vector<CgroupPath> more = paths;
  more.push_back(paths[0]);
  more.back().directory += "/gone";
  ASSERT_OK_AND_ASSIGN(Cgroup group, Cgroup::Attach(path, more));
  EXPECT_EQ(group.path(), path);
  EXPECT_EQ(group.name(), "c1");
  EXPECT_EQ(group.paths().size(), paths.size());
  EXPECT_TRUE(group.IsBelowMadeDirectory());
  EXPECT_THAT(*group.Processes(), ElementsAre(child->pid()));
  EXPECT_OK(group.SetLimits({.pids_max = 30}));
  EXPECT_EQ(ReadFile(DirectoryOf(group, CgroupController::kPids) + "/pids.max"),
            "30");
  EXPECT_OK(group.OpenStats());
  EXPECT_THAT(group.v1_directories(), IsEmpty());
  EXPECT_THAT(group.CreateChild({.name = "below"}),
              StatusIs(absl::StatusCode::kFailedPrecondition, _));
  std::vector<CgroupPath> wrong = paths;
  wrong[0].version = paths[0].version == CgroupVersion::kV2
                         ? CgroupVersion::kV1
                         : CgroupVersion::kV2;
  EXPECT_THAT(Cgroup::Attach(path, wrong),
              StatusIs(absl::StatusCode::kInvalidArgument, _));
  wrong = paths;
  wrong[0].directory = "/tmp";
  EXPECT_THAT(Cgroup::Attach(path, wrong),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("no control group")));
  EXPECT_OK(group.Destroy());
  EXPECT_EQ(child->Wait(), SIGKILL);
  EXPECT_THAT(
      Cgroup::Attach(path, paths),
      StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("destroyed")));
  EXPECT_OK(CgroupParent::Recover(engine));
  EXPECT_NE(
      ::access(
          paths[0].directory.substr(0, paths[0].directory.rfind('/')).c_str(),
          F_OK),
      0);
}

}  // namespace
}  // namespace caisson
