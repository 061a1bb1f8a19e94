#include "lib/sys/helper_program.h"

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/status_matchers.h"

namespace caisson::sys {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(HelperProgramTest, SuccessIsOk) {
  EXPECT_OK(RunHelperProgram({"/bin/sh", "-c", "exit 0"}));
}

TEST(HelperProgramTest, FailureHasExitCodeAndOutput) {
  EXPECT_THAT(
      RunHelperProgram({"/bin/sh", "-c", "echo one; echo two >&2; exit 3"}),
      StatusIs(absl::StatusCode::kPermissionDenied,
               AllOf(HasSubstr("exited with code 3"), HasSubstr("one\\ntwo"))));
  EXPECT_THAT(RunHelperProgram({"/bin/sh", "-c", "kill -9 $$"}),
              StatusIs(absl::StatusCode::kPermissionDenied,
                       HasSubstr("killed by signal 9")));
}

TEST(HelperProgramTest, MissingProgramIsNamed) {
  EXPECT_THAT(RunHelperProgram({"/nonexistent/program"}),
              StatusIs(absl::StatusCode::kNotFound,
                       HasSubstr("\"/nonexistent/program\"")));
}

TEST(HelperProgramTest, ProgramGetsNothingOfTheHost) {
  ASSERT_EQ(::setenv("CAISSON_SECRET", "x", 1), 0);
  EXPECT_OK(RunHelperProgram(
      {"/bin/sh", "-c",
       "test -z \"$CAISSON_SECRET\" && test \"$(ls /proc/self/fd | wc -l)\" "
       "-le 4 && ! read line"}));
}

// The status arrives although the host ignores its children, and the host sees
// neither the program nor the process in between.
TEST(HelperProgramTest, HostSeesNoChild) {
  const pid_t host = ::fork();
  if (host == 0) {
    ::signal(SIGCHLD, SIG_IGN);
    const int dumpable = ::prctl(PR_GET_DUMPABLE, 0, 0, 0, 0);
    if (RunHelperProgram({"/bin/sh", "-c", "exit 7"})
            .message()
            .find("code 7") == std::string::npos) {
      ::_exit(1);
    }
    if (::waitpid(-1, nullptr, WNOHANG | __WALL) != -1 || errno != ECHILD) {
      ::_exit(2);
    }
    if (::prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) != dumpable) ::_exit(3);
    sigset_t blocked;
    ::pthread_sigmask(SIG_SETMASK, nullptr, &blocked);
    ::_exit(::sigisemptyset(&blocked) != 0 ? 0 : 4);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(host, &status, 0), host);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace caisson::sys
