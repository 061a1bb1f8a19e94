#include "lib/spec/runtime_config.h"

#include <cstdint>
#include <fstream>
#include <sstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/base/status_matchers.h"

namespace caisson::spec {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::StartsWith;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

std::string FullText() {
  std::ifstream file("lib/spec/corpus/full.json");
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

// A document with these fields beside those that are required.
std::string With(absl::string_view fields) {
  return absl::StrCat(R"({"ociVersion":"1.0.2","root":{"path":"r"})",
                      fields.empty() ? "" : ",", fields, "}");
}
std::string WithProcess(absl::string_view fields) {
  return With(absl::StrCat(R"("process":{"args":["a"],"cwd":"/")",
                           fields.empty() ? "" : ",", fields, "}"));
}
std::string WithLinux(absl::string_view fields) {
  return With(absl::StrCat(R"("linux":{)", fields, "}"));
}
std::string WithResources(absl::string_view fields) {
  return WithLinux(absl::StrCat(R"("resources":{)", fields, "}"));
}
std::string WithSeccomp(absl::string_view fields) {
  return WithLinux(absl::StrCat(
      R"("seccomp":{"defaultAction":"SCMP_ACT_ALLOW",)", fields, "}"));
}

class FullDocumentTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto config = ParseRuntimeConfig(FullText());
    ASSERT_OK(config.status());
    config_ = *std::move(config);
  }
  RuntimeConfig config_;
};

TEST_F(FullDocumentTest, Process) {
  ASSERT_TRUE(config_.process.has_value());
  const Process& process = *config_.process;
  EXPECT_TRUE(process.terminal);
  EXPECT_EQ(process.console_size->height, 40);
  EXPECT_EQ(process.console_size->width, 120);
  EXPECT_EQ(process.user.uid, 1u);
  EXPECT_EQ(process.user.gid, 2u);
  EXPECT_EQ(process.user.umask, 077u);
  EXPECT_THAT(process.user.additional_gids, ElementsAre(5u, UINT32_MAX));
  EXPECT_THAT(process.args, ElementsAre("sh", "-c", "true"));
  EXPECT_THAT(process.env, ElementsAre("PATH=/bin", "EMPTY=", "A=b=c"));
  EXPECT_EQ(process.cwd, "/work");
  EXPECT_THAT(process.capabilities->bounding,
              ElementsAre("CAP_CHOWN", "CAP_KILL"));
  EXPECT_THAT(process.capabilities->effective, ElementsAre("CAP_KILL"));
  EXPECT_THAT(process.capabilities->permitted, ElementsAre("CAP_KILL"));
  EXPECT_THAT(process.capabilities->inheritable, ElementsAre("CAP_CHOWN"));
  EXPECT_THAT(process.capabilities->ambient, IsEmpty());
  ASSERT_EQ(process.rlimits.size(), 2u);
  EXPECT_EQ(process.rlimits[0].type, "RLIMIT_NOFILE");
  EXPECT_EQ(process.rlimits[0].soft, 1024u);
  EXPECT_EQ(process.rlimits[1].hard, UINT64_MAX);
  EXPECT_EQ(process.apparmor_profile, "docker-default");
  EXPECT_EQ(process.selinux_label, "system_u:system_r:container_t:s0");
  EXPECT_EQ(process.oom_score_adj, -500);
  EXPECT_EQ(process.scheduler->policy, "SCHED_DEADLINE");
  EXPECT_EQ(process.scheduler->nice, -3);
  EXPECT_THAT(process.scheduler->flags,
              ElementsAre("SCHED_FLAG_RESET_ON_FORK"));
  EXPECT_EQ(process.scheduler->period, 300u);
  EXPECT_EQ(process.io_priority->io_class, "IOPRIO_CLASS_BE");
  EXPECT_EQ(process.io_priority->priority, 7);
  EXPECT_EQ(process.exec_cpu_affinity->initial, "0-1");
  EXPECT_EQ(process.exec_cpu_affinity->final, "1");
  EXPECT_TRUE(process.no_new_privileges);
}

