// The controllers of network traffic, which exist in version 1 only and which
// few hosts still mount: on a hierarchy that the test mounts for itself. What
// is in /proc/PID/cgroup of the whole machine meanwhile is why it runs alone.
#include <errno.h>
#include <fcntl.h>
#include <rdma/ib_user_verbs.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "caisson/cgroup.h"
#include "caisson/cgroup_bootstrap.h"
#include "lib/base/status_matchers.h"
#include "lib/cgroup/kernel_fixture.h"

namespace caisson {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::Field;
using ::testing::HasSubstr;
using ::testing::SizeIs;

constexpr CgroupController kClass = CgroupController::kNetCls;
constexpr CgroupController kPriority = CgroupController::kNetPrio;

class NetLimitsTest : public CgroupKernelTest {
 protected:
  void SetUp() override {
    CgroupKernelTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    if (layout().Find(kClass).usable && layout().Find(kPriority).usable) return;
    ASSERT_EQ(::unshare(CLONE_NEWNS), 0) << strerror(errno);
    ASSERT_EQ(::mount("", "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
    mount_ = absl::StrCat(::testing::TempDir(), "/net.XXXXXX");
    ASSERT_NE(::mkdtemp(mount_.data()), nullptr);
    if (::mount("none", mount_.c_str(), "cgroup", 0, "net_cls,net_prio") != 0) {
      const int error = errno;
      ::rmdir(mount_.c_str());
      mount_.clear();
      SkipIf(
          absl::StrCat("mount(cgroup, net_cls,net_prio): ", strerror(error)));
    }
  }

  void TearDown() override {
    CgroupKernelTest::TearDown();
    if (mount_.empty()) return;
    EXPECT_NE(::access((mount_ + options().path).c_str(), F_OK), 0);
    // A hierarchy that is unmounted while the kernel still needs a group that
    // was removed stays as it is.
    const absl::Time deadline = absl::Now() + absl::Seconds(10);
    while (GroupsOf("net_cls") > 1 && absl::Now() < deadline) {
      absl::SleepFor(absl::Milliseconds(1));
    }
    EXPECT_EQ(GroupsOf("net_cls"), 1);
    EXPECT_EQ(::umount(mount_.c_str()), 0) << strerror(errno);
    EXPECT_EQ(::rmdir(mount_.c_str()), 0);
  }

  // Removed ones, too, as long as the kernel needs them.
  static int GroupsOf(absl::string_view controller) {
    const std::string text = ReadFile("/proc/cgroups");
    for (const absl::string_view line : absl::StrSplit(text, '\n')) {
      const std::vector<absl::string_view> words = absl::StrSplit(line, '\t');
      int groups = 0;
      if (words.size() == 4 && words[0] == controller &&
          absl::SimpleAtoi(words[2], &groups)) {
        return groups;
      }
    }
    return -1;
  }

  static std::string Read(const Cgroup& group, CgroupController controller,
                          const std::string& file) {
    return ReadFile(absl::StrCat(DirectoryOf(group, controller), "/", file));
  }

 private:
  std::string mount_;
};

TEST_F(NetLimitsTest, ClassAndPriorities) {
  CgroupParent parent = Open();
  ASSERT_TRUE(parent.layout().Find(kClass).usable)
      << parent.layout().Find(kClass).reason;
  ASSERT_OK_AND_ASSIGN(
      Cgroup group,
      parent.Create({.name = "job",
                     .limits = {.net_class = 0x00100001,
                                .net_priorities = {
                                    {.interface = "lo", .priority = 5}}}}));
  EXPECT_EQ(Read(group, kClass, "net_cls.classid"), "1048577");
  EXPECT_THAT(Read(group, kPriority, "net_prio.ifpriomap"), HasSubstr("lo 5"));

  // While processes run; what is not named stays.
  Signal ready;
  Child child(group, [&] {
    ready.Send();
    return Sleep();
  });
  ready.Await();
  ASSERT_OK(group.SetLimits({.net_class = 0x00100002}));
  EXPECT_EQ(Read(group, kClass, "net_cls.classid"), "1048578");
  EXPECT_THAT(Read(group, kPriority, "net_prio.ifpriomap"), HasSubstr("lo 5"));
  ASSERT_OK_AND_ASSIGN(const auto memberships,
                       CgroupMembershipsOf(child.pid()));
  EXPECT_THAT(memberships,
              Contains(Field(&CgroupMembership::path, group.path())));

  // All or nothing.
  EXPECT_THAT(group.SetLimits({.net_class = 7,
                               .net_priorities = {{"lo", 6}, {"nosuch0", 1}}}),
              StatusIs(absl::StatusCode::kNotFound,
                       HasSubstr("there is no such interface")));
  EXPECT_EQ(Read(group, kClass, "net_cls.classid"), "1048578");
  EXPECT_THAT(Read(group, kPriority, "net_prio.ifpriomap"), HasSubstr("lo 5"));
}

// A group without the limits is not in the hierarchy, and says so.
TEST_F(NetLimitsTest, OnlyForThoseThatAskForIt) {
  CgroupParent parent = Open();
  ASSERT_OK_AND_ASSIGN(Cgroup plain, parent.Create({.name = "plain"}));
  EXPECT_EQ(DirectoryOf(plain, kClass), "");
  EXPECT_THAT(plain.SetLimits({.net_class = 1}),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("limits.net_class needs the net_cls")));
  ASSERT_OK_AND_ASSIGN(
      Cgroup later,
      parent.Create({.name = "later", .controllers = {kClass, kPriority}}));
  EXPECT_EQ(Read(later, kClass, "net_cls.classid"), "0");
  EXPECT_OK(later.SetLimits({.net_class = 1}));
  EXPECT_EQ(Read(later, kClass, "net_cls.classid"), "1");
}

class RareLimitsTest : public CgroupKernelTest {
 protected:
  // Sees that a group with `limits` is refused because of `controller`.
  void ExpectRefused(const CgroupParent& parent, CgroupController controller,
                     const CgroupLimits& limits) {
    EXPECT_FALSE(
        parent.Create({.name = "job", .controllers = {controller}}).ok());
    const CgroupControllerInfo& info = layout().Find(controller);
    EXPECT_NE(info.reason, "");
    EXPECT_THAT(
        parent.Create({.name = "job", .limits = limits}),
        StatusIs(absl::StatusCode::kFailedPrecondition,
                 AllOf(HasSubstr(absl::StrCat(
                           " needs the ", CgroupControllerName(controller))),
                       HasSubstr(info.reason))));
  }

