// Layers as overlayfs writes them, taken apart, written as tars and applied
// again.
#include "lib/layer/layer_changes.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gtest/gtest.h"
#include "lib/base/status_matchers.h"
#include "lib/layer/layer_tar.h"
#include "lib/layer/test_tar.h"
#include "lib/layer/test_unpack.h"
#include "lib/sys/mount.h"

namespace caisson::layer {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::StatusIs;

// Layers, bottom first, and one that is being written above them.
class Stack final {
 public:
  explicit Stack(LayerFormat format = LayerFormat::kOverlayTrusted)
      : format_(format) {
    NewTop();
  }

  TestDir& upper() { return *upper_; }
  std::vector<BorrowedFd> Lowers() const {
    std::vector<BorrowedFd> fds;
    for (auto it = layers_.rbegin(); it != layers_.rend(); ++it) {
      fds.push_back((*it)->fd());
    }
    return fds;
  }

  // The path, ending with "/", of an overlay that can be written to.
  std::string Mount() {
    mount_ = Overlay(Lowers(), /*writable=*/true);
    return absl::StrCat("/proc/self/fd/", mount_.get(), "/");
  }
  void Unmount() { mount_.reset(); }

  // What a container sees.
  std::string Seen() {
    std::vector<BorrowedFd> dirs = Lowers();
    dirs.insert(dirs.begin(), upper_->fd());
    const UniqueFd mount = Overlay(dirs, /*writable=*/false);
    return DumpTree(absl::StrCat("/proc/self/fd/", mount.get(), "/"));
  }

  // Which names in the upper directory are one file.
  std::vector<std::string> Links() const {
    std::map<ino_t, std::vector<std::string>> names;
    for (const std::string& name : upper_->Names()) {
      const struct stat status = upper_->Stat(name);
      if (S_ISDIR(status.st_mode) || IsWhiteout(status)) continue;
      names[status.st_ino].push_back(name);
    }
    std::vector<std::string> groups;
    for (const auto& [inode, group] : names) {
      if (group.size() > 1) groups.push_back(absl::StrJoin(group, " = "));
    }
    std::sort(groups.begin(), groups.end());
    return groups;
  }

  LayerChangesOptions Options() {
    LayerChangesOptions options;
    options.tops = {upper_->fd()};
    options.lowers = Lowers();
    options.format = format_;
    return options;
  }

  absl::StatusOr<std::string> Tar() { return TarOf({.changes = Options()}); }

  static absl::StatusOr<std::string> TarOf(LayerTarOptions options) {
    LayerTarSource source(std::move(options));
    std::string tar;
    std::vector<char> buffer(1 << 16);
    for (;;) {
      auto n = source.Read(absl::MakeSpan(buffer));
      if (!n.ok()) return n.status();
      if (*n == 0) return tar;
      tar.append(buffer.data(), *n);
    }
  }

  // Replaces the upper directory by what `tar` makes of the layers below.
  absl::Status Apply(const std::string& tar) {
    NewTop();
    UnpackOptions options;
    const std::vector<BorrowedFd> lowers = Lowers();
    options.format = format_;
    options.lowers = lowers;
    return Unpack(tar, *upper_, options).status();
  }

  // From now on overlays leave data and children where they were.
  void KeepElsewhere() { elsewhere_ = true; }

  // From now on the upper directory is the topmost layer.
  void Commit() {
    layers_.push_back(std::move(upper_));
    NewTop();
  }

  // "A a", ... in the order of the walk.
  std::vector<std::string> Changes() {
    LayerChanges changes(Options());
    std::vector<std::string> list;
    for (;;) {
      auto entry = changes.Next();
      EXPECT_OK(entry);
      if (!entry.ok() || !entry->has_value()) return list;
      list.push_back(LayerChange{(*entry)->kind, (*entry)->path}.ToString());
    }
  }

