// Triggers of PSI: events when processes of a group wait too long.
#include <fcntl.h>
#include <linux/magic.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <functional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "caisson/cgroup.h"
#include "lib/base/status_matchers.h"
#include "lib/cgroup/kernel_fixture.h"
#include "lib/sys/open.h"

namespace caisson {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::HasSubstr;

constexpr int64_t kMiB = 1 << 20;

class CgroupPressureTest : public CgroupKernelTest {
 protected:
  bool HasV2() const {
    return layout().hierarchies[0].version == CgroupVersion::kV2;
  }

  static UniqueFd NewFile() {
    auto file = sys::Open(::testing::TempDir(), O_TMPFILE | O_RDWR, 0600);
    EXPECT_OK(file);
    return file.ok() ? *std::move(file) : UniqueFd();
  }

  // What `body` does in a group is an event of `resource`.
  void ExpectPressure(CgroupResource resource, const char* file,
                      const std::function<void()>& body) {
    CgroupParent parent = Open();
    ASSERT_OK_AND_ASSIGN(
        const Cgroup group,
        parent.Create({.name = "job", .limits = {.memory_max = 16 * kMiB}}));
    // The shortest window that needs no capability.
    const auto events = group.WatchPressure({.resource = resource,
                                             .stall = absl::Milliseconds(1),
                                             .window = absl::Seconds(2)});
    if (!HasV2() || ::access(file, R_OK) != 0) {
      EXPECT_THAT(events.status().message(),
                  HasSubstr(HasV2() ? "CONFIG_PSI" : "whole machine"));
      return;
    }
    ASSERT_OK(events);
    Child child(group, [&] {
      while (!ShouldGiveUp()) body();
      return 0;
    });
    ASSERT_OK_AND_ASSIGN(const std::vector<CgroupEvent> read,
                         events->Wait(absl::Seconds(20)));
    ASSERT_EQ(read.size(), 1u);
    EXPECT_EQ(read[0].kind, CgroupEventKind::kPressure);
    ASSERT_TRUE(read[0].pressure && read[0].pressure->some);
    EXPECT_GE(read[0].pressure->some->total, absl::Milliseconds(1));
    EXPECT_OK(group.Kill());
  }
};

// More is read than the group can keep.
TEST_F(CgroupPressureTest, Memory) {
  const UniqueFd file = NewFile();
  ASSERT_EQ(::ftruncate(file.get(), 64 * kMiB), 0);
  ExpectPressure(CgroupResource::kMemory, "/proc/pressure/memory", [&] {
    char buffer[65536];
    ::lseek(file.get(), 0, SEEK_SET);
    while (::read(file.get(), buffer, sizeof(buffer)) > 0) continue;
  });
}

TEST_F(CgroupPressureTest, Disk) {
  const UniqueFd file = NewFile();
  struct statfs info;
  ASSERT_EQ(::fstatfs(file.get(), &info), 0);
  if (info.f_type == TMPFS_MAGIC) {
    return SkipIf("TEST_TMPDIR is in memory, where nobody waits for a disk");
  }
  ExpectPressure(CgroupResource::kIo, "/proc/pressure/io", [&] {
    (void)!::pwrite(file.get(), "x", 1, 0);
    ::fsync(file.get());
  });
}

// Two processes that both want one processor.
TEST_F(CgroupPressureTest, PressureOfTheProcessor) {
  CgroupParent parent = Open();
  ASSERT_OK_AND_ASSIGN(const Cgroup group, parent.Create({.name = "job"}));
  // The shortest window that needs no capability.
  auto events = group.WatchPressure({.resource = CgroupResource::kCpu,
                                     .stall = absl::Milliseconds(20),
                                     .window = absl::Seconds(2)});
  if (!HasV2() || ::access("/proc/pressure/cpu", R_OK) != 0) {
    EXPECT_THAT(events.status().message(),
                HasSubstr(HasV2() ? "CONFIG_PSI" : "whole machine"));
    return;
  }
  ASSERT_OK(events);
  // In a loop like a host's, which takes each change once.
  const UniqueFd loop(::epoll_create1(EPOLL_CLOEXEC));
  epoll_event interest = {};
  interest.events = EPOLLIN | EPOLLET;
  ASSERT_EQ(
      ::epoll_ctl(loop.get(), EPOLL_CTL_ADD, events->fd().get(), &interest), 0);
  const auto spin = [] {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(::sched_getcpu(), &one);
    ::sched_setaffinity(0, sizeof(one), &one);
    if (::fork() < 0) return 1;
    while (!ShouldGiveUp()) continue;
    return 0;
  };
  Child child(group, spin);
  epoll_event event;
  ASSERT_EQ(::epoll_wait(loop.get(), &event, 1, 20000), 1);
  ASSERT_OK_AND_ASSIGN(const std::vector<CgroupEvent> read, events->Read());
  ASSERT_EQ(read.size(), 1u);
  EXPECT_EQ(read[0].kind, CgroupEventKind::kPressure);
  ASSERT_TRUE(read[0].pressure.has_value());
  ASSERT_TRUE(read[0].pressure->some.has_value());
  EXPECT_GT(read[0].pressure->some->total, absl::Milliseconds(15));
  pollfd poll = {.fd = events->fd().get(), .events = POLLIN};
  EXPECT_EQ(::poll(&poll, 1, 0), 0);
  EXPECT_OK(group.Kill());
}

TEST_F(CgroupPressureTest, BadTriggers) {
  CgroupParent parent = Open();
  ASSERT_OK_AND_ASSIGN(const Cgroup group, parent.Create({.name = "job"}));
  for (const auto& [stall, window, text] :
       std::vector<std::tuple<absl::Duration, absl::Duration, const char*>>{
           {absl::Seconds(1), absl::Milliseconds(499), "500ms to 10s"},
           {absl::Seconds(1), absl::Seconds(11), "500ms to 10s"},
           {absl::Seconds(2), absl::Seconds(1), "stall is 2s"},
           {absl::ZeroDuration(), absl::Seconds(1), "stall is 0"}}) {
    EXPECT_THAT(group.WatchPressure({.stall = stall, .window = window}),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(text)));
  }
}

}  // namespace
}  // namespace caisson
