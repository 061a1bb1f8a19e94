// What a power failure leaves of a LayerStore: every write that reached the
// disk during a workload is replayed up to a random one, as a disk with a cache
// may have kept it, on ext4 and on xfs.
//
//   CAISSON_TEST_SEED=N  repeats the cuts of a run that printed N
//   CAISSON_POWER_CUTS=N cuts per file system (100)
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <iostream>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "caisson/layer_store.h"
#include "gtest/gtest.h"
#include "lib/base/status_macros.h"
#include "lib/base/status_matchers.h"
#include "lib/layer/test_image.h"
#include "lib/layer/test_store.h"
#include "lib/layer/test_tar.h"
#include "tests/layer/store_state.h"
#include "tests/support/recorded_disk.h"

namespace {

// What the store is made to leave out, to see that it is missed.
enum class Forget { kNothing, kSyncOfLayers, kSyncOfDirectories, kSyncOfIndex };
Forget forget = Forget::kNothing;

bool IsDirectory(int fd) {
  struct stat status = {};
  return ::fstat(fd, &status) == 0 && S_ISDIR(status.st_mode);
}

}  // namespace

// In the place of the C library's, for the store and for SQLite.
extern "C" int syncfs(int fd) noexcept {
  if (forget == Forget::kSyncOfLayers) return 0;
  return static_cast<int>(::syscall(SYS_syncfs, fd));
}
extern "C" int fsync(int fd) {
  if (forget == Forget::kSyncOfDirectories && IsDirectory(fd)) return 0;
  if (forget == Forget::kSyncOfIndex && !IsDirectory(fd)) return 0;
  return static_cast<int>(::syscall(SYS_fsync, fd));
}
extern "C" int fdatasync(int fd) {
  if (forget == Forget::kSyncOfIndex) return 0;
  return static_cast<int>(::syscall(SYS_fdatasync, fd));
}

namespace caisson::layer {
namespace {

using ::caisson::testing::Apply;
using ::caisson::testing::AttachLoop;
using ::caisson::testing::CopyDisk;
using ::caisson::testing::DiskEvent;
using ::caisson::testing::MakeDisk;
using ::caisson::testing::RecordedDisk;

struct FileSystem {
  const char* type;
  uint64_t size;
  // What a power failure leaves whole. xfs relies on its blocks being that;
  // ext4 does not.
  uint32_t sector;
  const char* mkfs;
  // Nothing gets to the disk because a timer or a heuristic says so.
  const char* options;
};
constexpr FileSystem kExt4 = {
    .type = "ext4",
    .size = 32 << 20,
    .sector = 512,
    .mkfs =
        "mkfs.ext4 -q -F -m 0 -J size=4 -E "
        "nodiscard,lazy_itable_init=0,lazy_journal_init=0",
    .options = "noauto_da_alloc,commit=300"};
constexpr FileSystem kXfs = {.type = "xfs",
                             .size = 300 << 20,
                             .sector = 4096,
                             .mkfs = "mkfs.xfs -q -K -s size=4096",
                             .options = ""};

uint64_t Number(const char* variable, uint64_t otherwise) {
  const char* value = ::getenv(variable);
  return value == nullptr ? otherwise : ::strtoull(value, nullptr, 10);
}

// A file system on a loop device, until the object goes.
class Mounted final {
 public:
  Mounted(const FileSystem& type, const std::string& device,
          const std::string& directory)
      : directory_(directory),
        error_(::mount(device.c_str(), directory.c_str(), type.type, 0,
                       type.options) == 0
                   ? 0
                   : errno) {}
  Mounted(const Mounted&) = delete;
  ~Mounted() { Unmount(); }

  int error() const { return error_; }
  bool Unmount() {
    return error_ == 0 && ::umount2(directory_.c_str(), 0) == 0 &&
           (error_ = EINVAL) != 0;
  }

