#include "caisson/confined_unpacker.h"

#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "caisson/launcher.h"
#include "gtest/gtest.h"
#include "lib/base/status_matchers.h"
#include "lib/layer/test_image.h"
#include "lib/layer/test_store.h"
#include "lib/layer/test_streams.h"
#include "lib/layer/test_tar.h"
#include "lib/layer/test_unpack.h"
#include "lib/layer/test_unpacker.h"
#include "lib/unpacker/test_program.h"

namespace caisson::unpacker {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::AnyOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;

constexpr auto kReported = absl::StatusCode::kFailedPrecondition;
constexpr auto kDenied = absl::StatusCode::kPermissionDenied;
constexpr auto kInternal = absl::StatusCode::kInternal;

std::string FileBytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// What an unpacker that was taken over can do: hostile_unpacker.c, which gets
// what to try instead of a tar, and whose report is the error.
class HostileUnpackerTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    ASSERT_OK_AND_ASSIGN(Launcher launcher, Launcher::Create());
    launcher_ = new Launcher(std::move(launcher));
    ASSERT_OK_AND_ASSIGN(
        auto unpacker,
        CreateConfined(*launcher_, {},
                       FileBytes("lib/unpacker/hostile_unpacker")));
    unpacker_ = new std::shared_ptr<const layer::Unpacker>(std::move(unpacker));
  }
  static void TearDownTestSuite() {
    delete unpacker_;
    delete launcher_;
  }

  absl::Status Try(const std::string& attempt,
                   layer::UnpackOptions options = {}) {
    options.unpacker = unpacker_->get();
    const std::vector<BorrowedFd> none;
    options.lowers = none;
    const std::string bytes = attempt + "\n" + std::string(8192, '\0');
    layer::MemorySource source(bytes);
    return layer::UnpackLayer(source, dir_.fd(), options).status();
  }

  static Launcher* launcher_;
  static std::shared_ptr<const layer::Unpacker>* unpacker_;
  layer::TestDir dir_;
};

Launcher* HostileUnpackerTest::launcher_ = nullptr;
std::shared_ptr<const layer::Unpacker>* HostileUnpackerTest::unpacker_ =
    nullptr;

TEST_F(HostileUnpackerTest, HasThreeDescriptorsAndTheNullDevice) {
  // 0 to decode, 3 to talk; 1 and 2 lead nowhere.
  EXPECT_THAT(Try("descriptors"),
              StatusIs(kReported, HasSubstr("descriptors 0 1 2 3")));
  EXPECT_THAT(std::string(Try("descriptors").message()), EndsWith("0 1 2 3"));
}

TEST_F(HostileUnpackerTest, ReachesItsDirectoryAlone) {
  // EACCES is Landlock's; without, there is nothing there.
  for (const char* path :
       {"/etc/passwd", "/proc/self/mem", "/proc/1/root/etc/passwd",
        "/sys/kernel", "/layer/../etc/passwd", "/dev/zero", "/dev/tty", "/"}) {
    EXPECT_THAT(Try(absl::StrCat("read:", path)),
                StatusIs(kReported, AnyOf(HasSubstr("read: EACCES"),
                                          HasSubstr("read: ENOENT"))))
        << path;
  }
  for (const char* path : {"/x", "/layer/../x", "/dev/x", "/dev/null"}) {
    EXPECT_THAT(Try(absl::StrCat("write:", path)),
                StatusIs(kReported, AnyOf(HasSubstr("write: EACCES"),
                                          HasSubstr("write: EROFS"))))
        << path;
  }
  EXPECT_THAT(Try("write:/layer/x"),
              StatusIs(kReported, HasSubstr("write: possible")));
  EXPECT_TRUE(dir_.IsFile("x"));
}

TEST_F(HostileUnpackerTest, IsNobodyOutside) {
  EXPECT_THAT(Try("make device"), StatusIs(kReported, HasSubstr("mknodat: E")));
  EXPECT_FALSE(dir_.Exists("device"));
  EXPECT_THAT(Try("trusted attribute"),
              StatusIs(kReported, HasSubstr("fsetxattr: EPERM")));
  // A node that the host has made for it is one that it cannot open.
  EXPECT_THAT(Try("use device"),
              StatusIs(kReported, HasSubstr("device: EACCES")));
  EXPECT_TRUE(S_ISCHR(dir_.Stat("zero").st_mode));
}

