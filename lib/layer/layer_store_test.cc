#include "caisson/layer_store.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/time/clock.h"
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
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kDataLoss = absl::StatusCode::kDataLoss;
constexpr auto kNotFound = absl::StatusCode::kNotFound;
constexpr auto kPrecondition = absl::StatusCode::kFailedPrecondition;

namespace fs = std::filesystem;

using LayerStoreTest = StoreTest;

TEST_F(LayerStoreTest, ImportsEveryFormat) {
  const TestImage image = SampleImage("app", 3);
  TestImage plain = image;
  plain.compression = TestCompression::kNone;
  TestImage zstd = image;
  zstd.compression = TestCompression::kZstd;
  const std::pair<const char*, std::string> archives[] = {
      {"oci gzip", OciArchive({image}).Tar()},
      {"oci plain", OciArchive({plain}).Tar()},
      {"oci zstd", OciArchive({zstd}).Tar()},
      {"multi-platform", OciMultiPlatform({image}).Tar()},
      {"docker", DockerArchive({image}).Tar()},
      {"hybrid", HybridArchive({image}).Tar()},
      {"legacy", LegacyArchive(image).Tar()},
      {"compressed", Gzip(DockerArchive({image}).Tar())},
      {"compressed with xz", Xz(DockerArchive({image}).Tar())},
      {"compressed with bzip2", Bzip2(DockerArchive({image}).Tar())},
  };
  LayerStore store = OpenStore();
  for (const auto& [name, bytes] : archives) {
    SCOPED_TRACE(name);
    ASSERT_OK_AND_ASSIGN(auto images, store.Import(Write("a.tar", bytes)));
    ASSERT_THAT(images, SizeIs(1));
    const Image& got = images[0];
    EXPECT_THAT(got.names, ElementsAre("app:1"));
    if (std::string(name) != "legacy") {
      EXPECT_EQ(got.id, image.Id().str());
      EXPECT_EQ(got.config_json, image.Config());
    }
    EXPECT_EQ(Digest::Of(got.config_json).str(), got.id);
    EXPECT_THAT(got.config.env, ElementsAre("SEED=app"));
    ASSERT_THAT(got.layers, SizeIs(3));
    EXPECT_EQ(got.layers[2].diff_id, Digest::Of(image.layers[2]).str());
    EXPECT_EQ(got.layers[0].size, 8u);  // "app0" twice
    EXPECT_EQ(got.layers[0].chain_id, got.layers[0].diff_id);

    ASSERT_OK_AND_ASSIGN(LayerSet layers, store.OpenLayers(got));
    ASSERT_THAT(layers.dirs(), SizeIs(3));
    EXPECT_EQ(ReadInLayers(layers, "shared"), "app2");
    EXPECT_EQ(ReadInLayers(layers, "layer0"), "app0");
    EXPECT_EQ(LayersOnDisk(), 3u) << "unpacked once for all formats";
  }
  ASSERT_OK_AND_ASSIGN(auto list, store.List());
  EXPECT_THAT(list, SizeIs(2)) << "the legacy image has a config of its own";
  EXPECT_THAT(list[1].names, ElementsAre("app:1")) << "the first import";
  EXPECT_EQ(list[1].size, 24u);
}

TEST_F(LayerStoreTest, ImportsDirectoriesAndDescriptors) {
  const TestImage image = SampleImage("app");
  const std::string dir = temp_.path() + "/layout";
  ASSERT_EQ(::mkdir(dir.c_str(), 0700), 0);
  OciArchive({image}).WriteTo(dir);
  LayerStore store = OpenStore();
  ASSERT_OK_AND_ASSIGN(auto images, store.Import(dir));
  EXPECT_EQ(images[0].id, image.Id().str());
  EXPECT_EQ(images[0].manifest_digest, Digest::Of(image.Manifest()).str());
  const UniqueFd file = MemFile(OciArchive({image}).Tar());
  ASSERT_EQ(::lseek(file.get(), 100, SEEK_SET), 100);
  ASSERT_OK(store.Import(file.borrow()));
  EXPECT_EQ(::lseek(file.get(), 0, SEEK_CUR), 100) << "the offset stays";
}

TEST_F(LayerStoreTest, SharesLayersBetweenImages) {
  TestImage first = SampleImage("app", 2);
  TestImage second = first;
  second.layers.push_back(SampleImage("other", 1).layers[0]);
  second.names = {"derived:1"};
  LayerStore store = OpenStore();
  ASSERT_OK(store.Import(Write("a.tar", OciArchive({first}))));
  size_t unpacked = 99;
  ImportOptions options;
  options.progress = [&unpacked](const ImportProgress& progress) {
    unpacked = progress.layers;
    return true;
  };
  ASSERT_OK(store.Import(Write("b.tar", OciArchive({second})), options));
  EXPECT_EQ(unpacked, 1u);
  EXPECT_EQ(LayersOnDisk(), 3u);
  ASSERT_OK(store.Remove("app:1"));
  EXPECT_EQ(LayersOnDisk(), 3u);
  ASSERT_OK_AND_ASSIGN(Image image, store.Find("derived:1"));
  {
    ASSERT_OK_AND_ASSIGN(LayerSet layers, store.OpenLayers(image));
    EXPECT_EQ(ReadInLayers(layers, "layer1"), "app1");
  }
  ASSERT_OK(store.Remove("derived:1"));
  EXPECT_EQ(LayersOnDisk(), 0u);
}

