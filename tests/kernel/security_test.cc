// Security policies, seen from inside: what a program may do under them.
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <filesystem>
#include <initializer_list>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "caisson/caisson.h"
#include "lib/base/status_matchers.h"
#include "lib/security/landlock.h"
#include "lib/security/lsm.h"
#include "lib/sys/open.h"
#include "tests/support/machine.h"
#include "tests/support/test_root.h"

namespace caisson {
namespace {

using ::caisson::testing::StatusIs;
using ::caisson::testing::TestRoot;
using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::Gt;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr size_t kMaxOutput = 1 << 20;
constexpr char kProbe[] = "tests/support/syscall_probe";

constexpr uint64_t Bit(int capability) { return uint64_t{1} << capability; }

// Skips a test that this machine cannot run; fails it where all must run.
#define REQUIRE(condition, reason)            \
  if (!(condition)) {                         \
    if (::caisson::testing::TestsMustRun()) { \
      FAIL() << (reason);                     \
    }                                         \
    GTEST_SKIP() << (reason);                 \
  }                                           \
  static_assert(true)

class SecurityTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    root_ = new TestRoot;
    std::filesystem::copy_file(kProbe, root_->path() + "/bin/probe");
    ASSERT_EQ(::mkdir((root_->path() + "/data").c_str(), 0777), 0);
    ASSERT_EQ(::chmod((root_->path() + "/data").c_str(), 0777), 0);
    root_->Write("data/file", "content\n", 0666);
    auto launcher = Launcher::Create();
    ASSERT_OK(launcher);
    launcher_ = new Launcher(*std::move(launcher));
  }

  static void TearDownTestSuite() {
    EXPECT_OK(launcher_->Shutdown());
    delete launcher_;
    delete root_;
  }

  void SetUp() override { before_ = testing::TakeHostSnapshot(); }

  void TearDown() override {
    const auto after = testing::TakeHostSnapshot();
    EXPECT_EQ(after.mounts, before_.mounts);
    EXPECT_EQ(after.descriptors, before_.descriptors);
    EXPECT_EQ(after.children, before_.children);
  }

  struct Outcome {
    ExitStatus status;
    std::string output;  // both streams

    std::vector<int64_t> values() const {
      std::vector<int64_t> values;
      for (const auto line : absl::StrSplit(output, '\n', absl::SkipEmpty())) {
        values.push_back(std::stoll(std::string(line)));
      }
      return values;
    }
  };

  // A started process and its output.
  struct Started {
    std::unique_ptr<RootFs> root;
    std::unique_ptr<SecurityPolicy> policy;
    std::unique_ptr<Process> process;
    UniqueFd output;

    absl::StatusOr<Outcome> Finish() {
      Outcome outcome;
      ASSIGN_OR_RETURN(outcome.output,
                       sys::ReadAll(output.borrow(), kMaxOutput, "output"));
      ASSIGN_OR_RETURN(outcome.status, process->Wait());
      return outcome;
    }
  };

  static absl::StatusOr<Started> Start(
      const SecurityOptions& security, ProcessSpec spec,
      const RootFsOptions& options = root_->Options()) {
    Started started;
    ASSIGN_OR_RETURN(RootFs root, RootFs::Create(options));
    started.root = std::make_unique<RootFs>(std::move(root));
    ASSIGN_OR_RETURN(SecurityPolicy policy, SecurityPolicy::Create(security));
    started.policy = std::make_unique<SecurityPolicy>(std::move(policy));
    spec.root = started.root.get();
    spec.security = started.policy.get();
    int fds[2];
    if (::pipe2(fds, O_CLOEXEC) != 0) return absl::InternalError("pipe2");
    started.output.reset(fds[0]);
    UniqueFd writer(fds[1]);
    spec.out = Stdio::Inherit(writer.borrow());
    spec.err = Stdio::Inherit(writer.borrow());
    ASSIGN_OR_RETURN(Process process, launcher_->Start(spec));
    started.process = std::make_unique<Process>(std::move(process));
    return started;
  }

  static absl::StatusOr<Outcome> Run(const SecurityOptions& security,
                                     ProcessSpec spec) {
    ASSIGN_OR_RETURN(Started started, Start(security, std::move(spec)));
    return started.Finish();
  }

