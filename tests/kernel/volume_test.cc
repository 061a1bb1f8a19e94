// Volumes, devices and views of control groups in whole starts.
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "caisson/caisson.h"
#include "lib/base/status_matchers.h"
#include "lib/sys/open.h"
#include "tests/support/machine.h"
#include "tests/support/test_root.h"

namespace caisson {
namespace {

namespace fs = std::filesystem;
using ::caisson::testing::StatusIs;
using ::caisson::testing::TestRoot;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr size_t kMaxOutput = 1 << 20;
constexpr uint32_t kFirst = 100000;

class VolumeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) {
      ASSERT_FALSE(testing::TestsMustRun()) << "needs root";
      GTEST_SKIP() << "needs root: it starts containers";
    }
    before_ = testing::TakeHostSnapshot();
    root_.emplace();
    char name[] = "/tmp/caisson-volume-start-XXXXXX";
    ASSERT_NE(::mkdtemp(name), nullptr);
    dir_ = name;
    auto launcher = Launcher::Create();
    ASSERT_OK(launcher);
    launcher_.emplace(*std::move(launcher));
    auto store = VolumeStore::Open({.path = dir_ + "/volumes"});
    ASSERT_OK(store);
    store_.emplace(*std::move(store));
    fs::create_directories(root_->path() + "/data/sub");
    root_->Write("data/file", "image", 0644);
    ASSERT_EQ(::chown((root_->path() + "/data").c_str(), 7, 8), 0);
  }

  void TearDown() override {
    if (dir_.empty()) return;
    store_.reset();
    EXPECT_OK(launcher_->Shutdown());
    launcher_.reset();
    root_.reset();
    fs::remove_all(dir_);
    const auto after = testing::TakeHostSnapshot();
    EXPECT_EQ(after.mounts, before_.mounts);
    EXPECT_EQ(after.descriptors, before_.descriptors);
    EXPECT_EQ(after.children, before_.children);
    EXPECT_EQ(after.cgroups, before_.cgroups);
  }

  // The output of a script in `root`.
  std::string Run(RootFs& root, const std::string& script,
                  ProcessSpec spec = {}) {
    int fds[2];
    EXPECT_EQ(::pipe2(fds, O_CLOEXEC), 0);
    UniqueFd reader(fds[0]);
    UniqueFd writer(fds[1]);
    spec.argv = {"sh", "-c", script};
    spec.root = &root;
    spec.out = Stdio::Inherit(writer.borrow());
    spec.err = Stdio::Inherit(writer.borrow());
    auto process = launcher_->Start(spec);
    EXPECT_OK(process);
    if (!process.ok()) return "";
    writer.reset();
    auto output = sys::ReadAll(reader.borrow(), kMaxOutput, "output");
    EXPECT_OK(process->Wait());
    return output.ok() ? *output : "";
  }

  std::string Run(const RootFsOptions& options, const std::string& script,
                  ProcessSpec spec = {}) {
    auto root = RootFs::Create(options);
    EXPECT_OK(root);
    return root.ok() ? Run(*root, script, std::move(spec)) : "";
  }

  RootFsOptions Options(BindMount bind) {
    RootFsOptions options = root_->Options();
    options.binds.push_back(std::move(bind));
    return options;
  }

  VolumeStore& store() { return *store_; }

  std::string dir_;
  std::optional<TestRoot> root_;
  std::optional<Launcher> launcher_;
  std::optional<VolumeStore> store_;
  testing::HostSnapshot before_;
};

TEST_F(VolumeTest, NewVolumeGetsTheImagesContentOnce) {
  ASSERT_OK_AND_ASSIGN(const auto use, store().Use("v", {.user = "web"}));
  EXPECT_EQ(Run(Options(use.BindAt("/data")),
                "cat /data/file; stat -c ' %u:%g' /data; ls -d /data/sub; echo "
                "changed > /data/file; rm -r /data/sub"),
            "image 7:8\n/data/sub\n");
  EXPECT_EQ(Run(Options(use.BindAt("/data")), "cat /data/file; ls /data"),
            "changed\nfile\n");
  EXPECT_EQ(Run(Options(use.BindAt("/other", /*read_only=*/true)),
                "cat /other/file; touch /other/x 2>/dev/null; echo ro=$?"),
            "changed\nro=1\n");
  // The image is as it was.
  EXPECT_TRUE(fs::exists(root_->path() + "/data/sub"));
}

