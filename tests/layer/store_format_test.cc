// The on-disk format of a LayerStore (doc/layer-store.md): what it is, and that
// every version that there has ever been can be read.
//
//   CAISSON_WRITE_GOLDEN=DIR  writes the files of golden/ for the present
//                             version there: for one that has just been made
#include <sqlite3.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "caisson/layer_store.h"
#include "gtest/gtest.h"
#include "lib/base/status_matchers.h"
#include "lib/layer/store_index.h"
#include "lib/layer/test_image.h"
#include "lib/layer/test_store.h"
#include "lib/layer/test_tar.h"
#include "tests/layer/store_state.h"

namespace caisson::layer {
namespace {

namespace fs = std::filesystem;

constexpr char kGolden[] = "tests/layer/golden/";

std::string Version() { return absl::StrCat("v", kIndexVersion); }

// What every golden store has in it: of each kind of file one.
TestImage GoldenImage() {
  TestImage image;
  image.platform = {.os = "linux", .architecture = "amd64"};
  image.layers = {TestTar()
                      .Dir("./")
                      .Dir("etc/", 0700)
                      .Owner(1000, 2000)
                      .Pax({{"SCHILY.xattr.user.note", "kept"}})
                      .File("etc/passwd", "root\n", 04755)
                      .Hardlink("etc/again", "etc/passwd")
                      .Symlink("etc/link", "../hidden")
                      .Device("null", '3', 1, 3)
                      .Fifo("fifo")
                      .Dir("opaque/")
                      .File("opaque/below")
                      .File("hidden", "below")
                      .Finish(),
                  TestTar()
                      .Dir("opaque/")
                      .File("opaque/.wh..wh..opq")
                      .File("opaque/above", "above")
                      .File(".wh.hidden")
                      .Finish()};
  image.names = {"golden:1", "registry.example/team/golden:2"};
  return image;
}

class StoreFormatTest : public StoreTest {
 protected:
  // A store with everything that the format has a place for.
  void MakeGolden() {
    const std::string archive = Write("a.tar", OciArchive({GoldenImage()}));
    ImportOptions import;
    import.platform = GoldenImage().platform;
    LayerStoreOptions options = Options();
    options.format = LayerStoreFormat::kOverlayUserxattr;
    ASSERT_OK_AND_ASSIGN(LayerStore other, LayerStore::Open(options));
    ASSERT_OK(other.Import(archive, import));
    LayerStore store = OpenStore();
    ASSERT_OK(store.Import(archive, import));
    ASSERT_OK_AND_ASSIGN(const Image image, store.Find("golden:1"));
    ASSERT_OK_AND_ASSIGN(const LayerSet lower, store.OpenLayers(image));
    ASSERT_OK_AND_ASSIGN(WritableLayer top,
                         store.CreateWritableLayer({.lower = &lower}));
    ASSERT_EQ(::mknodat(top.upper().get(), "fifo", S_IFCHR | 0, makedev(0, 0)),
              0);
    const timespec times[2] = {{1'000'000'000, 0}, {1'000'000'000, 0}};
    ASSERT_EQ(::futimens(top.upper().get(), times), 0);
    CommitOptions commit;
    commit.created = absl::UnixEpoch();
    commit.name = "committed";
    ASSERT_OK(store.Commit(image, top.upper(), commit));
    ASSERT_OK(top.Keep("changes"));
  }

  // All files with their modes and what marks them, then the index's tables.
  std::string Layout() const {
    std::vector<std::string> lines;
    for (const auto& entry : fs::recursive_directory_iterator(StorePath())) {
      struct stat status = {};
      EXPECT_EQ(::lstat(entry.path().c_str(), &status), 0);
      const std::string path =
          entry.path().string().substr(StorePath().size() + 1);
      // Whether SQLite is at work makes no difference.
      if (absl::StartsWith(path, "index.db-")) continue;
      lines.push_back(absl::StrCat(
          path, " ", absl::StrFormat("%o", status.st_mode), " ", status.st_uid,
          ":", status.st_gid,
          S_ISREG(status.st_mode) && absl::StrContains(path, "/diff/")
              ? absl::StrCat(" ", status.st_size)
              : ""));
    }
    std::sort(lines.begin(), lines.end());
    for (const char* pragma : {"application_id", "user_version"}) {
      lines.push_back(
          absl::StrCat(pragma, " ", Ask(absl::StrCat("PRAGMA ", pragma))));
    }
    lines.push_back(Ask(
        "SELECT group_concat(sql, char(10)) FROM "
        "(SELECT sql FROM sqlite_schema WHERE sql NOT NULL ORDER BY name)"));
    return absl::StrJoin(lines, "\n") + "\n";
  }

  // What users see of it. The archives of two machines are compressed by other
  // versions, and so is what is kept of them.
  static std::string Seen(const LayerStore& store, const std::string& path) {
    auto text = DescribeStore(store, path);
    EXPECT_OK(text);
    std::vector<std::string> lines =
        absl::StrSplit(text.ok() ? *text : "", '\n');
    lines.erase(std::remove_if(lines.begin(), lines.end(),
                               [](const std::string& line) {
                                 return absl::StartsWith(line, "tar-split ");
                               }),
                lines.end());
    return absl::StrJoin(lines, "\n");
  }

