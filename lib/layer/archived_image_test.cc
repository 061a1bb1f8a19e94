#include "lib/layer/archived_image.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "gtest/gtest.h"
#include "lib/base/status_matchers.h"
#include "lib/layer/test_image.h"
#include "lib/layer/test_streams.h"
#include "lib/layer/test_tar.h"

namespace caisson::layer {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kDataLoss = absl::StatusCode::kDataLoss;
constexpr auto kNotFound = absl::StatusCode::kNotFound;
constexpr auto kExhausted = absl::StatusCode::kResourceExhausted;
constexpr auto kPrecondition = absl::StatusCode::kFailedPrecondition;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;

constexpr ArchiveLimits kLimits = {
    .max_manifest_bytes = 1 << 20,
    .max_config_bytes = 1 << 20,
    .max_layers = 10,
    .layer = {.max_output_bytes = 1 << 20,
              .max_output_bytes_name = "max_layer_bytes"}};

TestImage TwoLayers() {
  TestImage image;
  image.layers = {TestTar().Dir("./").File("a", "1").Finish(),
                  TestTar().File("b", "2").Finish()};
  image.names = {"app:1"};
  return image;
}

class ArchivedImageTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char dir[] = "/tmp/caisson-archive-XXXXXX";
    ASSERT_NE(::mkdtemp(dir), nullptr);
    dir_ = dir;
    dir_fd_ = UniqueFd(::open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  SpoolOptions Spool(uint64_t max = 1 << 20) {
    return {.dir = dir_fd_.borrow(),
            .name = absl::StrCat("spool", ++spools_),
            .limits = {.max_output_bytes = max,
                       .max_output_bytes_name = "max_spool_bytes"}};
  }

  absl::StatusOr<std::vector<ArchivedImage>> FindIn(BorrowedFd fd) {
    ASSIGN_OR_RETURN(archive_, OpenImageArchive(fd, Spool()));
    return FindImages(*archive_, platform_, limits_);
  }
  absl::StatusOr<std::vector<ArchivedImage>> Find(absl::string_view tar) {
    file_ = MemFile(tar);
    return FindIn(file_.borrow());
  }
  absl::StatusOr<std::vector<ArchivedImage>> Find(const TestArchive& archive) {
    return Find(archive.Tar());
  }

  std::string dir_;
  UniqueFd dir_fd_;
  int spools_ = 0;
  UniqueFd file_;
  std::unique_ptr<ImageArchive> archive_;
  Platform platform_ = HostPlatform();
  ArchiveLimits limits_ = kLimits;
};

TEST_F(ArchivedImageTest, ReadsEveryFormat) {
  const TestImage image = TwoLayers();
  const std::pair<const char*, TestArchive> formats[] = {
      {"oci", OciArchive({image})},
      {"oci index", OciMultiPlatform({image})},
      {"docker", DockerArchive({image})},
      {"hybrid", HybridArchive({image})},
  };
  for (const auto& [name, archive] : formats) {
    SCOPED_TRACE(name);
    ASSERT_OK_AND_ASSIGN(auto images, Find(archive));
    ASSERT_THAT(images, SizeIs(1));
    EXPECT_EQ(images[0].id, image.Id());
    EXPECT_EQ(images[0].config_json, image.Config());
    EXPECT_THAT(images[0].config.env, ElementsAre("A=1"));
    EXPECT_THAT(images[0].names, ElementsAre("docker.io/library/app:1"));
    ASSERT_THAT(images[0].layers, SizeIs(2));
    const Digest bottom = Digest::Of(image.layers[0]);
    const Digest top = Digest::Of(image.layers[1]);
    EXPECT_EQ(images[0].layers[0].diff_id, bottom);
    EXPECT_EQ(images[0].layers[1].chain_id, ChainId(&bottom, top));
    EXPECT_EQ(images[0].manifest_digest.has_value(),
              std::string(name) != "docker");
  }
}

TEST_F(ArchivedImageTest, ReadsLegacyArchives) {
  TestImage image = TwoLayers();
  for (const bool named : {true, false}) {
    if (!named) image.names.clear();
    ASSERT_OK_AND_ASSIGN(auto images, Find(LegacyArchive(image)));
    ASSERT_THAT(images, SizeIs(1));
    EXPECT_THAT(images[0].names, SizeIs(named ? 1 : 0));
    ASSERT_THAT(images[0].layers, SizeIs(2));
    EXPECT_EQ(images[0].layers[1].diff_id, Digest::Of(image.layers[1]));
    EXPECT_EQ(images[0].id, Digest::Of(images[0].config_json));
    EXPECT_THAT(images[0].config.env, ElementsAre("A=1"));
  }
}

// Counts how often each layer is opened.
class CountingArchive final : public ImageArchive {
 public:
  explicit CountingArchive(const ImageArchive& archive) : archive_(archive) {}

