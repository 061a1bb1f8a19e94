#include "lib/sys/copy_tree.h"

#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "lib/base/status_matchers.h"
#include "lib/sys/open.h"

namespace caisson::sys {
namespace {

namespace fs = std::filesystem;
using ::caisson::testing::StatusIs;
using ::testing::HasSubstr;

class CopyTreeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) {
      ASSERT_FALSE(testing::TestsMustRun()) << "needs root";
      GTEST_SKIP() << "needs root";
    }
    char name[] = "/tmp/caisson-copy-test-XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    dir_ = name;
    fs::create_directory(from());
    fs::create_directory(to());
  }
  void TearDown() override {
    if (!dir_.empty()) {
      ASSERT_EQ(::system(absl::StrCat("rm -rf ", dir_).c_str()), 0);
    }
  }

  std::string from() const { return dir_ + "/from"; }
  std::string to() const { return dir_ + "/to"; }
  const std::string& dir() const { return dir_; }

  void Write(const std::string& name, const std::string& text) {
    std::ofstream(absl::StrCat(from(), "/", name)) << text;
  }

  static absl::Status Copy(const std::string& from, const std::string& to) {
    ASSIGN_OR_RETURN(const UniqueFd source, Open(from, O_PATH));
    ASSIGN_OR_RETURN(const UniqueFd target, Open(to, O_PATH));
    return CopyTree(source.borrow(), target.borrow());
  }

  // Everything that a copy must have, by name.
  static std::map<std::string, std::string> Describe(const std::string& root) {
    std::map<std::string, std::string> result;
    std::map<ino_t, std::string> first;
    const auto add = [&](const fs::path& path) {
      struct stat s;
      ASSERT_EQ(::lstat(path.c_str(), &s), 0);
      const std::string name = fs::relative(path, root);
      std::string text = absl::StrFormat(
          "%o %d:%d rdev %d mtime %d.%d", s.st_mode, s.st_uid, s.st_gid,
          s.st_rdev, s.st_mtim.tv_sec, s.st_mtim.tv_nsec);
      if (S_ISREG(s.st_mode)) {
        std::stringstream content;
        content << std::ifstream(path).rdbuf();
        absl::StrAppend(&text, " ", content.str(), " blocks ", s.st_blocks);
      }
      if (S_ISLNK(s.st_mode)) {
        absl::StrAppend(&text, " -> ", fs::read_symlink(path).string());
      }
      if (!S_ISDIR(s.st_mode) && s.st_nlink > 1) {
        absl::StrAppend(&text, " links ", s.st_nlink, " as ",
                        first.emplace(s.st_ino, name).first->second);
      }
      char keys[4096];
      const ssize_t size = ::llistxattr(path.c_str(), keys, sizeof(keys));
      for (ssize_t at = 0; at < size; at += strlen(keys + at) + 1) {
        char value[256] = {};
        ::lgetxattr(path.c_str(), keys + at, value, sizeof(value) - 1);
        absl::StrAppend(&text, " ", keys + at, "=", value);
      }
      result[name] = text;
    };
    add(root);
    std::vector<fs::path> paths;
    for (const auto& entry : fs::recursive_directory_iterator(root)) {
      paths.push_back(entry.path());
    }
    std::sort(paths.begin(), paths.end());
    for (const fs::path& path : paths) add(path);
    return result;
  }

 private:
  std::string dir_;
};

