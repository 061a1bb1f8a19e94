#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "caisson/image_archive.h"
#include "caisson/layer_store.h"
#include "caisson/tree_copy.h"
#include "gtest/gtest.h"
#include "lib/base/status_matchers.h"
#include "lib/layer/save_target.h"
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
using ::testing::Not;
using ::testing::SizeIs;

namespace fs = std::filesystem;

// Tars that no writer of ours would write.
TestImage OddImage() {
  TestImage image;
  const std::string text(5000, 't');
  image.layers = {
      TestTar()
              .Dir("./")
              .Dir("dir")
              .File("dir/file", text)
              .Hardlink("dir/link", "dir/file")
              .Symlink("alias", "dir")
              .File("alias/through", "by way of a symbolic link")
              .Pax({{"SCHILY.xattr.user.a", "b"}, {"comment", "kept"}})
              .File("with-xattr", "x")
              .Long('L', std::string(150, 'l'))
              .File("short", "long by GNU")
              .Device("null", '3', 1, 3)
              .Fifo("fifo")
              .Finish() +
          std::string(4096, '\0'),
      // No end, an entry twice, one of AUFS, a whiteout, a link backwards.
      TestTar()
          .File("twice", "first, which only the tar has")
          .File("twice", "second")
          .File(".wh..wh.plnk/1.2", "shared")
          .Hardlink("of-aufs", ".wh..wh.plnk/1.2")
          .File("dir/.wh.file", "")
          .Hardlink("before", "behind")
          .File("behind", "later")
          .bytes(),
      // Sparse: 1.0, with the map in the data.
      TestTar()
          .Pax({{"GNU.sparse.major", "1"},
                {"GNU.sparse.minor", "0"},
                {"GNU.sparse.name", "sparse"},
                {"GNU.sparse.realsize", "100000"}})
          .File("GNUSparseFile.0/sparse", std::string("2\n0\n5\n99995\n5\n") +
                                              std::string(512 - 14, '\0') +
                                              "begin" + "ends.")
          .Finish()};
  image.names = {"odd:1"};
  return image;
}

class ImageSaveTest : public StoreTest {
 protected:
  std::string Path(const std::string& name) const {
    return temp_.path() + "/" + name;
  }