  bool Has(absl::string_view path) const override { return archive_.Has(path); }
  absl::StatusOr<std::unique_ptr<ArchiveFile>> Open(
      absl::string_view path) const override {
    ++opened_[std::string(path)];
    return archive_.Open(path);
  }
  absl::StatusOr<std::vector<std::string>> TopLevel() const override {
    return archive_.TopLevel();
  }

  const std::map<std::string, int>& opened() const { return opened_; }

 private:
  const ImageArchive& archive_;
  mutable std::map<std::string, int> opened_;
};

TEST_F(ArchivedImageTest, LayersThatLegacyImagesShareAreInflatedOnce) {
  TestArchive archive = LegacyArchive(TwoLayers());
  std::string base;
  std::string app;
  for (const auto& [path, content] : archive.files) {
    if (!absl::EndsWith(path, "/json")) continue;
    (absl::StrContains(content, "parent") ? app : base) = path.substr(0, 64);
  }
  archive.files["repositories"] = absl::StrCat(
      R"({"app":{"1":")", app, R"("},"base":{"1":")", base, R"("}})");
  ASSERT_OK(Find(archive));
  const CountingArchive counting(*archive_);
  ASSERT_OK_AND_ASSIGN(const auto images,
                       FindImages(counting, platform_, limits_));
  ASSERT_THAT(images, SizeIs(2));
  // Each image asks for its size, too.
  EXPECT_EQ(counting.opened().at(base + "/layer.tar"), 1 + 2);
  EXPECT_EQ(counting.opened().at(app + "/layer.tar"), 1 + 1);
}

TEST_F(ArchivedImageTest, ReadsDirectories) {
  for (const TestArchive& archive :
       {OciArchive({TwoLayers()}), DockerArchive({TwoLayers()}),
        LegacyArchive(TwoLayers())}) {
    const std::string dir = absl::StrCat(dir_, "/layout", ++spools_);
    ASSERT_EQ(::mkdir(dir.c_str(), 0700), 0);
    archive.WriteTo(dir);
    UniqueFd fd(::open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    ASSERT_OK_AND_ASSIGN(auto images, FindIn(fd.borrow()));
    EXPECT_THAT(images, SizeIs(1));
  }
}

TEST_F(ArchivedImageTest, ReadsCompressedArchivesAndPipes) {
  const std::string tar = OciArchive({TwoLayers()}).Tar();
  for (const std::string& bytes :
       {tar, Gzip(tar), Zstd(tar), ZstdSkippable("x") + Zstd(tar)}) {
    ASSERT_OK_AND_ASSIGN(auto images, Find(bytes));
    EXPECT_THAT(images, SizeIs(1));
    int pipe[2];
    ASSERT_EQ(::pipe2(pipe, O_CLOEXEC), 0);
    UniqueFd reader(pipe[0]);
    std::thread writer([fd = pipe[1], &bytes] {
      EXPECT_EQ(::write(fd, bytes.data(), bytes.size()),
                static_cast<ssize_t>(bytes.size()));
      ::close(fd);
    });
    const auto piped = FindIn(reader.borrow());
    writer.join();
    ASSERT_OK(piped);
    EXPECT_THAT(*piped, SizeIs(1));
  }
}

TEST_F(ArchivedImageTest, RefusesWhatIsNoArchive) {
  const std::string tar = OciArchive({TwoLayers()}).Tar();
  EXPECT_THAT(Find(""), StatusIs(kInvalid, HasSubstr("is empty")));
  EXPECT_THAT(Find(TestTar().File("x", "y").Finish()),
              StatusIs(kInvalid, HasSubstr("not an image archive")));
  EXPECT_THAT(Find(std::string("PK\x03\x04") + tar),
              StatusIs(kUnimplemented, HasSubstr("compressed with zip")));
  EXPECT_THAT(Find(Gzip(Gzip(tar))),
              StatusIs(kUnimplemented, HasSubstr("one method after another")));
  EXPECT_THAT(Find(std::string(4096, 'x')), StatusIs(kInvalid, HasSubstr("")));
}

TEST_F(ArchivedImageTest, BoundsTheSpool) {
  file_ = MemFile(Gzip(std::string(1 << 20, 'x')));
  EXPECT_THAT(OpenImageArchive(file_.borrow(), Spool(1000)),
              StatusIs(kExhausted, HasSubstr("max_spool_bytes (1000)")));
}

// A disk image inside of a compressed archive: what is nothing takes no disk.
TEST_F(ArchivedImageTest, ZerosOfACompressedArchiveTakeNoSpace) {
  const TestTar tar =
      TestTar().File("zeros", std::string(64 << 20, '\0')).File("end", "x");
  file_ = MemFile(Gzip(tar.Finish()));
  ASSERT_OK_AND_ASSIGN(
      auto archive, OpenImageArchive(file_.borrow(), Spool(uint64_t{1} << 30)));
  ASSERT_OK_AND_ASSIGN(auto file, archive->Open("zeros"));
  EXPECT_EQ(file->size(), 64u << 20);
  ASSERT_OK_AND_ASSIGN(file, archive->Open("end"));
  EXPECT_EQ(*ReadToEnd(*file), "x");
  struct stat spool = {};
  ASSERT_EQ(::fstatat(dir_fd_.get(), "spool1", &spool, 0), 0);
  EXPECT_EQ(spool.st_size, static_cast<off_t>(tar.Finish().size()));
  EXPECT_LT(spool.st_blocks, 1000);
}

// Wherever the outer tar is cut, the error says so; nothing half is accepted.
TEST_F(ArchivedImageTest, RefusesATruncatedTar) {
  const std::string tar = OciArchive({TwoLayers()}).Tar();
  const size_t content = tar.size() - 1024;
  for (size_t size = 1; size < content; size += 211) {
    const auto images = Find(tar.substr(0, size));
    EXPECT_FALSE(images.ok()) << size;
  }
  EXPECT_THAT(Find(tar.substr(0, 700)), StatusIs(kDataLoss, HasSubstr("")));
}

TEST_F(ArchivedImageTest, JoinsNamesOfOneImage) {
  TestImage image = TwoLayers();
  image.names = {"app:1", "app:2", "reg.io/x/app:latest"};
  for (const TestArchive& archive :
       {OciArchive({image}), DockerArchive({image}), LegacyArchive(image)}) {
    ASSERT_OK_AND_ASSIGN(auto images, Find(archive));
    ASSERT_THAT(images, SizeIs(1));
    EXPECT_THAT(images[0].names, SizeIs(3));
  }
}

TEST_F(ArchivedImageTest, FollowsLinksBetweenLayers) {
  TestImage first = TwoLayers();
  TestImage second = TwoLayers();
  second.env = "A=2";
  second.names = {"app:2"};
  TestArchive archive = DockerArchive({first, second});
  ASSERT_THAT(archive.symlinks, SizeIs(2));
  ASSERT_OK_AND_ASSIGN(auto images, Find(archive));
  EXPECT_THAT(images, SizeIs(2));

  const std::string link = archive.symlinks.begin()->first;
  archive.symlinks[link] = "../../etc/passwd";
  EXPECT_THAT(Find(archive),
              StatusIs(kInvalid, HasSubstr("leaves the archive")));
  archive.symlinks[link] = "/etc/passwd";
  EXPECT_THAT(Find(archive),
              StatusIs(kInvalid, HasSubstr("leaves the archive")));
  archive.symlinks[link] = "../" + link;
  EXPECT_THAT(Find(archive),
              StatusIs(kInvalid, HasSubstr("more than 8 times")));
  archive.symlinks[link] = "../nowhere/layer.tar";
  EXPECT_THAT(Find(archive),
              StatusIs(kNotFound, HasSubstr("is a link to \"nowhere")));
}

TEST_F(ArchivedImageTest, ReadsDigestAnnotationsAsContainerdWritesThem) {
  const std::string tar =
      OciArchive({TwoLayers()})
          .Edit("index.json", R"("org.opencontainers.image.ref.name":"app:1")",
                R"("io.containerd.image.name":"docker.io/library/app:1",)"
                R"("org.opencontainers.image.ref.name":"1")")
          .Tar();
  ASSERT_OK_AND_ASSIGN(auto images, Find(tar));
  EXPECT_THAT(images[0].names, ElementsAre("docker.io/library/app:1"));
}

TEST_F(ArchivedImageTest, TakesALoneTagForWhatItIs) {
  TestImage image = TwoLayers();
  const std::pair<std::string, std::vector<std::string>> cases[] = {
      {"latest", {}},
      {"python", {"docker.io/library/python:latest"}},
      {"Not_A-Name", {}},
  };
  for (const auto& [annotation, names] : cases) {
    image.names = {annotation};
    ASSERT_OK_AND_ASSIGN(auto images, Find(OciArchive({image})));
    EXPECT_EQ(images[0].names, names);
  }
}

// docker save of 25.0.0 wrote an OCI manifest without layers (moby#47065).
TEST_F(ArchivedImageTest, RepairsTheManifestOfDocker25) {
  TestImage image = TwoLayers();
  TestArchive archive = HybridArchive({image});
  image.compression = TestCompression::kNone;
  const std::string good = image.Manifest();
  const std::string bad =
      good.substr(0, good.find("\"layers\":[")) + "\"layers\":[]," +
      good.substr(
          good.find("\"mediaType\":\"application/vnd.oci.image.manifest"));
  archive.files.erase(BlobPathOf(good));
  archive.files[BlobPathOf(bad)] = bad;
  archive.Edit("index.json", Digest::Of(good).str(), Digest::Of(bad).str());
  archive.Edit("index.json", absl::StrCat("\"size\":", good.size()),
               absl::StrCat("\"size\":", bad.size()));
  ASSERT_OK_AND_ASSIGN(auto images, Find(archive));
  ASSERT_THAT(images[0].layers, SizeIs(2));
  EXPECT_EQ(images[0].layers[0].blob_digest, Digest::Of(image.layers[0]));
}

TEST_F(ArchivedImageTest, AnImageMayHaveNoLayers) {
  TestImage image;
  image.names = {"empty:1"};
  for (const TestArchive& archive :
       {OciArchive({image}), DockerArchive({image})}) {
    ASSERT_OK_AND_ASSIGN(auto images, Find(archive));
    EXPECT_THAT(images[0].layers, IsEmpty());
  }
}

TEST_F(ArchivedImageTest, ChoosesThePlatform) {
  TestImage amd64 = TwoLayers();
  amd64.platform = {.os = "linux", .architecture = "amd64"};
  TestImage v6 = TwoLayers();
  v6.platform = {.os = "linux", .architecture = "arm", .variant = "v6"};
  TestImage v7 = TwoLayers();
  v7.platform = {.os = "linux", .architecture = "arm", .variant = "v7"};
  const TestArchive archive = OciMultiPlatform({amd64, v6, v7});
  for (const TestImage* wanted : {&amd64, &v6, &v7}) {
    platform_ = wanted->platform;
    ASSERT_OK_AND_ASSIGN(auto images, Find(archive));
    ASSERT_THAT(images, SizeIs(1));
    EXPECT_EQ(images[0].id, wanted->Id()) << platform_.ToString();
    EXPECT_THAT(images[0].names, SizeIs(1));
  }
  platform_ = {.os = "linux", .architecture = "s390x"};
  EXPECT_THAT(
      Find(archive),
      StatusIs(kPrecondition,
               "index.json: \"app:1\" is for linux/amd64, linux/arm/v6, "
               "linux/arm/v7, but linux/s390x is wanted; to import it all the "
               "same, ask for its platform"));
}

TEST_F(ArchivedImageTest, NamesBothPlatformsOfAForeignImage) {
  TestImage image = TwoLayers();
  image.platform = {.os = "linux", .architecture = "s390x"};
  for (const TestArchive& archive :
       {OciArchive({image}), DockerArchive({image}), LegacyArchive(image)}) {
    EXPECT_THAT(Find(archive),
                StatusIs(kPrecondition,
                         ::testing::AllOf(HasSubstr("linux/s390x"),
                                          HasSubstr(HostPlatform().ToString() +
                                                    " is wanted"))));
  }
  platform_ = image.platform;
  EXPECT_OK(Find(OciArchive({image})));
  // A descriptor cannot lie about the configuration.
  TestImage lying = TwoLayers();
  lying.platform = HostPlatform();
  TestArchive archive = OciMultiPlatform({image});
  std::string index;
  for (const auto& [path, content] : archive.files) {
    if (content.find("\"manifests\"") != std::string::npos &&
        path != "index.json") {
      index = path;
    }
  }
  const std::string old = archive.files[index];
  const std::string lie =
      absl::StrReplaceAll(old, {{"s390x", HostPlatform().architecture}});
  archive.files.erase(index);
  archive.files[BlobPathOf(lie)] = lie;
  archive.Edit("index.json", Digest::Of(old).str(), Digest::Of(lie).str());
  archive.Edit("index.json", absl::StrCat("\"size\":", old.size()),
               absl::StrCat("\"size\":", lie.size()));
  platform_ = HostPlatform();
  EXPECT_THAT(Find(archive), StatusIs(kPrecondition, HasSubstr("linux/s390x")));
}

TEST_F(ArchivedImageTest, PassesOverAttestationsAndArtifacts) {
  TestArchive archive = OciArchive({TwoLayers()});
  const std::string artifact =
      R"({"schemaVersion":2,"config":{"mediaType":"application/vnd.x",)"
      R"("digest":")" +
      Digest::Of("{}").str() + R"(","size":2},"layers":[]})";
  archive.files[BlobPathOf(artifact)] = artifact;
  const std::string unknown = Digest::Of("not in the archive").str();
  archive.Edit(
      "index.json", "\"manifests\":[",
      absl::StrCat(
          R"("manifests":[{"mediaType":"application/vnd.oci.image.)"
          R"(manifest.v1+json","digest":")",
          unknown,
          R"(","size":1,"platform":{"os":"unknown","architecture":"unknown"}},)"
          R"({"mediaType":"application/vnd.oci.image.manifest.v1+json",)"
          R"("digest":")",
          Digest::Of(artifact).str(), R"(","size":)", artifact.size(), "},"));
  ASSERT_OK_AND_ASSIGN(auto images, Find(archive));
  EXPECT_THAT(images, SizeIs(1));
}