TEST_F(FullDocumentTest, FileSystemsAndHooks) {
  EXPECT_EQ(config_.oci_version, "1.2.0");
  EXPECT_EQ(config_.root.path, "rootfs");
  EXPECT_TRUE(config_.root.readonly);
  EXPECT_EQ(config_.hostname, "web");
  EXPECT_EQ(config_.domainname, "example.org");
  ASSERT_EQ(config_.mounts.size(), 2u);
  EXPECT_EQ(config_.mounts[0].type, "proc");
  EXPECT_THAT(config_.mounts[1].options, ElementsAre("rbind", "ro"));
  EXPECT_EQ(config_.mounts[1].uid_mappings[0].host_id, 1000u);
  EXPECT_EQ(config_.mounts[1].gid_mappings[0].size, UINT32_MAX);
  EXPECT_EQ(config_.hooks.prestart[0].path, "/bin/a");
  EXPECT_THAT(config_.hooks.prestart[0].args, ElementsAre("a", "b"));
  EXPECT_THAT(config_.hooks.prestart[0].env, ElementsAre("X=1"));
  EXPECT_EQ(config_.hooks.prestart[0].timeout, 5);
  EXPECT_EQ(config_.hooks.create_runtime[0].path, "/bin/b");
  EXPECT_EQ(config_.hooks.create_container[0].path, "/bin/c");
  EXPECT_EQ(config_.hooks.start_container[0].path, "/bin/d");
  EXPECT_EQ(config_.hooks.poststart[0].path, "/bin/e");
  EXPECT_EQ(config_.hooks.poststop[1].path, "/bin/g");
  EXPECT_THAT(config_.annotations,
              ElementsAre(Pair("empty", ""), Pair("org.example.key", "value")));
}

TEST_F(FullDocumentTest, Linux) {
  const Linux& linux_config = config_.linux_config;
  ASSERT_EQ(linux_config.namespaces.size(), 8u);
  EXPECT_EQ(linux_config.namespaces[1].type, "network");
  EXPECT_EQ(linux_config.namespaces[1].path, "/run/netns/blue");
  EXPECT_EQ(linux_config.uid_mappings[0].host_id, 100000u);
  EXPECT_EQ(linux_config.gid_mappings[0].host_id, 200000u);
  EXPECT_EQ(linux_config.time_offsets.at("monotonic").secs, -5);
  EXPECT_EQ(linux_config.time_offsets.at("monotonic").nanosecs, 999999999u);
  EXPECT_EQ(linux_config.time_offsets.at("boottime").secs, 0);
  EXPECT_EQ(linux_config.devices[0].minor, 229u);
  EXPECT_EQ(linux_config.devices[0].file_mode, 0666u);
  EXPECT_EQ(linux_config.devices[0].gid, 4u);
  EXPECT_EQ(linux_config.devices[1].type, "p");
  EXPECT_EQ(linux_config.net_devices.at("eth0").name, "ctr0");
  EXPECT_EQ(linux_config.cgroups_path, "/docker/abc");
  EXPECT_EQ(linux_config.intel_rdt->clos_id, "guaranteed");
  EXPECT_TRUE(linux_config.intel_rdt->enable_monitoring);
  EXPECT_EQ(linux_config.memory_policy->mode, "MPOL_BIND");
  EXPECT_THAT(linux_config.sysctl,
              ElementsAre(Pair("net.ipv4.ip_forward", "1")));
  EXPECT_EQ(linux_config.rootfs_propagation, "rslave");
  EXPECT_THAT(linux_config.masked_paths, ElementsAre("/proc/kcore"));
  EXPECT_THAT(linux_config.readonly_paths, ElementsAre("/proc/sys"));
  EXPECT_EQ(linux_config.mount_label, "system_u:object_r:container_file_t:s0");
  EXPECT_EQ(linux_config.personality->domain, "LINUX32");
}

