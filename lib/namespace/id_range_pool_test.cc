#include "caisson/id_range_pool.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "lib/base/status_matchers.h"
#include "lib/sys/file_lock.h"

namespace caisson {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr uint32_t kFirst = 1000000;
constexpr uint32_t kSize = 65536;

class IdRangePoolTest : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = absl::StrCat(::testing::TempDir(), "ids-XXXXXX");
    ASSERT_NE(::mkdtemp(root_.data()), nullptr);
    ASSERT_EQ(::mkdir(Etc("").c_str(), 0755), 0);
    Write(Etc("passwd"), "root:x:0:0::/:\nweb:x:1000:1000::/:\n");
    Write(Etc("group"), "root:x:0:\nweb:x:1000:\n");
  }
  void TearDown() override { std::filesystem::remove_all(root_); }

  std::string Etc(const std::string& file) const {
    return absl::StrCat(root_, "/etc/", file);
  }
  std::string State(const std::string& file) const {
    return absl::StrCat(root_, "/state/", file);
  }
  static void Write(const std::string& path, const std::string& text) {
    std::ofstream(path) << text;
  }
  // A pool of `ranges` ranges.
  IdRangePoolOptions Options(uint32_t ranges) const {
    IdRangePoolOptions options;
    options.directory = absl::StrCat(root_, "/state");
    options.etc_directory = absl::StrCat(root_, "/etc");
    options.range = {kFirst, ranges * kSize};
    return options;
  }
  absl::StatusOr<IdRangePool> Open(uint32_t ranges) const {
    return IdRangePool::Open(Options(ranges));
  }

  std::string root_;
};

uint32_t Index(const IdRangeLease& lease) {
  return (lease.uids().outside - kFirst) / kSize;
}

TEST_F(IdRangePoolTest, LeaseIsARangeFromRootOn) {
  ASSERT_OK_AND_ASSIGN(IdRangePool pool, Open(3));
  EXPECT_EQ(pool.size(), 3u);
  ASSERT_OK_AND_ASSIGN(IdRangeLease lease, pool.Allocate());
  EXPECT_TRUE(lease.held());
  EXPECT_EQ(lease.uids().inside, 0u);
  EXPECT_EQ(lease.uids().outside, kFirst);
  EXPECT_EQ(lease.uids().count, kSize);
  EXPECT_EQ(lease.gids().outside, kFirst);
  EXPECT_EQ(lease.gids().count, kSize);
  EXPECT_EQ(lease.name(), "");
  EXPECT_NE(::fcntl(lease.fd().get(), F_GETFD) & FD_CLOEXEC, 0);
  lease.Release();
  EXPECT_FALSE(lease.held());
  lease.Release();
}

TEST_F(IdRangePoolTest, RangesGoRound) {
  ASSERT_OK_AND_ASSIGN(IdRangePool pool, Open(3));
  std::vector<uint32_t> order;
  for (int i = 0; i < 7; ++i) {
    ASSERT_OK_AND_ASSIGN(IdRangeLease lease, pool.Allocate());
    order.push_back(Index(lease));
    // The turn is the directory's, not the object's.
    ASSERT_OK_AND_ASSIGN(pool, Open(3));
  }
  EXPECT_THAT(order, ElementsAre(0, 1, 2, 0, 1, 2, 0));
}

TEST_F(IdRangePoolTest, ExhaustionNamesThePool) {
  ASSERT_OK_AND_ASSIGN(IdRangePool pool, Open(3));
  ASSERT_OK_AND_ASSIGN(IdRangePool other, Open(3));
  ASSERT_OK_AND_ASSIGN(IdRangeLease kept, pool.AllocateNamed("kept"));
  std::vector<IdRangeLease> leases;
  for (IdRangePool* p : {&pool, &other}) {
    ASSERT_OK_AND_ASSIGN(IdRangeLease lease, p->Allocate());
    leases.push_back(std::move(lease));
  }
  EXPECT_THAT(other.Allocate(),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       AllOf(HasSubstr("/state\" (uids "
                                       "1000000-1196607, gids"),
                             HasSubstr("all 3 ranges of 65536 ids are taken: "
                                       "3 in use, 0 reserved by name"))));
  kept.Release();
  EXPECT_THAT(pool.Allocate(),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("2 in use, 1 reserved by name")));
  EXPECT_THAT(pool.AllocateNamed("more"),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("3")));
  EXPECT_THAT(*pool.Reservations(), SizeIs(1));
  leases.erase(leases.begin());
  ASSERT_OK_AND_ASSIGN(IdRangeLease again, other.Allocate());
  EXPECT_EQ(Index(again), 1u);
}