struct Broken {
  const char* what;
  TestArchive archive;
  absl::StatusCode code;
  std::string error;
};

TEST_F(ArchivedImageTest, RefusesBrokenOciLayouts) {
  const TestImage image = TwoLayers();
  const TestArchive good = OciArchive({image});
  const std::string config = BlobPathOf(image.Config());
  const std::string manifest = BlobPathOf(image.Manifest());
  const std::string layer = BlobPathOf(image.Blob(1));
  const auto without = [&good](const std::string& path) {
    TestArchive archive = good;
    archive.files.erase(path);
    return archive;
  };
  const auto edited = [&good](const std::string& path, const std::string& from,
                              const std::string& to) {
    return TestArchive(good).Edit(path, from, to);
  };
  const auto with = [&good](const std::string& path,
                            const std::string& content) {
    TestArchive archive = good;
    archive.files[path] = content;
    return archive;
  };
  const Broken cases[] = {
      {"no oci-layout", without("oci-layout"), kNotFound,
       "\"oci-layout\" is not in the archive"},
      {"no index", without("index.json"), kNotFound,
       "\"index.json\" is not in the archive"},
      {"no manifest", without(manifest), kNotFound,
       absl::StrCat("index.json: manifests[0]: \"", manifest, "\"")},
      {"no config", without(config), kNotFound, config},
      {"no layer", without(layer), kNotFound,
       absl::StrCat(manifest, ": layers[1]: \"", layer,
                    "\" is not in the archive")},
      {"other layout version",
       with("oci-layout", R"({"imageLayoutVersion":"2.0.0"})"), kUnimplemented,
       "\"2.0.0\", expected \"1.0.0\""},
      {"damaged manifest", edited(manifest, "layers", "leyers"), kDataLoss,
       absl::StrCat("is damaged: its digest is ")},
      {"damaged config", edited(config, "A=1", "A=2"), kDataLoss,
       absl::StrCat("expected ", image.Id().str())},
      {"size in index", edited("index.json", "\"size\":", "\"size\":1"),
       kInvalid, "index.json: manifests[0].size: 1"},
      {"negative size", edited("index.json", "\"size\":", "\"size\":-"),
       kInvalid, "is not from 0 to"},
      {"null manifests",
       with("index.json", R"({"schemaVersion":2,"manifests":null})"), kInvalid,
       "manifests: missing or null"},
      {"no manifests",
       with("index.json", R"({"schemaVersion":2,"manifests":[]})"), kNotFound,
       "index.json: lists no images"},
      {"digest is a path",
       edited("index.json", Digest::Of(image.Manifest()).str(),
              "sha256:../../../etc/passwd"),
       kInvalid, "is not a digest"},
      {"index.json is a manifest", with("index.json", image.Manifest()),
       kInvalid, "is a manifest, expected an index"},
      {"duplicate keys",
       with("index.json",
            R"({"schemaVersion":2,"manifests":[],"manifests":[]})"),
       kInvalid, "\"manifests\" occurs twice"},
      {"truncated layer", with(layer, image.Blob(1).substr(1)), kInvalid,
       absl::StrCat("layers[1].size: ", image.Blob(1).size(), ", but \"", layer,
                    "\" has ", image.Blob(1).size() - 1, " bytes")},
  };
  for (const Broken& c : cases) {
    EXPECT_THAT(Find(c.archive), StatusIs(c.code, HasSubstr(c.error)))
        << c.what;
  }
}

