#include "lib/security/filter_compiler.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/security/bpf_machine.h"
#include "lib/security/capabilities.h"
#include "lib/security/default_profile.h"
#include "lib/security/default_table.h"
#include "lib/security/syscall_numbers.h"

namespace caisson::security {
namespace {

using ::testing::IsEmpty;

constexpr uint32_t kAllow = SECCOMP_RET_ALLOW;
constexpr uint32_t kEperm = SECCOMP_RET_ERRNO | EPERM;
constexpr uint32_t kEnosys = SECCOMP_RET_ERRNO | ENOSYS;
constexpr uint32_t kKill = SECCOMP_RET_KILL_PROCESS;
constexpr uint32_t kX32 = kX32Bit;
constexpr uint64_t kAllCapabilities = ~uint64_t{0};

constexpr uint64_t Mask(int capability) { return uint64_t{1} << capability; }

std::vector<BpfInstruction> CompileDefaultProfile(Architecture architecture,
                                                  uint64_t capabilities) {
  return CompileTable(MakeDefaultTable(
      architecture, {.capabilities = capabilities, .denied = kEperm}));
}

// A compiled profile and the numbers behind the names.
class Filter {
 public:
  Filter(Architecture architecture, uint64_t capabilities)
      : program_(CompileDefaultProfile(architecture, capabilities)) {
    for (const Entry& entry : EntriesOf(architecture)) {
      for (const auto& [number, name] : entry.names) {
        numbers_[{entry.audit_arch, name}].push_back(number);
      }
    }
  }

  uint32_t Run(uint32_t arch, uint32_t number,
               std::vector<uint64_t> arguments = {}) const {
    seccomp_data data = {};
    data.nr = static_cast<int>(number);
    data.arch = arch;
    // A filter that looked at it would not be ours.
    data.instruction_pointer = 0xfeedfacecafef00d;
    std::copy(arguments.begin(), arguments.end(), data.args);
    const BpfResult result = RunFilter(program_, data);
    EXPECT_FALSE(result.broken) << "arch " << arch << " number " << number;
    return result.value;
  }

  // All numbers of the name must agree (x32 has two for some).
  uint32_t Run(uint32_t arch, const std::string& name,
               std::vector<uint64_t> arguments = {}) const {
    const auto found = numbers_.find({arch, name});
    if (found == numbers_.end()) {
      ADD_FAILURE() << name << " is unknown to arch " << arch;
      return 0;
    }
    const uint32_t first = Run(arch, found->second[0], arguments);
    for (const uint32_t number : found->second) {
      EXPECT_EQ(Run(arch, number, arguments), first) << name << number;
    }
    return first;
  }

  const std::vector<BpfInstruction>& program() const { return program_; }

