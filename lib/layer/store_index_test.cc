#include "lib/layer/store_index.h"

#include <sqlite3.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gtest/gtest.h"
#include "lib/base/status_matchers.h"

namespace caisson::layer {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;

constexpr char kFormat[] = "overlay";

LayerRecord Layer(const std::string& name, uint64_t size = 10) {
  return {.chain_id = Digest::Of("chain" + name),
          .diff_id = Digest::Of("diff" + name),
          .size = size};
}

ImageRecord MakeImage(const std::string& content,
                      std::vector<LayerRecord> layers,
                      std::vector<std::string> names = {}) {
  ImageRecord image{.id = Digest::Of(content), .config_json = content};
  image.platform = {.os = "linux", .architecture = "amd64"};
  image.layers = std::move(layers);
  image.names = std::move(names);
  return image;
}

class StoreIndexTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char dir[] = "/tmp/caisson-index-XXXXXX";
    ASSERT_NE(::mkdtemp(dir), nullptr);
    dir_ = dir;
    path_ = dir_ + "/index.db";
    Reopen();
  }
  void TearDown() override {
    index_.reset();
    std::filesystem::remove_all(dir_);
  }
  void Reopen() {
    index_.reset();
    auto index = StoreIndex::Open(path_, absl::Seconds(10));
    ASSERT_OK(index);
    index_ = *std::move(index);
  }
  // Runs SQL behind the index's back.
  void Sql(const std::string& sql) {
    sqlite3* db = nullptr;
    ASSERT_EQ(::sqlite3_open(path_.c_str(), &db), SQLITE_OK);
    EXPECT_EQ(::sqlite3_exec(db, sql.c_str(), nullptr, nullptr, nullptr),
              SQLITE_OK)
        << ::sqlite3_errmsg(db);
    ::sqlite3_close(db);
  }

  std::string dir_;
  std::string path_;
  std::unique_ptr<StoreIndex> index_;
};

TEST_F(StoreIndexTest, KeepsWhatWasAdded) {
  ImageRecord image =
      MakeImage("{\"x\": \"\\u00e9\\n\"}", {Layer("a", 1), Layer("b", 2)},
                {"docker.io/library/app:1", "r.io/z:2"});
  image.manifest_json = "manifest";
  image.manifest_digest = Digest::Of("manifest");
  ASSERT_OK(index_->Add(kFormat, {image}));
  Reopen();
  ASSERT_OK_AND_ASSIGN(Image stored, index_->Get(image.id.str()));
  EXPECT_EQ(stored.config_json, image.config_json);
  EXPECT_EQ(stored.manifest_digest, image.manifest_digest->str());
  EXPECT_THAT(stored.names, ElementsAre("app:1", "r.io/z:2"));
  ASSERT_THAT(stored.layers, SizeIs(2));
  EXPECT_EQ(stored.layers[1].chain_id, Layer("b").chain_id.str());
  EXPECT_EQ(stored.layers[1].size, 2u);
  EXPECT_THAT(*index_->LayersOf(image.id.str()),
              ElementsAre(Layer("a").chain_id, Layer("b").chain_id));
  ASSERT_OK_AND_ASSIGN(auto layer,
                       index_->FindLayer(kFormat, Layer("a").chain_id));
  ASSERT_TRUE(layer.has_value());
  EXPECT_EQ(layer->size, 1u);
  ASSERT_OK_AND_ASSIGN(layer, index_->FindLayer("other", Layer("a").chain_id));
  EXPECT_FALSE(layer.has_value());
  ASSERT_OK_AND_ASSIGN(auto list, index_->List());
  ASSERT_THAT(list, SizeIs(1));
  EXPECT_EQ(list[0].size, 3u);
  EXPECT_EQ(list[0].platform.ToString(), "linux/amd64");
  EXPECT_EQ(*index_->IdOfName("r.io/z:2"), image.id.str());
  EXPECT_THAT(*index_->IdsOfManifest(*image.manifest_digest),
              ElementsAre(image.id.str()));
  EXPECT_THAT(*index_->IdsOfPrefix(image.id.str().substr(0, 12), 5),
              ElementsAre(image.id.str()));
  EXPECT_THAT(*index_->IdsOfPrefix("sha256:", 5), SizeIs(1));
}

