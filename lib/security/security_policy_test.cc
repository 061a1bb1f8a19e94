// The policy of this kernel, in forked children that load it.
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "caisson/security.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_matchers.h"

namespace caisson {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr uint64_t kDockerDefault = 0xa80425fb;

// Skips a test that this machine cannot run; fails it where all must run.
#define REQUIRE(condition, reason)            \
  if (!(condition)) {                         \
    if (::caisson::testing::TestsMustRun()) { \
      FAIL() << (reason);                     \
    }                                         \
    GTEST_SKIP() << (reason);                 \
  }                                           \
  static_assert(true)

bool LoadFilter(const SecurityPolicy& policy) {
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return false;
  const auto program = policy.seccomp_program();
  const sock_fprog filter = {.len = static_cast<unsigned short>(program.size()),
                             .filter = reinterpret_cast<sock_filter*>(
                                 const_cast<BpfInstruction*>(program.data()))};
  return ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter) == 0;
}

// Runs `body` in a forked child and returns its wait status.
int InChild(const std::function<int()>& body) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(body());
  int status = -1;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  return status;
}

// The errno with which `call` failed under `policy` (none: no filter); 0 if it
// succeeded. It runs in a child of its own.
int ErrnoOf(const SecurityPolicy* policy, const std::function<long()>& call) {
  constexpr int kNoFilter = 255;
  const int status = InChild([&]() -> int {
    if (policy != nullptr && !LoadFilter(*policy)) return kNoFilter;
    errno = 0;
    return call() >= 0 ? 0 : errno;
  });
  EXPECT_TRUE(WIFEXITED(status)) << "wait status " << status;
  EXPECT_NE(WEXITSTATUS(status), kNoFilter) << "the filter was not loaded";
  return WEXITSTATUS(status);
}

SecurityPolicy Default() { return SecurityPolicy::Create({}).value(); }

// A call that must be refused, with arguments that harm nobody if it is not.
struct Attempt {
  const char* name;
  std::function<long()> call;
};

std::vector<Attempt> Attempts() {
  const auto raw = [](auto... arguments) {
    return [=]() -> long { return ::syscall(arguments...); };
  };
  return {
      {"mount", raw(SYS_mount, nullptr, nullptr, nullptr, 0, nullptr)},
      {"umount2", raw(SYS_umount2, nullptr, 0)},
      {"move_mount", raw(SYS_move_mount, -1, nullptr, -1, nullptr, 0)},
      {"open_tree", raw(SYS_open_tree, -1, nullptr, 0)},
      {"fsopen", raw(SYS_fsopen, nullptr, 0)},
      {"pivot_root", raw(SYS_pivot_root, nullptr, nullptr)},
      {"setns", raw(SYS_setns, -1, 0)},
      {"unshare", raw(SYS_unshare, CLONE_NEWUSER)},
      {"clone(CLONE_NEWUSER)",
       [] {
         const long child =
             ::syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
         if (child == 0) ::_exit(0);
         return child;
       }},
      {"init_module", raw(SYS_init_module, nullptr, 0, nullptr)},
      {"finit_module", raw(SYS_finit_module, -1, nullptr, 0)},
      {"delete_module", raw(SYS_delete_module, nullptr, 0)},
      {"kexec_load", raw(SYS_kexec_load, 0, ~0ul, nullptr, ~0ul)},
      {"reboot", raw(SYS_reboot, 0, 0, 0, nullptr)},
      {"swapon", raw(SYS_swapon, nullptr, 0)},
      {"swapoff", raw(SYS_swapoff, nullptr)},
      {"open_by_handle_at", raw(SYS_open_by_handle_at, -1, nullptr, 0)},
      {"keyctl", raw(SYS_keyctl, -1)},
      {"add_key", raw(SYS_add_key, nullptr, nullptr, nullptr, 0, 0)},
      {"request_key", raw(SYS_request_key, nullptr, nullptr, nullptr, 0)},
      {"bpf", raw(SYS_bpf, -1, nullptr, 0)},
      {"perf_event_open", raw(SYS_perf_event_open, nullptr, 0, 0, -1, 0)},
      {"userfaultfd", raw(SYS_userfaultfd, ~0ul)},
      {"io_uring_setup", raw(SYS_io_uring_setup, 0, nullptr)},
      {"acct", raw(SYS_acct, 1)},
      {"settimeofday", raw(SYS_settimeofday, 1, nullptr)},
      {"quotactl", raw(SYS_quotactl, -1, nullptr, 0, nullptr)},
      {"sethostname", raw(SYS_sethostname, nullptr, 1)},
      {"personality(ADDR_NO_RANDOMIZE)",
       raw(SYS_personality, ADDR_NO_RANDOMIZE)},
      {"socket(AF_VSOCK)", raw(SYS_socket, AF_VSOCK, SOCK_STREAM, 0)},
      {"socket(AF_ALG)", raw(SYS_socket, AF_ALG, SOCK_SEQPACKET, 0)},
      {"ioctl(TIOCSTI)", raw(SYS_ioctl, -1, TIOCSTI, "x")},
      {"ioctl(TIOCSTI, bit 32)",
       raw(SYS_ioctl, -1, uint64_t{1} << 32 | TIOCSTI, "x")},
      {"ioctl(TIOCSTI, bit 63)",
       raw(SYS_ioctl, -1, uint64_t{1} << 63 | TIOCSTI, "x")},
      {"ioctl(TIOCLINUX)", raw(SYS_ioctl, -1, TIOCLINUX, "x")},
  };
}

