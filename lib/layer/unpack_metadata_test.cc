// Owners, modes, times and extended attributes.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "lib/base/status_matchers.h"
#include "lib/layer/file_attributes.h"
#include "lib/layer/test_dir.h"
#include "lib/layer/test_tar.h"
#include "lib/layer/test_unpack.h"
#include "lib/layer/unpack.h"

namespace caisson::layer {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::Not;

// cap_net_bind_service=ep, VFS_CAP_REVISION_2.
const std::string kCapability("\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
                              20);

// An access control list with a named user, as the kernel stores it.
const std::string kAcl(
    "\x02\0\0\0"
    "\x01\0\x06\0\xff\xff\xff\xff"
    "\x02\0\x07\0\xe8\x03\0\0"
    "\x04\0\x04\0\xff\xff\xff\xff"
    "\x10\0\x07\0\xff\xff\xff\xff"
    "\x20\0\x04\0\xff\xff\xff\xff",
    44);

std::string Xattr(absl::string_view key) {
  return absl::StrCat("SCHILY.xattr.", key);
}

TEST(UnpackMetadataTest, SetIdBitsAndCapabilitiesSurviveTheOwner) {
  TestDir dir;
  ASSERT_OK(Unpack(TestTar()
                       .Owner(1000, 1001)
                       .File("setid", "x", 06755)
                       .Dir("setgid", 02775)
                       .File("setgid/file", "x", 0644)
                       .Pax({{Xattr("security.capability"), kCapability}})
                       .File("capable", "x", 0755)
                       .Finish(),
                   dir));
  EXPECT_EQ(dir.Mode("setid"), 06755u);
  EXPECT_EQ(dir.Mode("setgid"), 02775u);
  EXPECT_EQ(dir.Mode("setgid/file"), 0644u);
  EXPECT_EQ(dir.Xattr("capable", "security.capability"), kCapability);
  EXPECT_EQ(dir.Stat("capable").st_uid, 1000u);
}

TEST(UnpackMetadataTest, LargeIds) {
  TestDir dir;
  ASSERT_OK(Unpack(TestTar()
                       .Owner(2'097'152, 4'294'967'294)
                       .File("a")
                       .Dir("d")
                       .Symlink("s", "x")
                       .Finish(),
                   dir));
  for (const char* name : {"a", "d", "s"}) {
    EXPECT_EQ(dir.Stat(name).st_uid, 2'097'152u);
    EXPECT_EQ(dir.Stat(name).st_gid, 4'294'967'294u);
  }
}

TEST(UnpackMetadataTest, TheUmaskDoesNotMatter) {
  const mode_t before = ::umask(0777);
  TestDir dir;
  const auto result = Unpack(TestTar()
                                 .Dir("d", 0777)
                                 .File("d/f", "x", 0666)
                                 .Fifo("p")
                                 .File("implied/f", "x")
                                 .Finish(),
                             dir);
  ::umask(before);
  ASSERT_OK(result);
  EXPECT_EQ(dir.Mode("d"), 0777u);
  EXPECT_EQ(dir.Mode("d/f"), 0666u);
  EXPECT_EQ(dir.Mode("p"), 0644u);
  EXPECT_EQ(dir.Mode("implied"), 0755u);
}

TEST(UnpackMetadataTest, TimesOfDirectoriesAreThoseOfTheirEntries) {
  TestDir dir;
  ASSERT_OK(Unpack(TestTar()
                       .Mtime(1'000'000'000)
                       .Dir(".")
                       .Dir("d")
                       .Dir("d/e")
                       .Mtime(1'500'000'000)
                       .File("d/e/f")
                       .File("d/.wh.x")
                       .File("d/e/f", "again")
                       .Finish(),
                   dir));
  for (const char* name : {".", "d", "d/e"}) {
    EXPECT_EQ(dir.Stat(name).st_mtim.tv_sec, 1'000'000'000) << name;
  }
  EXPECT_EQ(dir.Stat("d/e/f").st_mtim.tv_sec, 1'500'000'000);
}

TEST(UnpackMetadataTest, NanosecondsAndExtremeTimes) {
  TestDir dir;
  ASSERT_OK(Unpack(TestTar()
                       .Pax({{"mtime", "1234567890.123456789"}})
                       .File("nanoseconds")
                       .Pax({{"mtime", "-1.5"}})
                       .Symlink("before1970", "x")
                       .Pax({{"mtime", "99999999999999999999"}})
                       .File("huge")
                       .Pax({{"mtime", "-99999999999999999999.9"}})
                       .Dir("ancient")
                       .Mtime(0)
                       .File("zero")
                       .Finish(),
                   dir));
  EXPECT_EQ(dir.Stat("nanoseconds").st_mtim.tv_nsec, 123456789);
  EXPECT_EQ(dir.Stat("before1970").st_mtim.tv_sec, -2);
  EXPECT_EQ(dir.Stat("before1970").st_mtim.tv_nsec, 500000000);
  EXPECT_EQ(dir.Stat("huge").st_mtim.tv_sec, 15032385535);
  EXPECT_EQ(dir.Stat("ancient").st_mtim.tv_sec, -2147483648);
  EXPECT_EQ(dir.Stat("zero").st_mtim.tv_sec, 0);
}

TEST(UnpackMetadataTest, XattrsOfAllTypes) {
  TestDir dir;
  ASSERT_OK_AND_ASSIGN(
      const UnpackStats stats,
      Unpack(TestTar()
                 .Pax({{Xattr("user.a"), std::string("\0x\n", 3)},
                       {Xattr("trusted.b"), ""}})
                 .File("file")
                 .Pax({{Xattr("user.a"), "dir"}})
                 .Dir("dir")
                 .Pax({{Xattr("trusted.b"), "link"}})
                 .Symlink("link", "file")
                 .Pax({{Xattr("trusted.b"), "fifo"}})
                 .Fifo("fifo")
                 .Finish(),
             dir));
  EXPECT_EQ(stats.skipped_xattrs, 0u);
  EXPECT_EQ(dir.Xattr("file", "user.a"), std::string("\0x\n", 3));
  EXPECT_EQ(dir.Xattr("file", "trusted.b"), "");
  EXPECT_EQ(dir.Xattr("dir", "user.a"), "dir");
  EXPECT_EQ(dir.Xattr("link", "trusted.b"), "link");
  EXPECT_EQ(dir.Xattr("fifo", "trusted.b"), "fifo");
}

TEST(UnpackMetadataTest, AccessControlLists) {
  TestDir dir;
  ASSERT_OK(Unpack(TestTar()
                       .Pax({{Xattr("system.posix_acl_default"), kAcl}})
                       .Dir("d", 0755)
                       .File("d/plain", "x", 0600)
                       .Dir("d/sub", 0700)
                       .Pax({{Xattr("system.posix_acl_access"), kAcl}})
                       .File("d/listed", "x", 0674)
                       .Finish(),
                   dir));
  EXPECT_EQ(dir.Xattr("d", "system.posix_acl_default"), kAcl);
  // Not inherited by what the tar has without one.
  EXPECT_EQ(dir.Xattr("d/plain", "system.posix_acl_access"), "<none>");
  EXPECT_EQ(dir.Xattr("d/sub", "system.posix_acl_default"), "<none>");
  EXPECT_EQ(dir.Mode("d/plain"), 0600u);
  EXPECT_EQ(dir.Xattr("d/listed", "system.posix_acl_access"), kAcl);
  EXPECT_EQ(dir.Mode("d/listed"), 0674u);
}

TEST(UnpackMetadataTest, TheDirectorysOwnListsAreNotInherited) {
  for (const LayerFormat format :
       {LayerFormat::kOverlayTrusted, LayerFormat::kPlain}) {
    TestDir dir;
    dir.SetXattr(".", "system.posix_acl_default", kAcl);
    ASSERT_OK(Unpack(TestTar().File("a", "x").File("d/b", "x").Finish(), dir,
                     {.format = format}));
    EXPECT_EQ(dir.Xattr("a", "system.posix_acl_access"), "<none>");
    EXPECT_EQ(dir.Mode("a"), 0644u);
    EXPECT_EQ(dir.Xattr("d", "system.posix_acl_default"), "<none>");
    EXPECT_EQ(dir.Mode("d"), 0755u);
    // kPlain leaves a root without an entry as it was.
    EXPECT_EQ(dir.Xattr(".", "system.posix_acl_default"),
              format == LayerFormat::kPlain ? kAcl : "<none>");
  }
}

TEST(UnpackMetadataTest, WhatIsNotTakenOverIsCounted) {
  TestDir dir;
  ASSERT_OK_AND_ASSIGN(
      const UnpackStats stats,
      Unpack(TestTar()
                 .Pax({{Xattr("security.selinux"), "system_u:object_r:etc_t"},
                       {Xattr("security.SMACK64"), "_"},
                       {Xattr("system.nfs4_acl"), "x"},
                       {Xattr("nonsense.x"), "x"},
                       {Xattr("user.kept"), "x"}})
                 .File("a")
                 // The kernel has no user attributes for links.
                 .Pax({{Xattr("user.a"), "x"}})
                 .Symlink("s", "a")
                 .Finish(),
             dir));
  EXPECT_EQ(stats.skipped_xattrs, 5u);
  EXPECT_EQ(dir.Xattr("a", "user.kept"), "x");
  EXPECT_THAT(dir.Xattr("a", "security.selinux"), Not(HasSubstr("etc_t")));
}

TEST(UnpackMetadataTest, OverlayAttributesOfAnImageAreNeverLetThrough) {
  const std::string tar = TestTar()
                              .Pax({{Xattr("trusted.overlay.opaque"), "y"},
                                    {Xattr("trusted.overlay.redirect"), "/etc"},
                                    {Xattr("user.overlay.opaque"), "y"},
                                    {Xattr("user.overlay.overlay.x"), "y"}})
                              .Dir("d")
                              .Pax({{Xattr("trusted.overlay.metacopy"), ""},
                                    {Xattr("user.overlay.whiteout"), "y"}})
                              .File("f")
                              .Finish();
  struct Expected {
    LayerFormat format;
    const char* kept;
    const char* escaped;
  };
  for (const Expected& expected :
       {Expected{LayerFormat::kOverlayTrusted, "trusted.overlay.overlay.opaque",
                 "trusted.overlay.overlay.metacopy"},
        Expected{LayerFormat::kOverlayUser, "user.overlay.overlay.opaque",
                 "user.overlay.overlay.whiteout"},
        Expected{LayerFormat::kPlain, nullptr, nullptr}}) {
    TestDir dir;
    ASSERT_OK(Unpack(tar, dir, {.format = expected.format}));
    for (const char* key :
         {"trusted.overlay.opaque", "trusted.overlay.redirect",
          "trusted.overlay.metacopy", "user.overlay.opaque",
          "user.overlay.overlay.x", "user.overlay.whiteout"}) {
      EXPECT_EQ(dir.Xattr("d", key), "<none>") << key;
      EXPECT_EQ(dir.Xattr("f", key), "<none>") << key;
    }
    if (expected.kept != nullptr) {
      EXPECT_EQ(dir.Xattr("d", expected.kept), "y");
      EXPECT_NE(dir.Xattr("f", expected.escaped), "<none>");
    }
  }
}

// Linux 6.7: the container sees its own attribute.
TEST(UnpackMetadataTest, EscapedAttributesAreReadThroughTheMount) {
  TestLayers layers;
  ASSERT_OK(layers.Add(TestTar().Dir("d").File("d/lower").Finish()));
  ASSERT_OK(layers.Add(TestTar()
                           .Pax({{Xattr("trusted.overlay.opaque"), "y"}})
                           .Dir("d")
                           .Finish()));
  ASSERT_OK_AND_ASSIGN(const std::string names, layers.MergedNames());
  EXPECT_EQ(names, "d d/lower");
  // Parents that are copied from lower layers keep it in its escaped form.
  ASSERT_OK(layers.Add(TestTar().File("d/new").Finish()));
  EXPECT_EQ(layers.top().Xattr("d", "trusted.overlay.overlay.opaque"), "y");
  ASSERT_OK_AND_ASSIGN(const std::string all, layers.MergedNames());
  EXPECT_EQ(all, "d d/lower d/new");
}

TEST(UnpackMetadataTest, WhatTheFileSystemCannotHoldIsAnError) {
  TestDir dir;
  EXPECT_THAT(Unpack(TestTar()
                         .Pax({{Xattr("user.big"), std::string(70'000, 'x')}})
                         .File("a")
                         .Finish(),
                     dir),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("setxattr(\"a\", \"user.big\")")));
}

TEST(UnpackMetadataTest, PlainDirectoriesLoseWhatTheirNewEntryLacks) {
  TestLayers layers(LayerFormat::kPlain);
  ASSERT_OK(layers.Add(TestTar()
                           .Pax({{Xattr("user.old"), "x"},
                                 {Xattr("system.posix_acl_default"), kAcl}})
                           .Dir("d", 0700)
                           .File("d/a", "x")
                           .Finish()));
  // Without an entry nothing of it changes.
  ASSERT_OK(layers.Add(TestTar().Mtime(5).File("d/b", "x").Finish()));
  EXPECT_EQ(layers.top().Xattr("d", "user.old"), "x");
  EXPECT_EQ(layers.top().Xattr("d", "system.posix_acl_default"), kAcl);
  EXPECT_EQ(layers.top().Xattr("d/b", "system.posix_acl_access"), "<none>");
  EXPECT_EQ(layers.top().Stat("d").st_mtim.tv_sec, 1'000'000'000);
  ASSERT_OK(layers.Add(
      TestTar().Pax({{Xattr("user.new"), "y"}}).Dir("d", 0711).Finish()));
  EXPECT_EQ(layers.top().Xattr("d", "user.old"), "<none>");
  EXPECT_EQ(layers.top().Xattr("d", "system.posix_acl_default"), "<none>");
  EXPECT_EQ(layers.top().Xattr("d", "user.new"), "y");
  EXPECT_EQ(layers.top().Mode("d"), 0711u);
  EXPECT_EQ(layers.top().Read("d/a"), "x");
}

TEST(XattrKeyTest, Table) {
  const LayerFormat trusted = LayerFormat::kOverlayTrusted;
  EXPECT_EQ(XattrKeyOnDisk("user.x", trusted), "user.x");
  EXPECT_EQ(XattrKeyOnDisk("trusted.overlay", trusted), "trusted.overlay");
  EXPECT_EQ(XattrKeyOnDisk("trusted.overlay.", trusted),
            "trusted.overlay.overlay.");
  EXPECT_EQ(XattrKeyOnDisk("trusted.overlay.overlay.x", trusted),
            "trusted.overlay.overlay.overlay.x");
  EXPECT_EQ(XattrKeyOnDisk("user.overlay.x", trusted), std::nullopt);
  EXPECT_EQ(XattrKeyOnDisk("user.overlay.x", LayerFormat::kOverlayUser),
            "user.overlay.overlay.x");
  EXPECT_EQ(XattrKeyOnDisk("trusted.overlay.x", LayerFormat::kPlain),
            std::nullopt);
}

}  // namespace
}  // namespace caisson::layer
