// Bundles of the OCI runtime specification, started: what each field does, seen
// from inside, and that runc makes the same of the same bundle.
#include <fcntl.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
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
    bundle_ = absl::StrCat(absl::StripSuffix(::testing::TempDir(), "/"),
                           "/bundle-", ::getpid());
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
    if (config.contains("process")) {
      config["process"]["args"] = {"sh", "-c", script};
    }
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

  // What a process with a terminal writes until its end.
  static std::string TerminalOutput(const Process& process) {
    std::string output;
    char buffer[256];
    for (ssize_t n;
         (n = ::read(process.terminal().get(), buffer, sizeof(buffer))) > 0;) {
      output.append(buffer, static_cast<size_t>(n));
    }
    EXPECT_OK(process.Wait().status());
    return output;
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

TEST_F(BundleTest, ATerminalHasItsSize) {
  json config = Config("stty size; tty", R"({"process": {"terminal": true,
      "consoleSize": {"height": 33, "width": 77}}})");
  ASSERT_OK_AND_ASSIGN(BundleParts parts, Compose(config));
  ASSERT_OK_AND_ASSIGN(Process process, launcher_->Start(parts.spec()));
  EXPECT_EQ(TerminalOutput(process), "33 77\r\n/dev/pts/0\r\n");
}

TEST_F(BundleTest, CapabilitiesThatCannotBeAreLeftOutAndReported) {
  json config = Config("grep CapAmb /proc/self/status", R"({"process":
      {"capabilities": {"bounding": ["CAP_KILL", "CAP_NOSUCH"],
                        "permitted": ["CAP_KILL", "CAP_CHOWN"],
                        "ambient": ["CAP_KILL"]}}})");
  ASSERT_OK_AND_ASSIGN(const BundleParts parts, Compose(config));
  ASSERT_EQ(parts.warnings().size(), 3u);
  EXPECT_THAT(parts.warnings()[0],
              HasSubstr("process.capabilities.permitted: CAP_CHOWN"));
  EXPECT_THAT(parts.warnings()[1],
              HasSubstr("process.capabilities.ambient: CAP_KILL"));
  EXPECT_THAT(parts.warnings()[2], HasSubstr("CAP_NOSUCH"));
  ASSERT_OK_AND_ASSIGN(const std::string output, Run(config));
  EXPECT_EQ(output, "CapAmb:\t0000000000000000\n");
}

TEST_F(BundleTest, ExecIsUnderTheFilterOfTheContainer) {
  const std::string seccomp = R"({"linux": {"seccomp": {
      "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO",
         "errnoRet": 73}]}}})";
  ASSERT_OK_AND_ASSIGN(const Bundle bundle,
                       Load(Config("echo up; sleep 100", seccomp)));
  ASSERT_OK_AND_ASSIGN(BundleParts parts,
                       bundle.Compose({.id = "test", .launcher = launcher_}));
  ASSERT_OK_AND_ASSIGN(Process process, launcher_->Start(parts.spec()));
  ASSERT_OK_AND_ASSIGN(
      BundleParts exec,
      bundle.ComposeExec(
          R"({"args": ["sh", "-c", "mkdir /tmp/x; id -u; grep CapEff /proc/self/status; grep Cpus_allowed_list /proc/self/status"],
              "cwd": "/tmp", "env": ["PATH=/bin"],
              "execCPUAffinity": {"initial": "0", "final": "0"},
              "user": {"uid": 7, "gid": 7}, "noNewPrivileges": true})",
          {.id = "test", .launcher = launcher_}));
  ASSERT_OK_AND_ASSIGN(const Outcome outcome,
                       Exec(process, std::move(exec.spec())));
  EXPECT_THAT(outcome.output, HasSubstr("mkdir: can't create"));
  EXPECT_THAT(outcome.output, HasSubstr("7\nCapEff:\t0000000000000000\n"
                                        "Cpus_allowed_list:\t0\n"));
  EXPECT_OK(process.Destroy());
}