// A manifest that has been edited, with everything that refers to it.
TestArchive WithManifest(const TestImage& image, const std::string& from,
                         const std::string& to) {
  TestArchive archive = OciArchive({image});
  const std::string old = image.Manifest();
  EXPECT_NE(old.find(from), std::string::npos) << from;
  const std::string changed = absl::StrReplaceAll(old, {{from, to}});
  archive.files.erase(BlobPathOf(old));
  archive.files[BlobPathOf(changed)] = changed;
  archive.Edit("index.json", Digest::Of(old).str(), Digest::Of(changed).str());
  if (old.size() != changed.size()) {
    archive.Edit("index.json", absl::StrCat("\"size\":", old.size()),
                 absl::StrCat("\"size\":", changed.size()));
  }
  return archive;
}

TEST_F(ArchivedImageTest, RefusesBrokenManifests) {
  TestImage image = TwoLayers();
  const std::string top = Digest::Of(image.Blob(1)).str();
  const std::string one =
      absl::StrCat(R"({"digest":")", top, R"(","mediaType":)");
  const std::string gzip = "layer.v1.tar+gzip";
  const Broken cases[] = {
      {"more layers than diff_ids",
       WithManifest(image, "\"layers\":[",
                    absl::StrCat("\"layers\":[", one, "\"", "application/vnd.",
                                 "oci.image.", gzip,
                                 "\",\"size\":", image.Blob(1).size(), "},")),
       kInvalid, "rootfs.diff_ids names 2 layers, but the manifest lists 3"},
      {"encrypted", WithManifest(image, gzip, gzip + "+encrypted"),
       kUnimplemented, "is an encrypted layer"},
      {"both",
       WithManifest(image, "\"layers\":", "\"manifests\":[],\"layers\":"),
       kInvalid, "as an index or as a manifest"},
      {"layers of null",
       WithManifest(image, "\"layers\":[", "\"layers\":[null,"), kInvalid,
       "layers[0]: expected an object, found null"},
      {"other type inside",
       WithManifest(image, "image.manifest.v1", "image.index.v1"), kInvalid,
       "what refers to it says"},
  };
  for (const Broken& c : cases) {
    EXPECT_THAT(Find(c.archive), StatusIs(c.code, HasSubstr(c.error)))
        << c.what;
  }
}

