#include "lib/namespace/host_ids.h"

#include <string>
#include <vector>

#include "lib/base/status_matchers.h"
#include "lib/namespace/id_slots.h"
#include "lib/namespace/id_state_dir.h"

namespace caisson {

bool operator==(const HostIdRange& a, const HostIdRange& b) {
  return a.first == b.first && a.count == b.count;
}

namespace ids {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(ParseIdTest, TakesDigitsAlone) {
  EXPECT_EQ(ParseId("0"), 0u);
  EXPECT_EQ(ParseId("4294967294"), 4294967294u);
  for (const char* bad : {"", "-1", "+1", " 1", "1 ", "0x10", "1\r", "1e3",
                          "4294967295", "4294967296", "18446744073709551616"}) {
    EXPECT_FALSE(ParseId(bad).has_value()) << bad;
  }
}

TEST(ParseSubidsTest, ReadsLinesAndSkipsComments) {
  ASSERT_OK_AND_ASSIGN(
      const auto lines,
      ParseSubids("f", "# a comment\nweb:100000:65536\n\n1000:4294967294:1"));
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0].owner, "web");
  EXPECT_EQ(lines[0].range, (HostIdRange{100000, 65536}));
  EXPECT_EQ(lines[0].number, 2);
  EXPECT_EQ(lines[1].owner, "1000");
  EXPECT_EQ(lines[1].range, (HostIdRange{4294967294, 1}));
  EXPECT_EQ(lines[1].number, 4);
  EXPECT_TRUE(ParseSubids("f", "")->empty());
}

TEST(ParseSubidsTest, MalformedLinesAreNamed) {
  const struct {
    std::string line;
    const char* why;
  } kCases[] = {
      {"web:100000", "three fields"},
      {"web:100000:65536:", "three fields"},
      {"web 100000 65536", "three fields"},
      {" ", "three fields"},
      {":100000:65536", "names no user"},
      {"web::65536", "\"\" is not a number"},
      {"web:100000:", "\"\" is not a number"},
      {"web:-1:65536", "\"-1\" is not a number"},
      {"web: 100000:65536", "\" 100000\" is not a number"},
      {"web:100000:65536\r", "\"65536\\r\" is not a number"},
      {std::string("web:1000\0:5", 11), "is not a number"},
      {"web:0x10000:65536", "\"0x10000\" is not a number"},
      {"web:4294967295:1", "\"4294967295\" is not a number"},
      {"web:100000:4294967296", "\"4294967296\" is not a number"},
      {"web:100000:0", "has no ids"},
      {"web:4294967294:2", "ends at 4294967295"},
      {"web:100000:4294967294", "ends at 4295067293"},
  };
  for (const auto& c : kCases) {
    EXPECT_THAT(ParseSubids("/etc/subuid", "a:1:1\n" + c.line + "\nb:2:1\n"),
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         ::testing::AllOf(HasSubstr("\"/etc/subuid\", line 2"),
                                          HasSubstr(c.why))))
        << c.line;
  }
}

constexpr char kPasswd[] =
    "root:x:0:0:root:/root:/bin/sh\n"
    "+::::::\n"
    "broken\n"
    "huge:x:4294967296:0::/:\n"
    "web:x:1000:1000::/home/web:/bin/sh\n"
    "far:x:200000:1000::/:/bin/sh";

TEST(ParseAccountsTest, KeepsWhatHasAnId) {
  std::vector<std::string> names;
  for (const Account& account : ParseAccounts(kPasswd)) {
    names.push_back(account.name);
  }
  EXPECT_THAT(names, ElementsAre("root", "web", "far"));
  EXPECT_EQ(ParseAccounts(kPasswd)[2].id, 200000u);
}

absl::StatusOr<std::vector<HostIdRange>> Ranges(const char* user,
                                                const char* subuid) {
  const auto lines = ParseSubids("/etc/subuid", subuid);
  if (!lines.ok()) return lines.status();
  return RangesOf(FindSubidUser(user, ParseAccounts(kPasswd)), "/etc/subuid",
                  *lines);
}

