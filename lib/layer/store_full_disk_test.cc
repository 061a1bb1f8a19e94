// A disk that is full, and a file system without inodes: whatever fails says so
// and leaves nothing, and space helps.
#include <errno.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "caisson/error.h"
#include "caisson/layer_store.h"
#include "gtest/gtest.h"
#include "lib/base/status_macros.h"
#include "lib/base/status_matchers.h"
#include "lib/layer/test_image.h"
#include "lib/layer/test_store.h"
#include "lib/layer/test_streams.h"
#include "lib/layer/test_tar.h"

namespace caisson::layer {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

namespace fs = std::filesystem;

class FullDiskTest : public StoreTest {
 protected:
  uint64_t UsedBytes() const {
    struct statvfs status = {};
    EXPECT_EQ(::statvfs(StorePath().c_str(), &status), 0);
    return (status.f_blocks - status.f_bfree) * status.f_bsize;
  }
  uint64_t UsedInodes() const {
    struct statvfs status = {};
    EXPECT_EQ(::statvfs(StorePath().c_str(), &status), 0);
    return status.f_files - status.f_ffree;
  }
  static void Remount(const std::string& path, const std::string& options) {
    EXPECT_EQ(
        ::mount(nullptr, path.c_str(), nullptr, MS_REMOUNT, options.c_str()), 0)
        << options;
  }
  // Leaves `left` bytes free.
  void Fill(uint64_t left) const {
    Remount(StorePath(), absl::StrCat("size=", UsedBytes() + left));
  }

