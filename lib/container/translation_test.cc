// Values of documents as caisson's: what needs no kernel to see.
#include <sys/syscall.h>

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "caisson/bundle.h"
#include "caisson/security.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/base/status_matchers.h"
#include "lib/container/mount_options.h"
#include "lib/container/mounts.h"
#include "lib/container/process.h"
#include "lib/container/resources.h"
#include "lib/spec/runtime_config.h"
#include "lib/spec/words.h"

namespace caisson::container {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;
constexpr int64_t kUnlimited = CgroupLimits::kUnlimited;

// ---- resources -------------------------------------------------------------

absl::StatusOr<CgroupLimits> Limits(const std::string& json,
                                    bool zero_pids = true) {
  const auto resources = spec::ParseResources(json);
  EXPECT_OK(resources.status()) << json;
  if (!resources.ok()) return resources.status();
  return TranslateResources("linux.resources", *resources, zero_pids);
}

TEST(ResourcesTest, MemoryAndSwap) {
  const struct {
    const char* json;
    std::optional<int64_t> max;
    std::optional<int64_t> swap;
  } cases[] = {
      {R"({})", {}, {}},
      {R"({"memory": {"limit": 0, "swap": 0}})", {}, {}},
      {R"({"memory": {"limit": 100}})", 100, {}},
      {R"({"memory": {"limit": 100, "swap": 150}})", 100, 50},
      {R"({"memory": {"limit": 100, "swap": 100}})", 100, 0},
      {R"({"memory": {"limit": 100, "swap": -1}})", 100, kUnlimited},
      {R"({"memory": {"limit": -1}})", kUnlimited, kUnlimited},
      {R"({"memory": {"swap": -1}})", {}, kUnlimited},
  };
  for (const auto& c : cases) {
    ASSERT_OK_AND_ASSIGN(const CgroupLimits limits, Limits(c.json));
    EXPECT_EQ(limits.memory_max, c.max) << c.json;
    EXPECT_EQ(limits.memory_swap_max, c.swap) << c.json;
  }
  EXPECT_THAT(Limits(R"({"memory": {"limit": 100, "swap": 50}})"),
              StatusIs(kInvalid, HasSubstr("linux.resources.memory.swap")));
  EXPECT_THAT(Limits(R"({"memory": {"swap": 50}})"),
              StatusIs(kInvalid, HasSubstr("needs a limit of the memory")));
  EXPECT_THAT(Limits(R"({"memory": {"swappiness": 101}})"),
              StatusIs(kInvalid, HasSubstr("memory.swappiness")));
  EXPECT_THAT(Limits(R"({"memory": {"kernelTCP": 5}})"),
              StatusIs(kUnimplemented, HasSubstr("memory.kernelTCP")));
  EXPECT_THAT(Limits(R"({"memory": {"useHierarchy": false}})"),
              StatusIs(kUnimplemented, HasSubstr("memory.useHierarchy")));
  ASSERT_OK_AND_ASSIGN(const CgroupLimits limits,
                       Limits(R"({"memory": {"reservation": 7, "kernel": 9,
                           "kernelTCP": -1, "swappiness": 60,
                           "disableOOMKiller": true, "useHierarchy": true}})"));
  EXPECT_EQ(limits.memory_low, 7);
  EXPECT_EQ(limits.memory_swappiness, 60);
  EXPECT_EQ(limits.memory_oom_kill_disable, true);
  ASSERT_OK_AND_ASSIGN(const CgroupLimits off,
                       Limits(R"({"memory": {"disableOOMKiller": false}})"));
  EXPECT_FALSE(off.memory_oom_kill_disable.has_value());
}

