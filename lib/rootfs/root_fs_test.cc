// The default tree, as a program in it finds it.
#include "caisson/root_fs.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "lib/base/status_matchers.h"
#include "lib/rootfs/test_container.h"
#include "lib/sys/open.h"

namespace caisson::rootfs {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

// The mounts as "/proc proc ro,nosuid": place, type and options of the mount.
std::vector<std::string> Mounts(const std::string& mountinfo) {
  std::vector<std::string> mounts;
  for (absl::string_view line :
       absl::StrSplit(mountinfo, '\n', absl::SkipEmpty())) {
    const std::vector<std::string> halves = absl::StrSplit(line, " - ");
    const std::vector<std::string> left = absl::StrSplit(halves[0], ' ');
    const std::vector<std::string> right = absl::StrSplit(halves[1], ' ');
    mounts.push_back(absl::StrCat(left[4], " ", right[0], " ", left[5]));
  }
  return mounts;
}

class DefaultTreeTest : public RootFsTestBase,
                        public ::testing::WithParamInterface<KernelLimits> {
 protected:
  KernelLimits limits() const override { return GetParam(); }

  RootFsOptions Options() {
    RootFsOptions options;
    options.layers = {Hold(BaseLayer())};
    UseDirectories(options);
    options.hostname = "web";
    options.resolv_conf = "nameserver 192.0.2.1\n";
    return options;
  }
};

INSTANTIATE_TEST_SUITE_P(Kernels, DefaultTreeTest,
                         ::testing::ValuesIn(AllKernels()), KernelName);

TEST_P(DefaultTreeTest, HasTheMountsOfTheSpecification) {
  const ScriptResult result = RunWith(Options(), "cat /proc/self/mountinfo");
  ASSERT_EQ(result.exit_code, 0) << result.output;
  const std::vector<std::string> mounts = Mounts(result.output);
  std::vector<std::string> expected = {
      "/ overlay rw,nodev,relatime",
      "/proc proc rw,nosuid,nodev,noexec,relatime",
      "/sys sysfs ro,nosuid,nodev,noexec,relatime",
      "/dev tmpfs rw,nosuid,relatime",
      "/dev/pts devpts rw,nosuid,noexec,relatime",
      "/dev/mqueue mqueue rw,nosuid,nodev,noexec,relatime",
      "/dev/shm tmpfs rw,nosuid,nodev,noexec,relatime",
      "/etc/hostname tmpfs rw,nosuid,relatime",
      "/etc/hosts tmpfs rw,nosuid,relatime",
      "/etc/resolv.conf tmpfs rw,nosuid,relatime",
  };
  // What of the lists this kernel has.
  for (const std::string& path : DefaultMaskedPaths()) {
    struct stat status;
    if (::stat(path.c_str(), &status) != 0) continue;
    expected.push_back(absl::StrCat(path, " tmpfs ",
                                    S_ISDIR(status.st_mode) ? "ro" : "rw",
                                    ",nosuid,relatime"));
  }
  for (const std::string& path : DefaultReadOnlyPaths()) {
    if (::access(path.c_str(), F_OK) != 0) continue;
    expected.push_back(
        absl::StrCat(path, " proc ro,nosuid,nodev,noexec,relatime"));
  }
  EXPECT_THAT(mounts, ::testing::UnorderedElementsAreArray(expected));
}

TEST_P(DefaultTreeTest, DeviceNodesHaveTheirNumbersAndModes) {
  const ScriptResult result = RunWith(
      Options(),
      "cd /dev; for i in *; do stat -c '%n=%F %a %t:%T %u:%g' $i; done; "
      "for i in fd stdin stdout stderr ptmx; do echo $i=$(readlink $i); done; "
      "stat -c 'dev=%a %u:%g' /dev; stat -c 'ptmx_node=%a' /dev/pts/ptmx; "
      "head=$(dd if=/dev/zero bs=1 count=1 2>/dev/null | dd of=/dev/null 2>&1);"
      "echo used=$?");
  ASSERT_EQ(result.exit_code, 0) << result.output;
  const std::pair<const char*, const char*> kNodes[] = {
      {"null", "1:3"},   {"zero", "1:5"},    {"full", "1:7"},
      {"random", "1:8"}, {"urandom", "1:9"}, {"tty", "5:0"}};
  for (const auto& [name, number] : kNodes) {
    EXPECT_EQ(result.Value(name),
              absl::StrCat("character special file 666 ", number, " 0:0"));
  }
  EXPECT_THAT(result.output, HasSubstr("fd=/proc/self/fd\n"));
  EXPECT_THAT(result.output, HasSubstr("stdin=/proc/self/fd/0\n"));
  EXPECT_THAT(result.output, HasSubstr("stdout=/proc/self/fd/1\n"));
  EXPECT_THAT(result.output, HasSubstr("stderr=/proc/self/fd/2\n"));
  EXPECT_THAT(result.output, HasSubstr("ptmx=pts/ptmx\n"));
  EXPECT_EQ(result.Value("dev"), "755 0:0");
  EXPECT_EQ(result.Value("ptmx_node"), "666");
  EXPECT_EQ(result.Value("used"), "0");
}

TEST_P(DefaultTreeTest, UmaskOfTheHostPlaysNoPart) {
  const mode_t before = ::umask(0777);
  const RootFsOptions options = Options();
  ::umask(0777);
  auto root = BuiltRoot::Build(options, limits());
  ::umask(before);
  ASSERT_OK(root);
  ASSERT_OK_AND_ASSIGN(const ScriptResult result,
                       Run(**root,
                           "stat -c '%n=%a' /dev /dev/null /dev/shm "
                           "/dev/mqueue /etc/hosts /etc/hostname"));
  EXPECT_EQ(result.Value("/dev"), "755");
  EXPECT_EQ(result.Value("/dev/null"), "666");
  EXPECT_EQ(result.Value("/dev/shm"), "1777");
  EXPECT_EQ(result.Value("/dev/mqueue"), "1777");
  EXPECT_EQ(result.Value("/etc/hosts"), "644");
  EXPECT_EQ(result.Value("/etc/hostname"), "644");
}

TEST_P(DefaultTreeTest, MaskedAndReadOnlyPathsAre) {
  const ScriptResult result = RunWith(
      Options(),
      "echo interrupts=$(cat /proc/interrupts | dd bs=1 2>&1 | cat | "
      "while read a; do echo x; break; done)\n"
      "cat /proc/interrupts > /tmp/i; stat -c 'size=%s' /tmp/i\n"
      "cat /proc/timer_list > /tmp/t; stat -c 'timer=%s' /tmp/t\n"
      "echo firmware=$(ls -A /sys/firmware)\n"
      "echo acpi=$(ls -A /proc/acpi)\n"
      "touch /sys/firmware/x 2>/dev/null; echo touch=$?\n"
      "(echo 1 > /proc/sys/kernel/panic) 2>/dev/null; echo sysctl=$?\n"
      "(echo 0 > /proc/sys/vm/drop_caches) 2>/dev/null; echo vm=$?\n"
      "(echo f > /proc/irq/default_smp_affinity) 2>/dev/null; echo irq=$?\n"
      "mkdir /sys/fs/cgroup/x 2>/dev/null; echo cgroup=$?\n"
      "cat /proc/sys/kernel/ostype\n");
  ASSERT_EQ(result.exit_code, 0) << result.output;
  EXPECT_EQ(result.Value("size"), "0");
  EXPECT_EQ(result.Value("timer"), "0");
  EXPECT_EQ(result.Value("firmware"), "");
  EXPECT_EQ(result.Value("acpi"), "");
  EXPECT_EQ(result.Value("touch"), "1");
  EXPECT_EQ(result.Value("sysctl"), "1");
  EXPECT_EQ(result.Value("vm"), "1");
  EXPECT_EQ(result.Value("irq"), "1");
  EXPECT_EQ(result.Value("cgroup"), "1");
  EXPECT_THAT(result.output, HasSubstr("Linux"));
}

TEST_P(DefaultTreeTest, ShowsOnlyItsOwnNamespaces) {
  const ScriptResult result = RunWith(
      Options(),
      "echo pid=$$; echo processes=$(ls -d /proc/[0-9]* | while read p; do "
      "echo -n x; done); echo net=$(ls /sys/class/net); echo pwd=$PWD; "
      "echo root=$(ls /); echo up=$(ls /..)");
  EXPECT_EQ(result.Value("pid"), "1");
  EXPECT_EQ(result.Value("net"), "lo");
  EXPECT_EQ(result.Value("pwd"), "/");
  EXPECT_EQ(result.Value("root"), "bin data dev etc proc sys tmp");
  EXPECT_EQ(result.Value("up"), result.Value("root"));
}

TEST_P(DefaultTreeTest, EtcFilesAreItsOwn) {
  RootFsOptions options = Options();
  options.hosts = {{"172.20.0.2", {"web", "web.test"}}, {"fd00::1", {"db"}}};
  const ScriptResult result = RunWith(
      options,
      "cat /etc/hostname /etc/hosts /etc/resolv.conf; echo x >> /etc/hosts; "
      "echo write=$?; rm /etc/hosts 2>/dev/null; echo rm=$?");
  EXPECT_THAT(result.output, HasSubstr("web\n127.0.0.1\tlocalhost\n::1"));
  EXPECT_THAT(result.output,
              HasSubstr("172.20.0.2\tweb web.test\nfd00::1\tdb\nnameserver "
                        "192.0.2.1\n"));
  EXPECT_THAT(result.output, Not(HasSubstr("image")));
  EXPECT_EQ(result.Value("write"), "0");
  EXPECT_EQ(result.Value("rm"), "1");
}

TEST_P(DefaultTreeTest, WritesGoToTheUpperDirectoryOnly) {
  RootFsOptions options = Options();
  const ScriptResult result =
      RunWith(options,
              "echo changed > /data/lower; echo new > /new; rm /etc/passwd; "
              "cat /data/lower /new");
  EXPECT_EQ(result.output, "changed\nnew\n");
  const std::string layer = dir() + "/layers/base";
  EXPECT_EQ(ReadHostFile(layer + "/data/lower"), "lower");
  EXPECT_NE(::access((layer + "/new").c_str(), F_OK), 0);
  EXPECT_EQ(::access((layer + "/etc/passwd").c_str(), F_OK), 0);
  UniqueFd upper(::openat(options.upper_directory.get(), ".",
                          O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  struct stat status;
  EXPECT_EQ(::fstatat(upper.get(), "new", &status, 0), 0);
  EXPECT_EQ(status.st_uid, 0u);
  ASSERT_EQ(::fstatat(upper.get(), "etc/passwd", &status, 0), 0);
  EXPECT_TRUE(S_ISCHR(status.st_mode));
}

TEST_P(DefaultTreeTest, TwoContainersOfTheSameLayersDoNotSeeEachOther) {
  RootFsOptions one = Options();
  RootFsOptions two = one;
  UseDirectories(two);
  auto first = BuiltRoot::Build(one, limits());
  auto second = BuiltRoot::Build(two, limits());
  ASSERT_OK(first);
  ASSERT_OK(second);
  ASSERT_OK(Run(**first, "echo 1 > /one; echo 1 > /dev/shm/one; touch /dev/x"));
  ASSERT_OK_AND_ASSIGN(const ScriptResult result,
                       Run(**second, "ls /one /dev/shm/one /dev/x"));
  EXPECT_EQ(result.exit_code, 1);
}

TEST_P(DefaultTreeTest, ReadOnlyRoot) {
  RootFsOptions options = Options();
  options.read_only = true;
  auto root = BuiltRoot::Build(options, limits());
  ASSERT_OK(root);
  EXPECT_OK((*root)->MakeDirectory("/work/deep", 0750));
  ASSERT_OK_AND_ASSIGN(
      const ScriptResult result,
      Run(**root,
          "touch /x 2>/dev/null; echo root=$?; touch /etc/x 2>/dev/null; echo "
          "etc=$?; touch /dev/x; echo dev=$?; touch /dev/shm/x; echo shm=$?; "
          "stat -c work=%a /work/deep; echo x > /etc/hosts; echo hosts=$?"));
  EXPECT_EQ(result.Value("root"), "1");
  EXPECT_EQ(result.Value("etc"), "1");
  EXPECT_EQ(result.Value("dev"), "0");
  EXPECT_EQ(result.Value("shm"), "0");
  EXPECT_EQ(result.Value("hosts"), "0");
  EXPECT_EQ(result.Value("work"), "750");
}

TEST_P(DefaultTreeTest, SeveralLayersTheTopOneFirst) {
  RootFsOptions options = Options();
  const std::string top = MakeLayer("top", {"data/lower=top", "data/top=only"});
  const std::string middle =
      MakeLayer("middle", {"data/lower=middle", "data/middle=m"});
  options.layers = {Hold(top), Hold(middle), options.layers[0]};
  const ScriptResult result =
      RunWith(options, "cat /data/lower /data/top /data/middle; ls /data");
  EXPECT_EQ(result.output, "toponlymlower\nmiddle\ntop\n");
}

TEST_P(DefaultTreeTest, WithoutAWritableLayerOneLayer) {
  RootFsOptions options = Options();
  options.writes = RootWrites::kNone;
  options.upper_directory = options.work_directory = BorrowedFd();
  const ScriptResult result = RunWith(
      options,
      "touch /x 2>/dev/null; echo root=$?; mount -o remount,rw / 2>/dev/null; "
      "cat /data/lower /etc/hostname; stat -f -c fs=%T /");
  EXPECT_EQ(result.Value("root"), "1");
  EXPECT_THAT(result.output, HasSubstr("lowerweb\n"));
  EXPECT_NE(::access((dir() + "/layers/base/x").c_str(), F_OK), 0);
}

TEST_P(DefaultTreeTest, WithoutAWritableLayerTwoLayers) {
  RootFsOptions options = Options();
  options.layers.insert(options.layers.begin(),
                        Hold(MakeLayer("top", {"data/lower=top"})));
  options.writes = RootWrites::kNone;
  options.upper_directory = options.work_directory = BorrowedFd();
  const ScriptResult result =
      RunWith(options, "touch /x 2>/dev/null; echo root=$?; cat /data/lower");
  EXPECT_EQ(result.output, "root=1\ntop");
}

TEST_P(DefaultTreeTest, InPlace) {
  RootFsOptions options = Options();
  options.writes = RootWrites::kInPlace;
  options.upper_directory = options.work_directory = BorrowedFd();
  const ScriptResult result =
      RunWith(options, "echo hello > /written; cat /proc/self/mountinfo");
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(result.output, HasSubstr(" / rw,nodev,"));
  EXPECT_EQ(ReadHostFile(dir() + "/layers/base/written"), "hello\n");
}

TEST_P(DefaultTreeTest, SecondStartIsRefused) {
  const RootFsOptions options = Options();
  auto root = BuiltRoot::Build(options, limits());
  ASSERT_OK(root);
  ASSERT_OK(Run(**root, "true"));
  EXPECT_THAT(Run(**root, "true"),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("started already")));
}

TEST_P(DefaultTreeTest, OpenSeesWhatTheContainerWillSee) {
  RootFsOptions options = Options();
  options.binds = {{.destination = "/etc/conf",
                    .source = MakeLayer("conf", {"a=bound", "up -> ../passwd",
                                                 "abs -> /data/lower"})}};
  options.hostname = "web";
  ASSERT_OK_AND_ASSIGN(auto root, BuiltRoot::Build(options, limits()));
  const auto read = [&root](const char* path) -> std::string {
    auto file = root->Open(path, O_RDONLY);
    if (!file.ok()) return std::string(file.status().message());
    auto text = sys::ReadAll(file->borrow(), 4096, path);
    return text.ok() ? *text : "?";
  };
  EXPECT_EQ(read("/etc/hostname"), "web\n");
  EXPECT_EQ(read("/etc/conf/a"), "bound");
  EXPECT_THAT(read("/etc/conf/up"), HasSubstr("root:x:0:0"));
  EXPECT_EQ(read("/etc/conf/abs"), "lower");
  EXPECT_EQ(read("/etc/conf/../../../../data/lower"), "lower");
  EXPECT_THAT(read("/nowhere"), HasSubstr("ENOENT"));
  EXPECT_THAT(read("/dev/null"), HasSubstr("neither a regular file nor"));
  EXPECT_OK(root->Open("/", O_RDONLY | O_DIRECTORY));
  EXPECT_OK(root->Open("/dev/null", O_PATH));
  EXPECT_THAT(
      root->Open("/data/lower", O_RDONLY | O_DIRECTORY),
      StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("ENOTDIR")));
  EXPECT_THAT(
      root->Open("data", O_RDONLY),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("not absolute")));
  EXPECT_THAT(root->Open("/x", O_RDWR | O_CREAT),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("create or truncate")));
}