// Several images of one archive that share a bottom layer.
TEST_F(LayerStoreTest, ImportsSeveralImagesTogether) {
  TestImage first = SampleImage("app", 2);
  TestImage second = SampleImage("app", 3);
  second.names = {"two:1"};
  LayerStore store = OpenStore();
  for (const TestArchive& archive :
       {DockerArchive({first, second}), OciArchive({first, second})}) {
    ASSERT_OK_AND_ASSIGN(auto images, store.Import(Write("a.tar", archive)));
    EXPECT_THAT(images, SizeIs(2));
    EXPECT_EQ(LayersOnDisk(), 3u);
  }
  EXPECT_THAT(
      store.Import(Write("a.tar", OciArchive({first, second})), {.name = "x"}),
      StatusIs(kInvalid, HasSubstr("the archive has 2 images (app:1, "
                                   "two:1), of which only one")));
}

TEST_F(LayerStoreTest, FindsByEveryReference) {
  TestImage image = SampleImage("app");
  image.names = {"app:latest", "reg.io/x/app:v1"};
  LayerStore store = OpenStore();
  EXPECT_THAT(store.Find("app"),
              StatusIs(kNotFound,
                       "there is no image \"app\" in the store; it "
                       "has no images"));
  ASSERT_OK(store.Import(Write("a.tar", OciArchive({image}))));
  const std::string id = image.Id().str();
  const std::string manifest = Digest::Of(image.Manifest()).str();
  for (const std::string& reference :
       {std::string("app"), std::string("app:latest"),
        std::string("docker.io/library/app"), std::string("reg.io/x/app:v1"),
        id, id.substr(7), id.substr(7, 6), id.substr(0, 14), manifest,
        "reg.io/x/app@" + manifest, "app@" + id}) {
    ASSERT_OK_AND_ASSIGN(Image found, store.Find(reference));
    EXPECT_EQ(found.id, id) << reference;
  }
  EXPECT_THAT(store.Find("app:2"),
              StatusIs(kNotFound,
                       "there is no image \"app:2\" in the store; it has "
                       "app:latest, reg.io/x/app:v1"));
  EXPECT_THAT(store.Find("other@" + manifest),
              StatusIs(kNotFound, HasSubstr("")));
  EXPECT_THAT(store.Find("reg.io/x/app"), StatusIs(kNotFound, HasSubstr("")));
  EXPECT_THAT(store.Find(Digest::Of("x").str()),
              StatusIs(kNotFound, HasSubstr("")));
  EXPECT_THAT(store.Find("App"), StatusIs(kInvalid, HasSubstr("image name")));
  EXPECT_THAT(store.Find(""), StatusIs(kInvalid, HasSubstr("is empty")));
  EXPECT_THAT(store.Find("../../etc"), StatusIs(kInvalid, HasSubstr("")));
}

TEST_F(LayerStoreTest, RefusesAPrefixOfSeveralIds) {
  LayerStore store = OpenStore();
  const TestImage image = SampleImage("app");
  ASSERT_OK(store.Import(Write("a.tar", OciArchive({image}))));
  const std::string prefix(image.Id().hex().substr(0, 5));
  ASSERT_OK(store.Find(prefix));
  EXPECT_THAT(store.Find(prefix.substr(0, 3)),
              StatusIs(kNotFound, HasSubstr("")));
  Sql(absl::StrCat("INSERT INTO images VALUES('sha256:", prefix,
                   std::string(59, '0'), "', NULL, '', '', '', 0, 0)"));
  for (const std::string& reference : {prefix, "sha256:" + prefix}) {
    EXPECT_THAT(store.Find(reference),
                StatusIs(kInvalid, HasSubstr("could be any of sha256:")));
    EXPECT_THAT(store.Remove(reference),
                StatusIs(kInvalid, HasSubstr("could be any of sha256:")));
  }
  EXPECT_THAT(*store.List(), SizeIs(2));
}

// A name that looks like the beginning of an id is a name first.
TEST_F(LayerStoreTest, ANameWinsOverAPrefix) {
  TestImage image = SampleImage("app");
  const std::string prefix(image.Id().hex().substr(0, 4));
  LayerStore store = OpenStore();
  ASSERT_OK(store.Import(Write("a.tar", OciArchive({image}))));
  ASSERT_OK(store.Import(Write("b.tar", OciArchive({SampleImage("other")})),
                         {.name = prefix}));
  ASSERT_OK_AND_ASSIGN(Image found, store.Find(prefix));
  EXPECT_THAT(found.names, ElementsAre(prefix + ":latest"));
}

