#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "caisson/volume.h"
#include "lib/base/status_matchers.h"
#include "lib/sys/open.h"

namespace caisson {
namespace {

namespace fs = std::filesystem;
using ::caisson::testing::StatusIs;
using ::testing::_;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

size_t OpenDescriptors() {
  size_t count = 0;
  for (int fd = 0; fd < 1024; ++fd) count += ::fcntl(fd, F_GETFD) >= 0 ? 1 : 0;
  return count;
}

std::string Read(const fs::path& path) {
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

// The paths below `root`, sorted.
std::vector<std::string> Tree(const fs::path& root) {
  std::vector<std::string> names;
  for (const auto& entry : fs::recursive_directory_iterator(root)) {
    names.push_back(fs::relative(entry.path(), root));
  }
  std::sort(names.begin(), names.end());
  return names;
}

// A child that runs `body` and then waits to be killed; it says so first.
class Child {
 public:
  template <typename Body>
  explicit Child(const Body& body) {
    int fds[2];
    EXPECT_EQ(::pipe2(fds, O_CLOEXEC), 0);
    pid_ = ::fork();
    if (pid_ == 0) {
      body();
      [[maybe_unused]] const ssize_t n = ::write(fds[1], "x", 1);
      for (;;) ::pause();
    }
    ::close(fds[1]);
    char ready;
    EXPECT_EQ(::read(fds[0], &ready, 1), 1);
    ::close(fds[0]);
  }
  ~Child() { Kill(); }

  pid_t pid() const { return pid_; }
  void Kill() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }

 private:
  pid_t pid_ = -1;
};

class VolumeStoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) {
      ASSERT_FALSE(testing::TestsMustRun()) << "needs root";
      GTEST_SKIP() << "needs root, for owners and device nodes";
    }
    char name[] = "/tmp/caisson-volume-test-XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    dir_ = name;
    descriptors_ = OpenDescriptors();
    Reopen();
  }
  void TearDown() override {
    if (dir_.empty()) return;
    store_.reset();
    EXPECT_EQ(OpenDescriptors(), descriptors_);
    fs::remove_all(dir_);
  }

  void Reopen() {
    store_.reset();
    auto store = VolumeStore::Open({.path = path()});
    ASSERT_OK(store);
    store_.emplace(*std::move(store));
  }

  std::string path() const { return dir_ + "/store"; }
  std::string volume(const std::string& name) const {
    return absl::StrCat(path(), "/volumes/", name);
  }
  const std::string& dir() const { return dir_; }
  VolumeStore& store() { return *store_; }

  std::vector<std::string> Names(const VolumeFilter& filter = {}) {
    std::vector<std::string> names;
    auto list = store().List(filter);
    EXPECT_OK(list);
    if (!list.ok()) return names;
    for (const VolumeInfo& info : *list) names.push_back(info.name);
    return names;
  }

  // A directory as an image may have it.
  std::string MakeImage() {
    const std::string image = dir_ + "/image";
    fs::create_directories(image + "/sub");
    std::ofstream(image + "/file") << "from the image";
    std::ofstream(image + "/sub/other") << "x";
    EXPECT_EQ(::chown(image.c_str(), 70, 71), 0);
    EXPECT_EQ(::chmod(image.c_str(), 0750), 0);
    return image;
  }

  static absl::Status OpenData(const VolumeUse& use, const std::string& image) {
    ASSIGN_OR_RETURN(const UniqueFd covered, sys::Open(image, O_PATH));
    return use.OpenData(covered.borrow()).status();
  }

 private:
  std::string dir_;
  std::optional<VolumeStore> store_;
  size_t descriptors_ = 0;
};

