// Freeze(), Thaw() and what they mean for Kill(), through every layout that
// this machine can be made to look like.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "caisson/cgroup.h"
#include "lib/base/status_matchers.h"
#include "lib/cgroup/attach.h"
#include "lib/cgroup/kernel_fixture.h"
#include "lib/sys/open.h"

namespace caisson {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using State = CgroupFreezeState;

struct FreezeCase {
  const char* name;
  std::vector<std::string> hidden;
};

class CgroupFreezeTest : public CgroupKernelTest,
                         public ::testing::WithParamInterface<FreezeCase> {
 protected:
  void SetUp() override {
    CgroupKernelTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    const std::vector<std::string>& hidden = GetParam().hidden;
    if (!hidden.empty() && layout().mode == CgroupLayout::Mode::kV2) {
      // The same tests on v2 again: there is nothing else here.
      parent_ = std::make_unique<CgroupParent>(Open());
    } else {
      parent_ = std::make_unique<CgroupParent>(Open(hidden));
    }
    v2_ = parent_->layout().hierarchies[0].version == CgroupVersion::kV2;
  }
  void TearDown() override {
    parent_.reset();
    CgroupKernelTest::TearDown();
  }

  absl::StatusOr<Cgroup> Create() const {
    CgroupOptions options = {.name = "freeze"};
    if (parent_->layout().Find(CgroupController::kFreezer).usable) {
      options.controllers = {CgroupController::kFreezer};
    }
    return parent_->Create(options);
  }
  // The group's directory where it is frozen.
  std::string Directory(const Cgroup& group) const {
    return v2_ ? group.paths()[0].directory
               : DirectoryOf(group, CgroupController::kFreezer);
  }
  // By hand, as others do it.
  void SetFrozen(const std::string& directory, bool frozen) const {
    const std::string file =
        directory + (v2_ ? "/cgroup.freeze" : "/freezer.state");
    ASSERT_OK_AND_ASSIGN(const UniqueFd fd, sys::Open(file, O_WRONLY));
    ASSERT_OK(sys::WriteAll(
        fd.borrow(),
        v2_ ? (frozen ? "1" : "0") : (frozen ? "FROZEN" : "THAWED"), file));
  }

  std::unique_ptr<CgroupParent> parent_;
  bool v2_ = false;
};

INSTANTIATE_TEST_SUITE_P(Layouts, CgroupFreezeTest,
                         ::testing::Values(FreezeCase{"AsMounted", {}},
                                           FreezeCase{"V1", {"cgroup2"}}),
                         [](const auto& info) { return info.param.name; });

// A counter that a child in the group increases as long as it runs.
class Counter final {
 public:
  Counter()
      : value_(static_cast<std::atomic<int64_t>*>(
            ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS, -1, 0))) {}
  ~Counter() { ::munmap(value_, 4096); }
  int Increase() const {
    while (!ShouldGiveUp()) value_->fetch_add(1);
    return 0;
  }
  int64_t Get() const { return value_->load(); }
  bool Moves() const {
    const int64_t before = Get();
    while (Get() == before) {
      if (ShouldGiveUp()) return false;
    }
    return true;
  }

 private:
  std::atomic<int64_t>* value_;
};

TEST_P(CgroupFreezeTest, StopsAndContinues) {
  ASSERT_OK_AND_ASSIGN(const Cgroup group, Create());
  Counter counter;
  Child child(group, [&] { return counter.Increase(); });
  ASSERT_TRUE(counter.Moves());
  ASSERT_OK_AND_ASSIGN(State state, group.FreezeState());
  EXPECT_EQ(state, State::kThawed);
  for (int round = 0; round < 3; ++round) {
    ASSERT_OK(group.Freeze());
    ASSERT_OK(group.Freeze());
    const int64_t stopped = counter.Get();
    ASSERT_OK_AND_ASSIGN(state, group.FreezeState());
    EXPECT_EQ(state, State::kFrozen);
    ASSERT_OK_AND_ASSIGN(const CgroupStatsReader reader, group.OpenStats());
    ASSERT_OK_AND_ASSIGN(const CgroupStats stats, reader.Read());
    EXPECT_THAT(stats.frozen, ::testing::Optional(true));
    absl::SleepFor(absl::Milliseconds(5));
    EXPECT_EQ(counter.Get(), stopped);
    ASSERT_OK(group.Thaw());
    ASSERT_OK(group.Thaw());
    EXPECT_TRUE(counter.Moves());
  }
}