TEST_F(ArchivedImageTest, NeverFetchesLayersOfUrls) {
  const TestImage image = TwoLayers();
  const std::string size = absl::StrCat("\"size\":", image.Blob(1).size());
  TestArchive archive =
      WithManifest(image, size, size + R"(,"urls":["http://127.0.0.1/layer"])");
  EXPECT_OK(Find(archive));
  archive.files.erase(BlobPathOf(image.Blob(1)));
  EXPECT_THAT(Find(archive),
              StatusIs(kNotFound, HasSubstr("is not distributable")));
}

TEST_F(ArchivedImageTest, BoundsNestedIndexes) {
  TestArchive archive = OciArchive({TwoLayers()});
  // index.json -> index -> index -> ... -> the manifest.
  std::string inner = TwoLayers().Manifest();
  std::string type = "application/vnd.oci.image.manifest.v1+json";
  const auto nest = [&](int levels) {
    for (int i = 0; i < levels; ++i) {
      inner = absl::StrCat(R"({"schemaVersion":2,"manifests":[{"mediaType":")",
                           type, R"(","digest":")", Digest::Of(inner).str(),
                           R"(","size":)", inner.size(), "}]}");
      type = "application/vnd.oci.image.index.v1+json";
      archive.files[BlobPathOf(inner)] = inner;
    }
    archive.files["index.json"] = inner;
  };
  nest(5);
  EXPECT_OK(Find(archive));
  nest(1);
  EXPECT_THAT(
      Find(archive),
      StatusIs(kExhausted, HasSubstr("deeper than max_index_depth (4)")));

  // Wide instead: every level refers 40 times to the next.
  inner = TwoLayers().Manifest();
  type = "application/vnd.oci.image.manifest.v1+json";
  for (int i = 0; i < 4; ++i) {
    std::string list;
    for (int j = 0; j < 40; ++j) {
      absl::StrAppend(&list, j == 0 ? "" : ",", R"({"mediaType":")", type,
                      R"(","digest":")", Digest::Of(inner).str(),
                      R"(","size":)", inner.size(), "}");
    }
    inner = absl::StrCat(R"({"schemaVersion":2,"manifests":[)", list, "]}");
    type = "application/vnd.oci.image.index.v1+json";
    archive.files[BlobPathOf(inner)] = inner;
  }
  archive.files["index.json"] = inner;
  EXPECT_THAT(Find(archive),
              StatusIs(kExhausted, HasSubstr("max_index_documents (1000)")));
}

