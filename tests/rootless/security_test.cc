// Security policies of an ordinary user.
#include <linux/capability.h>

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "lib/base/status_matchers.h"
#include "lib/security/landlock.h"
#include "tests/rootless/rootless_test.h"
#include "tests/support/ordinary_user.h"

namespace caisson {
namespace {

using ::caisson::testing::Outcome;
using ::caisson::testing::RootlessTest;
using ::caisson::testing::RunIn;
using ::caisson::testing::Shell;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class SecurityTest : public RootlessTest {
 protected:
  // Without any privilege no capability counts on the host; inside they do.
  static std::string Under(Launcher& launcher, const testing::TestRoot& root,
                           const SecurityOptions& options, ProcessSpec spec) {
    auto policy = SecurityPolicy::Create(options);
    EXPECT_OK(policy);
    if (!policy.ok()) return "";
    spec.security = &*policy;
    auto outcome = RunIn(launcher, root.Options(), std::move(spec));
    EXPECT_OK(outcome);
    return outcome.ok() ? outcome->output : "";
  }

  static std::string Caps(const char* set, uint64_t value) {
    return absl::StrCat("Cap", set, ":\t", absl::Hex(value, absl::kZeroPad16),
                        "\n");
  }
};

TEST_F(SecurityTest, DefaultIsTheSame) {
  const std::string status =
      Under(single(), root(), {}, Shell("cat /proc/self/status"));
  EXPECT_THAT(
      status,
      AllOf(HasSubstr(Caps("Eff", 0xa80425fb)),
            HasSubstr(Caps("Bnd", 0xa80425fb)), HasSubstr(Caps("Inh", 0)),
            HasSubstr("NoNewPrivs:\t1"), HasSubstr("Seccomp:\t2")));
}

TEST_F(SecurityTest, SetsOfAnotherUser) {
  SecurityOptions options;
  options.unsafe_ambient_capabilities = {"NET_BIND_SERVICE"};
  options.securebits = kSecbitNoCapAmbientRaise;
  ProcessSpec spec = Shell("id -u; cat /proc/self/status");
  spec.user = "1000:1000";
  const std::string output = Under(many(), root(), options, std::move(spec));
  const uint64_t bind = uint64_t{1} << CAP_NET_BIND_SERVICE;
  EXPECT_THAT(output, AllOf(HasSubstr("1000\n"), HasSubstr(Caps("Eff", bind)),
                            HasSubstr(Caps("Amb", bind))));
}

// The filter and the rules need CAP_SYS_ADMIN then, of the user namespace.
TEST_F(SecurityTest, NewPrivilegesAndLandlock) {
  SecurityOptions options;
  options.unsafe_new_privileges = NewPrivilegesAllowed{};
  options.read_only_paths = {"/bin", "/proc"};
  options.unsafe_landlock_best_effort = LandlockBestEffort{};
  const std::string output =
      Under(single(), root(), options,
            Shell("cat /etc/passwd; cat /proc/self/status"));
  EXPECT_THAT(output,
              AllOf(HasSubstr("NoNewPrivs:\t0"), HasSubstr("Seccomp:\t2"),
                    HasSubstr(Caps("Eff", 0xa80425fb))));
  if (security::LandlockAbi() > 0) {
    EXPECT_THAT(output, HasSubstr("/etc/passwd': Permission denied"));
    EXPECT_THAT(output, Not(HasSubstr("root:x:0")));
  }
}

TEST_F(SecurityTest, HostAnswers) {
  SecurityOptions options;
  options.notify_syscalls = {"mkdir", "mkdirat"};
  ASSERT_OK_AND_ASSIGN(const auto policy, SecurityPolicy::Create(options));
  RootFsOptions root_options = root().Options();
  root_options.mounts = single().mounts();
  ASSERT_OK_AND_ASSIGN(RootFs fs, RootFs::Create(root_options));
  ProcessSpec spec = Shell("mkdir /etc/new && test ! -e /etc/new");
  spec.root = &fs;
  spec.security = &policy;
  ASSERT_OK_AND_ASSIGN(Process process, single().Start(spec));
  SeccompListener listener(process.TakeSeccompListener());
  ASSERT_OK_AND_ASSIGN(auto call, listener.Receive());
  EXPECT_GT(call.pid, 0);
  // The path is the first argument of mkdir, the second of mkdirat.
  const uint64_t address = call.args[call.name == "mkdir" ? 0 : 1];
  ASSERT_OK_AND_ASSIGN(const std::string path,
                       listener.ReadString(call, address));
  EXPECT_EQ(path, "/etc/new");
  EXPECT_OK(listener.Return(call.id, 0));
  ASSERT_OK_AND_ASSIGN(ExitStatus status, process.Wait());
  EXPECT_EQ(status.code, 0);
}

}  // namespace
}  // namespace caisson

int main(int argc, char** argv) {
  return caisson::testing::RunTestsAsOrdinaryUser(argc, argv);
}