TEST_F(VolumeTest, NoCopy) {
  ASSERT_OK_AND_ASSIGN(const auto use, store().Use("v", {.copy = false}));
  EXPECT_EQ(Run(Options(use.BindAt("/data")), "ls -A /data"), "");
}

// The image's links lead inside the image, also for what is copied.
TEST_F(VolumeTest, LinksInTheImageStayInside) {
  fs::create_symlink("../../../../../../../data", root_->path() + "/way");
  fs::create_symlink(dir_, root_->path() + "/out");
  ASSERT_OK_AND_ASSIGN(const auto a, store().Use("a"));
  ASSERT_OK_AND_ASSIGN(const auto b, store().Use("b"));
  RootFsOptions options = Options(a.BindAt("/way"));
  options.binds.push_back(b.BindAt("/out"));
  EXPECT_EQ(Run(options, "cat /data/file; ls -A /out/"), "image");
  EXPECT_TRUE(fs::is_empty(dir_ + "/volumes/volumes/b/data"));
}

TEST_F(VolumeTest, TwoContainersAtOnce) {
  ASSERT_OK_AND_ASSIGN(const auto use, store().Use("v"));
  ASSERT_OK_AND_ASSIGN(RootFs first,
                       RootFs::Create(Options(use.BindAt("/data"))));
  ASSERT_OK_AND_ASSIGN(RootFs second,
                       RootFs::Create(Options(use.BindAt("/mnt"))));
  Run(first, "echo seen > /data/x");
  EXPECT_EQ(Run(second, "cat /mnt/x /mnt/file"), "seen\nimage");
}

TEST_F(VolumeTest, RootKeepsTheVolumeAndSharesIt) {
  std::optional<RootFs> first;
  {
    ASSERT_OK_AND_ASSIGN(const auto use, store().Use("v", {.user = "web"}));
    ASSERT_OK_AND_ASSIGN(RootFs root,
                         RootFs::Create(Options(use.BindAt("/data"))));
    first.emplace(std::move(root));
  }
  Run(*first, "echo from-first > /data/file");
  EXPECT_THAT(store().Remove("v"),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("in use by \"web\""))));
  {
    RootFsOptions options = root_->Options();
    options.binds = first->binds();
    ASSERT_EQ(options.binds.size(), 1u);
    options.binds[0].read_only = true;
    first.reset();
    EXPECT_EQ(Run(options,
                  "cat /data/file; touch /data/x 2>/dev/null; echo "
                  "ro=$?"),
              "from-first\nro=1\n");
    EXPECT_FALSE(store().Remove("v").ok());
  }
  EXPECT_OK(store().Remove("v"));
}

// One volume for containers with different ids: a file of their root is root's
// on disk.
TEST_F(VolumeTest, IdMappedForAUserNamespace) {
  NEED_KERNEL(6, 15);
  auto user = launcher_->NewUserNamespace({0, kFirst, 65536});
  ASSERT_OK(user);
  ASSERT_OK_AND_ASSIGN(const auto use, store().Use("v"));
  BindMount bind = use.BindAt("/data");
  bind.idmap_user_namespace = user->borrow();
  RootFsOptions options = Options(std::move(bind));
  options.root_uid = options.root_gid = kFirst;
  options.idmap_user_namespace = user->borrow();
  // The copy is made of the image as the container sees it; here nothing is.
  fs::remove_all(root_->path() + "/data");
  ASSERT_OK_AND_ASSIGN(RootFs root, RootFs::Create(options));
  NamespaceOptions namespace_options;
  namespace_options.user = *std::move(user);
  ASSERT_OK_AND_ASSIGN(const Namespace namespaces,
                       Namespace::Create(std::move(namespace_options)));
  ProcessSpec spec;
  spec.namespaces = &namespaces;
  EXPECT_EQ(Run(root, "echo x > /data/mine && stat -c %u:%g /data/mine", spec),
            "0:0\n");
  struct stat status;
  ASSERT_EQ(::stat((dir_ + "/volumes/volumes/v/data/mine").c_str(), &status),
            0);
  EXPECT_EQ(status.st_uid, 0u);
}

