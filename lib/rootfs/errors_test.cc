// What a root that cannot be built says, and that nothing of it is left.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "lib/base/status_matchers.h"
#include "lib/rootfs/test_container.h"
#include "lib/sys/mount.h"
#include "lib/sys/open.h"

namespace caisson::rootfs {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

class ErrorsTest : public RootFsTestBase {
 protected:
  // A tmpfs in no namespace with room for `inodes` files.
  UniqueFd SmallFileSystem(int inodes) {
    auto tmpfs = sys::FsContext::Open(sys::DirectMounts(), "tmpfs");
    EXPECT_OK(tmpfs);
    EXPECT_OK(tmpfs->SetString("nr_inodes", absl::StrCat(inodes)));
    auto mount = tmpfs->Mount(0);
    EXPECT_OK(mount);
    EXPECT_EQ(::mkdirat(mount->get(), "upper", 0755), 0);
    EXPECT_EQ(::mkdirat(mount->get(), "work", 0755), 0);
    return *std::move(mount);
  }
};

TEST_F(ErrorsTest, LayerThatIsAFile) {
  RootFsOptions options = BaseOptions();
  options.layers.push_back(Hold(dir() + "/layers/base/etc/passwd"));
  EXPECT_THAT(BuiltRoot::Build(options, {}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("RootFsOptions.layers[1] is not a "
                                 "directory")));
}

TEST_F(ErrorsTest, LayerThatIsNoDescriptor) {
  RootFsOptions options = BaseOptions();
  options.layers.push_back(BorrowedFd(9999));
  EXPECT_THAT(std::string(BuiltRoot::Build(options, {}).status().message()),
              HasSubstr("RootFsOptions.layers[1] is no open descriptor"));
}

TEST_F(ErrorsTest, LayerThatIsClosed) {
  RootFsOptions options = BaseOptions();
  options.writes = RootWrites::kNone;
  options.upper_directory = options.work_directory = BorrowedFd();
  options.layers = {BorrowedFd(9999)};
  EXPECT_THAT(std::string(BuiltRoot::Build(options, {}).status().message()),
              AllOf(HasSubstr("RootFsOptions.layers[0]"), HasSubstr("EBADF")));
}

TEST_F(ErrorsTest, UpperAndWorkOnDifferentFileSystems) {
  RootFsOptions options = BaseOptions();
  const UniqueFd other = SmallFileSystem(100);
  ASSERT_OK_AND_ASSIGN(const UniqueFd work,
                       sys::OpenAt2(other.borrow(), "work", O_PATH, 0));
  options.work_directory = work.borrow();
  EXPECT_THAT(BuiltRoot::Build(options, {}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("are on different file systems")));
}

TEST_F(ErrorsTest, UpperInsideOfALayer) {
  RootFsOptions options = BaseOptions();
  const std::string inside = MakeLayer("base", {"u/upper/", "u/work/"}) + "/u";
  options.upper_directory = Hold(inside + "/upper");
  options.work_directory = Hold(inside + "/upper");
  EXPECT_THAT(
      BuiltRoot::Build(options, {}),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("overlay")));
}

TEST_F(ErrorsTest, VolatileUpperDirectoryIsNotMountedAgain) {
  RootFsOptions options = BaseOptions();
  options.volatile_upper = true;
  EXPECT_EQ(RunWith(options, "echo x > /x").exit_code, 0);
  EXPECT_THAT(BuiltRoot::Build(options, {}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("mounted with volatile_upper before")));
}

TEST_F(ErrorsTest, FullDiskWhileMountPointsAreCreated) {
  NeedKernel(6, 15);  // the small file system is a detached mount
  if (IsSkipped() || HasFatalFailure()) return;
  const std::string bare = MakeLayer("bare", {});
  AddShell(bare);
  bool full = false;
  bool built = false;
  // Whatever the step that the last inode is missing in.
  for (int inodes = 4; inodes < 30 && !built; ++inodes) {
    const UniqueFd small = SmallFileSystem(inodes);
    ASSERT_OK_AND_ASSIGN(const UniqueFd upper,
                         sys::OpenAt2(small.borrow(), "upper", O_PATH, 0));
    ASSERT_OK_AND_ASSIGN(const UniqueFd work,
                         sys::OpenAt2(small.borrow(), "work", O_PATH, 0));
    RootFsOptions options;
    options.layers = {Hold(bare)};
    options.writes = RootWrites::kDirectories;
    options.upper_directory = upper.borrow();
    options.work_directory = work.borrow();
    options.resolv_conf = "";
    const auto root = BuiltRoot::Build(options, {});
    built = root.ok();
    if (built) break;
    if (root.status().message().find("is full") != std::string::npos) {
      full = true;
      EXPECT_THAT(root.status().message(), HasSubstr("ENOSPC"));
    }
  }
  EXPECT_TRUE(full);
  EXPECT_TRUE(built);
}

// As docker run --read-only does with images that lack a mount point.
TEST_F(ErrorsTest, ReadOnlyRootWithoutMountPoints) {
  NeedKernel(6, 15);
  if (IsSkipped() || HasFatalFailure()) return;
  RootFsOptions options;
  const std::string bare = MakeLayer("bare", {});
  AddShell(bare);
  options.layers = {Hold(bare)};
  options.hostname = "web";
  options.resolv_conf = "";
  EXPECT_EQ(
      RunWith(options, "touch /x 2>/dev/null; echo root=$?; cat /etc/hostname")
          .output,
      "root=1\nweb\n");
  EXPECT_NE(::access((bare + "/etc").c_str(), F_OK), 0);
  EXPECT_THAT(BuiltRoot::Build(options, {true, LayerSyntax::kStrings}),
              StatusIs(absl::StatusCode::kPermissionDenied,
                       AllOf(HasSubstr("mkdir(\"/proc\") in the root: EROFS"),
                             HasSubstr("it is missing and must be created"))));
}

TEST_F(ErrorsTest, MoreLayersThanAnOldKernelCanBeTold) {
  NeedKernel(6, 5);
  if (IsSkipped() || HasFatalFailure()) return;
  RootFsOptions options = BaseOptions();
  for (int i = 0; i < 30; ++i) {
    options.layers.push_back(Hold(MakeLayer(absl::StrCat("layer", i), {"x/"})));
  }
  EXPECT_THAT(BuiltRoot::Build(options, {true, LayerSyntax::kJoined}),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("31 layers"), HasSubstr("Linux 6.5"))));
  EXPECT_OK(BuiltRoot::Build(options, {true, LayerSyntax::kStrings}));
  EXPECT_OK(BuiltRoot::Build(options, {}));
}

// Nothing but descriptors holds a root that never was started.
TEST_F(ErrorsTest, UnstartedRootsLeaveNothing) {
  const RootFsOptions options = BaseOptions();
  for (int i = 0; i < 3; ++i) {
    EXPECT_OK(BuiltRoot::Build(options, {}));
    EXPECT_OK(BuiltRoot::Build(options, {true, LayerSyntax::kJoined}));
  }
}

}  // namespace
}  // namespace caisson::rootfs