TEST_F(FullDocumentTest, Resources) {
  const Resources& resources = *config_.linux_config.resources;
  ASSERT_EQ(resources.devices.size(), 3u);
  EXPECT_FALSE(resources.devices[0].allow);
  EXPECT_FALSE(resources.devices[0].major.has_value());
  EXPECT_EQ(resources.devices[1].access, "rw");
  EXPECT_EQ(resources.devices[2].minor, -1);
  EXPECT_EQ(resources.memory->limit, 536870912);
  EXPECT_EQ(resources.memory->swap, -1);
  EXPECT_EQ(resources.memory->swappiness, 100u);
  EXPECT_EQ(resources.memory->disable_oom_killer, false);
  EXPECT_EQ(resources.memory->check_before_update, true);
  EXPECT_EQ(resources.cpu->quota, 50000);
  EXPECT_EQ(resources.cpu->burst, 1000u);
  EXPECT_EQ(resources.cpu->idle, 1);
  EXPECT_EQ(resources.cpu->cpus, "2-3");
  EXPECT_EQ(resources.pids->limit, 32771);
  EXPECT_EQ(resources.block_io->weight, 10);
  EXPECT_EQ(resources.block_io->weight_device[0].weight, 500);
  EXPECT_EQ(resources.block_io->throttle_read_bps_device[0].rate, 600u);
  EXPECT_EQ(resources.block_io->throttle_write_bps_device[0].rate, 601u);
  EXPECT_EQ(resources.block_io->throttle_read_iops_device[0].rate, 602u);
  EXPECT_EQ(resources.block_io->throttle_write_iops_device[0].minor, 3u);
  EXPECT_EQ(resources.hugepage_limits[0].limit, 9223372036854771712u);
  EXPECT_EQ(resources.network->class_id, 1048577u);
  EXPECT_EQ(resources.network->priorities[0].priority, 500u);
  EXPECT_EQ(resources.rdma.at("mlx5_1").hca_objects, 10000u);
  EXPECT_FALSE(resources.rdma.at("rxe3").hca_handles.has_value());
  EXPECT_THAT(resources.unified, ElementsAre(Pair("memory.high", "max")));
}

TEST_F(FullDocumentTest, Seccomp) {
  const Seccomp& seccomp = *config_.linux_config.seccomp;
  EXPECT_EQ(seccomp.default_action, "SCMP_ACT_ERRNO");
  EXPECT_EQ(seccomp.default_errno_ret, 38u);
  EXPECT_THAT(seccomp.architectures,
              ElementsAre("SCMP_ARCH_X86_64", "SCMP_ARCH_X32"));
  EXPECT_THAT(seccomp.flags, ElementsAre("SECCOMP_FILTER_FLAG_LOG"));
  EXPECT_EQ(seccomp.listener_path, "/run/agent.sock");
  EXPECT_EQ(seccomp.listener_metadata, "opaque");
  ASSERT_EQ(seccomp.syscalls.size(), 1u);
  EXPECT_THAT(seccomp.syscalls[0].names, ElementsAre("getcwd", "chmod"));
  EXPECT_EQ(seccomp.syscalls[0].errno_ret, 14u);
  EXPECT_EQ(seccomp.syscalls[0].args[0].index, 5u);
  EXPECT_EQ(seccomp.syscalls[0].args[0].value, UINT64_MAX);
  EXPECT_EQ(seccomp.syscalls[0].args[0].value_two, 2u);
  EXPECT_EQ(seccomp.syscalls[0].args[0].op, "SCMP_CMP_MASKED_EQ");
}

TEST(RuntimeConfigTest, AbsentIsNotEmpty) {
  ASSERT_OK_AND_ASSIGN(const RuntimeConfig config,
                       ParseRuntimeConfig(With("")));
  EXPECT_FALSE(config.process.has_value());
  EXPECT_FALSE(config.linux_config.resources.has_value());
  EXPECT_FALSE(config.linux_config.seccomp.has_value());
  EXPECT_FALSE(config.root.readonly);
  ASSERT_OK_AND_ASSIGN(
      const RuntimeConfig with_nulls,
      ParseRuntimeConfig(With(
          R"("process":null,"mounts":null,"linux":{"resources":{"memory":{}}})")));
  EXPECT_FALSE(with_nulls.process.has_value());
  ASSERT_TRUE(with_nulls.linux_config.resources->memory.has_value());
  EXPECT_FALSE(with_nulls.linux_config.resources->memory->limit.has_value());
}

TEST(RuntimeConfigTest, ReadsTheOtherDocuments) {
  ASSERT_OK_AND_ASSIGN(const Process process,
                       ParseProcess(R"({"args":["x"],"cwd":"/a"})"));
  EXPECT_EQ(process.cwd, "/a");
  EXPECT_THAT(ParseProcess(R"({"cwd":"/"})"),
              StatusIs(kInvalid, "process.json: args: missing"));
  ASSERT_OK_AND_ASSIGN(const Resources resources,
                       ParseResources(R"({"pids":{"limit":0}})"));
  EXPECT_EQ(resources.pids->limit, 0);
  EXPECT_THAT(ParseResources(R"({"pids":{"limit":"0"}})"),
              StatusIs(kInvalid, HasSubstr("resources.json: pids.limit:")));
}

