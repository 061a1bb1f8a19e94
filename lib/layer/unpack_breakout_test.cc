// Archives that try to reach beyond the directory. The cases follow the ones
// that broke other engines (containerd's TestBreakouts and the CVEs named
// here).
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <functional>
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
using ::testing::HasSubstr;

constexpr char kUp[] = "../../../../../../../../../../../../..";

// What must never change, and where the archives of the cases point to.
class Outside {
 public:
  Outside() {
    dir_.MakeDir("etc", 0750);
    dir_.Write("etc/passwd", "host", 0640);
    before_ = dir_.Dump();
  }
  ~Outside() { EXPECT_EQ(dir_.Dump(), before_); }

  std::string path(absl::string_view name) const { return dir_.path(name); }
  // From anywhere up to "/" and down again.
  std::string Relative(absl::string_view name) const {
    return absl::StrCat(kUp, dir_.path(name));
  }

 private:
  TestDir dir_;
  std::string before_;
};

struct Case {
  std::string name;
  std::string tar;
  // Part of the error, or empty.
  std::string error;
  std::function<void(const TestDir& dir)> check = [](const TestDir&) {};
};

std::function<void(const TestDir&)> Content(std::string name,
                                            std::string content) {
  return [=](const TestDir& dir) { EXPECT_EQ(dir.Read(name), content); };
}

std::function<void(const TestDir&)> SameFile(std::string a, std::string b) {
  return [=](const TestDir& dir) {
    ASSERT_TRUE(dir.Exists(a));
    EXPECT_EQ(dir.Stat(a).st_ino, dir.Stat(b).st_ino);
  };
}

TestTar Etc() {
  return TestTar().Dir("etc", 0770).File("etc/passwd", "inside");
}

std::vector<Case> NameCases(const Outside& outside) {
  return {
      {"DotDotFile", TestTar().File("../evil").Finish(), "\"../evil\""},
      {"DotDotInside", TestTar().Dir("a").File("a/../b").Finish(), "\"..\""},
      {"DotDotEnd", TestTar().Dir("a/..").Finish(), "\"..\""},
      {"DotDotSymlink", TestTar().Symlink("..", "/etc").Finish(), "\"..\""},
      {"DotDotDeep", TestTar().File(outside.Relative("etc/new")).Finish(),
       "\"..\""},
      {"DotDotByPax",
       TestTar().Pax({{"path", "../../evil"}}).File("a").Finish(), "\"..\""},
      {"DotDotByLongName", TestTar().Long('L', "../e").File("a").Finish(),
       "\"..\""},
      {"AbsoluteFile", TestTar().File("/etc/passwd", "inside").Finish(), "",
       Content("etc/passwd", "inside")},
      {"AbsoluteHostFile",
       TestTar().File(outside.path("etc/passwd"), "inside").Finish(), "",
       Content(outside.path("etc/passwd").substr(1), "inside")},
      {"ManySlashes", TestTar().File("///a//.//b", "x").Finish(), "",
       Content("a/b", "x")},
      {"ThreeDotsAreAName", TestTar().File(".../a", "x").Finish(), "",
       Content(".../a", "x")},
      // CVE-2021-29136: the next layer would be applied to the target.
      {"RootIsSymlink", TestTar().Symlink("./", outside.path("etc")).Finish(),
       "the root must be a directory"},
      {"RootIsSymlinkDot", TestTar().Symlink("/.", "/etc").Finish(),
       "the root must be a directory"},
      {"RootIsFile", TestTar().File("/", "x").Finish(), "root"},
      {"RootIsHardlink", TestTar().Hardlink(".", "/etc").Finish(), "root"},
      {"EmptyName", TestTar().Symlink("", "/etc").Finish(),
       "the name is empty"},
  };
}