  // What a container sees.
  std::string Exported(LayerStore& store, const Image& image) {
    const UniqueFd fd(::open(Path("exported").c_str(),
                             O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    auto layers = store.OpenLayers(image);
    EXPECT_TRUE(layers.ok() && store.Export(*layers, fd.borrow()).ok());
    return ReadFile(Path("exported"));
  }

  static std::vector<std::string> DiffIds(const Image& image) {
    std::vector<std::string> ids;
    for (const LayerInfo& layer : image.layers) ids.push_back(layer.diff_id);
    return ids;
  }
};

TEST_F(ImageSaveTest, EveryFormComesBackAsTheSameImage) {
  LayerStore store = OpenStore();
  for (TestImage sample : {SampleImage("app", 3), OddImage()}) {
    sample.compression = TestCompression::kGzip;
    ASSERT_OK_AND_ASSIGN(auto images,
                         store.Import(Write("in.tar", OciArchive({sample}))));
    const Image& image = images[0];
    const std::string tree = Exported(store, image);
    for (const auto format : {ArchiveFormat::kDocker, ArchiveFormat::kOci,
                              ArchiveFormat::kOciLayout}) {
      for (const auto compression :
           {LayerCompression::kNone, LayerCompression::kGzip,
            LayerCompression::kZstd}) {
        SCOPED_TRACE(
            absl::StrCat(sample.names[0], " ", format, " ", compression));
        ASSERT_OK(store.Save({sample.names[0]}, Path("out"),
                             {.format = format, .compression = compression}));
        ASSERT_OK_AND_ASSIGN(LayerStore other,
                             LayerStore::Open({.path = Path("other")}));
        ASSERT_OK_AND_ASSIGN(auto again, other.Import(Path("out")));
        ASSERT_THAT(again, SizeIs(1));
        EXPECT_EQ(again[0].id, image.id);
        EXPECT_EQ(again[0].config_json, image.config_json);
        EXPECT_EQ(again[0].names, image.names);
        EXPECT_EQ(DiffIds(again[0]), DiffIds(image));
        EXPECT_TRUE(Exported(other, again[0]) == tree);
        fs::remove_all(Path("out"));
        fs::remove_all(Path("other"));
      }
    }
  }
}

TEST_F(ImageSaveTest, TheManifestStaysWhereLayersWereUncompressed) {
  TestImage sample = OddImage();
  sample.compression = TestCompression::kNone;
  LayerStore store = OpenStore();
  ASSERT_OK(store.Import(Write("in.tar", OciArchive({sample}))));
  ASSERT_OK(store.Save({"odd:1"}, Path("out.tar")));
  ASSERT_OK_AND_ASSIGN(LayerStore other,
                       LayerStore::Open({.path = Path("other")}));
  ASSERT_OK_AND_ASSIGN(auto again, other.Import(Path("out.tar")));
  EXPECT_EQ(again[0].manifest_digest, Digest::Of(sample.Manifest()).str());
}

TEST_F(ImageSaveTest, SavingTwiceMakesTheSameBytes) {
  LayerStore store = OpenStore();
  ASSERT_OK(store.Import(
      Write("in.tar", OciArchive({SampleImage("a"), SampleImage("b")}))));
  ASSERT_OK(store.Save({"a:1", "b:1"}, Path("one.tar")));
  const UniqueFd two(
      ::open(Path("two.tar").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  ASSERT_OK(store.Save({"a:1", "b:1"}, two.borrow()));
  EXPECT_EQ(ReadFile(Path("one.tar")), ReadFile(Path("two.tar")));
  struct stat status = {};
  ASSERT_EQ(::stat(Path("one.tar").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0644u);
}

TEST_F(ImageSaveTest, SeveralImagesShareTheirLayers) {
  TestImage first = SampleImage("app", 2);
  TestImage second = first;
  second.layers.push_back(SampleImage("top", 1).layers[0]);
  second.names = {"derived:1", "derived:2"};
  LayerStore store = OpenStore();
  ASSERT_OK(store.Import(Write("in.tar", OciArchive({first, second}))));
  ASSERT_OK_AND_ASSIGN(const Image app, store.Find("app:1"));
  ASSERT_OK(store.Save({app.id, "derived:1"}, Path("out"),
                       {.format = ArchiveFormat::kOciLayout}));
  size_t blobs = 0;
  for ([[maybe_unused]] const auto& entry :
       fs::directory_iterator(Path("out/blobs/sha256"))) {
    ++blobs;
  }
  EXPECT_EQ(blobs, 3u + 2u + 2u) << "layers, configurations, manifests";
  ASSERT_OK_AND_ASSIGN(LayerStore other,
                       LayerStore::Open({.path = Path("other")}));
  ASSERT_OK(other.Import(Path("out")));
  ASSERT_OK_AND_ASSIGN(const Image derived, other.Find("derived:1"));
  EXPECT_THAT(derived.names, ElementsAre("derived:1"));
  ASSERT_OK_AND_ASSIGN(const Image unnamed, other.Find(app.id));
  EXPECT_THAT(unnamed.names, IsEmpty());
}

// What came as one image for several platforms can go as one again.
TEST_F(ImageSaveTest, SeveralPlatformsAreOneIndex) {
  TestImage arm = SampleImage("arm", 2);
  arm.platform = {.os = "linux", .architecture = "arm", .variant = "v7"};
  TestImage amd = SampleImage("amd", 2);
  amd.platform = {.os = "linux", .architecture = "amd64"};
  const std::string archive = Write("in.tar", OciMultiPlatform({arm, amd}));
  LayerStore store = OpenStore();
  for (const TestImage& image : {arm, amd}) {
    ASSERT_OK(store.Import(archive, {.name = image.platform.architecture,
                                     .platform = image.platform}));
  }
  // One alone is for that platform and no other.
  ASSERT_OK(store.Save({"arm"}, Path("arm.tar")));
  EXPECT_THAT(store.Import(Path("arm.tar"), {.platform = amd.platform}),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("linux/arm/v7"),
                             HasSubstr("linux/amd64 is wanted"))));
  for (const auto format : {ArchiveFormat::kOci, ArchiveFormat::kOciLayout}) {
    ASSERT_OK(store.Save({"arm", "amd64"}, Path("both"),
                         {.format = format, .index_name = "both:1"}));
    for (const TestImage& image : {arm, amd}) {
      ASSERT_OK_AND_ASSIGN(LayerStore other,
                           LayerStore::Open({.path = Path("other")}));
      ASSERT_OK_AND_ASSIGN(
          auto again, other.Import(Path("both"), {.platform = image.platform}));
      ASSERT_THAT(again, SizeIs(1));
      EXPECT_EQ(again[0].id, image.Id().str());
      EXPECT_THAT(again[0].names, ElementsAre("both:1"));
      fs::remove_all(Path("other"));
    }
    fs::remove_all(Path("both"));
  }
  EXPECT_THAT(store.Save({"arm", "amd64"}, Path("no"), {.index_name = "b:1"}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("kDocker has no images")));
  ASSERT_OK(store.Tag("arm", "arm:2"));
  TestImage again = arm;
  again.env = "B=2";
  again.names = {"again:1"};
  ASSERT_OK(store.Import(Write("again.tar", OciArchive({again})),
                         {.platform = arm.platform}));
  EXPECT_THAT(store.Save({"arm", "again:1"}, Path("no"),
                         {.format = ArchiveFormat::kOci, .index_name = "c:1"}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("are both for linux/arm/v7")));
  EXPECT_FALSE(fs::exists(Path("no")));
}

// What a manifest says of its image stays, also if it is a new one.
TEST_F(ImageSaveTest, AnnotationsStay) {
  TestImage sample = SampleImage("app", 2);
  sample.annotations = R"({"org.example.note": "kept"})";
  LayerStore store = OpenStore();
  ASSERT_OK(store.Import(Write("in.tar", OciArchive({sample}))));
  for (const auto compression :
       {LayerCompression::kNone, LayerCompression::kZstd}) {
    ASSERT_OK(store.Save(
        {"app:1"}, Path("out"),
        {.format = ArchiveFormat::kOciLayout, .compression = compression}));
    size_t found = 0;
    for (const auto& entry : fs::directory_iterator(Path("out/blobs/sha256"))) {
      found += absl::StrContains(ReadFile(entry.path()), "org.example.note");
    }
    EXPECT_EQ(found, 1u);
    fs::remove_all(Path("out"));
  }
}

TEST_F(ImageSaveTest, ACommittedImageCanBeSaved) {
  LayerStore store = OpenStore();
  ASSERT_OK_AND_ASSIGN(WritableLayer top, store.CreateWritableLayer());
  ASSERT_EQ(::mkdirat(top.upper().get(), "dir", 0755), 0);
  ASSERT_OK_AND_ASSIGN(const Image image,
                       store.Commit(Image(), top.upper(), {.name = "made"}));
  ASSERT_OK(store.Save({"made"}, Path("out.tar")));
  ASSERT_OK_AND_ASSIGN(LayerStore other,
                       LayerStore::Open({.path = Path("other")}));
  ASSERT_OK_AND_ASSIGN(auto again, other.Import(Path("out.tar")));
  EXPECT_EQ(again[0].id, image.id);
}

TEST_F(ImageSaveTest, FailuresLeaveNothing) {
  LayerStore store = OpenStore();
  ASSERT_OK_AND_ASSIGN(
      auto images,
      store.Import(Write("in.tar", OciArchive({SampleImage("app", 1)}))));
  Write("there", "before");
  EXPECT_THAT(store.Save({"app:1"}, Path("there")),
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("there")));
  EXPECT_EQ(ReadFile(Path("there")), "before");
  EXPECT_THAT(store.Save({"none"}, Path("out")),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("none")));
  EXPECT_THAT(store.Save({}, Path("out")),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("no")));
  // Somebody has changed a file of the store.
  const std::string file =
      absl::StrCat(StorePath(), "/layers/overlay/",
                   images[0].layers[0].diff_id.substr(7), "/diff/layer0");
  const UniqueFd fd(::open(file.c_str(), O_WRONLY | O_CLOEXEC));
  ASSERT_EQ(::pwrite(fd.get(), "APP", 3, 0), 3);
  for (const auto format :
       {ArchiveFormat::kDocker, ArchiveFormat::kOciLayout}) {
    for (const auto compression :
         {LayerCompression::kNone, LayerCompression::kGzip}) {
      EXPECT_THAT(
          store.Save({"app:1"}, Path("out"),
                     {.format = format, .compression = compression}),
          StatusIs(absl::StatusCode::kDataLoss, HasSubstr("damaged on disk")));
      EXPECT_FALSE(fs::exists(Path("out")));
    }
  }
}