TEST_F(ArchivedImageTest, RefusesBrokenDockerArchives) {
  const TestImage image = TwoLayers();
  const TestArchive good = DockerArchive({image});
  const std::string config = absl::StrCat(image.Id().hex(), ".json");
  std::string layer;
  for (const auto& [path, content] : good.files) {
    if (content == image.layers[1]) layer = path;
  }
  const auto edited = [&good](const std::string& path, const std::string& from,
                              const std::string& to) {
    return TestArchive(good).Edit(path, from, to);
  };
  TestArchive no_layer = good;
  no_layer.files.erase(layer);
  TestArchive no_config = good;
  no_config.files.erase(config);
  TestArchive three = good;
  three.Edit("manifest.json", "\"Layers\":[",
             absl::StrCat("\"Layers\":[\"", layer, "\","));
  TestArchive empty_list = good;
  empty_list.files["manifest.json"] = "[]";
  const Broken cases[] = {
      {"missing layer", no_layer, kNotFound,
       absl::StrCat("manifest.json: [0].Layers[1]: \"", layer,
                    "\" is not in the archive")},
      {"missing config", no_config, kNotFound,
       absl::StrCat("manifest.json: [0].Config: \"", config, "\"")},
      {"layer with ..", edited("manifest.json", layer, "../" + layer), kInvalid,
       "manifest.json: [0].Layers[1]: \"../"},
      {"config with ..", edited("manifest.json", config, "../" + config),
       kInvalid, "manifest.json: [0].Config: \"../"},
      {"damaged config", edited(config, "A=1", "A=2"), kDataLoss,
       absl::StrCat("expected ", image.Id().str())},
      {"one layer too many", three, kInvalid,
       "rootfs.diff_ids names 2 layers, but the manifest lists 3"},
      {"bad tag", edited("manifest.json", "app:1", "App:1"), kInvalid,
       "manifest.json: [0].RepoTags: image name \"App:1\""},
      {"no images", empty_list, kNotFound, "manifest.json: lists no images"},
  };
  for (const Broken& c : cases) {
    EXPECT_THAT(Find(c.archive), StatusIs(c.code, HasSubstr(c.error)))
        << c.what;
  }
  // "Layers": null is what Go writes for none.
  TestArchive none = good;
  const std::string& text = none.files["manifest.json"];
  const size_t begin = text.find("\"Layers\":[");
  const size_t end = text.find(']', begin);
  none.files["manifest.json"] = absl::StrCat(
      text.substr(0, begin), "\"Layers\":null", text.substr(end + 1));
  EXPECT_THAT(Find(none), StatusIs(kInvalid, HasSubstr("lists 0")));
}