TEST_F(VolumeStoreTest, CreateInspectListRemove) {
  const absl::Time before = absl::Now();
  ASSERT_OK_AND_ASSIGN(
      const VolumeInfo made,
      store().Create({.name = "db", .labels = {{"app", "web"}, {"x", ""}}}));
  EXPECT_EQ(made.path, volume("db") + "/data");
  ASSERT_OK(store().Create({.name = "a.b_c-d"}));
  Reopen();
  ASSERT_OK_AND_ASSIGN(const VolumeInfo info, store().Inspect("db"));
  EXPECT_EQ(info.name, "db");
  EXPECT_EQ(info.path, made.path);
  EXPECT_EQ(info.labels, (VolumeLabels{{"app", "web"}, {"x", ""}}));
  EXPECT_FALSE(info.anonymous);
  EXPECT_THAT(info.users, IsEmpty());
  EXPECT_GE(info.created, before);
  EXPECT_LE(info.created, absl::Now());
  struct stat status;
  ASSERT_EQ(::stat(info.path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0755u);
  EXPECT_THAT(Names(), ElementsAre("a.b_c-d", "db"));
  EXPECT_OK(store().Remove("db"));
  EXPECT_THAT(Names(), ElementsAre("a.b_c-d"));
  EXPECT_THAT(store().Remove("db"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("\"db\"")));
  EXPECT_THAT(store().Inspect("db"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("\"db\"")));
  EXPECT_THAT(Tree(path() + "/staging"), IsEmpty());
}

TEST_F(VolumeStoreTest, NamesThatAreRefused) {
  for (const std::string& name :
       {std::string("."), std::string(".."), std::string("../x"),
        std::string("a/b"), std::string("-a"), std::string("_a"),
        std::string("a b"), std::string("a\nb"), std::string("\xc3\xa4"),
        std::string(256, 'a'), std::string("a\0b", 3)}) {
    EXPECT_THAT(store().Create({.name = name}),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("name of a volume")))
        << name;
    EXPECT_FALSE(store().Use(name).ok());
    EXPECT_FALSE(store().Inspect(name).ok());
    EXPECT_FALSE(store().Remove(name).ok());
  }
  EXPECT_THAT(store().Remove(""), StatusIs(absl::StatusCode::kInvalidArgument,
                                           HasSubstr("name of a volume")));
  EXPECT_OK(store().Create({.name = std::string(255, 'a')}));
  EXPECT_THAT(Tree(path() + "/staging"), IsEmpty());
}

TEST_F(VolumeStoreTest, LabelsKeepAnything) {
  const VolumeLabels labels = {{"line\nend\n", "a\nlabel b=c\n"},
                               {"k", std::string("\0\xff=x ", 5)}};
  ASSERT_OK(store().Create({.name = "v", .labels = labels}));
  ASSERT_OK_AND_ASSIGN(const VolumeInfo info, store().Inspect("v"));
  EXPECT_EQ(info.labels, labels);
  EXPECT_THAT(
      store().Create({.name = "w", .labels = {{"", "x"}}}),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("is no key")));
  EXPECT_THAT(
      store().Create({.name = "w", .labels = {{"a=b", "x"}}}),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("has a \"=\"")));
  EXPECT_THAT(
      store().Create({.name = "w", .labels = {{"a", std::string(70000, 'x')}}}),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("bytes of")));
}

TEST_F(VolumeStoreTest, TakenNames) {
  ASSERT_OK(store().Create({.name = "v"}));
  EXPECT_THAT(store().Create({.name = "v"}),
              StatusIs(absl::StatusCode::kAlreadyExists,
                       "there is a volume \"v\" in the store already"));
  EXPECT_THAT(Tree(path() + "/staging"), IsEmpty());
}

TEST_F(VolumeStoreTest, OneOfManyMakesIt) {
  std::vector<std::thread> threads;
  std::atomic<int> made{0};
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      auto other = VolumeStore::Open({.path = path()});
      const auto info = other->Create({.name = "v"});
      made += info.ok() ? 1 : 0;
      EXPECT_TRUE(info.ok() || absl::IsAlreadyExists(info.status()));
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(made, 1);
}