 private:
  std::vector<BpfInstruction> program_;
  std::map<std::pair<uint32_t, std::string>, std::vector<uint32_t>> numbers_;
};

std::set<std::string> NamesOf(absl::Span<const SyscallGroup> groups) {
  std::set<std::string> names;
  for (const SyscallGroup& group : groups) {
    for (const absl::string_view name : group.names) names.emplace(name);
  }
  return names;
}

TEST(DefaultProfileTest, EveryNameExistsSomewhere) {
  std::set<std::string> known;
  for (const Architecture architecture :
       {Architecture::kX86_64, Architecture::kAarch64}) {
    for (const Entry& entry : EntriesOf(architecture)) {
      for (const auto& [number, name] : entry.names) known.insert(name);
    }
  }
  std::vector<std::string> unknown;
  for (const std::string& name : NamesOf(AllowedGroups())) {
    if (known.count(name) == 0) unknown.push_back(name);
  }
  EXPECT_THAT(unknown, IsEmpty());
  for (const ArgumentRule& rule : ArgumentRules()) {
    EXPECT_EQ(known.count(std::string(rule.name)), 1u) << rule.name;
  }
}

TEST(DefaultProfileTest, NoNameIsListedTwice) {
  std::set<absl::string_view> names;
  for (const SyscallGroup& group : AllowedGroups()) {
    EXPECT_THAT(group.names, ::testing::Not(IsEmpty())) << group.subsystem;
    for (const absl::string_view name : group.names) {
      EXPECT_TRUE(names.insert(name).second) << name;
    }
  }
}

TEST(DefaultProfileTest, ValuesAscendAndRulesHaveAnAllowedName) {
  const std::set<std::string> allowed = NamesOf(AllowedGroups());
  for (const ArgumentRule& rule : ArgumentRules()) {
    EXPECT_EQ(allowed.count(std::string(rule.name)), 1u) << rule.name;
    for (const ValueRange& value : rule.values) {
      EXPECT_LE(value.first, value.last) << rule.name;
    }
    for (size_t i = 1; i < rule.values.size(); ++i) {
      EXPECT_LT(rule.values[i - 1].last, rule.values[i].first) << rule.name;
    }
  }
}

class FilterTest : public ::testing::TestWithParam<uint32_t> {
 protected:
  static Architecture ArchitectureOf(uint32_t arch) {
    return arch == AUDIT_ARCH_X86_64 || arch == AUDIT_ARCH_I386
               ? Architecture::kX86_64
               : Architecture::kAarch64;
  }
  uint32_t arch() const { return GetParam(); }
  Filter Make(uint64_t capabilities = DefaultCapabilities()) const {
    return Filter(ArchitectureOf(arch()), capabilities);
  }
};

INSTANTIATE_TEST_SUITE_P(Entries, FilterTest,
                         ::testing::Values(AUDIT_ARCH_X86_64, AUDIT_ARCH_I386,
                                           AUDIT_ARCH_AARCH64, AUDIT_ARCH_ARM),
                         [](const auto& info) {
                           switch (info.param) {
                             case AUDIT_ARCH_X86_64:
                               return "x86_64";
                             case AUDIT_ARCH_I386:
                               return "i386";
                             case AUDIT_ARCH_AARCH64:
                               return "aarch64";
                             default:
                               return "arm";
                           }
                         });

// Each number up to far beyond the last against the tables.
TEST_P(FilterTest, EveryNumberHasTheAnswerOfItsGroup) {
  for (const uint64_t capabilities :
       {uint64_t{0}, DefaultCapabilities(), Mask(CAP_SYS_ADMIN),
        Mask(CAP_SYS_PTRACE) | Mask(CAP_BPF), kAllCapabilities}) {
    const Filter filter = Make(capabilities);
    std::set<absl::string_view> allowed;
    for (const SyscallGroup& group : AllowedGroups()) {
      if (group.capabilities != 0 && !(group.capabilities & capabilities)) {
        continue;
      }
      allowed.insert(group.names.begin(), group.names.end());
    }
    for (const Entry& entry : EntriesOf(ArchitectureOf(arch()))) {
      if (entry.audit_arch != arch()) continue;
      for (uint32_t base : {0u, 0xf0000u, kX32}) {
        for (uint32_t number = base; number < base + 1024; ++number) {
          const auto named = entry.names.find(number & entry.number_mask);
          uint32_t expected = kEnosys;
          if (named != entry.names.end()) {
            expected = allowed.count(named->second) ? kAllow : kEperm;
            if (named->second == "clone3" && expected == kEperm) {
              expected = kEnosys;
            }
          }
          // Zero is permitted wherever an argument decides.
          EXPECT_EQ(filter.Run(arch(), number), expected)
              << (named == entry.names.end() ? "unassigned" : named->second)
              << " " << number;
        }
      }
    }
  }
}

TEST_P(FilterTest, NumbersThatNoKernelHasAreEnosys) {
  const Filter filter = Make();
  for (const uint32_t number :
       {kNewestNumber + 1, 999u, 0x3fffffffu, kX32 + kNewestNumber + 1,
        0x7fffffffu, 0x80000000u, 0xffffffffu}) {
    EXPECT_EQ(filter.Run(arch(), number), kEnosys) << number;
  }
}

TEST_P(FilterTest, DangerousCallsAreEperm) {
  const Filter filter = Make();
  for (const char* name : {"mount",
                           "umount2",
                           "reboot",
                           "init_module",
                           "finit_module",
                           "delete_module",
                           "kexec_load",
                           "keyctl",
                           "add_key",
                           "request_key",
                           "bpf",
                           "perf_event_open",
                           "unshare",
                           "setns",
                           "open_by_handle_at",
                           "swapon",
                           "swapoff",
                           "io_uring_setup",
                           "io_uring_enter",
                           "io_uring_register",
                           "userfaultfd",
                           "move_mount",
                           "open_tree",
                           "fsopen",
                           "fsmount",
                           "fsconfig",
                           "fspick",
                           "mount_setattr",
                           "pivot_root",
                           "acct",
                           "quotactl",
                           "syslog",
                           "settimeofday",
                           "clock_settime",
                           "kcmp",
                           "pidfd_getfd",
                           "process_madvise",
                           "move_pages",
                           "migrate_pages",
                           "mbind",
                           "set_mempolicy",
                           "vhangup",
                           "fanotify_init",
                           "nfsservctl",
                           "sethostname",
                           "setdomainname",
                           "lsm_set_self_attr",
                           "lsm_list_modules"}) {
    EXPECT_EQ(filter.Run(arch(), name), kEperm) << name;
  }
}

TEST_P(FilterTest, OrdinaryCallsAreAllowed) {
  const Filter filter = Make();
  for (const char* name : {"read",
                           "write",
                           "openat",
                           "openat2",
                           "execve",
                           "execveat",
                           "exit_group",
                           "mmap",
                           "futex",
                           "futex_waitv",
                           "futex_wait",
                           "rseq",
                           "ptrace",
                           "process_vm_readv",
                           "chroot",
                           "mknodat",
                           "seccomp",
                           "landlock_restrict_self",
                           "statmount",
                           "listmount",
                           "mseal",
                           "cachestat",
                           "fchmodat2",
                           "map_shadow_stack",
                           "setxattrat",
                           "removexattrat",
                           "name_to_handle_at",
                           "memfd_create",
                           "close_range",
                           "clock_adjtime",
                           "setgroups",
                           "capset",
                           "prctl"}) {
    if (arch() == AUDIT_ARCH_ARM && name == absl::string_view("mmap")) continue;
    EXPECT_EQ(filter.Run(arch(), name), kAllow) << name;
  }
}

TEST_P(FilterTest, DeviceNodesCannotBeMade) {
  const Filter filter = Make(~uint64_t{0} >> 23);  // whatever it may otherwise
  for (const uint64_t type : {S_IFCHR, S_IFBLK}) {
    EXPECT_EQ(filter.Run(arch(), "mknodat", {0, 0, type | 0666}), kEperm);
    EXPECT_EQ(filter.Run(arch(), "mknodat", {0, 0, type | uint64_t{1} << 40}),
              kEperm);
    if (arch() == AUDIT_ARCH_AARCH64) continue;  // which has no mknod
    EXPECT_EQ(filter.Run(arch(), "mknod", {0, type | 0666}), kEperm);
  }
  for (const uint64_t type : {0, S_IFREG, S_IFIFO, S_IFSOCK}) {
    EXPECT_EQ(filter.Run(arch(), "mknodat", {0, 0, type | 0666}), kAllow);
  }
}

TEST_P(FilterTest, CloneMakesNoNamespaces) {
  const Filter filter = Make();
  const uint64_t thread = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND |
                          CLONE_THREAD | CLONE_SYSVSEM | CLONE_SETTLS |
                          CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID;
  for (const uint64_t harmless :
       {uint64_t{0}, uint64_t{17}, thread, uint64_t{CLONE_PIDFD},
        uint64_t{CLONE_VM | CLONE_VFORK}, uint64_t{0x80000000} /* CLONE_IO */,
        uint64_t{1} << 40}) {
    EXPECT_EQ(filter.Run(arch(), "clone", {harmless}), kAllow) << harmless;
  }
  for (const uint64_t flag :
       {CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER,
        CLONE_NEWPID, CLONE_NEWNET}) {
    EXPECT_EQ(filter.Run(arch(), "clone", {flag}), kEperm) << flag;
    EXPECT_EQ(filter.Run(arch(), "clone", {flag | thread}), kEperm) << flag;
    EXPECT_EQ(filter.Run(arch(), "clone", {flag | uint64_t{1} << 63}), kEperm);
  }
  EXPECT_EQ(filter.Run(arch(), "clone3"), kEnosys);
}

TEST_P(FilterTest, AdministratorsMakeNamespaces) {
  const Filter filter = Make(DefaultCapabilities() | Mask(CAP_SYS_ADMIN));
  EXPECT_EQ(filter.Run(arch(), "clone", {CLONE_NEWUSER}), kAllow);
  EXPECT_EQ(filter.Run(arch(), "clone3"), kAllow);
  EXPECT_EQ(filter.Run(arch(), "unshare"), kAllow);
  // Not even they.
  EXPECT_EQ(filter.Run(arch(), "ioctl", {0, TIOCSTI}), kEperm);
  EXPECT_EQ(filter.Run(arch(), "socket", {AF_VSOCK}), kEperm);
  EXPECT_EQ(filter.Run(arch(), "io_uring_setup"), kEperm);
  EXPECT_EQ(filter.Run(arch(), "kexec_load"), kEperm);
  EXPECT_EQ(filter.Run(arch(), "pivot_root"), kEperm);
}

TEST_P(FilterTest, IoctlDoesNotTypeIntoTerminals) {
  const Filter filter = Make();
  EXPECT_EQ(filter.Run(arch(), "ioctl", {0, TIOCGWINSZ}), kAllow);
  EXPECT_EQ(filter.Run(arch(), "ioctl", {TIOCSTI, 0, TIOCSTI}), kAllow);
  for (const uint64_t request : {TIOCSTI, TIOCLINUX}) {
    EXPECT_EQ(filter.Run(arch(), "ioctl", {0, request}), kEperm);
    EXPECT_EQ(filter.Run(arch(), "ioctl", {0, request - 1}), kAllow);
    EXPECT_EQ(filter.Run(arch(), "ioctl", {0, request + 1}), kAllow);
    // CVE-2019-10063: the kernel ignores the upper half.
    for (int bit = 32; bit < 64; ++bit) {
      EXPECT_EQ(filter.Run(arch(), "ioctl", {0, request | uint64_t{1} << bit}),
                kEperm);
    }
  }
}

TEST_P(FilterTest, PersonalityStaysOrdinary) {
  const Filter filter = Make();
  for (const uint64_t persona :
       {uint64_t{0}, uint64_t{8}, uint64_t{0x20000}, uint64_t{0x20008},
        uint64_t{0xffffffff}, ~uint64_t{0}}) {
    EXPECT_EQ(filter.Run(arch(), "personality", {persona}), kAllow) << persona;
  }
  for (const uint64_t persona :
       {uint64_t{1}, uint64_t{7}, uint64_t{9}, uint64_t{0x40000},
        uint64_t{0x400000}, uint64_t{0x20001}, uint64_t{0xfffffffe},
        uint64_t{0x1'0004'0000}}) {
    EXPECT_EQ(filter.Run(arch(), "personality", {persona}), kEperm) << persona;
  }
}

TEST_P(FilterTest, SocketFamilies) {
  const Filter filter = Make();
  const std::set<uint64_t> denied = {12, 19, 20,     23,      25,
                                     34, 37, AF_ALG, AF_VSOCK};
  for (uint64_t family = 0; family < 64; ++family) {
    const bool allowed = family <= 45 && denied.count(family) == 0;
    EXPECT_EQ(filter.Run(arch(), "socket", {family}), allowed ? kAllow : kEperm)
        << family;
  }
  EXPECT_EQ(filter.Run(arch(), "socket", {uint64_t{1} << 32 | AF_VSOCK}),
            kEperm);
  EXPECT_EQ(filter.Run(arch(), "socket", {0xffffffff}), kEperm);
}

TEST_P(FilterTest, CapabilitiesOpenTheirGroups) {
  const std::map<int, std::vector<std::string>> opened = {
      {CAP_DAC_READ_SEARCH, {"open_by_handle_at"}},
      {CAP_SYS_BOOT, {"reboot"}},
      {CAP_SYS_CHROOT, {"chroot"}},
      {CAP_SYS_MODULE, {"init_module", "finit_module", "delete_module"}},
      {CAP_SYS_PACCT, {"acct"}},
      {CAP_SYS_PTRACE, {"kcmp", "pidfd_getfd", "process_madvise"}},
      {CAP_SYS_TIME, {"settimeofday", "clock_settime"}},
      {CAP_SYS_TTY_CONFIG, {"vhangup"}},
      {CAP_SYS_NICE, {"mbind", "set_mempolicy", "get_mempolicy"}},
      {CAP_SYSLOG, {"syslog"}},
      {CAP_BPF, {"bpf"}},
      {CAP_PERFMON, {"perf_event_open"}},
      {CAP_SYS_ADMIN, {"mount", "setns", "bpf", "perf_event_open", "syslog"}},
  };
  const Filter none = Make(0);
  for (const auto& [capability, names] : opened) {
    const Filter filter = Make(Mask(capability));
    for (const std::string& name : names) {
      EXPECT_EQ(none.Run(arch(), name), kEperm) << name;
      EXPECT_EQ(filter.Run(arch(), name), kAllow) << name;
    }
  }
}

TEST(FilterProgramTest, ForeignArchitecturesAreKilled) {
  const Filter x86_64(Architecture::kX86_64, kAllCapabilities);
  const Filter aarch64(Architecture::kAarch64, kAllCapabilities);
  for (const uint32_t arch : {uint32_t{AUDIT_ARCH_AARCH64},
                              uint32_t{AUDIT_ARCH_S390X}, 0u, 0xffffffffu}) {
    EXPECT_EQ(x86_64.Run(arch, 0), kKill);
  }
  EXPECT_EQ(aarch64.Run(AUDIT_ARCH_X86_64, 0), kKill);
}

TEST(FilterProgramTest, X32SharesTheNumbersOfX86_64) {
  const Filter filter(Architecture::kX86_64, DefaultCapabilities());
  constexpr uint32_t kArch = AUDIT_ARCH_X86_64;
  EXPECT_EQ(filter.Run(kArch, kX32 | 0), kAllow);    // read
  EXPECT_EQ(filter.Run(kArch, kX32 | 165), kEperm);  // mount
  EXPECT_EQ(filter.Run(kArch, kX32 | 452), kAllow);  // fchmodat2
  // Numbers of x32 alone. Before Linux 5.4 a 64-bit program reached them
  // without the bit, as it reached its own with it.
  for (const uint32_t bit : {0u, kX32}) {
    EXPECT_EQ(filter.Run(kArch, bit | 511), kEnosys);
    EXPECT_EQ(filter.Run(kArch, bit | 514, {0, TIOCSTI}), kEperm);
    EXPECT_EQ(filter.Run(kArch, bit | 514, {0, TIOCGWINSZ}), kAllow);
    EXPECT_EQ(filter.Run(kArch, bit | 520), kAllow);  // execve
    EXPECT_EQ(filter.Run(kArch, bit | 528), kEperm);  // kexec_load
    EXPECT_EQ(filter.Run(kArch, bit | 548), kEnosys);
    EXPECT_EQ(filter.Run(kArch, bit | 16, {0, TIOCSTI}), kEperm);
  }
}

TEST(FilterProgramTest, I386HasItsOwnNumbers) {
  const Filter filter(Architecture::kX86_64, DefaultCapabilities());
  constexpr uint32_t kArch = AUDIT_ARCH_I386;
  EXPECT_EQ(filter.Run(kArch, 3u), kAllow);    // read
  EXPECT_EQ(filter.Run(kArch, 21u), kEperm);   // mount
  EXPECT_EQ(filter.Run(kArch, 88u), kEperm);   // reboot
  EXPECT_EQ(filter.Run(kArch, 102u), kAllow);  // socketcall
  EXPECT_EQ(filter.Run(kArch, 165u), kAllow);  // getresuid; mount of x86_64
  EXPECT_EQ(filter.Run(kArch, 222u), kEnosys);
}

TEST(FilterProgramTest, ArmPrivateNumbers) {
  const Filter filter(Architecture::kAarch64, DefaultCapabilities());
  EXPECT_EQ(filter.Run(AUDIT_ARCH_ARM, 0xf0001u), kAllow);  // breakpoint
  EXPECT_EQ(filter.Run(AUDIT_ARCH_ARM, 0xf0002u), kAllow);  // cacheflush
  EXPECT_EQ(filter.Run(AUDIT_ARCH_ARM, 0xf0003u), kEperm);  // usr26
  EXPECT_EQ(filter.Run(AUDIT_ARCH_ARM, 0xf0005u), kAllow);  // set_tls
  EXPECT_EQ(filter.Run(AUDIT_ARCH_ARM, 0xf0007u), kEnosys);
  EXPECT_EQ(filter.Run(AUDIT_ARCH_AARCH64, 0xf0002u), kEnosys);
}

#if defined(__x86_64__)
// The allow-list as libseccomp's compiler writes it: an independent witness for
// the numbers. It cannot say ENOSYS or except two requests of ioctl.
std::vector<BpfInstruction> CompileByLibseccomp(uint64_t capabilities) {
  const scmp_filter_ctx context = ::seccomp_init(SCMP_ACT_ERRNO(EPERM));
  EXPECT_EQ(::seccomp_arch_add(context, SCMP_ARCH_X86), 0);
  EXPECT_EQ(::seccomp_arch_add(context, SCMP_ARCH_X32), 0);
  EXPECT_EQ(::seccomp_attr_set(context, SCMP_FLTATR_CTL_OPTIMIZE, 2), 0);
  for (const SyscallGroup& group : AllowedGroups()) {
    if (group.capabilities != 0 && !(group.capabilities & capabilities)) {
      continue;
    }
    for (const absl::string_view name : group.names) {
      const int number =
          ::seccomp_syscall_resolve_name(std::string(name).c_str());
      if (number == __NR_SCMP_ERROR || name == "clone" || name == "socket" ||
          name == "personality") {
        continue;
      }
      EXPECT_EQ(::seccomp_rule_add(context, SCMP_ACT_ALLOW, number, 0), 0)
          << name;
    }
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

// What lets one table serve both.
TEST(FilterProgramTest, X32NeverDisagreesWithX86_64) {
  for (int number = 0; number <= 450; ++number) {
    char* const native =
        ::seccomp_syscall_resolve_num_arch(SCMP_ARCH_X86_64, number);
    char* const x32 =
        ::seccomp_syscall_resolve_num_arch(SCMP_ARCH_X32, number | kX32);
    if (native != nullptr && x32 != nullptr) {
      EXPECT_STREQ(native, x32);
    }
    ::free(native);
    ::free(x32);
  }
}

TEST(FilterProgramTest, AgreesWithLibseccompsCompiler) {
  for (const uint64_t capabilities :
       {DefaultCapabilities(), DefaultCapabilities() | Mask(CAP_SYS_ADMIN)}) {
    const auto ours =
        CompileDefaultProfile(Architecture::kX86_64, capabilities);
    const auto theirs = CompileByLibseccomp(capabilities);
    int allowed = 0;
    for (const uint32_t token :
         {uint32_t{SCMP_ARCH_X86_64}, uint32_t{SCMP_ARCH_X32},
          uint32_t{SCMP_ARCH_X86}}) {
      const uint32_t bit = token == SCMP_ARCH_X32 ? kX32 : 0;
      for (uint32_t number = bit; number <= (bit | 547); ++number) {
        char* const found =
            ::seccomp_syscall_resolve_num_arch(token, static_cast<int>(number));
        if (found == nullptr) continue;
        const std::string name = found;
        ::free(found);
        if (name == "clone" || name == "socket" || name == "personality") {
          continue;
        }
        seccomp_data data = {};
        data.nr = static_cast<int>(number);
        data.arch =
            token == SCMP_ARCH_X86 ? AUDIT_ARCH_I386 : AUDIT_ARCH_X86_64;
        const BpfResult our_result = RunFilter(ours, data);
        const BpfResult their_result = RunFilter(theirs, data);
        EXPECT_FALSE(our_result.broken || their_result.broken);
        EXPECT_EQ(our_result.value == kAllow, their_result.value == kAllow)
            << name << " " << number << " of " << token;
        allowed += our_result.value == kAllow;
      }
    }
    EXPECT_GT(allowed, 900);
    EXPECT_LT(ours.size(), theirs.size() / 3);
  }
}

#endif

TEST(FilterProgramTest, ProgramsAreShortAndFast) {
  for (const Architecture architecture :
       {Architecture::kX86_64, Architecture::kAarch64}) {
    for (const uint64_t capabilities :
         {uint64_t{0}, DefaultCapabilities(), kAllCapabilities}) {
      const auto program = CompileDefaultProfile(architecture, capabilities);
      EXPECT_LT(program.size(), 300u);
      EXPECT_LE(program.size(), size_t{BPF_MAXINSNS});
      for (uint32_t number = 0; number < 1024; ++number) {
        seccomp_data data = {};
        data.nr = static_cast<int>(number);
        data.arch = architecture == Architecture::kX86_64 ? AUDIT_ARCH_X86_64
                                                          : AUDIT_ARCH_AARCH64;
        EXPECT_LE(RunFilter(program, data).steps, 20) << number;
      }
    }
  }
}

}  // namespace
}  // namespace caisson::security