// A user namespace may mount no sysfs of a network namespace that it does not
// own.
TEST_F(VolumeTest, SysfsOfTheHostsNetworkInAUserNamespace) {
  NEED_KERNEL(6, 15);
  auto user = launcher_->NewUserNamespace({0, kFirst, 65536});
  ASSERT_OK(user);
  RootFsOptions options = root_->Options();
  options.root_uid = options.root_gid = kFirst;
  options.idmap_user_namespace = user->borrow();
  ASSERT_OK_AND_ASSIGN(RootFs root, RootFs::Create(options));
  NamespaceOptions namespace_options;
  namespace_options.user = *std::move(user);
  namespace_options.net = NamespaceSource::ShareWithHost();
  ASSERT_OK_AND_ASSIGN(const Namespace namespaces,
                       Namespace::Create(std::move(namespace_options)));
  ProcessSpec spec;
  spec.namespaces = &namespaces;
  std::string links;
  for (const auto& entry : fs::directory_iterator("/sys/class/net")) {
    if (entry.path().filename() == "lo") links = "lo";
  }
  const std::string output = Run(
      root,
      "ls -d /sys/class/net/lo; touch /sys/x 2>/dev/null; echo touch=$?; "
      "ls -A /sys/firmware /sys/fs/cgroup | grep -c '^[a-z]'; grep ' / /sys ' "
      "/proc/self/mountinfo | cut -d ' ' -f 6",
      spec);
  EXPECT_EQ(links, "lo");
  EXPECT_EQ(output,
            "/sys/class/net/lo\ntouch=1\n0\nro,nosuid,nodev,noexec,relatime\n");
}

TEST_F(VolumeTest, DevicesOpenForTheirUsers) {
  RootFsOptions options = root_->Options();
  options.devices = {{.path = "/dev/my/zero", .source = "/dev/zero"}};
  EXPECT_EQ(Run(options, "head -c 5 /dev/my/zero | wc -c"), "5\n");
}

TEST_F(VolumeTest, V1GroupsAsOnAHost) {
  if (::access("/sys/fs/cgroup/memory/tasks", F_OK) != 0) {
    ASSERT_FALSE(testing::TestsMustRun()) << "needs cgroup v1";
    GTEST_SKIP() << "needs the cgroup v1 hierarchy memory";
  }
  const std::string path = absl::StrCat("/caisson-test-", ::getpid());
  ASSERT_OK_AND_ASSIGN(const auto parent, CgroupParent::Open({.path = path}));
  ASSERT_OK_AND_ASSIGN(
      const Cgroup cgroup,
      parent.Create(
          {.name = "job", .limits = {.memory_max = int64_t{64} << 20}}));
  ProcessSpec spec;
  spec.cgroup = &cgroup;
  const std::string output =
      Run(root_->Options(),
          "cat /sys/fs/cgroup/memory/memory.limit_in_bytes; grep -c . "
          "/sys/fs/cgroup/memory/cgroup.procs; ls -d "
          "/sys/fs/cgroup/memory/caisson* 2>/dev/null; mkdir "
          "/sys/fs/cgroup/memory/x 2>/dev/null; echo mkdir=$?; grep ' "
          "/sys/fs/cgroup/memory ' /proc/self/mountinfo | cut -d ' ' -f 4; "
          "grep memory /proc/self/cgroup | cut -d : -f 3",
          spec);
  EXPECT_THAT(output, HasSubstr("67108864\n"));
  EXPECT_THAT(output, HasSubstr("mkdir=1\n/\n/\n"));
}

}  // namespace
}  // namespace caisson