TEST_F(VolumeStoreTest, HoldsLastUntilTheyAreReleased) {
  const Child child([&] {
    EXPECT_OK(store().Hold("db", "web.1", {.user = "web"}));
    EXPECT_OK(store().Hold("db", "web.1", {.user = "site"}));
  });
  Reopen();  // with Recover()
  const VolumePruneOptions all = {.named = true};
  EXPECT_THAT(store().Prune(all).value().removed, IsEmpty());
  EXPECT_THAT(store().Remove("db"),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("in use by \"site\" (not running)")));
  {
    // Who holds it and uses it is one.
    ASSERT_OK_AND_ASSIGN(const VolumeUse use,
                         store().Use("db", {.user = "site"}));
    EXPECT_THAT(store().Remove("db"),
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         ::testing::EndsWith(absl::StrCat(
                             "by \"site\" (process ", ::getpid(), ")"))));
  }
  EXPECT_THAT(Names({.in_use = true}), ElementsAre("db"));
  EXPECT_THAT(store().Hold("db", "../x"),
              StatusIs(absl::StatusCode::kInvalidArgument, _));
  EXPECT_THAT(store().Hold("none", "x", {.create = false}),
              StatusIs(absl::StatusCode::kNotFound, _));
  ASSERT_OK(store().Hold("db", "other", {.user = "other"}));
  ASSERT_OK(store().Release("db", "web.1"));
  EXPECT_THAT(store().Prune(all).value().removed, IsEmpty());
  ASSERT_OK(store().Release("db", "other"));
  ASSERT_OK(store().Release("db", "other"));
  ASSERT_OK(store().Release("none", "other"));
  EXPECT_THAT(store().Prune(all).value().removed, ElementsAre("db"));
}

TEST_F(VolumeStoreTest, FiltersAndPrune) {
  ASSERT_OK(store().Create({.name = "a", .labels = {{"keep", "1"}}}));
  ASSERT_OK(store().Create({.name = "b", .labels = {{"keep", "2"}}}));
  ASSERT_OK_AND_ASSIGN(const VolumeInfo anonymous, store().Create({}));
  EXPECT_EQ(anonymous.name.size(), 64u);
  EXPECT_TRUE(anonymous.anonymous);
  ASSERT_OK_AND_ASSIGN(auto use, store().Use("b", {.user = "web"}));
  EXPECT_THAT(Names({.in_use = true}), ElementsAre("b"));
  EXPECT_EQ(Names({.in_use = false}).size(), 2u);
  EXPECT_THAT(Names({.labels = {{"keep", std::nullopt}}}),
              ElementsAre("a", "b"));
  EXPECT_THAT(Names({.labels = {{"keep", "1"}}}), ElementsAre("a"));
  ASSERT_OK_AND_ASSIGN(VolumePruneReport report, store().Prune());
  EXPECT_THAT(report.removed, ElementsAre(anonymous.name));
  EXPECT_THAT(report.failures, IsEmpty());
  ASSERT_OK_AND_ASSIGN(
      report,
      store().Prune({.named = true, .filter = {.labels = {{"keep", "3"}}}}));
  EXPECT_THAT(report.removed, IsEmpty());
  ASSERT_OK_AND_ASSIGN(report, store().Prune({.named = true}));
  EXPECT_THAT(report.removed, ElementsAre("a"));
  EXPECT_THAT(Names(), ElementsAre("b"));
}

TEST_F(VolumeStoreTest, InUseIsNotRemoved) {
  std::optional<VolumeUse> first;
  {
    ASSERT_OK_AND_ASSIGN(auto use, store().Use("v", {.user = "web"}));
    first.emplace(std::move(use));
  }
  ASSERT_OK_AND_ASSIGN(auto second, store().Use("v", {.user = "cron"}));
  ASSERT_OK_AND_ASSIGN(const VolumeInfo info, store().Inspect("v"));
  EXPECT_EQ(info.users.size(), 2u);
  EXPECT_THAT(
      store().Remove("v"),
      StatusIs(absl::StatusCode::kFailedPrecondition,
               AllOf(HasSubstr("\"v\" is in use by "),
                     HasSubstr(absl::StrCat("\"web\" (process ", ::getpid())),
                     HasSubstr("\"cron\" (process"))));
  first.reset();
  EXPECT_THAT(store().Remove("v"),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       absl::StrCat("volume \"v\" is in use by \"cron\" "
                                    "(process ",
                                    ::getpid(), ")")));
  // What mounts the volume uses it.
  std::optional<BindMount> bind = second.BindAt("/data");
  { const VolumeUse gone = std::move(second); }
  EXPECT_FALSE(store().Remove("v").ok());
  bind.reset();
  EXPECT_THAT(Tree(volume("v") + "/uses"), IsEmpty());
  EXPECT_OK(store().Remove("v"));
}

