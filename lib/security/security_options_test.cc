// What SecurityOptions become, and how a policy explains itself.
#include <errno.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "caisson/security.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/base/status_matchers.h"
#include "lib/security/bpf_machine.h"
#include "lib/security/capabilities.h"
#include "lib/security/default_profile.h"
#include "lib/security/default_table.h"
#include "lib/security/filter_compiler.h"
#include "lib/security/landlock.h"
#include "lib/security/lsm.h"

namespace caisson {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

constexpr uint32_t kAllow = SECCOMP_RET_ALLOW;
constexpr uint32_t kEperm = SECCOMP_RET_ERRNO | EPERM;
constexpr uint32_t kEnosys = SECCOMP_RET_ERRNO | ENOSYS;

auto Invalid(const std::string& text) {
  return StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr(text));
}

absl::Status ErrorOf(const SecurityOptions& options) {
  return SecurityPolicy::Create(options).status();
}

// ---- The default list and what changes it ----------------------------------

using security::Architecture;
using security::DefaultTableOptions;
using security::FilterTable;
using security::MakeDefaultTable;
using security::MakeLandlock;

DefaultTableOptions Default() {
  return {.capabilities = security::DefaultCapabilities(), .denied = kEperm};
}

// Calls with arguments on both sides of each rule.
std::vector<std::vector<uint64_t>> ArgumentsToTry() {
  std::vector<std::vector<uint64_t>> tries = {{0, 0, 0}};
  for (const uint64_t value :
       {uint64_t{AF_UNIX}, uint64_t{AF_INET}, uint64_t{AF_ALG},
        uint64_t{AF_VSOCK}, uint64_t{CLONE_THREAD}, uint64_t{CLONE_NEWUSER},
        uint64_t{CLONE_THREAD | CLONE_NEWNS}, uint64_t{TIOCSTI},
        uint64_t{TIOCLINUX}, uint64_t{0x400000}, uint64_t{0x20008},
        uint64_t{0xffffffff}, uint64_t{0x2000}, uint64_t{1} << 32 | TIOCSTI}) {
    tries.push_back({value, 0, 0});
    tries.push_back({0, value, 0});
    tries.push_back({0, 0, value});
  }
  return tries;
}

// For every way into the kernel and every number up to far beyond the last:
// `stricter` carries out nothing that `table` does not.
void ExpectStricter(const FilterTable& stricter, const FilterTable& table) {
  const auto tries = ArgumentsToTry();
  for (const auto& entry : table.entries) {
    for (const uint32_t base : {0u, 0xf0000u, security::kX32Bit}) {
      for (uint32_t number = base; number < base + 700; ++number) {
        for (const auto& tried : tries) {
          const uint64_t args[6] = {tried[0], tried[1], tried[2]};
          const auto strict =
              Decide(stricter, entry.audit_arch, number, args).answer;
          const auto lax = Decide(table, entry.audit_arch, number, args).answer;
          if (!security::IsCarriedOut(strict)) continue;
          ASSERT_EQ(lax, strict) << SyscallName(entry.audit_arch, number);
        }
      }
    }
  }
}

// Docker's profile is a list of groups: allowed, if a capability is there.
TEST(DefaultTableTest, IsDockersListOrStricter) {
  for (const Architecture architecture :
       {Architecture::kX86_64, Architecture::kAarch64}) {
    const FilterTable table = MakeDefaultTable(architecture, Default());
    std::set<std::string> docker;
    for (const security::SyscallGroup& group : security::AllowedGroups()) {
      if (group.capabilities == 0 ||
          (group.capabilities & security::DefaultCapabilities()) != 0) {
        docker.insert(group.names.begin(), group.names.end());
      }
    }
    int allowed = 0;
    for (const auto& entry : security::EntriesOf(architecture)) {
      for (uint32_t number = 0; number < 2048; ++number) {
        const auto name = entry.names.find(number);
        const bool listed =
            name != entry.names.end() && docker.count(name->second) != 0;
        for (const auto& tried : ArgumentsToTry()) {
          const uint64_t args[6] = {tried[0], tried[1], tried[2]};
          const bool carried_out = security::IsCarriedOut(
              Decide(table, entry.audit_arch, number, args).answer);
          ASSERT_TRUE(!carried_out || listed) << number;
          allowed += carried_out;
        }
      }
    }
    EXPECT_GT(allowed, 10000);
  }
}

