// Runs tests in a network namespace of their own.
#ifndef CAISSON_LIB_SYS_NET_NAMESPACE_TEST_UTIL_H_
#define CAISSON_LIB_SYS_NET_NAMESPACE_TEST_UTIL_H_

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>

#include "gtest/gtest.h"
#include "lib/base/status_matchers.h"
#include "lib/sys/netlink.h"

namespace caisson::sys {

class NetNamespaceTest : public ::testing::Test {
 protected:
  // Calls `body` in a forked child, with a socket of `protocol` in a new
  // network namespace. Where that is not permitted the test is skipped, or with
  // CAISSON_TESTS_MUST_RUN=1 fails.
  void RunInNamespace(int protocol,
                      const std::function<void(NetlinkSocket&)>& body) {
    ::fflush(nullptr);
    const pid_t child = ::fork();
    if (child == 0) {
      if (::unshare(CLONE_NEWNET) != 0) ::_exit(kNotPermitted);
      ::alarm(60);
      absl::StatusOr<NetlinkSocket> socket = NetlinkSocket::Open(protocol);
      EXPECT_OK(socket);
      if (socket.ok()) body(*socket);
      ::fflush(nullptr);
      ::_exit(HasFailure() ? 1 : 0);
    }
    int status = -1;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    const char* must_run = ::getenv("CAISSON_TESTS_MUST_RUN");
    if (WIFEXITED(status) && WEXITSTATUS(status) == kNotPermitted &&
        (must_run == nullptr || *must_run != '1')) {
      GTEST_SKIP() << "unshare(CLONE_NEWNET) is not permitted";
    }
    EXPECT_EQ(status, 0)
        << "the child failed, or may not unshare(CLONE_NEWNET)";
  }

 private:
  static constexpr int kNotPermitted = 77;
};

}  // namespace caisson::sys

#endif  // CAISSON_LIB_SYS_NET_NAMESPACE_TEST_UTIL_H_
