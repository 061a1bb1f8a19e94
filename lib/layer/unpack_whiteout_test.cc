// Whiteouts, opaque directories and merging: OCI image-spec, layer.md. Every
// case is unpacked in all formats and looked at through a real overlay mount.
#include <sys/stat.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "lib/base/status_matchers.h"
#include "lib/layer/test_dir.h"
#include "lib/layer/test_tar.h"
#include "lib/layer/test_unpack.h"
#include "lib/layer/unpack.h"

namespace caisson::layer {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Case {
  std::string name;
  TestTar layer;
  std::string merged;  // names afterwards
};

// d/{a,b,sub/{x,y}} and file, with attributes that differ from all defaults.
std::string Base() {
  return TestTar()
      .Owner(7, 8)
      .Mtime(1'100'000'000)
      .Dir(".", 0711)
      .Dir("d", 0750)
      .Owner(9, 10)
      .Mtime(1'100'000'001)
      .File("d/a", "base a", 0640)
      .File("d/b", "base b")
      .Dir("d/sub", 0701)
      .File("d/sub/x", "base x")
      .File("d/sub/y", "base y")
      .File("file", "base file")
      .Symlink("link", "d")
      .Finish();
}

constexpr char kAll[] = "d d/a d/b d/sub d/sub/x d/sub/y file link";

std::vector<Case> Cases() {
  return {
      {"Empty", TestTar(), kAll},
      {"File", TestTar().File("d/.wh.a"),
       "d d/b d/sub d/sub/x d/sub/y file link"},
      {"Directory", TestTar().File(".wh.d"), "file link"},
      {"Symlink", TestTar().File(".wh.link"),
       "d d/a d/b d/sub d/sub/x d/sub/y file"},
      {"Missing", TestTar().File(".wh.none").File("d/.wh.none"), kAll},
      {"MissingParent", TestTar().File("none/deep/.wh.x"), kAll},
      {"ParentIsAFileBelow", TestTar().File("file/.wh.x"), kAll},
      {"ParentIsALinkBelow", TestTar().File("link/.wh.a"), kAll},
      {"Opaque", TestTar().Dir("d").File("d/.wh..wh..opq"), "d file link"},
      {"OpaqueWithoutEntry", TestTar().File("d/.wh..wh..opq"), "d file link"},
      {"OpaqueDeep", TestTar().File("d/sub/.wh..wh..opq"),
       "d d/a d/b d/sub file link"},
      {"OpaqueOfNothing", TestTar().File("new/.wh..wh..opq"),
       "d d/a d/b d/sub d/sub/x d/sub/y file link new"},
      // Whatever stands first.
      {"WhiteoutThenFile", TestTar().File("d/.wh.a").File("d/a", "new"), kAll},
      {"FileThenWhiteout", TestTar().File("d/a", "new").File("d/.wh.a"), kAll},
      {"WhiteoutThenDirectory", TestTar().File(".wh.d").Dir("d").File("d/new"),
       "d d/new file link"},
      {"DirectoryThenWhiteout", TestTar().Dir("d").File("d/new").File(".wh.d"),
       "d d/new file link"},
      {"WhiteoutThenEntryBelow", TestTar().File(".wh.d").File("d/sub/new"),
       "d d/sub d/sub/new file link"},
      {"EntryBelowThenWhiteout", TestTar().File("d/sub/new").File(".wh.d"),
       "d d/sub d/sub/new file link"},
      {"OpaqueThenFiles",
       TestTar().File("d/.wh..wh..opq").File("d/a", "new").File("d/sub/new"),
       "d d/a d/sub d/sub/new file link"},
      {"FilesThenOpaque",
       TestTar().File("d/a", "new").File("d/sub/new").File("d/.wh..wh..opq"),
       "d d/a d/sub d/sub/new file link"},
      // Nothing is left to hide, and nothing may be listed.
      {"WhiteoutInOpaque",
       TestTar().File("d/.wh.a").File("d/.wh..wh..opq").File("d/.wh.b"),
       "d file link"},
      {"WhiteoutBelowOpaque",
       TestTar()
           .File("d/sub/.wh.x")
           .File("d/sub/new")
           .File("d/.wh..wh..opq")
           .File("d/sub/.wh.y"),
       "d d/sub d/sub/new file link"},
      {"WhiteoutBelowWhiteout", TestTar().File(".wh.d").File("d/.wh.a"),
       "file link"},
      {"WhiteoutAboveWhiteout", TestTar().File("d/.wh.a").File(".wh.d"),
       "file link"},
      {"OpaqueInWhiteout", TestTar().File(".wh.d").File("d/.wh..wh..opq"),
       "d file link"},
      {"OpaqueInOpaque",
       TestTar().File("d/.wh..wh..opq").File("d/sub/.wh..wh..opq"),
       "d d/sub file link"},
      {"WhiteoutInNewDirectory", TestTar().Dir("new").File("new/.wh.x"),
       "d d/a d/b d/sub d/sub/x d/sub/y file link new"},
      {"WhiteoutBelowFile", TestTar().File("d", "now a file").File("d/.wh.a"),
       "d file link"},
      {"WhiteoutThenParentIsFile",
       TestTar().File("d/.wh.a").File("d", "now a file"), "d file link"},
      {"OpaqueThenParentIsFile",
       TestTar().File("d/.wh..wh..opq").File("d", "now a file"), "d file link"},
      {"OpaqueRoot", TestTar().File(".wh..wh..opq").File("new"), "new"},
      {"OpaqueRootKeepsOwn",
       TestTar().File("d/new").File(".wh..wh..opq").File("file", "new"),
       "d d/new file"},
      {"AufsNamesAreNoWhiteouts",
       TestTar().File(".wh..wh.aufs").Dir(".wh..wh.plnk").File("d/.wh..wh.x"),
       kAll},
      // Types that change.
      {"FileToDirectory", TestTar().Dir("file").File("file/new"),
       "d d/a d/b d/sub d/sub/x d/sub/y file file/new link"},
      {"DirectoryToFile", TestTar().File("d", "x"), "d file link"},
      {"LinkToDirectory", TestTar().Dir("link").File("link/new"),
       "d d/a d/b d/sub d/sub/x d/sub/y file link link/new"},
      {"DirectoryToLink", TestTar().Symlink("d", "file"), "d file link"},
      {"DirectoryToFileAndBack",
       TestTar().File("d", "x").Dir("d").File("d/new"), "d d/new file link"},
      {"DirectoryToFileAndParent",
       TestTar().Symlink("d", "x").File("d", "x").File("d/new"),
       "d d/new file link"},
      {"ParentIsAFileOfThisLayer",
       TestTar().File("p", "x").File("p/q/new").File("p/.wh.z"),
       "d d/a d/b d/sub d/sub/x d/sub/y file link p p/q p/q/new"},
      {"ParentIsAFileOfALowerLayer", TestTar().File("file/new"),
       "d d/a d/b d/sub d/sub/x d/sub/y file file/new link"},
      {"ParentIsALinkOfALowerLayer", TestTar().File("link/new"),
       "d d/a d/b d/sub d/sub/x d/sub/y file link link/new"},
      {"WhiteoutThroughALinkOfThisLayer",
       TestTar().Symlink("l", "/d").File("l/.wh.a").File("l/sub/.wh.x"),
       "d d/b d/sub d/sub/y file l link"},
      {"OpaqueThroughALinkOfThisLayer",
       TestTar().Symlink("l", "d/sub").File("l/.wh..wh..opq"),
       "d d/a d/b d/sub file l link"},
      // Hard links into lower layers.
      {"HardlinkToLower", TestTar().Hardlink("h", "d/a"),
       "d d/a d/b d/sub d/sub/x d/sub/y file h link"},
      {"HardlinkToLowerThatIsHidden",
       TestTar().Hardlink("h", "d/a").Hardlink("i", "d/a").File("d/.wh.a"),
       "d d/b d/sub d/sub/x d/sub/y file h i link"},
      {"HardlinkToLowerInOpaque",
       TestTar().Hardlink("h", "d/sub/x").File("d/.wh..wh..opq"),
       "d file h link"},
      {"HardlinkToLowerSymlink", TestTar().Hardlink("h", "link"),
       "d d/a d/b d/sub d/sub/x d/sub/y file h link"},
  };
}

class UnpackWhiteoutTest : public ::testing::TestWithParam<LayerFormat> {};

TEST_P(UnpackWhiteoutTest, Merges) {
  for (const Case& test : Cases()) {
    SCOPED_TRACE(test.name);
    TestLayers layers(GetParam());
    ASSERT_OK(layers.Add(Base()));
    ASSERT_OK(layers.Add(test.layer.Finish()));
    ASSERT_OK_AND_ASSIGN(const std::string names, layers.MergedNames());
    EXPECT_EQ(names, test.merged);
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, UnpackWhiteoutTest,
                         ::testing::Values(LayerFormat::kOverlayTrusted,
                                           LayerFormat::kOverlayUser,
                                           LayerFormat::kPlain));

// Applying a layer to a tree and stacking it on top are the same, metadata
// included: two independent ways to the result.
TEST(UnpackMergeTest, FormatsAgree) {
  for (const Case& test : Cases()) {
    SCOPED_TRACE(test.name);
    TestLayers overlay(LayerFormat::kOverlayTrusted);
    TestLayers plain(LayerFormat::kPlain);
    for (TestLayers* layers : {&overlay, &plain}) {
      ASSERT_OK(layers->Add(Base()));
      ASSERT_OK(layers->Add(test.layer.Finish()));
      // A third layer sees the second one as its lower.
      ASSERT_OK(layers->Add(TestTar().File("d/sub/third").Finish()));
    }
    ASSERT_OK_AND_ASSIGN(const std::string by_overlay, overlay.Merged());
    ASSERT_OK_AND_ASSIGN(const std::string by_plain, plain.Merged());
    EXPECT_EQ(by_overlay, by_plain);
  }
}

// ---- what is on disk ----

TEST(UnpackOverlayTest, Markers) {
  TestDir dir;
  ASSERT_OK_AND_ASSIGN(
      const UnpackStats stats,
      Unpack(TestTar().File("d/.wh.a").Dir("o").File("o/.wh..wh..opq").Finish(),
             dir));
  EXPECT_EQ(stats.whiteouts, 2u);
  EXPECT_TRUE(S_ISCHR(dir.Stat("d/a").st_mode));
  EXPECT_EQ(dir.Stat("d/a").st_rdev, 0u);
  EXPECT_EQ(dir.Xattr("o", "trusted.overlay.opaque"), "y");
  EXPECT_EQ(dir.Xattr("o", "user.overlay.opaque"), "<none>");
  EXPECT_EQ(dir.Xattr("d", "trusted.overlay.opaque"), "<none>");

  TestDir user;
  ASSERT_OK(Unpack(TestTar().File("o/.wh..wh..opq").Finish(), user,
                   {.format = LayerFormat::kOverlayUser}));
  EXPECT_EQ(user.Xattr("o", "user.overlay.opaque"), "y");
  EXPECT_EQ(user.Xattr("o", "trusted.overlay.opaque"), "<none>");
}

TEST(UnpackOverlayTest, TheLowestLayerHasNoWhiteouts) {
  TestDir dir;
  UnpackOptions options;
  options.lowers = absl::Span<const BorrowedFd>();
  ASSERT_OK(Unpack(TestTar().File("d/.wh.a").File(".wh.b").File("d/c").Finish(),
                   dir, options));
  EXPECT_THAT(dir.Names(), ElementsAre("d", "d/c"));
}

TEST(UnpackOverlayTest, AnOpaqueRootNeedsItsLowerLayers) {
  TestDir dir;
  EXPECT_THAT(Unpack(TestTar().File(".wh..wh..opq").Finish(), dir),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("makes the root opaque")));
}

TEST(UnpackOverlayTest, TheDirectoryMustBeEmpty) {
  TestDir dir;
  dir.Write("something", "x");
  EXPECT_THAT(Unpack(TestTar().File("a").Finish(), dir),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("not empty: it has \"something\"")));
  EXPECT_OK(Unpack(TestTar().File("a").Finish(), dir,
                   {.format = LayerFormat::kPlain}));
}

// Hidden by an upper layer, so not there for this one.
TEST(UnpackOverlayTest, LowerLayersAreSeenThroughEachOther) {
  const auto stack = [](TestTar middle) {
    auto layers = std::make_unique<TestLayers>();
    EXPECT_OK(layers->Add(Base()));
    EXPECT_OK(layers->Add(middle.Finish()));
    return layers;
  };
  const std::string link = TestTar().Hardlink("h", "d/sub/x").Finish();
  EXPECT_OK(stack(TestTar().File("other"))->Add(link));
  for (const TestTar& middle :
       {TestTar().File("d/sub/.wh.x"), TestTar().File("d/.wh.sub"),
        TestTar().File(".wh.d"), TestTar().File("d/.wh..wh..opq"),
        TestTar().File("d", "x"), TestTar().Symlink("d", "/d")}) {
    EXPECT_THAT(stack(middle)->Add(link),
                StatusIs(absl::StatusCode::kNotFound,
                         HasSubstr("hard link \"h\" to \"d/sub/x\": the target "
                                   "is neither in this layer nor in a lower")));
  }
}

TEST(UnpackOverlayTest, HardlinkToLowerIsCopiedUpOnce) {
  TestLayers layers;
  ASSERT_OK(layers.Add(TestTar()
                           .Owner(5, 6)
                           .Dir("d", 0711)
                           .Pax({{"SCHILY.xattr.user.k", "v"},
                                 {"mtime", "1234567890.123456789"}})
                           .File("d/a", "content", 04755)
                           .Finish()));
  ASSERT_OK(layers.Add(
      TestTar().Hardlink("h", "d/a").Hardlink("i", "/d/a").Finish()));
  EXPECT_EQ(layers.stats().copied_up, 1u);
  const TestDir& top = layers.top();
  EXPECT_EQ(top.Stat("h").st_ino, top.Stat("d/a").st_ino);
  EXPECT_EQ(top.Stat("h").st_ino, top.Stat("i").st_ino);
  EXPECT_EQ(top.Read("h"), "content");
  EXPECT_EQ(top.Mode("h"), 04755u);
  EXPECT_EQ(top.Stat("h").st_uid, 5u);
  EXPECT_EQ(top.Stat("h").st_mtim.tv_nsec, 123456789);
  EXPECT_EQ(top.Xattr("h", "user.k"), "v");
  // Its directory came along with its attributes.
  EXPECT_EQ(top.Mode("d"), 0711u);
  EXPECT_EQ(top.Stat("d").st_gid, 6u);
  // The lower layer has not changed.
  EXPECT_EQ(layers.dir(0).Stat("d/a").st_nlink, 1u);
}

TEST(UnpackOverlayTest, HiddenHardlinksToLowerShareACopy) {
  TestLayers layers;
  ASSERT_OK(layers.Add(Base()));
  ASSERT_OK(layers.Add(TestTar()
                           .Hardlink("h", "d/a")
                           .Hardlink("i", "d/a")
                           .File("d/.wh.a")
                           .Finish()));
  EXPECT_EQ(layers.stats().copied_up, 1u);
  EXPECT_EQ(layers.top().Stat("h").st_ino, layers.top().Stat("i").st_ino);
  EXPECT_EQ(layers.top().Read("h"), "base a");
}

TEST(UnpackOverlayTest, HardlinkBeforeItsTarget) {
  TestDir dir;
  ASSERT_OK(Unpack(TestTar()
                       .File("b", "old")
                       .Hardlink("b", "a")
                       .Hardlink("c", "a")
                       .Hardlink("e", "a")
                       .File("a", "data")
                       .File("c", "later entries win")
                       .Finish(),
                   dir));
  EXPECT_EQ(dir.Stat("b").st_ino, dir.Stat("a").st_ino);
  EXPECT_EQ(dir.Stat("e").st_ino, dir.Stat("a").st_ino);
  EXPECT_EQ(dir.Read("c"), "later entries win");
}

TEST(UnpackOverlayTest, OfHardlinksOfOneNameTheLastCounts) {
  TestLayers layers;
  ASSERT_OK(
      layers.Add(TestTar().File("old", "old").File("new", "new").Finish()));
  ASSERT_OK(layers.Add(TestTar()
                           .Hardlink("h", "old")
                           .Hardlink("h", "new")
                           .Hardlink("i", "old")
                           .File("i", "file")
                           .Hardlink("i", "new")
                           .Finish()));
  EXPECT_EQ(layers.top().Read("h"), "new");
  EXPECT_EQ(layers.top().Read("i"), "new");
  EXPECT_FALSE(layers.top().Exists("old"));
}

// Image layers of 2014 made by AUFS: the data is in a directory of its own.
TEST(UnpackOverlayTest, HardlinksIntoAufsMetadata) {
  TestDir dir;
  ASSERT_OK(Unpack(TestTar()
                       .Dir(".wh..wh.plnk")
                       .File(".wh..wh.plnk/123.456", "data", 0755)
                       .Hardlink("a", ".wh..wh.plnk/123.456")
                       .Hardlink("b", "/.wh..wh.plnk/123.456")
                       .Finish(),
                   dir));
  EXPECT_THAT(dir.Names(), ElementsAre("a", "b"));
  EXPECT_EQ(dir.Read("a"), "data");
  EXPECT_EQ(dir.Stat("a").st_ino, dir.Stat("b").st_ino);
  EXPECT_EQ(dir.Stat("a").st_nlink, 2u);
}

TEST(UnpackOverlayTest, ParentsWithoutAnEntryHaveTheAttributesOfLowerLayers) {
  TestLayers layers;
  ASSERT_OK(layers.Add(TestTar()
                           .Owner(7, 8)
                           .Mtime(1'100'000'000)
                           .Dir(".", 0711)
                           .Pax({{"SCHILY.xattr.user.k", "v"}})
                           .Dir("d", 02750)
                           .Dir("d/gone", 0700)
                           .Finish()));
  ASSERT_OK(layers.Add(TestTar()
                           .Mtime(1'200'000'000)
                           .File("d/new")
                           .File("fresh/new")
                           .File("d/.wh.gone")
                           .File("d/gone/new")
                           .Finish()));
  const TestDir& top = layers.top();
  EXPECT_EQ(top.Mode("."), 0711u);
  EXPECT_EQ(top.Stat(".").st_uid, 7u);
  EXPECT_EQ(top.Stat(".").st_mtim.tv_sec, 1'100'000'000);
  EXPECT_EQ(top.Mode("d"), 02750u);
  EXPECT_EQ(top.Stat("d").st_gid, 8u);
  EXPECT_EQ(top.Stat("d").st_mtim.tv_sec, 1'100'000'000);
  EXPECT_EQ(top.Xattr("d", "user.k"), "v");
  EXPECT_EQ(top.Mode("fresh"), 0755u);
  EXPECT_EQ(top.Stat("fresh").st_uid, 0u);
  EXPECT_EQ(top.Stat("fresh").st_mtim.tv_sec, 1'200'000'000);
  // A new directory under an old name has nothing of the old one.
  EXPECT_EQ(top.Mode("d/gone"), 0755u);
  EXPECT_EQ(top.Stat("d/gone").st_uid, 0u);
  EXPECT_EQ(top.Xattr("d/gone", "trusted.overlay.opaque"), "y");
}

}  // namespace
}  // namespace caisson::layer