TEST_F(LayerStoreTest, TagsAndRemovesNames) {
  LayerStore store = OpenStore();
  ASSERT_OK(store.Import(Write("a.tar", OciArchive({SampleImage("one")}))));
  ASSERT_OK(store.Import(Write("b.tar", OciArchive({SampleImage("two")}))));
  ASSERT_OK(store.Tag("one:1", "prod"));
  ASSERT_OK(store.Tag("prod", "reg.io/a/prod:2"));
  ASSERT_OK_AND_ASSIGN(Image one, store.Find("one:1"));
  EXPECT_THAT(one.names,
              ElementsAre("one:1", "prod:latest", "reg.io/a/prod:2"));
  ASSERT_OK(store.Tag("two:1", "prod"));
  ASSERT_OK_AND_ASSIGN(one, store.Find("one:1"));
  EXPECT_THAT(one.names, ElementsAre("one:1", "reg.io/a/prod:2"));
  EXPECT_THAT(store.Tag("one:1", "Bad"), StatusIs(kInvalid, HasSubstr("")));
  EXPECT_THAT(store.Tag("one:1", "a@" + one.id),
              StatusIs(kInvalid, HasSubstr("")));
  EXPECT_THAT(store.Tag("nothing", "x"), StatusIs(kNotFound, HasSubstr("")));

  ASSERT_OK(store.Remove("one:1"));
  EXPECT_THAT(store.Find("one:1"), StatusIs(kNotFound, HasSubstr("")));
  ASSERT_OK_AND_ASSIGN(one, store.Find("reg.io/a/prod:2"));
  ASSERT_OK(store.Remove("reg.io/a/prod:2"));
  EXPECT_THAT(store.Find(one.id), StatusIs(kNotFound, HasSubstr("")));
  EXPECT_EQ(LayersOnDisk(), 2u);
  ASSERT_OK_AND_ASSIGN(Image two, store.Find("two:1"));
  EXPECT_THAT(two.names, ElementsAre("prod:latest", "two:1"));
  ASSERT_OK(store.Remove(two.id));
  EXPECT_THAT(*store.List(), IsEmpty());
  EXPECT_EQ(LayersOnDisk(), 0u);
  EXPECT_THAT(store.Remove("two:1"), StatusIs(kNotFound, HasSubstr("")));
  Sql("CREATE TABLE probe AS SELECT 1/(count(*)=0) AS x FROM documents");
}

TEST_F(LayerStoreTest, AnImageWhoseNameMovedStays) {
  LayerStore store = OpenStore();
  ASSERT_OK(store.Import(Write("a.tar", OciArchive({SampleImage("one")})),
                         {.name = "app"}));
  ASSERT_OK_AND_ASSIGN(Image old, store.Find("app"));
  ASSERT_OK(store.Import(Write("b.tar", OciArchive({SampleImage("two")})),
                         {.name = "app"}));
  ASSERT_OK_AND_ASSIGN(Image now, store.Find("app"));
  EXPECT_NE(now.id, old.id);
  ASSERT_OK_AND_ASSIGN(old, store.Find(old.id));
  EXPECT_THAT(old.names, IsEmpty());
  EXPECT_THAT(store.Find("x"), StatusIs(kNotFound, HasSubstr(old.id)));
  ASSERT_OK(store.Remove(old.id));
}

TEST_F(LayerStoreTest, KeepsLayersThatAreInUse) {
  LayerStore store = OpenStore();
  ASSERT_OK_AND_ASSIGN(
      auto images,
      store.Import(Write("a.tar", OciArchive({SampleImage("a")}))));
  std::optional<LayerSet> layers;
  ASSERT_OK_AND_ASSIGN(layers, store.OpenLayers(images[0]));
  EXPECT_THAT(store.Remove("a:1"),
              StatusIs(kPrecondition, HasSubstr("is in use by a LayerSet")));
  EXPECT_THAT(store.Remove(images[0].id),
              StatusIs(kPrecondition, HasSubstr("is in use by a LayerSet")));
  EXPECT_OK(store.Find("a:1"));
  // A name that is not the last may go.
  ASSERT_OK(store.Tag("a:1", "b"));
  EXPECT_OK(store.Remove("a:1"));
  EXPECT_THAT(store.Remove("b"), StatusIs(kPrecondition, HasSubstr("")));
  EXPECT_EQ(ReadInLayers(*layers, "shared"), "a1");
  // The lock lives on in a duplicate.
  UniqueFd duplicate(::fcntl(layers->lock().get(), F_DUPFD_CLOEXEC, 0));
  layers.reset();
  EXPECT_THAT(store.Remove("b"), StatusIs(kPrecondition, HasSubstr("")));
  duplicate.reset();
  EXPECT_OK(store.Remove("b"));
  EXPECT_THAT(store.OpenLayers(images[0]), StatusIs(kNotFound, HasSubstr("")));
  EXPECT_EQ(LayersOnDisk(), 0u);
}

TEST_F(LayerStoreTest, LayerSetsOutliveTheStore) {
  std::optional<LayerSet> layers;
  std::optional<WritableLayer> writable;
  {
    LayerStore store = OpenStore();
    ASSERT_OK_AND_ASSIGN(
        auto images,
        store.Import(Write("a.tar", OciArchive({SampleImage("a")}))));
    ASSERT_OK_AND_ASSIGN(layers, store.OpenLayers(images[0]));
    ASSERT_OK_AND_ASSIGN(writable, store.CreateWritableLayer());
  }
  EXPECT_EQ(ReadInLayers(*layers, "shared"), "a1");
  LayerStore again = OpenStore();
  EXPECT_THAT(again.Remove("a:1"), StatusIs(kPrecondition, HasSubstr("")));
  EXPECT_OK(writable->Destroy());
  layers.reset();
}

