#include "caisson/store_check.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "caisson/layer_store.h"
#include "gtest/gtest.h"
#include "lib/base/status_matchers.h"
#include "lib/layer/test_image.h"
#include "lib/layer/test_store.h"
#include "lib/layer/test_tar.h"

namespace caisson::layer {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

namespace fs = std::filesystem;

class StoreCheckTest : public StoreTest {
 protected:
  // Two layers; the second has a whiteout and an entry twice.
  std::string Archive() {
    TestImage image;
    image.layers = {TestTar().File("gone", "1").File("file", "2").Finish(),
                    TestTar()
                        .File(".wh.gone", "")
                        .File("twice", "a")
                        .File("twice", "b")
                        .Dir("dir", 0750)
                        .Finish()};
    image.names = {"app:1"};
    return Write("app.tar", OciArchive({image}));
  }

  std::string Diff(const Image& image, size_t layer) {
    return absl::StrCat(StorePath(), "/layers/overlay/",
                        image.layers[layer].chain_id.substr(7), "/diff");
  }

  static StoreFinding Only(LayerStore& store, const VerifyOptions& options) {
    auto report = store.Verify(options);
    EXPECT_OK(report);
    EXPECT_THAT(report->findings, SizeIs(1));
    return report->findings.empty() ? StoreFinding() : report->findings[0];
  }
};

TEST_F(StoreCheckTest, ASoundStoreHasNoFindings) {
  LayerStore store = OpenStore();
  ASSERT_OK(store.Import(Archive()));
  ASSERT_OK(store.Import(Write("b.tar", OciArchive({SampleImage("b", 2)}))));
  size_t calls = 0;
  VerifyOptions options;
  options.progress = [&calls](size_t done, size_t layers) {
    EXPECT_EQ(done, calls++);
    EXPECT_EQ(layers, 4u);
    return true;
  };
  ASSERT_OK_AND_ASSIGN(const StoreReport report, store.Verify(options));
  EXPECT_EQ(report.images, 2u);
  EXPECT_EQ(report.layers, 4u);
  for (const StoreFinding& finding : report.findings) {
    ADD_FAILURE() << finding.ToString();
  }
  EXPECT_EQ(calls, 4u);
  options.progress = [](size_t, size_t) { return false; };
  EXPECT_THAT(store.Verify(options),
              StatusIs(absl::StatusCode::kCancelled, HasSubstr("progress")));
}

// It looks at one layer after the other, and images come and go meanwhile.
TEST_F(StoreCheckTest, AnImageThatIsRemovedMeanwhileIsNoFinding) {
  LayerStore store = OpenStore();
  ASSERT_OK(store.Import(Write("a.tar", OciArchive({SampleImage("a")}))));
  ASSERT_OK(store.Import(Write("b.tar", OciArchive({SampleImage("b")}))));
  VerifyOptions options;
  options.progress = [&store](size_t done, size_t) {
    if (done == 1) {
      EXPECT_OK(store.Remove("a:1"));
      EXPECT_OK(store.Remove("b:1"));
    }
    return true;
  };
  ASSERT_OK_AND_ASSIGN(const StoreReport report, store.Verify(options));
  EXPECT_EQ(report.layers, 4u);
  EXPECT_THAT(report.findings, ::testing::IsEmpty());
}

TEST_F(StoreCheckTest, WhatChangedButForDataIsMadeAnew) {
  LayerStore store = OpenStore();
  ASSERT_OK_AND_ASSIGN(auto images, store.Import(Archive()));
  const std::string diff = Diff(images[0], 1);
  const std::pair<std::function<void()>, const char*> damages[] = {
      {[&] { ::chmod((diff + "/dir").c_str(), 0777); },
       "\"dir\" has changed: its mode"},
      {[&] { ::unlink((diff + "/gone").c_str()); }, "\"gone\" is missing"},
      {[&] { ::mkdir((diff + "/extra").c_str(), 0700); },
       "\"extra\" was added"},
      {[&] { ::lchown((diff + "/twice").c_str(), 3, 4); },
       "\"twice\" has changed: its owner"},
      {[&] {
         ::setxattr((diff + "/dir").c_str(), "trusted.overlay.opaque", "y", 1,
                    0);
       },
       "\"dir\" has changed: its extended attributes"},
  };
  for (const auto& [damage, detail] : damages) {
    damage();
    // Whatever happens to the names in the root shows in its time, too.
    const timespec times[2] = {{1'000'000'000, 0}, {1'000'000'000, 0}};
    ::utimensat(AT_FDCWD, diff.c_str(), times, 0);
    StoreFinding finding = Only(store, {});
    EXPECT_EQ(finding.kind, StoreFinding::kLayerChanged);
    EXPECT_EQ(finding.detail, detail);
    EXPECT_EQ(finding.subject, images[0].layers[1].chain_id);
    EXPECT_THAT(finding.images, ElementsAre(images[0].id));
    EXPECT_FALSE(finding.repaired);
    {
      ASSERT_OK_AND_ASSIGN(LayerSet used, store.OpenLayers(images[0]));
      EXPECT_FALSE(Only(store, {.repair = true}).repaired) << "in use";
    }
    EXPECT_TRUE(Only(store, {.repair = true}).repaired);
    ASSERT_OK_AND_ASSIGN(const StoreReport report, store.Verify());
    EXPECT_THAT(report.findings, IsEmpty());
  }
  // What was made anew can be saved as well.
  EXPECT_OK(store.Save({"app:1"}, temp_.path() + "/out.tar"));
}

// The images of a layer are found first, and others come while it is examined.
TEST_F(StoreCheckTest, NothingIsRepairedBelowAnImageThatIsNew) {
  LayerStore store = OpenStore();
  TestImage sample = SampleImage("app", 1);
  ASSERT_OK_AND_ASSIGN(auto images,
                       store.Import(Write("a.tar", OciArchive({sample}))));
  const std::string file = Diff(images[0], 0) + "/shared";
  ASSERT_EQ(::chmod(file.c_str(), 0600), 0);
  sample.layers.push_back(SampleImage("other", 1).layers[0]);
  sample.names = {"derived:1"};
  const std::string second = Write("b.tar", OciArchive({sample}));
  std::optional<LayerSet> used;
  VerifyOptions options = {.repair = true};
  options.progress = [&](size_t, size_t) {
    auto derived = store.Import(second);
    EXPECT_OK(derived);
    auto layers = store.OpenLayers(derived->front());
    EXPECT_OK(layers);
    used = *std::move(layers);
    return true;
  };
  EXPECT_FALSE(Only(store, options).repaired);
  EXPECT_EQ(ReadInLayers(*used, "shared"), "other0");
  used.reset();
  EXPECT_TRUE(Only(store, {.repair = true}).repaired);
}

// A process without the rights to make a layer anew must not take it for
// damaged and remove it.
TEST_F(StoreCheckTest, WhatCannotBeCheckedIsNotRemoved) {
  LayerStore store = OpenStore();
  TestImage sample = SampleImage("app", 1);
  sample.layers = {TestTar().Owner(5, 6).File("file", "x").Finish()};
  ASSERT_OK(store.Import(Write("a.tar", OciArchive({sample}))));
  ExpectInChild([&] {
    __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct data[2];
    if (::syscall(SYS_capget, &header, data) != 0) return false;
    data[0].effective &= ~(uint32_t{1} << CAP_CHOWN);
    if (::syscall(SYS_capset, &header, data) != 0) return false;
    LayerStore own = OpenStore();
    EXPECT_THAT(
        own.Verify({.repair = true}),
        StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr("fchown")));
    return true;
  });
  EXPECT_EQ(LayersOnDisk(), 1u);
  ASSERT_OK_AND_ASSIGN(const StoreReport report, store.Verify());
  EXPECT_THAT(report.findings, IsEmpty());
}