std::vector<Case> SymlinkCases(const Outside& outside) {
  return {
      {"SymlinkAbsolute",
       Etc().Symlink("local", "/etc").File("local/new", "x").Finish(), "",
       Content("etc/new", "x")},
      {"SymlinkToHost",
       TestTar()
           .Symlink("local", outside.path("etc"))
           .File("local/passwd", "x")
           .Finish(),
       "", Content(outside.path("etc/passwd").substr(1), "x")},
      {"SymlinkRelativeToHost",
       TestTar()
           .Symlink("local", outside.Relative("etc"))
           .File("local/passwd", "x")
           .Finish(),
       "", Content(outside.path("etc/passwd").substr(1), "x")},
      {"SymlinkUpAndOut",
       Etc()
           .Dir("dummy")
           .Symlink("local", "/dummy/../etc")
           .File("local/new", "x")
           .Finish(),
       "", Content("etc/new", "x")},
      {"SymlinkUpFromMissing",
       Etc()
           .Symlink("local", "missing/../../../etc")
           .File("local/new", "x")
           .Finish(),
       "",
       [](const TestDir& dir) {
         EXPECT_EQ(dir.Read("etc/new"), "x");
         EXPECT_FALSE(dir.Exists("missing"));
       }},
      {"SymlinkUpFromFile",
       Etc()
           .File("file", "kept")
           .Symlink("local", "file/../etc")
           .File("local/new", "x")
           .Finish(),
       "",
       [](const TestDir& dir) {
         EXPECT_EQ(dir.Read("etc/new"), "x");
         EXPECT_EQ(dir.Read("file"), "kept");
       }},
      {"SymlinkChain",
       Etc()
           .Dir("dummy")
           .Symlink("dummy/etc", "/etc")
           .Symlink("local", "./dummy/etc")
           .File("local/new", "x")
           .Finish(),
       "", Content("etc/new", "x")},
      {"SymlinkInTheMiddle",
       TestTar()
           .Dir("a")
           .Dir("b")
           .Dir("b/c")
           .Symlink("a/link", "../b")
           .File("a/link/c/new", "x")
           .Finish(),
       "", Content("b/c/new", "x")},
      {"SymlinkDangling",
       TestTar().Symlink("local", "/x/y").File("local/new", "x").Finish(), "",
       Content("x/y/new", "x")},
      {"SymlinkLoop",
       TestTar().Symlink("a", "b").Symlink("b", "a").File("a/x").Finish(),
       "symbolic links in the path"},
      {"SymlinkToItself", TestTar().Symlink("a", "a").File("a/x").Finish(),
       "symbolic links in the path"},
      // A path that doubles with every link.
      {"SymlinkBomb",
       [] {
         TestTar tar;
         tar.Dir("d0");
         for (int i = 1; i <= 45; ++i) {
           const std::string previous = absl::StrCat("/d", i - 1, "/..");
           tar.Symlink(absl::StrCat("d", i),
                       absl::StrCat(previous, previous, "/d", i - 1));
         }
         return tar.File("d45/x").Finish();
       }(),
       "symbolic links in the path"},
      {"SymlinkIsReplacedByDirectory",
       TestTar()
           .Symlink("local", outside.path("etc"))
           .Dir("local", 0700)
           .File("local/passwd", "x")
           .Finish(),
       "", Content("local/passwd", "x")},
      {"SymlinkIsReplacedByFile",
       TestTar()
           .Symlink("local", outside.path("etc/passwd"))
           .File("local", "x")
           .Finish(),
       "", Content("local", "x")},
      {"SymlinkIsReplacedByDevice",
       TestTar()
           .Symlink("local", outside.path("etc/passwd"))
           .Fifo("local")
           .Finish(),
       "",
       [](const TestDir& dir) {
         EXPECT_TRUE(S_ISFIFO(dir.Stat("local").st_mode));
       }},
      // CVE-2025-47290 and its kind: what was looked up is swapped for a link.
      {"DirectorySwappedForSymlink",
       TestTar()
           .Dir("a")
           .File("a/one", "1")
           .Symlink("a", outside.path("etc"))
           .File("a/passwd", "x")
           .Finish(),
       "",
       [&outside](const TestDir& dir) {
         EXPECT_EQ(dir.Read(outside.path("etc/passwd").substr(1)), "x");
       }},
      {"SymlinkSwappedForSymlink",
       TestTar()
           .Dir("b")
           .Dir("c")
           .Symlink("a", "b")
           .File("a/one", "1")
           .Symlink("a", "c")
           .File("a/two", "2")
           .Finish(),
       "",
       [](const TestDir& dir) {
         EXPECT_EQ(dir.Read("b/one"), "1");
         EXPECT_EQ(dir.Read("c/two"), "2");
         EXPECT_FALSE(dir.Exists("b/two"));
       }},
      {"SymlinkModeIsNotTheTargets",
       [&outside] {
         TestTarHeader header;
         header.name = "local";
         header.type = '2';
         header.mode = 07777;
         header.uid = 1234;
         header.linkname = outside.path("etc/passwd");
         return TestTar().Entry(header).Finish();
       }()},
      {"XattrOfASymlinkIsNotTheTargets",
       TestTar()
           .Pax({{"SCHILY.xattr.trusted.caisson", "x"}})
           .Symlink("local", outside.path("etc/passwd"))
           .Finish()},
  };
}

