// Programs and files that attack from inside of a container.
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "caisson/caisson.h"
#include "tests/hostile/hostile_test.h"
#include "tests/support/machine.h"

namespace caisson {
namespace {

using ::caisson::testing::Plant;
using ::caisson::testing::StatusIs;
using ::caisson::testing::TestRoot;
using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr char kForever[] = "echo ready; while :; do sleep 1000; done";

class HostileProgramsTest : public testing::HostileTest {
 protected:
  static void SetUpTestSuite() {
    HostileTest::SetUpTestSuite();
    std::error_code error;
    std::filesystem::copy_file("tests/support/syscall_probe",
                               root_->path() + "/bin/probe", error);
    ASSERT_FALSE(error) << error.message();
  }

  // A container that may do whatever root may, but for the namespaces it is in.
  static SecurityPolicy Everything() {
    auto policy =
        SecurityPolicy::Create({.unsafe_add_capabilities = {"ALL"},
                                .unsafe_seccomp = SeccompUnconfined{}});
    EXPECT_OK(policy);
    return *std::move(policy);
  }

  // System calls in the words of syscall_probe, and what they return.
  static ProcessSpec Calls(const std::string& words) {
    ProcessSpec spec;
    spec.argv = absl::StrSplit("probe " + words, ' ');
    return spec;
  }
};

// CVE-2019-5736: a container that may do anything to the processes in it writes
// to whatever executes there, and keeps it open until nobody executes it.
TEST_F(HostileProgramsTest, ExecutablesCannotBeOverwritten) {
  const SecurityPolicy policy = Everything();
  root_->Write("bin/self", "#!/proc/self/exe\n", 0755);
  ProcessSpec attack = Attack({"overwrite"});
  attack.security = &policy;
  ASSERT_OK_AND_ASSIGN(Running container, StartUntilOutput(attack));
  for (int i = 0; i < testing::Repetitions(60); ++i) {
    // Its own files may be busy then.
    ProcessSpec spec = Shell("exit 5");
    spec.security = &policy;
    const auto shell = Exec(*container.process, spec);
    if (shell.ok()) {
      EXPECT_EQ(shell->status.code, 5);
    } else {
      EXPECT_THAT(std::string(shell.status().message()),
                  HasSubstr("execve(\"/bin/sh\"): ETXTBSY"));
    }
    // The tricks of the first exploit: the program, or the interpreter of a
    // script, is whatever executes it.
    for (const char* program : {"/proc/self/exe", "self"}) {
      spec.argv = {program};
      const auto outcome = Exec(*container.process, spec);
      EXPECT_FALSE(outcome.ok() && outcome->status.success()) << program;
    }
  }
  const std::string seen = KillAndRead(container);
  EXPECT_THAT(seen, HasSubstr("held /bin/busybox\n"));
  for (const absl::string_view line :
       absl::StrSplit(seen, '\n', absl::SkipEmpty())) {
    if (!absl::StartsWith(line, "wrote ")) continue;
    EXPECT_THAT(std::string(line), StartsWith("wrote /bin/"));
  }
  // The launcher's helper is what it was.
  EXPECT_EQ(Output("echo intact"), "intact\n");
  ASSERT_EQ(::unlink((root_->path() + "/bin/self").c_str()), 0);
}

// CVE-2017-5226, CVE-2016-10124, CVE-2019-10063: a terminal of the host is the
// standard input; no byte may be put into it, whatever the upper bits are.
TEST_F(HostileProgramsTest, NothingIsTypedIntoATerminal) {
  const UniqueFd master(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
  ASSERT_TRUE(master.valid());
  ASSERT_EQ(::unlockpt(master.get()), 0);
  const UniqueFd slave(::ioctl(master.get(), TIOCGPTPEER,
                               O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC));
  ASSERT_TRUE(slave.valid());
  const std::string attack = absl::StrCat(
      SYS_ioctl, " 0 ", TIOCSCTTY, " 0 , ", SYS_ioctl, " 0 ", TIOCSTI,
      " s:x , ", SYS_ioctl, " 0 ", (uint64_t{1} << 32) | TIOCSTI, " s:x , ",
      SYS_ioctl, " 0 ", (uint64_t{1} << 63) | TIOCSTI, " s:x , ", SYS_ioctl,
      " 0 ", TIOCLINUX, " h:03");
  for (const bool session : {true, false}) {
    ProcessSpec spec = Calls(attack);
    spec.in = Stdio::Inherit(slave.borrow());
    spec.new_session = session;
    ASSERT_OK_AND_ASSIGN(Outcome outcome, Run(spec));
    const std::vector<std::string> results =
        absl::StrSplit(outcome.output, '\n', absl::SkipEmpty());
    ASSERT_EQ(results.size(), 5u) << outcome.output;
    for (size_t i = 1; i < results.size(); ++i) {
      EXPECT_EQ(results[i], absl::StrCat(-EPERM)) << i;
    }
    char byte;
    EXPECT_EQ(::read(slave.get(), &byte, 1), -1);
    EXPECT_EQ(errno, EAGAIN);
  }
  // The session that a process is in by default has no terminal at all.
  ProcessSpec spec = Shell("cat /dev/tty");
  spec.new_session = false;
  ASSERT_OK_AND_ASSIGN(Outcome outcome, Run(spec));
  EXPECT_THAT(outcome.output, HasSubstr("No such device or address"));
}

// CVE-2014-8989: a file that a group may not read stays so, also in a user
// namespace that the process makes for itself. (Without privileges:
// StartTest.GroupsThatCannotBeGivenAreAnErrorOnlyIfAskedFor in tests/rootless.)
TEST_F(HostileProgramsTest, GroupsAreNotDropped) {
  ASSERT_OK_AND_ASSIGN(
      SecurityPolicy unconfined,
      SecurityPolicy::Create({.unsafe_seccomp = SeccompUnconfined{}}));
  const std::string setgroups = absl::StrCat(SYS_setgroups, " 0 0");
  const std::string attack = absl::StrCat(
      SYS_unshare, " 0x10000000 , ", SYS_open, " s:/proc/self/gid_map 1 , ",
      SYS_write, " $ h:3020313030312031 8 , ", setgroups);
  ProcessSpec spec = Calls(setgroups);
  spec.user = "user";
  ASSERT_OK_AND_ASSIGN(Outcome outcome, Run(spec));
  EXPECT_EQ(outcome.output, absl::StrCat(-EPERM, "\n"));
  spec = Calls(attack);
  spec.user = "user";
  ASSERT_OK_AND_ASSIGN(outcome, Run(spec));
  EXPECT_THAT(outcome.output, AllOf(StartsWith(absl::StrCat(-EPERM, "\n")),
                                    HasSubstr(absl::StrCat("\n", -EPERM))));
  spec.security = &unconfined;
  ASSERT_OK_AND_ASSIGN(outcome, Run(spec));
  const std::vector<std::string> results = absl::StrSplit(outcome.output, '\n');
  ASSERT_GE(results.size(), 4u) << outcome.output;
  EXPECT_EQ(results[0], "0");
  EXPECT_EQ(results[2], absl::StrCat(-EPERM));
  EXPECT_EQ(results[3], absl::StrCat(-EPERM));
}

// CVE-2026-30892 (crun): what is no user must not become one, above all not 0.
TEST_F(HostileProgramsTest, UsersThatAreNone) {
  ASSERT_OK_AND_ASSIGN(Running container, StartUntilOutput(Shell(kForever)));
  for (const char* user :
       {"1000abc", "-1", "4294967295", "4294967296", "18446744073709551616",
        "0x0", " 0", "0 ", "+0", "1e3", "user:-1", "user:0x0", "user:users ",
        "user:4294967295", "0\n"}) {
    ProcessSpec spec = Shell("id");
    spec.user = user;
    for (const absl::Status& status :
         {Run(spec).status(), Exec(*container.process, spec).status()}) {
      EXPECT_THAT(status.code(), AnyOf(absl::StatusCode::kInvalidArgument,
                                       absl::StatusCode::kNotFound))
          << user << ": " << status;
      EXPECT_THAT(std::string(status.message()),
                  AnyOf(HasSubstr("user"), HasSubstr("group")));
    }
  }
}

// The same by way of the image's files. (Every malformed line:
// HostileUserFilesTest in lib/launcher/user_test.cc.)
TEST_F(HostileProgramsTest, AccountFilesThatLie) {
  ProcessSpec spec = Shell("id -u");
  spec.user = "web";
  for (const char* line :
       {"web:x::0::/:", "web:x:4294967296:0::/:", "web:x:-1:0::/:",
        "web:x:abc:0::/:", "+web:x:0:0::/:", "web:x:0x21:0::/:", "web", ""}) {
    const TestRoot image;
    Plant(image.path(), {absl::StrCat("etc/passwd=", line, "\n")});
    EXPECT_THAT(Run(spec, image.Options()).status(),
                StatusIs(absl::StatusCode::kNotFound, HasSubstr("\"web\"")))
        << line;
  }
  const TestRoot image;
  const std::string passwd = image.path() + "/etc/passwd";
  Plant(image.path(), {"etc/passwd/"});
  EXPECT_FALSE(Run(spec, image.Options()).ok());
  ASSERT_EQ(::rmdir(passwd.c_str()), 0);
  ASSERT_EQ(::mkfifo(passwd.c_str(), 0666), 0);  // must not block
  EXPECT_THAT(Run(spec, image.Options()).status(),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("/etc/passwd")));
  Plant(image.path(), {"etc/passwd="});
  ASSERT_EQ(::truncate(passwd.c_str(), off_t{1} << 36), 0);
  EXPECT_THAT(std::string(Run(spec, image.Options()).status().message()),
              HasSubstr("/etc/passwd"));
}

// CVE-2023-25809: a container that shares the host's cgroup namespace sees no
// group of the host that it could write to.
TEST_F(HostileProgramsTest, ControlGroupsOfTheHost) {
  const SecurityPolicy policy = Everything();
  NamespaceOptions options;
  options.cgroup = NamespaceSource::ShareWithHost();
  ASSERT_OK_AND_ASSIGN(Namespace ns, Namespace::Create(std::move(options)));
  ProcessSpec spec = Shell(
      "find /sys/fs/cgroup -name cgroup.procs -o -name release_agent; "
      "mkdir /sys/fs/cgroup/hostile && echo broken");
  spec.namespaces = &ns;
  ASSERT_OK_AND_ASSIGN(Outcome outcome, Run(spec));
  EXPECT_THAT(outcome.output,
              AllOf(Not(HasSubstr("broken")), Not(HasSubstr("release_agent")),
                    Not(HasSubstr("cgroup.procs"))));
}

// Ten thousand mounts in one container: others start, this one can still be
// entered and mounted into, and its end takes them all. (Ten thousand below a
// source: BindOptionsTest.TenThousandMountsBelowTheSource in lib/rootfs.)
TEST_F(HostileProgramsTest, TenThousandMounts) {
  const SecurityPolicy policy = Everything();
  ProcessSpec attack = Attack({"mounts", "10000"});
  attack.security = &policy;
  ASSERT_OK_AND_ASSIGN(Running container, StartUntilOutput(attack));
  EXPECT_EQ(ExecOutput(*container.process,
                       "n=$(wc -l < /proc/mounts); [ $n -gt 10000 ] && echo "
                       "many"),
            "many\n");
  ASSERT_OK(launcher_->AddMount(*container.process,
                                TmpfsMount{.destination = "/added"}));
  ASSERT_OK(launcher_->RemoveMount(*container.process, "/added"));
  EXPECT_EQ(Output("n=$(wc -l < /proc/mounts); [ $n -lt 100 ] && echo few"),
            "few\n");
  EXPECT_EQ(KillAndRead(container), "");
}

}  // namespace
}  // namespace caisson