  static ProcessSpec Shell(const std::string& script,
                           const std::string& user = "") {
    ProcessSpec spec;
    spec.argv = {"sh", "-c", script};
    spec.user = user;
    return spec;
  }

  // Words of syscall_probe.
  static ProcessSpec Calls(std::initializer_list<std::string> words) {
    ProcessSpec spec;
    spec.argv = {"probe"};
    spec.argv.insert(spec.argv.end(), words.begin(), words.end());
    return spec;
  }

  std::string Output(const SecurityOptions& security, ProcessSpec spec) {
    auto outcome = Run(security, std::move(spec));
    EXPECT_OK(outcome);
    return outcome.ok() ? outcome->output : "";
  }

  std::vector<int64_t> Values(const SecurityOptions& security,
                              std::initializer_list<std::string> words) {
    auto outcome = Run(security, Calls(words));
    EXPECT_OK(outcome);
    return outcome.ok() ? outcome->values() : std::vector<int64_t>();
  }

  static std::string Number(long number) { return absl::StrCat(number); }

  static std::string Caps(const char* set, uint64_t value) {
    return absl::StrCat("Cap", set, ":\t", absl::Hex(value, absl::kZeroPad16),
                        "\n");
  }

  static TestRoot* root_;
  static Launcher* launcher_;
  testing::HostSnapshot before_;
};

TestRoot* SecurityTest::root_ = nullptr;
Launcher* SecurityTest::launcher_ = nullptr;

constexpr char kStatus[] = "cat /proc/self/status";

// ---- Capabilities ----------------------------------------------------------

TEST_F(SecurityTest, ExactSetsHoldForAnyUser) {
  SecurityOptions options;
  options.unsafe_capability_sets =
      CapabilitySets{.bounding = {"CHOWN", "NET_BIND_SERVICE", "KILL"},
                     .effective = {"NET_BIND_SERVICE"},
                     .permitted = {"NET_BIND_SERVICE", "KILL"},
                     .inheritable = {"NET_BIND_SERVICE", "KILL"},
                     .ambient = {"NET_BIND_SERVICE"}};
  const std::string user = Output(options, Shell(kStatus, "user"));
  const uint64_t bind = Bit(CAP_NET_BIND_SERVICE);
  const uint64_t bounding = bind | Bit(CAP_CHOWN) | Bit(CAP_KILL);
  EXPECT_THAT(user, HasSubstr(Caps("Inh", bind | Bit(CAP_KILL))));
  EXPECT_THAT(user, HasSubstr(Caps("Prm", bind)));  // what exec leaves
  EXPECT_THAT(user, HasSubstr(Caps("Eff", bind)));
  EXPECT_THAT(user, HasSubstr(Caps("Bnd", bounding)));
  EXPECT_THAT(user, HasSubstr(Caps("Amb", bind)));
  // Root keeps what it has: with no_new_privs no exec adds to it.
  const std::string root = Output(options, Shell(kStatus));
  EXPECT_THAT(root, HasSubstr(Caps("Prm", bind | Bit(CAP_KILL))));
  EXPECT_THAT(root, HasSubstr(Caps("Bnd", bounding)));
}

TEST_F(SecurityTest, AmbientCapabilitiesReachUsers) {
  SecurityOptions options;
  options.drop_capabilities = {"ALL"};
  options.unsafe_ambient_capabilities = {"NET_BIND_SERVICE"};
  const std::string status = Output(options, Shell(kStatus, "user"));
  const uint64_t bind = Bit(CAP_NET_BIND_SERVICE);
  for (const char* set : {"Inh", "Prm", "Eff", "Bnd", "Amb"}) {
    EXPECT_THAT(status, HasSubstr(Caps(set, bind)));
  }
  const std::string plain = Output({}, Shell(kStatus, "user"));
  for (const char* set : {"Inh", "Prm", "Eff", "Amb"}) {
    EXPECT_THAT(plain, HasSubstr(Caps(set, 0)));
  }
}