TEST_P(DefaultTreeTest, OpenSeesWhatTheContainerLeft) {
  const RootFsOptions options = Options();
  ASSERT_OK_AND_ASSIGN(auto root, BuiltRoot::Build(options, limits()));
  ASSERT_OK(Run(*root,
                "echo result > /tmp/out; mkdir /tmp/p; ln -s "
                "/proc/1/root /tmp/link"));
  ASSERT_OK_AND_ASSIGN(const UniqueFd file, root->Open("/tmp/out", O_RDONLY));
  ASSERT_OK_AND_ASSIGN(const std::string text,
                       sys::ReadAll(file.borrow(), 100, "out"));
  EXPECT_EQ(text, "result\n");
  EXPECT_FALSE(root->Open("/tmp/link/etc", O_PATH).ok());
}

TEST_P(DefaultTreeTest, WritesIntoMemory) {
  if (GetParam().attached_mounts_only) return;  // says OlderKernelsSay...
  NeedKernel(6, 15);
  if (IsSkipped() || HasFatalFailure()) return;
  RootFsOptions options = Options();
  options.writes = RootWrites::kTmpfs;
  options.upper_directory = options.work_directory = BorrowedFd();
  options.tmpfs_size_bytes = 1 << 20;
  const mode_t before = ::umask(0777);
  auto root = BuiltRoot::Build(options, limits());
  ::umask(before);
  ASSERT_OK(root);
  ASSERT_OK_AND_ASSIGN(
      const ScriptResult result,
      Run(**root,
          "stat -c root=%a /; echo x > /data/lower; cat /data/lower; dd "
          "if=/dev/zero of=/big bs=64k count=32 2>/dev/null; echo full=$?; "
          "touch /x; mkdir /y"));
  EXPECT_EQ(result.Value("root"), "755");
  EXPECT_EQ(result.Value("full"), "1");
  EXPECT_THAT(result.output, HasSubstr("x\n"));
  EXPECT_EQ(ReadHostFile(dir() + "/layers/base/data/lower"), "lower");
}