TEST(ResourcesTest, Processors) {
  ASSERT_OK_AND_ASSIGN(
      CgroupLimits limits,
      Limits(R"({"cpu": {"shares": 512, "quota": 50000, "period": 80000,
                         "burst": 1000, "cpus": "0-1", "mems": "0"}})"));
  EXPECT_EQ(limits.cpu_shares, 512u);
  EXPECT_EQ(limits.cpu_quota->quota, absl::Milliseconds(50));
  EXPECT_EQ(limits.cpu_quota->period, absl::Milliseconds(80));
  EXPECT_EQ(limits.cpu_quota->burst, absl::Milliseconds(1));
  EXPECT_EQ(limits.cpuset_cpus, "0-1");
  EXPECT_EQ(limits.cpuset_mems, "0");
  EXPECT_FALSE(limits.cpu_idle.has_value());
  ASSERT_OK_AND_ASSIGN(limits, Limits(R"({"cpu": {"quota": -1}})"));
  EXPECT_EQ(limits.cpu_quota->quota, absl::InfiniteDuration());
  EXPECT_EQ(limits.cpu_quota->period, absl::Milliseconds(100));
  ASSERT_OK_AND_ASSIGN(limits, Limits(R"({"cpu": {"period": 50000}})"));
  EXPECT_EQ(limits.cpu_quota->quota, absl::InfiniteDuration());
  ASSERT_OK_AND_ASSIGN(limits, Limits(R"({"cpu": {"shares": 0, "quota": 0,
      "period": 0, "realtimeRuntime": 0, "realtimePeriod": 0}})"));
  EXPECT_FALSE(limits.cpu_shares || limits.cpu_quota);
  ASSERT_OK_AND_ASSIGN(limits, Limits(R"({"cpu": {"shares": 9, "idle": 1}})"));
  EXPECT_EQ(limits.cpu_idle, true);
  EXPECT_FALSE(limits.cpu_shares.has_value());
  EXPECT_THAT(Limits(R"({"cpu": {"quota": -2}})"),
              StatusIs(kInvalid, HasSubstr("linux.resources.cpu.quota")));
  EXPECT_THAT(Limits(R"({"cpu": {"realtimeRuntime": 5}})"),
              StatusIs(kUnimplemented, HasSubstr("cpu.realtimeRuntime")));
  EXPECT_THAT(Limits(R"({"cpu": {"period": 18446744073709551615}})"),
              StatusIs(kInvalid, HasSubstr("cpu.period")));
}

TEST(ResourcesTest, ZeroPidsMeanWhatTheVersionSays) {
  EXPECT_TRUE(ZeroPidsAreUnlimited("1.0.2-dev"));
  EXPECT_TRUE(ZeroPidsAreUnlimited("1.2.1"));
  EXPECT_FALSE(ZeroPidsAreUnlimited("1.3.0"));
  EXPECT_FALSE(ZeroPidsAreUnlimited("1.10.0"));
  EXPECT_EQ(Limits(R"({"pids": {"limit": 0}})", true)->pids_max, kUnlimited);
  EXPECT_EQ(Limits(R"({"pids": {"limit": 0}})", false)->pids_max, 0);
  EXPECT_EQ(Limits(R"({"pids": {"limit": -1}})", false)->pids_max, kUnlimited);
  EXPECT_EQ(Limits(R"({"pids": {"limit": 5}})", true)->pids_max, 5);
  EXPECT_FALSE(Limits(R"({"pids": {}})")->pids_max.has_value());
}

TEST(ResourcesTest, DisksHugePagesAndNetwork) {
  ASSERT_OK_AND_ASSIGN(const CgroupLimits limits,
                       Limits(R"({"blockIO": {"weight": 500,
          "weightDevice": [{"major": 8, "minor": 0, "weight": 10}],
          "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 600}],
          "throttleWriteIOPSDevice": [{"major": 8, "minor": 16, "rate": 0}]},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 4194304},
          {"pageSize": "1GB", "limit": 18446744073709551615}],
        "network": {"classID": 7, "priorities": [{"name": "lo",
                                                  "priority": 3}]},
        "rdma": {"mlx": {"hcaHandles": 4294967295}},
        "unified": {"memory.high": "max"}})"));
  EXPECT_EQ(limits.blkio_weight, 500u);
  ASSERT_EQ(limits.io.size(), 2u);
  EXPECT_EQ(limits.io[0].weight, 1u);
  EXPECT_EQ(limits.io[0].read_bps, 600);
  EXPECT_EQ(limits.io[1].device.minor, 16u);
  EXPECT_EQ(limits.io[1].write_iops, kUnlimited);
  ASSERT_EQ(limits.hugetlb.size(), 2u);
  EXPECT_EQ(limits.hugetlb[0].page_size, 2 << 20);
  EXPECT_EQ(limits.hugetlb[0].reserved_max, 4194304);
  EXPECT_EQ(limits.hugetlb[1].page_size, 1 << 30);
  EXPECT_EQ(limits.hugetlb[1].max, kUnlimited);
  EXPECT_EQ(limits.net_class, 7u);
  EXPECT_EQ(limits.net_priorities[0].interface, "lo");
  EXPECT_EQ(limits.rdma[0].hca_handles, 4294967295);
  EXPECT_EQ(limits.unified.at("memory.high"), "max");
  for (const char* size : {"2", "MB", "-2MB", "2TB", "2mb", "0KB"}) {
    EXPECT_THAT(Limits(absl::StrCat(R"({"hugepageLimits": [{"pageSize": ")",
                                    size, R"(", "limit": 1}]})")),
                StatusIs(kInvalid, HasSubstr("hugepageLimits[0].pageSize")))
        << size;
  }
  EXPECT_THAT(Limits(R"({"blockIO": {"leafWeight": 5}})"),
              StatusIs(kUnimplemented, HasSubstr("leafWeight")));
  EXPECT_THAT(Limits(R"({"blockIO": {"weightDevice": [{"major": 1, "minor": 2,
                                                       "weight": 5}]}})"),
              StatusIs(kInvalid, HasSubstr("weightDevice[0].weight")));
}