TEST_F(SecurityTest, SecurebitsHoldAfterExec) {
  constexpr long kGetSecurebits = 27;  // PR_GET_SECUREBITS
  SecurityOptions options;
  options.securebits = kSecbitNoRoot | kSecbitNoRootLocked |
                       kSecbitNoCapAmbientRaise | kSecbitKeepCapsLocked;
  EXPECT_THAT(Values(options, {Number(SYS_prctl), Number(kGetSecurebits)}),
              ElementsAre(options.securebits));
  // Root is nobody special then.
  EXPECT_THAT(Output(options, Shell(kStatus)), HasSubstr(Caps("Eff", 0)));
  EXPECT_THAT(Values({}, {Number(SYS_prctl), Number(kGetSecurebits)}),
              ElementsAre(0));
  // Together with ambient capabilities, which must be raised before.
  options.unsafe_ambient_capabilities = {"CHOWN"};
  const std::string user = Output(options, Shell(kStatus, "user"));
  EXPECT_THAT(user, HasSubstr(Caps("Eff", Bit(CAP_CHOWN))));
  EXPECT_THAT(user, HasSubstr(Caps("Amb", Bit(CAP_CHOWN))));
}

TEST_F(SecurityTest, NewPrivilegesDoNotLeaveCapabilitiesBehind) {
  SecurityOptions options;
  options.unsafe_new_privileges = NewPrivilegesAllowed{};
  for (const std::string user : {"", "user"}) {
    const std::string status = Output(options, Shell(kStatus, user));
    EXPECT_THAT(status, HasSubstr("NoNewPrivs:\t0"));
    EXPECT_THAT(status, HasSubstr("Seccomp:\t2"));
    EXPECT_THAT(status, HasSubstr(Caps("Bnd", 0xa80425fb)));
    EXPECT_THAT(status, HasSubstr(Caps("Eff", user.empty() ? 0xa80425fb : 0)));
    EXPECT_THAT(status, HasSubstr(Caps("Inh", 0)));
  }
  // A profile has to allow no more than what gives them up.
  SeccompProfile profile;
  profile.default_action = SeccompAction::kAllow;
  profile.syscalls = {{.names = {"prctl", "setgroups", "openat2", "setresuid",
                                 "sendmsg", "close_range", "dup3", "keyctl"},
                       .action = SeccompAction::kErrno}};
  options.unsafe_seccomp_profile = profile;
  EXPECT_THAT(Output(options, Shell(kStatus, "user")),
              AllOf(HasSubstr(Caps("Eff", 0)), HasSubstr("NoNewPrivs:\t0")));
}

TEST_F(SecurityTest, SessionKeyringIsItsOwn) {
  const auto session = {Number(SYS_keyctl), Number(KEYCTL_GET_KEYRING_ID),
                        Number(KEY_SPEC_SESSION_KEYRING), Number(0)};
  const long hosts =
      ::syscall(SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0);
  REQUIRE(hosts > 0, "the kernel has no key rings");
  SecurityOptions options;
  options.unsafe_allow_syscalls = {"keyctl"};
  const auto own = Values(options, session);
  const auto other = Values(options, session);
  EXPECT_THAT(own, ElementsAre(Gt(0)));
  EXPECT_THAT(own, Not(ElementsAre(hosts)));
  EXPECT_NE(own, other);
  options.unsafe_session_keyring = HostSessionKeyring{};
  EXPECT_THAT(Values(options, session), ElementsAre(hosts));
  // And the filter keeps it out of reach.
  EXPECT_THAT(Values({}, session), ElementsAre(-EPERM));
}

// As root of a user namespace it would count for that user, who may have 200.
TEST_F(SecurityTest, UserNamespaces) {
  NEED_KERNEL(6, 15);
  constexpr uint32_t kBase = 2147000000;
  ASSERT_OK_AND_ASSIGN(UniqueFd user,
                       launcher_->NewUserNamespace({0, kBase, 65536}));
  NamespaceOptions namespaces;
  ASSERT_OK_AND_ASSIGN(namespaces.user, sys::Duplicate(user.borrow()));
  ASSERT_OK_AND_ASSIGN(Namespace ns, Namespace::Create(std::move(namespaces)));
  RootFsOptions root = root_->Options();
  root.idmap_user_namespace = user.borrow();
  root.root_uid = root.root_gid = kBase;
  SecurityOptions options;
  options.unsafe_ambient_capabilities = {"NET_BIND_SERVICE"};
  options.notify_syscalls = {"mkdir", "mkdirat"};
  ProcessSpec spec = Shell("cat /proc/self/status; mkdir /tmp/x", "user");
  spec.namespaces = &ns;
  ASSERT_OK_AND_ASSIGN(Started started, Start(options, spec, root));
  SeccompListener listener(started.process->TakeSeccompListener());
  ASSERT_OK_AND_ASSIGN(auto call, listener.Receive());
  ASSERT_OK_AND_ASSIGN(
      const std::string keys,
      sys::ReadFileAt(BorrowedFd(AT_FDCWD), "/proc/key-users", 0, kMaxOutput));
  EXPECT_THAT(keys, HasSubstr("    0:"));
  EXPECT_THAT(keys, Not(HasSubstr(absl::StrCat(kBase, ":"))));
  EXPECT_OK(listener.Return(call.id, 0));
  ASSERT_OK_AND_ASSIGN(Outcome outcome, started.Finish());
  EXPECT_THAT(outcome.output,
              HasSubstr(Caps("Eff", Bit(CAP_NET_BIND_SERVICE))));
}

