// Roots of containers that live in a user namespace of their own.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "lib/base/status_matchers.h"
#include "lib/rootfs/test_container.h"
#include "lib/sys/open.h"

namespace caisson::rootfs {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr uint32_t kFirst = 100000;

constexpr char kScript[] =
    "stat -c '%n=%u:%g' / /etc /data/lower /bin/busybox /dev /dev/null "
    "/etc/hosts /dev/shm /dev/fd /proc/self/ /dev/pts/ptmx\n"
    "echo x > /new && echo changed > /data/lower; echo write=$?\n"
    "stat -c 'after=%u:%g' /data/lower\n"
    "mkdir /data/d && touch /dev/x /dev/shm/x /tmp/x; echo made=$?\n"
    "echo > /dev/null; echo null=$?; echo y >> /etc/hosts; echo hosts=$?\n"
    "cat /proc/interrupts | (read x; echo masked=$x)\n"
    "echo firmware=$(ls -A /sys/firmware)\n"
    "(echo 1 > /proc/sys/kernel/panic) 2>/dev/null; echo sysctl=$?\n"
    "echo net=$(ls /sys/class/net)\n"
    "while read -r l; do case $l in *' /dev/pts '*) echo $l;; esac; done < "
    "/proc/self/mountinfo\n";

class UserNamespaceTest : public RootFsTestBase {
 protected:
  void SetUp() override {
    RootFsTestBase::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    auto user = NewUserNamespace(session(), kFirst);
    ASSERT_OK(user);
    user_ = *std::move(user);
    script_.user_namespace = user_.borrow();
  }

  void TearDown() override {
    user_.reset();
    RootFsTestBase::TearDown();
  }

  RootFsOptions Options() {
    RootFsOptions options = BaseOptions({MakeLayer("top", {"data/top=top"})});
    options.root_uid = options.root_gid = kFirst;
    options.idmap_user_namespace = user_.borrow();
    for (BorrowedFd fd : {options.upper_directory, options.work_directory}) {
      EXPECT_EQ(::fchownat(fd.get(), "", kFirst, kFirst, AT_EMPTY_PATH), 0);
    }
    return options;
  }

  void ExpectOwnFiles(const ScriptResult& result) {
    for (const char* path : {"/", "/etc", "/data/lower", "/bin/busybox", "/dev",
                             "/dev/null", "/etc/hosts", "/dev/shm", "/dev/fd",
                             "/proc/self/", "/dev/pts/ptmx"}) {
      EXPECT_EQ(result.Value(path), "0:0") << path;
    }
    EXPECT_EQ(result.Value("write"), "0") << result.output;
    EXPECT_EQ(result.Value("after"), "0:0");
    EXPECT_EQ(result.Value("made"), "0") << result.output;
    EXPECT_EQ(result.Value("null"), "0");
    EXPECT_EQ(result.Value("hosts"), "0");
    EXPECT_EQ(result.Value("masked"), "");
    EXPECT_EQ(result.Value("firmware"), "");
    EXPECT_EQ(result.Value("sysctl"), "1");
    EXPECT_THAT(result.output, HasSubstr("gid=100005"));
  }