TEST_P(DefaultTreeTest, MakeDirectoryFollowsLinksInsideTheRoot) {
  const std::string outside = dir() + "/outside";
  RootFsOptions options = Options();
  options.layers = {
      Hold(MakeLayer(
          "links", {"out -> " + outside, "up -> ../../../../../../../../tmp"})),
      options.layers[0]};
  ASSERT_OK_AND_ASSIGN(auto root, BuiltRoot::Build(options, limits()));
  EXPECT_OK(root->MakeDirectory("/out/a/b", 0700));
  // No name that anybody else could have below the machine's /tmp.
  const std::string name = absl::StrCat("caisson-root-fs-test-", ::getpid());
  EXPECT_OK(root->MakeDirectory("/up/" + name, 0711));
  EXPECT_OK(root->MakeDirectory("/data", 0700));
  EXPECT_THAT(
      root->MakeDirectory("/data/lower", 0700),
      StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("ENOTDIR")));
  EXPECT_NE(::access(outside.c_str(), F_OK), 0);
  EXPECT_NE(::access(("/tmp/" + name).c_str(), F_OK), 0);
  ASSERT_OK_AND_ASSIGN(
      const ScriptResult result,
      Run(*root, absl::StrCat("stat -c deep=%a ", outside, "/a/b; stat -c ",
                              "parent=%a ", outside, "/a; stat -c up=%a /tmp/",
                              name, "; stat -c data=%a /data")));
  EXPECT_EQ(result.Value("deep"), "700");
  EXPECT_EQ(result.Value("parent"), "755");
  EXPECT_EQ(result.Value("up"), "711");
  EXPECT_EQ(result.Value("data"), "755");
  EXPECT_THAT(root->MakeDirectory("/late", 0755),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("started already")));
}