// ---- System calls ----------------------------------------------------------

TEST_F(SecurityTest, ProfilesAreCarriedOut) {
  SeccompProfile profile;
  profile.default_action = SeccompAction::kAllow;
  profile.log = true;
  profile.spec_allow = true;
  profile.wait_killable_recv = true;
  profile.syscalls = {
      {.names = {"mkdirat", "no_such_call"},
       .action = SeccompAction::kErrno,
       .errno_ret = ENOTTY},
      {.names = {"getpriority"},
       .action = SeccompAction::kErrno,
       .errno_ret = EXDEV,
       .args = {{.index = 1, .value = 7, .op = SeccompOperator::kEqual}}},
      {.names = {"getpgid"}, .action = SeccompAction::kKillProcess},
      {.names = {"getsid"}, .action = SeccompAction::kTrap}};
  SecurityOptions options;
  options.unsafe_seccomp_profile = profile;
  EXPECT_THAT(Values(options, {Number(SYS_mkdirat), "-100", "s:/tmp/x", "0755",
                               ",", Number(SYS_getpriority), "0", "7", ",",
                               Number(SYS_getpriority), "0", "0"}),
              ElementsAre(-ENOTTY, -EXDEV, 20));
  for (const long number : {SYS_getpgid, SYS_getsid}) {
    ASSERT_OK_AND_ASSIGN(Outcome outcome,
                         Run(options, Calls({Number(number)})));
    EXPECT_EQ(outcome.status.signal, SIGSYS);
  }
}

TEST_F(SecurityTest, IntentsHold) {
  SecurityOptions options;
  options.no_network = true;
  options.no_new_processes = true;
  options.no_debugging = true;
  options.deny_syscalls = {"getpriority"};
  EXPECT_THAT(
      Values(options, {Number(SYS_socket),
                       Number(AF_INET),
                       "1",
                       "0",
                       ",",
                       Number(SYS_socket),
                       Number(AF_NETLINK),
                       "3",
                       "0",
                       ",",
                       Number(SYS_socket),
                       Number(AF_UNIX),
                       "1",
                       "0",
                       ",",
                       Number(SYS_clone),
                       Number(SIGCHLD),
                       "0",
                       "0",
                       "0",
                       "0",
                       ",",
                       Number(SYS_clone3),
                       "0",
                       "0",
                       ",",
                       Number(SYS_ptrace),
                       "0",
                       ",",
                       Number(SYS_getpriority),
                       "0",
                       "0"}),
      ElementsAre(-EPERM, -EPERM, Gt(2), -EPERM, -ENOSYS, -EPERM, -EPERM));
  EXPECT_THAT(Values({}, {Number(SYS_socket), Number(AF_INET), "1", "0", ",",
                          Number(SYS_ptrace), "0", ",", Number(SYS_getpriority),
                          "0", "0"}),
              ElementsAre(Gt(2), 0, 20));
}

TEST_F(SecurityTest, ViolationsCanEndTheProcess) {
  SecurityOptions options;
  options.kill_on_violation = true;
  ASSERT_OK_AND_ASSIGN(Outcome outcome,
                       Run(options, Calls({Number(SYS_unshare), "0"})));
  EXPECT_EQ(outcome.status.signal, SIGSYS);
  // What a C library tries and does without is no violation.
  EXPECT_THAT(Values(options, {Number(SYS_clone3), "0", "0", ",", "999"}),
              ElementsAre(-ENOSYS, -ENOSYS));
}