TEST_F(StoreIndexTest, NamesMoveToTheLatestImage) {
  ASSERT_OK(index_->Add(kFormat, {MakeImage("one", {}, {"x:1", "y:1"})}));
  ASSERT_OK(index_->Add(kFormat, {MakeImage("two", {}, {"x:1"})}));
  EXPECT_EQ(*index_->IdOfName("x:1"), Digest::Of("two").str());
  EXPECT_THAT(*index_->NamesOf(Digest::Of("one").str()), ElementsAre("y:1"));
  ASSERT_OK(index_->SetName("y:1", Digest::Of("two").str()));
  EXPECT_THAT(*index_->NamesOf(Digest::Of("one").str()), IsEmpty());
  EXPECT_THAT(index_->SetName("y:1", Digest::Of("three").str()),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("no image")));
  EXPECT_EQ(*index_->IdOfName("y:1"), Digest::Of("two").str());
}

TEST_F(StoreIndexTest, RemovesLayersWithTheirLastImage) {
  ASSERT_OK(index_->Add(kFormat, {MakeImage("one", {Layer("a"), Layer("b")}),
                                  MakeImage("two", {Layer("a"), Layer("c")})}));
  ASSERT_OK(index_->Add("other", {MakeImage("one", {Layer("a"), Layer("b")})}));
  ASSERT_OK_AND_ASSIGN(auto removed,
                       index_->RemoveImage(Digest::Of("one").str()));
  std::vector<std::string> formats;
  for (const StoredLayer& layer : removed) {
    EXPECT_EQ(layer.chain_id, Layer("b").chain_id);
    formats.push_back(layer.format);
  }
  EXPECT_THAT(formats, UnorderedElementsAre(kFormat, "other"));
  EXPECT_THAT(index_->Get(Digest::Of("one").str()),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("no image")));
  EXPECT_THAT(index_->RemoveImage(Digest::Of("one").str()),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("no image")));
  ASSERT_OK_AND_ASSIGN(removed, index_->RemoveImage(Digest::Of("two").str()));
  EXPECT_THAT(removed, SizeIs(3));  // a in two formats, c
  EXPECT_THAT(*index_->AllLayers(), IsEmpty());
  Sql("CREATE TABLE probe AS SELECT 1/(count(*)=0) AS x FROM documents");
  ASSERT_OK_AND_ASSIGN(auto list, index_->List());
  EXPECT_THAT(list, IsEmpty());
}

// No configuration is looked at, however many images there are.
TEST_F(StoreIndexTest, ListsWithoutParsing) {
  std::vector<ImageRecord> images;
  for (int i = 0; i < 1000; ++i) {
    images.push_back(MakeImage(absl::StrCat("not json {{{ ", i), {Layer("a")},
                               {absl::StrCat("docker.io/library/i", i, ":1")}));
  }
  ASSERT_OK(index_->Add(kFormat, images));
  Sql("PRAGMA foreign_keys=OFF; DELETE FROM documents");
  ASSERT_OK_AND_ASSIGN(auto list, index_->List());
  ASSERT_THAT(list, SizeIs(1000));
  for (const ImageSummary& image : list) EXPECT_THAT(image.names, SizeIs(1));
  ASSERT_OK_AND_ASSIGN(auto sample, index_->SampleNames(12));
  EXPECT_THAT(sample.names, SizeIs(12));
  EXPECT_EQ(sample.more, 988u);
}

TEST_F(StoreIndexTest, RefusesForeignAndLaterDatabases) {
  index_.reset();
  Sql("PRAGMA user_version=3");
  EXPECT_THAT(StoreIndex::Open(path_, absl::Seconds(1)),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("has version 3, but this version of the "
                                 "library reads up to 2")));
  Sql("PRAGMA user_version=1; PRAGMA application_id=1");
  EXPECT_THAT(StoreIndex::Open(path_, absl::Seconds(1)),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("another program")));
}

