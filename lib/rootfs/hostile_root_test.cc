// Images that try to move a mount, or the host's hand, out of the root.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "lib/base/status_matchers.h"
#include "lib/rootfs/test_container.h"
#include "lib/sys/open.h"
#include "tests/support/machine.h"

namespace {

// What another process does after a mkdirat(2) of this one.
const std::function<void()>* after_mkdir = nullptr;

}  // namespace

// Instead of the C library's.
extern "C" int mkdirat(int dir, const char* path, mode_t mode) noexcept {
  const long result = ::syscall(SYS_mkdirat, dir, path, mode);
  if (result == 0 && after_mkdir != nullptr) (*after_mkdir)();
  return static_cast<int>(result);
}

namespace caisson::rootfs {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::HasSubstr;

template <typename T>
std::string MessageOf(const absl::StatusOr<T>& result) {
  return std::string(result.status().message());
}

class HostileRootTest : public RootFsTestBase,
                        public ::testing::WithParamInterface<KernelLimits> {
 protected:
  KernelLimits limits() const override { return GetParam(); }

  void SetUp() override {
    RootFsTestBase::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    outside_ = MakeLayer("outside", {"file=untouched", "dir/inner=untouched"});
  }

  void TearDown() override {
    if (!outside_.empty()) {
      EXPECT_EQ(ReadHostFile(outside_ + "/file"), "untouched");
      EXPECT_EQ(ReadHostFile(outside_ + "/dir/inner"), "untouched");
      size_t entries = 0;
      for ([[maybe_unused]] const auto& entry :
           std::filesystem::recursive_directory_iterator(outside_)) {
        ++entries;
      }
      EXPECT_EQ(entries, 3u);
    }
    RootFsTestBase::TearDown();
  }

  // A layer with a shell but nothing else that is not in `entries`.
  RootFsOptions Image(const std::vector<std::string>& entries) {
    RootFsOptions options;
    const std::string layer = MakeLayer("hostile", entries);
    if (::access((layer + "/bin").c_str(), F_OK) != 0) AddShell(layer);
    options.layers = {Hold(layer)};
    UseDirectories(options);
    options.hostname = "web";
    options.resolv_conf = "nameserver 192.0.2.1\n";
    return options;
  }

  std::string outside_;
};

INSTANTIATE_TEST_SUITE_P(Kernels, HostileRootTest,
                         ::testing::ValuesIn(AllKernels()), KernelName);

// CVE-2019-19921, CVE-2023-27561, CVE-2026-41579, CVE-2026-47766.
TEST_P(HostileRootTest, LinksAtProcSysAndDevAreRefused) {
  for (const char* name : {"proc", "sys", "dev"}) {
    for (const std::string& target :
         {outside_, std::string("../../../../../../tmp"), std::string("bin"),
          std::string("/proc/self/fd/3"), std::string("nowhere")}) {
      const RootFsOptions options = Image({absl::StrCat(name, " -> ", target)});
      EXPECT_THAT(BuiltRoot::Build(options, limits()),
                  StatusIs(absl::StatusCode::kFailedPrecondition,
                           AllOf(HasSubstr(absl::StrCat("\"/", name, "\"")),
                                 HasSubstr("symbolic link"))));
      std::filesystem::remove_all(dir() + "/layers/hostile");
    }
  }
}

TEST_P(HostileRootTest, FilesAtProcSysAndDevAreRefused) {
  for (const char* name : {"proc", "sys", "dev"}) {
    const RootFsOptions options = Image({absl::StrCat(name, "=text")});
    EXPECT_THAT(BuiltRoot::Build(options, limits()),
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         HasSubstr(absl::StrCat("\"/", name, "\""))));
    std::filesystem::remove_all(dir() + "/layers/hostile");
  }
}