// ---- file systems ----------------------------------------------------------

TEST_F(BundleTest, TheRootIsTheDirectory) {
  EXPECT_EQ(Output("echo text > /written; echo $?", "{}"), "0\n");
  std::ifstream file(bundle_ + "/rootfs/written");
  std::string text;
  file >> text;
  EXPECT_EQ(text, "text");
  EXPECT_EQ(
      Output("(echo > /more) 2>/dev/null; echo $?; echo > /tmp/x; echo $?",
             R"({"root": {"readonly": true}, "mounts": [
                       {"destination": "/tmp", "type": "tmpfs"}]})"),
      "1\n0\n");
  EXPECT_NE(::access((bundle_ + "/rootfs/more").c_str(), F_OK), 0);
  // Only what is listed is mounted; /dev is always there.
  EXPECT_EQ(Output("echo /proc/* /sys/* /dev/pts/*; test -c /dev/null; echo $?",
                   R"({"mounts": null})"),
            "/proc/* /sys/* /dev/pts/*\n0\n");
}

TEST_F(BundleTest, RootPathsStayInTheBundle) {
  ASSERT_EQ(::symlink("/", (bundle_ + "/link").c_str()), 0);
  for (const char* path : {"link", "..", "../..", "link/tmp", "missing"}) {
    EXPECT_THAT(Refusal(absl::StrCat(R"({"root": {"path": ")", path, R"("}})"))
                    .message(),
                HasSubstr("config.json: root.path"))
        << path;
  }
  EXPECT_THAT(
      Refusal(absl::StrCat(R"({"root": {"path": ")", bundle_, R"(/link"}})"))
          .message(),
      HasSubstr("config.json: root.path"));
  EXPECT_OK(Refusal(
      absl::StrCat(R"({"root": {"path": ")", bundle_, R"(/rootfs"}})")));
}

TEST_F(BundleTest, MountsHaveTheirOptions) {
  std::filesystem::create_directories(bundle_ + "/data/sub");
  std::ofstream(bundle_ + "/data/file") << "content";
  std::filesystem::create_directories(bundle_ + "/rootfs/full");
  std::ofstream(bundle_ + "/rootfs/full/x") << "image";
  json config = Config(
      "cat /srv/file /full/x; echo; touch /srv/y 2>/dev/null; echo $?; "
      "while read a b c d at flags rest; do "
      "case $at in /srv|/full|/ovl|/hid*|/etc/x) "
      "echo $at $flags ${rest##* - };; esac; done < /proc/self/mountinfo",
      "{}");
  AddMount(config, R"({"destination": "/hidden/below", "type": "tmpfs"})");
  AddMount(config, R"({"destination": "/hidden", "type": "tmpfs",
      "options": ["nosuid", "nodev", "noexec", "noatime", "size=64k",
                  "mode=0700", "ro"]})");
  AddMount(config, R"({"destination": "srv/../srv/", "source": "data",
      "options": ["rbind", "ro", "nosuid", "nodev", "noexec", "rprivate"]})");
  AddMount(config, R"({"destination": "/etc/x", "type": "bind",
      "source": "data/file", "options": ["bind", "rro", "rslave"]})");
  AddMount(config, R"({"destination": "/full", "type": "tmpfs",
      "source": "tmpfs", "options": ["tmpcopyup", "nodev"]})");
  AddMount(
      config,
      absl::StrCat(
          R"({"destination": "/ovl", "type": "overlay", "source": "overlay",
          "options": ["nosuid", "lowerdir=)",
          bundle_, "/data:", bundle_, R"(/rootfs/full"]})"));
  // Together longer than what fsconfig(2) takes, and each not.
  ASSERT_LT(bundle_.size(), 200u);
  const std::string deep =
      absl::StrCat(bundle_, "/", std::string(240 - bundle_.size(), 'd'));
  const std::string deeper = absl::StrCat(deep, "eeper");
  std::filesystem::create_directory(deep);
  std::filesystem::create_directory(deeper);
  AddMount(config, absl::StrCat(R"({"destination": "/deep", "type": "overlay",
          "source": "overlay", "options": ["lowerdir=)",
                                deep, ":", deeper, R"("]})"));
  ASSERT_OK_AND_ASSIGN(const std::string output, Run(config));
  EXPECT_THAT(output, HasSubstr("contentimage\n1\n"));
  EXPECT_THAT(output, HasSubstr("/srv ro,nosuid,nodev,noexec"));
  EXPECT_THAT(output, HasSubstr("/etc/x ro,"));
  EXPECT_THAT(output, HasSubstr("/full rw,nodev,relatime - tmpfs tmpfs rw"));
  EXPECT_THAT(output, HasSubstr("/ovl rw,nosuid,relatime - overlay overlay "));
  EXPECT_THAT(output,
              HasSubstr("/hidden ro,nosuid,nodev,noexec,noatime - tmpfs tmpfs "
                        "ro,size=64k,mode=700"));
  EXPECT_THAT(output, Not(HasSubstr("/hidden/below")));
}

