// What is left of a store when a process dies, and when several change it at
// once.
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "caisson/layer_store.h"
#include "gtest/gtest.h"
#include "lib/base/status_matchers.h"
#include "lib/layer/digest.h"
#include "lib/layer/test_image.h"
#include "lib/layer/test_store.h"
#include "lib/layer/test_streams.h"
#include "lib/layer/test_tar.h"

namespace caisson::layer {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

namespace fs = std::filesystem;

class LayerStoreCrashTest : public StoreTest {
 protected:
  LayerStoreOptions NoRecover() const {
    LayerStoreOptions options = Options();
    options.recover = false;
    return options;
  }
  // Every image is there, whole, and nothing else.
  void ExpectOnly(LayerStore& store, const std::string& name, int layers) {
    ASSERT_OK_AND_ASSIGN(Image image, store.Find(name));
    ASSERT_OK_AND_ASSIGN(LayerSet set, store.OpenLayers(image));
    for (int i = 0; i < layers; ++i) {
      EXPECT_NE(ReadInLayers(set, absl::StrCat("layer", i)), "");
    }
    EXPECT_THAT(*store.List(), SizeIs(1));
    EXPECT_EQ(LayersOnDisk(), static_cast<size_t>(layers));
    EXPECT_THAT(Entries("staging"), IsEmpty());
  }
};

TEST_F(LayerStoreCrashTest, ProcessesImportTheSameImageAtOnce) {
  const TestImage image = SampleImage("app", 6);
  const std::string archive = Write("a.tar", OciArchive({image}));
  int ready[2];
  ASSERT_EQ(::pipe2(ready, O_CLOEXEC), 0);
  std::vector<pid_t> children;
  for (int i = 0; i < 4; ++i) {
    const pid_t child = ::fork();
    if (child == 0) {
      ::close(ready[1]);
      char byte;
      // All start when the parent closes its end.
      (void)!::read(ready[0], &byte, 1);
      LayerStore store = OpenStore();
      const auto images = store.Import(archive);
      EXPECT_OK(images);
      bool good = images.ok() && images->size() == 1;
      if (good) good = store.OpenLayers(images->front()).ok();
      ::_exit(good ? 0 : 1);
    }
    children.push_back(child);
  }
  ::close(ready[0]);
  ::close(ready[1]);
  for (const pid_t child : children) {
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
  LayerStore store = OpenStore();
  ExpectOnly(store, "app:1", 6);
}

// Images with common layers come and go in several processes.
TEST_F(LayerStoreCrashTest, ProcessesImportAndRemoveAtOnce) {
  std::vector<std::string> archives;
  for (int i = 0; i < 3; ++i) {
    TestImage image = SampleImage("base", 3);
    image.layers.push_back(SampleImage(absl::StrCat("top", i), 1).layers[0]);
    image.names = {absl::StrCat("image", i, ":1")};
    archives.push_back(Write(absl::StrCat(i, ".tar"), OciArchive({image})));
  }
  std::vector<pid_t> children;
  for (int i = 0; i < 3; ++i) {
    const pid_t child = ::fork();
    if (child == 0) {
      const std::string name = absl::StrCat("image", i, ":1");
      for (int round = 0; round < 8; ++round) {
        LayerStore store = OpenStore();
        EXPECT_OK(store.Import(archives[i]));
        auto image = store.Find(name);
        EXPECT_OK(image);
        {
          auto layers = store.OpenLayers(*image);
          EXPECT_OK(layers);
          EXPECT_EQ(ReadInLayers(*layers, "layer2"), "base2");
        }
        EXPECT_OK(store.Remove(name));
        EXPECT_OK(store.Recover());
      }
      ::_exit(::testing::Test::HasFailure() ? 1 : 0);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
  LayerStore store = OpenStore();
  EXPECT_THAT(*store.List(), IsEmpty());
  EXPECT_EQ(LayersOnDisk(), 0u);
}

// kill -9 at every report of progress.
TEST_F(LayerStoreCrashTest, AKilledImportLeavesNothingAfterRecover) {
  TestImage image = SampleImage("app", 3);
  image.layers.push_back(
      TestTar().File("layer3", SampleText(3 << 20)).Finish());
  const std::string archive = Write("a.tar", Gzip(OciArchive({image}).Tar()));
  bool finished = false;
  for (int stop = 0; !finished; ++stop) {
    const int status = InChild([&] {
      auto store = LayerStore::Open(NoRecover());
      EXPECT_OK(store);
      int reports = 0;
      ImportOptions options;
      options.progress = [&](const ImportProgress&) {
        if (reports++ == stop) ::kill(::getpid(), SIGKILL);
        return true;
      };
      return store->Import(archive, options).ok();
    });
    finished = WIFEXITED(status);
    if (finished) {
      EXPECT_EQ(WEXITSTATUS(status), 0);
      EXPECT_GE(stop, 8);
      break;
    }
    EXPECT_THAT(Entries("staging"), SizeIs(1));
    ASSERT_OK_AND_ASSIGN(LayerStore store, LayerStore::Open(NoRecover()));
    EXPECT_THAT(*store.List(), IsEmpty());
    EXPECT_EQ(LayersOnDisk(), 0u) << "half a layer is never visible";
    ASSERT_OK_AND_ASSIGN(RecoverReport report, store.Recover());
    EXPECT_EQ(report.imports, 1u);
    EXPECT_THAT(report.failures, IsEmpty());
    EXPECT_THAT(Entries("staging"), IsEmpty());
  }
  LayerStore store = OpenStore();
  ExpectOnly(store, "app:1", 4);
}

// The instant between the renames and the commit: layers without a record.
TEST_F(LayerStoreCrashTest, ACommitThatNeverHappened) {
  const std::string archive =
      Write("a.tar", OciArchive({SampleImage("app", 3)}));
  {
    LayerStore store = OpenStore();
    ASSERT_OK(store.Import(archive));
  }
  const std::string forget =
      "PRAGMA foreign_keys=ON; DELETE FROM images; DELETE FROM layers; "
      "DELETE FROM documents;";
  Sql(forget);
  {
    ASSERT_OK_AND_ASSIGN(LayerStore store, LayerStore::Open(NoRecover()));
    EXPECT_EQ(LayersOnDisk(), 3u);
    ASSERT_OK(store.Import(archive));  // takes over what is complete
    ExpectOnly(store, "app:1", 3);
  }
  Sql(forget);
  ASSERT_OK_AND_ASSIGN(LayerStore store, LayerStore::Open(NoRecover()));
  ASSERT_OK_AND_ASSIGN(RecoverReport report, store.Recover());
  EXPECT_EQ(report.layers, 3u);
  EXPECT_EQ(LayersOnDisk(), 0u);
  ASSERT_OK(store.Import(archive));
  ExpectOnly(store, "app:1", 3);
}

TEST_F(LayerStoreCrashTest, RecoverLeavesTheLivingAlone) {
  const std::string archive =
      Write("a.tar", OciArchive({SampleImage("app", 2)}));
  LayerStore store = OpenStore();
  ASSERT_OK_AND_ASSIGN(WritableLayer writable, store.CreateWritableLayer());
  ImportOptions options;
  size_t checked = 0;
  options.progress = [&](const ImportProgress&) {
    auto other = LayerStore::Open(Options());
    EXPECT_OK(other);
    auto report = other->Recover();
    EXPECT_OK(report);
    EXPECT_EQ(report->imports + report->layers + report->writable_layers, 0u);
    ++checked;
    return true;
  };
  ASSERT_OK(store.Import(archive, options));
  EXPECT_GE(checked, 4u);
  ExpectOnly(store, "app:1", 2);
  EXPECT_THAT(Entries("writable"), SizeIs(1));
}

// A layer that an import counts on must not go with another image.
TEST_F(LayerStoreCrashTest, AnImportKeepsWhatItBuildsOn) {
  TestImage base = SampleImage("app", 2);
  TestImage derived = SampleImage("app", 3);
  derived.names = {"derived:1"};
  LayerStore store = OpenStore();
  ASSERT_OK(store.Import(Write("a.tar", OciArchive({base}))));
  ImportOptions options;
  bool removed = false;
  options.progress = [&](const ImportProgress& progress) {
    if (progress.phase != ImportProgress::kUnpacking || removed) return true;
    removed = true;
    EXPECT_EQ(progress.layers, 1u);
    LayerStore other = OpenStore();
    EXPECT_OK(other.Remove("app:1"));
    EXPECT_OK(other.Recover());
    EXPECT_EQ(LayersOnDisk(), 2u);
    return true;
  };
  ASSERT_OK(store.Import(Write("b.tar", OciArchive({derived})), options));
  EXPECT_TRUE(removed);
  ExpectOnly(store, "derived:1", 3);
}

// An image that is being imported again cannot vanish on the way.
TEST_F(LayerStoreCrashTest, AnImportKeepsItsOwnImage) {
  const std::string archive = Write("a.tar", OciArchive({SampleImage("app")}));
  LayerStore store = OpenStore();
  ASSERT_OK(store.Import(archive));
  ImportOptions options;
  options.progress = [&](const ImportProgress& progress) {
    if (progress.phase == ImportProgress::kPublishing) {
      EXPECT_THAT(
          store.Remove("app:1"),
          StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("in use")));
    }
    return true;
  };
  ASSERT_OK(store.Import(archive, options));
  EXPECT_OK(store.Remove("app:1"));
}

TEST_F(LayerStoreCrashTest, AKilledUserReleasesItsLayers) {
  LayerStore store = OpenStore();
  ASSERT_OK_AND_ASSIGN(
      auto images,
      store.Import(Write("a.tar", OciArchive({SampleImage("app")}))));
  int ready[2];
  ASSERT_EQ(::pipe2(ready, O_CLOEXEC), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    LayerStore own = OpenStore();
    auto layers = own.OpenLayers(images[0]);
    auto writable = own.CreateWritableLayer();
    const bool good = layers.ok() && writable.ok();
    (void)!::write(ready[1], good ? "1" : "0", 1);
    for (;;) ::pause();
  }
  ::close(ready[1]);
  char good = '0';
  ASSERT_EQ(::read(ready[0], &good, 1), 1);
  ::close(ready[0]);
  EXPECT_EQ(good, '1');
  EXPECT_THAT(
      store.Remove("app:1"),
      StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("in use")));
  ASSERT_OK_AND_ASSIGN(RecoverReport report, store.Recover());
  EXPECT_EQ(report.writable_layers, 0u);
  ::kill(child, SIGKILL);
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  ASSERT_OK_AND_ASSIGN(report, store.Recover());
  EXPECT_EQ(report.writable_layers, 1u);
  EXPECT_THAT(Entries("writable"), IsEmpty());
  EXPECT_OK(store.Remove("app:1"));
}

TEST_F(LayerStoreCrashTest, RecoverReportsWhatItCannotRemove) {
  LayerStore store = OpenStore();
  const std::string stuck = StorePath() + "/staging/stuck";
  ASSERT_EQ(::mkdir(stuck.c_str(), 0700), 0);
  // A mount point cannot be removed; in a mount namespace of its own.
  ExpectInChild([&] {
    EXPECT_EQ(::unshare(CLONE_NEWNS), 0);
    EXPECT_EQ(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
    EXPECT_EQ(::mount("tmpfs", stuck.c_str(), "tmpfs", 0, nullptr), 0);
    auto report = store.Recover();
    EXPECT_OK(report);
    EXPECT_EQ(report->imports, 0u);
    EXPECT_THAT(report->failures, SizeIs(1));
    // Such a leftover does not keep anybody from opening the store.
    EXPECT_OK(LayerStore::Open(Options()));
    return true;
  });
  ASSERT_OK_AND_ASSIGN(RecoverReport report, store.Recover());
  EXPECT_EQ(report.imports, 1u);
}

// A process out of descriptors fails cleanly, and takes nothing from others.
TEST_F(LayerStoreCrashTest, RunsOutOfDescriptors) {
  const std::string archive =
      Write("a.tar", OciArchive({SampleImage("app", 3)}));
  const std::string old = Write("b.tar", OciArchive({SampleImage("old", 2)}));
  LayerStore store = OpenStore();
  ASSERT_OK(store.Import(old));
  ASSERT_OK_AND_ASSIGN(WritableLayer living, store.CreateWritableLayer());
  bool imported = false;
  for (rlim_t spare = 0; spare < 64 && !imported; ++spare) {
    const int status = InChild([&] {
      LayerStore own = OpenStore();
      // The lowest free number is where the limit starts to bite.
      const int lowest = ::dup(0);
      ::close(lowest);
      const rlimit limit = {lowest + spare, lowest + spare};
      EXPECT_EQ(::setrlimit(RLIMIT_NOFILE, &limit), 0);
      auto report = own.Recover();
      EXPECT_TRUE(!report.ok() || report->writable_layers == 0);
      (void)LayerStore::Open(Options());
      return own.Import(archive).ok();
    });
    ASSERT_TRUE(WIFEXITED(status)) << spare;
    imported = WEXITSTATUS(status) == 0;
    EXPECT_THAT(Entries("writable"), SizeIs(1)) << spare;
    ASSERT_OK(store.Recover());
    EXPECT_THAT(Entries("staging"), IsEmpty()) << spare;
    EXPECT_EQ(LayersOnDisk(), imported ? 5u : 2u) << spare;
  }
  EXPECT_TRUE(imported);
}

}  // namespace
}  // namespace caisson::layer
