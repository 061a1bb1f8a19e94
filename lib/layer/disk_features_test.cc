// What a store does with features that only some file systems have: project
// quotas and fs-verity. Where the kernel lacks them, that this is said; the VM
// has them all.
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "caisson/layer_store.h"
#include "gtest/gtest.h"
#include "lib/base/status_matchers.h"
#include "lib/layer/test_disk.h"
#include "lib/layer/test_image.h"
#include "lib/layer/test_store.h"
#include "lib/sys/project_quota.h"

namespace caisson::layer {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::Ge;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Le;
using ::testing::SizeIs;

constexpr auto kFailedPrecondition = absl::StatusCode::kFailedPrecondition;
constexpr uint64_t kMiB = 1 << 20;

const TestDisk kPlainExt4 = {.mkfs = "mkfs.ext4 -q -F -b 4096"};
const TestDisk kQuotaExt4 = {
    .mkfs = "mkfs.ext4 -q -F -b 4096 -O quota,project -E quotatype=prjquota",
    .options = "prjquota"};
const TestDisk kPlainXfs = {
    .mkfs = "mkfs.xfs -q -f", .type = "xfs", .bytes = 320 * kMiB};
const TestDisk kQuotaXfs = {.mkfs = "mkfs.xfs -q -f",
                            .type = "xfs",
                            .options = "prjquota",
                            .bytes = 320 * kMiB};

// An overlay of an empty layer and `top`, in this mount namespace.
void MountOverlay(const WritableLayer& top, const std::string& target) {
  const std::string lower = target + ".lower";
  EXPECT_EQ(::mkdir(lower.c_str(), 0755), 0);
  EXPECT_EQ(::mkdir(target.c_str(), 0755), 0);
  const std::string data = absl::StrCat(
      "lowerdir=", lower, ",upperdir=/proc/self/fd/", top.upper().get(),
      ",workdir=/proc/self/fd/", top.work().get());
  EXPECT_EQ(::mount("overlay", target.c_str(), "overlay", 0, data.c_str()), 0)
      << data << ": errno " << errno;
}

// Writes until the file system refuses: what went in, and the errno.
std::pair<uint64_t, int> Fill(const std::string& path) {
  const std::string block(1 << 16, 'x');
  const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  EXPECT_TRUE(fd.valid());
  uint64_t written = 0;
  while (written < 48 * kMiB) {
    const ssize_t n = ::write(fd.get(), block.data(), block.size());
    if (n < 0) return {written, errno};
    written += static_cast<uint64_t>(n);
  }
  return {written, 0};
}

int Touch(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  return fd.valid() ? 0 : errno;
}

uint32_t ProjectOf(const WritableLayer& layer) {
  auto project = sys::ProjectOf(layer.lock());
  EXPECT_OK(project);
  return project.ok() ? *project : 0;
}

class LimitedLayersTest : public StoreTest {
 protected:
  // Runs `body` on the disk, unless the kernel cannot mount it; then the store
  // says so.
  void WithQuotas(const TestDisk& disk, const TestDisk& without,
                  const std::function<void(LayerStore store)>& body) {
    OnDisk(disk, StorePath(), [&](const absl::Status& mounted) {
      if (mounted.ok()) return body(OpenStore());
      EXPECT_FALSE(InTheVm()) << mounted;
      ExpectRefusalOf(without);
    });
  }
  void ExpectRefusalOf(const TestDisk& disk) {
    EXPECT_OK(MountDisk(disk, StorePath()));
    LayerStore store = OpenStore();
    EXPECT_THAT(store.CreateWritableLayer({.size_bytes = kMiB}),
                StatusIs(kFailedPrecondition, HasSubstr("project quotas")));
    EXPECT_THAT(Entries("writable"), IsEmpty());
  }
  std::string Target() const { return temp_.path() + "/mnt"; }
};

class AnyDiskTest
    : public LimitedLayersTest,
      public ::testing::WithParamInterface<std::pair<TestDisk, TestDisk>> {};

TEST_P(AnyDiskTest, LimitsWhatAnOverlayTakes) {
  WithQuotas(GetParam().first, GetParam().second, [&](LayerStore store) {
    auto top = store.CreateWritableLayer({.size_bytes = 8 * kMiB});
    ASSERT_OK(top);
    MountOverlay(*top, Target());
    const auto [written, error] = Fill(Target() + "/f");
    EXPECT_THAT(written, AllOf(Ge(7 * kMiB), Le(8 * kMiB)));
    EXPECT_THAT(error, AnyOf(EDQUOT, ENOSPC));
    auto usage = top->Usage();
    ASSERT_OK(usage);
    EXPECT_THAT(usage->bytes, AllOf(Ge(7 * kMiB), Le(8 * kMiB)));
    EXPECT_EQ(usage->max_bytes, 8 * kMiB);
    EXPECT_EQ(usage->max_files, 0u);
    // It is this layer's alone.
    auto other = store.CreateWritableLayer({.size_bytes = 8 * kMiB});
    ASSERT_OK(other);
    EXPECT_NE(ProjectOf(*other), ProjectOf(*top));
    MountOverlay(*other, Target() + "2");
    EXPECT_EQ(Touch(Target() + "2/g"), 0);
    // What is deleted can be had again.
    EXPECT_EQ(::unlink((Target() + "/f").c_str()), 0);
    EXPECT_THAT(Fill(Target() + "/f").first, Ge(7 * kMiB));
    ::umount2(Target().c_str(), MNT_DETACH);
    ::umount2((Target() + "2").c_str(), MNT_DETACH);
  });
}

TEST_P(AnyDiskTest, LimitsFilesAndStaysWithAKeptLayer) {
  WithQuotas(GetParam().first, GetParam().second, [&](LayerStore store) {
    uint32_t project = 0;
    {
      auto top = store.CreateWritableLayer({.max_files = 20});
      ASSERT_OK(top);
      project = ProjectOf(*top);
      ASSERT_OK(top->Keep("small"));
    }
    auto top = store.OpenWritableLayer("small");
    ASSERT_OK(top);
    EXPECT_EQ(ProjectOf(*top), project);
    MountOverlay(*top, Target());
    int made = 0;
    int error = 0;
    while (error == 0 && made < 100) {
      error = Touch(absl::StrCat(Target(), "/", made++));
    }
    EXPECT_THAT(error, AnyOf(EDQUOT, ENOSPC));
    EXPECT_THAT(made, AllOf(Ge(13), Le(20)));
    auto usage = top->Usage();
    ASSERT_OK(usage);
    EXPECT_EQ(usage->files, 20u);
    EXPECT_EQ(usage->max_files, 20u);
    EXPECT_EQ(::umount(Target().c_str()), 0);
    ASSERT_OK(top->Destroy());
    auto left = sys::QuotaOfProject(
        UniqueFd(::open(StorePath().c_str(), O_RDONLY | O_DIRECTORY)).borrow(),
        project);
    ASSERT_OK(left);
    EXPECT_EQ(left->max_files, 0u) << "the limit is gone with the layer";
  });
}

// Eight at a time take projects; no two the same. They are killed, and Recover
// leaves no limit behind.
TEST_P(AnyDiskTest, ProjectsAreNeverGivenTwiceAndComeBack) {
  WithQuotas(GetParam().first, GetParam().second, [&](LayerStore store) {
    constexpr int kProcesses = 4;
    constexpr int kLayers = 8;
    std::vector<pid_t> children;
    int pipes[2];
    ASSERT_EQ(::pipe2(pipes, O_CLOEXEC), 0);
    for (int i = 0; i < kProcesses; ++i) {
      const pid_t child = ::fork();
      if (child == 0) {
        LayerStore own = OpenStore();
        std::vector<WritableLayer> layers;
        for (int j = 0; j < kLayers; ++j) {
          auto layer = own.CreateWritableLayer({.size_bytes = kMiB});
          const uint32_t project = layer.ok() ? ProjectOf(*layer) : 0;
          (void)!::write(pipes[1], &project, sizeof(project));
          if (layer.ok()) layers.push_back(*std::move(layer));
        }
        ::pause();
      }
      children.push_back(child);
    }
    std::set<uint32_t> projects;
    for (int i = 0; i < kProcesses * kLayers; ++i) {
      uint32_t project = 0;
      ASSERT_EQ(::read(pipes[0], &project, sizeof(project)),
                static_cast<ssize_t>(sizeof(project)));
      projects.insert(project);
    }
    EXPECT_THAT(projects, SizeIs(kProcesses * kLayers));
    EXPECT_THAT(projects, Each(Ge(1u)));
    for (const pid_t child : children) {
      EXPECT_EQ(::kill(child, SIGKILL), 0);
      EXPECT_EQ(::waitpid(child, nullptr, 0), child);
    }
    ::close(pipes[0]);
    ::close(pipes[1]);
    auto report = store.Recover();
    ASSERT_OK(report);
    EXPECT_EQ(report->writable_layers, projects.size());
    EXPECT_THAT(report->failures, IsEmpty());
    const UniqueFd root(::open(StorePath().c_str(), O_RDONLY | O_DIRECTORY));
    for (const uint32_t project : projects) {
      auto left = sys::QuotaOfProject(root.borrow(), project);
      ASSERT_OK(left);
      EXPECT_EQ(left->max_bytes, 0u);
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Disks, AnyDiskTest,
                         ::testing::Values(std::pair(kQuotaExt4, kPlainExt4),
                                           std::pair(kQuotaXfs, kPlainXfs)),
                         [](const auto& info) {
                           return info.param.first.type;
                         });

// Nothing is limited by half: what is missing is named, and nothing is left.
TEST_F(LimitedLayersTest, SaysWhatTheFileSystemLacks) {
  const auto refusal = [this](const TestDisk& disk, const std::string& text) {
    OnDisk(disk, StorePath(), [&](const absl::Status& mounted) {
      ASSERT_OK(mounted);
      LayerStore store = OpenStore();
      EXPECT_THAT(store.CreateWritableLayer({.max_files = 5}),
                  StatusIs(kFailedPrecondition, HasSubstr(text)));
      EXPECT_THAT(Entries("writable"), IsEmpty());
    });
  };
  refusal(kPlainExt4, "this ext4 must have the features");
  refusal(kPlainXfs, "\"prjquota\", which a remount");
  OnTmpfs(8 * kMiB, [&] {
    LayerStore store = OpenStore();
    EXPECT_THAT(store.CreateWritableLayer({.size_bytes = kMiB}),
                StatusIs(kFailedPrecondition, HasSubstr("tmpfs_size_bytes")));
  });
}

// ---- fs-verity ----

const TestDisk kVerityExt4 = {.mkfs = "mkfs.ext4 -q -F -b 4096 -O verity"};

class SealedLayersTest : public StoreTest {
 protected:
  LayerStore OpenSealing() const {
    LayerStoreOptions options = Options();
    options.fs_verity = true;
    auto store = LayerStore::Open(options);
    EXPECT_OK(store);
    return *std::move(store);
  }
  std::string Archive() {
    return Write("a.tar", OciArchive({SampleImage("a")}));
  }
  std::string Diff(const Image& image, size_t layer) const {
    return absl::StrCat(StorePath(), "/layers/overlay/",
                        image.layers[layer].chain_id.substr(7), "/diff");
  }
  // Runs `body` on a disk that can seal, unless the kernel cannot, which is
  // then said.
  void WhereItCan(const std::function<void(LayerStore store)>& body) {
    const std::string archive = Archive();
    OnDisk(kVerityExt4, StorePath(), [&](const absl::Status& mounted) {
      ASSERT_OK(mounted);
      LayerStore store = OpenSealing();
      const auto imported = store.Import(archive);
      if (imported.ok()) return body(std::move(store));
      EXPECT_FALSE(InTheVm()) << imported.status();
      EXPECT_THAT(imported,
                  StatusIs(kFailedPrecondition, HasSubstr("CONFIG_FS_VERITY")));
    });
  }
};

std::vector<std::string> Findings(LayerStore& store,
                                  const VerifyOptions& options = {}) {
  auto report = store.Verify(options);
  EXPECT_OK(report);
  std::vector<std::string> lines;
  if (!report.ok()) return lines;
  for (const StoreFinding& finding : report->findings) {
    lines.push_back(finding.ToString());
  }
  return lines;
}

TEST_F(SealedLayersTest, NobodyWritesAndNobodyNeedsToRead) {
  WhereItCan([this](LayerStore store) {
    auto image = store.Find("a:1");
    ASSERT_OK(image);
    const std::string file = Diff(*image, 1) + "/shared";
    EXPECT_EQ(::open(file.c_str(), O_WRONLY | O_CLOEXEC), -1);
    EXPECT_EQ(errno, EPERM);
    EXPECT_EQ(::open((Diff(*image, 1) + "/../tar-split").c_str(),
                     O_WRONLY | O_CLOEXEC),
              -1);
    for (const VerifyDepth depth :
         {VerifyDepth::kQuick, VerifyDepth::kStandard, VerifyDepth::kFull}) {
      EXPECT_THAT(Findings(store, {.depth = depth}), IsEmpty());
    }
    EXPECT_OK(store.Save({"a:1"}, temp_.path() + "/out.tar"));
    // What fs-verity does not cover, the seal does.
    EXPECT_EQ(::chmod(file.c_str(), 0777), 0);
    EXPECT_THAT(Findings(store, {.depth = VerifyDepth::kQuick}),
                Each(HasSubstr("its mode")));
    EXPECT_THAT(Findings(store, {.repair = true}), SizeIs(1));
    EXPECT_THAT(Findings(store), IsEmpty());
    EXPECT_EQ(::open(file.c_str(), O_WRONLY | O_CLOEXEC), -1) << "sealed again";
    EXPECT_OK(store.Remove("a:1"));
    EXPECT_THAT(Entries("layers/overlay"), IsEmpty());
  });
}

// A copy of a store has its files, but nobody watches over them.
TEST_F(SealedLayersTest, AFileThatWasReplacedIsSealedAgain) {
  WhereItCan([this](LayerStore store) {
    auto image = store.Find("a:1");
    ASSERT_OK(image);
    const std::string dir = Diff(*image, 0);
    EXPECT_EQ(::system(absl::StrCat("cp -a ", dir, "/shared ", dir, "/x && mv ",
                                    dir, "/x ", dir, "/shared && touch -d @",
                                    1'000'000'000, " ", dir)
                           .c_str()),
              0);
    EXPECT_THAT(Findings(store),
                ElementsAre(AllOf(HasSubstr("layer has lost its seal"),
                                  HasSubstr("has no fs-verity"))));
    EXPECT_THAT(Findings(store, {.repair = true}),
                ElementsAre(HasSubstr("repaired")));
    EXPECT_THAT(Findings(store, {.depth = VerifyDepth::kFull}), IsEmpty());
  });
}

TEST_F(SealedLayersTest, IsRefusedWhereItCannotBe) {
  const std::string archive = Archive();
  OnTmpfs(8 * kMiB, [&] {
    LayerStore store = OpenSealing();
    EXPECT_THAT(store.Import(archive),
                StatusIs(kFailedPrecondition, HasSubstr("fs-verity")));
    EXPECT_THAT(Entries("staging"), IsEmpty());
    EXPECT_THAT(*store.List(), IsEmpty());
  });
  OnDisk(kPlainExt4, StorePath(), [&](const absl::Status& mounted) {
    ASSERT_OK(mounted);
    LayerStore store = OpenSealing();
    EXPECT_THAT(store.Import(archive),
                StatusIs(kFailedPrecondition, HasSubstr("fs-verity")));
  });
}

}  // namespace
}  // namespace caisson::layer