TEST_F(ArchivedImageTest, RefusesBrokenLegacyArchives) {
  const TestImage image = TwoLayers();
  const TestArchive good = LegacyArchive(image);
  std::string bottom;
  std::string top;
  for (const auto& [path, content] : good.files) {
    const std::string id = path.substr(0, path.find('/'));
    if (content == image.layers[0]) bottom = id;
    if (content == image.layers[1]) top = id;
  }
  TestArchive missing = good;
  missing.files.erase(bottom + "/layer.tar");
  EXPECT_THAT(Find(missing), StatusIs(kNotFound, HasSubstr(bottom)));
  missing = good;
  missing.files.erase(bottom + "/json");
  EXPECT_THAT(Find(missing), StatusIs(kNotFound, HasSubstr(bottom)));
  TestArchive cycle = good;
  cycle.Edit(top + "/json", bottom, top);
  EXPECT_THAT(Find(cycle), StatusIs(kExhausted, HasSubstr("its own ancestor")));
}

TEST_F(ArchivedImageTest, EnforcesLimits) {
  const TestArchive archive = OciArchive({TwoLayers()});
  limits_.max_layers = 1;
  EXPECT_THAT(
      Find(archive),
      StatusIs(kExhausted, HasSubstr("2 layers, more than max_layers (1)")));
  limits_ = kLimits;
  limits_.max_manifest_bytes = 100;
  EXPECT_THAT(Find(archive),
              StatusIs(kExhausted, HasSubstr("max_manifest_bytes (100)")));
  limits_ = kLimits;
  limits_.max_config_bytes = 100;
  EXPECT_THAT(Find(archive),
              StatusIs(kExhausted, HasSubstr("max_config_bytes (100)")));
  limits_ = kLimits;
  limits_.layer.max_output_bytes = 50;
  EXPECT_THAT(Find(archive),
              StatusIs(kExhausted, HasSubstr("max_layer_bytes (50)")));
}

