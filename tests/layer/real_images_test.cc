// Images that skopeo, umoci and mmdebstrap made (examples/make_images.sh), in
// every form that they write, compared with what umoci unpacks.
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "caisson/layer_store.h"
#include "gtest/gtest.h"
#include "lib/base/status_matchers.h"
#include "lib/layer/digest.h"
#include "lib/layer/test_store.h"

namespace caisson::layer {
namespace {

using ::testing::ElementsAre;
using ::testing::SizeIs;

namespace fs = std::filesystem;

// One line of a .tree file without its path: type, mode, uid:gid, size, links,
// seconds of mtime, link target, SHA-256.
std::string Describe(const fs::path& path) {
  struct stat status = {};
  if (::lstat(path.c_str(), &status) != 0) return "missing";
  const mode_t type = status.st_mode & S_IFMT;
  const bool file = type == S_IFREG;
  std::string sum = "-";
  if (file) sum = std::string(Digest::Of(ReadFile(path)).hex());
  const char* letter = file               ? "f"
                       : type == S_IFDIR  ? "d"
                       : type == S_IFLNK  ? "l"
                       : type == S_IFIFO  ? "p"
                       : type == S_IFCHR  ? "c"
                       : type == S_IFBLK  ? "b"
                       : type == S_IFSOCK ? "s"
                                          : "?";
  std::string target = "-";
  if (type == S_IFLNK) target = fs::read_symlink(path).string();
  char mode[8];
  ::snprintf(mode, sizeof(mode), "%o", status.st_mode & 07777);
  return absl::StrJoin(
      {std::string(letter), std::string(mode),
       absl::StrCat(status.st_uid, ":", status.st_gid),
       file ? absl::StrCat(status.st_size) : std::string("-"),
       type == S_IFDIR ? std::string("-") : absl::StrCat(status.st_nlink),
       absl::StrCat(status.st_mtim.tv_sec), target, sum},
      "\t");
}

std::map<std::string, std::string> ReadTree(const std::string& path) {
  std::map<std::string, std::string> tree;
  std::ifstream stream(path);
  for (std::string line; std::getline(stream, line);) {
    const size_t tab = line.find('\t');
    tree[line.substr(0, tab)] = line.substr(tab + 1);
  }
  return tree;
}

class RealImagesTest : public StoreTest {
 protected:
  void SetUp() override {
    CAISSON_NEED_ROOT();
    const char* images = ::getenv("CAISSON_IMAGES");
    if (images != nullptr) images_ = images;
    if (!images_.empty()) return;
    if (TestsMustRun()) FAIL() << "CAISSON_IMAGES is not set";
    GTEST_SKIP() << "CAISSON_IMAGES is not set: examples/make_images.sh prints "
                    "what it should be";
  }

  // Mounts an overlay of the image and compares it, path by path, with the tree
  // that umoci made.
  void ExpectSameTree(LayerStore& store, const Image& image,
                      const std::string& tree_file) {
    const std::string target = temp_.path() + "/mnt";
    ::mkdir(target.c_str(), 0700);
    auto layers = store.OpenLayers(image);
    ASSERT_OK(layers);
    auto top = store.CreateWritableLayer({.lower = &*layers});
    ASSERT_OK(top);
    const auto path = [](std::string* out, BorrowedFd fd) {
      absl::StrAppend(out, "/proc/self/fd/", fd.get());
    };
    const std::string data =
        absl::StrCat("lowerdir=", absl::StrJoin(layers->dirs(), ":", path),
                     ",upperdir=/proc/self/fd/", top->upper().get(),
                     ",workdir=/proc/self/fd/", top->work().get());
    ASSERT_EQ(::mount("overlay", target.c_str(), "overlay", 0, data.c_str()), 0)
        << ::strerror(errno);
    Compare(target, ReadTree(images_ + "/" + tree_file + ".tree"));
    CompareCapabilities(target, images_ + "/" + tree_file + ".caps");
    EXPECT_EQ(::umount(target.c_str()), 0);
  }

  static void Compare(const std::string& root,
                      std::map<std::string, std::string> expected) {
    EXPECT_GT(expected.size(), 100u);
    for (const auto& entry : fs::recursive_directory_iterator(root)) {
      const std::string name = entry.path().string().substr(root.size() + 1);
      const auto it = expected.find(name);
      if (it == expected.end()) {
        ADD_FAILURE() << name << " should not be there";
        continue;
      }
      EXPECT_EQ(Describe(entry.path()), it->second) << name;
      expected.erase(it);
    }
    for (const auto& [name, line] : expected) {
      ADD_FAILURE() << name << " is missing";
    }
  }