 private:
  const std::string directory_;
  int error_;
};

// ---- the workload ---------------------------------------------------------

// Every kind of change, one after the other. `states` is what is to be seen
// before the first and after each.
class Workload final {
 public:
  Workload(RecordedDisk& disk, std::string path)
      : disk_(disk), path_(std::move(path)) {}

  std::vector<std::string> states = {""};

  void Run() {
    Do("open", [&] { return Open(); });
    for (int round = 0; round < 3; ++round) Round(round);
  }

 private:
  void Round(int r) {
    const TestImage base = MakeImage(absl::StrCat("base", r), 3);
    TestImage derived = base;
    derived.layers.push_back(
        MakeImage(absl::StrCat("derived", r), 1).layers[0]);
    derived.names = {absl::StrCat("derived", r, ":1")};
    const std::string name = base.names[0];
    Do("import", [&] { return Import({base}); });
    Do("import above", [&] { return Import({derived}); });
    Do("tag", [&] { return store_->Tag(name, "latest"); });
    Do("keep", [&] { return Keep(r); });
    Do("commit", [&] { return Commit(name, r); });
    Do("squash", [&] { return Squash(r); });
    Do("remove", [&] { return store_->Remove(derived.names[0]); });
    Do("import two", [&] {
      return Import({MakeImage(absl::StrCat("one", r), 2),
                     MakeImage(absl::StrCat("two", r), 1)});
    });
    Do("import again", [&] { return Import({derived}); });
    if (r > 0) {
      Do("destroy", [&] { return Destroy(r - 1); });
      Do("remove name",
         [&] { return store_->Remove(absl::StrCat("squashed", r - 1)); });
      Do("remove one",
         [&] { return store_->Remove(absl::StrCat("one", r - 1, ":1")); });
    }
    // As after a thousand pages: what follows goes over the log from its start,
    // so that no file grows. Then a process that starts a new log.
    if (r == 0) Restart();
    if (r == 1) Do("open again", [&] { return Open(); });
  }

  template <typename Change>
  void Do(const char* what, Change change) {
    if (::testing::Test::HasFailure()) return;
    EXPECT_OK(disk_.Mark(absl::StrCat("begin ", what)));
    const absl::Status status = change();
    // At once: a flush in between would hide what is missing.
    EXPECT_OK(disk_.Mark(absl::StrCat("done ", what)));
    EXPECT_OK(status) << what;
    if (!store_) return;
    auto state = DescribeStore(*store_, path_);
    EXPECT_OK(state) << what;
    if (state.ok()) states.push_back(*std::move(state));
  }

  absl::Status Open() {
    store_.reset();
    ASSIGN_OR_RETURN(LayerStore store, LayerStore::Open({.path = path_}));
    store_.emplace(std::move(store));
    return absl::OkStatus();
  }

  static TestImage MakeImage(const std::string& seed, int layers) {
    TestImage image = SampleImage(seed, layers);
    image.layers[0] = TestTar()
                          .Dir("./")
                          .Dir("etc/")
                          .Owner(1000, 1000)
                          .Pax({{"SCHILY.xattr.user.seed", seed}})
                          .File("etc/small", seed)
                          .Hardlink("etc/again", "etc/small")
                          .Symlink("etc/link", seed)
                          .File("etc/" + seed, std::string(20000, seed.back()))
                          .File("empty", "")
                          .Finish();
    return image;
  }

  absl::Status Import(const std::vector<TestImage>& images) {
    const std::string tar = OciArchive(images).Tar();
    const UniqueFd archive = MemFile(tar);
    return store_->Import(archive.borrow()).status();
  }

  absl::StatusOr<WritableLayer> MakeLayer(const LayerSet& lower, int r) {
    ASSIGN_OR_RETURN(WritableLayer top,
                     store_->CreateWritableLayer({.lower = &lower}));
    const UniqueFd file(::openat(top.upper().get(), "written",
                                 O_CREAT | O_WRONLY | O_CLOEXEC, 0640));
    const std::string text(5000, static_cast<char>('a' + r));
    EXPECT_EQ(::write(file.get(), text.data(), text.size()),
              static_cast<ssize_t>(text.size()));
    // As its writer should: Keep does not.
    EXPECT_EQ(::syscall(SYS_fsync, file.get()), 0);
    EXPECT_EQ(::mknodat(top.upper().get(), "shared", S_IFCHR, makedev(0, 0)),
              0);
    EXPECT_EQ(::syscall(SYS_fsync, top.upper().get()), 0);
    return top;
  }

