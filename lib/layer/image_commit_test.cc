#include "caisson/image_commit.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "caisson/layer_store.h"
#include "gtest/gtest.h"
#include "lib/base/status_matchers.h"
#include "lib/layer/config_edit.h"
#include "lib/layer/image_spec.h"
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
using ::testing::Pair;
using ::testing::SizeIs;

const absl::Time kBirth = absl::FromUnixNanos(1'700'000'000'123'000'000);

class ImageCommitTest : public StoreTest {
 protected:
  Image ImportSample(LayerStore& store, int layers = 2) {
    auto images = store.Import(
        Write("sample.tar", OciArchive({SampleImage("app", layers)})));
    EXPECT_OK(images);
    return images.ok() ? images->front() : Image();
  }

  // As a container would have left it.
  WritableLayer Changed(LayerStore& store, const Image& base) {
    auto lower = store.OpenLayers(base);
    EXPECT_OK(lower);
    auto top = store.CreateWritableLayer({.lower = &*lower});
    EXPECT_OK(top);
    const int dir = top->upper().get();
    const UniqueFd file(
        ::openat(dir, "new", O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    EXPECT_EQ(::write(file.get(), "text", 4), 4);
    EXPECT_EQ(::mknodat(dir, "layer0", S_IFCHR, 0), 0);
    const timespec times[2] = {{5, 6}, {7, 8}};
    EXPECT_EQ(::futimens(file.get(), times), 0);
    EXPECT_EQ(::futimens(dir, times), 0);
    return *std::move(top);
  }

  std::string Exported(LayerStore& store, const Image& image) {
    const std::string path = temp_.path() + "/exported.tar";
    const UniqueFd fd(
        ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    auto layers = store.OpenLayers(image);
    EXPECT_OK(layers);
    EXPECT_TRUE(layers.ok() && store.Export(*layers, fd.borrow()).ok());
    return ReadFile(path);
  }

  int stores_ = 0;
};

TEST_F(ImageCommitTest, ACommitIsAnImage) {
  LayerStore store = OpenStore();
  const Image base = ImportSample(store);
  WritableLayer top = Changed(store, base);
  ASSERT_OK_AND_ASSIGN(const Image image,
                       store.Commit(base, top.upper(),
                                    {.name = "app:2",
                                     .changes = {.env = {"SEED=other", "NEW=1"},
                                                 .cmd = {{"/new"}},
                                                 .working_dir = "/w",
                                                 .exposed_ports = {"80/tcp"},
                                                 .labels = {{"a", "b"}}},
                                     .author = "somebody",
                                     .message = "what it is",
                                     .created_by = "/bin/sh",
                                     .created = kBirth}));
  EXPECT_THAT(image.names, ElementsAre("app:2"));
  EXPECT_EQ(Digest::Of(image.config_json).str(), image.id);
  EXPECT_THAT(image.config.env, ElementsAre("SEED=other", "NEW=1"));
  EXPECT_THAT(image.config.cmd, ElementsAre("/new"));
  EXPECT_EQ(image.config.working_dir, "/w");
  EXPECT_THAT(image.config.exposed_ports, ElementsAre("80/tcp"));
  EXPECT_THAT(image.config.labels, ElementsAre(Pair("a", "b")));
  EXPECT_EQ(image.author, "somebody");
  EXPECT_EQ(image.created, kBirth);
  ASSERT_THAT(image.layers, SizeIs(3));
  EXPECT_EQ(image.layers[1].chain_id, base.layers[1].chain_id);
  EXPECT_EQ(image.layers[2].size, 4u);
  ASSERT_THAT(image.history, SizeIs(3));
  EXPECT_EQ(image.history[2].comment, "what it is");
  EXPECT_EQ(image.history[2].created_by, "/bin/sh");
  EXPECT_EQ(image.history[2].created, kBirth);

  ASSERT_OK(top.Destroy());
  ASSERT_OK(store.Remove("app:1"));
  EXPECT_THAT(store.Find(base.id),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("no image")));
  LayerStore again = OpenStore();
  ASSERT_OK_AND_ASSIGN(const Image found, again.Find("app:2"));
  ASSERT_OK_AND_ASSIGN(LayerSet layers, again.OpenLayers(found));
  EXPECT_EQ(ReadInLayers(layers, "new"), "text");
  EXPECT_EQ(ReadInLayers(layers, "layer1"), "app1");
  // It hides what was deleted, and changes nothing in itself.
  ASSERT_OK_AND_ASSIGN(WritableLayer empty,
                       again.CreateWritableLayer({.lower = &layers}));
  ASSERT_OK_AND_ASSIGN(const auto changes, again.Diff(empty.upper(), layers));
  EXPECT_THAT(changes, IsEmpty());
}

// On every machine, and in every format of a store.
TEST_F(ImageCommitTest, TheSameChangesAreTheSameImage) {
  std::string committed;
  std::string squashed;
  for (const LayerStoreFormat format :
       {LayerStoreFormat::kOverlay, LayerStoreFormat::kOverlay,
        LayerStoreFormat::kOverlayUserxattr}) {
    const std::string path = absl::StrCat(temp_.path(), "/", stores_++);
    ASSERT_OK_AND_ASSIGN(LayerStore store,
                         LayerStore::Open({.path = path, .format = format}));
    const Image base = ImportSample(store);
    WritableLayer top = Changed(store, base);
    // A directory that hides what the layers below have.
    ASSERT_EQ(::mkdirat(top.upper().get(), "shared", 0755), 0);
    const bool user = format == LayerStoreFormat::kOverlayUserxattr;
    const UniqueFd dir(::openat(top.upper().get(), "shared",
                                O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    ASSERT_EQ(
        ::fsetxattr(dir.get(),
                    user ? "user.overlay.opaque" : "trusted.overlay.opaque",
                    "y", 1, 0),
        0);
    const timespec times[2] = {{5, 6}, {7, 8}};
    ASSERT_EQ(::futimens(dir.get(), times), 0);
    ASSERT_EQ(::futimens(top.upper().get(), times), 0);
    ASSERT_OK_AND_ASSIGN(const Image image,
                         store.Commit(base, top.upper(), {.created = kBirth}));
    if (committed.empty()) committed = image.id;
    EXPECT_EQ(image.id, committed);
    EXPECT_THAT(image.names, IsEmpty());
    ASSERT_OK_AND_ASSIGN(const Image flat,
                         store.Squash(image, 0, {.created = kBirth}));
    if (squashed.empty()) squashed = flat.id;
    EXPECT_EQ(flat.id, squashed);
    ASSERT_OK_AND_ASSIGN(const StoreReport report, store.Verify());
    EXPECT_THAT(report.findings, IsEmpty());
  }
}

TEST_F(ImageCommitTest, WithoutChangesThereIsNoLayer) {
  LayerStore store = OpenStore();
  const Image base = ImportSample(store);
  ASSERT_OK_AND_ASSIGN(LayerSet lower, store.OpenLayers(base));
  ASSERT_OK_AND_ASSIGN(WritableLayer top,
                       store.CreateWritableLayer({.lower = &lower}));
  ASSERT_OK_AND_ASSIGN(
      const Image image,
      store.Commit(base, top.upper(), {.changes = {.user = "nobody"}}));
  EXPECT_THAT(image.layers, SizeIs(2));
  EXPECT_TRUE(image.history.back().empty_layer);
  EXPECT_EQ(image.config.user, "nobody");
  EXPECT_NE(image.id, base.id);
}

TEST_F(ImageCommitTest, WithoutABaseThereIsOneLayer) {
  LayerStore store = OpenStore();
  ASSERT_OK_AND_ASSIGN(WritableLayer top, store.CreateWritableLayer());
  ASSERT_EQ(::mkdirat(top.upper().get(), "dir", 0755), 0);
  ASSERT_OK_AND_ASSIGN(const Image image,
                       store.Commit(Image(), top.upper(), {.name = "scratch"}));
  EXPECT_THAT(image.layers, SizeIs(1));
  EXPECT_EQ(image.config.platform.ToString(), HostPlatform().ToString());
}

TEST_F(ImageCommitTest, SquashedTreesAreTheSame) {
  LayerStore store = OpenStore();
  const Image base = ImportSample(store, 4);
  const std::string whole = Exported(store, base);
  for (const size_t keep : {0, 1, 3}) {
    ASSERT_OK_AND_ASSIGN(
        const Image image,
        store.Squash(base, keep, {.name = absl::StrCat("squashed:", keep)}));
    EXPECT_THAT(image.layers, SizeIs(keep + 1));
    EXPECT_TRUE(Exported(store, image) == whole) << keep;
    const auto with_layer = [](const HistoryEntry& entry) {
      return !entry.empty_layer;
    };
    EXPECT_EQ(static_cast<size_t>(std::count_if(
                  image.history.begin(), image.history.end(), with_layer)),
              keep + 1);
  }
  EXPECT_THAT(store.Squash(base, 4),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("nothing above layer 4 of 4")));
  // An Image is a value, which can say what is not so.
  Image wrong = base;
  wrong.layers.push_back(base.layers[0]);
  const auto refused = StatusIs(absl::StatusCode::kInvalidArgument,
                                HasSubstr("Image::layers has 5 layers"));
  EXPECT_THAT(store.Squash(wrong, 4), refused);
  ASSERT_OK_AND_ASSIGN(const WritableLayer top, store.CreateWritableLayer());
  EXPECT_THAT(store.Commit(wrong, top.upper()), refused);
  EXPECT_THAT(store.Unpack(wrong, top.upper()), refused);
}

TEST_F(ImageCommitTest, WhatWasExportedComesBack) {
  LayerStore store = OpenStore();
  const Image base = ImportSample(store, 3);
  const std::string whole = Exported(store, base);
  ASSERT_OK_AND_ASSIGN(
      const Image image,
      store.ImportRootFs(Write("root.tar.gz", Gzip(whole)),
                         {.name = "root",
                          .changes = {.entrypoint = {{"/init"}}},
                          .message = "imported"}));
  ASSERT_THAT(image.layers, SizeIs(1));
  EXPECT_EQ(image.layers[0].diff_id, Digest::Of(whole).str())
      << "the tar as it is";
  EXPECT_TRUE(Exported(store, image) == whole);
  EXPECT_THAT(image.config.entrypoint, ElementsAre("/init"));
}

TEST_F(ImageCommitTest, ARootFsMayReplaceItsOwnFiles) {
  const std::string tar = TestTar()
                              .File("twice", "first, and longer")
                              .File("twice", "second")
                              .Finish();
  LayerStore store = OpenStore();
  ASSERT_OK_AND_ASSIGN(const Image image,
                       store.ImportRootFs(Write("root.tar", tar)));
  ASSERT_OK_AND_ASSIGN(LayerSet layers, store.OpenLayers(image));
  EXPECT_EQ(ReadInLayers(layers, "twice"), "second");
  EXPECT_NE(image.layers[0].diff_id, Digest::Of(tar).str());
}

TEST_F(ImageCommitTest, FailuresLeaveNothing) {
  LayerStore store = OpenStore();
  const Image base = ImportSample(store);
  WritableLayer top = Changed(store, base);
  ASSERT_EQ(::ftruncate(UniqueFd(::openat(top.upper().get(), "new",
                                          O_WRONLY | O_CLOEXEC))
                            .get(),
                        4 << 20),
            0);
  CommitOptions cancelled;
  cancelled.diff.progress = [](uint64_t) { return false; };
  EXPECT_THAT(store.Commit(base, top.upper(), cancelled),
              StatusIs(absl::StatusCode::kCancelled, HasSubstr("progress")));
  EXPECT_THAT(store.Commit(base, top.upper(), {.name = "Not/A Name"}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("Name")));
  EXPECT_THAT(
      store.Commit(base, top.upper(), {.changes = {.env = {"novalue"}}}),
      StatusIs(absl::StatusCode::kInvalidArgument,
               HasSubstr("expected \"NAME=value\"")));
  EXPECT_THAT(
      store.ImportRootFs(Write("bad.tar", std::string(1024, 'x'))),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("no tar header")));
  EXPECT_EQ(LayersOnDisk(), 2u);
  EXPECT_THAT(*store.List(), SizeIs(1));
}

// kill -9 at every report of progress.
TEST_F(ImageCommitTest, AKilledCommitLeavesNothingAfterRecover) {
  LayerStore store = OpenStore();
  const Image base = ImportSample(store);
  WritableLayer top = Changed(store, base);
  ASSERT_OK(top.Keep("top"));
  ASSERT_EQ(::ftruncate(UniqueFd(::openat(top.upper().get(), "new",
                                          O_WRONLY | O_CLOEXEC))
                            .get(),
                        4 << 20),
            0);
  top = WritableLayer(*store.CreateWritableLayer());  // releases it
  int kills = 0;
  for (int stop = 0;; ++stop) {
    const int status = InChild([&] {
      LayerStore own = OpenStore();
      auto kept = own.OpenWritableLayer("top");
      EXPECT_OK(kept);
      int reports = 0;
      CommitOptions options = {.name = "made", .created = kBirth};
      options.diff.progress = [&](uint64_t) {
        if (reports++ == stop) ::kill(::getpid(), SIGKILL);
        return true;
      };
      EXPECT_OK(own.Commit(base, kept->upper(), options));
      return true;
    });
    if (WIFEXITED(status)) {
      EXPECT_EQ(WEXITSTATUS(status), 0);
      break;
    }
    ++kills;
    EXPECT_THAT(Entries("staging"), SizeIs(1));
    ASSERT_OK(store.Recover());
    EXPECT_THAT(Entries("staging"), IsEmpty());
    EXPECT_EQ(LayersOnDisk(), 2u);
  }
  EXPECT_GE(kills, 3);
  EXPECT_OK(store.Find("made"));
}

// ---- configurations ----

TEST(ConfigEditTest, KeepsWhatItDoesNotKnow) {
  const Digest one = Digest::Of("1");
  ConfigEdit edit;
  edit.base = absl::StrCat(
      R"({"os":"linux","architecture":"arm","variant":"v7","future":{"a":[1]},)"
      R"("container":"gone","config":{"Cmd":["x"],"Env":["A=1","AB=2"],)"
      R"("Healthcheck":{"Interval":9007199254740993}},"history":[)"
      R"({"created_by":"a"},{"created_by":"b","empty_layer":true}],)"
      R"("rootfs":{"type":"layers","diff_ids":[")",
      one.str(), R"("]}})");
  edit.changes.env = {"A=3"};
  edit.changes.entrypoint = {{"/e"}};
  edit.diff_ids = {one, Digest::Of("2")};
  edit.kept = 1;
  edit.step.comment = "c";
  ASSERT_OK_AND_ASSIGN(const std::string text, EditConfig(edit));
  EXPECT_THAT(text, HasSubstr(R"("future":{"a":[1]})"));
  EXPECT_THAT(text, HasSubstr("9007199254740993"));
  EXPECT_THAT(text, ::testing::Not(HasSubstr("gone")));
  EXPECT_THAT(text, ::testing::Not(HasSubstr("Cmd")));
  ASSERT_OK_AND_ASSIGN(const ConfigDocument document,
                       ParseImageConfig(text, "text"));
  EXPECT_THAT(document.config.env, ElementsAre("A=3", "AB=2"));
  EXPECT_EQ(document.config.platform.ToString(), "linux/arm/v7");
  ASSERT_THAT(document.history, SizeIs(3));
  EXPECT_EQ(document.history[0].created_by, "a");
  EXPECT_TRUE(document.history[1].empty_layer);
  EXPECT_EQ(document.history[2].comment, "c");
  EXPECT_EQ(EditConfig(edit).value(), text);
}

}  // namespace
}  // namespace caisson::layer
