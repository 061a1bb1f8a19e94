// OCI profiles: tables against libseccomp and against a second reading of what
// a profile means, programs against both.
#include "lib/security/profile_table.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/base/status_matchers.h"
#include "lib/security/bpf_machine.h"
#include "lib/security/filter_compiler.h"
#include "lib/security/random_profile.h"

namespace caisson::security {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr uint32_t kAllow = SECCOMP_RET_ALLOW;
constexpr uint32_t kEperm = SECCOMP_RET_ERRNO | EPERM;
constexpr uint32_t kEnosys = SECCOMP_RET_ERRNO | ENOSYS;
constexpr uint32_t kKill = SECCOMP_RET_KILL_PROCESS;

class Compiled {
 public:
  explicit Compiled(const SeccompProfile& profile,
                    Architecture architecture = Architecture::kX86_64) {
    auto made = MakeProfileTable(architecture, profile);
    EXPECT_OK(made);
    if (!made.ok()) return;
    made_ = *std::move(made);
    program_ = CompileTable(made_.table);
  }

  // The program's answer; the table must agree.
  uint32_t Run(const seccomp_data& data) const {
    const BpfResult result = RunFilter(program_, data);
    EXPECT_FALSE(result.broken);
    uint64_t args[6];
    std::copy(std::begin(data.args), std::end(data.args), args);
    EXPECT_EQ(result.value, Decide(made_.table, data.arch,
                                   static_cast<uint32_t>(data.nr), args)
                                .answer);
    return result.value;
  }

  uint32_t Run(SeccompArchitecture way, const std::string& name,
               std::vector<uint64_t> args = {}) const {
    const auto found = NumbersOf(way).numbers.find(name);
    if (found == NumbersOf(way).numbers.end()) {
      ADD_FAILURE() << name;
      return 0;
    }
    return Run(NumbersOf(way).audit_arch, found->second, args);
  }

  uint32_t Run(uint32_t arch, uint32_t number,
               std::vector<uint64_t> args = {}) const {
    seccomp_data data = {};
    data.arch = arch;
    data.nr = static_cast<int>(number);
    data.instruction_pointer = 0xfeedfacecafef00d;
    std::copy(args.begin(), args.end(), data.args);
    return Run(data);
  }

  uint32_t Run(const std::string& name, std::vector<uint64_t> args = {}) const {
    return Run(SeccompArchitecture::kX86_64, name, args);
  }

  const std::vector<std::string>& notes() const { return made_.notes; }
  size_t size() const { return program_.size(); }