TEST_P(HostileRootTest, MissingDirectoriesAreCreated) {
  const ScriptResult result =
      RunWith(Image({}),
              "ls -d /proc/self/root /sys/class /dev/null; stat -c "
              "'%n=%a %u' /etc; cat /etc/hostname");
  EXPECT_EQ(result.exit_code, 0) << result.output;
  EXPECT_EQ(result.Value("/etc"), "755 0");
  EXPECT_THAT(result.output, HasSubstr("web\n"));
  EXPECT_NE(::access((dir() + "/layers/hostile/proc").c_str(), F_OK), 0);
}

// CVE-2025-31133: what the image has below /dev is of no importance.
TEST_P(HostileRootTest, LinksInDevAreHidden) {
  const ScriptResult result = RunWith(
      Image({"dev/null -> " + outside_ + "/file", "dev/pts -> " + outside_,
             "dev/shm -> " + outside_, "dev/mqueue -> /proc/1/root",
             "dev/console -> /etc/x", "dev/fd -> " + outside_}),
      "cat /proc/interrupts; stat -c null=%F /dev/null; stat -c pts=%F "
      "/dev/pts; echo x > /dev/null; ls /dev/console");
  EXPECT_EQ(result.Value("null"), "character special file");
  EXPECT_EQ(result.Value("pts"), "directory");
}

TEST_P(HostileRootTest, EtcThatLeadsOutside) {
  const ScriptResult result = RunWith(
      Image({"etc -> " + outside_}),
      absl::StrCat("cat /etc/hostname ", outside_, "/hostname; ls ", outside_));
  EXPECT_THAT(result.output, HasSubstr("web\nweb\nhostname\n"));
}

TEST_P(HostileRootTest, EtcFilesThatLeadOutside) {
  const ScriptResult result = RunWith(
      Image({"etc/hosts -> " + outside_ + "/file",
             "etc/hostname -> ../../../../../../../.." + outside_ + "/file2",
             "etc/resolv.conf -> /proc/self/fd/1"}),
      "cat /etc/hostname; echo x >> /etc/hosts; echo x >> /etc/hostname");
  EXPECT_EQ(result.exit_code, 0) << result.output;
  EXPECT_THAT(result.output, HasSubstr("web\n"));
}

// Debian with systemd-resolved.
TEST_P(HostileRootTest, DanglingResolvConfIsCreatedWhereItLeads) {
  const ScriptResult result = RunWith(
      Image({"etc/resolv.conf -> ../run/systemd/resolve/stub-resolv.conf"}),
      "cat /etc/resolv.conf /run/systemd/resolve/stub-resolv.conf");
  EXPECT_EQ(result.output, "nameserver 192.0.2.1\nnameserver 192.0.2.1\n");
}

TEST_P(HostileRootTest, EndlessLinksAreAnError) {
  EXPECT_THAT(
      MessageOf(BuiltRoot::Build(Image({"etc/hosts -> hosts"}), limits())),
      AllOf(HasSubstr("\"/etc/hosts\""), HasSubstr("ELOOP")));
  std::filesystem::remove_all(dir() + "/layers/hostile");
  EXPECT_THAT(MessageOf(BuiltRoot::Build(
                  Image({"etc -> a", "a -> b", "b -> etc"}), limits())),
              HasSubstr("ELOOP"));
}

TEST_P(HostileRootTest, EtcFileThatIsADirectory) {
  EXPECT_THAT(
      BuiltRoot::Build(Image({"etc/hosts/"}), limits()),
      StatusIs(absl::StatusCode::kFailedPrecondition,
               HasSubstr("\"/etc/hosts\" is a directory of the image")));
}