TEST_F(StoreCheckTest, DamagedDataIsRemovedForTheNextImport) {
  LayerStore store = OpenStore();
  ASSERT_OK_AND_ASSIGN(auto images, store.Import(Archive()));
  const std::string file = Diff(images[0], 0) + "/file";
  const UniqueFd fd(::open(file.c_str(), O_WRONLY | O_CLOEXEC));
  ASSERT_EQ(::pwrite(fd.get(), "X", 1, 0), 1);
  StoreFinding finding = Only(store, {.repair = true});
  EXPECT_EQ(finding.kind, StoreFinding::kLayerDamaged);
  EXPECT_THAT(finding.ToString(), HasSubstr("the digest of its tar is"));
  EXPECT_TRUE(finding.repaired);
  EXPECT_THAT(store.OpenLayers(images[0]),
              StatusIs(absl::StatusCode::kDataLoss,
                       HasSubstr("import the image again")));
  finding = Only(store, {});
  EXPECT_EQ(finding.kind, StoreFinding::kLayerMissing);
  ASSERT_OK(store.Import(Archive()));
  ASSERT_OK_AND_ASSIGN(const StoreReport report, store.Verify());
  EXPECT_THAT(report.findings, IsEmpty());
}

TEST_F(StoreCheckTest, LayersThatCannotBeVerifiedAreTold) {
  LayerStore store = OpenStore();
  ASSERT_OK_AND_ASSIGN(auto images, store.Import(Archive()));
  fs::remove(fs::path(Diff(images[0], 1)).parent_path() / "tar-split");
  EXPECT_EQ(Only(store, {}).kind, StoreFinding::kLayerUnknown);
  EXPECT_THAT(store.Save({"app:1"}, temp_.path() + "/out.tar"),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("import it again")));
}