TEST_F(BundleTest, PathsAreMaskedAndReadOnly) {
  std::ofstream(bundle_ + "/rootfs/root/secret") << "secret";
  EXPECT_EQ(Output("cat /root/secret; ls /home /proc/acpi 2>&1 | grep -v :; "
                   "(echo x > /tmp/x) 2>/dev/null; echo $?; "
                   "(echo 1 > /proc/sys/kernel/panic) 2>/dev/null; echo $?; "
                   "cat /proc/timer_list",
                   R"({"linux": {
                     "maskedPaths": ["/root/secret", "/home", "/no/such",
                                     "/proc/timer_list", "/proc/acpi"],
                     "readonlyPaths": ["/tmp", "/proc/sys", "/not/there"]}})"),
            "\n1\n1\n");
}

TEST_F(BundleTest, DevicesAreThere) {
  EXPECT_EQ(
      Output("stat -c '%n %F %t:%T %a %u:%g' /dev/random /dev/mine "
             "/dev/d/disk /dev/d/fifo; echo x >/dev/d/fifo & cat /dev/d/fifo",
             R"({"linux": {"devices": [
               {"path": "/dev/mine", "type": "c", "major": 1, "minor": 5,
                "fileMode": 8624, "uid": 3, "gid": 4},
               {"path": "/dev/d/disk", "type": "b", "major": 7, "minor": 200},
               {"path": "/dev/d/fifo", "type": "p", "fileMode": 438, "uid": 5},
               {"path": "/dev/null", "type": "c", "major": 1, "minor": 3},
               {"path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2}]}})"),
      "/dev/random character special file 1:8 666 0:0\n"
      "/dev/mine character special file 1:5 660 3:4\n"
      "/dev/d/disk block special file 7:c8 666 0:0\n"
      "/dev/d/fifo fifo 0:0 666 5:0\nx\n");
}

// From a network namespace of the thread, which is the runtime's then.
TEST_F(BundleTest, NetworkDevicesAreMovedWithTheirAddresses) {
  std::thread([this] {
    ASSERT_EQ(::unshare(CLONE_NEWNET), 0);
    ASSERT_EQ(::system("ip link add cai0 mtu 1400 type veth peer name cai1 && "
                       "ip addr add 10.99.0.1/24 brd + dev cai0 && "
                       "ip addr add fd00:99::1/64 dev cai0 nodad && "
                       "ip addr add 10.99.1.1/24 scope link dev cai0 && "
                       "ip link set cai1 up"),
              0);
    const std::string show = "ip addr show eth7 2>&1; ip link show cai1 2>&1";
    const auto output_of = [&](const std::string& devices) {
      return Run(Config(
          show, absl::StrCat(R"({"linux": {"netDevices": )", devices, "}}")));
    };
    EXPECT_THAT(output_of(R"({"nosuch": {}, "cai0": {"name": "eth7"}})"),
                StatusIs(absl::StatusCode::kNotFound,
                         HasSubstr("linux.netDevices (nosuch)")));
    EXPECT_THAT(output_of(R"({"cai1": {}, "cai0": {"name": "lo"}})"),
                StatusIs(absl::StatusCode::kAlreadyExists,
                         HasSubstr("linux.netDevices (cai0)")));
    // None was moved.
    EXPECT_EQ(::system("ip link show cai0 >/dev/null && "
                       "ip link show cai1 >/dev/null"),
              0);
    ASSERT_OK_AND_ASSIGN(const std::string output,
                         output_of(R"({"cai0": {"name": "eth7"}})"));
    EXPECT_THAT(output, HasSubstr("UP"));
    EXPECT_THAT(output, HasSubstr("mtu 1400"));
    EXPECT_THAT(output, HasSubstr("inet 10.99.0.1/24 brd 10.99.0.255"));
    EXPECT_THAT(output, HasSubstr("inet6 fd00:99::1/64"));
    EXPECT_THAT(output, ::testing::Not(HasSubstr("10.99.1.1")));
    EXPECT_THAT(output, HasSubstr("can't find device 'cai1'"));
    EXPECT_NE(::system("ip link show cai0 >/dev/null 2>&1"), 0);
  }).join();
}

TEST_F(BundleTest, SysAndTheRootCanBeWeakerAndShared) {
  json config = Config(
      "while read a b c d at flags tag rest; do "
      "case $at in /|/sys) echo $at ${flags%%,*} ${tag%%:*};; esac; "
      "done < /proc/self/mountinfo",
      R"({"linux": {"rootfsPropagation": "shared"}})");
  config["mounts"][5]["options"] = {"nosuid"};
  ASSERT_OK_AND_ASSIGN(const std::string output, Run(config));
  EXPECT_EQ(output, "/ rw shared\n/sys rw -\n");
}

TEST_F(BundleTest, DevCanBeADirectoryOfTheHost) {
  const std::string dev = bundle_ + "/dev";
  for (const char* name : {"/pts", "/shm", "/mqueue"}) {
    std::filesystem::create_directories(dev + name);
  }
  std::ofstream(dev + "/console") << "kept";
  ASSERT_EQ(::mknod((dev + "/null").c_str(), S_IFCHR | 0666, makedev(1, 3)), 0);
  json config = Config("tty; echo x > /dev/null && echo /dev/*",
                       R"({"process": {"terminal": true}})");
  config["mounts"][1] = json::parse(R"({"destination": "/dev", "source": "dev",
                                        "options": ["rbind", "nosuid"]})");
  ASSERT_OK_AND_ASSIGN(BundleParts parts, Compose(config));
  ASSERT_OK_AND_ASSIGN(Process process, launcher_->Start(parts.spec()));
  EXPECT_EQ(TerminalOutput(process),
            "/dev/pts/0\r\n/dev/console /dev/mqueue /dev/null /dev/pts "
            "/dev/shm\r\n");
}