// CVE-2021-30465, CVE-2024-45310.
TEST_P(HostileRootTest, BindDestinationsStayInside) {
  const std::string source = MakeLayer("source", {"file=bound"});
  RootFsOptions options = Image(
      {"a -> " + outside_, "b -> ../../../../../../../.." + outside_ + "/dir",
       "c -> /proc/self/fd/7", "d -> .", "e -> /..", "f -> a/../../g"});
  const std::vector<std::string> destinations = {
      "/a/new/deep", "/a/file",     "/b/x",       "/b/inner2",
      "/c/x",        "/d/d/d/here", "/e/e/there", "/f/x"};
  for (const std::string& destination : destinations) {
    options.binds.push_back(
        {.destination = destination, .source = source + "/file"});
  }
  std::string script;
  for (const std::string& destination : destinations) {
    absl::StrAppend(&script, "cat ", destination, ";");
  }
  // /c leads below /proc, which is the kernel's own once it runs.
  const ScriptResult result = RunWith(options, script);
  std::string expected;
  for (size_t i = 0; i < destinations.size(); ++i) {
    if (destinations[i] != "/c/x") expected += "bound";
  }
  std::string seen;
  for (size_t at = 0;
       (at = result.output.find("bound", at)) != std::string::npos; ++at) {
    seen += "bound";
  }
  EXPECT_EQ(seen, expected) << result.output;
}

TEST_P(HostileRootTest, MountPointsThatAreLinksToOtherMounts) {
  const std::string source = MakeLayer("source", {"file=bound"});
  RootFsOptions options = Image({"p -> /proc", "s -> /sys", "v -> /dev"});
  options.binds = {{.destination = "/p", .source = source},
                   {.destination = "/s/kernel", .source = source},
                   {.destination = "/v/hidden", .source = source}};
  const ScriptResult result =
      RunWith(options,
              "stat -f -c proc=%T /proc; ls /sys/kernel | (read x; echo "
              "sys=$x); cat /dev/hidden/file; echo; cat /proc/interrupts");
  EXPECT_EQ(result.Value("proc"), "proc");
  EXPECT_THAT(result.output, HasSubstr("bound\n"));
}

TEST_P(HostileRootTest, OpenTouchesNoDeviceAndNoPipe) {
  RootFsOptions options = Image({"etc/"});
  const std::string layer = dir() + "/layers/hostile";
  ASSERT_EQ(::mkfifo((layer + "/etc/passwd").c_str(), 0644), 0);
  ASSERT_EQ(::mknod((layer + "/etc/group").c_str(), S_IFCHR | 0644,
                    makedev(10, 130)),  // /dev/watchdog
            0);
  ASSERT_OK_AND_ASSIGN(auto root, BuiltRoot::Build(options, limits()));
  for (const char* path : {"/etc/passwd", "/etc/group"}) {
    EXPECT_THAT(root->Open(path, O_RDONLY),
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         HasSubstr("neither a regular file nor")));
  }
}

TEST_P(HostileRootTest, NodesOutsideOfDevOpenNothing) {
  RootFsOptions options = Image({"proc/", "sys/", "dev/"});
  const std::string layer = dir() + "/layers/hostile";
  ASSERT_EQ(::mknod((layer + "/zero").c_str(), S_IFCHR | 0666, makedev(1, 5)),
            0);
  options.binds = {{.destination = "/bound", .source = layer}};
  const char script[] =
      "dd if=/zero of=/dev/null count=1 2>/dev/null; echo root=$?; dd "
      "if=/bound/zero of=/dev/null count=1 2>/dev/null; echo bound=$?; "
      "dd if=/dev/zero of=/dev/null count=1 2>/dev/null; echo dev=$?";
  const char expected[] = "root=1\nbound=1\ndev=0\n";
  EXPECT_EQ(RunWith(options, script).output, expected);
  options.writes = RootWrites::kInPlace;
  options.upper_directory = options.work_directory = BorrowedFd();
  EXPECT_EQ(RunWith(options, script).output, expected);
  options.binds[0].unsafe_devices = true;
  EXPECT_THAT(RunWith(options, script).output, HasSubstr("bound=0"));
}

TEST_P(HostileRootTest, OpenNeverFollowsMagicLinks) {
  RootFsOptions options = Image({});
  options.binds = {{.destination = "/hostproc", .source = "/proc"}};
  ASSERT_OK_AND_ASSIGN(auto root, BuiltRoot::Build(options, limits()));
  const std::string inside =
      absl::StrCat("/hostproc/self/root", outside_, "/file");
  EXPECT_FALSE(root->Open(inside, O_RDONLY).ok());
  EXPECT_FALSE(root->MakeDirectory("/hostproc/self/cwd/x", 0755).ok() &&
               ::access("x", F_OK) == 0);
}