TEST_P(DefaultTreeTest, OwnControlGroupIsShownReadOnly) {
  ScriptOptions script;
  script.own_cgroup2 = true;
  const ScriptResult result = RunWith(
      Options(),
      "stat -f -c fs=%t /sys/fs/cgroup; cat /sys/fs/cgroup/cgroup.controllers "
      ">/dev/null; echo read=$?; mkdir /sys/fs/cgroup/x 2>/dev/null; echo "
      "mkdir=$?; echo path=$(cat /proc/self/cgroup | while read l; do case $l "
      "in 0::*) echo $l;; esac; done)",
      script);
  EXPECT_EQ(result.Value("fs"), "63677270") << result.output;
  EXPECT_EQ(result.Value("read"), "0");
  EXPECT_EQ(result.Value("mkdir"), "1");
  EXPECT_EQ(result.Value("path"), "0::/");
}

TEST_P(DefaultTreeTest, LauncherWithoutMountsOfItsOwn) {
  // As if the launcher had not been able to leave the host's mounts: the
  // child's "/" then has them, and they must be gone afterwards.
  ScriptOptions script;
  script.isolated_launcher = false;
  const ScriptResult result =
      RunWith(Options(), "cat /proc/self/mountinfo; ls /", script);
  EXPECT_THAT(result.output, AllOf(HasSubstr(" / / "), HasSubstr("/dev/shm"),
                                   HasSubstr("data\n")));
}

}  // namespace
}  // namespace caisson::rootfs