// ---- namespaces ------------------------------------------------------------

TEST_F(BundleTest, NamesSysctlsAndClocks) {
  json config = Config(
      "hostname; cat /proc/sys/kernel/domainname /proc/sys/net/ipv4/ip_forward "
      "/proc/sys/kernel/shmmni; cut -d. -f1 /proc/uptime",
      R"({"hostname": "web", "domainname": "example.org", "linux": {
          "sysctl": {"net.ipv4.ip_forward": "1", "kernel.shmmni": "77"},
          "timeOffsets": {"boottime": {"secs": 1000000000},
                          "monotonic": {"secs": 10, "nanosecs": 5}}}})");
  AddNamespace(config, R"({"type": "time"})");
  ASSERT_OK_AND_ASSIGN(const std::string output, Run(config));
  EXPECT_THAT(output, ::testing::StartsWith("web\nexample.org\n1\n77\n10000"));
}

TEST_F(BundleTest, NamespacesAreJoinedByPathOrShared) {
  ASSERT_OK_AND_ASSIGN(BundleParts first,
                       Compose(Config("sleep 100", R"({"hostname": "one"})")));
  ASSERT_OK_AND_ASSIGN(Process process, launcher_->Start(first.spec()));
  json config = Config(
      "hostname; readlink /proc/self/ns/net; readlink /proc/self/ns/ipc", "{}");
  const std::string ns = absl::StrCat("/proc/", process.pid(), "/ns/");
  config["linux"]["namespaces"] = {
      {{"type", "pid"}},
      {{"type", "mount"}},
      {{"type", "uts"}, {"path", ns + "uts"}},
      {{"type", "network"}, {"path", ns + "net"}},
  };
  ASSERT_OK_AND_ASSIGN(const std::string output, Run(config));
  const auto link = [](const std::string& path) {
    return std::filesystem::read_symlink(path).string();
  };
  EXPECT_EQ(output, absl::StrCat("one\n", link(ns + "net"), "\n",
                                 link("/proc/self/ns/ipc"), "\n"));
  config["linux"]["namespaces"][2]["path"] = ns + "net";
  EXPECT_THAT(Run(config).status().message(),
              HasSubstr("config.json: linux.namespaces (uts)"));
  EXPECT_OK(process.Destroy());
}