TEST(DefaultTableTest, IntentsOnlyTakeAway) {
  for (const Architecture architecture :
       {Architecture::kX86_64, Architecture::kAarch64}) {
    for (const uint64_t capabilities :
         {security::DefaultCapabilities(), ~uint64_t{0}}) {
      DefaultTableOptions options = Default();
      options.capabilities = capabilities;
      const FilterTable table = MakeDefaultTable(architecture, options);
      std::vector<DefaultTableOptions> stricter(6, options);
      stricter[0].no_network = true;
      stricter[1].no_new_processes = true;
      stricter[2].no_debugging = true;
      stricter[3].deny = {"socket", "clone", "personality", "read"};
      stricter[4].notify = {"socket", "clone", "mount"};
      stricter[5].denied = SECCOMP_RET_KILL_PROCESS;
      for (const DefaultTableOptions& each : stricter) {
        ExpectStricter(MakeDefaultTable(architecture, each), table);
      }
    }
  }
}

class DefaultOptionsTest : public ::testing::Test {
 protected:
  // By the compiled program; the table must agree.
  uint32_t Answer(uint32_t arch, uint32_t number,
                  std::vector<uint64_t> args = {}) const {
    const FilterTable table = MakeDefaultTable(Architecture::kX86_64, options_);
    seccomp_data data = {};
    data.arch = arch;
    data.nr = static_cast<int>(number);
    std::copy(args.begin(), args.end(), data.args);
    uint64_t all[6] = {};
    std::copy(args.begin(), args.end(), all);
    const auto result =
        security::RunFilter(security::CompileTable(table), data);
    EXPECT_FALSE(result.broken);
    EXPECT_EQ(result.value, Decide(table, arch, number, all).answer);
    return result.value;
  }
  uint32_t Answer(const std::string& name, std::vector<uint64_t> args = {}) {
    const auto& table =
        security::NumbersOf(SeccompArchitecture::kX86_64).numbers;
    return Answer(AUDIT_ARCH_X86_64, table.find(name)->second, args);
  }
  uint32_t I386(const std::string& name, std::vector<uint64_t> args = {}) {
    const auto& table = security::NumbersOf(SeccompArchitecture::kX86).numbers;
    return Answer(AUDIT_ARCH_I386, table.find(name)->second, args);
  }

  DefaultTableOptions options_ = Default();
};

TEST_F(DefaultOptionsTest, NoNetwork) {
  options_.no_network = true;
  EXPECT_EQ(Answer("socket", {AF_UNIX}), kAllow);
  for (const uint64_t family : {AF_INET, AF_INET6, AF_NETLINK, AF_PACKET}) {
    EXPECT_EQ(Answer("socket", {family}), kEperm);
    EXPECT_EQ(Answer("socket", {uint64_t{1} << 32 | family}), kEperm);
    EXPECT_EQ(I386("socket", {family}), kEperm);
  }
  EXPECT_EQ(Answer("socketpair", {AF_UNIX}), kAllow);
  EXPECT_EQ(I386("socketcall", {1}), kEperm);
  EXPECT_EQ(Answer("sendmsg"), kAllow);
}

TEST_F(DefaultOptionsTest, NoNewProcesses) {
  options_.no_new_processes = true;
  options_.capabilities = ~uint64_t{0};
  EXPECT_EQ(Answer("fork"), kEperm);
  EXPECT_EQ(Answer("vfork"), kEperm);
  EXPECT_EQ(I386("fork"), kEperm);
  EXPECT_EQ(Answer("clone3"), kEnosys);
  EXPECT_EQ(Answer("clone", {17}), kEperm);
  EXPECT_EQ(Answer("clone", {CLONE_VM | CLONE_VFORK | 17}), kEperm);
  EXPECT_EQ(Answer("clone", {CLONE_VM | CLONE_SIGHAND | CLONE_THREAD}), kAllow);
  options_.capabilities = security::DefaultCapabilities();
  EXPECT_EQ(Answer("clone", {CLONE_THREAD}), kAllow);
  EXPECT_EQ(Answer("clone", {CLONE_THREAD | CLONE_NEWUSER}), kEperm);
}