TEST_F(VolumeStoreTest, DuplicateOfTheLockKeepsTheVolume) {
  UniqueFd lock;
  {
    ASSERT_OK_AND_ASSIGN(auto use, store().Use("v", {.user = "detached"}));
    ASSERT_OK_AND_ASSIGN(lock, sys::Duplicate(use.lock()));
  }
  EXPECT_THAT(store().Remove("v"),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("\"detached\"")));
  lock.reset();
  EXPECT_OK(store().Remove("v"));
}

TEST_F(VolumeStoreTest, UseOfAnotherProcessEndsWithIt) {
  ASSERT_OK(store().Create({.name = "v"}));
  Child child([&] {
    auto other = VolumeStore::Open({.path = path()});
    auto use = other->Use("v", {.user = "child"});
    if (!use.ok()) ::_exit(1);
    new VolumeUse(*std::move(use));  // as long as the process
  });
  EXPECT_THAT(store().Remove("v"),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr(absl::StrCat("\"child\" (process ",
                                              child.pid(), ")"))));
  child.Kill();
  ASSERT_OK_AND_ASSIGN(const VolumeInfo info, store().Inspect("v"));
  EXPECT_THAT(info.users, IsEmpty());
  EXPECT_EQ(Tree(volume("v") + "/uses").size(), 1u);
  EXPECT_OK(store().Recover());
  EXPECT_THAT(Tree(volume("v") + "/uses"), IsEmpty());
  EXPECT_OK(store().Remove("v"));
}

TEST_F(VolumeStoreTest, UseMakesTheVolumeUnlessToldNotTo) {
  EXPECT_THAT(store().Use("v", {.create = false}),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("\"v\"")));
  ASSERT_OK_AND_ASSIGN(
      const auto use,
      store().Use("v", {.options = {.labels = {{"a", "b"}}, .uid = 7}}));
  EXPECT_EQ(use.name(), "v");
  ASSERT_OK_AND_ASSIGN(const VolumeInfo info, store().Inspect("v"));
  EXPECT_EQ(info.labels.size(), 1u);
  struct stat status;
  ASSERT_EQ(::stat(info.path.c_str(), &status), 0);
  EXPECT_EQ(status.st_uid, 7u);
}

TEST_F(VolumeStoreTest, CopyUpOfAnEmptyVolume) {
  const std::string image = MakeImage();
  ASSERT_OK_AND_ASSIGN(const auto use, store().Use("v"));
  // Nothing to copy.
  ASSERT_OK(use.OpenData());
  EXPECT_THAT(Tree(volume("v") + "/data"), IsEmpty());
  EXPECT_OK(OpenData(use, image));
  EXPECT_THAT(Tree(volume("v") + "/data"),
              ElementsAre("file", "sub", "sub/other"));
  EXPECT_EQ(Read(volume("v") + "/data/file"), "from the image");
  struct stat status;
  ASSERT_EQ(::stat((volume("v") + "/data").c_str(), &status), 0);
  EXPECT_EQ(status.st_uid, 70u);
  EXPECT_EQ(status.st_gid, 71u);
  EXPECT_EQ(status.st_mode & 07777, 0750u);
  // Not again, once something is in it.
  fs::remove_all(volume("v") + "/data/sub");
  EXPECT_OK(OpenData(use, image));
  EXPECT_THAT(Tree(volume("v") + "/data"), ElementsAre("file"));
  EXPECT_THAT(Tree(volume("v")),
              ElementsAre("data", "data/file", "uses", ::testing::_, "volume"));
}

TEST_F(VolumeStoreTest, NoCopy) {
  const std::string image = MakeImage();
  ASSERT_OK_AND_ASSIGN(const auto use, store().Use("v", {.copy = false}));
  EXPECT_OK(OpenData(use, image));
  EXPECT_THAT(Tree(volume("v") + "/data"), IsEmpty());
}

TEST_F(VolumeStoreTest, EmptyDirectoryOfAnImageGivesItsOwner) {
  const std::string image = MakeImage();
  fs::remove_all(image + "/sub");
  fs::remove(image + "/file");
  ASSERT_OK_AND_ASSIGN(const auto use, store().Use("v"));
  EXPECT_OK(OpenData(use, image));
  struct stat status;
  ASSERT_EQ(::stat((volume("v") + "/data").c_str(), &status), 0);
  EXPECT_EQ(status.st_uid, 70u);
}