TEST_F(IdRangePoolTest, LeasesMove) {
  ASSERT_OK_AND_ASSIGN(IdRangePool pool, Open(2));
  ASSERT_OK_AND_ASSIGN(IdRangeLease a, pool.Allocate());
  ASSERT_OK_AND_ASSIGN(IdRangeLease b, pool.Allocate());
  b = std::move(a);
  EXPECT_EQ(Index(b), 0u);
  ASSERT_OK_AND_ASSIGN(IdRangeLease c, pool.Allocate());
  EXPECT_EQ(Index(c), 1u);
  EXPECT_FALSE(pool.Allocate().ok());
  // The pool need not outlive its leases.
  { IdRangePool gone = std::move(pool); }
  EXPECT_TRUE(c.held());
  ASSERT_OK_AND_ASSIGN(pool, Open(2));
  EXPECT_FALSE(pool.Allocate().ok());
}

// For a container that outlives the lease: the range belongs to whoever has a
// duplicate, until all are closed.
TEST_F(IdRangePoolTest, DisownedRangeStaysWithItsDuplicates) {
  ASSERT_OK_AND_ASSIGN(IdRangePool pool, Open(1));
  UniqueFd launchers;
  {
    ASSERT_OK_AND_ASSIGN(IdRangeLease lease, pool.Allocate());
    launchers.reset(::fcntl(lease.fd().get(), F_DUPFD_CLOEXEC, 3));
    ASSERT_TRUE(launchers.valid());
    lease.Disown();
    EXPECT_FALSE(lease.held());
    lease.Release();
  }
  EXPECT_THAT(pool.Allocate(), StatusIs(absl::StatusCode::kResourceExhausted,
                                        HasSubstr("1 in use")));
  launchers.reset();
  EXPECT_OK(pool.Allocate());
}

TEST_F(IdRangePoolTest, PoolsOfOtherShapesNeverShareAnId) {
  IdRangePoolOptions small = Options(2);
  small.range = {kFirst + 1000, kSize};
  small.ids_per_container = 10000;
  ASSERT_OK_AND_ASSIGN(IdRangePool big, Open(2));
  ASSERT_OK_AND_ASSIGN(IdRangePool little, IdRangePool::Open(small));
  EXPECT_EQ(little.size(), 6u);
  ASSERT_OK_AND_ASSIGN(IdRangeLease first, big.Allocate());
  // Each of the small ones has ids of the first big one.
  EXPECT_THAT(little.Allocate(),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("6")));
  first.Release();
  ASSERT_OK_AND_ASSIGN(IdRangeLease lease, little.Allocate());
  ASSERT_OK_AND_ASSIGN(IdRangeLease second, big.Allocate());
  EXPECT_EQ(Index(second), 1u);
  EXPECT_FALSE(big.Allocate().ok());
}

TEST_F(IdRangePoolTest, ThreadsGetDifferentRanges) {
  constexpr int kThreads = 8;
  constexpr int kEach = 25;
  ASSERT_OK_AND_ASSIGN(IdRangePool pool, Open(kThreads * kEach));
  std::vector<std::vector<IdRangeLease>> leases(kThreads);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) {
        const auto allocate = [&] {
          return t % 2 == 0 ? pool.Allocate()
                            : pool.AllocateNamed(absl::StrCat(t, "-", i));
        };
        // Given back at once, which must disturb nobody.
        EXPECT_OK(allocate());
        auto lease = allocate();
        EXPECT_OK(lease);
        if (lease.ok()) leases[t].push_back(*std::move(lease));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::vector<bool> seen(kThreads * kEach);
  for (const auto& own : leases) {
    for (const IdRangeLease& lease : own) {
      EXPECT_FALSE(seen[Index(lease)]);
      seen[Index(lease)] = true;
    }
  }
}