TEST(SecurityPolicyTest, AttemptsAreRefused) {
  const SecurityPolicy policy = Default();
  for (const Attempt& attempt : Attempts()) {
    EXPECT_EQ(ErrnoName(ErrnoOf(&policy, attempt.call)), "EPERM")
        << attempt.name;
  }
}

// The refusals above are the filter's: as root, without it, the kernel finds
// fault with the arguments.
TEST(SecurityPolicyTest, WithoutTheFilterTheKernelLooksAtTheArguments) {
  REQUIRE(::geteuid() == 0, "needs root");
  for (const Attempt& attempt : Attempts()) {
    const std::string name = attempt.name;
    if (name == "mount" || name == "setns" || name == "swapon" ||
        name.find("ioctl") == 0) {
      EXPECT_NE(ErrnoOf(nullptr, attempt.call), EPERM) << name;
    }
  }
}

TEST(SecurityPolicyTest, UnknownCallsAreNotImplemented) {
  const SecurityPolicy policy = Default();
  for (const long number : {467L, 999L, 100000L}) {
    EXPECT_EQ(ErrnoOf(&policy, [=] { return ::syscall(number); }), ENOSYS)
        << number;
  }
  EXPECT_EQ(ErrnoOf(&policy, [] { return ::syscall(SYS_clone3, nullptr, 0); }),
            ENOSYS);
}

TEST(SecurityPolicyTest, OrdinaryLifeGoesOn) {
  const SecurityPolicy policy = Default();
  EXPECT_EQ(ErrnoOf(&policy, [] { return ::ptrace(PTRACE_TRACEME, 0, 0, 0); }),
            0);
  EXPECT_EQ(ErrnoOf(&policy, [] { return ::personality(0xffffffff); }), 0);
  EXPECT_EQ(ErrnoOf(&policy, [] { return ::socket(AF_INET, SOCK_STREAM, 0); }),
            0);
  EXPECT_EQ(ErrnoOf(&policy, [] { return ::ioctl(-1, TIOCGWINSZ, nullptr); }),
            EBADF);
  // A thread, for which the C library tries clone3 first.
  EXPECT_EQ(ErrnoOf(&policy,
                    [] {
                      long value = -1;
                      std::thread([&] { value = 0; }).join();
                      return value;
                    }),
            0);
  EXPECT_EQ(ErrnoOf(&policy,
                    [] {
                      const pid_t child = ::fork();
                      if (child == 0) {
                        ::execl("/bin/true", "true", nullptr);
                        ::_exit(1);
                      }
                      int status = 1;
                      return ::waitpid(child, &status, 0) == child &&
                                     status == 0
                                 ? 0
                                 : -1;
                    }),
            0);
}

TEST(SecurityPolicyTest, FiltersStack) {
  const SecurityPolicy policy = Default();
  EXPECT_EQ(ErrnoOf(&policy, [&] { return LoadFilter(policy) ? 0 : -1; }), 0);
}