  // What verbs(7) of the device go through; "" without a device.
  static std::string VerbsOf(const std::string& device) {
    std::error_code none;
    for (const auto& verbs : std::filesystem::directory_iterator(
             "/sys/class/infiniband_verbs", none)) {
      std::error_code no_file;
      if (!std::filesystem::exists(verbs.path() / "ibdev", no_file)) continue;
      if (ReadFile(verbs.path() / "ibdev") == device) {
        return absl::StrCat("/dev/infiniband/",
                            verbs.path().filename().string());
      }
    }
    return "";
  }

  // Opens a context, which is an HCA handle. 0 or errno.
  static int OpenContext(const std::string& verbs, UniqueFd& file) {
    file.reset(::open(verbs.c_str(), O_RDWR | O_CLOEXEC));
    if (!file.valid()) return errno;
    ib_uverbs_get_context_resp response = {};
    struct {
      ib_uverbs_cmd_hdr header;
      uint64_t response;
    } command = {};
    command.header.command = IB_USER_VERBS_CMD_GET_CONTEXT;
    command.header.in_words = sizeof(command) / 4;
    command.header.out_words = sizeof(response) / 4;
    command.response = reinterpret_cast<uint64_t>(&response);
    if (::write(file.get(), &command, sizeof(command)) < 0) return errno;
    ::close(static_cast<int>(response.async_fd));
    return 0;
  }
};

// Where there is a device its limits are set and hold; everywhere an unknown
// one is refused.
TEST_F(RareLimitsTest, Rdma) {
  constexpr CgroupController kRdma = CgroupController::kRdma;
  CgroupParent parent = Open();
  const CgroupLimits unknown = {
      .rdma = {{.device = "none0", .hca_handles = 2}}};
  if (!layout().Find(kRdma).usable) {
    return ExpectRefused(parent, kRdma, unknown);
  }
  ASSERT_OK_AND_ASSIGN(Cgroup group,
                       parent.Create({.name = "job", .controllers = {kRdma}}));
  EXPECT_THAT(std::string(group.SetLimits(unknown).message()),
              HasSubstr("/sys/class/infiniband"));
  const std::string file = DirectoryOf(group, kRdma) + "/rdma.max";
  std::error_code none;
  for (const auto& found :
       std::filesystem::directory_iterator("/sys/class/infiniband", none)) {
    const std::string device = found.path().filename();
    ASSERT_OK(group.SetLimits(
        {.rdma = {{.device = device, .hca_handles = 2, .hca_objects = 10}}}));
    EXPECT_THAT(ReadFile(file),
                HasSubstr(device + " hca_handle=2 hca_object=10"));
    // What is not named stays; after a refusal, all of it.
    ASSERT_OK(
        group.SetLimits({.rdma = {{.device = device,
                                   .hca_objects = CgroupLimits::kUnlimited}}}));
    EXPECT_THAT(ReadFile(file),
                HasSubstr(device + " hca_handle=2 hca_object=max"));
    EXPECT_FALSE(
        group
            .SetLimits({.rdma = {{.device = device, .hca_handles = 7},
                                 {.device = "none0", .hca_handles = 1}}})
            .ok());
    EXPECT_THAT(ReadFile(file), HasSubstr(device + " hca_handle=2"));

    const std::string verbs = VerbsOf(device);
    ASSERT_NE(verbs, "") << device;
    Signal ready;
    Child holder(group, [&] {
      UniqueFd context;
      const int error = OpenContext(verbs, context);
      ready.Send();
      if (error != 0) return error;
      return Sleep();
    });
    ready.Await();
    ASSERT_OK_AND_ASSIGN(const CgroupStatsReader reader, group.OpenStats());
    ASSERT_OK_AND_ASSIGN(const CgroupStats stats, reader.Read());
    ASSERT_THAT(stats.rdma, SizeIs(1));
    EXPECT_EQ(stats.rdma[0].device, device);
    EXPECT_EQ(stats.rdma[0].hca_handles, 1);
    EXPECT_EQ(stats.rdma[0].hca_handles_limit, 2);
    EXPECT_EQ(stats.rdma[0].hca_objects_limit, CgroupLimits::kUnlimited);
    ASSERT_OK(
        group.SetLimits({.rdma = {{.device = device, .hca_handles = 1}}}));
    Child refused(group, [&] {
      UniqueFd context;
      return OpenContext(verbs, context);
    });
    EXPECT_EQ(refused.Wait() >> 8, EAGAIN);
  }
}

TEST_F(RareLimitsTest, Misc) {
  CgroupParent parent = Open();
  auto group =
      parent.Create({.name = "job", .controllers = {CgroupController::kMisc}});
  const CgroupLimits limits = {.misc = {{.resource = "none", .max = 2}}};
  if (!layout().Find(CgroupController::kMisc).usable) {
    return ExpectRefused(parent, CgroupController::kMisc, limits);
  }
  ASSERT_OK(group);
  EXPECT_THAT(
      group->SetLimits(limits),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("misc.capacity")));
}

TEST_F(RareLimitsTest, DeviceMemory) {
  CgroupParent parent = Open();
  auto group =
      parent.Create({.name = "job", .controllers = {CgroupController::kDmem}});
  const CgroupLimits limits = {.dmem = {{.region = "none", .max = 4096}}};
  if (!layout().Find(CgroupController::kDmem).usable) {
    return ExpectRefused(parent, CgroupController::kDmem, limits);
  }
  ASSERT_OK(group);
  EXPECT_THAT(
      group->SetLimits(limits),
      StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("dmem.capacity")));
}

}  // namespace
}  // namespace caisson