  UniqueFd user_;
  ScriptOptions script_;
};

// With layers that belong to the host's root.
class IdMappedTest : public UserNamespaceTest {
 protected:
  void SetUp() override {
    NeedKernel(6, 15);
    if (IsSkipped() || HasFatalFailure()) return;
    UserNamespaceTest::SetUp();
  }
};

TEST_F(IdMappedTest, LayersOfRootBelongToItsRoot) {
  const RootFsOptions options = Options();
  const ScriptResult result = RunWith(options, kScript, script_);
  ExpectOwnFiles(result);
  EXPECT_EQ(result.Value("net"), "lo");
  const std::string layer = dir() + "/layers/base";
  struct stat status;
  ASSERT_EQ(::stat((layer + "/data/lower").c_str(), &status), 0);
  EXPECT_EQ(status.st_uid, 0u);
  EXPECT_EQ(ReadHostFile(layer + "/data/lower"), "lower");
  for (const char* name : {"new", "data/lower", "data/d"}) {
    ASSERT_EQ(::fstatat(options.upper_directory.get(), name, &status, 0), 0)
        << name;
    EXPECT_EQ(status.st_uid, kFirst) << name;
    EXPECT_EQ(status.st_gid, kFirst) << name;
  }
}

TEST_F(IdMappedTest, WritesIntoMemory) {
  RootFsOptions options = Options();
  options.writes = RootWrites::kTmpfs;
  options.upper_directory = options.work_directory = BorrowedFd();
  ExpectOwnFiles(RunWith(options, kScript, script_));
}

TEST_F(IdMappedTest, ReadOnlyWithOneAndTwoLayers) {
  RootFsOptions options = Options();
  options.writes = RootWrites::kNone;
  options.upper_directory = options.work_directory = BorrowedFd();
  const char script[] =
      "stat -c root=%u:%g /; touch /x 2>/dev/null; echo touch=$?";
  EXPECT_EQ(RunWith(options, script, script_).output, "root=0:0\ntouch=1\n");
  options.layers.erase(options.layers.begin());
  EXPECT_EQ(RunWith(options, script, script_).output, "root=0:0\ntouch=1\n");
}

// The child, not the host, makes the root read-only.
TEST_F(IdMappedTest, ReadOnlyAboveAWritableLayer) {
  RootFsOptions options = Options();
  options.read_only = true;
  EXPECT_EQ(RunWith(options,
                    "touch /x 2>/dev/null; echo touch=$?; touch /dev/shm/x; "
                    "echo shm=$?",
                    script_)
                .output,
            "touch=1\nshm=0\n");
}

TEST_F(IdMappedTest, MissingMountPointsBelongToItsRoot) {
  RootFsOptions options = Options();
  const std::string layer = MakeLayer("bare", {});
  AddShell(layer);
  options.layers = {Hold(layer)};
  options.binds = {{.destination = "/srv/a/b", .source = layer}};
  const ScriptResult result = RunWith(
      options, "stat -c '%n=%u:%g:%a' /etc /etc/hosts /srv /srv/a", script_);
  EXPECT_EQ(result.Value("/etc"), "0:0:755");
  EXPECT_EQ(result.Value("/etc/hosts"), "0:0:644");
  EXPECT_EQ(result.Value("/srv"), "0:0:755");
  EXPECT_EQ(result.Value("/srv/a"), "0:0:755");
}

// The network namespace is the launcher's, hence its sysfs, too.
TEST_F(IdMappedTest, SharedNetwork) {
  script_.new_net_namespace = false;
  const ScriptResult result =
      RunWith(Options(),
              "touch /sys/x 2>/dev/null; echo touch=$?; ls -d /sys/class; echo "
              "firmware=$(ls -A /sys/firmware); stat -f -c fs=%T /sys; "
              "while read -r l; do case $l in *' /sys '*) echo $l;; esac; done "
              "< /proc/self/mountinfo",
              script_);
  EXPECT_EQ(result.Value("touch"), "1");
  EXPECT_THAT(result.output, AllOf(HasSubstr("/sys/class\n"),
                                   HasSubstr("/sys ro,nosuid,nodev,noexec")));
  EXPECT_EQ(result.Value("firmware"), "");
  EXPECT_EQ(result.Value("fs"), "sysfs");
}

TEST_F(IdMappedTest, SharedProcessesAndQueues) {
  script_.new_pid_namespace = false;
  script_.new_ipc_namespace = false;
  const ScriptResult result =
      RunWith(Options(),
              "ls -d /proc/self/root; echo mqueue=$(ls -A /dev/mqueue); cat "
              "/proc/interrupts | (read x; echo masked=$x)",
              script_);
  EXPECT_THAT(result.output, HasSubstr("/proc/self/root\n"));
  EXPECT_EQ(result.Value("mqueue"), "");
  EXPECT_EQ(result.Value("masked"), "");
}

// Fewer ids than the group of terminals.
TEST_F(IdMappedTest, GroupOfTerminalsNotMapped) {
  RootFsOptions options = Options();
  options.tty_group_mapped = false;
  const ScriptResult result = RunWith(options, kScript, script_);
  EXPECT_EQ(result.output.find("gid=100005"), std::string::npos);
  EXPECT_EQ(result.Value("write"), "0");
}

TEST_F(IdMappedTest, NamespaceWithoutMapsIsExplained) {
  RootFsOptions options = Options();
  ASSERT_OK_AND_ASSIGN(const UniqueFd initial,
                       sys::Open("/proc/self/ns/user", O_RDONLY));
  options.idmap_user_namespace = initial.borrow();
  EXPECT_THAT(BuiltRoot::Build(options, limits()),
              StatusIs(absl::StatusCode::kPermissionDenied,
                       AllOf(HasSubstr("RootFsOptions.layers[0], IDMAP"),
                             HasSubstr("initial user namespace"))));
  options.idmap_user_namespace = options.layers[0];
  EXPECT_THAT(BuiltRoot::Build(options, limits()),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("EBADF"),
                             HasSubstr("must be a user namespace"))));
}

TEST_F(UserNamespaceTest, OlderKernelsSayWhatTheyLack) {
  EXPECT_THAT(BuiltRoot::Build(Options(), {true, LayerSyntax::kStrings}),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("idmap_user_namespace needs Linux 6.15")));
  RootFsOptions options = Options();
  options.idmap_user_namespace = BorrowedFd();
  options.writes = RootWrites::kTmpfs;
  options.upper_directory = options.work_directory = BorrowedFd();
  EXPECT_THAT(BuiltRoot::Build(options, {true, LayerSyntax::kStrings}),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("kTmpfs needs Linux 6.15")));
}

// What older kernels can do: layers that belong to the container already.
TEST_F(UserNamespaceTest, OlderKernelsWithoutIdMappedLayers) {
  RootFsOptions options = Options();
  options.idmap_user_namespace = BorrowedFd();
  ASSERT_OK_AND_ASSIGN(auto root,
                       BuiltRoot::Build(options, {true, LayerSyntax::kJoined}));
  ASSERT_OK_AND_ASSIGN(const ScriptResult result, Run(*root, kScript, script_));
  EXPECT_EQ(result.Value("/dev"), "0:0");
  EXPECT_EQ(result.Value("null"), "0");
  EXPECT_EQ(result.Value("hosts"), "0");
  EXPECT_EQ(result.Value("masked"), "");
  EXPECT_EQ(result.Value("firmware"), "");
}

}  // namespace
}  // namespace caisson::rootfs
