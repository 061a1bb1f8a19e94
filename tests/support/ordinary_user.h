// Tests that run as an ordinary user although the test runner is root.
#ifndef CAISSON_TESTS_SUPPORT_ORDINARY_USER_H_
#define CAISSON_TESTS_SUPPORT_ORDINARY_USER_H_

#include <sys/types.h>

namespace caisson::testing {

// The user and group. /etc/passwd calls it "caisson-test", and /etc/subuid and
// /etc/subgid give it ids, in the mount namespace of these tests alone.
inline constexpr uid_t kOrdinaryUser = 61234;
inline constexpr gid_t kOrdinaryGroup = 61235;
inline constexpr uid_t kFirstSubordinate = 700000;
inline constexpr uid_t kSubordinates = 65536;

// Beside $TEST_TMPDIR are two more directories: "locked", a mount that is ro,
// nosuid, nodev and noexec, and "covering", with a mount at "below". Both
// mounts have a "file".

// The user owns the cgroup v2 group $CAISSON_DELEGATED_GROUP, with a group
// "host" in which the tests run; not set where v2 is not mounted.

// main() of such a test program. As root it makes a mount namespace with these
// files and a directory that belongs to the user ($TEST_TMPDIR), and executes
// itself there as that user without any privilege; then it removes the
// directory. As anybody else it runs the tests.
int RunTestsAsOrdinaryUser(int argc, char** argv);

}  // namespace caisson::testing

#endif  // CAISSON_TESTS_SUPPORT_ORDINARY_USER_H_