TEST_F(DefaultOptionsTest, DenyOutweighsNotifyAndAllow) {
  options_.allow = {"keyctl", "personality", "ptrace", "connect"};
  options_.notify = {"keyctl", "mount", "shmget"};
  options_.deny = {"keyctl", "connect"};
  options_.no_debugging = true;
  EXPECT_EQ(Answer("keyctl"), kEperm);
  EXPECT_EQ(Answer("mount"), uint32_t{SECCOMP_RET_USER_NOTIF});
  EXPECT_EQ(Answer("personality", {0x400000}), kAllow);
  EXPECT_EQ(Answer("ptrace"), kEperm);
  EXPECT_EQ(Answer("connect"), kEperm);
  // By the older ways, too.
  EXPECT_EQ(I386("socketcall", {3}), kEperm);
  EXPECT_EQ(I386("socketcall", {2}), kAllow);
  EXPECT_EQ(I386("ipc", {23}), uint32_t{SECCOMP_RET_USER_NOTIF});
}

TEST_F(DefaultOptionsTest, ViolationsAndLogging) {
  options_.denied = SECCOMP_RET_KILL_PROCESS;
  EXPECT_EQ(Answer("mount"), uint32_t{SECCOMP_RET_KILL_PROCESS});
  EXPECT_EQ(Answer("ioctl", {0, TIOCSTI}), uint32_t{SECCOMP_RET_KILL_PROCESS});
  EXPECT_EQ(Answer("clone3"), kEnosys);
  EXPECT_EQ(Answer("read"), kAllow);
  FilterTable table = MakeDefaultTable(Architecture::kX86_64, options_);
  security::MakeLogOnly(table);
  for (uint32_t number = 0; number < 600; ++number) {
    const uint64_t args[6] = {0, TIOCSTI};
    EXPECT_TRUE(security::IsCarriedOut(
        Decide(table, AUDIT_ARCH_X86_64, number, args).answer));
  }
  EXPECT_TRUE(security::IsCarriedOut(Decide(table, 0, 0, {}).answer));
}

// ---- Mistakes ---------------------------------------------------------------

TEST(SecurityOptionsTest, FieldsThatExcludeEachOther) {
  SecurityOptions both;
  both.unsafe_seccomp = SeccompUnconfined{};
  both.unsafe_seccomp_profile.emplace();
  EXPECT_THAT(ErrorOf(both), Invalid("exclude each other"));
  SecurityOptions intent;
  intent.unsafe_seccomp = SeccompUnconfined{};
  intent.no_network = true;
  EXPECT_THAT(ErrorOf(intent), Invalid("unsafe_seccomp takes the place"));
  SecurityOptions log;
  log.unsafe_seccomp = SeccompUnconfined{};
  log.unsafe_seccomp_log_only = SeccompLogOnly{};
  EXPECT_THAT(ErrorOf(log), Invalid("no filter that could log"));
  SecurityOptions sets;
  sets.unsafe_capability_sets = CapabilitySets{};
  sets.drop_capabilities = {"ALL"};
  EXPECT_THAT(ErrorOf(sets), Invalid("unsafe_capability_sets takes the place"));
}

TEST(SecurityOptionsTest, NamesThatDoNotExist) {
  EXPECT_THAT(ErrorOf({.deny_syscalls = {"mkdri"}}),
              Invalid("SecurityOptions.deny_syscalls: \"mkdri\" is no system "
                      "call"));
  EXPECT_THAT(ErrorOf({.notify_syscalls = {""}}), Invalid("notify_syscalls"));
  EXPECT_THAT(ErrorOf({.unsafe_allow_syscalls = {"READ"}}),
              Invalid("unsafe_allow_syscalls"));
  // Of another architecture.
  EXPECT_OK(ErrorOf({.deny_syscalls = {"set_tls", "_newselect", "mseal"}}));
}

TEST(SecurityOptionsTest, SecurebitsThatWeakenHaveTheirOwnField) {
  EXPECT_THAT(ErrorOf({.securebits = kSecbitNoSetuidFixup}),
              Invalid("unsafe_securebits"));
  EXPECT_THAT(ErrorOf({.securebits = kSecbitKeepCaps}),
              Invalid("unsafe_securebits"));
  EXPECT_THAT(ErrorOf({.securebits = 0x100}), Invalid("unknown"));
  EXPECT_OK(ErrorOf({.securebits = kSecbitNoRoot | kSecbitNoRootLocked,
                     .unsafe_securebits = kSecbitNoSetuidFixup}));
}