#if defined(__x86_64__)
long I386Call(long number, long first) {
  long result;
  // The entry of 32-bit programs, open to 64-bit ones too.
  asm volatile("int $0x80"
               : "=a"(result)
               : "a"(number), "b"(first), "c"(0), "d"(0), "S"(0), "D"(0)
               : "memory", "r8", "r9", "r10", "r11");
  return result;
}

int I386ErrnoOf(const SecurityPolicy* policy, long number, long first) {
  return ErrnoOf(policy, [=] {
    const long result = I386Call(number, first);
    if (result >= 0) return 0L;
    errno = static_cast<int>(-result);
    return -1L;
  });
}

TEST(SecurityPolicyTest, The32BitEntryIsFiltered) {
  constexpr long kGetpid = 20, kMount = 21, kReboot = 88, kUnshare = 310;
  const int status = InChild([] { return I386Call(kGetpid, 0) > 0 ? 0 : 1; });
  REQUIRE(status == 0, "the kernel runs no 32-bit programs");
  const SecurityPolicy policy = Default();
  EXPECT_EQ(I386ErrnoOf(&policy, kGetpid, 0), 0);
  EXPECT_EQ(I386ErrnoOf(&policy, kMount, 0), EPERM);
  EXPECT_EQ(I386ErrnoOf(&policy, kReboot, 0), EPERM);
  EXPECT_EQ(I386ErrnoOf(&policy, kUnshare, CLONE_NEWUSER), EPERM);
  EXPECT_EQ(I386ErrnoOf(&policy, 999, 0), ENOSYS);
}

TEST(SecurityPolicyTest, TheX32EntryIsFiltered) {
  constexpr long kX32 = 0x40000000;
  const SecurityPolicy policy = Default();
  // A kernel without x32 says ENOSYS, but the filter comes first.
  EXPECT_EQ(ErrnoOf(&policy,
                    [] { return ::syscall(kX32 | SYS_mount, 0, 0, 0, 0, 0); }),
            EPERM);
  EXPECT_EQ(
      ErrnoOf(&policy,
              [] { return ::syscall(kX32 | SYS_unshare, CLONE_NEWUSER); }),
      EPERM);
  EXPECT_EQ(ErrnoOf(&policy, [] { return ::syscall(kX32 | 999); }), ENOSYS);
}
#endif

TEST(SecurityPolicyTest, DefaultIsDockers) {
  ASSERT_OK_AND_ASSIGN(const SecurityPolicy policy, SecurityPolicy::Create({}));
  EXPECT_EQ(policy.capabilities() & ~kDockerDefault, 0u);
  EXPECT_TRUE(policy.no_new_privileges());
  EXPECT_FALSE(policy.seccomp_program().empty());
  if (policy.missing_capabilities().empty()) {
    EXPECT_EQ(policy.capabilities(), kDockerDefault);
  }
  int last = 0;
  std::ifstream("/proc/sys/kernel/cap_last_cap") >> last;
  EXPECT_EQ(policy.last_capability(), last);
}

TEST(SecurityPolicyTest, WeakeningIsWhatItSays) {
  ASSERT_OK_AND_ASSIGN(
      const auto unconfined,
      SecurityPolicy::Create({.unsafe_seccomp = SeccompUnconfined{}}));
  EXPECT_THAT(unconfined.seccomp_program(), IsEmpty());
  EXPECT_TRUE(unconfined.no_new_privileges());

  ASSERT_OK_AND_ASSIGN(const auto privileges,
                       SecurityPolicy::Create(
                           {.unsafe_new_privileges = NewPrivilegesAllowed{}}));
  EXPECT_FALSE(privileges.no_new_privileges());
  EXPECT_FALSE(privileges.seccomp_program().empty());
  EXPECT_EQ(privileges.capabilities(), Default().capabilities());

  // What the process may not do anyway stays filtered.
  ASSERT_OK_AND_ASSIGN(const auto none,
                       SecurityPolicy::Create({.drop_capabilities = {"ALL"}}));
  EXPECT_EQ(none.capabilities(), 0u);
  EXPECT_EQ(ErrnoOf(&none, [] { return ::chroot("/"); }), EPERM);
}