  absl::Status Keep(int r) {
    ASSIGN_OR_RETURN(const Image image,
                     store_->Find(absl::StrCat("base", r, ":1")));
    ASSIGN_OR_RETURN(const LayerSet lower, store_->OpenLayers(image));
    ASSIGN_OR_RETURN(WritableLayer top, MakeLayer(lower, r));
    return top.Keep(absl::StrCat("kept", r));
  }

  absl::Status Destroy(int r) {
    ASSIGN_OR_RETURN(WritableLayer top,
                     store_->OpenWritableLayer(absl::StrCat("kept", r)));
    return top.Destroy();
  }

  absl::Status Commit(const std::string& base, int r) {
    ASSIGN_OR_RETURN(const Image image, store_->Find(base));
    ASSIGN_OR_RETURN(const UniqueFd upper,
                     store_->OpenUpper(absl::StrCat("kept", r)));
    CommitOptions options;
    options.name = absl::StrCat("committed", r);
    return store_->Commit(image, upper.borrow(), options).status();
  }

  absl::Status Squash(int r) {
    ASSIGN_OR_RETURN(const Image image,
                     store_->Find(absl::StrCat("committed", r)));
    CommitOptions options;
    options.name = absl::StrCat("squashed", r);
    return store_->Squash(image, 1, options).status();
  }

  void Restart() {
    sqlite3* db = nullptr;
    EXPECT_EQ(::sqlite3_open((path_ + "/index.db").c_str(), &db), SQLITE_OK);
    EXPECT_EQ(::sqlite3_exec(db, "PRAGMA wal_checkpoint(RESTART)", nullptr,
                             nullptr, nullptr),
              SQLITE_OK);
    ::sqlite3_close(db);
  }

  RecordedDisk& disk_;
  const std::string path_;
  std::optional<LayerStore> store_;
};

// ---- the cuts -------------------------------------------------------------

// What happened, and what was to be seen after each change.
struct Recording {
  FileSystem type;
  UniqueFd before;
  std::vector<DiskEvent> events;
  std::vector<std::string> states;
};

// The disk as cuts leave it; each one after the one before.
class Replay final {
 public:
  explicit Replay(const Recording& recording)
      : recording_(recording), durable_(*CopyDisk(recording.before.borrow())) {}

  // Power fails before event `at`. What was written before the last flush is
  // there. Of the rest a cache may have written anything in any order; as no
  // sector is half written, that is for each sector of each write yes or no.
  UniqueFd Cut(size_t at, std::mt19937_64& random) {
    size_t flushed = at;
    while (flushed > applied_ &&
           recording_.events[flushed - 1].kind != DiskEvent::kFlush) {
      --flushed;
    }
    for (; applied_ < flushed; ++applied_) {
      EXPECT_OK(Apply(recording_.events[applied_], durable_.borrow()));
    }
    UniqueFd disk = *CopyDisk(durable_.borrow());
    // None, all in order, or some: whole writes, or torn ones.
    const uint64_t way = random() % 4;
    const uint64_t tenths = 1 + random() % 9;
    for (size_t i = applied_; i < at && way > 0; ++i) {
      const DiskEvent& event = recording_.events[i];
      if (way == 1 || (way == 2 && random() % 10 < tenths)) {
        EXPECT_OK(Apply(event, disk.borrow()));
      }
      if (way < 3 || event.kind > DiskEvent::kZero) continue;
      for (uint64_t begin = 0; begin < event.size;
           begin += recording_.type.sector) {
        const uint64_t end =
            std::min(begin + recording_.type.sector, event.size);
        if (random() % 10 >= tenths) continue;
        EXPECT_OK(Apply(event, disk.borrow(), begin, end));
      }
    }
    return disk;
  }