 private:
  void NewTop() {
    upper_ = std::make_unique<TestDir>();
    work_ = std::make_unique<TestDir>();
    ::chmod(upper_->path().c_str(), 0755);
    // As LayerStore does: an empty layer changes nothing.
    struct stat status = {};
    status.st_mtim.tv_sec = 1'000'000'000;
    if (!layers_.empty()) ::fstat(layers_.back()->fd().get(), &status);
    const timespec times[2] = {status.st_mtim, status.st_mtim};
    ::futimens(upper_->fd().get(), times);
  }

  UniqueFd Overlay(const std::vector<BorrowedFd>& dirs, bool writable) {
    const auto path = [](std::string* out, BorrowedFd fd) {
      absl::StrAppend(out, "/proc/self/fd/", fd.get());
    };
    std::vector<BorrowedFd> lowers = dirs;
    if (lowers.size() < (writable ? 1 : 2)) lowers.push_back(empty_.fd());
    auto make = [&]() -> absl::StatusOr<UniqueFd> {
      auto overlay = sys::FsContext::Open(sys::DirectMounts(), "overlay");
      if (!overlay.ok()) return overlay.status();
      for (const auto& [key, value] : std::map<std::string, std::string>{
               {"lowerdir", absl::StrJoin(lowers, ":", path)},
               {"redirect_dir", elsewhere_ ? "on" : "nofollow"},
               {"metacopy", elsewhere_ ? "on" : "off"},
               {"index", "off"}}) {
        auto status = overlay->SetString(key.c_str(), value);
        if (!status.ok()) return status;
      }
      if (format_ == LayerFormat::kOverlayUser) {
        auto status = overlay->SetFlag("userxattr");
        if (!status.ok()) return status;
      }
      if (!writable) return overlay->Mount(MOUNT_ATTR_RDONLY);
      for (const auto& [key, dir] :
           {std::pair("upperdir", upper_->fd()), {"workdir", work_->fd()}}) {
        std::string value;
        path(&value, dir);
        auto status = overlay->SetString(key, value);
        if (!status.ok()) return status;
      }
      return overlay->Mount(0);
    };
    auto mount = make();
    EXPECT_OK(mount);
    return mount.ok() ? *std::move(mount) : UniqueFd();
  }

  const LayerFormat format_;
  bool elsewhere_ = false;
  TestDir empty_;
  std::vector<std::unique_ptr<TestDir>> layers_;
  std::unique_ptr<TestDir> upper_;
  std::unique_ptr<TestDir> work_;
  UniqueFd mount_;
};

std::string At(const std::string& root, absl::string_view name) {
  return absl::StrCat(root, name);
}

void WriteTo(const std::string& path, absl::string_view text,
             off_t offset = 0) {
  const UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
  ASSERT_TRUE(fd.valid()) << path;
  EXPECT_EQ(::pwrite(fd.get(), text.data(), text.size(), offset),
            static_cast<ssize_t>(text.size()));
}

// ---- changes made at random ----

// `version 2`, the owner's, a user's, the group's, the mask's and others'.
std::string Acl(uint32_t user) {
  std::string acl("\x02\0\0\0", 4);
  const auto add = [&acl](uint16_t tag, uint16_t perm, uint32_t id) {
    acl.append(reinterpret_cast<const char*>(&tag), 2);
    acl.append(reinterpret_cast<const char*>(&perm), 2);
    acl.append(reinterpret_cast<const char*>(&id), 4);
  };
  add(0x01, 7, ~0u);
  add(0x02, 5, user);
  add(0x04, 5, ~0u);
  add(0x10, 7, ~0u);
  add(0x20, 4, ~0u);
  return acl;
}

class Mutator final {
 public:
  Mutator(std::string root, uint32_t seed)
      : root_(std::move(root)), random_(seed) {}

  void Run(int steps) {
    for (int i = 0; i < steps; ++i) Step();
  }

 private:
  uint32_t Pick(uint32_t limit) { return random_() % limit; }