// ---- Names -----------------------------------------------------------------

TEST_F(IdRangePoolTest, NameKeepsItsRange) {
  ASSERT_OK_AND_ASSIGN(IdRangePool pool, Open(3));
  ASSERT_OK_AND_ASSIGN(IdRangeLease before, pool.Allocate());
  ASSERT_OK_AND_ASSIGN(IdRangeLease web, pool.AllocateNamed("web"));
  EXPECT_EQ(Index(web), 1u);
  EXPECT_EQ(web.name(), "web");
  EXPECT_TRUE(
      std::filesystem::exists(State("names/web@1065536-1065536-65536")));
  EXPECT_THAT(pool.AllocateNamed("web"),
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("\"web\"")));
  EXPECT_THAT(pool.Forget("web"),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("release the lease first")));
  web.Release();
  before.Release();
  // Nobody else gets it meanwhile.
  ASSERT_OK_AND_ASSIGN(IdRangePool other, Open(3));
  for (int i = 0; i < 4; ++i) {
    ASSERT_OK_AND_ASSIGN(IdRangeLease lease, other.Allocate());
    EXPECT_NE(Index(lease), 1u);
  }
  ASSERT_OK_AND_ASSIGN(web, other.AllocateNamed("web"));
  EXPECT_EQ(Index(web), 1u);
  ASSERT_OK_AND_ASSIGN(const auto reservations, other.Reservations());
  ASSERT_THAT(reservations, SizeIs(1));
  EXPECT_EQ(reservations[0].name, "web");
  EXPECT_EQ(reservations[0].first_uid, kFirst + kSize);
  web.Release();
  ASSERT_OK(pool.Forget("web"));
  EXPECT_THAT(pool.Forget("web"),
              StatusIs(absl::StatusCode::kNotFound,
                       HasSubstr("no reservation \"web\"")));
  EXPECT_THAT(*pool.Reservations(), IsEmpty());
  std::vector<IdRangeLease> all;
  for (int i = 0; i < 3; ++i) {
    ASSERT_OK_AND_ASSIGN(IdRangeLease lease, pool.Allocate());
    all.push_back(std::move(lease));
  }
}

TEST_F(IdRangePoolTest, NamesAreChecked) {
  ASSERT_OK_AND_ASSIGN(IdRangePool pool, Open(1));
  for (const char* bad :
       {"", ".", "..", "-a", "a/b", "../a", "a@b", "a b", "a\n", "\xc3\xa9"}) {
    EXPECT_THAT(pool.AllocateNamed(bad),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("name")))
        << bad;
    EXPECT_FALSE(pool.Forget(bad).ok());
  }
  EXPECT_THAT(pool.AllocateNamed(std::string(129, 'a')),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("129")));
  EXPECT_OK(pool.AllocateNamed(std::string(128, 'a')));
}

TEST_F(IdRangePoolTest, ReservationsThatNoLongerFitAreRefused) {
  {
    ASSERT_OK_AND_ASSIGN(IdRangePool pool, Open(2));
    ASSERT_OK_AND_ASSIGN(IdRangeLease first, pool.Allocate());
    ASSERT_OK(pool.AllocateNamed("web"));
  }
  IdRangePoolOptions sized = Options(2);
  sized.ids_per_container = 1000;
  ASSERT_OK_AND_ASSIGN(IdRangePool other_size, IdRangePool::Open(sized));
  EXPECT_THAT(other_size.AllocateNamed("web"),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("has 65536 ids")));
  ASSERT_OK_AND_ASSIGN(IdRangePool shorter, Open(1));
  EXPECT_THAT(shorter.AllocateNamed("web"),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("uids 1065536-1131071")));
  // But it is kept, whatever the pool looks like.
  for (int i = 0; i < 70; ++i) {
    ASSERT_OK_AND_ASSIGN(IdRangeLease lease, other_size.Allocate());
    EXPECT_LT(lease.uids().outside, kFirst + kSize);
  }
  IdRangePoolOptions shifted = Options(2);
  shifted.range = {kFirst + 7, 2 * kSize};
  ASSERT_OK_AND_ASSIGN(IdRangePool moved, IdRangePool::Open(shifted));
  ASSERT_OK_AND_ASSIGN(IdRangeLease web, moved.AllocateNamed("web"));
  EXPECT_EQ(web.uids().outside, kFirst + kSize);
}