 private:
  ProfileTable made_;
  std::vector<BpfInstruction> program_;
};

SeccompProfile Profile(std::vector<SeccompRule> rules,
                       SeccompAction otherwise = SeccompAction::kErrno) {
  SeccompProfile profile;
  profile.default_action = otherwise;
  profile.syscalls = std::move(rules);
  return profile;
}

SeccompRule Rule(const std::string& name, SeccompAction action,
                 std::vector<SeccompArgument> args = {}) {
  return {.names = {name}, .action = action, .args = std::move(args)};
}

// ---- One thing at a time ----------------------------------------------------

TEST(ProfileTableTest, EveryActionHasItsValue) {
  const std::map<SeccompAction, uint32_t> values = {
      {SeccompAction::kKillThread, SECCOMP_RET_KILL_THREAD},
      {SeccompAction::kKillProcess, SECCOMP_RET_KILL_PROCESS},
      {SeccompAction::kTrap, SECCOMP_RET_TRAP},
      {SeccompAction::kErrno, kEperm},
      {SeccompAction::kTrace, SECCOMP_RET_TRACE | EPERM},
      {SeccompAction::kNotify, SECCOMP_RET_USER_NOTIF},
      {SeccompAction::kLog, SECCOMP_RET_LOG},
      {SeccompAction::kAllow, kAllow},
  };
  for (const auto& [action, value] : values) {
    const Compiled rule(Profile({Rule("read", action)}, SeccompAction::kLog));
    EXPECT_EQ(rule.Run("read"), value);
    EXPECT_EQ(rule.Run("write"), uint32_t{SECCOMP_RET_LOG});
    const Compiled otherwise(
        Profile({Rule("write", SeccompAction::kAllow)}, action));
    EXPECT_EQ(otherwise.Run("read"), value);
  }
}

TEST(ProfileTableTest, ErrnosAreThoseOfTheRule) {
  SeccompProfile profile = Profile({Rule("read", SeccompAction::kErrno),
                                    Rule("write", SeccompAction::kTrace),
                                    Rule("mseal", SeccompAction::kAllow)});
  profile.default_errno_ret = EACCES;
  profile.syscalls[0].errno_ret = 0;
  profile.syscalls[1].errno_ret = 0xffff;
  const Compiled compiled(profile);
  EXPECT_EQ(compiled.Run("read"), uint32_t{SECCOMP_RET_ERRNO});
  EXPECT_EQ(compiled.Run("write"), SECCOMP_RET_TRACE | 0xffffu);
  EXPECT_EQ(compiled.Run("open"), uint32_t{SECCOMP_RET_ERRNO | EACCES});
}

TEST(ProfileTableTest, EveryOperatorAtItsEdges) {
  struct Case {
    SeccompOperator op;
    bool below, equal, above;
  };
  const Case cases[] = {{SeccompOperator::kNotEqual, true, false, true},
                        {SeccompOperator::kLess, true, false, false},
                        {SeccompOperator::kLessEqual, true, true, false},
                        {SeccompOperator::kEqual, false, true, false},
                        {SeccompOperator::kGreaterEqual, false, true, true},
                        {SeccompOperator::kGreater, false, false, true}};
  for (const uint64_t value :
       {uint64_t{1}, uint64_t{0x7fffffff}, uint64_t{0xffffffff},
        uint64_t{0x100000000}, uint64_t{0x8000000000000000}}) {
    for (const Case& c : cases) {
      const Compiled compiled(
          Profile({Rule("read", SeccompAction::kAllow,
                        {{.index = 3, .value = value, .op = c.op}})}));
      const auto allows = [&](uint64_t given) {
        return compiled.Run("read", {0, 0, 0, given}) == kAllow;
      };
      EXPECT_EQ(allows(value - 1), c.below) << value;
      EXPECT_EQ(allows(value), c.equal) << value;
      EXPECT_EQ(allows(value + 1), c.above) << value;
    }
  }
}

TEST(ProfileTableTest, MaskedEqual) {
  const Compiled compiled(
      Profile({Rule("clone", SeccompAction::kAllow,
                    {{.index = 0,
                      .value = 0x1'7e020000,
                      .value_two = 0x1'02000000,
                      .op = SeccompOperator::kMaskedEqual}})}));
  EXPECT_EQ(compiled.Run("clone", {0x1'02000000}), kAllow);
  EXPECT_EQ(compiled.Run("clone", {0xf'02000011}), kAllow);
  EXPECT_EQ(compiled.Run("clone", {0x02000000}), kEperm);
  EXPECT_EQ(compiled.Run("clone", {0x1'02020000}), kEperm);
}

TEST(ProfileTableTest, ArgumentsOfARuleHoldTogetherAndRulesAdd) {
  const SeccompArgument family = {.index = 0, .value = 16};
  const SeccompArgument protocol = {.index = 2, .value = 9};
  const Compiled both(
      Profile({Rule("socket", SeccompAction::kAllow, {family, protocol})}));
  EXPECT_EQ(both.Run("socket", {16, 0, 9}), kAllow);
  EXPECT_EQ(both.Run("socket", {16, 0, 8}), kEperm);
  EXPECT_EQ(both.Run("socket", {2, 0, 9}), kEperm);
  const Compiled either(
      Profile({Rule("socket", SeccompAction::kAllow, {family}),
               Rule("socket", SeccompAction::kAllow, {protocol})}));
  EXPECT_EQ(either.Run("socket", {16, 0, 8}), kAllow);
  EXPECT_EQ(either.Run("socket", {2, 0, 9}), kAllow);
  EXPECT_EQ(either.Run("socket", {2, 0, 8}), kEperm);
}

// runc: two conditions on one argument are alternatives.
TEST(ProfileTableTest, RepeatedIndexMeansOr) {
  const Compiled compiled(Profile({Rule("personality", SeccompAction::kAllow,
                                        {{.index = 0, .value = 0},
                                         {.index = 0, .value = 8},
                                         {.index = 1, .value = 5}})}));
  EXPECT_EQ(compiled.Run("personality", {0}), kAllow);
  EXPECT_EQ(compiled.Run("personality", {8}), kAllow);
  EXPECT_EQ(compiled.Run("personality", {7, 5}), kAllow);
  EXPECT_EQ(compiled.Run("personality", {7}), kEperm);
}

TEST(ProfileTableTest, RuleWithoutArgumentsOutweighs) {
  const SeccompRule always = Rule("read", SeccompAction::kAllow);
  const SeccompRule sometimes =
      Rule("read", SeccompAction::kLog, {{.index = 0, .value = 1}});
  for (const auto& rules : {std::vector<SeccompRule>{always, sometimes},
                            std::vector<SeccompRule>{sometimes, always}}) {
    EXPECT_EQ(Compiled(Profile(rules)).Run("read", {1}), kAllow);
  }
}

TEST(ProfileTableTest, FirstRuleThatHoldsCounts) {
  const Compiled compiled(Profile(
      {Rule("read", SeccompAction::kAllow,
            {{.index = 0, .value = 5, .op = SeccompOperator::kLess}}),
       Rule("read", SeccompAction::kLog,
            {{.index = 0, .value = 3, .op = SeccompOperator::kGreater}})}));
  EXPECT_EQ(compiled.Run("read", {4}), kAllow);
  EXPECT_EQ(compiled.Run("read", {5}), uint32_t{SECCOMP_RET_LOG});
}

TEST(ProfileTableTest, WhatHasNoEffectIsNoted) {
  const Compiled compiled(Profile({Rule("read", SeccompAction::kErrno),
                                   Rule("made_up", SeccompAction::kAllow),
                                   Rule("read", SeccompAction::kAllow)}));
  EXPECT_EQ(compiled.Run("read"), kAllow);
  EXPECT_THAT(
      compiled.notes(),
      ElementsAre(HasSubstr("syscalls[0] says what the default says"),
                  AllOf(HasSubstr("syscalls[1]"), HasSubstr("\"made_up\""))));
}

TEST(ProfileTableTest, NewerNumbersAreNotImplemented) {
  const auto rules = {Rule("read", SeccompAction::kAllow),
                      Rule("close_range", SeccompAction::kAllow)};
  constexpr uint32_t kArch = AUDIT_ARCH_X86_64;
  const Compiled denying(Profile(rules));
  EXPECT_EQ(denying.Run(kArch, 435), kEperm);  // clone3, older
  EXPECT_EQ(denying.Run(kArch, 436), kAllow);
  EXPECT_EQ(denying.Run(kArch, 437), kEnosys);
  EXPECT_EQ(denying.Run(kArch, 0x3fffffff), kEnosys);
  for (const SeccompAction lenient :
       {SeccompAction::kAllow, SeccompAction::kLog, SeccompAction::kTrace}) {
    const Compiled compiled(
        Profile({Rule("close_range", SeccompAction::kErrno)}, lenient));
    EXPECT_NE(compiled.Run(kArch, 437), kEnosys);
  }
  // A rule without effect has a number all the same.
  const Compiled redundant(Profile({Rule("read", SeccompAction::kAllow),
                                    Rule("mseal", SeccompAction::kErrno)}));
  EXPECT_EQ(redundant.Run(kArch, 461), kEperm);
  EXPECT_EQ(redundant.Run(kArch, 463), kEnosys);
}

TEST(ProfileTableTest, OnlyListedArchitectures) {
  const auto rules = {Rule("read", SeccompAction::kAllow),
                      Rule("mseal", SeccompAction::kAllow)};
  SeccompProfile profile = Profile(rules);
  const Compiled native(profile);
  EXPECT_EQ(native.Run(AUDIT_ARCH_X86_64, 0), kAllow);
  EXPECT_EQ(native.Run(AUDIT_ARCH_I386, 3), kKill);
  EXPECT_EQ(native.Run(AUDIT_ARCH_AARCH64, 63), kKill);
  EXPECT_EQ(native.Run(AUDIT_ARCH_X86_64, kX32Bit), kEnosys);
  profile.architectures = {SeccompArchitecture::kX86, SeccompArchitecture::kX32,
                           SeccompArchitecture::kAarch64};
  const Compiled all(profile);
  EXPECT_EQ(all.Run(AUDIT_ARCH_I386, 3), kAllow);
  EXPECT_EQ(all.Run(AUDIT_ARCH_X86_64, kX32Bit), kAllow);
  EXPECT_EQ(all.Run(AUDIT_ARCH_X86_64, kX32Bit | 1), kEperm);
  EXPECT_EQ(all.Run(AUDIT_ARCH_X86_64, kX32Bit | 463), kEnosys);
  EXPECT_EQ(all.Run(AUDIT_ARCH_AARCH64, 63), kKill);
  const Compiled foreign(profile, Architecture::kAarch64);
  EXPECT_EQ(foreign.Run(AUDIT_ARCH_AARCH64, 63), kAllow);
  EXPECT_EQ(foreign.Run(AUDIT_ARCH_ARM, 3), kKill);
}

// CVE-2019-10063: what the kernel does not read cannot matter.
TEST(ProfileTableTest, RequestsOfIoctlHave32Bits) {
  const Compiled compiled(Profile(
      {Rule("ioctl", SeccompAction::kErrno, {{.index = 1, .value = TIOCSTI}})},
      SeccompAction::kAllow));
  EXPECT_EQ(compiled.Run("ioctl", {0, TIOCSTI}), kEperm);
  EXPECT_EQ(compiled.Run("ioctl", {0, uint64_t{1} << 40 | TIOCSTI}), kEperm);
  EXPECT_EQ(compiled.Run("ioctl", {0, TIOCGWINSZ}), kAllow);
  EXPECT_EQ(compiled.Run("ioctl", {0, 0, TIOCSTI}), kAllow);
}

// What i386 calls socketcall(SYS_CONNECT) must not pass by a rule for connect.
TEST(ProfileTableTest, MultiplexedCallsFollowTheirRules) {
  SeccompProfile profile = Profile({Rule("connect", SeccompAction::kErrno),
                                    Rule("shmget", SeccompAction::kErrno)},
                                   SeccompAction::kAllow);
  profile.architectures = {SeccompArchitecture::kX86};
  const Compiled compiled(profile);
  const auto way = SeccompArchitecture::kX86;
  EXPECT_EQ(compiled.Run(way, "connect"), kEperm);
  EXPECT_EQ(compiled.Run(way, "socketcall", {3}), kEperm);
  EXPECT_EQ(compiled.Run(way, "socketcall", {2}), kAllow);
  EXPECT_EQ(compiled.Run(way, "ipc", {23}), kEperm);
  EXPECT_EQ(compiled.Run(way, "ipc", {22}), kAllow);
}

TEST(ProfileTableTest, MistakesAreNamed) {
  const auto error = [](const SeccompProfile& profile) {
    return MakeProfileTable(Architecture::kX86_64, profile).status();
  };
  EXPECT_THAT(error(Profile({SeccompRule{}})),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       "SeccompProfile.syscalls[0].names is empty"));
  EXPECT_THAT(
      error(Profile({Rule("read", SeccompAction::kAllow, {{.index = 6}})})),
      StatusIs(absl::StatusCode::kInvalidArgument,
               HasSubstr("index 6 is not between 0 and 5")));
  SeccompProfile profile = Profile({Rule("read", SeccompAction::kAllow)});
  profile.syscalls[0].errno_ret = 1;
  EXPECT_THAT(error(profile), StatusIs(absl::StatusCode::kInvalidArgument,
                                       HasSubstr("take an errno")));
  profile.syscalls[0].action = SeccompAction::kErrno;
  profile.syscalls[0].errno_ret = 4096;
  EXPECT_THAT(error(profile), StatusIs(absl::StatusCode::kInvalidArgument,
                                       HasSubstr("errno 4096 is above 4095")));
  profile.default_action = SeccompAction::kAllow;
  profile.default_errno_ret = 1;
  EXPECT_THAT(error(profile), StatusIs(absl::StatusCode::kInvalidArgument,
                                       HasSubstr("default_errno_ret")));
}

// ---- At random --------------------------------------------------------------

Choose Random(uint32_t seed) {
  return [engine = std::mt19937_64(seed)](uint64_t bound) mutable {
    return engine() % bound;
  };
}

TEST(ProfileTableTest, RandomProfilesMeanWhatTheySay) {
  for (const Architecture architecture :
       {Architecture::kX86_64, Architecture::kAarch64}) {
    std::set<uint32_t> answers;
    for (uint32_t seed = 0; seed < 400; ++seed) {
      const Choose choose = Random(seed);
      const SeccompProfile profile = RandomProfile(choose, architecture);
      const Compiled compiled(profile, architecture);
      for (int i = 0; i < 100; ++i) {
        const seccomp_data data = RandomCall(choose, architecture, profile);
        const uint32_t answer = compiled.Run(data);
        answers.insert(answer & SECCOMP_RET_ACTION_FULL);
        ASSERT_EQ(answer, Interpret(architecture, profile, data))
            << "seed " << seed << " arch " << data.arch << " number "
            << data.nr;
      }
    }
    EXPECT_EQ(answers.size(), 8u);
  }
}

#if defined(__x86_64__)
uint32_t ActionOf(SeccompAction action, std::optional<uint32_t> errno_ret) {
  const uint32_t data = errno_ret.value_or(EPERM);
  switch (action) {
    case SeccompAction::kKillThread:
      return SCMP_ACT_KILL_THREAD;
    case SeccompAction::kKillProcess:
      return SCMP_ACT_KILL_PROCESS;
    case SeccompAction::kTrap:
      return SCMP_ACT_TRAP;
    case SeccompAction::kErrno:
      return SCMP_ACT_ERRNO(data);
    case SeccompAction::kTrace:
      return SCMP_ACT_TRACE(data);
    case SeccompAction::kNotify:
      return SCMP_ACT_NOTIFY;
    case SeccompAction::kLog:
      return SCMP_ACT_LOG;
    case SeccompAction::kAllow:
      return SCMP_ACT_ALLOW;
  }
  return 0;
}

// As runc uses libseccomp.
void AddRule(scmp_filter_ctx context, const SeccompRule& rule,
             uint32_t otherwise) {
  const uint32_t action = ActionOf(rule.action, rule.errno_ret);
  if (action == otherwise) return;
  std::vector<scmp_arg_cmp> conditions;
  std::set<uint32_t> indices;
  for (const SeccompArgument& argument : rule.args) {
    conditions.push_back({.arg = argument.index,
                          .op = static_cast<scmp_compare>(
                              static_cast<int>(argument.op) + SCMP_CMP_NE),
                          .datum_a = argument.value,
                          .datum_b = argument.value_two});
    indices.insert(argument.index);
  }
  for (const std::string& name : rule.names) {
    const int number = ::seccomp_syscall_resolve_name(name.c_str());
    if (number == __NR_SCMP_ERROR) continue;
    if (indices.size() == conditions.size()) {
      EXPECT_EQ(::seccomp_rule_add_array(context, action, number,
                                         conditions.size(), conditions.data()),
                0);
      continue;
    }
    for (const scmp_arg_cmp& one : conditions) {
      EXPECT_EQ(::seccomp_rule_add_array(context, action, number, 1, &one), 0);
    }
  }
}

std::vector<BpfInstruction> ByLibseccomp(const SeccompProfile& profile) {
  const uint32_t otherwise =
      ActionOf(profile.default_action, profile.default_errno_ret);
  const scmp_filter_ctx context = ::seccomp_init(otherwise);
  for (const SeccompArchitecture way : profile.architectures) {
    if (way == SeccompArchitecture::kX86_64) continue;
    EXPECT_EQ(::seccomp_arch_add(context, SCMP_ARCH_X86), 0);
  }
  for (const SeccompRule& rule : profile.syscalls) {
    AddRule(context, rule, otherwise);
  }
  const int file = ::memfd_create("program", MFD_CLOEXEC);
  EXPECT_EQ(::seccomp_export_bpf(context, file), 0);
  ::seccomp_release(context);
  std::vector<BpfInstruction> program(::lseek(file, 0, SEEK_END) /
                                      sizeof(BpfInstruction));
  const ssize_t size = program.size() * sizeof(BpfInstruction);
  EXPECT_EQ(::pread(file, program.data(), size, 0), size);
  ::close(file);
  return program;
}

bool IsLibseccompsToo(const SeccompProfile& profile, const seccomp_data& data,
                      uint32_t ours) {
  const auto& listed = profile.architectures;
  const auto lists = [&listed](SeccompArchitecture way) {
    return std::find(listed.begin(), listed.end(), way) != listed.end();
  };
  const auto number = static_cast<uint32_t>(data.nr);
  if (number > 450) return false;  // newer than the library
  // The documented differences: what is not listed, what is newer, ioctl.
  if (data.arch == AUDIT_ARCH_X86_64 && number >= kX32Bit) return false;
  if (data.arch == AUDIT_ARCH_I386) {
    if (!lists(SeccompArchitecture::kX86)) return false;
    // There libseccomp compares further arguments, which mean nothing.
    if (number == 102 || number == 117) return false;
  } else if (data.arch != AUDIT_ARCH_X86_64) {
    return false;
  }
  const bool is_ioctl =
      SyscallName(data.arch, number).find("ioctl") != std::string::npos;
  return ours != kEnosys && !is_ioctl;
}

TEST(ProfileTableTest, RandomProfilesAgreeWithLibseccomp) {
  int compared = 0;
  std::set<uint32_t> answers;
  for (uint32_t seed = 0; seed < 300; ++seed) {
    const Choose choose = Random(seed);
    SeccompProfile profile =
        RandomProfile(choose, Architecture::kX86_64, {.no_alternatives = true});
    // Together with x86_64, libseccomp 2.5.4 compiles x32 to something else
    // than the pseudo code that it prints.
    auto& listed = profile.architectures;
    listed.erase(
        std::remove(listed.begin(), listed.end(), SeccompArchitecture::kX32),
        listed.end());
    const Compiled ours(profile);
    const auto theirs = ByLibseccomp(profile);
    for (int i = 0; i < 100; ++i) {
      seccomp_data data = RandomCall(choose, Architecture::kX86_64, profile);
      // A 32-bit program's registers.
      if (data.arch == AUDIT_ARCH_I386) {
        for (auto& argument : data.args) argument &= UINT32_MAX;
      }
      const uint32_t answer = ours.Run(data);
      if (!IsLibseccompsToo(profile, data, answer)) continue;
      ++compared;
      answers.insert(answer & SECCOMP_RET_ACTION_FULL);
      ASSERT_EQ(answer, RunFilter(theirs, data).value)
          << "seed " << seed << " arch " << data.arch << " number " << data.nr;
    }
  }
  EXPECT_GT(compared, 10000);
  EXPECT_EQ(answers.size(), 8u);
}
#endif

// All calls that there are, each with a condition that cannot be shared.
TEST(ProfileTableTest, LongProgramsStillReachTheirEnds) {
  SeccompProfile profile = Profile({});
  uint64_t value = 1000;
  for (const auto& [number, name] :
       NumbersOf(SeccompArchitecture::kX86_64).names) {
    profile.syscalls.push_back(
        Rule(name, SeccompAction::kAllow,
             {{.index = 0, .value = ++value},
              {.index = 1, .value = value, .op = SeccompOperator::kGreater}}));
  }
  const Compiled compiled(profile);
  EXPECT_GT(compiled.size(), 2000u);
  value = 1000;
  for (const auto& [number, name] :
       NumbersOf(SeccompArchitecture::kX86_64).names) {
    ++value;
    EXPECT_EQ(compiled.Run(AUDIT_ARCH_X86_64, number, {value, value + 1}),
              kAllow);
    EXPECT_EQ(compiled.Run(AUDIT_ARCH_X86_64, number, {value, value}), kEperm);
    EXPECT_EQ(compiled.Run(AUDIT_ARCH_X86_64, number, {value + 1, value + 1}),
              kEperm);
  }
}

}  // namespace
}  // namespace caisson::security