TEST(ResourcesTest, DevicesInOrderWithThoseOfEveryContainer) {
  using Type = CgroupDeviceRule::Type;
  ASSERT_OK_AND_ASSIGN(const auto resources, spec::ParseResources(R"({
      "devices": [{"allow": true, "type": "a", "access": "rwm"},
        {"allow": false, "type": "c", "major": 10, "minor": -1,
         "access": "rw"}]})"));
  ASSERT_OK_AND_ASSIGN(const CgroupDeviceRules rules,
                       TranslateDeviceRules("d", resources.devices));
  EXPECT_TRUE(rules.Allows(Type::kBlock, 8, 0, "rwm"));
  EXPECT_FALSE(rules.Allows(Type::kCharacter, 10, 5, "r"));
  EXPECT_TRUE(rules.Allows(Type::kCharacter, 10, 5, "m"));
  EXPECT_TRUE(rules.Allows(Type::kCharacter, 1, 3, "rwm"));
  ASSERT_OK_AND_ASSIGN(const CgroupDeviceRules none,
                       TranslateDeviceRules("d", {}));
  EXPECT_FALSE(none.Allows(Type::kBlock, 8, 0, "r"));
  EXPECT_TRUE(none.Allows(Type::kCharacter, 1, 3, "rw"));
  EXPECT_THAT(TranslateDeviceRules("linux.resources.devices",
                                   {{.allow = true, .type = "c"}}),
              StatusIs(kInvalid, HasSubstr("resources.devices[0].access")));
}

// ---- mounts ----------------------------------------------------------------

TEST(MountOptionsTest, TheLastOneCounts) {
  ASSERT_OK_AND_ASSIGN(
      const MountOptions options,
      ParseMountOptions(
          "o", {"rbind", "rro", "nosuid", "suid", "noexec", "nodev", "noatime",
                "relatime", "rshared", "slave", "size=5", "noswap", "",
                "defaults", "ridmap", "tmpcopyup"}));
  EXPECT_TRUE(options.bind && options.recursive);
  EXPECT_TRUE(options.read_only && options.read_only_below);
  EXPECT_FALSE(options.nosuid);
  EXPECT_TRUE(options.noexec && options.nodev);
  EXPECT_EQ(options.access_times, AccessTimes::kRelative);
  EXPECT_EQ(options.propagation, MountPropagation::kUnsafeSlave);
  EXPECT_TRUE(options.idmap && options.idmap_below && options.copy_up);
  EXPECT_THAT(options.data, ElementsAre("size=5", "noswap"));
  ASSERT_OK_AND_ASSIGN(const MountOptions writable,
                       ParseMountOptions("o", {"rro", "rw"}));
  EXPECT_FALSE(writable.read_only || writable.read_only_below);
  EXPECT_THAT(
      ParseMountOptions("mounts[3].options", {"ro", "remount"}),
      StatusIs(kUnimplemented, HasSubstr("config.json: mounts[3].options[1]")));
}

TEST(MountOptionsTest, KnownOnesAreSortedAndRead) {
  const std::vector<std::string> known = KnownMountOptions();
  EXPECT_TRUE(std::is_sorted(known.begin(), known.end()));
  for (const std::string& name : known) {
    ASSERT_OK_AND_ASSIGN(const MountOptions options,
                         ParseMountOptions("o", {name}));
    const bool data = name == "dirsync" || name == "lazytime" ||
                      name == "mand" || name == "sync";
    EXPECT_EQ(options.data.size(), data ? 1u : 0u) << name;
  }
}