std::vector<Case> HardlinkCases(const Outside& outside) {
  return {
      {"HardlinkAbsolute", Etc().Hardlink("link", "/etc/passwd").Finish(), "",
       SameFile("link", "etc/passwd")},
      {"HardlinkDotDot",
       Etc().Hardlink("link", "../../../../etc/passwd").Finish(), "\"..\""},
      {"HardlinkToHost",
       TestTar().Hardlink("link", outside.path("etc/passwd")).Finish(),
       "the target is not in this layer"},
      {"HardlinkThroughSymlink",
       Etc()
           .Dir("breakouts")
           .Symlink("breakouts/d1", "../../etc")
           .Hardlink("breakouts/mine", "breakouts/d1/passwd")
           .Finish(),
       "", SameFile("breakouts/mine", "etc/passwd")},
      {"HardlinkThroughSymlinkDownAndOut",
       Etc()
           .Dir("breakouts")
           .Dir("down")
           .Symlink("breakouts/d1", "../down/../../etc")
           .Hardlink("breakouts/mine", "breakouts/d1/passwd")
           .Finish(),
       "", SameFile("breakouts/mine", "etc/passwd")},
      {"HardlinkThroughSymlinkToHost",
       TestTar()
           .Symlink("d", outside.path("etc"))
           .Hardlink("mine", "d/passwd")
           .Finish(),
       "the target is not in this layer"},
      {"HardlinkThroughLongSymlinkToHost",
       TestTar()
           .Symlink("d", outside.Relative("etc"))
           .Hardlink("mine", "d/passwd")
           .File("mine", "x")
           .Finish(),
       "", Content("mine", "x")},
      // CVE-2021-32760: the link itself is linked, and nothing of it changed.
      {"HardlinkToSymlink",
       [&outside] {
         TestTarHeader link;
         link.name = "dup";
         link.type = '1';
         link.mode = 0777;
         link.uid = 1234;
         link.linkname = "local";
         return TestTar()
             .Symlink("local", outside.path("etc/passwd"))
             .Entry(link)
             .Finish();
       }(),
       "",
       [](const TestDir& dir) {
         EXPECT_TRUE(S_ISLNK(dir.Stat("dup").st_mode));
         EXPECT_EQ(dir.Stat("dup").st_ino, dir.Stat("local").st_ino);
         EXPECT_EQ(dir.Stat("local").st_uid, 0u);
       }},
      {"HardlinkToSymlinkThenFile",
       TestTar()
           .Symlink("local", outside.path("etc/passwd"))
           .Hardlink("dup", "local")
           .File("dup", "x")
           .Finish(),
       "", Content("dup", "x")},
      {"HardlinkToSymlinkBeforeItsTarget",
       TestTar()
           .Dir("etc")
           .Symlink("local", "/etc/passwd")
           .Hardlink("dup", "local")
           .File("etc/passwd", "after")
           .Finish(),
       "", SameFile("local", "dup")},
      {"HardlinkThroughSwappedDirectory",
       Etc()
           .Symlink("etc", outside.path("etc"))
           .Hardlink("mine", "etc/passwd")
           .Finish(),
       "the target is not in this layer"},
      {"HardlinkToRoot", TestTar().Hardlink("a", "/").Finish(),
       "hard link to the root"},
      {"HardlinkToDirectory", TestTar().Dir("d").Hardlink("a", "d").Finish(),
       "must not be a directory"},
      {"HardlinkToItself", TestTar().Hardlink("a", "a").Finish(),
       "the target is not in this layer"},
      {"HardlinkToItselfKeepsTheFile",
       TestTar().File("a", "x").Hardlink("a", "./a").Finish(), "",
       Content("a", "x")},
      {"HardlinkOverItsOwnDirectory",
       TestTar().Dir("d").File("d/f", "x").Hardlink("d", "d/f").Finish(),
       "the target is not in this layer"},
  };
}