TEST_F(StoreCheckTest, DamagedDocumentsTakeTheirImageAlong) {
  LayerStore store = OpenStore();
  ASSERT_OK_AND_ASSIGN(auto images, store.Import(Archive()));
  Sql(
      absl::StrCat("UPDATE documents SET content=CAST('{}' AS BLOB) WHERE "
                   "digest='",
                   images[0].manifest_digest, "'"));
  EXPECT_EQ(Only(store, {}).kind, StoreFinding::kDocumentDamaged);
  EXPECT_TRUE(Only(store, {.repair = true}).repaired);
  EXPECT_THAT(*store.List(), IsEmpty());
  EXPECT_EQ(LayersOnDisk(), 0u);
}

// ---- what no image accounts for ----

TEST_F(StoreCheckTest, ALayerThatTheIndexDoesNotKnow) {
  LayerStore store = OpenStore();
  ASSERT_OK(store.Import(Archive()));
  const std::string name(Digest::Of("x").hex());
  fs::create_directories(StorePath() + "/layers/overlay/" + name + "/diff");
  StoreFinding finding = Only(store, {});
  EXPECT_EQ(finding.kind, StoreFinding::kLayerOrphaned);
  EXPECT_EQ(finding.subject, "sha256:" + name);
  EXPECT_TRUE(Only(store, {.repair = true}).repaired);
  EXPECT_EQ(LayersOnDisk(), 2u);
  ASSERT_OK_AND_ASSIGN(const StoreReport report, store.Verify());
  EXPECT_THAT(report.findings, IsEmpty());
}

TEST_F(StoreCheckTest, ALayerThatTheIndexHasForgotten) {
  LayerStore store = OpenStore();
  ASSERT_OK_AND_ASSIGN(auto images, store.Import(Archive()));
  Sql("DELETE FROM layers WHERE chain_id='" + images[0].layers[1].chain_id +
      "'");
  ASSERT_OK_AND_ASSIGN(StoreReport report, store.Verify());
  ASSERT_THAT(report.findings, SizeIs(2));
  EXPECT_EQ(report.findings[0].kind, StoreFinding::kLayerMissing);
  EXPECT_THAT(report.findings[0].detail, HasSubstr("no record"));
  EXPECT_THAT(report.findings[0].images, ElementsAre(images[0].id));
  EXPECT_EQ(report.findings[1].kind, StoreFinding::kLayerOrphaned);
  ASSERT_OK(store.Import(Archive()));
  ASSERT_OK_AND_ASSIGN(report, store.Verify());
  EXPECT_THAT(report.findings, IsEmpty());
}

TEST_F(StoreCheckTest, RecordsThatNothingRefersTo) {
  LayerStore store = OpenStore();
  ASSERT_OK(store.Import(Archive()));
  const std::string digest = Digest::Of("x").str();
  Sql("INSERT INTO documents(digest, content) VALUES('" + digest + "', 'y')");
  EXPECT_EQ(Only(store, {}).kind, StoreFinding::kRecordUnused);
  const StoreFinding finding = Only(store, {.repair = true});
  EXPECT_EQ(finding.subject, digest);
  EXPECT_TRUE(finding.repaired);
  ASSERT_OK_AND_ASSIGN(StoreReport report, store.Verify());
  EXPECT_THAT(report.findings, IsEmpty());
  Sql("INSERT INTO names(name, image) VALUES('docker.io/library/z:1', 'z')");
  EXPECT_EQ(Only(store, {}).kind, StoreFinding::kIndexDamaged);
  EXPECT_THAT(Only(store, {}).detail, HasSubstr("rows of names"));
}

TEST_F(StoreCheckTest, SizesAreThoseOfTheFiles) {
  LayerStore store = OpenStore();
  ASSERT_OK_AND_ASSIGN(auto images, store.Import(Archive()));
  const uint64_t size = (*store.List())[0].size;
  Sql("UPDATE layers SET size=999 WHERE chain_id='" +
      images[0].layers[0].chain_id + "'; UPDATE images SET size=1000");
  const StoreFinding finding = Only(store, {.repair = true});
  EXPECT_EQ(finding.kind, StoreFinding::kSizeWrong);
  EXPECT_THAT(finding.detail, HasSubstr("in the index 999"));
  EXPECT_TRUE(finding.repaired);
  EXPECT_EQ((*store.List())[0].size, size);
  ASSERT_OK_AND_ASSIGN(const StoreReport report, store.Verify());
  EXPECT_THAT(report.findings, IsEmpty());
}

