#include "lib/sys/file_lock.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "lib/base/status_matchers.h"

namespace caisson::sys {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::HasSubstr;

class FileLockTest : public ::testing::Test {
 protected:
  void SetUp() override {
    path_ = absl::StrCat(::testing::TempDir(), "/lock-XXXXXX");
    one_.reset(::mkostemp(path_.data(), O_CLOEXEC));
    two_ = Open();
    ASSERT_TRUE(one_.valid() && two_.valid());
  }
  void TearDown() override { ::unlink(path_.c_str()); }

  UniqueFd Open() {
    return UniqueFd(::open(path_.c_str(), O_RDWR | O_CLOEXEC));
  }
  BorrowedFd one() { return one_.borrow(); }
  BorrowedFd two() { return two_.borrow(); }

  std::string path_;
  UniqueFd one_;
  UniqueFd two_;
};

TEST_F(FileLockTest, ExcludesDescriptorsNotProcesses) {
  ASSERT_OK(LockShared(one(), "one"));
  ASSERT_OK(LockShared(two(), "two"));
  EXPECT_TRUE(*IsLockedElsewhere(one(), "one"));
  // A failed upgrade keeps the shared lock.
  EXPECT_FALSE(*TryLockExclusive(one(), "one"));
  EXPECT_TRUE(*IsLockedElsewhere(two(), "two"));
  Unlock(two());
  EXPECT_TRUE(*TryLockExclusive(one(), "one"));
  EXPECT_FALSE(*IsLockedElsewhere(one(), "one"));
  EXPECT_FALSE(*TryLockExclusive(two(), "two"));
}

TEST_F(FileLockTest, RangesExcludeOnlyWhereTheyMeet) {
  constexpr off_t kFar = off_t{1} << 62;
  ASSERT_TRUE(*TryLockExclusive(one(), "one", {100, 50}));
  ASSERT_TRUE(*TryLockExclusive(one(), "one", {kFar, 1}));
  EXPECT_TRUE(*TryLockExclusive(two(), "two", {50, 50}));
  EXPECT_TRUE(*TryLockExclusive(two(), "two", {150, 1}));
  EXPECT_TRUE(*TryLockExclusive(two(), "two", {kFar + 1, 1}));
  EXPECT_FALSE(*TryLockExclusive(two(), "two", {149, 1}));
  EXPECT_FALSE(*TryLockExclusive(two(), "two", {0, 101}));
  EXPECT_FALSE(*TryLockExclusive(two(), "two", {kFar, 1}));
  EXPECT_FALSE(*TryLockExclusive(two(), "two"));
  EXPECT_TRUE(*IsLockedElsewhere(two(), "two", {100, 1}));
  EXPECT_FALSE(*IsLockedElsewhere(two(), "two", {99, 1}));
  // A part can be given back.
  Unlock(one(), {149, 1});
  EXPECT_TRUE(*TryLockExclusive(two(), "two", {149, 1}));
  EXPECT_FALSE(*TryLockExclusive(two(), "two", {148, 1}));
}

TEST_F(FileLockTest, ForkedChildKeepsWhatIsNotUnlocked) {
  ASSERT_TRUE(*TryLockExclusive(one(), "one"));
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    ::pause();
    ::_exit(0);
  }
  one_.reset();
  EXPECT_FALSE(*TryLockExclusive(two(), "two"));
  ASSERT_EQ(::kill(child, SIGKILL), 0);
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  EXPECT_TRUE(*TryLockExclusive(two(), "two"));
}

TEST_F(FileLockTest, UnlockTakesItFromForkedChildren) {
  ASSERT_TRUE(*TryLockExclusive(one(), "one"));
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    ::pause();
    ::_exit(0);
  }
  Unlock(one());
  EXPECT_TRUE(*TryLockExclusive(two(), "two"));
  ASSERT_EQ(::kill(child, SIGKILL), 0);
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
}

TEST_F(FileLockTest, ErrorNamesTheFile) {
  const UniqueFd reader(::open(path_.c_str(), O_RDONLY | O_CLOEXEC));
  EXPECT_THAT(LockExclusive(reader.borrow(), "the file"),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("fcntl(OFD lock, \"the file\"): EBADF")));
}

}  // namespace
}  // namespace caisson::sys