TEST_F(LayerStoreTest, AnImageWithoutLayersHasAnEmptyDirectory) {
  TestImage image;
  image.names = {"scratch:1"};
  LayerStore store = OpenStore();
  ASSERT_OK_AND_ASSIGN(auto images,
                       store.Import(Write("a.tar", OciArchive({image}))));
  ASSERT_OK_AND_ASSIGN(LayerSet layers, store.OpenLayers(images[0]));
  ASSERT_THAT(layers.dirs(), SizeIs(1));
  struct stat status = {};
  ASSERT_EQ(::fstat(layers.dirs()[0].get(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0755u);
  // As whoever is killed while making it with a umask of 077 leaves it.
  ASSERT_EQ(::fchmod(layers.dirs()[0].get(), 0700), 0);
  const LayerStore again = OpenStore();
  ASSERT_EQ(::fstat(layers.dirs()[0].get(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0755u);
}

// ---- damage ---------------------------------------------------------------

TEST_F(LayerStoreTest, NamesBothDigestsOfADamagedLayer) {
  TestImage image = SampleImage("app");
  for (const TestCompression compression :
       {TestCompression::kGzip, TestCompression::kZstd,
        TestCompression::kNone}) {
    image.compression = compression;
    TestArchive archive = OciArchive({image});
    const std::string path = BlobPathOf(image.Blob(1));
    std::string& blob = archive.files[path];
    for (const size_t at : {size_t{0}, blob.size() / 2, blob.size() - 1}) {
      std::string changed = blob;
      changed[at] ^= 1;
      TestArchive damaged = archive;
      damaged.files[path] = changed;
      LayerStore store = OpenStore();
      EXPECT_THAT(
          store.Import(Write("a.tar", damaged)),
          StatusIs(kDataLoss,
                   AllOf(HasSubstr(path), HasSubstr(Digest::Of(changed).str()),
                         HasSubstr("expected " + Digest::Of(blob).str()))));
      EXPECT_EQ(LayersOnDisk(), 0u);
      EXPECT_THAT(*store.List(), IsEmpty());
    }
  }
}

TEST_F(LayerStoreTest, NeverTrustsAClaimedDiffId) {
  TestImage image = SampleImage("app");
  const std::string real = Digest::Of(image.layers[1]).str();
  const std::string claimed = Digest::Of("something else").str();
  TestArchive archive = DockerArchive({image});
  const std::string old_path = absl::StrCat(image.Id().hex(), ".json");
  const std::string config =
      absl::StrReplaceAll(image.Config(), {{real, claimed}});
  const std::string path = absl::StrCat(Digest::Of(config).hex(), ".json");
  archive.files.erase(old_path);
  archive.files[path] = config;
  archive.Edit("manifest.json", old_path, path);
  LayerStore store = OpenStore();
  EXPECT_THAT(store.Import(Write("a.tar", archive)),
              StatusIs(kDataLoss,
                       AllOf(HasSubstr("/layer.tar\" is damaged: the digest of "
                                       "the uncompressed tar is " +
                                       real),
                             HasSubstr("expected " + claimed))));
  EXPECT_EQ(LayersOnDisk(), 0u);
}

TEST_F(LayerStoreTest, ReportsAHostileLayerByItsFile) {
  TestImage image;
  image.layers = {TestTar().File("../escape", "x").Finish()};
  LayerStore store = OpenStore();
  EXPECT_THAT(store.Import(Write("a.tar", OciArchive({image}))),
              StatusIs(kInvalid, AllOf(HasSubstr(BlobPathOf(image.Blob(0))),
                                       HasSubstr("../escape"),
                                       HasSubstr("import \"" + temp_.path()))));
  EXPECT_FALSE(fs::exists(StorePath() + "/escape"));
}

TEST_F(LayerStoreTest, EnforcesLimitsOfLayers) {
  TestImage image;
  image.layers = {TestTar().File("big", std::string(100'000, 'x')).Finish()};
  LayerStoreOptions options = Options();
  options.max_layer_bytes = 50'000;
  ASSERT_OK_AND_ASSIGN(LayerStore store, LayerStore::Open(options));
  EXPECT_THAT(store.Import(Write("a.tar", OciArchive({image}))),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("max_layer_bytes (50000)")));
  options = Options();
  options.max_layer_entries = 1;
  ASSERT_OK_AND_ASSIGN(LayerStore second, LayerStore::Open(options));
  EXPECT_THAT(second.Import(Write("b.tar", OciArchive({SampleImage("a")}))),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("max_layer_entries (1)")));
}

// A bomb for each option, which the error names.
TEST_F(LayerStoreTest, EachLimitOfALayerIsAnOption) {
  struct Bomb {
    std::string option;
    size_t LayerStoreOptions::*limit;
    size_t value;
    std::string tar;
  };
  TestTar many;
  for (int i = 0; i < 200; ++i) many.Dir(absl::StrCat("directory", i));
  TestTar sparse;
  sparse.Pax({{"GNU.sparse.size", "100"}, {"GNU.sparse.map", "0,1,9,1,20,1"}})
      .File("sparse", "abc");
  const std::string long_name(60, 'n');
  const std::vector<Bomb> bombs = {
      {"max_path_bytes", &LayerStoreOptions::max_path_bytes, 50,
       TestTar().File(long_name).Finish()},
      {"max_path_bytes", &LayerStoreOptions::max_path_bytes, 50,
       TestTar().Symlink("link", long_name).Finish()},
      {"max_path_depth", &LayerStoreOptions::max_path_depth, 3,
       TestTar().File("a/b/c/d").Finish()},
      {"max_extension_bytes", &LayerStoreOptions::max_extension_bytes, 50,
       TestTar().Pax({{"comment", long_name}}).File("file").Finish()},
      {"max_extension_bytes", &LayerStoreOptions::max_extension_bytes, 50,
       TestTar().Long('L', long_name).File("file").Finish()},
      {"max_sparse_extents", &LayerStoreOptions::max_sparse_extents, 2,
       sparse.Finish()},
      {"max_layer_memory", &LayerStoreOptions::max_layer_memory, 10'000,
       many.Finish()},
  };
  for (const Bomb& bomb : bombs) {
    SCOPED_TRACE(bomb.option);
    TestImage image;
    image.layers = {bomb.tar};
    const std::string archive = Write("a.tar", OciArchive({image}));
    LayerStoreOptions options = Options();
    options.*bomb.limit = bomb.value;
    ASSERT_OK_AND_ASSIGN(LayerStore store, LayerStore::Open(options));
    EXPECT_THAT(
        store.Import(archive),
        StatusIs(absl::StatusCode::kResourceExhausted,
                 HasSubstr(absl::StrCat(bomb.option, " (", bomb.value))));
    EXPECT_EQ(LayersOnDisk(), 0u);
    EXPECT_OK(OpenStore().Import(archive));
    EXPECT_OK(OpenStore().Remove(image.Id().str()));
  }
}

TEST_F(LayerStoreTest, EachLimitOfAnArchiveIsAnOption) {
  const TestImage image = SampleImage("a");
  const std::string archive = Write("a.tar", OciArchive({image}));
  const std::string multi = Write("m.tar", OciMultiPlatform({image}));
  const std::string packed = Write("z.tar", Gzip(OciArchive({image}).Tar()));
  const auto refused = [&](const std::string& path, auto limit, size_t value) {
    LayerStoreOptions options = Options();
    options.*limit = value;
    absl::StatusOr<LayerStore> store = LayerStore::Open(options);
    if (!store.ok()) return store.status();
    return store->Import(path).status();
  };
  using Options = LayerStoreOptions;
  const auto names = [](absl::string_view option) {
    return StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr(option));
  };
  EXPECT_THAT(refused(archive, &Options::max_archive_entries, 3),
              names("max_archive_entries (3)"));
  EXPECT_THAT(refused(archive, &Options::max_manifest_bytes, 30),
              names("max_manifest_bytes (30)"));
  EXPECT_THAT(refused(archive, &Options::max_config_bytes, 60),
              names("max_config_bytes (60)"));
  EXPECT_THAT(refused(archive, &Options::max_layers, 1),
              names("max_layers (1)"));
  EXPECT_THAT(refused(archive, &Options::max_images, 0),
              names("max_images (0)"));
  EXPECT_THAT(refused(multi, &Options::max_index_depth, 0),
              names("max_index_depth (0)"));
  EXPECT_THAT(refused(archive, &Options::max_index_documents, 1),
              names("max_index_documents (1)"));
  EXPECT_THAT(refused(packed, &Options::max_spool_bytes, 2000),
              names("max_spool_bytes (2000)"));
  EXPECT_EQ(LayersOnDisk(), 0u);
}

TEST_F(LayerStoreTest, StopsBombsOfFewBytes) {
  constexpr size_t kSize = 70 << 20;
  TestImage image;
  image.compression = TestCompression::kZstd;
  // Behind the end of the tar, so that nothing is written.
  image.layers = {TestTar().File("a").Finish() + std::string(kSize, 'x')};
  const std::string bomb = Write("a.tar", OciArchive({image}));
  ASSERT_LT(fs::file_size(bomb), 50'000u);
  LayerStore store = OpenStore();
  EXPECT_THAT(store.Import(bomb),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("max_compression_ratio (500)")));
  EXPECT_THAT(store.ImportRootFs(Write("b.tar", image.Blob(0))),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("max_compression_ratio (500)")));
  // The same of zeros is an empty disk, and takes none.
  image.layers = {TestTar().File("disk", std::string(kSize, '\0')).Finish()};
  ASSERT_OK_AND_ASSIGN(auto images,
                       store.Import(Write("b.tar", OciArchive({image}))));
  ASSERT_OK_AND_ASSIGN(const LayerSet layers, store.OpenLayers(images.front()));
  struct stat disk = {};
  ASSERT_EQ(::fstatat(layers.dirs().front().get(), "disk", &disk, 0), 0);
  EXPECT_EQ(disk.st_size, static_cast<off_t>(kSize));
  EXPECT_LT(disk.st_blocks, 200);
}

TEST_F(LayerStoreTest, EnforcesLimitsOfImports) {
  TestImage image;
  image.layers = {TestTar().File("a", std::string(600, 'x')).Finish(),
                  TestTar().File("b", std::string(600, 'y')).Finish()};
  const std::string archive = Write("a.tar", OciArchive({image}));
  LayerStoreOptions options = Options();
  options.max_import_bytes = 1000;
  ASSERT_OK_AND_ASSIGN(LayerStore store, LayerStore::Open(options));
  EXPECT_THAT(store.Import(archive),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("")));
  EXPECT_EQ(LayersOnDisk(), 0u);
  options = Options();
  options.max_import_entries = 1;
  ASSERT_OK_AND_ASSIGN(LayerStore second, LayerStore::Open(options));
  EXPECT_THAT(second.Import(archive),
              StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("")));
  options.max_import_entries = 2;
  ASSERT_OK_AND_ASSIGN(LayerStore third, LayerStore::Open(options));
  EXPECT_OK(third.Import(archive));
}

TEST_F(LayerStoreTest, HealsALayerThatIsMissing) {
  LayerStore store = OpenStore();
  const std::string archive =
      Write("a.tar", OciArchive({SampleImage("app", 3)}));
  ASSERT_OK_AND_ASSIGN(auto images, store.Import(archive));
  const Digest chain = *Digest::Parse(images[0].layers[1].chain_id, "x");
  fs::remove_all(absl::StrCat(StorePath(), "/layers/overlay/", chain.hex()));
  EXPECT_THAT(store.OpenLayers(images[0]),
              StatusIs(kDataLoss, HasSubstr("import the image again")));
  ASSERT_OK(store.Import(archive));
  ASSERT_OK_AND_ASSIGN(LayerSet layers, store.OpenLayers(images[0]));
  EXPECT_EQ(ReadInLayers(layers, "layer1"), "app1");
}

TEST_F(LayerStoreTest, MissingFilesAreNamed) {
  LayerStore store = OpenStore();
  const std::string path = temp_.path() + "/none.tar";
  EXPECT_THAT(store.Import(path), StatusIs(kNotFound, HasSubstr(path)));
  EXPECT_THAT(store.Import(Write("x", "hello")),
              StatusIs(kDataLoss, HasSubstr("import \"")));
}

// ---- the directory --------------------------------------------------------

TEST_F(LayerStoreTest, TakesADirectoryThatOtherStoresHaveMade) {
  const std::string path = temp_.path() + "/all";
  fs::create_directories(path + "/containers");
  fs::create_directories(path + "/volumes");
  EXPECT_OK(LayerStore::Open({.path = path}));
}

TEST_F(LayerStoreTest, RefusesADirectoryThatIsNoStore) {
  Write("precious", "data");
  EXPECT_THAT(LayerStore::Open({.path = temp_.path()}),
              StatusIs(kPrecondition, HasSubstr("is neither empty nor a layer "
                                                "store (it has \"precious\"")));
  EXPECT_FALSE(fs::exists(temp_.path() + "/layers"));
  EXPECT_THAT(LayerStore::Open({.path = temp_.path() + "/a/b"}),
              StatusIs(kNotFound, HasSubstr("/a/b")));
  EXPECT_THAT(LayerStore::Open({}), StatusIs(kInvalid, HasSubstr("path")));
  EXPECT_THAT(LayerStore::Open({.path = temp_.path() + "/precious"}),
              StatusIs(kPrecondition, HasSubstr("ENOTDIR")));
  const std::string foreign = temp_.path() + "/foreign";
  ASSERT_EQ(::mkdir(foreign.c_str(), 0755), 0);
  ASSERT_EQ(::chown(foreign.c_str(), 1234, 1234), 0);
  EXPECT_THAT(LayerStore::Open({.path = foreign}),
              StatusIs(absl::StatusCode::kPermissionDenied,
                       HasSubstr("belongs to user 1234")));
}

TEST_F(LayerStoreTest, IsPrivateWhateverTheUmask) {
  ASSERT_EQ(::mkdir(StorePath().c_str(), 0700), 0);
  ASSERT_EQ(::chmod(StorePath().c_str(), 0777), 0);
  for (const mode_t mask : {0, 0077, 0777}) {
    ExpectInChild([&] {
      ::umask(mask);
      LayerStore store = OpenStore();
      EXPECT_OK(store.Import(
          Write(absl::StrCat("a", mask), OciArchive({SampleImage("app")}))));
      auto writable = store.CreateWritableLayer();
      EXPECT_OK(writable);
      struct stat upper = {};
      EXPECT_EQ(::fstat(writable->upper().get(), &upper), 0);
      EXPECT_EQ(upper.st_mode & 07777, 0755u);
      for (const auto& entry : fs::recursive_directory_iterator(StorePath())) {
        struct stat status = {};
        EXPECT_EQ(::lstat(entry.path().c_str(), &status), 0);
        const std::string name = entry.path().filename();
        const bool open_inside = name == "diff" || name == "empty" ||
                                 name == "upper" || name[0] == 'l' ||
                                 name == "shared";
        if (S_ISDIR(status.st_mode) && !open_inside) {
          EXPECT_EQ(status.st_mode & 07777, 0700u) << entry.path();
        }
      }
      struct stat root = {};
      EXPECT_EQ(::stat(StorePath().c_str(), &root), 0);
      EXPECT_EQ(root.st_mode & 07777, 0700u);
      return true;
    });
  }
}

TEST_F(LayerStoreTest, EveryDescriptorIsCloseOnExec) {
  LayerStore store = OpenStore();
  ASSERT_OK_AND_ASSIGN(
      auto images,
      store.Import(Write("a.tar", OciArchive({SampleImage("a")}))));
  ASSERT_OK_AND_ASSIGN(LayerSet layers, store.OpenLayers(images[0]));
  ASSERT_OK_AND_ASSIGN(WritableLayer writable, store.CreateWritableLayer());
  for (const auto& entry : fs::directory_iterator("/proc/self/fd")) {
    const int fd = std::stoi(entry.path().filename());
    std::error_code gone;
    const std::string target = fs::read_symlink(entry.path(), gone).string();
    if (target.find(StorePath()) == std::string::npos) continue;
    EXPECT_EQ(::fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC) << target;
  }
}

TEST_F(LayerStoreTest, KeepsFormatsApart) {
  LayerStoreOptions options = Options();
  ASSERT_OK_AND_ASSIGN(LayerStore trusted, LayerStore::Open(options));
  options.format = LayerStoreFormat::kOverlayUserxattr;
  ASSERT_OK_AND_ASSIGN(LayerStore user, LayerStore::Open(options));
  TestImage image = SampleImage("app", 1);
  image.layers.push_back(
      TestTar().Dir("dir").File("dir/.wh..wh..opq").Finish());
  const std::string archive = Write("a.tar", OciArchive({image}));
  ASSERT_OK_AND_ASSIGN(auto images, trusted.Import(archive));
  EXPECT_THAT(user.OpenLayers(images[0]),
              StatusIs(kPrecondition,
                       HasSubstr("in the format \"overlay-userxattr\"")));
  ASSERT_OK(user.Import(archive));
  EXPECT_OK(user.OpenLayers(images[0]));
  EXPECT_OK(trusted.OpenLayers(images[0]));
  EXPECT_THAT(Entries("layers/overlay-userxattr"), SizeIs(2));
  ASSERT_OK(trusted.Remove("app:1"));
  EXPECT_THAT(Entries("layers/overlay-userxattr"), IsEmpty());
  EXPECT_THAT(Entries("layers/overlay"), IsEmpty());
}

// A layer that says nothing of "./" has the root of the layer below.
TEST_F(LayerStoreTest, RootAttributesComeFromBelow) {
  TestImage image;
  image.layers = {TestTar().Owner(5, 6).Dir("./", 01711).Finish(),
                  TestTar().File("a", "1").Finish()};
  image.names = {"app:1"};
  LayerStore store = OpenStore();
  ASSERT_OK_AND_ASSIGN(auto images,
                       store.Import(Write("a.tar", OciArchive({image}))));
  ASSERT_OK_AND_ASSIGN(LayerSet layers, store.OpenLayers(images[0]));
  for (const BorrowedFd dir : layers.dirs()) {
    struct stat status = {};
    ASSERT_EQ(::fstat(dir.get(), &status), 0);
    EXPECT_EQ(status.st_mode & 07777, 01711u);
    EXPECT_EQ(status.st_uid, 5u);
    EXPECT_EQ(status.st_gid, 6u);
    EXPECT_EQ(status.st_mtime, 1'000'000'000);
  }
}

// The host may fork at any time, for something that has nothing to do with it.
TEST_F(LayerStoreTest, AForkedChildKeepsNoLocksOfAnImport) {
  LayerStore store = OpenStore();
  pid_t child = -1;
  ImportOptions options;
  options.progress = [&child](const ImportProgress& progress) {
    if (progress.phase != ImportProgress::kPublishing) return true;
    child = ::fork();
    if (child == 0) {
      for (;;) ::pause();
    }
    return true;
  };
  ASSERT_OK(store.Import(
      Write("a.tar", OciArchive({SampleImage("app", 1)}).Tar()), options));
  EXPECT_OK(store.Remove("app:1"));
  EXPECT_EQ(LayersOnDisk(), 0u);
  ASSERT_GT(child, 0);
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
}

// ---- progress, threads ----------------------------------------------------

TEST_F(LayerStoreTest, ReportsProgress) {
  LayerStore store = OpenStore();
  TestImage image = SampleImage("app", 3);
  image.layers.push_back(TestTar().File("big", SampleText(5 << 20)).Finish());
  uint64_t total = 0;
  for (size_t i = 0; i < 4; ++i) total += image.Blob(i).size();
  std::vector<ImportProgress> seen;
  ImportOptions options;
  options.progress = [&seen](const ImportProgress& progress) {
    if (!seen.empty()) {
      EXPECT_GE(progress.phase, seen.back().phase);
      EXPECT_GE(progress.bytes_done, seen.back().bytes_done);
      EXPECT_GE(progress.layers_done, seen.back().layers_done);
    }
    seen.push_back(progress);
    return true;
  };
  ASSERT_OK(store.Import(Write("a.tar", OciArchive({image})), options));
  EXPECT_GE(seen.size(), 8u);
  EXPECT_EQ(seen.front().phase, ImportProgress::kReading);
  EXPECT_EQ(seen.back().phase, ImportProgress::kPublishing);
  EXPECT_EQ(seen.back().layers, 4u);
  EXPECT_EQ(seen.back().layers_done, 4u);
  EXPECT_EQ(seen.back().bytes, total);
  EXPECT_EQ(seen.back().bytes_done, total);
}

TEST_F(LayerStoreTest, CanBeCancelledAtEveryReport) {
  LayerStore store = OpenStore();
  TestImage image = SampleImage("app", 2);
  image.layers.push_back(TestTar().File("big", SampleText(3 << 20)).Finish());
  const std::string archive = Write("a.tar", Gzip(OciArchive({image}).Tar()));
  for (int stop = 0;; ++stop) {
    int reports = 0;
    ImportOptions options;
    options.progress = [&](const ImportProgress&) { return reports++ < stop; };
    const auto images = store.Import(archive, options);
    if (images.ok()) {
      EXPECT_GE(stop, 7);
      break;
    }
    EXPECT_THAT(images, StatusIs(absl::StatusCode::kCancelled,
                                 HasSubstr("cancelled by ImportOptions")));
    EXPECT_EQ(LayersOnDisk(), 0u);
    EXPECT_THAT(Entries("staging"), IsEmpty());
    EXPECT_THAT(*store.List(), IsEmpty());
  }
}

TEST_F(LayerStoreTest, IsThreadSafe) {
  LayerStore store = OpenStore();
  std::vector<std::string> archives;
  for (int i = 0; i < 3; ++i) {
    TestImage image = SampleImage("base", 3);
    image.layers.push_back(SampleImage(absl::StrCat("top", i), 1).layers[0]);
    image.names = {absl::StrCat("image", i, ":1")};
    archives.push_back(Write(absl::StrCat(i, ".tar"), OciArchive({image})));
  }
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&store, &archives, t] {
      for (int round = 0; round < 3; ++round) {
        for (size_t i = 0; i < archives.size(); ++i) {
          auto images = store.Import(archives[(i + t) % 3]);
          EXPECT_OK(images);
          if (!images.ok()) continue;
          EXPECT_OK(store.List());
          auto layers = store.OpenLayers(images->front());
          if (layers.ok()) {
            EXPECT_EQ(ReadInLayers(*layers, "layer2"), "base2");
          } else {
            EXPECT_THAT(layers, StatusIs(kNotFound, HasSubstr("")));
          }
          auto writable = store.CreateWritableLayer();
          EXPECT_OK(writable);
        }
        // What another thread uses or has removed already stays as it is.
        const absl::Status removed =
            store.Remove(absl::StrCat("image", t % 3, ":1"));
        EXPECT_TRUE(removed.ok() || absl::IsFailedPrecondition(removed) ||
                    absl::IsNotFound(removed))
            << removed;
        EXPECT_OK(store.Recover());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::string& archive : archives) EXPECT_OK(store.Import(archive));
  EXPECT_OK(store.Recover());
  EXPECT_EQ(LayersOnDisk(), 6u);
  EXPECT_THAT(*store.List(), SizeIs(3));
  EXPECT_THAT(Entries("writable"), IsEmpty());
}

// ---- leases ----

TEST_F(LayerStoreTest, ALeaseHoldsAnImageAcrossProcesses) {
  ExpectInChild([this] {
    LayerStore own = OpenStore();
    EXPECT_OK(own.Import(Write("a.tar", OciArchive({SampleImage("a")}))));
    EXPECT_OK(own.Lease("a:1", "build-7"));
    return true;
  });
  LayerStore store = OpenStore();
  ASSERT_OK_AND_ASSIGN(const Image image, store.Find("a:1"));
  ASSERT_OK_AND_ASSIGN(const auto leases, store.ListLeases());
  ASSERT_THAT(leases, SizeIs(1));
  EXPECT_EQ(leases[0].name, "build-7");
  EXPECT_EQ(leases[0].image, image.id);
  EXPECT_EQ(leases[0].expires, absl::InfiniteFuture());
  EXPECT_THAT(store.Remove("a:1"),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("held by the lease \"build-7\"")));
  EXPECT_THAT(store.Remove(image.id),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("held by the lease")));
  EXPECT_THAT(*store.Prune(/*all=*/true), IsEmpty());
  // The name goes to another image; this one stays.
  ASSERT_OK(store.Tag("a:1", "a:2"));
  EXPECT_OK(store.Remove("a:1"));
  TestImage other = SampleImage("b");
  other.names = {"a:2"};
  ASSERT_OK(store.Import(Write("b.tar", OciArchive({other}))));
  EXPECT_THAT(*store.Prune(), IsEmpty());
  ASSERT_OK_AND_ASSIGN(const Image nameless, store.Find(image.id));
  EXPECT_THAT(nameless.names, IsEmpty());
  EXPECT_OK(store.OpenLayers(nameless));
  ASSERT_OK(store.ReleaseLease("build-7"));
  EXPECT_THAT(store.ReleaseLease("build-7"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("build-7")));
  EXPECT_THAT(*store.Prune(), ElementsAre(image.id));
  EXPECT_EQ(LayersOnDisk(), 2u);
}

