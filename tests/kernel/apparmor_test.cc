// AppArmor profiles of containers. Where the kernel has AppArmor, a profile is
// loaded with apparmor_parser(8); elsewhere only the refusal can be tested.
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "lib/security/lsm.h"
#include "tests/support/container_test.h"

namespace caisson {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::AllOf;
using ::testing::HasSubstr;

// Everything is allowed but three files and the network.
constexpr char kProfile[] = R"(
profile NAME flags=(attach_disconnected,mediate_deleted) {
  file,
  capability,
  signal,
  unix,
  deny /etc/group r,
  deny /tmp/denied w,
  deny network inet,
}
)";

bool HasAppArmor() { return security::RequireLsm("", "apparmor").ok(); }

// A loaded profile of this process's name.
class LoadedProfile final {
 public:
  LoadedProfile()
      : name_(absl::StrCat("caisson-test-", ::getpid())),
        file_(absl::StrCat(TempDirectory(), "/", name_)) {
    std::ofstream(file_) << absl::StrReplaceAll(kProfile, {{"NAME", name_}});
    EXPECT_EQ(Parse("--replace"), 0);
  }
  LoadedProfile(const LoadedProfile&) = delete;
  LoadedProfile& operator=(const LoadedProfile&) = delete;
  ~LoadedProfile() {
    EXPECT_EQ(Parse("--remove"), 0);
    ::unlink(file_.c_str());
  }
  const std::string& name() const { return name_; }

 private:
  static std::string TempDirectory() {
    const char* directory = ::getenv("TEST_TMPDIR");
    return directory != nullptr ? directory : "/tmp";
  }
  int Parse(const std::string& action) const {
    return ::system(
        absl::StrCat("apparmor_parser --skip-cache ", action, " ", file_)
            .c_str());
  }

  std::string name_;
  std::string file_;
};

class AppArmorTest : public testing::ContainerTest {
 protected:
  static absl::StatusOr<SecurityPolicy> Policy(const std::string& profile) {
    SecurityOptions options;
    options.apparmor_profile = profile;
    return SecurityPolicy::Create(options);
  }
};

TEST_F(AppArmorTest, HoldsInTheContainerAndWhatIsExecutedInIt) {
  if (!HasAppArmor()) {
    EXPECT_THAT(Policy("caisson-test").status(),
                StatusIs(absl::StatusCode::kFailedPrecondition,
                         AllOf(HasSubstr("apparmor is not active"),
                               HasSubstr("/sys/kernel/security/lsm"))));
    return;
  }
  const LoadedProfile profile;
  ASSERT_OK_AND_ASSIGN(const SecurityPolicy policy, Policy(profile.name()));
  const std::string script =
      "cat /proc/self/attr/current; cat /etc/passwd > /dev/null && echo read; "
      "cat /etc/group; echo x > /tmp/allowed && echo wrote; "
      "(echo x > /tmp/denied); nc -w 1 127.0.0.1 9; "
      // Nobody gets rid of it.
      "(echo -n 'changeprofile unconfined' > /proc/self/attr/current); "
      "cat /proc/self/attr/current";
  const std::string label = profile.name() + " (enforce)\n";
  const auto denied = AllOf(
      ::testing::StartsWith(label + "read\n"),
      HasSubstr("can't open '/etc/group': Permission denied"),
      HasSubstr("wrote\n"),
      HasSubstr("can't create /tmp/denied: Permission denied"),
      HasSubstr("nc: socket: Permission denied"), ::testing::EndsWith(label));

  ProcessSpec first = Shell("echo ready; sleep 1000");
  first.security = &policy;
  ASSERT_OK_AND_ASSIGN(const Running container, StartUntilOutput(first));
  ProcessSpec second = Shell(script);
  second.security = &policy;
  ASSERT_OK_AND_ASSIGN(Outcome outcome, Exec(*container.process, second));
  EXPECT_THAT(outcome.output, denied);
  ASSERT_OK(container.process->Signal(SIGKILL));
  ASSERT_OK(container.process->Wait());

  ASSERT_OK_AND_ASSIGN(outcome, Run(second));
  EXPECT_THAT(outcome.output, denied);
  // Without the profile, nothing of this is denied.
  ASSERT_OK_AND_ASSIGN(outcome, Run(Shell("cat /proc/self/attr/current; cat "
                                          "/etc/group > /tmp/denied && echo "
                                          "copied")));
  EXPECT_EQ(outcome.output, "unconfined\ncopied\n");
}

TEST_F(AppArmorTest, ProfileThatIsNotLoadedIsNamed) {
  if (!HasAppArmor()) return;
  ASSERT_OK_AND_ASSIGN(const SecurityPolicy policy, Policy("caisson-missing"));
  ProcessSpec spec = Shell("true");
  spec.security = &policy;
  EXPECT_THAT(Run(spec).status(),
              StatusIs(absl::StatusCode::kNotFound,
                       AllOf(HasSubstr("caisson-missing"),
                             HasSubstr("the profile is not loaded"))));
}

}  // namespace
}  // namespace caisson