std::vector<Case> WhiteoutCases(const Outside& outside) {
  return {
      {"WhiteoutOfNothing", TestTar().File(".wh.").Finish(),
       "whiteout without a name"},
      {"WhiteoutOfDot", Etc().File("etc/.wh..").Finish(),
       "whiteout without a name"},
      {"WhiteoutOfDotDot", Etc().File("etc/.wh...").Finish(),
       "whiteout without a name"},
      {"WhiteoutOfRootParent", TestTar().File(".wh...").Finish(),
       "whiteout without a name"},
      {"WhiteoutThroughSymlinkToHost", TestTar()
                                           .Symlink("d", outside.path("etc"))
                                           .File("d/.wh.passwd")
                                           .Finish()},
      {"WhiteoutThroughDeadSymlink",
       Etc().Symlink("d", "/dne").File("d/.wh.etc").Finish(), "",
       Content("etc/passwd", "inside")},
      {"OpaqueThroughSymlinkToHost", TestTar()
                                         .Symlink("d", outside.path("etc"))
                                         .File("d/.wh..wh..opq")
                                         .Finish()},
      {"WhiteoutAsDirectoryName", Etc().File(".wh.etc/somefile", "x").Finish(),
       "must not be called \".wh.etc\""},
      {"AufsMetadataIsSkipped",
       TestTar()
           .Dir(".wh..wh.plnk")
           .File(".wh..wh.aufs", "x")
           .File(".wh..wh.orph/x", "x")
           .Symlink(".wh..wh.plnk/link", outside.path("etc"))
           .File(".wh..wh.plnk/link/passwd", "x")
           .File("a", "kept")
           .Finish(),
       "",
       [](const TestDir& dir) {
         EXPECT_THAT(dir.Names(), ::testing::ElementsAre("a"));
       }},
  };
}

std::vector<Case> DeviceCases() {
  return {
      {"WhiteoutDevice", TestTar().Device("etc", '3', 0, 0).Finish(),
       "would be a whiteout"},
      {"WhiteoutDeviceByPax",
       TestTar()
           .Pax({{"SCHILY.devmajor", "0"}, {"SCHILY.devminor", "0"}})
           .Device("etc", '3', 1, 3)
           .Finish(),
       "would be a whiteout"},
      {"DeviceMajorOutOfRange", TestTar().Device("d", '3', 4096, 0).Finish(),
       "beyond 4095:1048575"},
      // Truncated to 0:0 by a cast to 8 or 20 bits.
      {"DeviceMinorOutOfRange", TestTar().Device("d", '3', 0, 1 << 20).Finish(),
       "beyond 4095:1048575"},
      {"BlockDeviceOutOfRange",
       TestTar()
           .Pax({{"SCHILY.devmajor", "4294967295"}})
           .Device("d", '4', 0, 0)
           .Finish(),
       "beyond 4095:1048575"},
      {"BlockDeviceZero", TestTar().Device("d", '4', 0, 0).Finish(), "",
       [](const TestDir& dir) { EXPECT_TRUE(S_ISBLK(dir.Stat("d").st_mode)); }},
  };
}

