#include "lib/net/lease.h"

#include <fcntl.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "lib/base/status_matchers.h"
#include "lib/net/network_dir.h"

namespace caisson {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class LeaseTest : public ::testing::Test {
 protected:
  void SetUp() override {
    path_ = absl::StrCat(::testing::TempDir(), "/lease-XXXXXX");
    ASSERT_NE(::mkdtemp(path_.data()), nullptr);
    network_.name = "web";
    network_.subnet = *ParseIpv4Subnet("s", "10.1.2.0/29");
    network_.gateway = {0x0a010201};
    dir_ = OpenDir();
  }
  void TearDown() override { std::filesystem::remove_all(path_); }

  std::unique_ptr<NetworkDir> OpenDir() {
    absl::StatusOr<StateRoot> root = StateRoot::Open(path_, /*create=*/true);
    EXPECT_OK(root);
    absl::StatusOr<NetworkDir> dir =
        NetworkDir::Open(*root, "web", /*create=*/true);
    EXPECT_OK(dir);
    return std::make_unique<NetworkDir>(*std::move(dir));
  }
  LeaseStore Store(const NetworkDir& dir) {
    return LeaseStore(&dir, network_, [this](const LeaseRecord& lease) {
      reaped_.push_back(lease.name);
      return reaper_result_;
    });
  }
  LeaseStore Store() { return Store(*dir_); }

  static LeaseRecord Named(const std::string& name) {
    LeaseRecord record;
    record.name = name;
    record.veth = "csaaaaabbbbbbbb";
    record.veth_mac = {2, 0, 0, 0, 0, 1};
    return record;
  }
  // A file as a dead process leaves it.
  void PlantStale(const std::string& address, const std::string& name) {
    LeaseRecord record = Named(name);
    record.address = *ParseIpv4Address("a", address);
    std::ofstream(path_ + "/web/leases/" + address) << record.ToString();
    std::filesystem::create_hard_link(path_ + "/web/leases/" + address,
                                      path_ + "/web/names/" + name);
  }
  bool Exists(const std::string& file) {
    return std::filesystem::exists(path_ + "/web/" + file);
  }

  std::string path_;
  NetworkRecord network_;
  std::unique_ptr<NetworkDir> dir_;
  std::vector<std::string> reaped_;
  absl::Status reaper_result_;
};

// Several hosts can have adopted one lease.
TEST_F(LeaseTest, AdoptedLeaseGivesNothingOfAnotherBack) {
  LeaseStore store = Store();
  LeaseRecord record = Named("db");
  ASSERT_OK_AND_ASSIGN(Lease lease, store.Allocate(record));
  record.address = lease.address();
  const auto adopt = [&] {
    return Lease::Adopt(UniqueFd(::fcntl(lease.fd().get(), F_DUPFD_CLOEXEC, 3)),
                        record, dir_.get());
  };
  Lease first = adopt();
  Lease second = adopt();
  lease.Disown();
  EXPECT_FALSE(second.IsGone());
  ASSERT_OK(first.Release());
  EXPECT_FALSE(first.IsGone());
  EXPECT_TRUE(second.IsGone());
  ASSERT_OK_AND_ASSIGN(const Lease next, store.Allocate(record));
  ASSERT_OK(second.Release());
  ASSERT_OK_AND_ASSIGN(const std::vector<LeaseRecord> live, store.List());
  ASSERT_THAT(live, SizeIs(1));
  EXPECT_TRUE(Exists("names/db"));
}

TEST_F(LeaseTest, AddressesGoRoundWithoutTheGateway) {
  LeaseStore store = Store();
  std::vector<std::string> addresses;
  std::vector<bool> reused;
  for (int i = 0; i < 7; ++i) {
    ASSERT_OK_AND_ASSIGN(Lease lease, store.Allocate(Named("a")));
    addresses.push_back(lease.address().ToString());
    reused.push_back(lease.reused());
  }
  EXPECT_THAT(addresses,
              ElementsAre("10.1.2.2", "10.1.2.3", "10.1.2.4", "10.1.2.5",
                          "10.1.2.6", "10.1.2.2", "10.1.2.3"));
  EXPECT_THAT(reused,
              ElementsAre(false, false, false, false, false, true, true));
}

TEST_F(LeaseTest, LiveLeasesAreExclusiveAcrossStores) {
  std::unique_ptr<NetworkDir> other_dir = OpenDir();
  LeaseStore one = Store();
  LeaseStore other = Store(*other_dir);
  ASSERT_OK_AND_ASSIGN(Lease a, one.Allocate(Named("a")));
  EXPECT_THAT(other.Allocate(Named("A")),
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("\"A\"")));
  LeaseRecord fixed = Named("b");
  fixed.address = a.address();
  EXPECT_THAT(other.Allocate(fixed), StatusIs(absl::StatusCode::kAlreadyExists,
                                              HasSubstr("10.1.2.2")));
  EXPECT_FALSE(Exists("names/b"));
  ASSERT_OK_AND_ASSIGN(Lease b, other.Allocate(Named("b")));
  EXPECT_EQ(b.address().ToString(), "10.1.2.3");
  ASSERT_OK_AND_ASSIGN(const std::vector<LeaseRecord> live, one.List());
  ASSERT_EQ(live.size(), 2u);
  EXPECT_EQ(live[1].name, "b");
  EXPECT_THAT(*one.ReapStale(), IsEmpty());
  ASSERT_OK(a.Release());
  ASSERT_OK(a.Release());
  EXPECT_FALSE(Exists("leases/10.1.2.2"));
  EXPECT_FALSE(Exists("names/a"));
  EXPECT_OK(other.Allocate(Named("a")));
}

