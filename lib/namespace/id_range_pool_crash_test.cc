// Leases against the death of their owners, forks, and full disks.
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <functional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "caisson/id_range_pool.h"
#include "lib/base/status_matchers.h"

namespace caisson {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr uint32_t kFirst = 1000000;
constexpr uint32_t kSize = 65536;

class IdRangePoolCrashTest : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = absl::StrCat(::testing::TempDir(), "ids-XXXXXX");
    ASSERT_NE(::mkdtemp(root_.data()), nullptr);
  }
  void TearDown() override { std::filesystem::remove_all(root_); }

  absl::StatusOr<IdRangePool> Open(uint32_t ranges) const {
    IdRangePoolOptions options;
    options.directory = absl::StrCat(root_, "/state");
    options.etc_directory = absl::StrCat(root_, "/etc");
    options.range = {kFirst, ranges * kSize};
    return IdRangePool::Open(options);
  }

  // Runs `body` in a forked child and returns its process id.
  static pid_t Fork(const std::function<void()>& body) {
    const pid_t child = ::fork();
    if (child == 0) {
      body();
      ::_exit(::testing::Test::HasFailure() ? 1 : 0);
    }
    return child;
  }
  static void Kill(pid_t child) {
    EXPECT_EQ(::kill(child, SIGKILL), 0);
    EXPECT_EQ(::waitpid(child, nullptr, 0), child);
  }
  static void ExpectSuccess(pid_t child) {
    int status = -1;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
  }

  std::string root_;
};

// A pipe by which a child says that it is ready.
class Signal {
 public:
  Signal() { EXPECT_EQ(::pipe2(fds_, O_CLOEXEC), 0); }
  ~Signal() {
    ::close(fds_[0]);
    ::close(fds_[1]);
  }
  void Send(pid_t value = 0) {
    EXPECT_EQ(::write(fds_[1], &value, sizeof(value)),
              static_cast<ssize_t>(sizeof(value)));
  }
  pid_t Wait() {
    pid_t value = -1;
    EXPECT_EQ(::read(fds_[0], &value, sizeof(value)),
              static_cast<ssize_t>(sizeof(value)));
    return value;
  }

 private:
  int fds_[2];
};

void PauseForever() {
  for (;;) ::pause();
}

// ---- fork ------------------------------------------------------------------

TEST_F(IdRangePoolCrashTest, ForkedChildCannotRelease) {
  ASSERT_OK_AND_ASSIGN(IdRangePool pool, Open(1));
  ASSERT_OK_AND_ASSIGN(IdRangeLease lease, pool.Allocate());
  ExpectSuccess(Fork([&] {
    // Neither explicitly, nor by a destructor, nor by ending.
    { IdRangeLease moved = std::move(lease); }
    EXPECT_FALSE(pool.Allocate().ok());
  }));
  ExpectSuccess(Fork([&] {
    lease.Release();
    EXPECT_FALSE(lease.held());
    EXPECT_FALSE(pool.Allocate().ok());
  }));
  EXPECT_TRUE(lease.held());
  EXPECT_FALSE(pool.Allocate().ok());
}

TEST_F(IdRangePoolCrashTest, ForkedChildDoesNotKeepWhatIsReleased) {
  ASSERT_OK_AND_ASSIGN(IdRangePool pool, Open(1));
  ASSERT_OK_AND_ASSIGN(IdRangeLease lease, pool.Allocate());
  const pid_t child = Fork(PauseForever);
  lease.Release();
  EXPECT_OK(pool.Allocate());
  Kill(child);
}

TEST_F(IdRangePoolCrashTest, ForkedChildHasLeasesOfItsOwn) {
  ASSERT_OK_AND_ASSIGN(IdRangePool pool, Open(2));
  ASSERT_OK_AND_ASSIGN(IdRangeLease lease, pool.Allocate());
  Signal ready;
  const pid_t child = Fork([&] {
    auto own = pool.Allocate();
    ASSERT_OK(own);
    ready.Send();
    PauseForever();
  });
  ready.Wait();
  EXPECT_FALSE(pool.Allocate().ok());
  Kill(child);
  EXPECT_OK(pool.Allocate());
}

// The child has the launcher's socket, too, so the containers live.
TEST_F(IdRangePoolCrashTest, KilledOwnersLeaseLastsAsLongAsItsForkedChild) {
  ASSERT_OK_AND_ASSIGN(IdRangePool pool, Open(1));
  Signal ready;
  const pid_t owner = Fork([&] {
    auto lease = pool.Allocate();
    ASSERT_OK(lease);
    ready.Send(Fork(PauseForever));
    PauseForever();
  });
  const pid_t grandchild = ready.Wait();
  const UniqueFd pidfd(
      static_cast<int>(::syscall(SYS_pidfd_open, grandchild, 0)));
  ASSERT_TRUE(pidfd.valid());
  Kill(owner);
  EXPECT_FALSE(pool.Allocate().ok());
  ASSERT_EQ(::syscall(SYS_pidfd_send_signal, pidfd.get(), SIGKILL, nullptr, 0),
            0);
  pollfd ended = {pidfd.get(), POLLIN, 0};
  ASSERT_EQ(::poll(&ended, 1, -1), 1);
  EXPECT_OK(pool.Allocate());
}