TEST_F(IdRangePoolTest, FailedReservationLeavesNothing) {
  ASSERT_OK_AND_ASSIGN(IdRangePool pool, Open(1));
  std::filesystem::remove(State("names"));
  EXPECT_THAT(pool.AllocateNamed("web"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("ENOENT")));
  ASSERT_OK_AND_ASSIGN(IdRangePool again, Open(1));
  EXPECT_OK(again.Allocate());
  EXPECT_THAT(*again.Reservations(), IsEmpty());
}

// ---- Where the ids come from -----------------------------------------------

TEST_F(IdRangePoolTest, SubidFilesGiveUsersAndGroups) {
  Write(Etc("subuid"), "web:2000000:131072\nother:9000000:65536\n");
  Write(Etc("subgid"), "1000:3000000:65536\nweb:4000000:65536\n");
  IdRangePoolOptions options = Options(0);
  options.range = {};
  options.subid_user = "web";
  ASSERT_OK_AND_ASSIGN(IdRangePool pool, IdRangePool::Open(options));
  EXPECT_EQ(pool.size(), 2u);
  ASSERT_OK_AND_ASSIGN(IdRangeLease a, pool.Allocate());
  ASSERT_OK_AND_ASSIGN(IdRangeLease b, pool.Allocate());
  EXPECT_EQ(a.uids().outside, 2000000u);
  EXPECT_EQ(a.gids().outside, 3000000u);
  EXPECT_EQ(b.uids().outside, 2065536u);
  EXPECT_EQ(b.gids().outside, 4000000u);
}

// Ranges of user ids that differ do not help if those of group ids meet.
TEST_F(IdRangePoolTest, GroupIdsAreExclusiveToo) {
  Write(Etc("subuid"), "a:2000000:65536\nb:3000000:65536\n");
  Write(Etc("subgid"), "a:5000000:65536\nb:5000000:65536\n");
  IdRangePoolOptions options = Options(0);
  options.range = {};
  options.subid_user = "a";
  EXPECT_THAT(IdRangePool::Open(options),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("line 2, gives to \"b\"")));
  options.unsafe_host_ids = HostIdsAllowed{};
  ASSERT_OK_AND_ASSIGN(IdRangePool a, IdRangePool::Open(options));
  options.subid_user = "b";
  ASSERT_OK_AND_ASSIGN(IdRangePool b, IdRangePool::Open(options));
  ASSERT_OK_AND_ASSIGN(IdRangeLease lease, a.Allocate());
  EXPECT_THAT(b.Allocate(), StatusIs(absl::StatusCode::kResourceExhausted,
                                     HasSubstr("1 in use")));
  lease.Release();
  EXPECT_OK(b.Allocate());
}

TEST_F(IdRangePoolTest, MissingSubidFilesAreExplained) {
  IdRangePoolOptions options = Options(0);
  options.range = {};
  options.subid_user = "web";
  EXPECT_THAT(IdRangePool::Open(options),
              StatusIs(absl::StatusCode::kNotFound,
                       AllOf(HasSubstr("/etc/subuid\"): ENOENT"),
                             HasSubstr("web:1000000:1048576"))));
  Write(Etc("subuid"), "web:2000000:65536\n");
  EXPECT_THAT(
      IdRangePool::Open(options),
      StatusIs(absl::StatusCode::kNotFound, HasSubstr("/etc/subgid\")")));
  Write(Etc("subgid"), "web:2000000:65536\nmalformed\n");
  EXPECT_THAT(
      IdRangePool::Open(options),
      StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("line 2")));
  EXPECT_FALSE(std::filesystem::exists(State("")));
}

