#include "lib/launcher/id_map.h"

#include "lib/base/status_matchers.h"

namespace caisson::launcher {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::HasSubstr;

TEST(IdMapTest, RangesMayTouch) {
  EXPECT_OK(CheckIdMap("m", {{0, 1000, 1}, {1, 100000, 65535}, {70000, 5, 1}}));
}

TEST(IdMapTest, LastIdIsMapped) {
  EXPECT_OK(CheckIdMap("m", {{0, 4294967294, 1}}));
  EXPECT_OK(CheckIdMap("m", {{0, 0, 4294967295}}));
}

struct BadMap {
  const char* name;
  std::vector<IdRange> ranges;
  const char* what;
};

class BadMapTest : public ::testing::TestWithParam<BadMap> {};

TEST_P(BadMapTest, IsRefused) {
  EXPECT_THAT(
      CheckIdMap("IdMap.users", GetParam().ranges),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(GetParam().what)));
}

INSTANTIATE_TEST_SUITE_P(
    All, BadMapTest,
    ::testing::Values(
        BadMap{"none", {}, "IdMap.users is empty"},
        BadMap{"empty", {{0, 1, 0}}, "IdMap.users[0] {inside 0, outside 1"},
        BadMap{"no_id", {{0, 4294967295, 1}}, "beyond the last id"},
        BadMap{"wraps", {{4294967290, 0, 10}}, "beyond the last id"},
        BadMap{"inside",
               {{0, 10, 5}, {4, 100, 5}},
               "overlaps {inside 0, outside 10, count 5} inside"},
        BadMap{"outside", {{0, 10, 5}, {50, 14, 5}}, "5} outside"},
        BadMap{"many", std::vector<IdRange>(341), "341 ranges"}),
    [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace caisson::launcher