TEST_F(BundleTest, AUserNamespaceHasItsMaps) {
  std::filesystem::create_directories(bundle_ + "/data");
  json config = Config(
      "cat /proc/self/uid_map; stat -c %u /dev/null /t /data /id; "
      "touch /t/x; echo $?",
      R"({"linux": {
        "uidMappings": [{"containerID": 0, "hostID": 200000, "size": 65536}],
        "gidMappings": [{"containerID": 0, "hostID": 300000,
                         "size": 65536}]}})");
  AddNamespace(config, R"({"type": "user"})");
  AddMount(config, R"({"destination": "/t", "type": "tmpfs",
                       "options": ["uid=5", "mode=777"]})");
  AddMount(config, R"({"destination": "/data", "source": "data",
                       "options": ["bind"]})");
  AddMount(config, R"({"destination": "/id", "source": "data",
                       "options": ["bind", "idmap"]})");
  ASSERT_OK_AND_ASSIGN(const std::string output, Run(config));
  EXPECT_EQ(output, "         0     200000      65536\n0\n5\n65534\n0\n0\n");
}

// ---- limits, filters, hooks ------------------------------------------------

TEST_F(BundleTest, LimitsAreThoseOfTheGroup) {
  const std::string name = absl::StrCat("caisson-test-", ::getpid());
  json config = Config(
      "cat /proc/self/cgroup | grep -c caisson-test; "
      "cat /dev/one; cat /dev/two; head -c1 /dev/zero | wc -c",
      absl::StrCat(R"({"linux": {"cgroupsPath": "/)", name,
                   R"(", "devices": [
        {"path": "/dev/one", "type": "c", "major": 240, "minor": 1},
        {"path": "/dev/two", "type": "c", "major": 240, "minor": 2}],
      "resources": {
        "memory": {"limit": 67108864, "disableOOMKiller": false},
        "pids": {"limit": 40},
        "devices": [{"allow": false, "access": "rwm"},
          {"allow": true, "type": "c", "major": 240, "minor": 2,
           "access": "rwm"}]}}})"));
  ASSERT_OK_AND_ASSIGN(const Bundle bundle, Load(config));
  ASSERT_OK_AND_ASSIGN(const std::string path, bundle.CgroupsPath());
  EXPECT_EQ(path, "/" + name);
  ASSERT_OK_AND_ASSIGN(const CgroupLimits limits, bundle.Limits());
  ASSERT_OK_AND_ASSIGN(const CgroupParent parent,
                       CgroupParent::Open({.path = path}));
  ASSERT_OK_AND_ASSIGN(Cgroup group,
                       parent.Create({.name = "c", .limits = limits}));
  ASSERT_OK_AND_ASSIGN(const CgroupStatsReader stats, group.OpenStats());
  ASSERT_OK_AND_ASSIGN(const std::string output, Run(config, &group));
  EXPECT_THAT(output, Not(::testing::StartsWith("0\n")));
  // Nothing has these numbers; but one may be tried.
  EXPECT_THAT(output, HasSubstr("/dev/one': Operation not permitted\n"
                                "cat: can't open '/dev/two': No such device or "
                                "address\n1\n"));
  ASSERT_OK_AND_ASSIGN(
      const CgroupLimits update,
      bundle.LimitsOfUpdate(R"({"memory": {"limit": 33554432}})"));
  EXPECT_EQ(update.memory_max, 33554432);
  EXPECT_FALSE(update.devices.has_value());
  EXPECT_OK(group.SetLimits(update));
  EXPECT_OK(group.Destroy());
}