TEST(SecurityOptionsTest, SetsMustBePossible) {
  const auto error = [](CapabilitySets sets) {
    SecurityOptions options;
    options.unsafe_capability_sets = std::move(sets);
    return ErrorOf(options);
  };
  EXPECT_THAT(error({.permitted = {"KILL"}}),
              Invalid("unsafe_capability_sets.permitted has CAP_KILL, which "
                      "bounding lacks"));
  EXPECT_THAT(error({.inheritable = {"KILL"}}),
              Invalid("inheritable has CAP_KILL, which bounding lacks"));
  EXPECT_THAT(error({.bounding = {"KILL"}, .effective = {"KILL"}}),
              Invalid("effective has CAP_KILL, which permitted lacks"));
  EXPECT_THAT(
      error({.bounding = {"KILL"}, .permitted = {"KILL"}, .ambient = {"KILL"}}),
      Invalid("ambient has CAP_KILL, which inheritable lacks"));
  EXPECT_THAT(
      error(
          {.bounding = {"KILL"}, .inheritable = {"KILL"}, .ambient = {"KILL"}}),
      Invalid("ambient has CAP_KILL, which permitted lacks"));
  // As the OCI specification asks, a name that means nothing is no error.
  SecurityOptions unknown;
  unknown.unsafe_capability_sets = CapabilitySets{
      .bounding = {"CAP_KLIL", "ALL"}, .permitted = {"CAP_KLIL"}};
  ASSERT_OK_AND_ASSIGN(const auto policy, SecurityPolicy::Create(unknown));
  EXPECT_EQ(policy.capabilities(), 0u);
  EXPECT_THAT(policy.missing_capabilities(), ElementsAre("ALL", "CAP_KLIL"));
}

TEST(SecurityOptionsTest, WhatTheHostLacksIsLeftOutOfEverySet) {
  const security::KernelCapabilities kernel = {
      .last = CAP_CHECKPOINT_RESTORE,
      .bounding = uint64_t{1} << CAP_KILL | uint64_t{1} << CAP_CHOWN};
  SecurityOptions options;
  const std::vector<std::string> wanted = {"KILL", "SYS_TIME"};
  options.unsafe_capability_sets =
      CapabilitySets{wanted, wanted, wanted, wanted, wanted};
  ASSERT_OK_AND_ASSIGN(const auto exact, ChooseSets(options, kernel));
  const uint64_t kill = uint64_t{1} << CAP_KILL;
  EXPECT_EQ(exact.root, (CapabilityMasks{kill, kill, kill, kill, kill}));
  EXPECT_EQ(exact.user, exact.root);
  EXPECT_THAT(exact.missing, ElementsAre("CAP_SYS_TIME"));

  SecurityOptions ambient;
  ambient.drop_capabilities = {"ALL"};
  ambient.unsafe_add_capabilities = {"CHOWN"};
  ambient.unsafe_ambient_capabilities = {"KILL", "SYS_TIME"};
  ASSERT_OK_AND_ASSIGN(const auto added, ChooseSets(ambient, kernel));
  const uint64_t both = kernel.bounding;
  EXPECT_EQ(added.root, (CapabilityMasks{both, both, both, kill, kill}));
  EXPECT_EQ(added.user, (CapabilityMasks{both, kill, kill, kill, kill}));
  EXPECT_THAT(added.missing, ElementsAre("CAP_SYS_TIME"));
  ASSERT_OK_AND_ASSIGN(const auto plain, ChooseSets({}, kernel));
  EXPECT_EQ(plain.user, (CapabilityMasks{both, 0, 0, 0, 0}));
}

// The default list refuses device nodes; what replaces it may not.
TEST(SecurityOptionsTest, MknodGoesWithTheRuleAboutIt) {
  const security::KernelCapabilities kernel = {.last = 40,
                                               .bounding = ~uint64_t{0} >> 23};
  const auto has_mknod = [&kernel](const SecurityOptions& options) {
    const auto choice = ChooseSets(options, kernel);
    EXPECT_OK(choice);
    return choice.ok() && (choice->root.bounding >> CAP_MKNOD & 1) != 0;
  };
  EXPECT_TRUE(has_mknod({}));
  EXPECT_TRUE(has_mknod({.unsafe_allow_syscalls = {"keyctl"}}));
  EXPECT_FALSE(has_mknod({.unsafe_allow_syscalls = {"mknodat"}}));
  EXPECT_FALSE(has_mknod({.unsafe_seccomp_log_only = SeccompLogOnly{}}));
  EXPECT_FALSE(has_mknod({.unsafe_seccomp = SeccompUnconfined{}}));
  SecurityOptions profile;
  profile.unsafe_seccomp_profile.emplace();
  EXPECT_FALSE(has_mknod(profile));
  profile.unsafe_add_capabilities = {"MKNOD"};
  EXPECT_TRUE(has_mknod(profile));
}