TEST(RuntimeConfigTest, UnderstandsVersionOne) {
  const auto parse = [](absl::string_view version) {
    return ParseRuntimeConfig(
        absl::StrReplaceAll(With(""), {{"1.0.2", version}}));
  };
  for (const char* version :
       {"1.0.0", "1.0.2-dev", "1.3.0", "1.99.0+build", "1.1.0-rc.2"}) {
    EXPECT_OK(parse(version)) << version;
  }
  for (const char* version : {"0.6.0", "2.0.0", "10.0.0"}) {
    EXPECT_THAT(parse(version),
                StatusIs(kInvalid, AllOf(StartsWith("config.json: ociVersion:"),
                                         HasSubstr("not a version that is"))))
        << version;
  }
  for (const char* version :
       {"1", "1.0", "1.0.x", "v1.0.0", "1.0.0.0", "1..0", "1.0.-1", "one"}) {
    EXPECT_THAT(parse(version), StatusIs(kInvalid, HasSubstr("ociVersion")))
        << version;
  }
}

TEST(HostileDocumentTest, NamesTheField) {
  const struct {
    std::string text;
    const char* error;  // begins with "config.json: "
  } cases[] = {
      {R"({})", "ociVersion: missing"},
      {R"({"ociVersion":1})", "ociVersion: expected a string, found number"},
      {R"({"ociVersion":"1.0.0"})", "root: missing"},
      {R"({"ociVersion":"1.0.0","root":{}})", "root.path: missing"},
      {R"({"ociVersion":"1.0.0","root":{"path":""}})", "root.path: empty"},
      {With(R"("root":{"path":"x"})"), "root: the name"},
      {With(R"("hostname":["a"])"), "hostname: expected a string"},
      {With(R"("hostname":"a\u0000b")"), "hostname: a string with a NUL"},
      {With(R"("annotations":{"a":1})"), "annotations[\"a\"]: expected"},
      {With(R"("mounts":{})"), "mounts: expected an array"},
      {With(R"("mounts":[{}])"), "mounts[0].destination: missing"},
      {With(R"("mounts":[{"destination":"/a"},{"destination":7}])"),
       "mounts[1].destination: expected a string"},
      {With(R"("mounts":[{"destination":"/a","options":[1]}])"),
       "mounts[0].options[0]: expected a string"},
      {With(R"("mounts":[{"destination":"/a","uidMappings":[{"hostID":1}]}])"),
       "mounts[0].uidMappings[0].containerID: missing"},
      {With(R"("hooks":{"prestart":[{"path":"bin"}]})"),
       "hooks.prestart[0].path: \"bin\" is not an absolute path"},
      {With(R"("hooks":{"poststop":[{"path":"/a","timeout":0}]})"),
       "hooks.poststop[0].timeout: 0 is not above 0"},
      {With(R"("hooks":{"poststop":[{"path":"/a","timeout":1e9}]})"),
       "hooks.poststop[0].timeout: expected an integer"},
      {With(R"("process":{})"), "process.args: missing"},
      {With(R"("process":{"args":[],"cwd":"/"})"), "process.args: empty"},
      {With(R"("process":{"args":["a"],"cwd":"b"})"), "process.cwd: \"b\" is"},
      {WithProcess(R"("terminal":1)"), "process.terminal: expected a boolean"},
      {WithProcess(R"("consoleSize":{"height":65536,"width":1})"),
       "process.consoleSize.height: 65536 is not from 0 to 65535"},
      {WithProcess(R"("user":{"uid":-1,"gid":0})"),
       "process.user.uid: -1 is not from 0 to 4294967295"},
      {WithProcess(R"("user":{"uid":0,"gid":4294967296})"),
       "process.user.gid: 4294967296 is not from"},
      {WithProcess(R"("user":{"uid":0,"gid":0,"umask":512})"),
       "process.user.umask: above 0777"},
      {WithProcess(R"("user":{"uid":0,"gid":0,"additionalGids":[1,"2"]})"),
       "process.user.additionalGids[1]: expected an integer"},
      {WithProcess(R"("env":["A=1","B"])"), "process.env[1]: \"B\" is not"},
      {WithProcess(R"("env":["=1"])"), "process.env[0]: \"=1\" is not"},
      {WithProcess(R"("capabilities":{"bounding":"ALL"})"),
       "process.capabilities.bounding: expected an array"},
      {WithProcess(R"("rlimits":[{"type":"RLIMIT_CORE","soft":1}])"),
       "process.rlimits[0].hard: missing"},
      {WithProcess(R"("rlimits":[{"type":"X","soft":1,"hard":1},
                                 {"type":"X","soft":1,"hard":1}])"),
       "process.rlimits[1].type: \"X\" is there twice"},
      {WithProcess(R"("rlimits":[{"type":"X","soft":-1,"hard":1}])"),
       "process.rlimits[0].soft: -1 is not from 0 to 18446744073709551615"},
      {WithProcess(R"("oomScoreAdj":1001)"), "process.oomScoreAdj: 1001 is"},
      {WithProcess(R"("scheduler":{"policy":"SCHED_NONE"})"),
       "process.scheduler.policy: \"SCHED_NONE\" is none of SCHED_BATCH"},
      {WithProcess(R"("scheduler":{"policy":"SCHED_RR","flags":["x"]})"),
       "process.scheduler.flags[0]: \"x\" is none of"},
      {WithProcess(R"("ioPriority":{"class":"IOPRIO_CLASS_BE","priority":8})"),
       "process.ioPriority.priority: 8 is not from 0 to 7"},
      {WithLinux(R"("namespaces":[{"type":"net"}])"),
       "linux.namespaces[0].type: \"net\" is none of"},
      {WithLinux(R"("namespaces":[{"type":"pid"},{"type":"pid"}])"),
       "linux.namespaces[1].type: \"pid\" is there twice"},
      {WithLinux(R"("namespaces":[{"type":"pid","path":"ns"}])"),
       "linux.namespaces[0].path: \"ns\" is not an absolute path"},
      {WithLinux(R"("timeOffsets":{"realtime":{}})"),
       "linux.timeOffsets: the clock \"realtime\""},
      {WithLinux(R"("timeOffsets":{"boottime":{"nanosecs":1000000000}})"),
       "linux.timeOffsets[\"boottime\"].nanosecs: 1000000000"},
      {WithLinux(R"("devices":[{"path":"/dev/x","type":"c","major":1}])"),
       "linux.devices[0].minor: missing"},
      {WithLinux(R"("devices":[{"path":"/dev/x","type":"d"}])"),
       "linux.devices[0].type: \"d\" is none of"},
      {WithLinux(R"("sysctl":{"a":1})"), "linux.sysctl[\"a\"]: expected"},
      {WithLinux(R"("rootfsPropagation":"rfoo")"),
       "linux.rootfsPropagation: \"rfoo\" is none of"},
      {WithLinux(R"("personality":{"domain":"BSD"})"),
       "linux.personality.domain: \"BSD\" is none of"},
      {WithLinux(R"("memoryPolicy":{"mode":"MPOL_X"})"),
       "linux.memoryPolicy.mode: \"MPOL_X\" is none of"},
      {WithResources(R"("memory":{"limit":"1"})"),
       "linux.resources.memory.limit: expected an integer, found string"},
      {WithResources(R"("memory":{"limit":9223372036854775808})"),
       "linux.resources.memory.limit: 9223372036854775808 is not from"},
      {WithResources(R"("memory":{"limit":99999999999999999999})"),
       "linux.resources.memory.limit: expected an integer"},
      {WithResources(R"("memory":{"limit":-2})"),
       "linux.resources.memory.limit: -2 is below -1"},
      {WithResources(R"("memory":{"limit":1,"limit":2})"),
       "linux.resources.memory.limit: the name \"limit\" occurs twice"},
      {WithResources(R"("cpu":{"shares":-1})"),
       "linux.resources.cpu.shares: -1 is not from 0 to"},
      {WithResources(R"("cpu":{"idle":2})"),
       "linux.resources.cpu.idle: 2 is neither"},
      {WithResources(R"("pids":{"limit":1.5})"),
       "linux.resources.pids.limit: expected an integer"},
      {WithResources(R"("blockIO":{"weight":65536})"),
       "linux.resources.blockIO.weight: 65536 is not from 0 to 65535"},
      {WithResources(R"("blockIO":{"throttleReadBpsDevice":[{"major":1,
                        "minor":-1,"rate":5}]})"),
       "linux.resources.blockIO.throttleReadBpsDevice[0].minor: -1 is not"},
      {WithResources(R"("hugepageLimits":[{"limit":1}])"),
       "linux.resources.hugepageLimits[0].pageSize: missing"},
      {WithResources(R"("rdma":{"mlx":{"hcaHandles":-1}})"),
       "linux.resources.rdma[\"mlx\"].hcaHandles: -1 is not"},
      {WithResources(R"("unified":{"memory.high":1})"),
       "linux.resources.unified[\"memory.high\"]: expected a string"},
      {WithResources(R"("devices":[{"type":"c"}])"),
       "linux.resources.devices[0].allow: missing"},
      {WithResources(R"("devices":[{"allow":true,"access":"rx"}])"),
       "linux.resources.devices[0].access: \"rx\" has other letters"},
      {WithResources(R"("devices":[{"allow":true,"major":-2}])"),
       "linux.resources.devices[0].major: -2 is no device number"},
      {WithLinux(R"("seccomp":{})"), "linux.seccomp.defaultAction: missing"},
      {WithLinux(R"("seccomp":{"defaultAction":"ALLOW"})"),
       "linux.seccomp.defaultAction: \"ALLOW\" is none of"},
      {WithSeccomp(R"("architectures":["X"])"),
       "linux.seccomp.architectures[0]: \"X\" is none of"},
      {WithSeccomp(R"("flags":["X"])"), "linux.seccomp.flags[0]: \"X\" is"},
      {WithSeccomp(R"("listenerMetadata":"x")"),
       "linux.seccomp.listenerMetadata: is there without listenerPath"},
      {WithSeccomp(R"("syscalls":[{"names":[],"action":"SCMP_ACT_LOG"}])"),
       "linux.seccomp.syscalls[0].names: empty"},
      {WithSeccomp(R"("syscalls":[{"names":["read"],"action":"SCMP_ACT_LOG",
          "args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]}])"),
       "linux.seccomp.syscalls[0].args[0].index: 6 is not from 0 to 5"},
  };
  for (const auto& c : cases) {
    EXPECT_THAT(
        ParseRuntimeConfig(c.text),
        StatusIs(kInvalid, StartsWith(absl::StrCat("config.json: ", c.error))))
        << c.text;
  }
}

