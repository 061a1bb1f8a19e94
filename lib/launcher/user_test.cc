#include "lib/launcher/user.h"

#include <string>

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

}  // namespace
}  // namespace caisson::launcher