TEST(RangesOfTest, OwnersAreNamesOrUids) {
  constexpr char kSubuid[] = "web:500000:10\n1000:600000:10\nother:700000:10\n";
  for (const char* user : {"web", "1000"}) {
    EXPECT_THAT(*Ranges(user, kSubuid),
                ElementsAre(HostIdRange{500000, 10}, HostIdRange{600000, 10}))
        << user;
  }
  // Without an account.
  EXPECT_THAT(*Ranges("other", kSubuid), ElementsAre(HostIdRange{700000, 10}));
  EXPECT_THAT(*Ranges("77", "77:1000000:10"),
              ElementsAre(HostIdRange{1000000, 10}));
  EXPECT_THAT(Ranges("nobody", kSubuid),
              StatusIs(absl::StatusCode::kNotFound,
                       HasSubstr("\"/etc/subuid\" has no line of \"nobody\"")));
  EXPECT_THAT(Ranges("web", ""),
              StatusIs(absl::StatusCode::kNotFound,
                       HasSubstr("\"web\" (uid 1000); add one, as in \"web:")));
  EXPECT_THAT(Ranges("5", ""),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("of uid 5")));
}

TEST(RangesOfTest, OverlapsCountOnce) {
  EXPECT_THAT(*Ranges("web",
                      "web:300:50\nweb:100:100\nweb:150:10\nweb:190:20\n"
                      "web:210:5\nweb:100:100\n"),
              ElementsAre(HostIdRange{100, 115}, HostIdRange{300, 50}));
  EXPECT_THAT(*Ranges("web", "web:4294967290:5\nweb:4294967280:10\n"),
              ElementsAre(HostIdRange{4294967280, 15}));
}

absl::Status Check(const HostIdRange& range, const char* subuid,
                   const char* user) {
  const std::vector<Account> accounts = ParseAccounts(kPasswd);
  std::optional<SubidUser> owner;
  if (*user != '\0') owner = FindSubidUser(user, accounts);
  return CheckPrivate(
      range,
      {"/etc/passwd", accounts, "/etc/subuid", *ParseSubids("f", subuid)},
      owner);
}

TEST(CheckPrivateTest, IdsOfTheHostAreRefused) {
  EXPECT_OK(Check({65536, 134464}, "", ""));
  EXPECT_THAT(Check({65535, 10}, "", ""),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("ids 65535-65544 have ids below 65536")));
  for (const HostIdRange& range :
       {HostIdRange{100000, 100001}, {200000, 1}, {200000, 500}}) {
    EXPECT_THAT(Check(range, "", ""),
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         HasSubstr("id 200000 of \"far\" in \"/etc/passwd\"")));
  }
  EXPECT_OK(Check({200001, 500}, "", ""));
}

TEST(CheckPrivateTest, IdsOfOtherSubidUsersAreRefused) {
  constexpr char kSubuid[] = "web:500000:100\n1000:600000:100\nx:599999:2\n";
  EXPECT_OK(Check({500000, 100}, kSubuid, "web"));
  EXPECT_THAT(Check({500000, 100}, kSubuid, ""),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("line 1, gives to \"web\"")));
  EXPECT_THAT(Check({600000, 100}, kSubuid, "web"),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("line 3, gives to \"x\"")));
  EXPECT_OK(Check({599900, 99}, kSubuid, "web"));
}

// ---- IdSlots ---------------------------------------------------------------

TEST(IdSlotsTest, PairsRangesOfDifferentShapes) {
  ASSERT_OK_AND_ASSIGN(
      const IdSlots slots,
      IdSlots::Create({{1000, 25}, {2000, 9}, {3000, 20}}, {{7000, 100}}, 10));
  ASSERT_EQ(slots.size(), 4u);
  const uint32_t uids[] = {1000, 1010, 3000, 3010};
  for (uint32_t i = 0; i < 4; ++i) {
    EXPECT_EQ(slots.at(i).uid, uids[i]);
    EXPECT_EQ(slots.at(i).gid, 7000 + 10 * i);
  }
  EXPECT_EQ(slots.IndexFrom(0), 0u);
  EXPECT_EQ(slots.IndexFrom(1000), 0u);
  EXPECT_EQ(slots.IndexFrom(1001), 1u);
  EXPECT_EQ(slots.IndexFrom(1010), 1u);
  EXPECT_EQ(slots.IndexFrom(1020), 2u);
  EXPECT_EQ(slots.IndexFrom(2000), 2u);
  EXPECT_EQ(slots.IndexFrom(3010), 3u);
  EXPECT_EQ(slots.IndexFrom(3011), 0u);
  EXPECT_EQ(slots.IndexFrom(uint64_t{1} << 32), 0u);
}