TEST_F(IdRangePoolCrashTest, DuplicateKeepsTheRangeAfterTheOwner) {
  ASSERT_OK_AND_ASSIGN(IdRangePool pool, Open(1));
  ASSERT_OK_AND_ASSIGN(IdRangeLease lease, pool.Allocate());
  UniqueFd copy(::fcntl(lease.fd().get(), F_DUPFD_CLOEXEC, 0));
  ExpectSuccess(Fork([&] {
    // As after exec: the object is gone, the descriptor is there.
    { IdRangeLease moved = std::move(lease); }
    EXPECT_EQ(::fcntl(copy.get(), F_GETFD), FD_CLOEXEC);
    EXPECT_FALSE(pool.Allocate().ok());
  }));
  lease.Release();
  EXPECT_OK(pool.Allocate());
}

// ---- kill ------------------------------------------------------------------

constexpr int kRanges = 12;
constexpr int kNames = 3;
constexpr int kWorkers = 8;
constexpr int kKills = 100;
constexpr int kMaxGenerations = kWorkers + kKills + 1;

// Shared by all processes: who has which range, by the test's own count.
struct Ledger {
  std::atomic<int> owner[kRanges];  // generation of a worker; 0: nobody
  std::atomic<bool> doomed[kMaxGenerations + 1];  // about to be killed
  std::atomic<uint32_t> of_name[kNames];          // first user id; 0: none yet
  std::atomic<int> violations;
  std::atomic<int> leases;
  std::atomic<bool> stop;
};

class SharedLedger {
 public:
  SharedLedger()
      : ledger_(static_cast<Ledger*>(
            ::mmap(nullptr, sizeof(Ledger), PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS, -1, 0))) {}
  ~SharedLedger() { ::munmap(ledger_, sizeof(Ledger)); }
  Ledger* operator->() const { return ledger_; }
  Ledger& operator*() const { return *ledger_; }

 private:
  Ledger* ledger_;
};

void Enter(Ledger& ledger, const IdRangeLease& lease, int generation) {
  auto& owner = ledger.owner[(lease.uids().outside - kFirst) / kSize];
  int before = 0;
  while (!owner.compare_exchange_strong(before, generation)) {
    if (before != 0 && !ledger.doomed[before]) {
      ++ledger.violations;
      return;
    }
  }
  ++ledger.leases;
}

void Leave(Ledger& ledger, const IdRangeLease& lease, int generation) {
  auto& owner = ledger.owner[(lease.uids().outside - kFirst) / kSize];
  int expected = generation;
  if (!owner.compare_exchange_strong(expected, 0)) ++ledger.violations;
}

void CheckName(Ledger& ledger, const IdRangeLease& lease, int name) {
  uint32_t before = 0;
  const uint32_t uid = lease.uids().outside;
  if (!ledger.of_name[name].compare_exchange_strong(before, uid) &&
      before != uid) {
    ++ledger.violations;
  }
}

void Work(Ledger& ledger, IdRangePool& pool, int generation) {
  std::minstd_rand random(static_cast<unsigned>(generation));
  while (!ledger.stop) {
    const int name = static_cast<int>(random() % (2 * kNames));
    auto lease = name < kNames ? pool.AllocateNamed(absl::StrCat("n", name))
                               : pool.Allocate();
    if (!lease.ok()) {
      if (!absl::IsResourceExhausted(lease.status()) &&
          !absl::IsAlreadyExists(lease.status())) {
        ADD_FAILURE() << lease.status();
        ++ledger.violations;
      }
      continue;
    }
    Enter(ledger, *lease, generation);
    if (name < kNames) CheckName(ledger, *lease, name);
    auto second = pool.Allocate();
    if (second.ok()) {
      Enter(ledger, *second, generation);
      Leave(ledger, *second, generation);
    }
    Leave(ledger, *lease, generation);
  }
}

