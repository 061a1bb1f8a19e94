#include "caisson/tree_copy.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <string>

#include "gtest/gtest.h"
#include "lib/base/status_matchers.h"
#include "lib/layer/test_dir.h"
#include "lib/layer/test_streams.h"
#include "lib/layer/test_tar.h"
#include "lib/sys/pidfd_open.h"

namespace caisson::layer {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

class TreeCopyTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() == 0) return;
    if (testing::TestsMustRun()) FAIL() << "needs root";
    GTEST_SKIP() << "needs root: owners and devices are copied";
  }

  // A tar as a file to be read.
  UniqueFd File(const std::string& bytes) {
    aside_.Write("in.tar", bytes);
    return UniqueFd(
        ::open(aside_.path("in.tar").c_str(), O_RDONLY | O_CLOEXEC));
  }
  absl::Status In(const std::string& tar, absl::string_view directory,
                  const TreeCopyOptions& options = {}) {
    return CopyIn(File(tar).borrow(), tree_.fd(), directory, options);
  }

  TestDir tree_;  // the container's
  TestDir host_;
  TestDir aside_;
};

TEST_F(TreeCopyTest, ATreeGoesOutAndComesBack) {
  tree_.MakeDir("srv");
  tree_.MakeDir("srv/data", 01750);
  tree_.Write("srv/data/a", "text", 04755);
  tree_.SetXattr("srv/data/a", "user.k", "v");
  ASSERT_EQ(::link(tree_.path("srv/data/a").c_str(),
                   tree_.path("srv/data/b").c_str()),
            0);
  ASSERT_EQ(::symlink("/etc/passwd", tree_.path("srv/data/link").c_str()), 0);
  ASSERT_EQ(::mkfifo(tree_.path("srv/data/fifo").c_str(), 0600), 0);
  ASSERT_EQ(::mknod(tree_.path("srv/data/null").c_str(), S_IFCHR | 0666,
                    makedev(1, 3)),
            0);
  ASSERT_EQ(::lchown(tree_.path("srv/data").c_str(), 5, 6), 0);
  const timespec times[2] = {{1, 2}, {1'000'000'000, 987'654'321}};
  ASSERT_EQ(::utimensat(AT_FDCWD, tree_.path("srv/data").c_str(), times, 0), 0);

  const UniqueFd tar(::open(aside_.path("out.tar").c_str(),
                            O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  ASSERT_OK(CopyOut(tree_.fd(), "/srv/data", tar.borrow()));
  ASSERT_EQ(::lseek(tar.get(), 0, SEEK_SET), 0);
  ASSERT_OK(CopyIn(tar.borrow(), host_.fd(), "."));
  EXPECT_EQ(DumpTree(host_.path("data") + "/"),
            DumpTree(tree_.path("srv/data") + "/"));
  EXPECT_EQ(host_.Stat("data/a").st_ino, host_.Stat("data/b").st_ino);
  // Without a tar between, under another name and owner.
  ASSERT_OK(Copy(tree_.fd(), "srv/data", host_.fd(), "/",
                 {.uid = 1000, .gid = 2000, .name = "other"}));
  EXPECT_EQ(host_.Read("other/b"), "text");
  EXPECT_EQ(host_.Stat("other/b").st_uid, 1000u);
  EXPECT_EQ(host_.Stat("other").st_gid, 2000u);
  EXPECT_EQ(host_.Stat("other/a").st_ino, host_.Stat("other/b").st_ino);
  EXPECT_EQ(host_.Stat("other").st_mtim.tv_nsec, 987'654'321);
  // The content of a directory; one file.
  ASSERT_OK(Copy(tree_.fd(), "/srv/data/.", host_.fd(), "other"));
  ASSERT_OK(Copy(tree_.fd(), "/srv/data/a", host_.fd(), "/", {.name = "one"}));
  EXPECT_EQ(host_.Read("one"), "text");
  EXPECT_EQ(host_.Xattr("one", "user.k"), "v");
}

TEST_F(TreeCopyTest, LinksAreCopiedNotFollowed) {
  host_.Write("secret", "of the host");
  const std::string outside = host_.path("secret");
  ASSERT_EQ(::symlink(outside.c_str(), tree_.path("leaf").c_str()), 0);
  ASSERT_EQ(::symlink(host_.path().c_str(), tree_.path("dir").c_str()), 0);
  ASSERT_EQ(::symlink("../../../../../../../etc", tree_.path("up").c_str()), 0);
  TestDir to;
  ASSERT_OK(Copy(tree_.fd(), "/leaf", to.fd(), "/"));
  EXPECT_EQ(to.Readlink("leaf"), outside);
  // On the way they are looked up inside, where there is no such directory.
  EXPECT_THAT(Copy(tree_.fd(), "/dir/secret", to.fd(), "/"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("dir")));
  EXPECT_THAT(Copy(tree_.fd(), "/up/passwd", to.fd(), "/"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("up")));
  EXPECT_THAT(Copy(tree_.fd(), "/../../etc/passwd", to.fd(), "/"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("etc")));
  tree_.MakeDir("etc");
  tree_.Write("etc/passwd", "inside");
  ASSERT_OK(Copy(tree_.fd(), "/up/passwd", to.fd(), "/"));
  EXPECT_EQ(to.Read("passwd"), "inside");
}

TEST_F(TreeCopyTest, NothingIsWrittenOutside) {
  host_.Write("file", "of the host");
  ASSERT_EQ(::symlink(host_.path().c_str(), tree_.path("out").c_str()), 0);
  ASSERT_EQ(::symlink(host_.path("file").c_str(), tree_.path("leaf").c_str()),
            0);
  tree_.MakeDir("srv");
  // To a directory that is a link, and by parents that are.
  EXPECT_THAT(In(TestTar().File("x", "1").Finish(), "/out"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("out")));
  EXPECT_FALSE(In(TestTar().File("out/x", "1").Finish(), "/").ok());
  EXPECT_THAT(In(TestTar().File("../x", "1").Finish(), "/srv"),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("..")));
  // A leaf is replaced.
  ASSERT_OK(In(TestTar().File("leaf", "new", 0600).Finish(), "/"));
  EXPECT_EQ(tree_.Read("leaf"), "new");
  EXPECT_TRUE(tree_.IsFile("leaf"));
  // A link of the archive itself.
  EXPECT_FALSE(
      In(TestTar().Symlink("inner", host_.path()).File("inner/x", "1").Finish(),
         "/srv")
          .ok());
  EXPECT_FALSE(
      In(TestTar().Hardlink("hard", "../../file").Finish(), "/srv").ok());
  EXPECT_THAT(host_.Names(), ElementsAre("file"));
  EXPECT_EQ(host_.Read("file"), "of the host");
}

TEST_F(TreeCopyTest, ParentsAreFollowedInside) {
  tree_.MakeDir("bin");
  ASSERT_EQ(::symlink("/bin", tree_.path("sbin").c_str()), 0);
  const mode_t umask = ::umask(077);
  ASSERT_OK(In(TestTar()
                   .Dir("sbin", 0700)
                   .File("sbin/init", "program", 0755)
                   .File("new/dir/file", "x")
                   .Finish(),
               "/", {.uid = 7}));
  ::umask(umask);
  EXPECT_EQ(tree_.Readlink("sbin"), "/bin");
  EXPECT_EQ(tree_.Read("bin/init"), "program");
  EXPECT_EQ(tree_.Mode("new/dir"), 0755u);
  EXPECT_EQ(tree_.Mode("bin"), 0755u) << "what the link leads to stays";
  EXPECT_EQ(tree_.Read("new/dir/file"), "x");
  EXPECT_EQ(tree_.Stat("new/dir").st_uid, 7u);
}

TEST_F(TreeCopyTest, KindsDoNotReplaceEachOther) {
  tree_.MakeDir("dir");
  tree_.Write("dir/kept", "");
  tree_.Write("file", "before");
  EXPECT_THAT(In(TestTar().File("dir", "x").Finish(), "/"),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("is a directory")));
  EXPECT_THAT(In(TestTar().Dir("file").Finish(), "/"),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("no directory")));
  EXPECT_EQ(tree_.Read("file"), "before");
  // Directories merge, and take the attributes that are copied.
  ASSERT_OK(In(TestTar().Dir("dir", 0711).File("dir/more", "").Finish(), "/"));
  EXPECT_THAT(tree_.Names(),
              ElementsAre("dir", "dir/kept", "dir/more", "file"));
  EXPECT_EQ(tree_.Mode("dir"), 0711u);
  EXPECT_THAT(In(TestTar().File("x", "").Finish(), "/missing"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("missing")));
}

TEST_F(TreeCopyTest, CompressedAndSparseTars) {
  ASSERT_OK(
      In(Gzip(TestTar().File("x", std::string(1 << 20, '\0')).Finish()), "/"));
  EXPECT_EQ(tree_.Stat("x").st_size, 1 << 20);
  EXPECT_LT(tree_.Stat("x").st_blocks * 512, 1 << 18);
}

TEST_F(TreeCopyTest, LimitsAndCancelling) {
  tree_.Write("a", std::string(3 << 20, 'a'));
  EXPECT_THAT(Copy(tree_.fd(), "/a", host_.fd(), "/", {.max_bytes = 100}),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("max_bytes (100)")));
  EXPECT_THAT(Copy(tree_.fd(), "/", host_.fd(), "/", {.max_entries = 1}),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("max_entries (1)")));
  TreeCopyOptions options;
  options.progress = [](uint64_t) { return false; };
  EXPECT_THAT(Copy(tree_.fd(), "/a", host_.fd(), "/", options),
              StatusIs(absl::StatusCode::kCancelled, HasSubstr("progress")));
  EXPECT_THAT(Copy(tree_.fd(), "/a", host_.fd(), "/", {.name = "a/b"}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("a/b")));
}

