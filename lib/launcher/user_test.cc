#include "lib/launcher/user.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "lib/base/status_matchers.h"

namespace caisson::launcher {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kPasswd[] =
    "root:x:0:0:root:/root:/bin/sh\n"
    "broken:x:-1:0::/:\n"
    "wrap:x:4294967296:0::/:\n"
    "short:x:5\n"
    "web:x:33:34:web:/var/www:/bin/sh\n"
    "1000:x:0:0:an evil name:/:/bin/sh\n";
constexpr char kGroup[] =
    "root:x:0:\n"
    "www:x:34:\n"
    "audio:x:29:web,other\n"
    "wheel:x:10:root,web\n"
    "malformed:x:7:web:extra\n";

TEST(ResolveUserTest, EmptyIsRoot) {
  ASSERT_OK_AND_ASSIGN(User user, ResolveUser("", kPasswd, kGroup));
  EXPECT_EQ(user.uid, 0u);
  EXPECT_EQ(user.gid, 0u);
  EXPECT_EQ(user.home, "/root");
  EXPECT_THAT(user.groups, ElementsAre(0, 10));
}

TEST(ResolveUserTest, NameBringsItsGroupsAndHome) {
  ASSERT_OK_AND_ASSIGN(User user, ResolveUser("web", kPasswd, kGroup));
  EXPECT_EQ(user.uid, 33u);
  EXPECT_EQ(user.gid, 34u);
  EXPECT_EQ(user.home, "/var/www");
  EXPECT_THAT(user.groups, ElementsAre(34, 29, 10));
}

TEST(ResolveUserTest, GroupReplacesTheUsersOwn) {
  ASSERT_OK_AND_ASSIGN(User user, ResolveUser("web:audio", kPasswd, kGroup));
  EXPECT_EQ(user.gid, 29u);
  EXPECT_THAT(user.groups, ElementsAre(29));
  ASSERT_OK_AND_ASSIGN(user, ResolveUser("33:77", kPasswd, kGroup));
  EXPECT_EQ(user.uid, 33u);
  EXPECT_EQ(user.gid, 77u);
}

TEST(ResolveUserTest, NumbersNeedNoEntry) {
  ASSERT_OK_AND_ASSIGN(User user, ResolveUser("4294967294", "", ""));
  EXPECT_EQ(user.uid, 4294967294u);
  EXPECT_EQ(user.gid, 0u);
  EXPECT_EQ(user.home, "/");
}

TEST(ResolveUserTest, NumberIsNeverTakenForAName) {
  ASSERT_OK_AND_ASSIGN(User user, ResolveUser("1000", kPasswd, kGroup));
  EXPECT_EQ(user.uid, 1000u);
}

TEST(ResolveUserTest, NothingIsGuessed) {
  for (const char* bad :
       {"4294967295", "4294967296", "-1", "+0", "99999999999"}) {
    EXPECT_THAT(ResolveUser(bad, kPasswd, kGroup),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("is not a number from 0")))
        << bad;
  }
  for (const char* unknown :
       {"nobody", "broken", "wrap", "short", " web", "web ", "0x0"}) {
    EXPECT_THAT(ResolveUser(unknown, kPasswd, kGroup),
                StatusIs(absl::StatusCode::kNotFound,
                         HasSubstr("is not in the root's /etc/passwd")))
        << unknown;
  }
  EXPECT_THAT(ResolveUser("web:nogroup", kPasswd, kGroup),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/etc/group")));
  EXPECT_THAT(ResolveUser("web:malformed", kPasswd, kGroup),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/etc/group")));
  EXPECT_THAT(ResolveUser(":audio", kPasswd, kGroup),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("user")));
  EXPECT_THAT(ResolveUser("web:", kPasswd, kGroup),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("group")));
}

// ---- Hostile files ---------------------------------------------------------

using namespace std::string_literals;

TEST(HostileUserFilesTest, FirstOfSeveralCounts) {
  constexpr char kTwice[] =
      "web:x:33:34::/first:\n"
      "web:x:0:0::/second:\n"
      "toor:x:33:0::/third:\n";
  for (const char* spec : {"web", "33"}) {
    ASSERT_OK_AND_ASSIGN(const User user, ResolveUser(spec, kTwice, ""));
    EXPECT_EQ(user.uid, 33u);
    EXPECT_EQ(user.gid, 34u);
    EXPECT_EQ(user.home, "/first");
  }
  ASSERT_OK_AND_ASSIGN(const User user,
                       ResolveUser("web:www", kTwice, "www:x:7:\nwww:x:0:\n"));
  EXPECT_EQ(user.gid, 7u);
}

TEST(HostileUserFilesTest, ReferencesToNisAreNobody) {
  constexpr char kNis[] =
      "+::::::\n+:x:0:0::/plus:\n+web:x:0:0::/plus:\n-web:x:0:0::/minus:\n"
      "root:x:0:5::/root:\n";
  for (const char* spec : {"+", "+web", "-web", "web"}) {
    EXPECT_THAT(ResolveUser(spec, kNis, ""),
                StatusIs(absl::StatusCode::kNotFound, HasSubstr(spec)))
        << spec;
  }
  ASSERT_OK_AND_ASSIGN(const User user, ResolveUser("0", kNis, ""));
  EXPECT_EQ(user.home, "/root");
  EXPECT_EQ(user.gid, 5u);
  ASSERT_OK_AND_ASSIGN(const User root,
                       ResolveUser("root", kNis, "+:x:9:root\n+g:x:8:root\n"));
  EXPECT_THAT(root.groups, ElementsAre(5));
}

