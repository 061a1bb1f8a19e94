// Images and layers of an ordinary user.
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <fstream>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "caisson/caisson.h"
#include "lib/base/status_macros.h"
#include "lib/base/status_matchers.h"
#include "lib/layer/test_image.h"
#include "lib/layer/test_tar.h"
#include "lib/sys/open.h"
#include "tests/rootless/rootless_test.h"
#include "tests/support/machine.h"
#include "tests/support/ordinary_user.h"

namespace caisson {
namespace {

using ::caisson::layer::OciArchive;
using ::caisson::layer::TestCompression;
using ::caisson::layer::TestImage;
using ::caisson::layer::TestTar;
using ::caisson::testing::kFirstSubordinate;
using ::caisson::testing::kOrdinaryGroup;
using ::caisson::testing::kOrdinaryUser;
using ::caisson::testing::kSubordinates;
using ::caisson::testing::Outcome;
using ::caisson::testing::RunIn;
using ::caisson::testing::Shell;
using ::caisson::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr auto kSingle = LayerStoreFormat::kOverlayUserxattrSingle;
constexpr auto kRange = LayerStoreFormat::kOverlayUserxattr;

struct stat StatOf(const std::string& path) {
  struct stat status = {};
  EXPECT_EQ(::lstat(path.c_str(), &status), 0) << path;
  return status;
}

// Files of root and others, set-id, without any rights, devices, hidden ones.
TestImage OwnedImage() {
  TestImage image;
  image.compression = TestCompression::kNone;
  image.layers = {TestTar()
                      .Dir("./", 0555)
                      .File("root", "1")
                      .Owner(7, 8)
                      .File("other", "2", 04755)
                      .Dir("closed", 0)
                      .File("closed/secret", "3", 0)
                      .Dir("opaque", 0750)
                      .File("opaque/old", "4")
                      .Finish(),
                  TestTar()
                      .File(".wh.root")
                      .Dir("opaque", 0750)
                      .File("opaque/.wh..wh..opq")
                      .File("opaque/new", "5")
                      .Finish()};
  image.names = {"owned:1"};
  return image;
}

class StoreTest : public testing::RootlessTest {
 protected:
  // A directory that no other call has.
  static std::string Directory() {
    static int number = 0;
    return NewDirectory(absl::StrCat("store", number++));
  }
  static std::string Path() { return Directory() + "/store"; }
  static std::string Write(const std::string& bytes) {
    const std::string path = Directory() + "/image.tar";
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
  }
  static std::string Diff(const std::string& store, const std::string& format,
                          const LayerInfo& layer) {
    return absl::StrCat(store, "/layers/", format, "/",
                        layer.chain_id.substr(7), "/diff");
  }
};

void ExpectSound(LayerStore& store) {
  ASSERT_OK_AND_ASSIGN(const StoreReport report, store.Verify());
  for (const StoreFinding& finding : report.findings) {
    ADD_FAILURE() << finding.ToString();
  }
}

TEST_F(StoreTest, OneUserOwnsEverything) {
  const std::string path = Path();
  ASSERT_OK_AND_ASSIGN(LayerStore store,
                       LayerStore::Open({.path = path, .format = kSingle}));
  const TestImage sample = OwnedImage();
  ASSERT_OK_AND_ASSIGN(auto images,
                       store.Import(Write(OciArchive({sample}).Tar())));
  const std::string bottom =
      Diff(path, "overlay-userxattr-single", images[0].layers[0]);
  for (const char* name :
       {"", "/root", "/other", "/closed", "/closed/secret"}) {
    EXPECT_EQ(StatOf(bottom + name).st_uid, kOrdinaryUser) << name;
    EXPECT_EQ(StatOf(bottom + name).st_gid, kOrdinaryGroup) << name;
  }
  EXPECT_EQ(StatOf(bottom).st_mode & 07777, 0755u);
  EXPECT_EQ(StatOf(bottom + "/other").st_mode & 07777, 04755u);
  EXPECT_EQ(StatOf(bottom + "/closed").st_mode & 07777, 0700u);
  EXPECT_EQ(StatOf(bottom + "/closed/secret").st_mode & 07777, 0400u);
  const std::string top =
      Diff(path, "overlay-userxattr-single", images[0].layers[1]);
  const struct stat whiteout = StatOf(top + "/root");
  EXPECT_TRUE(S_ISCHR(whiteout.st_mode));
  EXPECT_EQ(whiteout.st_rdev, makedev(0, 0));
  char value[2];
  EXPECT_EQ(::getxattr((top + "/opaque").c_str(), "user.overlay.opaque", value,
                       sizeof(value)),
            1);
  ExpectSound(store);

  // Nothing of the image is lost: it can be had as it came.
  const std::string out = Directory() + "/out.tar";
  ASSERT_OK(store.Save({"owned:1"}, out));
  const std::string other = Path();
  ASSERT_OK_AND_ASSIGN(LayerStore second,
                       LayerStore::Open({.path = other, .format = kSingle}));
  ASSERT_OK_AND_ASSIGN(auto again, second.Import(out));
  EXPECT_EQ(again[0].id, images[0].id);
  EXPECT_EQ(again[0].manifest_digest, images[0].manifest_digest);

  // As a plain tree, too.
  const std::string tree = Directory();
  ASSERT_OK_AND_ASSIGN(const UniqueFd directory,
                       sys::Open(tree, O_RDONLY | O_DIRECTORY));
  ASSERT_OK(store.Unpack(images[0], directory.borrow()));
  EXPECT_EQ(StatOf(tree + "/opaque/new").st_uid, kOrdinaryUser);
  EXPECT_NE(::access((tree + "/root").c_str(), F_OK), 0);

  ASSERT_OK(store.Remove("owned:1"));
  EXPECT_NE(::access(bottom.c_str(), F_OK), 0);
  ASSERT_OK_AND_ASSIGN(const RecoverReport report, store.Recover());
  EXPECT_THAT(report.failures, IsEmpty());
}

// Owners that cannot be given are an error that names the way out.
TEST_F(StoreTest, AUserCannotGiveFilesAway) {
  ASSERT_OK_AND_ASSIGN(LayerStore store,
                       LayerStore::Open({.path = Path(), .format = kRange}));
  EXPECT_THAT(store.Import(Write(OciArchive({OwnedImage()}).Tar())),
              StatusIs(absl::StatusCode::kPermissionDenied,
                       HasSubstr("kOverlayUserxattrSingle")));
  EXPECT_THAT(*store.List(), IsEmpty());
}

TEST_F(StoreTest, AContainerRunsAndIsCommitted) {
  NEED_KERNEL(6, 15);
  const std::string path = Path();
  ASSERT_OK_AND_ASSIGN(LayerStore store,
                       LayerStore::Open({.path = path, .format = kSingle}));
  // The root of these tests, as a layer of an image.
  const std::string tar = Directory() + "/root.tar";
  {
    ASSERT_OK_AND_ASSIGN(const UniqueFd from,
                         sys::Open(root().path(), O_RDONLY | O_DIRECTORY));
    ASSERT_OK_AND_ASSIGN(const UniqueFd to,
                         sys::Open(tar, O_WRONLY | O_CREAT, 0600));
    ASSERT_OK(CopyOut(from.borrow(), "/", to.borrow()));
  }
  ASSERT_OK_AND_ASSIGN(const Image image,
                       store.ImportRootFs(tar, {.name = "base"}));
  ASSERT_OK_AND_ASSIGN(const LayerSet layers, store.OpenLayers(image));
  ASSERT_OK_AND_ASSIGN(WritableLayer top,
                       store.CreateWritableLayer({.lower = &layers}));
  RootFsOptions options;
  options.layers = layers.dirs();
  options.writes = RootWrites::kDirectories;
  options.upper_directory = top.upper();
  options.work_directory = top.work();
  EXPECT_EQ(Output(single(), options,
                   "id -u; stat -c %u /bin; mkdir /made && echo x > /made/f && "
                   "rm -r /home && chmod 500 /made && ls -d /home 2>/dev/null"),
            "0\n0\n");
  DiffOptions ids;
  ids.ids.users = {{.inside = 0, .outside = kOrdinaryUser, .count = 1}};
  ids.ids.groups = {{.inside = 0, .outside = kOrdinaryGroup, .count = 1}};
  ASSERT_OK_AND_ASSIGN(
      const Image made,
      store.Commit(image, top.upper(), {.name = "made", .diff = ids}));
  EXPECT_THAT(made.layers, SizeIs(2));
  ExpectSound(store);
  EXPECT_OK(top.Destroy());
}

// ---- a user namespace with a range of ids
// ------------------------------------

// Runs `body` in a child that is root of a new user namespace with the user's
// subordinate ids.
void InRange(const std::function<void()>& body) {
  int ready[2];
  int mapped[2];
  ASSERT_EQ(::pipe2(ready, O_CLOEXEC), 0);
  ASSERT_EQ(::pipe2(mapped, O_CLOEXEC), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    char byte = ::unshare(CLONE_NEWUSER) == 0 ? '1' : '0';
    (void)!::write(ready[1], &byte, 1);
    (void)!::read(mapped[0], &byte, 1);
    body();
    ::_exit(::testing::Test::HasFailure() ? 1 : 0);
  }
  char byte = '0';
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  EXPECT_EQ(byte, '1');
  for (const auto& [tool, own] :
       {std::pair("newuidmap", kOrdinaryUser),
        std::pair("newgidmap", uid_t{kOrdinaryGroup})}) {
    EXPECT_EQ(::system(absl::StrCat(tool, " ", child, " 0 ", own, " 1 1 ",
                                    kFirstSubordinate, " ", kSubordinates)
                           .c_str()),
              0);
  }
  ASSERT_EQ(::write(mapped[1], &byte, 1), 1);
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  for (const int fd : {ready[0], ready[1], mapped[0], mapped[1]}) ::close(fd);
}

TEST_F(StoreTest, OwnersAreThoseOfTheImageInARange) {
  const std::string path = Path();
  TestImage sample = OwnedImage();
  sample.layers.push_back(
      TestTar().Device("null", '3', 1, 3).File("last", "6").Finish());
  const std::string archive = Write(OciArchive({sample}).Tar());
  InRange([&] {
    ASSERT_OK_AND_ASSIGN(LayerStore store,
                         LayerStore::Open({.path = path, .format = kRange}));
    ASSERT_OK_AND_ASSIGN(auto images, store.Import(archive));
    const auto diff = [&](size_t i) {
      return Diff(path, "overlay-userxattr", images[0].layers[i]);
    };
    EXPECT_EQ(StatOf(diff(0) + "/root").st_uid, 0u);
    EXPECT_EQ(StatOf(diff(0) + "/other").st_uid, 7u);
    EXPECT_EQ(StatOf(diff(0) + "/other").st_gid, 8u);
    EXPECT_EQ(StatOf(diff(0) + "/closed/secret").st_mode & 07777, 0u);
    EXPECT_TRUE(S_ISCHR(StatOf(diff(1) + "/root").st_mode));
    EXPECT_NE(::access((diff(2) + "/null").c_str(), F_OK), 0);
    ExpectSound(store);
    EXPECT_OK(store.Save({"owned:1"}, path + ".tar"));
    EXPECT_OK(store.Remove("owned:1"));
    ASSERT_OK_AND_ASSIGN(const RecoverReport report, store.Recover());
    EXPECT_THAT(report.failures, IsEmpty());
  });
}

}  // namespace
}  // namespace caisson

int main(int argc, char** argv) {
  return caisson::testing::RunTestsAsOrdinaryUser(argc, argv);
}