// What version 1 had, with everything that it says, becomes version 2.
TEST_F(StoreIndexTest, TakesOverVersionOne) {
  const ImageRecord image = MakeImage("one", {Layer("a", 7)}, {"x:1"});
  ASSERT_OK(index_->Add(kFormat, {image}));
  index_.reset();
  Sql("DROP TABLE leases; ALTER TABLE layers DROP COLUMN seal;"
      "PRAGMA user_version=1");
  Reopen();
  ASSERT_OK_AND_ASSIGN(auto layer,
                       index_->FindLayer(kFormat, Layer("a").chain_id));
  ASSERT_TRUE(layer.has_value());
  EXPECT_EQ(layer->size, 7u);
  EXPECT_EQ(layer->seal, "");
  EXPECT_EQ(*index_->IdOfName("x:1"), image.id.str());
  EXPECT_OK(index_->SetLease({.name = "l", .image = image.id.str()}));
  Reopen();
  EXPECT_THAT(*index_->Leases(absl::Now()), SizeIs(1));
}

TEST_F(StoreIndexTest, SweepsWhatNothingRefersTo) {
  ASSERT_OK(index_->Add(kFormat, {MakeImage("one", {Layer("a")})}));
  EXPECT_EQ(*index_->Sweep(absl::Now()), 0u);
  Sql(
      absl::StrCat("INSERT INTO layers(format, chain_id, diff_id, size) "
                   "VALUES('overlay', '",
                   Digest::Of("c").str(),
                   "', 'd', 1);"
                   "INSERT INTO documents(digest, content) VALUES('x', 'y')"));
  EXPECT_EQ(*index_->Sweep(absl::Now()), 0u);
  EXPECT_THAT(*index_->AllLayers(), SizeIs(1));
  EXPECT_THAT(index_->Document("x"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("")));
  EXPECT_OK(index_->Document(Digest::Of("one").str()));
}

TEST_F(StoreIndexTest, ReportsDamage) {
  ASSERT_OK(index_->Add(kFormat, {MakeImage("one", {Layer("a")})}));
  Sql("UPDATE image_layers SET chain_id='../../etc'");
  EXPECT_THAT(
      index_->LayersOf(Digest::Of("one").str()),
      StatusIs(absl::StatusCode::kDataLoss, HasSubstr("index.db is damaged")));
  index_.reset();
  std::filesystem::remove(path_ + "-wal");
  std::filesystem::resize_file(path_, 4096);
  ASSERT_EQ(::truncate(path_.c_str(), 3000), 0);
  EXPECT_FALSE(StoreIndex::Open(path_, absl::Seconds(1)).ok());
}

TEST_F(StoreIndexTest, ReportsAWriterThatDoesNotFinish) {
  sqlite3* db = nullptr;
  ASSERT_EQ(::sqlite3_open(path_.c_str(), &db), SQLITE_OK);
  ASSERT_EQ(::sqlite3_exec(db, "BEGIN IMMEDIATE", nullptr, nullptr, nullptr),
            SQLITE_OK);
  auto other = StoreIndex::Open(path_, absl::ZeroDuration());
  EXPECT_THAT(other, StatusIs(absl::StatusCode::kUnavailable,
                              HasSubstr("database is locked")));
  ::sqlite3_close(db);
}

// A forked child that drops its copy of the index does not disturb the parent.
TEST_F(StoreIndexTest, SurvivesAForkedCopy) {
  ASSERT_OK(index_->Add(kFormat, {MakeImage("one", {})}));
  const pid_t child = ::fork();
  if (child == 0) {
    index_.reset();
    ::_exit(0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  EXPECT_OK(index_->Add(kFormat, {MakeImage("two", {})}));
  EXPECT_THAT(*index_->List(), SizeIs(2));
}

}  // namespace
}  // namespace caisson::layer
