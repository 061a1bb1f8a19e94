// The same limits, set by runc and by this library: every file of the kernel
// reads the same.
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "caisson/cgroup.h"
#include "lib/base/status_matchers.h"
#include "lib/cgroup/kernel_fixture.h"

namespace caisson {
namespace {

using ::testing::AnyOf;
using ::testing::Contains;
using ::testing::HasSubstr;

constexpr char kRunc[] = "/usr/sbin/runc";
constexpr char kBusybox[] = "/bin/busybox";

// Docker's list of devices, and limits of everything that runc and all hosts
// with the tests' controllers have; what only some have is in @REST@.
constexpr char kConfig[] = R"({
  "ociVersion": "1.0.2",
  "process": {"terminal": false, "user": {"uid": 0, "gid": 0},
              "args": ["/busybox", "true"], "cwd": "/"},
  "root": {"path": "rootfs", "readonly": true},
  "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
  "linux": {
    "cgroupsPath": "@PATH@",
    "namespaces": [{"type": "pid"}, {"type": "mount"}],
    "resources": {
      "memory": {"limit": 67108864, "reservation": 33554432,
                 "swap": 100663296},
      "cpu": {"shares": 512, "quota": 50000, "period": 80000,
              "cpus": "0", "mems": "0"},
      "pids": {"limit": 50},
      @REST@
      "devices": [{"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "major": 1, "minor": 5, "access": "rwm"},
        {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
        {"allow": true, "type": "c", "major": 1, "minor": 9, "access": "rwm"},
        {"allow": true, "type": "c", "major": 1, "minor": 8, "access": "rwm"},
        {"allow": true, "type": "c", "major": 5, "minor": 0, "access": "rwm"},
        {"allow": true, "type": "c", "major": 5, "minor": 1, "access": "rwm"}]
    }
  }
})";

class RuncOracleTest : public CgroupKernelTest {
 protected:
  void TearDown() override {
    if (!bundle_.empty()) {
      Run({kRunc, "--root", bundle_ + "/state", "delete", "--force", id_});
      std::filesystem::remove_all(bundle_);  // plain files of this test
      // runc removes its own group, not the one above it.
      for (const CgroupHierarchy& hierarchy : layout().hierarchies) {
        ::rmdir((hierarchy.mount_point + options().path + "-runc").c_str());
      }
    }
    CgroupKernelTest::TearDown();
  }

  static int Run(const std::vector<std::string>& command) {
    const pid_t pid = ::fork();
    if (pid == 0) {
      std::vector<char*> argv;
      for (const std::string& word : command) {
        argv.push_back(const_cast<char*>(word.c_str()));
      }
      argv.push_back(nullptr);
      ::execv(argv[0], argv.data());
      ::_exit(127);
    }
    int status = -1;
    ::waitpid(pid, &status, 0);
    return status;
  }

  // Creates the container, not started: its limits are set by then.
  void CreateByRunc(const std::string& rest) {
    bundle_ = absl::StrCat(::testing::TempDir(), "/runc-", ::getpid());
    id_ = absl::StrCat("caisson-oracle-", ::getpid());
    std::filesystem::create_directories(bundle_ + "/rootfs/proc");
    std::filesystem::copy_file(kBusybox, bundle_ + "/rootfs/busybox");
    std::ofstream(bundle_ + "/config.json") << absl::StrReplaceAll(
        kConfig, {{"@PATH@", absl::StrCat(options().path, "-runc/job")},
                  {"@REST@", rest}});
    ASSERT_EQ(Run({kRunc, "--root", bundle_ + "/state", "create", "--bundle",
                   bundle_, id_}),
              0);
  }

  // Sets in `limits` what not every host has, and returns the same as OCI's
  // linux.resources.
  std::string LimitsOfThisHost(CgroupLimits& limits) {
    std::string rest;
    std::string name;
    const std::string disk = AnyDisk(&name);
    CgroupBlockDevice device;
    if (layout().Find(CgroupController::kIo).usable &&
        sscanf(disk.c_str(), "%u:%u", &device.major, &device.minor) == 2) {
      limits.io = {{.device = device, .read_bps = 1 << 20, .write_iops = 200}};
      const std::string numbers = absl::StrCat("{\"major\": ", device.major,
                                               ", \"minor\": ", device.minor);
      absl::StrAppend(&rest, "\"blockIO\": {\"throttleReadBpsDevice\": [",
                      numbers, ", \"rate\": 1048576}], ",
                      "\"throttleWriteIOPSDevice\": [", numbers,
                      ", \"rate\": 200}]},");
    }
    // On a hybrid host runc knows version 1 alone.
    const bool v2_alone = layout().mode == CgroupLayout::Mode::kV2;
    if (layout().Find(CgroupController::kHugetlb).usable &&
        (v2_alone ||
         VersionOf(CgroupController::kHugetlb) == CgroupVersion::kV1)) {
      limits.hugetlb = {{.page_size = 2 << 20, .max = 4 << 20}};
      absl::StrAppend(&rest,
                      "\"hugepageLimits\": [{\"pageSize\": \"2MB\", "
                      "\"limit\": 4194304}],");
    }
    if (v2_alone) {
      limits.unified = {{"memory.high", "41943040"}};
      absl::StrAppend(&rest, "\"unified\": {\"memory.high\": \"41943040\"},");
    }
    return rest;
  }