TEST_F(IdRangePoolTest, OptionsAreChecked) {
  const auto with = [&](HostIdRange range) {
    IdRangePoolOptions options = Options(0);
    options.range = range;
    return IdRangePool::Open(options).status();
  };
  EXPECT_THAT(with({}), StatusIs(absl::StatusCode::kInvalidArgument,
                                 HasSubstr("range or subid_user")));
  EXPECT_THAT(with({kFirst, 0}), StatusIs(absl::StatusCode::kInvalidArgument,
                                          HasSubstr("has no ids")));
  EXPECT_THAT(with({4294901760, 65536}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("ends at 4294967295")));
  EXPECT_THAT(with({4294967295, 4294967295}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("ends")));
  EXPECT_OK(with({4294901759, 65536}));
  EXPECT_THAT(with({kFirst, 1000}), StatusIs(absl::StatusCode::kInvalidArgument,
                                             HasSubstr("ids_per_container")));
  EXPECT_THAT(with({60000, 65536}),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("unsafe_host_ids")));
  IdRangePoolOptions both = Options(1);
  both.subid_user = "web";
  EXPECT_THAT(IdRangePool::Open(both),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("range or subid_user")));
}

TEST_F(IdRangePoolTest, IdsOfAccountsNeedTheToken) {
  Write(Etc("group"), "root:x:0:\nfar:x:1000001:\n");
  EXPECT_THAT(Open(1), StatusIs(absl::StatusCode::kFailedPrecondition,
                                HasSubstr("id 1000001 of \"far\"")));
  IdRangePoolOptions options = Options(1);
  options.unsafe_host_ids = HostIdsAllowed{};
  EXPECT_OK(IdRangePool::Open(options));
  options.range = {0, 65536};
  ASSERT_OK_AND_ASSIGN(IdRangePool pool, IdRangePool::Open(options));
  ASSERT_OK_AND_ASSIGN(IdRangeLease lease, pool.Allocate());
  EXPECT_EQ(lease.uids().outside, 0u);
}

// ---- The directory ---------------------------------------------------------

TEST_F(IdRangePoolTest, DirectoryIsPrivateWhateverTheUmask) {
  const mode_t old = ::umask(0);
  ASSERT_OK(Open(1));
  ::umask(old);
  struct stat info;
  for (const auto& [file, mode] :
       {std::pair{"", 0700}, {"lock", 0600}, {"names", 0700}}) {
    ASSERT_EQ(::stat(State(file).c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 07777, static_cast<mode_t>(mode)) << file;
  }
}

TEST_F(IdRangePoolTest, HostileDirectoriesAreRefused) {
  std::filesystem::create_directory(root_ + "/real");
  ASSERT_EQ(::chmod((root_ + "/real").c_str(), 0700), 0);
  ASSERT_EQ(::symlink("real", (root_ + "/state").c_str()), 0);
  EXPECT_THAT(Open(1).status().message(), HasSubstr("no symbolic link"));
  EXPECT_TRUE(std::filesystem::is_empty(root_ + "/real"));
  IdRangePoolOptions options = Options(1);
  options.directory += "//";
  EXPECT_THAT(IdRangePool::Open(options).status().message(),
              HasSubstr("no symbolic link"));
  for (const std::string& path :
       {root_ + "/state/.", root_ + "/state/../real", std::string("state"),
        std::string("/"), std::string(), root_ + std::string("/a\0b", 4)}) {
    options.directory = path;
    EXPECT_THAT(IdRangePool::Open(options),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("absolute path")));
  }
  std::filesystem::remove(root_ + "/state");
  Write(root_ + "/state", "");
  EXPECT_THAT(Open(1).status().message(), HasSubstr("ENOTDIR"));
  std::filesystem::remove(root_ + "/state");
  for (const mode_t mode : {0755, 0750, 0701, 0720}) {
    std::filesystem::create_directory(root_ + "/state");
    ASSERT_EQ(::chmod((root_ + "/state").c_str(), mode), 0);
    EXPECT_THAT(Open(1), StatusIs(absl::StatusCode::kPermissionDenied,
                                  AllOf(HasSubstr("IdRangePoolOptions.dir"),
                                        HasSubstr("with mode 07"))));
    EXPECT_TRUE(std::filesystem::is_empty(root_ + "/state"));
  }
}

