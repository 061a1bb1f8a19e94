// Listing threads and moving processes on the real kernel, through every layout
// that this machine can be made to look like, and failures on plain files.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "caisson/cgroup.h"
#include "caisson/error.h"
#include "lib/base/status_matchers.h"
#include "lib/cgroup/fake_cgroupfs.h"
#include "lib/cgroup/kernel_fixture.h"
#include "lib/cgroup/owner.h"
#include "lib/sys/open.h"
#include "lib/sys/pidfd_open.h"

namespace caisson {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

// A child outside of all groups of the test; killed and reaped by the
// destructor.
class Outsider final {
 public:
  explicit Outsider(const std::function<int()>& body) : pid_(::fork()) {
    if (pid_ == 0) ::_exit(body());
  }
  ~Outsider() { End(); }
  Outsider(const Outsider&) = delete;
  Outsider& operator=(const Outsider&) = delete;
  pid_t pid() const { return pid_; }
  void End() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }

 private:
  pid_t pid_;
};

class CgroupMoveTest : public CgroupKernelTest,
                       public ::testing::WithParamInterface<const char*> {
 protected:
  void SetUp() override {
    CgroupKernelTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    std::vector<std::string> hidden;
    if (layout().mode != CgroupLayout::Mode::kV2) hidden = {GetParam()};
    parent_ = std::make_unique<CgroupParent>(Open(std::move(hidden)));
  }
  void TearDown() override {
    parent_.reset();
    CgroupKernelTest::TearDown();
  }
  absl::StatusOr<Cgroup> Create() const {
    return parent_->Create(
        {.name = "move",
         .controllers = {CgroupController::kMemory, CgroupController::kPids}});
  }

  std::unique_ptr<CgroupParent> parent_;
};

INSTANTIATE_TEST_SUITE_P(Layouts, CgroupMoveTest,
                         ::testing::Values("no mount", "cgroup2"),
                         [](const auto& info) {
                           return info.index == 0 ? "AsMounted" : "V1";
                         });

TEST_P(CgroupMoveTest, ByPidAndByDescriptor) {
  ASSERT_OK_AND_ASSIGN(Cgroup group, Create());
  Outsider first(Sleep), second(Sleep);
  ASSERT_OK(group.MoveIn(first.pid()));
  ASSERT_OK_AND_ASSIGN(UniqueFd pidfd, sys::OpenPidfd(second.pid()));
  ASSERT_OK(group.MoveIn(pidfd.borrow()));
  ASSERT_OK(group.MoveIn(pidfd.borrow()));
  for (const CgroupPath& path : group.paths()) {
    EXPECT_THAT(ReadFile(path.directory + "/cgroup.procs"),
                ::testing::AnyOf(absl::StrCat(first.pid(), "\n", second.pid()),
                                 absl::StrCat(second.pid(), "\n", first.pid())))
        << path.directory;
  }
  second.End();
  EXPECT_THAT(group.MoveIn(pidfd.borrow()),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("has ended")));
  EXPECT_OK(group.Kill());
  ASSERT_OK_AND_ASSIGN(const std::vector<pid_t> left, group.Processes());
  EXPECT_THAT(left, IsEmpty());
  // After Kill(), too, and in a group that was destroyed not.
  Outsider third(Sleep);
  EXPECT_OK(group.MoveIn(third.pid()));
  EXPECT_OK(group.Destroy());
  EXPECT_THAT(group.MoveIn(third.pid()),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("was destroyed")));
}

TEST_P(CgroupMoveTest, NoSuchProcess) {
  ASSERT_OK_AND_ASSIGN(const Cgroup group, Create());
  for (pid_t pid : {0, -1}) {
    EXPECT_THAT(group.MoveIn(pid), StatusIs(absl::StatusCode::kInvalidArgument,
                                            HasSubstr(absl::StrCat(pid))));
  }
  Outsider child(Sleep);
  const pid_t pid = child.pid();
  child.End();
  EXPECT_THAT(group.MoveIn(pid),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("ESRCH")));
  EXPECT_THAT(group.MoveIn(BorrowedFd()),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("has ended")));
}

TEST_P(CgroupMoveTest, Threads) {
  ASSERT_OK_AND_ASSIGN(const Cgroup group, Create());
  Signal ready;
  Child child(group, [&] {
    std::thread thread([&] {
      ready.SendPid(::gettid());
      Sleep();
    });
    return Sleep();
  });
  const pid_t thread = ready.AwaitPid();
  ASSERT_OK_AND_ASSIGN(std::vector<pid_t> threads, group.Threads());
  EXPECT_THAT(threads, UnorderedElementsAre(child.pid(), thread));
  ASSERT_OK_AND_ASSIGN(const std::vector<pid_t> processes, group.Processes());
  EXPECT_THAT(processes, ElementsAre(child.pid()));
  // All threads move together.
  ASSERT_OK_AND_ASSIGN(
      const Cgroup other,
      parent_->Create({.name = "other",
                       .controllers = {CgroupController::kMemory,
                                       CgroupController::kPids}}));
  ASSERT_OK(other.MoveIn(child.pid()));
  ASSERT_OK_AND_ASSIGN(threads, group.Threads());
  EXPECT_THAT(threads, IsEmpty());
  ASSERT_OK_AND_ASSIGN(threads, other.Threads());
  EXPECT_THAT(threads, UnorderedElementsAre(child.pid(), thread));
}

class CgroupMoveFakeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    pid_ = ::getpid();
    fs_ = std::make_shared<cgroup::FakeCgroupfs>(
        cgroup::FakeCgroupfs::Kind::kHybrid);
    fs_->proc[absl::StrCat(pid_, "/cgroup")] =
        "3:pids:/\n2:memory:/there\n1:cpu:/\n0::/\n";
    ASSERT_OK_AND_ASSIGN(auto owner,
                         cgroup::Owner::Open({.path = "/ours"}, fs_));
    parent_ = std::make_unique<CgroupParent>(std::move(owner));
  }
  std::string Procs(const std::string& mount) const {
    return absl::StrCat(mount, parent_->path(), "/job/cgroup.procs");
  }

  pid_t pid_;
  std::shared_ptr<cgroup::FakeCgroupfs> fs_;
  std::unique_ptr<CgroupParent> parent_;
};

TEST_F(CgroupMoveFakeTest, RefusedHalfWayGoesBack) {
  ASSERT_OK_AND_ASSIGN(
      Cgroup group,
      parent_->Create({.name = "job",
                       .controllers = {CgroupController::kMemory,
                                       CgroupController::kPids}}));
  const std::string refused = absl::StrCat("write ", Procs("pids"), " ", pid_);
  fs_->fault = [&](const std::string& operation) {
    return operation == refused ? ENOSPC : 0;
  };
  // The group where the process was does not exist: that is told.
  EXPECT_THAT(group.MoveIn(pid_),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       AllOf(HasSubstr("it stays in"), HasSubstr("/memory/"),
                             HasSubstr("cpuset.cpus"))));
  fs_->proc[absl::StrCat(pid_, "/cgroup")] =
      "3:pids:/\n2:memory:/\n1:cpu:/\n0::/\n";
  fs_->log.clear();
  const absl::Status status = group.MoveIn(pid_);
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kResourceExhausted,
                               ::testing::Not(HasSubstr("it stays in"))));
  EXPECT_EQ(GetErrorDetail(status)->step, "cgroup.move");
  EXPECT_THAT(fs_->log,
              ElementsAre(absl::StrCat("write ", Procs("unified"), " ", pid_),
                          absl::StrCat("write ", Procs("memory"), " ", pid_),
                          absl::StrCat("write memory/cgroup.procs ", pid_),
                          absl::StrCat("write unified/cgroup.procs ", pid_)));
  for (const char* mount : {"unified", "memory"}) fs_->Set(Procs(mount), "");
}

// Nothing is written for a PID that might be another's by now.
TEST_F(CgroupMoveFakeTest, EndsBetweenTwoHierarchies) {
  ASSERT_OK_AND_ASSIGN(
      Cgroup group,
      parent_->Create({.name = "job",
                       .controllers = {CgroupController::kMemory,
                                       CgroupController::kPids}}));
  // While the write to the first or to the second is under way.
  for (const auto& [mount, error] :
       {std::pair("unified", 0), std::pair("memory", EIO)}) {
    Outsider child(Sleep);
    ASSERT_OK_AND_ASSIGN(UniqueFd pidfd, sys::OpenPidfd(child.pid()));
    const std::string at = Procs(mount);
    fs_->fault = [&, error = error](const std::string& operation) {
      if (!absl::StrContains(operation, at)) return 0;
      child.End();
      return error;
    };
    fs_->log.clear();
    EXPECT_THAT(group.MoveIn(pidfd.borrow()),
                StatusIs(absl::StatusCode::kAborted,
                         HasSubstr("ended while it was moved")));
    EXPECT_EQ(fs_->log.size(), 1) << mount;
    EXPECT_EQ(fs_->Get(Procs("memory")), "");
    EXPECT_EQ(fs_->Get(Procs("pids")), "");
    fs_->Set(Procs("unified"), "");
  }
  fs_->fault = nullptr;
}

TEST_F(CgroupMoveFakeTest, ErrorsExplain) {
  ASSERT_OK_AND_ASSIGN(Cgroup group, parent_->Create({.name = "job"}));
  int error = 0;
  fs_->fault = [&](const std::string& operation) {
    return absl::StrContains(operation, "cgroup.procs") ? error : 0;
  };
  const std::pair<int, const char*> kCases[] = {
      {EBUSY, "no-internal-process"},
      {EOPNOTSUPP, "threaded"},
      {EINVAL, "thread of the kernel"},
      {EACCES, "nearest group above"},
      {ESRCH, "has ended"},
  };
  for (const auto& [code, text] : kCases) {
    error = code;
    EXPECT_THAT(group.MoveIn(pid_).message(), HasSubstr(text));
  }
}

}  // namespace
}  // namespace caisson
