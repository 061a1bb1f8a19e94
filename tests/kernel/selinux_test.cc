// SELinux labels of containers and of their files. Where the kernel has SELinux
// and nobody has loaded a policy (a VM started with lsm=...,selinux), this
// loads one of its own, compiled by checkpolicy(8); on other kernels only the
// refusal can be tested.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "lib/security/lsm.h"
#include "tests/support/container_test.h"

namespace caisson {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::HasSubstr;

constexpr char kContainer[] = "u:r:container_t";
constexpr char kContainerFile[] = "u:object_r:file_t";
constexpr char kSecretFile[] = "u:object_r:secret_t";

// The kernel's initial contexts, in the order of its numbers for them.
constexpr const char* kInitialContexts[] = {"kernel",
                                            "security",
                                            "unlabeled",
                                            "fs",
                                            "file",
                                            "file_labels",
                                            "init",
                                            "any_socket",
                                            "port",
                                            "netif",
                                            "netmsg",
                                            "node",
                                            "igmp_packet",
                                            "icmp_socket",
                                            "tcp_socket",
                                            "sysctl_modprobe",
                                            "sysctl",
                                            "sysctl_fs",
                                            "sysctl_kernel",
                                            "sysctl_net",
                                            "sysctl_net_unix",
                                            "sysctl_vm",
                                            "sysctl_dev",
                                            "kmod",
                                            "policy",
                                            "scmp_packet",
                                            "devnull"};

// What it does not define is allowed: container_t may do anything but read
// secret_t.
std::string Policy() {
  std::string text = "class process\nclass process2\nclass file\n";
  for (const char* name : kInitialContexts) {
    absl::StrAppend(&text, "sid ", name, "\n");
  }
  absl::StrAppend(&text, R"(
class process { transition dyntransition }
class process2 { nnp_transition nosuid_transition }
class file { entrypoint read }
policycap nnp_nosuid_transition;
type kernel_t;
type container_t;
type file_t;
type secret_t;
role r;
role r types { kernel_t container_t };
allow kernel_t { kernel_t container_t }:process { transition dyntransition };
allow kernel_t container_t:process2 { nnp_transition nosuid_transition };
allow kernel_t { kernel_t container_t file_t secret_t }:file { entrypoint read };
allow container_t { kernel_t container_t file_t }:file { entrypoint read };
user u roles { r };
)");
  for (const char* name : kInitialContexts) {
    const bool kernel = absl::string_view(name) == "kernel";
    absl::StrAppend(&text, "sid ", name, " ",
                    kernel ? "u:r:kernel_t" : kContainerFile, "\n");
  }
  for (const char* type : {"ext4", "overlay"}) {
    absl::StrAppend(&text, "fs_use_xattr ", type, " ", kContainerFile, ";\n");
  }
  for (const char* type : {"tmpfs", "devpts", "mqueue", "devtmpfs"}) {
    absl::StrAppend(&text, "fs_use_trans ", type, " ", kContainerFile, ";\n");
  }
  for (const char* type : {"proc", "sysfs", "cgroup2", "rootfs"}) {
    absl::StrAppend(&text, "genfscon ", type, " / ", kContainerFile, "\n");
  }
  return text;
}

bool HasSelinux() { return security::RequireLsm("", "selinux").ok(); }

std::string Directory() {
  const char* directory = ::getenv("TEST_TMPDIR");
  return directory != nullptr ? directory : "/tmp";
}

class SelinuxTest : public testing::ContainerTest {
 protected:
  static void SetUpTestSuite() {
    if (HasSelinux()) LoadPolicy();
    ContainerTest::SetUpTestSuite();
  }

  // Never in the place of a policy that is somebody's.
  static void LoadPolicy() {
    std::ifstream current("/proc/self/attr/current");
    std::string label;
    std::getline(current, label, '\0');
    ASSERT_THAT(label, ::testing::StartsWith("kernel"))
        << "a policy is loaded already";
    const std::string base = Directory() + "/policy";
    std::ofstream(base + ".conf") << Policy();
    ASSERT_EQ(::system(absl::StrCat("checkpolicy -U allow -c 31 -o ", base,
                                    ".bin ", base, ".conf")
                           .c_str()),
              0);
    std::ifstream binary(base + ".bin", std::ios::binary);
    const std::string policy(std::istreambuf_iterator<char>(binary), {});
    // One write(2) has all of it.
    const UniqueFd load(::open("/sys/fs/selinux/load", O_WRONLY | O_CLOEXEC));
    ASSERT_TRUE(load.valid()) << ::strerror(errno);
    ASSERT_EQ(::write(load.get(), policy.data(), policy.size()),
              static_cast<ssize_t>(policy.size()))
        << ::strerror(errno);
    std::ofstream("/sys/fs/selinux/enforce") << "1";
    for (const char* suffix : {".conf", ".bin"}) {
      ::unlink((base + suffix).c_str());
    }
  }