TEST_F(SecurityTest, LogModeRefusesNothing) {
  const auto calls = {Number(SYS_keyctl),
                      Number(KEYCTL_GET_KEYRING_ID),
                      Number(KEY_SPEC_SESSION_KEYRING),
                      std::string("0"),
                      std::string(","),
                      Number(SYS_unshare),
                      std::string("0")};
  EXPECT_THAT(Values({}, calls), ElementsAre(-EPERM, -EPERM));
  SecurityOptions options;
  options.unsafe_seccomp_log_only = SeccompLogOnly{};
  EXPECT_THAT(Values(options, calls), ElementsAre(Gt(0), 0));
  EXPECT_THAT(Output(options, Shell(kStatus)), HasSubstr("Seccomp:\t2"));
}

// ---- The host answers ------------------------------------------------------

TEST_F(SecurityTest, HostAnswersSystemCalls) {
  SecurityOptions options;
  options.notify_syscalls = {"mkdirat", "mount"};
  const std::string mkdir = Number(SYS_mkdirat);
  ASSERT_OK_AND_ASSIGN(Started started,
                       Start(options, Calls({mkdir,
                                             "-100",
                                             "s:/data/returned",
                                             "0755",
                                             ",",  //
                                             mkdir,
                                             "-100",
                                             "s:/data/failed",
                                             "0755",
                                             ",",  //
                                             mkdir,
                                             "-100",
                                             "s:/data/continued",
                                             "0755",
                                             ",",
                                             Number(SYS_mount),
                                             "s:none",
                                             "s:/mnt",
                                             "s:tmpfs",
                                             "0",
                                             "0",
                                             ",",
                                             Number(SYS_fcntl),
                                             "$",
                                             Number(F_GETFD),
                                             ",",
                                             Number(SYS_faccessat),
                                             "-100",
                                             "s:/data/returned",
                                             "0",
                                             ",",
                                             Number(SYS_faccessat),
                                             "-100",
                                             "s:/data/continued",
                                             "0"})));
  SeccompListener listener(started.process->TakeSeccompListener());
  EXPECT_FALSE(started.process->TakeSeccompListener().valid());

  ASSERT_OK_AND_ASSIGN(auto call, listener.Receive());
  EXPECT_EQ(call.name, "mkdirat");
  EXPECT_EQ(call.pid, started.process->pid());
  EXPECT_EQ(call.audit_arch, NativeAuditArch());
  EXPECT_EQ(static_cast<int>(call.args[0]), AT_FDCWD);
  EXPECT_EQ(call.args[2], 0755u);
  ASSERT_OK_AND_ASSIGN(const std::string path,
                       listener.ReadString(call, call.args[1]));
  EXPECT_EQ(path, "/data/returned");
  EXPECT_THAT(listener.ReadString(call, call.args[1], 5),
              StatusIs(absl::StatusCode::kOutOfRange, HasSubstr("mkdirat")));
  EXPECT_THAT(listener.ReadMemory(call, 8, 8).status().ToString(),
              HasSubstr("process_vm_readv"));
  EXPECT_THAT(started.policy->ExplainViolation(call.event()),
              HasSubstr("mkdirat: handed to the host (notify_syscalls)"));
  ASSERT_OK_AND_ASSIGN(const bool valid, listener.IsValid(call.id));
  EXPECT_TRUE(valid);
  EXPECT_OK(listener.Return(call.id, 0));
  EXPECT_THAT(listener.Return(call.id, 0),
              StatusIs(absl::StatusCode::kNotFound, HasSubstr("answer")));

  ASSERT_OK_AND_ASSIGN(call, listener.Receive());
  EXPECT_THAT(listener.Fail(call.id, 0),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("errno")));
  EXPECT_OK(listener.Fail(call.id, EXDEV));
  ASSERT_OK_AND_ASSIGN(call, listener.Receive());
  EXPECT_OK(listener.UnsafeContinue(call.id));

  ASSERT_OK_AND_ASSIGN(call, listener.Receive());
  EXPECT_EQ(call.name, "mount");
  UniqueFd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  ASSERT_OK_AND_ASSIGN(const int number,
                       listener.AddFd(call.id, null.borrow(), {.number = 77}));
  EXPECT_EQ(number, 77);

  EXPECT_THAT(listener.Receive(), StatusIs(absl::StatusCode::kUnavailable,
                                           HasSubstr("no process")));
  ASSERT_OK_AND_ASSIGN(Outcome outcome, started.Finish());
  EXPECT_THAT(outcome.values(),
              ElementsAre(0, -EXDEV, 0, 77, FD_CLOEXEC, -ENOENT, 0));
}