TEST_F(VolumeStoreTest, CopyThatFailedLeavesNothing) {
  ASSERT_OK_AND_ASSIGN(const auto use, store().Use("v"));
  const UniqueFd file(
      ::open((path() + "/volumes.lock").c_str(), O_RDONLY | O_CLOEXEC));
  EXPECT_THAT(use.OpenData(file.borrow()),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("volume \"v\""), HasSubstr("ENOTDIR"))));
  EXPECT_THAT(Tree(volume("v") + "/data"), IsEmpty());
  EXPECT_FALSE(fs::exists(volume("v") + "/copying"));
}

// What a process leaves that is killed while it copies.
TEST_F(VolumeStoreTest, InterruptedCopyIsRedone) {
  const std::string image = MakeImage();
  ASSERT_OK(store().Create({.name = "v"}));
  fs::create_directories(volume("v") + "/copying/half");
  {
    ASSERT_OK_AND_ASSIGN(const auto use, store().Use("v"));
    EXPECT_OK(OpenData(use, image));
  }
  EXPECT_THAT(Tree(volume("v") + "/data"),
              ElementsAre("file", "sub", "sub/other"));
  EXPECT_FALSE(fs::exists(volume("v") + "/copying"));
}

// The same, once the copy was complete: whoever comes next moves the rest, also
// if he wants no copy himself. What a container has made meanwhile stays.
TEST_F(VolumeStoreTest, InterruptedPublicationIsFinished) {
  for (const bool recover : {false, true}) {
    ASSERT_OK(store().Create({.name = "v"}));
    fs::create_directories(volume("v") + "/copied/dir");
    std::ofstream(volume("v") + "/copied/a") << "image";
    std::ofstream(volume("v") + "/copied/b") << "image";
    ASSERT_EQ(::chmod((volume("v") + "/copied").c_str(), 0701), 0);
    std::ofstream(volume("v") + "/data/b") << "container";
    if (recover) {
      EXPECT_OK(store().Recover());
    } else {
      ASSERT_OK_AND_ASSIGN(const auto use, store().Use("v", {.copy = false}));
      ASSERT_OK(use.OpenData());
    }
    EXPECT_THAT(Tree(volume("v") + "/data"), ElementsAre("a", "b", "dir"));
    EXPECT_EQ(Read(volume("v") + "/data/b"), "container");
    EXPECT_FALSE(fs::exists(volume("v") + "/copied"));
    struct stat status;
    ASSERT_EQ(::stat((volume("v") + "/data").c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 07777, 0701u);
    EXPECT_OK(store().Remove("v"));
  }
}

TEST_F(VolumeStoreTest, CopyUpByManyAtOnce) {
  const std::string image = MakeImage();
  for (int i = 0; i < 200; ++i) std::ofstream(absl::StrCat(image, "/", i)) << i;
  std::vector<std::thread> threads;
  for (int i = 0; i < 6; ++i) {
    threads.emplace_back([&] {
      auto other = VolumeStore::Open({.path = path()});
      auto use = other->Use("v");
      ASSERT_OK(use);
      EXPECT_OK(OpenData(*use, image));
      // Whoever has it open sees all of it.
      EXPECT_EQ(Tree(volume("v") + "/data").size(), 203u);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_FALSE(fs::exists(volume("v") + "/copied"));
}

// kill -9 at any instant: a volume is there with its record or not at all, and
// its data are empty, being published or complete.
TEST_F(VolumeStoreTest, KilledAtAnyInstant) {
  const std::string image = MakeImage();
  for (int i = 0; i < 20; ++i) std::ofstream(absl::StrCat(image, "/", i)) << i;
  const size_t complete = Tree(image).size();
  size_t copied = 0;
  // On a busy machine it takes longer until something is complete.
  for (int round = 0; round < 60 || (copied == 0 && round < 600); ++round) {
    const pid_t child = ::fork();
    if (child == 0) {
      for (int i = 0;; ++i) {
        auto other = VolumeStore::Open({.path = path(), .recover = false});
        const std::string name = absl::StrCat("v", i % 3);
        if (i / 3 % 2 == 0) {
          auto use = other->Use(name);
          if (use.ok()) OpenData(*use, image).IgnoreError();
        } else {
          other->Remove(name).IgnoreError();
        }
      }
    }
    ::usleep(static_cast<useconds_t>(500 + round * 1370 % 90000 +
                                     round / 60 * 100000));
    ASSERT_EQ(::kill(child, SIGKILL), 0);
    ASSERT_EQ(::waitpid(child, nullptr, 0), child);
    Reopen();
    EXPECT_THAT(Tree(path() + "/staging"), IsEmpty());
    ASSERT_OK_AND_ASSIGN(const auto volumes, store().List());
    for (const VolumeInfo& info : volumes) {
      const size_t files = Tree(info.path).size();
      EXPECT_TRUE(files == 0 || files == complete) << files;
      copied += files == complete ? 1 : 0;
      EXPECT_THAT(info.users, IsEmpty());
      EXPECT_FALSE(fs::exists(volume(info.name) + "/copying"));
      EXPECT_FALSE(fs::exists(volume(info.name) + "/copied"));
      EXPECT_OK(store().Remove(info.name));
    }
  }
  EXPECT_GT(copied, 0u);
}

TEST_F(VolumeStoreTest, RecoverLeavesTheLivingAlone) {
  Child child([&] {
    const std::string made = path() + "/staging/alive";
    fs::create_directories(made);
    const int fd = ::open(made.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (::flock(fd, LOCK_EX) != 0) ::_exit(1);
  });
  fs::create_directories(path() + "/staging/dead/data/x");
  EXPECT_OK(store().Recover());
  EXPECT_THAT(Tree(path() + "/staging"), ElementsAre("alive"));
  child.Kill();
  EXPECT_OK(store().Recover());
  EXPECT_THAT(Tree(path() + "/staging"), IsEmpty());
}

TEST_F(VolumeStoreTest, Usage) {
  ASSERT_OK(store().Create({.name = "v"}));
  const std::string data = volume("v") + "/data";
  std::ofstream(data + "/a") << std::string(100000, 'x');
  fs::create_hard_link(data + "/a", data + "/b");
  fs::create_directory(data + "/dir");
  fs::create_symlink("/usr", data + "/link");
  ASSERT_OK_AND_ASSIGN(const VolumeUsage usage, store().Usage("v"));
  EXPECT_EQ(usage.files, 5u);
  EXPECT_GE(usage.bytes, 100000u);
  EXPECT_LT(usage.bytes, 200000u);
  EXPECT_THAT(store().Usage("w"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("\"w\"")));
}

TEST_F(VolumeStoreTest, OtherDirectoriesAreRefused) {
  const std::string other = dir() + "/other";
  fs::create_directory(other);
  std::ofstream(other + "/precious") << "x";
  EXPECT_THAT(VolumeStore::Open({.path = other}),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("neither empty nor a volume store")));
  EXPECT_THAT(VolumeStore::Open({.path = dir() + "/no/such"}),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("no/such")));
  EXPECT_THAT(VolumeStore::Open({}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("path")));
  ASSERT_EQ(::chmod(path().c_str(), 0755), 0);
  Reopen();
  struct stat status;
  ASSERT_EQ(::stat(path().c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0700u);
}

TEST_F(VolumeStoreTest, DamagedRecordIsNamed) {
  ASSERT_OK(store().Create({.name = "v"}));
  for (const char* text :
       {"", "caisson-volume 1\nname v\n", "caisson-volume 2\nend\n",
        "caisson-volume 1\nname v\nend\n",
        "caisson-volume 1\nname v\ncreated x\nanonymous 0\nend\n",
        "caisson-volume 1\nname v\ncreated 1\nanonymous 0\nlabel "
        "a=\\q\nend\n"}) {
    std::ofstream(volume("v") + "/volume") << text;
    EXPECT_THAT(store().Inspect("v"), StatusIs(absl::StatusCode::kDataLoss,
                                               HasSubstr("volume \"v\"")))
        << text;
  }
  EXPECT_OK(store().Remove("v"));
}

}  // namespace
}  // namespace caisson
