#include "lib/sys/xattr.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include "lib/base/status_matchers.h"

namespace caisson::sys {
namespace {

using ::testing::Contains;
using ::testing::Pair;

class XattrTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const char* base = ::getenv("TEST_TMPDIR");
    path_ = std::string(base != nullptr ? base : "/tmp") + "/xattrXXXXXX";
    ASSERT_NE(::mkdtemp(path_.data()), nullptr);
    dir_.reset(::open(path_.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    ASSERT_TRUE(dir_.valid());
    UniqueFd file(
        ::openat(dir_.get(), "file", O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    ASSERT_TRUE(file.valid());
    ASSERT_EQ(::symlinkat("file", dir_.get(), "link"), 0);
  }
  void TearDown() override {
    ::unlinkat(dir_.get(), "file", 0);
    ::unlinkat(dir_.get(), "link", 0);
    ::rmdir(path_.c_str());
  }

  std::string path_;
  UniqueFd dir_;
};

TEST_F(XattrTest, SetsAndReadsBytes) {
  const std::string value("a\0b", 3);
  ASSERT_EQ(SetXattrAt(dir_.borrow(), "file", "user.caisson", value), 0);
  ASSERT_EQ(SetXattrAt(dir_.borrow(), "file", "user.empty", ""), 0);
  ASSERT_OK_AND_ASSIGN(const auto by_name, ReadXattrsAt(dir_.borrow(), "file"));
  EXPECT_THAT(by_name, Contains(Pair("user.caisson", value)));
  EXPECT_THAT(by_name, Contains(Pair("user.empty", "")));
  UniqueFd file(::openat(dir_.get(), "file", O_RDONLY | O_CLOEXEC));
  ASSERT_OK_AND_ASSIGN(const auto by_fd, ReadXattrs(file.borrow(), "file"));
  EXPECT_EQ(by_fd, by_name);
}

TEST_F(XattrTest, NeverFollowsALink) {
  // user.* attributes are not for symbolic links: had it been followed, this
  // would have worked.
  EXPECT_EQ(SetXattrAt(dir_.borrow(), "link", "user.caisson", "x"), EPERM);
  ASSERT_OK_AND_ASSIGN(const auto xattrs, ReadXattrsAt(dir_.borrow(), "file"));
  EXPECT_TRUE(xattrs.empty());
}

TEST_F(XattrTest, MissingFile) {
  EXPECT_EQ(SetXattrAt(dir_.borrow(), "none", "user.caisson", "x"), ENOENT);
  EXPECT_FALSE(ReadXattrsAt(dir_.borrow(), "none").ok());
}

}  // namespace
}  // namespace caisson::sys