TEST(SecurityOptionsTest, ProfilesMustLetAProgramStart) {
  const auto error = [](SeccompProfile profile) {
    SecurityOptions options;
    options.unsafe_seccomp_profile = std::move(profile);
    return ErrorOf(options);
  };
  EXPECT_THAT(error({}), Invalid("no program could be started: execve(2), "
                                 "which starts the program, is answered EPERM "
                                 "(default_action)"));
  SeccompProfile profile;
  profile.syscalls = {{.names = {"execve"}}};
  EXPECT_THAT(error(profile), Invalid("exit_group(2)"));
  profile.syscalls[0].names.push_back("exit_group");
  EXPECT_OK(error(profile));
  profile.syscalls.push_back(
      {.names = {"mkdir"}, .action = SeccompAction::kNotify});
  EXPECT_THAT(error(profile), Invalid("sendmsg(2), which hands the listener"));
  profile.syscalls[0].names.insert(profile.syscalls[0].names.end(),
                                   {"sendmsg", "dup3", "close_range"});
  EXPECT_OK(error(profile));
  // Also where only some arguments would ask.
  profile.syscalls.push_back({.names = {"execveat"}});
  profile.syscalls[0].names[0] = "execveat";
  profile.default_action = SeccompAction::kAllow;
  profile.syscalls.push_back({.names = {"execve"},
                              .action = SeccompAction::kNotify,
                              .args = {{.index = 4, .value = 9}}});
  EXPECT_THAT(error(profile), Invalid("execve(2), which starts the program, is "
                                      "handed to the host (syscalls[3])"));
  EXPECT_THAT(error({.default_action = SeccompAction::kNotify}),
              Invalid("execve(2)"));
  for (const char* name :
       {"execve", "sendmsg", "dup3", "close_range", "exit_group"}) {
    EXPECT_THAT(ErrorOf({.notify_syscalls = {name}}), Invalid(name));
  }
  SecurityOptions privileged;
  privileged.unsafe_new_privileges = NewPrivilegesAllowed{};
  privileged.deny_syscalls = {"capset"};
  EXPECT_THAT(ErrorOf(privileged), Invalid("capset(2)"));
  privileged.unsafe_new_privileges.reset();
  EXPECT_OK(ErrorOf(privileged));
}

TEST(SecurityOptionsTest, ProfilesHaveALimit) {
  SeccompProfile profile;
  profile.default_action = SeccompAction::kAllow;
  for (uint64_t i = 0; i < 3000; ++i) {
    profile.syscalls.push_back(
        {.names = {"read"},
         .action = SeccompAction::kErrno,
         .args = {{.index = 0, .value = i << 33}, {.index = 1, .value = i}}});
  }
  SecurityOptions options;
  options.unsafe_seccomp_profile = profile;
  EXPECT_THAT(ErrorOf(options),
              StatusIs(absl::StatusCode::kResourceExhausted,
                       HasSubstr("instructions, the kernel takes 4096")));
}

// ---- Landlock ---------------------------------------------------------------

TEST(LandlockOptionsTest, EveryVersionSaysWhatItLacks) {
  SecurityOptions options;
  options.read_only_paths = {"/usr"};
  options.writable_paths = {"/tmp"};
  options.tcp_bind_ports = {80, 443};
  options.scope_signals = true;
  options.scope_abstract_sockets = true;
  const size_t lacking[] = {4, 4, 4, 3, 2, 2, 0, 0};
  for (int abi = 0; abi < 8; ++abi) {
    const auto strict = MakeLandlock(options, abi);
    SecurityOptions lenient = options;
    lenient.unsafe_landlock_best_effort = LandlockBestEffort{};
    ASSERT_OK_AND_ASSIGN(const auto landlock, MakeLandlock(lenient, abi));
    EXPECT_EQ(landlock.missing.size(), lacking[abi]) << abi;
    if (lacking[abi] == 0) {
      EXPECT_OK(strict);
    } else {
      EXPECT_THAT(strict,
                  StatusIs(absl::StatusCode::kFailedPrecondition,
                           AllOf(HasSubstr(absl::StrCat("version ", abi)),
                                 HasSubstr(landlock.missing.back()),
                                 HasSubstr("unsafe_landlock_best_effort"))));
    }
  }
}