TEST_F(BundleTest, SystemCallsAreAnswered) {
  EXPECT_THAT(
      Output("mkdir /tmp/x; chmod 700 /tmp; grep Seccomp: /proc/self/status",
             R"({"linux": {"seccomp": {
               "defaultAction": "SCMP_ACT_ALLOW",
               "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_MIPS"],
               "flags": ["SECCOMP_FILTER_FLAG_LOG"],
               "syscalls": [
                 {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO",
                  "errnoRet": 28},
                 {"names": ["chmod", "fchmodat"], "action": "SCMP_ACT_ERRNO",
                  "args": [{"index": 1, "value": 448, "op": "SCMP_CMP_EQ"}]}
               ]}}})"),
      AllOf(HasSubstr("No space left on device"), HasSubstr("Seccomp:\t2")));
}

TEST_F(BundleTest, HooksRunAtTheirPoints) {
  const std::string notes = bundle_ + "/notes";
  const auto hook = [&](const char* point) {
    return json::array(
        {{{"path", "/bin/busybox"},
          {"args", {"sh", "-c", absl::StrCat("echo ", point, " >> ", notes)}},
          {"timeout", 10}}});
  };
  json config = Config("cat /tmp/inside", R"({"annotations": {"a": "b"}})");
  for (const char* point : {"prestart", "createRuntime", "poststart"}) {
    config["hooks"][point] = hook(point);
  }
  config["hooks"]["startContainer"] = {
      {{"path", "/bin/sh"}, {"args", {"sh", "-c", "cat > /tmp/inside"}}}};
  ASSERT_OK_AND_ASSIGN(const std::string output, Run(config));
  EXPECT_THAT(output, AllOf(HasSubstr(R"("annotations":{"a":"b"})"),
                            HasSubstr(bundle_), HasSubstr(R"("id":"test")")));
  std::ifstream file(notes);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  EXPECT_EQ(text, "prestart\ncreateRuntime\npoststart\n");
}

TEST_F(BundleTest, TheDefaultConfigStarts) {
  json config = json::parse(OciDefaultConfig(/*rootless=*/false));
  config["process"]["args"] = {
      "sh", "-c",
      "tty; hostname; "
      "grep -E '^(CapEff|CapBnd|NoNew|Seccomp:)' /proc/self/status; "
      "(echo > /x) 2>/dev/null; echo $?; wc -c < /proc/keys"};
  ASSERT_OK_AND_ASSIGN(BundleParts parts, Compose(config));
  EXPECT_THAT(parts.warnings(), ::testing::IsEmpty());
  ASSERT_OK_AND_ASSIGN(Process process, launcher_->Start(parts.spec()));
  EXPECT_EQ(TerminalOutput(process),
            "/dev/pts/0\r\ncaisson\r\nCapEff:\t0000000020000420\r\n"
            "CapBnd:\t0000000020000420\r\nNoNewPrivs:\t1\r\n"
            "Seccomp:\t2\r\n1\r\n0\r\n");
}

// ---- refusals --------------------------------------------------------------

