#include "lib/layer/unpack.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "lib/base/status_matchers.h"
#include "lib/layer/decompress.h"
#include "lib/layer/test_dir.h"
#include "lib/layer/test_streams.h"
#include "lib/layer/test_tar.h"
#include "lib/layer/test_unpack.h"

namespace caisson::layer {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(UnpackTest, AllTypes) {
  TestDir dir;
  ASSERT_OK_AND_ASSIGN(const UnpackStats stats,
                       Unpack(TestTar()
                                  .Owner(1000, 100)
                                  .Dir(".", 0751)
                                  .Dir("d", 01777)
                                  .File("d/f", "data", 04755)
                                  .Symlink("d/s", "f")
                                  .Hardlink("h", "d/f")
                                  .Device("c", '3', 1, 3)
                                  .Device("b", '4', 4095, 1048575)
                                  .Fifo("p")
                                  .Finish(),
                              dir));
  EXPECT_EQ(stats.entries, 8u);
  EXPECT_EQ(stats.bytes, 4u);
  EXPECT_EQ(stats.tar_bytes, 8 * 512u + 512 + 1024);
  EXPECT_EQ(dir.Mode("."), 0751u);
  EXPECT_EQ(dir.Mode("d"), 01777u);
  EXPECT_EQ(dir.Read("d/f"), "data");
  EXPECT_EQ(dir.Mode("d/f"), 04755u);
  EXPECT_EQ(dir.Readlink("d/s"), "f");
  EXPECT_EQ(dir.Stat("h").st_ino, dir.Stat("d/f").st_ino);
  EXPECT_TRUE(S_ISCHR(dir.Stat("c").st_mode));
  EXPECT_EQ(dir.Stat("c").st_rdev, makedev(1, 3));
  EXPECT_TRUE(S_ISBLK(dir.Stat("b").st_mode));
  EXPECT_EQ(dir.Stat("b").st_rdev, makedev(4095, 1048575));
  EXPECT_TRUE(S_ISFIFO(dir.Stat("p").st_mode));
  for (const char* name : {".", "d", "d/f", "d/s", "c", "b", "p"}) {
    EXPECT_EQ(dir.Stat(name).st_uid, 1000u) << name;
    EXPECT_EQ(dir.Stat(name).st_gid, 100u) << name;
    EXPECT_EQ(dir.Stat(name).st_mtim.tv_sec, 1'000'000'000) << name;
  }
  EXPECT_EQ(dir.Mode("c"), 0600u);
  EXPECT_EQ(dir.Mode("p"), 0644u);
}

TEST(UnpackTest, EmptyStreamsAreEmptyLayers) {
  for (const std::string& tar : {std::string(), TestTar().Finish()}) {
    TestDir dir;
    ASSERT_OK_AND_ASSIGN(const UnpackStats stats, Unpack(tar, dir));
    EXPECT_EQ(stats.entries, 0u);
    EXPECT_EQ(stats.tar_bytes, tar.size());
    EXPECT_EQ(dir.Mode("."), 0755u);
    EXPECT_EQ(dir.Stat(".").st_mtim.tv_sec, 0);
  }
}

TEST(UnpackTest, NamesAreBytes) {
  const std::string latin = "\xe4\xf6\xfc \xff\n\"\\";
  TestDir dir;
  ASSERT_OK(Unpack(TestTar()
                       .Dir(latin)
                       .File(latin + "/" + latin, "x")
                       .Symlink("link", latin)
                       .Hardlink("hard", latin + "/" + latin)
                       .File("-rf", "y")
                       .Finish(),
                   dir));
  EXPECT_EQ(dir.Read(latin + "/" + latin), "x");
  EXPECT_EQ(dir.Readlink("link"), latin);
  EXPECT_EQ(dir.Read("hard"), "x");
  EXPECT_EQ(dir.Read("-rf"), "y");
  // Errors do not forge lines.
  EXPECT_THAT(Unpack(TestTar().File("a\nb/..").Finish(), dir,
                     {.format = LayerFormat::kPlain}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("file \"a\\nb/..\" (header at offset 0)")));
}

TEST(UnpackTest, OfDuplicatesTheLastWins) {
  TestDir dir;
  ASSERT_OK(Unpack(TestTar()
                       .File("a", "a long first version", 04755)
                       .File("a", "second", 0600)
                       .Dir("d", 0700)
                       .File("d/kept", "x")
                       .Dir("d", 0711)
                       .Dir("t")
                       .File("t/gone", "x")
                       .File("t", "file now")
                       .Symlink("s", "a")
                       .File("s", "no link")
                       .Hardlink("h", "a")
                       .File("h", "own")
                       .Pax({{"SCHILY.xattr.user.first", "x"}})
                       .Dir("x")
                       .Pax({{"SCHILY.xattr.user.second", "x"}})
                       .Dir("x")
                       .Finish(),
                   dir));
  EXPECT_EQ(dir.Read("a"), "second");
  EXPECT_EQ(dir.Mode("a"), 0600u);
  EXPECT_EQ(dir.Mode("d"), 0711u);
  EXPECT_EQ(dir.Read("d/kept"), "x");
  EXPECT_EQ(dir.Read("t"), "file now");
  EXPECT_TRUE(dir.IsFile("s"));
  EXPECT_EQ(dir.Read("h"), "own");
  EXPECT_EQ(dir.Xattr("x", "user.first"), "<none>");
  EXPECT_EQ(dir.Xattr("x", "user.second"), "x");
}

// ---- data ----

TEST(UnpackTest, LargeFilesInPieces) {
  const std::string data = SampleText(3 << 20);
  const std::string tar =
      TestTar().File("a", data).File("b", data.substr(1, 512)).Finish();
  for (const size_t chunk : {size_t{777}, size_t{65536}, SIZE_MAX}) {
    TestDir dir;
    MemorySource source(tar, chunk);
    ASSERT_OK(UnpackLayer(source, dir.fd(), {}));
    EXPECT_TRUE(dir.Read("a") == data);
    EXPECT_TRUE(dir.Read("b") == data.substr(1, 512));
  }
}

TEST(UnpackTest, TruncatedStreamsAreErrors) {
  const std::string tar =
      TestTar().File("a", std::string(5000, 'a')).File("b", "x").Finish();
  TestDir dir;
  EXPECT_THAT(
      Unpack(tar.substr(0, 3000), dir),
      StatusIs(absl::StatusCode::kDataLoss,
               "tar entry \"a\" (header at offset 0): the archive is "
               "truncated: it ends at offset 3000 in the data of the entry"));
  TestDir gzip_dir;
  const std::string gzip = Gzip(tar);
  MemorySource source(absl::string_view(gzip).substr(0, gzip.size() / 2));
  ASSERT_OK_AND_ASSIGN(auto stream, Decompress(source, {}));
  EXPECT_THAT(UnpackLayer(*stream, gzip_dir.fd(), {}),
              StatusIs(absl::StatusCode::kDataLoss,
                       HasSubstr("gzip stream is truncated")));
}

TEST(UnpackTest, SizesThatDisagree) {
  const std::string inner = TestTar().File("smuggled", "evil").bytes();
  TestTarHeader header;
  header.name = "outer";
  TestDir dir;
  ASSERT_OK(Unpack(TestTar()
                       .Pax({{"size", absl::StrCat(inner.size())}})
                       .Entry(header, inner)
                       .Finish(),
                   dir));
  EXPECT_THAT(dir.Names(), ElementsAre("outer"));
  EXPECT_TRUE(dir.Read("outer") == inner);
}

std::string SparseTar(uint64_t size) {
  return TestTar()
      .Pax({{"GNU.sparse.size", absl::StrCat(size)},
            {"GNU.sparse.numblocks", "2"},
            {"GNU.sparse.map", absl::StrCat("4096,3,", size - 5, ",5")}})
      .File("sparse", "onethree")
      .File("next", "x")
      .Finish();
}

TEST(UnpackTest, SparseFilesAreHoles) {
  constexpr uint64_t kSize = uint64_t{10} << 30;
  TestDir dir;
  ASSERT_OK_AND_ASSIGN(const UnpackStats stats, Unpack(SparseTar(kSize), dir));
  EXPECT_EQ(stats.bytes, kSize + 1);
  const struct stat status = dir.Stat("sparse");
  EXPECT_EQ(static_cast<uint64_t>(status.st_size), kSize);
  EXPECT_LT(status.st_blocks, 1000);
  EXPECT_EQ(dir.Read("next"), "x");
  UniqueFd fd(::open(dir.path("sparse").c_str(), O_RDONLY | O_CLOEXEC));
  char data[6] = {};
  EXPECT_EQ(::pread(fd.get(), data, 3, 4096), 3);
  EXPECT_STREQ(data, "one");
  EXPECT_EQ(::pread(fd.get(), data, 6, kSize - 5), 5);
  EXPECT_STREQ(data, "three");
}

TEST(UnpackTest, ASparseClaimCountsAsItsSize) {
  TestDir dir;
  EXPECT_THAT(Unpack(SparseTar(uint64_t{10} << 30), dir,
                     {.max_bytes = uint64_t{1} << 30}),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("its 10737418240 bytes take the files of the "
                                 "layer beyond max_bytes (1073741824)")));
  EXPECT_TRUE(dir.Names().empty());
}

// ---- limits ----

TEST(UnpackLimitsTest, Entries) {
  TestDir dir;
  EXPECT_THAT(Unpack(TestTar().File("a").File("b").File("c").Finish(), dir,
                     {.max_entries = 2}),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("max_entries (2)")));
}