// A right that the kernel does not know would be EINVAL.
TEST(LandlockOptionsTest, RightsAreThoseOfTheVersion) {
  SecurityOptions options;
  options.path_rules = {{.path = "/a", .access = PathAccess::kWriteExecute},
                        {.path = "/b", .access = PathAccess::kRead}};
  options.unsafe_landlock_best_effort = LandlockBestEffort{};
  const uint64_t known[] = {0,      0x1fff, 0x3fff, 0x7fff,
                            0x7fff, 0xffff, 0xffff, 0xffff};
  for (int abi = 0; abi < 8; ++abi) {
    ASSERT_OK_AND_ASSIGN(const auto landlock, MakeLandlock(options, abi));
    EXPECT_EQ(landlock.attr.handled_access_fs, known[abi]) << abi;
    EXPECT_EQ(landlock.attr.handled_access_net, 0u);
    EXPECT_EQ(landlock.attr.scoped, 0u);
    EXPECT_EQ(landlock.empty(), abi == 0);
    for (const auto& path : landlock.paths) {
      EXPECT_EQ(path.directory_access & ~known[abi], 0u);
      EXPECT_EQ(path.file_access & ~path.directory_access, 0u);
    }
    if (abi == 0) continue;
    EXPECT_EQ(landlock.paths[1].directory_access, 0xcu);
    EXPECT_EQ(landlock.paths[1].file_access, 0x4u);
    // No device nodes.
    EXPECT_EQ(landlock.paths[0].directory_access, known[abi] & ~0x840u);
  }
}

TEST(LandlockOptionsTest, NothingAskedForIsNothing) {
  ASSERT_OK_AND_ASSIGN(const auto none, security::MakeLandlock({}, 0));
  EXPECT_TRUE(none.empty());
  SecurityOptions ports;
  ports.tcp_connect_ports = std::vector<uint16_t>{};
  ASSERT_OK_AND_ASSIGN(const auto closed, security::MakeLandlock(ports, 4));
  EXPECT_FALSE(closed.empty());
  EXPECT_THAT(closed.ports, IsEmpty());
  for (const std::string& path :
       std::vector<std::string>{"", "usr", std::string("/a\0b", 4)}) {
    EXPECT_THAT(security::MakeLandlock({.read_only_paths = {path}}, 7),
                Invalid("is not absolute"));
  }
}

// ---- Labels -----------------------------------------------------------------

TEST(LabelTest, WhatCannotBeALabel) {
  EXPECT_OK(security::CheckLabel("f", "docker-default"));
  EXPECT_OK(security::CheckLabel("f", "system_u:system_r:t:s0:c1,c2"));
  for (const std::string& label :
       {std::string("a\nexec unconfined"), std::string("a\0b", 3),
        std::string(5000, 'a')}) {
    EXPECT_THAT(security::CheckLabel("f", label), Invalid("f: "));
  }
  EXPECT_THAT(security::RequireLsm("Field", "no_such_module"),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       AllOf(HasSubstr("Field: the security module "
                                       "no_such_module is not active"),
                             HasSubstr("/sys/kernel/security/lsm"))));
}

// ---- Explanations -----------------------------------------------------------

TEST(ExplainTest, SaysWhatAPolicyAllows) {
  SecurityOptions options;
  options.drop_capabilities = {"ALL"};
  options.unsafe_ambient_capabilities = {"NET_BIND_SERVICE"};
  options.no_network = true;
  options.notify_syscalls = {"mount"};
  options.read_only_paths = {"/usr"};
  options.path_rules = {
      {.path = "/x", .access = PathAccess::kWrite, .if_exists = true}};
  options.tcp_bind_ports = {8080};
  options.unsafe_landlock_best_effort = LandlockBestEffort{};
  ASSERT_OK_AND_ASSIGN(const auto policy, SecurityPolicy::Create(options));
  const std::string text = policy.Explain();
  for (const char* part :
       {"  bounding        CAP_NET_BIND_SERVICE\n",
        "capabilities of other users\n  effective       the bounding set\n",
        "  no_new_privs    yes\n", "  session keyring empty, its own\n",
        "  asks the host   yes\n", "  handed to the host: notify_syscalls\n",
        "  allowed: allow-list, time\n",
        "socket          allowed if arg0 == 1 (no_network); otherwise answered "
        "EPERM (no_network)\n",
        "arg1 == 0x5412 (arguments of ioctl)",
        "allow-list, mounting: needs CAP_SYS_ADMIN\n"}) {
    EXPECT_THAT(text, HasSubstr(part));
  }
  if (security::LandlockAbi() >= 4) {
    EXPECT_THAT(text, HasSubstr("  read exec       \"/usr\"\n"));
    EXPECT_THAT(text, HasSubstr("  read write      \"/x\" (if it exists)\n"));
    EXPECT_THAT(text, HasSubstr("  TCP bind        8080\n"));
  }
  EXPECT_THAT(text, Not(HasSubstr("without effect")));
#if defined(__x86_64__)
  EXPECT_THAT(text, HasSubstr("  architectures   x86_64 i386 x32\n"));
#endif
}