TEST_F(HostileUnpackerTest, RunsNothingElse) {
  EXPECT_THAT(Try("run program"),
              StatusIs(kReported, HasSubstr("execve: EACCES")));
  EXPECT_THAT(Try("bring code"), StatusIs(kDenied, HasSubstr("SIGSYS")));
}

TEST_F(HostileUnpackerTest, DiesOfEveryOtherSystemCall) {
  for (const char* call : {"socket",
                           "connect",
                           "ptrace",
                           "process_vm_writev",
                           "kill",
                           "mount",
                           "open_tree",
                           "move_mount",
                           "open_by_handle_at",
                           "setns",
                           "unshare",
                           "clone",
                           "clone3",
                           "chroot",
                           "bpf",
                           "io_uring_setup",
                           "userfaultfd",
                           "keyctl",
                           "memfd_create",
                           "ioctl",
                           "setuid"}) {
    EXPECT_THAT(Try(absl::StrCat("call:", call)),
                StatusIs(kDenied, HasSubstr("killed by signal 31 (SIGSYS)")))
        << call;
  }
  // Numbers beyond those of the list are those of a newer kernel.
  EXPECT_THAT(Try("call:pidfd_getfd"),
              StatusIs(kReported, HasSubstr("pidfd_getfd: ENOSYS")));
}

TEST_F(HostileUnpackerTest, IsNotServedBeyondItsDirectory) {
  for (const char* attempt : {"ask redirect", "ask outside", "ask copy"}) {
    EXPECT_THAT(
        Try(attempt),
        StatusIs(kInternal, HasSubstr("asked for what no unpacker needs")))
        << attempt;
  }
  EXPECT_THAT(Try("ask through a link"),
              StatusIs(kReported, HasSubstr("through a link: ELOOP")));
}

TEST_F(HostileUnpackerTest, HowItEndsIsTold) {
  EXPECT_THAT(Try("crash"), StatusIs(kInternal, HasSubstr("SIGSEGV")));
  EXPECT_THAT(Try("exit"), StatusIs(kInternal, HasSubstr("code 3")));
}

TEST_F(HostileUnpackerTest, NonsenseEndsIt) {
  for (const char* attempt : {"garbage", "early", "flood"}) {
    layer::TarSplitWriter split;
    ASSERT_OK(split.Create(dir_.fd(), "split"));
    layer::UnpackOptions options;
    options.split = &split;
    const absl::Status status = Try(attempt, options);
    if (std::string(attempt) == "early" && status.ok()) {
      ADD_FAILURE() << "an early end was believed";
    }
    EXPECT_THAT(status,
                StatusIs(kInternal, HasSubstr("says what no unpacker says")))
        << attempt;
  }
}

TEST_F(HostileUnpackerTest, OneThatHangsCanBeCancelled) {
  layer::UnpackOptions options;
  options.progress = [](const layer::UnpackProgress&) {
    return absl::CancelledError("enough");
  };
  EXPECT_THAT(Try("hang", options),
              StatusIs(absl::StatusCode::kCancelled, HasSubstr("enough")));
}

// ---- the real one ----

using ConfinedUnpackerTest = layer::StoreTest;

// `text` with every number after `word` left out.
std::string Without(std::string text, absl::string_view word) {
  for (size_t at = 0; (at = text.find(std::string(word), at)) != text.npos;) {
    at += word.size();
    text.erase(at, text.find_first_not_of("0123456789.", at) - at);
  }
  return text;
}

// Image ids, layers and their files, and what the tars can be put together
// from.
std::string Everything(const LayerStore& store, const std::string& path) {
  std::string text;
  auto images = store.List();
  if (!images.ok()) return images.status().ToString();
  for (const ImageSummary& image : *images) {
    absl::StrAppend(&text, image.id, "\n");
  }
  std::vector<std::string> layers;
  for (const auto& entry :
       std::filesystem::directory_iterator(path + "/layers/overlay")) {
    layers.push_back(entry.path());
  }
  std::sort(layers.begin(), layers.end());
  for (const std::string& layer : layers) {
    absl::StrAppend(&text, layer.substr(path.size()), "\n",
                    layer::DumpTree(layer + "/diff/"),
                    FileBytes(layer + "/tar-split"), "\n");
  }
  return text;
}

