#include "lib/rootfs/devices.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <string>

#include "lib/base/status_matchers.h"
#include "lib/rootfs/test_container.h"
#include "lib/sys/open.h"

namespace caisson::rootfs {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr uint32_t kFirst = 100000;
constexpr DeviceNode::Number kZero = {DeviceNode::Type::kCharacter, 1, 5};
// What opens a watchdog restarts the machine.
constexpr DeviceNode::Number kWatchdog = {DeviceNode::Type::kCharacter, 10,
                                          130};

class DevicesTest : public RootFsTestBase,
                    public ::testing::WithParamInterface<KernelLimits> {
 protected:
  KernelLimits limits() const override { return GetParam(); }

  std::string Problem(DeviceNode device) {
    RootFsOptions options = BaseOptions();
    options.devices = {std::move(device)};
    return BuiltRoot::Build(options, limits()).status().ToString();
  }
};

std::vector<KernelLimits> WithBoundDevices() {
  std::vector<KernelLimits> all = AllKernels();
  for (KernelLimits limits : AllKernels()) {
    limits.bound_devices = true;
    all.push_back(limits);
  }
  return all;
}

INSTANTIATE_TEST_SUITE_P(
    Kernels, DevicesTest, ::testing::ValuesIn(WithBoundDevices()),
    [](const ::testing::TestParamInfo<KernelLimits>& info) {
      return KernelName(info) + (info.param.bound_devices ? "Bound" : "");
    });

TEST_P(DevicesTest, NodesOfTheHost) {
  RootFsOptions options = BaseOptions();
  options.devices = {
      {.path = "/dev/myzero", .source = "/dev/zero"},
      {.path = "/dev/deep/er/null", .source_fd = Hold("/dev/null")},
      {.path = "/dev/deep/zero", .source = "/dev/zero"}};
  const ScriptResult result = RunWith(
      options,
      "stat -c '%F %t:%T' /dev/myzero /dev/deep/er/null; dd if=/dev/myzero "
      "of=/tmp/x bs=7 count=1 2>/dev/null; stat -c size=%s /tmp/x; echo x > "
      "/dev/deep/er/null; echo null=$?; stat -c deep=%a:%u /dev/deep; "
      "dd if=/dev/deep/zero of=/dev/null count=1 2>/dev/null; echo deep=$?");
  EXPECT_EQ(result.output,
            "character special file 1:5\ncharacter special file 1:3\nsize=7\n"
            "null=0\ndeep=755:0\ndeep=0\n");
}

TEST_P(DevicesTest, NodesByNumber) {
  RootFsOptions options = BaseOptions();
  options.devices = {
      {.path = "/dev/watchdog", .number = kWatchdog, .mode = 0600},
      {.path = "/dev/vdz",
       .number = DeviceNode::Number{DeviceNode::Type::kBlock, 254, 99},
       .mode = 0640,
       .uid = 12,
       .gid = 34}};
  EXPECT_EQ(
      RunWith(options, "stat -c '%F %t:%T %a %u:%g' /dev/watchdog /dev/vdz")
          .output,
      "character special file a:82 600 0:0\n"
      "block special file fe:63 640 12:34\n");
}

TEST_P(DevicesTest, DefaultNodesCanBeAskedFor) {
  RootFsOptions options = BaseOptions();
  options.devices = {{.path = "/dev/null", .source = "/dev/null"},
                     {.path = "/dev/zero", .number = kZero}};
  EXPECT_EQ(RunWith(options,
                    "stat -c %a /dev/null /dev/zero; cat "
                    "/proc/interrupts")
                .output,
            "666\n666\n");
  EXPECT_THAT(
      Problem({.path = "/dev/null", .source = "/dev/zero"}),
      AllOf(HasSubstr("RootFsOptions.devices[0]"), HasSubstr("EEXIST")));
  EXPECT_THAT(Problem({.path = "/dev/full", .number = kZero}),
              HasSubstr("RootFs makes this node itself"));
}

TEST_P(DevicesTest, InAUserNamespace) {
  ASSERT_OK_AND_ASSIGN(UniqueFd user, NewUserNamespace(session(), kFirst));
  RootFsOptions options = BaseOptions();
  options.root_uid = options.root_gid = kFirst;
  for (BorrowedFd fd : {options.upper_directory, options.work_directory}) {
    EXPECT_EQ(::fchownat(fd.get(), "", kFirst, kFirst, AT_EMPTY_PATH), 0);
  }
  options.devices = {{.path = "/dev/myzero", .source = "/dev/zero"},
                     {.path = "/dev/sub/zero",
                      .number = kZero,
                      .uid = kFirst + 7,
                      .gid = kFirst + 8}};
  ScriptOptions script;
  script.user_namespace = user.borrow();
  const ScriptResult result = RunWith(
      options,
      "dd if=/dev/myzero of=/dev/null count=1 2>/dev/null; echo read=$?; "
      "dd if=/dev/sub/zero of=/dev/null count=1 2>/dev/null; echo sub=$?; "
      "stat -c owner=%u:%g /dev/myzero; stat -c subowner=%u:%g /dev/sub/zero; "
      "busybox mknod /dev/mine c 1 5 2>/dev/null; echo mknod=$?",
      script);
  EXPECT_EQ(result.Value("read"), "0");
  EXPECT_EQ(result.Value("sub"), "0");
  EXPECT_EQ(result.Value("subowner"), "7:8");
  EXPECT_EQ(result.Value("mknod"), "1");
  if (!limits().bound_devices) {
    EXPECT_EQ(result.Value("owner"), "0:0");
  }
}

// Without CAP_MKNOD the host's own nodes are bound, whose owner and mode are no
// affair of the container's root. Setting them as they are shows that as well.
TEST_P(DevicesTest, NodesOfTheHostCannotBeChanged) {
  const __user_cap_header_struct header = {
      .version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  __user_cap_data_struct all[2];
  ASSERT_EQ(::syscall(SYS_capget, &header, all), 0);
  __user_cap_data_struct fewer[2] = {all[0], all[1]};
  fewer[0].effective &= ~(1u << CAP_MKNOD);
  ASSERT_EQ(::syscall(SYS_capset, &header, fewer), 0);
  RootFsOptions options = BaseOptions();
  options.devices = {{.path = "/dev/myzero", .source = "/dev/zero"}};
  const ScriptResult result =
      RunWith(options,
              "echo x >/dev/null; echo write=$?; "
              "head -c 4 /dev/zero | wc -c | sed 's/^/read=/'; "
              "for node in null zero myzero; do "
              "chmod $(stat -c %a /dev/$node) /dev/$node 2>/dev/null; "
              "echo $node=$?; done");
  ASSERT_EQ(::syscall(SYS_capset, &header, all), 0);
  EXPECT_EQ(result.Value("write"), "0");
  EXPECT_EQ(result.Value("read"), "4");
  EXPECT_EQ(result.Value("null"), "1");
  EXPECT_EQ(result.Value("zero"), "1");
  EXPECT_EQ(result.Value("myzero"), "1");
}

TEST_P(DevicesTest, OnlyDevicesAreDevices) {
  const std::string file = MakeLayer("files", {"file=x", "dir/"});
  const std::string link = MakeLayer("links", {"l -> /dev/zero"}) + "/l";
  for (const char* name : {"/file", "/dir"}) {
    EXPECT_THAT(Problem({.path = "/dev/x", .source = file + name}),
                AllOf(HasSubstr("RootFsOptions.devices[0].source"),
                      HasSubstr("is not a device node")));
  }
  EXPECT_THAT(
      Problem({.path = "/dev/x", .source = file + "/none"}),
      AllOf(HasSubstr("RootFsOptions.devices[0]"), HasSubstr("ENOENT")));
  RootFsOptions options = BaseOptions();
  options.devices = {{.path = "/dev/x", .source = link}};
  EXPECT_EQ(RunWith(options, "stat -c %t:%T /dev/x").output, "1:5\n");
}

TEST_P(DevicesTest, PathsThatAreRefused) {
  for (const char* path :
       {"/dev", "/zero", "/devx/zero", "/dev/../zero", "dev/zero", "/dev/pts/0",
        "/dev/shm/x", "/dev/fd/x", "/dev/ptmx", "/dev/console", "/dev/stdin",
        "/proc/x", ""}) {
    EXPECT_THAT(Problem({.path = path, .number = kZero}),
                AllOf(HasSubstr("INVALID_ARGUMENT"),
                      HasSubstr("RootFsOptions.devices[0].path")))
        << path;
  }
  EXPECT_THAT(Problem({.path = "/dev/x"}), HasSubstr("needs one of source"));
  EXPECT_THAT(
      Problem({.path = "/dev/x", .source = "/dev/zero", .number = kZero}),
      HasSubstr("needs one of source"));
  EXPECT_THAT(Problem({.path = "/dev/x", .source = "dev/zero"}),
              HasSubstr("is not an absolute path"));
  EXPECT_THAT(Problem({.path = "/dev/x", .number = kZero, .mode = 04666}),
              HasSubstr("more than permission bits"));
  EXPECT_THAT(Problem({.path = "/dev/x",
                       .number = DeviceNode::Number{DeviceNode::Type::kBlock,
                                                    4096, 0}}),
              HasSubstr("more than the kernel has"));
  // A node is no directory.
  RootFsOptions options = BaseOptions();
  options.devices = {{.path = "/dev/x", .number = kZero},
                     {.path = "/dev/x/y", .number = kZero}};
  EXPECT_THAT(BuiltRoot::Build(options, limits()).status().ToString(),
              AllOf(HasSubstr("devices[1]"), HasSubstr("ENOTDIR")));
  options.devices[1].path = "/dev//x";
  EXPECT_THAT(BuiltRoot::Build(options, limits()),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       HasSubstr("is that of another device, too")));
}

TEST_P(DevicesTest, HiddenByAMount) {
  RootFsOptions options = BaseOptions();
  options.devices = {{.path = "/dev/net/tun", .number = kZero}};
  for (const char* path : {"/dev/net", "/dev/net/tun"}) {
    options.tmpfs = {{.destination = path}};
    EXPECT_THAT(BuiltRoot::Build(options, limits()),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         AllOf(HasSubstr("\"/dev/net/tun\" is hidden by "),
                               HasSubstr("RootFsOptions.tmpfs[0]"))));
  }
}

// The image's /dev plays no part.
TEST_P(DevicesTest, LinksOfTheImageLeadNowhere) {
  const std::string outside = MakeLayer("outside", {"keep=x"});
  RootFsOptions options =
      BaseOptions({MakeLayer("top", {"dev/net -> " + outside})});
  options.devices = {{.path = "/dev/net/tun", .number = kZero}};
  EXPECT_EQ(RunWith(options, "stat -c %F /dev/net").output, "directory\n");
  EXPECT_NE(::access((outside + "/tun").c_str(), F_OK), 0);
}

}  // namespace
}  // namespace caisson::rootfs