TEST_P(CgroupFreezeTest, EmptyGroup) {
  ASSERT_OK_AND_ASSIGN(const Cgroup group, Create());
  ASSERT_OK(group.Freeze());
  // Who is born there stops.
  Counter counter;
  Child child(group, [&] { return counter.Increase(); });
  ASSERT_OK_AND_ASSIGN(State state, group.FreezeState());
  EXPECT_NE(state, State::kThawed);
  EXPECT_EQ(counter.Get(), 0);
  ASSERT_OK(group.Thaw());
  EXPECT_TRUE(counter.Moves());
}

TEST_P(CgroupFreezeTest, ForkBomb) {
  ASSERT_OK_AND_ASSIGN(const Cgroup group, Create());
  Child child(group, [&] {
    if (!BecomeLimitedUser(60)) return 1;
    ::signal(SIGCHLD, SIG_IGN);
    // Half of them end, so that there are always forks.
    while (!ShouldGiveUp()) {
      if (::fork() == 0 && (::getpid() & 1) != 0) ::_exit(0);
    }
    return 0;
  });
  for (size_t size = 0; size < 25 && !ShouldGiveUp();) {
    ASSERT_OK_AND_ASSIGN(const std::vector<pid_t> pids, group.Processes());
    size = pids.size();
  }
  ASSERT_OK(group.Freeze());
  ASSERT_OK_AND_ASSIGN(const std::vector<pid_t> first, group.Processes());
  absl::SleepFor(absl::Milliseconds(5));
  ASSERT_OK_AND_ASSIGN(const std::vector<pid_t> second, group.Processes());
  EXPECT_EQ(first, second);
  ASSERT_OK(group.Thaw());
  ASSERT_OK(group.Freeze());
  EXPECT_OK(group.Kill(absl::Seconds(10)));
  EXPECT_EQ(WTERMSIG(child.Wait()), SIGKILL);
  ASSERT_OK_AND_ASSIGN(const State state, group.FreezeState());
  EXPECT_EQ(state, State::kThawed);
}

TEST_P(CgroupFreezeTest, KillAndDestroyOfFrozenGroups) {
  ASSERT_OK_AND_ASSIGN(Cgroup group, Create());
  Signal ready;  // on v1, and in a group that was killed once, it enters itself
  const auto sleep = [&] {
    ready.Send();
    return Sleep();
  };
  Child killed(group, sleep);
  ready.Await();
  ASSERT_OK(group.Freeze());
  EXPECT_OK(group.Kill(absl::Seconds(10)));
  EXPECT_EQ(WTERMSIG(killed.Wait()), SIGKILL);
  // It can be used again, and is not frozen.
  Child again(group, [] { return 3; });
  EXPECT_EQ(again.Wait() >> 8, 3);
  Child destroyed(group, sleep);
  ready.Await();
  ASSERT_OK(group.Freeze());
  EXPECT_OK(group.Destroy(absl::Seconds(10)));
  EXPECT_EQ(WTERMSIG(destroyed.Wait()), SIGKILL);
  EXPECT_THAT(group.Freeze(), StatusIs(absl::StatusCode::kFailedPrecondition,
                                       HasSubstr("was destroyed")));
}

// A guest with a cgroupfs of its own may freeze what is below its group.
TEST_P(CgroupFreezeTest, KillReachesFrozenDescendants) {
  ASSERT_OK_AND_ASSIGN(Cgroup group, Create());
  const std::string inner = Directory(group) + "/inner";
  ASSERT_EQ(::mkdir(inner.c_str(), 0755), 0);
  Signal ready;
  Child child(group, [&] {
    auto procs = sys::Open(inner + "/cgroup.procs", O_WRONLY);
    if (!procs.ok() || ::write(procs->get(), "0", 1) != 1) return 1;
    ready.Send();
    return Sleep();
  });
  ready.Await();
  SetFrozen(inner, true);
  EXPECT_OK(group.Destroy(absl::Seconds(10)));
  EXPECT_EQ(WTERMSIG(child.Wait()), SIGKILL);
}