// Somebody who can write to the same directory swaps a directory for a link to
// the outside all the time: mounts and directories may fail, or land in the
// root, but never outside.
TEST_P(HostileRootTest, RacingRenames) {
  const std::string source = MakeLayer("source", {"file=bound"});
  const std::string layer = MakeLayer(
      "hostile", {"proc/", "sys/", "dev/", "etc/", "x/", "y -> " + outside_});
  AddShell(layer);
  RootFsOptions options;
  options.layers = {Hold(layer)};
  options.writes = RootWrites::kInPlace;
  options.resolv_conf = "";
  options.binds = {
      {.destination = "/x/new/deep", .source = source},
      {.destination = "/etc/x/y", .source = source},
      // A volume, which would copy what it is shown.
      {.destination = "/x", .open_source = [&](BorrowedFd covered) {
         EXPECT_NE(::faccessat(covered.get(), "file", F_OK, 0), 0);
         return sys::Open(source, O_PATH);
       }}};
  std::atomic<bool> stop{false};
  std::thread attacker([&] {
    const std::pair<std::string, std::string> kSwaps[] = {
        {"/x", "/y"}, {"/etc", "/y"}, {"/dev", "/y"}, {"/proc", "/y"}};
    for (size_t i = 0; !stop; ++i) {
      const auto& [a, b] = kSwaps[i % 4];
      for (int twice = 0; twice < 2; ++twice) {
        ::syscall(SYS_renameat2, AT_FDCWD, (layer + a).c_str(), AT_FDCWD,
                  (layer + b).c_str(), RENAME_EXCHANGE);
      }
    }
  });
  int built = 0;
  int refused = 0;
  const int builds = testing::Repetitions(200);
  for (int i = 0; i < builds; ++i) {
    auto root = BuiltRoot::Build(options, limits());
    if (!root.ok()) {
      ++refused;
      continue;
    }
    ++built;
    (*root)->MakeDirectory("/x/made/here", 0755).IgnoreError();
    if (i % 20 == 0) Run(**root, "true").status().IgnoreError();
  }
  stop = true;
  attacker.join();
  EXPECT_EQ(built + refused, builds);
  // TearDown() looks at the outside.
}

// Somebody who may only rename a directory puts it where a mount point has just
// been made: its owner and mode are none of the mount point's.
TEST_P(HostileRootTest, SwappedDirectoryStaysPrivate) {
  const std::string layer =
      MakeLayer("hostile", {"proc/", "sys/", "dev/", "w/", "w/private/"});
  const std::string secret = layer + "/w/private";
  ASSERT_EQ(::mkdir((secret + "/inside").c_str(), 0755), 0);
  ASSERT_EQ(::chmod(secret.c_str(), 0700), 0);
  RootFsOptions options;
  options.layers = {Hold(layer)};
  options.writes = RootWrites::kInPlace;
  options.resolv_conf = "";
  ASSERT_OK_AND_ASSIGN(auto root, BuiltRoot::Build(options, limits()));
  const UniqueFd held(::open(secret.c_str(), O_PATH | O_CLOEXEC));
  const std::string place = layer + "/w/new";
  bool swapped = false;
  const std::function<void()> swap = [&] {
    swapped = ::syscall(SYS_renameat2, AT_FDCWD, place.c_str(), AT_FDCWD,
                        secret.c_str(), RENAME_EXCHANGE) == 0;
  };
  after_mkdir = &swap;
  root->MakeDirectory("/w/new", 0777).IgnoreError();
  after_mkdir = nullptr;
  EXPECT_TRUE(swapped);
  struct stat status;
  ASSERT_EQ(::fstat(held.get(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0700u);
}

}  // namespace
}  // namespace caisson::rootfs