  static absl::StatusOr<SecurityPolicy> Labelled(const std::string& label) {
    SecurityOptions options;
    options.selinux_label = label;
    return SecurityPolicy::Create(options);
  }
};

TEST_F(SelinuxTest, KernelWithoutItRefuses) {
  if (HasSelinux()) return;  // what it does then is tested below
  EXPECT_THAT(Labelled(kContainer).status(),
              StatusIs(absl::StatusCode::kFailedPrecondition,
                       HasSubstr("the security module selinux is not")));
  RootFsOptions options = root_->Options();
  options.mount_label = kContainerFile;
  EXPECT_THAT(
      Run(Shell("true"), options).status(),
      StatusIs(absl::StatusCode::kFailedPrecondition, HasSubstr("SELinux")));
}

TEST_F(SelinuxTest, LabelHoldsInTheContainerAndWhatIsExecutedInIt) {
  if (!HasSelinux()) return;
  const std::string secret = Directory() + "/secret";
  std::ofstream(secret) << "secret\n";
  ASSERT_EQ(::setxattr(secret.c_str(), "security.selinux", kSecretFile,
                       sizeof(kSecretFile), 0),
            0);
  RootFsOptions options = root_->Options();
  options.binds = {{.destination = "/secret", .source = secret}};
  const std::string script =
      "cat /proc/self/attr/current | tr -d '\\000'; echo; cat /secret";
  const std::string denied = absl::StrCat(
      kContainer, "\ncat: can't open '/secret': Permission denied\n");

  ASSERT_OK_AND_ASSIGN(const SecurityPolicy policy, Labelled(kContainer));
  ProcessSpec spec = Shell(script);
  spec.security = &policy;
  ASSERT_OK_AND_ASSIGN(Outcome outcome, Run(spec, options));
  EXPECT_EQ(outcome.output, denied);
  ASSERT_OK_AND_ASSIGN(outcome, Run(Shell(script), options));
  EXPECT_EQ(outcome.output, "u:r:kernel_t\nsecret\n");

  ProcessSpec first = Shell("echo ready; sleep 1000");
  first.security = &policy;
  ASSERT_OK_AND_ASSIGN(const Running container, StartUntilOutput(first));
  ProcessSpec second = Shell("cat /proc/self/attr/current | tr -d '\\000'");
  second.security = &policy;
  ASSERT_OK_AND_ASSIGN(outcome, Exec(*container.process, second));
  EXPECT_EQ(outcome.output, kContainer);
  ASSERT_OK(container.process->Signal(SIGKILL));
  ASSERT_OK(container.process->Wait());
  ::unlink(secret.c_str());
}

TEST_F(SelinuxTest, LabelThatThePolicyDoesNotKnowIsNamed) {
  if (!HasSelinux()) return;
  ASSERT_OK_AND_ASSIGN(const SecurityPolicy policy, Labelled("u:r:nothing_t"));
  ProcessSpec spec = Shell("true");
  spec.security = &policy;
  EXPECT_THAT(std::string(Run(spec).status().message()),
              HasSubstr("u:r:nothing_t"));
}

// A file's own label plays no part below a labelled mount.
TEST_F(SelinuxTest, MountLabelHoldsForEveryFile) {
  if (!HasSelinux()) return;
  root_->Write("data", "data\n");
  const std::string file = root_->path() + "/data";
  ASSERT_EQ(::setxattr(file.c_str(), "security.selinux", kSecretFile,
                       sizeof(kSecretFile), 0),
            0);
  ASSERT_OK_AND_ASSIGN(const SecurityPolicy policy, Labelled(kContainer));
  ProcessSpec spec = Shell("cat /data");
  spec.security = &policy;
  ASSERT_OK_AND_ASSIGN(Outcome outcome, Run(spec, root_->Options()));
  EXPECT_EQ(outcome.output, "cat: can't open '/data': Permission denied\n");
  RootFsOptions options = root_->Options();
  options.mount_label = kContainerFile;
  ASSERT_OK_AND_ASSIGN(outcome, Run(spec, options));
  EXPECT_EQ(outcome.output, "data\n");
}

}  // namespace
}  // namespace caisson