  // The golden store of that name where the store belongs.
  void Extract(const std::string& name) const {
    const std::string command = absl::StrCat(
        "tar -C ", temp_.path(), " --xattrs '--xattrs-include=*' -xpzf ",
        kGolden, name, ".tar.gz");
    ASSERT_EQ(::system(command.c_str()), 0) << command;
  }

 private:
  std::string Ask(const std::string& sql) const {
    sqlite3* db = nullptr;
    EXPECT_EQ(::sqlite3_open((StorePath() + "/index.db").c_str(), &db),
              SQLITE_OK);
    sqlite3_stmt* statement = nullptr;
    EXPECT_EQ(::sqlite3_prepare_v2(db, sql.c_str(), -1, &statement, nullptr),
              SQLITE_OK);
    EXPECT_EQ(::sqlite3_step(statement), SQLITE_ROW);
    const auto* text = ::sqlite3_column_text(statement, 0);
    std::string answer = reinterpret_cast<const char*>(text);
    ::sqlite3_finalize(statement);
    ::sqlite3_close(db);
    return answer;
  }
};

TEST_F(StoreFormatTest, IsThatOfItsVersion) {
  MakeGolden();
  const char* directory = ::getenv("CAISSON_WRITE_GOLDEN");
  if (directory != nullptr) {
    const std::string base = absl::StrCat(directory, "/", Version());
    std::ofstream(base + ".txt") << Layout();
    const std::string command = absl::StrCat(
        "tar -C ", temp_.path(), " --xattrs '--xattrs-include=*' ",
        "--numeric-owner --sort=name -czf ", base, ".tar.gz store");
    ASSERT_EQ(::system(command.c_str()), 0) << command;
    GTEST_SKIP() << "wrote " << base << ".{txt,tar.gz}";
  }
  EXPECT_EQ(Layout(), ReadFile(absl::StrCat(kGolden, Version(), ".txt")))
      << "the format has changed: raise kIndexVersion, write what upgrades a "
         "store, describe it in doc/layer-store.md, and make golden files of "
         "the new version";
}

// Every version, and every state of one, that was ever written.
class EveryVersion : public StoreFormatTest,
                     public ::testing::WithParamInterface<const char*> {
 protected:
  static bool HasTars() {
    return !absl::StrContains(GetParam(), "without-tar-split");
  }
};

TEST_P(EveryVersion, ShowsWhatWasPutIn) {
  MakeGolden();
  std::string expected;
  {
    LayerStore store = OpenStore();
    // Nothing could be committed then.
    if (!HasTars()) {
      ASSERT_OK(store.Remove("committed"));
    }
    expected = Seen(store, StorePath());
  }
  fs::rename(StorePath(), StorePath() + ".new");
  Extract(GetParam());
  LayerStore store = OpenStore();
  std::string seen = Seen(store, StorePath());
  // The kept layer has the time at which it was made.
  expected.resize(expected.find("kept changes"));
  seen.resize(seen.find("kept changes"));
  EXPECT_EQ(seen, expected);
  ASSERT_OK_AND_ASSIGN(WritableLayer kept, store.OpenWritableLayer("changes"));
  ASSERT_OK_AND_ASSIGN(const Image image, store.Find("golden:1"));
  ASSERT_OK_AND_ASSIGN(const LayerSet layers, store.OpenLayers(image));
  ASSERT_OK_AND_ASSIGN(const auto changes, store.Diff(kept.upper(), layers));
  EXPECT_EQ(changes.size(), 1u);
}

TEST_P(EveryVersion, IsUpgraded) {
  Extract(GetParam());
  for (const auto format :
       {LayerStoreFormat::kOverlay, LayerStoreFormat::kOverlayUserxattr}) {
    LayerStoreOptions options = Options();
    options.format = format;
    ASSERT_OK_AND_ASSIGN(LayerStore store, LayerStore::Open(options));
    // The one thing that cannot be made of what is there.
    ASSERT_OK_AND_ASSIGN(StoreReport report, store.Verify({.repair = true}));
    for (const StoreFinding& finding : report.findings) {
      EXPECT_EQ(finding.kind, StoreFinding::kLayerUnknown)
          << finding.ToString();
      EXPECT_TRUE(finding.repaired) << finding.ToString();
    }
    EXPECT_EQ(report.findings.empty(), HasTars());
    ImportOptions import;
    import.platform = GoldenImage().platform;
    ASSERT_OK(
        store.Import(Write("a.tar", OciArchive({GoldenImage()})), import));
    ASSERT_OK_AND_ASSIGN(report, store.Verify());
    for (const StoreFinding& finding : report.findings) {
      ADD_FAILURE() << finding.ToString();
    }
  }
  const std::vector<std::string> layout = absl::StrSplit(Layout(), '\n');
  EXPECT_THAT(layout, ::testing::Contains(
                          absl::StrCat("user_version ", kIndexVersion)));
}

INSTANTIATE_TEST_SUITE_P(, EveryVersion,
                         ::testing::Values("v1-without-tar-split", "v1", "v2"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace caisson::layer