  // getcap's lines are "/path capabilities": every such file has some, and no
  // other has.
  static void CompareCapabilities(const std::string& root,
                                  const std::string& file) {
    std::set<std::string> expected;
    std::ifstream stream(file);
    for (std::string line; std::getline(stream, line);) {
      expected.insert(line.substr(0, line.find(' ')));
    }
    std::set<std::string> actual;
    for (const auto& entry : fs::recursive_directory_iterator(root)) {
      char value[64];
      if (::lgetxattr(entry.path().c_str(), "security.capability", value,
                      sizeof(value)) > 0) {
        actual.insert(entry.path().string().substr(root.size()));
      }
    }
    EXPECT_EQ(actual, expected);
  }

  // The third column of the MANIFEST line that begins with `kind` and `name`.
  std::vector<std::string> Manifest(const std::string& kind,
                                    const std::string& name) {
    std::ifstream stream(images_ + "/MANIFEST");
    for (std::string line; std::getline(stream, line);) {
      std::vector<std::string> fields = absl::StrSplit(line, '\t');
      if (fields[0] == kind && fields[1] == name) {
        fields.erase(fields.begin(), fields.begin() + 2);
        return fields;
      }
    }
    ADD_FAILURE() << kind << " " << name << " is not in MANIFEST";
    return {};
  }

  std::string images_;
};

// A tmpfs: removing what is on disk can take milliseconds for each file.
constexpr uint64_t kDisk = uint64_t{2} << 30;

TEST_F(RealImagesTest, EveryFormHoldsTheSameImage) {
  OnTmpfs(kDisk, [&] {
    LayerStore store = OpenStore();
    for (const std::string image : {"busybox", "debian-python"}) {
      const auto config = Manifest("config,layers", image + ".oci").front();
      const auto diff_ids = Manifest("diff_ids", image + ".oci");
      const auto manifest = Manifest("manifest", image + ".oci").front();
      for (const std::string form :
           {".oci", ".oci.tar", ".docker.tar", "-zstd.oci.tar"}) {
        SCOPED_TRACE(image + form);
        ASSERT_OK_AND_ASSIGN(
            auto images, store.Import(absl::StrCat(images_, "/", image, form)));
        ASSERT_THAT(images, SizeIs(1));
        EXPECT_EQ(images[0].id, config);
        EXPECT_THAT(images[0].names, ElementsAre(image + ":latest"));
        if (form == ".oci") {
          EXPECT_EQ(images[0].manifest_digest, manifest);
        }
        std::vector<std::string> got;
        for (const LayerInfo& layer : images[0].layers) {
          got.push_back(layer.diff_id);
        }
        EXPECT_EQ(got, diff_ids);
      }
    }
    EXPECT_THAT(*store.List(), SizeIs(2));
    EXPECT_EQ(LayersOnDisk(), 4u) << "unpacked once for all forms";
  });
}

TEST_F(RealImagesTest, UnpacksWhatUmociUnpacks) {
  for (const std::string image : {"busybox", "debian-python"}) {
    for (const std::string form :
         {".oci.tar", ".docker.tar", "-zstd.oci.tar"}) {
      SCOPED_TRACE(image + form);
      OnTmpfs(kDisk, [&] {
        LayerStoreOptions options = Options();
        options.import_threads = form == ".oci.tar" ? 2 : 0;
        ASSERT_OK_AND_ASSIGN(LayerStore store, LayerStore::Open(options));
        ASSERT_OK_AND_ASSIGN(
            auto images, store.Import(absl::StrCat(images_, "/", image, form)));
        ExpectSameTree(store, images.front(), image);
        EXPECT_OK(store.Remove(image));
        EXPECT_EQ(LayersOnDisk(), 0u);
      });
    }
  }
}

TEST_F(RealImagesTest, WorksOnTheDiskOfTemporaryFiles) {
  LayerStore store = OpenStore();
  ASSERT_OK_AND_ASSIGN(auto images, store.Import(images_ + "/busybox.oci.tar"));
  EXPECT_THAT(images, SizeIs(1));
  EXPECT_OK(store.Remove("busybox"));
}

}  // namespace
}  // namespace caisson::layer