TEST(HostileUserFilesTest, MalformedLinesMatchNothing) {
  for (const std::string& line : {"web:x:33"s,
                                  "web:x:33:34::/"s,
                                  "web:x:33:34::/:/bin/sh:more"s,
                                  "web:x::34::/:"s,
                                  "web:x:33:::/:"s,
                                  "web:x:-33:34::/:"s,
                                  "web:x:+33:34::/:"s,
                                  "web:x: 33:34::/:"s,
                                  "web:x:33 :34::/:"s,
                                  "web:x:0x21:34::/:"s,
                                  "web:x:33:4294967295::/:"s,
                                  "web:x:4294967295:34::/:"s,
                                  "web:x:4294967329:34::/:"s,
                                  "web:x:18446744073709551649:34::/:"s,
                                  "web:x:33:-1::/:"s,
                                  "web\0:x:33:34::/:"s,
                                  "web:x:33\0:34::/:"s,
                                  "web:x:33:34::/\0a:"s,
                                  "web :x:33:34::/:"s,
                                  " web:x:33:34::/:"s,
                                  ":x:33:34::/:"s,
                                  "web:x:33:34::/:\0"s,
                                  "web\r\n:x:33:34::/:"s,
                                  ""s,
                                  ":"s,
                                  "::::::"s}) {
    EXPECT_THAT(ResolveUser("web", line, ""),
                StatusIs(absl::StatusCode::kNotFound, HasSubstr("\"web\"")))
        << line;
    // Nor does the next line suffer.
    ASSERT_OK_AND_ASSIGN(
        const User user,
        ResolveUser("web", line + "\nweb:x:1:2::/home:/bin/sh", ""));
    EXPECT_EQ(user.uid, 1u);
    EXPECT_EQ(user.home, "/home");
  }
}

TEST(HostileUserFilesTest, LineEndsOfOtherSystems) {
  ASSERT_OK_AND_ASSIGN(const User user,
                       ResolveUser("web", "web:x:33:34::/home:/bin/sh\r\n",
                                   "a:x:1:web,b\r\nb:x:2:b,web\r\n"));
  EXPECT_EQ(user.uid, 33u);
  EXPECT_EQ(user.home, "/home");
  // The last member is "web\r": no group is given by a guess.
  EXPECT_THAT(user.groups, ElementsAre(34, 1));
  // A file of one line for us.
  EXPECT_THAT(ResolveUser("web", "root:x:0:0::/:\rweb:x:33:34::/:\r", ""),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("web")));
}

TEST(HostileUserFilesTest, HomesThatAreNoneBecomeTheRoot) {
  for (const char* home : {"", "relative", "~", "../..", " /home"}) {
    ASSERT_OK_AND_ASSIGN(
        const User user,
        ResolveUser("web", absl::StrCat("web:x:1:1::", home, ":"), ""));
    EXPECT_EQ(user.home, "/") << home;
  }
}

TEST(HostileUserFilesTest, NamesOfDigitsAreNumbers) {
  constexpr char kDigits[] =
      "0:x:7:7::/:\n4294967295:x:0:0::/:\n4294967296:x:0:0::/:\n";
  ASSERT_OK_AND_ASSIGN(User user, ResolveUser("0", kDigits, "0:x:9:\n"));
  EXPECT_EQ(user.uid, 0u);
  EXPECT_EQ(user.gid, 0u);
  ASSERT_OK_AND_ASSIGN(user, ResolveUser("7:0", kDigits, "0:x:9:\n"));
  EXPECT_EQ(user.gid, 0u);
  ASSERT_OK_AND_ASSIGN(user, ResolveUser("007", kDigits, ""));
  EXPECT_EQ(user.uid, 7u);
  for (const char* large : {"4294967295", "4294967296"}) {
    EXPECT_THAT(
        ResolveUser(large, kDigits, ""),
        StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("user id")));
  }
  EXPECT_THAT(ResolveUser("7:4294967296", kDigits, ""),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("group")));
}

TEST(HostileUserFilesTest, HugeLinesAreMalformedOrLong) {
  const std::string colons(1 << 20, ':');
  EXPECT_THAT(ResolveUser("web", colons, ""),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("web")));
  const std::string name(1 << 19, 'a');
  ASSERT_OK_AND_ASSIGN(
      User user, ResolveUser(name, name + ":x:1:2::/:", "g:x:3:b," + name));
  EXPECT_THAT(user.groups, ElementsAre(2, 3));
  const std::string commas(1 << 20, ',');
  ASSERT_OK_AND_ASSIGN(
      user,
      ResolveUser("web", "web:x:1:2::/:",
                  "g:x:3:" + commas + "\nh:x:4:" + commas + "web" + commas));
  EXPECT_THAT(user.groups, ElementsAre(2, 4));
}

TEST(HostileUserFilesTest, GroupsAreCountedOnceAndBounded) {
  ASSERT_OK_AND_ASSIGN(User user,
                       ResolveUser("web", "web:x:1:2::/:",
                                   "a:x:3:web,web\nb:x:3:web\nc:x:2:web\n"));
  EXPECT_THAT(user.groups, ElementsAre(2, 3));
  std::string groups;
  for (int gid = 10; gid < 10 + 65535; ++gid) {
    absl::StrAppend(&groups, "g:x:", gid, ":web\n");
  }
  ASSERT_OK_AND_ASSIGN(user, ResolveUser("web", "web:x:1:2::/:", groups));
  EXPECT_EQ(user.groups.size(), 65536u);
  absl::StrAppend(&groups, "g:x:5:web\n");
  EXPECT_THAT(ResolveUser("web", "web:x:1:2::/:", groups),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("more groups than the 65536")));
  // Not if they do not matter.
  EXPECT_OK(ResolveUser("web:5", "web:x:1:2::/:", groups));
}

}  // namespace
}  // namespace caisson::launcher
