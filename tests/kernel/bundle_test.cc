// Bundles of the OCI runtime specification, started: what each field does, seen
// from inside, and that runc makes the same of the same bundle.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "caisson/caisson.h"
#include "lib/base/status_macros.h"
#include "lib/base/status_matchers.h"
#include "lib/sys/open.h"
#include "tests/support/container_test.h"

namespace caisson {
namespace {

using ::caisson::testing::StatusIs;
using ::nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr size_t kMaxOutput = 1 << 20;
constexpr char kRunc[] = "/usr/sbin/runc";

// What an engine writes, without limits.
constexpr char kBase[] = R"({
  "ociVersion": "1.0.2",
  "process": {
    "terminal": false, "user": {"uid": 0, "gid": 0}, "args": ["sh"],
    "env": ["PATH=/bin"], "cwd": "/", "noNewPrivileges": true,
    "capabilities": {"bounding": ["CAP_KILL", "CAP_CHOWN"],
                     "effective": ["CAP_KILL"],
                     "permitted": ["CAP_KILL", "CAP_CHOWN"]}
  },
  "root": {"path": "rootfs"},
  "mounts": [
    {"destination": "/proc", "type": "proc", "source": "proc",
     "options": ["nosuid", "noexec", "nodev"]},
    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
     "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
    {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
     "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666",
                 "mode=0620", "gid=5"]},
    {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
     "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=1024k"]},
    {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
     "options": ["nosuid", "noexec", "nodev"]},
    {"destination": "/sys", "type": "sysfs", "source": "sysfs",
     "options": ["nosuid", "noexec", "nodev", "ro"]}
  ],
  "linux": {
    "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"},
                   {"type": "uts"}, {"type": "mount"}],
    "resources": {"devices": [{"allow": false, "access": "rwm"}]}
  }
})";

class BundleTest : public ::caisson::testing::ContainerTest {
 protected:
  void SetUp() override {
    bundle_ = absl::StrCat(::testing::TempDir(), "/bundle-", ::getpid());
    std::filesystem::create_directories(bundle_ + "/rootfs");
    std::filesystem::copy(root_->path(), bundle_ + "/rootfs",
                          std::filesystem::copy_options::recursive |
                              std::filesystem::copy_options::copy_symlinks);
    ContainerTest::SetUp();
  }
  void TearDown() override {
    ContainerTest::TearDown();
    std::filesystem::remove_all(bundle_);  // plain files; nothing is mounted
  }

  // kBase with `patch` (RFC 7396) and a shell that runs `script`.
  static json Config(const std::string& script, const std::string& patch) {
    json config = json::parse(kBase);
    config.merge_patch(json::parse(patch));
    config["process"]["args"] = {"sh", "-c", script};
    return config;
  }
  static void AddMount(json& config, const std::string& mount) {
    config["mounts"].push_back(json::parse(mount));
  }
  static void AddNamespace(json& config, const std::string& ns) {
    config["linux"]["namespaces"].push_back(json::parse(ns));
  }

  absl::StatusOr<Bundle> Load(const json& config) {
    std::ofstream(bundle_ + "/config.json") << config.dump(1);
    return Bundle::Load(bundle_);
  }

  absl::StatusOr<BundleParts> Compose(const json& config,
                                      const Cgroup* cgroup = nullptr) {
    ASSIGN_OR_RETURN(const Bundle bundle, Load(config));
    return bundle.Compose(
        {.id = "test", .launcher = launcher_, .cgroup = cgroup});
  }

  absl::StatusOr<std::string> Run(const json& config,
                                  const Cgroup* cgroup = nullptr) {
    ASSIGN_OR_RETURN(BundleParts parts, Compose(config, cgroup));
    int fds[2];
    if (::pipe2(fds, O_CLOEXEC) != 0) return absl::InternalError("pipe2");
    const UniqueFd reader(fds[0]);
    UniqueFd writer(fds[1]);
    parts.spec().out = Stdio::Inherit(writer.borrow());
    parts.spec().err = Stdio::LikeStdout();
    ASSIGN_OR_RETURN(Process process, launcher_->Start(parts.spec()));
    writer.reset();
    ASSIGN_OR_RETURN(std::string output,
                     sys::ReadAll(reader.borrow(), kMaxOutput, "output"));
    RETURN_IF_ERROR(process.Wait().status());
    return output;
  }

  std::string Output(const std::string& script, const std::string& patch) {
    auto output = Run(Config(script, patch));
    EXPECT_OK(output.status());
    return output.value_or("");
  }

  absl::Status Refusal(const std::string& patch) {
    return Compose(Config("true", patch)).status();
  }

  std::string bundle_;
};

// ---- process ---------------------------------------------------------------

TEST_F(BundleTest, ProcessIsWhatTheDocumentSays) {
  const std::string output = Output(
      "id -u; id -g; grep Groups /proc/self/status; umask; pwd; env | sort; "
      "cat /proc/self/oom_score_adj; "
      "grep -E '^(Cap|NoNew|Seccomp:)' /proc/self/status; "
      "grep -E 'open files|core' /proc/self/limits",
      R"({"process": {
        "user": {"uid": 1000, "gid": 1001, "umask": 63,
                 "additionalGids": [5, 6]},
        "env": ["A=1", "PATH=/bin"], "cwd": "/tmp", "oomScoreAdj": 123,
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
                    {"type": "RLIMIT_CORE", "soft": 0, "hard": 4096}],
        "capabilities": {"bounding": ["CAP_KILL", "CAP_CHOWN"],
          "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"],
          "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"]}}})");
  EXPECT_EQ(output,
            "1000\n1001\nGroups:\t5 6 1001 \n0077\n/tmp\n"
            "A=1\nHOME=/home\nPATH=/bin\nPWD=/tmp\nSHLVL=1\n123\n"
            "CapInh:\t0000000000000020\nCapPrm:\t0000000000000020\n"
            "CapEff:\t0000000000000020\nCapBnd:\t0000000000000021\n"
            "CapAmb:\t0000000000000020\nNoNewPrivs:\t1\nSeccomp:\t0\n"
            "Max core file size        0                    4096               "
            "  bytes     \n"
            "Max open files            100                  200                "
            "  files     \n");
}

TEST_F(BundleTest, NothingIsAddedToTheDocument) {
  const std::string output = Output(
      "env | grep -c PATH=; cat /proc/timer_list > /dev/null && echo unmasked; "
      "test -w /proc/sys/kernel/panic && echo writable; "
      "grep -E '^(CapEff|NoNew|Seccomp:)' /proc/self/status; "
      "ls /sys/fs/cgroup | wc -l; ls /etc | grep -c resolv.conf",
      R"({"process": {"noNewPrivileges": false, "capabilities": null,
                      "args": null}})");
  EXPECT_EQ(output,
            "1\nunmasked\nwritable\nCapEff:\t0000000000000000\n"
            "NoNewPrivs:\t0\nSeccomp:\t0\n0\n0\n");
}

}  // namespace
}  // namespace caisson