TEST_F(LeaseTest, ExhaustionNamesTheSubnet) {
  LeaseStore store = Store();
  std::vector<Lease> leases;
  for (int i = 0; i < 5; ++i) {
    ASSERT_OK_AND_ASSIGN(Lease lease,
                         store.Allocate(Named(absl::StrCat("n", i))));
    leases.push_back(std::move(lease));
  }
  EXPECT_THAT(store.Allocate(Named("more")),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("all 5 addresses of 10.1.2.0/29")));
  leases.erase(leases.begin() + 2);
  ASSERT_OK_AND_ASSIGN(Lease again, store.Allocate(Named("more")));
  EXPECT_EQ(again.address().ToString(), "10.1.2.4");
}

TEST_F(LeaseTest, FixedAddressesAreChecked) {
  LeaseStore store = Store();
  for (uint32_t last : {0, 1, 7, 8, 255}) {
    LeaseRecord record = Named("a");
    record.address = {0x0a010200 + last};
    EXPECT_THAT(store.Allocate(record),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("EndpointOptions::address")));
  }
}

TEST_F(LeaseTest, StaleLeasesAreReapedWhenInTheWay) {
  PlantStale("10.1.2.2", "dead");
  PlantStale("10.1.2.4", "gone");
  LeaseStore store = Store();
  EXPECT_THAT(*store.List(), IsEmpty());
  ASSERT_OK_AND_ASSIGN(Lease a, store.Allocate(Named("a")));
  EXPECT_EQ(a.address().ToString(), "10.1.2.2");
  EXPECT_THAT(reaped_, ElementsAre("dead"));
  EXPECT_FALSE(Exists("names/dead"));
  // By name.
  ASSERT_OK_AND_ASSIGN(Lease b, store.Allocate(Named("gone")));
  EXPECT_EQ(b.address().ToString(), "10.1.2.3");
  EXPECT_THAT(reaped_, ElementsAre("dead", "gone"));
  EXPECT_FALSE(Exists("leases/10.1.2.4"));
}