TEST(SecurityPolicyTest, GrantedCapabilitiesOpenTheFilter) {
  ASSERT_OK_AND_ASSIGN(
      const auto policy,
      SecurityPolicy::Create({.unsafe_add_capabilities = {"sys_admin"}}));
  REQUIRE((policy.capabilities() >> CAP_SYS_ADMIN & 1) != 0,
          "needs CAP_SYS_ADMIN");
  EXPECT_EQ(ErrnoOf(&policy, [] { return ::setns(-1, 0); }), EBADF);
  EXPECT_EQ(ErrnoOf(&policy, [] { return ::syscall(SYS_clone3, nullptr, 0); }),
            EINVAL);
  EXPECT_EQ(ErrnoOf(&policy, [] { return ::ioctl(-1, TIOCSTI, "x"); }), EPERM);
}

TEST(SecurityPolicyTest, MissingCapabilitiesAreNamed) {
  const int status = InChild([] {
    if (::prctl(PR_CAPBSET_DROP, CAP_CHOWN, 0, 0, 0) != 0) return 2;
    if (::prctl(PR_CAPBSET_DROP, CAP_NET_ADMIN, 0, 0, 0) != 0) return 2;
    const auto policy =
        SecurityPolicy::Create({.unsafe_add_capabilities = {"net_admin"}});
    if (!policy.ok()) return 3;
    const auto& missing = policy->missing_capabilities();
    const bool both = ::testing::Value(missing, Contains("CAP_CHOWN")) &&
                      ::testing::Value(missing, Contains("CAP_NET_ADMIN"));
    const uint64_t denied = uint64_t{1} << CAP_CHOWN | uint64_t{1}
                                                           << CAP_NET_ADMIN;
    return both && (policy->capabilities() & denied) == 0 ? 0 : 4;
  });
  EXPECT_EQ(status, 0) << "exit status " << WEXITSTATUS(status);
}

TEST(SecurityPolicyTest, UnknownCapabilityIsAnError) {
  EXPECT_THAT(
      SecurityPolicy::Create({.drop_capabilities = {"CAP_SYS_ADMINN"}}),
      StatusIs(absl::StatusCode::kInvalidArgument,
               HasSubstr("SecurityOptions.drop_capabilities: "
                         "\"CAP_SYS_ADMINN\" is no capability; did you mean "
                         "\"CAP_SYS_ADMIN\"?")));
}

// Making a policy changes nothing of the process that makes it.
TEST(SecurityPolicyTest, HostStaysAsItIs) {
  const auto snapshot = [] {
    std::string text;
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
      // Not SigQ, which counts what all processes of the user have pending.
      for (const char* key :
           {"Cap", "NoNewPrivs", "Seccomp", "Threads", "Umask", "SigPnd",
            "ShdPnd", "SigBlk", "SigIgn", "SigCgt", "Uid", "Gid"}) {
        if (line.rfind(key, 0) == 0) text += line + "\n";
      }
    }
    for (const auto& entry :
         std::filesystem::directory_iterator("/proc/self/fd")) {
      text += entry.path().filename().string() + " ";
    }
    return text;
  };
  const std::string before = snapshot();
  for (int i = 0; i < 10; ++i) Default();
  EXPECT_EQ(snapshot(), before);
  // Whatever has to be asked of the kernel.
  SecurityOptions options;
  options.notify_syscalls = {"mkdir"};
  options.read_only_paths = {"/usr"};
  options.tcp_bind_ports = {80};
  options.unsafe_landlock_best_effort = LandlockBestEffort{};
  for (int i = 0; i < 10; ++i) EXPECT_OK(SecurityPolicy::Create(options));
  options.selinux_label = "system_u:system_r:container_t:s0";
  SecurityPolicy::Create(options).status().IgnoreError();
  EXPECT_EQ(snapshot(), before);
}

TEST(SecurityPolicyTest, ManyThreadsMakeTheSamePolicy) {
  const SecurityPolicy reference = Default();
  std::vector<SecurityPolicy> policies;
  for (int i = 0; i < 4; ++i) policies.push_back(Default());
  std::vector<std::thread> threads;
  for (SecurityPolicy& policy : policies) {
    threads.emplace_back([&policy] { policy = Default(); });
  }
  for (std::thread& thread : threads) thread.join();
  const auto expected = reference.seccomp_program();
  for (const SecurityPolicy& policy : policies) {
    const auto program = policy.seccomp_program();
    ASSERT_EQ(program.size(), expected.size());
    EXPECT_EQ(::memcmp(program.data(), expected.data(),
                       program.size() * sizeof(BpfInstruction)),
              0);
  }
}

}  // namespace
}  // namespace caisson