TEST(HostileDocumentTest, HasBounds) {
  EXPECT_THAT(ParseRuntimeConfig(With(absl::StrCat(
                  R"("hostname":")", std::string(10 << 20, 'a'), "\""))),
              StatusIs(kInvalid, HasSubstr("bytes are more than 4194304")));
  EXPECT_THAT(ParseRuntimeConfig(
                  With(absl::StrCat(R"("x":)", std::string(1'000'000, '[')))),
              StatusIs(kInvalid, HasSubstr("nested deeper")));
  std::string numbers;
  for (int i = 0; i < 300'000; ++i) numbers += "1,";
  EXPECT_THAT(ParseRuntimeConfig(With(absl::StrCat(R"("x":[)", numbers, "1]"))),
              StatusIs(kInvalid, HasSubstr("more than 250000 values")));
  for (const char* text : {"", "null", "[]", "\"\"", "{", "\xff", "{} {}"}) {
    EXPECT_THAT(ParseRuntimeConfig(text),
                StatusIs(kInvalid, HasSubstr("config.json:")))
        << text;
  }
}

// Wherever a document breaks off or has a hole, it is refused or read: never
// more than that.
TEST(HostileDocumentTest, SurvivesDamage) {
  const std::string text = FullText();
  for (size_t i = 0; i + 2 < text.size(); i += 7) {
    EXPECT_THAT(ParseRuntimeConfig(text.substr(0, i)),
                StatusIs(kInvalid, HasSubstr("config.json:")))
        << i;
    std::string damaged = text;
    damaged[i] = static_cast<char>(damaged[i] ^ 0x11);
    const auto config = ParseRuntimeConfig(damaged);
    EXPECT_TRUE(config.ok() || config.status().code() == kInvalid) << i;
  }
}

// What versions 1.0 to 1.2 have in the place of enableMonitoring.
TEST(RuntimeConfigTest, OlderNamesOfMonitoring) {
  const auto monitors = [](const char* fields) {
    const auto config = ParseRuntimeConfig(absl::StrCat(
        R"({"ociVersion": "1.2.0", "root": {"path": "r"},
            "linux": {"intelRdt": {)",
        fields, "}}}"));
    EXPECT_OK(config);
    return config.ok() && config->linux_config.intel_rdt->enable_monitoring;
  };
  EXPECT_FALSE(monitors(R"("enableCMT": false, "enableMBM": false)"));
  EXPECT_TRUE(monitors(R"("enableCMT": true)"));
  EXPECT_TRUE(monitors(R"("enableMBM": true)"));
}

}  // namespace
}  // namespace caisson::spec