TEST_F(LayerStoreTest, AnExpiredLeaseHoldsNothing) {
  LayerStore store = OpenStore();
  const absl::Time soon = absl::Now() + absl::Hours(1);
  ASSERT_OK_AND_ASSIGN(
      const auto images,
      store.Import(
          Write("ab.tar", OciArchive({SampleImage("a"), SampleImage("b")})),
          {.lease = ImageLease{.name = "pull", .expires = soon}}));
  ASSERT_OK_AND_ASSIGN(const auto leases, store.ListLeases());
  ASSERT_THAT(leases, SizeIs(2));
  EXPECT_EQ(absl::ToUnixMicros(leases[0].expires), absl::ToUnixMicros(soon));
  ASSERT_OK_AND_ASSIGN(RecoverReport report, store.Recover());
  EXPECT_EQ(report.leases, 0u);
  // The new time counts, of this image alone; another lease holds on.
  ASSERT_OK(store.Lease("a:1", "pull", absl::Now() - absl::Seconds(1)));
  ASSERT_OK(store.Lease("b:1", "pull", absl::Now() - absl::Seconds(1)));
  ASSERT_OK(store.Lease("b:1", "other"));
  EXPECT_THAT(*store.ListLeases(), SizeIs(1));
  EXPECT_OK(store.Remove("a:1"));
  EXPECT_THAT(
      store.Remove("b:1"),
      StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("\"other\"")));
  ASSERT_OK_AND_ASSIGN(report, store.Recover());
  EXPECT_EQ(report.leases, 1u) << "that of a:1 went with its image";
  EXPECT_THAT(store.Lease("b:1", "../x"),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("name of a lease")));
  EXPECT_THAT(store.Lease("nothing", "x"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("nothing")));
}

}  // namespace
}  // namespace caisson::layer