TEST_F(CopyTreeTest, EverythingThatAFileHas) {
  fs::create_directories(from() + "/a/b/c");
  Write("file", "text");
  Write("a/setuid", "program");
  ASSERT_EQ(::chown((from() + "/a/setuid").c_str(), 12, 34), 0);
  ASSERT_EQ(::chmod((from() + "/a/setuid").c_str(), 06751), 0);
  ASSERT_EQ(::setxattr((from() + "/file").c_str(), "user.note", "x", 1, 0), 0);
  ASSERT_EQ(::setxattr((from() + "/a").c_str(), "trusted.note", "y", 1, 0), 0);
  fs::create_symlink("/etc/passwd", from() + "/link");
  ASSERT_EQ(::lchown((from() + "/link").c_str(), 5, 6), 0);
  fs::create_hard_link(from() + "/file", from() + "/a/b/other");
  fs::create_hard_link(from() + "/link", from() + "/a/link2");
  ASSERT_EQ(::mkfifo((from() + "/fifo").c_str(), 0640), 0);
  ASSERT_EQ(::mknod((from() + "/null").c_str(), S_IFCHR | 0666, makedev(1, 3)),
            0);
  // A watchdog: what opens it restarts the machine.
  ASSERT_EQ(::mknod((from() + "/wd").c_str(), S_IFCHR | 0600, makedev(10, 130)),
            0);
  ASSERT_EQ(::mknod((from() + "/sock").c_str(), S_IFSOCK | 0600, 0), 0);
  const timespec times[2] = {{1000, 1}, {2000, 2}};
  for (const char* name : {"/a/b/c", "/a/b", "/file", "/link", ""}) {
    ASSERT_EQ(::utimensat(AT_FDCWD, (from() + name).c_str(), times,
                          AT_SYMLINK_NOFOLLOW),
              0);
  }
  ASSERT_EQ(::chmod(from().c_str(), 02750), 0);
  ASSERT_EQ(::chown(from().c_str(), 77, 88), 0);
  EXPECT_OK(Copy(from(), to()));
  EXPECT_EQ(Describe(to()), Describe(from()));
}

TEST_F(CopyTreeTest, HolesStayHoles) {
  Write("sparse", "start");
  ASSERT_EQ(::truncate((from() + "/sparse").c_str(), 64 << 20), 0);
  Write("big", std::string(3 << 20, 'x'));
  EXPECT_OK(Copy(from(), to()));
  struct stat status;
  ASSERT_EQ(::stat((to() + "/sparse").c_str(), &status), 0);
  EXPECT_EQ(status.st_size, 64 << 20);
  EXPECT_LT(status.st_blocks, 1000);
  EXPECT_EQ(Describe(to())["big"], Describe(from())["big"]);
}

TEST_F(CopyTreeTest, OverlayAttributesAndLabelsStayBehind) {
  Write("file", "x");
  const std::string file = from() + "/file";
  ASSERT_EQ(::setxattr(file.c_str(), "trusted.overlay.origin", "x", 1, 0), 0);
  ASSERT_EQ(::setxattr(file.c_str(), "user.overlay.opaque", "y", 1, 0), 0);
  ASSERT_EQ(::setxattr(file.c_str(), "user.kept", "z", 1, 0), 0);
  EXPECT_OK(Copy(from(), to()));
  char keys[256] = {};
  EXPECT_EQ(::listxattr((to() + "/file").c_str(), keys, sizeof(keys)),
            static_cast<ssize_t>(sizeof("user.kept")));
  EXPECT_STREQ(keys, "user.kept");
}

