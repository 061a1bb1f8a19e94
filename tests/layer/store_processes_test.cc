// Many processes that change one LayerStore at once, some of which die, and
// readers that wait for none of them.
//
//   CAISSON_TEST_SEED=N     repeats the choices of a run that printed N
//   CAISSON_STORE_SECONDS=N how long the processes are at it (60)
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <new>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "caisson/layer_store.h"
#include "gtest/gtest.h"
#include "lib/base/status_macros.h"
#include "lib/base/status_matchers.h"
#include "lib/layer/test_image.h"
#include "lib/layer/test_store.h"
#include "lib/layer/test_streams.h"
#include "lib/layer/test_tar.h"
#include "tests/layer/store_state.h"

namespace caisson::layer {
namespace {

uint64_t Number(const char* variable, uint64_t otherwise) {
  const char* value = ::getenv(variable);
  return value == nullptr ? otherwise : ::strtoull(value, nullptr, 10);
}

// What the processes do, and how often each of it has succeeded in any.
enum Action { kImport, kRun, kCommit, kRemove, kCollect, kKeep, kSave, kCheck };
constexpr const char* kActions[] = {"import",  "run",  "commit", "remove",
                                    "collect", "keep", "save",   "check"};
using Counters = std::array<std::atomic<uint64_t>, std::size(kActions)>;

std::vector<TestImage> Images() {
  std::vector<TestImage> images;
  for (int i = 0; i < 6; ++i) {
    // Pairs with two common layers.
    TestImage image = SampleImage(absl::StrCat("base", i / 2), 2);
    image.layers.push_back(SampleImage(absl::StrCat("top", i), 3).layers[2]);
    image.layers.push_back(
        TestTar().File("large", SampleText(200 << 10)).Finish());
    image.env = absl::StrCat("IMAGE=", i);
    image.names = {absl::StrCat("image", i, ":1")};
    images.push_back(std::move(image));
  }
  return images;
}

// One process.
class Worker final {
 public:
  Worker(LayerStore& store, std::string scratch,
         const std::vector<std::string>& archives, Counters& counters,
         uint64_t seed)
      : store_(store),
        scratch_(std::move(scratch)),
        archives_(archives),
        counters_(counters),
        random_(seed) {}

  // Until something goes wrong that must not.
  void Run() {
    while (!::testing::Test::HasFailure()) {
      // Imports and removals meet the most.
      const uint64_t any = random_() % (2 * std::size(kActions));
      const auto action = any < std::size(kActions) ? static_cast<Action>(any)
                          : any % 2 == 0            ? kImport
                                                    : kRemove;
      const absl::Status status = Do(action);
      if (status.ok()) ++counters_[action];
      // Others remove what was just found, or use what is to be removed.
      const bool expected =
          absl::IsNotFound(status) || absl::IsFailedPrecondition(status);
      EXPECT_TRUE(status.ok() || expected)
          << kActions[action] << ": " << status;
    }
  }

 private:
  absl::Status Do(Action action) {
    switch (action) {
      case kImport:
        return store_.Import(archives_[random_() % archives_.size()]).status();
      case kRun:
      case kCommit:
        return RunAndCommit(action == kCommit);
      case kRemove: {
        ASSIGN_OR_RETURN(const Image image, AnyImage());
        return store_.Remove(image.id);
      }
      case kCollect:
        RETURN_IF_ERROR(store_.Prune().status());
        return Recover();
      case kKeep:
        return Keep();
      case kSave: {
        ASSIGN_OR_RETURN(const Image image, AnyImage());
        const UniqueFd null(::open("/dev/null", O_WRONLY | O_CLOEXEC));
        return store_.Save({image.id}, null.borrow());
      }
      case kCheck: {
        ASSIGN_OR_RETURN(const StoreReport report, store_.Verify());
        for (const StoreFinding& finding : report.findings) {
          // What somebody who was killed left for Recover is no damage.
          if (finding.kind == StoreFinding::kLayerOrphaned) continue;
          ADD_FAILURE() << finding.ToString();
        }
        return absl::OkStatus();
      }
    }
    return absl::OkStatus();
  }

  absl::Status Recover() {
    ASSIGN_OR_RETURN(const RecoverReport report, store_.Recover());
    for (const absl::Status& failure : report.failures) {
      ADD_FAILURE() << failure;
    }
    return absl::OkStatus();
  }

  absl::StatusOr<Image> AnyImage() {
    ASSIGN_OR_RETURN(const auto images, store_.List());
    if (images.empty()) return absl::NotFoundError("there is no image");
    return store_.Find(images[random_() % images.size()].id);
  }