 private:
  const Recording& recording_;
  UniqueFd durable_;
  size_t applied_ = 0;
};

// What is wrong with the store at `path`, in which `allowed` may be seen.
std::string CheckWithImport(const std::string& path,
                            const std::vector<std::string>& allowed) {
  std::string problem = CheckStore(path, allowed);
  if (!problem.empty()) return problem;
  // It can be used as if nothing had happened.
  auto store = LayerStore::Open({.path = path});
  if (!store.ok()) return store.status().ToString();
  const std::string tar = OciArchive({SampleImage("next", 2)}).Tar();
  const UniqueFd archive = MemFile(tar);
  return store->Import(archive.borrow()).status().ok()
             ? ""
             : "nothing can be imported";
}

class PowerCutTest : public StoreTest {
 protected:
  // Records the workload and calls `body`, in a child with mounts of its own.
  void Record(const FileSystem& type,
              const std::function<void(const Recording&)>& body) {
    ExpectInChild([&] {
      EXPECT_EQ(::unshare(CLONE_NEWNS), 0);
      EXPECT_EQ(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr),
                0);
      EXPECT_EQ(::mkdir(Directory().c_str(), 0700), 0);
      const Recording recording = RecordWorkload(type);
      forget = Forget::kNothing;
      if (!::testing::Test::HasFailure()) body(recording);
      return true;
    });
  }

  // The problems that `count` random cuts show, at most `enough`.
  std::vector<std::string> Cut(const Recording& recording, size_t count,
                               size_t enough) {
    std::mt19937_64 random(seed_);
    std::vector<std::string> problems;
    Replay replay(recording);
    for (const size_t at : ChooseCuts(recording.events, count, random)) {
      const UniqueFd disk = replay.Cut(at, random);
      const std::string problem = CheckCut(recording, disk.borrow(), at);
      if (problem.empty()) continue;
      problems.push_back(absl::StrCat(
          "cut before event ", at, " of ", recording.events.size(), ", ",
          LastMark(recording.events, at), ", seed ", seed_, "\n", problem));
      if (problems.size() == enough) break;
    }
    return problems;
  }

  const uint64_t seed_ = Number("CAISSON_TEST_SEED", std::random_device()());

 private:
  std::string Directory() const { return temp_.path() + "/disk"; }

  Recording RecordWorkload(const FileSystem& type) {
    Recording recording{.type = type};
    auto before = MakeDisk(type.mkfs, type.size);
    EXPECT_OK(before);
    if (!before.ok()) return recording;
    recording.before = *std::move(before);
    auto disk = RecordedDisk::Create(recording.before.borrow(), type.sector);
    EXPECT_OK(disk);
    if (!disk.ok()) return recording;
    {
      Mounted mounted(type, (*disk)->device(), Directory());
      EXPECT_EQ(mounted.error(), 0) << ::strerror(mounted.error());
      Workload workload(**disk, Directory() + "/store");
      workload.Run();
      recording.states = std::move(workload.states);
      EXPECT_OK((*disk)->Mark("end"));
    }
    auto events = (*disk)->Finish();
    EXPECT_OK(events);
    if (events.ok()) recording.events = *std::move(events);
    return recording;
  }

  // Half of them anywhere, half where something has just been reported as done.
  static std::vector<size_t> ChooseCuts(const std::vector<DiskEvent>& events,
                                        size_t count, std::mt19937_64& random) {
    std::vector<size_t> done;
    size_t end = events.size();
    for (size_t i = 0; i < events.size(); ++i) {
      if (events[i].kind != DiskEvent::kMark) continue;
      if (absl::StartsWith(events[i].data, "done ")) done.push_back(i + 1);
      if (events[i].data == "end") end = i;
    }
    std::vector<size_t> cuts;
    for (size_t i = 0; i < count; ++i) {
      cuts.push_back(i % 2 == 0 ? random() % (end + 1)
                                : done[random() % done.size()]);
    }
    std::sort(cuts.begin(), cuts.end());
    return cuts;
  }