TEST_F(StoreCheckTest, LayersThatTheConfigurationDoesNotHave) {
  LayerStore store = OpenStore();
  ASSERT_OK_AND_ASSIGN(auto images, store.Import(Archive()));
  Sql("UPDATE image_layers SET diff_id='" + images[0].layers[1].diff_id +
      "' WHERE position=0");
  EXPECT_THAT(Only(store, {}).ToString(),
              AllOf(HasSubstr("image inconsistent"), HasSubstr("its layer 0")));
  ASSERT_OK(store.Lease("app:1", "l"));
  EXPECT_FALSE(Only(store, {.repair = true}).repaired) << "leased";
  ASSERT_OK(store.ReleaseLease("l"));
  EXPECT_TRUE(Only(store, {.repair = true}).repaired);
  EXPECT_THAT(*store.List(), IsEmpty());
}

TEST_F(StoreCheckTest, WhatIsNoLayerAndWhatIsHalfAWritableOne) {
  LayerStore store = OpenStore();
  fs::create_directory(StorePath() + "/layers/overlay/notes");
  StoreFinding finding = Only(store, {.repair = true});
  EXPECT_EQ(finding.kind, StoreFinding::kForeignFile);
  EXPECT_EQ(finding.subject, "layers/overlay/notes");
  EXPECT_FALSE(finding.repaired);
  fs::remove(StorePath() + "/layers/overlay/notes");
  {
    ASSERT_OK_AND_ASSIGN(WritableLayer layer, store.CreateWritableLayer());
    ASSERT_OK(layer.Keep("web"));
  }
  fs::remove(StorePath() + "/kept/web/work");
  finding = Only(store, {.repair = true});
  EXPECT_EQ(finding.kind, StoreFinding::kWritableDamaged);
  EXPECT_EQ(finding.subject, "web");
  EXPECT_THAT(finding.detail, HasSubstr("web/work"));
}

// What power failures and full disks do to files is seen without reading them.
TEST_F(StoreCheckTest, AQuickLookSeesFilesThatAreGoneOrShort) {
  LayerStore store = OpenStore();
  ASSERT_OK_AND_ASSIGN(auto images, store.Import(Archive()));
  const VerifyOptions quick = {.depth = VerifyDepth::kQuick};
  ASSERT_OK_AND_ASSIGN(const StoreReport report, store.Verify(quick));
  EXPECT_THAT(report.findings, IsEmpty());
  EXPECT_EQ(report.layers, 2u);
  const std::string file = Diff(images[0], 0) + "/file";
  {
    const UniqueFd fd(::open(file.c_str(), O_WRONLY | O_CLOEXEC));
    ASSERT_EQ(::pwrite(fd.get(), "X", 1, 0), 1);
  }
  ASSERT_OK_AND_ASSIGN(const StoreReport same, store.Verify(quick));
  EXPECT_THAT(same.findings, IsEmpty()) << "it does not read";
  ASSERT_EQ(::truncate(file.c_str(), 0), 0);
  EXPECT_THAT(Only(store, quick).ToString(),
              AllOf(HasSubstr("layer damaged"), HasSubstr("fewer than")));
  ASSERT_EQ(::unlink(file.c_str()), 0);
  EXPECT_THAT(Only(store, quick).ToString(),
              AllOf(HasSubstr("layer damaged"), HasSubstr("is missing")));
}

TEST_F(StoreCheckTest, PruneTakesWhatNobodyNamesOrUses) {
  LayerStore store = OpenStore();
  ASSERT_OK(store.Import(Archive()));
  TestImage unnamed = SampleImage("unnamed", 1);
  unnamed.names.clear();
  ASSERT_OK_AND_ASSIGN(auto images,
                       store.Import(Write("u.tar", OciArchive({unnamed}))));
  {
    ASSERT_OK_AND_ASSIGN(LayerSet used, store.OpenLayers(images[0]));
    EXPECT_THAT(*store.Prune(), IsEmpty()) << "in use";
  }
  EXPECT_THAT(*store.Prune(false, absl::InfinitePast()), IsEmpty());
  EXPECT_THAT(*store.Prune(), ElementsAre(images[0].id));
  EXPECT_THAT(*store.Prune(), IsEmpty());
  EXPECT_THAT(*store.Prune(/*all=*/true), SizeIs(1));
  EXPECT_EQ(LayersOnDisk(), 0u);
}

}  // namespace
}  // namespace caisson::layer
