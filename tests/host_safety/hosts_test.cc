// Hosts that are unusual processes: whatever they are, they remain it.
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "lib/base/status_macros.h"
#include "tests/host_safety/scenario.h"
#include "tests/host_safety/workload.h"
#include "tests/support/test_root.h"

namespace caisson {
namespace {

using ::caisson::testing::LeavesTheHostAlone;
using ::caisson::testing::Passes;
using ::caisson::testing::StartMany;
using ::caisson::testing::TestRoot;

constexpr int kStarts = 60;

absl::Status StartsAndStaysAsItWas() {
  const TestRoot root;
  return LeavesTheHostAlone([&] { return StartMany(root, kStarts); });
}

// The kernel collects the children of such a process: a library that waited for
// a child of its own would get ECHILD.
absl::Status IgnoresSigchld() {
  ::signal(SIGCHLD, SIG_IGN);
  return StartsAndStaysAsItWas();
}

absl::Status CollectsNothing() {
  struct sigaction action = {};
  action.sa_handler = SIG_DFL;
  action.sa_flags = SA_NOCLDWAIT;
  ::sigaction(SIGCHLD, &action, nullptr);
  return StartsAndStaysAsItWas();
}

absl::Status BlocksAllSignals() {
  sigset_t all;
  ::sigfillset(&all);
  ::sigprocmask(SIG_BLOCK, &all, nullptr);
  return StartsAndStaysAsItWas();
}

// The numbers below 1024, which select(2) could take, are all in use, and none
// of what is open may get into a container or be closed.
absl::Status HasManyDescriptors() {
  const rlimit many = {8192, 8192};
  if (::setrlimit(RLIMIT_NOFILE, &many) != 0) {
    return absl::InternalError("setrlimit");
  }
  const TestRoot root;
  int fd = -1;
  while (fd < 1500) {
    // Without O_CLOEXEC.
    if ((fd = ::open("/dev/null", O_RDONLY)) < 0) {
      return absl::InternalError("open");
    }
  }
  return LeavesTheHostAlone([&] { return StartMany(root, kStarts); });
}

absl::Status HasNoStreams() {
  const TestRoot root;
  const int err = ::fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 10);
  for (const int fd : {0, 1, 2}) ::close(fd);
  const absl::Status status =
      LeavesTheHostAlone([&] { return StartMany(root, kStarts); });
  ::dup2(err, STDERR_FILENO);
  return status;
}

TEST(HostsTest, IgnoresSigchld) { EXPECT_TRUE(Passes("ignores SIGCHLD")); }
TEST(HostsTest, CollectsNothing) { EXPECT_TRUE(Passes("collects nothing")); }
TEST(HostsTest, BlocksAllSignals) { EXPECT_TRUE(Passes("blocks signals")); }
TEST(HostsTest, HasManyDescriptors) { EXPECT_TRUE(Passes("descriptors")); }
TEST(HostsTest, HasNoStreams) { EXPECT_TRUE(Passes("no streams")); }

}  // namespace
}  // namespace caisson

int main(int argc, char** argv) {
  return caisson::testing::RunTestsOrScenario(
      argc, argv,
      {{"ignores SIGCHLD", caisson::IgnoresSigchld},
       {"collects nothing", caisson::CollectsNothing},
       {"blocks signals", caisson::BlocksAllSignals},
       {"descriptors", caisson::HasManyDescriptors},
       {"no streams", caisson::HasNoStreams}});
}