TEST_F(LeaseTest, StaleFixedAddressIsReaped) {
  PlantStale("10.1.2.5", "dead");
  LeaseStore store = Store();
  LeaseRecord record = Named("a");
  record.address = {0x0a010205};
  EXPECT_OK(store.Allocate(record));
  EXPECT_THAT(reaped_, ElementsAre("dead"));
}

TEST_F(LeaseTest, LeaseStaysIfTheKernelsSideCannotBeRemoved) {
  PlantStale("10.1.2.2", "dead");
  reaper_result_ = absl::AbortedError("no");
  LeaseStore store = Store();
  EXPECT_FALSE(store.ReapStale().ok());
  EXPECT_TRUE(Exists("leases/10.1.2.2"));
  EXPECT_TRUE(Exists("names/dead"));
  reaper_result_ = absl::OkStatus();
  EXPECT_EQ(store.ReapStale()->size(), 1u);
  EXPECT_FALSE(Exists("leases/10.1.2.2"));
  EXPECT_FALSE(Exists("names/dead"));
}

TEST_F(LeaseTest, HalfWrittenAndOrphanedFilesAreReaped) {
  std::ofstream(path_ + "/web/leases/10.1.2.2") << "caisson-lease 1\nname x";
  std::ofstream(path_ + "/web/leases/10.1.2.3") << "";
  PlantStale("10.1.2.4", "orphan");
  std::filesystem::remove(path_ + "/web/leases/10.1.2.4");
  LeaseStore store = Store();
  EXPECT_EQ(store.ReapStale()->size(), 2u);
  // There was no record of an interface to remove.
  EXPECT_THAT(reaped_, IsEmpty());
  EXPECT_FALSE(Exists("leases/10.1.2.2"));
  EXPECT_FALSE(Exists("leases/10.1.2.3"));
  EXPECT_FALSE(Exists("names/orphan"));
}

// The file says that it is another address's: believe the file's name.
TEST_F(LeaseTest, LyingRecordsHarmNobody) {
  LeaseStore store = Store();
  ASSERT_OK_AND_ASSIGN(Lease a, store.Allocate(Named("a")));
  LeaseRecord liar = Named("a");
  liar.address = a.address();
  std::ofstream(path_ + "/web/leases/10.1.2.3") << liar.ToString();
  EXPECT_EQ(store.ReapStale()->size(), 1u);
  EXPECT_TRUE(Exists("leases/10.1.2.2"));
  EXPECT_TRUE(Exists("names/a"));
  EXPECT_FALSE(Exists("leases/10.1.2.3"));
}

TEST_F(LeaseTest, DamagedCursorIsIgnored) {
  for (const char* text : {"garbage", "10.9.9.9 0\n", "10.1.2.7 0\n",
                           "10.1.2.0 1\n", "255.255.255.255 1\n"}) {
    std::ofstream(path_ + "/web/lock") << text;
    LeaseStore store = Store();
    EXPECT_OK(store.Allocate(Named("a"))) << text;
  }
}

TEST_F(LeaseTest, ConcurrentAllocationsDiffer) {
  network_.subnet = *ParseIpv4Subnet("s", "10.1.0.0/16");
  constexpr int kThreads = 4;
  constexpr int kEach = 25;
  std::vector<std::unique_ptr<NetworkDir>> dirs;
  for (int t = 0; t < kThreads; ++t) dirs.push_back(OpenDir());
  std::vector<std::vector<Lease>> leases(kThreads);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      LeaseStore store = Store(*dirs[t]);
      for (int i = 0; i < kEach; ++i) {
        absl::StatusOr<Lease> lease =
            store.Allocate(Named(absl::StrCat("n", t, "-", i)));
        EXPECT_OK(lease);
        if (lease.ok()) leases[t].push_back(*std::move(lease));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::set<uint32_t> addresses;
  for (const auto& own : leases) {
    for (const Lease& lease : own) addresses.insert(lease.address().value);
  }
  EXPECT_EQ(addresses.size(), size_t{kThreads * kEach});
}

}  // namespace
}  // namespace caisson