TEST_P(CgroupFreezeTest, FrozenGroupAbove) {
  ASSERT_OK_AND_ASSIGN(Cgroup group, Create());
  const std::string own = Directory(group);
  const std::string above = own.substr(0, own.rfind('/'));
  Counter counter;
  Child child(group, [&] { return counter.Increase(); });
  ASSERT_TRUE(counter.Moves());
  SetFrozen(above, true);
  ASSERT_OK_AND_ASSIGN(State state, group.FreezeState());
  EXPECT_NE(state, State::kThawed);
  EXPECT_OK(group.Freeze());
  const auto names_above =
      StatusIs(absl::StatusCode::kFailedPrecondition,
               AllOf(HasSubstr("the group itself is thawed"),
                     HasSubstr(absl::StrCat("\"", above, "\""))));
  EXPECT_THAT(group.Thaw(), names_above);
  EXPECT_THAT(group.Thaw(), names_above);
  ASSERT_OK_AND_ASSIGN(state, group.FreezeState());
  EXPECT_EQ(state, State::kFrozen);
  if (v2_) {
    EXPECT_OK(group.Kill(absl::Seconds(10)));
  } else {
    EXPECT_THAT(group.Kill(absl::Milliseconds(50)),
                StatusIs(absl::StatusCode::kDeadlineExceeded,
                         AllOf(HasSubstr(absl::StrCat(child.pid())),
                               HasSubstr(absl::StrCat("\"", above, "\"")),
                               HasSubstr("is thawed"))));
  }
  SetFrozen(above, false);
  EXPECT_OK(group.Kill(absl::Seconds(10)));
  EXPECT_EQ(WTERMSIG(child.Wait()), SIGKILL);
}

// On a hybrid host a group may be frozen by v1 while v2 kills it.
TEST_P(CgroupFreezeTest, FrozenByTheOtherVersion) {
  ASSERT_OK_AND_ASSIGN(Cgroup group, Create());
  const std::string freezer = DirectoryOf(group, CgroupController::kFreezer);
  if (!v2_ || freezer.empty()) return;  // no hybrid: the tests above are all
  Counter counter;
  Child child(group, [&] { return counter.Increase(); });
  ASSERT_TRUE(counter.Moves());
  v2_ = false;
  SetFrozen(freezer, true);
  v2_ = true;
  ASSERT_OK_AND_ASSIGN(State state, group.FreezeState());
  EXPECT_NE(state, State::kThawed);
  ASSERT_OK(group.Thaw());
  EXPECT_TRUE(counter.Moves());
  v2_ = false;
  SetFrozen(freezer, true);
  v2_ = true;
  EXPECT_OK(group.Kill(absl::Seconds(10)));
  EXPECT_EQ(WTERMSIG(child.Wait()), SIGKILL);
}

// What the launcher asks before it executes something in a container.
TEST_P(CgroupFreezeTest, NothingEntersAFrozenGroup) {
  ASSERT_OK_AND_ASSIGN(const Cgroup group, Create());
  const auto frozen = StatusIs(absl::StatusCode::kFailedPrecondition,
                               HasSubstr("the container is paused"));
  EXPECT_OK(cgroup::CheckNotFrozen(group.paths()));
  ASSERT_OK(group.Freeze());
  EXPECT_THAT(cgroup::CheckNotFrozen(group.paths()), frozen);
  ASSERT_OK(group.Thaw());
  EXPECT_OK(cgroup::CheckNotFrozen(group.paths()));
  const std::string own = Directory(group);
  SetFrozen(own.substr(0, own.rfind('/')), true);
  EXPECT_THAT(cgroup::CheckNotFrozen(group.paths()), frozen);
  SetFrozen(own.substr(0, own.rfind('/')), false);
}

// A group that is in no hierarchy that can freeze it says what it needs.
TEST_F(CgroupKernelTest, FreezeNeedsTheFreezerOnV1) {
  const bool v2 = layout().mode == CgroupLayout::Mode::kV2;
  CgroupParent parent = v2 ? Open() : Open({"cgroup2"});
  auto group = parent.Create({.name = "bare"});
  if (v2) {
    ASSERT_OK(group);
    EXPECT_OK(group->Freeze());
    return;
  }
  ASSERT_OK(group);
  EXPECT_THAT(group->Freeze(),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("Freeze()"), HasSubstr("freezer"))));
  EXPECT_OK(group->Thaw());
}

}  // namespace
}  // namespace caisson