void RunCases(const std::vector<Case>& cases, LayerFormat format) {
  for (const Case& test : cases) {
    SCOPED_TRACE(test.name);
    TestDir dir;
    UnpackOptions options;
    options.format = format;
    const auto result = Unpack(test.tar, dir, options);
    if (test.error.empty()) {
      EXPECT_OK(result);
      test.check(dir);
    } else {
      ASSERT_FALSE(result.ok());
      EXPECT_THAT(std::string(result.status().message()),
                  HasSubstr(test.error));
    }
  }
}

class UnpackBreakoutTest : public ::testing::TestWithParam<LayerFormat> {};

TEST_P(UnpackBreakoutTest, Names) {
  Outside outside;
  RunCases(NameCases(outside), GetParam());
}

TEST_P(UnpackBreakoutTest, Symlinks) {
  Outside outside;
  RunCases(SymlinkCases(outside), GetParam());
}

TEST_P(UnpackBreakoutTest, Hardlinks) {
  Outside outside;
  RunCases(HardlinkCases(outside), GetParam());
}

TEST_P(UnpackBreakoutTest, Whiteouts) {
  Outside outside;
  RunCases(WhiteoutCases(outside), GetParam());
}

TEST_P(UnpackBreakoutTest, Devices) { RunCases(DeviceCases(), GetParam()); }

INSTANTIATE_TEST_SUITE_P(Formats, UnpackBreakoutTest,
                         ::testing::Values(LayerFormat::kOverlayTrusted,
                                           LayerFormat::kOverlayUser,
                                           LayerFormat::kPlain));

// Symbolic links of lower layers, in a tree that has them on disk.
TEST(UnpackPlainBreakoutTest, LinksOfLowerLayersAreNotFollowed) {
  Outside outside;
  TestLayers layers(LayerFormat::kPlain);
  ASSERT_OK(layers.Add(Etc()
                           .Symlink("host", outside.path("etc"))
                           .Symlink("local", "/etc")
                           .Symlink("dead", "/dne")
                           .Finish()));
  // As a parent, for a hard link target, for a whiteout, for a directory entry.
  ASSERT_OK(layers.Add(TestTar()
                           .File("host/passwd", "mine")
                           .File("local/passwd", "other")
                           .File("dead/.wh.etc")
                           .Finish()));
  EXPECT_EQ(layers.top().Read("host/passwd"), "mine");
  EXPECT_EQ(layers.top().Read("local/passwd"), "other");
  EXPECT_EQ(layers.top().Read("etc/passwd"), "inside");
  EXPECT_EQ(layers.top().Readlink("dead"), "/dne");

  TestLayers again(LayerFormat::kPlain);
  ASSERT_OK(again.Add(Etc().Symlink("host", outside.path("etc")).Finish()));
  EXPECT_THAT(again.Add(TestTar().Hardlink("mine", "host/passwd").Finish()),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("host/passwd")));
  ASSERT_OK(again.Add(
      TestTar().File("host/.wh.passwd").File("host/.wh..wh..opq").Finish()));
  EXPECT_EQ(again.top().Readlink("host"), outside.path("etc"));
  ASSERT_OK(again.Add(TestTar().Dir("host", 0711).Finish()));
  EXPECT_TRUE(again.top().IsDir("host"));
}

TEST(UnpackBreakoutLimitsTest, TheDirectoryMayBeASymlinksTarget) {
  TestDir dir;
  UniqueFd closed(::open(dir.path().c_str(), O_PATH | O_CLOEXEC));
  const std::string tar = TestTar().File("a", "x").Finish();
  MemorySource source(tar);
  EXPECT_OK(UnpackLayer(source, closed.borrow(), {}));
  EXPECT_EQ(dir.Read("a"), "x");
}

}  // namespace
}  // namespace caisson::layer
