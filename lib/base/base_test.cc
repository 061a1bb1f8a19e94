#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <string>
#include <utility>

#include "caisson/error.h"
#include "caisson/unique_fd.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_matchers.h"

namespace caisson {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::HasSubstr;

TEST(ErrnoErrorTest, NamesOperationErrnoAndHint) {
  const absl::Status status =
      ErrnoError(EPERM, "mount(proc, \"/proc\")",
                 {.step = "rootfs.proc", .path = "/proc", .hint = "do this"});
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kPermissionDenied,
                               "mount(proc, \"/proc\"): EPERM: operation not "
                               "permitted; do this"));
  const auto detail = GetErrorDetail(status);
  ASSERT_TRUE(detail.has_value());
  EXPECT_EQ(detail->step, "rootfs.proc");
  EXPECT_EQ(detail->error, EPERM);
  EXPECT_EQ(detail->path, "/proc");
}

TEST(ErrnoErrorTest, UnknownErrnoHasANumber) {
  EXPECT_EQ(ErrnoName(4095), "errno 4095");
  EXPECT_THAT(std::string(ErrnoError(4095, "x()").message()),
              HasSubstr("errno 4095"));
}

TEST(ErrnoErrorTest, AnnotateKeepsCodeAndDetail) {
  const absl::Status status =
      Annotate(ErrnoError(ENOENT, "open(\"a\")", {.path = "a"}), "import");
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kNotFound,
                               "import: open(\"a\"): ENOENT: no such file or "
                               "directory"));
  EXPECT_EQ(GetErrorDetail(status)->path, "a");
  EXPECT_OK(Annotate(absl::OkStatus(), "import"));
}

TEST(ErrnoErrorTest, WithStepReplacesTheStepOnly) {
  const absl::Status status =
      WithStep(ErrnoError(EBUSY, "rmdir(\"a\")", {.path = "a"}), "cgroup");
  EXPECT_EQ(GetErrorDetail(status)->step, "cgroup");
  EXPECT_EQ(GetErrorDetail(status)->path, "a");
  EXPECT_FALSE(
      GetErrorDetail(WithStep(absl::InternalError("x"), "y")).has_value());
}

TEST(ErrnoErrorTest, QuotedEscapesControlCharacters) {
  EXPECT_EQ(Quoted("a\"b\nc"), "\"a\\\"b\\nc\"");
}

TEST(UniqueFdTest, ClosesOnceAndMoves) {
  UniqueFd a(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(a.valid());
  const int number = a.get();
  UniqueFd b(std::move(a));
  EXPECT_EQ(b.get(), number);
  EXPECT_GE(::fcntl(number, F_GETFD), 0);
  b.reset();
  EXPECT_EQ(::fcntl(number, F_GETFD), -1);
}

TEST(UniqueFdTest, KeepsErrno) {
  UniqueFd fd(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  errno = EXDEV;
  fd.reset();
  EXPECT_EQ(errno, EXDEV);
}

}  // namespace
}  // namespace caisson