TEST(IdSlotsTest, TheFewerGroupsDecide) {
  ASSERT_OK_AND_ASSIGN(const IdSlots slots,
                       IdSlots::Create({{1000, 100}}, {{7000, 20}}, 10));
  EXPECT_EQ(slots.size(), 2u);
  EXPECT_EQ(slots.IndexFrom(1010), 1u);
  EXPECT_EQ(slots.IndexFrom(1020), 0u);
}

TEST(IdSlotsTest, KnowsWhatItContains) {
  ASSERT_OK_AND_ASSIGN(
      const IdSlots slots,
      IdSlots::Create({{1000, 100}, {4294967195, 100}}, {{7000, 100}}, 10));
  EXPECT_TRUE(slots.Contains({1000, 10}, {7000, 10}));
  EXPECT_TRUE(slots.Contains({1003, 97}, {7090, 10}));
  EXPECT_TRUE(slots.Contains({4294967285, 10}, {7000, 10}));
  EXPECT_FALSE(slots.Contains({999, 10}, {7000, 10}));
  EXPECT_FALSE(slots.Contains({1000, 101}, {7000, 10}));
  EXPECT_FALSE(slots.Contains({1000, 10}, {7091, 10}));
}

TEST(IdSlotsTest, RefusesWhatHoldsNothing) {
  EXPECT_THAT(IdSlots::Create({{1000, 100}}, {{1000, 100}}, 0),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("ids_per_container is 0")));
  EXPECT_THAT(IdSlots::Create({{1000, 100}, {2000, 100}}, {{1, 500}}, 101),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("no 101 user ids in a row")));
  EXPECT_THAT(IdSlots::Create({{1000, 100}}, {{1, 50}}, 100),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("no 100 group ids in a row")));
}

// ---- Entries of names/ -----------------------------------------------------

TEST(EntryTest, GoesThereAndBack) {
  const IdReservation reservation = {"web-1.x_y", 100000, 200000, 65536};
  EXPECT_EQ(ToEntry(reservation), "web-1.x_y@100000-200000-65536");
  const auto parsed = ParseEntry("web-1.x_y@100000-200000-65536");
  ASSERT_TRUE(parsed.has_value());
  EXPECT_EQ(parsed->name, "web-1.x_y");
  EXPECT_EQ(parsed->first_uid, 100000u);
  EXPECT_EQ(parsed->first_gid, 200000u);
  EXPECT_EQ(parsed->count, 65536u);
}

TEST(EntryTest, NothingElseIsOne) {
  for (const char* bad : {"",
                          ".",
                          "..",
                          "@",
                          "web",
                          "@1-2-3",
                          "web@",
                          "web@1-2",
                          "web@1-2-3-4",
                          "web@1-2-3@",
                          "web@-1-2-3",
                          "web@01-2-3",
                          "web@1-2-0",
                          "web@1-2-3 ",
                          "-web@1-2-3",
                          ".web@1-2-3",
                          "w/b@1-2-3",
                          "web@4294967294-2-2",
                          "web@2-4294967295-1",
                          "web@1-2-4294967295"}) {
    EXPECT_FALSE(ParseEntry(bad).has_value()) << bad;
  }
}

TEST(EntryTest, LocksOfDifferentKindsNeverMeet) {
  const sys::LockRange uids = UidLock({4294967294, 1});
  const sys::LockRange gids = GidLock({0, 4294967295});
  EXPECT_EQ(uids.start + uids.length, 4294967295);
  EXPECT_GE(gids.start, uids.start + uids.length);
  // The turn is between.
  EXPECT_LE(gids.start + gids.length, off_t{1} << 33);
  for (const char* name : {"a", "b", "web"}) {
    EXPECT_GT(NameLock(name).start, off_t{1} << 33);
    EXPECT_EQ(NameLock(name).length, 1);
  }
  EXPECT_NE(NameLock("a").start, NameLock("b").start);
}

}  // namespace
}  // namespace ids
}  // namespace caisson
