// What /proc, /sys and /sys/fs/cgroup show, and labels of mounts.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "lib/base/status_matchers.h"
#include "lib/rootfs/mount_label.h"
#include "lib/rootfs/test_container.h"

namespace caisson::rootfs {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr uint32_t kFirst = 100000;

std::string MountLine(const char* path) {
  return absl::StrCat("while read -r l; do case $l in *' ", path,
                      " '*) echo \"$l\";; esac; done < /proc/self/mountinfo\n");
}

class KernelViewsTest : public RootFsTestBase,
                        public ::testing::WithParamInterface<KernelLimits> {
 protected:
  KernelLimits limits() const override { return GetParam(); }

  // A root for a container in `user_`.
  RootFsOptions InUserNamespace() {
    RootFsOptions options = BaseOptions();
    options.root_uid = options.root_gid = kFirst;
    for (BorrowedFd fd : {options.upper_directory, options.work_directory}) {
      EXPECT_EQ(::fchownat(fd.get(), "", kFirst, kFirst, AT_EMPTY_PATH), 0);
    }
    return options;
  }
};

INSTANTIATE_TEST_SUITE_P(Kernels, KernelViewsTest,
                         ::testing::ValuesIn(AllKernels()), KernelName);

TEST_P(KernelViewsTest, ProcessesOfOthersAreHidden) {
  RootFsOptions options = BaseOptions({MakeLayer(
      "top",
      {"etc/passwd=root:x:0:0::/:/bin/sh\nu:x:1000:1000::/:/bin/sh\n"})});
  const char script[] =
      "as() { busybox su u -c \"$*\" >/dev/null 2>&1; }; as ls -d /proc/1; "
      "echo there=$?; as ls /proc/1; echo enter=$?; as ls -d /proc/self/; echo "
      "self=$?; ls /proc/1 > /dev/null; echo root=$?";
  const std::pair<ProcHidePid, const char*> kCases[] = {
      {ProcHidePid::kNone, "there=0\nenter=0\nself=0\nroot=0\n"},
      {ProcHidePid::kNoAccess, "there=0\nenter=1\nself=0\nroot=0\n"},
      {ProcHidePid::kInvisible, "there=1\nenter=1\nself=0\nroot=0\n"},
      {ProcHidePid::kNotPtraceable, "there=1\nenter=1\nself=0\nroot=0\n"}};
  for (const auto& [hide_pid, expected] : kCases) {
    options.proc_hide_pid = hide_pid;
    EXPECT_EQ(RunWith(options, script).output, expected)
        << static_cast<int>(hide_pid);
  }
}

TEST_P(KernelViewsTest, ProcWithProcessesOnly) {
  RootFsOptions options = BaseOptions();
  options.proc_subset_pid = true;
  options.masked_paths = {"/proc/meminfo"};
  const ScriptResult result =
      RunWith(options,
              "ls /proc/sys /proc/meminfo /proc/interrupts 2>/dev/null; ls -d "
              "/proc/1 /proc/self/root; echo firmware=$(ls -A /sys/firmware)");
  EXPECT_EQ(result.output, "/proc/1\n/proc/self/root\nfirmware=\n");
}

TEST_P(KernelViewsTest, ProcOptionsInAUserNamespace) {
  ASSERT_OK_AND_ASSIGN(UniqueFd user, NewUserNamespace(session(), kFirst));
  RootFsOptions options = InUserNamespace();
  options.proc_hide_pid = ProcHidePid::kInvisible;
  options.proc_subset_pid = true;
  ScriptOptions script;
  script.user_namespace = user.borrow();
  EXPECT_THAT(RunWith(options, MountLine("/proc"), script).output,
              HasSubstr("rw,hidepid=invisible,subset=pid"));
  script.new_pid_namespace = false;
  ASSERT_OK_AND_ASSIGN(auto root, BuiltRoot::Build(options, limits()));
  EXPECT_THAT(Run(*root, "true", script),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("proc_hide_pid and proc_subset_pid")));
}

