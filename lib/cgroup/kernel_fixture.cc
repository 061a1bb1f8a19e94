#include "lib/cgroup/kernel_fixture.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/status_matchers.h"
#include "lib/cgroup/filesystem.h"
#include "lib/cgroup/owner.h"
#include "lib/sys/open.h"

namespace caisson {
namespace {

constexpr int kOrphanLifetimeSeconds = 60;

// The real cgroupfs without some of its mounts.
class HidingFilesystem final : public cgroup::Filesystem {
 public:
  explicit HidingFilesystem(std::vector<std::string> hidden)
      : hidden_(std::move(hidden)) {}

  absl::StatusOr<std::string> ReadProc(const std::string& name) const override {
    auto text = Filesystem::ReadProc(name);
    if (!text.ok() || name != "self/mountinfo") return text;
    std::string kept;
    for (absl::string_view line : absl::StrSplit(*text, '\n')) {
      bool hide = false;
      for (const std::string& what : hidden_) {
        hide = hide || absl::StrContains(line, what);
      }
      if (!hide) absl::StrAppend(&kept, line, "\n");
    }
    return kept;
  }

 private:
  std::vector<std::string> hidden_;
};

int CountFds() {
  int count = 0;
  DIR* dir = ::opendir("/proc/self/fd");
  while (::readdir(dir) != nullptr) ++count;
  ::closedir(dir);
  return count;
}

}  // namespace

Child::Child(const Cgroup& group, const std::function<int()>& body) {
  auto entry = group.OpenEntry();
  EXPECT_OK(entry);
  if (!entry.ok()) return;
  clone_args args = {};
  args.exit_signal = SIGCHLD;
  if (entry->v2_directory.valid()) {
    args.flags = CLONE_INTO_CGROUP;
    args.cgroup = static_cast<uint64_t>(entry->v2_directory.get());
  }
  pid_ = static_cast<pid_t>(::syscall(SYS_clone3, &args, sizeof(args)));
  if (pid_ == 0) {
    for (const UniqueFd& file : entry->join_files) {
      if (::write(file.get(), "0", 1) != 1) ::_exit(120);
    }
    ::_exit(body());
  }
  EXPECT_GT(pid_, 0) << strerror(errno);
}

Child::~Child() {
  if (pid_ <= 0) return;
  ::kill(pid_, SIGKILL);
  Wait();
}

int Child::Wait() {
  int status = 0;
  EXPECT_EQ(::waitpid(pid_, &status, 0), pid_);
  pid_ = -1;
  return status;
}

Signal::Signal() {
  int fds[2];
  EXPECT_EQ(::pipe2(fds, O_CLOEXEC), 0);
  read_ = UniqueFd(fds[0]);
  write_ = UniqueFd(fds[1]);
}

void Signal::Send() const { (void)!::write(write_.get(), "x", 1); }

void Signal::SendPid(pid_t pid) const {
  (void)!::write(write_.get(), &pid, sizeof(pid));
}

void Signal::Await() {
  char byte;
  EXPECT_EQ(::read(read_.get(), &byte, 1), 1);
}

pid_t Signal::AwaitPid() {
  pid_t pid = -1;
  EXPECT_EQ(::read(read_.get(), &pid, sizeof(pid)), sizeof(pid));
  return pid;
}

void Signal::AwaitExec() {
  write_.reset();
  char byte;
  EXPECT_EQ(::read(read_.get(), &byte, 1), 0);
}

int Sleep() {
  ::sleep(kOrphanLifetimeSeconds);
  return 110;
}

int ExecSleep() {
  ::execl("/bin/sleep", "sleep", "60", nullptr);
  return 111;
}

bool ShouldGiveUp() {
  static const time_t start = ::time(nullptr);
  return ::time(nullptr) - start > kOrphanLifetimeSeconds;
}

bool BecomeLimitedUser(rlim_t processes) {
  (void)ShouldGiveUp();  // the clock starts here for all that are forked
  // The limit counts all processes of the user.
  const uid_t user = 1000000 + static_cast<uid_t>(::getpid());
  const rlimit limit = {processes, processes};
  return ::setrlimit(RLIMIT_NPROC, &limit) == 0 &&
         ::setresuid(user, user, user) == 0;
}

void CgroupKernelTest::SetUp() {
  options_.path = absl::StrCat("/caisson-test-", ::getpid());
  fds_ = CountFds();
  ASSERT_OK_AND_ASSIGN(layout_, CgroupLayout::Detect());
  std::string missing;
  if (::geteuid() != 0) missing = "this test needs root";
  for (CgroupController controller :
       {CgroupController::kMemory, CgroupController::kCpu,
        CgroupController::kPids}) {
    if (!layout_.Find(controller).usable) {
      missing = layout_.Find(controller).reason;
    }
  }
  SkipIf(missing);
}

void CgroupKernelTest::TearDown() {
  EXPECT_OK(CgroupParent::Recover(options_));
  for (const CgroupHierarchy& hierarchy : layout_.hierarchies) {
    if (hierarchy.mount_root != "/") continue;
    EXPECT_NE(::access((hierarchy.mount_point + options_.path).c_str(), F_OK),
              0)
        << hierarchy.mount_point << " still has our group";
  }
  EXPECT_EQ(CountFds(), fds_);
}

void CgroupKernelTest::SkipIf(const std::string& missing) {
  if (missing.empty()) return;
  if (testing::TestsMustRun()) FAIL() << missing;
  GTEST_SKIP() << missing;
}

CgroupParent CgroupKernelTest::Open(std::vector<std::string> hidden) {
  auto owner = cgroup::Owner::Open(
      options_, std::make_shared<HidingFilesystem>(std::move(hidden)));
  EXPECT_OK(owner);
  return CgroupParent(*std::move(owner));
}

CgroupVersion CgroupKernelTest::VersionOf(CgroupController controller) const {
  return layout_.hierarchies[layout_.Find(controller).hierarchy].version;
}

std::string CgroupKernelTest::DirectoryOf(const Cgroup& group,
                                          CgroupController controller) {
  for (const CgroupPath& path : group.paths()) {
    for (CgroupController c : path.controllers) {
      if (c == controller) return path.directory;
    }
  }
  return "";
}

std::string CgroupKernelTest::AnyDisk(std::string* name) {
  for (const auto& disk : std::filesystem::directory_iterator("/sys/block")) {
    *name = disk.path().filename();
    if (absl::StartsWith(*name, "loop") || absl::StartsWith(*name, "zram") ||
        absl::StartsWith(*name, "ram")) {
      continue;
    }
    return ReadFile(disk.path() / "dev");
  }
  return "";
}

std::string CgroupKernelTest::ReadFile(const std::string& path) {
  auto fd = sys::Open(path, O_RDONLY);
  EXPECT_OK(fd);
  if (!fd.ok()) return "";
  auto text = sys::ReadAll(fd->borrow(), 1 << 20, path);
  EXPECT_OK(text);
  return std::string(absl::StripAsciiWhitespace(text.value_or("")));
}

}  // namespace caisson