// Reached by a path, and not entered on the way through a tree.
TEST_F(TreeCopyTest, MountsAreNotEntered) {
  tree_.MakeDir("volume");
  const pid_t child = ::fork();
  if (child == 0) {
    EXPECT_EQ(::unshare(CLONE_NEWNS), 0);
    EXPECT_EQ(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
    EXPECT_EQ(::mount("tmpfs", tree_.path("volume").c_str(), "tmpfs", 0, ""),
              0);
    tree_.Write("volume/inside", "v");
    // Of this mount namespace: the descriptor of the fixture is of another one.
    const UniqueFd root(
        ::open(tree_.path().c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    EXPECT_OK(Copy(root.borrow(), "/", host_.fd(), "/"));
    EXPECT_THAT(host_.Names(), ElementsAre("volume"));
    EXPECT_OK(Copy(root.borrow(), "/volume/inside", host_.fd(), "/"));
    EXPECT_EQ(host_.Read("inside"), "v");
    // The path itself may be a mount point.
    EXPECT_OK(Copy(root.borrow(), "/volume", host_.fd(), "/"));
    EXPECT_EQ(host_.Read("volume/inside"), "v");
    EXPECT_OK(Copy(root.borrow(), "/volume", host_.fd(), "/", {.name = "n"}));
    EXPECT_EQ(host_.Read("n/inside"), "v");
    ::_exit(HasFailure() ? 1 : 0);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

// A process in a tree of its own, which ends with the object.
class Inside final {
 public:
  // `set_up` runs in a mount namespace of its own, which then becomes the tree
  // below `root`.
  Inside(const std::string& root, const std::function<void()>& set_up) {
    int ready[2];
    EXPECT_EQ(::pipe2(ready, O_CLOEXEC), 0);
    pid_ = ::fork();
    if (pid_ == 0) {
      const bool good =
          ::unshare(CLONE_NEWNS) == 0 &&
          ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
      if (good) set_up();
      const char byte = good && ::chroot(root.c_str()) == 0 ? '1' : '0';
      (void)!::write(ready[1], &byte, 1);
      ::pause();
    }
    char byte = '0';
    EXPECT_EQ(::read(ready[0], &byte, 1), 1);
    EXPECT_EQ(byte, '1');
    ::close(ready[0]);
    ::close(ready[1]);
    auto pidfd = sys::OpenPidfd(pid_);
    EXPECT_OK(pidfd);
    if (pidfd.ok()) pidfd_ = *std::move(pidfd);
  }
  ~Inside() { End(); }
  BorrowedFd pidfd() const { return pidfd_.borrow(); }
  void End() {
    if (pid_ < 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }

 private:
  pid_t pid_ = -1;
  UniqueFd pidfd_;
};

// As docker cp reaches into a container that runs: what is on its volumes, too,
// and nothing that the host has of the same name.
TEST_F(TreeCopyTest, ARunningProcessShowsItsMounts) {
  tree_.MakeDir("volume");
  tree_.Write("volume/below", "hidden");
  Inside inside(tree_.path(), [this] {
    ::mount("tmpfs", tree_.path("volume").c_str(), "tmpfs", 0, "");
    tree_.Write("volume/data", "v");
    ::symlink("/volume/data", tree_.path("volume/link").c_str());
    ::symlink("/../../../../etc", tree_.path("volume/out").c_str());
  });
  ASSERT_OK_AND_ASSIGN(const UniqueFd root, OpenRootOf(inside.pidfd()));
  EXPECT_OK(Copy(root.borrow(), "/volume/data", host_.fd(), "/"));
  EXPECT_EQ(host_.Read("data"), "v");
  EXPECT_THAT(Copy(root.borrow(), "/volume/below", host_.fd(), "/"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("below")));
  EXPECT_THAT(Copy(root.borrow(), "/volume/out/passwd", host_.fd(), "/"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("out")));
  EXPECT_OK(CopyIn(File(TestTar().File("in", "new").Finish()).borrow(),
                   root.borrow(), "/volume"));
  EXPECT_FALSE(tree_.Exists("volume/in")) << "it is in the volume";
  EXPECT_OK(Copy(root.borrow(), "/volume/in", host_.fd(), "/"));
  EXPECT_EQ(host_.Read("in"), "new");
  inside.End();
  EXPECT_THAT(OpenRootOf(inside.pidfd()),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("has ended")));
  // The mounts went with it, the directory did not.
  EXPECT_THAT(Copy(root.borrow(), "/volume/in", aside_.fd(), "/"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("")));
  EXPECT_OK(Copy(root.borrow(), "/volume/below", aside_.fd(), "/"));
}

// A container that exchanges what is copied for a link to the host's.
TEST_F(TreeCopyTest, ExchangedFilesTellNothing) {
  host_.Write("secret", "the host's");
  tree_.MakeDir("srv");
  tree_.MakeDir("srv/d");
  tree_.Write("srv/d/secret", "mine");
  const pid_t child = ::fork();
  if (child == 0) {
    const std::string dir = tree_.path("srv/d");
    const std::string aside = tree_.path("aside");
    ::symlink(host_.path().c_str(), tree_.path("link").c_str());
    for (;;) {
      ::renameat2(AT_FDCWD, dir.c_str(), AT_FDCWD, tree_.path("link").c_str(),
                  RENAME_EXCHANGE);
    }
  }
  size_t copied = 0;
  for (int i = 0; i < 300; ++i) {
    const UniqueFd tar(::memfd_create("tar", MFD_CLOEXEC));
    const char* path = i % 2 == 0 ? "/srv/d/secret" : "/srv";
    copied += CopyOut(tree_.fd(), path, tar.borrow()).ok();
    std::string bytes(1 << 16, '\0');
    const ssize_t n = ::pread(tar.get(), bytes.data(), bytes.size(), 0);
    ASSERT_GE(n, 0);
    bytes.resize(static_cast<size_t>(n));
    EXPECT_THAT(bytes, Not(HasSubstr("the host's")));
  }
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  EXPECT_GT(copied, 0u);
}

// A container that exchanges a directory for a link, over and over.
TEST_F(TreeCopyTest, ExchangedDirectoriesLeadNowhere) {
  host_.MakeDir("victim");
  const std::string before = host_.Dump();
  tree_.MakeDir("srv");
  tree_.MakeDir("spare");
  const pid_t child = ::fork();
  if (child == 0) {
    const std::string dir = tree_.path("srv/d");
    const std::string link = tree_.path("link");
    for (;;) {
      ::symlink((host_.path() + "/victim").c_str(), link.c_str());
      ::rename(link.c_str(), dir.c_str());
      ::unlink(dir.c_str());
      ::mkdir(dir.c_str(), 0755);
      ::rename(dir.c_str(), tree_.path("spare/d").c_str());
    }
  }
  const std::string tar = TestTar()
                              .Owner(1234, 1234)
                              .Dir("d", 0777)
                              .File("d/file", "x")
                              .Fifo("d/fifo")
                              .Finish();
  for (int i = 0; i < 300; ++i) In(tar, "/srv").IgnoreError();
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  EXPECT_EQ(host_.Dump(), before);
}

// A user of the container must not get the owner or mode of another directory
// changed by exchanging his own for a link to it.
TEST_F(TreeCopyTest, ExchangedDirectoriesChangeNoOther) {
  tree_.MakeDir("victim", 0700);
  tree_.MakeDir("srv");
  tree_.MakeDir("srv/d");
  ASSERT_EQ(::symlink("/victim", tree_.path("srv/link").c_str()), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    for (;;) {
      ::renameat2(AT_FDCWD, tree_.path("srv/d").c_str(), AT_FDCWD,
                  tree_.path("srv/link").c_str(), RENAME_EXCHANGE);
    }
  }
  const std::string tar = TestTar().Owner(1234, 1234).Dir("d", 0777).Finish();
  for (int i = 0; i < 100; ++i) In(tar, "/srv").IgnoreError();
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  EXPECT_EQ(tree_.Mode("victim"), 0700u);
  EXPECT_EQ(tree_.Stat("victim").st_uid, 0u);
}

// The tar may be hostile, too: what is kept of its directories until the end.
TEST_F(TreeCopyTest, MemoryIsLimited) {
  int pipe[2];
  ASSERT_EQ(::pipe2(pipe, O_CLOEXEC), 0);
  const UniqueFd in(pipe[0]);
  UniqueFd out(pipe[1]);
  const pid_t child = ::fork();
  if (child == 0) {
    const std::string value(1'000'000, 'x');
    for (int i = 0; i < 1000; ++i) {
      const std::string entry = TestTar()
                                    .Pax({{"SCHILY.xattr.user.k", value}})
                                    .Dir("d" + std::to_string(i))
                                    .bytes();
      for (size_t at = 0; at < entry.size();) {
        const ssize_t n =
            ::write(out.get(), entry.data() + at, entry.size() - at);
        if (n < 0) ::_exit(1);
        at += static_cast<size_t>(n);
      }
    }
    ::_exit(0);
  }
  out.reset();
  EXPECT_THAT(CopyIn(in.borrow(), tree_.fd(), "/"),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("directories to copy take more than")));
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
}

}  // namespace
}  // namespace caisson::layer