TEST_P(KernelViewsTest, SysfsOfTheHostsNetwork) {
  RootFsOptions options = BaseOptions();
  ScriptOptions script;
  script.new_net_namespace = false;
  const ScriptResult result =
      RunWith(options,
              "ls -d /sys/class/net; touch /sys/x 2>/dev/null; echo touch=$?; "
              "(echo 1 > /sys/kernel/mm/ksm/run) 2>/dev/null; echo write=$?",
              script);
  EXPECT_EQ(result.output, "/sys/class/net\ntouch=1\nwrite=1\n");
}

// Groups of this test in v1 hierarchies.
class V1GroupsTest : public KernelViewsTest {
 protected:
  void SetUp() override {
    KernelViewsTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    if (::access("/sys/fs/cgroup/memory/tasks", F_OK) != 0) {
      ASSERT_FALSE(testing::TestsMustRun()) << "needs cgroup v1";
      GTEST_SKIP() << "needs the cgroup v1 hierarchies memory and cpu";
    }
    Add("memory", {"memory"}, "memory");
    Add("cpu", {"cpu", "cpuacct"}, "cpu,cpuacct");
    if (::access("/sys/fs/cgroup/systemd/tasks", F_OK) == 0) {
      Add("systemd", {}, "systemd");
    }
  }
  void TearDown() override {
    KernelViewsTest::TearDown();
    for (const std::string& directory : directories_) {
      ::rmdir((directory + "/inner").c_str());
      EXPECT_EQ(::rmdir(directory.c_str()), 0) << directory;
    }
  }

  void Add(const std::string& mount, std::vector<std::string> controllers,
           const std::string& name) {
    directories_.push_back(absl::StrCat("/sys/fs/cgroup/", mount,
                                        "/caisson-rootfs-test-", ::getpid()));
    ASSERT_EQ(::mkdir(directories_.back().c_str(), 0755), 0);
    script_.v1_groups.push_back(
        {name, std::move(controllers), Hold(directories_.back())});
  }

  const std::vector<std::string>& directories() const { return directories_; }
  bool has_named() const { return directories_.size() == 3; }

  ScriptOptions script_;

 private:
  std::vector<std::string> directories_;
};

INSTANTIATE_TEST_SUITE_P(Kernels, V1GroupsTest,
                         ::testing::ValuesIn(AllKernels()), KernelName);

constexpr char kLook[] =
    "ls /sys/fs/cgroup; cat /sys/fs/cgroup/cpuacct/cpu.shares; "
    "readlink /sys/fs/cgroup/cpu; ls -d /sys/fs/cgroup/memory/caisson* "
    "2>/dev/null; cat /sys/fs/cgroup/memory/memory.limit_in_bytes | (read x; "
    "echo limit=$x); mkdir /sys/fs/cgroup/memory/inner 2>/dev/null; echo "
    "mkdir=$?; mkdir /sys/fs/cgroup/x 2>/dev/null; echo top=$?; ";

TEST_P(V1GroupsTest, OwnGroupsOnly) {
  const std::string named = has_named() ? "systemd\n" : "";
  for (const bool v2 : {false, true}) {
    script_.own_cgroup2 = v2;
    const ScriptResult result =
        RunWith(BaseOptions(), absl::StrCat(kLook, MountLine("/sys/fs/cgroup")),
                script_);
    EXPECT_THAT(result.output,
                HasSubstr(absl::StrCat("cpu\ncpu,cpuacct\ncpuacct\nmemory\n",
                                       named, v2 ? "unified\n" : "",
                                       "1024\ncpu,cpuacct\nlimit=")));
    EXPECT_EQ(result.Value("mkdir"), "1");
    EXPECT_EQ(result.Value("top"), "1");
    EXPECT_THAT(result.output, HasSubstr(" ro,"));
  }
}

