// A snapshot that sees nothing proves nothing: each kind of change shows.
#include "tests/host_safety/host_state.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace caisson::testing {
namespace {

using ::testing::HasSubstr;

// Makes the change in a process of its own and looks for it there.
bool Shows(const std::function<void()>& change, const std::string& what) {
  const pid_t child = fork();
  if (child == 0) {
    const HostState before = TakeHostState();
    change();
    const std::string seen = Differences(before, TakeHostState());
    _exit(seen.find(what) == std::string::npos ? 1 : 0);
  }
  int status = -1;
  return waitpid(child, &status, 0) == child && status == 0;
}

TEST(HostStateTest, QuietProcessIsTheSame) {
  const HostState before = TakeHostState();
  EXPECT_EQ(Differences(before, TakeHostState()), "");
  EXPECT_THAT(Differences({}, before), HasSubstr("fd 0: new"));
  EXPECT_THAT(Differences(before, {}), HasSubstr("is gone"));
}

TEST(HostStateTest, EveryChangeShows) {
  EXPECT_TRUE(Shows([] { umask(0123); }, "Umask"));
  EXPECT_TRUE(Shows([] { (void)!chdir("/proc"); }, "cwd"));
  EXPECT_TRUE(Shows(
      [] {
        const rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        const rlimit few = {64, 64};
        setrlimit(RLIMIT_NOFILE, &few);
      },
      "rlimit 7"));
  EXPECT_TRUE(Shows([] { signal(SIGCHLD, SIG_IGN); }, "handler of signal 17"));
  EXPECT_TRUE(Shows(
      [] {
        sigset_t all;
        sigfillset(&all);
        sigprocmask(SIG_BLOCK, &all, nullptr);
      },
      "SigBlk"));
  EXPECT_TRUE(Shows([] { prctl(PR_SET_DUMPABLE, 0); }, "dumpable"));
  EXPECT_TRUE(Shows([] { prctl(PR_SET_CHILD_SUBREAPER, 1); }, "subreaper"));
  EXPECT_TRUE(
      Shows([] { prctl(PR_SET_PDEATHSIG, SIGTERM); }, "parent death signal"));
  EXPECT_TRUE(
      Shows([] { prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); }, "NoNewPrivs"));
  EXPECT_TRUE(Shows([] { setenv("CAISSON_NEW", "1", 1); }, "environment"));
  EXPECT_TRUE(Shows(
                  [] {
                    setsid();
                    setpgid(0, 0);
                  },
                  "process group") ||
              Shows([] { setsid(); }, "session"));
  EXPECT_TRUE(Shows([] { (void)!nice(1); }, "nice"));
  EXPECT_TRUE(Shows([] { (void)!open("/dev/null", O_RDONLY); }, "fd "));
  EXPECT_TRUE(Shows([] { fcntl(0, F_SETFD, FD_CLOEXEC); }, "fd 0"));
  EXPECT_TRUE(Shows(
      [] {
        if (fork() == 0) _exit(0);
      },
      "children"));
  EXPECT_TRUE(Shows([] { personality(ADDR_NO_RANDOMIZE); }, "personality"));
}

}  // namespace
}  // namespace caisson::testing