  // A container's root file system: what it shows is that of the layers, and
  // stays so for as long as they are open.
  absl::Status RunAndCommit(bool commit) {
    ASSIGN_OR_RETURN(const Image image, AnyImage());
    ASSIGN_OR_RETURN(const LayerSet layers, store_.OpenLayers(image));
    ASSIGN_OR_RETURN(WritableLayer top,
                     store_.CreateWritableLayer({.lower = &layers}));
    const std::string shared = ReadInLayers(layers, "shared");
    EXPECT_NE(shared, "") << image.id;
    Mount(layers, top);
    EXPECT_EQ(ReadFile(scratch_ + "/shared"), shared);
    std::ofstream(scratch_ + "/written") << random_();
    ::unlink((scratch_ + "/layer0").c_str());
    EXPECT_EQ(ReadFile(scratch_ + "/large").size(), size_t{200} << 10);
    EXPECT_EQ(::umount2(scratch_.c_str(), 0), 0);
    absl::Status status;
    if (commit) {
      CommitOptions options;
      // The image that had the name is for Prune.
      options.name = absl::StrCat("committed:", random_() % 4);
      status = image.layers.size() < 10
                   ? store_.Commit(image, top.upper(), options).status()
                   : store_.Squash(image, 1, options).status();
    }
    EXPECT_EQ(ReadInLayers(layers, "shared"), shared);
    RETURN_IF_ERROR(top.Destroy());
    return status;
  }

  void Mount(const LayerSet& layers, const WritableLayer& top) {
    const auto path = [](BorrowedFd fd) {
      return absl::StrCat("/proc/self/fd/", fd.get());
    };
    std::vector<std::string> lower;
    for (const BorrowedFd dir : layers.dirs()) lower.push_back(path(dir));
    const std::string options = absl::StrCat(
        "lowerdir=", absl::StrJoin(lower, ":"), ",upperdir=", path(top.upper()),
        ",workdir=", path(top.work()));
    EXPECT_EQ(
        ::mount("overlay", scratch_.c_str(), "overlay", 0, options.c_str()), 0)
        << options << ": " << errno;
  }

  absl::Status Keep() {
    const std::string name = absl::StrCat("kept", random_() % 4);
    auto kept = store_.OpenWritableLayer(name);
    if (kept.ok()) return kept->Destroy();
    if (!absl::IsNotFound(kept.status())) return kept.status();
    ASSIGN_OR_RETURN(WritableLayer top, store_.CreateWritableLayer());
    const absl::Status status = top.Keep(name);
    return absl::IsAlreadyExists(status) ? absl::OkStatus() : status;
  }

  LayerStore& store_;
  const std::string scratch_;
  const std::vector<std::string>& archives_;
  Counters& counters_;
  std::mt19937_64 random_;
};

class StoreProcessesTest : public StoreTest {
 protected:
  static constexpr int kProcesses = 8;