TEST_F(SecurityTest, ListenerSurvivesItsCallersAndTheyIt) {
  SecurityOptions options;
  options.notify_syscalls = {"mkdirat"};
  const auto calls = Calls({Number(SYS_mkdirat), "-100", "s:/data/x", "0755"});
  {
    // The caller dies while it waits.
    ASSERT_OK_AND_ASSIGN(Started started, Start(options, calls));
    SeccompListener listener(started.process->TakeSeccompListener());
    ASSERT_OK_AND_ASSIGN(auto call, listener.Receive());
    EXPECT_THAT(listener.Receive(absl::Now() + absl::Milliseconds(5)),
                StatusIs(absl::StatusCode::kDeadlineExceeded,
                         HasSubstr("no system call")));
    ASSERT_OK(started.process->Signal(SIGKILL));
    ASSERT_OK(started.Finish());
    ASSERT_OK_AND_ASSIGN(const bool valid, listener.IsValid(call.id));
    EXPECT_FALSE(valid);
    EXPECT_THAT(listener.Return(call.id, 0),
                StatusIs(absl::StatusCode::kNotFound, HasSubstr("gone")));
    EXPECT_THAT(listener.ReadString(call, call.args[1]),
                StatusIs(absl::StatusCode::kNotFound, HasSubstr("gone")));
  }
  {
    // The listener is closed while a caller waits.
    ASSERT_OK_AND_ASSIGN(Started started, Start(options, calls));
    {
      SeccompListener listener(started.process->TakeSeccompListener());
      ASSERT_OK(listener.Receive());
    }
    ASSERT_OK_AND_ASSIGN(Outcome outcome, started.Finish());
    EXPECT_THAT(outcome.values(), ElementsAre(-ENOSYS));
  }
}

TEST_F(SecurityTest, NoDescriptorOfTheListenerIsInherited) {
  SecurityOptions options;
  options.notify_syscalls = {"mkdirat"};
  ProcessSpec list;
  list.argv = {"ls", "/proc/self/fd"};
  EXPECT_EQ(Output(options, std::move(list)), "0\n1\n2\n3\n");
  // A profile may ask, too.
  SeccompProfile profile;
  profile.default_action = SeccompAction::kAllow;
  profile.wait_killable_recv = true;
  profile.syscalls = {{.names = {"mkdirat"}, .action = SeccompAction::kNotify}};
  SecurityOptions by_profile;
  by_profile.unsafe_seccomp_profile = profile;
  by_profile.unsafe_new_privileges = NewPrivilegesAllowed{};
  ASSERT_OK_AND_ASSIGN(Started started,
                       Start(by_profile, Calls({Number(SYS_mkdirat), "-100",
                                                "s:/data/x", "0755"})));
  SeccompListener listener(started.process->TakeSeccompListener());
  ASSERT_OK_AND_ASSIGN(auto call, listener.Receive());
  EXPECT_OK(listener.Fail(call.id, EROFS));
  ASSERT_OK_AND_ASSIGN(Outcome outcome, started.Finish());
  EXPECT_THAT(outcome.values(), ElementsAre(-EROFS));
}

// ---- Landlock --------------------------------------------------------------

class LandlockTest : public SecurityTest {
 protected:
  static int abi() { return security::LandlockAbi(); }
};

TEST_F(LandlockTest, OnlyListedPathsCanBeRead) {
  REQUIRE(abi() >= 3, "needs Landlock of Linux 6.2");
  SecurityOptions options;
  options.read_only_paths = {"/bin"};
  const std::string output = Output(
      options, Shell("cat /etc/passwd; ls /data; echo x > /bin/new; "
                     "echo x > /tmp/new; ls /bin/true; cat /proc/version; "
                     "echo done"));
  EXPECT_THAT(output, HasSubstr("/etc/passwd': Permission denied"));
  EXPECT_THAT(output, HasSubstr("/data': Permission denied"));
  EXPECT_THAT(output, HasSubstr("/bin/new: Permission denied"));
  EXPECT_THAT(output, HasSubstr("/tmp/new: Permission denied"));
  EXPECT_THAT(output, HasSubstr("/proc/version': Permission denied"));
  EXPECT_THAT(output, HasSubstr("\n/bin/true\n"));
  EXPECT_THAT(output, HasSubstr("done"));
  EXPECT_THAT(Output({}, Shell("cat /etc/passwd")), HasSubstr("root:x:0:0"));
}