TEST_F(IdRangePoolCrashTest, RacingProcessesAndKilledHoldersShareNoRange) {
  ASSERT_OK_AND_ASSIGN(IdRangePool pool, Open(kRanges));
  SharedLedger ledger;
  int generation = 0;
  const auto start = [&] {
    const int mine = ++generation;
    return std::pair(mine, Fork([&, mine] {
                       auto own = Open(kRanges);
                       ASSERT_OK(own);
                       Work(*ledger, *own, mine);
                     }));
  };
  std::vector<std::pair<int, pid_t>> workers;
  for (int i = 0; i < kWorkers; ++i) workers.push_back(start());
  std::minstd_rand random(1);
  for (int i = 0; i < kKills; ++i) {
    // At least one lease between two kills; where it hits is up to chance.
    const int before = ledger->leases;
    while (ledger->leases == before) ::sched_yield();
    auto& worker = workers[random() % kWorkers];
    ledger->doomed[worker.first] = true;
    Kill(worker.second);
    worker = start();
  }
  ledger->stop = true;
  for (const auto& [mine, pid] : workers) ExpectSuccess(pid);
  EXPECT_EQ(ledger->violations, 0);
  EXPECT_GT(ledger->leases, kKills);
  // Nothing is held: all of it can be had, the names first.
  std::vector<IdRangeLease> all;
  for (int i = 0; i < kNames; ++i) {
    ASSERT_OK_AND_ASSIGN(IdRangeLease lease,
                         pool.AllocateNamed(absl::StrCat("n", i)));
    if (ledger->of_name[i] != 0) {
      EXPECT_EQ(lease.uids().outside, ledger->of_name[i]);
    }
    all.push_back(std::move(lease));
  }
  for (int i = kNames; i < kRanges; ++i) {
    ASSERT_OK_AND_ASSIGN(IdRangeLease lease, pool.Allocate());
    all.push_back(std::move(lease));
  }
  EXPECT_EQ(pool.Reservations()->size(), size_t{kNames});
}

// ---- Things that need root -------------------------------------------------

class IdRangePoolRootTest : public IdRangePoolCrashTest {
 protected:
  void SetUp() override {
    IdRangePoolCrashTest::SetUp();
    if (::geteuid() == 0) return;
    if (testing::TestsMustRun()) FAIL() << "needs root";
    GTEST_SKIP() << "needs root";
  }
};

TEST_F(IdRangePoolRootTest, DirectoryOfAnotherUserIsRefused) {
  const std::string state = absl::StrCat(root_, "/state");
  ASSERT_EQ(::mkdir(state.c_str(), 0700), 0);
  ASSERT_EQ(::chown(state.c_str(), 65534, 65534), 0);
  EXPECT_THAT(Open(1), StatusIs(absl::StatusCode::kPermissionDenied,
                                HasSubstr("belongs to uid 65534")));
  ASSERT_EQ(::chown(state.c_str(), 0, 0), 0);
  ASSERT_OK(Open(1));
  ASSERT_EQ(::chown((state + "/lock").c_str(), 65534, 0), 0);
  EXPECT_THAT(Open(1), StatusIs(absl::StatusCode::kPermissionDenied,
                                HasSubstr("/lock\" must belong to uid 0")));
}

TEST_F(IdRangePoolRootTest, FullDiskIsMetWhenThePoolIsOpened) {
  ExpectSuccess(Fork([&] {
    ASSERT_EQ(::unshare(CLONE_NEWNS), 0);
    ASSERT_EQ(::mount("", "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
    ASSERT_EQ(::mount("tmpfs", root_.c_str(), "tmpfs", 0, "size=64k"), 0);
    const std::string filler = absl::StrCat(root_, "/filler");
    const auto fill = [&] {
      std::ofstream file(filler, std::ios::binary);
      file << std::string(1 << 20, 'x');
    };
    fill();
    EXPECT_THAT(Open(2), StatusIs(absl::StatusCode::kResourceExhausted,
                                  AllOf(HasSubstr("write(\"lock\")"),
                                        HasSubstr("ENOSPC"))));
    ASSERT_EQ(::unlink(filler.c_str()), 0);
    auto pool = Open(2);
    ASSERT_OK(pool);
    fill();
    auto a = pool->Allocate();
    auto b = pool->Allocate();
    EXPECT_OK(a);
    EXPECT_OK(b);
    EXPECT_NE(a->uids().outside, b->uids().outside);
    EXPECT_OK(Open(2));
  }));
}

TEST_F(IdRangePoolRootTest, NamesAreRefusedWhereARebootForgetsThem) {
  ExpectSuccess(Fork([&] {
    ASSERT_EQ(::unshare(CLONE_NEWNS), 0);
    ASSERT_EQ(::mount("", "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
    ASSERT_EQ(::mount("tmpfs", root_.c_str(), "tmpfs", 0, "size=64k"), 0);
    auto pool = Open(1);
    ASSERT_OK(pool);
    EXPECT_THAT(pool->AllocateNamed("web"),
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         HasSubstr("is on a tmpfs")));
    EXPECT_TRUE(pool->Reservations()->empty());
    EXPECT_OK(pool->Allocate());
  }));
}

}  // namespace
}  // namespace caisson