  static std::string LastMark(const std::vector<DiskEvent>& events, size_t at) {
    while (at > 0 && events[at - 1].kind != DiskEvent::kMark) --at;
    return at == 0 ? "at the start"
                   : absl::StrCat("after \"", events[at - 1].data, "\"");
  }

  std::string CheckCut(const Recording& recording, BorrowedFd disk, size_t at) {
    size_t begun = 0;
    size_t done = 0;
    for (size_t i = 0; i < at; ++i) {
      const DiskEvent& event = recording.events[i];
      if (event.kind != DiskEvent::kMark) continue;
      if (absl::StartsWith(event.data, "begin ")) ++begun;
      if (absl::StartsWith(event.data, "done ")) ++done;
    }
    std::vector<std::string> allowed = {recording.states[done]};
    if (begun > done) allowed.push_back(recording.states[begun]);
    auto loop = AttachLoop(disk, recording.type.sector);
    if (!loop.ok()) return loop.status().ToString();
    Mounted mounted(recording.type, loop->path, Directory());
    if (mounted.error() != 0) {
      return absl::StrCat("mount: ", ::strerror(mounted.error()));
    }
    std::string problem = CheckWithImport(Directory() + "/store", allowed);
    if (problem.empty() && !mounted.Unmount()) problem = "cannot be unmounted";
    return problem;
  }
};

class EveryFileSystem : public PowerCutTest,
                        public ::testing::WithParamInterface<FileSystem> {
 protected:
  void SetUp() override {
    PowerCutTest::SetUp();
    if (absl::StrContains(ReadFile("/proc/filesystems"),
                          absl::StrCat("\t", GetParam().type, "\n"))) {
      return;
    }
    const std::string reason =
        absl::StrCat("this kernel has no ", GetParam().type);
    if (TestsMustRun()) FAIL() << reason;
    GTEST_SKIP() << reason;
  }
};

TEST_P(EveryFileSystem, WhatWasReportedIsThereAndNothingIsHalfWritten) {
  const size_t count = Number("CAISSON_POWER_CUTS", 100);
  std::cout << "CAISSON_TEST_SEED=" << seed_ << std::endl;
  Record(GetParam(), [&](const Recording& recording) {
    EXPECT_GT(recording.events.size(), 500u);
    EXPECT_GT(recording.states.size(), 30u);
    EXPECT_EQ(absl::StrJoin(Cut(recording, count, 3), "\n"), "");
  });
}

INSTANTIATE_TEST_SUITE_P(, EveryFileSystem, ::testing::Values(kExt4, kXfs),
                         [](const auto& info) {
                           return std::string(info.param.type);
                         });

// The test above can fail: each thing that the store does for durability is
// missed when it is left out.
class Forgotten : public PowerCutTest,
                  public ::testing::WithParamInterface<Forget> {};

TEST_P(Forgotten, IsMissed) {
  forget = GetParam();
  Record(kExt4, [&](const Recording& recording) {
    const auto problems = Cut(recording, 200, 1);
    EXPECT_FALSE(problems.empty());
    std::cout << absl::StrJoin(problems, "\n").substr(0, 1000) << std::endl;
  });
  forget = Forget::kNothing;
}

INSTANTIATE_TEST_SUITE_P(, Forgotten,
                         ::testing::Values(Forget::kSyncOfLayers,
                                           Forget::kSyncOfDirectories,
                                           Forget::kSyncOfIndex),
                         [](const auto& info) {
                           switch (info.param) {
                             case Forget::kSyncOfLayers:
                               return "SyncOfLayers";
                             case Forget::kSyncOfDirectories:
                               return "SyncOfDirectories";
                             default:
                               return "SyncOfIndex";
                           }
                         });

}  // namespace
}  // namespace caisson::layer