TEST_F(LandlockTest, EachAccessIsWhatItSays) {
  REQUIRE(abi() >= 3, "needs Landlock of Linux 6.2");
  SecurityOptions options;
  options.read_only_paths = {"/bin"};
  options.writable_paths = {"/tmp"};
  options.path_rules = {{.path = "/data", .access = PathAccess::kWrite},
                        {.path = "/etc/passwd", .access = PathAccess::kRead},
                        {.path = "/nowhere", .if_exists = true},
                        {.path = "/dev/null", .access = PathAccess::kWrite}};
  const std::string output = Output(
      options,
      Shell("cat /etc/passwd | head -n 1; cat /etc/group; "
            "echo more >> /data/file && cat /data/file; "
            "cp /bin/busybox /data/echo 2>/dev/null || cat /bin/busybox > "
            "/data/echo; chmod 755 /data/echo; /data/echo executed; "
            "cat /bin/busybox > /tmp/echo; chmod 755 /tmp/echo; "
            "/tmp/echo fine > /dev/stdout; echo lost > /dev/null; "
            "rm /data/file && echo removed; echo x >> /etc/passwd"));
  EXPECT_THAT(output, HasSubstr("root:x:0:0:root:/root:/bin/sh\n"));
  EXPECT_THAT(output, HasSubstr("/etc/group': Permission denied"));
  EXPECT_THAT(output, HasSubstr("content\nmore\n"));
  EXPECT_THAT(output, HasSubstr("/data/echo: Permission denied"));
  EXPECT_THAT(output, Not(HasSubstr("executed\n")));
  EXPECT_THAT(output, HasSubstr("removed\n"));
  EXPECT_THAT(output, HasSubstr("/etc/passwd: Permission denied"));
}

// What is mounted in the child is a place of its own.
TEST_F(LandlockTest, RulesReachIntoMounts) {
  REQUIRE(abi() >= 3, "needs Landlock of Linux 6.2");
  SecurityOptions options;
  options.read_only_paths = {"/bin", "/proc"};
  options.writable_paths = {"/dev/shm"};
  const std::string output =
      Output(options, Shell("head -n 1 /proc/self/status; echo x > /dev/shm/x "
                            "&& cat /dev/shm/x; ls /sys; "
                            "echo 1 > /proc/self/oom_score_adj"));
  EXPECT_THAT(output, HasSubstr("Name:\thead\nx\n"));
  EXPECT_THAT(output, HasSubstr("/sys': Permission denied"));
  EXPECT_THAT(output, HasSubstr("oom_score_adj: Permission denied"));
}

TEST_F(LandlockTest, WorksForUsersAndWithoutNoNewPrivs) {
  REQUIRE(abi() >= 3, "needs Landlock of Linux 6.2");
  SecurityOptions options;
  options.read_only_paths = {"/bin", "/proc"};
  options.unsafe_new_privileges = NewPrivilegesAllowed{};
  const std::string output =
      Output(options, Shell("cat /etc/passwd; cat /proc/self/status", "user"));
  EXPECT_THAT(output, HasSubstr("/etc/passwd': Permission denied"));
  EXPECT_THAT(output, HasSubstr(Caps("Prm", 0)));
  EXPECT_THAT(output, HasSubstr("NoNewPrivs:\t0"));
}

TEST_F(LandlockTest, MissingPathIsNamed) {
  REQUIRE(abi() >= 3, "needs Landlock of Linux 6.2");
  SecurityOptions options;
  options.read_only_paths = {"/bin", "/no/such"};
  EXPECT_THAT(Run(options, Shell("true")),
              StatusIs(absl::StatusCode::kNotFound,
                       AllOf(HasSubstr("open(\"/no/such\"): ENOENT"),
                             HasSubstr("Landlock rule"))));
  // The program itself has to be executable.
  options.read_only_paths = {"/data"};
  EXPECT_THAT(Run(options, Shell("true")),
              StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr("sh")));
}