TEST(IdsTest, OutsideOfRanges) {
  const std::vector<IdRange> ranges = {{0, 1000, 1}, {1, 100000, 10}};
  EXPECT_EQ(*OutsideOf("f", 0, ranges), 1000u);
  EXPECT_EQ(*OutsideOf("f", 10, ranges), 100009u);
  EXPECT_EQ(*OutsideOf("f", 5, {}), 5u);
  EXPECT_THAT(OutsideOf("linux.x", 11, ranges),
              StatusIs(kInvalid,
                       "config.json: linux.x: 11 is not mapped in "
                       "the user namespace"));
}

// ---- process ---------------------------------------------------------------

TEST(ProcessTest, SchedulingAndLists) {
  ASSERT_OK_AND_ASSIGN(const spec::Process process, spec::ParseProcess(R"({
      "args": ["a"], "cwd": "/",
      "scheduler": {"policy": "SCHED_DEADLINE", "runtime": 5, "deadline": 6,
                    "period": 7, "flags": ["SCHED_FLAG_RECLAIM"]},
      "ioPriority": {"class": "IOPRIO_CLASS_IDLE"},
      "execCPUAffinity": {"initial": "0", "final": "1-3,2,7"}})"));
  ProcessSpec exec;
  ASSERT_OK(TranslateProcess(process, ProcessKind::kExec, exec));
  EXPECT_EQ(exec.scheduling.scheduler->policy, SchedulerPolicy::kDeadline);
  EXPECT_EQ(exec.scheduling.scheduler->period, absl::Nanoseconds(7));
  EXPECT_TRUE(exec.scheduling.scheduler->reclaim);
  EXPECT_EQ(exec.scheduling.io->io_class, IoClass::kIdle);
  EXPECT_THAT(exec.scheduling.cpus, ElementsAre(1, 2, 3, 7));
  ProcessSpec container;
  ASSERT_OK(TranslateProcess(process, ProcessKind::kContainer, container));
  EXPECT_THAT(container.scheduling.cpus, IsEmpty());
  for (const char* text :
       {"a", "1-", "-1", "3-1", "1--2", "99999999", "1-2-3"}) {
    EXPECT_THAT(ParseNumberList("f", text), StatusIs(kInvalid, HasSubstr("f:")))
        << text;
  }
}

TEST(ProcessTest, MemoryPolicyHasAllFlags) {
  spec::MemoryPolicy policy = {.mode = "MPOL_BIND", .nodes = "0,2-3"};
  Scheduling scheduling;
  ASSERT_OK(TranslateMemoryPolicy(policy, scheduling));
  EXPECT_EQ(scheduling.memory->mode, MemoryPolicyMode::kBind);
  EXPECT_THAT(scheduling.memory->nodes, ElementsAre(0, 2, 3));
  EXPECT_FALSE(scheduling.memory->numa_balancing);
  EXPECT_FALSE(scheduling.memory->static_nodes);
  policy.flags = {"MPOL_F_NUMA_BALANCING", "MPOL_F_STATIC_NODES"};
  ASSERT_OK(TranslateMemoryPolicy(policy, scheduling));
  EXPECT_TRUE(scheduling.memory->numa_balancing);
  EXPECT_TRUE(scheduling.memory->static_nodes);
  EXPECT_FALSE(scheduling.memory->relative_nodes);
}

// The words that documents may have are those that are translated.
TEST(ProcessTest, EveryWordOfSeccompHasAMeaning) {
  spec::Seccomp seccomp;
  seccomp.listener_path = "/x";
  for (const absl::string_view action : spec::kSeccompActions) {
    seccomp.default_action = std::string(action);
    spec::SeccompSyscall rule;
    rule.names = {"read"};
    rule.action = std::string(action);
    for (const absl::string_view op : spec::kSeccompOperators) {
      rule.args.push_back({.index = 0, .value = 1, .op = std::string(op)});
    }
    seccomp.syscalls = {rule};
    ASSERT_OK_AND_ASSIGN(const SeccompProfile profile,
                         TranslateSeccomp(seccomp));
    EXPECT_EQ(profile.syscalls[0].action, profile.default_action);
    EXPECT_EQ(profile.syscalls[0].args.size(), rule.args.size());
  }
}

// ---- Bundle ----------------------------------------------------------------