TEST_P(V1GroupsTest, WritableOnRequest) {
  RootFsOptions options = BaseOptions();
  options.cgroup = CgroupMounts::kUnsafeWritable;
  const ScriptResult result = RunWith(options, kLook, script_);
  EXPECT_EQ(result.Value("mkdir"), "0");
  EXPECT_EQ(result.Value("top"), "1");
  EXPECT_EQ(::access((directories()[0] + "/inner").c_str(), F_OK), 0);
  script_.own_cgroup2 = true;
  EXPECT_THAT(
      RunWith(options, MountLine("/sys/fs/cgroup/unified"), script_).output,
      HasSubstr("/sys/fs/cgroup/unified rw,"));
  script_.v1_groups.clear();
  EXPECT_THAT(RunWith(options, MountLine("/sys/fs/cgroup"), script_).output,
              HasSubstr("/sys/fs/cgroup rw,"));
}

TEST_P(V1GroupsTest, NoneOnRequest) {
  RootFsOptions options = BaseOptions();
  options.cgroup = CgroupMounts::kNone;
  EXPECT_EQ(RunWith(options, "ls -A /sys/fs/cgroup", script_).output, "");
  options.cgroup = CgroupMounts::kReadOnly;
  options.tmpfs = {{.destination = "/sys/fs/cgroup"}};
  EXPECT_EQ(RunWith(options, "ls -A /sys/fs/cgroup", script_).output, "");
}

TEST_P(V1GroupsTest, InAUserNamespace) {
  ASSERT_OK_AND_ASSIGN(UniqueFd user, NewUserNamespace(session(), kFirst));
  script_.user_namespace = user.borrow();
  const ScriptResult result = RunWith(InUserNamespace(), kLook, script_);
  EXPECT_THAT(result.output, HasSubstr("1024\ncpu,cpuacct\nlimit="));
  EXPECT_EQ(result.Value("mkdir"), "1");
}

TEST_P(V1GroupsTest, AStartThatDidNotComeOffCanBeRepeated) {
  ASSERT_OK_AND_ASSIGN(auto root, BuiltRoot::Build(BaseOptions(), limits()));
  MountContext context;
  context.v1_groups = script_.v1_groups;
  {
    plan::PlanBuilder abandoned;
    ASSERT_OK(root->AddTo(abandoned, context));
  }
  ASSERT_OK_AND_ASSIGN(const ScriptResult result,
                       Run(*root, "ls /sys/fs/cgroup", script_));
  EXPECT_THAT(result.output, HasSubstr("memory\n"));
}

TEST(MountLabelTest, NeedsSelinux) {
  constexpr char kWith[] = "nodev\tsysfs\nnodev\tselinuxfs\n\text4\n";
  constexpr char kWithout[] = "nodev\tsysfs\n\text4\nnodev\tselinuxfsx\n";
  constexpr char kLabel[] = "system_u:object_r:container_file_t:s0:c1,c2";
  EXPECT_OK(CheckLabel("", kWithout));
  EXPECT_OK(CheckLabel(kLabel, kWith));
  EXPECT_THAT(CheckLabel(kLabel, kWithout),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("mount_label needs SELinux")));
  for (const std::string& label :
       {std::string("a\"b"), std::string("a b"), std::string("a\nb"),
        std::string("a\0b", 3), std::string(300, 'a')}) {
    EXPECT_THAT(CheckLabel(label, kWith),
                StatusIs(absl::StatusCode::kInvalidArgument,
                         HasSubstr("is no security context")));
  }
  EXPECT_EQ(LabelOption(kLabel), absl::StrCat(",context=\"", kLabel, "\""));
  EXPECT_EQ(LabelOption(""), "");
}

TEST_P(KernelViewsTest, LabelWithoutSelinux) {
  if (ReadHostFile("/proc/filesystems").find("selinuxfs") !=
      std::string::npos) {
    GTEST_SKIP() << "this kernel has SELinux";
  }
  RootFsOptions options = BaseOptions();
  options.mount_label = "system_u:object_r:container_file_t:s0";
  EXPECT_THAT(BuiltRoot::Build(options, limits()),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("SELinux"), Not(HasSubstr("EINVAL")))));
}

}  // namespace
}  // namespace caisson::rootfs