TEST_F(BundleTest, WhatCannotBeHonouredIsNamed) {
  constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  const struct {
    std::string patch;
    absl::StatusCode code;
    const char* field;
  } cases[] = {
      {R"({"process": null})", kInvalid, "process: missing"},
      {R"({"linux": {"intelRdt": {"closID": "x"}}})", kUnimplemented,
       "linux.intelRdt"},
      {R"({"linux": {"netDevices": {"eth0": {}}, "namespaces": [
           {"type": "mount"}, {"type": "pid"}]}})",
       kInvalid, "linux.netDevices: needs a network namespace"},
      {R"({"linux": {"netDevices": {"eth0": {"name": "a/b"}}}})", kInvalid,
       "linux.netDevices (eth0): \"a/b\""},
      {R"({"linux": {"netDevices": {"eth%d": {}}}})", kInvalid,
       "linux.netDevices (eth%d): \"eth%d\""},
      {R"({"linux": {"netDevices": {"a": {"name": "b"}, "b": {}}}})", kInvalid,
       "linux.netDevices (b): \"b\""},
      {R"({"linux": {"namespaces": [{"type": "pid"}]}})", kUnimplemented,
       "linux.namespaces: a container needs"},
      {R"({"linux": {"uidMappings": [{"containerID": 0, "hostID": 0,
           "size": 1}]}})",
       kInvalid, "linux.uidMappings"},
      {R"({"linux": {"rootfsPropagation": "unbindable"}})", kUnimplemented,
       "linux.rootfsPropagation"},
      {R"({"linux": {"devices": [{"path": "/p", "type": "p"}]}})",
       kUnimplemented, "linux.devices[0].path"},
      {R"({"linux": {"devices": [{"path": "/x", "type": "c", "major": 1,
           "minor": 3}]}})",
       kUnimplemented, "linux.devices[0].path"},
      {R"({"process": {"scheduler": {"policy": "SCHED_ISO"}}})", kUnimplemented,
       "process.scheduler.policy"},
      {R"({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_NOTIFY"}}})",
       kInvalid, "linux.seccomp.listenerPath"},
      {R"({"linux": {"sysctl": {"kernel.panic": "1"}}})", kInvalid,
       "linux.sysctl: \"kernel.panic\""},
      {R"({"hostname": "a b"})", kInvalid, "hostname \"a b\""},
      {R"({"mounts": [{"destination": "/", "type": "tmpfs"}]})", kInvalid,
       "mounts[0].destination"},
      {R"({"mounts": [{"destination": "/x", "type": "proc"}]})", kUnimplemented,
       "mounts[0].destination"},
      {R"({"mounts": [{"destination": "/x", "source": "/tmp",
           "options": ["bind", "unbindable"]}]})",
       kUnimplemented, "mounts[0].options[1]"},
      {R"({"mounts": [{"destination": "/x"}]})", kInvalid, "mounts[0].type"},
      {R"({"mounts": [{"destination": "/x", "type": "bind"}]})", kInvalid,
       "mounts[0].source"},
      {R"({"mounts": [{"destination": "/y", "type": "tmpfs"},
           {"destination": "/x", "type": "bind", "source": "/no/such"}]})",
       absl::StatusCode::kNotFound, "mounts[1]"},
      {R"({"mounts": [{"destination": "/x", "type": "tmpfs",
           "options": ["nosuchoption"]}]})",
       kInvalid, "mounts[0]"},
      {R"({"linux": {"maskedPaths": ["relative"]}})", kInvalid,
       "linux.maskedPaths[0]"},
  };
  for (const auto& c : cases) {
    EXPECT_THAT(
        Refusal(c.patch),
        StatusIs(c.code, HasSubstr(absl::StrCat("config.json: ", c.field))))
        << c.patch;
  }
}

// ---- the oracle ------------------------------------------------------------