TEST(ExplainTest, SaysWhatHasNoEffect) {
  SecurityOptions options;
  options.unsafe_seccomp_profile = SeccompProfile{
      .default_action = SeccompAction::kAllow,
      .syscalls = {{.names = {"frobnicate"}, .action = SeccompAction::kTrap}}};
  ASSERT_OK_AND_ASSIGN(const auto policy, SecurityPolicy::Create(options));
  EXPECT_THAT(policy.Explain(),
              AllOf(HasSubstr("without effect\n"), HasSubstr("frobnicate")));
  SecurityOptions none;
  none.unsafe_seccomp = SeccompUnconfined{};
  ASSERT_OK_AND_ASSIGN(const auto unconfined, SecurityPolicy::Create(none));
  EXPECT_THAT(unconfined.Explain(), HasSubstr("none: every call reaches"));
}

TEST(ExplainTest, SaysWhichRuleDecided) {
  ASSERT_OK_AND_ASSIGN(const auto policy,
                       SecurityPolicy::Create({.deny_syscalls = {"getcwd"}}));
  const uint32_t arch = NativeAuditArch();
  const auto explain = [&](uint32_t number, std::vector<uint64_t> args = {}) {
    SyscallEvent event = {.audit_arch = arch, .number = number};
    event.args.emplace();
    std::copy(args.begin(), args.end(), event.args->begin());
    return policy.ExplainViolation(event);
  };
  EXPECT_EQ(explain(SYS_mount),
            "mount: answered EPERM (allow-list, mounting: needs "
            "CAP_SYS_ADMIN)");
  EXPECT_EQ(explain(SYS_getcwd), "getcwd: answered EPERM (deny_syscalls)");
  EXPECT_EQ(explain(SYS_keyctl),
            "keyctl: answered EPERM (not in the allow-list)");
  EXPECT_EQ(explain(SYS_ioctl, {0, TIOCSTI}),
            "ioctl: answered EPERM (arguments of ioctl)");
  EXPECT_EQ(explain(SYS_socket, {AF_VSOCK}),
            "socket: answered EPERM (arguments of socket)");
  EXPECT_THAT(explain(SYS_socket, {AF_INET}),
              AllOf(HasSubstr("socket: allowed (allow-list, sockets)"),
                    HasSubstr("an error comes from elsewhere")));
  EXPECT_THAT(explain(999), AllOf(HasSubstr("syscall 999 of "),
                                  HasSubstr("answered ENOSYS (no such call")));
  EXPECT_THAT(policy.ExplainViolation({.audit_arch = 1, .number = 0}),
              HasSubstr("syscall 0 of an unknown architecture: the end of the "
                        "process (an architecture that is not allowed)"));
  // From a SIGSYS: without arguments.
  EXPECT_THAT(
      policy.ExplainViolation({.audit_arch = arch, .number = SYS_ioctl}),
      AllOf(HasSubstr("ioctl: answered EPERM if arg1 == 0x5412"),
            HasSubstr("otherwise allowed (allow-list, file descriptors)")));
  ASSERT_OK_AND_ASSIGN(
      const auto none,
      SecurityPolicy::Create({.unsafe_seccomp = SeccompUnconfined{}}));
  EXPECT_EQ(none.ExplainViolation({.audit_arch = arch, .number = SYS_mount}),
            "mount: allowed (the policy has no filter)");
}