std::string Loopback(uint16_t port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return absl::StrCat(
      "h:", absl::BytesToHexString(absl::string_view(
                reinterpret_cast<const char*>(&address), sizeof(address))));
}

TEST_F(LandlockTest, OnlyListedPorts) {
  REQUIRE(abi() >= 4, "needs Landlock of Linux 6.7");
  SecurityOptions options;
  options.tcp_bind_ports = {8080};
  options.tcp_connect_ports = std::vector<uint16_t>{};
  const auto attempt = [](long call, uint16_t port) {
    return std::vector<std::string>{Number(SYS_socket),
                                    Number(AF_INET),
                                    Number(SOCK_STREAM),
                                    "0",
                                    ",",
                                    Number(call),
                                    "$",
                                    Loopback(port),
                                    "16"};
  };
  const auto result = [&](const SecurityOptions& security, long call,
                          uint16_t port) {
    ProcessSpec spec = Calls({});
    for (const std::string& word : attempt(call, port)) {
      spec.argv.push_back(word);
    }
    auto outcome = Run(security, std::move(spec));
    EXPECT_OK(outcome);
    return outcome.ok() ? outcome->values().back() : -1;
  };
  EXPECT_EQ(result(options, SYS_bind, 8080), 0);
  EXPECT_EQ(result(options, SYS_bind, 8081), -EACCES);
  EXPECT_EQ(result(options, SYS_connect, 8080), -EACCES);
  EXPECT_EQ(result({}, SYS_bind, 8081), 0);
  EXPECT_EQ(result({}, SYS_connect, 8080), -ECONNREFUSED);
}

TEST_F(LandlockTest, AbstractSocketsOfOthersAreOutOfReach) {
  REQUIRE(abi() >= 6, "needs Landlock of Linux 6.12");
  const std::string name = absl::StrCat("caisson-landlock-", ::getpid());
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  name.copy(address.sun_path + 1, sizeof(address.sun_path) - 1);
  const auto length =
      static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  UniqueFd server(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(::bind(server.get(), reinterpret_cast<sockaddr*>(&address), length),
            0);
  ASSERT_EQ(::listen(server.get(), 4), 0);
  ASSERT_OK_AND_ASSIGN(
      Namespace shared,
      Namespace::Create({.net = NamespaceSource::ShareWithHost()}));
  ProcessSpec spec =
      Calls({Number(SYS_socket), Number(AF_UNIX), Number(SOCK_STREAM), "0", ",",
             Number(SYS_connect), "$",
             absl::StrCat(
                 "h:", absl::BytesToHexString(absl::string_view(
                           reinterpret_cast<const char*>(&address), length))),
             Number(length)});
  spec.namespaces = &shared;
  ASSERT_OK_AND_ASSIGN(Outcome open, Run({}, spec));
  EXPECT_EQ(open.values().back(), 0);
  SecurityOptions options;
  options.scope_abstract_sockets = true;
  options.scope_signals = true;
  ASSERT_OK_AND_ASSIGN(Outcome scoped, Run(options, spec));
  EXPECT_EQ(scoped.values().back(), -EPERM);
  // Signals among themselves still arrive.
  EXPECT_EQ(Output(options, Shell("sleep 100 & kill $!; wait $!; echo $?")),
            "Terminated\n143\n");
}

// ---- Security modules ------------------------------------------------------

TEST_F(SecurityTest, LabelsNeedTheirModule) {
  SecurityOptions options;
  options.apparmor_profile = "caisson-no-such-profile";
  const bool apparmor = security::RequireLsm("", "apparmor").ok();
  EXPECT_THAT(Run(options, Shell("true")),
              apparmor ? StatusIs(absl::StatusCode::kNotFound,
                                  HasSubstr("the profile is not loaded"))
                       : StatusIs(absl::StatusCode::kFailedPrecondition,
                                  HasSubstr("/sys/kernel/security/lsm")));
  options.apparmor_profile = "unconfined";
  EXPECT_OK(Run(options, Shell("true")));
  options.apparmor_profile.clear();
  options.selinux_label = "system_u:system_r:container_t:s0";
  if (!security::RequireLsm("", "selinux").ok()) {
    EXPECT_THAT(Run(options, Shell("true")),
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         HasSubstr("the security module selinux is not")));
  }
}

}  // namespace
}  // namespace caisson
