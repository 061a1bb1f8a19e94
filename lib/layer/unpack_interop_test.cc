// Archives written by other people's programs: GNU tar, bsdtar, gzip, pigz,
// zstd. And archives of random content, which GNU tar and umoci unpack to the
// same trees.
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "lib/base/status_matchers.h"
#include "lib/layer/decompress.h"
#include "lib/layer/random_tar.h"
#include "lib/layer/test_dir.h"
#include "lib/layer/test_image.h"
#include "lib/layer/test_unpack.h"
#include "lib/layer/unpack.h"

namespace caisson::layer {
namespace {

bool Have(const std::string& program) {
  return ::system(
             absl::StrCat("command -v ", program, " >/dev/null").c_str()) == 0;
}

using ::caisson::testing::TestsMustRun;

// A tree with everything that an archiver can store.
void Fill(const TestDir& dir) {
  ASSERT_EQ(::chmod(dir.path(".").c_str(), 0755), 0);
  dir.MakeDir("d", 0750);
  dir.Write("d/file", "content\n", 0640);
  dir.Write("d/setuid", "x", 04755);
  dir.Write("empty", "");
  dir.Write("\xe4\xf6\xfc", "latin");
  ASSERT_EQ(::symlink("d/file", dir.path("link").c_str()), 0);
  ASSERT_EQ(
      ::symlink(std::string(150, 'l').c_str(), dir.path("longlink").c_str()),
      0);
  ASSERT_EQ(::link(dir.path("d/file").c_str(), dir.path("hard").c_str()), 0);
  ASSERT_EQ(::mkfifo(dir.path("fifo").c_str(), 0600), 0);
  ASSERT_EQ(::mknod(dir.path("null").c_str(), S_IFCHR | 0666, 0x103), 0);
  std::string deep;
  for (int i = 0; i < 5; ++i) {
    absl::StrAppend(&deep, i == 0 ? "" : "/", std::string(60, 'a' + i));
    dir.MakeDir(deep);
  }
  dir.Write(absl::StrCat(deep, "/", std::string(200, 'f')), "deep");
  ASSERT_EQ(::chown(dir.path("empty").c_str(), 3'000'000, 4'000'000), 0);
  dir.SetXattr("d/file", "user.key", "value");
  // Two islands in a hole of a megabyte.
  UniqueFd sparse(
      ::open(dir.path("sparse").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
  const std::string island(8192, 's');
  ASSERT_EQ(::pwrite(sparse.get(), island.data(), island.size(), 65536), 8192);
  ASSERT_EQ(::pwrite(sparse.get(), island.data(), island.size(), 524288), 8192);
  ASSERT_EQ(::ftruncate(sparse.get(), 1 << 20), 0);
  for (const char* name : {"d/file", "empty", "link", "d", "."}) {
    const timespec times[2] = {{1'234'567'890, 123'456'789},
                               {1'234'567'890, 123'456'789}};
    ASSERT_EQ(::utimensat(dir.fd().get(), name, times, AT_SYMLINK_NOFOLLOW), 0);
  }
}

// The dump without what the format does not store.
std::string Comparable(const std::string& dump, bool nanoseconds, bool xattrs) {
  std::vector<std::string> lines = absl::StrSplit(dump, '\n');
  for (std::string& line : lines) {
    std::string kept;
    for (absl::string_view field : absl::StrSplit(line, ' ')) {
      if (!xattrs && absl::StartsWith(field, "user.")) continue;
      // SECONDS.NANOSECONDS
      if (!nanoseconds && field.find('.') == 10) field = field.substr(0, 10);
      absl::StrAppend(&kept, field, " ");
    }
    line = kept;
  }
  return absl::StrJoin(lines, "\n");
}

struct Archiver {
  std::string name;
  std::string program;
  std::string command;  // writes the tree in "." to stdout
  bool nanoseconds = false;
  bool xattrs = false;
};

class UnpackInteropTest : public ::testing::TestWithParam<Archiver> {};

TEST_P(UnpackInteropTest, RoundTrip) {
  const Archiver& archiver = GetParam();
  for (const absl::string_view part : absl::StrSplit(archiver.program, ' ')) {
    if (Have(std::string(part))) continue;
    if (TestsMustRun()) FAIL() << part << " is not installed";
    GTEST_SKIP() << part << " is not installed";
  }
  TestDir original;
  Fill(original);
  const std::string command =
      absl::StrCat("cd ", original.path(), " && ", archiver.command);
  FILE* pipe = ::popen(command.c_str(), "re");
  ASSERT_NE(pipe, nullptr);
  FdSource file{BorrowedFd(::fileno(pipe))};
  ASSERT_OK_AND_ASSIGN(auto stream, Decompress(file, {}));
  TestDir copy;
  const auto stats = UnpackLayer(*stream, copy.fd(), {});
  EXPECT_EQ(::pclose(pipe), 0);
  ASSERT_OK(stats);
  EXPECT_EQ(Comparable(copy.Dump(), archiver.nanoseconds, archiver.xattrs),
            Comparable(original.Dump(), archiver.nanoseconds, archiver.xattrs));
  EXPECT_EQ(copy.Stat("hard").st_ino, copy.Stat("d/file").st_ino);
  EXPECT_LE(copy.Stat("sparse").st_blocks,
            absl::StrContains(archiver.command, "-S") ? 64 : 4096);
}

INSTANTIATE_TEST_SUITE_P(
    Archivers, UnpackInteropTest,
    ::testing::Values(
        Archiver{"GnuTar", "tar", "tar -cf - --format=gnu ."},
        Archiver{"GnuTarOldSparse", "tar", "tar -cSf - --format=gnu ."},
        Archiver{"GnuTarPax", "tar", "tar -cf - --format=pax --xattrs .", true,
                 true},
        Archiver{"GnuTarPaxSparse00", "tar",
                 "tar -cSf - --format=pax --sparse-version=0.0 .", true},
        Archiver{"GnuTarPaxSparse01", "tar",
                 "tar -cSf - --format=pax --sparse-version=0.1 .", true},
        Archiver{"GnuTarPaxSparse10", "tar",
                 "tar -cSf - --format=pax --sparse-version=1.0 .", true},
        Archiver{"GnuTarWithLabel", "tar", "tar -cf - --format=gnu -V label ."},
        Archiver{"GnuTarPaxGlobal", "tar",
                 "tar -cf - --format=pax --pax-option=globexthdr.name=g,"
                 "comment=x -V label .",
                 true},
        Archiver{"GnuTarBlocked", "tar", "tar -cf - -b 128 --format=gnu ."},
        Archiver{"BsdTarPax", "bsdtar",
                 "bsdtar -cf - --format=pax --no-read-sparse .", true, true},
        Archiver{"BsdTarPaxSparse", "bsdtar",
                 "bsdtar -cf - --format=pax --read-sparse .", true, true},
        Archiver{"BsdTarGnu", "bsdtar", "bsdtar -cf - --format=gnutar ."},
        Archiver{"Gzip", "tar gzip", "tar -cf - --format=gnu . | gzip -9"},
        Archiver{"Pigz", "tar pigz", "tar -cf - --format=gnu . | pigz -p 2"},
        Archiver{"Zstd", "tar zstd", "tar -cf - --format=gnu . | zstd -19"},
        Archiver{"ZstdLong", "tar zstd",
                 "tar -cf - --format=gnu . | zstd --long=27 -T2"}),
    [](const auto& info) { return info.param.name; });

// ---- archives of random content, unpacked by us and by others ----

// How many archives each test makes; more of them find more.
uint64_t Seeds() {
  const char* text = ::getenv("CAISSON_TEST_SEEDS");
  uint64_t seeds = 0;
  return text != nullptr && absl::SimpleAtoi(text, &seeds) ? seeds : 4;
}

// Files of several names, each with the first of them.
std::string Links(const std::string& root) {
  std::map<ino_t, std::string> first;
  std::string links;
  for (const std::string& name : TreeNames(root + "/")) {
    struct stat st = {};
    if (::lstat(absl::StrCat(root, "/", name).c_str(), &st) != 0 ||
        S_ISDIR(st.st_mode) || st.st_nlink < 2) {
      continue;
    }
    const auto [it, fresh] = first.emplace(st.st_ino, name);
    if (!fresh) absl::StrAppend(&links, name, " is ", it->second, "\n");
  }
  return links;
}

// The dump without what programs legitimately do differently:
// the time of a directory without an entry is that of what implied it for us,
// and now for others.
std::vector<std::string> Common(const std::string& dump,
                                const std::set<std::string>& implied) {
  std::set<std::string> names;
  for (const std::string& name : implied) {
    names.insert(absl::CHexEscape(name) + " dir ");
  }
  std::vector<std::string> lines = absl::StrSplit(dump, '\n');
  for (std::string& line : lines) {
    for (const std::string& name : names) {
      if (!absl::StartsWith(line, name)) continue;
      // NAME dir MODE UID:GID SECONDS.NANOSECONDS ...
      std::vector<std::string> fields =
          absl::StrSplit(line.substr(name.size()), ' ');
      fields.at(2) = "-";
      line = absl::StrCat(name, absl::StrJoin(fields, " "));
    }
  }
  return lines;
}

void RequireProgram(const std::string& program) {
  if (Have(program)) return;
  if (TestsMustRun()) FAIL() << program << " is not installed";
  GTEST_SKIP() << program << " is not installed";
}

// The lines that only one of two dumps has, the beginnings of some of them.
std::string Difference(const std::vector<std::string>& ours,
                       const std::vector<std::string>& theirs) {
  std::string text;
  const auto add = [&text](const char* sign, const auto& lines,
                           const auto& others) {
    const std::set<std::string> has(others.begin(), others.end());
    for (const std::string& line : lines) {
      if (has.count(line) > 0 || text.size() > 4000) continue;
      absl::StrAppend(&text, "\n", sign, line.substr(0, 400));
    }
  };
  add("ours:   ", ours, theirs);
  add("theirs: ", theirs, ours);
  return text;
}

void ExpectSameTrees(const TestDir& ours, const std::string& theirs,
                     const std::set<std::string>& implied) {
  const std::string difference = Difference(
      Common(ours.Dump(), implied), Common(DumpTree(theirs + "/"), implied));
  EXPECT_TRUE(difference.empty()) << difference;
  EXPECT_EQ(Links(ours.path()), Links(theirs));
}

TEST(UnpackDifferentialTest, GnuTarMakesTheSameTree) {
  ASSERT_NO_FATAL_FAILURE(RequireProgram("tar"));
  for (uint64_t seed = 0; seed < Seeds(); ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    RandomTars random(seed, /*implied=*/true,
                      /*replace_directories=*/false);
    const std::string tar = random.Layer().mixed;
    TestDir ours;
    ASSERT_OK(Unpack(tar, ours, {.format = LayerFormat::kPlain}));
    TestDir theirs;
    const std::string command = absl::StrCat(
        "umask 022; tar -x -P -p --delay-directory-restore --numeric-owner "
        "--same-owner --warning=no-timestamp --xattrs "
        "--xattrs-include='*' -C ",
        theirs.path());
    FILE* pipe = ::popen(command.c_str(), "we");
    ASSERT_NE(pipe, nullptr);
    ::fwrite(tar.data(), 1, tar.size(), pipe);
    EXPECT_EQ(::pclose(pipe), 0);
    ExpectSameTrees(ours, theirs.path(), random.implied());
  }
}

// Directories that have the time at which they were unpacked: umoci 0.4.7
// forgets, in some archives, to give one of them its own again.
std::set<std::string> DirectoriesSince(const std::string& root, time_t start) {
  std::set<std::string> names;
  std::vector<std::string> all = TreeNames(root + "/");
  all.push_back(".");
  for (const std::string& name : all) {
    struct stat st = {};
    ::lstat(absl::StrCat(root, "/", name).c_str(), &st);
    // Some archives have times that are later than any test is.
    const bool since =
        st.st_mtim.tv_sec >= start && st.st_mtim.tv_sec < start + 24 * 60 * 60;
    if (S_ISDIR(st.st_mode) && since) names.insert(name);
  }
  return names;
}

TEST(UnpackDifferentialTest, UmociMakesTheSameTree) {
  ASSERT_NO_FATAL_FAILURE(RequireProgram("umoci"));
  for (uint64_t seed = 100; seed < 100 + Seeds(); ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    RandomTars random(seed, /*implied=*/false,
                      /*replace_directories=*/true);
    TestImage image;
    image.names = {"latest"};
    TestLayers ours(LayerFormat::kPlain);
    for (int i = 0; i < 3; ++i) {
      const RandomLayer layer = random.Layer();
      ASSERT_OK(ours.Add(layer.mixed));
      image.layers.push_back(layer.whiteouts_first);
    }
    const time_t start = ::time(nullptr);
    TestDir theirs;
    theirs.MakeDir("layout");
    OciArchive({image}).WriteTo(theirs.path("layout"));
    EXPECT_EQ(::system(absl::StrCat("umask 022; umoci --log=error raw unpack "
                                    "--image ",
                                    theirs.path("layout"), ":latest ",
                                    theirs.path("rootfs"))
                           .c_str()),
              0);
    const std::set<std::string> late =
        DirectoriesSince(theirs.path("rootfs"), start);
    EXPECT_LE(late.size(), 2u);
    ExpectSameTrees(ours.top(), theirs.path("rootfs"), late);
  }
}

// Wherever whiteouts stand, and in whatever format a layer is unpacked.
TEST(UnpackDifferentialTest, OrderAndFormatMakeNoDifference) {
  for (uint64_t seed = 200; seed < 200 + Seeds(); ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    RandomTars random(seed, /*implied=*/true,
                      /*replace_directories=*/true);
    TestLayers plain(LayerFormat::kPlain);
    TestLayers first;
    TestLayers mixed;
    TestLayers last(LayerFormat::kOverlayUser);
    for (int i = 0; i < 3; ++i) {
      const RandomLayer layer = random.Layer();
      ASSERT_OK(plain.Add(layer.mixed));
      ASSERT_OK(first.Add(layer.whiteouts_first));
      ASSERT_OK(mixed.Add(layer.mixed));
      ASSERT_OK(last.Add(layer.whiteouts_last));
    }
    ASSERT_OK_AND_ASSIGN(const std::string expected, plain.Merged());
    for (const TestLayers* layers : {&first, &mixed, &last}) {
      ASSERT_OK_AND_ASSIGN(const std::string merged, layers->Merged());
      const std::string difference =
          Difference(Common(merged, {}), Common(expected, {}));
      EXPECT_TRUE(difference.empty()) << difference;
    }
  }
}

}  // namespace
}  // namespace caisson::layer
