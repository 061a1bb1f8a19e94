#include "lib/launcher/id_maps.h"

#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <string>
#include <vector>

#include "lib/base/status_matchers.h"

namespace caisson::launcher {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

MATCHER_P3(Range, inside, outside, count, "") {
  return arg.inside == static_cast<uint32_t>(inside) &&
         arg.outside == static_cast<uint32_t>(outside) &&
         arg.count == static_cast<uint32_t>(count);
}

TEST(IdMapsTest, NamesOfAUser) {
  const char passwd[] =
      "root:x:0:0:root:/root:/bin/sh\n"
      "alice:x:1000:1000::/home/alice:/bin/sh\n"
      "nonsense\n:x:1000:1::/:/\nshort:x:1000\n"
      "bob:x:1001:1001::/:/bin/sh\nalso-alice:x:1000:1000::/:/bin/sh";
  EXPECT_THAT(NamesOf(passwd, 1000), ElementsAre("alice", "also-alice"));
  EXPECT_THAT(NamesOf(passwd, 1002), IsEmpty());
}

TEST(IdMapsTest, RangesByNameAndNumber) {
  const char text[] =
      "alice:100000:65536\nbob:165536:65536\n1000:300000:10\n"
      "alice:400000:1\n";
  EXPECT_THAT(ParseSubordinateIds(text, {"alice", "1000"}),
              ElementsAre(Range(0, 100000, 65536), Range(0, 300000, 10),
                          Range(0, 400000, 1)));
  EXPECT_THAT(ParseSubordinateIds(text, {"carol"}), IsEmpty());
}

TEST(IdMapsTest, MalformedLinesGiveNothing) {
  EXPECT_THAT(ParseSubordinateIds("a:1\na:x:5\na:5:x\na:-5:5\na:5:0\na:5:6:7\n"
                                  "a:4294967295:2\na:99999999999:1\n\n",
                                  {"a"}),
              IsEmpty());
}

TEST(IdMapsTest, RootIsTheUserAndTheRestFollows) {
  EXPECT_THAT(BuildMap(1000, {}), ElementsAre(Range(0, 1000, 1)));
  EXPECT_THAT(BuildMap(1000, {{.outside = 100000, .count = 65536},
                              {.outside = 300000, .count = 10}}),
              ElementsAre(Range(0, 1000, 1), Range(1, 100000, 65536),
                          Range(65537, 300000, 10)));
  // More than there are numbers.
  EXPECT_THAT(BuildMap(7, {{.outside = 0, .count = UINT_MAX},
                           {.outside = 5, .count = 5}}),
              ElementsAre(Range(0, 7, 1), Range(1, 0, UINT_MAX - 1)));
}

// Files of a machine, one missing after the other.
class FindTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/caisson-id-maps-XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    dir_ = name;
    files_ = {.passwd = dir_ + "/passwd",
              .subuid = dir_ + "/subuid",
              .subgid = dir_ + "/subgid",
              .directories = {dir_ + "/none", dir_}};
  }

  void TearDown() override {
    for (const std::string& file : made_) ::unlink(file.c_str());
    EXPECT_EQ(::rmdir(dir_.c_str()), 0);
  }

  void Write(const std::string& name, const std::string& text, mode_t mode) {
    const std::string path = dir_ + "/" + name;
    std::ofstream(path) << text;
    ASSERT_EQ(::chmod(path.c_str(), mode), 0);
    made_.push_back(path);
  }

  absl::Status Find() { return FindSubordinates(1000, files_).status(); }

  std::string dir_;
  IdFiles files_;
  std::vector<std::string> made_;
};

TEST_F(FindTest, SaysWhatIsMissing) {
  EXPECT_THAT(Find(), StatusIs(absl::StatusCode::kFailedPrecondition,
                               AllOf(HasSubstr("newuidmap is not installed"),
                                     HasSubstr("package uidmap"))));
  Write("newuidmap", "", 0755);
  EXPECT_THAT(Find(), StatusIs(absl::StatusCode::kFailedPrecondition,
                               HasSubstr("newgidmap is not installed")));
  Write("newgidmap", "", 0755);
  Write("passwd", "alice:x:1000:1000::/:/bin/sh\n", 0644);
  EXPECT_THAT(Find(), StatusIs(absl::StatusCode::kFailedPrecondition,
                               AllOf(HasSubstr("subuid cannot be read"),
                                     HasSubstr("usermod --add-subuids"))));
  Write("subuid", "bob:100000:65536\n", 0644);
  EXPECT_THAT(Find(), StatusIs(absl::StatusCode::kFailedPrecondition,
                               HasSubstr("subuid gives alice no ids")));
  Write("subuid", "alice:100000:65536\n", 0644);
  Write("subgid", "1000:200000:65536\n", 0644);
  ASSERT_OK_AND_ASSIGN(const Subordinates found,
                       FindSubordinates(1000, files_));
  EXPECT_THAT(found.users, ElementsAre(Range(0, 100000, 65536)));
  EXPECT_THAT(found.groups, ElementsAre(Range(0, 200000, 65536)));
  EXPECT_EQ(found.newgidmap, dir_ + "/newgidmap");
}

}  // namespace
}  // namespace caisson::launcher