// As SaveToFile does where files cannot be made without a name.
TEST_F(ImageSaveTest, ByAnotherName) {
  const auto write = [](BorrowedFd out) {
    EXPECT_EQ(::write(out.get(), "x", 1), 1);
    return absl::OkStatus();
  };
  ASSERT_OK(SaveByRename(Path("made"), write));
  EXPECT_EQ(ReadFile(Path("made")), "x");
  EXPECT_THAT(SaveByRename(Path("made"), write),
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("made")));
  const auto fail = [](BorrowedFd) { return absl::CancelledError("no"); };
  EXPECT_THAT(SaveByRename(Path("not"), fail),
              StatusIs(absl::StatusCode::kCancelled, "no"));
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(temp_.path())) {
    names.push_back(entry.path().filename());
  }
  EXPECT_THAT(names, ElementsAre("made"));
}

TEST_F(ImageSaveTest, UnpacksAsOneTree) {
  LayerStore store = OpenStore();
  for (const TestImage& sample : {SampleImage("app", 3), OddImage()}) {
    ASSERT_OK_AND_ASSIGN(auto images,
                         store.Import(Write("in.tar", OciArchive({sample}))));
    ASSERT_EQ(::mkdir(Path("tree").c_str(), 0700), 0);
    const UniqueFd tree(
        ::open(Path("tree").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    ASSERT_OK(store.Unpack(images[0], tree.borrow()));
    const UniqueFd tar(::open(Path("tree.tar").c_str(),
                              O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    ASSERT_OK(CopyOut(tree.borrow(), "/", tar.borrow()));
    EXPECT_TRUE(ReadFile(Path("tree.tar")) == Exported(store, images[0]));
    EXPECT_THAT(store.Unpack(images[0], tree.borrow()),
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         HasSubstr("not empty")));
    fs::remove_all(Path("tree"));
  }
}

TEST_F(ImageSaveTest, CanBeCancelled) {
  TestImage sample;
  sample.layers = {TestTar().File("large", std::string(3 << 20, 'l')).Finish()};
  sample.names = {"large:1"};
  LayerStore store = OpenStore();
  ASSERT_OK(store.Import(Write("in.tar", OciArchive({sample}))));
  uint64_t last = 0;
  SaveOptions options;
  options.progress = [&last](uint64_t bytes) {
    last = bytes;
    return bytes < (2 << 20);
  };
  EXPECT_THAT(store.Save({"large:1"}, Path("out"), options),
              StatusIs(absl::StatusCode::kCancelled, HasSubstr("progress")));
  EXPECT_GE(last, uint64_t{2} << 20);
  EXPECT_FALSE(fs::exists(Path("out")));
}

}  // namespace
}  // namespace caisson::layer
