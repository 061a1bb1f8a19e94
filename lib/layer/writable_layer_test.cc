#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "caisson/layer_store.h"
#include "gtest/gtest.h"
#include "lib/base/status_matchers.h"
#include "lib/layer/byte_source.h"
#include "lib/layer/tar_reader.h"
#include "lib/layer/test_image.h"
#include "lib/layer/test_store.h"
#include "lib/layer/test_tar.h"

namespace caisson::layer {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

using WritableLayerTest = StoreTest;

struct stat StatOf(BorrowedFd fd) {
  struct stat status = {};
  EXPECT_EQ(::fstat(fd.get(), &status), 0);
  return status;
}

bool WriteFileIn(BorrowedFd dir, const char* name, absl::string_view text) {
  const int fd =
      ::openat(dir.get(), name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return false;
  const bool good = ::write(fd, text.data(), text.size()) ==
                    static_cast<ssize_t>(text.size());
  ::close(fd);
  return good;
}

TEST_F(WritableLayerTest, IsEmptyAndGoesWithTheObject) {
  LayerStore store = OpenStore();
  {
    ASSERT_OK_AND_ASSIGN(WritableLayer layer, store.CreateWritableLayer());
    EXPECT_EQ(StatOf(layer.upper()).st_mode & 07777, 0755u);
    EXPECT_EQ(StatOf(layer.upper()).st_dev, StatOf(layer.work()).st_dev);
    EXPECT_THAT(Entries("writable"), SizeIs(1));
    ASSERT_TRUE(WriteFileIn(layer.upper(), "f", "x"));
    WritableLayer moved = std::move(layer);
    EXPECT_TRUE(moved.upper().valid());
    EXPECT_OK(layer.Destroy());  // nothing left in it
    EXPECT_THAT(Entries("writable"), SizeIs(1));
  }
  EXPECT_THAT(Entries("writable"), IsEmpty());
  ASSERT_OK_AND_ASSIGN(WritableLayer layer, store.CreateWritableLayer());
  EXPECT_OK(layer.Destroy());
  EXPECT_OK(layer.Destroy());
  EXPECT_THAT(Entries("writable"), IsEmpty());
  EXPECT_THAT(layer.Keep("x"),
              StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("")));
}

TEST_F(WritableLayerTest, AssignmentRemovesWhatWasThere) {
  LayerStore store = OpenStore();
  ASSERT_OK_AND_ASSIGN(WritableLayer a, store.CreateWritableLayer());
  ASSERT_OK_AND_ASSIGN(WritableLayer b, store.CreateWritableLayer());
  EXPECT_THAT(Entries("writable"), SizeIs(2));
  a = std::move(b);
  EXPECT_THAT(Entries("writable"), SizeIs(1));
}

TEST_F(WritableLayerTest, LooksLikeTheRootBelow) {
  TestImage image;
  image.layers = {TestTar()
                      .Owner(7, 8)
                      .Pax({{"SCHILY.xattr.user.note", std::string("a\0b", 3)}})
                      .Dir("./", 0711)
                      .Finish()};
  LayerStore store = OpenStore();
  ASSERT_OK_AND_ASSIGN(auto images,
                       store.Import(Write("a.tar", OciArchive({image}))));
  ASSERT_OK_AND_ASSIGN(LayerSet layers, store.OpenLayers(images[0]));
  {
    ASSERT_OK_AND_ASSIGN(WritableLayer layer,
                         store.CreateWritableLayer({.lower = &layers}));
    const struct stat status = StatOf(layer.upper());
    EXPECT_EQ(status.st_mode & 07777, 0711u);
    EXPECT_EQ(status.st_uid, 7u);
    EXPECT_EQ(status.st_gid, 8u);
    EXPECT_EQ(status.st_mtime, 1'000'000'000);
    char value[8];
    ASSERT_EQ(::fgetxattr(layer.upper().get(), "user.note", value, 8), 3);
    EXPECT_EQ(std::string(value, 3), std::string("a\0b", 3));
  }
  ASSERT_OK_AND_ASSIGN(WritableLayer mapped,
                       store.CreateWritableLayer(
                           {.lower = &layers, .uid = 100'000, .gid = 200'000}));
  EXPECT_EQ(StatOf(mapped.upper()).st_uid, 100'000u);
  EXPECT_EQ(StatOf(mapped.upper()).st_gid, 200'000u);
  EXPECT_EQ(StatOf(mapped.work()).st_uid, 100'000u);
}

TEST_F(WritableLayerTest, CanBeKept) {
  LayerStore store = OpenStore();
  {
    ASSERT_OK_AND_ASSIGN(WritableLayer layer, store.CreateWritableLayer());
    ASSERT_TRUE(WriteFileIn(layer.upper(), "f", "x"));
    ASSERT_OK(layer.Keep("web-1"));
    ASSERT_OK(layer.Keep("web-1"));
    EXPECT_THAT(Entries("writable"), IsEmpty());
    EXPECT_THAT(store.OpenWritableLayer("web-1"),
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         HasSubstr("\"web-1\" is in use")));
  }
  EXPECT_THAT(*store.ListWritableLayers(), ElementsAre("web-1"));
  ASSERT_OK(store.Recover());
  EXPECT_THAT(*store.ListWritableLayers(), ElementsAre("web-1"));
  ASSERT_OK_AND_ASSIGN(WritableLayer other, store.CreateWritableLayer());
  EXPECT_THAT(other.Keep("web-1"),
              StatusIs(absl::StatusCode::kAlreadyExists, HasSubstr("web-1")));
  ASSERT_OK_AND_ASSIGN(WritableLayer layer, store.OpenWritableLayer("web-1"));
  EXPECT_EQ(::faccessat(layer.upper().get(), "f", F_OK, 0), 0);
  ASSERT_OK(layer.Keep("web-2"));
  EXPECT_THAT(*store.ListWritableLayers(), ElementsAre("web-2"));
  ASSERT_OK(layer.Destroy());
  EXPECT_THAT(*store.ListWritableLayers(), IsEmpty());
  EXPECT_THAT(store.OpenWritableLayer("web-2"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("web-2")));
}

TEST_F(WritableLayerTest, RefusesBadNames) {
  LayerStore store = OpenStore();
  ASSERT_OK_AND_ASSIGN(WritableLayer layer, store.CreateWritableLayer());
  for (const std::string& name :
       {std::string(), std::string("."), std::string(".."), std::string("a/b"),
        std::string("-a"), std::string("a b"), std::string("a\0b", 3),
        std::string(129, 'a'), std::string("../x")}) {
    EXPECT_THAT(layer.Keep(name),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("name of a writable layer")));
    EXPECT_THAT(store.OpenWritableLayer(name),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("")));
  }
}

// A detached container holds a duplicate of the lock while its host is gone.
TEST_F(WritableLayerTest, ADuplicateOfTheLockKeepsIt) {
  LayerStore store = OpenStore();
  int ready[2];
  ASSERT_EQ(::pipe2(ready, O_CLOEXEC), 0);
  int done[2];
  ASSERT_EQ(::pipe2(done, O_CLOEXEC), 0);
  const pid_t host = ::fork();
  if (host == 0) {
    LayerStore own = OpenStore();
    auto layer = own.CreateWritableLayer();
    if (::fork() == 0) {  // the launcher, which inherits the lock
      ::close(done[1]);
      char byte;
      (void)!::write(ready[1], "1", 1);
      (void)!::read(done[0], &byte, 1);
      ::_exit(0);
    }
    ::kill(::getpid(), SIGKILL);
  }
  ASSERT_EQ(::waitpid(host, nullptr, 0), host);
  char byte;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  ASSERT_OK_AND_ASSIGN(RecoverReport report, store.Recover());
  EXPECT_EQ(report.writable_layers, 0u);
  ::close(ready[1]);
  ::close(done[0]);
  ::close(done[1]);
  // The launcher's end closes when it is gone.
  EXPECT_EQ(::read(ready[0], &byte, 1), 0);
  ::close(ready[0]);
  ASSERT_OK_AND_ASSIGN(report, store.Recover());
  EXPECT_EQ(report.writable_layers, 1u);
}

// One that outlives its object is in use as long as there are duplicates of
// the lock, and then garbage, unless it was kept.
TEST_F(WritableLayerTest, DisownedLayerStaysWithItsDuplicates) {
  LayerStore store = OpenStore();
  UniqueFd launchers;
  {
    ASSERT_OK_AND_ASSIGN(WritableLayer layer, store.CreateWritableLayer());
    launchers.reset(::fcntl(layer.lock().get(), F_DUPFD_CLOEXEC, 3));
    ASSERT_TRUE(launchers.valid());
    layer.Disown();
    const WritableLayer moved = std::move(layer);
  }
  EXPECT_THAT(Entries("writable"), SizeIs(1));
  ASSERT_OK_AND_ASSIGN(RecoverReport report, store.Recover());
  EXPECT_EQ(report.writable_layers, 0u);
  launchers.reset();
  ASSERT_OK_AND_ASSIGN(report, store.Recover());
  EXPECT_EQ(report.writable_layers, 1u);
  EXPECT_THAT(Entries("writable"), IsEmpty());
}

TEST_F(WritableLayerTest, AForkedChildRemovesNothing) {
  LayerStore store = OpenStore();
  std::optional<WritableLayer> layer;
  ASSERT_OK_AND_ASSIGN(layer, store.CreateWritableLayer());
  ExpectInChild([&layer] {
    layer.reset();
    return true;
  });
  EXPECT_THAT(Entries("writable"), SizeIs(1));
  EXPECT_TRUE(WriteFileIn(layer->upper(), "f", "x"));
}

// The kernel takes what the store makes: layers with a whiteout and an opaque
// directory below a writable layer.
TEST_F(WritableLayerTest, MountsAsAnOverlay) {
  TestImage image;
  image.layers = {TestTar()
                      .Dir("./")
                      .File("gone", "1")
                      .File("stays", "1")
                      .Dir("opaque")
                      .File("opaque/old", "1")
                      .Finish(),
                  TestTar()
                      .File(".wh.gone")
                      .Dir("opaque")
                      .File("opaque/.wh..wh..opq")
                      .File("opaque/new", "2")
                      .Finish()};
  LayerStore store = OpenStore();
  ASSERT_OK_AND_ASSIGN(auto images,
                       store.Import(Write("a.tar", OciArchive({image}))));
  const std::string target = temp_.path() + "/mnt";
  ASSERT_EQ(::mkdir(target.c_str(), 0700), 0);
  const auto path = [](BorrowedFd fd) {
    return absl::StrCat("/proc/self/fd/", fd.get());
  };
  ExpectInChild([&] {
    EXPECT_EQ(::unshare(CLONE_NEWNS), 0);
    EXPECT_EQ(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
    // overlayfs takes directories of the own mount namespace only.
    LayerStore own = OpenStore();
    auto layers = own.OpenLayers(images[0]);
    EXPECT_OK(layers);
    auto top = own.CreateWritableLayer({.lower = &*layers});
    EXPECT_OK(top);
    const std::string data = absl::StrCat(
        "lowerdir=",
        absl::StrJoin(layers->dirs(), ":",
                      [&path](std::string* out, BorrowedFd fd) {
                        out->append(path(fd));
                      }),
        ",upperdir=", path(top->upper()), ",workdir=", path(top->work()));
    EXPECT_EQ(::mount("overlay", target.c_str(), "overlay", 0, data.c_str()), 0)
        << data << " " << errno;
    EXPECT_EQ(::access((target + "/gone").c_str(), F_OK), -1);
    EXPECT_EQ(ReadFile(target + "/stays"), "1");
    EXPECT_EQ(::access((target + "/opaque/old").c_str(), F_OK), -1);
    EXPECT_EQ(ReadFile(target + "/opaque/new"), "2");
    EXPECT_EQ(::unlink((target + "/stays").c_str()), 0);
    EXPECT_EQ(::mkdir((target + "/made").c_str(), 0700), 0);
    EXPECT_EQ(::umount(target.c_str()), 0);
    EXPECT_EQ(ReadInLayers(*layers, "stays"), "1") << "lower layers stay";
    EXPECT_OK(top->Keep("used"));
    return true;
  });
  ASSERT_OK_AND_ASSIGN(WritableLayer top, store.OpenWritableLayer("used"));
  EXPECT_EQ(::faccessat(top.upper().get(), "made", F_OK, 0), 0);
  EXPECT_OK(top.Destroy());  // with the work directory as overlayfs left it
  EXPECT_THAT(Entries("writable"), IsEmpty());
}

// ---- what was changed ----

// The names of the entries of a tar, in order.
std::vector<std::string> NamesInTar(const std::string& path) {
  std::vector<std::string> names;
  const std::string tar = ReadFile(path);
  MemorySource source(tar);
  TarReader reader(source, {});
  for (;;) {
    auto entry = reader.Next();
    EXPECT_OK(entry);
    if (!entry.ok() || !entry->has_value()) return names;
    names.push_back((*entry)->name);
  }
}

TEST_F(WritableLayerTest, TellsWhatWasChanged) {
  LayerStore store = OpenStore();
  ASSERT_OK_AND_ASSIGN(
      auto images,
      store.Import(Write("a.tar", OciArchive({SampleImage("a", 2)}))));
  ASSERT_OK_AND_ASSIGN(LayerSet lower, store.OpenLayers(images[0]));
  ASSERT_OK_AND_ASSIGN(WritableLayer top,
                       store.CreateWritableLayer({.lower = &lower}));
  ASSERT_OK_AND_ASSIGN(auto changes, store.Diff(top.upper(), lower));
  EXPECT_THAT(changes, IsEmpty());
  // As overlayfs would have written it.
  ASSERT_TRUE(WriteFileIn(top.upper(), "new", "x"));
  ASSERT_TRUE(WriteFileIn(top.upper(), "shared", "y"));
  ASSERT_EQ(::mknodat(top.upper().get(), "layer0", S_IFCHR, 0), 0);
  ASSERT_OK_AND_ASSIGN(const LayerUsage usage, top.Usage());
  EXPECT_EQ(usage.files, 3u);
  EXPECT_GE(usage.bytes, 2u * 512);
  ASSERT_OK_AND_ASSIGN(changes, store.Diff(top.upper(), lower));
  std::vector<std::string> lines;
  for (const LayerChange& change : changes) lines.push_back(change.ToString());
  EXPECT_THAT(lines, ElementsAre("D /layer0", "A /new", "C /shared"));

  const auto create = [this](const char* name) {
    return UniqueFd(::open((temp_.path() + "/" + name).c_str(),
                           O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  };
  ASSERT_OK(store.WriteDiff(top.upper(), lower, create("diff.tar").borrow()));
  EXPECT_THAT(NamesInTar(temp_.path() + "/diff.tar"),
              ElementsAre("./", ".wh.layer0", "new", "shared"));
  ASSERT_OK(store.Export(top.upper(), lower, create("all.tar").borrow()));
  EXPECT_THAT(NamesInTar(temp_.path() + "/all.tar"),
              ElementsAre("./", "layer1", "new", "shared"));
  ASSERT_OK(store.Export(lower, create("image.tar").borrow()));
  EXPECT_THAT(NamesInTar(temp_.path() + "/image.tar"),
              ElementsAre("./", "layer0", "layer1", "shared"));
  // Also while somebody else has it.
  ASSERT_OK(top.Keep("kept"));
  EXPECT_THAT(
      store.OpenWritableLayer("kept"),
      StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("in use")));
  ASSERT_OK_AND_ASSIGN(const UniqueFd upper, store.OpenUpper("kept"));
  EXPECT_THAT(*store.Diff(upper.borrow(), lower), SizeIs(3));
  EXPECT_THAT(store.OpenUpper("other"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("other")));
  EXPECT_FALSE(store.OpenUpper("../kept").ok());
  DiffOptions cancelled;
  cancelled.progress = [](uint64_t) { return false; };
  ASSERT_EQ(::ftruncate(UniqueFd(::openat(top.upper().get(), "new",
                                          O_WRONLY | O_CLOEXEC))
                            .get(),
                        4 << 20),
            0);
  EXPECT_THAT(store.WriteDiff(top.upper(), lower, create("none.tar").borrow(),
                              cancelled),
              StatusIs(absl::StatusCode::kCancelled, HasSubstr("progress")));
}

}  // namespace
}  // namespace caisson::layer