// An image with one of everything that unpacking has to ask the host for.
layer::TestImage Various() {
  layer::TestImage image = layer::SampleImage("various", 2);
  image.layers.push_back(
      layer::TestTar()
          .Dir("opaque")
          .File("opaque/.wh..wh..opq")
          .File(".wh.layer0")
          .Pax({{"SCHILY.xattr.trusted.x", "1"},
                {"SCHILY.xattr.security.capability",
                 std::string("\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
                             20)},
                {"SCHILY.xattr.user.x", "2"}})
          .File("with-attributes", "x")
          .Hardlink("linked", "layer1")
          .Symlink("link", "with-attributes")
          .Finish());
  return image;
}

TEST_F(ConfinedUnpackerTest, StoresWhatAnyUnpackerStores) {
  const std::string archive =
      Write("image.tar", layer::OciArchive({Various()}));
  std::string found[2];
  for (int confined = 0; confined < 2; ++confined) {
    LayerStoreOptions options = Options();
    options.path = absl::StrCat(temp_.path(), "/", confined);
    if (!confined) options.unpacker = nullptr;
    ASSERT_OK_AND_ASSIGN(LayerStore store, LayerStore::Open(options));
    ASSERT_OK(store.Import(archive).status());
    found[confined] = Everything(store, options.path);
    ASSERT_OK_AND_ASSIGN(const StoreReport report, store.Verify());
    EXPECT_TRUE(report.findings.empty());
  }
  // A whiteout has the time when it was made.
  EXPECT_EQ(Without(found[0], "whiteout 0000 0:0 "),
            Without(found[1], "whiteout 0000 0:0 "));
  EXPECT_THAT(found[0], HasSubstr("trusted.overlay.opaque"));
}

TEST_F(ConfinedUnpackerTest, CorruptedStreamsFailAlike) {
  const std::string tar =
      layer::TestTar().File("a", std::string(100'000, 'a')).File("b").Finish();
  for (const std::string& whole : {layer::Gzip(tar), layer::Zstd(tar),
                                   layer::Xz(tar), layer::Bzip2(tar)}) {
    for (size_t at = 0; at < whole.size(); at += 1 + whole.size() / 4) {
      std::string damaged = whole;
      damaged[at] = static_cast<char>(damaged[at] ^ 0x55);
      for (const std::string& bytes : {damaged, whole.substr(0, at)}) {
        absl::Status failures[2];
        for (int confined = 0; confined < 2; ++confined) {
          layer::MemorySource compressed(bytes);
          layer::DecompressOptions options;
          if (confined) options.unpacker = layer::TestUnpacker().get();
          auto source = layer::Decompress(compressed, options);
          failures[confined] = source.status();
          if (source.ok()) {
            failures[confined] = layer::Drain(**source).status();
          }
        }
        EXPECT_EQ(failures[0].code(), failures[1].code());
        // ISA-L and zlib need not see the same fault first in damaged data.
        // Offsets depend on how much is decompressed at once.
        if (layer::CompressionOf(bytes) != layer::Compression::kGzip) {
          EXPECT_EQ(Without(failures[0].ToString(), "offset "),
                    Without(failures[1].ToString(), "offset "));
        }
      }
    }
  }
}

}  // namespace
}  // namespace caisson::unpacker

// The tests of lib/layer that are linked into this program have the confined
// unpacker, too.
int main(int argc, char** argv) {
  ::testing::InitGoogleMock(&argc, argv);
  auto launcher = caisson::Launcher::Create();
  if (!launcher.ok()) {
    fprintf(stderr, "%s\n", launcher.status().ToString().c_str());
    return 1;
  }
  auto unpacker = caisson::ConfinedUnpacker::Create(*launcher);
  if (!unpacker.ok()) {
    fprintf(stderr, "%s\n", unpacker.status().ToString().c_str());
    return 1;
  }
  caisson::layer::TestUnpacker() = *unpacker;
  const int result = RUN_ALL_TESTS();
  caisson::layer::TestUnpacker() = nullptr;
  return result;
}
