#include "lib/sys/mount_info.h"

#include <fcntl.h>

#include "lib/base/status_matchers.h"
#include "lib/sys/open.h"

namespace caisson::sys {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::HasSubstr;

constexpr char kTable[] =
    "21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
    "210 21 0:5 / /a\\040b\\134 rw shared:7 master:3 propagate_from:2 - tmpfs "
    "none rw\n"
    "3 21 0:6 / /c rw - proc proc rw\n"
    "4 21 0:6 / /cut rw master:1\n";

TEST(MountInfoTest, FindsTheLine) {
  const auto root = FindMountInfo(kTable, 21);
  ASSERT_TRUE(root.has_value());
  EXPECT_EQ(root->mount_point, "/");
  EXPECT_EQ(root->type, "ext4");
  EXPECT_TRUE(root->shared);
  EXPECT_FALSE(root->slave);
  const auto tmpfs = FindMountInfo(kTable, 210);
  ASSERT_TRUE(tmpfs.has_value());
  EXPECT_EQ(tmpfs->mount_point, "/a b\\");
  EXPECT_EQ(tmpfs->type, "tmpfs");
  EXPECT_TRUE(tmpfs->shared && tmpfs->slave);
  const auto proc = FindMountInfo(kTable, 3);
  ASSERT_TRUE(proc.has_value());
  EXPECT_FALSE(proc->shared || proc->slave);
}

TEST(MountInfoTest, NoSuchLine) {
  EXPECT_FALSE(FindMountInfo(kTable, 2).has_value());
  EXPECT_FALSE(FindMountInfo(kTable, 4).has_value());
  EXPECT_FALSE(FindMountInfo("", 1).has_value());
}

TEST(MountInfoTest, OfAFile) {
  ASSERT_OK_AND_ASSIGN(const UniqueFd proc, Open("/proc/self", O_PATH));
  ASSERT_OK_AND_ASSIGN(const MountInfo info,
                       MountInfoOf(proc.borrow(), "/proc/self"));
  EXPECT_EQ(info.type, "proc");
  EXPECT_EQ(info.mount_point, "/proc");
  EXPECT_THAT(
      MountInfoOf(BorrowedFd(9999), "nothing"),
      StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("EBADF")));
}

}  // namespace
}  // namespace caisson::sys