TEST_F(IdRangePoolTest, HostileFilesAreRefused) {
  ASSERT_OK(Open(1));
  const std::string lock = State("lock");
  std::filesystem::remove(lock);
  ASSERT_EQ(::symlink("/etc/hostname", lock.c_str()), 0);
  EXPECT_THAT(Open(1).status().message(), HasSubstr("ELOOP"));
  std::filesystem::remove(lock);
  ASSERT_EQ(::mkfifo(lock.c_str(), 0600), 0);
  EXPECT_THAT(Open(1).status().message(), HasSubstr("not a regular file"));
  std::filesystem::remove(lock);
  ASSERT_EQ(::mkdir(lock.c_str(), 0700), 0);
  EXPECT_THAT(Open(1).status().message(), HasSubstr("EISDIR"));
  std::filesystem::remove(lock);
  Write(lock, "");
  ASSERT_EQ(::chmod(lock.c_str(), 0644), 0);
  EXPECT_THAT(Open(1), StatusIs(absl::StatusCode::kPermissionDenied,
                                HasSubstr("/lock\" must belong to")));
  std::filesystem::remove(lock);
  std::filesystem::remove(State("names"));
  ASSERT_EQ(::symlink("..", State("names").c_str()), 0);
  EXPECT_FALSE(Open(1).ok());
  std::filesystem::remove(State("names"));
  EXPECT_OK(Open(1));
}

TEST_F(IdRangePoolTest, GarbageIsPassedOver) {
  ASSERT_OK(Open(2));
  for (const char* text : {"", "garbage", "9999999999\n", "4294967294\n",
                           "-000000001\n", "0001065536\nand more"}) {
    Write(State("lock"), text);
    ASSERT_OK_AND_ASSIGN(IdRangePool pool, Open(2));
    EXPECT_OK(pool.Allocate()) << text;
  }
  for (const char* junk : {"web", "web@1", "web@1-2-x", "-@1-2-3", "x y"}) {
    Write(State(absl::StrCat("names/", junk)), "junk");
  }
  ASSERT_EQ(::mkdir(State("names/dir").c_str(), 0700), 0);
  ASSERT_OK_AND_ASSIGN(IdRangePool pool, Open(2));
  EXPECT_THAT(*pool.Reservations(), IsEmpty());
  EXPECT_OK(pool.AllocateNamed("web"));
  // What reads as a reservation is one, whatever kind of file it is.
  ASSERT_EQ(::mkdir(State("names/x@1065536-1065536-1").c_str(), 0700), 0);
  ASSERT_OK_AND_ASSIGN(const auto reservations, pool.Reservations());
  EXPECT_THAT(reservations, SizeIs(2));
  EXPECT_FALSE(pool.Forget("x").ok());
}

// As if its process were stopped or frozen.
TEST_F(IdRangePoolTest, NobodyWaitsForTheTurn) {
  ASSERT_OK_AND_ASSIGN(IdRangePool pool, Open(2));
  const UniqueFd lock(::open(State("lock").c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_TRUE(
      *sys::TryLockExclusive(lock.borrow(), "lock", {off_t{1} << 33, 1}));
  ASSERT_OK_AND_ASSIGN(IdRangeLease a, pool.Allocate());
  ASSERT_OK_AND_ASSIGN(IdRangeLease b, pool.AllocateNamed("web"));
  EXPECT_NE(Index(a), Index(b));
  EXPECT_OK(Open(2));
}

TEST_F(IdRangePoolTest, RemovedStateIsNoticed) {
  ASSERT_OK_AND_ASSIGN(IdRangePool pool, Open(2));
  ASSERT_OK_AND_ASSIGN(IdRangeLease lease, pool.Allocate());
  std::filesystem::remove(State("lock"));
  EXPECT_THAT(pool.Allocate(),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("was removed while the pool was open")));
  ASSERT_OK(Open(2));
  EXPECT_THAT(pool.Allocate(),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("was removed while the pool was open")));
  std::filesystem::remove_all(root_ + "/state");
  EXPECT_FALSE(pool.Allocate().ok());
  EXPECT_FALSE(pool.Forget("web").ok());
  EXPECT_FALSE(pool.AllocateNamed("web").ok());
}

}  // namespace
}  // namespace caisson