  // A name of few, so that they meet again.
  std::string Name() {
    if (Pick(20) == 0) return std::string(97 + Pick(6), 'L');
    if (Pick(20) == 0) return "\xff\n\"name\" ";
    return std::string(1, static_cast<char>('a' + Pick(7)));
  }

  // A directory that exists.
  std::string Directory() {
    std::string path = root_;
    for (uint32_t depth = Pick(4); depth-- > 0;) {
      const std::string next = path + Name();
      if (!std::filesystem::is_directory(
              std::filesystem::symlink_status(next))) {
        break;
      }
      path = next + "/";
    }
    return path;
  }
  std::string Any() { return Directory() + Name(); }

  void Step() {
    const std::string path = Any();
    switch (Pick(16)) {
      case 0:
      case 1:
      case 2:
        ::mkdir(path.c_str(), 0755);
        break;
      case 3:
      case 4:
        Write(path);
        break;
      case 5:
        ::symlink(std::string(1 + Pick(150), 't').c_str(), path.c_str());
        break;
      case 6:
        ::mknod(path.c_str(), (Pick(2) ? S_IFCHR : S_IFBLK) | 0600,
                makedev(1 + Pick(9), Pick(300)));
        break;
      case 7:
        ::mkfifo(path.c_str(), 0600);
        break;
      case 8:
        ::link(Any().c_str(), path.c_str());
        break;
      case 9:
        Remove(path);
        break;
      case 10:
        Remove(path);
        ::mkdir(path.c_str(), 0700);
        Write(path + "/" + Name());
        break;
      case 11:
        Rename(Any(), path);
        break;
      case 12:
        ::lchown(path.c_str(), Pick(3) ? Pick(70'000) : 3'000'000'000 + Pick(9),
                 Pick(70'000));
        break;
      case 13:
        if (!IsLink(path)) ::chmod(path.c_str(), Pick(010000));
        break;
      case 14:
        SetXattr(path);
        break;
      case 15:
        SetTime(Pick(5) ? path : root_);
        break;
    }
  }

  static bool IsLink(const std::string& path) {
    return std::filesystem::is_symlink(std::filesystem::symlink_status(path));
  }

  // As mv(1) does it: overlayfs renames no directory of a lower layer.
  void Rename(const std::string& from, const std::string& to) {
    if (::rename(from.c_str(), to.c_str()) == 0 || errno != EXDEV) return;
    std::error_code failed;
    std::filesystem::copy(from, to,
                          std::filesystem::copy_options::recursive |
                              std::filesystem::copy_options::copy_symlinks,
                          failed);
    Remove(from);
  }

  void Remove(const std::string& path) {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }

  void Write(const std::string& path) {
    const UniqueFd fd(
        ::open(path.c_str(),
               O_WRONLY | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0644));
    struct stat status = {};
    if (::fstat(fd.get(), &status) != 0 || !S_ISREG(status.st_mode)) return;
    if (Pick(4) == 0) ::ftruncate(fd.get(), Pick(300'000));
    const std::string text = absl::StrCat("text ", random_());
    ::pwrite(fd.get(), text.data(), text.size(), Pick(2) ? 0 : Pick(200'000));
  }

  void SetXattr(const std::string& path) {
    const std::string value = absl::StrCat(random_());
    switch (Pick(5)) {
      case 0:
        ::lsetxattr(path.c_str(), "user.a", value.data(), value.size(), 0);
        break;
      case 1:
        ::lsetxattr(path.c_str(), "trusted.b", value.data(), value.size(), 0);
        break;
      case 2:
        ::lremovexattr(path.c_str(), "user.a");
        break;
      case 3: {
        const std::string acl = Acl(Pick(1000));
        ::lsetxattr(path.c_str(), "system.posix_acl_access", acl.data(),
                    acl.size(), 0);
        break;
      }
      default: {
        std::string caps("\x01\0\0\x02\0\x20\0\0", 8);
        caps.append(12, '\0');
        ::lsetxattr(path.c_str(), "security.capability", caps.data(),
                    caps.size(), 0);
      }
    }
  }

  void SetTime(const std::string& path) {
    const timespec time = {static_cast<time_t>(random_()) - (1 << 30),
                           static_cast<long>(random_() % 1'000'000'000)};
    const timespec times[2] = {time, time};
    ::utimensat(AT_FDCWD, path.c_str(), times, AT_SYMLINK_NOFOLLOW);
  }

  const std::string root_;
  std::mt19937 random_;
};

class LayerChangesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() == 0) return;
    if (testing::TestsMustRun()) FAIL() << "needs root";
    GTEST_SKIP() << "needs root: overlayfs and trusted attributes";
  }
};

// apply(diff(A, B), A) == B, for layers of layers; and what was applied makes
// the same tar again.
TEST_F(LayerChangesTest, ApplyingADifferenceMakesTheTree) {
  for (uint32_t seed = 1; seed <= 4; ++seed) {
    Stack stack(seed == 4 ? LayerFormat::kOverlayUser
                          : LayerFormat::kOverlayTrusted);
    TestDir plain;
    for (uint32_t round = 0; round < 3; ++round) {
      SCOPED_TRACE(absl::StrCat("seed ", seed, " round ", round));
      Mutator(stack.Mount(), 100 * seed + round).Run(round == 0 ? 400 : 150);
      stack.Unmount();
      const std::string wanted = stack.Seen();
      const std::vector<std::string> links = stack.Links();
      ASSERT_OK_AND_ASSIGN(const std::string tar, stack.Tar());
      // As a layer of its own,
      ASSERT_OK(stack.Apply(tar));
      ASSERT_EQ(stack.Seen(), wanted);
      ASSERT_EQ(stack.Links(), links);
      ASSERT_OK_AND_ASSIGN(const std::string again, stack.Tar());
      ASSERT_TRUE(again == tar) << "the tar of the applied layer differs";
      // and on a tree that has the lower layers already.
      UnpackOptions options;
      options.format = LayerFormat::kPlain;
      ASSERT_OK(Unpack(tar, plain, options));
      ASSERT_EQ(plain.Dump(), wanted);
      stack.Commit();
    }
    // All layers in one: what a container sees, and nothing else.
    LayerTarOptions all;
    all.changes.format = stack.Options().format;
    for (const BorrowedFd fd : stack.Lowers()) all.changes.tops.push_back(fd);
    ASSERT_OK_AND_ASSIGN(const std::string flat, Stack::TarOf(all));
    TestDir flattened;
    UnpackOptions options;
    options.format = LayerFormat::kPlain;
    ASSERT_OK(Unpack(flat, flattened, options));
    EXPECT_EQ(flattened.Dump(), plain.Dump());
  }
}

// ---- one by one ----

TEST_F(LayerChangesTest, ListsWhatDockerLists) {
  Stack stack;
  std::string root = stack.Mount();
  for (const char* dir : {"etc", "etc/sub", "gone", "opaque", "same"}) {
    ASSERT_EQ(::mkdir(At(root, dir).c_str(), 0755), 0);
  }
  for (const char* file :
       {"etc/a", "etc/b", "etc/sub/c", "gone/x", "opaque/old", "opaque/kept",
        "same/file", "turned"}) {
    WriteTo(At(root, file), file);
  }
  stack.Unmount();
  stack.Commit();
  EXPECT_THAT(stack.Changes(), IsEmpty());
  root = stack.Mount();
  WriteTo(At(root, "etc/sub/c"), "changed");
  WriteTo(At(root, "etc/new"), "");
  ASSERT_EQ(::unlink(At(root, "etc/b").c_str()), 0);
  std::filesystem::remove_all(At(root, "gone"));
  std::filesystem::remove_all(At(root, "opaque"));
  std::filesystem::create_directories(At(root, "opaque"));
  WriteTo(At(root, "opaque/kept"), "other");
  ASSERT_EQ(::unlink(At(root, "turned").c_str()), 0);
  ASSERT_EQ(::mkdir(At(root, "turned").c_str(), 0755), 0);
  // Copied up and left as it was.
  ::close(::open(At(root, "same/file").c_str(), O_WRONLY | O_CLOEXEC));
  stack.Unmount();
  EXPECT_TRUE(stack.upper().Exists("same/file"));
  EXPECT_THAT(stack.Changes(),
              ElementsAre("C .", "D gone", "C etc", "D etc/b", "A etc/new",
                          "C etc/sub", "C etc/sub/c", "C opaque",
                          "D opaque/old", "C opaque/kept", "C turned"));
}

TEST_F(LayerChangesTest, HolesSurvive) {
  Stack stack;
  const std::string root = stack.Mount();
  constexpr off_t kLarge = 64 << 20;
  WriteTo(At(root, "sparse"), "end", kLarge);
  stack.Unmount();
  ASSERT_OK_AND_ASSIGN(const std::string tar, stack.Tar());
  EXPECT_GT(tar.size(), static_cast<size_t>(kLarge)) << "zeros, not a map";
  ASSERT_OK(stack.Apply(tar));
  const struct stat status = stack.upper().Stat("sparse");
  EXPECT_EQ(status.st_size, kLarge + 3);
  EXPECT_LT(status.st_blocks * 512, kLarge / 16);
}

TEST_F(LayerChangesTest, SocketsAreLeftOut) {
  Stack stack;
  // What it takes the place of does not come back.
  stack.upper().Write("socket", "a file of the layer below");
  stack.Commit();
  const UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address = {.sun_family = AF_UNIX};
  absl::StrCat("/proc/self/fd/", stack.upper().fd().get(), "/socket")
      .copy(address.sun_path, sizeof(address.sun_path) - 1);
  ASSERT_EQ(
      ::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)),
      0);
  ASSERT_OK_AND_ASSIGN(const std::string tar, stack.Tar());
  ASSERT_OK(stack.Apply(tar));
  EXPECT_THAT(stack.upper().Names(), ElementsAre("socket"));
  EXPECT_TRUE(IsWhiteout(stack.upper().Stat("socket")));
}

// ---- a container that runs ----

TEST_F(LayerChangesTest, WhatReplacesAFileIsNotOpened) {
  Stack stack;
  const TestDir& upper = stack.upper();
  upper.Write("fifo", "x");
  upper.Write("gone", "x");
  upper.Write("link", "x");
  upper.Write("null", "x");
  LayerChangesOptions options = stack.Options();
  options.all = true;
  LayerChanges changes(std::move(options));
  const auto next = [&changes] {
    auto entry = changes.Next();
    EXPECT_OK(entry);
    return *std::move(*entry);
  };
  EXPECT_EQ(next().path, ".");
  for (const char* name : {"fifo", "gone", "link", "null"}) {
    const LayerEntry entry = next();
    ASSERT_EQ(entry.path, name);
    const std::string path = upper.path(name);
    ASSERT_EQ(::unlink(path.c_str()), 0);
    const absl::string_view kind = name;
    int made = 0;
    if (kind == "fifo") made = ::mkfifo(path.c_str(), 0600);
    if (kind == "link") made = ::symlink("null", path.c_str());
    if (kind == "null") {
      made = ::mknod(path.c_str(), S_IFCHR | 0600, makedev(1, 3));
    }
    ASSERT_EQ(made, 0);
    EXPECT_EQ(OpenFileOf(entry).status().code(),
              kind == "gone" ? absl::StatusCode::kNotFound
                             : absl::StatusCode::kAborted)
        << name;
    EXPECT_EQ(LinkTargetOf(entry).ok(), kind == "link");
  }
}

TEST_F(LayerChangesTest, WhatIsRemovedMeanwhileIsLeftOut) {
  constexpr int kFiles = 100;
  Stack stack;
  stack.upper().MakeDir("d");
  for (int i = 0; i < kFiles; i += 2) {
    stack.upper().Write(absl::StrCat("d/", i), "below");
  }
  stack.Commit();
  const std::string dir = stack.upper().path() + "/d";
  const pid_t child = ::fork();
  if (child == 0) {
    for (;;) {
      ::mkdir(dir.c_str(), 0755);
      ::mkdir((dir + "/inner").c_str(), 0755);
      for (int i = 0; i < kFiles; ++i) {
        const std::string file = absl::StrCat(dir, "/", i);
        ::close(::open(file.c_str(), O_WRONLY | O_CREAT, 0644));
        if (i % 3 == 0) ::link(file.c_str(), (file + "x").c_str());
      }
      for (int i = 0; i < kFiles; ++i) {
        const std::string file = absl::StrCat(dir, "/", i);
        ::unlink(file.c_str());
        ::unlink((file + "x").c_str());
      }
      ::rmdir((dir + "/inner").c_str());
      ::rmdir(dir.c_str());
    }
  }
  absl::Status status;
  for (int i = 0; i < 300 && status.ok(); ++i) status = stack.Tar().status();
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  EXPECT_OK(status);
}

TEST_F(LayerChangesTest, DepthIsLimited) {
  Stack stack;
  UniqueFd dir(
      ::open(stack.upper().path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const std::string name(100, 'd');
  for (int i = 0; i < 40; ++i) {
    ASSERT_EQ(::mkdirat(dir.get(), name.c_str(), 0755), 0);
    dir.reset(
        ::openat(dir.get(), name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  }
  EXPECT_OK(stack.Tar());
  ASSERT_EQ(::mkdirat(dir.get(), name.c_str(), 0755), 0);
  EXPECT_THAT(stack.Tar(), StatusIs(absl::StatusCode::kResourceExhausted,
                                    HasSubstr("4095 bytes; it begins \"ddd")));
}

TEST_F(LayerChangesTest, WhatIsElsewhereIsRefused) {
  for (const auto& [format, key] :
       {std::pair(LayerFormat::kOverlayTrusted, "trusted.overlay.redirect"),
        {LayerFormat::kOverlayTrusted, "trusted.overlay.metacopy"},
        {LayerFormat::kOverlayUser, "user.overlay.redirect"},
        {LayerFormat::kOverlayUser, "user.overlay.metacopy"}}) {
    Stack stack(format);
    stack.upper().MakeDir("d");
    stack.upper().SetXattr("d", key, "x");
    EXPECT_THAT(stack.Tar(), StatusIs(absl::StatusCode::kFailedPrecondition,
                                      HasSubstr(key)));
  }
}

// What the kernel notes for itself is not of the image; what the image has of
// the same names is stored with another.
TEST_F(LayerChangesTest, AttributesOfOverlayfsAreNotOfTheImage) {
  Stack stack;
  stack.upper().Write("file", "x");
  stack.upper().SetXattr("file", "trusted.overlay.origin", "x");
  stack.upper().SetXattr("file", "trusted.overlay.overlay.opaque", "y");
  ASSERT_OK_AND_ASSIGN(const std::string tar, stack.Tar());
  EXPECT_THAT(tar, HasSubstr("SCHILY.xattr.trusted.overlay.opaque=y\n"));
  EXPECT_THAT(tar, ::testing::Not(HasSubstr("overlay.origin")));
  EXPECT_THAT(tar, ::testing::Not(HasSubstr("overlay.overlay")));
}

// An overlay that somebody mounted with redirect_dir and metacopy: what the
// kernel then writes is half of what a layer has to say.
TEST_F(LayerChangesTest, WhatTheKernelLeavesElsewhereIsRefused) {
  const auto tar_after = [](const std::string& name) {
    Stack stack;
    stack.upper().MakeDir("dir");
    stack.upper().Write("dir/inside", "1");
    stack.upper().Write("file", "2");
    stack.Commit();
    stack.KeepElsewhere();
    const std::string root = stack.Mount();
    if (name == "dir") {
      EXPECT_EQ(::rename(At(root, "dir").c_str(), At(root, "moved").c_str()),
                0);
    } else {
      EXPECT_EQ(::chown(At(root, "file").c_str(), 5, 5), 0);
    }
    stack.Unmount();
    return stack.Tar();
  };
  EXPECT_THAT(tar_after("dir"),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("\"moved\" has trusted.overlay.redirect")));
  EXPECT_THAT(tar_after("file"),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("\"file\" has trusted.overlay.metacopy")));
}

TEST_F(LayerChangesTest, NamesOfWhiteoutsAreRefused) {
  Stack stack;
  stack.upper().Write(".wh.x", "");
  EXPECT_THAT(stack.Tar(), StatusIs(absl::StatusCode::kFailedPrecondition,
                                    HasSubstr(".wh.x")));
  EXPECT_OK(Stack::TarOf({.changes = stack.Options(), .plain = true}));
}

TEST_F(LayerChangesTest, LimitsHold) {
  Stack stack;
  stack.upper().Write("a", "12345");
  stack.upper().Write("b", "12345");
  LayerTarOptions options = {.changes = stack.Options()};
  options.max_bytes = 9;
  EXPECT_THAT(Stack::TarOf(options),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("max_bytes (9)")));
  options.max_bytes = 10;
  EXPECT_OK(Stack::TarOf(options));
  options.changes.max_entries = 2;
  EXPECT_THAT(Stack::TarOf(options),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("max_entries (2)")));
  const std::vector<BorrowedFd> roots = {stack.upper().fd()};
  OverlayView view(roots, LayerFormat::kOverlayTrusted);
  EXPECT_OK(view.List("", 2));
  EXPECT_THAT(view.List("", 1), StatusIs(absl::StatusCode::kResourceExhausted,
                                         HasSubstr("more than 1 files")));
}

// ---- user namespaces ----

TEST_F(LayerChangesTest, IdsBecomeThoseInside) {
  Stack stack;
  TestDir& upper = stack.upper();
  upper.Write("file", "x", 0755);
  const std::string file = upper.path("file");
  ASSERT_EQ(::lchown(upper.path().c_str(), 100'000, 200'000), 0);
  ASSERT_EQ(::lchown(file.c_str(), 100'005, 200'006), 0);
  upper.SetXattr("file", "system.posix_acl_access", Acl(100'007));
  // Revision 3, of the root 100000.
  std::string caps("\x01\0\0\x03\0\x20\0\0", 8);
  caps.append(12, '\0');
  const uint32_t root = 100'000;
  caps.append(reinterpret_cast<const char*>(&root), sizeof(root));
  upper.SetXattr("file", "security.capability", caps);
  LayerTarOptions options = {.changes = stack.Options()};
  options.changes.ids = {.users = {{0, 100'000, 65'536}},
                         .groups = {{0, 200'000, 65'536}}};
  ASSERT_OK_AND_ASSIGN(const std::string tar, Stack::TarOf(options));
  ASSERT_OK(stack.Apply(tar));
  const struct stat status = stack.upper().Stat("file");
  EXPECT_EQ(status.st_uid, 5u);
  EXPECT_EQ(status.st_gid, 6u);
  EXPECT_EQ(stack.upper().Xattr("file", "system.posix_acl_access"), Acl(7));
  std::string plain("\x01\0\0\x02\0\x20\0\0", 8);
  plain.append(12, '\0');
  EXPECT_EQ(stack.upper().Xattr("file", "security.capability"), plain);
  EXPECT_EQ(stack.upper().Stat(".").st_uid, 0u);
}

TEST_F(LayerChangesTest, OwnersWithoutAMappingAreRefused) {
  Stack stack;
  stack.upper().Write("file", "x");
  LayerTarOptions options = {.changes = stack.Options()};
  options.changes.ids.users = {{0, 100'000, 65'536}};
  EXPECT_THAT(Stack::TarOf(options),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("belongs to user 0 of the host")));
}

}  // namespace
}  // namespace caisson::layer