TEST(BundleTest, CgroupsPaths) {
  const auto path = [](const std::string& text) {
    return Bundle::Parse("/b", absl::StrCat(R"({"ociVersion": "1.0.0",
        "root": {"path": "r"}, "linux": {"cgroupsPath": ")",
                                            text, R"("}})"))
        ->CgroupsPath();
  };
  EXPECT_EQ(*path(""), "");
  EXPECT_EQ(*path("/docker/abc"), "/docker/abc");
  EXPECT_EQ(*path("a//b/./c/"), "/a/b/c");
  EXPECT_EQ(*path("system.slice:docker:abc"), "/system.slice/docker-abc.scope");
  EXPECT_EQ(*path("kubepods-besteffort-pod1.slice:cri:x"),
            "/kubepods.slice/kubepods-besteffort.slice/"
            "kubepods-besteffort-pod1.slice/cri-x.scope");
  EXPECT_EQ(*path(":docker:abc"), "/docker-abc.scope");
  EXPECT_EQ(*path("/with:two:colons"), "/with:two:colons");
  for (const char* bad : {"/a/../b", "..", "/", "nonsense:a:b"}) {
    EXPECT_THAT(path(bad), StatusIs(kInvalid, HasSubstr("linux.cgroupsPath")))
        << bad;
  }
}

// "mount: answered EPERM", without the rule that says so.
std::string Verdict(const SecurityPolicy& policy, uint32_t number,
                    std::array<uint64_t, 6> args) {
  const std::string text = policy.ExplainViolation(
      {.audit_arch = NativeAuditArch(), .number = number, .args = args});
  return text.substr(0, text.find(" ("));
}

TEST(BundleTest, TheDefaultConfigHasTheDefaultSystemCalls) {
  ASSERT_OK_AND_ASSIGN(const Bundle bundle,
                       Bundle::Parse("/b", OciDefaultConfig(false)));
  SecurityOptions options;
  options.drop_capabilities = {"ALL"};
  options.unsafe_add_capabilities =
      bundle.config().process->capabilities->bounding;
  ASSERT_OK_AND_ASSIGN(const SecurityPolicy ours,
                       SecurityPolicy::Create(options));
  ASSERT_OK_AND_ASSIGN(options.unsafe_seccomp_profile,
                       TranslateSeccomp(*bundle.config().linux_config.seccomp));
  ASSERT_OK_AND_ASSIGN(const SecurityPolicy written,
                       SecurityPolicy::Create(options));
  constexpr uint32_t kLastCall = 470;
  for (uint32_t number = 0; number <= kLastCall; ++number) {
    // Rules name calls: an unassigned number has none.
    if (absl::StartsWith(SyscallName(NativeAuditArch(), number), "syscall ")) {
      continue;
    }
    EXPECT_EQ(Verdict(written, number, {}), Verdict(ours, number, {}));
  }
  const struct {
    long number;
    size_t argument;
    std::vector<uint64_t> values;
  } conditions[] = {
      {SYS_ioctl,
       1,
       {0x5401, 0x5411, 0x5412, 0x5413, 0x541b, 0x541c, 0x541d,
        uint64_t{1} << 32 | 0x5412}},
      {SYS_socket, 0, {0, 1, 2, 10, 11, 12, 13, 16, 17, 38, 40, 45, 46}},
      {SYS_personality, 0, {0, 1, 8, 0x20000, 0x20008, 0xffffffff}},
      {SYS_clone, 0, {0x11, 0x10000000, 0x20000}},
      {SYS_mknodat, 2, {0x1000, 0x2000, 0x6000, 0x8000}},
  };
  for (const auto& c : conditions) {
    for (const uint64_t value : c.values) {
      std::array<uint64_t, 6> args = {};
      args[c.argument] = value;
      const auto number = static_cast<uint32_t>(c.number);
      EXPECT_EQ(Verdict(written, number, args), Verdict(ours, number, args))
          << value;
    }
  }
}

TEST(BundleTest, DocumentsOfTheLibraryCanBeRead) {
  for (const bool rootless : {false, true}) {
    ASSERT_OK_AND_ASSIGN(const Bundle bundle,
                         Bundle::Parse("/b", OciDefaultConfig(rootless)));
    EXPECT_OK(CheckRoot(bundle.config()));
    EXPECT_OK(bundle.Limits());
  }
  EXPECT_THAT(
      OciFeatures({{"k", "v"}}),
      ::testing::AllOf(HasSubstr("\"CAP_CHECKPOINT_RESTORE\""),
                       HasSubstr("\"k\": \"v\""), HasSubstr("\"rro\"")));
  EXPECT_THAT(Bundle::Parse("relative", OciDefaultConfig(false)),
              StatusIs(kInvalid, HasSubstr("not an absolute path")));
  EXPECT_THAT(Bundle::Load("/no/such/bundle"),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("/no/such")));
}

}  // namespace
}  // namespace caisson::container