  std::string bundle_;
  std::string id_;
};

// The names of the files that hold limits.
bool IsLimit(absl::string_view file) {
  for (const char* name : {"memory.limit_in_bytes",
                           "memory.soft_limit_in_bytes",
                           "memory.memsw.limit_in_bytes",
                           "memory.max",
                           "memory.low",
                           "memory.min",
                           "memory.high",
                           "memory.swap.max",
                           "cpu.shares",
                           "cpu.weight",
                           "cpu.max",
                           "cpu.cfs_quota_us",
                           "cpu.cfs_period_us",
                           "cpu.cfs_burst_us",
                           "cpu.max.burst",
                           "cpu.idle",
                           "cpuset.cpus",
                           "cpuset.mems",
                           "pids.max",
                           "devices.list",
                           "io.max",
                           "blkio.throttle.read_bps_device",
                           "blkio.throttle.write_bps_device",
                           "blkio.throttle.read_iops_device",
                           "blkio.throttle.write_iops_device",
                           "hugetlb.2MB.max",
                           "hugetlb.2MB.limit_in_bytes",
                           "blkio.bfq.weight"}) {
    if (file == name) return true;
  }
  return false;
}

std::set<std::string> Lines(const std::string& text) {
  return absl::StrSplit(text, '\n', absl::SkipEmpty());
}

TEST_F(RuncOracleTest, EveryFileReadsTheSame) {
  if (::access(kRunc, X_OK) != 0 || ::access(kBusybox, X_OK) != 0) {
    return SkipIf("needs /usr/sbin/runc and /bin/busybox");
  }
  CgroupOptions options = {.name = "job"};
  CreateByRunc(LimitsOfThisHost(options.limits));
  if (HasFatalFailure()) return;
  ASSERT_OK(SetDockerMemory({.memory = 64 << 20,
                             .memory_swap = 96 << 20,
                             .memory_reservation = 32 << 20},
                            options.limits));
  options.limits.cpu_quota =
      CpuQuota{absl::Milliseconds(50), absl::Milliseconds(80)};
  // This runc is older than the curve.
  if (VersionOf(CgroupController::kCpu) == CgroupVersion::kV2) {
    options.limits.cpu_weight = CgroupWeightOfSharesLinear(512);
  } else {
    options.limits.cpu_shares = 512;
  }
  options.limits.pids_max = 50;
  options.limits.devices = CgroupDeviceRules::ContainerDefault();
  options.limits.cpuset_cpus = "0";
  options.limits.cpuset_mems = "0";
  if (layout().Find(CgroupController::kDevices).usable) {
    options.controllers = {CgroupController::kDevices};
  }
  CgroupParent parent = Open();
  ASSERT_OK_AND_ASSIGN(Cgroup group, parent.Create(options));
  std::set<std::string> compared;
  for (const CgroupPath& path : group.paths()) {
    const std::string theirs = absl::StrReplaceAll(
        path.directory,
        {{group.path(), absl::StrCat(this->options().path, "-runc/job")}});
    for (const auto& entry :
         std::filesystem::directory_iterator(path.directory)) {
      const std::string file = entry.path().filename();
      if (!IsLimit(file)) continue;
      EXPECT_EQ(Lines(ReadFile(entry.path())),
                Lines(ReadFile(theirs + "/" + file)))
          << file;
      compared.insert(file);
    }
  }
  // Memory with swap, CPU, CPU set, processes: whatever the version.
  EXPECT_GE(compared.size(), 8);
  if (!options.limits.io.empty()) {
    EXPECT_THAT(compared,
                Contains(AnyOf("io.max", "blkio.throttle.read_bps_device")));
  }
  if (!options.limits.hugetlb.empty()) {
    EXPECT_THAT(compared, Contains(HasSubstr("hugetlb")));
  }
}

}  // namespace
}  // namespace caisson