TEST(UnpackLimitsTest, Bytes) {
  const std::string tar = TestTar().File("a", "12345").File("b", "6").Finish();
  TestDir dir;
  EXPECT_THAT(
      Unpack(tar, dir, {.max_bytes = 5}),
      StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("file \"b\"")));
  TestDir enough;
  EXPECT_OK(Unpack(tar, enough, {.max_bytes = 6}));
}

TEST(UnpackLimitsTest, Paths) {
  const auto exhausted = [](const char* what) {
    return StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr(what));
  };
  TestDir dir;
  const UnpackOptions options = {
      .format = LayerFormat::kPlain, .max_path_bytes = 20, .max_path_depth = 3};
  EXPECT_OK(
      Unpack(TestTar().File("1234567890/123456789").Finish(), dir, options));
  EXPECT_THAT(
      Unpack(TestTar().File("1234567890/1234567890").Finish(), dir, options),
      exhausted("max_path_bytes (20)"));
  EXPECT_OK(Unpack(TestTar().File("a/b/c").Finish(), dir, options));
  EXPECT_THAT(Unpack(TestTar().File("a/b/c/d").Finish(), dir, options),
              exhausted("max_path_depth (3)"));
  // Also where a symbolic link leads.
  EXPECT_THAT(Unpack(TestTar()
                         .Dir("x")
                         .Dir("x/y")
                         .Dir("x/y/z")
                         .Symlink("l", "x/y/z")
                         .File("l/sub/file")
                         .Finish(),
                     dir, options),
              exhausted("max_path_depth (3)"));
  EXPECT_THAT(Unpack(TestTar().File(std::string(256, 'n')).Finish(), dir,
                     {.format = LayerFormat::kPlain}),
              exhausted("NAME_MAX"));
  const std::string deep = [] {
    std::string path = "d";
    while (path.size() < 4000) path += "/" + std::string(200, 'd');
    return path;
  }();
  TestDir deep_dir;
  EXPECT_OK(Unpack(TestTar().File(deep, "x").Finish(), deep_dir));
}