TEST_F(ArchivedImageTest, CountsImagesNotEntries) {
  TestImage other = TwoLayers();
  other.env = "B=1";
  other.names = {"other:1"};
  limits_.max_images = 1;
  for (const TestArchive& archive : {OciArchive({TwoLayers(), other}),
                                     DockerArchive({TwoLayers(), other})}) {
    EXPECT_THAT(Find(archive),
                StatusIs(kExhausted, HasSubstr("max_images (1)")));
  }
  TestImage again = TwoLayers();
  again.names = {"again:1"};
  for (const TestArchive& archive : {OciArchive({TwoLayers(), again}),
                                     DockerArchive({TwoLayers(), again})}) {
    ASSERT_OK_AND_ASSIGN(auto images, Find(archive));
    ASSERT_THAT(images, SizeIs(1));
    EXPECT_THAT(images[0].names, SizeIs(2));
  }
}

TEST_F(ArchivedImageTest, RefusesAmbiguousTars) {
  const TestArchive archive = OciArchive({TwoLayers()});
  TestTar tar;
  for (const auto& [path, content] : archive.files) tar.File(path, content);
  tar.File("./index.json", "{}");
  EXPECT_THAT(Find(tar.Finish()),
              StatusIs(kInvalid, HasSubstr("in the archive twice")));
}

// What an archive says cannot forge a line of a log.
TEST_F(ArchivedImageTest, EscapesWhatErrorsQuote) {
  const TestImage image = TwoLayers();
  const TestArchive docker = DockerArchive({image});
  const std::string config = absl::StrCat(image.Id().hex(), ".json");
  TestArchive named = docker;
  named.files["x\ny"] = "{}";
  named.Edit("manifest.json", config, "x\\ny");
  const TestArchive archives[] = {
      named,
      TestArchive(docker).Edit("manifest.json", config, "no\\nsuch"),
      TestArchive(docker).Edit("manifest.json", "app:1", "a\\np:1"),
      TestArchive(docker).Edit("manifest.json", "Layers", "L\\nayers"),
      WithManifest(image, "image.layer.v1.tar+gzip", "x\\ny"),
      TestArchive(LegacyArchive(image)).Edit("repositories", "app", "a\\np"),
      TestArchive(LegacyArchive(image))
          .Edit("repositories", "{\"1\":\"", "{\"1\":\"x\\ny"),
  };
  for (const TestArchive& archive : archives) {
    const auto images = Find(archive);
    ASSERT_FALSE(images.ok());
    EXPECT_EQ(images.status().message().find('\n'), absl::string_view::npos)
        << images.status();
  }
}

TEST_F(ArchivedImageTest, BoundsTheNamesOfATar) {
  TestTar tar;
  const std::string dir(3900, 'd');
  for (int i = 0; i < 4400; ++i) {
    tar.Pax({{"path", absl::StrCat(dir, i)}}).File("x");
  }
  EXPECT_THAT(Find(tar.Finish()),
              StatusIs(kExhausted, HasSubstr("names of entries take more")));
  TestTar few;
  for (int i = 0; i < 4; ++i) few.File(absl::StrCat("blobs/", i), "x");
  file_ = MemFile(few.Finish());
  EXPECT_OK(OpenImageArchive(file_.borrow(), Spool(1000), 4));
  EXPECT_THAT(OpenImageArchive(file_.borrow(), Spool(1000), 3),
              StatusIs(kExhausted, HasSubstr("max_archive_entries (3)")));
}

TEST_F(ArchivedImageTest, NeverLeavesALayoutDirectory) {
  const TestImage image = TwoLayers();
  OciArchive({image}).WriteTo(dir_);
  const std::string blob = absl::StrCat(dir_, "/", BlobPathOf(image.Blob(0)));
  ASSERT_EQ(::unlink(blob.c_str()), 0);
  const std::string outside = dir_ + "-outside";
  ASSERT_EQ(::symlink(outside.c_str(), blob.c_str()), 0);
  EXPECT_THAT(FindIn(dir_fd_.borrow()),
              StatusIs(kInvalid, HasSubstr("leaves the directory")));
  ASSERT_EQ(::unlink(blob.c_str()), 0);
  ASSERT_EQ(::mkfifo(blob.c_str(), 0600), 0);
  EXPECT_THAT(FindIn(dir_fd_.borrow()),
              StatusIs(kInvalid, HasSubstr("is not a regular file")));
}

TEST(CleanArchivePathTest, Table) {
  EXPECT_EQ(CleanArchivePath("./a//b/."), "a/b");
  EXPECT_EQ(CleanArchivePath("/a"), "a");
  EXPECT_EQ(CleanArchivePath("a/../b"), std::nullopt);
  EXPECT_EQ(CleanArchivePath(".."), std::nullopt);
  EXPECT_EQ(CleanArchivePath("./"), std::nullopt);
  EXPECT_EQ(CleanArchivePath(""), std::nullopt);
}

}  // namespace
}  // namespace caisson::layer