TEST_F(CopyTreeTest, DeeperThanPathsAndDescriptors) {
  constexpr int kDepth = 1200;
  ASSERT_OK_AND_ASSIGN(UniqueFd at, Open(from(), O_PATH));
  for (int i = 0; i < kDepth; ++i) {
    ASSERT_EQ(::mkdirat(at.get(), "deeper", 0755), 0);
    ASSERT_OK_AND_ASSIGN(at, OpenAt2(at.borrow(), "deeper", O_PATH, 0));
  }
  UniqueFd file(
      ::openat(at.get(), "bottom", O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
  ASSERT_TRUE(file.valid());
  ASSERT_OK_AND_ASSIGN(const UniqueFd top, Open(from(), O_PATH));
  ASSERT_EQ(::linkat(at.get(), "bottom", top.get(), "top", 0), 0);
  EXPECT_OK(Copy(from(), to()));
  ASSERT_OK_AND_ASSIGN(at, Open(to(), O_PATH));
  for (int i = 0; i < kDepth; ++i) {
    ASSERT_OK_AND_ASSIGN(at, OpenAt2(at.borrow(), "deeper", O_PATH, 0));
  }
  struct stat status;
  ASSERT_EQ(::fstatat(at.get(), "bottom", &status, 0), 0);
  EXPECT_EQ(status.st_nlink, 2u);
  // Nothing but what was copied.
  size_t names = 0;
  for ([[maybe_unused]] const auto& entry : fs::directory_iterator(to())) {
    ++names;
  }
  EXPECT_EQ(names, 2u);
}

TEST_F(CopyTreeTest, MountsAreNotEntered) {
  fs::create_directories(from() + "/mounted/inner");
  ASSERT_EQ(::unshare(CLONE_NEWNS), 0);
  ASSERT_EQ(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
  const std::string mounted = from() + "/mounted";
  ASSERT_EQ(::mount("none", mounted.c_str(), "tmpfs", 0, nullptr), 0);
  std::ofstream(mounted + "/secret") << "x";
  EXPECT_OK(Copy(from(), to()));
  EXPECT_TRUE(fs::is_empty(to() + "/mounted"));
  EXPECT_EQ(::umount2(mounted.c_str(), MNT_DETACH), 0);
}

TEST_F(CopyTreeTest, FullFileSystemIsNamed) {
  ASSERT_EQ(::unshare(CLONE_NEWNS), 0);
  ASSERT_EQ(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
  ASSERT_EQ(::mount("none", to().c_str(), "tmpfs", 0, "size=64k"), 0);
  Write("big", std::string(1 << 20, 'x'));
  EXPECT_THAT(Copy(from(), to()),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("the copy goes to is full")));
  EXPECT_EQ(::umount2(to().c_str(), MNT_DETACH), 0);
}

// Somebody swaps a directory and a file of the source for links to the outside:
// the copy may lack them, but has nothing of the outside.
TEST_F(CopyTreeTest, RacingRenames) {
  fs::create_directories(dir() + "/outside");
  std::ofstream(dir() + "/outside/secret") << "secret";
  fs::create_directories(from() + "/d/e");
  Write("d/e/secret", "mine");
  Write("secret", "mine");
  fs::create_symlink(dir() + "/outside", from() + "/x");
  fs::create_symlink(dir() + "/outside/secret", from() + "/y");
  std::atomic<bool> stop{false};
  std::thread attacker([&] {
    while (!stop) {
      for (const auto& [a, b] : {std::pair("/d", "/x"), {"/secret", "/y"}}) {
        for (int twice = 0; twice < 2; ++twice) {
          ::syscall(SYS_renameat2, AT_FDCWD, (from() + a).c_str(), AT_FDCWD,
                    (from() + b).c_str(), RENAME_EXCHANGE);
        }
      }
    }
  });
  int copied = 0;
  for (int i = 0; i < 100; ++i) {
    const std::string target = absl::StrCat(dir(), "/copy", i);
    fs::create_directory(target);
    copied += Copy(from(), target).ok() ? 1 : 0;
    for (const auto& entry : fs::recursive_directory_iterator(target)) {
      if (!fs::is_regular_file(entry.symlink_status())) continue;
      std::stringstream content;
      content << std::ifstream(entry.path()).rdbuf();
      EXPECT_NE(content.str(), "secret") << entry.path();
    }
  }
  stop = true;
  attacker.join();
  EXPECT_GT(copied, 0);
}

// A container that exchanges a file for a pipe, or a device of which opening it
// has effects.
TEST_F(CopyTreeTest, WhatReplacesAFileIsNotOpened) {
  Write("a", "text");
  ASSERT_EQ(::mkfifo((from() + "/b").c_str(), 0600), 0);
  const UniqueFd watch(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
  ASSERT_GE(::inotify_add_watch(watch.get(), (from() + "/b").c_str(), IN_OPEN),
            0);
  std::atomic<bool> stop = false;
  std::thread attacker([&] {
    while (!stop) {
      ::renameat2(AT_FDCWD, (from() + "/a").c_str(), AT_FDCWD,
                  (from() + "/b").c_str(), RENAME_EXCHANGE);
    }
  });
  for (int i = 0; i < 150; ++i) {
    EXPECT_OK(Copy(from(), to()));
    fs::remove_all(to());
    fs::create_directory(to());
  }
  stop = true;
  attacker.join();
  char event[sizeof(inotify_event) + NAME_MAX + 1];
  EXPECT_EQ(::read(watch.get(), event, sizeof(event)), -1);
}

// The kernel would not only refuse to write, but raise SIGXFSZ.
TEST_F(CopyTreeTest, FileSizeLimitOfTheProcessIsAnError) {
  Write("file", std::string(5000, 'x'));
  rlimit before;
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit small = {1000, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  const absl::Status status = Copy(from(), to());
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_THAT(status, StatusIs(absl::StatusCode::kResourceExhausted,
                               HasSubstr("RLIMIT_FSIZE (1000)")));
}

}  // namespace
}  // namespace caisson::sys