class BundleOracleTest : public BundleTest {
 protected:
  // What runc's container says.
  std::string RunByRunc(const json& config) {
    std::ofstream(bundle_ + "/config.json") << config.dump(1);
    const std::string state = bundle_ + "/state";
    const std::string id = absl::StrCat("caisson-oracle-", ::getpid());
    const std::string command =
        absl::StrCat(kRunc, " --root ", state, " run --bundle ", bundle_, " ",
                     id, " < /dev/null 2>&1");
    FILE* const pipe = ::popen(command.c_str(), "re");
    if (pipe == nullptr) return "popen() failed";
    std::string output;
    char buffer[4096];
    for (size_t n; (n = ::fread(buffer, 1, sizeof(buffer), pipe)) > 0;) {
      output.append(buffer, n);
    }
    EXPECT_EQ(::pclose(pipe), 0) << output;
    return output;
  }
};

// Of each mount its place, flags and kind; which flags runc gives less of is
// said in doc/oci.md ("stricter").
constexpr char kProbe[] =
    "id -u; id -g; grep -E '^(Groups|Cap|NoNew|Seccomp:)' /proc/self/status; "
    "umask; pwd; hostname; env | sort; cat /proc/self/oom_score_adj; "
    "cat /proc/self/limits; cat /proc/self/personality; "
    "stat -c '%n %F %t:%T %a %u:%g' /dev/* /dev/shm /srv /srv/* /t /full/*; "
    "cat /srv/file /proc/sys/net/ipv4/ip_forward /proc/keys; ls /home; "
    "echo $$; cut -d' ' -f5,6 /proc/self/stat; "
    "for i in /srv/a /root/a /tmp/a /t/a /dev/a; do "
    "touch $i 2>/dev/null; echo $i $?; done; "
    "ip link | grep -c UP; mkdir /tmp/b 2>&1; "
    "while read a b c d at flags rest; do case $at in "
    "/proc|/sys|/dev/pts|/dev/shm|/dev/mqueue|/srv|/t|/full) "
    "echo $at $flags ${rest##* - };; esac; done < /proc/self/mountinfo | "
    // Of the one superblock that all have.
    "sed 's/sysfs r[ow]$/sysfs/' | sort";

TEST_F(BundleOracleTest, RuncAndCaissonMakeTheSame) {
  if (::access(kRunc, X_OK) != 0) {
    ASSERT_FALSE(::caisson::testing::TestsMustRun()) << "runc is missing";
    GTEST_SKIP() << "runc is missing";
  }
  std::filesystem::create_directories(bundle_ + "/data/sub");
  std::filesystem::create_directories(bundle_ + "/rootfs/full");
  std::ofstream(bundle_ + "/rootfs/full/x") << "image";
  std::ofstream(bundle_ + "/data/file") << "content";
  json config = Config(kProbe, absl::StrCat(R"({
      "hostname": "oracle", "root": {"readonly": true},
      "process": {
        "user": {"uid": 0, "gid": 3, "umask": 18, "additionalGids": [3, 6, 9]},
        "env": ["B=2", "PATH=/bin", "A=1"], "cwd": "/root", "oomScoreAdj": 7,
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]},
      "linux": {
        "cgroupsPath": "/caisson-test-)",
                                            ::getpid(), R"(",
        "sysctl": {"net.ipv4.ip_forward": "1"},
        "maskedPaths": ["/proc/keys", "/home"],
        "readonlyPaths": ["/proc/sys"],
        "devices": [{"path": "/dev/mine", "type": "c", "major": 1, "minor": 5,
                     "fileMode": 432, "uid": 3, "gid": 4}],
        "seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
          {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO",
           "errnoRet": 28}]}}})"));
  AddMount(config, R"({"destination": "/srv", "source": "data",
                       "options": ["rbind", "ro"]})");
  AddMount(config, R"({"destination": "/t", "type": "tmpfs",
                       "source": "t", "options": ["mode=0711", "size=64k"]})");
  AddMount(config, R"({"destination": "/full", "type": "tmpfs",
                       "source": "tmpfs", "options": ["tmpcopyup"]})");
  const std::string theirs = RunByRunc(config);
  ASSERT_OK_AND_ASSIGN(const std::string ours, Run(config));
  EXPECT_EQ(ours, theirs);
}

}  // namespace
}  // namespace caisson
