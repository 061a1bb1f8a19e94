#include "lib/sys/remove_tree.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "lib/base/status_matchers.h"
#include "lib/layer/test_dir.h"

namespace caisson::layer {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(RemoveTreeTest, RemovesFilesAndTrees) {
  TestDir dir;
  EXPECT_OK(sys::RemoveTree(dir.fd(), "missing"));
  dir.Write("file", "x");
  EXPECT_OK(sys::RemoveTree(dir.fd(), "file"));
  dir.MakeDir("tree");
  dir.MakeDir("tree/empty");
  dir.MakeDir("tree/locked");
  dir.Write("tree/locked/file", "x", 0);
  ASSERT_EQ(::chmod(dir.path("tree/locked").c_str(), 0), 0);
  ASSERT_EQ(::mkfifo(dir.path("tree/fifo").c_str(), 0600), 0);
  EXPECT_OK(sys::RemoveTree(dir.fd(), "tree"));
  EXPECT_TRUE(dir.Names().empty());
}

TEST(RemoveTreeTest, NeverFollowsALink) {
  TestDir outside;
  outside.Write("keep", "x");
  TestDir dir;
  dir.MakeDir("tree");
  ASSERT_EQ(::symlink(outside.path().c_str(), dir.path("tree/link").c_str()),
            0);
  ASSERT_EQ(::symlink(outside.path().c_str(), dir.path("link").c_str()), 0);
  EXPECT_OK(sys::RemoveTree(dir.fd(), "tree"));
  EXPECT_OK(sys::RemoveTree(dir.fd(), "link"));
  EXPECT_TRUE(dir.Names().empty());
  EXPECT_TRUE(outside.Exists("keep"));
}

TEST(RemoveTreeTest, LargeDirectories) {
  TestDir dir;
  dir.MakeDir("tree");
  for (int i = 0; i < 5000; ++i) dir.Write(absl::StrCat("tree/", i), "");
  EXPECT_OK(sys::RemoveContents(dir.fd()));
  EXPECT_TRUE(dir.Names().empty());
}

// Far deeper than PATH_MAX and than the limit of open files.
TEST(RemoveTreeTest, DeepTrees) {
  TestDir dir;
  UniqueFd at(::fcntl(dir.fd().get(), F_DUPFD_CLOEXEC, 3));
  const std::string name(200, 'd');
  for (int i = 0; i < 1200; ++i) {
    ASSERT_EQ(::mkdirat(at.get(), name.c_str(), 0700), 0);
    UniqueFd file(
        ::openat(at.get(), "file", O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    ASSERT_TRUE(file.valid());
    UniqueFd next(
        ::openat(at.get(), name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    ASSERT_TRUE(next.valid()) << i;
    at = std::move(next);
  }
  at.reset();
  // A name that the removal would like to use.
  dir.Write(".caisson-removing-1", "x");
  EXPECT_OK(sys::RemoveContents(dir.fd()));
  EXPECT_TRUE(dir.Names().empty());
}

void SetImmutable(const TestDir& dir, absl::string_view name, bool immutable) {
  UniqueFd fd(::open(dir.path(name).c_str(), O_RDONLY | O_CLOEXEC));
  int flags = 0;
  ASSERT_EQ(::ioctl(fd.get(), FS_IOC_GETFLAGS, &flags), 0);
  flags = immutable ? flags | FS_IMMUTABLE_FL : flags & ~FS_IMMUTABLE_FL;
  ASSERT_EQ(::ioctl(fd.get(), FS_IOC_SETFLAGS, &flags), 0);
}

TEST(RemoveTreeTest, GoesOnAfterAFailure) {
  TestDir dir;
  dir.MakeDir("tree");
  dir.MakeDir("tree/a");
  dir.Write("tree/a/stuck", "x");
  dir.Write("tree/a/b", "x");
  dir.Write("tree/c", "x");
  SetImmutable(dir, "tree/a/stuck", true);
  EXPECT_THAT(sys::RemoveTree(dir.fd(), "tree"),
              StatusIs(absl::StatusCode::kPermissionDenied,
                       HasSubstr("unlinkat(\"stuck\"): EPERM")));
  EXPECT_THAT(dir.Names(), ElementsAre("tree", "tree/a", "tree/a/stuck"));
  SetImmutable(dir, "tree/a/stuck", false);
  EXPECT_OK(sys::RemoveTree(dir.fd(), "tree"));
  EXPECT_FALSE(dir.Exists("tree"));
}

}  // namespace
}  // namespace caisson::layer