  // A process that works until it is killed.
  pid_t StartWorker(int number, const std::vector<std::string>& archives,
                    Counters& counters, uint64_t seed) {
    const std::string scratch = absl::StrCat(temp_.path(), "/root", number);
    ::mkdir(scratch.c_str(), 0700);
    const pid_t parent = ::getpid();
    const pid_t child = ::fork();
    if (child != 0) return child;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(1);
    // Its mounts go with it.
    EXPECT_EQ(::unshare(CLONE_NEWNS), 0);
    LayerStore store = OpenStore();
    Worker(store, scratch, archives, counters, seed).Run();
    ::_exit(1);
  }
};

TEST_F(StoreProcessesTest, EightThatDoEverythingAndDie) {
  const uint64_t seed = Number("CAISSON_TEST_SEED", std::random_device()());
  std::cout << "CAISSON_TEST_SEED=" << seed << std::endl;
  const absl::Time end =
      absl::Now() + absl::Seconds(Number("CAISSON_STORE_SECONDS", 60));
  std::vector<std::string> archives;
  for (const TestImage& image : Images()) {
    archives.push_back(
        Write(absl::StrCat(archives.size(), ".tar"), OciArchive({image})));
  }
  void* shared = ::mmap(nullptr, sizeof(Counters), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(shared, MAP_FAILED);
  Counters& counters = *new (shared) Counters();
  OnTmpfs(uint64_t{1} << 30, [&] {
    std::mt19937_64 random(seed);
    std::vector<pid_t> workers;
    for (int i = 0; i < kProcesses; ++i) {
      workers.push_back(StartWorker(i, archives, counters, random()));
    }
    size_t killed = 0;
    while (absl::Now() < end && !HasFailure()) {
      absl::SleepFor(absl::Milliseconds(random() % 400));
      const size_t i = random() % workers.size();
      EXPECT_EQ(::kill(workers[i], SIGKILL), 0);
      int status = 0;
      EXPECT_EQ(::waitpid(workers[i], &status, 0), workers[i]);
      EXPECT_TRUE(WIFSIGNALED(status)) << "it ended with a failure";
      ++killed;
      workers[i] =
          StartWorker(static_cast<int>(i), archives, counters, random());
    }
    for (const pid_t worker : workers) {
      ::kill(worker, SIGKILL);
      int status = 0;
      EXPECT_EQ(::waitpid(worker, &status, 0), worker);
      EXPECT_TRUE(WIFSIGNALED(status)) << "it ended with a failure";
    }
    EXPECT_EQ(CheckStore(StorePath()), "");
    std::cout << killed << " killed";
    for (size_t i = 0; i < std::size(kActions); ++i) {
      EXPECT_GT(counters[i].load(), 0u) << kActions[i];
      std::cout << ", " << kActions[i] << " " << counters[i].load();
    }
    std::cout << std::endl;
  });
  ::munmap(shared, sizeof(Counters));
}

// ---- readers --------------------------------------------------------------

class ReadersTest : public StoreProcessesTest {
 protected:
  // Everything that only looks, and what starts a container. It hangs if
  // anything of it waits for who holds the store up.
  void Read(LayerStore& store) {
    EXPECT_OK(store.List());
    ASSERT_OK_AND_ASSIGN(const Image image, store.Find("old:1"));
    ASSERT_OK_AND_ASSIGN(const LayerSet layers, store.OpenLayers(image));
    EXPECT_EQ(ReadInLayers(layers, "shared"), "old1");
    ASSERT_OK_AND_ASSIGN(WritableLayer top,
                         store.CreateWritableLayer({.lower = &layers}));
    EXPECT_OK(store.Diff(top.upper(), layers));
    const UniqueFd null(::open("/dev/null", O_WRONLY | O_CLOEXEC));
    EXPECT_OK(store.Save({"old:1"}, null.borrow()));
    EXPECT_OK(store.Export(layers, null.borrow()));
    EXPECT_OK(store.ListWritableLayers());
    EXPECT_OK(store.Verify());
    EXPECT_OK(top.Destroy());
  }

  // In this process and in another, which opens the store first.
  void ReadEverywhere(LayerStore& store) {
    Read(store);
    ExpectInChild([this] {
      LayerStore own = OpenStore();
      Read(own);
      return true;
    });
  }

  void ImportOld(LayerStore& store) {
    ASSERT_OK(store.Import(Write("old.tar", OciArchive({SampleImage("old")}))));
  }
};

TEST_F(ReadersTest, DoNotWaitForAnImportInItsCallback) {
  LayerStore store = OpenStore();
  ImportOld(store);
  std::map<ImportProgress::Phase, size_t> phases;
  ImportOptions options;
  options.progress = [&](const ImportProgress& progress) {
    ++phases[progress.phase];
    ReadEverywhere(store);
    return true;
  };
  ASSERT_OK(store.Import(Write("new.tar", OciArchive({SampleImage("new")})),
                         options));
  EXPECT_EQ(phases.size(), 3u);
}

TEST_F(ReadersTest, DoNotWaitForAnImportFromAStalledPipe) {
  LayerStore store = OpenStore();
  ImportOld(store);
  const std::string tar = OciArchive({SampleImage("new", 4)}).Tar();
  int pipe[2];
  ASSERT_EQ(::pipe2(pipe, O_CLOEXEC), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::close(pipe[1]);
    LayerStore own = OpenStore();
    ::_exit(own.Import(BorrowedFd(pipe[0])).ok() ? 0 : 1);
  }
  UniqueFd out(pipe[1]);
  const size_t half = tar.size() / 2;
  ASSERT_EQ(::write(out.get(), tar.data(), half), static_cast<ssize_t>(half));
  // Until it has read all of that and wants more.
  for (int waiting = 1; waiting > 0; ::sched_yield()) {
    ASSERT_EQ(::ioctl(pipe[0], FIONREAD, &waiting), 0);
  }
  ::close(pipe[0]);
  ReadEverywhere(store);
  EXPECT_TRUE(absl::IsNotFound(store.Find("new:1").status()));
  ASSERT_EQ(::write(out.get(), tar.data() + half, tar.size() - half),
            static_cast<ssize_t>(tar.size() - half));
  out.reset();
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_OK(store.Find("new:1"));
}

// The one lock that every change takes: whoever publishes may hang in an fsync.
TEST_F(ReadersTest, DoNotWaitForWhoPublishes) {
  LayerStore store = OpenStore();
  ImportOld(store);
  const UniqueFd lock(
      ::open((StorePath() + "/store.lock").c_str(), O_RDWR | O_CLOEXEC));
  struct flock first_byte = {};
  first_byte.l_type = F_WRLCK;
  first_byte.l_len = 1;
  ASSERT_EQ(::fcntl(lock.get(), F_OFD_SETLK, &first_byte), 0);
  sqlite3* db = nullptr;
  ASSERT_EQ(::sqlite3_open((StorePath() + "/index.db").c_str(), &db),
            SQLITE_OK);
  ASSERT_EQ(::sqlite3_exec(db, "BEGIN IMMEDIATE; DELETE FROM names", nullptr,
                           nullptr, nullptr),
            SQLITE_OK);
  Read(store);
  ExpectInChild([this] {
    LayerStoreOptions options = Options();
    options.recover = false;  // which waits, to change something
    auto own = LayerStore::Open(options);
    EXPECT_OK(own);
    Read(*own);
    return true;
  });
  ::sqlite3_close(db);
}

}  // namespace
}  // namespace caisson::layer
