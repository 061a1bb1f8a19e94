// Imports with threads: the same store whatever their number, nothing left of
// them, and the host's thread alone hears of the progress.
#include <pthread.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "caisson/layer_store.h"
#include "gtest/gtest.h"
#include "lib/base/status_matchers.h"
#include "lib/layer/test_image.h"
#include "lib/layer/test_store.h"
#include "lib/layer/test_streams.h"
#include "lib/layer/test_tar.h"

namespace caisson::layer {
namespace {

namespace fs = std::filesystem;
using ::caisson::testing::StatusIs;
using ::testing::HasSubstr;

constexpr auto kCancelled = absl::StatusCode::kCancelled;
constexpr auto kDataLoss = absl::StatusCode::kDataLoss;
constexpr auto kExhausted = absl::StatusCode::kResourceExhausted;

std::set<std::string> Tasks() {
  std::set<std::string> tasks;
  for (const auto& task : fs::directory_iterator("/proc/self/task")) {
    tasks.insert(task.path().filename());
  }
  return tasks;
}

// Every layer needs those below it: attributes of parents without an entry,
// links into lower layers, whiteouts of what is there and of what is not.
TestImage EntangledImage() {
  TestImage image;
  image.names = {"app:1"};
  TestTar base;
  base.Owner(7, 8).Mtime(900'000'000).Dir("./", 0711).Dir("etc", 0700);
  base.File("etc/a", "a").File("etc/b", "b").Dir("opt", 0750);
  base.File("opt/old", "old").File("big", SampleText(2 << 20));
  base.Hardlink("big.link", "big").Symlink("link", "etc");
  image.layers.push_back(base.Finish());
  image.layers.push_back(TestTar()
                             .File("etc/c", "c", 04755)
                             .Hardlink("etc/a.link", "etc/a")
                             .File("opt/.wh.old")
                             .File("opt/.wh.never")
                             .File("twice", "one")
                             .File("twice", SampleText(1 << 20))
                             .Finish());
  image.layers.push_back(TestTar()
                             .File("opt/.wh..wh..opq")
                             .File("opt/new", "new")
                             .File("etc/.wh.c")
                             .Hardlink("deep/down/link", "big")
                             .File("sparse", std::string(1 << 20, '\0'))
                             .Finish());
  for (int i = 3; i < 6; ++i) {
    TestTar tar;
    tar.Owner(i, i).File(absl::StrCat("etc/layer", i), absl::StrCat(i));
    tar.File("shared", SampleText(200'000 + i * 1000));
    tar.Hardlink(absl::StrCat("opt/from", i - 1),
                 absl::StrCat("etc/layer", i - 1));
    if (i == 3) tar.File("etc/layer2", "for the link");
    image.layers.push_back(tar.Finish());
  }
  return image;
}

std::string Attribute(const std::string& path, const char* name) {
  char value[64];
  const ssize_t size = ::lgetxattr(path.c_str(), name, value, sizeof(value));
  return size < 0 ? "" : std::string(value, static_cast<size_t>(size));
}

// One line for each file below `dir`, by path.
std::map<std::string, std::string> Describe(const std::string& dir) {
  std::map<std::string, std::string> lines;
  const auto add = [&](const std::string& path) {
    struct stat status;
    ASSERT_EQ(::lstat(path.c_str(), &status), 0) << path;
    lines[path.substr(dir.size())] = absl::StrCat(
        status.st_mode, " ", status.st_uid, ":", status.st_gid, " ",
        S_ISDIR(status.st_mode) ? 0 : status.st_nlink, " ",
        S_ISREG(status.st_mode) ? status.st_size : 0, " ", status.st_rdev, " ",
        // Of tar-split and whiteouts it is the time of the import.
        absl::EndsWith(path, "tar-split") || S_ISCHR(status.st_mode)
            ? 0
            : status.st_mtim.tv_sec,
        " ", Attribute(path, "trusted.overlay.opaque"), " ",
        S_ISREG(status.st_mode) ? Digest::Of(ReadFile(path)).str() : "");
  };
  for (const auto& file : fs::recursive_directory_iterator(dir)) {
    // The directory of a layer, around diff/, has no time of the image.
    if (file.path().parent_path() != dir) add(file.path());
  }
  return lines;
}

class ImportThreadsTest : public StoreTest {
 protected:
  // ThreadSanitizer has a thread of its own beside the first that is made.
  void SetUp() override {
    StoreTest::SetUp();
    std::string task;
    std::thread([&task] { task = std::to_string(::gettid()); }).join();
    while ((before_ = Tasks()).count(task) > 0) std::this_thread::yield();
  }

  // A thread that was joined can still be seen for an instant.
  void ExpectNoThreads() const {
    for (int i = 0; i < 1000 && Tasks() != before_; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    EXPECT_EQ(Tasks(), before_);
  }

  LayerStore OpenWith(int threads) const {
    LayerStoreOptions options = Options();
    options.import_threads = threads;
    auto store = LayerStore::Open(options);
    EXPECT_OK(store);
    return *std::move(store);
  }

  void ExpectNothing(const LayerStore& store) const {
    EXPECT_EQ(LayersOnDisk(), 0u);
    EXPECT_EQ(Entries("staging"), std::vector<std::string>());
    EXPECT_TRUE(store.List()->empty());
  }

  std::set<std::string> before_;  // threads
};

TEST_F(ImportThreadsTest, ChangeNothing) {
  const std::string archive = Write("a.tar", OciArchive({EntangledImage()}));
  std::map<std::string, std::string> expected;
  for (const int threads : {0, 1, 2, 6}) {
    SCOPED_TRACE(threads);
    LayerStore store = OpenWith(threads);
    ASSERT_OK_AND_ASSIGN(const auto images, store.Import(archive));
    ExpectNoThreads();
    const auto tree = Describe(StorePath() + "/layers/overlay");
    if (threads == 0) expected = tree;
    EXPECT_GT(tree.size(), 40u);
    for (const auto& [path, line] : expected) {
      const auto it = tree.find(path);
      EXPECT_EQ(it == tree.end() ? "missing" : it->second, line) << path;
    }
    EXPECT_EQ(tree.size(), expected.size());
    if (threads == 6) {
      ASSERT_OK_AND_ASSIGN(const StoreReport report, store.Verify());
      EXPECT_TRUE(report.findings.empty());
    }
    ASSERT_OK(store.Remove("app:1"));
    ExpectNothing(store);
  }
}

TEST_F(ImportThreadsTest, ProgressIsToldToTheCallerAlone) {
  TestImage image = EntangledImage();
  uint64_t bytes = 0;
  for (size_t i = 0; i < image.layers.size(); ++i) {
    bytes += image.Blob(i).size();
  }
  const std::string archive = Write("a.tar", OciArchive({image}));
  for (const int threads : {0, 4}) {
    SCOPED_TRACE(threads);
    LayerStore store = OpenWith(threads);
    const pthread_t caller = ::pthread_self();
    ImportProgress last;
    ImportOptions options;
    options.progress = [&](const ImportProgress& now) {
      EXPECT_TRUE(::pthread_equal(::pthread_self(), caller));
      EXPECT_GE(now.phase, last.phase);
      EXPECT_GE(now.bytes_done, last.bytes_done);
      EXPECT_GE(now.entries_done, last.entries_done);
      EXPECT_GE(now.layers_done, last.layers_done);
      for (size_t i = 0; i < last.each.size(); ++i) {
        EXPECT_GE(now.each[i].bytes_done, last.each[i].bytes_done);
        EXPECT_LE(now.each[i].bytes_done, now.each[i].bytes);
        EXPECT_GE(now.each[i].entries_done, last.each[i].entries_done);
        EXPECT_GE(now.each[i].done, last.each[i].done);
      }
      last = now;
      return true;
    };
    ASSERT_OK_AND_ASSIGN(const auto images, store.Import(archive, options));
    EXPECT_EQ(last.phase, ImportProgress::kPublishing);
    EXPECT_EQ(last.layers, 6u);
    EXPECT_EQ(last.layers_done, 6u);
    EXPECT_EQ(last.bytes, bytes);
    EXPECT_EQ(last.bytes_done, bytes);
    ASSERT_EQ(last.each.size(), 6u);
    uint64_t entries = 0;
    for (size_t i = 0; i < 6; ++i) {
      EXPECT_EQ(last.each[i].diff_id, images[0].layers[i].diff_id);
      EXPECT_EQ(last.each[i].bytes_done, last.each[i].bytes);
      EXPECT_TRUE(last.each[i].done);
      entries += last.each[i].entries_done;
    }
    EXPECT_EQ(last.each[0].entries_done, 9u);
    EXPECT_EQ(last.entries_done, entries);
    ASSERT_OK(store.Remove("app:1"));
  }
}

// At every report, until the import is over before that.
TEST_F(ImportThreadsTest, CanBeCancelledAnywhere) {
  const std::string archive = Write("a.tar", OciArchive({EntangledImage()}));
  LayerStore store = OpenWith(4);
  int stop = 0;
  for (bool finished = false; !finished; stop += 1 + stop / 2) {
    int reports = 0;
    ImportOptions options;
    options.progress = [&](const ImportProgress&) { return reports++ < stop; };
    const auto images = store.Import(archive, options);
    finished = images.ok();
    ExpectNoThreads();
    if (finished) break;
    EXPECT_EQ(reports, stop + 1) << "asked again after it was cancelled";
    EXPECT_THAT(images, StatusIs(kCancelled, HasSubstr("ImportOptions")));
    ExpectNothing(store);
  }
  EXPECT_GE(stop, 2);
}

TEST_F(ImportThreadsTest, TheFirstErrorEndsEverything) {
  const TestImage image = EntangledImage();
  LayerStore store = OpenWith(5);
  TestArchive damaged = OciArchive({image});
  const std::string path = BlobPathOf(image.Blob(4));
  damaged.files[path].back() ^= 1;
  EXPECT_THAT(store.Import(Write("b.tar", damaged)),
              StatusIs(kDataLoss, HasSubstr(path)));
  ExpectNoThreads();
  ExpectNothing(store);
}

// Only complete lower layers can tell that a link has no target.
TEST_F(ImportThreadsTest, ErrorsOfTheSecondStep) {
  TestImage image = EntangledImage();
  image.layers[4] = TestTar().Hardlink("here", "nowhere").Finish();
  LayerStore store = OpenWith(5);
  EXPECT_THAT(store.Import(Write("a.tar", OciArchive({image}))),
              StatusIs(absl::StatusCode::kNotFound,
                       HasSubstr(BlobPathOf(image.Blob(4)))));
  ExpectNothing(store);
}

TEST_F(ImportThreadsTest, LimitsOfAnImportHoldForLayersAtOnce) {
  TestImage image;
  for (const char name : {'a', 'b', 'c', 'd'}) {
    image.layers.push_back(
        TestTar().File(std::string(1, name), SampleText(1 << 20)).Finish());
  }
  const std::string archive = Write("a.tar", OciArchive({image}));
  LayerStoreOptions options = Options();
  options.import_threads = 8;
  options.max_import_bytes = (4 << 20) - 1;
  ASSERT_OK_AND_ASSIGN(LayerStore bytes, LayerStore::Open(options));
  EXPECT_THAT(bytes.Import(archive),
              StatusIs(kExhausted, HasSubstr("max_import_bytes")));
  ExpectNothing(bytes);
  options.max_import_bytes = 4 << 20;
  options.max_import_entries = 3;
  ASSERT_OK_AND_ASSIGN(LayerStore entries, LayerStore::Open(options));
  EXPECT_THAT(entries.Import(archive),
              StatusIs(kExhausted, HasSubstr("max_import_entries")));
  ExpectNothing(entries);
  options.max_import_entries = 4;
  ASSERT_OK_AND_ASSIGN(LayerStore enough, LayerStore::Open(options));
  EXPECT_OK(enough.Import(archive));
}

TEST_F(ImportThreadsTest, BlockAllSignals) {
  LayerStore store = OpenWith(6);
  size_t seen = 0;
  ImportOptions options;
  options.progress = [&](const ImportProgress&) {
    for (const std::string& task : Tasks()) {
      if (before_.count(task) > 0) continue;
      std::ifstream status("/proc/self/task/" + task + "/status");
      std::string line;
      while (std::getline(status, line)) {
        if (!absl::StartsWith(line, "SigBlk:")) continue;
        ++seen;
        // All but SIGKILL and SIGSTOP, and the two that glibc keeps for itself.
        constexpr uint64_t kAll = 0xfffffffe7ffbfeff;
        EXPECT_EQ(std::stoull(line.substr(7), nullptr, 16) & kAll, kAll);
      }
    }
    return true;
  };
  ASSERT_OK(
      store.Import(Write("a.tar", OciArchive({EntangledImage()})), options));
  EXPECT_GT(seen, 0u);
  ExpectNoThreads();
}

}  // namespace
}  // namespace caisson::layer