TEST(ExplainTest, SaysWhichRuleReachesAPath) {
  SecurityOptions options;
  options.read_only_paths = {"/usr/"};
  options.path_rules = {{.path = "/usr/lib", .access = PathAccess::kWrite},
                        {.path = "/data", .access = PathAccess::kRead}};
  options.unsafe_landlock_best_effort = LandlockBestEffort{};
  ASSERT_OK_AND_ASSIGN(const auto policy, SecurityPolicy::Create(options));
  if (security::LandlockAbi() >= 1) {
    EXPECT_EQ(policy.ExplainPath("/etc/passwd"),
              "\"/etc/passwd\": refused with EACCES (no rule reaches it)");
    EXPECT_EQ(policy.ExplainPath("/usr/bin/true"),
              "\"/usr/bin/true\": read exec (\"/usr/\"); anything else is "
              "refused with EACCES");
    EXPECT_THAT(policy.ExplainPath("/usr/lib/x"),
                HasSubstr("read write exec (\"/usr/lib\", \"/usr/\")"));
    EXPECT_THAT(policy.ExplainPath("/data"), HasSubstr(": read (\"/data\")"));
    EXPECT_THAT(policy.ExplainPath("/database"), HasSubstr("no rule"));
  }
  ASSERT_OK_AND_ASSIGN(const auto none, SecurityPolicy::Create({}));
  EXPECT_THAT(none.ExplainPath("/etc"), HasSubstr("no rules for paths"));
}

TEST(AuditRecordTest, BecomesAnEvent) {
  ASSERT_OK_AND_ASSIGN(
      const SyscallEvent logged,
      ParseAuditRecord(
          "audit: type=1326 audit(1700000000.123:4): auid=4294967295 uid=0 "
          "gid=0 ses=4294967295 pid=77 comm=\"sh\" exe=\"/bin/busybox\" sig=0 "
          "arch=c000003e syscall=165 compat=0 ip=0x4e5f code=0x7ffc0000"));
  EXPECT_EQ(logged.audit_arch, uint32_t{AUDIT_ARCH_X86_64});
  EXPECT_EQ(logged.number, 165u);
  EXPECT_FALSE(logged.args.has_value());
  ASSERT_OK_AND_ASSIGN(
      const SyscallEvent full,
      ParseAuditRecord("type=SYSCALL arch=40000003 syscall=21 success=no "
                       "exit=-1 a0=ffffffffffffff9c a1=7f a2=0 a3=1b6\n"));
  EXPECT_EQ(full.audit_arch, uint32_t{AUDIT_ARCH_I386});
  ASSERT_TRUE(full.args.has_value());
  EXPECT_THAT(*full.args,
              ElementsAre(0xffffffffffffff9c, 0x7f, 0, 0x1b6, 0, 0));
}

TEST(AuditRecordTest, WhatIsNone) {
  for (const char* line :
       {"", "arch=c000003e", "syscall=1", "arch=x syscall=1",
        "arch=c000003e syscall=-1", "arch=1c000003e syscall=1",
        "arch=c000003e syscall=99999999999", "march=c000003e syscall=1"}) {
    EXPECT_THAT(ParseAuditRecord(line), Invalid("ParseAuditRecord: no"))
        << line;
  }
}

TEST(ExplainTest, CopiesAreTheSamePolicy) {
  ASSERT_OK_AND_ASSIGN(SecurityPolicy policy, SecurityPolicy::Create({}));
  const SecurityPolicy copy = policy;
  EXPECT_EQ(&copy.state(), &policy.state());
  policy = SecurityPolicy::Create({.no_network = true}).value();
  EXPECT_NE(&copy.state(), &policy.state());
  EXPECT_FALSE(copy.seccomp_program().empty());
}

TEST(SyscallNameTest, NamesTheWayIntoTheKernel) {
  EXPECT_EQ(SyscallName(AUDIT_ARCH_I386, 21), "i386 mount");
  EXPECT_EQ(SyscallName(AUDIT_ARCH_ARM, 0xf0002), "arm cacheflush");
  EXPECT_EQ(SyscallName(AUDIT_ARCH_X86_64, 0x40000208), "x32 execve");
  EXPECT_EQ(SyscallName(AUDIT_ARCH_X86_64, 0x4fffffff),
            "syscall 1342177279 of x32");
  EXPECT_EQ(SyscallName(0, 3), "syscall 3 of an unknown architecture");
  EXPECT_EQ(SyscallName(NativeAuditArch(), SYS_read), "read");
}

}  // namespace
}  // namespace caisson