TEST(UnpackLimitsTest, Memory) {
  TestTar dirs;
  TestTar whiteouts;
  TestTar links;
  TestTar xattrs;
  for (int i = 0; i < 200; ++i) {
    dirs.Dir(absl::StrCat("d", i));
    whiteouts.File(absl::StrCat(".wh.", i));
    links.Hardlink(absl::StrCat("l", i), "missing");
    xattrs.Pax({{"SCHILY.xattr.user.x", std::string(200, 'x')}}).Dir("d");
  }
  for (const TestTar& tar : {dirs, whiteouts, links, xattrs}) {
    TestDir dir;
    EXPECT_THAT(Unpack(tar.Finish(), dir, {.max_layer_memory = 10'000}),
                StatusIs(absl::StatusCode::kResourceExhausted,
                         HasSubstr("max_layer_memory (10000)")));
  }
}

TEST(UnpackLimitsTest, ExtensionsOfTheTar) {
  TestDir dir;
  EXPECT_THAT(Unpack(TestTar()
                         .Pax({{"comment", std::string(2000, 'x')}})
                         .File("a")
                         .Finish(),
                     dir, {.tar = {.max_extension_bytes = 1000}}),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("max_extension_bytes (1000)")));
}

// The kernel's answer to a write beyond it would be SIGXFSZ.
TEST(UnpackLimitsTest, FileSizeLimitOfTheProcess) {
  rlimit before;
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit small = before;
  small.rlim_cur = 1 << 20;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  TestDir dir;
  const auto result = Unpack(SparseTar(uint64_t{10} << 30), dir);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_THAT(result, StatusIs(absl::StatusCode::kResourceExhausted,
                               HasSubstr("RLIMIT_FSIZE (1048576)")));
}

TEST(UnpackProgressTest, IsToldAboutOnceAMegabyteAndMayStop) {
  const std::string tar =
      TestTar().File("a", std::string(5 << 20, 'a')).Finish();
  std::vector<uint64_t> offsets;
  UnpackOptions options;
  options.progress = [&](const UnpackProgress& progress) {
    offsets.push_back(progress.tar_bytes);
    EXPECT_EQ(progress.entries, 1u);
    return absl::OkStatus();
  };
  TestDir dir;
  ASSERT_OK(Unpack(tar, dir, options));
  EXPECT_GE(offsets.size(), 4u);
  EXPECT_LE(offsets.size(), 6u);
  EXPECT_TRUE(std::is_sorted(offsets.begin(), offsets.end()));

  options.progress = [](const UnpackProgress&) {
    return absl::CancelledError("enough");
  };
  TestDir stopped;
  EXPECT_THAT(Unpack(tar, stopped, options),
              StatusIs(absl::StatusCode::kCancelled, HasSubstr("enough")));
}

// No descriptor is left, neither after success nor after errors.
TEST(UnpackTest, ClosesItsDescriptors) {
  const auto count = [] {
    return std::distance(std::filesystem::directory_iterator("/proc/self/fd"),
                         std::filesystem::directory_iterator());
  };
  TestTar tar;
  for (int i = 0; i < 40; ++i) tar.File(absl::StrCat("d", i, "/f"), "x");
  const auto before = count();
  {
    TestDir dir;
    ASSERT_OK(Unpack(tar.Finish(), dir));
    TestDir failed;
    EXPECT_FALSE(Unpack(tar.File("..").Finish(), failed).ok());
    EXPECT_EQ(count(), before + 2);
  }
  EXPECT_EQ(count(), before);
}

}  // namespace
}  // namespace caisson::layer