  // The image is there, and has these layers of its own.
  void ExpectOnly(LayerStore& store, const std::string& name, size_t layers) {
    ASSERT_OK_AND_ASSIGN(const Image image, store.Find(name));
    EXPECT_EQ(image.layers.size(), layers);
    EXPECT_OK(store.OpenLayers(image));
    EXPECT_EQ(LayersOnDisk(), layers);
    EXPECT_THAT(Entries("staging"), IsEmpty());
  }
  void ExpectNothingLeft(LayerStore& store, uint64_t before) {
    EXPECT_THAT(Entries("staging"), IsEmpty());
    EXPECT_EQ(LayersOnDisk(), 0u);
    EXPECT_THAT(*store.List(), IsEmpty());
    // The index's log may have grown; layers and spools have not stayed.
    EXPECT_LT(UsedBytes(), before + (1 << 20));
  }
};

TEST_F(FullDiskTest, ALayerThatDoesNotFit) {
  TestImage big = SampleImage("big", 2);
  big.layers.push_back(TestTar().File("x", SampleText(12 << 20)).Finish());
  const std::string archive = Write("a.tar", OciArchive({big}));
  const std::string packed = Write("a.tar.gz", Gzip(OciArchive({big}).Tar()));
  const std::string small = Write("b.tar", OciArchive({SampleImage("small")}));
  OnTmpfs(8 << 20, [&] {
    LayerStore store = OpenStore();
    const uint64_t before = UsedBytes();
    for (const std::string& path : {archive, packed}) {
      const auto images = store.Import(path);
      EXPECT_THAT(images, StatusIs(absl::StatusCode::kResourceExhausted,
                                   HasSubstr("ENOSPC")));
      EXPECT_EQ(GetErrorDetail(images.status())->error, ENOSPC);
      ExpectNothingLeft(store, before);
    }
    EXPECT_OK(store.Import(small));
    ExpectOnly(store, "small:1", 2);
  });
}

// The layers fit, but their record does not: they are taken back.
TEST_F(FullDiskTest, AnIndexThatDoesNotFit) {
  TestImage image = SampleImage("app", 2);
  image.env = "PAD=" + std::string(600 << 10, 'x');
  const std::string archive = Write("a.tar", OciArchive({image}));
  OnTmpfs(768 << 10, [&] {
    LayerStore store = OpenStore();
    const auto images = store.Import(archive);
    EXPECT_THAT(images, StatusIs(absl::StatusCode::kResourceExhausted,
                                 HasSubstr("ENOSPC")));
    EXPECT_EQ(LayersOnDisk(), 0u);
    EXPECT_THAT(Entries("staging"), IsEmpty());
    EXPECT_THAT(*store.List(), IsEmpty());
    EXPECT_EQ(
        ::mount(nullptr, StorePath().c_str(), nullptr, MS_REMOUNT, "size=32m"),
        0);
    EXPECT_OK(store.Import(archive));
    ExpectOnly(store, "app:1", 2);
  });
}

// However full the disk is, a failure is clean, and space helps.
TEST_F(FullDiskTest, EverySizeFailsCleanly) {
  const std::string archive =
      Write("a.tar", OciArchive({SampleImage("app", 3)}));
  OnTmpfs(32 << 20, [&] {
    { LayerStore store = OpenStore(); }
    for (size_t left = 0; left < 60; ++left) {
      // Fill the disk but for `left` pages.
      const uint64_t size = UsedBytes() + left * 4096;
      EXPECT_EQ(::mount(nullptr, StorePath().c_str(), nullptr, MS_REMOUNT,
                        absl::StrCat("size=", size).c_str()),
                0);
      auto store = LayerStore::Open(Options());
      if (store.ok()) {
        const auto images = store->Import(archive);
        if (!images.ok()) {
          EXPECT_THAT(images, StatusIs(absl::StatusCode::kResourceExhausted,
                                       HasSubstr("")))
              << left;
          EXPECT_EQ(LayersOnDisk(), 0u) << left;
          EXPECT_THAT(Entries("staging"), IsEmpty()) << left;
        }
      } else {
        EXPECT_THAT(store, StatusIs(absl::StatusCode::kResourceExhausted,
                                    HasSubstr("")))
            << left;
      }
      EXPECT_EQ(::mount(nullptr, StorePath().c_str(), nullptr, MS_REMOUNT,
                        "size=32m"),
                0);
      LayerStore again = OpenStore();
      if (again.Find("app:1").ok()) {
        EXPECT_OK(again.Remove("app:1"));
      }
    }
    LayerStore store = OpenStore();
    EXPECT_OK(store.Import(archive));
    ExpectOnly(store, "app:1", 3);
  });
}

// ---- what is not an import ------------------------------------------------

struct Change {
  const char* name;
  std::function<absl::Status(LayerStore&)> make;
};

class ChangeTest : public FullDiskTest {
 protected:
  // An image "app:1", and a kept layer above it with a file of 40 KiB.
  void Prepare(LayerStore& store) {
    ASSERT_OK(
        store.Import(Write("a.tar", OciArchive({SampleImage("app", 3)}))));
    ASSERT_OK_AND_ASSIGN(const Image image, store.Find("app:1"));
    ASSERT_OK_AND_ASSIGN(const LayerSet lower, store.OpenLayers(image));
    ASSERT_OK_AND_ASSIGN(WritableLayer top,
                         store.CreateWritableLayer({.lower = &lower}));
    const UniqueFd file(::openat(top.upper().get(), "file",
                                 O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
    const std::string text = SampleText(40 << 10);
    ASSERT_EQ(::write(file.get(), text.data(), text.size()),
              static_cast<ssize_t>(text.size()));
    ASSERT_OK(top.Keep("changes"));
  }

  std::vector<Change> Changes() {
    return {
        {"commit",
         [](LayerStore& store) -> absl::Status {
           ASSIGN_OR_RETURN(const Image base, store.Find("app:1"));
           ASSIGN_OR_RETURN(const UniqueFd upper, store.OpenUpper("changes"));
           CommitOptions options;
           options.name = "made:1";
           return store.Commit(base, upper.borrow(), options).status();
         }},
        {"squash",
         [](LayerStore& store) -> absl::Status {
           ASSIGN_OR_RETURN(const Image base, store.Find("app:1"));
           CommitOptions options;
           options.name = "made:1";
           return store.Squash(base, 0, options).status();
         }},
        {"import of a root",
         [tar = Write("root.tar",
                      TestTar().File("x", SampleText(40 << 10)).Finish())](
             LayerStore& store) {
           CommitOptions options;
           options.name = "made:1";
           return store.ImportRootFs(tar, options).status();
         }},
        {"tag", [](LayerStore& store) { return store.Tag("app:1", "made:1"); }},
        {"keep", [](LayerStore& store) -> absl::Status {
           ASSIGN_OR_RETURN(WritableLayer top, store.CreateWritableLayer());
           return top.Keep("made");
         }}};
  }

  // Names of everything in the store.
  std::vector<std::string> Everything(LayerStore& store) {
    std::vector<std::string> all;
    const auto images = store.List();
    EXPECT_OK(images);
    for (const ImageSummary& image : *images) {
      all.push_back(image.id);
      all.insert(all.end(), image.names.begin(), image.names.end());
    }
    for (const char* directory :
         {"layers/overlay", "staging", "writable", "kept"}) {
      for (const std::string& name : Entries(directory)) {
        all.push_back(absl::StrCat(directory, "/", name));
      }
    }
    return all;
  }

  // Makes `change` with more and more of what `shrink` leaves until it
  // succeeds.
  void TryWithMore(LayerStore& store, const Change& change,
                   const std::function<void(uint64_t left)>& shrink) {
    const std::vector<std::string> before = Everything(store);
    int failures = 0;
    for (uint64_t left = 0; left < 100; ++left) {
      shrink(left);
      const absl::Status status = change.make(store);
      Remount(StorePath(), "size=64m,nr_inodes=100000");
      if (status.ok()) break;
      ++failures;
      EXPECT_THAT(status, StatusIs(absl::StatusCode::kResourceExhausted,
                                   HasSubstr("ENOSPC")))
          << change.name << " with " << left;
      EXPECT_EQ(Everything(store), before) << change.name << " with " << left;
      if (HasFailure()) return;
    }
    EXPECT_NE(Everything(store), before) << change.name << " never succeeded";
    // A name may fit where it is.
    EXPECT_TRUE(failures > 0 || change.name == std::string("tag"))
        << change.name;
    const absl::Status removed = store.Remove("made:1");
    EXPECT_TRUE(removed.ok() || absl::IsNotFound(removed)) << removed;
    auto kept = store.OpenWritableLayer("made");
    if (kept.ok()) {
      EXPECT_OK(kept->Destroy());
    }
    EXPECT_EQ(Everything(store), before);
  }
};

TEST_F(ChangeTest, WithoutSpace) {
  const std::vector<Change> changes = Changes();
  OnTmpfs(64 << 20, [&] {
    for (const Change& change : changes) {
      if (change.name == std::string("keep")) continue;  // takes inodes only
      LayerStore store = OpenStore();
      if (!store.Find("app:1").ok()) Prepare(store);
      TryWithMore(store, change, [this](uint64_t left) { Fill(left * 4096); });
    }
  });
}

TEST_F(ChangeTest, WithoutInodes) {
  const std::vector<Change> changes = Changes();
  OnTmpfs(64 << 20, [&] {
    LayerStore store = OpenStore();
    Prepare(store);
    for (const Change& change : changes) {
      if (change.name == std::string("tag")) continue;  // makes no file
      TryWithMore(store, change, [this](uint64_t left) {
        Remount(StorePath(), absl::StrCat("nr_inodes=", UsedInodes() + left));
      });
    }
  });
}

TEST_F(ChangeTest, SavedToAFullDisk) {
  const std::string small = temp_.path() + "/small";
  ASSERT_EQ(::mkdir(small.c_str(), 0700), 0);
  OnTmpfs(64 << 20, [&] {
    EXPECT_EQ(::mount("tmpfs", small.c_str(), "tmpfs", 0, "size=16k"), 0);
    LayerStore store = OpenStore();
    TestImage image = SampleImage("app", 2);
    image.layers.push_back(TestTar().File("x", SampleText(100 << 10)).Finish());
    EXPECT_OK(store.Import(Write("a.tar", OciArchive({image}))));
    for (const auto format : {ArchiveFormat::kDocker, ArchiveFormat::kOci,
                              ArchiveFormat::kOciLayout}) {
      SaveOptions options;
      options.format = format;
      const std::string out = small + "/out";
      const absl::Status status = store.Save({"app:1"}, out, options);
      EXPECT_THAT(status, StatusIs(absl::StatusCode::kResourceExhausted,
                                   HasSubstr("ENOSPC")));
      EXPECT_TRUE(fs::is_empty(small));
      Remount(small, "size=1m");
      EXPECT_OK(store.Save({"app:1"}, out, options));
      fs::remove_all(out);
      Remount(small, "size=16k");
    }
    EXPECT_THAT(Entries("staging"), IsEmpty());
  });
}

// What is removed to make room needs none, from a process that had the store
// open or from one that opens it for that.
TEST_F(ChangeTest, RemovalOnAFullDisk) {
  const std::string archive =
      Write("a.tar", OciArchive({SampleImage("app", 3)}));
  OnTmpfs(32 << 20, [&] {
    for (const bool open_before : {true, false}) {
      {
        LayerStore store = OpenStore();
        EXPECT_OK(store.Import(archive));
        EXPECT_TRUE(fs::exists(StorePath() + "/reserve"));
        if (open_before) {
          Fill(0);
          EXPECT_OK(store.Remove("app:1"));
        }
      }
      if (!open_before) {
        Fill(0);
        LayerStore store = OpenStore();
        EXPECT_OK(store.Remove("app:1"));
      }
      EXPECT_EQ(LayersOnDisk(), 0u);
      EXPECT_THAT(Entries("staging"), IsEmpty());
      Remount(StorePath(), "size=32m");
      LayerStore store = OpenStore();
      EXPECT_OK(store.Import(archive));
      ExpectOnly(store, "app:1", 3);
      EXPECT_OK(store.Remove("app:1"));
      EXPECT_EQ(fs::file_size(StorePath() + "/reserve"), size_t{1} << 20);
    }
  });
}

}  // namespace
}  // namespace caisson::layer
